"""Permit: what one person may move by one command without approval, rule by rule.

It remembers what it let pass, so that many small lines of one command pass no rule that one large line
would not.
"""

from collections.abc import Iterable
from zoneinfo import ZoneInfo

from .approval import Approvals, Approver
from .bucket import Transferred
from .days import date_of, day_of
from .hierarchy import Hierarchy
from .refusals import InvariantBroken, Refused
from .reservation import Leg
from .splitting import WINDOWS, Piece, Pieces, TransferCounted, Window, counted
from .trade_rules import TradeRules

COUNTED = ("allocate", "return", "trade")
"""What else moves quantity follows from a merge, or undoes what was done."""


class Permit:
    """Asked within one decision, at one moment."""

    def __init__(
        self,
        rules: TradeRules,
        approvals: Approvals,
        pieces: Pieces,
        hierarchy: Hierarchy,
        zone: ZoneInfo,
        person: str,
    ) -> None:
        self._rules = rules
        self._approvals = approvals
        self._pieces = pieces
        self._hierarchy = hierarchy
        self._zone = zone
        self._person = person
        self._ahead: dict[Piece, int] = {}
        self._day = ""

    def __call__(self, transferred: Transferred, now: int) -> None:
        """Refuses one of many transfers that may only be proposed by itself."""
        if self._rules.trades_max is None and not self._approvals.rules:
            return
        leg = leg_of(transferred)
        if transferred.reason == "trade":
            self._rules.check((leg,))
        approvers, _, before = self.passed((leg,), now)
        if approvers:
            raise Refused(
                "needs_approval", source=leg.source, target=leg.target, quantity=leg.quantity, before=before
            )

    def take(self, transferred: Transferred, now: int) -> None:
        """It passes: what follows comes on top of it."""
        if not self._approvals.rules:
            return
        for window in WINDOWS[1:]:
            piece = self._pieces.piece(window, self._person, transferred, self.day(now))
            self._ahead[piece] = self._ahead.get(piece, 0) + transferred.quantity

    def passed(self, legs: Iterable[Leg], now: int) -> tuple[tuple[Approver, ...], bool, int]:
        """The approvers that these legs need, whether with four eyes, and what counts with them."""

        def before(window: Window, leg: Leg) -> int:
            if not window:
                return 0
            piece = self._pieces.piece(window, self._person, leg, self.day(now))
            return self._pieces.moved.get(piece, 0) + self._ahead.get(piece, 0)

        return self._approvals.passed(legs, self._hierarchy.by_id, now, before)

    def counted(self, events: Iterable[object], now: int) -> list[TransferCounted]:
        """What of these transfers, which all pass, counts for those to come."""
        if not any(rule.window for rule in self._approvals.rules.values()):
            return []
        transfers = [one for one in events if isinstance(one, Transferred) and self._counts(one, now)]
        told = list(counted(transfers, self._person, self.day(now)))
        for one in told:
            self._check(one, now)
        return told

    def _counts(self, one: Transferred, now: int) -> bool:
        if one.reason not in COUNTED:
            return False
        rules = self._approvals.standing_over(leg_of(one), self._hierarchy.by_id, now)
        return any(rule.window for rule in rules)

    def _check(self, told: TransferCounted, now: int) -> None:
        leg = Leg(told.source, told.target, told.usage_type, told.period, told.quantity)
        for rule in self._approvals.standing_over(leg, self._hierarchy.by_id, now):
            moved = told.quantity + self._pieces.before(rule.window, self._person, leg, told.day)
            if rule.window and rule.above is not None and moved > rule.above:
                raise InvariantBroken("no more moves without approval than its rule says", moved=moved)

    def day(self, now: int) -> str:
        if not self._day:
            self._day = date_of(day_of(now, self._zone))
        return self._day


def leg_of(transferred: Transferred) -> Leg:
    return Leg(*(getattr(transferred, name) for name in Leg.__struct_fields__))
