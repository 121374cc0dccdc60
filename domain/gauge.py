"""Gauges: how much was used at and below one member in the windows of one limit, bin by bin.

A gauge begins to count when its limit is set, with what sessions hold there then; it is there
only where there is such a limit, so nobody else pays for it. A use concerns every window that its
bin is in: the fullest of them decides. A bin that is no longer kept is neither counted nor checked.
"""

from .refusals import InvariantBroken
from .window import Window

Told = tuple[int, int, int, str]
"""A threshold that was told: of a limit of this quantity, its percent or quantity, and whose policy's."""


class Gauge:
    """The counters of one limit per day, week or rolling window."""

    __slots__ = ("bins", "ceiling", "first", "latest", "mark", "told", "total", "window")

    def __init__(self, window: Window, first: int) -> None:
        self.window = window
        self.first = first
        """The earliest bin that is kept."""
        self.bins: dict[int, int] = {}
        self.latest = first
        """The last bin that anything was counted in, and `total`: the sum of the window ending with it."""
        self.total = 0
        self.told: dict[int, tuple[Told, ...]] = {}
        """By the last bin of the window in which it was."""
        self.mark = 0
        """Below this nothing happens."""
        self.ceiling = 0
        """No window passes this."""

    def sum_of(self, last: int) -> int:
        """Of the window that ends with a bin."""
        if last == self.latest:
            return self.total
        bins = self.bins
        return sum(bins.get(number, 0) for number in range(last - self.window.bins + 1, last + 1))

    def fullest(self, number: int) -> tuple[int, int]:
        """The most that any window with this bin in it has counted, and the bin that window ends with."""
        if number >= self.latest or self.window.bins == 1:
            return self.sum_of(number), number
        most, at, total = -1, number, self.sum_of(number)
        for last in self._ends(number):
            if last != number:
                total += self.bins.get(last, 0) - self.bins.get(last - self.window.bins, 0)
            if total > most:
                most, at = total, last
        return most, at

    def is_told(self, number: int, threshold: Told) -> bool:
        """Whether it was told in any window with this bin in it."""
        return any(threshold in self.told.get(last, ()) for last in self._ends(number))

    def keeps(self, number: int) -> bool:
        return number >= self.first

    def add(self, number: int, quantity: int) -> None:
        """Count usage, or take back what was counted; no window passes the ceiling."""
        if number < self.first:
            return
        left = self.bins.get(number, 0) + quantity
        if left < 0:
            raise InvariantBroken("only what was counted is given back", window=self.window.name, used=left)
        if number > self.latest:
            self.total, self.latest = self.sum_of(number), number
        if left:
            self.bins[number] = left
        else:
            self.bins.pop(number, None)
        if number > self.latest - self.window.bins:
            self.total += quantity
        if quantity > 0 and self.fullest(number)[0] > self.ceiling:
            raise InvariantBroken("usage never passes a limit", window=self.window.name, ceiling=self.ceiling)

    def forget(self, first: int) -> None:
        """Drop the bins before one, and what was told of windows that end there."""
        if first <= self.first:
            return
        self.first = first
        self.bins = {number: used for number, used in self.bins.items() if number >= first}
        self.told = {number: told for number, told in self.told.items() if number >= first}
        self.latest = max(self.latest, first)
        self.total = self._summed()

    def check_whole(self) -> None:
        if any(used <= 0 or number < self.first for number, used in self.bins.items()):
            raise InvariantBroken("bins hold what was used", window=self.window.name)
        if self.total != self._summed() or any(number > self.latest for number in self.bins):
            raise InvariantBroken("a window is the sum of its bins", window=self.window.name)

    def _summed(self) -> int:
        last, bins = self.latest, self.bins
        return sum(bins.get(number, 0) for number in range(last - self.window.bins + 1, last + 1))

    def _ends(self, number: int) -> range:
        """The last bins of all windows with this bin in them in which anything was counted."""
        return range(number, max(number, min(number + self.window.bins - 1, self.latest)) + 1)
