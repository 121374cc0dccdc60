"""Plans of closed periods settled again: the difference is owed once, in the period that runs."""

from typing import Any

import pytest

from allotment.domain.contract import ContractEnded, ContractSigned, OpenPeriod
from allotment.domain.planned import Counting
from allotment.domain.rating.plan import PricePlan, Tier
from allotment.domain.rating_job import RatingStarted, Scope, StartRating
from allotment.domain.refusals import InvariantBroken
from allotment.domain.rerated import UsageTakenBack
from allotment.domain.resettled import PLANS_MAX, CorrectPlans, PlanCorrected, Settled
from allotment.domain.resettling import settles_plans
from allotment.domain.snapshot import copy_counters, encode_counters, encode_structure, restore
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.terms import Terms

M = 1_000_000
DAY = 24 * 3600 * M
CLOSED, RUNS = "2026-11", "2026-12"
VOLUME = PricePlan("minutes", "volume", (Tier(100, "0.10"), Tier(0, "0.05")))
GRADUATED = PricePlan("others", "graduated", (Tier(0, "0.10"),))


@pytest.fixture
def acme(told: Any, bare: Any) -> Any:
    settled = ContractSigned("frame", 1, "2026-01-01", (), True, Terms(expires=True))
    company = told(*(settled if isinstance(event, ContractSigned) else event for event in bare.history))
    rates = (
        Rate("voice", "national", "0", prefix="+49", plan="minutes"),
        Rate("voice", "world", "0", prefix="+", plan="others"),
    )
    company.do(PublishTariff("plans", 0, "EUR", rates, plans=(VOLUME, GRADUATED)))
    company.use(200)
    return company


@pytest.fixture
def december(now: int) -> int:
    return now + 30 * DAY


def settled(owed: int, *, plan: str = "minutes", units: int = 200, was: int = 10 * M) -> Settled:
    return Settled(plan, 0, 0, units, 1, was, 2, owed)


def begin(acme: Any, at: int) -> None:
    acme.do(StartRating("j-1", Scope(period=CLOSED), "tariff_corrected"), at)


def test_the_difference_is_owed_in_the_period_that_runs_and_the_plan_counts_as_it_did(acme, december):
    begin(acme, december)
    counters = {key: dict(counted) for key, counted in acme.tenant.plans.counters.items()}
    events = acme.do(CorrectPlans("j-1", CLOSED, (settled(8 * M),)), december)
    told = [event for event in events if isinstance(event, PlanCorrected)]
    about = ("j-1", "tariff_corrected", RUNS, CLOSED, "minutes", 0, 0, 200)
    assert told == [PlanCorrected(*about, 1, 10 * M, 2, 8 * M)]
    assert told[0].difference == -2 * M
    assert acme.tenant.plans.counters == counters
    assert acme.tenant.rerating.corrected == {RUNS: -2 * M}
    assert acme.tenant.rerating.jobs["j-1"].corrected == -2 * M


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        (CorrectPlans("j-1", CLOSED, ()), "nothing_to_rerate"),
        (CorrectPlans("j-1", CLOSED, (settled(10 * M),)), "nothing_to_rerate"),
        # Something was counted since it was worked out.
        (CorrectPlans("j-1", CLOSED, (settled(8 * M, units=199),)), "nothing_to_rerate"),
        # Its charges are corrected, each by itself.
        (CorrectPlans("j-1", CLOSED, (settled(8 * M, plan="others", units=0),)), "nothing_to_rerate"),
        (CorrectPlans("j-1", RUNS, (settled(8 * M),)), "bad_scope"),
        (CorrectPlans("j-1", "2025-11", (settled(8 * M),)), "bad_scope"),
        (CorrectPlans("j-2", CLOSED, (settled(8 * M),)), "unknown_rating_job"),
        (CorrectPlans("j-1", CLOSED, (settled(8 * M),) * (PLANS_MAX + 1)), "too_many_records"),
    ],
)
def test_what_is_not_settled_again(acme, december, command, refusal):
    begin(acme, december)
    assert acme.ask(command, december) == refusal


def test_it_is_owed_once_however_often_it_is_asked_for(acme, december):
    begin(acme, december)
    command = CorrectPlans("j-1", CLOSED, (settled(8 * M),))
    acme.do(command, december)
    assert acme.ask(command, december) == "nothing_to_rerate"
    kept = restore(encode_counters(copy_counters(acme.tenant)), encode_structure(acme.tenant))
    assert kept.rerating.resettling.corrected == {Counting("minutes", CLOSED, 0): -2 * M}


def test_whatever_it_comes_to_in_the_end_is_what_is_owed_with_all_corrections(acme, december):
    begin(acme, december)
    for owed in (8 * M, 12 * M, 0, 10 * M, 1):
        acme.do(CorrectPlans("j-1", CLOSED, (settled(owed),)), december)
        assert 10 * M + acme.tenant.rerating.corrected[RUNS] == owed


def test_a_plan_is_corrected_as_a_whole_or_charge_by_charge(acme, december):
    begin(acme, december)
    job = RatingStarted("j-1", Scope(), "requested", "")
    resettling = acme.tenant.rerating.resettling
    by_charge = UsageTakenBack("j-1", (), counting=(Counting("minutes", CLOSED, 0),))
    resettling.apply_charges(by_charge)
    command = CorrectPlans("j-1", CLOSED, (settled(8 * M),))
    acme.do(OpenPeriod(RUNS), december)
    assert resettling.told(command, job, december) == ([], ["corrected_by_charge"])
    resettling.by_charge.clear()
    acme.do(command, december)
    with pytest.raises(InvariantBroken):
        resettling.apply_charges(by_charge)


def test_where_no_contract_goes_on_nobody_could_be_owed(acme, december):
    begin(acme, december)
    job = RatingStarted("j-1", Scope(), "requested", "")
    acme.tenant.apply(ContractEnded("frame", "2026-11-30"))
    command = CorrectPlans("j-1", CLOSED, (settled(8 * M),))
    assert acme.tenant.rerating.resettling.told(command, job, december) == ([], ["no_open_period"])


@pytest.mark.parametrize(
    ("scope", "settles"),
    [
        (Scope(), True),
        (Scope(period=CLOSED), True),
        (Scope(tariff=2), True),
        (Scope(usage_type="voice"), False),
        (Scope(node="sales", period=CLOSED), False),
        (Scope("pbx-1", "c-1"), False),
        (Scope(starts_at=1), False),
        (Scope(period=CLOSED, in_order=True), False),
        (Scope(guided=True), False),
        (Scope(resources=("r-1",)), False),
    ],
)
def test_only_who_asks_for_all_that_a_plan_counts_settles_it_again(scope, settles):
    assert settles_plans(scope) is settles
