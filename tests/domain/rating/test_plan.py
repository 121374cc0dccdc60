"""What plans cost, by hand and against a naive oracle that goes unit by unit."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allotment.domain.rating.plan import CompiledPlan, PricePlan, Tier
from allotment.domain.rating.plan_checks import check_plans
from allotment.domain.rating.standing import Standing
from allotment.domain.refusals import Refused

M = 1_000_000
GRADUATED = PricePlan(
    "minutes",
    "graduated",
    (Tier(100, "0.10"), Tier(200, "0.05"), Tier(0, "0.01")),
)
VOLUME = PricePlan("minutes", "volume", GRADUATED.tiers)
FLAT = PricePlan(
    "steps", "graduated", (Tier(10, "0", 1, "5"), Tier(20, "0", 1, "3"), Tier(0, "0.50", 1, "0"))
)
PACKAGE = PricePlan("pack", "package", free=100, block=50, price="2")
KINDS = {"node": ("division", "cost_centre"), "resource": ("sip", "msisdn")}


def cost(plan, before, units):
    """In whole units of the currency."""
    return CompiledPlan(plan).cost(before, units) / M


@pytest.mark.parametrize(
    ("plan", "before", "units", "expected"),
    [
        (GRADUATED, 0, 0, "0"),
        (GRADUATED, 0, 1, "0.10"),
        (GRADUATED, 0, 99, "9.90"),
        (GRADUATED, 0, 100, "10.00"),
        (GRADUATED, 0, 101, "10.05"),
        (GRADUATED, 99, 1, "0.10"),
        (GRADUATED, 99, 2, "0.15"),
        (GRADUATED, 100, 1, "0.05"),
        (GRADUATED, 0, 200, "15.00"),
        (GRADUATED, 199, 2, "0.06"),
        (GRADUATED, 0, 1000, "23.00"),
        (GRADUATED, 50, 950, "18.00"),
        (GRADUATED, 10**12, 3, "0.03"),
        (VOLUME, 99, 2, "0.15"),
        (FLAT, 0, 0, "0"),
        (FLAT, 0, 1, "5"),
        (FLAT, 1, 9, "0"),
        (FLAT, 9, 1, "0"),
        (FLAT, 9, 2, "3"),
        (FLAT, 10, 1, "3"),
        (FLAT, 11, 9, "0"),
        (FLAT, 0, 21, "8.50"),
        (FLAT, 20, 2, "1.00"),
        (PACKAGE, 0, 1, "0"),
        (PACKAGE, 0, 100, "0"),
        (PACKAGE, 0, 101, "2"),
        (PACKAGE, 100, 1, "2"),
        (PACKAGE, 101, 49, "0"),
        (PACKAGE, 101, 50, "2"),
        (PACKAGE, 0, 150, "2"),
        (PACKAGE, 0, 151, "4"),
        (PACKAGE, 99, 102, "6"),
    ],
)
def test_what_units_cost_by_their_place_in_the_period(plan, before, units, expected):
    assert cost(plan, before, units) == Fraction(expected)


@pytest.mark.parametrize(
    ("units", "expected"),
    [(0, "0"), (1, "0.10"), (100, "10.00"), (101, "5.05"), (200, "10.00"), (201, "2.01"), (1000, "10.00")],
)
def test_under_a_volume_plan_all_units_cost_what_those_of_the_last_tier_do(units, expected):
    assert CompiledPlan(VOLUME).whole(units) / M == Fraction(expected)


def test_a_third_of_a_cent_stays_exact():
    plan = PricePlan("thirds", "graduated", (Tier(0, "0.01", 3),))
    assert cost(plan, 7, 1) == Fraction(1, 300)


@pytest.mark.parametrize(
    ("spent", "own", "units", "expected"),
    [
        (0, "0", 99, "9.90"),
        (0, "0", 100, "10"),
        (0, "0", 101, "10"),
        (9 * M, "0", 5, "0.50"),
        (9 * M, "0.60", 5, "1"),
        (10 * M, "0.60", 5, "0"),
        (11 * M, "0", 5, "0"),
    ],
)
def test_beyond_its_cap_a_plan_charges_nothing(spent, own, units, expected):
    capped = CompiledPlan(PricePlan("c", "graduated", (Tier(0, "0.10"),), cap="10"))
    assert Standing(capped, 0, 0, spent).exact(Fraction(own) * M, units) / M == Fraction(expected)


def test_a_spend_plan_adds_nothing_to_what_the_rate_asks():
    plan = CompiledPlan(PricePlan("s", "spend", cap="10"))
    assert Standing(plan, 0, 5, 9 * M).exact(Fraction(M, 3), 7) == Fraction(M, 3)


# --- an oracle that goes unit by unit --------------------------------------------------------


def one_by_one(plan, before, units):
    """What each unit costs, looked up on its own."""
    total = Fraction(0)
    for place in range(before + 1, before + units + 1):
        if plan.kind == "package":
            if place > plan.free and (place - plan.free - 1) % plan.block == 0:
                total += Fraction(plan.price)
            continue
        first = 1
        for tier in plan.tiers:
            if tier.upto == 0 or place <= tier.upto:
                total += Fraction(tier.price) / tier.per
                if place == first:
                    total += Fraction(tier.fee)
                break
            first = tier.upto + 1
    return total


def prices():
    return st.integers(0, 300).map(lambda cents: f"{cents // 100}.{cents % 100:02d}")


@st.composite
def tiered(draw, kind="graduated"):
    ends = sorted(draw(st.sets(st.integers(1, 60), max_size=4)))
    tiers = [Tier(end, draw(prices()), draw(st.integers(1, 7)), draw(prices())) for end in [*ends, 0]]
    return PricePlan("p", kind, tuple(tiers))


def packages():
    return st.builds(
        lambda free, block, price: PricePlan("p", "package", free=free, block=block, price=price),
        *(st.integers(0, 40), st.integers(1, 20), prices()),
    )


@given(tiered() | packages(), st.integers(0, 90), st.integers(0, 90))
def test_a_naive_oracle_agrees(plan, before, units):
    check_plans([plan], 4, KINDS)
    assert cost(plan, before, units) == one_by_one(plan, before, units)
    parts = list(CompiledPlan(plan).parts(before, units))
    assert sum(part.units for part in parts) == units
    assert sum(part.exact for part in parts) == cost(plan, before, units) * M


@given(tiered() | packages(), st.lists(st.integers(0, 40), max_size=8))
def test_charges_in_any_split_add_up_to_the_whole(plan, uses):
    compiled, before, total = CompiledPlan(plan), 0, Fraction(0)
    for units in uses:
        total += compiled.cost(before, units)
        before += units
    assert total == compiled.cost(0, before)


@given(st.data(), st.integers(1, 90))
def test_with_falling_prices_volume_costs_no_more_than_graduated_and_no_less_with_rising_ones(data, units):
    plan = data.draw(tiered("volume"))
    for falling in (True, False):
        ordered = sorted((tier.price for tier in plan.tiers), reverse=falling)
        tiers = tuple(Tier(one.upto, price) for one, price in zip(plan.tiers, ordered, strict=True))
        compiled = CompiledPlan(PricePlan("p", "volume", tiers))
        whole, graduated = compiled.whole(units), compiled.cost(0, units)
        assert whole <= graduated if falling else whole >= graduated


# --- what a tariff may not say ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "field"),
    [
        (PricePlan("p", "stairs", (Tier(),)), "plans[0].kind"),
        (PricePlan("p", "graduated", ()), "plans[0].tiers"),
        (PricePlan("p", "package", (Tier(),), block=1), "plans[0].tiers"),
        (PricePlan("p", "graduated", (Tier(5), Tier(5), Tier())), "plans[0].tiers[1].upto"),
        (PricePlan("p", "graduated", (Tier(0), Tier())), "plans[0].tiers[0].upto"),
        (PricePlan("p", "graduated", (Tier(5), Tier(9))), "plans[0].tiers[1].upto"),
        (PricePlan("p", "graduated", (Tier(0, "-1"),)), "plans[0].tiers[0].price"),
        (PricePlan("p", "graduated", (Tier(0, "1", 0),)), "plans[0].tiers[0].per"),
        (PricePlan("p", "graduated", (Tier(0, "1", 1, "x"),)), "plans[0].tiers[0].fee"),
        (PricePlan("p", "package", block=0), "plans[0].block"),
        (PricePlan("p", "package", block=1, free=-1), "plans[0].free"),
        (PricePlan("p", "package", block=1, price="1e3"), "plans[0].price"),
        (PricePlan("p", "graduated", (Tier(),), free=5), "plans[0].free"),
        (PricePlan("p", "graduated", (Tier(),), scope="everybody"), "plans[0].scope"),
        (PricePlan("p", "graduated", (Tier(),), scope="node"), "plans[0].of_kind"),
        (PricePlan("p", "graduated", (Tier(),), scope="node", of_kind="sip"), "plans[0].of_kind"),
        (PricePlan("p", "graduated", (Tier(),), of_kind="sip"), "plans[0].of_kind"),
        (PricePlan("p", "spend"), "plans[0].cap"),
        (PricePlan("p", "spend", cap="much"), "plans[0].cap"),
        (PricePlan("p", "spend", cap="0.00001"), "plans[0].cap"),
        (PricePlan("p", "spend", cap="1", minimum="2"), "plans[0].minimum"),
        (PricePlan("p", "spend", cap="1", share="week"), "plans[0].share"),
    ],
)
def test_a_plan_that_prices_nothing_is_refused_with_the_path_of_the_field(plan, field):
    with pytest.raises(Refused) as refused:
        check_plans([plan], 4, KINDS)
    assert (refused.value.code, refused.value.facts["field"]) == ("bad_tariff", field)
    assert refused.value.facts["remedy"]


def test_two_plans_of_one_name_are_refused():
    with pytest.raises(Refused) as refused:
        check_plans([GRADUATED, VOLUME], 4, KINDS)
    assert refused.value.facts["field"] == "plans[1].plan"
