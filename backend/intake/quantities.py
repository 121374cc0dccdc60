"""Quantities: how much a row says was used, as a whole number of the usage type's unit.

A column, a sum of columns, or the span between two times; computed exactly, and rounded only as
the format says. What cannot be counted raises `Unvouched`.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from ...domain.usage import USAGE_TYPES
from .amounts import AMOUNT_MAX, counted, whole
from .clocks import MICROSECONDS
from .declaration import CLOCK, UNITS, Format, Quantity, terms_of, time_names
from .moments import Moments, span
from .places import Locate, Text, Unvouched, label, required, text_at

QuantityOf = Callable[[Any, str, Moments], int]
DIGITS_MAX = 18
"""Of a number that is counted without further ado."""

_OWN_UNIT = {"second": "s", "byte": "byte", "message": "message"}


def quantity_reader(format: Format, locate: Locate) -> QuantityOf:
    """Row, usage type, times -> quantity."""
    quantity = format.quantity
    if quantity.at is None and not quantity.sum:
        return _spanned(quantity, time_names(format.times))
    carefully = _added(quantity, locate)
    return carefully if quantity.sum else _quickly(quantity, locate, carefully)


def seconds_of(microseconds: int, quantity: Quantity) -> int:
    """A length of time as a quantity, rounded as the format says."""
    seconds, part = divmod(microseconds, MICROSECONDS)
    try:
        return whole(Fraction(microseconds, MICROSECONDS) if part else seconds, quantity.round)
    except ValueError as error:
        raise Unvouched("bad_value", quantity.end or "", f"the span {error}") from error


def _quickly(quantity: Quantity, locate: Locate, carefully: QuantityOf) -> QuantityOf:
    """Plain digits in a known unit; everything else is read carefully."""
    assert quantity.at is not None, "a sum is read carefully"
    read = text_at(quantity.at, locate)
    scales = {
        usage_type: (UNITS[unit][1] * quantity.times, UNITS[unit][2])
        for usage_type, unit in _units(quantity).items()
        if unit != CLOCK
    }
    rounding = quantity.round

    def quantity_of(row: Any, usage_type: str, moments: Moments) -> int:
        text = read(row)
        scale = scales.get(usage_type)
        if scale is None or not (text.isdecimal() and text.isascii() and len(text) <= DIGITS_MAX):
            return carefully(row, usage_type, moments)
        units, rest = divmod(int(text) * scale[0], scale[1])
        if rest:
            if rounding == "refuse":
                return carefully(row, usage_type, moments)
            units += rounding == "up" or (rounding == "half_up" and 2 * rest >= scale[1])
        return units if units <= AMOUNT_MAX else carefully(row, usage_type, moments)

    return quantity_of


def _added(quantity: Quantity, locate: Locate) -> QuantityOf:
    texts, column = _terms(quantity, locate)
    units = _units(quantity)
    # Of a type of the carrier's own without a declared unit, units are counted.
    usual = "message" if quantity.unit is None else None

    def quantity_of(row: Any, usage_type: str, moments: Moments) -> int:
        try:
            unit = units.get(usage_type, usual)
            if unit is None:
                raise KeyError(usage_type)
            amounts = [counted(text, unit) * times for read, times in texts if (text := read(row))]
            if not amounts:
                required("", column)
            return whole(sum(amounts), quantity.round)
        except ValueError as error:
            raise Unvouched("bad_value", column, f"{column} {error}") from error
        except KeyError as error:
            detail = f"{column} has no unit for {usage_type}; declare one in quantity.unit"
            raise Unvouched("bad_value", column, detail) from error

    return quantity_of


def _terms(quantity: Quantity, locate: Locate) -> tuple[list[tuple[Text, int]], str]:
    if quantity.sum:
        terms = terms_of(quantity)
        return [(locate(term.at), term.times) for term in terms], terms[0].at
    assert quantity.at is not None, "a format that loads gives one of the three"
    return [(text_at(quantity.at, locate), quantity.times)], label(quantity.at)


def _units(quantity: Quantity) -> dict[str, str]:
    """Usage type -> unit of the column, for the usage types that the unit can count."""
    if isinstance(quantity.unit, dict):
        return quantity.unit
    units = {usage_type: quantity.unit or _OWN_UNIT[unit] for usage_type, unit in USAGE_TYPES.items()}
    return {
        usage_type: unit for usage_type, unit in units.items() if UNITS[unit][0] == USAGE_TYPES[usage_type]
    }


def _spanned(quantity: Quantity, names: list[str]) -> QuantityOf:
    start, end = names.index(quantity.start or ""), names.index(quantity.end or "")

    def quantity_of(row: Any, usage_type: str, moments: Moments) -> int:
        if USAGE_TYPES.get(usage_type) != "second":
            detail = f"a span between times cannot be counted as {usage_type}"
            raise Unvouched("bad_value", quantity.end or "", detail)
        return seconds_of(span(moments[start], moments[end]), quantity)

    return quantity_of
