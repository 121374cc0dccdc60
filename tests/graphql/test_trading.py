"""Trading through the API: who sees which offers, who may answer, and how it fails, with facts."""

import pytest

PROBLEMS = """
    ... on Problem { code message path }
    ... on InvalidInput { field }
    ... on InsufficientAllowance { available reserved }
    ... on ReservedQuantity { available reserved }
    ... on UnknownNode { node }
    ... on NotPermitted { verb }
"""
OFFER_PROBLEMS = (
    PROBLEMS
    + """
    ... on OfferGone { left pending ended }
    ... on ExpiredOffer { expiredAt }
    ... on UnevenQuantity { lot nearest }
    ... on TradedTooOften { trades tradesMax }
    ... on ProposalGone { outcome }
"""
)
FOUND = "offer { id state left pending sourceId targetId everybody yours asks { usageType total } counters }"
REQUIRED = "... on ApprovalRequired { proposal approvers fourEyes eventSeqs }"
TAKEN = "quantity price priceType repeated eventSeqs target { id balances { available } }"
OFTEN = "... on TradedTooOften { trades tradesMax }"
DRY = "... on DryRun { events { topic sentence } }"
MUTATIONS = {
    "offerTrade": (
        "OfferTradeInput",
        f"... on OfferDone {{ {FOUND} repeated eventSeqs }} {DRY} {OFFER_PROBLEMS}",
    ),
    "counterOffer": ("CounterOfferInput", f"... on OfferDone {{ {FOUND} }} {DRY} {OFFER_PROBLEMS}"),
    "withdrawOffer": ("WithdrawOfferInput", f"... on OfferDone {{ {FOUND} }} {DRY} {OFFER_PROBLEMS}"),
    "declineOffer": ("DeclineOfferInput", f"... on OfferDone {{ {FOUND} }} {DRY} {OFFER_PROBLEMS}"),
    "acceptOffer": (
        "AcceptOfferInput",
        f"... on AcceptOfferDone {{ {FOUND} {TAKEN} }} {REQUIRED} {DRY} {OFFER_PROBLEMS}",
    ),
    "trade": (
        "TransferInput",
        f"... on TransferDone {{ quantity eventSeqs }} {REQUIRED} {DRY} {PROBLEMS} {OFTEN}",
    ),
    "allocate": ("TransferInput", f"... on TransferDone {{ quantity eventSeqs }} {REQUIRED} {PROBLEMS}"),
    "approveTransfer": (
        "AnswerTransferInput",
        f"... on AnswerTransferDone {{ proposal {{ id state answer }} eventSeqs repeated }} {OFFER_PROBLEMS}",
    ),
    "declineTransfer": (
        "AnswerTransferInput",
        f"... on AnswerTransferDone {{ proposal {{ id state answer }} }} {OFFER_PROBLEMS}",
    ),
    "undoTransfer": (
        "UndoTransferInput",
        f"... on UndoTransferDone {{ undone source {{ id }} target {{ id }} eventSeqs }} {OFFER_PROBLEMS}",
    ),
    "setApprovalRule": ("SetApprovalRuleInput", "... on SetRuleDone { eventSeqs } ... on Problem { code }"),
    "setTradeRules": ("SetTradeRulesInput", "... on SetRuleDone { eventSeqs } ... on Problem { code }"),
}
BOARD = """
query($state: OfferState, $types: [String!], $first: Int = 25, $after: String, $asOf: AsOf) {
  offers(state: $state, usageTypes: $types, first: $first, after: $after, asOf: $asOf) {
    nodes { id state left sourceId targetId yours note made }
    pageInfo { hasNextPage endCursor }
  }
}
"""
PROPOSALS = """
{ proposals { nodes {
    id state kind sourceId targetId quantity approvers mayApprove askedBy offer price } } }
"""


class Desk:
    """A company's managers at work."""

    def __init__(self, company):
        self.company, self.number = company, 0
        for node, quantity in (("apac", "200"), ("emea", "50")):
            self.do("allocate", source="acme", target=node, quantity=quantity)
        self.do("allocate", source="acme", target="apac", usageType="data", quantity="1000")

    def do(self, verb, *roles, nodes=(), key="", **given):
        self.number += 1
        kind, selected = MUTATIONS[verb]
        if verb in ("trade", "allocate", "offerTrade", "counterOffer"):
            given.setdefault("usageType", "voice")
        given["idempotencyKey"] = key or f"key {self.number}"
        query = f"mutation($input: {kind}!) {{ {verb}(input: $input) {{ __typename {selected} }} }}"
        return self.company.ask(query, *roles, nodes=nodes, input=given)[verb]

    def offer(self, quantity="100", source="emea", **more):
        return self.do("offerTrade", source=source, quantity=quantity, **more)

    def board(self, nodes=(), **variables):
        return self.company.ask(BOARD, nodes=nodes, **variables)["offers"]["nodes"]

    def balance(self, node, usage_type="voice"):
        query = "query($n: ID!) { node(id: $n) { balances { usageType available reserved traded } } }"
        told = self.company.ask(query, n=node)["node"]["balances"]
        return next(
            [one["available"], one["reserved"], one["traded"]]
            for one in told
            if one["usageType"] == usage_type
        )


@pytest.fixture
def desk(company):
    """EMEA has 290 seconds, APAC 200 and 1000 bytes."""
    return Desk(company)


ASKS = {"usageType": "data", "quantity": "2"}


# --- offering and taking --------------------------------------------------------------------------


def test_what_is_offered_is_set_aside_until_it_is_taken(desk):
    done = desk.offer(asks={**ASKS, "per": "1"}, note="spare")
    assert done["__typename"] == "OfferDone", done
    assert (done["offer"]["state"], done["offer"]["asks"]) == ("OPEN", {"usageType": "data", "total": "200"})
    assert desk.balance("emea") == ["190", "100", "0"]
    taken = desk.do("acceptOffer", offer=done["offer"]["id"], target="apac", quantity="40")
    assert (taken["quantity"], taken["priceType"], taken["price"]) == ("40", "data", "80")
    assert (taken["offer"]["left"], len(taken["eventSeqs"])) == ("60", 3)
    assert taken["target"]["balances"] == [{"available": "240"}]
    assert (desk.balance("emea"), desk.balance("emea", "data")) == (["190", "60", "-40"], ["80", "0", "80"])


def test_the_same_key_again_is_the_same_offer_and_the_same_acceptance(desk):
    first = desk.offer(key="mine")
    assert desk.offer(key="mine") == {**first, "repeated": True}
    assert desk.offer("99", key="mine")["__typename"] == "IdempotencyMismatch"
    ident = first["offer"]["id"]
    taken = desk.do("acceptOffer", key="take", offer=ident, target="apac")
    again = desk.do("acceptOffer", key="take", offer=ident, target="apac")
    assert again == {**taken, "repeated": True}


def test_a_dry_run_tells_what_would_happen_and_nothing_does(desk):
    (event,) = desk.offer(dryRun=True)["events"]
    assert event == {
        "topic": "offer.made",
        "sentence": "EMEA offered 100 seconds of voice to everybody below Acme for 2026-11.",
    }
    assert desk.board() == []
    ident = desk.offer()["offer"]["id"]
    told = desk.do("acceptOffer", offer=ident, target="apac", dryRun=True)["events"]
    assert [event["topic"] for event in told] == ["offer.accepted", "bucket.transferred"]


@pytest.mark.parametrize(
    ("given", "kind", "code", "field"),
    [
        ({"quantity": "0"}, "InvalidInput", "not_positive", "quantity"),
        ({"quantity": "-1"}, "InvalidInput", "not_positive", "quantity"),
        ({"quantity": "291"}, "InsufficientAllowance", "insufficient_allowance", "quantity"),
        ({"usageType": "fax"}, "InvalidInput", "unknown_usage_type", "usageType"),
        ({"source": "nowhere"}, "UnknownNode", "unknown_node", "source"),
        ({"target": "nowhere"}, "UnknownNode", "unknown_node", "target"),
        ({"target": "emea"}, "InvalidInput", "same_node", "target"),
        ({"target": "acme"}, "InvalidInput", "not_a_trade", "target"),
        ({"target": "sales"}, "InvalidInput", "not_a_trade", "target"),
        ({"period": "2025-11"}, "InvalidInput", "no_contract", "period"),
        ({"expiresAt": "2026-11-01T00:00:00Z"}, "InvalidInput", "bad_expiry", "expiresAt"),
        ({"expiresAt": "2026-12-02T00:00:00Z"}, "InvalidInput", "bad_expiry", "expiresAt"),
        ({"asks": {**ASKS, "per": "0"}}, "InvalidInput", "not_positive", "quantity"),
        ({"asks": {**ASKS, "usageType": "voice"}}, "InvalidInput", "same_usage_type", "asks"),
        ({"asks": {**ASKS, "per": "3"}}, "UnevenQuantity", "uneven_quantity", "quantity"),
        ({"note": "x" * 201}, "InvalidInput", "bad_text", "note"),
        ({"key": "\n"}, "InvalidInput", "invalid_input", "idempotencyKey"),
    ],
)
def test_what_cannot_be_offered_names_the_field(desk, given, kind, code, field):
    problem = desk.do("offerTrade", **{"source": "emea", "quantity": "100", **given})
    assert (problem["__typename"], problem["code"], problem["path"]) == (kind, code, ["input", field])
    assert "{" not in problem["message"]
    assert "?" not in problem["message"]


def test_what_is_set_aside_cannot_be_moved_and_the_answer_says_so(desk):
    desk.offer("250")
    problem = desk.do("trade", source="emea", target="apac", quantity="100")
    assert (problem["__typename"], problem["available"], problem["reserved"]) == (
        *("ReservedQuantity", "40"),
        "250",
    )
    problem = desk.do("trade", source="emea", target="apac", quantity="291")
    assert (problem["__typename"], problem["reserved"]) == ("InsufficientAllowance", "250")


def test_who_comes_second_is_told_what_is_left(desk):
    ident = desk.offer(asks={**ASKS, "per": "5"})["offer"]["id"]
    assert desk.do("acceptOffer", offer=ident, target="apac", quantity="60")["offer"]["left"] == "40"
    late = desk.do("acceptOffer", offer=ident, target="apac", quantity="60")
    assert (late["__typename"], late["left"], late["ended"]) == ("OfferGone", "40", None)
    uneven = desk.do("acceptOffer", offer=ident, target="apac", quantity="12")
    assert (uneven["__typename"], uneven["lot"], uneven["nearest"]) == ("UnevenQuantity", "5", ["10", "15"])
    desk.do("acceptOffer", offer=ident, target="apac")
    gone = desk.do("acceptOffer", offer=ident, target="apac")
    assert (gone["__typename"], gone["left"], gone["ended"]) == ("OfferGone", "0", "accepted")


def test_an_offer_ends_by_itself(desk):
    ident = desk.offer(expiresAt="2026-11-15T13:00:00Z")["offer"]["id"]
    portal = desk.company.portal
    portal.clock[0] += 3_600_000_000
    late = desk.do("acceptOffer", offer=ident, target="apac")
    assert (late["__typename"], late["expiredAt"]) == ("ExpiredOffer", "2026-11-15T13:00:00.000000Z")
    portal.run(portal.engine.time.carry_out)
    desk.company.settle()
    assert [(one["state"], one["left"]) for one in desk.board()] == [("EXPIRED", "0")]
    assert desk.balance("emea") == ["290", "0", "0"]


def test_a_counter_offer_goes_to_who_offered(desk):
    ident = desk.offer(asks={**ASKS, "per": "1"})["offer"]["id"]
    answer = desk.do(
        *("counterOffer",),
        offer=ident,
        source="apac",
        usageType="data",
        quantity="150",
        asks={"usageType": "voice", "quantity": "100"},
    )["offer"]
    assert (answer["counters"], answer["targetId"], answer["everybody"]) == (ident, "emea", False)
    taken = desk.do("acceptOffer", offer=answer["id"], target="emea")
    assert (taken["quantity"], taken["price"]) == ("150", "100")
    assert {one["id"]: one["state"] for one in desk.board()} == {ident: "COUNTERED", answer["id"]: "ACCEPTED"}


# --- who sees what --------------------------------------------------------------------------------


def test_an_offer_is_declined_by_who_reaches_its_target(desk):
    made = desk.offer(target="apac")["offer"]
    given = {"offer": made["id"], "target": "apac"}
    assert desk.do("declineOffer", nodes=("emea",), **given)["code"] == "unknown_node"
    (event,) = desk.do("declineOffer", nodes=("apac",), dryRun=True, **given)["events"]
    assert "was declined" in event["sentence"]
    done = desk.do("declineOffer", nodes=("apac",), note="not now", **given)
    assert (done["offer"]["state"], done["offer"]["left"]) == ("DECLINED", "0")
    gone = desk.do("acceptOffer", **given)
    assert (gone["__typename"], gone["ended"]) == ("OfferGone", "declined")
    assert desk.board(state="DECLINED")[0]["id"] == made["id"]


def test_the_board_shows_what_a_manager_can_take_or_has_offered(desk):
    to_all = desk.offer("10", note="all")["offer"]["id"]
    to_apac = desk.offer("10", target="apac")["offer"]["id"]
    below = desk.offer("10", source="apac", target="emea", everybody=True)["offer"]["id"]
    assert [one["id"] for one in desk.board()] == [below, to_apac, to_all]
    assert [one["id"] for one in desk.board(("apac",))] == [below, to_apac, to_all]
    assert [one["id"] for one in desk.board(("sales",))] == [below, to_all]
    seen = {one["id"]: one for one in desk.board(("sales",))}
    assert (seen[to_all]["sourceId"], seen[to_all]["targetId"], seen[to_all]["yours"]) == (
        *("emea", None),
        False,
    )
    assert desk.board(("sales",), types=["data"]) == []
    desk.do("withdrawOffer", offer=to_apac)
    assert [one["id"] for one in desk.board(state="OPEN")] == [below, to_all]


def test_the_board_is_read_by_page_and_as_of(desk):
    made = [desk.offer("10") for _ in range(3)]
    first = desk.company.ask(BOARD, first=2)["offers"]
    rest = desk.company.ask(BOARD, first=2, after=first["pageInfo"]["endCursor"])["offers"]
    found = [one["id"] for one in first["nodes"] + rest["nodes"]]
    assert found == [one["offer"]["id"] for one in reversed(made)]
    assert (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)
    desk.do("withdrawOffer", offer=found[2])
    then = desk.board(asOf={"seq": made[0]["eventSeqs"][0]})
    assert [(one["id"], one["state"]) for one in then] == [(found[2], "OPEN")]


def test_an_offer_out_of_reach_is_one_that_does_not_exist(desk):
    ident = desk.offer(target="apac")["offer"]["id"]
    for verb, given in (
        ("acceptOffer", {"target": "sales"}),
        ("withdrawOffer", {}),
        ("counterOffer", {"source": "sales", "quantity": "1"}),
    ):
        beyond = desk.do(verb, nodes=("sales",), offer=ident, **given)
        unknown = desk.do(verb, nodes=("sales",), offer="nothing", **given)
        assert beyond["code"] == "unknown_offer"
        assert str(beyond).replace(ident, "nothing") == str(unknown)
    history = "query($o: ID!) { offerHistory(offer: $o) { seq } }"
    assert desk.company.ask(history, nodes=("sales",), o=ident) == {"offerHistory": None}
    assert desk.do("acceptOffer", nodes=("apac",), offer=ident, target="emea")["code"] == "unknown_node"


def test_who_sees_only_one_side_can_take_an_offer_and_not_withdraw_it(desk):
    ident = desk.offer()["offer"]["id"]
    problem = desk.do("withdrawOffer", nodes=("apac",), offer=ident)
    assert (problem["__typename"], problem["verb"]) == ("NotPermitted", "trade")
    assert desk.do("acceptOffer", nodes=("apac",), offer=ident, target="apac")["quantity"] == "100"
    told = desk.company.ask(
        "query($o: ID!) { offerHistory(offer: $o) { topic actor sentence } }", nodes=("apac",), o=ident
    )["offerHistory"]
    assert [one["topic"] for one in told] == ["offer.made", "offer.accepted"]
    assert told[1]["actor"] == "telecoms_manager:u-1"
    assert told[1]["sentence"] == "APAC accepted 100 seconds of voice from a member beyond your reach."


def test_another_tenants_offers_and_proposals_do_not_exist(desk, portal):
    other = Desk(portal.tenant())
    ident = desk.offer()["offer"]["id"]
    rule(desk)
    desk.do("trade", source="emea", target="apac", quantity="51")
    assert other.board() == other.company.ask(PROPOSALS)["proposals"]["nodes"] == []
    assert other.do("acceptOffer", offer=ident, target="apac")["code"] == "unknown_offer"
    assert other.do("approveTransfer", proposal="p-1")["code"] == "unknown_proposal"


def test_an_auditor_trades_nothing(desk):
    assert desk.do("offerTrade", "auditor", source="emea", quantity="1")["code"] == "not_permitted"
    ident = desk.offer()["offer"]["id"]
    assert desk.do("acceptOffer", "auditor", offer=ident, target="apac")["verb"] == "trade"


# --- approval -------------------------------------------------------------------------------------


def rule(desk, node="acme", above="50", approver="acme", **more):
    return desk.do("setApprovalRule", node=node, usageType="voice", above=above, approver=approver, **more)


def test_a_transfer_above_the_rule_waits_for_who_may_approve_it(desk):
    assert rule(desk)["__typename"] == "SetRuleDone"
    waiting = desk.do("trade", source="emea", target="apac", quantity="51", key="t")
    assert (waiting["__typename"], waiting["proposal"], waiting["approvers"]) == (
        *("ApprovalRequired", "p-1"),
        ["acme"],
    )
    assert desk.do("trade", source="emea", target="apac", quantity="51", key="t") == waiting
    assert desk.balance("emea") == ["239", "51", "0"]
    (seen,) = desk.company.ask(PROPOSALS, nodes=("apac",))["proposals"]["nodes"]
    assert (seen["sourceId"], seen["targetId"], seen["approvers"], seen["mayApprove"]) == (
        *(None, "apac"),
        *([], False),
    )
    assert desk.do("approveTransfer", nodes=("apac",), proposal="p-1")["__typename"] == "NotPermitted"
    assert desk.do("approveTransfer", nodes=("sales",), proposal="p-1")["code"] == "unknown_proposal"
    done = desk.do("approveTransfer", proposal="p-1", note="fine")
    assert (done["proposal"], len(done["eventSeqs"])) == (
        {"id": "p-1", "state": "APPROVED", "answer": "fine"},
        2,
    )
    assert desk.balance("emea") == ["239", "0", "-51"]
    gone = desk.do("declineTransfer", proposal="p-1")
    assert (gone["__typename"], gone["outcome"]) == ("ProposalGone", "approved")


def test_many_small_transfers_need_the_approval_of_a_large_one(desk):
    rule(desk, window="DAY")
    given = {"source": "emea", "target": "apac", "usageType": "voice", "quantity": "30"}
    assert desk.do("trade", **given)["__typename"] == "TransferDone"
    waiting = desk.do("trade", **given)
    assert waiting["__typename"] == "ApprovalRequired"
    told = desk.company.ask("{ proposals { nodes { quantity before } } approvalRules { above window } }")
    assert told["proposals"]["nodes"] == [{"quantity": "30", "before": "30"}]
    assert told["approvalRules"] == [{"above": "50", "window": "DAY"}]


def test_with_four_eyes_somebody_else_must_approve(desk):
    rule(desk, fourEyes=True)
    desk.do("trade", source="emea", target="apac", quantity="51")
    problem = desk.do("approveTransfer", proposal="p-1")
    assert (problem["code"], problem["path"]) == ("four_eyes", ["input", "proposal"])
    assert desk.do("declineTransfer", proposal="p-1", note="never mind")["proposal"]["state"] == "WITHDRAWN"


def test_an_acceptance_may_have_to_wait_as_well(desk):
    rule(desk, "emea", "50", "emea")
    ident = desk.offer(asks={**ASKS, "per": "1"})["offer"]["id"]
    waiting = desk.do("acceptOffer", nodes=("apac",), offer=ident, target="apac")
    assert (waiting["__typename"], waiting["approvers"]) == ("ApprovalRequired", [])
    (seen,) = desk.company.ask(PROPOSALS, nodes=("emea",))["proposals"]["nodes"]
    assert (seen["offer"], seen["price"], seen["mayApprove"]) == (ident, "200", True)
    assert desk.balance("apac", "data") == ["800", "200", "0"]
    done = desk.do("approveTransfer", nodes=("emea",), proposal=seen["id"])
    assert done["proposal"]["state"] == "APPROVED"
    assert [one["state"] for one in desk.board()] == ["ACCEPTED"]
    assert (desk.balance("apac"), desk.balance("apac", "data")) == (
        ["300", "0", "100"],
        ["800", "0", "-200"],
    )


def test_a_rule_is_changed_by_who_reaches_its_approver(desk):
    rule(desk, "emea", "50", "acme")
    assert rule(desk, "emea", None, "emea", nodes=("emea",))["code"] == "not_permitted"
    assert rule(desk, "acme", "50", "emea", nodes=("emea",))["code"] == "unknown_node"
    assert rule(desk, "sales", "50", "emea", nodes=("emea",))["__typename"] == "SetRuleDone"
    told = desk.company.ask("{ approvalRules { node above approver fourEyes } }", nodes=("emea",))
    assert told["approvalRules"] == [
        {"node": "emea", "above": "50", "approver": None, "fourEyes": False},
        {"node": "sales", "above": "50", "approver": "emea", "fourEyes": False},
    ]
    assert rule(desk, "emea", None)["__typename"] == "SetRuleDone"
    assert rule(desk, role="king")["code"] == "invalid_input"
    given = {"node": "emea", "usageType": "voice", "approver": "acme"}
    assert desk.do("setApprovalRule", **given)["code"] == "invalid_input"


# --- undoing, and trading back and forth ----------------------------------------------------------


def test_a_transfer_is_undone_once_and_an_exchange_as_a_whole(desk):
    (seq,) = desk.do("trade", source="emea", target="apac", quantity="40")["eventSeqs"]
    done = desk.do("undoTransfer", seq=seq, note="a mistake")
    assert (done["undone"], done["source"]["id"], done["target"]["id"]) == (seq, "emea", "apac")
    assert desk.balance("emea") == ["290", "0", "0"]
    assert desk.do("undoTransfer", seq=seq)["code"] == "undone_already"
    assert desk.do("undoTransfer", seq=done["eventSeqs"][1])["code"] == "not_a_transfer"
    ident = desk.offer(asks={**ASKS, "per": "1"})["offer"]["id"]
    seqs = desk.do("acceptOffer", offer=ident, target="apac")["eventSeqs"]
    assert desk.do("undoTransfer", nodes=("apac",), seq=seqs[0])["code"] == "not_a_transfer"
    assert desk.do("undoTransfer", seq=seqs[2])["undone"] == seqs[0]
    assert (desk.balance("emea"), desk.balance("apac", "data")) == (["290", "0", "0"], ["1000", "0", "0"])
    assert desk.do("undoTransfer", seq="1")["code"] == "not_a_transfer"


def test_what_was_used_meanwhile_cannot_go_back(desk):
    (seq,) = desk.do("trade", source="emea", target="apac", quantity="40")["eventSeqs"]
    desk.do("trade", source="apac", target="sales", quantity="220")
    problem = desk.do("undoTransfer", seq=seq)
    assert (problem["__typename"], problem["available"]) == ("InsufficientAllowance", "20")


def test_two_nodes_trade_only_as_often_as_the_rules_allow(desk):
    assert desk.do("setTradeRules", tradesMax=1)["__typename"] == "SetRuleDone"
    desk.do("trade", source="emea", target="apac", quantity="1")
    problem = desk.do("trade", source="apac", target="emea", quantity="1")
    assert (problem["__typename"], problem["trades"], problem["tradesMax"]) == ("TradedTooOften", 1, 1)
    assert desk.do("setTradeRules", nodes=("emea",), tradesMax=None)["code"] == "not_permitted"
    assert desk.do("setTradeRules", tradesMax=0)["code"] == "trades_out_of_range"
    assert desk.do("setTradeRules")["code"] == "invalid_input"
