"""A telecoms manager's month: looking, moving allowance, and sizing the next contract.

Acme has 600 seconds of voice a month: 240 its own, 240 with EMEA and 60 of those handed on to Sales.
"""

LOOK = """query($node: ID!) { review(node: $node, usageType: "voice") {
  exhaustedOn balance { subtree { remaining } } days { date remaining }
  projections { of status working } topResources { consumers { id share } restShare othersShare }
  previous { sameDays whole } } }"""
MOVE = """mutation($q: Quantity!) { trade(input: {idempotencyKey: "more", source: "apac", target: "sales",
  usageType: "voice", quantity: $q}) { __typename } }"""
HAND_DOWN = """mutation { allocate(input: {idempotencyKey: "apac", source: "acme", target: "apac",
  usageType: "voice", quantity: "200"}) { __typename } }"""
SIZE = """{ sizing(usageTypes: ["voice"],
  assumptions: {periods: 1, growthPercent: 20, marginPercent: 0, step: "60"}) {
  proposals { node proposal below apart history { overage overageAvoided unused } } } }"""


def test_a_month_in_which_sales_would_run_out_and_is_helped(company, call):
    company.use(
        call("o1", 840, start="2026-10-10T10:00:00Z"),
        call("n1", 60, start="2026-11-09T10:00:00Z"),
        call("n2", 60, start="2026-11-11T10:00:00Z"),
        call("n3", 60, start="2026-11-13T10:00:00Z"),
    )
    # In the middle of November EMEA looks at its month. It has used 180 of its 300 seconds ...
    seen = company.ask(LOOK, nodes=("emea",), node="emea")["review"]
    assert seen["balance"]["subtree"]["remaining"] == "120"
    assert seen["days"][-1] == {"date": "2026-11-15", "remaining": "120"}
    # ... all of them in the last week, and by Anna alone: at that pace five days are left.
    assert seen["exhaustedOn"] == "2026-11-20"
    assert seen["projections"][0]["working"] == (
        "120 left, 180 used in 604800 s: 120 x 604800 s / 180 ends on 2026-11-20"
    )
    assert seen["topResources"]["consumers"] == [{"id": "anna", "share": 10000}]
    assert seen["previous"] == [{"sameDays": "840", "whole": "840"}]

    # The enterprise hands 200 seconds to APAC, which gives them to Sales: a week more.
    assert company.ask(HAND_DOWN)["allocate"]["__typename"] == "TransferDone"
    assert company.ask(MOVE, q="200")["trade"]["__typename"] == "TransferDone"
    helped = company.ask(LOOK, nodes=("emea",), node="emea")["review"]
    assert helped["balance"]["subtree"]["remaining"] == "320"
    assert helped["exhaustedOn"] == "2026-11-27"

    # For the next contract: October's 840 seconds with a fifth more.
    (acme, emea, apac) = company.ask(SIZE)["sizing"]["proposals"]
    assert (acme["proposal"], emea["proposal"], apac["proposal"]) == ("1020", "1020", "0")
    assert (acme["below"], acme["apart"]) == ("1020", "0")
    assert acme["history"] == [{"overage": "240", "overageAvoided": "240", "unused": "180"}]
