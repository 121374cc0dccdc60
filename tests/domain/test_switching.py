"""Sessions that go on while prices change: what is used after that costs the price that holds then.

Data costs 0.01 for 1000 bytes, and from 13:00 on 0.03, by a tariff version or by a window.
No allowance is left; it is the 15th of November, in Berlin.
"""

from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from allotment.domain.charging import UsageCharged
from allotment.domain.limit import SetLimit
from allotment.domain.rating.basis import Switch
from allotment.domain.rating.language import Band, Span, Window
from allotment.domain.rating.plan import PricePlan, Tier
from allotment.domain.rating.switched_rate import SWITCHES_MAX
from allotment.domain.rating_job import Scope, StartRating
from allotment.domain.refusals import Refused
from allotment.domain.rerated import Again, RerateCharges, unsealed
from allotment.domain.session import (
    ExpireSession,
    ReleaseSession,
    Report,
    ReserveUnits,
    SessionDenied,
    UpdateSession,
)
from allotment.domain.snapshot import copy_counters, encode_counters, encode_structure, restore
from allotment.domain.tariff import PublishTariff, Rate, TariffPublished
from allotment.domain.usage import UsageRecord
from allotment.domain.worked import working_of

DATA = Rate("data", "any", "0.01", per=1000, included=False)
DEARER = replace(DATA, price="0.03")
DAY = (Window("day", (Span((), 0, 780),)), Window("late", (Span((), 780, 1_440),)))
BY_WINDOW = tuple(
    replace(rate, window=window, by_reports=True) for rate, window in ((DATA, "day"), (DEARER, "late"))
)
VOICE = Rate("voice", "any", "0.06", per=60, included=False)


def version(number, valid_from, *rates, **more):
    return TariffPublished("v", number, valid_from, "EUR", "half_up", 6, (*rates, VOICE), **more)


def by_version(at, *rates, **more):
    return (version(2, 0, DATA), version(3, at("2026-11-15 13:00"), *(rates or (DEARER,)), **more))


def by_window(*rates):
    return (version(2, 0, *(rates or BY_WINDOW), windows=DAY, time_zone="Europe/Berlin"),)


@pytest.fixture(params=["version", "window"])
def acme(request, company, at):
    """A company whose data costs more from 13:00 on."""
    return company(*(by_version(at) if request.param == "version" else by_window()))


def opened(acme, now, usage_type="data", quantity=1000):
    record = UsageRecord("pgw", "s", "r-1", usage_type, quantity, now, "outbound", "")
    return acme.do(ReserveUnits(record, 0, b"r-1", b""), now)[0]


def update(acme, number, now, used, requested=1000, changes=()):
    return acme.do(UpdateSession("pgw", "s", number, Report(used, changes=changes), requested), now)[0]


def released(acme, now, used, changes=(), number=99):
    events = acme.do(ReleaseSession("pgw", "s", number, Report(used, changes=changes)), now)
    return next(event for event in events if isinstance(event, UsageCharged))


@pytest.mark.parametrize(
    ("reports", "amount"),
    [
        # Reported before the change, and after it: what was used until a report costs what held before.
        ([("12:30", 1000), ("12:59", 1000)], 20_000),
        ([("12:59", 1000), ("13:00", 1000)], 20_000),
        ([("13:00", 1000), ("13:10", 1000)], 40_000),
        ([("12:59", 1), ("13:00", 1), ("13:01", 1)], 50),
        ([("13:01", 3000)], 30_000),
        ([("13:00", 0), ("13:01", 3000)], 90_000),
        ([("13:00", 1000), ("13:10", 0), ("13:20", 500), ("13:30", 500)], 40_000),
    ],
)
def test_what_was_used_after_a_report_costs_what_holds_then(acme, at, reports, amount):
    opened(acme, at("2026-11-15 12:00"))
    *before, (last, rest) = reports
    for number, (moment, used) in enumerate(before, 1):
        update(acme, number, at(f"2026-11-15 {moment}"), used)
    assert released(acme, at(f"2026-11-15 {last}"), rest).amount == amount


@pytest.mark.parametrize(
    ("used", "changes", "amount"),
    [
        (3000, [(0, "13:00")], 90_000),
        (3000, [(1, "13:00")], 10 + 2999 * 30),
        (3000, [(2000, "13:00")], 50_000),
        (3000, [(2999, "13:00")], 29_990 + 30),
        (3000, [(3000, "13:00")], 30_000),
        (3000, [(2000, "12:59")], 30_000),  # no price changes then
        (3000, [(2000, "13:30")], 50_000),  # it may be told late ...
        (3000, [(2000, "23:30")], 50_000),  # ... but not ahead
        (3000, [(2000, "11:00")], 30_000),  # before its start is at its start
    ],
)
def test_a_report_tells_apart_what_was_used_before_and_after(acme, at, used, changes, amount):
    opened(acme, at("2026-11-15 12:00"))
    told = tuple((units, at(f"2026-11-15 {moment}")) for units, moment in changes)
    assert released(acme, at("2026-11-15 14:00"), used, told).amount == amount


def test_it_is_told_ahead_when_the_price_changes(acme, at):
    assert opened(acme, at("2026-11-15 12:49")).conditions is None
    told = update(acme, 1, at("2026-11-15 12:51"), 100)
    assert told.conditions.switch_at == at("2026-11-15 13:00")
    told = update(acme, 2, at("2026-11-15 13:00"), 100)
    assert (told.conditions, len(told.switches)) == (None, 1)


def test_a_slice_is_held_at_the_price_that_it_will_cost(acme, at):
    assert opened(acme, at("2026-11-15 12:00")).held.amount == 10_000
    assert update(acme, 1, at("2026-11-15 12:58"), 500).held.amount == 15_000
    assert update(acme, 2, at("2026-11-15 13:02"), 500).held.amount == 10_000 + 30_000


def test_back_at_its_first_price_it_costs_that(company, at):
    acme = company(*by_window())
    opened(acme, at("2026-11-15 12:00"))
    update(acme, 1, at("2026-11-15 13:00"), 1000)
    told = update(acme, 2, at("2026-11-16 00:00"), 1000)
    assert [one.begins for one in told.switches] == [1000, 2000]
    assert released(acme, at("2026-11-16 01:00"), 1000).amount == 10_000 + 30_000 + 10_000


def test_what_nothing_was_used_at_is_not_kept(company, at):
    acme = company(*by_window())
    opened(acme, at("2026-11-15 12:00"))
    update(acme, 1, at("2026-11-15 13:00"), 1000)
    told = update(acme, 2, at("2026-11-16 00:00"), 0)
    assert [(one.begins, one.at) for one in told.switches] == [(1000, at("2026-11-16 00:00"))]
    charge = released(acme, at("2026-11-16 01:00"), 1000)
    assert (charge.amount, len(charge.basis.switches)) == (20_000, 1)


@pytest.mark.parametrize(
    ("rate", "used", "amount"),
    [
        # An increment that was begun is finished at its price.
        (replace(DATA, increment=1000), [1, 1000], 1 * 10_000 + 1 * 30_000),
        (replace(DATA, increment=1000), [999, 1], 10_000),
        (replace(DATA, increment=1000), [1000, 1], 40_000),
        (replace(DATA, increment=1000), [1001, 1000], 2 * 10_000 + 30_000),
        (replace(DATA, minimum=2000), [1, 1], 20_000),
        (replace(DATA, minimum=2000), [1, 2000], 20_000 + 30),
        # Fee, minimum and maximum charge belong to the whole.
        (replace(DATA, connect_fee="1"), [1000, 1000], 1_040_000),
        (replace(DATA, maximum_charge="0.035"), [1000, 1000], 35_000),
        (replace(DATA, minimum_charge="0.05"), [1000, 1000], 50_000),
    ],
)
def test_increments_and_what_is_of_the_whole_are_those_of_its_start(company, at, rate, used, amount):
    acme = company(version(2, 0, rate), version(3, at("2026-11-15 13:00"), DEARER))
    opened(acme, at("2026-11-15 12:00"))
    update(acme, 1, at("2026-11-15 13:00"), used[0])
    assert released(acme, at("2026-11-15 14:00"), used[1]).amount == amount


def test_bands_go_on_where_the_usage_stands(company, at):
    banded = replace(DEARER, bands=(Band(2000, "0.001", 1000),))
    acme = company(*by_version(at, banded))
    opened(acme, at("2026-11-15 12:00"))
    update(acme, 1, at("2026-11-15 13:00"), 1000)
    assert released(acme, at("2026-11-15 14:00"), 2000).amount == 10_000 + 30_000 + 1_000


@pytest.mark.parametrize(
    "unchanged",
    [
        replace(DATA, zone="other"),  # the same price by another name
        replace(DATA, price="0.1", per=10_000),
        replace(DEARER, blocked=True),  # nothing is offered: it goes on as it was
        replace(DATA, price="0", plan="tiers"),  # priced where a plan stands, which it was not begun under
        replace(DEARER, direction="inbound"),
    ],
)
def test_where_nothing_else_holds_it_goes_on_at_its_price(company, at, unchanged):
    plans = (PricePlan("tiers", "graduated", (Tier(0, "1"),)),)
    acme = company(*by_version(at, unchanged, plans=plans))
    opened(acme, at("2026-11-15 12:00"))
    update(acme, 1, at("2026-11-15 13:00"), 1000)
    charge = released(acme, at("2026-11-15 14:00"), 1000)
    assert (charge.amount, charge.basis) == (20_000, None)


def test_windows_count_at_the_start_unless_the_rate_goes_by_reports(company, at):
    at_start = [replace(rate, by_reports=False) for rate in BY_WINDOW]
    acme = company(*by_window(*at_start))
    opened(acme, at("2026-11-15 12:00"))
    update(acme, 1, at("2026-11-15 13:00"), 1000)
    assert released(acme, at("2026-11-15 14:00"), 1000).amount == 20_000


def test_a_call_keeps_the_version_of_its_start(company, at):
    acme = company(version(2, 0, DATA), replace(version(3, at("2026-11-15 13:00"), DATA), rates=(DATA,)))
    opened(acme, at("2026-11-15 12:59"), "voice", 60)
    assert update(acme, 1, at("2026-11-15 13:00"), 60).switches is None
    assert released(acme, at("2026-11-15 13:01"), 60).amount == 120_000


def test_it_goes_on_into_version_after_version(company, at):
    later = version(4, at("2026-11-15 14:00"), replace(DATA, price="0.05"))
    acme = company(*by_version(at), later)
    opened(acme, at("2026-11-15 12:00"))
    update(acme, 1, at("2026-11-15 13:00"), 1000)
    update(acme, 2, at("2026-11-15 14:00"), 1000)
    charge = released(acme, at("2026-11-15 15:00"), 1000)
    told = working_of(acme.tenant.tariffs.versions[charge.tariff - 1].rate_of(0, "", charge.basis), charge)
    assert [(one.tariff, one.begins, one.ends, one.exact) for one in told] == [
        (0, 0, 1000, 10_000),
        (3, 1000, 2000, 30_000),
        (4, 2000, 3000, 50_000),
    ]
    assert (charge.tariff, charge.amount, sum(one.exact for one in told)) == (2, 90_000, 90_000)


def test_a_denial_remembers_the_change_too(company, at):
    acme = company(*by_version(at))
    acme.do(SetLimit("acme", "money", 10_000), at("2026-11-15 11:00"))
    opened(acme, at("2026-11-15 12:00"))
    denied = update(acme, 1, at("2026-11-15 13:00"), 999)
    assert isinstance(denied, SessionDenied)
    assert denied.switches == (Switch(999, at("2026-11-15 13:00"), 3, 0),)
    assert acme.tenant.sessions.open["pgw", "s"].basis.switches == denied.switches


def test_what_comes_after_silence_costs_what_held_last(company, at):
    acme = company(*by_version(at))
    opened(acme, at("2026-11-15 12:55"))
    update(acme, 1, at("2026-11-15 13:00"), 1000)
    events = acme.do(ExpireSession("pgw", "s"), at("2026-11-15 13:11"))
    assert [event.amount for event in events if isinstance(event, UsageCharged)] == [10_000]
    late = released(acme, at("2026-11-15 13:12"), 1000)
    assert (late.record_id, late.amount) == ("s+late", 30_000)
    assert late.basis.switches == (Switch(0, at("2026-11-15 13:00"), 3, 0),)


def test_a_session_that_has_seen_too_many_changes_goes_on_at_the_last_price(company, at):
    acme = company(*by_window())
    opened(acme, at("2026-11-15 12:00"))
    many = tuple(Switch(place, at("2026-11-15 12:00"), 2, place % 2) for place in range(1, SWITCHES_MAX + 1))
    told = update(acme, 1, at("2026-11-15 12:30"), 2000)
    acme.tell(replace(told, before=told.held, switches=many))
    assert update(acme, 2, at("2026-11-15 13:00"), 1).switches is None
    assert update(acme, 3, at("2026-11-16 00:30"), 1).switches is None


def test_rating_again_by_the_same_tariffs_changes_nothing_and_by_a_corrected_one_what_it_says(company, at):
    acme = company(*by_version(at))
    opened(acme, at("2026-11-15 12:00"))
    update(acme, 1, at("2026-11-15 13:00"), 1000)
    charge = released(acme, at("2026-11-15 14:00"), 1000)
    given = (Again(len(acme.history), len(acme.history), unsealed(charge), ""),)
    acme.do(StartRating("j-1", Scope(), "tariff_corrected", "wrong"), at("2026-11-15 15:00"))
    with pytest.raises(Refused, match="nothing_to_rerate"):
        acme.tenant.decide(RerateCharges("j-1", given), at("2026-11-15 15:00"))
    half = PublishTariff(
        "v", at("2026-11-15 13:00"), "EUR", (replace(DEARER, price="0.02"), VOICE), decimals=6
    )
    acme.do(half, at("2026-11-15 15:00"))
    again = acme.do(RerateCharges("j-1", given), at("2026-11-15 15:00"))
    assert [event.charge.amount for event in again if hasattr(event, "charge")] == [30_000]


def test_what_changed_outlives_a_restart(acme, at):
    opened(acme, at("2026-11-15 12:00"))
    update(acme, 1, at("2026-11-15 13:00"), 1000)
    there = restore(encode_counters(copy_counters(acme.tenant)), encode_structure(acme.tenant))
    command = ReleaseSession("pgw", "s", 2, Report(1000))
    now = at("2026-11-15 14:00")
    assert there.decide(command, now) == acme.tenant.decide(command, now)


reports = st.lists(st.integers(0, 3000), max_size=5)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=reports,
    after=reports,
    increment=st.sampled_from([1, 7, 1000]),
    minimum=st.sampled_from([0, 500]),
    fee=st.sampled_from(["0", "0.005"]),
    by=st.sampled_from(["version", "window"]),
    told_at_once=st.booleans(),
)
def test_any_split_of_reports_costs_what_two_reports_cost(
    company, at, before, after, increment, minimum, fee, by, told_at_once
):
    """One until the price changes, and one after it; or one with both."""
    common = {"increment": increment, "minimum": minimum, "connect_fee": fee}
    cheap, dear = (
        [replace(rate, **common) for rate in pair] for pair in ((DATA, BY_WINDOW[0]), (DEARER, BY_WINDOW[1]))
    )
    history = (
        (version(2, 0, cheap[0]), version(3, at("2026-11-15 13:00"), dear[0]))
        if by == "version"
        else by_window(cheap[1], dear[1])
    )
    amounts = []
    for first, second in ((before, after), ([sum(before)], [sum(after)])):
        acme = company(*history)
        opened(acme, at("2026-11-15 12:50"))
        if told_at_once and second == [sum(after)]:
            changes = ((sum(before), at("2026-11-15 13:00")),)
            released_ = acme.do(
                ReleaseSession("pgw", "s", 9, Report(sum(before) + sum(after), changes=changes)),
                at("2026-11-15 13:05"),
            )
        else:
            steps = [
                *(("12:59", used) for used in first),
                ("13:00", 0),
                *(("13:01", used) for used in second),
            ]
            for number, (moment, used) in enumerate(steps, 1):
                update(acme, number, at(f"2026-11-15 {moment}"), used)
            released_ = acme.do(ReleaseSession("pgw", "s", 99, Report(0)), at("2026-11-15 13:05"))
        charged = [event for event in released_ if isinstance(event, UsageCharged)]
        amounts.append([(charge.billed, charge.amount, Fraction(*charge.exact)) for charge in charged])
        for charge in charged:
            rate = acme.tenant.tariffs.versions[1].rate_of(charge.rate, charge.prefix, charge.basis)
            assert sum(one.exact for one in working_of(rate, charge)) == Fraction(*charge.exact)
    assert amounts[0] == amounts[1]


def test_a_refused_report_changes_no_price(acme, at):
    opened(acme, at("2026-11-15 12:00"))
    with pytest.raises(Refused, match="report_out_of_order"):
        acme.do(UpdateSession("pgw", "s", 0, Report(1), 1), at("2026-11-15 13:00"))
    assert released(acme, at("2026-11-15 13:05"), 1000).amount == 10_000


def test_beyond_a_limit_of_money_the_dearer_units_are_counted(company, at):
    acme = company(*by_version(at))
    acme.do(SetLimit("acme", "money", 25_000), at("2026-11-15 11:00"))
    opened(acme, at("2026-11-15 12:00"))
    denied = update(acme, 1, at("2026-11-15 13:00"), 1000, requested=1000)
    assert denied.granted == 500
    denied = update(acme, 2, at("2026-11-15 13:10"), 500)
    assert isinstance(denied, SessionDenied)
    assert released(acme, at("2026-11-15 13:20"), 0).amount == 25_000
