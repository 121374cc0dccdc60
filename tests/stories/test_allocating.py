"""A telecoms manager's month: divide, cap, lend more than there is where it was agreed, stop a thief.

Acme has bought 6,000 seconds of voice a month, and may promise half as much again.
"""

import pytest
from fixtures_app import DEFINITION, NOON

from allotment.backend.verifying import verify

ACT = """mutation($input: %sInput!) { done: %s(input: $input) {
  __typename ... on AllocationDone { transfers caps } ... on Problem { code message }
} }"""
NAMES = {"setCap": "SetCap", "freezeNode": "Freeze", "thawNode": "Freeze", "returnUnused": "ReturnUnused"}


@pytest.fixture
def acme(portal):
    portal.clock[0] = NOON
    contract = {"id": "main", "starts_on": "2026-01-01", "grants": {"voice": 6000}}
    definition = DEFINITION | {
        "contracts": [contract | {"over_commitment_percent": 50}],
        "allocations": [],
    }
    return portal.tenant(definition)


@pytest.fixture
def manager(acme):
    def act(mutation, *roles, nodes=(), **given):
        kind = NAMES.get(mutation, mutation[0].upper() + mutation[1:])
        given["idempotencyKey"] = str(sorted(map(str, given.items())))
        return acme.ask(ACT % (kind, mutation), *roles, nodes=nodes, input=given)["done"]

    return act


def owns(acme, node):
    found = acme.ask(
        '{ allocations(usageTypes: ["voice"]) { members { id allocations { own overCommitted } } } }'
    )
    return next(one["allocations"][0] for one in found["allocations"]["members"] if one["id"] == node)


def test_a_month_under_the_managers_hand(acme, manager, call):
    # Both divisions may share the pool, together by half more than there is: as agreed.
    assert manager("setCap", node="emea", usageType="voice", quantity="5000")["caps"] == 1
    assert manager("setCap", node="apac", usageType="voice", quantity="3000")["caps"] == 1
    assert owns(acme, "acme")["overCommitted"] == "2000"
    refused = manager("setCap", node="apac", usageType="voice", quantity="4001")
    assert refused["code"] == "over_committed"
    assert refused["message"] == (
        "acme has 6000, and caps would ask 9001 of it: the contract allows 50 % more than there is"
    )

    # APAC uses up its share; the rest of what it uses is overage, though the pool has more.
    acme.use(call("c1", 3000, line="+442071838751"), call("c2", 60, line="+442071838751"))
    told = acme.ask("{ usages { nodes { recordId billed overage } } }")["usages"]["nodes"]
    assert {one["recordId"]: one["overage"] for one in told} == {"c1": "0", "c2": "60"}

    # EMEA's manager hands down by a sheet, and cannot touch APAC.
    sheet = "action,source,target,usage_type,quantity\n"
    assert manager("bulkTransfer", csv=sheet + "allocate,acme,emea,voice,10 min\n")["transfers"] == 1
    below = sheet + "allocate,emea,sales,voice,5 min\n"
    assert manager("bulkTransfer", nodes=("emea",), csv=below)["transfers"] == 1
    across = sheet + "trade,emea,apac,voice,5 min\n"
    assert manager("bulkTransfer", nodes=("emea",), csv=across)["code"] == "bad_lines"

    # A phone is stolen: nothing goes out but a call for help, and what it had comes back later.
    manager("freezeNode", node="anna", note="stolen")
    answer = acme.use(call("c3", 60), call("c4", 60, "112"))
    assert answer["rejected"] == 1
    manager("thawNode", node="anna", note="found")
    assert acme.use(call("c5", 60))["charged"] == 1
    assert manager("returnUnused", node="sales", usageType="voice")["transfers"] == 1

    history = acme.ask('{ nodeHistory(node: "anna", usage: false) { nodes { sentence } } }')["nodeHistory"]
    assert [one["sentence"] for one in history["nodes"]][:2] == ["anna was thawed.", "anna was frozen."]
    report = verify(acme.portal.engine.isolation, acme.id)
    assert report.ok, report.problem
