"""Limits: what may be used below a member per period, and which thresholds usage has crossed.

In force is the one that holds from the latest period on, as in `domain/limit.py`. A threshold counts
as crossed when it was crossed for a limit of this quantity: what is used in a period only grows.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from ..domain.hierarchy import DEPTH_MAX
from ..domain.limit import LimitSet, ThresholdCrossed
from ..domain.usage import MONEY, USAGE_TYPES
from .chunk import Chunk
from .members import each, under
from .tables import Connection, Table

LIMITS = Table(
    "limits",
    {"ordinal": "integer", "usage_type": "text", "from_period": "text"},
    {"quantity": "bigint", "thresholds": "integer[]", "seq": "bigint", "recorded_at": "bigint"},
)
THRESHOLDS = Table(
    "thresholds",
    {"ordinal": "integer", "usage_type": "text", "period": "text", "seq": "bigint"},
    {"percent": "integer", "used": "bigint", "of": "bigint", "recorded_at": "bigint"},
)
TABLES = (LIMITS, THRESHOLDS)
VERSION = 1


class Crossing(Struct, frozen=True):
    """A threshold that usage has reached."""

    percent: int
    seq: int
    recorded_at: int
    used: int
    """Of the limit, with the usage that crossed."""


class Limit(Struct, frozen=True):
    """A limit in force at a member, and how far usage has come."""

    ordinal: int
    id: str
    name: str
    usage_type: str
    quantity: int
    thresholds: list[int]
    """Percents at which somebody is told."""
    from_period: str
    seq: int
    """The event that set it."""
    recorded_at: int
    used: int
    """At and below the member, so far in the period."""
    crossed: list[Crossing]
    """In the order in which it happened."""


def apply(chunk: Chunk, db: Connection) -> None:
    limits: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    crossings = []
    for told in chunk.others:
        match told.event:
            case LimitSet(node, usage_type, quantity, thresholds, from_period):
                ordinal = chunk.ordinals.of[node]
                row = (quantity, thresholds, told.seq, told.recorded_at)
                limits[ordinal, usage_type, from_period] = row
            case ThresholdCrossed(node, usage_type, period, percent, used, limit):
                ordinal = chunk.ordinals.of[node]
                crossings.append(
                    (ordinal, usage_type, period, told.seq, percent, used, limit, told.recorded_at)
                )
    LIMITS.put(db, limits)
    THRESHOLDS.insert(db, crossings)


# --- queries ---------------------------------------------------------------------------------


def limits_under(
    db: Connection,
    root: str | None,
    depth: int | None,
    period: str,
    usage_types: Sequence[str] = (*USAGE_TYPES, MONEY),
    *,
    resources: bool = False,
) -> list[Limit]:
    """The limits in force in a tree, in pre-order of their members; no root means the enterprise."""
    found = db.execute(
        _UNDER.format(under=under(root, resources=resources)),
        {
            "root": root,
            "depth": DEPTH_MAX + 1 if depth is None else depth,
            "period": period,
            "usage_types": list(usage_types),
        },
    )
    return [_limit(row) for row in found]


def _limit(row: tuple[Any, ...]) -> Limit:
    crossed = [Crossing(*one) for one in zip(*row[10:], strict=True)]
    return Limit(*(*row[:10], crossed))


def limits_of(
    db: Connection, ident: str, period: str, usage_types: Sequence[str] = (*USAGE_TYPES, MONEY)
) -> list[Limit]:
    """One member's limits, be it a node or a resource."""
    return limits_under(db, ident, 0, period, usage_types)


_UNDER = f"""
WITH RECURSIVE {{under}}
SELECT m.ordinal, m.id, m.name, l.usage_type, l.quantity, l.thresholds, l.from_period, l.seq, l.recorded_at,
       coalesce((
           SELECT used FROM balances
           WHERE period = %(period)s AND usage_type = l.usage_type AND ordinal = l.ordinal
       ), 0),
       crossed.percents, crossed.seqs, crossed.times, crossed.used
FROM under u
CROSS JOIN unnest(%(usage_types)s::text[]) WITH ORDINALITY AS wanted (usage_type, place)
CROSS JOIN LATERAL (
    SELECT * FROM limits
    WHERE ordinal = u.ordinal AND usage_type = wanted.usage_type AND from_period <= %(period)s
    ORDER BY from_period DESC, seq DESC LIMIT 1
) AS l
CROSS JOIN {each("members", "ordinal = l.ordinal")} AS m
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(t.percent ORDER BY t.seq), '{{{{}}}}') AS percents,
           coalesce(array_agg(t.seq ORDER BY t.seq), '{{{{}}}}') AS seqs,
           coalesce(array_agg(t.recorded_at ORDER BY t.seq), '{{{{}}}}') AS times,
           coalesce(array_agg(t.used ORDER BY t.seq), '{{{{}}}}') AS used
    FROM (
        SELECT DISTINCT ON (percent) * FROM thresholds
        WHERE ordinal = l.ordinal AND usage_type = l.usage_type AND period = %(period)s
          AND "of" = l.quantity AND percent = ANY(l.thresholds)
        ORDER BY percent, seq DESC
    ) AS t
) AS crossed
WHERE l.quantity IS NOT NULL
ORDER BY m.path, wanted.place
"""
