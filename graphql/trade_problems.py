"""Trade problems: the ways a trade can fail besides those of any change, each with its facts."""

from typing import Any

import strawberry
from strawberry import ID

from ..domain.refusals import Refused
from ..tenants import access
from . import context
from .problems import BadLines, OneProblem, Problem
from .refusals import TOLD, problem_of
from .scalars import Moment, Quantity


@strawberry.type(
    description="There is enough, but part of it is set aside for sessions, offers or approvals."
)
class ReservedQuantity(Problem):
    node: ID
    usage_type: str
    period: str
    available: Quantity
    reserved: Quantity


@strawberry.type(description="The offer is over, or less is left of it than was asked for.")
class OfferGone(Problem):
    offer_id: ID
    left: Quantity = strawberry.field(description="What may still be taken; 0 when it is over.")
    pending: Quantity = strawberry.field(description="Taken, and waiting for approval.")
    ended: str | None = strawberry.field(
        description="accepted, withdrawn, declined or countered; null while open."
    )


@strawberry.type(description="The time of the offer, or of the transfer that waited for approval, is over.")
class ExpiredOffer(Problem):
    id: ID
    expired_at: Moment


@strawberry.type(description="The quantity does not come out whole on both sides by the agreed rate.")
class UnevenQuantity(Problem):
    lot: Quantity = strawberry.field(description="Multiples of this come out whole.")
    nearest: list[Quantity]


@strawberry.type(description="These two have traded this type as often as the rules allow in a period.")
class TradedTooOften(Problem):
    usage_type: str
    period: str
    trades: int
    trades_max: int


@strawberry.type(description="The transfer was approved or declined before.")
class ProposalGone(Problem):
    proposal_id: ID
    outcome: str = strawberry.field(description="approved, declined, withdrawn or expired.")


OfTransfers = TradedTooOften | ReservedQuantity | OneProblem
"""What a transfer that no offer is about may come to."""
TradeProblem = (
    OfferGone | ExpiredOffer | UnevenQuantity | TradedTooOften | ProposalGone | ReservedQuantity | OneProblem
)


def trade_problem_of(error: Refused | context.TryAgain | access.NotPermitted) -> TradeProblem:
    """The API's word for why a trade was not made."""
    told = problem_of(error)
    assert not isinstance(told, BadLines)
    if not isinstance(error, Refused):
        return told
    about = {"code": error.code, "message": told.message, "path": told.path}
    return _with_facts(error.code, error.facts, about) or told


def not_permitted(verb: access.Verb, message: str) -> access.NotPermitted:
    """The role would do, but it is not theirs to decide; told only to who may see the thing."""
    refusal = access.NotPermitted(verb, "", "")
    refusal.args = (message,)
    return refusal


def _with_facts(code: str, facts: dict[str, Any], about: dict[str, Any]) -> TradeProblem | None:
    assert code in TOLD
    match code:
        case "insufficient_allowance" if 0 <= facts["quantity"] <= facts["available"] + facts["reserved"]:
            return ReservedQuantity(
                **about,
                node=ID(facts["node"]),
                usage_type=facts["usage_type"],
                period=facts["period"],
                available=Quantity(facts["available"]),
                reserved=Quantity(facts["reserved"]),
            )
        case "offer_gone" | "insufficient_offer":
            left, pending = Quantity(facts["left"]), Quantity(facts.get("pending", 0))
            return OfferGone(
                **about, offer_id=ID(facts["offer"]), left=left, pending=pending, ended=facts.get("ended")
            )
        case "offer_expired" | "proposal_expired":
            ident = ID(facts["offer"] if code == "offer_expired" else facts["proposal"])
            return ExpiredOffer(**about, id=ident, expired_at=Moment(facts["expires_at"]))
        case "uneven_quantity":
            nearest = [Quantity(one) for one in facts["nearest"]]
            return UnevenQuantity(**about, lot=Quantity(facts["lot"]), nearest=nearest)
        case "too_many_trades":
            names = ("usage_type", "period", "trades", "trades_max")
            return TradedTooOften(**about, **{name: facts[name] for name in names})
        case "proposal_gone":
            return ProposalGone(**about, proposal_id=ID(facts["proposal"]), outcome=facts["ended"])
    return None
