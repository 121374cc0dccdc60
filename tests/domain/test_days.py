"""Days of the tenant's calendar, where clocks change and where they do not."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allotment.domain.contract import bounds_of
from allotment.domain.days import Days, date_of, day_of, start_of

HOUR = 3_600_000_000
ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Africa/Cairo", "Asia/Kathmandu", "Pacific/Apia")


def micro(text):
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("at", "zone", "date", "hours"),
    [
        ("1970-01-01T00:00:00+00:00", "UTC", "1970-01-01", 24),
        ("2028-02-29T23:59:59.999999+00:00", "UTC", "2028-02-29", 24),
        ("2028-03-01T00:00:00+00:00", "UTC", "2028-03-01", 24),
        ("2026-03-28T22:59:59+00:00", "Europe/Berlin", "2026-03-28", 24),
        ("2026-03-28T23:00:00+00:00", "Europe/Berlin", "2026-03-29", 23),
        ("2026-03-29T21:59:59+00:00", "Europe/Berlin", "2026-03-29", 23),
        ("2026-10-24T22:00:00+00:00", "Europe/Berlin", "2026-10-25", 25),
        ("2026-10-25T22:59:59+00:00", "Europe/Berlin", "2026-10-25", 25),
        # Clocks go on at midnight: the day begins at one o'clock.
        ("2026-04-23T22:00:00+00:00", "Africa/Cairo", "2026-04-24", 23),
        # They go back from midnight: eleven o'clock at night comes twice, on the same day.
        ("2026-10-29T21:30:00+00:00", "Africa/Cairo", "2026-10-29", 25),
        # They went back a minute after midnight: the second 23:01 counts to the day that had begun.
        ("2010-11-07T02:31:30+00:00", "America/St_Johns", "2010-11-07", 25),
    ],
)
def test_a_day_is_what_lies_between_two_midnights(at, zone, date, hours):
    zone = ZoneInfo(zone)
    day = day_of(micro(at), zone)
    assert date_of(day) == date
    assert start_of(day + 1, zone) - start_of(day, zone) == hours * HOUR


@given(at=st.integers(0, 4 * 10**15), zone=st.sampled_from(ZONES), later=st.integers(0, 3 * 24 * HOUR))
def test_each_moment_has_one_day_and_days_never_go_back(at, zone, later):
    zone = ZoneInfo(zone)
    days = Days(zone)
    day = days.of(at)
    assert start_of(day, zone) <= at < start_of(day + 1, zone)
    assert day <= days.of(at + later) == day_of(at + later, zone)


@given(month=st.integers(0, 600), zone=st.sampled_from(ZONES))
def test_a_period_consists_of_whole_days(month, zone):
    zone = ZoneInfo(zone)
    starts_at, ends_at = bounds_of(f"{1971 + month // 12:04d}-{month % 12 + 1:02d}", zone)
    assert start_of(day_of(starts_at, zone), zone) == starts_at
    assert start_of(day_of(ends_at - 1, zone) + 1, zone) == ends_at
