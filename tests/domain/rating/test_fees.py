"""Shares of recurring fees: by the day, exactly, and never more or less than the whole."""

from datetime import date
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allotment.domain.calendar import MONTHLY, Stretch, midnight, stretch_at
from allotment.domain.rating.fees import Fee, Presence, Ruler, owed, shares
from allotment.domain.rating.plan_checks import check_fees
from allotment.domain.refusals import Refused

BERLIN = ZoneInfo("Europe/Berlin")
KINDS = {"node": ("division", "cost_centre"), "resource": ("sip", "msisdn")}


def month(text):
    found = stretch_at(MONTHLY, midnight(date.fromisoformat(f"{text}-01"), BERLIN), BERLIN)
    assert found is not None
    return found


def at(day, hours=0):
    return midnight(date.fromisoformat(day), BERLIN) + hours * 3_600_000_000


NOVEMBER = month("2026-11")


@pytest.mark.parametrize(
    ("since", "until", "days"),
    [
        (0, 1 << 62, 30),
        (at("2026-11-01"), at("2026-12-01"), 30),
        (at("2026-11-16"), 1 << 62, 15),
        (at("2026-11-16", 15), 1 << 62, 15),  # a day counts for who is there at its end
        (0, at("2026-11-16"), 15),
        (0, at("2026-11-16", 15), 15),
        (at("2026-11-16", 1), at("2026-11-16", 23), 0),
        (at("2026-11-16", 1), at("2026-11-17"), 1),
        (at("2026-11-30", 23), 1 << 62, 1),
        (at("2026-12-01"), 1 << 62, 0),
        (0, at("2026-11-01"), 0),
        (at("2026-11-05"), at("2026-11-05"), 0),
    ],
)
def test_days(since, until, days):
    ruler = Ruler(NOVEMBER, "day", BERLIN)
    assert (ruler.length(since, until), ruler.whole) == (days, 30)


@pytest.mark.parametrize(
    ("text", "days"), [("2026-02", 28), ("2028-02", 29), ("2026-03", 31), ("2026-10", 31)]
)
def test_a_leap_day_is_a_day_and_so_are_those_of_23_and_25_hours(text, days):
    stretch = month(text)
    ruler = Ruler(stretch, "day", BERLIN)
    assert ruler.whole == ruler.length(stretch.starts_at, stretch.ends_at) == days


def test_by_the_microsecond_an_hour_of_march_is_one_of_743():
    ruler = Ruler(month("2026-03"), "exact", BERLIN)
    there = [Presence(1, at("2026-03-10"), at("2026-03-10", 1), 1)]
    assert shares(ruler, there) == {1: Fraction(1, 743)}


def test_the_example_of_the_handbook():
    # Three SIP trunks of 10 channels all month, one of 4 from the 16th on: 30 + 2 channels.
    ruler = Ruler(NOVEMBER, "day", BERLIN)
    there = [Presence(7, 0, 1 << 62, 30), Presence(7, at("2026-11-16", 9), 1 << 62, 4)]
    (share,) = shares(ruler, there).values()
    assert (share, owed(Fee("channel", "4.90", "channel"), share)) == (32, 156_800_000)


@given(
    st.sampled_from(["day", "exact"]),
    st.sampled_from(["2026-02", "2026-03", "2026-10", "2028-02"]),
    st.lists(st.integers(0, 31 * 86_400_000_000), max_size=6),
)
def test_however_a_stretch_is_cut_its_parts_add_up_to_the_whole(share, text, cuts):
    stretch = month(text)
    ruler = Ruler(stretch, share, BERLIN)
    bounds = sorted({stretch.starts_at - 5, stretch.ends_at + 5, *(stretch.starts_at + cut for cut in cuts)})
    there = [Presence(n, a, b, 3) for n, (a, b) in enumerate(pairwise(bounds))]
    assert sum(shares(ruler, there).values()) == 3


def test_a_stretch_of_a_list_of_dates_is_measured_as_it_is():
    stretch = Stretch(date(2026, 11, 1), at("2026-11-01"), at("2026-11-08"))
    assert Ruler(stretch, "day", BERLIN).whole == 7


@pytest.mark.parametrize(
    ("fee", "field"),
    [
        (Fee("f", "-1"), "fees[0].amount"),
        (Fee("f", "1", "person"), "fees[0].each"),
        (Fee("f", "1", "node", "sip"), "fees[0].kind"),
        (Fee("f", "1", "resource", "division"), "fees[0].kind"),
        (Fee("f", "1", "enterprise", "division"), "fees[0].kind"),
        (Fee("f", "1", share="week"), "fees[0].share"),
    ],
)
def test_a_fee_for_nothing_is_refused_with_the_path_of_the_field(fee, field):
    with pytest.raises(Refused) as refused:
        check_fees([fee], KINDS)
    assert (refused.value.code, refused.value.facts["field"]) == ("bad_tariff", field)


def test_fees_for_each_kind_there_is():
    check_fees(
        [Fee("a", "1", "node"), Fee("b", "1", "channel", "sip"), Fee("c", "1", "node", "division")], KINDS
    )
