"""Credit pools: several services of one session use up what money was reserved for all of them.

As RFC 8506 §5.1.2 has it: each service is told what a unit of it takes out of the pool, and may use more
than its own slice as long as all of them together take no more than the slices at these values. So a
pooled service must cost exactly so much by the unit, with nothing but money to stop it.
"""

from fractions import Fraction

from .hold import Terms
from .rating.rate import CompiledRate

ANY_QUANTITY = 1 << 60


def unit_value(terms: Terms) -> tuple[int, int] | None:
    """What a unit takes out of the pool, exact, in micro-units; None where the service cannot share one."""
    rate = terms.rate
    if not _is_linear(rate) or not terms.costs_as_rated():
        return None
    if terms.limits.stop(terms.family, terms.path, ANY_QUANTITY, terms.asked.at) is not None:
        # What it takes from another service's slice would pass a limit on its own units.
        return None
    value = Fraction(rate.num, rate.den)
    return value.numerator, value.denominator


def _is_linear(rate: CompiledRate) -> bool:
    """Every unit costs the same, and none is covered by an allowance."""
    return rate.plain and not rate.included and rate.increment == 1 and rate.minimum <= 1 and rate.num > 0
