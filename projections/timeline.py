"""The audit timeline: which events touched a member, and which tell of a record.

Only pointers: what happened is read from the log. What is not usage has a row per member that it
touches, both sides of a transfer among them; usage is found through `usages`, by its resource and
by the node that resource was on, not by every node above.
"""

from collections.abc import Iterator
from typing import get_args

from ..domain.approval import ApprovalRuleSet
from ..domain.bucket import Granted, Transferred
from ..domain.cap import CapReached, CapSet
from ..domain.channels import ChannelsSet
from ..domain.events import Recorded
from ..domain.freeze import NodeThawed
from ..domain.granting import GrantChanged, ToppedUp
from ..domain.hierarchy import NodeAdded, NodeFrozen, ResourceAdded, ResourceEnded, ResourceMoved
from ..domain.life import (
    IdentityAdded,
    IdentityRemoved,
    NodeChangePlanned,
    NodeClosed,
    NodeMoved,
    NodePlanCancelled,
    NodeRenamed,
    ResourceJoinedEarlier,
    ResourceLabelled,
    ResourceResumed,
    ResourceSuspended,
)
from ..domain.limit import LimitSet, ThresholdCrossed
from ..domain.one_off import FeeEvent
from ..domain.policy import PolicySet, PolicyWithdrawn, UsageApproved
from ..domain.raising import LimitRaised
from ..domain.resettled import PlanCorrected
from ..domain.rollover import RolledOver
from ..domain.session_terms import SessionTermsSet
from ..domain.trade_rules import TradeRulesSet
from ..domain.trading import Reserving, TransferUndone
from .chunk import Chunk
from .paging import page_values
from .tables import Connection, Table

MEMBER_EVENTS = Table("member_events", {"ordinal": "integer", "seq": "bigint"}, {})
TABLES = (MEMBER_EVENTS,)
VERSION = 3
ENTERPRISE = 0
"""The ordinal of the root."""


def apply(chunk: Chunk, db: Connection) -> None:
    rows = [(ordinal, told.seq) for told in chunk.others for ordinal in sorted(set(_touched(told, chunk)))]
    MEMBER_EVENTS.insert(db, rows)


def _touched(told: Recorded, chunk: Chunk) -> Iterator[int]:
    event, of = told.event, chunk.ordinals.of
    yield from (of[ident] for field in _NAMED.get(type(event), ()) if (ident := getattr(event, field)))
    if told.seq in chunk.left:
        yield chunk.left[told.seq]
    if isinstance(event, RolledOver):
        for bucket in event.buckets:
            yield from (bucket.ordinal, bucket.target)
    elif isinstance(event, PlanCorrected):
        yield from (event.counted_at, event.stands_at)
    elif isinstance(event, TradeRulesSet):
        yield ENTERPRISE
    elif isinstance(event, NodeChangePlanned) and event.act != "rename" and event.to:
        yield of[event.to]


_NAMED: dict[type, tuple[str, ...]] = {
    NodeAdded: ("node", "parent"),
    ResourceAdded: ("resource", "node"),
    ResourceMoved: ("resource", "node"),
    ResourceEnded: ("resource",),
    ResourceJoinedEarlier: ("resource", "node"),
    NodeMoved: ("node", "parent"),
    NodeClosed: ("node", "successor"),
    **dict.fromkeys(
        (ResourceSuspended, ResourceResumed, IdentityAdded, IdentityRemoved, ResourceLabelled), ("resource",)
    ),
    **dict.fromkeys((Transferred, TransferUndone, *get_args(Reserving)), ("source", "target")),
    **dict.fromkeys((NodeRenamed, NodeChangePlanned, NodePlanCancelled), ("node",)),
    **dict.fromkeys(
        (Granted, ToppedUp, GrantChanged, LimitSet, ThresholdCrossed, ApprovalRuleSet), ("node",)
    ),
    **dict.fromkeys((CapSet, CapReached, NodeFrozen, NodeThawed), ("node",)),
    **dict.fromkeys(get_args(FeeEvent), ("node",)),
    ChannelsSet: ("resource",),
    **dict.fromkeys((LimitRaised, PolicySet, PolicyWithdrawn, UsageApproved, SessionTermsSet), ("node",)),
}
"""The fields of an event that name members by their ids."""


# --- queries ---------------------------------------------------------------------------------


def member_page(
    db: Connection, ident: str, first: int, before: int | None = None, *, usage: bool = True
) -> list[int]:
    """The seqs of the newest events that touched a member, newest first; with or without usage."""
    sources = [("member_events", "ordinal")]
    if usage:
        sources += [
            ("usages", "ordinal"),
            ("usages", "node"),
            ("reratings", "ordinal"),
            ("reratings", "node"),
        ]
    parts = [
        f"(SELECT seq FROM {table} WHERE {column} = (SELECT ordinal FROM members WHERE id = %(id)s) "
        "AND seq < %(before)s ORDER BY seq DESC LIMIT %(first)s)"
        for table, column in sources
    ]
    found = db.execute(
        f"SELECT seq FROM ({' UNION '.join(parts)}) AS touched ORDER BY seq DESC LIMIT %(first)s",
        {"id": ident, **page_values(first, before)},
    )
    return [row[0] for row in found]


def changes_of(db: Connection, ident: str, upto: int) -> list[int]:
    """The seqs of the changes of the hierarchy that touched a member, up to one."""
    found = db.execute(
        "SELECT t.seq FROM member_events t JOIN events e ON e.seq = t.seq "
        "WHERE t.ordinal = (SELECT ordinal FROM members WHERE id = %s) AND t.seq <= %s "
        "AND e.topic LIKE 'hierarchy.%%' ORDER BY t.seq",
        (ident, upto),
    )
    return [row[0] for row in found]


def record_page(db: Connection, usage_id: bytes, first: int, before: int | None = None) -> list[int]:
    """The seqs of the newest events about one usage record, newest first."""
    found = db.execute(
        "WITH told AS (SELECT u.seq FROM events e JOIN usages u ON u.seq = e.seq "
        "WHERE e.command_key = %(id)s) "
        "SELECT seq FROM (SELECT seq FROM told UNION ALL "
        "SELECT r.seq FROM reratings r JOIN told ON r.first = told.seq) AS every "
        "WHERE seq < %(before)s ORDER BY seq DESC LIMIT %(first)s",
        {"id": usage_id, **page_values(first, before)},
    )
    return [row[0] for row in found]
