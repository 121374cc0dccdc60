"""Splitting: many small transfers need the approval that one large one would."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allotment.domain.allocation import TransferMany
from allotment.domain.approval import Approver, ApproveTransfer, DeclineTransfer, SetApprovalRule
from allotment.domain.approval import TransferProposed as Proposed
from allotment.domain.bucket import Allocate, Return, Trade, Transferred
from allotment.domain.canonical import lines
from allotment.domain.offer import AcceptOffer, OfferTrade
from allotment.domain.permit import leg_of
from allotment.domain.refusals import Refused
from allotment.domain.running import Line
from allotment.domain.schedule import ScheduleAllocation, ScheduleSkipped
from allotment.domain.snapshot import copy_counters, encode_counters, encode_structure, restore
from allotment.domain.splitting import TransferCounted
from allotment.domain.template import ApplyTemplate, Rule
from allotment.domain.trading import UndoTransfer

MONTH, DAY, HOUR = "2026-11", 86_400_000_000, 3_600_000_000
ANNA, BERT = "telecoms_manager:anna", "telecoms_manager:bert"


class Office:
    """Acme, and who moves its data. EMEA and APAC have 1000 each."""

    def __init__(self, company, now):
        self.company, self.now = company, now
        for node in ("emea", "apac"):
            self.do(Allocate("acme", node, "data", MONTH, 1000))

    def do(self, command, by=ANNA):
        events = self.company.tenant.decide(command, self.now, by)
        self.company.tell(*events)
        self.company.tenant.check_whole()
        return events

    def rule(self, window="day", above=50, node="emea"):
        self.do(SetApprovalRule(node, "data", above, Approver("acme"), window=window))

    def moves(self, quantity, by=ANNA, source="emea", target="apac"):
        """Whether it moves at once."""
        return isinstance(self.do(Trade(source, target, "data", MONTH, quantity), by)[0], Transferred)


@pytest.fixture
def office(acme, now):
    return Office(acme, now)


@pytest.mark.parametrize(
    ("window", "pieces", "moved"),
    [
        ("", [50, 50, 50, 51], [True, True, True, False]),
        ("day", [50, 1], [True, False]),
        ("day", [51], [False]),
        ("day", [30, 30, 20, 1], [True, False, True, False]),
        ("period", [25, 25, 1], [True, True, False]),
    ],
)
def test_pieces_add_up_in_the_window_of_the_rule(office, window, pieces, moved):
    office.rule(window)
    assert [office.moves(quantity) for quantity in pieces] == moved


@pytest.mark.parametrize(("window", "moves"), [("day", True), ("period", False)])
def test_a_day_begins_anew_and_a_period_goes_on(office, window, moves):
    office.rule(window)
    assert office.moves(50)
    office.now += 12 * HOUR - 1
    assert not office.moves(1)
    office.now += 1
    assert office.moves(1) is moves


def test_another_person_another_target_and_the_way_back_are_counted_apart(office):
    office.rule()
    assert office.moves(50)
    assert office.moves(50, BERT)
    assert office.moves(50, source="apac", target="emea")
    assert isinstance(office.do(Return("emea", "acme", "data", MONTH, 50))[0], Transferred)
    assert not office.moves(1)


def test_who_acts_for_another_is_the_one_who_acts(office):
    office.rule()
    assert office.moves(50, "telecoms_manager:bert;act=anna")
    assert not office.moves(1, ANNA)
    assert office.moves(1, BERT)


def test_what_is_approved_counts_for_nothing_and_what_came_before_is_told(office):
    office.rule()
    office.moves(40)
    (asked,) = office.do(Trade("emea", "apac", "data", MONTH, 60))
    assert (type(asked), asked.before) == (Proposed, 40)
    office.do(ApproveTransfer(asked.proposal), BERT)
    assert office.moves(10)
    (asked,) = office.do(Trade("emea", "apac", "data", MONTH, 1))
    office.do(DeclineTransfer(asked.proposal), BERT)
    assert asked.before == 50


def test_undoing_gives_no_piece_back(office):
    office.rule()
    office.moves(50)
    moved = office.company.history[-2]
    assert isinstance(moved, Transferred)
    office.do(UndoTransfer(99, (leg_of(moved),)))
    assert not office.moves(1)


def test_offers_in_pieces_count_for_who_accepts(office):
    office.rule()
    for name in ("a", "b"):
        office.do(OfferTrade(name, "emea", "data", 30, target="apac"), BERT)
    taken = [office.do(AcceptOffer(name, "apac")) for name in ("a", "b")]
    assert [type(events[-1]) for events in taken] == [TransferCounted, Proposed]


@pytest.mark.parametrize("parts", [[30, 20], [30, 21], [10] * 6])
def test_the_lines_of_a_sheet_add_up_too(office, parts):
    office.rule()
    sheet = TransferMany(tuple(Line("trade", "emea", "apac", "data", one) for one in parts))
    if sum(parts) <= 50:
        events = office.do(sheet)
        (counted,) = [one for one in events if isinstance(one, TransferCounted)]
        assert (counted.person, counted.quantity, counted.day) == ("anna", 50, "2026-11-15")
        assert not office.moves(1)
        return
    with pytest.raises(Refused) as refused:
        office.do(sheet)
    assert refused.value.facts["lines"][-1]["code"] == "needs_approval"


def test_a_template_counts_for_each_of_its_nodes(office):
    office.rule(node="acme")
    office.do(ApplyTemplate("acme", "", Rule("each", 30, "division"), "data", MONTH))
    with pytest.raises(Refused, match="needs_approval"):
        office.do(ApplyTemplate("acme", "", Rule("each", 30, "division"), "data", MONTH), ANNA)
    assert office.do(ApplyTemplate("acme", "", Rule("each", 30, "division"), "data", MONTH), BERT)


def test_many_schedules_pass_no_rule_that_one_would_not(office):
    office.rule()
    for name in ("a", "b"):
        line = Line("trade", "emea", "apac", "data", 30)
        office.do(ScheduleAllocation(name, (line,), "once", office.now + HOUR), name)
    office.now += HOUR
    told = [event for command in office.company.tenant.due(office.now) for event in office.do(command, "")]
    (skipped,) = [one for one in told if isinstance(one, ScheduleSkipped)]
    assert skipped.code == "needs_approval"


def test_nothing_is_counted_where_no_rule_has_a_window(office):
    office.rule("")
    assert len(office.do(Trade("emea", "apac", "data", MONTH, 1))) == 1


def test_a_window_that_is_none_is_refused(office):
    with pytest.raises(Refused, match="unknown_rule_window"):
        office.rule("year")


def test_snapshots_remember_the_pieces(office):
    office.rule()
    office.moves(50)
    tenant = office.company.tenant
    again = restore(encode_counters(copy_counters(tenant)), encode_structure(tenant))
    assert list(lines(again)) == list(lines(tenant))
    assert isinstance(again.decide(Trade("emea", "apac", "data", MONTH, 1), office.now, ANNA)[0], Proposed)


SIDES = st.sampled_from([("emea", "apac"), ("apac", "emea"), ("emea", "sales")])
STEP = st.tuples(
    st.sampled_from([ANNA, BERT]),
    SIDES,
    st.lists(st.integers(1, 60), min_size=1, max_size=3),
    st.sampled_from([0, 0, 0, 5 * HOUR, DAY]),
)


@given(st.lists(STEP, max_size=25), st.sampled_from(["day", "period"]), st.sampled_from([0, 50, 100]))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nobody_moves_more_than_the_rule_says_without_approval(company, now, steps, window, above):
    office = Office(company(), now)
    office.rule(window, above)
    moved: Counter = Counter()
    for person, (source, target), parts, later in steps:
        office.now += later
        day = (office.now + HOUR) // DAY if window == "day" else MONTH
        key = person, source, target, day
        orders = tuple(
            Line("allocate" if target == "sales" else "trade", source, target, "data", one, MONTH)
            for one in parts
        )
        verb = Allocate if target == "sales" else Trade
        command = (
            verb(source, target, "data", MONTH, parts[0]) if len(parts) == 1 else TransferMany(orders, "")
        )
        try:
            events = office.do(command, person)
        except Refused:
            events = ()
        passes = moved[key] + sum(parts) <= above
        came = sum(one.quantity for one in events if isinstance(one, Transferred))
        if came or not passes:
            assert (came == sum(parts)) is passes
        moved[key] += came
        assert all(total <= above for total in moved.values())
