"""Standing: how far a plan has counted when a use is rated, and what the use adds to that.

A charge carries both, so that it can be rated again, explained and proven without any other event.
"""

from fractions import Fraction

from msgspec import Struct

from .plan import CompiledPlan


class Counted(Struct, frozen=True, array_like=True):
    """What a charge has added to a plan's counter, and what was there before."""

    plan: str
    of: int
    """Whose counter: an ordinal of its path."""
    before: int
    """Units that the period had counted."""
    spent_before: int
    """What they were charged, in micro-units."""
    units: int
    """Of this charge: what no allowance covered, and no policy priced."""
    spent: int
    """What these units were charged, rounded as a charge is."""


class Standing(Struct, frozen=True):
    """A plan, and where one of its counters stands."""

    plan: CompiledPlan
    of: int
    units: int = 0
    spent: int = 0

    def exact(self, own: Fraction, units: int) -> Fraction:
        """What units after those counted cost, in micro-units, no more than the cap has left.

        `own`: what their rate asks of them by itself: a connect fee, and their price where the plan has none.
        """
        return self.held(own + self.plan.cost(self.units, units))

    def held(self, wanted: Fraction) -> Fraction:
        """No more than the cap has left."""
        left = self.plan.left(self.spent)
        return wanted if left is None or wanted <= left else Fraction(left)

    def counted(self, units: int, spent: int) -> Counted:
        return Counted(self.plan.plan.plan, self.of, self.units, self.spent, units, spent)


def again(plan: CompiledPlan, counted: Counted) -> Standing:
    """The standing that a charge was rated with."""
    return Standing(plan, counted.of, counted.before, counted.spent_before)
