"""Allocations: caps and what was drawn past them, what caps promise, who is frozen, templates, schedules.

What a capped member drew from above is counted from its first cap on, as in `domain/cap.py`. What caps
ask of a bucket is worked out when it is asked for: it follows from the caps, the tree and the buckets.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ..domain.cap import CapSet
from ..domain.freeze import NodeThawed
from ..domain.hierarchy import NodeFrozen
from ..domain.rerated import UsageTakenBack
from ..domain.running import Line
from ..domain.schedule import AllocationScheduled, ScheduleCancelled, ScheduleCarriedOut, ScheduleSkipped
from ..domain.session import (
    SessionDenied,
    SessionExpired,
    SessionReleased,
    SessionReserved,
    SessionUpdated,
)
from ..domain.template import TemplateDefined
from .chunk import Chunk
from .members import Listed, each
from .tables import Connection, Table, int8_array

CAPS = Table(
    "caps",
    {"ordinal": "integer", "usage_type": "text", "from_period": "text"},
    {"quantity": "bigint", "note": "text", "seq": "bigint", "recorded_at": "bigint"},
)
DRAWN = Table(
    "drawn_from_above", {"period": "text", "usage_type": "text", "ordinal": "integer"}, {"drawn": "bigint"}
)
FROZEN = Table(
    "frozen",
    {"ordinal": "integer"},
    {"is_frozen": "boolean", "note": "text", "seq": "bigint", "recorded_at": "bigint"},
)
TEMPLATES = Table(
    "templates",
    {"template": "text"},
    {
        "usage_type": "text",
        "share": "text",
        "amount": "bigint",
        "among": "text",
        "note": "text",
        "seq": "bigint",
        "recorded_at": "bigint",
    },
)
SCHEDULES = Table(
    "schedules",
    {"schedule": "text"},
    {
        "lines": "text",
        "every": "text",
        "first_at": "bigint",
        "until": "bigint",
        "note": "text",
        "seq": "bigint",
        "recorded_at": "bigint",
    },
)
RUNS = Table(
    "schedule_runs",
    {"schedule": "text"},
    {
        "status": "text",
        "next_at": "bigint",
        "last_at": "bigint",
        "outcome": "text",
        "code": "text",
        "line": "integer",
        "count": "bigint",
        "seq": "bigint",
    },
)
TABLES = (CAPS, DRAWN, FROZEN, TEMPLATES, SCHEDULES, RUNS)
VERSION = 2

Counting = dict[tuple[str, int], list[tuple[int, str]]]
"""(usage type, ordinal) -> from which event, and which period, what is drawn from above is counted."""


class Standing(Struct, frozen=True):
    """What caps say of a member, in one usage type and period."""

    ordinal: int
    usage_type: str
    cap: int | None
    drawn: int | None
    """From above; None where it never had a cap."""
    committed: int
    """What caps below ask of its bucket, and of what is above it."""
    over_committed: int
    """Of that, what nobody can serve."""


class FrozenMember(Struct, frozen=True):
    ordinal: int
    id: str
    note: str
    seq: int
    recorded_at: int


class Template(Struct, frozen=True):
    template: str
    usage_type: str
    share: str
    amount: int
    to: str
    note: str
    seq: int
    recorded_at: int


class Schedule(Struct, frozen=True):
    schedule: str
    lines: list[Line]
    every: str
    first_at: int
    until: int
    note: str
    seq: int
    recorded_at: int
    status: str
    """waiting, over or cancelled."""
    next_at: int
    last_at: int
    outcome: str
    """Of the last time: carried_out or skipped."""
    code: str
    line: int
    count: int


def apply(chunk: Chunk, db: Connection) -> None:
    _settings(chunk, db)
    begun = _begun(chunk, db)
    _caps(chunk, db)
    if begun:
        _drawn(chunk, db, begun)


def _settings(chunk: Chunk, db: Connection) -> None:
    frozen: dict[Any, Any] = {}
    templates: dict[Any, Any] = {}
    schedules: dict[Any, Any] = {}
    for told in chunk.others:
        event, at = told.event, (told.seq, told.recorded_at)
        match event:
            case NodeFrozen(node, note):
                frozen[(chunk.ordinals.of[node],)] = (True, note, *at)
            case NodeThawed(node, note):
                frozen[(chunk.ordinals.of[node],)] = (False, note, *at)
            case TemplateDefined(template, usage_type, rule, note):
                told_rule = (rule.share, rule.amount, rule.to)
                templates[(template,)] = (usage_type, *told_rule, note, *at)
            case AllocationScheduled(schedule, lines, every, first_at, until, note):
                packed = msgspec.json.encode(lines).decode()
                schedules[(schedule,)] = (packed, every, first_at, until, note, *at)
    FROZEN.put(db, frozen)
    TEMPLATES.put(db, templates)
    SCHEDULES.put(db, schedules)
    RUNS.put(db, _runs(chunk, db))


def _runs(chunk: Chunk, db: Connection) -> dict[tuple[str], tuple[Any, ...]]:
    """How each schedule that something is told of stands after this chunk."""
    runs: dict[tuple[str], tuple[Any, ...]] = {}
    for told in chunk.others:
        match told.event:
            case AllocationScheduled(schedule, _, every, first_at):
                next_at = 0 if every == "period" else first_at
                runs[(schedule,)] = ("waiting", next_at, 0, "", "", 0, 0, told.seq)
            case ScheduleCancelled(schedule):
                before = runs.get((schedule,)) or _run(db, schedule)
                runs[(schedule,)] = ("cancelled", 0, *before[2:7], told.seq)
            case ScheduleCarriedOut(schedule, at, _, count, next_at):
                status = _status(chunk, db, schedule, next_at)
                runs[(schedule,)] = (status, next_at, at, "carried_out", "", 0, count, told.seq)
            case ScheduleSkipped(schedule, at, _, code, line, next_at):
                status = _status(chunk, db, schedule, next_at)
                runs[(schedule,)] = (status, next_at, at, "skipped", code, line, 0, told.seq)
    return runs


def _run(db: Connection, schedule: str) -> tuple[Any, ...]:
    columns = ", ".join(RUNS.figures)
    found = db.execute(
        f"SELECT {columns} FROM schedule_runs WHERE schedule = %s", (schedule,), prepare=False
    ).fetchone()
    assert found is not None
    return found


def _status(chunk: Chunk, db: Connection, schedule: str, next_at: int) -> str:
    if next_at:
        return "waiting"
    found = db.execute(
        "SELECT every FROM schedules WHERE schedule = %s", (schedule,), prepare=False
    ).fetchone()
    return "waiting" if found is not None and found[0] == "period" else "over"


def _caps(chunk: Chunk, db: Connection) -> None:
    caps: dict[Any, Any] = {}
    for told in chunk.others:
        if isinstance(told.event, CapSet):
            cap = told.event
            key = (chunk.ordinals.of[cap.node], cap.usage_type, cap.from_period)
            caps[key] = (cap.quantity, cap.note, told.seq, told.recorded_at)
    CAPS.put(db, caps)


def _begun(chunk: Chunk, db: Connection) -> Counting:
    """Since when, and from which period on, is counted: by caps set before this chunk, and in it."""
    caps = [(told.seq, told.event) for told in chunk.others if isinstance(told.event, CapSet)]
    begun = chunk.kept("caps", lambda: _begun_before(db), changes=bool(caps))
    for seq, cap in caps:
        begun.setdefault((cap.usage_type, chunk.ordinals.of[cap.node]), []).append((seq, cap.from_period))
    return begun


def _begun_before(db: Connection) -> Counting:
    found = db.execute(
        "SELECT usage_type, ordinal, min(from_period) FROM caps GROUP BY usage_type, ordinal", prepare=False
    )
    return {(usage_type, ordinal): [(0, period)] for usage_type, ordinal, period in found.fetchall()}


def _drawn(chunk: Chunk, db: Connection, begun: Counting) -> None:
    sums: dict[Any, list[int]] = {}
    charges = chunk.charges
    for seq, charge in zip(charges.seqs, charges.events, strict=True) if begun else ():
        if charge.drawn:
            _count(sums, begun, seq, charge, charge.drawn, 1)
    for told in chunk.others:
        match told.event:
            case CapSet(held=held):
                for period, quantity in held:
                    ordinal = chunk.ordinals.of[told.event.node]
                    _add(sums, period, told.event.usage_type, ordinal, quantity)
            case (
                SessionReserved() | SessionUpdated() | SessionDenied() | SessionReleased() | SessionExpired()
            ):
                _count(sums, begun, told.seq, told.event, told.event.before.drawn, -1)
                _count(sums, begun, told.seq, told.event, told.event.held.drawn, 1)
            case UsageTakenBack(caps=caps):
                for cap in caps:
                    _add(sums, cap.period, cap.usage_type, cap.ordinal, cap.change)
    DRAWN.add(db, {key: [total] for key, (total,) in sums.items() if total})


def _count(
    sums: dict[Any, list[int]],
    begun: Counting,
    seq: int,
    usage: Any,
    drawn: tuple[tuple[int, int], ...],
    sign: int,
) -> None:
    parts = dict(drawn)
    above = sum(parts.values())
    for ordinal in usage.path:
        above -= parts.get(ordinal, 0)
        if not above:
            return
        since = begun.get((usage.usage_type, ordinal), ())
        if any(at < seq and period <= usage.period for at, period in since):
            _add(sums, usage.period, usage.usage_type, ordinal, sign * above)


def _add(sums: dict[Any, list[int]], period: str, usage_type: str, ordinal: int, more: int) -> None:
    sums.setdefault((period, usage_type, ordinal), [0])[0] += more


# --- queries ---------------------------------------------------------------------------------


def standings(
    db: Connection, listed: Sequence[Listed], period: str, usage_types: Sequence[str]
) -> dict[tuple[int, str], Standing]:
    """What caps say of members that are listed; those of whom they say nothing are left out."""
    asked = {"period": period, "usage_types": list(usage_types)}
    caps = {(ordinal, of): quantity for ordinal, of, quantity in db.execute(_IN_FORCE, asked).fetchall()}
    ordinals = int8_array([member.ordinal for member in listed])
    drawn = {row[:2]: row[2] for row in db.execute(_DRAWN, asked | {"ordinals": ordinals}).fetchall()}
    counted = {row[:2] for row in db.execute(_COUNTED, asked | {"ordinals": ordinals}).fetchall()}
    committed, over = _promises(db, period, caps)
    return {
        key: Standing(
            *key,
            caps.get(key),
            drawn.get(key, 0) if key in counted else None,
            committed.get(key, 0),
            over.get(key, 0),
        )
        for member in listed
        for usage_type in usage_types
        if (key := (member.ordinal, usage_type)) in counted or committed.get(key)
    }


def drawn_from_above(db: Connection, period: str) -> dict[tuple[str, int], int]:
    """Of everybody who drew anything past a cap."""
    found = db.execute(
        "SELECT usage_type, ordinal, drawn FROM drawn_from_above WHERE period = %s AND drawn <> 0", (period,)
    )
    return {(usage_type, ordinal): drawn for usage_type, ordinal, drawn in found.fetchall()}


def _promises(
    db: Connection, period: str, caps: dict[tuple[int, str], int | None]
) -> tuple[dict[tuple[int, str], int], dict[tuple[int, str], int]]:
    """What is asked of each bucket, and by how much more than there is: from the leaves up."""
    capped = sorted({ordinal for (ordinal, _), quantity in caps.items() if quantity is not None})
    paths: dict[int, list[int]] = {}
    if capped:
        paths.update(db.execute(_PATHS, {"ordinals": int8_array(capped)}).fetchall())
    above = sorted({ordinal for path in paths.values() for ordinal in path})
    asked = {"period": period, "ordinals": int8_array(above)}
    own = {row[:2]: row[2] for row in db.execute(_OWN, asked).fetchall()} if above else {}
    committed: dict[tuple[int, str], int] = {}
    over: dict[tuple[int, str], int] = {}
    ways = {path[depth]: path[:depth] for path in paths.values() for depth in range(len(path))}
    for usage_type in dict.fromkeys(of for _, of in caps):
        for ordinal, way in sorted(ways.items(), key=lambda item: -len(item[1])):
            key = ordinal, usage_type
            cap, asks = caps.get(key), committed.get(key, 0)
            missing = max(0, asks - own.get(key, 0) - (cap or 0))
            if cap is not None or not way:
                over[key] = missing
            if way and (wants := cap if cap is not None else missing):
                committed[way[-1], usage_type] = committed.get((way[-1], usage_type), 0) + wants
    return committed, over


def frozen(db: Connection) -> list[FrozenMember]:
    found = db.execute(
        "SELECT f.ordinal, m.id, f.note, f.seq, f.recorded_at FROM frozen f "
        f"CROSS JOIN {each('members', 'ordinal = f.ordinal')} AS m WHERE f.is_frozen ORDER BY f.ordinal"
    )
    return [FrozenMember(*row) for row in found]


def templates(db: Connection) -> list[Template]:
    columns = ", ".join(TEMPLATES.columns)
    found = db.execute(f"SELECT {columns} FROM templates ORDER BY template")
    return [Template(*row) for row in found]


def schedules(db: Connection, *, status: str | None, after: str, first: int) -> list[Schedule]:
    """By their names, after one; only of a status, or all."""
    told = ", ".join(f"s.{name}" for name in SCHEDULES.columns)
    found = db.execute(
        f"SELECT {told}, r.status, r.next_at, r.last_at, r.outcome, r.code, r.line, r.count FROM schedules s "
        f"CROSS JOIN {each('schedule_runs', 'schedule = s.schedule')} AS r "
        "WHERE s.schedule > %(after)s AND (%(status)s::text IS NULL OR r.status = %(status)s::text) "
        "ORDER BY s.schedule LIMIT %(first)s",
        {"status": status, "after": after, "first": first},
    )
    return [Schedule(row[0], _decode_lines(row[1]), *row[2:]) for row in found]


def as_lines(db: Connection, period: str) -> list[Line]:
    """Lines that give everybody below the enterprise what they have, and the caps that they have."""
    given = db.execute(_GIVEN, {"period": period}).fetchall()
    caps = db.execute(_CAPPED, {"period": period}).fetchall()
    return [
        *(Line("allocate", root, target, of, own) for root, target, of, own in given),
        *(Line("cap", "", target, of, quantity) for target, of, quantity in caps),
    ]


_decode_lines = msgspec.json.Decoder(list[Line]).decode

_TYPES = "usage_type = ANY(%(usage_types)s::text[])"
_LATEST = """
SELECT DISTINCT ON (ordinal, usage_type) ordinal, usage_type, quantity FROM caps
WHERE {} from_period <= %(period)s AND NOT EXISTS (
    SELECT FROM member_life l WHERE l.ordinal = caps.ordinal AND l.closed_at IS NOT NULL
) ORDER BY ordinal, usage_type, from_period DESC, seq DESC
"""
_IN_FORCE = _LATEST.format(f"{_TYPES} AND")
_EVERY_IN_FORCE = _LATEST.format("")
_AMONG = f"{_TYPES} AND ordinal = ANY(%(ordinals)s::bigint[]::integer[])"
_DRAWN = f"SELECT ordinal, usage_type, drawn FROM drawn_from_above WHERE period = %(period)s AND {_AMONG}"
_COUNTED = f"SELECT DISTINCT ordinal, usage_type FROM caps WHERE {_AMONG} AND from_period <= %(period)s"
_PATHS = "SELECT ordinal, path FROM members WHERE ordinal = ANY(%(ordinals)s::bigint[]::integer[])"
_HAS = "granted + allocated_in + returned_in + traded_in - allocated_out - returned_out - traded_out"
_OWN = f"""
SELECT ordinal, usage_type, {_HAS} FROM balances
WHERE period = %(period)s AND ordinal = ANY(%(ordinals)s::bigint[]::integer[])
"""
_GIVEN = f"""
SELECT (SELECT id FROM members WHERE parent IS NULL), m.id, b.usage_type, b.own
FROM (
    SELECT ordinal, usage_type, {_HAS} AS own FROM balances WHERE period = %(period)s
) AS b CROSS JOIN {each("members", "ordinal = b.ordinal")} AS m
WHERE b.own > 0 AND m.parent IS NOT NULL ORDER BY b.usage_type, m.path
"""
_CAPPED = f"""
SELECT m.id, c.usage_type, c.quantity FROM ({_EVERY_IN_FORCE}) AS c
CROSS JOIN {each("members", "ordinal = c.ordinal")} AS m
WHERE c.quantity IS NOT NULL ORDER BY c.usage_type, m.path
"""
