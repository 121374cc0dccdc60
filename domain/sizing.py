"""Sizing: how much to grant, from what was used, with its working.

What was used in the last complete periods gives a base, by a named method; growth and margin are
added as exact fractions, and only the end is rounded: up, to a named step. So a proposal covers
what it was asked to cover, and anybody can compute it again.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from msgspec import Struct

from .contract import QUANTITY_MAX
from .refusals import Refused

Method = Literal["max", "mean", "percentile"]

PERIODS_MAX = 36
PERCENT_MAX = 1_000
STEPS = {
    "data": 1_000_000_000,
    "voice": 3_600,
    "messaging": 100,
    "video": 3_600,
    "money": 1_000_000,
}
"""A gigabyte, an hour, a hundred messages, a unit of the currency; 1 where none is given."""


class Assumptions(Struct, frozen=True):
    """What a proposal is made under."""

    periods: int = 3
    """Complete periods that are looked at, or as many as there are."""
    method: Method = "max"
    percentile: int | None = None
    """By nearest rank: of ten periods the 90th percentile is the second largest."""
    growth_percent: int = 0
    """Expected until the grant is used; negative where less is expected."""
    margin_percent: int = 10
    step: int | None = None
    """What proposals are multiples of; else by usage type."""

    def check(self) -> None:
        if not 1 <= self.periods <= PERIODS_MAX:
            raise Refused("bad_sizing", field="periods", remedy=f"1 to {PERIODS_MAX}")
        if (self.method == "percentile") != (self.percentile is not None):
            raise Refused("bad_sizing", field="percentile", remedy="it goes with the method percentile")
        if self.percentile is not None and not 1 <= self.percentile <= 100:
            raise Refused("bad_sizing", field="percentile", remedy="1 to 100")
        if not -100 <= self.growth_percent <= PERCENT_MAX:
            raise Refused("bad_sizing", field="growth_percent", remedy=f"-100 to {PERCENT_MAX}")
        if not 0 <= self.margin_percent <= PERCENT_MAX:
            raise Refused("bad_sizing", field="margin_percent", remedy=f"0 to {PERCENT_MAX}")
        if self.step is not None and not 1 <= self.step <= QUANTITY_MAX:
            raise Refused("bad_sizing", field="step", remedy=f"1 to {QUANTITY_MAX}")

    def working(self, proposal: "Proposal") -> str:
        """How a proposal came about, as a sentence."""
        method = f"{self.percentile}th percentile" if self.method == "percentile" else self.method
        return (
            f"{method} of {len(proposal.replayed)} periods: {proposal.base}"
            f" x {100 + self.growth_percent}/100 x {100 + self.margin_percent}/100 = {proposal.with_margin},"
            f" rounded up to a multiple of {proposal.step}: {proposal.quantity}"
        )


class Past(Struct, frozen=True):
    """A complete period: what was used, and what of it no allowance covered."""

    period: str
    used: int
    overage: int


class Replayed(Struct, frozen=True):
    """How a past period would have gone with the proposal as all there was."""

    period: str
    used: int
    overage: int
    """As it was."""
    overage_then: int
    """What would have gone beyond the proposal."""
    overage_avoided: int
    """`overage` - `overage_then`: negative where more was available than is proposed."""
    unused: int
    """What of the proposal would have been left."""


class Proposal(Struct, frozen=True):
    """A grant for each period, and every step on the way to it."""

    base: Fraction
    grown: Fraction
    with_margin: Fraction
    step: int
    quantity: int
    """`with_margin` rounded up to a multiple of `step`."""
    replayed: tuple[Replayed, ...]


def propose(history: Sequence[Past], assumed: Assumptions, usage_type: str) -> Proposal:
    """What to grant of a usage type; nothing where nothing is known."""
    base = base_of([past.used for past in history], assumed)
    grown = base * Fraction(100 + assumed.growth_percent, 100)
    with_margin = grown * Fraction(100 + assumed.margin_percent, 100)
    step = assumed.step or STEPS.get(usage_type, 1)
    quantity = round_up_to(step, with_margin)
    replayed = tuple(_replayed(past, quantity) for past in history)
    return Proposal(base, grown, with_margin, step, quantity, replayed)


def base_of(used: Sequence[int], assumed: Assumptions) -> Fraction:
    if not used:
        return Fraction(0)
    if assumed.percentile is not None:
        rank = -(-assumed.percentile * len(used) // 100)
        return Fraction(sorted(used)[rank - 1])
    return Fraction(max(used)) if assumed.method == "max" else Fraction(sum(used), len(used))


def round_up_to(step: int, quantity: Fraction) -> int:
    """The only rounding here."""
    return -(-quantity.numerator // (quantity.denominator * step)) * step


def _replayed(past: Past, quantity: int) -> Replayed:
    then = max(0, past.used - quantity)
    unused = max(0, quantity - past.used)
    return Replayed(past.period, past.used, past.overage, then, past.overage - then, unused)
