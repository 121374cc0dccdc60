"""Quiet hours and digests: when somebody is told of what has happened, in the tenant's time zone.

What happens in quiet hours is told when they end; a digest is told at the end of its hour, or in the
morning. Never earlier than it happened, and on days of 23 or 25 hours as well.
"""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct

from .refusals import Refused

DAY_MINUTES = 24 * 60
HOUR = 3_600_000_000
DIGESTS = ("hour", "day")
MORNING_MINUTE = 8 * 60
"""When the digest of a day is told."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class QuietHours(Struct, frozen=True, array_like=True):
    """From one minute of the day to another, over midnight if the second is the smaller one."""

    starts: int
    ends: int


def check_quiet(quiet: QuietHours | None) -> None:
    if quiet is None:
        return
    for minute in (quiet.starts, quiet.ends):
        if not 0 <= minute < DAY_MINUTES or quiet.starts == quiet.ends:
            raise Refused("bad_hours", starts=quiet.starts, ends=quiet.ends)


def told_at(at: int, quiet: QuietHours | None, digest: str, zone: ZoneInfo) -> int:
    """When what happened at a moment is told; the moment itself means at once."""
    then = at
    if digest == "hour":
        then = _hour_after(at, zone)
    elif digest == "day":
        then = _next(at, MORNING_MINUTE, zone)
    return _after_quiet(then, quiet, zone)


def _after_quiet(at: int, quiet: QuietHours | None, zone: ZoneInfo) -> int:
    if quiet is None:
        return at
    local = (_EPOCH + at * _MICROSECOND).astimezone(zone)
    minute = local.hour * 60 + local.minute
    if quiet.starts < quiet.ends:
        is_quiet = quiet.starts <= minute < quiet.ends
    else:
        is_quiet = minute >= quiet.starts or minute < quiet.ends
    return _next(at, quiet.ends, zone) if is_quiet else at


def _hour_after(at: int, zone: ZoneInfo) -> int:
    offset = (_EPOCH + at * _MICROSECOND).astimezone(zone).utcoffset() or timedelta()
    return at - (at + offset // _MICROSECOND) % HOUR + HOUR


def _next(at: int, minute: int, zone: ZoneInfo) -> int:
    """The next moment after `at` when clocks show this minute of the day."""
    day = (_EPOCH + at * _MICROSECOND).astimezone(zone).date()
    candidates = (
        _moment(day + timedelta(days=later), minute, fold, zone) for later in (0, 1) for fold in (0, 1)
    )
    # A day whose clocks are set back shows the minute twice, and the first may be past.
    return next(moment for moment in candidates if moment > at)


def _moment(day: date, minute: int, fold: int, zone: ZoneInfo) -> int:
    local = datetime.combine(day, time(minute // 60, minute % 60, fold=fold), zone)
    return (local.astimezone(UTC) - _EPOCH) // _MICROSECOND
