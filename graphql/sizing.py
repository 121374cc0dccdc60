"""Sizing: what to grant or allocate, by node and usage type, with every step on the way to it."""

import functools
from enum import Enum
from fractions import Fraction
from typing import Annotated

import strawberry
from strawberry import ID

from ..domain import sizing as rules
from ..domain.refusals import Refused
from ..projections import members
from ..projections import sizings as views
from ..tenants.access import in_scope
from ..tenants.isolation import Connection
from .asking import AsOf, Reach, looking, period_of, permit, reach_of, usage_types_of
from .context import Context, Info
from .refusals import TOLD, QueryRefused, camel
from .scalars import Quantity, Seq

VIEWS = ("balances",)


@strawberry.enum(description="How a base is taken from the history.")
class SizingMethod(Enum):
    MAX = "max"
    MEAN = "mean"
    PERCENTILE = "percentile"


@strawberry.input(description="What proposals are made under.")
class SizingAssumptions:
    periods: int = strawberry.field(default=3, description="Complete periods that are looked at.")
    method: SizingMethod | None = strawberry.field(default=None, description="Else MAX.")
    percentile: int | None = strawberry.field(
        default=None, description="With PERCENTILE: by nearest rank, 100 is the largest."
    )
    growth_percent: int = strawberry.field(default=0, description="Expected; negative for less.")
    margin_percent: int = strawberry.field(default=10)
    step: Quantity | None = strawberry.field(
        default=None, description="Proposals are multiples of it; else of a step for each usage type."
    )


@strawberry.type(description="How a past period would have gone with the proposal as all there was.")
class ReplayedPeriod:
    period: str
    used: Quantity
    overage: Quantity = strawberry.field(description="As it was.")
    overage_then: Quantity = strawberry.field(description="What would have gone beyond the proposal.")
    overage_avoided: Quantity = strawberry.field(description="overage - overageThen.")
    unused: Quantity = strawberry.field(description="What of the proposal would have been left.")


@strawberry.type(description="What to grant to a node, or to allocate to it, in each period.")
class SizingProposal:
    node: ID
    name: str
    depth: int
    parent_id: ID | None = strawberry.field(description="Null for the first.")
    usage_type: str
    unit: str
    held: Quantity = strawberry.field(description="What buckets at and below hold in the running period.")
    base: str = strawberry.field(description='Exact: "7" or "22/3".')
    grown: str = strawberry.field(description="base x (100 + growthPercent) / 100, exact.")
    with_margin: str = strawberry.field(description="grown x (100 + marginPercent) / 100, exact.")
    step: Quantity
    proposal: Quantity = strawberry.field(description="withMargin, rounded up to a multiple of step.")
    working: str
    below: Quantity | None = strawberry.field(description="The sum of the proposals right below it.")
    apart: Quantity | None = strawberry.field(
        description="proposal - below: negative where children peak at different times."
    )
    history: list[ReplayedPeriod]


@strawberry.type(description="Proposals for a node and those below it, in pre-order.")
class Sizing:
    seq: Seq
    periods: list[str] = strawberry.field(description="Looked at, the oldest first.")
    held_in: str
    proposals: list[SizingProposal]


async def sizing(
    info: Info,
    node: Annotated[ID | None, strawberry.argument(description="Leave it out for all you may see.")] = None,
    depth: Annotated[int, strawberry.argument(description="Levels below it.")] = 1,
    usage_types: list[str] | None = None,
    assumptions: SizingAssumptions | None = None,
    as_of: AsOf | None = None,
) -> Sizing | None:
    """Null where there is no such node in reach."""
    context = info.context
    permit(context, "read")
    if depth < 0:
        raise QueryRefused("bad_depth", "depth: ask for 0 or more levels")
    from_where, state = await looking(context, as_of), await context.state()
    types, running = usage_types_of(usage_types, state), period_of(state, None, from_where.at)
    query = functools.partial(
        _read,
        context=context,
        roots=[str(node)] if node is not None else (await reach_of(context)).roots(),
        depth=depth,
        sized=functools.partial(
            views.sizing_among,
            usage_types=types,
            assumed=_assumed(assumptions),
            at=from_where.at,
            running=running,
        ),
    )
    seq, found = await context.read(query, VIEWS, as_of=from_where.seq)
    units = Reach(context.principal, state).units
    return None if found is None else _told(seq, found, units)


def _assumed(given: SizingAssumptions | None) -> rules.Assumptions:
    given = given or SizingAssumptions()
    assumed = rules.Assumptions(
        given.periods,
        (given.method or SizingMethod.MAX).value,
        given.percentile,
        given.growth_percent,
        given.margin_percent,
        given.step,
    )
    try:
        assumed.check()
    except Refused as refused:
        told = TOLD[refused.code].message.format_map(refused.facts | {"field": camel(refused.facts["field"])})
        raise QueryRefused(refused.code, f"assumptions: {told}") from None
    return assumed


def _read(
    db: Connection,
    *,
    context: Context,
    roots: list[str | None],
    depth: int,
    sized: "functools.partial[views.Sizing]",
) -> views.Sizing | None:
    listed: list[members.Listed] = []
    for root in roots:
        above = [] if root is None else [member.id for member in members.ancestors(db, root)]
        if in_scope(context.principal, above if root is None else [*above, root]):
            listed += members.tree(db, root, depth)
    if len(listed) > views.MEMBERS_MAX:
        raise QueryRefused(
            "too_many_members", f"more than {views.MEMBERS_MAX} nodes: ask for less depth, or a lower node"
        )
    return sized(db, listed) if listed else None


def _told(seq: int, found: views.Sizing, units: dict[str, str]) -> Sizing:
    return Sizing(
        seq=Seq(seq),
        periods=found.periods,
        held_in=found.held_in,
        proposals=[_proposal(one, units) for one in found.sized],
    )


def _proposal(one: views.Sized, units: dict[str, str]) -> SizingProposal:
    member, made = one.member, one.proposal
    return SizingProposal(
        node=ID(member.id),
        name=member.name or member.id,
        depth=member.depth,
        parent_id=ID(member.parent_id) if member.parent_id and member.depth else None,
        usage_type=one.usage_type,
        unit=units[one.usage_type],
        held=Quantity(one.held),
        base=_exact(made.base),
        grown=_exact(made.grown),
        with_margin=_exact(made.with_margin),
        step=Quantity(made.step),
        proposal=Quantity(made.quantity),
        working=one.working,
        below=None if one.below is None else Quantity(one.below),
        apart=None if one.apart is None else Quantity(one.apart),
        history=[_replayed(past) for past in made.replayed],
    )


def _exact(number: Fraction) -> str:
    return str(number)


def _replayed(past: rules.Replayed) -> ReplayedPeriod:
    return ReplayedPeriod(
        period=past.period,
        used=Quantity(past.used),
        overage=Quantity(past.overage),
        overage_then=Quantity(past.overage_then),
        overage_avoided=Quantity(past.overage_avoided),
        unused=Quantity(past.unused),
    )
