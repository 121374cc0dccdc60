"""Consumers: who used most below a node, with shares that add up to the whole.

Taken from the balances: what somebody used in the period, wherever they stood then. So who came
during the period brought their usage along, and who left is among the rest.
"""

from typing import Any

from msgspec import Struct

from ..domain.burning import shares_of
from .members import Member, each
from .tables import Connection


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


def children_of(db: Connection, whose: Member, period: str, usage_type: str, top: int, used: int) -> Ranking:
    """The nodes right below a node, which has used so much in all."""
    return _ranked(db, _CHILDREN, whose, period, usage_type, top, used)


def resources_of(db: Connection, whose: Member, period: str, usage_type: str, top: int, used: int) -> Ranking:
    """The resources anywhere below it."""
    statement = _RESOURCES_OF_ALL if len(whose.path) == 1 else _RESOURCES
    return _ranked(db, statement, whose, period, usage_type, top, used)


def _ranked(
    db: Connection, statement: str, whose: Member, period: str, usage_type: str, top: int, used: int
) -> Ranking:
    values: dict[str, Any] = {"ordinal": whose.ordinal, "top": top}
    values |= {"period": period, "usage_type": usage_type}
    found = db.execute(statement, values).fetchall()
    count, all_used = found[0][:2] if found else (0, 0)
    listed: list[Any] = [row[2:] for row in found]
    others = int(all_used) - sum(row[5] for row in listed)
    rest = max(0, used - int(all_used))
    shares = shares_of([*(row[5] for row in listed), others, rest])
    consumers = [Consumer(*(*row, share)) for row, share in zip(listed, shares, strict=False)]
    return Ranking(consumers, count, others, shares[-2], rest, shares[-1])


_RANKED = """
SELECT count(*) OVER (), sum(b.used) OVER (), m.ordinal, m.id, m.name, m.kind, m.is_node, b.used
FROM {among}
ORDER BY b.used DESC, m.ordinal LIMIT %(top)s
"""
_USED = "period = %(period)s AND usage_type = %(usage_type)s AND used > 0"
_EACH = f"CROSS JOIN {each('balances', f'{_USED} AND ordinal = m.ordinal')} AS b"
_CHILDREN = _RANKED.format(
    among=f"(SELECT * FROM members WHERE parent = %(ordinal)s AND is_node) AS m {_EACH}"
)
_RESOURCES = f"""
WITH RECURSIVE nodes AS (
    SELECT ordinal FROM members WHERE ordinal = %(ordinal)s AND is_node
    UNION ALL
    SELECT m.ordinal FROM nodes n CROSS JOIN {each("members", "parent = n.ordinal AND is_node")} AS m
)
""" + _RANKED.format(
    among=f"nodes n CROSS JOIN {each('members', 'parent = n.ordinal AND NOT is_node')} AS m {_EACH}"
)
# Of the enterprise they are all resources: only they use themselves, so no tree needs to be read.
_RESOURCES_OF_ALL = f"""
SELECT b.count, b.sum, m.ordinal, m.id, m.name, m.kind, m.is_node, b.used
FROM (
    SELECT count(*) OVER () AS count, sum(used) OVER () AS sum, ordinal, used
    FROM balances WHERE {_USED} AND used_own > 0 ORDER BY used DESC, ordinal LIMIT %(top)s
) AS b CROSS JOIN {each("members", "ordinal = b.ordinal")} AS m
ORDER BY b.used DESC, m.ordinal
"""
