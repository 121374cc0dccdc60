"""Two hundred callers drain one pool from outside, over HTTP: the log is one valid serial order of it.

A hundred send usage, a hundred allocate, return, trade and set limits by GraphQL, all through real
sockets. Then the log is decided again one after the other, and counted by a naive count: what was
accepted is what the rules give in that order, no limit was passed on any ancestor, and the nodes
together have what was granted.
"""

import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fixtures_counting import Count
from fixtures_writer import NOON, ROOT
from patience import PATIENCE_SECONDS, free_port

from allotment.backend.app import create_app
from allotment.backend.engine import Engine
from allotment.backend.keys import usage_key
from allotment.backend.log import PostgresLog, recorded
from allotment.backend.serving import serving
from allotment.backend.settings import Settings
from allotment.backend.verifying import verify
from allotment.domain.charging import ChargeUsage
from allotment.domain.tenant import Tenant
from allotment.domain.usage import UsageRecord
from allotment.tenants.identity import IssuerKeys, TokenVerifier
from allotment.tenants.issuer import DevelopmentIssuer
from allotment.tenants.onboarding import TenantEntry, parse_definition
from allotment.tenants.sealing import load_sealer

CALLERS = 100
POOL = 6_000
LINES = 6
DEFINITION = {
    "nodes": [
        {"id": "acme", "kind": "enterprise", "name": "Acme"},
        {"id": "emea", "kind": "division", "parent": "acme"},
        {"id": "sales", "kind": "cost_centre", "parent": "emea"},
        {"id": "apac", "kind": "division", "parent": "acme"},
        {"id": "ops", "kind": "cost_centre", "parent": "apac"},
    ],
    "resources": [
        {"id": f"r{i}", "node": ("sales", "ops")[i % 2], "kind": "msisdn", "lines": [f"+44207183800{i}"]}
        for i in range(LINES)
    ],
    "contracts": [{"id": "main", "starts_on": "2026-01-01", "grants": {"voice": POOL}}],
    "tariffs": [
        {
            "id": "standard",
            "valid_from": "2026-01-01",
            "currency": "EUR",
            "rates": [{"usage_type": "voice", "zone": "any", "price": "0.05", "per": 60}],
        }
    ],
    "limits": [
        {"node": "acme", "usage_type": "voice", "quantity": POOL - 500},
        {"node": "emea", "usage_type": "voice", "quantity": POOL * 6 // 10, "thresholds": [50, 90]},
        {"node": "r3", "usage_type": "voice", "quantity": 900},
    ],
    "allocations": [
        {"source": "acme", "target": "emea", "usage_type": "voice", "quantity": 2_000, "period": "2026-11"},
        {"source": "acme", "target": "apac", "usage_type": "voice", "quantity": 1_000, "period": "2026-11"},
    ],
}
ENDED = "{ __typename ... on Problem { code } }"
MOVE = "mutation($input: TransferInput!) { done: %s(input: $input) " + ENDED + "}"
LIMIT = "mutation($input: SetLimitInput!) { done: setLimit(input: $input) " + ENDED + "}"
MOVES = {
    "allocate": [("acme", "emea"), ("acme", "apac"), ("emea", "sales"), ("apac", "r3")],
    "returnAllowance": [("emea", "acme"), ("apac", "acme"), ("sales", "emea"), ("r3", "apac")],
    "trade": [("emea", "apac"), ("apac", "emea"), ("sales", "ops")],
}


class Overheard(Engine):
    """The product's own engine, and what it was told to do: to be decided again."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.commands: dict[bytes, Any] = {}

    async def carry_out(self, tenant, order, actor):
        self.commands[order.key] = order.command
        return await super().carry_out(tenant, order, actor)

    async def charge(self, tenant, records, actor, positions=(), *, first=False):
        for record in records:
            self.commands[usage_key(record.source, record.record_id, record.started_at)] = record
        return await super().charge(tenant, records, actor, positions, first=first)


class Outside:
    """Who calls, with a token for each role, and what they were told."""

    def __init__(self, http: httpx.AsyncClient, issuer: DevelopmentIssuer, tenant: Any, seed: int) -> None:
        self.http, self.seed = http, seed
        self.tokens = {
            role: issuer.mint("caller", tenant, (role,)) for role in ("mediation", "telecoms_manager")
        }
        self.outcomes = Counter[str]()

    async def all_at_once(self) -> None:
        callers = [one(number) for number in range(CALLERS) for one in (self.uses, self.manages)]
        random.Random(self.seed).shuffle(callers)
        await asyncio.gather(*callers)

    async def uses(self, number: int) -> None:
        chance = random.Random(f"{self.seed} uses {number}")
        lines = [
            {
                "source": "switch",
                "id": f"{number}-{place}",
                "line": f"+44207183800{chance.randrange(LINES)}",
                "type": "voice",
                "quantity": chance.choice([30, 61, 200]),
                "start": "2026-11-15T11:50:00Z",
            }
            for place in range(chance.choice([1, 1, 3]))
        ]
        body = b"\n".join(json.dumps(line).encode() for line in lines)
        # Sent again, as whoever lost the answer would.
        for _ in range(chance.choice([1, 1, 2])):
            told = await self.post("/v1/usage", "mediation", body)
            for outcome in ("charged", "rejected", "duplicate"):
                self.outcomes[outcome] += told[outcome]

    async def manages(self, number: int) -> None:
        chance = random.Random(f"{self.seed} manages {number}")
        if chance.random() < 0.2:
            node = chance.choice(["sales", "ops", "r1"])
            changes = {"node": node, "quantity": str(chance.choice([500, 2_000, POOL]))}
            query = LIMIT
        else:
            verb = chance.choice([*MOVES, "allocate"])
            source, target = chance.choice(MOVES[verb])
            quantity = chance.choice([50, 300, 1_000])
            changes = {"source": source, "target": target, "quantity": str(quantity)}
            query = MOVE % verb
        given = {"idempotencyKey": f"{number}", "usageType": "voice", **changes}
        body = json.dumps({"query": query, "variables": {"input": given}}).encode()
        told = await self.post("/graphql", "telecoms_manager", body)
        assert "errors" not in told, told
        self.outcomes[told["data"]["done"].get("code") or told["data"]["done"]["__typename"]] += 1

    async def post(self, path: str, role: str, body: bytes) -> Any:
        kind = "application/json" if path == "/graphql" else "application/x-ndjson"
        headers = {"Authorization": f"Bearer {self.tokens[role]}", "Content-Type": kind}
        answer = await self.http.post(path, content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()


async def drained(isolation: Any, seed: int) -> tuple[Any, dict[bytes, Any], Counter[str]]:
    port = free_port()
    issuer = DevelopmentIssuer("http://issuer.test", environment="development")
    verifier = TokenVerifier(issuer.issuer, issuer.audience, IssuerKeys(issuer.jwks))
    tenant = uuid4()
    async with Overheard(isolation, ROOT, clock=lambda: NOON) as engine:
        entry = TenantEntry(tenant, f"t{tenant.hex}", "Acme", "carrier", "UTC", "EUR")
        await engine.create_tenant(entry, "carrier:test")
        given = parse_definition(json.dumps(DEFINITION).encode())
        await engine.apply_definition(tenant, given, "carrier:test")
        settings = Settings(home=Path("unused"), port=port)
        app = create_app(engine, verifier=verifier, issuer=issuer, settings=settings)
        async with (
            serving(app, "127.0.0.1", port),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
        ):
            await until_open(http)
            outside = Outside(http, issuer, tenant, seed)
            await outside.all_at_once()
        return tenant, engine.commands, outside.outcomes


async def until_open(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                await http.get("/")
                return
            except httpx.ConnectError:
                await asyncio.sleep(0.02)


# --- afterwards ----------------------------------------------------------------------------------


def check_order(isolation: Any, tenant: Any, commands: dict[bytes, Any]) -> Counter[str]:
    """Decided again one after the other, each command leads to the very events that are stored.

    How many events of each kind the callers have led to.
    """
    told = [recorded(row) for row in PostgresLog(isolation, tenant).read(0)]
    token = load_sealer(isolation, ROOT, tenant).token
    state, count, at, led_to = Tenant(), Count(), 0, Counter[str]()
    while at < len(told):
        command = commands.get(told[at].command_key)
        if isinstance(command, UsageRecord):
            command = ChargeUsage(command, token(command.line), told[at].event.sealed)
        before = dict(count.used)
        # What has no command of its own, such as the first period, is as it is told.
        events = [told[at].event] if not decidable(command) else state.decide(command, NOON)
        for event in events:
            assert event == told[at].event, f"seq {at + 1}"
            state.apply(event)
            count.tell(event)
            at += 1
        led_to[told[at - 1].event.topic] += 1
        state.check_whole()
        count.check(before, [member.id for member in state.hierarchy.members])
    family = state.families["voice", "2026-11"]
    assert sum(family.remaining) + sum(family.consumed) == POOL
    assert min(family.remaining) >= 0
    return led_to


def decidable(command: Any) -> bool:
    """Whether the rules take it as it is: what onboarding sends has numbers in clear."""
    return isinstance(command, ChargeUsage) or type(command).__name__ in (
        "Allocate",
        "Return",
        "Trade",
        "SetLimit",
    )


def check(isolation: Any, seed: int) -> Counter[str]:
    tenant, commands, outcomes = asyncio.run(drained(isolation, seed))
    led_to = check_order(isolation, tenant, commands)
    moved = len(DEFINITION["allocations"]) + outcomes["TransferDone"]
    assert led_to["bucket.transferred"] == moved
    assert led_to["usage.rejected"] == outcomes["rejected"]
    report = verify(isolation, tenant)
    assert report.problem == ""
    assert outcomes["rejected"] > 10, "it was drained"
    return outcomes


@pytest.mark.parametrize("seed", range(2))
def test_two_hundred_callers_drain_a_pool_over_http_in_one_valid_order(isolation, seed):
    outcomes = check(isolation, seed)
    for one in ("charged", "duplicate", "TransferDone", "insufficient_allowance"):
        assert outcomes[one], (one, outcomes)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_fifty_times_over_http(isolation):
    outcomes = Counter[str]()
    for seed in range(100, 150):
        outcomes += check(isolation, seed)
    print(dict(outcomes))
