"""History: what the log says happened to a member, or became of a record, newest first."""

import functools

import strawberry
from strawberry import ID

from ..domain.events import Recorded
from ..projections import suspense, timeline
from ..tenants.isolation import Connection
from .asking import (
    PAGE_USUAL,
    PageInfo,
    Reach,
    cursor_of,
    page_size,
    permit,
    reach_of,
    seq_before,
    usage_id_of,
)
from .context import Context, Info
from .scalars import Json, Moment, Seq
from .telling import Teller

HISTORY_MAX = 100


@strawberry.type(description="One event of the tenant's log.")
class AuditEntry:
    seq: Seq
    recorded_at: Moment
    actor: str = strawberry.field(description="Who did it, and for whom: roles and opaque ids, no names.")
    topic: str
    sentence: str = strawberry.field(description="What happened, for people.")
    event: Json = strawberry.field(description="Its own fields, without what is sealed.")


@strawberry.type
class AuditConnection:
    nodes: list[AuditEntry]
    page_info: PageInfo


async def node_history(
    info: Info,
    node: ID,
    first: int = PAGE_USUAL,
    after: str | None = None,
    usage: bool = True,
) -> AuditConnection | None:
    """Every event that touched a node or resource; null when there is none in reach."""
    context = info.context
    permit(context, "read")
    size, before = page_size(first), seq_before(after)
    reach = await reach_of(context)
    if not reach.sees_id(node):
        return None
    query = functools.partial(timeline.member_page, ident=node, first=size + 1, before=before, usage=usage)
    _, seqs = await context.read(query, ("timeline",))
    entries = await entries_of(context, reach, seqs[:size])
    end = cursor_of(seqs[:size][-1]) if seqs else None
    return AuditConnection(nodes=entries, page_info=PageInfo(has_next_page=len(seqs) > size, end_cursor=end))


async def record_history(info: Info, usage_id: ID) -> list[AuditEntry] | None:
    """What became of a usage record; null when there is none in reach."""
    context = info.context
    permit(context, "read")
    key = usage_id_of(usage_id)
    if key is None:
        return None
    query = functools.partial(_record_seqs, usage_id=key)
    _, seqs = await context.read(query, ("timeline", "suspense"))
    entries = await entries_of(context, await reach_of(context), seqs)
    return entries or None


def _record_seqs(db: Connection, *, usage_id: bytes) -> list[int]:
    """With what was done about it while it waited."""
    seqs = set(timeline.record_page(db, usage_id, HISTORY_MAX))
    waited = suspense.waited(db, [usage_id])
    waited += [origin for seq in seqs if (origin := suspense.origin_of(db, seq)) is not None]
    for row in waited:
        seqs |= {row.seq, *suspense.steps_of(db, row.waiting)}
        if row.outcome in ("charged", "rejected"):
            seqs.add(row.settled_seq + 1)
    return sorted(seqs, reverse=True)[:HISTORY_MAX]


async def entries_of(context: Context, reach: Reach, seqs: list[int]) -> list[AuditEntry]:
    """The events that the reader may know of, in the order asked for."""
    teller = Teller(await context.state(), reach)
    told = {recorded.seq: recorded for recorded in await context.events(seqs)}
    return [_entry(told[seq], teller) for seq in seqs if seq in told and teller.sees(told[seq].event)]


async def told_all(context: Context, reach: Reach, seqs: list[int]) -> list[AuditEntry]:
    """The same where the reader may know of all of them."""
    teller = Teller(await context.state(), reach)
    return [_entry(recorded, teller) for recorded in await context.events(seqs)]


def _entry(recorded: Recorded, teller: Teller) -> AuditEntry:
    return AuditEntry(
        seq=Seq(recorded.seq),
        recorded_at=Moment(recorded.recorded_at),
        actor=recorded.actor,
        topic=recorded.topic,
        sentence=teller.sentence(recorded.event),
        event=teller.facts(recorded.event),
    )
