"""Proposals for grants: exact on the way, rounded once, and tried on the periods they come from."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allotment.domain.refusals import Refused
from allotment.domain.sizing import Assumptions, Past, Replayed, propose, round_up_to


def past(*used, overage=0):
    return [Past(f"p{number}", quantity, overage) for number, quantity in enumerate(used)]


PLAIN = Assumptions(margin_percent=0, step=1)


@pytest.mark.parametrize(
    ("used", "assumed", "base", "quantity"),
    [
        ((), PLAIN, 0, 0),
        ((0, 0, 0), Assumptions(), 0, 0),
        ((1,), Assumptions(margin_percent=0, step=10), 1, 10),
        ((10,), Assumptions(margin_percent=0, step=10), 10, 10),
        ((3, 9, 6), PLAIN, 9, 9),
        ((3, 9, 7), Assumptions(method="mean", margin_percent=0, step=1), Fraction(19, 3), 7),
        ((3, 9, 6), Assumptions(method="percentile", percentile=50, margin_percent=0, step=1), 6, 6),
        ((3, 9, 6, 1), Assumptions(method="percentile", percentile=50, margin_percent=0, step=1), 3, 3),
        ((3, 9, 6), Assumptions(method="percentile", percentile=1, margin_percent=0, step=1), 3, 3),
        ((3, 9, 6), Assumptions(method="percentile", percentile=100, margin_percent=0, step=1), 9, 9),
        ((100,), Assumptions(growth_percent=10, margin_percent=10, step=1), 100, 121),
        ((100,), Assumptions(growth_percent=-100, margin_percent=10, step=1), 100, 0),
        ((101,), Assumptions(growth_percent=-50, margin_percent=0, step=1), 101, 51),
        # 33 x 1.1 x 1.1 = 39.93: rounded on the way it would be 41.
        ((33,), Assumptions(growth_percent=10, margin_percent=10, step=1), 33, 40),
    ],
)
def test_proposing(used, assumed, base, quantity):
    proposal = propose(past(*used), assumed, "data")
    assert (proposal.base, proposal.quantity) == (base, quantity)
    assert proposal.with_margin == base * Fraction(
        (100 + assumed.growth_percent) * (100 + assumed.margin_percent), 10_000
    )


@pytest.mark.parametrize(
    ("usage_type", "step"),
    [("data", 10**9), ("voice", 3_600), ("messaging", 100), ("video", 3_600), ("money", 10**6), ("new", 1)],
)
def test_each_usage_type_has_its_step(usage_type, step):
    proposal = propose(past(1), Assumptions(), usage_type)
    assert proposal.step == step
    assert proposal.quantity == (2 if step == 1 else step)


def test_the_periods_are_replayed_with_the_proposal():
    history = [Past("p1", 5, 0), Past("p2", 12, 4), Past("p3", 9, 0)]
    assumed = Assumptions(method="percentile", percentile=50, margin_percent=0, step=1)
    assert propose(history, assumed, "voice").replayed == (
        Replayed("p1", 5, 0, 0, 0, 4),
        Replayed("p2", 12, 4, 3, 1, 0),
        Replayed("p3", 9, 0, 0, 0, 0),
    )


@pytest.mark.parametrize(
    ("assumed", "field"),
    [
        (Assumptions(periods=0), "periods"),
        (Assumptions(periods=37), "periods"),
        (Assumptions(method="percentile"), "percentile"),
        (Assumptions(method="max", percentile=50), "percentile"),
        (Assumptions(method="percentile", percentile=0), "percentile"),
        (Assumptions(method="percentile", percentile=101), "percentile"),
        (Assumptions(growth_percent=-101), "growth_percent"),
        (Assumptions(growth_percent=1_001), "growth_percent"),
        (Assumptions(margin_percent=-1), "margin_percent"),
        (Assumptions(step=0), "step"),
    ],
)
def test_assumptions_that_cannot_be_made_are_refused(assumed, field):
    with pytest.raises(Refused) as refused:
        assumed.check()
    assert (refused.value.code, refused.value.facts["field"]) == ("bad_sizing", field)


@given(
    used=st.lists(st.integers(0, 2**60), max_size=12),
    growth=st.integers(-100, 1_000),
    margin=st.integers(0, 1_000),
    step=st.integers(1, 10**10),
)
def test_a_proposal_covers_what_was_asked_by_less_than_one_step(used, growth, margin, step):
    assumed = Assumptions(growth_percent=growth, margin_percent=margin, step=step)
    proposal = propose(past(*used), assumed, "data")
    assert proposal.with_margin <= proposal.quantity < proposal.with_margin + step
    assert proposal.quantity % step == 0
    for replayed in proposal.replayed:
        assert replayed.used == proposal.quantity - replayed.unused + replayed.overage_then
        assert replayed.overage_avoided + replayed.overage_then == replayed.overage


@given(step=st.integers(1, 10**6), numerator=st.integers(0, 10**12), denominator=st.integers(1, 10**4))
def test_rounding_up_is_by_less_than_a_step(step, numerator, denominator):
    quantity = Fraction(numerator, denominator)
    assert quantity <= round_up_to(step, quantity) < quantity + step
