"""Approval: what is above a rule waits, set aside, until somebody who may has said yes or no."""

import pytest

from allotment.domain.approval import (
    ApprovalRuleSet,
    Approver,
    ApproveTransfer,
    DeclineTransfer,
    ExpireProposal,
    SetApprovalRule,
    TransferApproved,
    TransferDeclined,
    person_of,
)
from allotment.domain.bucket import Allocate, Return, Trade, Transferred
from allotment.domain.offer import AcceptOffer, Ask, OfferTrade, WithdrawOffer
from allotment.domain.refusals import InvariantBroken, Refused
from allotment.domain.reservation import Leg, Reservation
from allotment.domain.trade_rules import SetTradeRules
from allotment.domain.trading import TransferUndone, UndoTransfer

MONTH, DAY = "2026-11", 86_400_000_000
ASKER, OTHER = "telecoms_manager:u-1", "telecoms_manager:u-2"


class Office:
    """Acme, and who commands it."""

    def __init__(self, company, now):
        self.company, self.now = company, now
        self.do(Allocate("acme", "emea", "data", MONTH, 1000))
        self.do(Allocate("acme", "apac", "data", MONTH, 500))
        self.do(Allocate("acme", "apac", "voice", MONTH, 300))

    def do(self, command, by=ASKER, now=None):
        events = self.company.tenant.decide(command, now or self.now, by)
        self.company.tell(*events)
        self.company.tenant.check_whole()
        return events

    def refused(self, command, by=ASKER, now=None):
        with pytest.raises(Refused) as refused:
            self.company.tenant.decide(command, now or self.now, by)
        return refused.value.code

    def facts(self, command, by=ASKER):
        with pytest.raises(Refused) as refused:
            self.company.tenant.decide(command, self.now, by)
        return refused.value.facts

    def rule(self, node="acme", above=50, approver="acme", usage_type="data", **more):
        self.do(SetApprovalRule(node, usage_type, above, Approver(approver), **more))

    def data(self, ordinal):
        family = self.company.family("data")
        return family.remaining[ordinal], family.reserved[ordinal]


@pytest.fixture
def office(acme, now):
    return Office(acme, now)


TRADE = Trade("emea", "apac", "data", MONTH, 51, "for the fair")


# --- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (SetApprovalRule("nobody", "data", 1, Approver("acme")), "unknown_node"),
        (SetApprovalRule("acme", "data", 1, Approver("nobody")), "unknown_node"),
        (SetApprovalRule("acme", "data", 1, Approver("r-1")), "unknown_node"),
        (SetApprovalRule("acme", "fax", 1, Approver("acme")), "unknown_usage_type"),
        (SetApprovalRule("acme", "data", -1, Approver("acme")), "quantity_out_of_range"),
        (SetApprovalRule("acme", "data", 2**61, Approver("acme")), "quantity_out_of_range"),
        (SetApprovalRule("acme", "data", 1, Approver("acme"), False, "\n"), "bad_text"),
    ],
)
def test_which_rules_make_sense(office, command, outcome):
    assert office.refused(command) == outcome


@pytest.mark.parametrize(
    ("command", "waits"),
    [
        (Trade("emea", "apac", "data", MONTH, 50), False),
        (Trade("emea", "apac", "data", MONTH, 51), True),
        (Trade("apac", "emea", "data", MONTH, 51), True),
        (Trade("apac", "emea", "voice", MONTH, 51), False),
        (Allocate("acme", "sales", "data", MONTH, 51), True),
        (Allocate("acme", "apac", "data", MONTH, 51), False),
        (Return("emea", "acme", "data", MONTH, 51), True),
    ],
)
def test_a_rule_holds_for_what_leaves_or_reaches_its_subtree(office, command, waits):
    office.rule("emea")
    (event,) = office.do(command)
    assert event.topic == ("transfer.proposed" if waits else "bucket.transferred")


def test_whoever_approves_must_reach_all_that_the_passed_rules_name(office):
    office.rule("acme", 50, "acme")
    office.rule("emea", 10, "emea")
    office.rule("apac", 10, "apac", four_eyes=True)
    (small,) = office.do(Trade("emea", "apac", "data", MONTH, 11))
    assert ([one.node for one in small.approvers], small.four_eyes) == (["apac", "emea"], True)
    (large,) = office.do(Trade("emea", "apac", "data", MONTH, 51))
    assert [one.node for one in large.approvers] == ["acme", "apac", "emea"]
    (up,) = office.do(Return("emea", "acme", "data", MONTH, 20))
    assert ([one.node for one in up.approvers], up.four_eyes) == (["emea"], False)


def test_a_lifted_rule_asks_for_nothing_and_what_waits_goes_on_waiting(office):
    office.rule()
    (waiting,) = office.do(TRADE)
    office.rule(above=None)
    assert office.do(TRADE)[0].topic == "bucket.transferred"
    assert waiting.proposal in office.company.tenant.trading.approvals.waiting


# --- waiting --------------------------------------------------------------------------------------


def test_what_waits_is_set_aside_and_moves_when_it_is_approved(office):
    office.rule()
    (proposed,) = office.do(TRADE)
    assert (proposed.proposal, proposed.reason, proposed.asked_by) == ("p-1", "trade", ASKER)
    assert office.data(1) == (1000, 51)
    assert office.facts(Trade("emea", "apac", "data", MONTH, 950))["reserved"] == 51
    assert office.do(ApproveTransfer("p-1", "fine"), OTHER) == [
        TransferApproved("p-1", "emea", "apac", (Reservation("emea", "data", MONTH, 51),), "", 51, "fine"),
        Transferred("emea", "apac", "data", MONTH, 51, "trade", "for the fair"),
    ]
    assert office.data(1) == (949, 0)


def test_what_is_declined_stays_and_is_free_again(office):
    office.rule()
    office.do(TRADE)
    (declined,) = office.do(DeclineTransfer("p-1", "too much"), OTHER)
    assert (declined.because, declined.note, office.data(1)) == ("declined", "too much", (1000, 0))
    office.do(TRADE)
    (withdrawn,) = office.do(DeclineTransfer("p-2"), ASKER)
    assert withdrawn.because == "withdrawn"


@pytest.mark.parametrize(
    ("command", "by", "outcome"),
    [
        (ApproveTransfer("p-9"), OTHER, "unknown_proposal"),
        (DeclineTransfer("p-9"), OTHER, "unknown_proposal"),
        (ExpireProposal("p-9"), OTHER, "unknown_proposal"),
        (ApproveTransfer("p-1"), ASKER, "four_eyes"),
        (ApproveTransfer("p-1"), "carrier:u-1", "four_eyes"),
        (ApproveTransfer("p-1"), "telecoms_manager:u-2;act=u-1", "four_eyes"),
        (ApproveTransfer("p-1"), "", None),
        (ApproveTransfer("p-1", "\n"), OTHER, "bad_text"),
        (DeclineTransfer("p-1", "\n"), OTHER, "bad_text"),
        (ExpireProposal("p-1"), OTHER, "not_due"),
    ],
)
def test_who_may_answer(office, command, by, outcome):
    office.rule(four_eyes=True)
    office.do(TRADE)
    if outcome is None:
        office.do(command, by)
    else:
        assert office.refused(command, by) == outcome


def test_without_four_eyes_who_asked_may_approve(office):
    office.rule()
    office.do(TRADE)
    assert office.do(ApproveTransfer("p-1"))[1].topic == "bucket.transferred"
    assert office.refused(ApproveTransfer("p-1")) == "proposal_gone"
    assert office.refused(DeclineTransfer("p-1")) == "proposal_gone"


def test_time_ends_a_proposal(office):
    office.rule()
    (proposed,) = office.do(TRADE)
    at = proposed.expires_at
    assert at == office.now + 7 * DAY
    assert office.refused(ApproveTransfer("p-1"), now=at) == "proposal_expired"
    assert office.company.tenant.trading.due(at) == [ExpireProposal("p-1")]
    assert office.do(ExpireProposal("p-1"), now=at)[0].because == "expired"
    assert office.data(1) == (1000, 0)


def test_the_one_who_really_acts_is_the_person():
    assert [person_of(actor) for actor in (ASKER, "carrier+auditor:u-1", "x:u-3;act=u-1", "")] == [
        *("u-1", "u-1", "u-1"),
        "",
    ]


# --- offers that need approval --------------------------------------------------------------------


def offered(office, **more):
    office.rule(above=50, four_eyes=True)
    office.do(OfferTrade("o", "emea", "data", 200, Ask("voice", 1, 10), **more))
    return office.do(AcceptOffer("o", "apac", 100, "please"))


def test_an_acceptance_that_waits_sets_both_sides_aside(office):
    (proposed,) = offered(office)
    assert (proposed.offer, proposed.quantity, proposed.price_type, proposed.price) == (
        *("o", 100),
        *("voice", 10),
    )
    assert (office.data(1), office.company.family().reserved[3]) == ((1000, 200), 10)
    assert office.facts(AcceptOffer("o", "apac", 200)) == {"offer": "o", "left": 100, "pending": 100}
    _, accepted, *legs = office.do(ApproveTransfer("p-1"), OTHER)
    assert (accepted.proposal, accepted.left, len(legs)) == ("p-1", 100, 2)
    assert (office.data(1), office.data(3)) == ((900, 100), (600, 0))


def test_what_was_declined_is_offered_again(office):
    offered(office)
    office.do(DeclineTransfer("p-1"), OTHER)
    assert office.data(1) == (1000, 200)
    assert office.do(AcceptOffer("o", "apac", 200))[0].topic == "transfer.proposed"


@pytest.mark.parametrize("answer", [ApproveTransfer("p-1"), DeclineTransfer("p-1")])
def test_an_offer_that_is_withdrawn_meanwhile_leaves_what_waits(office, answer):
    offered(office)
    assert office.do(WithdrawOffer("o"))[0].left == 100
    assert office.data(1) == (1000, 100)
    office.do(answer, OTHER)
    assert office.data(1)[1] == 0


def test_an_offer_all_of_which_waits_is_still_open(office):
    offered(office)
    office.do(AcceptOffer("o", "apac"))
    assert office.facts(AcceptOffer("o", "apac")) == {"offer": "o", "left": 0, "pending": 200}
    for proposal in ("p-1", "p-2"):
        office.do(ApproveTransfer(proposal), OTHER)
    assert office.refused(AcceptOffer("o", "apac")) == "offer_gone"


# --- undoing, and trading back and forth ----------------------------------------------------------


def undo(seq=20, *legs):
    return UndoTransfer(seq, legs or (Leg("emea", "apac", "data", MONTH, 100),), "a mistake")


def test_what_was_moved_goes_back_once(office):
    office.do(Trade("emea", "apac", "data", MONTH, 100))
    assert office.do(undo()) == [
        TransferUndone(20, "emea", "apac", undo().legs, "a mistake"),
        Transferred("apac", "emea", "data", MONTH, 100, "undo", "a mistake"),
    ]
    assert office.refused(undo()) == "undone_already"
    with pytest.raises(InvariantBroken, match="undone once"):
        office.company.tell(TransferUndone(20, "emea", "apac", (), ""))


def test_what_was_used_or_reserved_meanwhile_cannot_go_back(office):
    office.do(Trade("emea", "apac", "data", MONTH, 100))
    office.do(OfferTrade("o", "apac", "data", 550))
    assert office.facts(undo()) == {
        "node": "apac",
        "usage_type": "data",
        "period": MONTH,
        "available": 50,
        "reserved": 550,
        "quantity": 100,
    }
    assert office.refused(UndoTransfer(20, ())) == "not_a_transfer"


def test_an_exchange_goes_back_with_both_legs(office):
    office.do(OfferTrade("o", "emea", "data", 200, Ask("voice", 1, 10)))
    accepted, *_ = office.do(AcceptOffer("o", "apac"))
    office.do(undo(30, *accepted.legs))
    assert (office.data(1), office.company.family().remaining[3]) == ((1000, 0), 300)


def test_two_nodes_trade_a_type_only_so_often(office):
    office.do(SetTradeRules(2, "no ping-pong"))
    there, back = Trade("emea", "apac", "data", MONTH, 1), Trade("apac", "emea", "data", MONTH, 1)
    office.do(there)
    office.do(back)
    assert office.facts(there) == {
        "source": "emea",
        "target": "apac",
        "usage_type": "data",
        "period": MONTH,
        "trades": 2,
        "trades_max": 2,
    }
    office.do(OfferTrade("o", "emea", "data", 1))
    assert office.refused(AcceptOffer("o", "apac")) == "too_many_trades"
    office.do(Trade("apac", "emea", "voice", MONTH, 1))
    office.do(Allocate("acme", "emea", "data", MONTH, 1))
    office.do(SetTradeRules(None))
    office.do(there)


@pytest.mark.parametrize("trades_max", [0, -1, 1_000_001])
def test_a_rule_for_trading_allows_at_least_one(office, trades_max):
    assert office.refused(SetTradeRules(trades_max)) == "trades_out_of_range"


def test_the_number_of_waiting_transfers_has_a_bound(office, monkeypatch):
    monkeypatch.setattr("allotment.domain.approval.PROPOSALS_MAX", 1)
    office.rule()
    office.do(TRADE)
    assert office.refused(TRADE) == "too_many_proposals"


def test_a_proposal_that_frees_what_it_never_reserved_is_noticed(office):
    office.rule()
    office.do(TRADE)
    freed = (Reservation("apac", "data", MONTH, 1),)
    with pytest.raises(InvariantBroken):
        office.company.tell(TransferDeclined("p-1", "emea", "apac", freed, "", 51, "declined", ""))


def test_a_rule_is_told_with_who_may_approve(office):
    (told,) = office.do(SetApprovalRule("emea", "data", 50, Approver("acme", "carrier"), True, "policy"))
    assert told == ApprovalRuleSet("emea", "data", 50, Approver("acme", "carrier"), True, "policy")
