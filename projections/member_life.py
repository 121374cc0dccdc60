"""What became of members: suspended, closed, planned, labelled. A row for those that have any of it."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from ..domain.life import (
    NodeChangePlanned,
    NodeClosed,
    NodeMoved,
    NodePlanCancelled,
    NodeRenamed,
    ResourceLabelled,
    ResourceResumed,
    ResourceSuspended,
)
from ..domain.tenant import Event
from .chunk import Chunk
from .tables import Connection, Table, int8_array

MEMBER_LIFE = Table(
    "member_life",
    {"ordinal": "integer"},
    {
        "suspended_at": "bigint",
        "resumed_at": "bigint",
        "closed_at": "bigint",
        "successor": "integer",
        "plan": "text",
        "plan_to": "text",
        "plan_at": "bigint",
        "label_token": "bytea",
        "label_sealed": "bytea",
    },
)
_NO_PLAN = {"plan": None, "plan_to": None, "plan_at": None}

Row = dict[str, Any]


class LifeOf(Struct, frozen=True):
    """What became of one member."""

    ordinal: int
    suspended_at: int | None
    resumed_at: int | None
    closed_at: int | None
    successor_id: str | None
    plan: str | None
    plan_to: str | None
    plan_at: int | None


def apply(chunk: Chunk, db: Connection) -> None:
    told = [(ordinal, one.event) for one in chunk.others if (ordinal := _whose(one.event, chunk)) is not None]
    if not told:
        return
    rows = _held(db, {ordinal for ordinal, _ in told})
    for ordinal, event in told:
        row = rows.setdefault(ordinal, dict.fromkeys(MEMBER_LIFE.figures))
        row.update(_changed(event, row, chunk))
    MEMBER_LIFE.put(db, {(ordinal,): list(row.values()) for ordinal, row in rows.items()})


def _whose(event: Event, chunk: Chunk) -> int | None:
    of = chunk.ordinals.of
    match event:
        case (
            NodeMoved(member)
            | NodeRenamed(member)
            | NodeClosed(member)
            | NodeChangePlanned(member)
            | NodePlanCancelled(member)
            | ResourceSuspended(member)
            | ResourceResumed(member)
            | ResourceLabelled(member)
        ):
            return of[member]
    return None


def _held(db: Connection, ordinals: set[int]) -> dict[int, Row]:
    asked = (int8_array(sorted(ordinals)),)
    found = db.execute(_HELD, asked, prepare=False).fetchall()
    return {ordinal: dict(zip(MEMBER_LIFE.figures, figures, strict=True)) for ordinal, *figures in found}


def _changed(event: Event, row: Row, chunk: Chunk) -> Row:
    match event:
        case NodeRenamed(_, name):
            return _NO_PLAN if (row["plan"], row["plan_to"]) == ("rename", name) else {}
        case NodeMoved() | NodePlanCancelled():
            return _NO_PLAN
        case NodeClosed(_, successor, at):
            to = chunk.ordinals.of[successor] if successor else None
            return {"closed_at": at, "successor": to, **_NO_PLAN}
        case NodeChangePlanned(_, act, to, at):
            return {"plan": act, "plan_to": to, "plan_at": at}
        case ResourceSuspended(_, at) if row["resumed_at"] is not None and at < row["suspended_at"]:
            # Dated back, before it was resumed.
            return {"suspended_at": at}
        case ResourceSuspended(_, at):
            return {"suspended_at": at, "resumed_at": None}
        case ResourceResumed(_, at):
            return {"resumed_at": at}
        case ResourceLabelled(_, token, sealed):
            return {"label_token": token or None, "label_sealed": sealed or None}
    return {}


# --- queries ---------------------------------------------------------------------------------


def lives_among(db: Connection, listed: Sequence[Any]) -> dict[int, LifeOf]:
    """Of members that have been read, by ordinal."""
    asked = (int8_array([member.ordinal for member in listed]),)
    return {row[0]: LifeOf(*row) for row in db.execute(_AMONG, asked).fetchall()}


_AMONG = """
SELECT l.ordinal, l.suspended_at, l.resumed_at, l.closed_at,
       (SELECT id FROM members WHERE ordinal = l.successor), l.plan, l.plan_to, l.plan_at
FROM member_life l WHERE l.ordinal = ANY(%s::bigint[]::integer[])
"""
_HELD = (
    f"SELECT ordinal, {', '.join(MEMBER_LIFE.figures)} FROM member_life "
    "WHERE ordinal = ANY(%s::bigint[]::integer[])"
)
