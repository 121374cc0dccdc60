"""Report: what a rate sheet would change, and what that would have cost in a past period.

The money is told from what was charged, rate by rate: units beyond allowances at the new price
instead of the old. That is exact, before rounding, where nothing else of the rate changes; where
increments, fees or prefixes do, it says so, and which.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from msgspec import Struct
from msgspec.structs import replace

from ..rating.amending import Amendment, rates_after, zones_after
from ..rating.language import MICRO, Rate
from .assembling import amendment
from .comparing import Kind, ZoneChange, by_zone, compare, counted, unit_price
from .composing import Given, Lane, Step, Surprise, Terms, lane_of, settled, steps_of, surprises
from .layout import Layout
from .reading import Sheet


class Charged(Struct, frozen=True):
    """What one rate of one version has charged in a period, for the whole enterprise."""

    rate: Rate
    prefixes: tuple[str, ...]
    records: int
    billed: int
    overage: int
    amount: int


class Moved(Struct, frozen=True):
    """What a zone's usage of a period would have cost otherwise."""

    zone: str
    records: int
    overage: int
    amount: int
    """Micro-units, as charged."""
    difference: tuple[int, int]
    """Exact, in micro-units: what would have been charged in addition, before rounding."""
    because: tuple[str, ...]
    """Why it is only near; none: it is exact."""

    @property
    def exact(self) -> bool:
        return not self.because


class StepReport(Struct, frozen=True):
    """What changes at one moment, against what held just before it, or was scheduled for it."""

    at: int
    counts: dict[Kind, int]
    zones: list[ZoneChange]
    """Without what stays as it is."""


class Report(Struct, frozen=True):
    rows: int
    prefixes: int
    steps: list[StepReport]
    surprises: list[Surprise]
    """Rows whose status says otherwise than the prices in force."""


class Taken(Struct, frozen=True):
    """A sheet as the changes of a tariff, and what they are."""

    changes: tuple[Amendment, ...]
    report: Report
    last: Given | None
    """The version that holds in the end."""
    lane: Lane
    """What it says of what the sheet speaks of."""
    layout: Layout
    """As it was taken."""


def take(sheet: Sheet, versions: Sequence[Given], terms: Terms, seen: int | None = None) -> Taken:
    """What a sheet makes of the bases in force and to come, where there are so many versions in all."""
    sheet = settled(sheet, versions)
    steps = steps_of(sheet, versions, terms)
    by_number = {given.number: given for given in versions}
    number = max(by_number, default=0) if seen is None else seen
    changes: list[Amendment] = []
    held = _held(versions, steps[0].at) if steps else None
    for step in steps:
        of = by_number[step.scheduled] if step.scheduled is not None else _newer(held, versions, step.at)
        change = amendment(of, step.after, sheet.layout, step.at)
        changes.append(change)
        number += 1
        held = Given(number, step.at, rates_after(of.rates, change), zones_after(of.zones, change))
    last = steps[-1].after if steps else lane_of(_held(versions, terms.now), sheet.layout)
    return Taken(tuple(changes), _report(sheet, steps, versions, terms), held, last, sheet.layout)


def _held(versions: Sequence[Given], at: int) -> Given:
    return next((given for given in reversed(versions) if given.valid_from <= at), Given(0, at, (), ()))


def _newer(held: Given | None, versions: Sequence[Given], at: int) -> Given:
    """The version made last, or one that was scheduled and has begun since."""
    assert held is not None
    begun = _held(versions, at)
    return begun if begun.valid_from > held.valid_from else held


def _report(sheet: Sheet, steps: Sequence[Step], versions: Sequence[Given], terms: Terms) -> Report:
    in_force = lane_of(_held(versions, terms.now), sheet.layout)
    return Report(
        len(sheet.rows),
        sheet.prefixes,
        [step_report(step.at, step.before, step.after, sheet.layout) for step in steps],
        list(surprises(sheet, in_force)),
    )


def step_report(at: int, before: Lane, after: Lane, layout: Layout) -> StepReport:
    changes = compare(_keyed(before, layout), _keyed(after, layout))
    return StepReport(at, counted(changes), by_zone(one for one in changes if one.kind != "unchanged"))


def _keyed(lane: Lane, layout: Layout) -> dict[tuple[str, str, str, str, str], Rate]:
    return {(layout.usage_type, layout.of_rates, prefix, "", ""): rate for prefix, rate in lane.items()}


# --- what it would have cost --------------------------------------------------------------------


def moved(charged: Iterable[Charged], after: Lane, layout: Layout) -> list[Moved]:
    """By zone as it was charged, in its order; only what the sheet speaks of."""
    sums: dict[str, list[Moved]] = {}
    prefixes = sorted(after)
    for one in charged:
        if one.rate.usage_type == layout.usage_type and one.rate.direction in ("", layout.of_rates):
            sums.setdefault(one.rate.zone, []).append(_moved(one, after, prefixes))
    return [_sum(zone, parts) for zone, parts in sums.items()]


def _moved(one: Charged, after: Lane, prefixes: Sequence[str]) -> Moved:
    rates = {_longest(prefix, after) for prefix in one.prefixes}
    because: list[str] = []
    found = next(iter(rates))
    if len(rates) > 1:
        because.append("its prefixes get different prices")
        found = max((rate for rate in rates if rate is not None), key=unit_price)
    if any(_is_split(prefix, after, prefixes) for prefix in one.prefixes):
        because.append("prefixes within it get prices of their own")
    if found is None or found.blocked:
        because.append("it is offered no longer")
        difference = Fraction(-one.amount)
    else:
        because += _otherwise(one.rate, found)
        difference = one.overage * (unit_price(found) - unit_price(one.rate)) * MICRO
    told = (difference.numerator, difference.denominator)
    return Moved(one.rate.zone, one.records, one.overage, one.amount, told, tuple(because))


def _longest(prefix: str, lane: Mapping[str, Rate]) -> Rate | None:
    return next((lane[prefix[:end]] for end in range(len(prefix), -1, -1) if prefix[:end] in lane), None)


def _is_split(prefix: str, lane: Mapping[str, Rate], ordered: Sequence[str]) -> bool:
    """Whether longer prefixes take some of its usage for another price."""
    mine = _longest(prefix, lane)
    price = None if mine is None else replace(mine, zone="")
    for place in range(bisect_right(ordered, prefix), len(ordered)):
        if not ordered[place].startswith(prefix):
            break
        if replace(lane[ordered[place]], zone="") != price:
            return True
    return False


def _otherwise(was: Rate, becomes: Rate) -> list[str]:
    fields = (
        (
            "increments change",
            (was.increment, was.minimum or was.increment),
            (becomes.increment, becomes.minimum or becomes.increment),
        ),
        ("the fee changes", was.connect_fee, becomes.connect_fee),
        ("the allowance covers it otherwise", was.included, becomes.included),
        ("it is not only a price per unit", _shape(was), ("", "", "", ())),
    )
    return [told for told, before, after in fields if before != after]


def _shape(rate: Rate) -> tuple[object, ...]:
    return rate.minimum_charge, rate.maximum_charge, rate.percent, rate.bands


def _sum(zone: str, parts: Sequence[Moved]) -> Moved:
    difference = sum((Fraction(*part.difference) for part in parts), Fraction(0))
    return Moved(
        zone,
        sum(part.records for part in parts),
        sum(part.overage for part in parts),
        sum(part.amount for part in parts),
        (difference.numerator, difference.denominator),
        tuple(dict.fromkeys(why for part in parts for why in part.because)),
    )
