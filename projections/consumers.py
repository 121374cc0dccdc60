"""Consumers: who used most below a node, with shares that add up to the whole.

Taken from what was counted in the period, wherever somebody stood then. So who came during the
period brought their usage along, and who left is among the rest.
"""

from collections.abc import Sequence
from heapq import nlargest
from typing import Any

from msgspec import Struct

from ..domain.burning import shares_of
from .members import Member, each
from .tables import Connection, int8_array
from .used import used_among, used_by_anybody


class Consumer(Struct, frozen=True):
    ordinal: int
    id: str
    name: str
    kind: str
    is_node: bool
    used: int
    share: int
    """In hundredths of a per cent."""


class Ranking(Struct, frozen=True):
    """Who used most. With the others and the rest, the shares add up to the whole."""

    consumers: list[Consumer]
    count: int
    """How many have used anything, told or not."""
    others: int
    """Used by those that are not told."""
    others_share: int
    rest: int
    """Used by none of them: on the node itself, or by who has left."""
    rest_share: int


Users = tuple[Sequence[int], Sequence[int]]
"""Ordinals, and beside them how much each used: many, so they are looked at in as few passes as can be."""


def children_of(db: Connection, whose: Member, period: str, usage_type: str, top: int, used: int) -> Ranking:
    """The nodes right below a node, which has used so much in all."""
    return _ranked(db, _among(db, _CHILDREN, whose, period, usage_type), top, used)


def resources_of(db: Connection, whose: Member, period: str, usage_type: str, top: int, used: int) -> Ranking:
    """The resources anywhere below it."""
    if len(whose.path) == 1:
        return _ranked(db, _of_all(db, period, usage_type), top, used)
    return _ranked(db, _among(db, _RESOURCES, whose, period, usage_type), top, used)


def _among(db: Connection, statement: str, whose: Member, period: str, usage_type: str) -> Users:
    found = db.execute(statement, {"ordinal": whose.ordinal}).fetchone()
    ordinals = found[0] if found and found[0] else []
    return ordinals, used_among(db, ordinals, period, [usage_type])[usage_type].column("used")


def _of_all(db: Connection, period: str, usage_type: str) -> Users:
    """Of the enterprise they are all resources: only they use themselves, so no tree needs to be read."""
    ordinals, used, own = used_by_anybody(db, period, usage_type)
    return ordinals, [much if mine > 0 else 0 for much, mine in zip(used, own, strict=True)]


def _ranked(db: Connection, users: Users, top: int, used: int) -> Ranking:
    ordinals, all_of = users
    count = sum(map((0).__lt__, all_of))
    all_used = sum(much for much in all_of if much > 0)
    # Whoever is told has used at least so much.
    least = max(1, nlargest(max(1, top), all_of)[-1]) if all_of else 1
    first = sorted((-much, ordinals[place]) for place, much in enumerate(all_of) if much >= least)[:top]
    members = _members(db, [ordinal for _, ordinal in first])
    others = all_used + sum(much for much, _ in first)
    rest = max(0, used - all_used)
    shares = shares_of([*(-much for much, _ in first), others, rest])
    told = zip(first, shares, strict=False)
    consumers = [Consumer(*(*members[ordinal], -much, share)) for (much, ordinal), share in told]
    return Ranking(consumers, count, others, shares[-2], rest, shares[-1])


def _members(db: Connection, ordinals: list[int]) -> dict[int, tuple[Any, ...]]:
    return {row[0]: row for row in db.execute(_MEMBERS, (int8_array(ordinals),))}


_CHILDREN = "SELECT array_agg(ordinal) FROM members WHERE parent = %(ordinal)s AND is_node"
_RESOURCES = f"""
WITH RECURSIVE nodes AS (
    SELECT ordinal FROM members WHERE ordinal = %(ordinal)s AND is_node
    UNION ALL
    SELECT m.ordinal FROM nodes n CROSS JOIN {each("members", "parent = n.ordinal AND is_node")} AS m
)
SELECT array_agg(m.ordinal)
FROM nodes n CROSS JOIN {each("members", "parent = n.ordinal AND NOT is_node")} AS m
"""
_MEMBERS = """
SELECT ordinal, id, name, kind, is_node FROM members WHERE ordinal = ANY(%s::bigint[]::integer[])
"""
