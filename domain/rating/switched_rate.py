"""Switched rates: a session that went on while other prices began to hold, as its reports tell.

What is counted in seconds tells by itself when each unit was used; of bytes only the reports know. So each
unit costs what the rate asks that held when it was reported; an increment that was begun is finished at its
price. All else is the first rate's: what is billed, fees, minimum and maximum, rounding. However
reports are cut between two switches, the same units cost the same.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

from msgspec.structs import replace

from .basis import Basis, Switch
from .language import Priced, Rate
from .rate import CompiledRate, per_unit
from .shaped import PiecedRate, ShapedRate, prices_of

SWITCHES_MAX = 1_000
"""Of one session; one that has had so many goes on at its last price."""

RateOf = Callable[[int, int], CompiledRate]
"""A rate by version and place."""


class Stretch(NamedTuple):
    """Billed units [begins, ends) at a rate; of the last one `ends` is what is billed."""

    begins: int
    ends: int
    rate: CompiledRate
    since: int
    """Since when it holds for them; 0 since the start."""


class SwitchedRate(PiecedRate):
    """A rate, with those that came after it in one session."""

    __slots__ = ("_starts", "basis", "following", "inner", "plan")

    def __init__(self, inner: CompiledRate, basis: Basis, rate_of: RateOf) -> None:
        for name in CompiledRate.__slots__:
            setattr(self, name, getattr(inner, name))
        self.inner = inner
        self.plan = inner.plan
        self.basis: Basis = basis
        self.following = [rate_of(one.tariff, one.rate) for one in basis.switches]
        self._starts = [inner.billed(one.begins) for one in basis.switches]

    @property
    def last(self) -> CompiledRate:
        """What holds for what is used next."""
        return self.following[-1]

    @property
    def most(self) -> Fraction | None:
        return self.inner.most if isinstance(self.inner, ShapedRate) else None

    def priced(self, price: Priced) -> CompiledRate:  # type: ignore[override]
        """A price that was agreed on for all units takes the place of all others."""
        return self.inner.priced(price)

    def billed(self, quantity: int) -> int:
        return self.inner.billed(quantity)

    def is_beyond(self, billed: int) -> bool:
        return isinstance(self.inner, ShapedRate) and self.inner.is_beyond(billed)

    def unheld(self, billed: int, taken: int, at: int) -> Fraction:
        """The cost before minimum and maximum."""
        inner = self.inner
        cost = Fraction(inner.fee, inner.den)
        for one in self.stretches(billed, taken):
            cost += _cost(one, at)
        if isinstance(inner, ShapedRate) and inner.percent is not None:
            cost += inner.percentage()
        return cost

    def held(self, cost: Fraction) -> Fraction:
        return self.inner.held(cost) if isinstance(self.inner, ShapedRate) else cost

    def stretches(self, billed: int, taken: int) -> Iterator[Stretch]:
        """What is to be paid for, cut where other prices begin to hold."""
        rates = [self.inner, *self.following]
        since = [0, *(one.at for one in self.basis.switches)]
        bounds = ([0, *self._starts], [*self._starts, billed])
        for rate, at, starts, stops in zip(rates, since, *bounds, strict=True):
            begins, ends = max(starts, taken), min(stops, billed)
            if begins < ends:
                yield Stretch(begins, ends, rate, at)


def switched(rate: CompiledRate, basis: Basis | None, rate_of: RateOf) -> CompiledRate:
    """A rate with what came after it, by what a charge or session knows of it."""
    if basis is None or not basis.switches:
        return rate
    return SwitchedRate(rate, basis, rate_of)


def with_switches(basis: Basis | None, switches: tuple[Switch, ...]) -> Basis | None:
    if not switches and basis is None:
        return None
    return replace(basis or Basis(), switches=switches)


def costs_alike(one: Rate, other: Rate) -> bool:
    """Whether their units have one price, wherever in a usage they stand."""
    return _prices(one) == _prices(other)


def _prices(rate: Rate) -> list[tuple[int, Fraction]]:
    starts = (0, *(band.starts for band in rate.bands))
    return [(start, per_unit(one)) for start, one in zip(starts, prices_of(rate), strict=True)]


def _cost(stretch: Stretch, at: int) -> Fraction:
    begins, ends, rate, _ = stretch
    if not isinstance(rate, ShapedRate):
        return Fraction((ends - begins) * rate.num, rate.den)
    return Fraction(sum(number * piece.num for piece, number in rate.parts(ends, begins, at)), rate.den)
