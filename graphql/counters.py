"""Live counters: what nodes have used and have left, told again whenever it has changed.

Fed by the views' followers: nothing is asked while nothing is committed. However fast usage flows,
a subscriber is told so many times a second at most, always of the newest; what comes in between is
counted in. Reach is looked at each time, so that who loses sight of a node hears no more of it.
"""

import asyncio
import functools
from collections.abc import AsyncGenerator
from typing import Annotated

import strawberry
from strawberry import ID

from ..projections import balances, members
from ..tenants.access import in_scope
from ..tenants.isolation import Connection
from .asking import Reach, permit, usage_types_of
from .context import Context, Info, TryAgain
from .refusals import QueryRefused
from .scalars import Quantity, Seq

NODES_MAX = 100
PER_SECOND_MAX = 10
VIEWS = ("balances",)
NOT_YET = "not_visible_yet"
"""What is answered after some seconds without a commit."""


@strawberry.type(description="A node or resource, one usage type, in the period that is running.")
class Counter:
    node: ID
    usage_type: str
    unit: str
    period: str
    used: Quantity = strawberry.field(description="At and below, also what running sessions hold.")
    remaining: Quantity = strawberry.field(description="In buckets at and below.")
    available: Quantity = strawberry.field(description="Of it, what is not reserved.")


@strawberry.type(description="Counters as of one seq: first all of them, then those that have changed.")
class CountersTold:
    seq: Seq
    counters: list[Counter]


async def counters(
    info: Info,
    nodes: Annotated[list[ID], strawberry.argument(description=f"Nodes and resources, at most {NODES_MAX}.")],
    usage_types: list[str] | None = None,
    per_second: Annotated[
        int, strawberry.argument(description=f"Told so often at most; 1 to {PER_SECOND_MAX}.")
    ] = 2,
) -> AsyncGenerator[CountersTold, None]:
    """Nodes out of reach are left out, as those that do not exist. Ends when the token does."""
    context, asked = info.context, list(dict.fromkeys(map(str, nodes)))
    permit(context, "read")
    state = await context.state()
    types, units = usage_types_of(usage_types, state), Reach(context.principal, state).units
    if not 1 <= len(asked) <= NODES_MAX:
        raise QueryRefused("too_many_members", f"nodes: name 1 to {NODES_MAX}")
    if not 1 <= per_second <= PER_SECOND_MAX:
        raise QueryRefused("bad_rate", f"perSecond: 1 to {PER_SECOND_MAX}")
    seq, told = -1, dict[tuple[str, str], Counter]()
    while context.now() < context.principal.expires_at * 1_000_000:
        period = state.contracts.name_at(context.now())
        query = functools.partial(
            _read, context=context, nodes=asked, types=types, period=period, units=units
        )
        try:
            first, (seq, found) = seq < 0, await context.read(query, VIEWS, at_least=seq + 1)
        except TryAgain as waiting:
            if waiting.code != NOT_YET:
                raise
            continue
        changed = [one for one in found if told.get((one.node, one.usage_type)) != one]
        told = {(one.node, one.usage_type): one for one in found}
        # From when it is told: reading may take long once, and hardly anything the next time.
        looked_at = asyncio.get_running_loop().time()
        if changed or first:
            yield CountersTold(seq=Seq(seq), counters=changed)
        await asyncio.sleep(looked_at + 1 / per_second - asyncio.get_running_loop().time())


def _read(
    db: Connection,
    *,
    context: Context,
    nodes: list[str],
    types: list[str],
    period: str,
    units: dict[str, str],
) -> list[Counter]:
    found: list[Counter] = []
    for node in nodes:
        above = [member.id for member in members.ancestors(db, node)]
        if in_scope(context.principal, [*above, node]):
            found += (_counter(one, units) for one in balances.balance_of(db, node, period, types))
    return found


def _counter(balance: balances.Balance, units: dict[str, str]) -> Counter:
    return Counter(
        node=ID(balance.id),
        usage_type=balance.usage_type,
        unit=units[balance.usage_type],
        period=balance.period,
        used=Quantity(balance.used),
        remaining=Quantity(balance.subtree.remaining),
        available=Quantity(balance.subtree.available),
    )
