"""When somebody is told: quiet hours and digests, in the tenant's time zone."""

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allotment.domain.quiet import QuietHours, check_quiet, told_at
from allotment.domain.refusals import Refused

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT, NOON, SPRING, AUTUMN = (
    QuietHours(22 * 60, 7 * 60),
    QuietHours(12 * 60, 13 * 60),
    QuietHours(60, 150),
    QuietHours(60, 150),
)


@pytest.mark.parametrize(
    ("happened", "quiet", "digest", "told"),
    [
        ("2026-11-15 12:00", None, "", "2026-11-15 12:00"),
        ("2026-11-15 21:59", NIGHT, "", "2026-11-15 21:59"),
        ("2026-11-15 22:00", NIGHT, "", "2026-11-16 07:00"),
        ("2026-11-16 00:00", NIGHT, "", "2026-11-16 07:00"),
        ("2026-11-16 06:59", NIGHT, "", "2026-11-16 07:00"),
        ("2026-11-16 07:00", NIGHT, "", "2026-11-16 07:00"),
        ("2026-11-16 12:30", NOON, "", "2026-11-16 13:00"),
        ("2026-11-16 13:00", NOON, "", "2026-11-16 13:00"),
        ("2026-11-15 12:00", None, "hour", "2026-11-15 13:00"),
        ("2026-11-15 12:59", None, "hour", "2026-11-15 13:00"),
        ("2026-11-15 12:00", None, "day", "2026-11-16 08:00"),
        ("2026-11-15 07:59", None, "day", "2026-11-15 08:00"),
        ("2026-11-15 21:30", NIGHT, "hour", "2026-11-16 07:00"),
        # Clocks go forward at 02:00: 02:30 is not there, and 03:30 is what it would have been.
        ("2026-03-29 01:30", SPRING, "", "2026-03-29 03:30"),
        ("2026-03-28 22:30", NIGHT, "", "2026-03-29 07:00"),
        # Clocks go back at 03:00.
        ("2026-10-24 22:30", NIGHT, "", "2026-10-25 07:00"),
        ("2026-10-25 01:30", AUTUMN, "", "2026-10-25 02:30"),
    ],
)
def test_when_somebody_is_told(at, happened, quiet, digest, told):
    assert told_at(at(happened), quiet, digest, BERLIN) == at(told)


def test_quiet_hours_that_come_twice_in_a_night_are_kept_twice(at):
    first = at("2026-10-25 02:10")
    second = first + 3_600_000_000
    assert told_at(second, AUTUMN, "", BERLIN) == second + 20 * 60_000_000


def test_an_hour_ends_by_the_clocks_of_the_tenant(at):
    kolkata = ZoneInfo("Asia/Kolkata")
    happened = at("2026-11-15 12:10", "Asia/Kolkata")
    assert told_at(happened, None, "hour", kolkata) == at("2026-11-15 13:00", "Asia/Kolkata")


MINUTES = st.integers(0, 1439)


@given(
    st.integers(1_735_686_000_000_000, 1_830_294_000_000_000),
    st.tuples(MINUTES, MINUTES).filter(lambda hours: hours[0] != hours[1]),
    st.sampled_from(["", "hour", "day"]),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]),
)
def test_nobody_is_told_before_it_happened_nor_more_than_two_days_later(at, hours, digest, zone):
    then = told_at(at, QuietHours(*hours), digest, ZoneInfo(zone))
    assert at <= then <= at + 2 * 25 * 3_600_000_000
    assert told_at(then, QuietHours(*hours), "", ZoneInfo(zone)) >= then


@pytest.mark.parametrize("quiet", [QuietHours(-1, 60), QuietHours(0, 1440), QuietHours(60, 60)])
def test_hours_that_are_none_are_refused(quiet):
    with pytest.raises(Refused, match="bad_hours"):
        check_quiet(quiet)
