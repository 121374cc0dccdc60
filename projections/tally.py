"""A tally: what the charges of a chunk come to, added up once for all views that count them.

One pass over the charges counts each at its foot, and with those that have its way up, its day and its
rate. Everything else is added up from these, which are few. So it needs no database, and may be made
beside the writing of the chunk before. It is the same whatever the order of the charges.
"""

from collections import defaultdict
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from ..domain.brief import Charge
from ..domain.charging import CORPORATE
from ..domain.days import Days
from ..domain.usage import MONEY

Sums = dict[Any, list[int]]
BEGINNING = 0
"""A day before all periods: what has no day of its own."""


class Used:
    """What one usage type, or money, comes to in a period: by ordinal, only where it is not nothing."""

    __slots__ = ("charges", "consumed", "overage", "used", "used_own")

    def __init__(self) -> None:
        self.used_own: defaultdict[int, int] = defaultdict(int)
        self.used: defaultdict[int, int] = defaultdict(int)
        self.overage: defaultdict[int, int] = defaultdict(int)
        self.charges: defaultdict[int, int] = defaultdict(int)
        self.consumed: defaultdict[int, int] = defaultdict(int)

    def paid(self) -> dict[str, Sequence[int]]:
        """The ordinals of buckets that paid, in order, and what they did."""
        ordinals = sorted(self.consumed)
        return {"ordinal": ordinals, "consumed": [self.consumed[ordinal] for ordinal in ordinals]}


class Tally(NamedTuple):
    """What the enterprise pays for, added up; whatever somebody else pays for, one by one."""

    zone: ZoneInfo
    used: dict[tuple[str, str], Used]
    """By period and usage type, or money."""
    lines: Sums
    """By period, node, usage type, direction, zone, tariff and rate: records, quantity, billed, what
    allowances paid, overage, amount, and what money buckets paid."""
    days: Sums
    """By period, ordinal, usage type and day: used, overage, amount, records, drawn from buckets. Resources
    only have what was drawn from their own, on no day."""
    sources: Sums
    """By source and usage type, whoever pays: records and amount."""
    others: list[Charge]
    """What the enterprise does not pay for."""
    since: int
    """When the earliest began."""


def tally(charges: Sequence[Charge], zone: ZoneInfo) -> Tally:
    """With days of that calendar."""
    told = Tally(zone, {}, {}, {}, {}, [], min(map(_started_at, charges), default=0))
    ways = _ways(told, charges)
    for (nodes, usage_type, _, period), way in ways.items():
        for (direction, of_zone, tariff, rate, source), figures in way.lines.items():
            way.count(figures)
            _add(told.sources, (source, usage_type), (figures[0], figures[5]))
            line = (period, nodes[0], usage_type, direction, of_zone, tariff, rate)
            if line in told.lines:
                _add(told.lines, line, figures)
            else:
                told.lines[line] = figures
    for charge in told.others:
        _add(told.sources, (charge.source, charge.usage_type), (1, charge.amount))
    _climb(told, ways)
    return told


# --- one by one ------------------------------------------------------------------------------------


class _Way:
    """Charges that came the same way up to a node on the same day, and what buckets paid of it."""

    __slots__ = (
        *("amount", "costing", "drawn", "lines", "of", "overage"),
        *("parts", "records", "used"),
    )

    def __init__(self, of: Used) -> None:
        self.of = of
        self.lines: Sums = {}
        """At the foot: by direction, zone, tariff, rate and source, with the figures of `Tally.lines`."""
        self.used = self.overage = self.amount = self.records = self.costing = self.drawn = 0
        """How many cost something; what was drawn from buckets there and below."""
        self.parts: dict[int, int] = {}
        """What each bucket paid, wherever it is."""

    def count(self, line: list[int]) -> None:
        line[3] = line[2] - line[4]
        self.records += line[0]
        self.used += line[2]
        self.overage += line[4]
        self.amount += line[5]


def _ways(told: Tally, charges: Sequence[Charge]) -> dict[Any, _Way]:
    """This runs for each charge: what stands in a line costs less than what stands in another function."""
    ways: dict[Any, _Way] = {}
    days = Days(told.zone)
    day, starts_at, ends_at = days.around(0)
    for charge in charges:
        if charge.payer != CORPORATE:
            told.others.append(charge)
            continue
        at = charge.started_at
        if not starts_at <= at < ends_at:
            day, starts_at, ends_at = days.around(at)
        path, billed, overage = charge.path, charge.billed, charge.overage
        foot, key = path[0], (path[1:], charge.usage_type, day, charge.period)
        way = ways.get(key)
        if way is None:
            way = ways[key] = _Way(_used(told, charge.period, charge.usage_type))
        rate = (charge.direction, charge.zone, charge.tariff, charge.rate, charge.source)
        line = way.lines.get(rate)
        if line is None:
            line = way.lines[rate] = [0, 0, 0, 0, 0, 0, 0]
        line[0] += 1
        line[1] += charge.quantity
        line[2] += billed
        used = way.of
        used.used_own[foot] += billed
        used.charges[foot] += 1
        if overage:
            line[4] += overage
            used.overage[foot] += overage
        parts = way.parts
        for ordinal, part in charge.drawn:
            parts[ordinal] = parts.get(ordinal, 0) + part
        if charge.amount or charge.credit:
            way.costing += charge.amount != 0
            _count_money(told, line, charge, day)
    return ways


def _count_money(told: Tally, line: list[int], charge: Charge, day: int) -> None:
    """What allowances of money paid of an amount is drawn as money, at its bucket and above."""
    period, path, money = charge.period, charge.path, _used(told, charge.period, MONEY)
    if charge.amount:
        line[5] += charge.amount
        money.used_own[path[0]] += charge.amount
        money.charges[path[0]] += 1
    for bucket, part in charge.credit:
        line[6] += part
        money.consumed[bucket] += part
        for ordinal in path[path.index(bucket) :]:
            _add(told.days, (period, ordinal, MONEY, day), (0, 0, 0, 0, part))


_started_at = attrgetter("started_at")


def _used(told: Tally, period: str, counted: str) -> Used:
    used = told.used.get((period, counted))
    if used is None:
        used = told.used[period, counted] = Used()
    return used


# --- on their way up -------------------------------------------------------------------------------


def _climb(told: Tally, ways: dict[Any, _Way]) -> None:
    """Charges of one way up go on together, and so do ways where they meet."""
    for used in told.used.values():
        used.used.update(used.used_own)
    for (nodes, usage_type, _, period), way in ways.items():
        consumed = way.of.consumed
        for ordinal, part in way.parts.items():
            consumed[ordinal] += part
            if ordinal not in nodes:
                way.drawn += part
                _add(told.days, (period, ordinal, usage_type, BEGINNING), (0, 0, 0, 0, part))
    while ways:
        ways = _up(told, ways)


def _up(told: Tally, ways: dict[Any, _Way]) -> dict[Any, _Way]:
    """Count each on the node it has come to; the ways that go on from there."""
    above: dict[Any, _Way] = {}
    for (nodes, usage_type, day, period), way in ways.items():
        node = nodes[0]
        way.drawn += way.parts.get(node, 0)
        figures = (way.used, way.overage, way.amount, way.records, way.drawn)
        _add(told.days, (period, node, usage_type, day), figures)
        _count_above(way.of, node, way.used, way.overage, way.records)
        if way.costing:
            _count_above(told.used[period, MONEY], node, way.amount, 0, way.costing)
        if len(nodes) > 1:
            _meet(above, (nodes[1:], usage_type, day, period), way)
    return above


def _count_above(used: Used, node: int, much: int, overage: int, records: int) -> None:
    used.used[node] += much
    used.charges[node] += records
    if overage:
        used.overage[node] += overage


def _meet(ways: dict[Any, _Way], key: Any, way: _Way) -> None:
    on = ways.get(key)
    if on is None:
        ways[key] = way
        return
    on.used += way.used
    on.overage += way.overage
    on.amount += way.amount
    on.records += way.records
    on.drawn += way.drawn
    on.costing += way.costing
    for ordinal, part in way.parts.items():
        on.parts[ordinal] = on.parts.get(ordinal, 0) + part


def _add(sums: Sums, key: Any, figures: Sequence[int]) -> None:
    row = sums.get(key)
    if row is None:
        sums[key] = list(figures)
    else:
        for place, much in enumerate(figures):
            row[place] += much
