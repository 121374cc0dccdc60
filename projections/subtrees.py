"""Subtrees: what all buckets at and below each member of a tree hold together.

Added up when it is asked for, so that it follows the hierarchy as it stands. Where the tree shows all
nodes below its root, their own buckets are at hand, and only those of resources are looked for: few
have any. Else only who ever had a bucket is looked at; where these are many, only those below the root.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from .members import Listed, each
from .tables import Connection
from .trees import Tree

FEW = 2_000
"""Buckets of a period that are looked at one by one, wherever they are."""
HIGH = 1
"""The level down to which most of them are below anyway."""

Key = tuple[int, str]
"""The ordinal of a member, and a usage type."""
Held = tuple[int, int, int, int]
"""Granted, own, consumed and reserved, of a bucket or several."""


class Asked(Struct, frozen=True):
    """A tree with at least its root, and which of its buckets."""

    tree: Tree
    period: str
    usage_types: Sequence[str]


def subtree_sums(db: Connection, asked: Asked, own: Mapping[Key, Held]) -> dict[Key, Held]:
    """What is at and below each member; none where all is 0. `own` are the buckets of those in the tree."""
    found, besides = held_below(db, asked)
    return _added_up(asked.tree.listed, own if besides else {}, found)


def held_below(db: Connection, asked: Asked) -> tuple[Sequence[tuple[Any, ...]], bool]:
    """What there is below, each with the member of the tree that shows it.

    And whether that is besides the buckets of the tree's own members, or these are among it.
    """
    tree = asked.tree
    values: dict[str, Any] = {
        "period": asked.period,
        "usage_types": list(asked.usage_types),
        "root": tree.listed[0].ordinal,
        "depth": tree.levels,
        "resources": tree.shows_resources,
        "few": FEW,
    }
    if tree.depth is None or tree.levels < tree.depth:
        below = _of_resources(db, tree, values)
        if below is not None:
            return below, True
    return db.execute(_way(db, values), values).fetchall(), False


def _of_resources(db: Connection, tree: Tree, values: dict[str, Any]) -> list[tuple[Any, ...]] | None:
    """The buckets of resources that the tree does not show, by the node they are on; None of too many."""
    if tree.shows_resources:
        return []
    found = db.execute(_ON_RESOURCES, values).fetchall()
    if len(found) > FEW:
        return None
    return [row for row in found if row[0] in tree.places]


def _way(db: Connection, asked: dict[str, Any]) -> str:
    """Which statement has least to look at."""
    (level,) = db.execute(_LEVEL, asked).fetchone() or (0,)
    if level == 0 and asked["depth"] == 0:
        return _ALL
    if level <= HIGH:
        return _EVERYWHERE
    (count,) = db.execute(_COUNT, asked).fetchone() or (0,)
    return _BELOW if count > FEW else _EVERYWHERE


def _added_up(
    listed: Sequence[Listed], own: Mapping[Key, Held], found: Sequence[tuple[Any, ...]]
) -> dict[Key, Held]:
    """Each member's, with those of the members below it."""
    sums = dict(own)
    for ordinal, usage_type, *held in found:
        _add(sums, (ordinal, usage_type), (held[0], held[1], held[2], held[3]))
    ordinals = {member.id: member.ordinal for member in listed}
    usage_types = {usage_type for _, usage_type in sums}
    for member in reversed(listed[1:]):
        above = ordinals[member.parent_id or ""]
        for usage_type in usage_types:
            mine = sums.get((member.ordinal, usage_type))
            if mine is not None:
                _add(sums, (above, usage_type), mine)
    return sums


def _add(sums: dict[Key, Held], key: Key, more: Held) -> None:
    held = sums.get(key)
    if held is not None:
        more = (held[0] + more[0], held[1] + more[1], held[2] + more[2], held[3] + more[3])
    sums[key] = more


OWN = (
    "b.granted + b.allocated_in + b.returned_in + b.traded_in + b.rolled_in "
    "- b.allocated_out - b.returned_out - b.traded_out - b.expired - b.rolled_out"
)
"""What a bucket was given and has not given away, nor lost with its period, be it consumed or not."""

_HOLDER = "(granted > 0 OR allocated_in > 0 OR returned_in > 0 OR traded_in > 0 OR rolled_in > 0)"
_HOLDERS = f"period = %(period)s AND usage_type = ANY(%(usage_types)s::text[]) AND {_HOLDER}"
_SUM = f"""
       sum(b.granted)::bigint, sum({OWN})::bigint,
       sum(b.consumed)::bigint, sum(b.reserved)::bigint
"""

_LEVEL = "SELECT cardinality(path) - 1 FROM members WHERE ordinal = %(root)s"
_COUNT = f"SELECT count(*) FROM (SELECT FROM balances WHERE {_HOLDERS} LIMIT %(few)s + 1) AS so_many"

_ALL = f"""
SELECT %(root)s::int, b.usage_type, {_SUM} FROM balances b WHERE {_HOLDERS} GROUP BY b.usage_type
"""

_ON_RESOURCES = f"""
SELECT m.parent, b.usage_type, b.granted, {OWN}, b.consumed, b.reserved
FROM (SELECT * FROM balances
      WHERE period = %(period)s AND usage_type = ANY(%(usage_types)s::text[]) AND resource_gains > 0
      LIMIT %(few)s + 1) AS b
CROSS JOIN {each("members", "ordinal = b.ordinal")} AS m
"""

# From each bucket up to the member of the tree that shows it, which is the last of its path in the tree.
_EVERYWHERE = f"""
SELECT CASE WHEN m.is_node OR %(resources)s OR m.ordinal = %(root)s
            THEN m.path[least(cardinality(m.path), r.place + %(depth)s)]
            ELSE m.path[least(cardinality(m.path) - 1, r.place + %(depth)s)] END AS shown,
       b.usage_type, {_SUM}
FROM (SELECT cardinality(path) AS place FROM members WHERE ordinal = %(root)s) AS r
CROSS JOIN (SELECT * FROM balances WHERE {_HOLDERS}) AS b
CROSS JOIN {each("members", "ordinal = b.ordinal")} AS m
WHERE m.path[r.place] = %(root)s
GROUP BY shown, b.usage_type
"""

# From the root down to each bucket below it.
_BELOW = f"""
WITH RECURSIVE below AS (
    SELECT ordinal, ordinal AS shown, 0 AS depth FROM members WHERE ordinal = %(root)s
    UNION ALL
    SELECT m.ordinal,
           CASE WHEN a.depth < %(depth)s AND (m.is_node OR %(resources)s) THEN m.ordinal ELSE a.shown END,
           a.depth + 1
    FROM below a CROSS JOIN {each("members", "parent = a.ordinal")} AS m
)
SELECT w.shown, b.usage_type, {_SUM}
FROM below w CROSS JOIN {each("balances", f"{_HOLDERS} AND ordinal = w.ordinal")} AS b
GROUP BY w.shown, b.usage_type
"""
