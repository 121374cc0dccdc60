"""Charging under plans: who counts, what counts, and what a charge says of it."""

from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allotment.domain.bucket import Granted
from allotment.domain.charging import rated_again
from allotment.domain.contract import ContractSigned
from allotment.domain.limit import SetLimit
from allotment.domain.policy import SetPolicy, Step
from allotment.domain.rating.plan import CompiledPlan, PricePlan, Tier
from allotment.domain.rating.standing import Counted
from allotment.domain.rating.working import working
from allotment.domain.refusals import InvariantBroken
from allotment.domain.session import ReleaseSession, Report, ReserveUnits
from allotment.domain.snapshot import copy_counters, encode_counters, encode_structure, restore
from allotment.domain.tariff import PublishTariff, Rate, TariffPublished
from allotment.domain.terms import OveragePrice, Terms
from allotment.domain.usage import UsageRecord

M = 1_000_000
MONTH = "2026-11"
DE, US = "+4930123456", "+12125550100"
TIERS = (Tier(100, "0.10"), Tier(200, "0.05", 1, "1"), Tier(0, "0.01"))
MINUTES = PricePlan("minutes", "graduated", TIERS)


def tariff(*plans, version=2, rates=None):
    rates = rates or (Rate("voice", "any", "0", plan=plans[0].plan),)
    return TariffPublished("plans", version, 0, "EUR", "half_up", 4, tuple(rates), plans=plans)


@pytest.fixture
def acme(bare):
    """Nothing is granted: all of it is overage."""
    return bare


def test_a_charge_costs_what_it_adds_to_the_period(acme):
    acme.tell(tariff(MINUTES))
    first, second = acme.use(90)[0], acme.use(20, line="r-2")[0]
    assert (first.amount, second.amount) == (9 * M, M + M + 500_000)
    assert first.basis.counted == Counted("minutes", 0, 0, 0, 90, 9 * M)
    assert second.basis.counted == Counted("minutes", 0, 90, 9 * M, 20, 2_500_000)
    assert acme.tenant.plans.counters == {("minutes", MONTH): {0: (110, 11_500_000)}}


def test_what_an_allowance_covers_is_in_no_plan(acme):
    acme.tell(tariff(MINUTES), Granted("acme", "voice", MONTH, 50))
    covered, half = acme.use(40)[0], acme.use(40)[0]
    assert covered.basis is None or covered.basis.counted is None
    assert (half.overage, half.amount, half.basis.counted.units) == (30, 3 * M, 30)


@pytest.mark.parametrize(
    ("scope", "kind", "first", "second"),
    [
        ("enterprise", "", 0, 0),
        ("resource", "", 4, 5),
        ("resource", "msisdn", 4, 0),
        ("node", "division", 1, 3),
        ("node", "cost_centre", 2, 0),
        ("node", "enterprise", 0, 0),
    ],
)
def test_each_counts_for_itself_as_the_plan_says(acme, scope, kind, first, second):
    acme.tell(tariff(PricePlan("minutes", "graduated", TIERS, scope=scope, of_kind=kind)))
    told = [acme.use(10)[0], acme.use(10, line="r-2")[0]]
    assert [one.basis.counted.of for one in told] == [first, second]
    assert [one.basis.counted.before for one in told] == [0, 10 if first == second else 0]


def test_each_period_counts_from_nothing(acme, at):
    acme.tell(tariff(MINUTES))
    acme.use(150)
    (december, *_) = acme.use(10, at=at("2026-12-01 00:00"), now=at("2026-12-01 01:00"))
    assert december.amount == M


def test_a_plan_of_the_same_name_goes_on_in_the_next_version(acme):
    acme.tell(tariff(MINUTES))
    acme.use(100)
    acme.tell(tariff(PricePlan("minutes", "graduated", (Tier(100, "0.20"), Tier(0, "0.02"))), version=3))
    assert acme.use(10)[0].amount == 200_000


def test_a_price_of_the_contract_takes_the_place_of_the_plan(acme):
    terms = Terms(overage_prices=(OveragePrice("voice", "0.07"),))
    acme.tell(tariff(MINUTES), ContractSigned("own", 1, "2026-12-01", (), True, terms))
    (told, *_) = acme.use(10, at=1_796_212_800_000_000, now=1_796_212_800_000_000)
    assert (told.amount, told.basis is None or told.basis.counted is None) == (700_000, True)


def test_a_cap_stops_charging_and_not_the_call(acme):
    rates = (Rate("voice", "any", "0.10", connect_fee="0.05", plan="cap"),)
    acme.tell(tariff(PricePlan("cap", "spend", cap="1"), rates=rates))
    assert [acme.use(4)[0].amount for _ in range(4)] == [450_000, 450_000, 100_000, 0]
    assert acme.tenant.plans.spent(MONTH) == M


def test_a_connect_fee_is_asked_beside_the_plan(acme):
    acme.tell(tariff(MINUTES, rates=(Rate("voice", "any", "0", connect_fee="0.25", plan="minutes"),)))
    assert acme.use(1)[0].amount == 350_000


def test_units_that_a_policy_prices_do_not_count(acme):
    acme.tell(tariff(MINUTES))
    acme.do(SetLimit("acme", "voice", 100))
    acme.do(SetPolicy("dear", "acme", "voice", (Step("overage", 50, price="1"),)))
    (told, *_) = acme.use(60)
    assert told.ruling.above == 10
    assert told.amount == 50 * 100_000 + 10 * M
    assert told.basis.counted == Counted("minutes", 0, 0, 0, 50, 5 * M)


def test_what_a_user_pays_is_priced_where_the_plan_stands_and_not_counted(acme):
    acme.tell(tariff(MINUTES))
    acme.use(100)
    acme.do(SetLimit("acme", "voice", 1000))
    acme.do(SetPolicy("own", "acme", "voice", (Step("redirect", 10),)))
    (told, *_) = acme.use(10)
    assert (told.payer, told.amount) == ("personal", 1_500_000)
    assert acme.tenant.plans.counters["minutes", MONTH] == {0: (100, 10 * M)}
    assert acme.use(10)[0].amount == 1_500_000


def test_a_charge_that_was_not_rated_where_its_plan_stands_stops_the_writer(acme):
    acme.tell(tariff(MINUTES))
    told = acme.use(10)[0]
    with pytest.raises(InvariantBroken, match="where its plan stands"):
        acme.tenant.apply(told)


def record(number):
    return UsageRecord("gw", f"s-{number}", "r-1", "voice", 80, 1_794_744_000_000_000, "outbound", DE)


def test_sessions_are_charged_one_after_the_other_where_the_plan_stands(acme):
    acme.tell(tariff(MINUTES))
    for number in (1, 2):
        acme.do(ReserveUnits(record(number), 1, b"r-1", b""))
    held = [one.hold.amount for one in acme.tenant.sessions.open.values()]
    assert held == [8 * M, 8 * M]
    amounts = []
    for number in (1, 2):
        told = acme.do(ReleaseSession("gw", f"s-{number}", 2, Report(80)))
        amounts += [event.amount for event in told if hasattr(event, "record_id")]
    # 80 at 0.10; then 20 at 0.10, the entry, 60 at 0.05.
    assert amounts == [8 * M, 2 * M + M + 3 * M]
    assert acme.tenant.plans.counters["minutes", MONTH][0] == (160, 14 * M)


def test_a_snapshot_keeps_what_plans_have_counted(acme):
    acme.tell(tariff(MINUTES))
    acme.use(150)
    restored = restore(encode_counters(copy_counters(acme.tenant)), encode_structure(acme.tenant))
    assert restored.plans.counters == acme.tenant.plans.counters


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["graduated", "volume"]),
    st.lists(st.tuples(st.integers(0, 120), st.sampled_from(["r-1", "r-2"])), max_size=8),
    st.integers(0, 90),
)
def test_charges_under_a_plan_add_up_and_are_rated_again_the_same(bare_company, kind, uses, granted):
    acme = bare_company()
    plan = PricePlan("minutes", kind, TIERS)
    acme.tell(tariff(plan), *([Granted("acme", "voice", MONTH, granted)] if granted else []))
    told = [acme.use(quantity, line=line)[0] for quantity, line in uses]
    overage = sum(one.overage for one in told)
    assert overage == max(0, sum(quantity for quantity, _ in uses) - granted)
    whole = CompiledPlan(plan).cost(0, overage)
    assert sum(Fraction(*one.exact) for one in told) == whole == sum(one.amount for one in told)
    for one in told:
        version = acme.tenant.tariffs.versions[one.tariff - 1]
        rate = version.rate_of(one.rate, one.prefix, one.basis)
        assert rated_again(rate, one).amount == one.amount
        parts = working(rate, one.billed, one.billed - one.overage, one.started_at)
        assert sum(part.exact for part in parts) == Fraction(*one.exact)
    acme.tenant.check_whole()


def test_what_waits_in_suspense_is_worth_what_the_plan_has_reached(acme):
    acme.tell(tariff(MINUTES))
    acme.use(100)
    (waits,) = acme.use(10, line="nobody")
    assert waits.value == M + 10 * 50_000


@pytest.mark.parametrize(
    ("plans", "rate", "field"),
    [
        ((MINUTES,), Rate("voice", "any", "0", plan="other"), "rates[0].plan"),
        ((MINUTES,), Rate("voice", "any", "0.10", plan="minutes"), "rates[0].price"),
    ],
)
def test_a_rate_under_a_plan_that_cannot_be(acme, plans, rate, field):
    command = PublishTariff("plans", 0, "EUR", (rate,), plans=plans)
    code, facts = acme.refusal(command)
    assert (code, facts["field"]) == ("bad_tariff", field)


def test_a_plan_prices_units_of_one_usage_type(acme):
    rates = (Rate("voice", "any", "0", plan="minutes"), Rate("data", "any", "0", plan="minutes"))
    code, facts = acme.refusal(PublishTariff("plans", 0, "EUR", rates, plans=(MINUTES,)))
    assert (code, facts["field"]) == ("bad_tariff", "rates[1].plan")
