"""Suspense: one row for each record that ever waited, as it is now.

A row stays when its record is charged, rejected or written off: then it says how and when it left.
What a record says, and what is wrong with it, is that of its last correction and its last attempt.
"""

from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import astuple

from ..domain.charging import UsageSuspended
from ..domain.events import Recorded
from ..domain.suspense import SuspenseEvent, UsageAmended, UsageRecycled, waiting_id
from ..domain.writing_off import UsageDismissalAsked, UsageDismissed, UsageKept
from .chunk import Chunk
from .tables import Connection, Table

SUSPENSE = Table(
    "suspense",
    {"waiting": "bytea"},
    {
        "usage_id": "bytea",
        "seq": "bigint",
        "content_seq": "bigint",
        "source": "text",
        "record_id": "text",
        "file": "text",
        "position": "text",
        "readable": "boolean",
        "usage_type": "text",
        "quantity": "bigint",
        "started_at": "bigint",
        "direction": "text",
        "subject": "bytea",
        "reason": "text",
        "field": "text",
        "detail": "text",
        "revision": "bigint",
        "attempts": "bigint",
        "value": "bigint",
        "recorded_at": "bigint",
        "outcome": "text",
        "settled_seq": "bigint",
        "asked_by": "text",
    },
)
STEPS = Table("suspense_steps", {"seq": "bigint"}, {"waiting": "bytea"})
"""Which events tell of which record that waits, or waited."""
TABLES = (SUSPENSE, STEPS)
VERSION = 2
DAY = 86_400_000_000
STEPS_MAX = 100
"""So many of the newest are told."""
AGES = (DAY, 7 * DAY, 30 * DAY)
"""Where one bucket of ages ends and the next begins: a day, a week, thirty days."""


class Waiting(Struct):
    """A record in suspense, or what became of one."""

    waiting: bytes
    usage_id: bytes
    seq: int
    content_seq: int
    """The event that says what the record is: its suspension, or its last correction."""
    source: str
    record_id: str
    file: str
    position: str
    readable: bool
    """Whether it is known what it says: as it came, or as it was corrected."""
    usage_type: str
    quantity: int
    started_at: int
    direction: str
    subject: bytes
    reason: str
    field: str
    detail: str
    revision: int
    attempts: int
    value: int | None
    """What it would cost, where the tariff can tell."""
    recorded_at: int
    outcome: str
    """"" while it waits; then charged, rejected or dismissed."""
    settled_seq: int
    """The event that says so; 0 while it waits."""
    asked_by: str
    """Who wants to write it off, and needs another person for that."""


class SuspenseFilter(Struct, frozen=True):
    """Which records that wait; everything given must hold."""

    reason: str | None = None
    source: str | None = None
    file: str | None = None
    usage_type: str | None = None
    subject: bytes | None = None
    """The keyed hash of a line."""
    from_at: int | None = None
    """Of usage from this moment on ..."""
    until_at: int | None = None
    """... and before this one."""
    undated: bool = False
    """With them what could not be read so far that its time is known."""
    asked: bool | None = None
    """Whether somebody wants to write it off, and needs another person for that."""


EVERYTHING = SuspenseFilter()


class Ageing(NamedTuple):
    """Records of one reason, source and usage type that wait: how many, since when, what they cost."""

    reason: str
    source: str
    usage_type: str
    records: int
    oldest: int
    """When the first of them came."""
    ages: tuple[int, int, int, int]
    """How many have waited for up to a day, a week, thirty days, and longer."""
    valued: int
    """Of how many it is known what they would cost ..."""
    value: int
    """... and how much that is."""


def apply(chunk: Chunk, db: Connection) -> None:
    rows = {waiting_id(event): _came(told, event) for told, event in chunk.suspended}
    later = [(told, told.event) for told in chunk.others if isinstance(told.event, SuspenseEvent)]
    known = [event.waiting for _, event in later if event.waiting not in rows]
    if known:
        rows |= {row.waiting: row for row in _rows(db, "waiting = ANY(%s)", [list(set(known))])}
    for told, event in later:
        _follow(rows[event.waiting], told.seq, event)
    STEPS.insert(db, [(told.seq, event.waiting) for told, event in later])
    SUSPENSE.put(db, {(one.waiting,): astuple(one)[1:] for one in rows.values()})


def _came(told: Recorded, event: UsageSuspended) -> Waiting:
    return Waiting(
        waiting=waiting_id(event),
        usage_id=told.command_key or b"",
        seq=told.seq,
        content_seq=told.seq,
        source=event.source,
        record_id=event.record_id,
        file=event.position.rpartition(":")[0],
        position=event.position,
        readable=event.readable,
        usage_type=event.usage_type,
        quantity=event.quantity,
        started_at=event.started_at,
        direction=event.direction,
        subject=event.subject,
        reason=event.reason,
        field=event.field,
        detail=event.detail,
        revision=0,
        attempts=0,
        value=event.value,
        recorded_at=told.recorded_at,
        outcome="",
        settled_seq=0,
        asked_by="",
    )


def _follow(row: Waiting, seq: int, event: SuspenseEvent) -> None:
    row.asked_by = event.asked_by if isinstance(event, UsageDismissalAsked) else ""
    match event:
        case UsageAmended():
            row.content_seq, row.readable, row.subject = seq, True, event.subject
            row.source, row.record_id = event.source, event.record_id
            row.usage_type, row.quantity = event.usage_type, event.quantity
            row.started_at, row.direction, row.value = event.started_at, event.direction, event.value
            row.revision += 1
        case UsageRecycled(outcome="suspended"):
            row.reason, row.field, row.detail = event.reason, event.field, event.detail
            row.value = event.value if event.value is not None else row.value
            row.attempts += 1
            row.revision += 1
        case UsageRecycled(outcome=outcome):
            row.attempts += 1
            row.outcome, row.settled_seq = outcome, seq
        case UsageDismissed():
            row.outcome, row.settled_seq = "dismissed", seq
        case UsageDismissalAsked() | UsageKept():
            pass


# --- queries ---------------------------------------------------------------------------------


def waiting_page(
    db: Connection, first: int, before: int | None = None, wanted: SuspenseFilter = EVERYTHING
) -> list[Waiting]:
    """What waits, newest first, before a seq."""
    conditions, values = _conditions(wanted)
    conditions.append("seq < %(before)s")
    values |= {"before": 2**62 if before is None else before, "first": first}
    return _rows(db, " AND ".join(conditions) + " ORDER BY seq DESC LIMIT %(first)s", values)


def waiting_after(db: Connection, after: int, first: int, wanted: SuspenseFilter) -> list[Waiting]:
    """What waits, oldest first, after a seq: in the order in which it is worked off."""
    conditions, values = _conditions(wanted)
    conditions.append("seq > %(after)s")
    values |= {"after": after, "first": first}
    return _rows(db, " AND ".join(conditions) + " ORDER BY seq LIMIT %(first)s", values)


def waited(db: Connection, usage_ids: list[bytes]) -> list[Waiting]:
    """These records, whether they still wait or not, oldest first."""
    return _rows(db, "usage_id = ANY(%s) ORDER BY seq", [usage_ids])


def origin_of(db: Connection, seq: int) -> Waiting | None:
    """The record that left suspense with the charge or rejection in this event, if one did."""
    # Both are told in one command: first that it was recycled.
    found = _rows(db, "settled_seq = %s AND outcome IN ('charged', 'rejected')", [seq - 1])
    return found[0] if found else None


def steps_of(db: Connection, waiting: bytes) -> list[int]:
    """The events that tell what was done about a record that waits, or waited, oldest first."""
    found = db.execute(
        "SELECT seq FROM suspense_steps WHERE waiting = %s ORDER BY seq DESC LIMIT %s", (waiting, STEPS_MAX)
    )
    return sorted(seq for (seq,) in found)


def waiting_count(db: Connection, wanted: SuspenseFilter = EVERYTHING, after: int = 0) -> int:
    conditions, values = _conditions(wanted)
    found = db.execute(
        f"SELECT count(*) FROM suspense WHERE {' AND '.join(conditions)} AND seq > %(after)s",
        values | {"after": after},
    ).fetchone()
    return found[0] if found else 0


def suspense_counts(db: Connection) -> dict[str, int]:
    """How many wait, by reason."""
    found = db.execute(
        "SELECT reason, count(*) FROM suspense WHERE outcome = '' GROUP BY reason ORDER BY reason"
    )
    return dict(found.fetchall())


def ageing(db: Connection, now: int, wanted: SuspenseFilter = EVERYTHING) -> list[Ageing]:
    """What waits, by reason, source and usage type; the largest first."""
    conditions, values = _conditions(wanted)
    first, second, third = (f"%(now)s - recorded_at > {age}" for age in AGES)
    found = db.execute(
        "SELECT reason, source, usage_type, count(*), min(recorded_at), "
        f"count(*) FILTER (WHERE NOT {first}), count(*) FILTER (WHERE {first} AND NOT {second}), "
        f"count(*) FILTER (WHERE {second} AND NOT {third}), count(*) FILTER (WHERE {third}), "
        "count(value), coalesce(sum(value), 0)::bigint "
        f"FROM suspense WHERE {' AND '.join(conditions)} GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3",
        values | {"now": now},
    )
    return [_ageing(*row) for row in found]


def _ageing(reason: str, source: str, usage_type: str, records: int, oldest: int, *figures: int) -> Ageing:
    day, week, month, older, valued, value = figures
    return Ageing(reason, source, usage_type, records, oldest, (day, week, month, older), valued, value)


def settled_totals(db: Connection) -> dict[str, int]:
    """How many ever left, and how; and how many wait, under ""."""
    return dict(db.execute("SELECT outcome, count(*) FROM suspense GROUP BY outcome").fetchall())


def _conditions(wanted: SuspenseFilter) -> tuple[list[str], dict[str, Any]]:
    """Written out, not a parameter: what waits has an index of its own."""
    conditions, values = ["outcome = ''"], dict[str, Any]()
    for name, condition in _FILTERS.items():
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(f"({condition} OR started_at = 0)" if wanted.undated else condition)
            values[name] = value
    return conditions, values


_FILTERS = {
    **{name: f"{name} = %({name})s" for name in ("reason", "source", "file", "usage_type", "subject")},
    "from_at": "started_at >= %(from_at)s",
    "until_at": "started_at < %(until_at)s",
    "asked": "(asked_by <> '') = %(asked)s",
}


def _rows(db: Connection, condition: str, values: Any) -> list[Waiting]:
    columns = ", ".join(SUSPENSE.columns)
    found = db.execute(
        f"SELECT {columns} FROM suspense WHERE {condition}", values, binary=True, prepare=False
    )
    return [Waiting(*row) for row in found]
