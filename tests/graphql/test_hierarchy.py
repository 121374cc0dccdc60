"""The hierarchy, its balances and limits in one read, now and as of any earlier moment."""

import pytest

from allotment.graphql.columns import Columns

VOICE = """
query($under: ID, $asOf: AsOf, $depth: Int! = 4, $atLeast: Seq) {
  hierarchy(under: $under, asOf: $asOf, depth: $depth, atLeast: $atLeast, usageTypes: ["voice"]) {
    seq period
    nodes {
      id name kind depth parentId
      balances {
        granted received own allocated consumed remaining available
        subtree { granted used remaining }
      }
      limits { quantity used }
    }
  }
}
"""
ALLOCATE = """
mutation {
  allocate(
    input: {idempotencyKey: "a", source: "acme", target: "apac", usageType: "voice", quantity: "100"}
  ) {
    ... on TransferDone { eventSeqs }
  }
}
"""


def test_the_tree_comes_in_pre_order_with_figures_that_add_up(company, call):
    company.use(call("c1", 90))
    told = company.ask(VOICE)["hierarchy"]
    assert [(node["id"], node["depth"], node["parentId"]) for node in told["nodes"]] == [
        ("acme", 0, None),
        ("emea", 1, "acme"),
        ("sales", 2, "emea"),
        ("apac", 1, "acme"),
    ]
    sales = told["nodes"][2]["balances"][0]
    assert (sales["own"], sales["consumed"], sales["remaining"]) == ("60", "60", "0")
    acme = told["nodes"][0]["balances"][0]
    # 90 s are billed as 120 s: 60 from Sales, 60 from EMEA.
    assert acme["subtree"] == {"granted": "600", "used": "120", "remaining": "480"}
    assert sum(int(node["balances"][0]["remaining"]) for node in told["nodes"]) == 480


def test_a_long_list_is_told_without_an_object_for_each_member(company, monkeypatch):
    def wanted(columns):
        raise AssertionError("somebody wants objects")

    def asked(query):
        headers = {"Authorization": f"Bearer {company.token()}"}
        return company.portal.client.post("/graphql", json={"query": query}, headers=headers).json()

    for name in (
        "id name since parentId",
        "balances { own subtree { used } }",
        "limits { thresholds { seq } }",
    ):
        query = f"{{ hierarchy(resources: true) {{ root {{ {name} }} nodes {{ __typename {name} }} }} }}"
        as_objects = company.ask(query)["hierarchy"]
        assert [{"__typename": "Member", **as_objects["root"]}] == as_objects["nodes"][:1]
        monkeypatch.setattr(Columns, "__iter__", wanted)
        assert asked(query) == {"data": {"hierarchy": as_objects}}
        monkeypatch.undo()


def test_children_nest_as_deep_as_was_asked_for(company):
    query = "{ hierarchy(depth: 1) { root { id children { id children { id } } } } }"
    assert company.ask(query)["hierarchy"]["root"] == {
        "id": "acme",
        "children": [{"id": "emea", "children": []}, {"id": "apac", "children": []}],
    }


def test_devices_come_when_asked_for(company):
    query = '{ hierarchy(under: "sales", resources: true) { nodes { id kind isNode since } } }'
    assert company.ask(query)["hierarchy"]["nodes"] == [
        {"id": "sales", "kind": "cost_centre", "isNode": True, "since": None},
        {"id": "anna", "kind": "msisdn", "isNode": False, "since": "1970-12-31T23:00:00.000000Z"},
    ]


def test_the_past_does_not_change_whatever_happens_later(company, call):
    seq = company.ask(VOICE)["hierarchy"]["seq"]
    then = company.ask(VOICE, asOf={"seq": seq})["hierarchy"]
    company.use(call("c1", 90))
    company.ask(ALLOCATE)
    assert company.ask(VOICE, asOf={"seq": seq})["hierarchy"] == then
    assert then["nodes"][2]["balances"][0]["consumed"] == "0"


def test_a_recorded_time_is_another_name_for_a_seq(company, call):
    before = company.ask(VOICE)["hierarchy"]
    company.portal.clock[0] += 60_000_000
    company.use(call("c1", 90))
    company.portal.clock[0] += 60_000_000
    asked = company.ask(VOICE, asOf={"recordedAt": "2026-11-15T13:00:59+01:00"})["hierarchy"]
    assert asked == before
    later = company.ask(VOICE, asOf={"recordedAt": "2026-11-15T12:01:00Z"})["hierarchy"]
    assert later["nodes"][2]["balances"][0]["consumed"] == "60"


@pytest.mark.parametrize(
    ("as_of", "code"),
    [
        ({"seq": "999999"}, "unknown_seq"),
        ({"seq": "0"}, "unknown_seq"),
        ({"recordedAt": "2026-11-15T12:00:00Z"}, "not_settled"),
        ({"recordedAt": "2031-01-01T00:00:00Z"}, "not_settled"),
        ({"recordedAt": "2001-01-01T00:00:00Z"}, "before_the_log"),
    ],
)
def test_a_moment_that_has_no_lasting_answer_is_refused(company, as_of, code):
    assert company.refused(VOICE, asOf=as_of) == code


@pytest.mark.parametrize(
    "as_of", [{}, {"seq": "1", "recordedAt": "2026-11-15T12:00:00Z"}, {"recordedAt": "2026-11-15"}]
)
def test_as_of_names_exactly_one_moment_with_its_zone(company, as_of):
    assert "errors" in company.post(VOICE, asOf=as_of).json()


def test_a_reader_sees_its_own_write(company):
    seq = company.ask(ALLOCATE)["allocate"]["eventSeqs"][-1]
    told = company.ask(VOICE, atLeast=seq)["hierarchy"]
    assert int(told["seq"]) >= int(seq)
    assert told["nodes"][3]["balances"][0]["received"] == "100"


def test_waiting_for_what_never_happens_ends_with_try_again(company, monkeypatch):
    monkeypatch.setattr("allotment.backend.web.request_context.VIEWS_SECONDS_MAX", 0.05)
    assert company.refused(VOICE, atLeast="999999") == "not_visible_yet"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("depth: -1", "bad_depth"),
        ('period: "2026-13"', "not_a_period"),
        ('period: "November"', "not_a_period"),
        ('usageTypes: ["fax"]', "unknown_usage_type"),
    ],
)
def test_a_question_that_makes_no_sense_says_why(company, arguments, code):
    assert company.refused(f"{{ hierarchy({arguments}) {{ seq }} }}") == code


def test_another_period_has_figures_of_its_own(company, call):
    company.use(call("c1", 90), call("c0", 30, start="2026-10-15T10:00:00Z"))
    query = """
      query($p: String) {
        hierarchy(period: $p, usageTypes: ["voice"], depth: 0) { root { balances { subtree { used } } } }
      }
    """
    used = [
        company.ask(query, p=period)["hierarchy"]["root"]["balances"][0]["subtree"]["used"]
        for period in ("2026-10", "2026-11", None, "2026-09")
    ]
    assert used == ["60", "120", "120", "0"]
    assert [period["period"] for period in company.ask("{ periods { period } }")["periods"]] == [
        "2026-10",
        "2026-11",
    ]


def test_one_node_is_told_with_what_is_right_below_it(company):
    query = '{ node(id: "emea") { id parentId balances { usageType } limits { usageType } children { id } } }'
    told = company.ask(query)["node"]
    assert (told["id"], told["parentId"], told["children"]) == ("emea", "acme", [{"id": "sales"}])
    assert len(told["balances"]) == 5


def test_unknown_nodes_are_null(company):
    assert company.ask('{ hierarchy(under: "nowhere") { seq } node(id: "nowhere") { id } }') == {
        "hierarchy": None,
        "node": None,
    }


def test_a_tree_too_large_for_one_answer_says_how_to_ask(company, monkeypatch):
    monkeypatch.setattr("allotment.graphql.hierarchy.MEMBERS_MAX", 3)
    assert company.refused("{ hierarchy { seq } }") == "too_many_members"
    assert company.ask("{ hierarchy(depth: 1) { nodes { id } } }")["hierarchy"]["nodes"][2] == {"id": "apac"}


def test_who_i_am_and_may_do(company):
    assert company.ask("{ me { subject roles verbs nodes tenantId actedBy } }", "auditor", nodes=("emea",))[
        "me"
    ] == {
        "subject": "u-1",
        "roles": ["auditor"],
        "verbs": ["read"],
        "nodes": ["emea"],
        "tenantId": str(company.id),
        "actedBy": None,
    }
