"""Rounding: up to increments, and of money, once per charge, by the method its tariff names."""

from .language import Method


def round_up_to(increment: int, quantity: int) -> int:
    return -(-quantity // increment) * increment


def round_to(step: int, method: Method, numerator: int, denominator: int) -> int:
    """The multiple of `step` nearest to a fraction that is not negative, by the named method."""
    whole, rest = divmod(numerator, denominator * step)
    if rest:
        over_half = 2 * rest - denominator * step
        whole += _goes_up(method, over_half, whole)
    return whole * step


def _goes_up(method: Method, over_half: int, whole: int) -> bool:
    match method:
        case "up":
            return True
        case "down":
            return False
        case "half_up":
            return over_half >= 0
        case "half_even":
            return over_half > 0 or (over_half == 0 and whole % 2 == 1)
