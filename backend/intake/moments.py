"""Moments: the times of a row, read once and checked against the durations that it states.

A row whose durations contradict its times is not vouched for. Only in the hour that clocks repeat
once a year, where a local time has two readings, do the durations decide between them.
"""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from itertools import product
from typing import Any

from .amounts import counted
from .clocks import MICROSECONDS, time_reader
from .declaration import Check, Format
from .places import Locate, Unvouched, label, text_at

SECONDS_SAID_MAX = 9_999_999

Moments = list[int | None]
"""The times of a row, in the order of `times.at`."""
Agreement = Callable[[Any, Moments], str]
"""What is wrong with the times of a row, or ""."""


def moments_reader(format: Format, locate: Locate, time_zone: str) -> Callable[[Any], Moments]:
    earlier = _reader_of_times(format, locate, time_zone, fold=0)
    later = _reader_of_times(format, locate, time_zone, fold=1)
    agreements = _agreements(format, locate)
    if not agreements:
        return earlier

    def moments_of(row: Any) -> Moments:
        moments = earlier(row)
        for disagreement in agreements:
            if disagreement(row, moments):
                return _settled(row, moments, later(row), agreements)
        return moments

    return moments_of


def _settled(row: Any, earlier: Moments, later: Moments, agreements: list[Agreement]) -> Moments:
    """In the hour that happens twice each year, the reading that agrees with the stated durations."""
    for choice in product(*({a: None, b: None} for a, b in zip(earlier, later, strict=True))):
        if not any(disagreement(row, list(choice)) for disagreement in agreements):
            return list(choice)
    problem = next(filter(None, (disagreement(row, earlier) for disagreement in agreements)))
    column, _, detail = problem.partition(": ")
    raise Unvouched("contradictory", column, f"{detail}; find out which is right, correct it and recycle")


def _reader_of_times(format: Format, locate: Locate, time_zone: str, fold: int) -> Callable[[Any], Moments]:
    times = format.times
    parse = time_reader(times.format, times.zone, time_zone, fold)
    absent = frozenset(("", *times.none))
    readers = [(text_at(places, locate), label(places)) for places in times.at.values()]

    def moments_of(row: Any) -> Moments:
        moments: Moments = []
        for read, column in readers:
            text = read(row)
            try:
                moments.append(None if text in absent else parse(text))
            except (ValueError, OverflowError) as error:
                detail = _without_text(error, text, f"is not a time written as {times.format}")
                raise Unvouched("bad_value", column, f"{column} {detail}") from error
        return moments

    return moments_of


def _without_text(error: Exception, text: str, otherwise: str) -> str:
    """Our own sentences never quote; those of the standard library do."""
    detail = str(error)
    return detail if detail.startswith(("is ", "does ")) and text not in detail else otherwise


def started_at_reader(format: Format) -> Callable[[Moments], int]:
    names = list(format.times.at)
    order = [names.index(name) for name in format.times.started_at]
    column = label(format.times.at[format.times.started_at[-1]])

    def started_at(moments: Moments) -> int:
        for i in order:
            if (moment := moments[i]) is not None:
                return moment
        raise Unvouched("missing_field", column, f"{column} is empty or missing")

    return started_at


def _agreements(format: Format, locate: Locate) -> list[Agreement]:
    found = [_agreement(check, format, locate) for check in format.checks]
    if (start := format.quantity.start) is not None and (end := format.quantity.end) is not None:
        found.append(_forwards(start, end, list(format.times.at)))
    return found


def _agreement(check: Check, format: Format, locate: Locate) -> Agreement:
    names = list(format.times.at)
    start, end = names.index(check.start), names.index(check.end)
    tolerance = check.tolerance_seconds * MICROSECONDS
    read, column = locate(check.duration), check.duration

    def disagreement(row: Any, moments: Moments) -> str:
        if not (text := read(row)):
            return ""  # What says nothing contradicts nothing.
        stated = _stated(text, check) * MICROSECONDS
        spanned = span(moments[start], moments[end])
        excess: int | Fraction = stated - spanned
        if check.must == "equal" and excess < 0:
            excess = -excess
        if excess <= tolerance and spanned >= 0:
            return ""
        said, found = _in_seconds(int(stated)), _in_seconds(spanned)
        return f"{column}: {column} says {said} s, but {check.start} to {check.end} is {found} s"

    return disagreement


def _in_seconds(microseconds: int) -> str:
    # A duration this long is another column, perhaps a telephone number, and must not be repeated.
    if microseconds >= SECONDS_SAID_MAX * MICROSECONDS:
        return f"over {SECONDS_SAID_MAX}"
    return f"{Decimal(microseconds) / MICROSECONDS:f}"


def _stated(text: str, check: Check) -> int | Fraction:
    try:
        return counted(text, check.unit)
    except ValueError as error:
        raise Unvouched("bad_value", check.duration, f"{check.duration} {error}") from error


def _forwards(start: str, end: str, names: list[str]) -> Agreement:
    first, last = names.index(start), names.index(end)

    def disagreement(row: Any, moments: Moments) -> str:
        return f"{end}: {end} is before {start}" if span(moments[first], moments[last]) < 0 else ""

    return disagreement


def span(start: int | None, end: int | None) -> int:
    return 0 if start is None or end is None else end - start
