"""Rates under a plan: what units cost by where the plan stands, beside what their rate asks by itself.

The rate says what is billed, and asks connect fees and the like; the plan prices the units, or caps
what a rate with a price of its own asks. Rounded once, as every charge.
"""

from fractions import Fraction
from typing import ClassVar

from msgspec.structs import replace

from .basis import NO_BASIS, Basis
from .language import Priced
from .plan import CompiledPlan
from .rate import EXACT_MAX, CompiledRate, Rated, money
from .rounding import round_to
from .standing import Standing, again


class PlannedRate(CompiledRate):
    """A rate, bound to where its plan stands for one use."""

    plain: ClassVar[bool] = False

    __slots__ = ("basis", "inner", "plan", "standing")

    def __init__(self, inner: CompiledRate, standing: Standing) -> None:
        for name in CompiledRate.__slots__:
            setattr(self, name, getattr(inner, name))
        self.inner = inner
        self.plan: CompiledPlan | None = standing.plan
        self.standing = standing
        basis = inner.basis
        self.basis: Basis | None = basis and replace(basis, counted=None)

    def priced(self, price: Priced) -> CompiledRate:  # type: ignore[override]
        """A price that was agreed on for all units takes the place of the plan."""
        return self.inner.priced(price)

    def billed(self, quantity: int) -> int:
        return self.inner.billed(quantity)

    def rate(self, billed: int, taken: int = 0, at: int = 0) -> Rated:
        own = self.inner.rate(billed, taken, at)
        if own.overage <= 0 or max(own.exact) >= EXACT_MAX:
            return own
        exact = self.standing.exact(Fraction(*own.exact), own.overage)
        amount = round_to(self.step, self.method, exact.numerator, exact.denominator)
        return Rated(own.overage, amount, (exact.numerator, exact.denominator))

    def told(self, rated: Rated, above: int = 0, price: str = "0", per: int = 1) -> Basis | None:
        """With what the charge adds to the plan: all but the units that a policy prices."""
        units, spent = rated.overage - above, rated.amount
        if units <= 0:
            return self.basis
        if above:
            exact = Fraction(*rated.exact) - above * money(price) * Fraction(1, per)
            spent = round_to(self.step, self.method, exact.numerator, exact.denominator)
        return replace(self.basis or NO_BASIS, counted=self.standing.counted(units, spent))


def as_it_was(rate: CompiledRate, plan: CompiledPlan | None, basis: Basis | None) -> CompiledRate:
    """A rate as a charge has applied it, under its plan where that has counted."""
    counted = basis.counted if basis is not None else None
    return rate if plan is None or counted is None else PlannedRate(rate, again(plan, counted))
