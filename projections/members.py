"""Members: the enterprise's nodes and the resources on them, as they stand.

A path leads from the root down to the member itself; sorted by it, members come in pre-order,
children in the order in which they were added. Names of resources stay sealed.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from ..domain.hierarchy import DEPTH_MAX
from . import member_life
from .chunk import ROOT, Chunk, Ordinals
from .member_changes import Changes
from .member_life import MEMBER_LIFE
from .tables import Connection, Int8Array, Table, int8_array

MEMBERS = Table(
    "members",
    {"ordinal": "integer"},
    {
        "id": "text",
        "parent": "integer",
        "name": "text",
        "kind": "text",
        "is_node": "boolean",
        "path": "integer[]",
        "since": "bigint",
        "until": "bigint",
        "sealed": "bytea[]",
        "tokens": "bytea[]",
    },
)
MEMBER_CHANGES = Table("member_changes", {"part": "text"}, {"seq": "bigint"})
"""The last event that changed what a tree shows of its nodes, or its resources: see `trees.py`."""
TABLES = (MEMBERS, MEMBER_LIFE, MEMBER_CHANGES)
VERSION = 4


class Listed(Struct, frozen=True, gc=False):
    """A member as it stands in a tree."""

    ordinal: int
    id: str
    parent_id: str | None
    name: str
    kind: str
    is_node: bool
    since: int | None
    until: int | None
    depth: int
    """Below the root of what was asked for."""

    @property
    def title(self) -> str:
        return self.name or self.id


class Member(Struct, frozen=True):
    """A node, or a resource with its stay on its node."""

    ordinal: int
    id: str
    parent_id: str | None
    name: str
    kind: str
    is_node: bool
    path: list[int]
    """Ordinals from the root down to the member itself."""
    depth: int
    """Below the root of what was asked for; of a single member, below the enterprise."""
    since: int | None
    """Of a resource: since when it is on this node; microseconds."""
    until: int | None
    """Of a resource that has ended: when."""
    sealed: list[bytes]
    """Of a resource: the names under which the network knows it, sealed ..."""
    tokens: list[bytes]
    """... and the keyed hash of each, which is also the subject that it is sealed under."""


def apply(chunk: Chunk, db: Connection) -> None:
    changes = Changes(chunk.ordinals, MEMBERS.figures)
    for told in chunk.others:
        changes.tell(told.event, told.seq)
    MEMBERS.insert(db, changes.rows())
    changes.write(db)
    MEMBER_CHANGES.put(db, changes.last)
    member_life.apply(chunk, db)


def load(db: Connection, seq: int) -> Ordinals:
    """The ordinals of all members; the view must stand at this seq."""
    ordinals = Ordinals(seq)
    found = db.execute("SELECT id, ordinal, parent, is_node, since, until FROM members ORDER BY ordinal")
    for ident, ordinal, parent, is_node, since, until in found:
        ordinals.enter(ident, ordinal, ROOT if parent is None else parent, is_node=is_node)
        if until is not None:
            ordinals.ended[ordinal] = until
        ordinals.moved_at = max(ordinals.moved_at, since or 0)
    return ordinals


# --- queries ---------------------------------------------------------------------------------


def member(db: Connection, ident: str) -> Member | None:
    rows = _members(db, "WHERE m.id = %(id)s", {"id": ident})
    return rows[0] if rows else None


def ancestors(db: Connection, ident: str) -> list[Member]:
    """The nodes above a member, the enterprise first."""
    above = "SELECT path[:cardinality(path) - 1] FROM members WHERE id = %(id)s"
    return _members(db, f"WHERE m.ordinal = ANY(({above})::int[])", {"id": ident})


def tree(
    db: Connection, root: str | None = None, depth: int | None = None, *, resources: bool = False
) -> list[Listed]:
    """The same members in the same order, each with what a tree shows of it: the root comes first.

    Figures are then looked up by the ordinals found, all in one go: for a thousand nodes that takes
    a tenth of what it takes to descend again beside each figure.
    """
    found = db.execute(
        _TREE.format(
            which="parent IS NULL" if root is None else "id = %(root)s",
            below=each("members", f"parent = t.ordinal{'' if resources else ' AND is_node'}"),
        ),
        {"root": root, "depth": DEPTH_MAX + 1 if depth is None else depth},
    ).fetchall()
    ids = {row[0]: row[2] for row in found}
    return [
        Listed(row[0], row[2], ids.get(row[1], row[9]), *row[3:9]) for row in _in_pre_order(sorted(found))
    ]


def _in_pre_order(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows by ordinal, which is the order of siblings, as paths would order them."""
    below: dict[int, list[tuple[Any, ...]]] = {}
    for row in rows:
        below.setdefault(-1 if row[8] == 0 else row[1], []).append(row)
    ordered, waiting = [], below.get(-1, [])
    while waiting:
        row = waiting.pop()
        ordered.append(row)
        waiting += reversed(below.get(row[0], ()))
    return ordered


def ordinals_of(listed: Sequence[Listed]) -> Int8Array:
    return int8_array([member.ordinal for member in listed])


def under(root: str | None, *, resources: bool) -> str:
    """For WITH RECURSIVE: `root`, and `under`, the ordinals below it; takes %(root)s and %(depth)s."""
    which = "parent IS NULL" if root is None else "id = %(root)s"
    kind = "" if resources else " AND is_node"
    return (
        f"root AS (SELECT ordinal, path FROM members WHERE {which}), under AS ("
        "SELECT ordinal, 0 AS depth FROM root "
        "UNION ALL SELECT m.ordinal, u.depth + 1 "
        f"FROM under u CROSS JOIN {each('members', f'parent = u.ordinal{kind}')} AS m "
        "WHERE u.depth < %(depth)s)"
    )


def places(db: Connection, ident: str) -> tuple[str, list[int]] | None:
    """Where to look for what a member used: by its own ordinal, or by those of all nodes at and below it."""
    found = db.execute(
        "WITH RECURSIVE under AS (SELECT ordinal, is_node FROM members WHERE id = %s "
        f"UNION ALL SELECT m.ordinal, m.is_node FROM under u "
        f"CROSS JOIN {each('members', 'parent = u.ordinal AND is_node')} AS m) "
        "SELECT ordinal, is_node FROM under",
        (ident,),
    ).fetchall()
    if not found:
        return None
    return ("node" if found[0][1] else "ordinal"), [row[0] for row in found]


def each(table: str, condition: str) -> str:
    """A look-up for each row before it, always by index.

    How many rows a recursion gives, or a table filled a moment ago, the planner cannot know: left
    to itself it compares every row with every other. OFFSET 0 keeps it from joining otherwise.
    """
    return f"LATERAL (SELECT * FROM {table} WHERE {condition} OFFSET 0)"


def _members(db: Connection, where: str, values: dict[str, Any]) -> list[Member]:
    found = db.execute(
        f"SELECT {_COLUMNS} FROM members m {where} ORDER BY m.path",
        values,
    )
    return [_member(row, len(row[6]) - 1) for row in found]


def _member(row: tuple[Any, ...], depth: int) -> Member:
    ordinal, ident, parent_id, name, kind, is_node, path, *rest = row
    return Member(ordinal, ident, parent_id, name, kind, is_node, path, depth, *rest)


_COLUMNS = (
    "m.ordinal, m.id, (SELECT id FROM members WHERE ordinal = m.parent), m.name, m.kind, m.is_node, m.path, "
    "m.since, m.until, m.sealed, m.tokens"
)

_TREE = """
WITH RECURSIVE tree AS (
    SELECT ordinal, parent, id, name, kind, is_node, since, until, 0 AS depth FROM members WHERE {which}
    UNION ALL
    SELECT m.ordinal, m.parent, m.id, m.name, m.kind, m.is_node, m.since, m.until, t.depth + 1
    FROM tree t CROSS JOIN {below} AS m WHERE t.depth < %(depth)s
)
SELECT t.*, CASE WHEN t.depth = 0 THEN (SELECT id FROM members WHERE ordinal = t.parent) END FROM tree t
"""
