"""Windows: the stretches of time that a limit counts in, besides the contract's period.

Usage is counted in the bin it began in. A day and a week are one bin; `last_7_days` is a day and
the six before it; `last_24_hours` an hour and the 23 before it. Days and weeks (from Monday) are the
tenant's own, so a day has 23 or 25 hours when the clocks change; hours are those of UTC.
"""

import re
from datetime import UTC, date, datetime
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

from .refusals import Refused

PERIOD = "period"
Unit = Literal["hour", "day", "week"]

ROLLING = re.compile(r"last_([1-9][0-9]{0,2})_(hours|days)")
BINS_MAX = {"hour": 24 * 31, "day": 92}
HOUR = 3_600_000_000
DAYS_A_WEEK = 7
EXAMPLES = ("period", "day", "week", "last_7_days", "last_24_hours")


class Window(Struct, frozen=True):
    """A kind of window: how wide its bins are, and how many of them it is."""

    name: str
    unit: Unit
    bins: int


def window_of(name: str) -> Window | None:
    """The window of this name; None for the contract's own period."""
    if name == PERIOD:
        return None
    if name in ("day", "week"):
        return Window(name, "day" if name == "day" else "week", 1)
    rolling = ROLLING.fullmatch(name)
    if rolling is None:
        raise Refused("bad_window", window=name, examples=list(EXAMPLES))
    bins, unit = int(rolling[1]), "hour" if rolling[2] == "hours" else "day"
    if bins > BINS_MAX[unit]:
        raise Refused("bad_window", window=name, examples=list(EXAMPLES), bins_max=BINS_MAX[unit])
    return Window(name, "hour" if unit == "hour" else "day", bins)


class Calendar:
    """Which bin a moment falls into, in the tenant's time zone."""

    def __init__(self) -> None:
        self.zone = ZoneInfo("UTC")
        self._last: dict[str, tuple[int, int, int]] = {}
        """By unit: the bin looked up last, and its bounds."""

    def bin_of(self, unit: Unit, at: int) -> int:
        if unit == "hour":
            return at // HOUR
        last = self._last.get(unit)
        if last is None or not last[1] <= at < last[2]:
            day = datetime.fromtimestamp(at // 1_000_000, self.zone).date().toordinal()
            last = self._last[unit] = self._around(
                unit, day if unit == "day" else (day - 1) // DAYS_A_WEEK, at
            )
        return last[0]

    def _around(self, unit: Unit, number: int, at: int) -> tuple[int, int, int]:
        """The bin with this moment in it, and its bounds. Clocks that go back may show a date twice."""
        starts_at, ends_at = self.bounds(unit, number)
        if at >= ends_at:
            return self._around(unit, number + 1, at)
        if at < starts_at:
            return self._around(unit, number - 1, at)
        return number, starts_at, ends_at

    def bounds(self, unit: Unit, number: int) -> tuple[int, int]:
        """Of a bin: [starts_at, ends_at), in microseconds."""
        if unit == "hour":
            return number * HOUR, (number + 1) * HOUR
        first, days = (number, 1) if unit == "day" else (number * DAYS_A_WEEK + 1, DAYS_A_WEEK)
        return self._midnight(first), self._midnight(first + days)

    def starts_at(self, window: Window, number: int) -> int:
        """When the window that ends with this bin begins."""
        return self.bounds(window.unit, number - window.bins + 1)[0]

    def label(self, unit: Unit, number: int) -> str:
        """A bin by name: "2026-11-15", "2026-W47", or the hour "2026-11-15T13Z"."""
        if unit == "hour":
            return datetime.fromtimestamp(number * 3_600, UTC).strftime("%Y-%m-%dT%HZ")
        if unit == "day":
            return date.fromordinal(number).isoformat()
        year, week, _ = date.fromordinal(number * DAYS_A_WEEK + 1).isocalendar()
        return f"{year:04d}-W{week:02d}"

    def bin_named(self, unit: Unit, label: str) -> int:
        """The reverse of `label`."""
        if unit == "hour":
            moment = datetime.strptime(label, "%Y-%m-%dT%HZ").replace(tzinfo=UTC)
            return int(moment.timestamp()) // 3_600
        if unit == "day":
            return date.fromisoformat(label).toordinal()
        return (date.fromisocalendar(int(label[:4]), int(label[-2:]), 1).toordinal() - 1) // DAYS_A_WEEK

    def minute_of_week(self, at: int) -> tuple[int, int]:
        """The weekday (Monday is 0) and the minute of the day, by the tenant's clock."""
        local = datetime.fromtimestamp(at // 1_000_000, self.zone)
        return local.weekday(), local.hour * 60 + local.minute

    def _midnight(self, day: int) -> int:
        found = date.fromordinal(day)
        return int(datetime(found.year, found.month, found.day, tzinfo=self.zone).timestamp()) * 1_000_000
