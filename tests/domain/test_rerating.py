"""Charges made again: what is taken back, what is charged anew, and what must not change by it.

Voice to "+49" costs 0.06 a minute by the minute; the allowance of acme is 1000 seconds of voice.
"""

from collections.abc import Sequence
from typing import Any

import pytest
from domain.test_sessions_of_shaped_rates import DAY_AND_NIGHT, rates, tariff
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from allotment.domain.bucket import Allocate
from allotment.domain.canonical import lines
from allotment.domain.cap import SetCap
from allotment.domain.charging import UsageCharged
from allotment.domain.contract import ContractSigned, Grant
from allotment.domain.correcting import CorrectMove
from allotment.domain.granting import TopUp
from allotment.domain.limit import SetAnyLimit, SetLimit, ThresholdCrossed
from allotment.domain.rating.plan import PricePlan, Tier
from allotment.domain.rating_job import FinishRating, RatingFinished, Scope, StartRating
from allotment.domain.refusals import InvariantBroken, Refused
from allotment.domain.rerated import (
    Again,
    RerateCharges,
    UsageCorrected,
    UsageRerated,
    UsageTakenBack,
    unsealed,
    was,
)
from allotment.domain.snapshot import copy_counters, encode_counters, encode_structure, restore
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.tenant import Tenant
from allotment.domain.terms import RollOverRule, Terms

MONTH, DE = "2026-11", "+4930123456"


def publish(company: Any, price: str, increment: int = 60, method: Any = "half_up") -> None:
    """A tariff for all usage since ever, in place of the one before."""
    rates = (
        Rate("voice", "national", price, per=60, prefix="+49", increment=increment),
        Rate("voice", "world", "0.60", per=60, prefix="+"),
        Rate("data", "any", "0.01", per=1000),
    )
    company.do(PublishTariff("standard", 0, "EUR", rates, method))


def charges(company: Any) -> list[Again]:
    """Every charge that holds, as it stands in the log."""
    held: dict[int, Again] = {}
    for seq, event in enumerate(company.history, 1):
        if isinstance(event, UsageCharged):
            held[seq] = Again(seq, seq, unsealed(event), DE)
        elif isinstance(event, UsageRerated | UsageCorrected):
            held.pop(event.seq)
            held[seq] = Again(seq, event.first, event.charge, DE)
    return [held[seq] for seq in sorted(held)]


def begin(company: Any, job: str = "j-1", scope: Scope | None = None) -> None:
    company.do(StartRating(job, scope or Scope(), "tariff_corrected", "the price was wrong"))


def again(company: Any, given: Sequence[Again] | None = None, job: str = "j-1") -> list[Any]:
    if job not in company.tenant.rerating.jobs:
        begin(company, job)
    return company.ask(RerateCharges(job, tuple(charges(company) if given is None else given)))


def rerate(company: Any, given: Sequence[Again] | None = None) -> list[Any]:
    if "j-1" not in company.tenant.rerating.jobs:
        begin(company)
    return company.do(RerateCharges("j-1", tuple(charges(company) if given is None else given)))


def test_the_same_tariff_changes_nothing(acme):
    acme.use(700)
    acme.use(700)
    acme.do(TopUp("voice", 500, MONTH))
    assert again(acme) == "nothing_to_rerate"


def test_a_tariff_that_costs_the_same_changes_nothing(acme):
    acme.use(1200)
    publish(acme, "0.06")
    assert again(acme) == "nothing_to_rerate"


def test_a_charge_whose_place_nobody_tells_stays_at_the_one_it_had(acme):
    acme.use(1200)
    plans = (PricePlan("minutes", "graduated", (Tier(100, "0.10"), Tier(0, "0.05"))),)
    rates = (Rate("voice", "national", "0", prefix="+49", plan="minutes"),)
    acme.do(PublishTariff("planned", 0, "EUR", rates, plans=plans))
    acme.use(60)
    _, entered = rerate(acme)
    # By then the counter stood at the 60 of the other.
    assert (entered.charge.basis.counted.before, entered.charge.overage) == (60, 200)
    assert again(acme) == "nothing_to_rerate"


@pytest.mark.parametrize(
    ("price", "increment", "billed", "overage", "amount"),
    [
        ("0.12", 60, 1260, 260, 520_000),
        ("0.03", 60, 1260, 260, 130_000),
        ("0.06", 1, 1201, 201, 201_000),
        ("0.06", 600, 1800, 800, 800_000),
        ("0", 60, 1260, 260, 0),
    ],
)
def test_a_corrected_tariff_takes_back_and_charges_anew(acme, price, increment, billed, overage, amount):
    acme.use(1201)
    publish(acme, price, increment)
    back, anew = rerate(acme)[:2]
    assert (back.charges[0].charge.billed, back.charges[0].charge.amount) == (1260, 260_000)
    assert (anew.charge.billed, anew.charge.overage, anew.charge.amount) == (billed, overage, amount)
    assert (anew.charge.tariff, anew.charge.drawn, anew.cause) == (2, ((0, 1000),), "tariff_corrected")
    assert acme.family("money").used[0] == acme.tenant.charging.amount_total == amount
    assert acme.tenant.charging.counts["charged"] == 1
    assert again(acme) == "nothing_to_rerate"


def test_billed_less_the_allowance_gets_it_back(acme):
    acme.use(61)
    publish(acme, "0.06", 1)
    rerate(acme)
    assert acme.family().remaining[0] == 1000 - 61


def test_billed_more_the_allowance_pays_the_rest_where_it_is_free(acme):
    acme.use(61)
    publish(acme, "0.06", 600)
    rerate(acme)
    assert (acme.family().remaining[0], acme.family("money").used[0]) == (400, 0)


def test_the_state_is_that_of_who_was_charged_right_at_once(acme, company):
    for quantity in (61, 300, 30):
        acme.use(quantity)
    publish(acme, "0.09", 1)
    rerate(acme)
    right = company()
    publish(right, "0.09", 1)
    for quantity in (61, 300, 30):
        right.use(quantity)
    assert acme.family().used == right.family().used
    assert acme.family().remaining == right.family().remaining


def test_refunds_of_a_command_come_before_its_charges(acme):
    """Each wants what the other has: no order of single corrections could do it."""
    acme.do(Allocate("acme", "sales", "voice", MONTH, 120))
    acme.use(1000)
    acme.use(120)
    begin(acme)
    one, other = charges(acme)
    assert one.charge.drawn == ((2, 120), (0, 880))
    swapped = [
        Again(one.seq, one.first, one.charge, DE, ((0, 880),), ()),
        Again(other.seq, other.first, other.charge, DE, ((2, 120),), ()),
    ]
    back, *made = rerate(acme, swapped)
    assert isinstance(back, UsageTakenBack)
    assert [taken.seq for taken in back.charges] == [one.seq, other.seq]
    assert [told.charge.drawn for told in made] == [((0, 880),), ((2, 120),)]
    assert [told.charge.overage for told in made] == [140, 0]
    assert acme.family().remaining == [0] * 6


def test_what_was_told_is_not_told_again_and_what_is_reached_is(acme):
    acme.do(SetLimit("sales", "money", 400_000, (50, 100)))
    told = acme.use(1240)
    assert [event.percent for event in told if isinstance(event, ThresholdCrossed)] == [50]
    publish(acme, "0.12")
    told = rerate(acme)
    crossings = [event for event in told if isinstance(event, ThresholdCrossed)]
    assert [(event.node, event.percent, event.used) for event in crossings] == [("sales", 100, 520_000)]
    publish(acme, "0.01")
    assert not [event for event in rerate(acme) if isinstance(event, ThresholdCrossed)]


def test_a_limit_stops_no_correction_but_what_follows(acme):
    acme.do(SetLimit("sales", "money", 300_000, ()))
    acme.use(1240)
    publish(acme, "0.12")
    rerate(acme)
    assert acme.family("money").used[2] == 520_000
    assert acme.use(60)[0].reason == "limit_exceeded"


@pytest.mark.parametrize("window", ["day", "week", "last_7_days", "last_24_hours"])
def test_windows_are_corrected_too(acme, window):
    acme.do(SetAnyLimit("sales", "voice", 5_000, (20, 30), window=window))
    acme.use(61)
    publish(acme, "0.06", 1200)
    told = rerate(acme)
    assert [event.percent for event in told if isinstance(event, ThresholdCrossed)] == [20]
    gauge = acme.tenant.limits.gauges["voice"][2][window]
    assert gauge.fullest(max(gauge.bins))[0] == 1200
    publish(acme, "0.06", 1)
    rerate(acme)
    assert gauge.fullest(max(gauge.bins))[0] == 61


def test_a_window_that_began_after_a_charge_loses_no_more_than_it_counts(acme):
    acme.use(61)
    acme.do(SetAnyLimit("sales", "voice", 5_000, (), window="day"))
    publish(acme, "0.06", 1)
    rerate(acme)
    assert not acme.tenant.limits.gauges["voice"][2]["day"].bins


def test_caps_follow_what_is_drawn_past_them(acme):
    acme.do(SetCap("sales", "voice", 300))
    acme.use(61)
    publish(acme, "0.06", 1)
    rerate(acme)
    assert acme.family().caps.drawn[2] == 61
    publish(acme, "0.06", 600)
    rerate(acme)
    # The allowance pays as far as the cap lets it.
    assert (acme.family().caps.drawn[2], acme.family("money").used[2]) == (300, 300_000)


def test_a_cap_keeps_nothing_back_that_was_given_before_it(acme):
    acme.use(600)
    acme.do(SetCap("sales", "voice", 0))
    publish(acme, "0.06", 1)
    assert again(acme) == "nothing_to_rerate"
    publish(acme, "0.06", 800)
    rerate(acme)
    assert charges(acme)[0].charge.drawn == ((0, 600),)


def test_a_charge_is_made_again_again(acme):
    acme.use(1200)
    for price in ("0.12", "0.24"):
        publish(acme, price)
        rerate(acme)
    (held,) = charges(acme)
    assert (held.first, held.charge.amount) == (13, 800_000)
    assert acme.tenant.rerating.jobs["j-1"].amount == 600_000


def test_a_number_that_nobody_can_read_is_rated_by_its_prefix(acme):
    acme.use(1200)
    publish(acme, "0.12")
    (held,) = charges(acme)
    _, anew = rerate(acme, [Again(held.seq, held.first, held.charge)])
    assert (anew.by_zone, anew.charge.amount) == (True, 400_000)


def test_what_has_no_rate_any_more_stays_as_it_was(acme):
    acme.use(1200)
    acme.do(PublishTariff("standard", 0, "EUR", (Rate("data", "any", "0.01"),)))
    begin(acme)
    events, left = acme.tenant.rerating.made(RerateCharges("j-1", tuple(charges(acme))), 0)
    assert (events, list(left.values())) == ([], ["no_rate"])


def test_what_no_allowance_covers_stays_as_it_was_where_none_goes_beyond(company, now):
    acme = company(
        ContractSigned("frame", 2, "2026-01-01", (Grant("voice", 600),), overage=False),
    )
    acme.use(10, at=now + 30 * 86_400_000_000, now=now + 30 * 86_400_000_000)
    publish(acme, "0.06", 1200)
    begin(acme)
    later = now + 30 * 86_400_000_000
    events, left = acme.tenant.rerating.made(RerateCharges("j-1", tuple(charges(acme))), later)
    assert (events, list(left.values())) == ([], ["insufficient_allowance"])


def test_a_closed_period_is_not_touched_the_difference_is_owed_in_the_one_that_runs(acme, told, now):
    terms = Terms(rollover=(RollOverRule("voice", 1),))
    settled = ContractSigned("frame", 1, "2026-01-01", (Grant("voice", 1000),), True, terms)
    acme = told(*(settled if isinstance(event, ContractSigned) else event for event in acme.history))
    acme.use(1200)
    december = now + 30 * 86_400_000_000
    publish(acme, "0.12")
    begin(acme)
    back, corrected = acme.do(RerateCharges("j-1", tuple(charges(acme))), december)
    assert isinstance(corrected, UsageCorrected)
    assert back.charges == ()
    assert (corrected.period, corrected.charge.period, corrected.difference) == ("2026-12", MONTH, 200_000)
    assert acme.tenant.rerating.corrected == {"2026-12": 200_000}
    assert acme.family("money").used[0] == 200_000
    assert acme.ask(RerateCharges("j-1", tuple(charges(acme))), december) == "nothing_to_rerate"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (StartRating("", Scope()), "bad_text"),
        (StartRating("j-1", Scope(), "no reason"), "unknown_cause"),
        (StartRating("j-1", Scope(node="nobody")), "unknown_node"),
        (StartRating("j-1", Scope(usage_type="smell")), "unknown_usage_type"),
        (StartRating("j-1", Scope(period="2026-13")), "bad_scope"),
        (StartRating("j-1", Scope(period="2026-10")), "bad_scope"),
        (StartRating("j-1", Scope(tariff=2)), "bad_scope"),
        (StartRating("j-1", Scope(source="s")), "bad_scope"),
        (StartRating("j-1", Scope(starts_at=2, ends_at=2)), "bad_scope"),
        (StartRating("j-1", Scope(in_order=True)), "scope_too_narrow"),
        (StartRating("j-1", Scope(in_order=True, period=MONTH, tariff=1)), "scope_too_narrow"),
        (StartRating("j-1", Scope(in_order=True, period=MONTH, node="emea")), "scope_too_narrow"),
        (RerateCharges("j-1", ()), "unknown_rating_job"),
        (FinishRating("j-1", 0, 0), "unknown_rating_job"),
    ],
)
def test_what_is_refused(acme, command, code):
    assert acme.ask(command) == code


def test_a_job_is_begun_once_and_told_what_it_changed(acme):
    acme.use(1200)
    publish(acme, "0.12")
    begin(acme)
    assert acme.ask(StartRating("j-1", Scope())) == "rating_job_runs"
    rerate(acme)
    (finished,) = acme.do(FinishRating("j-1", 1, 0))
    assert finished == RatingFinished("j-1", 1, 1, 0, 200_000, 0)
    assert acme.ask(FinishRating("j-1", 1, 0)) == "unknown_rating_job"


def test_a_charge_that_was_not_taken_back_is_not_made_again(acme):
    acme.use(1200)
    (held,) = charges(acme)
    begin(acme)
    with pytest.raises(InvariantBroken):
        acme.tell(UsageRerated(held.seq, held.first, "j-1", "requested", was(held.charge), held.charge))


def test_a_snapshot_keeps_jobs_and_corrections(acme):
    acme.use(1200)
    publish(acme, "0.12")
    rerate(acme)
    acme.tenant.rerating.corrected["2026-11"] = 5
    copied = encode_counters(copy_counters(acme.tenant))
    again: Tenant = restore(copied, encode_structure(acme.tenant))
    assert list(lines(again)) == list(lines(acme.tenant))


def test_too_many_at_once_are_refused(acme):
    acme.use(60)
    (held,) = charges(acme)
    begin(acme)
    with pytest.raises(Refused, match="too_many_records"):
        acme.tenant.decide(RerateCharges("j-1", (held,) * 501), 0)


def test_a_move_dated_back_charges_again_where_the_resource_stood(acme, now):
    hour = 3_600_000_000
    acme.do(Allocate("acme", "apac", "voice", MONTH, 100))
    acme.use(60, at=now - 3 * hour)
    acme.use(60, at=now - hour)
    moved, begun = acme.do(CorrectMove("j-1", "r-1", "apac", now - 2 * hour, "joined earlier"))
    assert (moved.node, moved.since) == ("apac", now - 2 * hour)
    assert begun.scope == Scope(node="r-1", starts_at=now - 2 * hour, guided=True)
    late = charges(acme)[1]
    path = acme.tenant.hierarchy.members[4].path_at(late.charge.started_at)
    _, anew = acme.do(RerateCharges("j-1", (replace(late, path=path),)))
    assert (anew.charge.path, anew.charge.drawn) == ((4, 3, 0), ((3, 60),))
    family = acme.family()
    assert (family.used[2], family.used[3], family.used[0]) == (60, 60, 120)
    assert (family.remaining[0], family.remaining[3]) == (900 - 60, 40)


@pytest.mark.parametrize(
    ("about", "code"),
    [
        (("nobody", "apac", -1), "unknown_resource"),
        (("r-1", "nowhere", -1), "unknown_node"),
        (("r-1", "apac", 0), "not_in_the_past"),
        (("r-1", "apac", -40 * 86_400_000_000), "period_closed"),
    ],
)
def test_a_move_that_cannot_be_dated_back(acme, now, about, code):
    resource, node, behind = about
    assert acme.ask(CorrectMove("j-1", resource, node, now + behind)) == code


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=rates(),
    uses=st.lists(st.tuples(st.integers(1, 2_000), st.integers(-3_000, 3_000)), min_size=1, max_size=6),
)
def test_rating_again_by_the_same_tariff_changes_nothing_whatever_its_shape(company, at, rows, uses):
    """Bands, windows split at 18:00, minimums, fees, least and most charges, some of it from an allowance."""
    acme = company(tariff(*rows, windows=DAY_AND_NIGHT, time_zone="Europe/Berlin"))
    for quantity, seconds in uses:
        acme.use(quantity, at=at("2026-11-15 18:00") + seconds * 1_000_000, now=at("2026-11-15 20:00"))
    assert again(acme) == "nothing_to_rerate"
    acme.tell(replace(acme.tenant.tariffs.versions[-1].published, version=3))
    assert again(acme, job="j-2") == "nothing_to_rerate"
