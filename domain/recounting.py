"""Recounting: what corrections change of the counters of limits, and which thresholds that reaches.

What grew is told as usage is: each threshold once per crossing and window. What shrank takes nothing
back that was told. A limit set after a charge does not count it, so no more is taken off than counts.
"""

from collections.abc import Mapping

from msgspec import Struct

from .bucket import Family
from .charging import CORPORATE, UsageCharged
from .hierarchy import Path
from .limit import Limits, ThresholdCrossed
from .usage import MONEY


class WindowCorrected(Struct, frozen=True, array_like=True):
    """What changes of the counter of one limit per day, week or rolling window."""

    counted: str
    ordinal: int
    window: str
    at: int
    """A moment in the bin that it is about."""
    change: int


class Recount:
    """Sums up by how much counters change."""

    def __init__(self, limits: Limits, families: Mapping[tuple[str, str], Family]) -> None:
        self._limits = limits
        self._families = families
        self._periods: dict[tuple[str, str, int], int] = {}
        self._bins: dict[tuple[str, int, str, int], tuple[int, int, str]] = {}
        """By counted, ordinal, window and bin: the change, a moment in it, and the period."""

    def replace(self, before: UsageCharged, after: UsageCharged) -> None:
        """One charge of a record by another: where its path stays, only what is between them counts."""
        if after.payer != CORPORATE or before.payer != CORPORATE:
            return
        was, now = (count_of(one.usage_type, one.billed, one.amount) for one in (before, after))
        for (counted, less), (_, more) in zip(was, now, strict=True):
            if before.path == after.path:
                self.add(counted, after.period, after.path, after.started_at, more - less)
            else:
                self.add(counted, before.period, before.path, before.started_at, -less)
                self.add(counted, after.period, after.path, after.started_at, more)

    def add(self, counted: str, period: str, path: Path, at: int, change: int) -> None:
        if not change:
            return
        for ordinal in path:
            key = (counted, period, ordinal)
            self._periods[key] = self._periods.get(key, 0) + change
        for ordinal, gauge, number in self._limits.gauges_on(counted, path, at):
            place = (counted, ordinal, gauge.window.name, number)
            before = self._bins.get(place, (0, at, period))
            self._bins[place] = (before[0] + change, *before[1:])

    def windows(self) -> tuple[WindowCorrected, ...]:
        gauges = self._limits.gauges
        told = []
        for (counted, ordinal, window, number), (change, at, _) in self._bins.items():
            counts = gauges[counted][ordinal][window].bins.get(number, 0)
            change = max(change, -counts)
            if change:
                told.append(WindowCorrected(counted, ordinal, window, at, change))
        return tuple(told)

    def crossings(self) -> list[ThresholdCrossed]:
        """The thresholds that what grew has reached, in the order of counters."""
        told: list[ThresholdCrossed] = []
        for (counted, period, ordinal), change in sorted(self._periods.items()):
            if change > 0:
                told += self._limits.passed_by(self._families[counted, period], ordinal, change)
        fullest: dict[tuple[str, int, str], tuple[int, int, str]] = {}
        for (counted, ordinal, window, _), about in sorted(self._bins.items()):
            # Of one limit the bin that grew most tells: bins beside it are in the same rolling windows.
            if about[0] > 0 and about > fullest.get((counted, ordinal, window), (0, 0, "")):
                fullest[counted, ordinal, window] = about
        for (counted, ordinal, window), (change, at, period) in fullest.items():
            told += self._limits.passed_window_by(counted, ordinal, window, period, at, change)
        return told


def count_of(counted: str, billed: int, amount: int) -> tuple[tuple[str, int], ...]:
    """What a charge counts as: its units, and its money."""
    return ((counted, billed), (MONEY, amount))
