"""Offers: the board of what members offer each other, and every step of each offer.

One row for each offer, as its last event leaves it. Who may see which is asked with the hierarchy as
it stands: who made it, whom it was made to, and everybody below where it was made to all there.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from ..domain.approval import TransferApproved, TransferDeclined, TransferProposed
from ..domain.events import Recorded
from ..domain.offer import OfferAccepted, OfferClosed, OfferMade
from .chunk import Chunk
from .members import each
from .paging import page_values
from .tables import Connection, Table

STATES = ("open", "accepted", "withdrawn", "declined", "countered", "expired")
OFFERS = Table(
    "offers",
    {"offer": "text"},
    {
        "made": "bigint",
        "seq": "bigint",
        "state": "text",
        "source": "integer",
        "target": "integer",
        "everybody": "boolean",
        "usage_type": "text",
        "period": "text",
        "quantity": "bigint",
        "remaining": "bigint",
        "pending": "bigint",
        "asks_type": "text",
        "asks_quantity": "bigint",
        "asks_per": "bigint",
        "lot": "bigint",
        "expires_at": "bigint",
        "counters": "text",
        "note": "text",
        "made_at": "bigint",
        "recorded_at": "bigint",
    },
)
STEPS = Table("offer_steps", {"offer": "text", "seq": "bigint"}, {})
TABLES = (OFFERS, STEPS)
VERSION = 1

_AT = {figure: place for place, figure in enumerate(OFFERS.figures)}
Step = OfferMade | OfferAccepted | OfferClosed | TransferProposed | TransferApproved | TransferDeclined


class Offer(Struct, frozen=True):
    """An offer as its last event leaves it."""

    offer: str
    made: int
    """The seq of the event that made it: the place on the board."""
    seq: int
    """Of its last event."""
    state: str
    source: int
    target: int
    everybody: bool
    usage_type: str
    period: str
    quantity: int
    remaining: int
    """Not taken yet."""
    pending: int
    """Taken, and waiting for approval."""
    asks_type: str
    asks_quantity: int
    asks_per: int
    lot: int
    expires_at: int
    counters: str
    note: str
    made_at: int
    recorded_at: int
    source_id: str
    source_name: str
    target_id: str
    target_name: str


def apply(chunk: Chunk, db: Connection) -> None:
    steps = [told for told in chunk.others if isinstance(told.event, Step) and told.event.offer]
    if not steps:
        return
    rows = _held(db, {_offer(told) for told in steps if not isinstance(told.event, OfferMade)})
    for told in steps:
        event = told.event
        if isinstance(event, OfferMade):
            rows[(event.offer,)] = _made(told, event, chunk)
        else:
            _go_on(rows[(_offer(told),)], told)
    OFFERS.put(db, rows)
    STEPS.insert(db, [(_offer(told), told.seq) for told in steps])


def _offer(told: Recorded) -> str:
    assert isinstance(told.event, Step)
    return told.event.offer


def _held(db: Connection, offers: Iterable[str]) -> dict[tuple[str], list[Any]]:
    columns = ", ".join(OFFERS.columns)
    found = db.execute(f"SELECT {columns} FROM offers WHERE offer = ANY(%s::text[])", (sorted(offers),))
    return {(row[0],): list(row[1:]) for row in found}


def _made(told: Recorded, event: OfferMade, chunk: Chunk) -> list[Any]:
    of, asks = chunk.ordinals.of, event.asks
    return [
        *(told.seq, told.seq, "open", of[event.source], of[event.target], event.everybody),
        *(event.usage_type, event.period, event.quantity, event.quantity, 0),
        *(asks.usage_type, asks.quantity, asks.per, event.lot, event.expires_at, event.counters, event.note),
        *(told.recorded_at, told.recorded_at),
    ]


def _go_on(row: list[Any], told: Recorded) -> None:
    row[_AT["seq"]], row[_AT["recorded_at"]] = told.seq, told.recorded_at
    match told.event:
        case OfferAccepted(left=left):
            row[_AT["remaining"]] = left
        case OfferClosed(because=because):
            row[_AT["remaining"]], row[_AT["state"]] = 0, because
        case TransferProposed(quantity=quantity):
            row[_AT["remaining"]] -= quantity
            row[_AT["pending"]] += quantity
        case TransferApproved(quantity=quantity):
            row[_AT["pending"]] -= quantity
        case TransferDeclined(quantity=quantity):
            row[_AT["pending"]] -= quantity
            if row[_AT["state"]] == "open":
                row[_AT["remaining"]] += quantity
    if row[_AT["state"]] == "open" and not row[_AT["remaining"]] and not row[_AT["pending"]]:
        row[_AT["state"]] = "accepted"


# --- queries ---------------------------------------------------------------------------------


def board(
    db: Connection,
    roots: Sequence[str | None],
    first: int,
    before: int | None = None,
    usage_types: Sequence[str] | None = None,
    state: str | None = None,
    offer: str | None = None,
) -> list[Offer]:
    """The newest offers made by, made to or open to the members of these subtrees."""
    values = {
        **page_values(first, before),
        "roots": [root for root in roots if root is not None],
        "whole": None in roots,
        "usage_types": usage_types,
        "state": state,
        "offer": offer,
    }
    return [Offer(*row) for row in db.execute(_BOARD, values, binary=True)]


def steps_of(db: Connection, offer: str, first: int) -> list[int]:
    """The seqs of what happened to an offer, in order."""
    found = db.execute("SELECT seq FROM offer_steps WHERE offer = %s ORDER BY seq LIMIT %s", (offer, first))
    return [row[0] for row in found]


_COLUMNS = ", ".join(f"o.{column}" for column in OFFERS.columns)
_BOARD = f"""
WITH root AS MATERIALIZED (SELECT ordinal, path FROM members WHERE id = ANY(%(roots)s::text[]))
SELECT {_COLUMNS}, s.id, coalesce(nullif(s.name, ''), s.id), t.id, coalesce(nullif(t.name, ''), t.id)
FROM offers o CROSS JOIN {each("members", "ordinal = o.source")} AS s
CROSS JOIN {each("members", "ordinal = o.target")} AS t
WHERE o.made < %(before)s
  AND (%(usage_types)s::text[] IS NULL OR o.usage_type = ANY(%(usage_types)s::text[]))
  AND (%(state)s::text IS NULL OR o.state = %(state)s)
  AND (%(offer)s::text IS NULL OR o.offer = %(offer)s)
  AND (%(whole)s OR EXISTS (
      SELECT FROM root WHERE root.ordinal = ANY(s.path) OR root.ordinal = ANY(t.path)
                          OR (o.everybody AND o.target = ANY(root.path))))
ORDER BY o.made DESC LIMIT %(first)s
"""
