"""Windows over time: which one holds at a moment, by the clock on the wall in the tariff's time zone.

A moment lies in a window when the clock shows a time of it then: an hour that the clocks repeat is in
its window twice, one that they skip never. Each stretch of time lies in exactly one window, or in none.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from .language import DAY_MINUTES, DAYS, Day, Window

SECOND = 1_000_000
DAY_SECONDS = 86_400
DAYS_REMEMBERED_MAX = 2_000


class Holidays:
    """The dates that are no weekdays: "2026-12-25", or "12-25" in every year."""

    __slots__ = ("_dates", "_yearly")

    def __init__(self, texts: Iterable[str]) -> None:
        self._dates: set[str] = set()
        self._yearly: set[str] = set()
        for text in texts:
            (self._dates if len(text) > len("12-25") else self._yearly).add(text)

    def kind(self, day: date) -> Day:
        text = day.isoformat()
        if text in self._dates or text[5:] in self._yearly:
            return "holiday"
        return DAYS[day.weekday()]


class Clock:
    """Some windows of a tariff, in their order."""

    __slots__ = ("_boundaries", "_days", "_holidays", "windows", "zone")

    def __init__(self, windows: Sequence[Window], holidays: Holidays, zone: ZoneInfo) -> None:
        self.windows = windows
        self.zone = zone
        self._holidays = holidays
        self._boundaries = boundaries(windows)
        self._days: dict[int, tuple[list[int], list[str]]] = {}
        """By day of UTC: when each stretch of it begins, in seconds, and its window."""

    def at(self, at: int) -> str:
        """The window of a moment; "" where there is none."""
        return self.stretch(at)[0]

    def stretch(self, at: int) -> tuple[str, int]:
        """The window of a moment, and until when that is known to hold, at least: exclusive."""
        seconds = at // SECOND
        starts, names = self._day(seconds // DAY_SECONDS)
        place = bisect_right(starts, seconds) - 1
        following = (
            starts[place + 1] if place + 1 < len(starts) else (seconds // DAY_SECONDS + 1) * DAY_SECONDS
        )
        return names[place], following * SECOND

    def _day(self, number: int) -> tuple[list[int], list[str]]:
        found = self._days.get(number)
        if found is None:
            if len(self._days) >= DAYS_REMEMBERED_MAX:
                self._days.clear()
            found = self._days[number] = ([], [])
            for start, name in self._stretches(number * DAY_SECONDS, (number + 1) * DAY_SECONDS):
                if not found[1] or found[1][-1] != name:
                    found[0].append(start)
                    found[1].append(name)
        return found

    def _stretches(self, start: int, end: int) -> Iterator[tuple[int, str]]:
        while start < end:
            local = datetime.fromtimestamp(start, self.zone)
            minute = local.hour * 60 + local.minute
            yield start, self._at_local(local.date(), minute)
            following = next(boundary for boundary in self._boundaries if boundary > minute)
            ahead = start + (following - minute) * 60 - local.second
            start = self._until_the_clocks_change(start, ahead)

    def _at_local(self, day: date, minute: int) -> str:
        kind, before = self._holidays.kind(day), self._holidays.kind(day - timedelta(days=1))
        return window_of(self.windows, before, kind, minute)

    def _until_the_clocks_change(self, start: int, end: int) -> int:
        """`end`, or the first second before it at which the clocks have been changed since `start`."""
        offset = self._offset(start)
        if self._offset(end) == offset:
            return end
        same, changed = start, end
        while changed - same > 1:
            middle = (same + changed) // 2
            if self._offset(middle) == offset:
                same = middle
            else:
                changed = middle
        return changed

    def _offset(self, seconds: int) -> timedelta | None:
        return datetime.fromtimestamp(seconds, self.zone).utcoffset()


def window_of(windows: Sequence[Window], before: Day, kind: Day, minute: int) -> str:
    """The first window with a minute of a day, given also what day was before; "" where there is none."""
    for window in windows:
        for span in window.spans:
            if span.from_minute < span.to_minute:
                inside = span.from_minute <= minute < span.to_minute and _has(span.days, kind)
            else:
                # The night belongs to the day that it began on.
                inside = (minute >= span.from_minute and _has(span.days, kind)) or (
                    minute < span.to_minute and _has(span.days, before)
                )
            if inside:
                return window.name
    return ""


def uncovered(windows: Sequence[Window], *, holidays: bool) -> tuple[Day, int] | None:
    """The first day and minute in no window; None where they cover all of time."""
    for before, kind in _neighbours(holidays):
        for minute in (0, *boundaries(windows)[:-1]):
            if not window_of(windows, before, kind, minute):
                return kind, minute
    return None


def boundaries(windows: Sequence[Window]) -> list[int]:
    """The minutes of a day at which a window may begin or end, after 0; the last is midnight."""
    minutes = {
        minute for window in windows for span in window.spans for minute in (span.from_minute, span.to_minute)
    }
    return sorted((minutes | {DAY_MINUTES}) - {0})


def _neighbours(holidays: bool) -> Iterator[tuple[Day, Day]]:
    for weekday in range(7):
        before, kind = DAYS[weekday - 1 if weekday else 6], DAYS[weekday]
        yield before, kind
        if holidays:
            yield "holiday", kind
            yield before, "holiday"
    if holidays:
        yield "holiday", "holiday"


def _has(days: tuple[Day, ...], kind: Day) -> bool:
    return not days or kind in days
