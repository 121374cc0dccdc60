"""The audit timeline: which events touched a member, and which tell of a record.

Only pointers: what happened is read from the log. What is not usage has a row per member that it
touches, both sides of a transfer among them; usage is found through `usages`, by its resource and
by the node that resource was on, not by every node above.
"""

from collections.abc import Iterator

from ..domain.approval import ApprovalRuleSet
from ..domain.bucket import Granted, Transferred
from ..domain.events import Recorded
from ..domain.granting import GrantChanged, ToppedUp
from ..domain.hierarchy import NodeAdded, ResourceAdded, ResourceEnded, ResourceMoved
from ..domain.limit import LimitSet, ThresholdCrossed
from ..domain.rollover import RolledOver
from ..domain.trade_rules import TradeRulesSet
from ..domain.trading import Reserving, TransferUndone
from .chunk import Chunk
from .tables import Connection, Table

MEMBER_EVENTS = Table("member_events", {"ordinal": "integer", "seq": "bigint"}, {})
TABLES = (MEMBER_EVENTS,)
VERSION = 2
ENTERPRISE = 0
"""The ordinal of the root."""


def apply(chunk: Chunk, db: Connection) -> None:
    rows = [(ordinal, told.seq) for told in chunk.others for ordinal in sorted(set(_touched(told, chunk)))]
    MEMBER_EVENTS.insert(db, rows)


def _touched(told: Recorded, chunk: Chunk) -> Iterator[int]:
    of = chunk.ordinals.of
    match told.event:
        case NodeAdded(_, ordinal, parent):
            yield ordinal
            if parent:
                yield of[parent]
        case ResourceAdded(_, ordinal, node):
            yield ordinal
            yield of[node]
        case ResourceMoved(resource, node):
            yield from (of[resource], chunk.left[told.seq], of[node])
        case ResourceEnded(resource):
            yield from (of[resource], chunk.left[told.seq])
        case Transferred(source, target):
            yield from (of[source], of[target])
        case RolledOver(buckets=buckets):
            for bucket in buckets:
                yield from (bucket.ordinal, bucket.target)
        case ToppedUp(node) | GrantChanged(node) | Granted(node):
            yield of[node]
        case LimitSet(node) | ThresholdCrossed(node) | ApprovalRuleSet(node):
            yield of[node]
        case TradeRulesSet():
            yield ENTERPRISE
        case event if isinstance(event, Reserving | TransferUndone):
            yield from (of[event.source], of[event.target])


# --- queries ---------------------------------------------------------------------------------


def member_page(
    db: Connection, ident: str, first: int, before: int | None = None, *, usage: bool = True
) -> list[int]:
    """The seqs of the newest events that touched a member, newest first; with or without usage."""
    sources = [("member_events", "ordinal")]
    if usage:
        sources += [("usages", "ordinal"), ("usages", "node")]
    parts = [
        f"(SELECT seq FROM {table} WHERE {column} = (SELECT ordinal FROM members WHERE id = %(id)s) "
        "AND seq < %(before)s ORDER BY seq DESC LIMIT %(first)s)"
        for table, column in sources
    ]
    found = db.execute(
        f"SELECT seq FROM ({' UNION ALL '.join(parts)}) AS touched ORDER BY seq DESC LIMIT %(first)s",
        {"id": ident, "before": 2**62 if before is None else before, "first": first},
    )
    return [row[0] for row in found]


def record_page(db: Connection, usage_id: bytes, first: int, before: int | None = None) -> list[int]:
    """The seqs of the newest events about one usage record, newest first."""
    found = db.execute(
        "SELECT u.seq FROM events e JOIN usages u ON u.seq = e.seq "
        "WHERE e.command_key = %s AND u.seq < %s ORDER BY u.seq DESC LIMIT %s",
        (usage_id, 2**62 if before is None else before, first),
    )
    return [row[0] for row in found]
