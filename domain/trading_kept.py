"""What a snapshot keeps of trading, and how a dump tells it: everything a later decision looks at."""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from .approval import ApprovalRuleSet, Proposal
from .offer import Offer
from .splitting import Piece
from .trade_rules import Pair, TradeRules
from .trading import Trading


class KeptTrading(Struct, frozen=True, array_like=True):
    """Offers and proposals in order: those that are over are forgotten in that of their ends."""

    offers: list[Offer]
    ended_offers: list[Offer]
    proposed: int
    proposals: list[Proposal]
    ended_proposals: list[Proposal]
    rules: list[tuple[int, ApprovalRuleSet]]
    """Each with the ordinal of its member."""
    trades_max: int | None
    trades: list[tuple[Pair, int]]
    undone: list[int]
    pieces: list[tuple[Piece, int]] = []
    day: str = ""


NO_TRADING = KeptTrading([], [], 0, [], [], [], None, [], [])


def keep_trading(trading: Trading) -> KeptTrading:
    """A copy, as it stands."""
    return KeptTrading(
        list(trading.offers.open.values()),
        list(trading.offers.ended.values()),
        trading.approvals.proposed,
        list(trading.approvals.waiting.values()),
        list(trading.approvals.ended.values()),
        [(ordinal, rule) for (ordinal, _), rule in trading.approvals.rules.items()],
        trading.rules.trades_max,
        list(trading.rules.trades.items()),
        sorted(trading.undone),
        list(trading.pieces.moved.items()),
        trading.pieces.day,
    )


def restore_trading(trading: Trading, kept: KeptTrading) -> None:
    """What is reserved was kept with the buckets."""
    trading.offers.open = {one.made.offer: one for one in kept.offers}
    trading.offers.ended = {one.made.offer: one for one in kept.ended_offers}
    trading.approvals.proposed = kept.proposed
    trading.approvals.waiting = {one.asked.proposal: one for one in kept.proposals}
    trading.approvals.ended = {one.asked.proposal: one for one in kept.ended_proposals}
    trading.approvals.rules = {(ordinal, rule.usage_type): rule for ordinal, rule in kept.rules}
    trading.rules.trades_max = kept.trades_max
    trading.rules.trades = dict(kept.trades)
    trading.undone = set(kept.undone)
    trading.pieces.moved = dict(kept.pieces)
    trading.pieces.day = kept.day


def describe_trading(trading: Trading) -> Iterator[dict[str, Any]]:
    """Canonical lines; none where nothing was ever offered, ruled, proposed, traded or undone."""
    offers, approvals = trading.offers, trading.approvals
    for _, rule in sorted(approvals.rules.items(), key=lambda one: one[0]):
        yield {"is": "approval rule", **msgspec.to_builtins(msgspec.structs.asdict(rule))}
    for offer in (*offers.open.values(), *offers.ended.values()):
        yield {"is": "offer", **msgspec.to_builtins(msgspec.structs.asdict(offer.made)), **_figures(offer)}
    for proposal in (*approvals.waiting.values(), *approvals.ended.values()):
        asked = msgspec.to_builtins(msgspec.structs.asdict(proposal.asked))
        yield {"is": "proposal", **asked, "ended": proposal.ended}
    yield from _trade_rules(trading.rules)
    for (person, source, target, usage_type, _, span), moved in sorted(trading.pieces.moved.items()):
        between = {"person": person, "between": [source, target], "usage_type": usage_type, "in": span}
        yield {"is": "moved in pieces", **between, "quantity": moved}
    for seq in sorted(trading.undone):
        yield {"is": "undone", "seq": seq}


def _trade_rules(rules: TradeRules) -> Iterator[dict[str, Any]]:
    """How often who has traded is told where it matters."""
    if rules.trades_max is None:
        return
    yield {"is": "trade rules", "trades_max": rules.trades_max}
    for (usage_type, period, low, high), trades in sorted(rules.trades.items()):
        about = {"usage_type": usage_type, "period": period, "between": [low, high]}
        yield {"is": "trades", **about, "trades": trades}


def _figures(offer: Offer) -> dict[str, Any]:
    names = ("left", "pending", "accepted", "ended")
    return {name: getattr(offer, name) for name in names}
