"""How a contract's calendar cuts time in the tenant's zone, whatever its clocks do."""

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allotment.domain.calendar import Calendar, add_months, check_calendar, local_day, stretch_at
from allotment.domain.refusals import Refused

HOUR = 3_600_000_000
DAY = 24 * HOUR
MONTHLY = Calendar()


def billing(day):
    return Calendar("billing_day", day)


def stretch(calendar, moment, zone="Europe/Berlin"):
    at = int(datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1_000_000
    found = stretch_at(calendar, at, ZoneInfo(zone))
    assert found is None or found.starts_at <= at < found.ends_at
    return found


def days(calendar, moment, zone="Europe/Berlin"):
    """The first day of a stretch, and the first day after it."""
    found = stretch(calendar, moment, zone)
    return found and (str(found.first), str(local_day(found.ends_at, ZoneInfo(zone))))


@pytest.mark.parametrize(
    ("calendar", "moment", "expected"),
    [
        (MONTHLY, "2026-11-30 23:59", ("2026-11-01", "2026-12-01")),
        (billing(1), "2026-11-30 23:59", ("2026-11-01", "2026-12-01")),
        (billing(15), "2026-11-14 23:59", ("2026-10-15", "2026-11-15")),
        (billing(15), "2026-11-15 00:00", ("2026-11-15", "2026-12-15")),
        (billing(15), "2027-01-02 12:00", ("2026-12-15", "2027-01-15")),
        # A month that is too short ends its period on its last day, and the next goes back to the day.
        (billing(31), "2026-02-27 12:00", ("2026-01-31", "2026-02-28")),
        (billing(31), "2026-02-28 00:00", ("2026-02-28", "2026-03-31")),
        (billing(31), "2026-04-30 00:00", ("2026-04-30", "2026-05-31")),
        (billing(30), "2024-02-29 00:00", ("2024-02-29", "2024-03-30")),
        (billing(29), "2026-02-28 00:00", ("2026-02-28", "2026-03-29")),
        (billing(28), "2026-02-28 00:00", ("2026-02-28", "2026-03-28")),
        (Calendar("weekly", 1), "2026-11-15 23:59", ("2026-11-09", "2026-11-16")),
        (Calendar("weekly", 7), "2026-11-15 00:00", ("2026-11-15", "2026-11-22")),
        (Calendar("weekly", 7), "2026-11-14 23:59", ("2026-11-08", "2026-11-15")),
        (Calendar("days", 10, ("2026-11-01",)), "2026-11-11 00:00", ("2026-11-11", "2026-11-21")),
        (Calendar("days", 10, ("2026-11-01",)), "2026-10-31 00:00", ("2026-10-22", "2026-11-01")),
        (Calendar("days", 1, ("2026-11-01",)), "2026-11-01 00:00", ("2026-11-01", "2026-11-02")),
        (
            Calendar("dates", 0, ("2026-11-01", "2026-11-20")),
            "2026-11-19 23:59",
            ("2026-11-01", "2026-11-20"),
        ),
        (Calendar("dates", 0, ("2026-11-01", "2026-11-20")), "2026-11-20 00:00", None),
        (Calendar("dates", 0, ("2026-11-01", "2026-11-20")), "2026-10-31 23:59", None),
    ],
)
def test_a_calendar_cuts_time_at_local_midnights(calendar, moment, expected):
    assert days(calendar, moment) == expected


@pytest.mark.parametrize(
    ("zone", "calendar", "moment", "length"),
    [
        ("Europe/Berlin", billing(15), "2026-03-20 12:00", 31 * DAY - HOUR),
        ("Europe/Berlin", billing(15), "2026-10-20 12:00", 31 * DAY + HOUR),
        ("Europe/Berlin", Calendar("weekly", 1), "2026-03-25 12:00", 7 * DAY - HOUR),
        ("Europe/Berlin", Calendar("weekly", 7), "2026-10-25 12:00", 7 * DAY + HOUR),
        ("America/New_York", Calendar("days", 1, ("2026-01-01",)), "2026-11-01 12:00", DAY + HOUR),
        # Midnight of 1 October 2017 did not exist there.
        ("America/Asuncion", Calendar("days", 1, ("2017-01-01",)), "2017-10-01 12:00", DAY - HOUR),
        ("America/Asuncion", Calendar("weekly", 7), "2017-10-01 12:00", 7 * DAY - HOUR),
        # Clocks went from 00:01 back to 23:01 of the day before: that day has a second last hour.
        ("America/St_Johns", Calendar("days", 1, ("2010-01-01",)), "2010-11-07 12:00", DAY + HOUR),
        # There was no 30 December 2011: the day before it ended where the day after it began.
        ("Pacific/Apia", Calendar("days", 1, ("2011-01-01",)), "2011-12-29 12:00", DAY),
    ],
)
def test_a_stretch_is_as_long_as_the_clocks_make_it(zone, calendar, moment, length):
    found = stretch(calendar, moment, zone)
    assert found.ends_at - found.starts_at == length


ZONES = ["Europe/Berlin", "America/New_York", "America/St_Johns", "Pacific/Apia", "Africa/Casablanca", "UTC"]
CALENDARS = st.one_of(
    st.just(MONTHLY),
    st.integers(1, 31).map(billing),
    st.integers(1, 7).map(lambda day: Calendar("weekly", day)),
    st.integers(1, 366).map(lambda count: Calendar("days", count, ("2024-02-29",))),
)


@given(
    CALENDARS, st.sampled_from(ZONES).map(ZoneInfo), st.integers(63_072_000_000_000, 4_102_444_800_000_000)
)
def test_every_moment_lies_in_one_stretch_and_stretches_follow_each_other(calendar, zone, at):
    found = [stretch_at(calendar, at, zone)]
    for _ in range(3):
        found.append(stretch_at(calendar, found[-1].ends_at, zone))
    assert found[0].starts_at <= at < found[0].ends_at
    for before, after in pairwise(found):
        assert before.ends_at == after.starts_at < after.ends_at
        assert before.first < after.first
        assert stretch_at(calendar, before.ends_at - 1, zone) == before


@pytest.mark.parametrize(
    ("calendar", "code", "field"),
    [
        (billing(0), "bad_calendar", "number"),
        (billing(32), "bad_calendar", "number"),
        (billing(-1), "bad_calendar", "number"),
        (Calendar("month", 1), "bad_calendar", "number"),
        (Calendar("weekly", 0), "bad_calendar", "number"),
        (Calendar("weekly", 8), "bad_calendar", "number"),
        (Calendar("days", 0, ("2026-11-01",)), "bad_calendar", "number"),
        (Calendar("days", 367, ("2026-11-01",)), "bad_calendar", "number"),
        (Calendar("days", 7), "bad_calendar", "starts"),
        (Calendar("weekly", 1, ("2026-11-01",)), "bad_calendar", "starts"),
        (Calendar("dates", 0, ("2026-11-01",)), "bad_calendar", "starts"),
        (Calendar("dates", 0, ("2026-11-02", "2026-11-01")), "bad_calendar", "starts"),
        (Calendar("dates", 0, ("2026-11-01", "2026-11-01")), "bad_calendar", "starts"),
        (Calendar("dates", 0, ("2026-11-01", "2026-11-31")), "not_a_date", None),
        (Calendar("dates", 0, ("2026-11-01", "20261130")), "not_a_date", None),
    ],
)
def test_what_cuts_no_time_is_refused(calendar, code, field):
    with pytest.raises(Refused) as refused:
        check_calendar(calendar)
    assert (refused.value.code, refused.value.facts.get("field")) == (code, field)


@pytest.mark.parametrize(
    ("ends_on", "months", "expected"),
    [
        ("2026-12-31", 12, "2027-12-31"),
        ("2026-11-30", 1, "2026-12-31"),
        ("2026-11-14", 3, "2027-02-14"),
        ("2026-01-30", 1, "2026-02-27"),
        ("2028-02-28", 12, "2029-02-27"),
        ("2027-02-28", 12, "2028-02-29"),
    ],
)
def test_a_term_is_longer_by_whole_months(ends_on, months, expected):
    assert add_months(ends_on, months) == expected


def test_a_moment_that_no_calendar_has_is_in_no_stretch():
    assert stretch_at(MONTHLY, 2**60, ZoneInfo("UTC")) is None
    assert stretch_at(MONTHLY, -1, ZoneInfo("UTC")) is None
