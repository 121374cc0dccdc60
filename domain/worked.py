"""Worked: the components of a charge that stands in the log, by the rate that charged it."""

from decimal import Decimal
from fractions import Fraction

from .charging import UsageCharged, rated_again
from .policy import EMERGENCY
from .rating.working import Component, check_working, working
from .tariff import MICRO, CompiledRate


def working_of(rate: CompiledRate, charge: UsageCharged) -> list[Component]:
    """They add up to the charge's exact amount; a call for help has none."""
    if charge.payer == EMERGENCY:
        return []
    taken, ruling = charge.billed - charge.overage, charge.ruling
    if ruling is None or ruling.action != "overage":
        return working(rate, charge.billed, taken, charge.started_at)
    rest = charge.billed - ruling.above
    told = working(rate, rest, taken, charge.started_at)
    if ruling.above:
        cost = ruling.above * Fraction(Decimal(ruling.price)) * Fraction(MICRO, ruling.per)
        price = (0, "", ruling.price, ruling.per)
        told.append(Component("policy_price", cost, rest, charge.billed, *price))
    check_working(told, rated_again(rate, charge))
    return told
