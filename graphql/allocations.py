"""Allocation under the manager's hand: caps, bulk, templates, schedules, freezing, and how it all stands."""

import functools
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any

import strawberry
from msgspec import Struct
from strawberry import ID

from ..domain.allocation import ReturnUnused, TransferMany
from ..domain.bucket import Transferred
from ..domain.cap import CapSet, SetCap
from ..domain.freeze import FreezeNode, ThawNode
from ..domain.refusals import Refused
from ..domain.running import Line, members_of
from ..domain.schedule import AllocationScheduled, CancelSchedule, ScheduleAllocation
from ..domain.sheet import lines_of
from ..domain.template import ApplyTemplate, DefineTemplate, Rule
from ..domain.usage import MONEY
from ..projections import allocations as views
from ..projections import balances, members
from ..tenants.access import NotPermitted as NotPermittedHere
from ..tenants.access import Verb, in_scope, require
from ..tenants.isolation import Connection
from .asking import (
    PAGE_USUAL,
    AsOf,
    PageInfo,
    Reach,
    looking,
    page_size,
    period_of,
    permit,
    reach_of,
    usage_types_of,
)
from .changing import DryRun, change, changed, check_reach_of_lines, seqs_of
from .context import Answer, Context, Info
from .hierarchy import DEPTH_USUAL, MEMBERS_MAX, UNITS, Member
from .problems import (
    BadLines,
    Frozen,
    IdempotencyMismatch,
    InsufficientAllowance,
    InvalidInput,
    NotPermitted,
    OverCommitted,
    ProblemType,
    TryAgain,
    UnknownNode,
)
from .refusals import QueryRefused, invalid, problem_of
from .scalars import Moment, Quantity, Seq
from .wording import DRY, EVENTS, KEY, NOTE, REPEATED, WHICH_PERIOD

# --- what is asked ------------------------------------------------------------------------------


@strawberry.enum
class Act(Enum):
    ALLOCATE = "allocate"
    RETURN = "return"
    TRADE = "trade"
    CAP = strawberry.enum_value("cap", description="`target` may draw `quantity` from above; null lifts it.")
    TEMPLATE = strawberry.enum_value("template", description="Apply the template `target` at `source`.")
    RETURN_UNUSED = strawberry.enum_value(
        "return_unused", description="All of `source`'s subtree goes to `target`, or its parent."
    )


@strawberry.enum
class ShareOf(Enum):
    PERCENT = strawberry.enum_value("percent", description="Hundredths of a percent of what the node has.")
    PER_DEVICE = strawberry.enum_value("per_device", description="A quantity for each device in the part.")
    EACH = strawberry.enum_value("each", description="A quantity for each.")


@strawberry.enum
class Recurrence(Enum):
    ONCE = "once"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    PERIOD = strawberry.enum_value("period", description="In the commit that opens the period.")


@strawberry.input(description="How much a member may draw from the buckets above it.")
class SetCapInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    node: ID
    usage_type: str
    quantity: Quantity | None = strawberry.field(
        default=strawberry.UNSET,
        description="Per period; 0 leaves it its own bucket only, an explicit null lifts the cap.",
    )
    from_period: str | None = strawberry.field(default=None, description=WHICH_PERIOD)
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="One act of a bulk or a schedule.")
class LineInput:
    action: Act
    target: str = ""
    source: str = ""
    usage_type: str = ""
    quantity: Quantity | None = None
    period: str | None = strawberry.field(default=None, description=WHICH_PERIOD)
    note: str = strawberry.field(default="", description=NOTE)


@strawberry.input(description="Many lines, carried out in their order, all of them or none.")
class BulkTransferInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    csv: str | None = strawberry.field(
        default=None,
        description="With a heading: action,source,target,usage_type,quantity,period,note. Or `lines`.",
    )
    lines: list[LineInput] | None = None
    period: str | None = strawberry.field(default=None, description="Of lines that name none.")
    note: str = strawberry.field(default="", description="Of lines that have none.")
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="By what rule a node divides what it has.")
class RuleInput:
    share: ShareOf
    amount: Quantity
    to: str = strawberry.field(
        default="children", description="`children`, a kind of node or resource, or `resources`."
    )


@strawberry.input(description="A rule to be kept under a name.")
class DefineTemplateInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    template: str
    usage_type: str
    rule: RuleInput
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="A template by its name, or a rule, and where to apply it.")
class ApplyTemplateInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    node: ID
    template: str = ""
    rule: RuleInput | None = None
    usage_type: str = strawberry.field(default="", description="Else the template's own.")
    period: str | None = strawberry.field(default=None, description=WHICH_PERIOD)
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="Whose available quantity goes back up, and to whom.")
class ReturnUnusedInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    node: ID
    target: ID | None = strawberry.field(default=None, description="An ancestor; else the parent.")
    usage_type: str = strawberry.field(default="", description="Else all.")
    period: str | None = strawberry.field(default=None, description=WHICH_PERIOD)
    whole_subtree: bool = True
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="Who is to be frozen, or thawed.")
class FreezeInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    node: ID
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="What is to be carried out, and when.")
class ScheduleAllocationInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    schedule: str = strawberry.field(description="Its name, yours.")
    lines: list[LineInput]
    every: Recurrence | None = strawberry.field(default=None, description="Else once.")
    first_at: Moment | None = strawberry.field(default=None, description="May be left out with PERIOD.")
    until: Moment | None = None
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="What is not to be carried out any more.")
class CancelScheduleInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    schedule: str
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


# --- what is answered ---------------------------------------------------------------------------


@strawberry.type(description="It is done, durably.")
class AllocationDone:
    node: Member | None = strawberry.field(description="The one that was named, as it stands now.")
    period: str
    transfers: int
    caps: int
    first_seq: Seq = strawberry.field(description="The first and the last event this led to.")
    last_seq: Seq
    repeated: bool = strawberry.field(description=REPEATED)


@strawberry.type(description="It is kept, durably.")
class SettingDone:
    name: str = strawberry.field(description="Of the template or the schedule.")
    next_at: Moment | None = strawberry.field(description="Of a schedule: when it is carried out next.")
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


AllocationPayload = Annotated[
    AllocationDone
    | DryRun
    | InsufficientAllowance
    | OverCommitted
    | Frozen
    | BadLines
    | InvalidInput
    | UnknownNode
    | NotPermitted
    | IdempotencyMismatch
    | TryAgain,
    strawberry.union("AllocationPayload"),
]
SettingPayload = Annotated[
    SettingDone
    | DryRun
    | InsufficientAllowance
    | OverCommitted
    | Frozen
    | BadLines
    | InvalidInput
    | UnknownNode
    | NotPermitted
    | IdempotencyMismatch
    | TryAgain,
    strawberry.union("SettingPayload"),
]


class _Named(Struct, frozen=True):
    """The member that an answer shows."""

    node: str
    period: str
    usage_type: str


async def set_cap(info: Info, input: SetCapInput) -> AllocationPayload:
    if input.quantity is strawberry.UNSET:
        # Left out by mistake it must not lift a cap.
        return invalid("quantity", "give a quantity, or an explicit null to lift the cap")
    command = SetCap(input.node, input.usage_type, input.quantity, input.from_period or "", input.note)
    named = _Named(input.node, input.from_period or "", input.usage_type)
    return await _do(info.context, input, "allocate", command, {"node": str(input.node)}, named)


async def apply_template(info: Info, input: ApplyTemplateInput) -> AllocationPayload:
    rule = _rule(input.rule) if input.rule else None
    told = (input.template, rule, input.usage_type, input.period or "", input.note)
    named = _Named(input.node, input.period or "", input.usage_type)
    command = ApplyTemplate(input.node, *told)
    return await _do(info.context, input, "allocate", command, {"node": str(input.node)}, named)


async def return_unused(info: Info, input: ReturnUnusedInput) -> AllocationPayload:
    nodes = {"node": str(input.node)}
    if input.target is not None:
        nodes["target"] = str(input.target)
    else:
        # The parent is named without being named: it must be in reach as well.
        member = (await info.context.state()).hierarchy.by_id.get(input.node)
        if member is not None and member.parent is not None:
            nodes["parent"] = member.parent.id
    command = ReturnUnused(
        input.node,
        input.target or "",
        input.usage_type,
        input.period or "",
        input.whole_subtree,
        input.note,
    )
    named = _Named(input.node, input.period or "", input.usage_type)
    return await _do(info.context, input, "allocate", command, nodes, named)


async def freeze_node(info: Info, input: FreezeInput) -> AllocationPayload:
    return await _freeze(info, input, FreezeNode(input.node, input.note))


async def thaw_node(info: Info, input: FreezeInput) -> AllocationPayload:
    return await _freeze(info, input, ThawNode(input.node, input.note))


async def _freeze(info: Info, input: FreezeInput, command: FreezeNode | ThawNode) -> AllocationPayload:
    named = _Named(input.node, "", "")
    return await _do(info.context, input, "set_limit", command, {"node": str(input.node)}, named)


async def bulk_transfer(info: Info, input: BulkTransferInput) -> AllocationPayload:
    context = info.context
    if (input.csv is None) == (input.lines is None):
        return invalid("csv", "give either csv or lines")
    try:
        require(context.principal, "allocate")
        lines = _bulk_lines(input)
        check_reach_of_lines(await reach_of(context), map(members_of, lines))
    except (Refused, NotPermittedHere) as refusal:
        return problem_of(refusal)
    return await _do(context, input, "allocate", TransferMany(lines, input.note), {}, None)


def _bulk_lines(input: BulkTransferInput) -> tuple[Line, ...]:
    if input.csv is not None:
        return lines_of(input.csv, input.period or "")
    return tuple(_line(line, input.period or "") for line in input.lines or ())


async def schedule_allocation(info: Info, input: ScheduleAllocationInput) -> SettingPayload:
    context = info.context
    lines = tuple(_line(line, "") for line in input.lines)
    try:
        require(context.principal, "allocate")
        check_reach_of_lines(await reach_of(context), map(members_of, lines))
    except (Refused, NotPermittedHere) as refusal:
        return problem_of(refusal)
    every: Any = input.every.value if input.every else "once"
    command = ScheduleAllocation(
        input.schedule, lines, every, input.first_at or 0, input.until or 0, input.note
    )
    return await _keep(context, input, command, input.schedule)


async def cancel_schedule(info: Info, input: CancelScheduleInput) -> SettingPayload:
    context = info.context
    try:
        require(context.principal, "allocate")
        reach = await reach_of(context)
        scheduled = (await context.state()).schedules.by_id.get(input.schedule)
        if scheduled is not None and not _sees(reach, scheduled.lines):
            raise Refused("unknown_schedule", schedule=input.schedule)
    except (Refused, NotPermittedHere) as refusal:
        return problem_of(refusal)
    return await _keep(context, input, CancelSchedule(input.schedule, input.note), input.schedule)


async def define_template(info: Info, input: DefineTemplateInput) -> SettingPayload:
    context = info.context
    if context.principal.nodes:
        # A name stands for one rule in the whole enterprise.
        remedy = "use a token for the whole tenant: this one is bound to nodes"
        return problem_of(NotPermittedHere("allocate", "a principal of some nodes", remedy))
    command = DefineTemplate(input.template, input.usage_type, _rule(input.rule), input.note)
    return await _keep(context, input, command, input.template)


async def _do(
    context: Context, input: Any, verb: Verb, command: Any, nodes: dict[str, str], named: _Named | None
) -> AllocationDone | DryRun | ProblemType:
    answer = await change(context, verb, command, input.idempotency_key, nodes, dry_run=input.dry_run)
    if isinstance(answer, DryRun | ProblemType):
        return answer
    moved = [event for event in answer.events if isinstance(event, Transferred)]
    period = named.period if named is not None else ""
    if not period:
        period = moved[0].period if moved else (await context.state()).contracts.name_at(context.now())
    return AllocationDone(
        node=await _shown(context, answer, named, period, moved),
        period=period,
        transfers=len(moved),
        caps=sum(isinstance(event, CapSet) for event in answer.events),
        first_seq=Seq(answer.first_seq),
        last_seq=Seq(answer.last_seq),
        repeated=answer.repeated,
    )


async def _shown(
    context: Context, answer: Answer, named: _Named | None, period: str, moved: list[Transferred]
) -> Member | None:
    if named is None:
        return None
    usage_type = named.usage_type or (moved[0].usage_type if moved else "data")
    (node,) = await changed(context, answer, [named.node], period, usage_type)
    return node


async def _keep(context: Context, input: Any, command: Any, name: str) -> SettingDone | DryRun | ProblemType:
    answer = await change(context, "allocate", command, input.idempotency_key, {}, dry_run=input.dry_run)
    if isinstance(answer, DryRun | ProblemType):
        return answer
    event = answer.events[0]
    waits = isinstance(event, AllocationScheduled) and event.every != "period"
    return SettingDone(
        name=name,
        next_at=Moment(event.first_at) if waits and isinstance(event, AllocationScheduled) else None,
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


def _rule(rule: RuleInput) -> Rule:
    share: Any = rule.share.value
    return Rule(share, rule.amount, rule.to)


def _line(line: LineInput, period: str) -> Line:
    action: Any = line.action.value
    ends = (line.source, line.target, line.usage_type)
    return Line(action, *ends, line.quantity, line.period or period, line.note)


def _sees(reach: Reach, lines: Sequence[Line]) -> bool:
    """Whether everybody that lines name is in reach: else they are not for this reader."""
    return reach.whole or all(reach.sees_id(ident) for line in lines for ident in members_of(line))


# --- how it stands ------------------------------------------------------------------------------


@strawberry.type(description="What a member has of one usage type, hands down, and may draw from above.")
class Allocation:
    usage_type: str
    unit: str
    own: Quantity = strawberry.field(description="Held and not handed on, used up or not.")
    available: Quantity
    received: Quantity = strawberry.field(description="Handed down to it, less what it gave back.")
    allocated: Quantity = strawberry.field(description="Handed down by it, less what came back.")
    cap: Quantity | None = strawberry.field(description="What it may draw from above; null: all there is.")
    drawn_from_above: Quantity | None = strawberry.field(
        description="So far, held by sessions included; null where it never had a cap."
    )
    committed: Quantity = strawberry.field(
        description="What the caps below ask of its bucket, and of those above it."
    )
    over_committed: Quantity = strawberry.field(description="Of `committed`: what there is nobody to serve.")


@strawberry.type(description="How a member stands with its allowances.")
class MemberAllocations:
    id: ID
    name: str
    kind: str
    is_node: bool
    depth: int
    parent_id: ID | None = strawberry.field(description="Null where your reach ends.")
    frozen: bool = strawberry.field(description="It, or somebody above it.")
    frozen_by: ID | None = strawberry.field(description="Who; null beyond your reach.")
    allocations: list[Allocation]


@strawberry.type(description="A part of the hierarchy with its allocations, in pre-order.")
class AllocationTree:
    seq: Seq = strawberry.field(description="The last event that is counted in.")
    period: str
    members: list[MemberAllocations]


async def allocations(
    info: Info,
    under: ID | None = None,
    depth: int = DEPTH_USUAL,
    period: str | None = None,
    usage_types: list[str] | None = None,
    resources: bool = False,
    as_of: AsOf | None = None,
    at_least: Annotated[Seq | None, strawberry.argument(description="To see your own write.")] = None,
) -> AllocationTree | None:
    """What each has, hands down, may draw and has promised; null out of reach."""
    context = info.context
    permit(context, "read")
    if depth < 0:
        raise QueryRefused("bad_depth", "depth: ask for 0 or more levels")
    from_where = await looking(context, as_of)
    state = await context.state()
    wanted = period_of(state, period, from_where.at)
    query = functools.partial(
        _standings,
        context=context,
        roots=[under] if under is not None else (await reach_of(context)).roots(),
        depth=depth,
        period=wanted,
        units={**state.types.units, MONEY: UNITS[MONEY]},
        usage_types=usage_types_of(usage_types, state),
        resources=resources,
    )
    seq, found = await context.read(
        query, ("members", "balances", "allocations"), as_of=from_where.seq, at_least=at_least or 0
    )
    return AllocationTree(seq=Seq(seq), period=wanted, members=found) if found else None


def _standings(
    db: Connection,
    *,
    context: Context,
    roots: list[str | None],
    depth: int,
    period: str,
    units: dict[str, str],
    usage_types: list[str],
    resources: bool,
) -> list[MemberAllocations]:
    told: list[MemberAllocations] = []
    for root in roots:
        above = [] if root is None else members.ancestors(db, root)
        way = [member.id for member in above]
        if not in_scope(context.principal, way if root is None else [*way, root]):
            continue
        listed = members.tree(db, root, depth, resources=resources)
        if len(told) + len(listed) > MEMBERS_MAX:
            raise QueryRefused(
                "too_many_members",
                f"more than {MEMBERS_MAX} members: ask for less depth, or under a lower node",
            )
        if listed:
            told += _told(db, context, way, listed, period, {of: units[of] for of in usage_types})
    return told


def _told(
    db: Connection,
    context: Context,
    way: list[str],
    listed: list[members.Listed],
    period: str,
    units: dict[str, str],
) -> list[MemberAllocations]:
    usage_types = list(units)
    frozen = {one.id for one in views.frozen(db)}
    standing = views.standings(db, listed, period, usage_types)
    figures: dict[int, list[Allocation]] = {}
    for balance in balances.balances_among(db, listed, period, usage_types):
        of = standing.get((balance.ordinal, balance.usage_type))
        figures.setdefault(balance.ordinal, []).append(_allocation(balance, units, of))
    stopped: dict[str, str | None] = {}
    outside = next((ident for ident in reversed(way) if ident in frozen), None)
    found = []
    for member in listed:
        above = stopped.get(member.parent_id or "", outside)
        stopped[member.id] = member.id if member.id in frozen else above
        found.append(_member(member, stopped[member.id], figures.get(member.ordinal, [])))
    if not in_scope(context.principal, way):
        found[0].parent_id = None
    for one in found:
        # Who is frozen above the reach is nobody the reader knows.
        if one.frozen_by in way and not in_scope(context.principal, way[: way.index(one.frozen_by) + 1]):
            one.frozen_by = None
    return found


def _member(member: Any, frozen_by: str | None, figures: list[Allocation]) -> MemberAllocations:
    return MemberAllocations(
        id=member.id,
        name=member.name or member.id,
        kind=member.kind,
        is_node=member.is_node,
        depth=member.depth,
        parent_id=member.parent_id,
        frozen=frozen_by is not None,
        frozen_by=ID(frozen_by) if frozen_by is not None else None,
        allocations=figures,
    )


def _allocation(balance: Any, units: dict[str, str], standing: Any) -> Allocation:
    return Allocation(
        usage_type=balance.usage_type,
        unit=units[balance.usage_type],
        own=balance.bucket.own,
        available=balance.bucket.available,
        received=balance.received,
        allocated=balance.allocated,
        cap=standing.cap if standing else None,
        drawn_from_above=standing.drawn if standing else None,
        committed=standing.committed if standing else Quantity(0),
        over_committed=standing.over_committed if standing else Quantity(0),
    )


@strawberry.type(description="A rule that has a name.")
class Template:
    template: str
    usage_type: str
    share: ShareOf
    amount: Quantity
    to: str
    note: str
    seq: Seq = strawberry.field(description="The event that defined it.")


async def templates(info: Info) -> list[Template]:
    """By their names."""
    permit(info.context, "read")
    _, found = await info.context.read(views.templates, ("allocations",))
    return [
        Template(
            template=one.template,
            usage_type=one.usage_type,
            share=ShareOf(one.share),
            amount=Quantity(one.amount),
            to=one.to,
            note=one.note,
            seq=Seq(one.seq),
        )
        for one in found
    ]


@strawberry.enum
class ScheduleStatus(Enum):
    WAITING = "waiting"
    OVER = "over"
    CANCELLED = "cancelled"


@strawberry.type(description="One act of a schedule.")
class ScheduledLine:
    action: Act
    source: str
    target: str
    usage_type: str
    quantity: Quantity | None
    note: str


@strawberry.type(description="What is carried out, when, and how it went the last time.")
class Schedule:
    schedule: str
    lines: list[ScheduledLine]
    every: Recurrence
    first_at: Moment
    until: Moment | None
    note: str
    status: ScheduleStatus
    next_at: Moment | None = strawberry.field(description="Null when it waits for a period, or is over.")
    last_at: Moment | None
    skipped_code: str | None = strawberry.field(description="Why nothing was done the last time.")
    skipped_line: int | None
    changes: int = strawberry.field(description="Transfers and caps of the last time.")
    seq: Seq = strawberry.field(description="The event that made it.")


@strawberry.type
class ScheduleConnection:
    nodes: list[Schedule]
    page_info: PageInfo


async def schedules(
    info: Info, status: ScheduleStatus | None = None, first: int = PAGE_USUAL, after: str | None = None
) -> ScheduleConnection:
    """By their names; those that name nobody beyond your reach."""
    context = info.context
    permit(context, "read")
    size, reach = page_size(first), await reach_of(context)
    query = functools.partial(
        views.schedules, status=status.value if status else None, after=after or "", first=size + 1
    )
    _, found = await context.read(query, ("allocations",))
    page = found[:size]
    return ScheduleConnection(
        nodes=[_schedule(one) for one in page if _sees(reach, one.lines)],
        page_info=PageInfo(has_next_page=len(found) > size, end_cursor=page[-1].schedule if page else None),
    )


def _schedule(one: views.Schedule) -> Schedule:
    return Schedule(
        schedule=one.schedule,
        lines=[
            ScheduledLine(
                action=Act(line.action),
                source=line.source,
                target=line.target,
                usage_type=line.usage_type,
                quantity=Quantity(line.quantity) if line.quantity is not None else None,
                note=line.note,
            )
            for line in one.lines
        ],
        every=Recurrence(one.every),
        first_at=Moment(one.first_at),
        until=_moment(one.until),
        note=one.note,
        status=ScheduleStatus(one.status),
        next_at=_moment(one.next_at),
        last_at=_moment(one.last_at),
        skipped_code=one.code or None,
        skipped_line=one.line or None,
        changes=one.count,
        seq=Seq(one.seq),
    )


def _moment(at: int) -> Moment | None:
    return Moment(at) if at else None
