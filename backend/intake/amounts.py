"""Amounts: the text of a quantity as a whole number of units, without a float on the way."""

import re
from collections.abc import Callable
from fractions import Fraction

from .declaration import CLOCK, UNITS

AMOUNT_MAX = 2**63 - 1
"""What the store can hold."""

_DECIMAL = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?")
_CLOCK = re.compile(r"(?:([0-9]{1,9}):)?([0-9]{1,9}):([0-9]{2}(?:\.[0-9]{1,9})?)")


def exact(text: str) -> int | Fraction:
    """A decimal number, exactly."""
    if text.isdigit() and text.isascii() and len(text) <= 30:
        return int(text)
    if not _DECIMAL.fullmatch(text):
        raise ValueError("is not a decimal number")
    return Fraction(text)


def counted(text: str, unit: str) -> int | Fraction:
    """How many of the usage type's unit a text in this unit says."""
    _, times, divided_by = UNITS[unit]
    value = _clock(text) if unit == CLOCK else exact(text)
    return value if times == divided_by else Fraction(value * times, divided_by)


def whole(value: int | Fraction, rounding: str) -> int:
    """A whole number, not negative, that can be stored. `rounding` as a format declares it."""
    if value < 0:
        raise ValueError("is negative")
    amount = value if isinstance(value, int) else _ROUNDINGS[rounding](value.numerator, value.denominator)
    if amount > AMOUNT_MAX:
        raise ValueError("is too large to be true")
    return amount


def _clock(text: str) -> int | Fraction:
    if (found := _CLOCK.fullmatch(text)) is None:
        raise ValueError("is not written as hh:mm:ss")
    hours, minutes, seconds = found.groups()
    return (int(hours or 0) * 60 + int(minutes)) * 60 + exact(seconds)


def _refuse(numerator: int, denominator: int) -> int:
    if numerator % denominator:
        raise ValueError("is not a whole number of units; declare how to round it")
    return numerator // denominator


_ROUNDINGS: dict[str, Callable[[int, int], int]] = {
    "up": lambda numerator, denominator: -(-numerator // denominator),
    "down": lambda numerator, denominator: numerator // denominator,
    "half_up": lambda numerator, denominator: (2 * numerator + denominator) // (2 * denominator),
    "refuse": _refuse,
}
