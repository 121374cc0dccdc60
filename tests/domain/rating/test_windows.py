"""Windows of time: rated as at the start, or split at the boundary; when the clocks change, too."""

from datetime import datetime
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest

from allotment.domain.rating.language import Band, Span, Window
from allotment.domain.rating.rate import EXACT_MAX
from allotment.domain.rating.working import working
from allotment.domain.tariff import PublishTariff, Rate, Tariff, check_tariff, published_as

WORKDAYS = ("mon", "tue", "wed", "thu", "fri")
PEAK = Window("peak", (Span(WORKDAYS, 8 * 60, 18 * 60),))


def moment(text: str, fold: int = 0, zone: str = "Europe/Berlin") -> int:
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return int(local.timestamp()) * 1_000_000


def tariff(windows, *rates, holidays=(), zone="Europe/Berlin"):
    command = PublishTariff(
        "t", 0, "EUR", rates, zones=(), windows=windows, holidays=holidays, time_zone=zone
    )
    check_tariff(command)
    return Tariff(published_as(command, 1, "UTC"))


def prices(split: bool, increment: int = 1, name: str = "peak"):
    """In the window 2000 micro-units a second, at other times 1000."""
    return (
        Rate("voice", "z", "0.12", 60, increment=increment, window=name, split=split),
        Rate("voice", "z", "0.06", 60, increment=increment, split=split),
    )


def cost(version, at, quantity, taken=0):
    rate = version.find("voice", "outbound", "", at)
    billed = rate.billed(quantity)
    exact = Fraction(*rate.rate(billed, taken, at).exact)
    assert sum((one.exact for one in working(rate, billed, taken, at)), Fraction()) == exact
    return exact


@pytest.mark.parametrize(
    ("at", "quantity", "increment", "at_start", "split"),
    [
        # Monday; the window ends at 18:00:00.
        ("2026-11-16 17:59:59", 1, 1, 2_000, 2_000),
        ("2026-11-16 17:59:59", 2, 1, 4_000, 3_000),
        ("2026-11-16 18:00:00", 2, 1, 2_000, 2_000),
        ("2026-11-16 17:59:30", 60, 1, 120_000, 90_000),
        # An increment costs what holds when it begins.
        ("2026-11-16 17:59:30", 60, 60, 120_000, 120_000),
        ("2026-11-16 17:59:30", 61, 60, 240_000, 180_000),
        ("2026-11-16 17:59:30", 66, 6, 132_000, 96_000),
        # It begins at 08:00:00.
        ("2026-11-16 07:59:59", 2, 1, 2_000, 3_000),
        ("2026-11-16 08:00:00", 2, 1, 4_000, 4_000),
        # All of a working day, and from Friday to Monday.
        ("2026-11-16 00:00:00", 86_400, 1, 86_400_000, 86_400_000 + 36_000_000),
        ("2026-11-20 17:00:00", 3 * 86_400, 1, 2 * 259_200_000, 259_200_000 + 3_600_000 + 32_400_000),
        ("2026-11-21 10:00:00", 60, 1, 60_000, 60_000),
    ],
)
def test_usage_across_a_boundary(at, quantity, increment, at_start, split):
    for choice, exact in ((False, at_start), (True, split)):
        assert cost(tariff((PEAK,), *prices(choice, increment)), moment(at), quantity) == exact


def test_a_start_within_a_second_counts_from_there():
    at = moment("2026-11-16 17:59:59") + 400_000
    # The second increment begins at 18:00:00.4.
    assert cost(tariff((PEAK,), *prices(True)), at, 2) == 3_000


@pytest.mark.parametrize(
    ("window", "at", "fold", "quantity", "inside"),
    [
        # 29 March 2026: after 01:59:59 comes 03:00:00.
        (Span((), 120, 180), "2026-03-29 01:59:30", 0, 60, 0),
        (Span((), 180, 240), "2026-03-29 01:59:30", 0, 60, 30),
        (Span((), 150, 240), "2026-03-29 01:59:30", 0, 60, 30),
        (Span((), 0, 180), "2026-03-29 01:59:30", 0, 60, 30),
        (Span((), 60, 240), "2026-03-29 00:00:00", 0, 86_400, 7_200),
        # 25 October 2026: after 02:59:59 comes 02:00:00 again.
        (Span((), 120, 180), "2026-10-25 01:30:00", 0, 10_800, 7_200),
        (Span((), 150, 180), "2026-10-25 01:30:00", 0, 10_800, 3_600),
        (Span((), 120, 150), "2026-10-25 02:59:59", 0, 2, 1),
        (Span((), 180, 240), "2026-10-25 02:59:59", 0, 2, 0),
        (Span((), 180, 240), "2026-10-25 02:59:59", 1, 2, 1),
        # The night of Saturday belongs to Saturday; this one has an hour more.
        (Span(("sat",), 1_320, 360), "2026-10-24 22:00:00", 0, 40_000, 9 * 3_600),
    ],
)
def test_when_the_clocks_change_the_clock_on_the_wall_decides(window, at, fold, quantity, inside):
    version = tariff((Window("w", (window,)),), *prices(True, name="w"))
    assert cost(version, moment(at, fold), quantity) == 1_000 * (quantity + inside)


def test_half_an_hour_of_summer_time():
    # Lord Howe Island puts its clocks back by half an hour, at 02:00 to 01:30.
    version = tariff(
        (Window("w", (Span((), 90, 120),)),), *prices(True, name="w"), zone="Australia/Lord_Howe"
    )
    at = moment("2026-04-05 01:00:00", zone="Australia/Lord_Howe")
    assert cost(version, at, 7_200) == 1_000 * (7_200 + 3_600)


@pytest.mark.parametrize(
    ("at", "quantity", "exact"),
    [
        # Each 29 February and 25 December is a holiday, and 14 May of this year alone.
        ("2028-02-28 23:59:59", 2, 3_000),
        ("2028-02-29 23:59:59", 2, 3_000),
        ("2027-02-28 23:59:59", 2, 2_000),
        ("2026-12-25 12:00:00", 1, 2_000),
        ("2031-12-25 12:00:00", 1, 2_000),
        ("2026-05-14 12:00:00", 1, 2_000),
        ("2027-05-14 12:00:00", 1, 1_000),
    ],
)
def test_holidays_and_the_leap_day(at, quantity, exact):
    feast = Window("feast", (Span(("holiday",)),))
    version = tariff((feast,), *prices(True, name="feast"), holidays=("02-29", "12-25", "2026-05-14"))
    assert cost(version, moment(at), quantity) == exact


def test_a_holiday_is_no_day_of_the_week():
    version = tariff((PEAK,), *prices(False), holidays=("2026-11-16",))
    assert cost(version, moment("2026-11-16 12:00:00"), 1) == 1_000
    assert cost(version, moment("2026-11-17 12:00:00"), 1) == 2_000


def test_of_two_windows_the_first_of_the_tariff_counts():
    lunch = Window("lunch", (Span((), 720, 780),))
    rows = (*prices(True), Rate("voice", "z", "0", window="lunch", split=True))
    at = moment("2026-11-16 11:59:00")
    assert cost(tariff((lunch, PEAK), *rows), at, 3_720) == 60 * 2_000 + 60 * 2_000
    assert cost(tariff((PEAK, lunch), *rows), at, 3_720) == 3_720 * 2_000


def test_bands_and_windows_together():
    # After a minute all costs half as much, in and out of the window; by the minute, then by the second.
    rows = [
        Rate(*("voice", "z", price, 60), increment=60, window=name, split=True, bands=(Band(60, half, 60),))
        for name, price, half in (("peak", "0.12", "0.06"), ("", "0.06", "0.03"))
    ]
    version, at = tariff((PEAK,), *rows), moment("2026-11-16 17:58:50")
    assert cost(version, at, 100) == 60 * 2_000 + 10 * 1_000 + 30 * 500
    told = working(version.find("voice", "outbound", "", at), 100, 0, at)
    assert [(one.band, one.window, one.units) for one in told] == [
        (0, "peak", 60),
        (1, "peak", 10),
        (1, "", 30),
    ]


def test_midnight_is_no_boundary_of_what_goes_on():
    version, at = tariff((PEAK,), *prices(True)), moment("2026-11-16 23:59:00")
    told = working(version.find("voice", "outbound", "", at), 120, 0, at)
    assert [(one.window, one.units) for one in told] == [("", 120)]


def test_a_charge_says_in_which_window_it_began_and_by_which_rate():
    version = tariff((PEAK,), *prices(False))
    peak = version.find("voice", "outbound", "", moment("2026-11-16 12:00:00"))
    other = version.find("voice", "outbound", "", moment("2026-11-16 19:00:00"))
    assert [(rate.index, rate.basis.window) for rate in (peak, other)] == [(0, "peak"), (1, "")]


def test_usage_longer_than_a_month_is_not_split_but_told_to_be_beyond_counting():
    version, at = tariff((PEAK,), *prices(True)), moment("2026-11-16 12:00:00")
    rate = version.find("voice", "outbound", "", at)
    assert max(rate.rate(31 * 86_400, 0, at).exact) < EXACT_MAX
    assert max(rate.rate(31 * 86_400 + 1, 0, at).exact) >= EXACT_MAX


def test_the_tenant_s_time_zone_is_kept_where_the_tariff_names_none():
    told = published_as(PublishTariff("t", 0, "EUR", prices(True), windows=(PEAK,)), 1, "Asia/Tokyo")
    plain = published_as(PublishTariff("t", 0, "EUR", prices(True)[1:]), 1, "Asia/Tokyo")
    assert (told.time_zone, plain.time_zone) == ("Asia/Tokyo", "")
    # Nine in the morning in Tokyo is midnight in UTC.
    assert cost(Tariff(told), moment("2026-11-16 00:00:00", zone="UTC"), 1) == 2_000
