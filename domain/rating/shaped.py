"""Shaped rates: bands inside a usage, windows of time, multiples, percentages, least and most.

A usage is cut into pieces in which one price holds. The sum of the pieces, the fee and the percentage,
held between minimum and maximum charge, is what it costs; nothing is rounded before that.
"""

from collections.abc import Iterator, Mapping
from copy import copy
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import ClassVar, NamedTuple

from ..refusals import Refused
from .basis import NO_BASIS, Basis
from .language import PRICE, VALUE, Band, Priced, Rate
from .plan import CompiledPlan
from .rate import EXACT_MAX, NOTHING, Attributes, CompiledRate, Rated, Version, money, per_unit, told
from .rounding import round_to, round_up_to
from .windows import SECOND, Clock

SPLIT_SECONDS_MAX = 31 * 86_400
"""No usage is split that is longer; nor is it charged."""
TIMES_MAX = 10_000
BEYOND = EXACT_MAX, 1
"""An exact amount that nothing can hold."""


class Step(NamedTuple):
    """A band as increments fall into it: its first one begins at `begins`."""

    begins: int
    first: int
    """How long the first increment is: the band's minimum, rounded up."""
    increment: int

    def ceiling(self, position: int) -> int:
        """Where an increment begins, at a position or after it; the first one's end at the earliest."""
        return self.begins + max(self.first, round_up_to(self.increment, position - self.begins))


class Piece(NamedTuple):
    """Positions [begins, ends) of a usage, in which one price holds."""

    begins: int
    ends: int
    band: int
    window: str
    num: int
    """The price of a unit, over the rate's denominator."""


class PiecedRate(CompiledRate):
    """A rate whose cost is the sum of pieces, held between bounds, and rounded once."""

    plain: ClassVar[bool] = False

    __slots__ = ()

    def rate(self, billed: int, taken: int = 0, at: int = 0) -> Rated:
        if billed <= taken:
            return NOTHING
        if self.is_beyond(billed):
            return Rated(billed - taken, EXACT_MAX, BEYOND)
        exact = self.held(self.unheld(billed, taken, at))
        amount = round_to(self.step, self.method, exact.numerator, exact.denominator)
        return Rated(billed - taken, amount, (exact.numerator, exact.denominator))

    def is_beyond(self, billed: int) -> bool:
        """Whether so much is billed that no amount can hold what it costs."""
        raise NotImplementedError

    def unheld(self, billed: int, taken: int, at: int) -> Fraction:
        """The cost before minimum and maximum."""
        raise NotImplementedError

    def held(self, cost: Fraction) -> Fraction:
        """The cost between minimum and maximum."""
        raise NotImplementedError


class ShapedRate(PiecedRate):
    """A rate that is not plain, and what it was bound to of one usage."""

    __slots__ = (
        "_bound",
        "basis",
        "clock",
        "least",
        "most",
        "nums",
        "percent",
        "plan",
        "rows",
        "steps",
        "times",
        "value",
    )

    def __init__(
        self, rate: Rate, index: int, published: Version, rows: Mapping[str, Rate], clock: Clock | None
    ) -> None:
        """`rows`: by window what else the rate may cost, where it is split; with itself among them."""
        super().__init__(rate, index, published)
        self.rows = rows
        self.clock = clock
        self.steps = steps_of(rate)
        units = {name: [per_unit(one) for one in prices_of(row)] for name, row in rows.items()}
        fee = money(rate.connect_fee)
        self.den = lcm(fee.denominator, *(unit.denominator for some in units.values() for unit in some))
        self.fee = _over(fee, self.den)
        self.nums = {name: tuple(_over(unit, self.den) for unit in some) for name, some in units.items()}
        self.num = self.nums[rate.window][0]
        self.least = money(rate.minimum_charge) if rate.minimum_charge else None
        self.most = money(rate.maximum_charge) if rate.maximum_charge else None
        self.percent = Fraction(Decimal(rate.percent)) / 100 if rate.percent else None
        self.times = 1
        self.value: Fraction | None = None
        self.basis: Basis = NO_BASIS
        self.plan: CompiledPlan | None = None
        self._bound: dict[tuple[str, str, str], ShapedRate] = {}
        """By prefix, origin and window: no more than the tariff has."""

    # --- chosen -------------------------------------------------------------------------------

    def bound(self, prefix: str, origin: str, window: str, attributes: Attributes) -> "ShapedRate":
        """The rate for one usage; refuses what does not say of itself what the rate asks for."""
        if self.row.times or self.row.percent:
            return self.again(prefix, self._basis(origin, window, attributes))
        key = (prefix, origin, window)
        found = self._bound.get(key)
        if found is None:
            found = self._bound[key] = self.again(prefix, Basis(origin, window))
        return found

    def _basis(self, origin: str, window: str, attributes: Attributes) -> Basis:
        row = self.row
        said = told(attributes, row.times) if row.times else None
        value = (told(attributes, VALUE) or "") if row.percent else ""
        if said is not None and not (said.isascii() and said.isdigit() and 1 <= int(said[:9]) <= TIMES_MAX):
            raise Refused("bad_multiple", attribute=row.times, value=said, between=[1, TIMES_MAX])
        if row.percent and not PRICE.fullmatch(value):
            raise Refused("no_value", attribute=VALUE, value=value, example="12.50")
        return Basis(origin, window, int(said) if said else 1, value)

    def again(self, prefix: str, basis: Basis | None) -> "ShapedRate":
        other = copy(self)
        other.prefix = prefix
        other.basis = basis = basis or NO_BASIS
        other.times = basis.times
        other.value = money(basis.value) if basis.value else None
        return other

    def priced(self, price: Priced) -> "ShapedRate":
        """The same in every band and window."""
        other = super().priced(price)
        other.nums = {name: (other.num,) * len(nums) for name, nums in self.nums.items()}
        return other

    # --- applied ------------------------------------------------------------------------------

    def billed(self, quantity: int) -> int:
        """Each band's increments, as far as usage reaches into it; times what multiplies it."""
        if quantity <= 0:
            return 0
        step = next(step for step in reversed(self.steps) if step.begins < quantity)
        return step.ceiling(quantity) * self.times

    def begun(self, quantity: int) -> int:
        """What is billed before the increment that the last of so many units lies in."""
        step = next(step for step in reversed(self.steps) if step.begins < quantity)
        ends = step.ceiling(quantity)
        is_first = ends == step.begins + step.first
        return (step.begins if is_first else ends - step.increment) * self.times

    def is_beyond(self, billed: int) -> bool:
        return self.row.split and billed > SPLIT_SECONDS_MAX * self.times

    def unheld(self, billed: int, taken: int, at: int) -> Fraction:
        """The cost before minimum and maximum."""
        units = sum(number * piece.num for piece, number in self.parts(billed, taken, at))
        cost = Fraction(units + self.fee, self.den)
        return cost + self.percentage() if self.percent is not None else cost

    def percentage(self) -> Fraction:
        return (self.value or Fraction()) * (self.percent or 0)

    def held(self, cost: Fraction) -> Fraction:
        if self.least is not None and cost < self.least:
            return self.least
        return self.most if self.most is not None and cost > self.most else cost

    def parts(self, billed: int, taken: int, at: int) -> Iterator[tuple[Piece, int]]:
        """The pieces with how many of the billed units in each are paid for."""
        for piece in self.pieces(-(-billed // self.times), at):
            number = min(piece.ends * self.times, billed) - max(piece.begins * self.times, taken)
            if number > 0:
                yield piece, number

    def pieces(self, length: int, at: int) -> Iterator[Piece]:
        """A usage of so many positions, cut where the price changes, or may change."""
        following = [step.begins for step in self.steps[1:]]
        for band, (step, ends) in enumerate(zip(self.steps, [*following, length], strict=True)):
            if step.begins >= length:
                return
            end = min(ends, length)
            if self.clock is None or not self.row.split or self.price is not None:
                window = self.row.window
                yield Piece(step.begins, end, band, window, self.nums[window][band])
            else:
                yield from self._split(step, end, band, at)

    def _split(self, step: Step, end: int, band: int, at: int) -> Iterator[Piece]:
        assert self.clock is not None
        begins = step.begins
        while begins < end:
            window, until = self.clock.stretch(at + begins * SECOND)
            # The first increment that begins when another window may hold.
            ends = min(end, step.ceiling(-(-(until - at) // SECOND)))
            yield Piece(begins, ends, band, window, self.nums[window][band])
            begins = ends


class Choice(CompiledRate):
    """Rates of one prefix for different times: the window at the start of a usage chooses."""

    plain: ClassVar[bool] = False

    __slots__ = ("clock", "rates")

    def __init__(self, rates: Mapping[str, ShapedRate], clock: Clock, published: Version) -> None:
        first = next(iter(rates.values()))
        super().__init__(first.row, first.index, published)
        self.rates = rates
        self.clock = clock

    def chosen(self, at: int) -> tuple[str, ShapedRate]:
        window = self.clock.at(at)
        return window, self.rates[window]


def steps_of(rate: Rate) -> tuple[Step, ...]:
    """The rate's bands, each begun by the first increment that begins in it."""
    own = Band(0, rate.price, rate.per, rate.increment, rate.minimum)
    steps: list[Step] = []
    for band in (own, *rate.bands):
        begins = steps[-1].ceiling(band.starts) if steps else 0
        first = round_up_to(band.increment, max(band.minimum, 1))
        steps.append(Step(begins, first, band.increment))
    return tuple(steps)


def prices_of(rate: Rate) -> list[Priced]:
    return [rate, *rate.bands]


def _over(fraction: Fraction, den: int) -> int:
    return fraction.numerator * (den // fraction.denominator)
