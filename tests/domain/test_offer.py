"""Offers: what is promised is set aside, both sides come out whole, and who comes second is told."""

import pytest

from allotment.domain.bucket import Allocate, Trade, Transferred
from allotment.domain.hierarchy import AddNode
from allotment.domain.offer import (
    ENDED_MAX,
    NOTHING_ASKED,
    AcceptOffer,
    Ask,
    DeclineOffer,
    ExpireOffer,
    Offer,
    OfferAccepted,
    OfferClosed,
    OfferMade,
    Offers,
    OfferTrade,
    WithdrawOffer,
)
from allotment.domain.refusals import InvariantBroken, Refused
from allotment.domain.session import ReserveUnits
from allotment.domain.usage import UsageRecord
from allotment.domain.usage_type import UsageTypes

MONTH, DAY = "2026-11", 86_400_000_000
RATE = Ask("voice", 3, 100)
"""3 seconds of voice for 100 bytes of data."""


@pytest.fixture
def market(acme):
    """EMEA holds 1000 bytes, APAC 300 seconds and 50 bytes, Sales nothing."""
    acme.do(Allocate("acme", "emea", "data", MONTH, 1000))
    acme.do(Allocate("acme", "apac", "data", MONTH, 50))
    acme.do(Allocate("acme", "apac", "voice", MONTH, 300))
    return acme


def offer(ident="o", source="emea", usage_type="data", quantity=1000, asks=RATE, **more):
    return OfferTrade(ident, source, usage_type, quantity, asks, **more)


def available(company, usage_type="data"):
    family = company.family(usage_type)
    return {member.id: family.available(member.ordinal) for member in company.tenant.hierarchy.members[1:4]}


# --- making ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (offer(quantity=0, asks=NOTHING_ASKED), "not_positive"),
        (offer(quantity=-1, asks=NOTHING_ASKED), "not_positive"),
        (offer(quantity=1001, asks=NOTHING_ASKED), "insufficient_allowance"),
        (offer(quantity=2**61, asks=NOTHING_ASKED), "quantity_out_of_range"),
        (offer(usage_type="fax"), "unknown_usage_type"),
        (offer(asks=Ask("fax", 1, 1)), "unknown_usage_type"),
        (offer(asks=Ask("", 1, 1)), "unknown_usage_type"),
        (offer(asks=Ask("data", 1, 1)), "same_usage_type"),
        (offer(asks=Ask("voice", 0, 1)), "not_positive"),
        (offer(asks=Ask("voice", 1, 0)), "not_positive"),
        (offer(asks=Ask("voice", 2**60, 1)), "quantity_out_of_range"),
        (offer(quantity=950, asks=RATE), "uneven_quantity"),
        (offer(source="nobody"), "unknown_node"),
        (offer(target="nobody"), "unknown_node"),
        (offer(target="emea"), "same_node"),
        (offer(target="sales"), "not_a_trade"),
        (offer(target="acme"), "not_a_trade"),
        (offer(target="emea", everybody=True), "not_a_trade"),
        (offer(source="acme"), "not_a_trade"),
        (offer(period="2026-13"), "not_a_period"),
        (offer(period="2025-11"), "no_contract"),
        (offer(period="2026-10"), "period_over"),
        (offer(expires_at=1), "bad_expiry"),
        (offer(counters="o-1"), "unknown_offer"),
        (offer(ident=""), "bad_text"),
        (offer(note="x" * 201), "bad_text"),
    ],
)
def test_what_may_be_offered(market, command, outcome):
    market.do(Allocate("acme", "emea", "data", "2026-10", 1000))
    assert market.ask(command) == outcome


def test_what_is_offered_is_set_aside_and_nobody_else_can_have_it(market):
    market.do(offer(quantity=900))
    assert available(market)["emea"] == 100
    assert market.refusal(Trade("emea", "apac", "data", MONTH, 101)) == (
        "insufficient_allowance",
        {
            "node": "emea",
            "usage_type": "data",
            "period": MONTH,
            "available": 100,
            "reserved": 900,
            "quantity": 101,
        },
    )
    market.do(Trade("emea", "apac", "data", MONTH, 100))
    assert market.ask(offer("o-2", quantity=100)) == "insufficient_allowance"


def test_usage_and_sessions_pass_over_what_is_offered(market, now):
    market.do(offer("v", "apac", "voice", 300, NOTHING_ASKED))
    (charged, *_) = market.use(120, line="r-2")
    assert charged.drawn == ((0, 120),)
    record = UsageRecord("pbx", "s-1", "r-2", "voice", 60, now, "outbound", "+4930123456")
    market.do(ReserveUnits(record, 0, b"r-2", b""))
    assert market.family().reserved[3] == 300
    market.do(AcceptOffer("v", "emea"))
    assert market.family().remaining[1] == 300


def test_an_offer_ends_with_its_period_at_the_latest(market, now):
    (made,) = market.do(offer())
    ends_at = market.tenant.contracts.periods[MONTH].ends_at
    assert made.expires_at == now + 7 * DAY
    assert market.refusal(offer("o-2", quantity=100, expires_at=ends_at + 1))[1]["latest"] == ends_at
    market.do(WithdrawOffer("o"))
    (late,) = market.do(offer("o-2"), ends_at - DAY)
    assert late.expires_at == ends_at


def test_an_id_is_used_once(market):
    market.do(offer(quantity=100))
    assert market.ask(offer(quantity=100)) == "exists_already"
    market.do(WithdrawOffer("o"))
    assert market.ask(offer(quantity=100)) == "exists_already"


# --- accepting ------------------------------------------------------------------------------------


def test_an_acceptance_moves_both_legs_in_one_commit_and_each_sums_to_zero(market):
    market.do(offer())
    before = {name: sum(market.family(name).remaining) for name in ("data", "voice")}
    assert market.do(AcceptOffer("o", "apac", 600, "for the fair")) == [
        OfferAccepted("o", "emea", "apac", "data", MONTH, 600, "voice", 18, 400, "", "for the fair"),
        Transferred("emea", "apac", "data", MONTH, 600, "trade", "for the fair"),
        Transferred("apac", "emea", "voice", MONTH, 18, "trade", "for the fair"),
    ]
    assert {name: sum(market.family(name).remaining) for name in ("data", "voice")} == before
    assert (available(market), available(market, "voice")) == (
        {"emea": 0, "sales": 0, "apac": 650},
        {"emea": 18, "sales": 0, "apac": 282},
    )


def test_a_gift_has_one_leg(market):
    market.do(offer(asks=NOTHING_ASKED))
    assert [event.topic for event in market.do(AcceptOffer("o", "apac", 1))] == [
        "offer.accepted",
        "bucket.transferred",
    ]


@pytest.mark.parametrize(
    ("made", "accepted", "outcome"),
    [
        (offer(), AcceptOffer("o", "apac", 0), "not_positive"),
        (offer(), AcceptOffer("o", "apac", -100), "not_positive"),
        (offer(), AcceptOffer("o", "apac", 1100), "insufficient_offer"),
        (offer(), AcceptOffer("o", "apac", 150), "uneven_quantity"),
        (offer(whole=True), AcceptOffer("o", "apac", 500), "uneven_quantity"),
        (offer(), AcceptOffer("o-2", "apac"), "unknown_offer"),
        (offer(), AcceptOffer("o", "nobody"), "unknown_node"),
        (offer(), AcceptOffer("o", "emea"), "same_node"),
        (offer(), AcceptOffer("o", "sales"), "not_a_trade"),
        (offer(), AcceptOffer("o", "acme"), "not_a_trade"),
        (offer(target="apac"), AcceptOffer("o", "r-2"), "not_addressed"),
        (offer(asks=Ask("voice", 301, 1000)), AcceptOffer("o", "apac"), "insufficient_allowance"),
        (offer(), AcceptOffer("o", "r-2"), "insufficient_allowance"),
        (offer(), AcceptOffer("o", "apac", note="\n"), "bad_text"),
    ],
)
def test_what_may_be_accepted(market, made, accepted, outcome):
    market.do(made)
    assert market.ask(accepted) == outcome


def test_the_nearest_quantities_that_come_out_whole_are_told(market):
    market.do(offer())
    assert market.refusal(AcceptOffer("o", "apac", 150))[1]["nearest"] == [100, 200]
    assert market.refusal(AcceptOffer("o", "apac", 50))[1]["nearest"] == [100]
    market.do(AcceptOffer("o", "apac", 900))
    assert market.refusal(AcceptOffer("o", "apac", 99))[1]["nearest"] == [100]


def test_who_comes_second_is_told_what_is_left(market):
    market.do(AddNode("lab", "acme", "", "division"))
    market.do(offer(asks=NOTHING_ASKED))
    market.do(AcceptOffer("o", "apac", 600))
    assert market.refusal(AcceptOffer("o", "lab", 600)) == (
        "insufficient_offer",
        {"offer": "o", "left": 400, "pending": 0},
    )
    market.do(AcceptOffer("o", "lab", 400))
    assert market.refusal(AcceptOffer("o", "lab", 1)) == (
        "offer_gone",
        {"offer": "o", "ended": "accepted", "left": 0},
    )


def test_everybody_below_a_node_may_take_what_was_offered_there(market):
    market.do(offer(target="apac", everybody=True, asks=NOTHING_ASKED))
    assert market.ask(AcceptOffer("o", "acme", 1)) == "not_addressed"
    market.do(AcceptOffer("o", "r-2", 1))
    market.do(AcceptOffer("o", "apac", 1))


def test_internal_money_is_exchanged_like_any_other_type(market):
    market.family("money").grant(3, 5_000_000)
    market.do(offer(asks=Ask("money", 2_000, 1)))
    accepted, *moved = market.do(AcceptOffer("o", "apac"))
    assert (accepted.price_type, accepted.price) == ("money", 2_000_000)
    assert [leg.usage_type for leg in moved] == ["data", "money"]
    market.do(offer("bid", "apac", "money", 3_000_000, Ask("data", 1, 10_000)))
    market.do(Allocate("acme", "emea", "data", MONTH, 300))
    assert market.do(AcceptOffer("bid", "emea"))[0].price == 300


# --- answering, withdrawing, expiring -------------------------------------------------------------


def test_a_counter_offer_goes_to_who_offered_and_its_acceptance_ends_the_first(market):
    market.do(offer())
    (made,) = market.do(offer("c", "apac", "voice", 20, Ask("data", 50, 1), counters="o"))
    assert (made.target, made.everybody, made.counters) == ("emea", False, "o")
    closed, accepted, *_ = market.do(AcceptOffer("c", "emea", note="agreed"))
    assert (closed.offer, closed.because, closed.left) == ("o", "countered", 1000)
    assert (accepted.offer, accepted.price) == ("c", 1000)
    assert available(market)["apac"] == 1050
    assert market.refusal(AcceptOffer("o", "apac"))[1]["ended"] == "countered"


def test_a_counter_offer_is_for_who_may_take_the_first(market):
    market.do(AddNode("lab", "acme", "", "division"))
    market.do(offer(target="apac"))
    assert market.ask(offer("c", "lab", "voice", 1, NOTHING_ASKED, counters="o")) == "not_addressed"
    assert market.ask(offer("c", "apac", "voice", 1, NOTHING_ASKED, counters="o", target="lab")) == (
        "not_addressed"
    )


def test_a_declined_offer_frees_what_is_left_and_says_why(market):
    market.do(offer(target="apac"))
    (closed,) = market.do(DeclineOffer("o", "apac", "we have enough"))
    assert (closed.left, closed.because, closed.note) == (1000, "declined", "we have enough")
    assert available(market)["emea"] == 1000
    assert market.refusal(AcceptOffer("o", "apac"))[1]["ended"] == "declined"


@pytest.mark.parametrize(
    ("made", "declined", "code"),
    [
        ({}, DeclineOffer("none", "apac"), "unknown_offer"),
        ({"target": "apac"}, DeclineOffer("o", "nobody"), "unknown_node"),
        ({"target": "apac"}, DeclineOffer("o", "sales"), "not_addressed"),
        ({"target": "apac"}, DeclineOffer("o", "emea"), "not_addressed"),
        ({"target": "apac"}, DeclineOffer("o", "apac", "\n"), "bad_text"),
        ({"target": "apac", "everybody": True}, DeclineOffer("o", "apac"), "offer_to_everybody"),
        ({}, DeclineOffer("o", "apac"), "offer_to_everybody"),
    ],
)
def test_an_offer_is_declined_by_whom_it_was_made_to_alone(market, made, declined, code):
    market.do(offer(**made))
    assert market.ask(declined) == code


def test_a_withdrawn_offer_frees_what_is_left(market):
    market.do(offer())
    market.do(AcceptOffer("o", "apac", 400))
    (closed,) = market.do(WithdrawOffer("o", "needed here"))
    assert (closed.left, closed.because, closed.note) == (600, "withdrawn", "needed here")
    assert available(market)["emea"] == 600
    assert market.refusal(AcceptOffer("o", "apac"))[1]["ended"] == "withdrawn"
    assert market.ask(WithdrawOffer("o")) == "offer_gone"


def test_time_ends_an_offer_also_before_anybody_has_swept(market, now):
    (made,) = market.do(offer())
    trading, at = market.tenant.trading, made.expires_at
    assert (trading.due(at - 1), trading.next_due()) == ([], at)
    assert market.refusal(ExpireOffer("o"), at - 1)[0] == "not_due"
    assert market.refusal(AcceptOffer("o", "apac"), at) == ("offer_expired", {"offer": "o", "expires_at": at})
    assert trading.due(at) == [ExpireOffer("o")]
    (closed,) = market.do(ExpireOffer("o"), at)
    assert (closed.because, closed.left) == ("expired", 1000)
    assert (trading.due(at), trading.next_due()) == ([], None)
    assert market.ask(AcceptOffer("o", "apac"), at) == "offer_expired"
    assert market.ask(ExpireOffer("o"), at) == "unknown_offer"


# --- what must never be ---------------------------------------------------------------------------


def test_the_number_of_offers_has_a_bound(market, monkeypatch):
    monkeypatch.setattr("allotment.domain.offer.OFFERS_MAX", 1)
    market.do(offer(quantity=100))
    assert market.ask(offer("o-2", quantity=100)) == "too_many_offers"


def test_the_oldest_ended_offers_are_forgotten():
    offers = Offers(UsageTypes())
    for number in range(ENDED_MAX + 1):
        ident = str(number)
        offers.apply(OfferMade(ident, "a", "b", False, "data", MONTH, 1, NOTHING_ASKED, False, 9, "", ""))
        offers.apply(OfferClosed(ident, "a", "b", "data", MONTH, 1, "withdrawn", ""))
    assert (len(offers.ended), offers.open) == (ENDED_MAX, {})
    with pytest.raises(Refused, match="unknown_offer"):
        offers.standing("0", 1)


@pytest.mark.parametrize(
    "event",
    [
        OfferAccepted("o", "emea", "apac", "data", MONTH, 1100, "voice", 33, 0, "", ""),
        OfferAccepted("o", "emea", "apac", "data", MONTH, 100, "voice", 3, 800, "", ""),
        OfferClosed("o", "emea", "acme", "data", MONTH, 900, "withdrawn", ""),
    ],
)
def test_what_does_not_add_up_is_noticed(market, event):
    market.do(offer())
    with pytest.raises(InvariantBroken):
        market.tell(event)


def test_what_is_reserved_beyond_offers_and_sessions_is_noticed(market):
    market.do(offer())
    market.family("data").reserved[1] -= 1
    with pytest.raises(InvariantBroken, match="sessions and offers"):
        market.tenant.check_whole()
    market.family("data").reserved[1] += 1
    market.tenant.trading.offers.open["o"] = Offer(market.history[-1], 999)
    with pytest.raises(InvariantBroken):
        market.tenant.check_whole()
