"""Consumption: what was used at and below each node, by day of the tenant's calendar.

`used`, `overage`, `amount` and `records` count a charge on every node of its path, on the day on
which it began. `drawn` is what buckets at and below the node paid, of whatever. `moved` is what their
owners got and gave, and what came and went with who moved, on the day on which the log took it; what
the contract grants is there from the period's beginning (`BEGINNING`). Usage stays where it was
charged: it moves with nobody. `moved` less `drawn` is what is left at and below, always.
Resources have no days of their own, only what was `moved`, and what their own buckets paid on no day:
there are too many of them. What one of them used by day is read from its own charges.
"""

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from msgspec import Struct

from ..domain.charging import CORPORATE, UNCHARGED, UsageCharged
from ..domain.days import Days, day_of
from ..domain.events import decode
from ..domain.rerated import UsageRerated
from ..domain.usage import MONEY
from .along import Elsewhere, Holdings, Went
from .blocks import BITS
from .calendars import CalendarTable
from .chunk import Chunk
from .daily import CONSUMPTION, COUNTS, Sums
from .members import each
from .tables import Connection
from .tally import BEGINNING
from .used import used_among

CALENDAR = CalendarTable("consumption_calendar")
TABLES = (CONSUMPTION, CALENDAR)
VERSION = 4

_USED, _OVERAGE, _AMOUNT, _RECORDS, _DRAWN, _MOVED = range(len(COUNTS))


class DayUsed(Struct, frozen=True):
    """A day's consumption of one usage type in one period; in money, `used` is what was charged."""

    day: int
    """Since 1970-01-01, in the tenant's calendar."""
    used: int
    overage: int
    amount: int
    records: int
    drawn: int
    """From buckets at and below."""
    moved: int
    """Into buckets at and below, less what left them."""


def apply(chunk: Chunk, db: Connection) -> None:
    zone = CALENDAR.follow(chunk, db)
    kept = chunk.blocks(CONSUMPTION)
    if chunk.charges.events or chunk.moved or chunk.corrections:
        sums = Sums()
        holdings = Holdings(db, (one for one in chunk.moved if isinstance(one, Went)))
        counted = chunk.counted(zone)
        if counted is not None:
            CONSUMPTION.add_blocks(db, kept, counted.days)
        for (period, ordinal, usage_type, day), figures in chunk.tally(zone).days.items():
            sums.setdefault((period, usage_type, day), {})[ordinal] = [*figures, 0]
        _corrections(chunk, Days(zone), sums)
        _elsewhere(chunk.elsewhere, Days(zone), sums)
        _moves(chunk, holdings, zone, sums)
        CONSUMPTION.add_blocks(db, kept, CONSUMPTION.added(sums))


def _moves(chunk: Chunk, holdings: Holdings, zone: ZoneInfo, sums: Sums) -> None:
    for one in chunk.moved:
        day = BEGINNING if one.at is None else day_of(one.at, zone)
        if isinstance(one, Went):
            along = holdings.go(one)
        else:
            along = [(one.period, one.usage_type, one.quantity)]
            holdings.move(one.less, *along[0][:2], -one.quantity)
            holdings.move(one.more, *along[0])
        for period, usage_type, quantity in along:
            for side, change in ((one.less, -quantity), (one.more, quantity)):
                for ordinal in side:
                    sums.figures(period, ordinal, usage_type, day)[_MOVED] += change


def _elsewhere(found: Sequence[Elsewhere], days: Days, sums: Sums) -> None:
    """What was drawn counts above its bucket, not where it was used."""
    for started_at, period, usage_type, part, less, more in found:
        day = days.of(started_at)
        for side, change in ((less, -part), (more, part)):
            for ordinal in side:
                sums.figures(period, ordinal, usage_type, day)[_DRAWN] += change


def _corrections(chunk: Chunk, days: Days, sums: Sums) -> None:
    """What was taken back, and what was charged in its place, on the day on which it was used."""
    for charge, sign in chunk.corrections:
        if charge.payer != CORPORATE:
            continue
        day, path = days.of(charge.started_at), charge.path
        for place, node in enumerate(path[1:], 1):
            row = sums.figures(charge.period, node, charge.usage_type, day)
            row[_USED] += sign * charge.billed
            row[_OVERAGE] += sign * charge.overage
            row[_AMOUNT] += sign * charge.amount
            row[_RECORDS] += sign
            row[_DRAWN] += sign * sum(part for bucket, part in charge.drawn if path.index(bucket) <= place)
        for bucket, part in charge.drawn:
            if bucket == path[0]:
                sums.figures(charge.period, bucket, charge.usage_type, BEGINNING)[_DRAWN] += sign * part
        for bucket, part in charge.credit:
            for node in path[path.index(bucket) :]:
                sums.figures(charge.period, node, MONEY, day)[_DRAWN] += sign * part


# --- queries ---------------------------------------------------------------------------------


RECORDS_MAX = 50_000
"""Of a resource in a period: its days are counted when they are asked for."""


class TooManyRecords(Exception):
    """A resource has used too often for its days to be counted while somebody waits."""


def days_of(db: Connection, ordinal: int, period: str, usage_type: str) -> list[DayUsed]:
    """A node's days of which something is left, in order; of a resource, on which something moved."""
    asked = {"block": ordinal >> BITS, "period": period, "usage_type": usage_type}
    found = db.execute(_DAYS_OF_ALL_TYPES if usage_type == MONEY else _DAYS, asked, binary=True)
    days: dict[int, list[int]] = {}
    for day, kind, figures in found:
        row = CONSUMPTION.of(ordinal, figures)
        if usage_type == MONEY:
            row = _in_money(row, kind)
        days[day] = [sum(pair) for pair in zip(days.get(day, [0] * len(COUNTS)), row, strict=True)]
    return [DayUsed(day, *row) for day, row in sorted(days.items()) if any(row)]


def _in_money(row: Sequence[int], usage_type: str) -> Sequence[int]:
    """Money is used up by every usage type; what was handed on as money stands under its own name."""
    own = usage_type == MONEY
    return row[_AMOUNT], 0, row[_AMOUNT], row[_RECORDS], row[_DRAWN] * own, row[_MOVED] * own


def days_of_resource(db: Connection, ordinal: int, period: str, usage_type: str) -> list[DayUsed]:
    """The same of a resource, counted from its charges; raises TooManyRecords."""
    asked = {"ordinal": ordinal, "period": period, "usage_type": usage_type, "most": RECORDS_MAX + 1}
    found = db.execute(_CHARGES, asked | {"of_any_type": usage_type == MONEY}, binary=True).fetchall()
    if len(found) > RECORDS_MAX:
        raise TooManyRecords
    days, firsts = Days(CALENDAR.zone(db)), [seq for seq, *_ in found]
    come = [first for (first,) in db.execute(_COME_HERE, asked, prepare=False)]
    made = db.execute(_MADE_AGAIN, {"firsts": sorted({*firsts, *come})}, binary=True).fetchall()
    again = {first: told for first, *told in made}
    sums = {one.day: [0, 0, 0, 0, 0, one.moved] for one in days_of(db, ordinal, period, usage_type)}
    told = [row for seq, *row in found if seq not in again]
    told += [row for whose, *row in again.values() if whose == ordinal]
    for topic, state in told:
        event = decode(topic, state).event
        charge = event.charge if isinstance(event, UsageRerated) else event
        assert isinstance(charge, UsageCharged)
        if charge.payer != UNCHARGED and usage_type in (charge.usage_type, MONEY):
            _count(sums.setdefault(days.of(charge.started_at), [0, 0, 0, 0, 0, 0]), charge, usage_type)
    return [DayUsed(day, *row) for day, row in sorted(sums.items())]


def _count(row: list[int], charge: UsageCharged, usage_type: str) -> None:
    row[_AMOUNT] += charge.amount
    row[_RECORDS] += 1
    if usage_type == MONEY:
        row[_USED] += charge.amount
        row[_DRAWN] += sum(part for bucket, part in charge.credit if bucket == charge.path[0])
    else:
        row[_USED] += charge.billed
        row[_OVERAGE] += charge.overage
        row[_DRAWN] += sum(part for bucket, part in charge.drawn if bucket == charge.path[0])


def used_by_period(
    db: Connection, ordinals: Sequence[int], periods: Sequence[str], usage_types: Sequence[str]
) -> dict[tuple[int, str, str], tuple[int, int]]:
    """What each member used in whole periods, and what of it no allowance covered.

    By ordinal, usage type and period. Of resources as well.
    """
    return {
        (ordinal, usage_type, period): (much, overage)
        for period in periods
        for usage_type, used in used_among(db, ordinals, period, usage_types).items()
        for ordinal, much, overage in zip(ordinals, *map(used.column, ("used", "overage")), strict=True)
    }


_DAYS_OF_ALL_TYPES = """
SELECT day, usage_type, figures FROM consumption_by_day WHERE period = %(period)s AND block = %(block)s
"""
_DAYS = _DAYS_OF_ALL_TYPES + " AND usage_type = %(usage_type)s"
# In the order of the index of its own records: by that of its period all would be looked through.
_CHARGES = f"""
SELECT u.seq, e.topic, e.state
FROM {each("usages", "ordinal = %(ordinal)s ORDER BY ordinal, seq")} AS u
CROSS JOIN {each("events", "seq = u.seq")} AS e
WHERE u.period = %(period)s AND u.status = 'charged'
  AND (%(of_any_type)s OR u.usage_type = %(usage_type)s)
LIMIT %(most)s
"""
# The last charge of each record: who had used it may turn out to be another.
_MADE_AGAIN = f"""
SELECT r.first, r.ordinal, e.topic, e.state
FROM (
    SELECT DISTINCT ON (first) first, ordinal, seq FROM reratings
    WHERE first = ANY(%(firsts)s::bigint[]) AND corrected_in = '' ORDER BY first, seq DESC
) AS r CROSS JOIN {each("events", "seq = r.seq")} AS e
"""
_COME_HERE = """
SELECT DISTINCT first FROM reratings
WHERE ordinal = %(ordinal)s AND period = %(period)s AND corrected_in = ''
"""
