"""What was granted is divided, moved and consumed; never made and never lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allotment.domain.bucket import Allocate, Family, Granted, Return, Trade, Transferred
from allotment.domain.contract import PeriodNotOpen
from allotment.domain.hierarchy import AddNode
from allotment.domain.refusals import InvariantBroken

MONTH = "2026-11"


def moved(source, target, quantity, reason="allocate", note=""):
    return Transferred(source, target, "voice", MONTH, quantity, reason, note)


DOWN = moved("acme", "emea", 100)


@pytest.mark.parametrize(
    ("history", "command", "outcome"),
    [
        ([], Allocate("acme", "emea", "voice", MONTH, 0), "not_positive"),
        ([], Allocate("acme", "emea", "voice", MONTH, -1), "not_positive"),
        ([], Allocate("acme", "emea", "voice", MONTH, 1), [moved("acme", "emea", 1)]),
        ([], Allocate("acme", "emea", "voice", MONTH, 1000), [moved("acme", "emea", 1000)]),
        ([], Allocate("acme", "emea", "voice", MONTH, 1001), "insufficient_allowance"),
        ([], Allocate("acme", "emea", "video", MONTH, 1), "insufficient_allowance"),
        ([], Allocate("acme", "emea", "money", MONTH, 1), "insufficient_allowance"),
        ([], Allocate("acme", "emea", "fax", MONTH, 1), "unknown_usage_type"),
        ([], Allocate("acme", "acme", "voice", MONTH, 1), "same_node"),
        ([], Allocate("acme", "nobody", "voice", MONTH, 1), "unknown_node"),
        ([], Allocate("nobody", "emea", "voice", MONTH, 1), "unknown_node"),
        ([], Allocate("acme", "emea", "voice", "2025-12", 1), "no_contract"),
        ([], Allocate("acme", "emea", "voice", "soon", 1), "not_a_period"),
        ([], Allocate("acme", "emea", "voice", MONTH, 1, "a\nb"), "bad_text"),
        ([], Allocate("acme", "emea", "voice", MONTH, 1, "x" * 201), "bad_text"),
        ([], Allocate("acme", "emea", "voice", "", 1, "x"), [moved("acme", "emea", 1, note="x")]),
        # Down past several levels, and to a resource; never up or sideways.
        ([], Allocate("acme", "r-1", "voice", MONTH, 1), [moved("acme", "r-1", 1)]),
        ([DOWN], Allocate("emea", "acme", "voice", MONTH, 1), "not_below"),
        ([DOWN], Allocate("emea", "apac", "voice", MONTH, 1), "not_below"),
        ([DOWN], Allocate("emea", "r-2", "voice", MONTH, 1), "not_below"),
        # Up, also past several levels; never down or sideways.
        ([DOWN], Return("emea", "acme", "voice", MONTH, 100), [moved("emea", "acme", 100, "return")]),
        ([DOWN], Return("emea", "acme", "voice", MONTH, 101), "insufficient_allowance"),
        ([DOWN], Return("acme", "emea", "voice", MONTH, 1), "not_above"),
        ([DOWN], Return("emea", "apac", "voice", MONTH, 1), "not_above"),
        (
            [moved("acme", "r-1", 5)],
            Return("r-1", "acme", "voice", MONTH, 5),
            [moved("r-1", "acme", 5, "return")],
        ),
        # Sideways; what goes up or down has its own name.
        ([DOWN], Trade("emea", "apac", "voice", MONTH, 100), [moved("emea", "apac", 100, "trade")]),
        ([DOWN], Trade("emea", "r-2", "voice", MONTH, 1), [moved("emea", "r-2", 1, "trade")]),
        ([DOWN], Trade("emea", "apac", "voice", MONTH, 101), "insufficient_allowance"),
        ([DOWN], Trade("emea", "acme", "voice", MONTH, 1), "not_a_trade"),
        ([DOWN], Trade("emea", "sales", "voice", MONTH, 1), "not_a_trade"),
        # Given once is gone.
        (
            [DOWN, moved("emea", "apac", 60, "trade")],
            Trade("emea", "apac", "voice", MONTH, 41),
            "insufficient_allowance",
        ),
        (
            [DOWN, moved("emea", "apac", 60, "trade")],
            Trade("emea", "apac", "voice", MONTH, 40),
            [moved("emea", "apac", 40, "trade")],
        ),
    ],
)
def test_moving_quantity(company, history, command, outcome):
    assert company(*history).ask(command) == outcome


@pytest.mark.parametrize(
    ("command", "code", "facts"),
    [
        (Allocate("x", "x", "fax", "soon", 0, "\n"), "unknown_usage_type", {"usage_type": "fax"}),
        (Allocate("x", "x", "voice", "soon", 0, "\n"), "not_a_period", {"period": "soon"}),
        (Allocate("x", "x", "voice", "2025-12", 0, "\n"), "no_contract", {"period": "2025-12"}),
        (Allocate("x", "y", "voice", MONTH, 0, "\n"), "bad_text", {"field": "note"}),
        (Allocate("x", "y", "voice", MONTH, 0), "unknown_node", {"node": "x"}),
        (Allocate("emea", "y", "voice", MONTH, 0), "unknown_node", {"node": "y"}),
        (Allocate("emea", "emea", "voice", MONTH, 0), "not_positive", {"quantity": 0}),
        (Allocate("emea", "emea", "voice", MONTH, 1), "same_node", {"node": "emea"}),
        (Allocate("emea", "acme", "voice", MONTH, 1), "not_below", {"source": "emea", "target": "acme"}),
        (Trade("emea", "acme", "voice", MONTH, 1), "not_a_trade", {"remedy": "return"}),
        (Trade("acme", "emea", "voice", MONTH, 1), "not_a_trade", {"remedy": "allocate"}),
        (
            Allocate("emea", "sales", "voice", MONTH, 1),
            "insufficient_allowance",
            {"node": "emea", "usage_type": "voice", "period": MONTH, "available": 0, "reserved": 0},
        ),
    ],
)
def test_of_several_faults_the_first_in_a_fixed_order_is_told_with_its_facts(acme, command, code, facts):
    told, its_facts = acme.refusal(command)
    assert told == code
    assert facts.items() <= its_facts.items()


def test_what_is_refused_changes_nothing(acme):
    acme.refusal(Allocate("acme", "emea", "voice", MONTH, 1001))
    assert acme.family().remaining == [1000, 0, 0, 0, 0, 0]


def test_only_what_is_not_reserved_can_move(acme):
    acme.family().reserved[0] = 400
    assert acme.ask(Allocate("acme", "emea", "voice", MONTH, 601)) == "insufficient_allowance"
    assert acme.refusal(Allocate("acme", "emea", "voice", MONTH, 601))[1]["available"] == 600
    assert acme.ask(Allocate("acme", "emea", "voice", MONTH, 600)) == [moved("acme", "emea", 600)]


def test_a_transfer_into_a_period_that_is_not_open_asks_for_it(acme):
    with pytest.raises(PeriodNotOpen) as needed:
        acme.tenant.decide(Allocate("acme", "emea", "voice", "2026-12", 1), 0)
    assert needed.value.period == "2026-12"


@pytest.mark.parametrize(
    "command",
    [
        Allocate("nobody", "emea", "voice", "2026-12", 1),
        Allocate("acme", "emea", "voice", "2026-12", 0),
        Allocate("emea", "acme", "voice", "2026-12", 1),
    ],
)
def test_a_command_that_is_refused_opens_no_period(acme, command):
    try:
        outcome = acme.ask(command)
    except PeriodNotOpen:
        outcome = "opens the period"
    assert outcome in ("unknown_node", "not_positive", "not_below")


@pytest.mark.parametrize(
    ("buckets", "quantity", "drawn"),
    [
        ({}, 10, ()),
        ({4: 10}, 1, ((4, 1),)),
        ({4: 10}, 9, ((4, 9),)),
        ({4: 10}, 10, ((4, 10),)),
        ({4: 10}, 11, ((4, 10),)),
        ({4: 10, 0: 5}, 11, ((4, 10), (0, 1))),
        ({4: 1, 2: 1, 1: 1, 0: 1}, 4, ((4, 1), (2, 1), (1, 1), (0, 1))),
        ({4: 1, 2: 1, 1: 1, 0: 1}, 9, ((4, 1), (2, 1), (1, 1), (0, 1))),
        # A neighbour's bucket is nobody else's, whatever it holds.
        ({3: 100, 5: 100, 0: 1}, 2, ((0, 1),)),
    ],
)
def test_the_narrowest_scope_pays_first(buckets, quantity, drawn):
    family = Family("voice", MONTH, 6)
    for ordinal, held in buckets.items():
        family.grant(ordinal, held)
    assert family.draw((4, 2, 1, 0), quantity) == (drawn, sum(part for _, part in drawn))


def test_what_is_reserved_pays_for_nobody_else():
    family = Family("voice", MONTH, 2)
    family.grant(1, 10)
    family.grant(0, 10)
    family.reserved[1] = 8
    assert family.draw((1, 0), 5) == (((1, 2), (0, 3)), 5)


@given(
    st.lists(st.integers(0, 50), min_size=4, max_size=4),
    st.lists(st.integers(0, 50), min_size=4, max_size=4),
    st.integers(1, 250),
)
def test_the_parts_of_a_draw_are_what_the_path_can_pay(held, reserved, quantity):
    family = Family("voice", MONTH, 4)
    for ordinal, quantity_held in enumerate(held):
        family.grant(ordinal, quantity_held)
        family.reserved[ordinal] = min(reserved[ordinal], quantity_held)
    drawn, taken = family.draw((3, 2, 1, 0), quantity)
    assert taken == sum(part for _, part in drawn) == min(quantity, sum(map(family.available, range(4))))
    assert all(0 < part <= family.available(ordinal) for ordinal, part in drawn)
    assert [ordinal for ordinal, _ in drawn] == sorted((ordinal for ordinal, _ in drawn), reverse=True)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda family: family.move(0, 1, 11),
        lambda family: family.move(0, 1, 0),
        lambda family: family.move(1, 0, 1),
        lambda family: family.consume(((0, 11),)),
        lambda family: family.consume(((0, 0),)),
        lambda family: family.consume(((0, -1),)),
        lambda family: family.consume(((1, 1),)),
    ],
)
def test_our_own_mistakes_stop_the_writer(mistake):
    family = Family("voice", MONTH, 2)
    family.grant(0, 10)
    with pytest.raises(InvariantBroken):
        mistake(family)


def test_reserved_quantity_cannot_be_consumed_by_others_or_moved():
    family = Family("voice", MONTH, 2)
    family.grant(0, 10)
    family.reserved[0] = 4
    with pytest.raises(InvariantBroken):
        family.move(0, 1, 7)


def test_verification_finds_a_bucket_that_does_not_add_up():
    family = Family("voice", MONTH, 2)
    family.grant(0, 10)
    family.remaining[1] += 1
    family.check()
    with pytest.raises(InvariantBroken):
        family.check_whole()


def test_a_member_that_joins_has_an_empty_bucket_in_every_open_period(acme):
    acme.do(AddNode("new", "apac", "New", "group"))
    assert acme.family().remaining == [1000, 0, 0, 0, 0, 0, 0]
    assert acme.do(Allocate("acme", "new", "voice", MONTH, 3))
    assert acme.family().remaining == [997, 0, 0, 0, 0, 0, 3]


def test_grants_add_up(company):
    acme = company(Granted("acme", "voice", MONTH, 5), Granted("emea", "voice", MONTH, 7))
    family = acme.family()
    assert (family.granted_total, family.remaining_total, family.remaining[:2]) == (1012, 1012, [1005, 7])
