"""Approvals: what waits for approval, who may give it, the rules that ask for it, and undoing."""

import functools
from enum import Enum
from typing import Annotated, cast

import strawberry
from strawberry import ID

from ..domain.approval import (
    ApprovalRuleSet,
    Approver,
    ApproveTransfer,
    DeclineTransfer,
    SetApprovalRule,
    TransferProposed,
    person_of,
)
from ..domain.refusals import Refused
from ..domain.splitting import Window
from ..domain.tenant import Tenant
from ..domain.trade_rules import SetTradeRules
from ..projections import approvals as views
from ..tenants.identity import ROLES, Principal
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
from .changing import DryRun, seqs_of
from .context import Answer, Context, Info
from .problems import UsualProblem
from .refusals import invalid
from .scalars import Moment, Quantity, Seq
from .trade_problems import (
    TradeProblem,
    not_permitted,
)
from .trading import Check, trade_change
from .wording import DRY, EVENTS, KEY, NOTE, REPEATED


@strawberry.enum
class ProposalState(Enum):
    WAITING = "waiting"
    APPROVED = "approved"
    DECLINED = "declined"
    WITHDRAWN = strawberry.enum_value("withdrawn", description="By who had asked for it.")
    EXPIRED = "expired"


@strawberry.enum(description="In which the transfers of one person between the same two nodes add up.")
class RuleWindow(Enum):
    DAY = strawberry.enum_value("day", description="A day of the tenant's calendar.")
    PERIOD = strawberry.enum_value("period", description="The period that the quantity is of.")


@strawberry.type(description="A transfer that needs approval; what it would move is set aside meanwhile.")
class Proposal:
    id: ID
    state: ProposalState
    kind: str = strawberry.field(description="allocate, return or trade.")
    source_id: ID | None = strawberry.field(description="Null beyond your reach.")
    target_id: ID | None = strawberry.field(description="Null beyond your reach.")
    usage_type: str
    unit: str
    period: str
    quantity: Quantity
    before: Quantity = strawberry.field(
        description="What the same person had moved between the two in the rule's window, without approval."
    )
    offer: ID | None = strawberry.field(description="The offer that it accepts.")
    price_type: str | None
    price: Quantity = strawberry.field(description="What the target gives for it.")
    approvers: list[ID] = strawberry.field(
        description="Who approves must reach all of these; those beyond your reach are left out."
    )
    four_eyes: bool
    may_approve: bool = strawberry.field(description="Whether you may.")
    asked_by: str = strawberry.field(description="Role and opaque id, no name.")
    note: str
    answer: str = strawberry.field(description="The note of who approved or declined it.")
    expires_at: Moment
    asked_at: Moment
    asked: Seq = strawberry.field(description="The event that asked for it.")
    seq: Seq = strawberry.field(description="Its last event.")


@strawberry.type
class ProposalConnection:
    nodes: list[Proposal]
    page_info: PageInfo


@strawberry.type(description="Transfers of more than a quantity, at a node and below, need approval.")
class ApprovalRule:
    node: ID
    usage_type: str
    above: Quantity
    approver: ID | None = strawberry.field(description="Null beyond your reach.")
    role: str | None
    four_eyes: bool
    window: RuleWindow | None = strawberry.field(description="Null: each transfer counts by itself.")
    note: str
    set_by: Seq


@strawberry.input(description="A rule for transfers that leave or reach a node or what is below it.")
class SetApprovalRuleInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    node: ID
    usage_type: str = strawberry.field(description="data, voice, messaging, video or money.")
    above: Quantity | None = strawberry.field(
        default=strawberry.UNSET, description="What is more needs approval; an explicit null lifts the rule."
    )
    approver: ID = strawberry.field(description="A node: who approves must have it in reach.")
    role: str | None = strawberry.field(default=None, description="And, if named, this role.")
    four_eyes: bool = strawberry.field(default=False, description="Whoever asked may not approve.")
    window: RuleWindow | None = strawberry.field(
        default=None,
        description="In which transfers add up, so that many small ones need what one large one would.",
    )
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="How often two nodes may trade a usage type back and forth in a period.")
class SetTradeRulesInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    trades_max: int | None = strawberry.field(
        default=strawberry.UNSET, description="An explicit null: as often as they like."
    )
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="A transfer that waits, to be approved or declined.")
class AnswerTransferInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    proposal: ID
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.type(description="It is decided, durably; approved, it has moved.")
class AnswerTransferDone:
    proposal: Proposal = strawberry.field(description="As it stands now.")
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


@strawberry.type(description="The rule holds from now on, durably.")
class SetRuleDone:
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


AnswerTransferPayload = Annotated[
    AnswerTransferDone | DryRun | TradeProblem,
    strawberry.union("AnswerTransferPayload"),
]
SetRulePayload = Annotated[
    SetRuleDone | DryRun | UsualProblem,
    strawberry.union("SetRulePayload"),
]


# --- reading ------------------------------------------------------------------------------------


async def proposals(
    info: Info,
    state: ProposalState | None = None,
    first: int = PAGE_USUAL,
    after: str | None = None,
    as_of: AsOf | None = None,
) -> ProposalConnection:
    """Between nodes in reach, or to be approved for a node in reach; the newest first."""
    context = info.context
    permit(context, "read")
    size, before, from_where = page_size(first), seq_before(after), await looking(context, as_of)
    reach = await reach_of(context)
    query = functools.partial(
        views.proposals_page,
        roots=reach.roots(),
        first=size + 1,
        before=before,
        state=state.value if state else None,
    )
    _, rows = await context.read(query, ("approvals",), as_of=from_where.seq)
    page, tenant = rows[:size], await context.state()
    end = cursor_of(page[-1].asked) if page else None
    return ProposalConnection(
        nodes=[_told(row, reach, tenant) for row in page],
        page_info=PageInfo(has_next_page=len(rows) > size, end_cursor=end),
    )


async def approval_rules(info: Info, as_of: AsOf | None = None) -> list[ApprovalRule]:
    """In force at nodes in reach."""
    context = info.context
    permit(context, "read")
    from_where, reach, tenant = await looking(context, as_of), await reach_of(context), await context.state()
    _, rows = await context.read(views.rules, ("approvals",), as_of=from_where.seq)
    members = tenant.hierarchy.members
    return [
        ApprovalRule(
            node=ID(members[row.ordinal].id),
            usage_type=row.usage_type,
            above=Quantity(row.above),
            approver=ID(members[row.approver].id) if reach.sees(row.approver) else None,
            role=row.role or None,
            four_eyes=row.four_eyes,
            window=RuleWindow(row.span) if row.span else None,
            note=row.note,
            set_by=Seq(row.seq),
        )
        for row in rows
        if reach.sees(row.ordinal)
    ]


# --- changing -----------------------------------------------------------------------------------


async def set_approval_rule(info: Info, input: SetApprovalRuleInput) -> SetRulePayload:
    if input.above is strawberry.UNSET:
        # Left out by mistake it must not lift a rule.
        return invalid("above", "give a quantity, or an explicit null to lift the rule")
    if input.role is not None and input.role not in ROLES:
        return invalid("role", f"{input.role} is no role: use one of {', '.join(sorted(ROLES))}")

    def check(tenant: Tenant, reach: Reach) -> None:
        held = _rule_at(tenant, input.node, input.usage_type)
        if held is not None and reach.sees_id(input.node) and not reach.sees_id(held.approver.node):
            raise not_permitted("set_limit", "only who reaches its approver may change this rule")

    approver = Approver(input.approver, input.role or "")
    command = SetApprovalRule(
        *(input.node, input.usage_type, input.above, approver, input.four_eyes, input.note),
        cast("Window", input.window.value) if input.window is not None else "",
    )
    nodes = {"node": str(input.node), "approver": str(input.approver)}
    answer = await trade_change(
        *(info.context, "set_limit", command, input.idempotency_key, nodes),
        dry_run=input.dry_run,
        check=check,
    )
    return _rule_set(answer)


async def set_trade_rules(info: Info, input: SetTradeRulesInput) -> SetRulePayload:
    if input.trades_max is strawberry.UNSET:
        return invalid("tradesMax", "give a number, or an explicit null for as often as they like")

    def check(_: Tenant, reach: Reach) -> None:
        if not reach.whole:
            raise not_permitted(
                "set_limit", "use a token for the whole enterprise: this is a rule for all of it"
            )

    command = SetTradeRules(input.trades_max, input.note)
    answer = await trade_change(
        *(info.context, "set_limit", command, input.idempotency_key, {}), dry_run=input.dry_run, check=check
    )
    return _rule_set(answer)


async def approve_transfer(info: Info, input: AnswerTransferInput) -> AnswerTransferPayload:
    context, ident = info.context, str(input.proposal)

    def check(tenant: Tenant, reach: Reach) -> None:
        if not may_approve(reach.principal, reach, visible_proposal(tenant, reach, ident)):
            raise not_permitted("trade", "its approvers are not all in your reach, or want another role")

    return await _answered(context, ApproveTransfer(ident, input.note), input, check)


async def decline_transfer(info: Info, input: AnswerTransferInput) -> AnswerTransferPayload:
    context, ident = info.context, str(input.proposal)

    def check(tenant: Tenant, reach: Reach) -> None:
        asked = visible_proposal(tenant, reach, ident)
        own = person_of(reach.principal.actor) == person_of(asked.asked_by)
        if not own and not may_approve(reach.principal, reach, asked):
            raise not_permitted("trade", "only who may approve it, or who asked for it, may decline it")

    return await _answered(context, DeclineTransfer(ident, input.note), input, check)


async def _answered(
    context: Context, command: ApproveTransfer | DeclineTransfer, input: AnswerTransferInput, check: Check
) -> AnswerTransferDone | DryRun | TradeProblem:
    answer = await trade_change(
        *(context, "trade", command, input.idempotency_key, {}), dry_run=input.dry_run, check=check
    )
    if isinstance(answer, DryRun | TradeProblem):
        return answer
    query = functools.partial(views.proposals_page, roots=[None], first=1, proposal=command.proposal)
    _, rows = await context.read(query, ("approvals",), at_least=answer.last_seq)
    told = _told(rows[0], await reach_of(context), await context.state())
    return AnswerTransferDone(proposal=told, event_seqs=seqs_of(answer), repeated=answer.repeated)


def visible_proposal(tenant: Tenant, reach: Reach, ident: str) -> TransferProposed:
    """A transfer between nodes in reach, or one to be approved for a node in reach."""
    proposal = tenant.trading.approvals.known(ident)
    if proposal is not None:
        asked = proposal.asked
        nodes = (asked.source, asked.target, *(one.node for one in asked.approvers))
        if any(reach.sees_id(node) for node in nodes):
            return asked
    raise Refused("unknown_proposal", proposal=ident)


def may_approve(principal: Principal, reach: Reach, asked: TransferProposed) -> bool:
    """Whether all approvers are in reach, in their roles. Four eyes are the rules' own to count."""
    return all(
        reach.sees_id(one.node) and (not one.role or one.role in principal.roles) for one in asked.approvers
    )


def _rule_at(tenant: Tenant, node: str, usage_type: str) -> ApprovalRuleSet | None:
    member = tenant.hierarchy.by_id.get(node)
    return tenant.trading.approvals.rules.get((member.ordinal, usage_type)) if member is not None else None


def _rule_set(answer: Answer | DryRun | TradeProblem) -> SetRuleDone | DryRun | UsualProblem:
    if isinstance(answer, DryRun | UsualProblem):
        return answer
    assert not isinstance(answer, TradeProblem), "a rule moves nothing"
    return SetRuleDone(event_seqs=seqs_of(answer), repeated=answer.repeated)


def _told(row: views.Proposal, reach: Reach, tenant: Tenant) -> Proposal:
    members, principal = tenant.hierarchy.members, reach.principal
    approvers = zip(row.approvers, row.role_of_each, strict=True)
    may = all(reach.sees(one) and (not role or role in principal.roles) for one, role in approvers)
    other = person_of(principal.actor) != person_of(row.asked_by)
    return Proposal(
        id=ID(row.proposal),
        state=ProposalState(row.state),
        kind=row.reason,
        source_id=ID(row.source_id) if reach.sees(row.source) else None,
        target_id=ID(row.target_id) if reach.sees(row.target) else None,
        usage_type=row.usage_type,
        unit=reach.units[row.usage_type],
        period=row.period,
        quantity=Quantity(row.quantity),
        before=Quantity(row.before),
        offer=ID(row.offer) if row.offer else None,
        price_type=row.price_type or None,
        price=Quantity(row.price),
        approvers=[ID(members[one].id) for one in row.approvers if reach.sees(one)],
        four_eyes=row.four_eyes,
        may_approve=row.state == "waiting" and may and (other or not row.four_eyes),
        asked_by=row.asked_by,
        note=row.note,
        answer=row.answer,
        expires_at=Moment(row.expires_at),
        asked_at=Moment(row.asked_at),
        asked=Seq(row.asked),
        seq=Seq(row.seq),
    )
