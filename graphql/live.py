"""Live: subscriptions, each a view of the tenant's events as they are committed.

`following` is all that a further subscription needs: events of some topics at and below a node, in batches,
first those after a seq and then live, for a caller who may see them. Its field is entered in
`schema.Subscription`. Who is too slow is cut off and goes on with `afterSeq`: the log has it all.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence

import strawberry
from strawberry import ID

from ..domain.events import TOPICS, Recorded
from ..domain.notice import USUAL, Filter, check_filter, is_below, wanted
from ..domain.refusals import Refused
from ..domain.tenant import Tenant
from .asking import Reach, permit
from .context import Context, Info
from .refusals import TOLD, QueryRefused
from .scalars import Json, Moment, Seq
from .telling import Teller


@strawberry.type(description="An event that somebody wants to know of.")
class Notice:
    id: ID = strawberry.field(description="The same wherever it is told: webhook, NATS, here.")
    seq: Seq
    recorded_at: Moment
    kind: str
    sentence: str = strawberry.field(description="What happened, for people.")
    event: Json = strawberry.field(description="Its own fields, without what is sealed.")


@strawberry.type(description="Something has changed: ask again for what you show.")
class Change:
    seq: Seq = strawberry.field(description="The last event that this tells of.")
    recorded_at: Moment
    kinds: list[str] = strawberry.field(description="What it was.")
    count: int = strawberry.field(description="How many events it was; those at once are told together.")


class Live:
    """A batch of events, and who may see what of them."""

    def __init__(self, state: Tenant, reach: Reach, events: Sequence[Recorded]) -> None:
        self.state = state
        self.reach = reach
        self.events = events


async def following(
    context: Context, node: str, topics: Collection[str], after: int | None
) -> AsyncIterator[Live]:
    """Events of these topics that are about a node or what is below it, and that the caller may see."""
    state = await context.state()
    if not Reach(context.principal, state).sees_id(node):
        raise QueryRefused("unknown_node", f"node: there is no node {node}")
    async for batch in context.follow(topics, after):
        state = await context.state()
        reach = Reach(context.principal, state)
        if not reach.sees_id(node):
            # It has moved out of reach: from here on it does not exist.
            return
        teller = Teller(state, reach)
        seen = [one for one in batch if is_below(one.event, node, state.hierarchy) and teller.sees(one.event)]
        if seen:
            yield Live(state, reach, seen)


async def noticed(
    info: Info,
    node: ID,
    kinds: list[str] | None = None,
    usage_types: list[str] | None = None,
    percent_min: int = 0,
    after_seq: Seq | None = None,
) -> AsyncGenerator[Notice, None]:
    context = info.context
    permit(context, "read")
    wants = Filter(str(node), USUAL if kinds is None else tuple(kinds), tuple(usage_types or ()), percent_min)
    _check(wants, await context.state())
    async for live in following(context, str(node), wants.topics, after_seq):
        teller = Teller(live.state, live.reach)
        for told in live.events:
            if wanted(told.event, wants, live.state.hierarchy):
                yield Notice(
                    id=ID(context.notice_id(told.seq)),
                    seq=Seq(told.seq),
                    recorded_at=Moment(told.recorded_at),
                    kind=told.topic,
                    sentence=teller.sentence(told.event),
                    event=teller.facts(told.event),
                )


async def changed(info: Info, node: ID, after_seq: Seq | None = None) -> AsyncGenerator[Change, None]:
    context = info.context
    permit(context, "read")
    async for live in following(context, str(node), TOPICS, after_seq):
        last = live.events[-1]
        yield Change(
            seq=Seq(last.seq),
            recorded_at=Moment(last.recorded_at),
            kinds=sorted({told.topic for told in live.events}),
            count=len(live.events),
        )


def _check(wants: Filter, state: Tenant) -> None:
    try:
        check_filter(wants, state.hierarchy, state.types, TOPICS)
    except Refused as refusal:
        facts = {
            name: ", ".join(map(str, told)) if isinstance(told, list) else told
            for name, told in refusal.facts.items()
        }
        raise QueryRefused(refusal.code, TOLD[refusal.code].message.format_map(facts)) from None
