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
from .declaration import Check, Derived, Format, Places, time_names
from .places import Locate, Unvouched, label, text_at

SECONDS_SAID_MAX = 9_999_999

Moments = list[int | None]
"""The times of a row, in the order of `times.at`."""
Agreement = Callable[[Any, Moments], str]
"""What is wrong with the times of a row, or ""."""
Late = Callable[[Any, Moments], int | None]
"""A time made of another one."""


def moments_reader(format: Format, locate: Locate, time_zone: str) -> Callable[[Any], Moments]:
    earlier = _derived(_reader_of_times(format, locate, time_zone, fold=0), format, locate)
    later = _derived(_reader_of_times(format, locate, time_zone, fold=1), format, locate)
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

    def moment_at(places: Places) -> Callable[[Any], int | None]:
        read, column = text_at(places, locate), label(places)

        def moment(row: Any) -> int | None:
            text = read(row)
            try:
                return None if text in absent else parse(text)
            except (ValueError, OverflowError) as error:
                detail = _without_text(error, text, f"is not a time written as {times.format}")
                raise Unvouched("bad_value", column, f"{column} {detail}") from error

        return moment

    readers = [moment_at(places) for places in times.at.values()]
    if len(readers) == 1:
        only = readers[0]
        return lambda row: [only(row)]
    return lambda row: [moment(row) for moment in readers]


def _derived(read: Callable[[Any], Moments], format: Format, locate: Locate) -> Callable[[Any], Moments]:
    """The times as read, and those that are made of them."""
    names = list(format.times.at)
    makers = [_maker(names.index(one.start), one, locate) for one in format.times.derived.values()]
    if not makers:
        return read

    def moments_of(row: Any) -> Moments:
        moments = read(row)
        return moments + [make(row, moments) for make in makers]

    return moments_of


def _maker(base: int, derived: Derived, locate: Locate) -> Late:
    lengths = [(1, column, locate(column)) for column in derived.plus]
    lengths += [(-1, column, locate(column)) for column in derived.minus]

    def make(row: Any, moments: Moments) -> int | None:
        if (moment := moments[base]) is None:
            return None
        for sign, column, read in lengths:
            if text := read(row):
                moment += sign * _microseconds(text, derived.unit, column)
        return moment

    return make


def _microseconds(text: str, unit: str, column: str) -> int:
    try:
        length = counted(text, unit)
    except ValueError as error:
        raise Unvouched("bad_value", column, f"{column} {error}") from error
    if not 0 <= length <= SECONDS_SAID_MAX:
        raise Unvouched("bad_value", column, f"{column} is no length of time between two events")
    return int(length * MICROSECONDS)


def _without_text(error: Exception, text: str, otherwise: str) -> str:
    """Our own sentences never quote; those of the standard library do."""
    detail = str(error)
    return detail if detail.startswith(("is ", "does ")) and text not in detail else otherwise


def started_at_reader(format: Format) -> Callable[[Moments], int]:
    names = time_names(format.times)
    order = [names.index(name) for name in format.times.started_at]
    last = format.times.started_at[-1]
    column = label(format.times.at.get(last) or format.times.at[format.times.derived[last].start])

    def started_at(moments: Moments) -> int:
        for i in order:
            if (moment := moments[i]) is not None:
                return moment
        raise Unvouched("missing_field", column, f"{column} is empty or missing")

    return started_at


def _agreements(format: Format, locate: Locate) -> list[Agreement]:
    found = [_agreement(check, format, locate) for check in format.checks]
    if (start := format.quantity.start) is not None and (end := format.quantity.end) is not None:
        found.append(_forwards(start, end, time_names(format.times)))
    return found


def _agreement(check: Check, format: Format, locate: Locate) -> Agreement:
    names = time_names(format.times)
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
