"""Plans counted again: after a correction all costs what it would have, had it come when it was used.

Nothing is granted to acme here, so all that is used is in a plan. A tariff of November is corrected.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from allotment.domain.canonical import lines
from allotment.domain.charging import UsageCharged
from allotment.domain.contract import ContractSigned
from allotment.domain.limit import SetLimit
from allotment.domain.planned import Counting
from allotment.domain.policy import SetPolicy, Step
from allotment.domain.rating.plan import PricePlan, Tier
from allotment.domain.rating_job import FinishRating, RatingStarted, Scope, StartRating
from allotment.domain.refusals import InvariantBroken
from allotment.domain.replanning import Positions, Replanning
from allotment.domain.rerated import (
    Again,
    RerateCharges,
    UsageCorrected,
    UsageRerated,
    UsageTakenBack,
    unsealed,
)
from allotment.domain.snapshot import copy_counters, encode_counters, encode_structure, restore
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.terms import RollOverRule, Terms

M = 1_000_000
MONTH, DE, US = "2026-11", "+4930123456", "+12125550100"
MINUTE = 60 * M
TIERS = (Tier(100, "0.10"), Tier(200, "0.05", 1, "1"), Tier(0, "0.01"))
MINUTES = PricePlan("minutes", "graduated", TIERS)
CHEAPER = PricePlan("minutes", "graduated", (Tier(50, "0.10"), Tier(0, "0.02")))

VOICE = Scope(usage_type="voice")
"""Narrower than a plan of a closed period, which is settled as a whole or not at all."""


def publish(company: Any, plan: PricePlan | None, price: str = "0", increment: int = 1) -> None:
    """Voice to "+49" is under a plan, or costs a price; all else costs a price."""
    plans = () if plan is None else (plan,)
    priced = plan is None or plan.kind == "spend"
    rates = (
        Rate(
            *("voice", "national", price if priced else "0"),
            prefix="+49",
            increment=increment,
            plan=plan.plan if plan else "",
        ),
        Rate("voice", "world", "0.60", per=60, prefix="+"),
    )
    company.do(PublishTariff("plans", 0, "EUR", rates, plans=plans))


def charges(company: Any, *, kept: Sequence[int] = ()) -> list[Again]:
    """Every charge that holds, as they were used; those named here only with their place to be found."""
    held: dict[int, Again] = {}
    for seq, event in enumerate(company.history, 1):
        if isinstance(event, UsageCharged):
            held[seq] = Again(seq, seq, unsealed(event), number_of(event), kept=seq in kept)
        elif isinstance(event, UsageRerated):
            before = held.pop(event.seq)
            held[seq] = Again(seq, event.first, event.charge, before.counterpart, kept=before.kept)
    return sorted(held.values(), key=lambda one: (one.charge.started_at, one.first))


def number_of(charge: UsageCharged) -> str:
    return DE if charge.zone == "national" else US


def changing(company: Any, now: int, given: Sequence[Again] | None = None) -> list[Again]:
    started = RatingStarted("j-1", Scope(), "tariff_corrected", "")
    replanning = Replanning(company.tenant.rerating.parts, started, now, Positions())
    return list(replanning.told(charges(company) if given is None else given))


def replan(company: Any, now: int, given: Sequence[Again] | None = None, part: int = 2) -> int:
    """How many charges were made again."""
    if "j-1" not in company.tenant.rerating.jobs:
        company.do(StartRating("j-1", Scope(), "tariff_corrected"))
    found = changing(company, now, given)
    for first in range(0, len(found), part):
        company.do(RerateCharges("j-1", tuple(found[first : first + part])), now)
    return len(found)


def amounts(company: Any) -> list[int]:
    return [again.charge.amount for again in charges(company)]


@pytest.fixture
def acme(bare: Any) -> Any:
    return bare


def test_a_tier_that_was_wrong_changes_whoever_was_in_it_and_nobody_else(acme, now):
    publish(acme, MINUTES)
    for _ in range(3):
        acme.use(100)
    assert amounts(acme) == [10 * M, 6 * M, M]
    publish(acme, PricePlan("minutes", "graduated", (TIERS[0], Tier(200, "0.04", 1, "1"), TIERS[2])))
    assert replan(acme, now) == 1
    assert amounts(acme) == [10 * M, 5 * M, M]
    assert acme.tenant.plans.counters == {("minutes", MONTH): {0: (300, 16 * M)}}


def test_a_record_that_counts_more_moves_all_that_were_used_after_it(acme, now):
    publish(acme, MINUTES)
    for _ in range(3):
        acme.use(70)
    publish(acme, MINUTES, increment=100)
    assert replan(acme, now) == 3
    assert amounts(acme) == [10 * M, 6 * M, M]


def test_who_only_stands_elsewhere_keeps_the_tariff_it_was_rated_by(acme, now):
    publish(acme, MINUTES)
    first = acme.use(100)[0]
    second = acme.use(100)[0]
    seqs = [again.seq for again in charges(acme)]
    publish(acme, CHEAPER, increment=150)
    replan(acme, now, charges(acme, kept=seqs[1:]))
    one, other = (again.charge for again in charges(acme))
    assert (one.tariff, one.billed, one.amount) == (first.tariff + 1, 150, 7 * M)
    # It is still billed by the second, and its first 50 units are in the second of the old tiers.
    assert (other.tariff, other.billed, other.amount) == (second.tariff, 100, 50 * 50_000 + 50 * 10_000)
    assert (other.basis.counted.before, other.basis.counted.spent_before) == (150, 7 * M)


@pytest.mark.parametrize(
    ("before", "after", "costs", "counted"),
    [
        (None, MINUTES, [10 * M, 6 * M, M], {("minutes", MONTH): {0: (300, 17 * M)}}),
        (MINUTES, None, [7 * M] * 3, {("minutes", MONTH): {0: (0, 0)}}),
        (
            MINUTES,
            PricePlan("other", "package", (), 100, 50, "3"),
            [0, 6 * M, 6 * M],
            {("minutes", MONTH): {0: (0, 0)}, ("other", MONTH): {0: (300, 12 * M)}},
        ),
        (
            MINUTES,
            PricePlan("minutes", "graduated", TIERS, scope="resource"),
            [10 * M, 6 * M, M],
            {("minutes", MONTH): {0: (0, 0), 4: (300, 17 * M)}},
        ),
        (
            MINUTES,
            PricePlan("minutes", "spend", cap="10"),
            [7 * M, 3 * M, 0],
            {("minutes", MONTH): {0: (300, 10 * M)}},
        ),
    ],
)
def test_charges_enter_a_plan_and_leave_it(acme, now, before, after, costs, counted):
    publish(acme, before, "0.07")
    for _ in range(3):
        acme.use(100)
    publish(acme, after, "0.07")
    replan(acme, now)
    assert amounts(acme) == costs
    assert acme.tenant.plans.counters == counted
    assert acme.tenant.plans.spent(MONTH) == (sum(costs) if after else 0)


def test_a_late_record_is_put_in_its_place_when_its_counter_is_counted_again(acme, now):
    publish(acme, MINUTES)
    acme.use(100, at=now)
    late = acme.use(100, at=now - MINUTE)[0]
    assert late.basis.counted.before == 100
    publish(acme, CHEAPER)
    replan(acme, now)
    first, second = charges(acme)
    assert (first.charge.record_id, first.charge.amount) == (late.record_id, 6 * M)
    assert (second.charge.amount, second.charge.basis.counted.before) == (2 * M, 100)


def test_between_two_parts_all_adds_up_and_new_usage_is_charged_where_the_counter_stands(acme, now):
    publish(acme, MINUTES)
    for _ in range(4):
        acme.use(50)
    publish(acme, MINUTES, increment=100)
    acme.do(StartRating("j-1", Scope(), "tariff_corrected"))
    found = changing(acme, now)
    acme.do(RerateCharges("j-1", tuple(found[:2])), now)
    assert acme.tenant.plans.counters["minutes", MONTH][0][0] == 300
    assert acme.tenant.rerating.jobs["j-1"].counting == (Counting("minutes", MONTH, 0),)
    meanwhile = acme.use(10)[0]
    assert meanwhile.basis.counted.before == 300
    acme.do(RerateCharges("j-1", tuple(found[2:])), now)
    assert replan(acme, now) == 0
    assert acme.tenant.plans.counters["minutes", MONTH][0][0] == 500


def test_what_a_job_left_half_counted_is_gone_on_with_by_the_next(acme, now):
    publish(acme, MINUTES)
    for _ in range(4):
        acme.use(50)
    publish(acme, MINUTES, increment=100)
    acme.do(StartRating("j-1", Scope(), "tariff_corrected"))
    acme.do(RerateCharges("j-1", tuple(changing(acme, now)[:1])), now)
    acme.do(FinishRating("j-1", 1, 0, stopped=True))
    left = (Counting("minutes", MONTH, 0),)
    assert acme.tenant.rerating.unsettled == left
    again = restore(encode_counters(copy_counters(acme.tenant)), encode_structure(acme.tenant))
    assert list(lines(again)) == list(lines(acme.tenant))
    acme.do(StartRating("j-0", Scope(period="2026-11", usage_type="data")))
    assert (acme.tenant.rerating.unsettled, acme.tenant.rerating.jobs["j-0"].counting) == ((), left)
    again = restore(encode_counters(copy_counters(acme.tenant)), encode_structure(acme.tenant))
    assert list(lines(again)) == list(lines(acme.tenant))
    acme.do(FinishRating("j-0", 0, 0))
    assert acme.tenant.rerating.unsettled == ()


def test_units_that_a_policy_prices_stay_out_of_the_plan(acme, now):
    publish(acme, MINUTES)
    acme.do(SetLimit("acme", "voice", 1000))
    acme.do(SetPolicy("dear", "acme", "voice", (Step("overage", 10, price="1"),)))
    acme.use(90)
    acme.use(60)
    publish(acme, CHEAPER)
    replan(acme, now)
    # 50 at 0.10 and 40 at 0.02; 10 more of the plan at 0.02, and 50 at the policy's price.
    assert amounts(acme) == [5 * M + 800_000, 200_000 + 50 * M]
    assert acme.tenant.plans.counters["minutes", MONTH][0] == (100, 6 * M)


def test_what_a_user_pays_is_priced_at_its_place_and_not_counted(acme, now):
    publish(acme, MINUTES)
    acme.use(100)
    acme.do(SetLimit("acme", "voice", 1000))
    acme.do(SetPolicy("own", "acme", "voice", (Step("redirect", 10),)))
    acme.use(10)
    publish(acme, CHEAPER)
    replan(acme, now)
    assert amounts(acme) == [6 * M, 200_000]
    assert acme.tenant.plans.counters["minutes", MONTH][0] == (100, 6 * M)


@pytest.mark.parametrize(
    ("plan", "differences", "left"),
    [
        (CHEAPER, [-4 * M, -4 * M], set()),
        (PricePlan("minutes", "volume", CHEAPER.tiers), [], {"counts_in_a_plan"}),
        (replace(CHEAPER, minimum="1"), [], {"counts_in_a_plan"}),
    ],
)
def test_a_closed_period_keeps_its_counters_the_difference_is_owed_in_the_one_that_runs(
    told, acme, now, plan, differences, left
):
    terms = Terms(rollover=(RollOverRule("voice", 1),))
    settled = ContractSigned("frame", 1, "2026-01-01", (), True, terms)
    acme = told(*(settled if isinstance(event, ContractSigned) else event for event in acme.history))
    publish(acme, MINUTES)
    for _ in range(2):
        acme.use(100)
    december = now + 30 * 24 * 60 * MINUTE
    publish(acme, plan)
    acme.do(StartRating("j-1", VOICE, "tariff_corrected"), december)
    started = RatingStarted("j-1", VOICE, "tariff_corrected", "")
    replanning = Replanning(acme.tenant.rerating.parts, started, december, Positions())
    found = tuple(replanning.told(charges(acme)))
    events = acme.do(RerateCharges("j-1", found), december) if found else []
    corrected = [event.difference for event in events if isinstance(event, UsageCorrected)]
    assert (corrected, set(replanning.left.values())) == (differences, left)
    assert acme.tenant.plans.counters["minutes", MONTH] == {0: (200, 16 * M)}
    assert acme.tenant.rerating.corrected == ({"2026-12": sum(differences)} if differences else {})


def test_no_more_comes_off_a_plan_than_it_counts(acme):
    publish(acme, MINUTES)
    acme.use(10)
    acme.do(StartRating("j-1", Scope(), "tariff_corrected"))
    (again,) = charges(acme)
    taken = changing_to(acme, again)
    acme.tenant.plans.counters["minutes", MONTH][0] = (5, 0)
    with pytest.raises(InvariantBroken, match="no more comes off a plan"):
        acme.tenant.apply(taken)


def changing_to(company: Any, again: Again) -> UsageTakenBack:
    publish(company, CHEAPER, increment=60)
    (back, *_) = company.tenant.decide(RerateCharges("j-1", (again,)), 0)
    return back


# --- by chance ---------------------------------------------------------------------------------------

TIER = st.tuples(st.integers(1, 150), st.sampled_from(["0", "0.1", "0.07", "0.003"]), st.sampled_from("012"))


@st.composite
def plans(draw: Any) -> PricePlan | None:
    kind = draw(st.sampled_from(["graduated", "volume", "package", "spend", "none"]))
    about = {
        "scope": draw(st.sampled_from(["enterprise", "node", "resource"])),
        "cap": draw(st.sampled_from(["", "", "9.5"])),
        "minimum": draw(st.sampled_from(["", "5"])),
    }
    about["of_kind"] = draw(st.sampled_from(["division", "enterprise"])) if about["scope"] == "node" else ""
    name = draw(st.sampled_from(["minutes", "other"]))
    match kind:
        case "none":
            return None
        case "package":
            block = draw(st.integers(1, 60))
            return PricePlan(name, kind, (), draw(st.integers(0, 90)), block, "0.35", **about)
        case "spend":
            return PricePlan(name, kind, **(about | {"cap": "9.5"}))
    steps, tiers, upto = draw(st.lists(TIER, max_size=3)), [], 0
    for length, price, fee in steps:
        upto += length
        tiers.append(Tier(upto, price, 1, fee))
    return PricePlan(name, kind, (*tiers, Tier(0, "0.02", 3)), **about)


USES = st.lists(
    st.tuples(
        st.integers(1, 90), st.sampled_from(["r-1", "r-2"]), st.integers(0, 9), st.sampled_from([DE, DE, US])
    ),
    max_size=9,
)
TARIFF = st.tuples(plans(), st.sampled_from(["0.07", "0.2"]), st.sampled_from([1, 7, 60]))


def use(company: Any, uses: Any, now: int) -> None:
    for quantity, line, minute, number in uses:
        company.use(quantity, at=now - minute * MINUTE, line=line, counterpart=number)


def naive(uses: Any, tariff: Any) -> list[int]:
    """Unit by unit, in the order of use: what each costs, in micro-units."""
    plan, price, increment = tariff
    counters: dict[str, list[Any]] = {}
    found = []
    for quantity, line, _, number in sorted(uses, key=lambda one: -one[2]):
        if number == US:
            found.append(rounded(Fraction("0.60") * M / 60 * quantity))
            continue
        units = -(-quantity // increment) * increment
        if plan is None:
            found.append(rounded(Fraction(price) * M * units))
            continue
        divisions = plan.of_kind == "division"
        who = line if plan.scope == "resource" or (plan.scope == "node" and divisions) else "acme"
        counter = counters.setdefault(who, [0, 0])
        cost = sum((unit_price(plan, price, counter[0] + n) for n in range(1, units + 1)), Fraction())
        if plan.cap:
            cost = min(cost, max(Fraction(plan.cap) * M - counter[1], Fraction()))
        found.append(rounded(cost))
        counter[0] += units
        counter[1] += found[-1]
    return found


def unit_price(plan: PricePlan, price: str, number: int) -> Fraction:
    if plan.kind == "spend":
        return Fraction(price) * M
    if plan.kind == "package":
        begins = number > plan.free and (number - plan.free - 1) % plan.block == 0
        return Fraction(plan.price) * M if begins else Fraction()
    begins = 1
    for tier in plan.tiers:
        if not tier.upto or number <= tier.upto:
            fee = Fraction(tier.fee) if number == begins else 0
            return (Fraction(tier.price) / tier.per + fee) * M
        begins = tier.upto + 1
    raise AssertionError


def rounded(cost: Fraction) -> int:
    steps = cost / 100 + Fraction(1, 2)
    return steps.numerator // steps.denominator * 100


def standing(company: Any) -> Any:
    """What there is to compare: by who used it and when, by node, and by counter."""
    counted = {
        (*of, ordinal): counter
        for of, counters in company.tenant.plans.counters.items()
        for ordinal, counter in counters.items()
        if counter[0]
    }
    money = company.family("money")
    held = [(one.charge.billed, one.charge.amount, one.charge.exact) for one in charges(company)]
    return counted, list(money.used), list(company.family().used), held


@given(uses=USES, before=TARIFF, after=TARIFF, part=st.integers(1, 4))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_corrected_all_is_as_if_it_had_been_charged_in_order(bare_company, now, uses, before, after, part):
    acme, right = bare_company(), bare_company()
    publish(acme, *before)
    use(acme, uses, now)
    publish(acme, *after)
    replan(acme, now, part=part)
    publish(right, *after)
    use(right, sorted(uses, key=lambda one: -one[2]), now)
    assert standing(acme) == standing(right)
    assert amounts(acme) == naive(uses, after)
    assert replan(acme, now) == 0
    acme.tenant.check_whole()


@given(uses=USES, tariff=TARIFF)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_came_in_order_stays_as_it_is(bare_company, now, uses, tariff):
    acme = bare_company()
    publish(acme, *tariff)
    use(acme, sorted(uses, key=lambda one: -one[2]), now)
    assert changing(acme, now) == []
