"""Telling of trade: offers, approvals, undoing and the rules for them, as a person reads them."""

from collections.abc import Callable
from typing import Any

from ..domain.approval import (
    ApprovalRuleSet,
    Approver,
    TransferApproved,
    TransferDeclined,
    TransferProposed,
)
from ..domain.offer import Ask, OfferAccepted, OfferClosed, OfferMade
from ..domain.reservation import Leg, Reservation
from ..domain.splitting import TransferCounted
from ..domain.trade_rules import TradeRulesSet
from ..domain.trading import TradingEvent, TransferUndone

_OfTwo = TransferProposed | TransferApproved | TransferDeclined | TransferUndone | TransferCounted
_ENDED = {
    "withdrawn": "was withdrawn",
    "countered": "was settled by a counter-offer",
    "expired": "has expired",
    "declined": "was declined",
}


class TradeTeller:
    """Tells one reader: `name` is what they may call a member, `much` a quantity in words."""

    def __init__(self, name: Callable[[str], str], much: Callable[[int, str], str]) -> None:
        self._name = name
        self._much = much

    def sentence(self, event: TradingEvent) -> str:
        match event:
            case OfferMade() | OfferAccepted() | OfferClosed():
                return self._offer(event)
            case TransferProposed():
                much = self._much(event.quantity, event.usage_type)
                after = f", after {self._much(event.before, event.usage_type)}," if event.before else ""
                wait = _wait(len(event.approvers))
                return f"{event.proposal}: {much} {self._ends(event)}{after} {wait}."
            case TransferApproved():
                return f"{event.proposal}: a transfer {self._ends(event)} was approved."
            case TransferDeclined():
                return f"{event.proposal}: a transfer {self._ends(event)} {_ENDED[event.because]}."
            case TransferUndone():
                return f"The transfer {self._ends(event)} of event {event.seq} was undone."
            case TransferCounted():
                much = self._much(event.quantity, event.usage_type)
                return f"{much} {self._ends(event)} count for the approval of what follows."
            case ApprovalRuleSet():
                return self._rule(event)
            case TradeRulesSet():
                often = "as often as they like"
                if event.trades_max is not None:
                    often = f"each usage type {event.trades_max} times per period"
                return f"Any two members may trade {often}."

    def _offer(self, event: OfferMade | OfferAccepted | OfferClosed) -> str:
        source = self._name(event.source)
        match event:
            case OfferMade(quantity=quantity, asks=asks):
                target = self._name(event.target)
                whom = f"everybody below {target}" if event.everybody else target
                price = f" for {self._much(asks.price_of(quantity), asks.usage_type)}"
                how = "answered an offer with" if event.counters else "offered"
                much = self._much(quantity, event.usage_type) + (price if asks.usage_type else "")
                return f"{source} {how} {much} to {whom} for {event.period}."
            case OfferAccepted(quantity=quantity):
                price = f" for {self._much(event.price, event.price_type)}" if event.price else ""
                much = self._much(quantity, event.usage_type)
                return f"{self._name(event.target)} accepted {much} from {source}{price}."
            case OfferClosed(left=left):
                much = self._much(left, event.usage_type)
                return f"An offer of {source} {_ENDED[event.because]}, with {much} left."

    def _rule(self, event: ApprovalRuleSet) -> str:
        node = self._name(event.node)
        if event.above is None:
            return f"Transfers of {event.usage_type} at {node} need no approval any more."
        much, eyes = self._much(event.above, event.usage_type), ", by another person"
        pieces = f" in a {event.window}" if event.window else ""
        by = eyes if event.four_eyes else ""
        return f"Transfers of more than {much}{pieces} at {node} need approval{by}."

    def _ends(self, event: _OfTwo) -> str:
        return f"from {self._name(event.source)} to {self._name(event.target)}"


def trade_fact(value: Any, ident: Callable[[str], str | None]) -> Any:
    """What a field of these events holds, without members beyond reach; None for any other value."""
    match value:
        case Ask():
            return {"usageType": value.usage_type, "quantity": str(value.quantity), "per": str(value.per)}
        case Approver():
            return {"node": ident(value.node), "role": value.role}
        case Reservation():
            return {"node": ident(value.node), **_moved(value)}
        case Leg():
            return {"source": ident(value.source), "target": ident(value.target), **_moved(value)}
        case (Approver() | Reservation() | Leg(), *_):
            return [trade_fact(one, ident) for one in value]
    return None


def _moved(one: Reservation | Leg) -> dict[str, str]:
    return {"usageType": one.usage_type, "period": one.period, "quantity": str(one.quantity)}


def _wait(approvers: int) -> str:
    return "wait for approval" if approvers == 1 else f"wait for one who may approve for {approvers} nodes"
