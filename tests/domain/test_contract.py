"""What was bought per period, and which period a moment belongs to in the tenant's calendar."""

import calendar
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allotment.domain.bucket import Granted
from allotment.domain.contract import (
    PERIODS_AHEAD_DAYS,
    QUANTITY_MAX,
    Contracts,
    ContractSigned,
    Grant,
    OpenPeriod,
    PeriodNotOpen,
    PeriodOpened,
    SignContract,
    bounds_of,
    name_of,
)
from allotment.domain.refusals import Refused

HOUR = 3_600_000_000
DAY = 24 * HOUR
VOICE = (Grant("voice", 1000),)
YEAR = "2026-01-01"


@pytest.mark.parametrize(
    ("zone", "period", "length"),
    [
        ("UTC", "2026-11", 30 * DAY),
        ("UTC", "2026-12", 31 * DAY),
        ("UTC", "2024-02", 29 * DAY),
        ("UTC", "2026-02", 28 * DAY),
        ("UTC", "2100-02", 28 * DAY),
        ("UTC", "2000-02", 29 * DAY),
        ("Europe/Berlin", "2026-03", 31 * DAY - HOUR),
        ("Europe/Berlin", "2026-10", 31 * DAY + HOUR),
        ("Europe/Berlin", "2026-07", 31 * DAY),
        ("America/New_York", "2026-03", 31 * DAY - HOUR),
        ("America/New_York", "2026-11", 30 * DAY + HOUR),
        ("Asia/Kolkata", "2026-03", 31 * DAY),
        ("Australia/Lord_Howe", "2026-04", 30 * DAY + HOUR // 2),
        # Midnight of 1 October 2017 did not exist there: the clock went on from 23:59:59 to 01:00.
        ("America/Asuncion", "2017-10", 31 * DAY - HOUR),
        ("America/Asuncion", "2017-09", 30 * DAY),
        # Midnight of 1 November 2026 comes twice there.
        ("America/Havana", "2026-11", 30 * DAY + HOUR),
    ],
)
def test_a_period_is_a_calendar_month_of_the_tenants_clock(zone, period, length):
    starts_at, ends_at = bounds_of(period, ZoneInfo(zone))
    assert ends_at - starts_at == length


@pytest.mark.parametrize(
    ("zone", "moment", "offset", "period"),
    [
        ("Europe/Berlin", "2026-11-01 00:00", -1, "2026-10"),
        ("Europe/Berlin", "2026-11-01 00:00", 0, "2026-11"),
        ("Europe/Berlin", "2026-12-01 00:00", -1, "2026-11"),
        ("Europe/Berlin", "2027-01-01 00:00", -1, "2026-12"),
        ("Europe/Berlin", "2027-01-01 00:00", 0, "2027-01"),
        ("America/New_York", "2026-11-01 00:00", -1, "2026-10"),
        ("America/New_York", "2026-11-01 00:00", 2 * HOUR, "2026-11"),
        ("America/New_York", "2026-12-01 00:00", -1, "2026-11"),
        ("UTC", "2024-02-29 23:59", 0, "2024-02"),
        ("UTC", "2024-03-01 00:00", -1, "2024-02"),
        ("UTC", "1971-01-01 00:00", 0, "1971-01"),
        ("UTC", "1970-01-01 00:00", -1, "1969-12"),
    ],
)
def test_the_last_and_the_first_microsecond_of_a_month(at, zone, moment, offset, period):
    assert name_of(at(moment, zone) + offset, ZoneInfo(zone)) == period


ZONES = ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia", "Africa/Casablanca", "UTC"]


@given(
    st.sampled_from(ZONES).map(ZoneInfo),
    st.integers(31_622_400_000_000, 4_102_444_800_000_000),
)
def test_every_moment_lies_within_the_bounds_of_its_period(zone, moment):
    starts_at, ends_at = bounds_of(name_of(moment, zone), zone)
    assert starts_at <= moment < ends_at


@pytest.mark.parametrize("zone", ZONES)
def test_periods_follow_each_other_without_a_gap(zone):
    bounds = [
        bounds_of(f"{year}-{month:02d}", ZoneInfo(zone))
        for year in (2023, 2024, 2026)
        for month in range(1, 13)
    ]
    for (_, ended), (started, _) in pairwise(bounds):
        assert ended == started or started - ended == 366 * DAY - DAY  # 2025 is left out
    assert bounds[1][1] - bounds[1][0] == calendar.monthrange(2023, 2)[1] * DAY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026",
        "2026-13",
        "2026-00",
        "2026-1",
        "2026-11-01",
        "1969-12",
        "9999-01",
        "2026/11",
        "26-11",
        "２０２６-11",
    ],
)
def test_what_is_no_period_is_refused(text):
    with pytest.raises(Refused) as refused:
        bounds_of(text, ZoneInfo("UTC"))
    assert (refused.value.code, refused.value.facts["period"]) == ("not_a_period", text)


@pytest.mark.parametrize(
    ("history", "command", "outcome"),
    [
        ([], SignContract("c", "2026-11-31", VOICE), "not_a_date"),
        ([], SignContract("c", "", VOICE), "not_a_date"),
        ([], SignContract("", YEAR, VOICE), "bad_text"),
        ([], SignContract("c", YEAR, (*VOICE, *VOICE)), "granted_twice"),
        ([], SignContract("c", YEAR, (Grant("fax", 1),)), "unknown_usage_type"),
        ([], SignContract("c", YEAR, (Grant("voice", -1),)), "quantity_out_of_range"),
        ([], SignContract("c", YEAR, (Grant("voice", QUANTITY_MAX + 1),)), "quantity_out_of_range"),
        (
            [],
            SignContract("c", YEAR, (Grant("voice", QUANTITY_MAX),)),
            [ContractSigned("c", 1, YEAR, (Grant("voice", QUANTITY_MAX),), True)],
        ),
        ([], SignContract("c", YEAR, ()), [ContractSigned("c", 1, YEAR, (), True)]),
        (
            [],
            SignContract("frame", "2024-02-29", VOICE, overage=False),
            [ContractSigned("frame", 2, "2024-02-29", VOICE, False)],
        ),
        ([], OpenPeriod("2026-11"), "period_open_already"),
        ([], OpenPeriod("2025-12"), "no_contract"),
        ([], OpenPeriod("November"), "not_a_period"),
        ([], OpenPeriod("2027-01"), "period_too_far_ahead"),
    ],
)
def test_signing_and_opening(company, history, command, outcome):
    assert company(*history).ask(command) == outcome


@pytest.mark.parametrize("text", ["20261101", "2026-W45-1", "2026-W45", "2026W451"])
def test_a_contract_starts_on_a_date_in_one_form(acme, text):
    assert acme.ask(SignContract("c", text, VOICE)) == "not_a_date"


def test_a_period_is_opened_with_its_bounds_and_its_grants(acme, at):
    events = acme.do(OpenPeriod("2026-12"))
    assert events == [
        PeriodOpened("2026-12", at("2026-12-01 00:00"), at("2027-01-01 00:00"), "frame", 1, True),
        Granted("acme", "voice", "2026-12", 1000),
        Granted("acme", "data", "2026-12", 10_000),
    ]


def test_a_grant_of_nothing_grants_nothing(acme):
    acme.do(SignContract("frame", YEAR, (Grant("voice", 0), Grant("data", 1))))
    assert acme.do(OpenPeriod("2026-12"))[1:] == [Granted("acme", "data", "2026-12", 1)]


def test_a_period_may_be_opened_so_many_days_ahead_and_no_more(acme, at):
    starts_at = at("2027-01-01 00:00")
    earliest = starts_at - PERIODS_AHEAD_DAYS * DAY
    assert acme.ask(OpenPeriod("2027-01"), now=earliest - 1) == "period_too_far_ahead"
    assert isinstance(acme.ask(OpenPeriod("2027-01"), now=earliest), list)


def test_a_contract_signed_again_holds_from_the_next_period_that_is_opened(acme):
    acme.do(SignContract("frame", YEAR, (Grant("voice", 7),), overage=False))
    assert acme.family().granted_total == 1000
    assert acme.tenant.contracts.periods["2026-11"].overage
    opened, *grants = acme.do(OpenPeriod("2026-12"))
    assert (opened.version, opened.overage, grants) == (2, False, [Granted("acme", "voice", "2026-12", 7)])


def test_a_contract_that_has_not_begun_grants_nothing_yet(acme):
    acme.do(SignContract("next", "2027-01-01", (Grant("voice", 7),)))
    assert acme.do(OpenPeriod("2026-12"))[0].contract == "frame"


def test_a_contract_covers_no_day_before_it_starts(told, company, at):
    acme = company()
    history = [
        ContractSigned("frame", 1, "2026-10-15", VOICE, True) if isinstance(event, ContractSigned) else event
        for event in acme.history
    ]
    before = told(*history).use(60, at=at("2026-10-14 12:00"))
    assert [event.topic for event in before] == ["usage.suspended"]


def test_of_contracts_that_have_begun_the_one_that_began_last_holds(acme):
    acme.do(SignContract("amended", "2026-12-01", (Grant("voice", 5),)))
    acme.do(SignContract("corrected", "2026-06-01", (Grant("voice", 6),)))
    assert acme.do(OpenPeriod("2026-10"))[0].contract == "corrected"
    assert acme.do(OpenPeriod("2026-12"))[0].contract == "amended"


def test_of_contracts_that_begin_on_one_day_the_one_signed_later_holds(acme):
    acme.do(SignContract("first", "2026-12-01", (Grant("voice", 5),)))
    acme.do(SignContract("second", "2026-12-01", (Grant("voice", 6),)))
    assert acme.do(OpenPeriod("2026-12"))[0].contract == "second"


def opened_contracts() -> Contracts:
    contracts = Contracts()
    contracts.apply(ContractSigned("c", 1, "2026-01-01", VOICE, True))
    for starts_at in (300, 100, 200):
        contracts.apply(PeriodOpened(f"p{starts_at}", starts_at, starts_at + 50, "c", 1, True))
    return contracts


@pytest.mark.parametrize(
    ("moment", "period"),
    [
        (99, None),
        (100, "p100"),
        (149, "p100"),
        (150, None),
        (199, None),
        (200, "p200"),
        (250, None),
        (300, "p300"),
        (349, "p300"),
        (350, None),
    ],
)
def test_the_bounds_written_when_a_period_was_opened_decide(moment, period):
    contracts = opened_contracts()
    for warmed in (None, 100, 200, 300):
        if warmed:
            contracts.period_at(warmed)
        found = contracts.period_at(moment)
        assert (found.period if found else None) == period


def test_a_period_that_is_not_open_is_asked_for_and_only_under_a_contract(acme, at):
    with pytest.raises(PeriodNotOpen) as needed:
        acme.tenant.contracts.period_for(at("2026-10-31 23:59"))
    assert needed.value.period == "2026-10"
    assert acme.tenant.contracts.period_for(at("2025-12-31 23:59")) is None


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (SignContract("", "never", (Grant("fax", -1), Grant("fax", -1))), "not_a_date"),
        (SignContract("", YEAR, (Grant("fax", -1), Grant("fax", -1))), "bad_text"),
        (SignContract("c", YEAR, (Grant("fax", -1), Grant("fax", -1))), "granted_twice"),
        (SignContract("c", YEAR, (Grant("fax", -1),)), "unknown_usage_type"),
        (SignContract("c", YEAR, (Grant("voice", -1), Grant("fax", 1))), "quantity_out_of_range"),
    ],
)
def test_of_several_faults_the_first_in_a_fixed_order_is_told(acme, command, code):
    assert acme.refusal(command)[0] == code


def test_the_month_is_the_one_on_the_tenants_wall(at):
    moment = at("2026-10-31 23:30", "UTC")
    assert name_of(moment, ZoneInfo("UTC")) == "2026-10"
    assert name_of(moment, ZoneInfo("Europe/Berlin")) == "2026-11"
