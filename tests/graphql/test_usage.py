"""Usage records: listed, explained to the last micro-unit, remembered, and on the invoice."""

import pytest

LIST = """
query($filter: UsageFilter, $first: Int! = 25, $after: String, $asOf: AsOf) {
  usages(filter: $filter, first: $first, after: $after, asOf: $asOf) {
    nodes {
      id status recordId nodeId nodeName resourceId usageType unit quantity billed overage amount zone reason
    }
    pageInfo { hasNextPage endCursor }
  }
}
"""
EXPLAIN = """
query($id: ID!) {
  explain(usageId: $id) {
    status sentence source recordId usageType unit direction startedAt period quantity
    personal line counterpart
    path { id name kind }
    steering { rule payer }
    rating {
      tariff tariffVersion validFrom rateIndex prefix zone price per connectFee currency increment minimum
      included billed overage exactFraction exactAmount roundingMethod roundingDecimals amount
    }
    drawn { node { id } quantity }
    amount currency
    limits { node { id } usageType quantity setBy }
    crossings { node { id } usageType percent used limit seq }
    stop { reason node { id } counted used limit billed mayRaise { id } }
    suspension { reason field detail position }
    eventSeqs recordedAt actor
  }
}
"""
LIMIT = """
mutation($key: ID!, $node: ID!, $type: String!, $quantity: Quantity) {
  setLimit(input: {idempotencyKey: $key, node: $node, usageType: $type, quantity: $quantity}) {
    __typename ... on SetLimitDone { eventSeqs } ... on Problem { message }
  }
}
"""


def limit(company, node, quantity, usage_type="voice"):
    done = company.ask(LIMIT, key=f"{node}{quantity}", node=node, type=usage_type, quantity=quantity)[
        "setLimit"
    ]
    assert done["__typename"] == "SetLimitDone", done
    return done["eventSeqs"][0]


def explained(company, record_id, *roles, nodes=()):
    listed = company.ask(LIST, first=100)["usages"]["nodes"]
    ids = [usage["id"] for usage in listed if usage["recordId"] == record_id]
    return company.ask(EXPLAIN, *roles, nodes=nodes, id=ids[-1])["explain"]


def test_a_charge_is_explained_from_record_to_rounding(company, call):
    company.use(call("c1", 90, to="+12125550100"))
    told = explained(company, "c1")
    # 90 s are billed as 120 s; Sales has 60 s, EMEA pays the rest: nothing is left to charge.
    assert told["drawn"] == [
        {"node": {"id": "sales"}, "quantity": "60"},
        {"node": {"id": "emea"}, "quantity": "60"},
    ]
    assert (told["personal"], told["line"], told["counterpart"]) == ("CLEAR", "+442071838750", "+12125550100")
    assert [place["id"] for place in told["path"]] == ["anna", "sales", "emea", "acme"]
    assert told["steering"] == {"rule": "default", "payer": "corporate"}
    assert told["rating"]["billed"] == "120"
    assert (told["amount"], told["currency"]) == ("0.000000", "EUR")
    assert told["startedAt"] == "2026-11-15T10:00:00.000000Z"


def test_what_no_allowance_covers_is_charged_exactly_and_rounded_once(company, call):
    # 540 s are in reach of anna: 60 + 240 + 300. This call takes 600, so 60 s cost money.
    company.use(call("c1", 600, to="+12125550100"))
    rating = explained(company, "c1")["rating"]
    # 60 s x 0.10 EUR / 7 s + 0.01 EUR = 0.867142857... EUR = 6070000/7 micro-units; 4 decimals, half up.
    assert rating == {
        "tariff": "standard",
        "tariffVersion": 1,
        "validFrom": "2025-12-31T23:00:00.000000Z",
        "rateIndex": 1,
        "prefix": "+1",
        "zone": "us",
        "price": "0.10",
        "per": "7",
        "connectFee": "0.01",
        "currency": "EUR",
        "increment": "60",
        "minimum": "0",
        "included": True,
        "billed": "600",
        "overage": "0",
        "exactFraction": "0/1",
        "exactAmount": "0.000000000000",
        "roundingMethod": "half_up",
        "roundingDecimals": 4,
        "amount": "0.000000",
    }
    company.use(call("c2", 60, to="+12125550100"))
    second = explained(company, "c2")
    assert second["drawn"] == []
    assert second["rating"]["overage"] == "60"
    numerator, denominator = map(int, second["rating"]["exactFraction"].split("/"))
    assert numerator * 7 == 6_070_000 * denominator
    assert second["rating"]["exactAmount"] == "0.867142857142"
    assert second["amount"] == second["rating"]["amount"] == "0.867100"


def test_a_denied_record_names_the_limit_and_who_may_raise_it(company, call):
    seq = limit(company, "emea", "100")
    company.use(call("c1", 61))
    told = explained(company, "c1")
    assert (told["status"], told["amount"], told["rating"]) == ("REJECTED", "0.000000", None)
    assert told["stop"] == {
        "reason": "limit_exceeded",
        "node": {"id": "emea"},
        "counted": "voice",
        "used": "0",
        "limit": "100",
        "billed": "120",
        "mayRaise": [{"id": "emea"}, {"id": "acme"}],
    }
    assert told["limits"] == [{"node": {"id": "emea"}, "usageType": "voice", "quantity": "100", "setBy": seq}]


def test_thresholds_are_told_with_the_charge_that_crossed_them(company, call):
    limit(company, "sales", "150")
    company.use(call("c1", 120))
    told = explained(company, "c1")
    (crossing,) = told["crossings"]
    assert crossing == {
        "node": {"id": "sales"},
        "usageType": "voice",
        "percent": 80,
        "used": "120",
        "limit": "150",
        "seq": told["eventSeqs"][1],
    }


def test_the_limits_explained_are_those_of_then(company, call):
    first = limit(company, "sales", "1000")
    company.use(call("c1", 60))
    limit(company, "sales", "2000")
    limit(company, "sales", None)
    assert explained(company, "c1")["limits"] == [
        {"node": {"id": "sales"}, "usageType": "voice", "quantity": "1000", "setBy": first}
    ]
    company.use(call("c2", 60))
    assert explained(company, "c2")["limits"] == []


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"line": "+4420000"}, "unknown_line"),
        ({"start": "2020-01-15T10:00:00Z"}, "no_contract"),
        ({"to": "+4930123456"}, "no_rate"),
    ],
)
def test_a_record_in_suspense_says_what_to_do(company, call, record, reason):
    company.use(call("c1", 60, **record))
    told = explained(company, "c1")
    assert (told["status"], told["suspension"]["reason"]) == ("SUSPENDED", reason)
    assert told["suspension"]["detail"]
    waiting = company.ask("{ suspense { nodes { recordId reason } pageInfo { hasNextPage } } }")["suspense"]
    assert waiting == {"nodes": [{"recordId": "c1", "reason": reason}], "pageInfo": {"hasNextPage": False}}


def test_an_erased_person_stays_charged_and_is_not_named(company, call):
    from allotment.tenants.sealing import erase

    company.use(call("c1", 60))
    sealer = company.portal.run(company.portal.engine.sealer, company.id)
    assert erase(company.portal.engine.isolation, company.id, [sealer.token("+442071838750")]) == 1
    told = explained(company, "c1")
    assert (told["personal"], told["line"], told["counterpart"]) == ("ERASED", None, None)
    assert told["drawn"] == [{"node": {"id": "sales"}, "quantity": "60"}]


@pytest.mark.parametrize("usage_id", ["", "0", "x" * 32, "0" * 32, "0" * 31 + "'", "A" * 32])
def test_an_id_of_nothing_explains_nothing(company, usage_id):
    query = (
        "query($i: ID!) { explain(usageId: $i) { amount } "
        "usage(id: $i) { id } recordHistory(usageId: $i) { seq } }"
    )
    assert company.ask(query, i=usage_id) == {"explain": None, "usage": None, "recordHistory": None}


def test_the_key_of_a_command_is_not_a_usage(company):
    from allotment.backend.log import PostgresLog

    first = PostgresLog(company.portal.engine.isolation, company.id).read(0, 1)[0]
    assert company.ask(EXPLAIN, id=first.command_key.hex())["explain"] is None


def test_pages_follow_each_other_without_gap_or_repeat(company, call):
    company.use(*[call(f"c{i}", 1) for i in range(5)])
    seen, after = [], None
    for _ in range(3):
        page = company.ask(LIST, first=2, after=after)["usages"]
        seen += [usage["recordId"] for usage in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        # What comes later does not move the pages that follow.
        company.use(call(f"later{len(seen)}", 1))
    assert seen == ["c4", "c3", "c2", "c1", "c0"]
    assert not page["pageInfo"]["hasNextPage"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["c4", "c3", "c2", "c1"]),
        ({"under": "apac"}, ["c2"]),
        ({"under": "acme"}, ["c3", "c2", "c1"]),
        ({"under": "anna"}, ["c3", "c1"]),
        ({"under": "nowhere"}, []),
        ({"status": "CHARGED"}, ["c3", "c2", "c1"]),
        ({"status": "SUSPENDED", "reason": "unknown_line"}, ["c4"]),
        ({"usageType": "data"}, ["c3"]),
        ({"period": "2026-10"}, []),
    ],
)
def test_filters_all_hold(company, call, wanted, found):
    data = {**call("c3", 2_500), "type": "data", "counterpart": ""}
    company.use(call("c1", 60), call("c2", 60, line="+442071838751"), data, call("c4", 1, line="+4420000"))
    assert [usage["recordId"] for usage in company.ask(LIST, filter=wanted)["usages"]["nodes"]] == found


def test_usages_as_of_a_seq_are_those_of_then(company, call):
    company.use(call("c1", 60))
    seq = company.settle()
    company.use(call("c2", 60))
    listed = company.ask(LIST, asOf={"seq": str(seq)})["usages"]["nodes"]
    assert [usage["recordId"] for usage in listed] == ["c1"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("first: 0", "bad_page"),
        ("first: 101", "bad_page"),
        ('after: "s"', "bad_cursor"),
        ('after: "x9"', "bad_cursor"),
    ],
)
def test_a_page_that_cannot_be_is_refused(company, arguments, code):
    assert company.refused(f"{{ usages({arguments}) {{ nodes {{ id }} }} }}") == code


def test_a_record_is_remembered_with_a_sentence_and_its_fields(company, call):
    company.use(call("c1", 90))
    usage = company.ask(LIST)["usages"]["nodes"][0]
    query = (
        "query($id: ID!) { recordHistory(usageId: $id) { topic sentence actor event } "
        "usage(id: $id) { recordId } }"
    )
    told = company.ask(query, id=usage["id"])
    (entry,) = told["recordHistory"]
    assert entry["topic"] == "usage.charged"
    assert entry["sentence"] == "anna used 90 seconds of voice; 120 billed, 0.000000 charged."
    assert entry["actor"] == "mediation:u-1"
    assert entry["event"]["path"] == ["anna", "sales", "emea", "acme"]
    assert not {"sealed", "token", "identities"} & set(entry["event"])
    assert told["usage"] == {"recordId": "c1"}


def test_a_nodes_history_is_paged_and_may_leave_usage_out(company, call):
    company.use(call("c1", 90))
    query = """
      query($after: String, $usage: Boolean!) {
        nodeHistory(node: "sales", first: 2, after: $after, usage: $usage) {
          nodes { topic } pageInfo { hasNextPage endCursor }
        }
      }
    """
    topics, after = [], None
    while True:
        page = company.ask(query, after=after, usage=True)["nodeHistory"]
        topics += [entry["topic"] for entry in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert topics == [
        "usage.charged",
        "bucket.transferred",
        "hierarchy.resource_added",
        "hierarchy.node_added",
    ]
    quiet = company.ask(query, after=None, usage=False)["nodeHistory"]["nodes"]
    assert quiet[0]["topic"] == "bucket.transferred"


def test_the_invoice_is_the_sum_of_its_lines_and_can_be_looked_back_at(company, call):
    company.use(call("c1", 600, to="+12125550100"))
    seq = company.settle()
    company.use(call("c2", 60, to="+12125550100"), call("c3", 60, line="+442071838751"))
    query = """
      query($asOf: AsOf) {
        invoicePreview(period: "2026-11", asOf: $asOf) {
          name currency records total
          nodes {
            nodeId amount
            lines {
              usageType unit zone tariffVersion rateIndex records billed fromAllowance overage amount
            }
          }
        }
      }
    """
    invoice = company.ask(query)["invoicePreview"]
    assert (invoice["name"], invoice["currency"], invoice["records"]) == ("Acme", "EUR", "3")
    # anna: 0.8671; chen finds nothing left either: 60 s x 0.05 EUR / 60 s.
    assert (invoice["total"], [node["amount"] for node in invoice["nodes"]]) == (
        "0.917100",
        ["0.867100", "0.050000"],
    )
    assert invoice["nodes"][0]["lines"] == [
        {
            "usageType": "voice",
            "unit": "second",
            "zone": "us",
            "tariffVersion": 1,
            "rateIndex": 1,
            "records": "2",
            "billed": "660",
            "fromAllowance": "600",
            "overage": "60",
            "amount": "0.867100",
        }
    ]
    then = company.ask(query, asOf={"seq": str(seq)})["invoicePreview"]
    assert (then["records"], then["total"]) == ("1", "0.000000")
    assert company.refused('{ invoicePreview(period: "x") { total } }') == "not_a_period"
