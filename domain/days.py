"""Days of the tenant's calendar: numbered from 1970-01-01, each from one midnight to the next.

A day lasts 23 or 25 hours where clocks change, and no hour of it counts to another day, also where
clocks go back over midnight. Times are microseconds since the epoch, UTC; bounds are [start, end).
"""

from datetime import date, datetime
from zoneinfo import ZoneInfo

from .contract import midnight

_EPOCH = date(1970, 1, 1).toordinal()


def day_of(at: int, zone: ZoneInfo) -> int:
    """The day that a moment belongs to."""
    day = datetime.fromtimestamp(at // 1_000_000, zone).toordinal() - _EPOCH
    # Where clocks go back over midnight, the calendar shows yesterday again for a while.
    while at >= start_of(day + 1, zone):
        day += 1
    while at < start_of(day, zone):
        day -= 1
    return day


def start_of(day: int, zone: ZoneInfo) -> int:
    return midnight(date.fromordinal(day + _EPOCH), zone)


def date_of(day: int) -> str:
    """As people write it: "2026-11-21"."""
    return date.fromordinal(day + _EPOCH).isoformat()


class Days:
    """The days of many moments, most of which fall on the same day as the one before."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._last = (0, 0, 0)

    def of(self, at: int) -> int:
        return self.around(at)[0]

    def around(self, at: int) -> tuple[int, int, int]:
        """The day, and its bounds: for who asks often enough to look at these first."""
        if not self._last[1] <= at < self._last[2]:
            day = day_of(at, self._zone)
            self._last = day, start_of(day, self._zone), start_of(day + 1, self._zone)
        return self._last
