"""Sessions under rates of any shape: however they are reported, they cost what one usage costs.

A call to Germany costs by bands and by time of day; one to the world ends at its maximum charge.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from allotment.domain.bucket import Transferred
from allotment.domain.charging import ChargeUsage, UsageCharged
from allotment.domain.rating.language import Band, Rate, Span, Window
from allotment.domain.session import (
    ReleaseSession,
    Report,
    ReserveUnits,
    SessionDenied,
    UpdateSession,
)
from allotment.domain.tariff import TariffPublished
from allotment.domain.usage import UsageRecord

GERMANY, WORLD = "+4930123456", "+12125550100"
MONTH = "2026-11"
SECOND = 1_000_000
DAY_AND_NIGHT = (Window("day", (Span((), 480, 1_080),)), Window("night", (Span((), 1_080, 480),)))

prices = st.sampled_from(["0", "0.01", "0.06", "1", "0.333333"])
bands = st.lists(st.tuples(st.integers(1, 300), prices, st.sampled_from([1, 7, 60])), max_size=2)


@st.composite
def rates(draw):
    """One rate, or one for the day and one for the night that agree on increments."""
    increment, minimum = draw(st.sampled_from([1, 6, 60])), draw(st.sampled_from([0, 30, 60]))
    starts = sorted({start for start, _, _ in draw(bands)})
    common = {
        "per": 60,
        "increment": increment,
        "minimum": minimum,
        "connect_fee": draw(st.sampled_from(["0", "0.05"])),
        "included": draw(st.booleans()),
        "minimum_charge": draw(st.sampled_from(["", "0.10"])),
        "maximum_charge": draw(st.sampled_from(["", "0.50", "3"])),
        "prefix": "+49",
    }
    steps = draw(st.sampled_from([1, 30]))

    def one(window):
        own = tuple(Band(start, draw(prices), 60, steps) for start in starts)
        return Rate("voice", "de", draw(prices), window=window, split=bool(window), bands=own, **common)

    return [one("day"), one("night")] if draw(st.booleans()) else [one("")]


def tariff(*rows, **more):
    return TariffPublished("shaped", 2, 0, "EUR", "half_up", 4, (*rows, Rate("data", "any", "0.01")), **more)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=rates(),
    reports=st.lists(st.tuples(st.integers(0, 250), st.sampled_from([0, None, 1, 60, 500])), max_size=6),
    begins=st.integers(-300, 30),
    allocated=st.integers(0, 300),
)
def test_any_split_of_reports_charges_what_one_whole_usage_charges(
    company, at, rows, reports, begins, allocated
):
    """Around the moment at which night begins."""
    moment = at("2026-11-15 18:00") + begins * SECOND
    used, charges = sum(report for report, _ in reports), []
    for split in (reports, [(used, None)], None):
        acme = company(
            tariff(*rows, windows=DAY_AND_NIGHT, time_zone="Europe/Berlin"),
            Transferred("acme", "apac", "voice", MONTH, 1000 - allocated, "allocate"),
        )
        record = UsageRecord("pbx", "s", "r-1", "voice", 0, moment, "outbound", GERMANY)
        if split is None:
            events = acme.do(ChargeUsage(replace(record, quantity=used), b"r-1", b""), moment)
        else:
            acme.do(ReserveUnits(record, 0, b"r-1", b""), moment)
            for number, (more, requested) in enumerate(split[:-1], 1):
                acme.do(UpdateSession("pbx", "s", number, Report(more), requested), moment)
            last = split[-1][0] if split else 0
            events = acme.do(ReleaseSession("pbx", "s", 99, Report(last)), moment)
        charges.append([event for event in events if isinstance(event, UsageCharged) and event.quantity])
        acme.tenant.check_whole()
        assert not any(acme.family("voice").reserved)
    assert charges[0] == charges[1] == charges[2]


@pytest.fixture
def calling(company, now):
    """Opens sessions of a company with a tariff of its own."""

    def opened(*rows, requested=0, to=WORLD, start=now, **more):
        acme = company(tariff(*rows, **more))
        record = UsageRecord("pbx", "s", "r-1", "voice", requested, start, "outbound", to)
        return acme, acme.do(ReserveUnits(record, 0, b"r-1", b""), start)[0]

    return opened


CAPPED = Rate("voice", "world", "0.60", per=60, prefix="+", included=False, maximum_charge="1", ends=True)


@pytest.mark.parametrize(
    ("requested", "granted", "final"),
    [
        (99, 99, False),
        (100, 100, True),  # 100 seconds at a cent each are the maximum charge
        (101, 100, True),
        (5000, 100, True),
        (0, 12, False),  # an eighth of what the cap leaves
    ],
)
def test_a_session_ends_at_the_maximum_charge_of_its_rate(calling, requested, granted, final):
    _, told = calling(CAPPED, requested=requested)
    assert (told.granted, told.final, told.held.amount) == (granted, final, granted * 10_000)


def test_beyond_the_maximum_charge_more_is_denied_and_what_was_used_costs_no_more(calling, now):
    acme, told = calling(CAPPED, requested=500)
    denied = acme.do(UpdateSession("pbx", "s", 1, Report(100), 60), now)[0]
    assert isinstance(denied, SessionDenied)
    assert (denied.reason, denied.counted, denied.limit, denied.stopped_by) == (
        *("maximum_charge", "money", 1_000_000),
        told.path[0],
    )
    released, charge = acme.do(ReleaseSession("pbx", "s", 2, Report(30)), now)
    assert (released.overrun, charge.quantity, charge.amount) == (0, 130, 1_000_000)


def test_where_the_rate_does_not_end_it_a_session_goes_on_for_nothing(calling):
    _, told = calling(replace(CAPPED, ends=False), requested=500)
    assert (told.granted, told.final, told.held.amount) == (500, False, 1_000_000)


SPLIT = tuple(
    Rate("voice", "world", price, per=60, prefix="+", window=window, split=True)
    for window, price in (("day", "0.60"), ("night", "0.06"))
)


@pytest.mark.parametrize(
    ("start", "requested", "switch"),
    [
        ("2026-11-15 17:58", 120, ""),  # the slice ends as the night begins
        ("2026-11-15 17:58", 121, "2026-11-15 18:00"),
        ("2026-11-15 18:00", 600, ""),
        ("2026-11-15 12:00", 600, ""),
        ("2026-11-16 07:59", 600, "2026-11-16 08:00"),
    ],
)
def test_it_is_told_when_the_price_changes_within_a_slice(calling, at, start, requested, switch):
    windows = {"windows": DAY_AND_NIGHT, "time_zone": "Europe/Berlin"}
    _, told = calling(*SPLIT, requested=requested, start=at(start), **windows)
    assert (told.conditions.switch_at if told.conditions else 0) == (at(switch) if switch else 0)


def test_the_same_price_in_two_windows_is_no_change(calling, at):
    same = [replace(row, price="0.60") for row in SPLIT]
    windows = {"windows": DAY_AND_NIGHT, "time_zone": "Europe/Berlin"}
    _, told = calling(*same, requested=600, start=at("2026-11-15 17:58"), **windows)
    assert told.conditions is None
