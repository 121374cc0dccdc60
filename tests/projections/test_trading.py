"""The views of trade against the state that the writer folds from the same log, by chance."""

import random

import pytest

from allotment.backend.following import catch_up
from allotment.backend.looking_back import rebuild_and_compare
from allotment.backend.verifying import verify
from allotment.domain.approval import Approver, ApproveTransfer, DeclineTransfer, SetApprovalRule
from allotment.domain.bucket import Allocate, Trade
from allotment.domain.offer import NOTHING_ASKED, AcceptOffer, Ask, OfferTrade, WithdrawOffer
from allotment.domain.reservation import Leg
from allotment.domain.trade_rules import SetTradeRules
from allotment.domain.trading import UndoTransfer
from allotment.projections import approvals, balances, offers, timeline

TYPES = ("voice", "data")


def live(made, chance, steps):
    """Offers, answers and usage; most of them meet."""
    state = made.state
    for number in range(steps):
        source, target = chance.sample(["emea", "apac"], 2)
        usage_type = chance.choice(TYPES)
        asks = chance.choice([NOTHING_ASKED, Ask({"voice": "data", "data": "voice"}[usage_type], 2, 5)])
        open_offers, waiting = [*state.trading.offers.open], [*state.trading.approvals.waiting]
        offer = chance.choice(open_offers) if open_offers else "none"
        proposal = chance.choice(waiting) if waiting else "none"
        taker = (
            "emea" if offer != "none" and state.trading.offers.open[offer].made.source == "apac" else "apac"
        )
        made.do(
            chance.choice(
                [
                    OfferTrade(f"o{number}", source, usage_type, 100, asks, note="spare"),
                    OfferTrade(f"o{number}", source, usage_type, 60, asks, target, expires_at=made.now + 90),
                    OfferTrade(f"o{number}", taker, usage_type, 10, NOTHING_ASKED, counters=offer),
                    AcceptOffer(offer, taker, chance.choice([None, 20, 40])),
                    AcceptOffer(offer, taker, chance.choice([None, 20, 60])),
                    WithdrawOffer(offer),
                    Trade(source, target, usage_type, "", 45),
                    ApproveTransfer(proposal, "fine"),
                    DeclineTransfer(proposal, "no"),
                    SetApprovalRule("emea", usage_type, chance.choice([None, 39, 39]), Approver("acme")),
                ]
            )
        )
        made.use("r1", "voice", 30)
        made.now += chance.choice([0, 0, 0, 100])
        for command in list(state.due(made.now)):
            made.do(command)
        if number % 7 == 0:
            made.commit()


@pytest.mark.parametrize("seed", range(3))
def test_after_any_trading_the_views_tell_what_the_writer_knows(enterprise, seed):
    made = enterprise().opened()
    for node in ("emea", "apac"):
        for usage_type in TYPES:
            made.do(Allocate("acme", node, usage_type, "", 2000))
    made.do(SetTradeRules(50))
    live(made, random.Random(seed), 150)
    made.commit()
    catch_up(made.isolation, made.tenant, chunk=11 if seed else 5_000)
    made.state.check_whole()
    with made.isolation.transaction(made.tenant, "auditor") as db:
        _check_offers(db, made.state.trading.offers)
        _check_proposals(db, made.state.trading.approvals)
        rules = {(row.ordinal, row.usage_type): row.above for row in approvals.rules(db)}
        assert rules == {key: rule.above for key, rule in made.state.trading.approvals.rules.items()}
        for held in balances.balances_under(db, None, None, "2026-11", TYPES):
            family = made.state.families[held.usage_type, "2026-11"]
            assert held.bucket.reserved == family.reserved[held.ordinal]
        assert timeline.member_page(db, "apac", 100, usage=False)
    assert not rebuild_and_compare(made.isolation, made.tenant)


def _check_offers(db, known):
    told = {row.offer: row for row in offers.board(db, [None], 1000)}
    every = {**known.open, **known.ended}
    assert told.keys() == every.keys()
    assert {row.state for row in told.values()} >= {"accepted", "withdrawn"}
    for ident, offer in every.items():
        row = told[ident]
        assert (row.state, row.remaining, row.pending) == (offer.ended or "open", offer.left, offer.pending)
        assert (row.source_id, row.target_id) == (offer.made.source, offer.made.target)
        assert offers.steps_of(db, ident, 100)[0] == row.made <= row.seq


def _check_proposals(db, known):
    told = {row.proposal: row.state for row in approvals.proposals_page(db, [None], 1000)}
    expected = dict.fromkeys(known.waiting, "waiting")
    assert told == expected | {ident: one.ended for ident, one in known.ended.items()}
    assert told


def test_undoing_another_transfer_than_the_log_has_is_found(enterprise):
    made = enterprise().opened()
    made.do(Allocate("acme", "emea", "voice", "", 100))
    made.do(Trade("emea", "apac", "voice", "", 40))
    seq = made.commit()
    made.do(UndoTransfer(seq, (Leg("emea", "apac", "voice", "2026-11", 40),)))
    made.commit()
    assert verify(made.isolation, made.tenant, projections=False).ok
    made.do(UndoTransfer(seq - 1, (Leg("acme", "emea", "voice", "2026-11", 99),)))
    wrong = made.commit() - 1
    report = verify(made.isolation, made.tenant, projections=False)
    assert (report.ok, report.first_offending_seq) == (False, wrong)
    assert "undo" in report.problem
