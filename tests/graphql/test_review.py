"""Reviews and sizings as a portal asks for them: figures, bounds, reach, and the past."""

import pytest

REVIEW = """query($node: ID!, $type: String! = "voice", $period: String, $asOf: AsOf, $top: Int! = 10) {
  review(node: $node, usageType: $type, period: $period, asOf: $asOf, top: $top) {
    id name kind unit period completeDays daysInPeriod completeDaysUsed exhaustedOn
    balance { own remaining subtree { used remaining } }
    days { date used overage records drawn moved remaining }
    burnRates { basis quantity since until perDay }
    projections { of status left exhaustedAt exhaustedOn working rate { basis quantity } }
    topChildren { count consumers { id name used share } others othersShare rest restShare }
    topResources { count consumers { id used share } others othersShare rest restShare }
    previous { period sameDays difference whole }
  }
}"""
SIZING = """query($node: ID, $depth: Int! = 1, $assumptions: SizingAssumptions, $asOf: AsOf) {
  sizing(node: $node, depth: $depth, usageTypes: ["voice"], assumptions: $assumptions, asOf: $asOf) {
    periods heldIn proposals {
      node depth parentId unit held base grown withMargin step proposal working below apart
      history { period used overage overageThen overageAvoided unused }
    }
  }
}"""
NOBODY = {"review": None}


@pytest.fixture
def used(company, call):
    """Anna of Sales called on three of November's first days, Chen of APAC on one; both in October."""
    company.use(
        call("c1", 60, start="2026-11-02T10:00:00Z"),
        call("c2", 120, start="2026-11-08T10:00:00Z"),
        call("c3", 120, start="2026-11-15T10:00:00Z"),
        call("c4", 60, start="2026-11-09T10:00:00Z", line="+442071838751"),
        call("o1", 600, start="2026-10-09T10:00:00Z"),
        call("o2", 660, start="2026-10-20T10:00:00Z", line="+442071838751"),
    )
    return company


def test_a_review_answers_what_a_manager_asks_in_the_middle_of_a_month(used):
    told = used.ask(REVIEW, node="acme")["review"]
    assert (told["id"], told["unit"], told["period"]) == ("acme", "second", "2026-11")
    assert (told["completeDays"], told["daysInPeriod"], told["completeDaysUsed"]) == (14, 30, "240")
    assert [day["date"] for day in told["days"]] == [f"2026-11-{day:02d}" for day in range(1, 16)]
    assert {day["date"][-2:]: day["remaining"] for day in told["days"] if day["used"] != "0"} == {
        "02": "540",
        "08": "420",
        "09": "360",
        "15": "240",
    }
    assert told["days"][-1]["remaining"] == told["balance"]["subtree"]["remaining"]
    assert told["burnRates"][0] == {
        "basis": "LAST_7_DAYS",
        "quantity": "180",
        "since": "2026-11-07T23:00:00.000000Z",
        "until": "2026-11-14T23:00:00.000000Z",
        "perDay": "26",
    }
    assert told["exhaustedOn"] == told["projections"][0]["exhaustedOn"] == "2026-11-24"
    assert told["projections"][0]["working"] == (
        "240 left, 180 used in 604800 s: 240 x 604800 s / 180 ends on 2026-11-24"
    )
    assert told["topChildren"]["consumers"] == [
        {"id": "emea", "name": "EMEA", "used": "300", "share": 8333},
        {"id": "apac", "name": "APAC", "used": "60", "share": 1667},
    ]
    assert [one["id"] for one in told["topResources"]["consumers"]] == ["anna", "chen"]
    assert told["previous"] == [
        {"period": "2026-10", "sameDays": "600", "difference": "-360", "whole": "1260"}
    ]


def test_a_resource_and_an_earlier_period_are_reviewed_alike(used):
    told = used.ask(REVIEW, node="anna", period="2026-10")["review"]
    assert [(day["date"], day["used"]) for day in told["days"] if day["used"] != "0"] == [
        ("2026-10-09", "600")
    ]
    assert {one["status"] for one in told["projections"]} <= {"ENDED"}
    assert told["topResources"]["count"] == 0
    assert told["completeDays"] == told["daysInPeriod"] == 31


def test_a_review_as_of_a_seq_stays_what_it_was(used, call):
    seq = used.ask("{ hierarchy(depth: 0) { seq } }")["hierarchy"]["seq"]
    before = {node: used.ask(REVIEW, node=node, asOf={"seq": seq}) for node in ("acme", "anna")}
    sized = used.ask(SIZING, asOf={"seq": seq})
    used.use(call("later", 6_000))
    for node, answer in before.items():
        assert used.ask(REVIEW, node=node, asOf={"seq": seq}) == answer
    assert used.ask(SIZING, asOf={"seq": seq}) == sized
    assert used.ask(REVIEW, node="acme") != before["acme"]


@pytest.mark.parametrize("role", ["telecoms_manager", "auditor"])
def test_who_is_bound_to_a_subtree_reviews_that_subtree_only(used, role):
    for node in ("emea", "sales", "anna"):
        assert used.ask(REVIEW, role, nodes=("emea",), node=node)["review"]["id"] == node
    for node in ("acme", "apac", "chen", "unheard of"):
        assert used.ask(REVIEW, role, nodes=("emea",), node=node) == NOBODY
        assert used.ask(SIZING, role, nodes=("emea",), node=node) == {"sizing": None}
    proposals = used.ask(SIZING, role, nodes=("emea",))["sizing"]["proposals"]
    assert [(one["node"], one["parentId"]) for one in proposals] == [("emea", None), ("sales", "emea")]


def test_another_tenant_reviews_nothing_of_it(used, portal):
    other = portal.tenant({"nodes": [{"id": "globex", "kind": "enterprise", "name": "Globex"}]}, "Globex")
    assert other.ask(REVIEW, node="acme") == NOBODY
    assert other.ask(SIZING, node="acme") == {"sizing": None}
    told = other.ask(REVIEW, node="globex")["review"]
    assert (told["projections"], told["previous"]) == ([], [])


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ({"type": "fax"}, "unknown_usage_type"),
        ({"period": "2026-13"}, "not_a_period"),
        ({"top": -1}, "bad_page"),
        ({"top": 51}, "bad_page"),
        ({"asOf": {"seq": "999999"}}, "unknown_seq"),
    ],
)
def test_what_cannot_be_reviewed_is_refused_by_name(used, variables, code):
    assert used.refused(REVIEW, node="acme", **variables) == code


def test_who_may_not_read_may_not_review(used):
    assert used.refused(REVIEW, "mediation", node="acme") == "not_permitted"
    assert used.refused(SIZING, "mediation") == "not_permitted"


def test_sizing_shows_every_step_and_the_children_beside_their_parent(used):
    assumptions = {"periods": 3, "growthPercent": 10, "marginPercent": 10, "step": "60"}
    told = used.ask(SIZING, assumptions=assumptions)["sizing"]
    assert (told["periods"], told["heldIn"]) == (["2026-10"], "2026-11")
    acme, emea, apac = told["proposals"]
    assert (acme["base"], acme["grown"], acme["withMargin"], acme["proposal"]) == (
        *("1260", "1386", "7623/5", "1560"),
    )
    assert acme["working"] == (
        "max of 1 periods: 1260 x 110/100 x 110/100 = 7623/5, rounded up to a multiple of 60: 1560"
    )
    assert [emea["proposal"], apac["proposal"]] == ["780", "840"]
    assert (acme["below"], acme["apart"], emea["below"]) == ("1620", "-60", None)
    # Of October's 1,260 seconds 600 were granted.
    assert acme["history"] == [
        {
            "period": "2026-10",
            "used": "1260",
            "overage": "660",
            "overageThen": "0",
            "overageAvoided": "660",
            "unused": "300",
        }
    ]


@pytest.mark.parametrize(
    ("assumptions", "named"),
    [
        ({"periods": 0}, "periods"),
        ({"method": "PERCENTILE"}, "percentile"),
        ({"percentile": 50}, "percentile"),
        ({"method": "PERCENTILE", "percentile": 101}, "percentile"),
        ({"growthPercent": -101}, "growthPercent"),
        ({"marginPercent": -1}, "marginPercent"),
        ({"step": "0"}, "step"),
    ],
)
def test_assumptions_that_cannot_be_made_are_refused_by_name(company, assumptions, named):
    answer = company.post(SIZING, assumptions=assumptions).json()
    (error,) = answer["errors"]
    assert error["extensions"]["code"] == "bad_sizing"
    assert named in error["message"]


def test_a_sizing_is_bounded(company, monkeypatch):
    from allotment.projections import sizings

    monkeypatch.setattr(sizings, "MEMBERS_MAX", 2)
    assert company.refused(SIZING) == "too_many_members"
    assert company.refused(SIZING, depth=-1) == "bad_depth"
    assert len(company.ask(SIZING, depth=0)["sizing"]["proposals"]) == 1
