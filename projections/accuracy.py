"""Accuracy: what was received by day and source, and what became of it; and what each file brought.

A day is that of the tenant's calendar on which the log took it, so a day that is over stays as it is.
Charged, rejected and suspended are counted from their own events; duplicates, which have none, from
what doors and finished imports tell. A record that leaves suspense is counted again, on the day of that,
as `recycled`, `recycled_rejected` or `dismissed`: it was received once.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from msgspec import Struct

from ..domain.days import Days
from ..domain.events import Recorded
from ..domain.receiving import FIGURES as TALLIED
from ..domain.receiving import (
    LATE,
    DuplicatesCounted,
    ImportBegun,
    ImportFinished,
    ImportRefused,
    SourceCounts,
    Tally,
)
from ..domain.suspense import UsageRecycled
from ..domain.writing_off import UsageDismissed
from .calendars import CalendarTable
from .chunk import Chunk
from .tables import Connection, Table

FIGURES = (
    *("charged", "rejected", "suspended", "unreadable", "duplicate", "late", "amount", "value"),
    *("recycled", "recycled_amount", "recycled_rejected", "dismissed", "merged", "ignored"),
)
ACCURACY = Table(
    "accuracy",
    {"day": "integer", "source": "text", "usage_type": "text"},
    dict.fromkeys(FIGURES, "bigint"),
)
COUNTED = tuple(name for name in TALLIED if name not in ("amount", "value"))
IMPORTS = Table(
    "imports",
    {"import_id": "text"},
    {
        "name": "text",
        "format": "text",
        "digest": "text",
        "attempts": "bigint",
        "again": "boolean",
        **dict.fromkeys(("began_seq", "began_at", "finished_seq", "finished_at"), "bigint"),
        **dict.fromkeys(("read", *COUNTED, "merged", "ignored", "amount", "value"), "bigint"),
        "refused_seq": "bigint",
        "problem": "text",
    },
)
CALENDAR = CalendarTable("accuracy_calendar")
TABLES = (ACCURACY, IMPORTS, CALENDAR)
VERSION = 2

_AT = {name: place for place, name in enumerate(FIGURES)}
_CHARGED, _LATE, _AMOUNT = _AT["charged"], _AT["late"], _AT["amount"]


class Accuracy(Struct):
    """What came of one source on a day. `received` = charged + duplicate + suspended + rejected."""

    day: int
    """Since 1970-01-01, in the tenant's calendar."""
    source: str
    received: int
    charged: int
    duplicate: int
    suspended: int
    rejected: int
    unreadable: int
    """Of those suspended."""
    late: int
    amount: int
    value: int
    """What those suspended would cost, as far as the tariff can tell."""
    recycled: int
    """Charged on this day, having waited; not among `charged`."""
    recycled_amount: int
    recycled_rejected: int
    dismissed: int
    merged: int
    ignored: int


class Import(Struct):
    """A file, or what was read of one: unfinished while `finished_seq` and `refused_seq` are 0."""

    import_id: str
    name: str
    format: str
    digest: str
    attempts: int
    again: bool
    """Whether a file with this very content had been imported before."""
    began_seq: int
    began_at: int
    finished_seq: int = 0
    finished_at: int = 0
    read: int = 0
    received: int = 0
    charged: int = 0
    duplicate: int = 0
    suspended: int = 0
    rejected: int = 0
    unreadable: int = 0
    late: int = 0
    merged: int = 0
    ignored: int = 0
    amount: int = 0
    value: int = 0
    refused_seq: int = 0
    problem: str = ""
    """Why it was refused."""

    @property
    def state(self) -> str:
        if self.refused_seq:
            return "refused"
        if not self.finished_seq:
            return "unfinished"
        return "again" if self.again else "finished"


def apply(chunk: Chunk, db: Connection) -> None:
    sums: dict[Any, list[int]] = {}
    days = Days(CALENDAR.follow(chunk, db))
    _charges(chunk, days, sums)
    for told, denied in chunk.rejected:
        row = _of(sums, days, told, denied.source, denied.usage_type)
        row[_AT["rejected"]] += 1
        row[_LATE] += told.recorded_at - denied.started_at > LATE
    for told, waits in chunk.suspended:
        row = _of(sums, days, told, waits.source, waits.usage_type)
        row[_AT["suspended"]] += 1
        row[_AT["unreadable"]] += not waits.readable
        row[_AT["value"]] += waits.value or 0
        row[_LATE] += waits.started_at > 0 and told.recorded_at - waits.started_at > LATE
    for told in chunk.others:
        _count(told, days, sums)
    ACCURACY.add(db, sums)
    _imports(chunk, db)


def _charges(chunk: Chunk, days: Days, sums: dict[Any, list[int]]) -> None:
    """Most chunks were taken on one day, and nothing in them is late."""
    times, told, counted = chunk.charges.times, chunk.tally(), chunk.counted()
    if not times:
        return
    first, last = min(times), max(times)
    day, _, ends_at = days.around(first)
    since = min(told.since or last, counted.since if counted is not None else last)
    if last >= ends_at or last - since > LATE:
        _charges_one_by_one(chunk, days, sums)
        return
    sources = chain(told.sources.items(), counted.sources.items() if counted is not None else ())
    for key, (records, amount) in sources:
        row = sums.setdefault((day, *key), [0] * len(FIGURES))
        row[_CHARGED] += records
        row[_AMOUNT] += amount


def _charges_one_by_one(chunk: Chunk, days: Days, sums: dict[Any, list[int]]) -> None:
    day, starts_at, ends_at = days.around(0)
    rows: dict[Any, list[int]] = {}
    for recorded_at, charge in zip(chunk.charges.times, chunk.charges.events, strict=True):
        if not starts_at <= recorded_at < ends_at:
            day, starts_at, ends_at = days.around(recorded_at)
            rows = {}
        key = charge.source, charge.usage_type
        row = rows.get(key)
        if row is None:
            row = rows[key] = sums.setdefault((day, *key), [0] * len(FIGURES))
        row[_CHARGED] += 1
        row[_AMOUNT] += charge.amount
        if recorded_at - charge.started_at > LATE:
            row[_LATE] += 1


def _count(told: Recorded, days: Days, sums: dict[Any, list[int]]) -> None:
    match told.event:
        case UsageRecycled(source=source, outcome="charged", usage_type=usage_type, value=value):
            row = _of(sums, days, told, source, usage_type)
            row[_AT["recycled"]] += 1
            row[_AT["recycled_amount"]] += value or 0
        case UsageRecycled(source=source, outcome="rejected", usage_type=usage_type):
            _of(sums, days, told, source, usage_type)[_AT["recycled_rejected"]] += 1
        case UsageDismissed(source=source):
            _of(sums, days, told, source, "")[_AT["dismissed"]] += 1
        case ImportFinished(sources=sources, merged=merged, ignored=ignored):
            _left_no_event(
                told, days, sums, [(one.source, one.duplicate) for one in sources], merged, ignored
            )
        case ImportRefused(sources=sources):
            _left_no_event(told, days, sums, [(one.source, one.duplicate) for one in sources], 0, 0)
        case DuplicatesCounted(_, duplicates, merged, ignored):
            _left_no_event(told, days, sums, duplicates, merged, ignored)


def _left_no_event(
    told: Recorded,
    days: Days,
    sums: dict[Any, list[int]],
    duplicates: Sequence[tuple[str, int]],
    merged: int,
    ignored: int,
) -> None:
    for source, count in duplicates:
        if count:
            _of(sums, days, told, source, "")[_AT["duplicate"]] += count
    if merged or ignored:
        row = _of(sums, days, told, "", "")
        row[_AT["merged"]] += merged
        row[_AT["ignored"]] += ignored


def _of(sums: dict[Any, list[int]], days: Days, told: Recorded, source: str, usage_type: str) -> list[int]:
    day, _, _ = days.around(told.recorded_at)
    return sums.setdefault((day, source, usage_type), [0] * len(FIGURES))


def _imports(chunk: Chunk, db: Connection) -> None:
    told_of = [
        told for told in chunk.others if isinstance(told.event, ImportBegun | ImportFinished | ImportRefused)
    ]
    if not told_of:
        return
    wanted = [getattr(told.event, "id", "") for told in told_of]
    rows = {row.import_id: row for row in _imports_where(db, "import_id = ANY(%s)", [wanted])}
    for told in told_of:
        match told.event:
            case ImportBegun() as begun:
                held = rows.get(begun.id)
                attempts = held.attempts + 1 if held else 1
                told_by = (begun.id, begun.name, begun.format, begun.digest, attempts, False)
                rows[begun.id] = Import(*told_by, told.seq, told.recorded_at)
            case ImportFinished() as finished:
                _finish(rows[finished.id], told, finished)
            case ImportRefused() as refused:
                row = rows[refused.id]
                row.refused_seq, row.finished_at = told.seq, told.recorded_at
                row.problem = refused.problem
                _add_up(row, refused.sources)
    IMPORTS.put(
        db, {(row.import_id,): [getattr(row, name) for name in IMPORTS.figures] for row in rows.values()}
    )


def _finish(row: Import, told: Recorded, event: ImportFinished) -> None:
    row.finished_seq, row.finished_at = told.seq, told.recorded_at
    row.digest, row.again, row.read = event.digest, event.again, event.read
    row.merged, row.ignored = event.merged, event.ignored
    _add_up(row, event.sources)


def _add_up(row: Import, sources: Sequence[SourceCounts]) -> None:
    brought = Tally()
    for one in sources:
        brought.add(one)
    for name in TALLIED:
        setattr(row, name, getattr(brought, name))


# --- queries ---------------------------------------------------------------------------------


def accuracy(db: Connection, first_day: int, last_day: int, source: str | None = None) -> list[Accuracy]:
    """What came on these days, by day and source, oldest first."""
    sums = ", ".join(f"sum({name})::bigint" for name in FIGURES)
    found = db.execute(
        f"SELECT day, source, {sums} FROM accuracy WHERE day BETWEEN %(first)s AND %(last)s "
        "AND (%(source)s::text IS NULL OR source = %(source)s) GROUP BY day, source ORDER BY day, source",
        {"first": first_day, "last": last_day, "source": source},
    )
    return [_accuracy(*row) for row in found]


def _accuracy(day: int, source: str, *figures: int) -> Accuracy:
    """Those that had waited are told apart: they were received before."""
    told = dict(zip(FIGURES, figures, strict=True))
    told["charged"] -= told["recycled"]
    told["amount"] -= told["recycled_amount"]
    told["rejected"] -= told["recycled_rejected"]
    received = told["charged"] + told["duplicate"] + told["suspended"] + told["rejected"]
    return Accuracy(day=day, source=source, received=received, **told)


def totals(db: Connection) -> dict[str, int]:
    """Of all days and sources, as they are counted: with those that had waited."""
    sums = ", ".join(f"coalesce(sum({name}), 0)::bigint" for name in FIGURES)
    found = db.execute(f"SELECT {sums} FROM accuracy").fetchone()
    assert found is not None
    return dict(zip(FIGURES, found, strict=True))


def averages(db: Connection, since_day: int) -> dict[tuple[str, str], tuple[int, int]]:
    """(source, usage type) -> what was charged since a day, and how many records that was."""
    found = db.execute(
        "SELECT source, usage_type, sum(amount)::bigint, sum(charged)::bigint FROM accuracy "
        "WHERE day >= %s GROUP BY source, usage_type HAVING sum(charged) > 0",
        (since_day,),
    )
    return {(source, usage_type): (amount, charged) for source, usage_type, amount, charged in found}


def imports_page(
    db: Connection,
    first: int,
    before: int | None = None,
    *,
    unfinished: bool = False,
    refused: bool = False,
) -> list[Import]:
    """Imports, the newest first, before the seq at which one began; of those, only some."""
    condition = "began_seq < %(before)s"
    condition += " AND finished_seq = 0 AND refused_seq = 0" if unfinished else ""
    condition += " AND refused_seq > 0" if refused else ""
    values = {"before": 2**62 if before is None else before, "first": first}
    return _imports_where(db, f"{condition} ORDER BY began_seq DESC LIMIT %(first)s", values)


def imports_of(db: Connection, digest: str) -> list[Import]:
    """Imports of a file with this very content, the newest first."""
    return _imports_where(db, "digest = %s ORDER BY began_seq DESC", (digest,))


def _imports_where(db: Connection, condition: str, values: Any) -> list[Import]:
    found = db.execute(
        f"SELECT {', '.join(IMPORTS.columns)} FROM imports WHERE {condition}",
        values, binary=True, prepare=False,
    )  # fmt: skip
    return [Import(**dict(zip(IMPORTS.columns, row, strict=True))) for row in found]


def counts_of(row: Import) -> SourceCounts:
    """An import's figures, to be checked: they add up."""
    return SourceCounts(row.name, *(getattr(row, name) for name in TALLIED))
