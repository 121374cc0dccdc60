"""Trading: what changes of offers, approvals and transfers have in common.

An offer or a waiting transfer out of reach is one that does not exist. Where a rule asks for it, a
transfer is answered with `ApprovalRequired`: nothing has moved yet, and what would is set aside.
"""

from collections.abc import Callable

import strawberry
from strawberry import ID

from ..domain.approval import TransferProposed
from ..domain.offer import Offer, OfferMade
from ..domain.refusals import Refused
from ..domain.tenant import Command, Tenant
from ..tenants.access import NotPermitted, Verb, require
from .asking import Reach
from .changing import DryRun, carried_out, seqs_of
from .context import Answer, Context, TryAgain
from .scalars import Moment, Seq
from .trade_problems import TradeProblem, trade_problem_of


@strawberry.type(description="A rule asks for approval: nothing has moved yet, and what would is set aside.")
class ApprovalRequired:
    proposal: ID = strawberry.field(description="For `approveTransfer` or `declineTransfer`.")
    approvers: list[ID] = strawberry.field(
        description="Who approves must reach all of these; those beyond your reach are left out."
    )
    four_eyes: bool = strawberry.field(description="Whoever asked may not approve.")
    expires_at: Moment
    event_seqs: list[Seq]
    repeated: bool


Check = Callable[[Tenant, Reach], None]
"""Raises what forbids it."""


async def trade_change(
    context: Context,
    verb: Verb,
    command: Command,
    idempotency_key: str,
    nodes: dict[str, str],
    *,
    dry_run: bool = False,
    check: Check | None = None,
) -> Answer | DryRun | TradeProblem:
    """As `change`, with the problems of trade. `check` comes after what any change is asked."""
    try:
        return await _checked(context, verb, command, idempotency_key, nodes, dry_run, check)
    except (NotPermitted, Refused, TryAgain) as refusal:
        return trade_problem_of(refusal)


async def _checked(
    context: Context,
    verb: Verb,
    command: Command,
    idempotency_key: str,
    nodes: dict[str, str],
    dry_run: bool,
    check: Check | None,
) -> Answer | DryRun | TradeProblem:
    if check is not None:
        require(context.principal, verb)
        state = await context.state()
        check(state, Reach(context.principal, state))
    return await carried_out(context, verb, command, idempotency_key, nodes, dry_run=dry_run)


def required(answer: Answer, reach: Reach) -> ApprovalRequired | None:
    """What is told where a transfer was proposed; None where it has happened."""
    for event in answer.events:
        if isinstance(event, TransferProposed):
            return ApprovalRequired(
                proposal=ID(event.proposal),
                approvers=[ID(one.node) for one in event.approvers if reach.sees_id(one.node)],
                four_eyes=event.four_eyes,
                expires_at=Moment(event.expires_at),
                event_seqs=seqs_of(answer),
                repeated=answer.repeated,
            )
    return None


def visible_offer(tenant: Tenant, reach: Reach, ident: str) -> Offer:
    """The offer, if it was made by, made to, or is open to somebody in reach."""
    offer = tenant.trading.offers.known(ident)
    if offer is None or not sees_offer(reach, offer.made):
        raise Refused("unknown_offer", offer=ident)
    return offer


def sees_offer(reach: Reach, made: OfferMade) -> bool:
    if reach.sees_id(made.source) or reach.sees_id(made.target):
        return True
    return made.everybody and reach.stands_below(made.target)
