"""Policies: what happens to usage beyond a threshold of a limit, in versions, with what was approved."""

from enum import Enum
from typing import Annotated

import strawberry
from strawberry import ID

from ..domain.policy import (
    Action,
    ApproveUsage,
    Group,
    PolicySet,
    PolicyWithdrawn,
    Selector,
    SetPolicy,
    Step,
    UsageApproved,
    WithdrawPolicy,
)
from ..domain.refusals import Refused
from ..domain.window import PERIOD
from ..projections import rules
from ..tenants.isolation import Connection
from .asking import (
    PAGE_USUAL,
    AsOf,
    PageInfo,
    Reach,
    cursor_of,
    looking,
    page_size,
    permit,
    reach_of,
    seq_before,
)
from .changing import DryRun, change, roles_of, seqs_of
from .context import Context, Info
from .limits import WINDOWS
from .problems import (
    InsufficientAllowance,
    OfAllocation,
    ProblemType,
    UsualProblem,
)
from .refusals import problem_of
from .scalars import Moment, Quantity, Seq
from .wording import DRY


@strawberry.enum
class PolicyAction(Enum):
    NOTIFY = strawberry.enum_value("notify", description="Told as the limit's own thresholds are.")
    THROTTLE = strawberry.enum_value("throttle", description="Goes on at `kbps`.")
    REDIRECT = strawberry.enum_value("redirect", description="The user pays personally.")
    APPROVAL = strawberry.enum_value("approval", description="Waits until somebody approves for a time.")
    BLOCK = strawberry.enum_value("block", description="Is stopped; calls for help never are.")
    OVERAGE = strawberry.enum_value("overage", description="Goes on at `price` per `per` units.")


_ACTIONS: dict[PolicyAction, Action] = {
    PolicyAction.NOTIFY: "notify",
    PolicyAction.THROTTLE: "throttle",
    PolicyAction.REDIRECT: "redirect",
    PolicyAction.APPROVAL: "approval",
    PolicyAction.BLOCK: "block",
    PolicyAction.OVERAGE: "overage",
}


@strawberry.input(description="What happens beyond a percentage of the limit, or beyond a quantity.")
class PolicyStepInput:
    action: PolicyAction
    percent: int | None = None
    quantity: Quantity | None = None
    kbps: int | None = None
    price: str | None = strawberry.field(
        default=None, description='Exact, in the tenant\'s currency: "0.05".'
    )
    per: Quantity | None = strawberry.field(default=None, description="Units that the price is for; else 1.")
    approvers: list[str] = strawberry.field(
        default_factory=list, description="Roles; none: whoever may set limits there."
    )


@strawberry.input(description="Which usage it is about. What is left out selects everything.")
class PolicySelectorInput:
    usage_types: list[str] = strawberry.field(default_factory=list)
    directions: list[str] = strawberry.field(default_factory=list)
    kinds: list[str] = strawberry.field(default_factory=list, description="Of resources: msisdn, sip ...")
    roles: list[str] = strawberry.field(
        default_factory=list, description="As the record's attribute `role` has it."
    )
    countries: list[str] = strawberry.field(default_factory=list, description="Names of `groups`.")
    weekdays: list[int] = strawberry.field(default_factory=list, description="0 is Monday.")
    from_minute: int = strawberry.field(default=0, description="Of the day, by the tenant's clock.")
    to_minute: int = strawberry.field(default=1_440, description="The end is excluded.")


@strawberry.input(description="A named group of countries, by what their numbers begin with.")
class PrefixGroupInput:
    name: str
    prefixes: list[str]


@strawberry.input(description="A policy as it would be: its next version.")
class PolicyInput:
    policy: ID = strawberry.field(description="Its name, for ever.")
    node: ID = strawberry.field(description="It holds at and below it.")
    counted: str = strawberry.field(
        description="What the limits count that it watches: a usage type or money."
    )
    window: str = strawberry.field(default=PERIOD, description="Of those limits: " + WINDOWS)
    steps: list[PolicyStepInput]
    selector: PolicySelectorInput | None = None
    groups: list[PrefixGroupInput] = strawberry.field(default_factory=list)
    valid_from: Moment | None = strawberry.field(default=None, description="Now, or later.")
    note: str = ""

    def command(self) -> SetPolicy:
        return SetPolicy(
            self.policy,
            self.node,
            self.counted,
            tuple(map(_step, self.steps)),
            self.window,
            self.valid_from or 0,
            _selector(self.selector) if self.selector is not None else Selector(),
            tuple(Group(group.name, tuple(group.prefixes)) for group in self.groups),
            self.note,
        )


@strawberry.input(description="A version of a policy.")
class SetPolicyInput:
    idempotency_key: ID
    policy: PolicyInput
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="A policy ends.")
class WithdrawPolicyInput:
    idempotency_key: ID
    policy: ID
    valid_from: Moment | None = strawberry.field(default=None, description="Now, or later.")
    note: str = ""
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="What a policy lets wait may be used at and below a node, for a time.")
class ApproveUsageInput:
    idempotency_key: ID
    policy: ID
    node: ID
    until: Moment
    note: str = ""
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.type(description="The policy is set, durably.")
class SetPolicyDone:
    policy: ID
    version: int
    valid_from: Moment
    event_seqs: list[Seq]
    repeated: bool


@strawberry.type(description="The policy is withdrawn, durably.")
class WithdrawPolicyDone:
    policy: ID
    valid_from: Moment
    event_seqs: list[Seq]
    repeated: bool


@strawberry.type(description="The usage is approved, durably.")
class ApproveUsageDone:
    policy: ID
    node: ID
    until: Moment
    event_seqs: list[Seq]
    repeated: bool


SetPolicyPayload = Annotated[
    SetPolicyDone | DryRun | UsualProblem,
    strawberry.union("SetPolicyPayload"),
]
WithdrawPolicyPayload = Annotated[
    WithdrawPolicyDone | DryRun | UsualProblem,
    strawberry.union("WithdrawPolicyPayload"),
]
ApproveUsagePayload = Annotated[
    ApproveUsageDone | DryRun | UsualProblem,
    strawberry.union("ApproveUsagePayload"),
]


async def set_policy(info: Info, input: SetPolicyInput) -> SetPolicyPayload:
    command = input.policy.command()
    hidden = await _hidden(info.context, command.policy, new=True)
    answer = hidden or await change(
        info.context,
        "set_limit",
        command,
        input.idempotency_key,
        {"node": command.node},
        dry_run=input.dry_run,
    )
    if isinstance(answer, DryRun | ProblemType):
        return _refused(answer)
    told = next(event for event in answer.events if isinstance(event, PolicySet))
    return SetPolicyDone(
        policy=ID(told.policy),
        version=told.version,
        valid_from=Moment(told.valid_from),
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


async def withdraw_policy(info: Info, input: WithdrawPolicyInput) -> WithdrawPolicyPayload:
    command = WithdrawPolicy(input.policy, input.valid_from or 0, input.note)
    answer = await _hidden(info.context, input.policy) or await change(
        info.context, "set_limit", command, input.idempotency_key, {}, dry_run=input.dry_run
    )
    if isinstance(answer, DryRun | ProblemType):
        return _refused(answer)
    told = next(event for event in answer.events if isinstance(event, PolicyWithdrawn))
    return WithdrawPolicyDone(
        policy=ID(told.policy),
        valid_from=Moment(told.valid_from),
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


async def approve_usage(info: Info, input: ApproveUsageInput) -> ApproveUsagePayload:
    context = info.context
    command = ApproveUsage(input.policy, input.node, input.until, roles_of(context), input.note)
    answer = await _hidden(context, input.policy) or await change(
        context,
        "set_limit",
        command,
        input.idempotency_key,
        {"node": str(input.node)},
        dry_run=input.dry_run,
    )
    if isinstance(answer, DryRun | ProblemType):
        return _refused(answer)
    told = next(event for event in answer.events if isinstance(event, UsageApproved))
    return ApproveUsageDone(
        policy=ID(told.policy),
        node=ID(told.node),
        until=Moment(told.until),
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


def _refused(answer: DryRun | ProblemType) -> DryRun | UsualProblem:
    assert not isinstance(answer, InsufficientAllowance | OfAllocation)
    return answer


async def _hidden(context: Context, policy: str, *, new: bool = False) -> ProblemType | None:
    """A policy at a node out of reach does not exist; its name is taken nevertheless."""
    versions = (await context.state()).limits.policies.versions.get(policy)
    if not versions or (await reach_of(context)).sees_id(versions[-1].node):
        return None
    if new:
        remedy = "take another name"
        return problem_of(Refused("bad_policy", field="policy", value=policy, remedy=remedy))
    return problem_of(Refused("unknown_policy", policy=policy))


# --- asked -----------------------------------------------------------------------------------


@strawberry.type(description="What happens beyond a threshold.")
class PolicyStep:
    action: PolicyAction
    percent: int | None
    quantity: Quantity | None
    kbps: int | None
    price: str | None
    per: Quantity
    approvers: list[str]


@strawberry.type(description="Which usage a policy is about. An empty list is everything.")
class PolicySelector:
    usage_types: list[str]
    directions: list[str]
    kinds: list[str]
    roles: list[str]
    countries: list[str]
    weekdays: list[int]
    from_minute: int
    to_minute: int


@strawberry.type
class PrefixGroup:
    name: str
    prefixes: list[str]


@strawberry.type(description="A version of a policy, or its end.")
class PolicyVersion:
    version: int
    withdrawn: bool = strawberry.field(description="From `validFrom` on nothing holds; the rest is empty.")
    valid_from: Moment
    counted: str | None
    window: str | None
    steps: list[PolicyStep]
    selector: PolicySelector | None
    groups: list[PrefixGroup]
    note: str
    seq: Seq
    recorded_at: Moment


@strawberry.type(description="Leave for a time to use what the policy lets wait.")
class UsageApproval:
    node_id: ID
    since: Moment
    until: Moment
    note: str
    seq: Seq


@strawberry.type
class Policy:
    id: ID
    node_id: ID
    in_force: PolicyVersion | None = strawberry.field(description="At the moment asked about.")
    versions: list[PolicyVersion] = strawberry.field(description="All, the newest last.")
    approvals: list[UsageApproval]


@strawberry.type
class PolicyConnection:
    seq: Seq = strawberry.field(description="The last event that is counted in.")
    nodes: list[Policy]
    page_info: PageInfo


async def policies(
    info: Info,
    node: Annotated[ID | None, strawberry.argument(description="Only those at this node.")] = None,
    first: int = PAGE_USUAL,
    after: str | None = None,
    as_of: AsOf | None = None,
) -> PolicyConnection:
    """Those in reach that changed last, first."""
    context = info.context
    permit(context, "read")
    size, before, from_where = page_size(first), seq_before(after), await looking(context, as_of)
    seq, found = await context.read(_policies, ("members", "rules"), as_of=from_where.seq)
    reach, names = await reach_of(context), (await context.state()).hierarchy.members
    wanted = [
        policy
        for policy in found
        if reach.sees(policy.ordinal)
        and node in (None, names[policy.ordinal].id)
        and (before is None or policy.versions[-1].seq < before)
    ]
    page = wanted[:size]
    return PolicyConnection(
        seq=Seq(seq),
        nodes=[_told(policy, from_where.at, reach) for policy in page],
        page_info=PageInfo(
            has_next_page=len(wanted) > size,
            end_cursor=cursor_of(page[-1].versions[-1].seq) if page else None,
        ),
    )


def _policies(db: Connection) -> list[rules.Policy]:
    return rules.policies(db)


def _told(policy: rules.Policy, at: int, reach: Reach) -> Policy:
    versions = [_version(told) for told in policy.versions]
    begun = [version for version in versions if version.valid_from <= at]
    last = max(reversed(begun), key=lambda version: version.valid_from, default=None)
    newest = policy.versions[-1].event
    return Policy(
        id=ID(policy.policy),
        node_id=ID(newest.node),
        in_force=None if last is None or last.withdrawn else last,
        versions=versions,
        approvals=[_approval(told) for told in policy.approved if reach.sees(told.ordinal)],
    )


def _version(told: rules.Told) -> PolicyVersion:
    event = told.event
    assert isinstance(event, PolicySet | PolicyWithdrawn)
    is_set = isinstance(event, PolicySet)
    return PolicyVersion(
        version=event.version,
        withdrawn=not is_set,
        valid_from=Moment(event.valid_from),
        counted=event.counted if isinstance(event, PolicySet) else None,
        window=event.window if isinstance(event, PolicySet) else None,
        steps=[_step_told(step) for step in event.steps] if isinstance(event, PolicySet) else [],
        selector=_selector_told(event.selector) if isinstance(event, PolicySet) else None,
        groups=[PrefixGroup(name=group.name, prefixes=list(group.prefixes)) for group in event.groups]
        if isinstance(event, PolicySet)
        else [],
        note=event.note,
        seq=Seq(told.seq),
        recorded_at=Moment(told.recorded_at),
    )


def _approval(told: rules.Told) -> UsageApproval:
    event = told.event
    assert isinstance(event, UsageApproved)
    return UsageApproval(
        node_id=ID(event.node),
        since=Moment(event.since),
        until=Moment(event.until),
        note=event.note,
        seq=Seq(told.seq),
    )


def _step(step: PolicyStepInput) -> Step:
    return Step(
        _ACTIONS[step.action],
        step.percent or 0,
        step.quantity or 0,
        step.kbps or 0,
        step.price or "",
        step.per or 1,
        tuple(step.approvers),
    )


def _step_told(step: Step) -> PolicyStep:
    return PolicyStep(
        action=PolicyAction(step.action),
        percent=step.percent or None,
        quantity=None if step.percent else Quantity(step.at),
        kbps=step.kbps or None,
        price=step.price or None,
        per=Quantity(step.per),
        approvers=list(step.approvers),
    )


def _selector(given: PolicySelectorInput) -> Selector:
    return Selector(
        tuple(given.usage_types),
        tuple(given.directions),
        tuple(given.kinds),
        tuple(given.roles),
        tuple(given.countries),
        tuple(given.weekdays),
        given.from_minute,
        given.to_minute,
    )


def _selector_told(selector: Selector) -> PolicySelector:
    return PolicySelector(
        usage_types=list(selector.usage_types),
        directions=list(selector.directions),
        kinds=list(selector.kinds),
        roles=list(selector.roles),
        countries=list(selector.countries),
        weekdays=list(selector.weekdays),
        from_minute=selector.from_minute,
        to_minute=selector.to_minute,
    )
