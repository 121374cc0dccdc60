"""A naive count beside the rules: it adds up what events tell, and knows nothing of how they came about."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from allotment.domain.bucket import Granted
from allotment.domain.charging import UsageCharged
from allotment.domain.limit import LimitSet, ThresholdCrossed
from allotment.domain.session import SessionEvent

Figures = dict[tuple[str, int], int]


class Count:
    """By the book: one dictionary for each figure, keyed by usage type and ordinal."""

    def __init__(self) -> None:
        self.used: Figures = defaultdict(int)
        self.reserved: Figures = defaultdict(int)
        self.granted: dict[str, int] = defaultdict(int)
        self.held: dict[str, SessionEvent] = {}
        self.charged: list[tuple[str, str]] = []
        self.limits: dict[tuple[str, str], LimitSet] = {}
        self.changes: Counter[tuple[str, str]] = Counter()
        self.fired: list[tuple[Any, ...]] = []

    def tell(self, event: Any) -> None:
        match event:
            case Granted(_, usage_type, _, quantity):
                self.granted[usage_type] += quantity
            case UsageCharged():
                self.charged.append((event.source, event.record_id))
                self._count(event, event.billed, event.amount, (), 1)
            case LimitSet(node, usage_type):
                if not _same(self.limits.get((node, usage_type)), event):
                    self.changes[node, usage_type] += 1
                self.limits[node, usage_type] = event
            case ThresholdCrossed(node, usage_type, _, percent):
                self.fired.append((node, usage_type, percent, self.changes[node, usage_type]))
            case _ if isinstance(event, SessionEvent):
                last = self.held.pop(event.session, None)
                if last is not None:
                    self._count(last, last.held.billed, last.held.amount, last.held.drawn, -1)
                self._count(event, event.held.billed, event.held.amount, event.held.drawn, 1)
                self.held[event.session] = event

    def check(self, before: Figures, members: Sequence[str]) -> None:
        """After a command: no limit was passed on any ancestor, one record was charged once."""
        for (usage_type, ordinal), used in self.used.items():
            limit = self.limits.get((members[ordinal], usage_type))
            if (
                limit is not None
                and limit.quantity is not None
                and used > before.get((usage_type, ordinal), 0)
            ):
                assert used <= limit.quantity, (limit, used)
        assert len(set(self.charged)) == len(self.charged)
        assert len(set(self.fired)) == len(self.fired)

    def _count(self, event: Any, billed: int, amount: int, drawn: Any, sign: int) -> None:
        for ordinal in event.path:
            self.used[event.usage_type, ordinal] += sign * billed
            self.used["money", ordinal] += sign * amount
        for ordinal, part in drawn:
            self.reserved[event.usage_type, ordinal] += sign * part


def _same(before: LimitSet | None, now: LimitSet) -> bool:
    return before is not None and (before.quantity, before.thresholds) == (now.quantity, now.thresholds)
