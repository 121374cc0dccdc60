"""Limits: how much may be used at and below a member, per period, day, week or rolling window."""

import functools
from collections.abc import Mapping
from enum import Enum
from typing import Annotated

import strawberry
from msgspec.structs import replace
from strawberry import ID

from ..domain.limit import THRESHOLDS, Kind, LimitSet, SetAnyLimit, SetLimit, ThresholdCrossed
from ..domain.limit_sheet import may_raise_now
from ..domain.policy import quantity_at
from ..domain.raising import LimitRaised, MayRaise, RaiseLimit, bound_of
from ..domain.refusals import Refused
from ..domain.tenant import Tenant
from ..domain.usage import MONEY
from ..domain.window import PERIOD
from ..projections import members, rules
from ..projections.used import used_in
from ..tenants.access import in_scope
from ..tenants.isolation import Connection
from .asking import PAGE_USUAL, AsOf, PageInfo, cursor_of, looking, page_size, period_of, permit, seq_before
from .changing import DryRun, changed, roles_of, seqs_of
from .context import Context, Info
from .hierarchy import MEMBERS_MAX, UNITS, Member
from .limit_problems import MayNotRaise, Raiser, limit_change
from .problems import (
    IdempotencyMismatch,
    InsufficientAllowance,
    InvalidInput,
    NotPermitted,
    OfAllocation,
    ProblemType,
    TryAgain,
    UnknownNode,
)
from .refusals import QueryRefused, invalid
from .scalars import Moment, Quantity, Seq
from .wording import DRY, EVENTS, KEY, REPEATED, WHICH_PERIOD

VIEWS = ("members", "balances", "rules")
WINDOWS = "period, day, week, or a rolling one: last_7_days, last_24_hours."


@strawberry.enum
class LimitKind(Enum):
    HARD = strawberry.enum_value("hard", description="Stops.")
    SOFT = strawberry.enum_value("soft", description="Only tells.")


KINDS: dict[LimitKind, Kind] = {LimitKind.HARD: "hard", LimitKind.SOFT: "soft"}


@strawberry.input(
    description="Who may raise a limit: up to a percentage of it, a quantity, or without bound."
)
class MayRaiseInput:
    role: str
    percent: int | None = None
    quantity: Quantity | None = None


@strawberry.input(description="A limit on a node or resource.")
class SetLimitInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    node: ID
    usage_type: str = strawberry.field(description="data, voice, messaging, video or money (in micro-units).")
    quantity: Quantity | None = strawberry.field(
        default=strawberry.UNSET,
        description="Per window; 0 stops all usage, an explicit null lifts the limit.",
    )
    thresholds: list[int] = strawberry.field(
        default_factory=lambda: list(THRESHOLDS),
        description="Percentages at which somebody is told; above 100 where the limit is soft.",
    )
    from_period: str | None = strawberry.field(default=None, description=WHICH_PERIOD)
    window: str = strawberry.field(
        default=PERIOD,
        description=WINDOWS + " All but the period count from when the limit is first set: see `countsFrom`.",
    )
    kind: LimitKind | None = strawberry.field(default=None, description="Hard, where nothing is said.")
    quantities: list[Quantity] = strawberry.field(
        default_factory=list, description="Further thresholds, as quantities."
    )
    may_raise: list[MayRaiseInput] | None = strawberry.field(
        default=None,
        description="Who may raise it; left out, the rule stays; empty: whoever may set limits there.",
    )
    note: str = ""
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.type(description="The limit holds, durably.")
class SetLimitDone:
    node: Member = strawberry.field(description="As it stands now.")
    from_period: str
    crossed: list[int] = strawberry.field(description="Percentages that usage had reached already.")
    counts_from: Moment | None = strawberry.field(
        description="Usage recorded since then counts. In a period, all of it; in days, weeks and rolling "
        "windows, what came after the limit was first set, and nothing before. Null where it is lifted."
    )
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


@strawberry.input(description="A limit that holds is raised for a time.")
class RaiseLimitInput:
    idempotency_key: ID
    node: ID
    usage_type: str
    window: str = strawberry.field(default=PERIOD, description=WINDOWS)
    to: Quantity | None = strawberry.field(default=None, description="The quantity to raise to, or ...")
    by: Quantity | None = strawberry.field(default=None, description="... how much to add.")
    until: Moment = strawberry.field(description="From then on the old limit holds again, by itself.")
    note: str = ""
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.type(description="The limit is raised, durably.")
class RaiseLimitDone:
    node_id: ID
    window: str
    quantity: Quantity
    since: Moment
    until: Moment
    event_seqs: list[Seq]
    repeated: bool


SetLimitPayload = Annotated[
    SetLimitDone
    | DryRun
    | InvalidInput
    | UnknownNode
    | NotPermitted
    | MayNotRaise
    | IdempotencyMismatch
    | TryAgain,
    strawberry.union("SetLimitPayload"),
]
RaiseLimitPayload = Annotated[
    RaiseLimitDone
    | DryRun
    | InvalidInput
    | UnknownNode
    | NotPermitted
    | MayNotRaise
    | IdempotencyMismatch
    | TryAgain,
    strawberry.union("RaiseLimitPayload"),
]


async def set_limit(info: Info, input: SetLimitInput) -> SetLimitPayload:
    context = info.context
    if input.quantity is strawberry.UNSET:
        # Left out by mistake it must not lift a limit.
        return invalid("quantity", "give a quantity, or an explicit null to lift the limit")
    command = _command(input, await context.state(), context)
    answer = await limit_change(context, command, input.idempotency_key, dry_run=input.dry_run)
    if isinstance(answer, DryRun | MayNotRaise | ProblemType):
        assert not isinstance(answer, InsufficientAllowance | OfAllocation)
        return answer
    limit = next(event for event in answer.events if isinstance(event, LimitSet))
    running = (await context.state()).contracts.name_at(context.now())
    # A limit that begins later is shown in its first period.
    period = max(running, limit.from_period)
    (node,) = await changed(context, answer, [limit.node], period, limit.usage_type)
    return SetLimitDone(
        node=node,
        from_period=limit.from_period,
        crossed=[event.percent for event in answer.events if isinstance(event, ThresholdCrossed)],
        counts_from=await _counts_from(context, limit, answer.last_seq),
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


async def _counts_from(context: Context, limit: LimitSet, at_least: int) -> Moment | None:
    """A limit that replaces one in the same window goes on with what that had counted."""
    if limit.quantity is None:
        return None
    if limit.window == PERIOD:
        return _begins(await context.state(), limit.from_period)
    query = functools.partial(
        rules.counted_since, node=limit.node, usage_type=limit.usage_type, window=limit.window
    )
    _, since = await context.read(query, ("rules",), at_least=at_least)
    told = await context.events([since]) if since is not None else []
    return Moment(told[0].recorded_at) if told else None


def _begins(state: Tenant, period: str) -> Moment | None:
    """Null where no contract covers it: nothing is used then."""
    try:
        return Moment(state.contracts.bounds(period)[0])
    except Refused:
        return None


def _command(input: SetLimitInput, state: Tenant, context: Context) -> SetLimit:
    """The plain command where nothing else is asked for: it is the same question as ever."""
    plain = (input.node, input.usage_type, input.quantity, tuple(input.thresholds), input.from_period or "")
    limit = SetAnyLimit(*plain, input.window, KINDS[input.kind or LimitKind.HARD], tuple(input.quantities))
    rule = may_raise_now(limit, state, context.now())
    more = (input.window, input.kind, input.quantities, input.may_raise, input.note)
    if more == (PERIOD, None, [], None, "") and not rule:
        return SetLimit(*plain)
    if input.may_raise is not None:
        rule = tuple(MayRaise(one.role, one.percent or 0, one.quantity or 0) for one in input.may_raise)
    return replace(limit, may_raise=rule, roles=roles_of(context), note=input.note)


async def raise_limit(info: Info, input: RaiseLimitInput) -> RaiseLimitPayload:
    context = info.context
    command = RaiseLimit(
        *(input.node, input.usage_type, input.until, input.to, input.by, input.window),
        *(roles_of(context), input.note),
    )
    answer = await limit_change(context, command, input.idempotency_key, dry_run=input.dry_run)
    if isinstance(answer, DryRun | MayNotRaise | ProblemType):
        assert not isinstance(answer, InsufficientAllowance | OfAllocation)
        return answer
    raised = next(event for event in answer.events if isinstance(event, LimitRaised))
    return RaiseLimitDone(
        node_id=ID(raised.node),
        window=raised.window,
        quantity=Quantity(raised.quantity),
        since=Moment(raised.since),
        until=Moment(raised.until),
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


# --- asked -----------------------------------------------------------------------------------


@strawberry.type(description="A raise of a limit.")
class LimitRaise:
    quantity: Quantity
    since: Moment
    until: Moment
    note: str
    seq: Seq


@strawberry.type(description="Where somebody is told.")
class LimitThreshold:
    percent: int | None
    quantity: Quantity = strawberry.field(description="What has to be reached, as the limit stands.")
    crossed: bool
    crossed_at: Moment | None
    seq: Seq | None


@strawberry.type(description="A limit in force, in its window that runs.")
class LimitInForce:
    node_id: ID
    node_name: str
    usage_type: str
    unit: str
    window: str
    of: str = strawberry.field(
        description="The period, the day or the week; the last day or hour of a rolling window."
    )
    kind: LimitKind
    quantity: Quantity = strawberry.field(description="As raised, where it is.")
    set_to: Quantity = strawberry.field(description="Without any raise.")
    used: Quantity = strawberry.field(
        description="Charged so far. A limit that is no limit per period counts from when it was set; "
        "what sessions hold counts as well, and is told in a period only."
    )
    remaining: Quantity
    thresholds: list[LimitThreshold]
    may_raise: list[Raiser] = strawberry.field(description="Empty: whoever may set limits there.")
    raises: list[LimitRaise] = strawberry.field(description="Since it was set, the newest last.")
    from_period: str
    set_by: Seq
    set_at: Moment


@strawberry.type
class LimitConnection:
    seq: Seq = strawberry.field(description="The last event that is counted in.")
    nodes: list[LimitInForce]
    page_info: PageInfo


async def limits(
    info: Info,
    node: ID,
    below: Annotated[bool, strawberry.argument(description="With those of everybody below it.")] = False,
    usage_type: str | None = None,
    window: str | None = None,
    first: int = PAGE_USUAL,
    after: str | None = None,
    as_of: AsOf | None = None,
) -> LimitConnection | None:
    """Those set last first; null where there is no such node in reach."""
    context = info.context
    permit(context, "read")
    size, before, from_where = page_size(first), seq_before(after), await looking(context, as_of)
    period = period_of(await context.state(), None, from_where.at)
    query = functools.partial(
        _limits, context=context, node=node, below=below, period=period, at=from_where.at
    )
    seq, found = await context.read(query, VIEWS, as_of=from_where.seq)
    if found is None:
        return None
    names, held = found
    wanted = [
        limit
        for limit in held
        if (before is None or limit.seq < before)
        and usage_type in (None, limit.usage_type)
        and window in (None, limit.in_force.window)
    ]
    page, units = wanted[:size], (await context.state()).types.units
    return LimitConnection(
        seq=Seq(seq),
        nodes=[_told(limit, names, units) for limit in page],
        page_info=PageInfo(
            has_next_page=len(wanted) > size, end_cursor=cursor_of(page[-1].seq) if page else None
        ),
    )


def _limits(
    db: Connection, *, context: Context, node: str, below: bool, period: str, at: int
) -> tuple[dict[int, tuple[str, str]], list[rules.Limit]] | None:
    above = [member.id for member in members.ancestors(db, node)]
    if not in_scope(context.principal, [*above, node]):
        return None
    listed = members.tree(db, node, None if below else 0, resources=True)
    if len(listed) > MEMBERS_MAX:
        raise QueryRefused("too_many_members", f"more than {MEMBERS_MAX} members: ask for a lower node")
    if not listed:
        return None
    names = {member.ordinal: (member.id, member.name or member.id) for member in listed}
    used = used_in(db, [*names], period)
    return names, rules.limits_at(db, [*names], period, at, used)


def _told(limit: rules.Limit, names: Mapping[int, tuple[str, str]], units: Mapping[str, str]) -> LimitInForce:
    ident, name = names[limit.ordinal]
    held = limit.in_force
    base = held.quantity if held.set_to is None else held.set_to
    return LimitInForce(
        node_id=ID(ident),
        node_name=name,
        usage_type=limit.usage_type,
        unit=units.get(limit.usage_type, UNITS[MONEY]),
        window=held.window,
        of=limit.of,
        kind=LimitKind(held.kind),
        quantity=Quantity(held.quantity),
        set_to=Quantity(base),
        used=Quantity(limit.used),
        remaining=Quantity(max(0, held.quantity - limit.used)),
        thresholds=_thresholds(limit),
        may_raise=raisers(held.may_raise, base),
        raises=[_raise(one) for one in limit.raises],
        from_period=held.from_period,
        set_by=Seq(limit.seq),
        set_at=Moment(limit.recorded_at),
    )


def raisers(rules_of: tuple[MayRaise, ...], quantity: int) -> list[Raiser]:
    """Who may raise a limit of this quantity, and how far."""
    told = []
    for rule in rules_of:
        bound = bound_of([rule], [rule.role], quantity)
        told.append(Raiser(role=rule.role, up_to=None if bound is None else Quantity(bound)))
    return told


def _thresholds(limit: rules.Limit) -> list[LimitThreshold]:
    held = limit.in_force
    wanted = [(percent, 0) for percent in held.thresholds] + [(0, at) for at in held.quantities]
    crossed = {}
    for told in limit.crossed:
        event = told.event
        assert isinstance(event, ThresholdCrossed)
        if event.limit == held.quantity and not event.policy:
            crossed[event.percent, event.at] = told
    thresholds = []
    for percent, at in wanted:
        when = crossed.get((percent, at))
        thresholds.append(
            LimitThreshold(
                percent=percent or None,
                quantity=Quantity(max(1, quantity_at(percent, at, held.quantity))),
                crossed=when is not None,
                crossed_at=Moment(when.recorded_at) if when is not None else None,
                seq=Seq(when.seq) if when is not None else None,
            )
        )
    return sorted(thresholds, key=lambda threshold: threshold.quantity)


def _raise(told: rules.Told) -> LimitRaise:
    event = told.event
    assert isinstance(event, LimitRaised)
    return LimitRaise(
        quantity=Quantity(event.quantity),
        since=Moment(event.since),
        until=Moment(event.until),
        note=event.note,
        seq=Seq(told.seq),
    )
