"""Working: what a charge consists of, each component with its own exact amount.

The components add up to the unrounded amount; that is asserted whenever they are told.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from ..refusals import InvariantBroken
from .language import Priced
from .planned_rate import PlannedRate
from .rate import CompiledRate, Rated
from .shaped import Piece, ShapedRate
from .switched_rate import SwitchedRate

Kind = Literal[
    "usage", "connect_fee", "percentage", "minimum_charge", "maximum_charge", "policy_price", "plan"
]


class Component(Struct, frozen=True):
    """A part of what a usage costs."""

    kind: Kind
    exact: Fraction
    """Micro-units; less than 0 for what a maximum charge takes away."""
    begins: int = 0
    ends: int = 0
    """Which of the billed units: [begins, ends)."""
    band: int = 0
    """Counted from 0, the rate's own price."""
    window: str = ""
    price: str = ""
    """Of `per` units; of a percentage: per cent."""
    per: int = 1
    increment: int = 1
    part: str = ""
    """Of a plan: "tier 2", "entry of tier 2", "free", "block"; "cap" is what that takes away."""
    tariff: int = 0
    """The version whose price it is, where a session went on into another than it began in."""
    since: int = 0
    """Since when that price held for it, in microseconds; 0 since its start."""

    @property
    def units(self) -> int:
        return self.ends - self.begins

    @property
    def blocks(self) -> int:
        """How many increments, the last one begun."""
        return -(-self.units // self.increment)


def working(rate: CompiledRate, billed: int, taken: int = 0, at: int = 0) -> list[Component]:
    """What `rate.rate` adds up, in the order of the usage."""
    if billed <= taken:
        return []
    told = [*_components(rate, billed, taken, at)]
    check_working(told, rate.rate(billed, taken, at))
    return told


def check_working(told: list[Component], rated: Rated) -> None:
    total = sum((one.exact for one in told), Fraction())
    if total != Fraction(*rated.exact):
        raise InvariantBroken("components add up to the unrounded amount", total=total, exact=rated.exact)


def _components(rate: CompiledRate, billed: int, taken: int, at: int) -> Iterator[Component]:
    if isinstance(rate, PlannedRate):
        yield from _planned(rate, billed, taken, at)
    elif isinstance(rate, SwitchedRate):
        yield from _switched(rate, billed, taken, at)
    elif not isinstance(rate, ShapedRate):
        price = rate.price or rate.row
        cost = Fraction((billed - taken) * rate.num, rate.den)
        yield Component("usage", cost, taken, billed, 0, "", price.price, price.per, rate.increment)
    elif rate.is_beyond(billed):
        raise InvariantBroken("what nothing can count is not charged", billed=billed)
    else:
        yield from _usage(rate, billed, taken, at)
    if rate.fee and not isinstance(rate, PlannedRate):
        fee = Fraction(rate.fee, rate.den)
        yield Component("connect_fee", fee, price=rate.row.connect_fee)
    if isinstance(rate, ShapedRate):
        yield from _about_the_whole(rate, rate.unheld(billed, taken, at))
    if isinstance(rate, SwitchedRate) and isinstance(rate.inner, ShapedRate):
        yield from _about_the_whole(rate.inner, rate.unheld(billed, taken, at))


def _switched(rate: SwitchedRate, billed: int, taken: int, at: int) -> Iterator[Component]:
    """Stretch by stretch, each as its own rate asks."""
    if rate.is_beyond(billed):
        raise InvariantBroken("what nothing can count is not charged", billed=billed)
    for begins, ends, of, since in rate.stretches(billed, taken):
        version = of.version if of.version != rate.version else 0
        if isinstance(of, ShapedRate):
            told = _usage(of, ends, begins, at)
        else:
            cost = Fraction((ends - begins) * of.num, of.den)
            price = (of.row.price, of.row.per, of.increment)
            told = iter([Component("usage", cost, begins, ends, 0, "", *price)])
        yield from (replace(one, tariff=version, since=since) for one in told)


def _planned(rate: PlannedRate, billed: int, taken: int, at: int) -> Iterator[Component]:
    """What the rate asks by itself, what the plan asks of the units, and what its cap takes away."""
    plan, begins, wanted = rate.standing.plan, taken, Fraction(0)
    for one in _components(rate.inner, billed, taken, at):
        if one.kind != "usage" or not plan.has_prices:
            wanted += one.exact
            yield one
    for part in plan.parts(rate.standing.units, billed - taken):
        ends = begins + part.units
        yield Component("plan", part.exact, begins, ends, price=part.price, per=part.per, part=part.name)
        begins, wanted = ends, wanted + part.exact
    exact = rate.standing.held(wanted)
    if exact != wanted:
        yield Component("plan", exact - wanted, price=plan.plan.cap, part="cap")


def _usage(rate: ShapedRate, billed: int, taken: int, at: int) -> Iterator[Component]:
    last: Component | None = None
    for piece, number in rate.parts(billed, taken, at):
        told = _of_piece(rate, piece, number, taken)
        if last is not None and (last.band, last.window) == (told.band, told.window):
            last = replace(last, ends=told.ends, exact=last.exact + told.exact)
            continue
        if last is not None:
            yield last
        last = told
    if last is not None:
        yield last


def _of_piece(rate: ShapedRate, piece: Piece, number: int, taken: int) -> Component:
    begins = max(piece.begins * rate.times, taken)
    row = rate.rows[piece.window]
    price: Priced = rate.price or (row.bands[piece.band - 1] if piece.band else row)
    cost, step = Fraction(number * piece.num, rate.den), rate.steps[piece.band]
    return Component(
        *("usage", cost, begins, begins + number, piece.band, piece.window),
        *(price.price, price.per, step.increment * rate.times),
    )


def _about_the_whole(rate: ShapedRate, cost: Fraction) -> Iterator[Component]:
    row, held = rate.row, rate.held(cost)
    if rate.percent is not None:
        yield Component("percentage", rate.percentage(), price=row.percent)
    if held > cost:
        yield Component("minimum_charge", held - cost, price=row.minimum_charge)
    if held < cost:
        yield Component("maximum_charge", held - cost, price=row.maximum_charge)
