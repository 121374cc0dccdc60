"""The queue: what is to be delivered, to whom, when, and what became of it; one row for each event and place.

Rows are made from the log, in the transaction that says how far the log has been looked at, and worked off
under a claim that ends by itself. So whoever is killed at any point has neither lost a delivery nor kept it
from others: what was not settled is delivered again, under the same id.

Rows are locked in one order, so that nobody waits in a circle: a place in `outlets` before what is delivered
there, and of `deliveries` the earliest event first. Who forgets waits for nobody.
"""

from collections.abc import Iterable, Sequence
from typing import Literal
from uuid import NAMESPACE_URL, UUID, uuid5

from msgspec import Struct

from ...projections.paging import page_values
from ...tenants.isolation import Connection, Isolation

Channel = Literal["webhook", "email", "nats"]

CLAIM_SECONDS: dict[Channel, float] = {"webhook": 12, "email": 120, "nats": 60}
"""Longer than what is claimed at once takes: then whoever claimed it is gone."""
KEPT_DAYS = 30
FORGOTTEN_MAX = 5_000
OUTLETS_MAX = 1_000
"""Looked at in one go."""
SUBJECT_OF_ALL = "subject"
"""The one endpoint that each tenant has on NATS."""


class Place(Struct, frozen=True):
    """Where something is delivered."""

    tenant: UUID
    channel: Channel
    endpoint: str
    """The id of the webhook or recipient."""


class Wanted(Struct, frozen=True):
    """An event that a place is to be told of, not before `due_at`."""

    channel: Channel
    endpoint: str
    seq: int
    topic: str
    slot: int
    """What has the same slot, other than 0, goes out together."""
    due_at: int


class Delivery(Struct, frozen=True):
    """Claimed: to be tried now."""

    seq: int
    topic: str
    slot: int
    attempts: int
    """Before this one."""


class Logged(Struct, frozen=True):
    """A line of the delivery log."""

    seq: int
    topic: str
    status: str
    attempts: int
    replays: int
    due_at: int
    created_at: int
    tried_at: int | None
    took_ms: int | None
    detail: str


def notice_id(tenant: UUID, seq: int) -> str:
    """The same for the same event, whoever is told of it, and however often."""
    return f"msg_{uuid5(NAMESPACE_URL, f'allotment:{tenant}:{seq}').hex}"


# --- rows ------------------------------------------------------------------------------------------


def add(db: Connection, wanted: Sequence[Wanted], now: int) -> None:
    if not wanted:
        return
    places = sorted({(one.channel, one.endpoint) for one in wanted})
    db.execute(
        "INSERT INTO outlets (channel, endpoint) SELECT * FROM unnest(%s::text[], %s::text[]) "
        "ON CONFLICT DO NOTHING",
        ([channel for channel, _ in places], [endpoint for _, endpoint in places]),
    )
    columns = [list(column) for column in zip(*map(_row, wanted), strict=True)]
    db.execute(
        "INSERT INTO deliveries (channel, endpoint, seq, topic, slot, due_at, created_at) "
        f"SELECT *, %s FROM {_ARRAYS} ON CONFLICT DO NOTHING",
        (now, *columns),
    )


def add_again(db: Connection, wanted: Sequence[Wanted], now: int) -> None:
    """The same for what is replayed: what was delivered before waits again, under the same id."""
    if not wanted:
        return
    columns = [list(column) for column in zip(*map(_row, wanted), strict=True)]
    db.execute(
        "INSERT INTO deliveries AS held (channel, endpoint, seq, topic, slot, due_at, created_at, replays) "
        f"SELECT *, %s, 1 FROM {_ARRAYS} "
        "ON CONFLICT (tenant_id, channel, endpoint, seq) DO UPDATE SET status = 'waiting', slot = 0, "
        "due_at = excluded.due_at, attempts = 0, replays = held.replays + 1, detail = ''",
        (now, *columns),
    )


def _row(one: Wanted) -> tuple[object, ...]:
    return one.channel, one.endpoint, one.seq, one.topic, one.slot, one.due_at


# --- claims ----------------------------------------------------------------------------------------


def places_due(isolation: Isolation, now: int, channels: Sequence[Channel]) -> list[Place]:
    """Where something can be delivered now: a row is there, due, and nobody's."""
    with isolation.directory() as db:
        found = db.execute(_DUE, {"now": now, "channels": list(channels), "limit": OUTLETS_MAX})
        return [Place(*row) for row in found.fetchall()]


def claim(
    db: Connection, place: Place, now: int, *, limit: int, seconds: float | None = None
) -> tuple[int, list[Delivery]]:
    """How often this place failed in a row, and what is ours to deliver there for so many seconds."""
    asked = {
        "channel": place.channel,
        "endpoint": place.endpoint,
        "now": now,
        "until": now + int((seconds or CLAIM_SECONDS[place.channel]) * 1_000_000),
        "limit": limit,
    }
    held = db.execute(_RESTING, asked).fetchone()
    if held is None:
        return 0, []
    # While it fails, one at a time finds out whether it still does.
    asked["limit"] = limit if not held[0] or place.channel == "email" else 1
    return held[0], sorted(
        (Delivery(*row) for row in db.execute(_CLAIM, asked).fetchall()), key=lambda one: one.seq
    )


def delivered(db: Connection, place: Place, seqs: Iterable[int], now: int, took_ms: int, detail: str) -> None:
    db.execute(
        "UPDATE outlets SET failures = 0, resting_until = 0 "
        "WHERE channel = %s AND endpoint = %s AND (failures > 0 OR resting_until > 0)",
        (place.channel, place.endpoint),
    )
    _settle(db, place, seqs, "delivered", 0, now, took_ms, detail)


def given_up(db: Connection, place: Place, seqs: Iterable[int], now: int, took_ms: int, detail: str) -> None:
    """Not tried again, unless somebody asks for it."""
    _settle(db, place, seqs, "failed", 0, now, took_ms, detail)


def put_off(
    db: Connection,
    place: Place,
    seqs: Iterable[int],
    now: int,
    took_ms: int,
    detail: str,
    until: int,
    *,
    last: bool,
) -> int:
    """The place rests until then, and this is tried again unless it was the last time; how often it has
    failed in a row."""
    found = db.execute(
        "UPDATE outlets SET failures = failures + 1, resting_until = greatest(resting_until, %s) "
        "WHERE channel = %s AND endpoint = %s RETURNING failures",
        (until, place.channel, place.endpoint),
    ).fetchone()
    _settle(db, place, seqs, "failed" if last else "waiting", until, now, took_ms, detail)
    return int(found[0]) if found else 0


def rest_over(db: Connection, place: Place) -> None:
    """Somebody says that it works again: try at once."""
    db.execute(
        "UPDATE outlets SET failures = 0, resting_until = 0 WHERE channel = %s AND endpoint = %s",
        (place.channel, place.endpoint),
    )


def forget_old(db: Connection, now: int) -> int:
    """Forget what was settled long ago; how many that were. A replay brings it back."""
    before = now - KEPT_DAYS * 86_400_000_000
    return db.execute(_FORGET, {"before": before, "limit": FORGOTTEN_MAX}).rowcount


def _settle(
    db: Connection,
    place: Place,
    seqs: Iterable[int],
    status: str,
    due_at: int,
    now: int,
    took_ms: int,
    detail: str,
) -> None:
    settled = {
        "channel": place.channel,
        "endpoint": place.endpoint,
        "seqs": list(seqs),
        "status": status,
        "due_at": due_at,
        "now": now,
        "took_ms": took_ms,
        "detail": detail[:200],
    }
    db.execute(_SETTLE, settled)


# --- the delivery log --------------------------------------------------------------------------------


def logged(
    db: Connection, channel: Channel, endpoint: str, status: str | None, first: int, before: int | None
) -> list[Logged]:
    """What one place was told, the newest event first."""
    found = db.execute(
        "SELECT seq, topic, status, attempts, replays, due_at, created_at, tried_at, took_ms, detail "
        "FROM deliveries WHERE channel = %(channel)s AND endpoint = %(endpoint)s "
        "AND seq < %(before)s AND (%(status)s::text IS NULL OR status = %(status)s) "
        "ORDER BY seq DESC LIMIT %(first)s",
        {
            "channel": channel,
            "endpoint": endpoint,
            "status": status,
            **page_values(first, before),
        },
    )
    return [Logged(*row) for row in found.fetchall()]


_ARRAYS = "unnest(%s::text[], %s::text[], %s::bigint[], %s::text[], %s::bigint[], %s::bigint[])"
_DUE = """
SELECT o.tenant_id, o.channel, o.endpoint FROM outlets o
WHERE o.resting_until <= %(now)s AND o.channel = ANY(%(channels)s)
  AND EXISTS (
    SELECT FROM deliveries d
    WHERE d.tenant_id = o.tenant_id AND d.channel = o.channel AND d.endpoint = o.endpoint
      AND d.status = 'waiting' AND d.due_at <= %(now)s AND d.claimed_until <= %(now)s
  )
LIMIT %(limit)s
"""
_SETTLE = """
WITH tried AS MATERIALIZED (
    SELECT seq FROM deliveries
    WHERE channel = %(channel)s AND endpoint = %(endpoint)s AND seq = ANY(%(seqs)s)
    ORDER BY seq FOR UPDATE
)
UPDATE deliveries AS held SET
    status = %(status)s, due_at = CASE WHEN %(due_at)s > 0 THEN %(due_at)s ELSE held.due_at END,
    claimed_until = 0, attempts = held.attempts + 1,
    tried_at = %(now)s, took_ms = %(took_ms)s, detail = %(detail)s
FROM tried
WHERE held.channel = %(channel)s AND held.endpoint = %(endpoint)s AND held.seq = tried.seq
"""
_FORGET = """
WITH old AS MATERIALIZED (
    SELECT channel, endpoint, seq FROM deliveries
    WHERE status <> 'waiting' AND coalesce(tried_at, created_at) < %(before)s
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM deliveries AS held USING old
WHERE held.channel = old.channel AND held.endpoint = old.endpoint AND held.seq = old.seq
"""
_RESTING = """
SELECT failures FROM outlets
WHERE channel = %(channel)s AND endpoint = %(endpoint)s AND resting_until <= %(now)s
"""
# The rows are chosen once: planned as a join, the choice could be made for each row anew.
_CLAIM = """
WITH mine AS MATERIALIZED (
    SELECT seq FROM deliveries
    WHERE channel = %(channel)s AND endpoint = %(endpoint)s
      AND status = 'waiting' AND due_at <= %(now)s AND claimed_until <= %(now)s
    ORDER BY attempts, due_at, seq LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE deliveries AS held SET claimed_until = %(until)s FROM mine
WHERE held.channel = %(channel)s AND held.endpoint = %(endpoint)s AND held.seq = mine.seq
RETURNING held.seq, held.topic, held.slot, held.attempts
"""
