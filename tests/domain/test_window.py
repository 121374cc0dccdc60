"""Windows: which bin a moment is in, by the tenant's clock, at the edges of days, weeks and clock changes."""

import random
from zoneinfo import ZoneInfo

import pytest

from allotment.domain.refusals import Refused
from allotment.domain.window import BINS_MAX, HOUR, Calendar, Window, window_of

BERLIN, NEW_YORK, SAMOA, ST_JOHNS, LORD_HOWE = (
    "Europe/Berlin",
    "America/New_York",
    "Pacific/Apia",
    "America/St_Johns",
    "Australia/Lord_Howe",
)


def calendar(zone=BERLIN):
    made = Calendar()
    made.zone = ZoneInfo(zone)
    return made


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("period", None),
        ("day", Window("day", "day", 1)),
        ("week", Window("week", "week", 1)),
        ("last_1_days", Window("last_1_days", "day", 1)),
        ("last_7_days", Window("last_7_days", "day", 7)),
        ("last_24_hours", Window("last_24_hours", "hour", 24)),
        (f"last_{BINS_MAX['day']}_days", Window("last_92_days", "day", 92)),
        (f"last_{BINS_MAX['hour']}_hours", Window("last_744_hours", "hour", 744)),
    ],
)
def test_windows_by_name(name, window):
    assert window_of(name) == window


@pytest.mark.parametrize(
    "name",
    ["", "month", "Day", "last_0_days", "last_93_days", "last_745_hours", "last_07_days", "last_7_weeks"],
)
def test_what_is_no_window_is_refused(name):
    with pytest.raises(Refused) as refused:
        window_of(name)
    assert refused.value.code == "bad_window"


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        (BERLIN, "2026-03-28", 24),
        (BERLIN, "2026-03-29", 23),
        (BERLIN, "2026-10-25", 25),
        (NEW_YORK, "2026-03-08", 23),
        (NEW_YORK, "2026-11-01", 25),
        ("UTC", "2026-03-29", 24),
    ],
)
def test_a_day_is_as_long_as_the_clocks_make_it(zone, day, hours):
    days = calendar(zone)
    starts_at, ends_at = days.bounds("day", days.bin_named("day", day))
    assert ends_at - starts_at == hours * HOUR
    inside = {days.bin_of("day", at) for at in range(starts_at, ends_at, HOUR // 2)}
    assert [days.label("day", number) for number in inside] == [day]
    assert days.label("day", days.bin_of("day", ends_at)) > day
    assert days.label("day", days.bin_of("day", starts_at - 1)) < day


@pytest.mark.parametrize(
    ("text", "unit", "label"),
    [
        ("2026-11-15 00:00", "day", "2026-11-15"),
        ("2026-11-15 23:59", "day", "2026-11-15"),
        # A Sunday, and the Monday after it; the first days of 2027 are of the last week of 2026.
        ("2026-11-15 23:59", "week", "2026-W46"),
        ("2026-11-16 00:00", "week", "2026-W47"),
        ("2027-01-03 12:00", "week", "2026-W53"),
        ("2027-01-04 00:00", "week", "2027-W01"),
        ("2026-11-15 12:59", "hour", "2026-11-15T11Z"),
        ("2026-11-15 13:00", "hour", "2026-11-15T12Z"),
    ],
)
def test_bins_have_names_that_lead_back_to_them(at, text, unit, label):
    days = calendar()
    number = days.bin_of(unit, at(text))
    assert (days.label(unit, number), days.bin_named(unit, label)) == (label, number)


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, SAMOA, ST_JOHNS, LORD_HOWE, "America/Sao_Paulo"])
@pytest.mark.parametrize("unit", ["hour", "day", "week"])
def test_every_moment_is_in_one_bin_whatever_was_asked_before(zone, unit):
    chance, remembering = random.Random(zone), calendar(zone)
    moments = [chance.randrange(0, 2_000_000_000) * 1_000_000 for _ in range(300)]
    for at in moments:
        number = remembering.bin_of(unit, at)
        starts_at, ends_at = remembering.bounds(unit, number)
        assert starts_at <= at < ends_at
        assert calendar(zone).bin_of(unit, at) == number
    # Around midnight, where clocks that go back show a date twice.
    for number in {remembering.bin_of("day", at) for at in moments[:60]}:
        midnight = remembering.bounds("day", number)[0]
        for at in range(midnight - 2 * HOUR, midnight + 2 * HOUR, HOUR // 4):
            found = remembering.bin_of(unit, at)
            starts_at, ends_at = remembering.bounds(unit, found)
            assert starts_at <= at < ends_at
            assert calendar(zone).bin_of(unit, at) == found


def test_weeks_and_hours_have_no_holes():
    days = calendar()
    for unit in ("hour", "day", "week"):
        first = days.bin_of(unit, 1_790_000_000_000_000)
        for number in range(first, first + 60):
            assert days.bounds(unit, number)[1] == days.bounds(unit, number + 1)[0]
