"""Sessions: those that run, and how those ended that do not; one row for each, by its own id.

A row is what the session's last event tells, and where that stands in the log. What was charged
in the end is a usage like any other.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from ..domain.events import Recorded
from ..domain.session import (
    SessionDenied,
    SessionEvent,
    SessionExpired,
    SessionReleased,
    SessionReserved,
    SessionUpdated,
)
from ..domain.session_conditions import TERMINATE
from .chunk import Chunk
from .paging import newest, page_values
from .tables import Connection, Table

STATUSES = ("open", "denied", "released", "expired")
"""A session that was denied more while it ran is open until it ends."""

SESSIONS = Table(
    "sessions",
    {"source": "text", "session": "text"},
    {
        "seq": "bigint",
        "status": "text",
        "ordinal": "integer",
        "node": "integer",
        "usage_type": "text",
        "period": "text",
        "started_at": "bigint",
        "direction": "text",
        "number": "bigint",
        "used": "bigint",
        "granted": "bigint",
        "held": "bigint",
        "amount": "bigint",
        "overrun": "bigint",
        "reason": "text",
        "stopped_by": "integer",
        "expires_at": "bigint",
        "recorded_at": "bigint",
        "rating_group": "bigint",
        "final_action": "text",
    },
)
TABLES = (SESSIONS,)
VERSION = 2


class Session(Struct, frozen=True):
    """A session as its last event tells of it, with the resource and the node that it was on."""

    source: str
    session: str
    seq: int
    """Of its last event."""
    status: str
    ordinal: int
    node: int
    usage_type: str
    period: str
    started_at: int
    direction: str
    number: int
    used: int
    """As reported since the start."""
    granted: int
    """The last slice; 0 once it was denied more, or has ended."""
    held: int
    """Billed units that are kept back for it, those it has used among them."""
    amount: int
    """Money that is kept back for it."""
    overrun: int
    reason: str
    """Why it was denied, the last time."""
    stopped_by: int | None
    expires_at: int | None
    recorded_at: int
    rating_group: int
    final_action: str
    """What happens when the units granted last are used; empty while they are not the last."""
    resource_id: str
    node_id: str
    node_name: str
    stopped_by_id: str | None


def apply(chunk: Chunk, db: Connection) -> None:
    rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for told in chunk.others:
        if isinstance(told.event, SessionEvent):
            rows[told.event.source, told.event.session] = _row(told, told.event)
    SESSIONS.put(db, rows)


def _row(told: Recorded, event: SessionEvent) -> tuple[Any, ...]:
    used = granted = overrun = 0
    reason, stopped_by, expires_at, final = "", None, None, ""
    if isinstance(event, SessionReserved | SessionUpdated) and event.final:
        final = event.conditions.action if event.conditions else TERMINATE
    match event:
        case SessionReserved():
            status, granted, expires_at = "open", event.granted, event.expires_at
        case SessionUpdated():
            status, used, granted, expires_at = "open", event.used, event.granted, event.expires_at
        case SessionDenied():
            running = event.expires_at > 0
            status, used = "open" if running else "denied", event.used
            reason, stopped_by = event.reason, event.stopped_by
            expires_at = event.expires_at if running else None
        case SessionReleased():
            status, used, overrun = "released", event.used, event.overrun
        case SessionExpired():
            status, used, overrun = "expired", event.used, event.overrun
    return (
        *(told.seq, status, event.path[0], event.path[1], event.usage_type, event.period),
        *(event.started_at, event.direction, event.number, used, granted),
        *(event.held.billed, event.held.amount, overrun, reason, stopped_by, expires_at, told.recorded_at),
        *(event.rating_group, final),
    )


# --- queries ---------------------------------------------------------------------------------


def sessions_page(
    db: Connection, first: int, before: int | None = None, under: str | None = None, status: str | None = None
) -> list[Session]:
    """Those that changed last before a seq, newest first: of a resource, or at and below a node."""
    conditions, values = [], page_values(first, before)
    if status is not None:
        if status not in STATUSES:
            return []
        # Written out, not a parameter: those that run have an index of their own.
        conditions.append(f"status = '{status}'")
    page = newest(db, "sessions", conditions, values, under)
    return [] if page is None else _sessions(db, page, values)


def held_now(db: Connection) -> tuple[int, int, int]:
    """How many sessions run, and the billed units and the money that they hold."""
    found = db.execute(
        "SELECT count(*), coalesce(sum(held), 0)::bigint, coalesce(sum(amount), 0)::bigint "
        "FROM sessions WHERE status = 'open'"
    ).fetchone()
    assert found is not None
    return found[0], found[1], found[2]


def _sessions(db: Connection, rows: str, values: dict[str, Any]) -> list[Session]:
    columns = ", ".join(f"s.{column}" for column in SESSIONS.columns)
    names: Sequence[tuple[str, str]] = (
        ("id", "s.ordinal"),
        ("id", "s.node"),
        ("name", "s.node"),
        ("id", "s.stopped_by"),
    )
    told = ", ".join(f"(SELECT {name} FROM members WHERE ordinal = {at})" for name, at in names)
    found = db.execute(
        f"SELECT {columns}, {told} FROM ({rows}) AS s ORDER BY s.seq DESC", values, binary=True
    )
    return [Session(*row) for row in found]
