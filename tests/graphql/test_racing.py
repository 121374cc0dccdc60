"""Races for the last unit, through the API: exactly what there is is handed out, on ancestors too.

Callers run at once in the product's event loop: parsed, validated, permitted, decided and stored.
"""

import asyncio
import json
import random

import pytest

from allotment.backend.verifying import verify
from allotment.backend.web.graphql_door import JSON, _executed, parsed
from allotment.backend.web.request_context import RequestContext, Turns
from allotment.graphql.schema import schema

TREE = {
    "nodes": [
        {"id": "top", "kind": "enterprise", "name": "Top"},
        {"id": "a", "kind": "division", "parent": "top"},
        {"id": "b", "kind": "division", "parent": "top"},
        {"id": "a1", "kind": "cost_centre", "parent": "a"},
        {"id": "a2", "kind": "cost_centre", "parent": "a"},
        {"id": "b1", "kind": "cost_centre", "parent": "b"},
    ],
    "contracts": [{"id": "main", "starts_on": "2026-01-01", "grants": {"voice": 1_000_000}}],
    "allocations": [
        {"source": "top", "target": "b1", "usage_type": "voice", "quantity": 9, "period": "2026-11"}
    ],
}
ENDED = "{ __typename ... on Problem { code } }"
MOVE = "mutation($input: TransferInput!) { done: %s(input: $input) " + ENDED + "}"
CAP = "mutation($input: SetCapInput!) { done: setCap(input: $input) " + ENDED + "}"
BULK = "mutation($input: BulkTransferInput!) { done: bulkTransfer(input: $input) " + ENDED + "}"
STANDS = """{ allocations(usageTypes: ["voice"]) { members {
  id allocations { own available committed overCommitted }
} } }"""


class Callers:
    """As many as are wanted, at once."""

    def __init__(self, company):
        self.company, self.number = company, 0

    def key(self):
        self.number += 1
        return f"key-{self.number}"

    def move(self, source, target, quantity, verb="allocate"):
        ends = {"source": source, "target": target, "usageType": "voice", "quantity": str(quantity)}
        return MOVE % verb, {"idempotencyKey": self.key(), **ends}

    def cap(self, node, quantity):
        told = {"node": node, "usageType": "voice", "quantity": str(quantity)}
        return CAP, {"idempotencyKey": self.key(), **told}

    def bulk(self, *ends):
        lines = [
            {
                "action": "ALLOCATE",
                "source": source,
                "target": target,
                "usageType": "voice",
                "quantity": str(n),
            }
            for source, target, n in ends
        ]
        return BULK, {"idempotencyKey": self.key(), "lines": lines}

    def at_once(self, *asked):
        """What became of each: a code, or the type of what was done."""
        told = self.executed(*((query, {"input": given}) for query, given in asked))
        return [data["done"].get("code") or data["done"]["__typename"] for data in told]

    def executed(self, *asked):
        portal = self.company.portal
        token = self.company.token()

        async def ask(query, variables):
            body = json.dumps({"query": query, "variables": variables}).encode()
            context = RequestContext(portal.engine, await portal.verifier.verified(token), Turns())
            answer = await _executed(schema, parsed(JSON, body), context)
            assert not answer.errors, answer.errors
            return answer.data

        async def all_of_them():
            return await asyncio.gather(*(ask(*one) for one in asked))

        return portal.run(all_of_them)

    def told(self):
        (data,) = self.executed((STANDS, {}))
        return data["allocations"]["members"]

    def figures(self, name="own", told=None):
        return {one["id"]: int(one["allocations"][0][name]) for one in told or self.told()}

    def drain(self, node, leaving):
        """Let a node have just so much left."""
        own = self.figures("available")[node]
        away = "b1" if node == "top" else "top"
        verb = "allocate" if node == "top" else "returnAllowance"
        if own > leaving:
            self.at_once(self.move(node, away, own - leaving, verb))


@pytest.fixture(scope="module")
def company(portal):
    return portal.tenant(TREE, "Top")


@pytest.mark.parametrize("seed", range(50))
def test_two_callers_race_for_the_last_unit(company, seed):
    chance, callers = random.Random(seed), Callers(company)
    callers.number = seed * 1_000
    pool = chance.choice(["top", "a"])
    below = {"top": ["a", "b", "a1", "b1"], "a": ["a1", "a2"]}[pool]
    callers.at_once(callers.move("top", "a", 5))
    callers.drain(pool, 1)
    before = callers.figures()
    rivals = [
        chance.choice(
            [
                callers.move(pool, chance.choice(below), 1),
                callers.bulk((pool, chance.choice(below), 1)),
            ]
        )
        for _ in range(2)
    ]
    answers = sorted(callers.at_once(*rivals))
    assert len([one for one in answers if one.endswith("Done")]) == 1
    assert {one for one in answers if not one.endswith("Done")} <= {"insufficient_allowance", "bad_lines"}
    told = callers.told()
    after = callers.figures("own", told)
    assert (before[pool] - after[pool], sum(before.values())) == (1, sum(after.values()))
    assert callers.figures("available", told)[pool] == 0
    callers.at_once(callers.move("b1", "top", 10, "returnAllowance"))


def _hundred(company, seed):
    """A hundred callers at once on what one pool has."""
    chance, callers = random.Random(seed), Callers(company)
    callers.number = 100_000 + seed * 1_000
    callers.drain("top", 1_000)
    asked = []
    for _ in range(100):
        kind = chance.choice(["allocate", "allocate", "bulk", "cap", "return"])
        quantity = chance.choice([1, 10, 50, 200])
        target = chance.choice(["a", "b", "a1", "a2"])
        if kind == "cap":
            asked.append(callers.cap(target, quantity))
        elif kind == "return":
            asked.append(callers.move(target, "top", quantity, "returnAllowance"))
        elif kind == "bulk":
            asked.append(callers.bulk(("top", target, quantity), ("top", "a", 1)))
        else:
            asked.append(callers.move("top", target, quantity))
    before = callers.figures()
    answers = callers.at_once(*asked)
    after = callers.figures()
    assert sum(before.values()) == sum(after.values())
    assert min(callers.figures("available").values()) >= 0
    assert not any(callers.figures("overCommitted").values())
    assert set(answers) <= {
        *("TransferDone", "AllocationDone", "insufficient_allowance", "bad_lines", "over_committed"),
    }
    assert {"TransferDone"} < set(answers), "some are served, and some are not"
    callers.at_once(
        *(callers.cap(node, 0) for node in ("a", "b", "a1", "a2")),
        callers.move("b1", "top", 3_000, "returnAllowance"),
    )


@pytest.mark.parametrize("seed", range(2))
def test_a_hundred_callers_on_one_pool(company, seed):
    _hundred(company, seed)


@pytest.mark.soak
def test_a_hundred_callers_on_one_pool_for_long(company, portal):
    for seed in range(100, 150):
        _hundred(company, seed)
    report = verify(portal.engine.isolation, company.id)
    assert report.ok, report.problem
