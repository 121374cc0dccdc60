"""Limits: what may be used below a member per period, and which thresholds usage has crossed.

In force is the one that holds from the latest period on, as in `domain/limit.py`. A threshold counts
as crossed when it was crossed for a limit of this quantity, even by what a session held and gave back.
Limits in other windows, and what else there is to tell of a limit, are in `rules.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..domain.limit import LimitSet, ThresholdCrossed
from ..domain.usage import MONEY, USAGE_TYPES
from .chunk import Chunk
from .members import Listed, ordinals_of, tree
from .tables import Connection, Table
from .used import used_in

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
VERSION = 2

Counted = tuple[int, str]
"""The ordinal of a member, and a usage type."""


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
            case LimitSet(node, usage_type, quantity, thresholds, from_period, window="period"):
                ordinal = chunk.ordinals.of[node]
                row = (quantity, thresholds, told.seq, told.recorded_at)
                limits[ordinal, usage_type, from_period] = row
            case ThresholdCrossed(node, usage_type, period, percent, used, limit, window="period"):
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
    return limits_among(db, tree(db, root, depth, resources=resources), period, usage_types)


def limits_among(
    db: Connection,
    listed: Sequence[Listed],
    period: str,
    usage_types: Sequence[str],
    used: Mapping[Counted, int] | None = None,
) -> list[Limit]:
    """The same for a tree that has been read; what its members have used may be known already."""
    asked = {"period": period, "usage_types": list(usage_types), "ordinals": ordinals_of(listed)}
    found = db.execute(IN_FORCE, asked, binary=True).fetchall()
    held = {row[:2]: row[2:] for row in found if row[2] is not None}
    if not held:
        return []
    if used is None:
        used = used_in(db, [member.ordinal for member in listed], period)
    crossed = crossings_of(db, asked, lambda ordinal, usage_type: held.get((ordinal, usage_type)))
    return [
        _limit(member, usage_type, held[key], used.get(key, 0), crossed.get(key, []))
        for member in listed
        for usage_type in usage_types
        if (key := (member.ordinal, usage_type)) in held
    ]


def _limit(
    member: Listed, usage_type: str, limit: tuple[Any, ...], used: int, crossed: list[Crossing]
) -> Limit:
    told = (member.ordinal, member.id, member.name, usage_type, *limit, used, crossed)
    return Limit(*told)


def crossings_of(
    db: Connection,
    asked: Mapping[str, Any],
    held: Callable[[int, str], tuple[int, Sequence[int]] | None],
) -> dict[Counted, list[Crossing]]:
    """The last crossing of each threshold of a limit in force, in the order in which they happened.

    `held` is the quantity and the thresholds in force of a member, for a usage type.
    """
    last: dict[tuple[Counted, int], Crossing] = {}
    for ordinal, usage_type, percent, of, *told in db.execute(_CROSSED, asked).fetchall():
        limit = held(ordinal, usage_type)
        if limit is not None and limit[0] == of and percent in limit[1]:
            last[(ordinal, usage_type), percent] = Crossing(percent, *told)
    crossed: dict[Counted, list[Crossing]] = {}
    for (key, _), crossing in sorted(last.items(), key=lambda one: one[1].seq):
        crossed.setdefault(key, []).append(crossing)
    return crossed


def limits_of(
    db: Connection, ident: str, period: str, usage_types: Sequence[str] = (*USAGE_TYPES, MONEY)
) -> list[Limit]:
    """One member's limits, be it a node or a resource."""
    return limits_under(db, ident, 0, period, usage_types)


_AMONG = "usage_type = ANY(%(usage_types)s::text[]) AND ordinal = ANY(%(ordinals)s::bigint[]::integer[])"
IN_FORCE = f"""
SELECT DISTINCT ON (ordinal, usage_type)
       ordinal, usage_type, quantity, thresholds, from_period, seq, recorded_at
FROM limits WHERE {_AMONG} AND from_period <= %(period)s
ORDER BY ordinal, usage_type, from_period DESC, seq DESC
"""
_CROSSED = f"""
SELECT ordinal, usage_type, percent, "of", seq, recorded_at, used
FROM thresholds WHERE {_AMONG} AND period = %(period)s ORDER BY seq
"""
