"""Trying a policy out on usage of the past: what it would have blocked, moved and saved, by node."""

import strawberry
from strawberry import ID

from ..domain.limit import SetAnyLimit
from ..domain.refusals import Refused
from ..domain.trying import Tally, Tried
from ..domain.window import PERIOD
from .asking import permit, reach_of
from .context import Info
from .limits import KINDS, WINDOWS, LimitKind
from .policies import PolicyInput
from .refusals import TOLD, QueryRefused, facts_told
from .scalars import Moment, Money, Quantity, Seq


@strawberry.input(description="A limit that is tried along with the policy, as if it had always held.")
class TriedLimitInput:
    node: ID
    usage_type: str
    quantity: Quantity
    window: str = strawberry.field(default=PERIOD, description=WINDOWS)
    kind: LimitKind | None = strawberry.field(default=None, description="Hard, where nothing is said.")


@strawberry.type(description="What became of usage records.")
class TrialTally:
    records: Quantity
    charged: Quantity
    rejected: Quantity = strawberry.field(description="By hard limits, or an allowance at its end.")
    blocked: Quantity = strawberry.field(description="By a policy.")
    waiting: Quantity = strawberry.field(description="For an approval.")
    redirected: Quantity = strawberry.field(description="To personal accounts.")
    throttled: Quantity
    repriced: Quantity = strawberry.field(description="Beyond a threshold, at the price of a policy.")
    amount: Money = strawberry.field(description="What the enterprise pays.")
    personal: Money = strawberry.field(description="What users pay.")


@strawberry.type(description="Usage of one node.")
class TrialNode:
    node_id: ID
    recorded: TrialTally
    without: TrialTally
    proposed: TrialTally
    saved: Money
    moved: Money


@strawberry.type(description="Usage as it was, and decided again under today's limits without and with it.")
class PolicyTrial:
    seq: Seq = strawberry.field(description="The last event that was looked at.")
    starts_at: Moment
    ends_at: Moment
    recorded: TrialTally = strawberry.field(description="As it was decided then.")
    without: TrialTally = strawberry.field(description="Under the limits and policies of today.")
    proposed: TrialTally = strawberry.field(description="The same with the policy.")
    saved: Money = strawberry.field(description="What the enterprise would not have paid.")
    moved: Money = strawberry.field(description="What users would have paid in its place.")
    left_out: int = strawberry.field(description="Records whose number nobody can read any more.")
    nodes: list[TrialNode] = strawberry.field(description="By the node that the resource was on then.")


async def try_policy(
    info: Info,
    policy: PolicyInput,
    starts_at: Moment,
    ends_at: Moment,
    limits: list[TriedLimitInput] | None = None,
) -> PolicyTrial:
    """Nothing changes. Roles are not known of usage in the past."""
    context = info.context
    permit(context, "set_limit")
    reach = await reach_of(context)
    if starts_at >= ends_at:
        raise QueryRefused("bad_time", "endsAt: choose a moment after startsAt")
    for node in (policy.node, *(limit.node for limit in limits or ())):
        if not reach.sees_id(node):
            raise QueryRefused("unknown_node", f"there is no node {node}")
    along = [
        SetAnyLimit(
            *(limit.node, limit.usage_type, limit.quantity, (), "", limit.window),
            KINDS[limit.kind or LimitKind.HARD],
        )
        for limit in limits or ()
    ]
    try:
        seq, trial = await context.try_policy(policy.command(), along, starts_at, ends_at)
    except Refused as refusal:
        told = TOLD[refusal.code].message.format_map(facts_told(refusal.facts))
        raise QueryRefused(refusal.code, told) from None
    visible = {ordinal: of for ordinal, of in trial.by_node.items() if reach.sees(ordinal)}
    total = _added([*visible.values()])
    ids = trial.hierarchy_ids
    return PolicyTrial(
        seq=Seq(seq),
        starts_at=starts_at,
        ends_at=ends_at,
        recorded=_tally(total.recorded),
        without=_tally(total.without),
        proposed=_tally(total.proposed),
        saved=Money(total.saved),
        moved=Money(total.moved),
        left_out=trial.left_out,
        nodes=[_node(ids[ordinal], of) for ordinal, of in sorted(visible.items())],
    )


def _added(parts: list[Tried]) -> Tried:
    total = Tried(Tally(), Tally(), Tally())
    for part in parts:
        for name in ("recorded", "without", "proposed"):
            mine, other = getattr(total, name), getattr(part, name)
            for figure in Tally.__struct_fields__:
                setattr(mine, figure, getattr(mine, figure) + getattr(other, figure))
    return total


def _node(ident: str, of: Tried) -> TrialNode:
    return TrialNode(
        node_id=ID(ident),
        recorded=_tally(of.recorded),
        without=_tally(of.without),
        proposed=_tally(of.proposed),
        saved=Money(of.saved),
        moved=Money(of.moved),
    )


def _tally(tally: Tally) -> TrialTally:
    return TrialTally(
        records=Quantity(tally.records),
        charged=Quantity(tally.charged),
        rejected=Quantity(tally.rejected),
        blocked=Quantity(tally.blocked),
        waiting=Quantity(tally.waiting),
        redirected=Quantity(tally.redirected),
        throttled=Quantity(tally.throttled),
        repriced=Quantity(tally.repriced),
        amount=Money(tally.amount),
        personal=Money(tally.personal),
    )
