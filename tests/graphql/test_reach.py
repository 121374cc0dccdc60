"""Who sees what: another tenant's data through no field, and of one's own only one's subtree."""

import pytest

from allotment.graphql.schema import schema

EVERYTHING = """
query($node: ID!, $usage: ID!) {
  tenant { id name }
  hierarchy(under: $node) { nodes { id name } }
  node(id: $node) { id }
  nodeHistory(node: $node) { nodes { seq } }
  usages(filter: {under: $node}) { nodes { id } }
  usage(id: $usage) { id }
  recordHistory(usageId: $usage) { seq }
  explain(usageId: $usage) { usageId }
}
"""
MUTATIONS = {
    verb: verb
    + '(input: {idempotencyKey: "x", source: "%s", target: "%s", usageType: "voice", quantity: "1"})'
    for verb in ("allocate", "returnAllowance", "trade")
}
PROBLEM = "{ __typename ... on Problem { code message path } }"


@pytest.fixture
def other(portal):
    """A second enterprise with ids of its own."""
    return portal.tenant(
        {
            "nodes": [
                {"id": "globex", "kind": "enterprise", "name": "Globex"},
                {"id": "labs", "kind": "division", "parent": "globex", "name": "Labs"},
            ],
            "contracts": [{"id": "main", "starts_on": "2026-01-01", "grants": {"voice": 600}}],
        },
        "Globex",
    )


def test_another_tenants_token_sees_nothing_through_any_field(company, other, call):
    company.use(call("c1", 60))
    usage = company.ask("{ usages { nodes { id } } }")["usages"]["nodes"][0]["id"]
    answer = other.post(EVERYTHING, node="sales", usage=usage)
    assert answer.json()["data"] == {
        "tenant": {"id": str(other.id), "name": "Globex"},
        "hierarchy": None,
        "node": None,
        "nodeHistory": None,
        "usages": {"nodes": []},
        "usage": None,
        "recordHistory": None,
        "explain": None,
    }
    whole = (
        "{ hierarchy { nodes { id } } invoicePreview { total nodes { name } } "
        "suspense { nodes { id } } periods { period } }"
    )
    assert other.ask(whole) == {
        "hierarchy": {"nodes": [{"id": "globex"}, {"id": "labs"}]},
        "invoicePreview": {"total": "0.000000", "nodes": []},
        "suspense": {"nodes": []},
        "periods": [],
    }


@pytest.mark.parametrize("verb", MUTATIONS)
def test_another_tenants_node_is_unknown_to_every_mutation(other, company, verb):
    for source, target in (("acme", "labs"), ("globex", "sales")):
        answer = other.ask(f"mutation {{ {MUTATIONS[verb] % (source, target)} {PROBLEM} }}")
        assert answer[verb]["code"] == "unknown_node"


def test_the_same_idempotency_key_in_two_tenants_is_two_keys(company, other):
    allocate = MUTATIONS["allocate"]
    one = company.ask(f"mutation {{ {allocate % ('acme', 'apac')} {PROBLEM} }}")
    two = other.ask(f"mutation {{ {allocate % ('globex', 'labs')} {PROBLEM} }}")
    assert {one["allocate"]["__typename"], two["allocate"]["__typename"]} == {"TransferDone"}


def test_a_manager_of_a_subtree_sees_it_and_nothing_above_or_beside(company, call):
    company.use(call("c1", 60), call("c2", 60, line="+442071838751"), call("c3", 60, line="+4420000"))
    seen = company.ask(
        "{ hierarchy { root { id parentId } nodes { id } } usages { nodes { recordId } } "
        "suspense { nodes { id } } invoicePreview { records nodes { nodeId } } }",
        nodes=("emea",),
    )
    assert seen == {
        "hierarchy": {"root": {"id": "emea", "parentId": None}, "nodes": [{"id": "emea"}, {"id": "sales"}]},
        "usages": {"nodes": [{"recordId": "c1"}]},
        "suspense": {"nodes": []},
        "invoicePreview": {"records": "1", "nodes": [{"nodeId": "sales"}]},
    }


def test_out_of_reach_is_answered_letter_by_letter_as_unknown(company, call):
    company.use(call("c1", 60))
    usage = company.ask("{ usages { nodes { id } } }")["usages"]["nodes"][0]["id"]
    beyond = company.post(EVERYTHING, nodes=("apac",), node="sales", usage=usage)
    unknown = company.post(EVERYTHING, nodes=("apac",), node="nowhere", usage="0" * 32)
    assert beyond.json() == unknown.json()
    assert beyond.json()["data"]["node"] is None


@pytest.mark.parametrize("verb", MUTATIONS)
@pytest.mark.parametrize(("source", "target"), [("acme", "sales"), ("sales", "acme"), ("apac", "sales")])
def test_a_manager_of_a_subtree_moves_nothing_across_its_border(company, verb, source, target):
    answer = company.post(
        f"mutation {{ {MUTATIONS[verb] % (source, target)} {PROBLEM} }}", nodes=("emea",)
    ).text
    beyond = source if source != "sales" else target
    ends = tuple("nowhere" if node == beyond else node for node in (source, target))
    unknown = company.post(f"mutation {{ {MUTATIONS[verb] % ends} {PROBLEM} }}", nodes=("emea",)).text
    assert answer.replace(beyond, "nowhere") == unknown
    assert '"unknown_node"' in answer


def test_a_manager_of_a_subtree_changes_what_is_inside_it(company):
    answer = company.ask(
        f"mutation {{ {MUTATIONS['allocate'] % ('emea', 'sales')} {PROBLEM} }}", nodes=("emea",)
    )
    assert answer["allocate"]["__typename"] == "TransferDone"


def test_whoever_paid_above_ones_reach_is_not_named(company, call):
    company.use(call("c1", 420))
    usage = company.ask("{ usages { nodes { id } } }")["usages"]["nodes"][0]["id"]
    explained = company.ask(
        "query($u: ID!) { explain(usageId: $u) { path { id } drawn { node { id } quantity } } }",
        nodes=("sales",),
        u=usage,
    )["explain"]
    assert explained["path"] == [{"id": "anna"}, {"id": "sales"}]
    assert explained["drawn"] == [
        {"node": {"id": "sales"}, "quantity": "60"},
        {"node": None, "quantity": "240"},
        {"node": None, "quantity": "120"},
    ]


def test_history_names_nobody_beyond_ones_reach(company):
    told = company.ask('{ nodeHistory(node: "emea") { nodes { sentence event } } }', nodes=("emea",))
    text = str(told)
    assert "a member beyond your reach allocated 300 seconds of voice to EMEA for 2026-11." in text
    assert "acme" not in text.lower()


def test_several_subtrees_are_seen_together(company):
    seen = company.ask("{ hierarchy { nodes { id } } }", nodes=("apac", "sales"))
    assert [node["id"] for node in seen["hierarchy"]["nodes"]] == ["apac", "sales"]
    nested = company.ask("{ hierarchy { nodes { id } } }", nodes=("sales", "emea"))
    assert [node["id"] for node in nested["hierarchy"]["nodes"]] == ["emea", "sales"]


def test_a_manager_of_a_node_that_is_gone_sees_nothing(company):
    assert company.ask("{ hierarchy { nodes { id } } usages { nodes { id } } }", nodes=("gone",)) == {
        "hierarchy": None,
        "usages": {"nodes": []},
    }


@pytest.mark.parametrize("field", sorted(set(schema._schema.query_type.fields) - {"me"}))
def test_without_the_right_to_read_no_query_answers(company, field):
    arguments = {
        "node": '(id: "acme")',
        "contract": '(id: "main")',
        "nodeHistory": '(node: "acme")',
        "limits": '(node: "acme")',
        "review": '(node: "acme")',
        "tryPolicy": (
            '(policy: {policy: "p", node: "acme", counted: "voice", steps: []}, '
            'startsAt: "2026-11-01T00:00:00Z", endsAt: "2026-11-02T00:00:00Z")'
        ),
        "usage": '(id: "0")',
        "previewRerating": "(scope: {})",
        "previewMove": '(id: "anna", to: "apac", at: "2026-11-10T00:00:00Z")',
        "ratingJob": '(job: "j-1")',
        "recordHistory": '(usageId: "0")',
        "explain": '(usageId: "0")',
        "tariffChanges": "(before: 1, after: 1)",
        "offerHistory": '(offer: "o-1")',
        "deliveries": '(to: "wh_0")',
    }
    query = f"{{ {field}{arguments.get(field, '')} {{ __typename }} }}"
    assert company.refused(query, "mediation") == "not_permitted"


def test_an_auditor_reads_everything_but_who_called_whom(company, call):
    company.use(call("c1", 60))
    usage = company.ask("{ usages { nodes { id } } }", "auditor")["usages"]["nodes"][0]["id"]
    query = "query($u: ID!) { explain(usageId: $u) { personal line counterpart amount } }"
    assert company.ask(query, "auditor", u=usage)["explain"] == {
        "personal": "MASKED",
        "line": None,
        "counterpart": None,
        "amount": "0.000000",
    }
    assert (
        "442071838750" not in company.post('{ nodeHistory(node: "sales") { nodes { event sentence } } }').text
    )
