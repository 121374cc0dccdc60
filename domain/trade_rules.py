"""Trade rules: how often two members may trade a usage type back and forth in a period.

Off unless the tenant sets it. Every trade counts, whichever way it goes and however it came about;
what is handed down, returned or undone does not.
"""

from collections.abc import Iterable
from typing import ClassVar

from msgspec import Struct

from .bucket import Transferred
from .hierarchy import Hierarchy
from .refusals import Refused, check_text
from .reservation import Leg

TRADES_MAX = 1_000_000

Pair = tuple[str, str, int, int]
"""Usage type, period, and the ordinals of two members, the lower one first."""


class TradeRulesSet(Struct, frozen=True, array_like=True):
    """How often two members may trade a usage type in a period, from now on."""

    topic: ClassVar[str] = "trade.rules_set"
    trades_max: int | None
    """None: as often as they like."""
    note: str


class SetTradeRules(Struct, frozen=True, array_like=True):
    """Limit trading back and forth: at most so many trades of a type between two members per period."""

    trades_max: int | None
    note: str = ""


class TradeRules:
    """The rule in force, and how often who has traded with whom."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self.trades_max: int | None = None
        self.trades: dict[Pair, int] = {}

    def decide(self, command: SetTradeRules) -> TradeRulesSet:
        check_text("note", command.note, empty=True)
        if command.trades_max is not None and not 1 <= command.trades_max <= TRADES_MAX:
            raise Refused("trades_out_of_range", trades=command.trades_max, trades_max=TRADES_MAX)
        return TradeRulesSet(command.trades_max, command.note)

    def check(self, legs: Iterable[Leg]) -> None:
        """Refuses legs between two who have traded that type often enough."""
        if self.trades_max is None:
            return
        for leg in legs:
            trades = self.trades.get(self._pair(leg), 0)
            if trades >= self.trades_max:
                raise Refused(
                    "too_many_trades",
                    source=leg.source,
                    target=leg.target,
                    usage_type=leg.usage_type,
                    period=leg.period,
                    trades=trades,
                    trades_max=self.trades_max,
                )

    def count(self, event: Transferred) -> None:
        """Count what has happened, whether or not it is limited now."""
        if event.reason == "trade":
            pair = self._pair(event)
            self.trades[pair] = self.trades.get(pair, 0) + 1

    def _pair(self, leg: Leg | Transferred) -> Pair:
        members = self._hierarchy.by_id
        low, high = sorted((members[leg.source].ordinal, members[leg.target].ordinal))
        return leg.usage_type, leg.period, low, high
