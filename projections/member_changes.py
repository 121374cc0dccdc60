"""What a chunk of the log changes of members: rows that are new, columns of others, whole subtrees.

Parents and paths are those at the chunk's end, which `Ordinals` knows; so one statement each is
enough, in whatever order things happened within the chunk.
"""

from typing import Any

from ..domain.hierarchy import NodeAdded, ResourceAdded, ResourceEnded, ResourceMoved
from ..domain.life import (
    IdentityAdded,
    IdentityRemoved,
    NodeClosed,
    NodeMoved,
    NodeRenamed,
    ResourceJoinedEarlier,
)
from ..domain.tenant import Event
from .chunk import Ordinals
from .tables import Connection, int8_array, text_array

GOES_ON = -(1 << 62)
"""Written as the end of a resource that has none any more; None leaves it as it is."""

OF_RESOURCES = (
    ResourceAdded,
    ResourceMoved,
    ResourceJoinedEarlier,
    ResourceEnded,
    IdentityAdded,
    IdentityRemoved,
)

Row = dict[str, Any]
Named = tuple[list[bytes], list[bytes]]
"""Tokens and sealed names of a resource, side by side."""


class Changes:
    """Of one chunk."""

    def __init__(self, ordinals: Ordinals, columns: tuple[str, ...]) -> None:
        self._ordinals = ordinals
        self._columns = columns
        self.added: dict[int, Row] = {}
        self.changed: dict[int, Row] = {}
        self.merged: list[tuple[int, int, int]] = []
        """Node, successor and when, in order."""
        self.moved: set[int] = set()
        """Nodes whose subtrees have other paths now."""
        self.identities: dict[int, list[IdentityAdded | IdentityRemoved]] = {}
        self.last: dict[tuple[str], tuple[int]] = {}
        """The seq of the last event that changed nodes, and of the last that changed resources."""

    def tell(self, event: Event, seq: int) -> None:
        of = self._ordinals.of
        match event:
            case NodeAdded(node, ordinal, _, name, kind, since):
                row = _row(id=node, name=name, kind=kind, is_node=True, since=since or None)
                self.added[ordinal] = row
            case ResourceAdded(resource, ordinal, _, kind, since, identities):
                row = self.added[ordinal] = _row(id=resource, name="", kind=kind, is_node=False, since=since)
                row["tokens"] = [identity.token for identity in identities]
                row["sealed"] = [identity.sealed for identity in identities]
            case ResourceMoved(resource, _, since):
                self._change(of[resource], since=since, until=GOES_ON)
            case ResourceJoinedEarlier(resource, _, since, stayed=True):
                self._change(of[resource], since=since)
            case ResourceEnded(resource, at):
                self._change(of[resource], until=at)
            case NodeRenamed(node, name):
                self._change(of[node], name=name)
            case NodeMoved(node):
                self._change(of[node])
                self.moved.add(of[node])
            case NodeClosed(node, successor, at) if successor:
                self.merged.append((of[node], of[successor], at))
                self.moved.add(of[successor])
            case IdentityAdded(resource) | IdentityRemoved(resource):
                self.identities.setdefault(of[resource], []).append(event)
            case _:
                return
        # Whatever is not known to change resources alone, changes every tree: see `trees.py`.
        self.last[("resources" if isinstance(event, OF_RESOURCES) else "nodes",)] = (seq,)

    def _change(self, ordinal: int, **columns: Any) -> None:
        row = self.added.get(ordinal)
        if row is None:
            row = self.changed.setdefault(ordinal, {})
        row.update(columns)

    # --- written --------------------------------------------------------------------------------

    def rows(self) -> list[tuple[Any, ...]]:
        """What is new, its parents and paths as they stand at the chunk's end."""
        for ordinal, row in self.added.items():
            row["tokens"], row["sealed"] = self._renamed(ordinal, row["tokens"], row["sealed"])
            path = self._ordinals.path(ordinal)
            row["path"], row["parent"] = path, path[-2] if len(path) > 1 else None
            row["until"] = None if row["until"] == GOES_ON else row["until"]
        return [(ordinal, *(row[column] for column in self._columns)) for ordinal, row in self.added.items()]

    def write(self, db: Connection) -> None:
        """What was there before: merges, then what each has become, then the paths below."""
        for node, successor, at in self.merged:
            db.execute(_MERGE, (successor, node, at), prepare=False)
        self._look_up_identities(db)
        if self.changed:
            db.execute(_CHANGE, self._arrays(), prepare=False)
        if self.moved:
            # New ones as well: who was here before may have come below them.
            roots = [*self.moved]
            paths = text_array(map(self._path, roots))
            db.execute(_PATHS, [int8_array(roots), paths], prepare=False)

    def _look_up_identities(self, db: Connection) -> None:
        wanted = [ordinal for ordinal in self.identities if ordinal not in self.added]
        if not wanted:
            return
        found = db.execute(_IDENTITIES, (int8_array(wanted),), prepare=False).fetchall()
        for ordinal, tokens, sealed in found:
            tokens, sealed = self._renamed(ordinal, tokens, sealed)
            self._change(ordinal, tokens=tokens, sealed=sealed)

    def _renamed(self, ordinal: int, tokens: list[bytes], sealed: list[bytes]) -> Named:
        pairs = list(zip(tokens, sealed, strict=True))
        for told in self.identities.get(ordinal, ()):
            if isinstance(told, IdentityAdded):
                pairs.append((told.identity.token, told.identity.sealed))
            else:
                pairs = [pair for pair in pairs if pair[0] != told.token]
        return [token for token, _ in pairs], [name for _, name in pairs]

    def _arrays(self) -> list[bytes]:
        rows = list(self.changed.values())
        parents = [self._ordinals.parents[ordinal] for ordinal in self.changed]
        return [
            int8_array(list(self.changed)),
            int8_array([None if parent < 0 else parent for parent in parents]),
            text_array(map(self._path, self.changed)),
            text_array([row.get("name") for row in rows]),
            int8_array([row.get("since") for row in rows]),
            int8_array([row.get("until") for row in rows]),
            text_array([_literal(row.get("tokens")) for row in rows]),
            text_array([_literal(row.get("sealed")) for row in rows]),
        ]

    def _path(self, ordinal: int) -> str:
        return "{" + ",".join(map(str, self._ordinals.path(ordinal))) + "}"


def _row(**columns: Any) -> Row:
    return {"since": None, "until": None, "tokens": [], "sealed": [], **columns}


def _literal(values: list[bytes] | None) -> str | None:
    return None if values is None else "{" + ",".join(f'"\\\\x{one.hex()}"' for one in values) + "}"


_MERGE = "UPDATE members SET parent = %s WHERE parent = %s AND (until IS NULL OR until > %s)"
_IDENTITIES = "SELECT ordinal, tokens, sealed FROM members WHERE ordinal = ANY(%s::bigint[]::integer[])"
_CHANGE = f"""
UPDATE members m
SET parent = c.parent, path = c.path::integer[], name = coalesce(c.name, m.name),
    since = coalesce(c.since, m.since), until = nullif(coalesce(c.until, m.until), {GOES_ON}),
    tokens = coalesce(c.tokens::bytea[], m.tokens), sealed = coalesce(c.sealed::bytea[], m.sealed)
FROM unnest(
    %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::text[]
) AS c (ordinal, parent, path, name, since, until, tokens, sealed)
WHERE m.ordinal = c.ordinal
"""
_PATHS = """
WITH RECURSIVE laid AS (
    SELECT ordinal::integer, path::integer[] FROM unnest(%s::bigint[], %s::text[]) AS roots (ordinal, path)
    UNION ALL
    SELECT m.ordinal, l.path || m.ordinal
    FROM laid l CROSS JOIN LATERAL (SELECT ordinal FROM members WHERE parent = l.ordinal OFFSET 0) AS m
)
UPDATE members m SET path = laid.path FROM laid WHERE m.ordinal = laid.ordinal AND m.path <> laid.path
"""
"""Of all below some nodes: their parents are told already, and each is found by its parent's index."""
