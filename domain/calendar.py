"""Calendars: into which stretches a contract cuts time, in the tenant's own time zone.

A stretch begins at a local midnight and ends at the next one's; stretches follow each other
without a gap, and every moment lies within exactly one, whatever the clocks do meanwhile.
"""

import re
from bisect import bisect_right
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

from .refusals import Refused

YEAR_MIN, YEAR_MAX = 1970, 9998
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
STARTS_MAX = 1_000
DAYS_MAX = 366

CalendarKind = Literal["month", "billing_day", "weekly", "days", "dates"]


class Calendar(Struct, frozen=True, array_like=True):
    """How time is cut into periods; the calendar month unless said otherwise."""

    kind: CalendarKind = "month"
    number: int = 0
    """`billing_day`: 1 to 31, in a month that is too short its last day. `weekly`: the day it
    begins with, 1 (Monday) to 7. `days`: how many."""
    starts: tuple[str, ...] = ()
    """`days`: the date the first one begins. `dates`: each begins a period; the last ends the last."""


MONTHLY = Calendar()


class Stretch(Struct, frozen=True):
    """[starts_at, ends_at), begun by its first day."""

    first: date
    starts_at: int
    ends_at: int


def check_calendar(calendar: Calendar) -> None:
    """Refuses a calendar that cuts no time."""
    between, starts = _ASKED[calendar.kind]
    if not between[0] <= calendar.number <= between[1]:
        raise Refused("bad_calendar", field="number", value=calendar.number, remedy=_range(*between))
    if not starts[0] <= len(calendar.starts) <= starts[1]:
        count = len(calendar.starts)
        raise Refused("bad_calendar", field="starts", value=count, remedy=f"give {_range(*starts)} dates")
    given = [date_of(text) for text in calendar.starts]
    if given != sorted(set(given)):
        raise Refused(
            "bad_calendar", field="starts", value=list(calendar.starts), remedy="give later and later dates"
        )


def stretch_at(calendar: Calendar, at: int, zone: ZoneInfo) -> Stretch | None:
    """The stretch a moment belongs to; None where a list of dates has none."""
    try:
        day = datetime.fromtimestamp(at // 1_000_000, zone).date()
    except (OverflowError, ValueError):
        return None
    found = _stretch_of(calendar, day, zone)
    # A clock that was put back across midnight shows yesterday again: the bounds decide, not the date.
    while found is not None and at >= found.ends_at:
        found = _stretch_of(calendar, _following(calendar, found.first), zone)
    while found is not None and at < found.starts_at:
        found = _stretch_of(calendar, found.first - timedelta(days=1), zone)
    return found


def _stretch_of(calendar: Calendar, day: date, zone: ZoneInfo) -> Stretch | None:
    first = _FIRST[calendar.kind](calendar, day)
    if first is None or not YEAR_MIN <= first.year <= YEAR_MAX:
        return None
    return Stretch(first, midnight(first, zone), midnight(_following(calendar, first), zone))


def _following(calendar: Calendar, first: date) -> date:
    match calendar.kind:
        case "month":
            return _month_after(first)
        case "billing_day":
            return _clamped(_month_after(first), calendar.number)
        case "weekly":
            return first + timedelta(days=7)
        case "days":
            return first + timedelta(days=calendar.number)
    return next((date_of(text) for text in calendar.starts if text > first.isoformat()), first)


def _of_month(calendar: Calendar, day: date) -> date:
    return day.replace(day=1)


def _of_billing_day(calendar: Calendar, day: date) -> date:
    begun = _clamped(day, calendar.number)
    return begun if begun <= day else _clamped(day.replace(day=1) - timedelta(days=1), calendar.number)


def _of_week(calendar: Calendar, day: date) -> date:
    return day - timedelta(days=(day.isoweekday() - calendar.number) % 7)


def _of_days(calendar: Calendar, day: date) -> date:
    return day - timedelta(days=(day - date_of(calendar.starts[0])).days % calendar.number)


def _of_dates(calendar: Calendar, day: date) -> date | None:
    place = bisect_right(calendar.starts, day.isoformat())
    return date_of(calendar.starts[place - 1]) if 0 < place < len(calendar.starts) else None


_FIRST: dict[CalendarKind, Callable[[Calendar, date], date | None]] = {
    "month": _of_month,
    "billing_day": _of_billing_day,
    "weekly": _of_week,
    "days": _of_days,
    "dates": _of_dates,
}
"""The day that begins the stretch of a day."""

_ASKED: dict[CalendarKind, tuple[tuple[int, int], tuple[int, int]]] = {
    "month": ((0, 0), (0, 0)),
    "billing_day": ((1, 31), (0, 0)),
    "weekly": ((1, 7), (0, 0)),
    "days": ((1, DAYS_MAX), (1, 1)),
    "dates": ((0, 0), (2, STARTS_MAX)),
}
"""Which numbers, and how many dates, a calendar has."""


def _range(least: int, most: int) -> str:
    return f"{least} to {most}" if least < most else str(least)


def _month_after(day: date) -> date:
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)


def _clamped(day: date, number: int) -> date:
    """That day of the month, or the last day of a month that is too short."""
    last = _month_after(day) - timedelta(days=1)
    return day.replace(day=min(number, last.day))


def name_of(at: int, zone: ZoneInfo) -> str:
    """The month a moment belongs to, as the tenant's calendar has it: "2026-11"."""
    local = datetime.fromtimestamp(at // 1_000_000, zone)
    return f"{local.year:04d}-{local.month:02d}"


def bounds_of(period: str, zone: ZoneInfo) -> tuple[int, int]:
    """Of a calendar month."""
    first = month_of(period)
    if first is None:
        raise Refused("not_a_period", period=period, example="2026-11")
    return midnight(first, zone), midnight(_month_after(first), zone)


def month_of(period: str) -> date | None:
    """The first day of what is named as a calendar month is; None for any other name."""
    try:
        first = date.fromisoformat(f"{period}-01") if len(period) == len("2026-11") else None
    except ValueError:
        first = None
    return first if first is not None and YEAR_MIN <= first.year <= YEAR_MAX else None


def midnight(day: date, zone: ZoneInfo) -> int:
    """The first moment of a day, also of one whose midnight the clocks skipped."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1_000_000


def add_months(ends_on: str, months: int) -> str:
    """The last day of a term that is so many months longer; the end of a month stays one."""
    first = date_of(ends_on) + timedelta(days=1)
    count = min(first.year * 12 + first.month - 1 + months, YEAR_MAX * 12 + 11)
    target = _clamped(date(count // 12, count % 12 + 1, 1), first.day)
    return (target - timedelta(days=1)).isoformat()


def local_day(at: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(at // 1_000_000, zone).date()


def date_of(text: str) -> date:
    try:
        # Other forms of ISO 8601 would be stored as they came, and not compare as text.
        if not DATE.fullmatch(text):
            raise ValueError(text)
        found = date.fromisoformat(text)
    except ValueError:
        raise Refused("not_a_date", date=text, example="2026-11-01") from None
    if not YEAR_MIN <= found.year <= YEAR_MAX:
        raise Refused("not_a_date", date=text, example="2026-11-01")
    return found
