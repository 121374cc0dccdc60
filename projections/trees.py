"""Trees: parts of the hierarchy that are kept as they were read, for as long as they stand.

Who is where changes rarely, and is looked at all the time: reading a thousand members takes longer
than all of their figures. A tree is kept under the seqs of the last changes to nodes and resources,
which are read in the same transaction as the figures: so what is shown is always of one moment.
A tree as of such a seq never changes, whoever reads it, now or looking back.
"""

from functools import cached_property
from typing import Any

from .members import Listed, tree
from .tables import Connection, int8_array

MEMBERS_KEPT_MAX = 50_000
"""Of all trees together, some 500 bytes each: the least recently used go first."""

OVERHEAD = 20
"""What a tree takes besides its members, in members: many are of one member alone."""

_Key = tuple[Any, ...]


class Tree:
    """A root and what is below it, in pre-order. Shared by readers: nobody changes it."""

    def __init__(self, listed: list[Listed], depth: int | None) -> None:
        self.listed = listed
        self.depth = depth
        """To which it was read; None: all of it."""

    def __len__(self) -> int:
        return len(self.listed)

    @cached_property
    def ordinals(self) -> list[int]:
        return [member.ordinal for member in self.listed]

    @cached_property
    def packed(self) -> bytes:
        """The ordinals, as PostgreSQL takes them."""
        return int8_array(self.ordinals)

    @cached_property
    def places(self) -> dict[int, int]:
        """Where each ordinal stands in the tree."""
        return {ordinal: place for place, ordinal in enumerate(self.ordinals)}

    @cached_property
    def levels(self) -> int:
        return max(member.depth for member in self.listed)

    @cached_property
    def shows_resources(self) -> bool:
        return any(not member.is_node for member in self.listed)

    @cached_property
    def upwards(self) -> list[tuple[int, int]]:
        """The place of each member but the root with that of its parent, from below."""
        at = {member.id: place for place, member in enumerate(self.listed)}
        pairs = [(place, at[member.parent_id or ""]) for place, member in enumerate(self.listed) if place]
        return pairs[::-1]

    def column(self, name: str) -> list[Any]:
        """What all members have for this, in order."""
        known = self._columns.get(name)
        if known is None:
            known = self._columns[name] = [getattr(member, name) for member in self.listed]
        return known

    @cached_property
    def _columns(self) -> dict[str, list[Any]]:
        return {}


class Trees:
    """The trees that are kept, of all tenants, the last read last.

    Any thread may read them: who finds that another has just taken one out reads it again.
    """

    def __init__(self, members_max: int = MEMBERS_KEPT_MAX) -> None:
        self._members_max = members_max
        self._kept: dict[_Key, Tree] = {}

    def read(self, db: Connection, root: str | None, depth: int | None, *, resources: bool) -> Tree:
        """As `members.tree` reads it; without members where there is no such root."""
        tenant, nodes, others = db.execute(_LAST_CHANGES).fetchone() or ("", None, None)
        key = (tenant, root, depth, resources, nodes, others if resources else None)
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._kept[key] = kept
            return kept
        found = Tree(tree(db, root, depth, resources=resources), depth)
        # Of a resource alone it is not known here what has changed it.
        if nodes is not None and found.listed and (resources or found.listed[0].is_node):
            self._keep(key, found)
        return found

    def _keep(self, key: _Key, found: Tree) -> None:
        if 4 * _size(found) > self._members_max:
            return
        self._kept[key] = found
        held = list(self._kept.items())
        over = sum(_size(kept) for _, kept in held) - self._members_max
        for oldest, kept in held:
            if over <= 0:
                break
            self._kept.pop(oldest, None)
            over -= _size(kept)


def _size(tree: Tree) -> int:
    return len(tree) + OVERHEAD


# The tenant is the one that PostgreSQL is bound to: no tree can be taken for another tenant's.
_LAST_CHANGES = """
SELECT current_setting('app.tenant'),
       (SELECT seq FROM member_changes WHERE part = 'nodes'),
       (SELECT seq FROM member_changes WHERE part = 'resources')
"""
