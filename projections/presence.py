"""Presence: who was on which node from when to when, and with how many channels, to the microsecond.

A resource is on one node at a time; a node is on itself, from when it was recorded until it is
closed. What recurring fees are owed for follows from it. Rows of one member do not overlap.
"""

from collections.abc import Iterable
from typing import Any

from ..domain.channels import ChannelsSet
from ..domain.hierarchy import NodeAdded, ResourceAdded, ResourceEnded, ResourceMoved
from ..domain.life import NodeClosed, ResourceJoinedEarlier
from ..domain.rating.fees import Fee, Presence
from ..domain.tenant import Event
from .chunk import Chunk
from .tables import Connection, Table, int8_array

STAYS = Table(
    "stays",
    {"ordinal": "integer", "since": "bigint"},
    {"node": "integer", "until": "bigint", "channels": "bigint"},
)
TABLES = (STAYS,)
VERSION = 1
FOREVER = 1 << 62

Row = list[int]
"""Node, until, channels."""
Stays = dict[int, Row]
"""By since."""


def apply(chunk: Chunk, db: Connection) -> None:
    changes = _Changes(chunk, db)
    for told in chunk.others:
        changes.tell(told.event, told.recorded_at)
    changes.write()


class _Changes:
    """What a chunk changes: all rows of the members it is about."""

    def __init__(self, chunk: Chunk, db: Connection) -> None:
        self._of = chunk.ordinals.of
        self._db = db
        self.stays: dict[int, Stays] = {}
        self._fetch(sorted({self._of[one] for told in chunk.others for one in _whom(told.event)}))

    def _fetch(self, ordinals: list[int]) -> None:
        self.stays.update((ordinal, {}) for ordinal in ordinals)
        if ordinals:
            for ordinal, since, *row in self._db.execute(_HELD, (int8_array(ordinals),), prepare=False):
                self.stays[ordinal][since] = row

    def tell(self, event: Event, recorded_at: int) -> None:
        of = self._of
        match event:
            case NodeAdded(_, ordinal):
                self.stays[ordinal] = {event.since or recorded_at: [ordinal, FOREVER, 0]}
            case ResourceAdded(_, ordinal, node, _, since):
                self.stays[ordinal] = {since: [of[node], FOREVER, 0]}
            case ResourceMoved(resource, node, since):
                self._go_on(self.stays[of[resource]], since, of[node])
            case ResourceJoinedEarlier(resource, node, since, until):
                stays = self.stays[of[resource]]
                stays[since] = [of[node], until, stays[until][2] if until in stays else 0]
            case ResourceEnded(resource, at):
                _end(self.stays[of[resource]], at)
            case ChannelsSet(resource, channels, since):
                for row in _rows_from(self.stays[of[resource]], since).values():
                    row[2] = channels
            case NodeClosed(node, successor, at):
                _end(self.stays[of[node]], at)
                if successor:
                    self._succeed(of[node], of[successor], at)

    def _go_on(self, stays: Stays, since: int, node: int) -> None:
        later = _rows_from(stays, since)
        for row in later.values():
            row[0] = node
        if not later:
            stays[since] = [node, FOREVER, stays[max(stays)][2] if stays else 0]

    def _succeed(self, node: int, successor: int, at: int) -> None:
        """Who is on a node from a moment on is on its successor."""
        found = self._db.execute(_ON, (node, at), prepare=False).fetchall()
        self._fetch([ordinal for (ordinal,) in found if ordinal not in self.stays])
        for ordinal, stays in self.stays.items():
            if ordinal != node and any(row[0] == node and row[1] > at for row in stays.values()):
                for row in _rows_from(stays, at).values():
                    row[0] = successor if row[0] == node else row[0]

    def write(self) -> None:
        STAYS.put(
            self._db,
            {
                (ordinal, since): row
                for ordinal, stays in sorted(self.stays.items())
                for since, row in sorted(stays.items())
            },
        )


def _whom(event: Event) -> Iterable[str]:
    match event:
        case (
            ResourceMoved(member)
            | ResourceEnded(member)
            | ResourceJoinedEarlier(member)
            | ChannelsSet(member)
            | NodeClosed(member)
        ):
            return (member,)
    return ()


def _rows_from(stays: Stays, at: int) -> Stays:
    """The rows that begin at a moment or later; one that it lies within is cut in two."""
    for since, row in list(stays.items()):
        if since < at < row[1]:
            stays[at] = row.copy()
            row[1] = at
    return {since: row for since, row in stays.items() if since >= at and row[1] > since}


def _end(stays: Stays, at: int) -> None:
    """A row that is left empty says that nobody is there."""
    for since, row in _rows_from(stays, at).items():
        row[1] = since


# --- queries ---------------------------------------------------------------------------------


def presences(db: Connection, fee: Fee, since: int, until: int) -> list[Presence]:
    """Those a fee is for within [since, until), by node; alike ones are counted together."""
    if fee.each == "enterprise":
        return [Presence(0, since, until, 1)]
    count = "sum(s.channels)" if fee.each == "channel" else "count(*)"
    asked = _asked(fee.each, fee.kind, since, until)
    if fee.share == "whole":
        found = db.execute(_LAST.format(node="node", count=count), asked)
    else:
        found = db.execute(_PARTS.format(node="s.node", count=count), asked)
    return [Presence(node, begins, ends, int(many)) for node, begins, ends, many in found if many]


def members_there(db: Connection, each: str, kind: str, share: str, since: int, until: int) -> list[Presence]:
    """The same, each by itself: `node` of each is its own ordinal."""
    asked = _asked(each, kind, since, until)
    statement = _LAST if share == "whole" else _PARTS
    whose = "ordinal" if share == "whole" else "s.ordinal"
    found = db.execute(statement.format(node=whose, count="count(*)"), asked)
    return [Presence(*row) for row in found]


def _asked(each: str, kind: str, since: int, until: int) -> dict[str, Any]:
    return {"is_node": each == "node", "kind": kind, "since": since, "until": until}


_THERE = (
    "FROM stays s JOIN members m ON m.ordinal = s.ordinal WHERE m.is_node = %(is_node)s "
    "AND (%(kind)s::text = '' OR m.kind = %(kind)s) "
    "AND s.until > %(since)s AND s.since < %(until)s AND s.until > s.since"
)
_PARTS = (
    "SELECT {node}, greatest(s.since, %(since)s), least(s.until, %(until)s), {count} " + _THERE + " "
    "GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
)
_LAST = (
    "SELECT {node}, %(since)s::bigint, %(until)s::bigint, {count} FROM "
    "(SELECT DISTINCT ON (s.ordinal) s.ordinal, s.node, s.channels " + _THERE + " "
    "ORDER BY s.ordinal, s.since DESC) AS s GROUP BY 1 ORDER BY 1"
)
_HELD = (
    "SELECT ordinal, since, node, until, channels FROM stays WHERE ordinal = ANY(%s::bigint[]::integer[]) "
    "ORDER BY ordinal, since"
)
_ON = "SELECT DISTINCT ordinal FROM stays WHERE node = %s AND until > %s AND ordinal <> node"
