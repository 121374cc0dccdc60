"""The whole product behind its HTTP doors, for tests from outside: real PostgreSQL, real tokens.

One app serves the session; every test that changes something gets tenants of its own.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from litestar.testing import TestClient
from patience import PATIENCE_SECONDS, until

from allotment.backend.app import create_app
from allotment.backend.engine import Engine
from allotment.backend.settings import Settings
from allotment.backend.web.graphql_door import JSON, _executed, _told, parsed
from allotment.backend.web.request_context import RequestContext, Turns
from allotment.graphql.schema import make_schema
from allotment.tenants.identity import IssuerKeys, TokenVerifier
from allotment.tenants.isolation import Isolation
from allotment.tenants.issuer import DevelopmentIssuer
from allotment.tenants.onboarding import TenantEntry, parse_definition
from allotment.tenants.sealing import RootKey

NOON = 1_794_744_000_000_000
"""2026-11-15T12:00:00Z, in microseconds: what the product takes for now."""
ISSUER = "http://issuer.test"

DEFINITION = {
    "region": "GB",
    "nodes": [
        {"id": "acme", "kind": "enterprise", "name": "Acme"},
        {"id": "emea", "kind": "division", "parent": "acme", "name": "EMEA"},
        {"id": "sales", "kind": "cost_centre", "parent": "emea", "name": "Sales"},
        {"id": "apac", "kind": "division", "parent": "acme", "name": "APAC"},
    ],
    "resources": [
        {"id": "anna", "node": "sales", "kind": "msisdn", "lines": ["+442071838750"]},
        {"id": "chen", "node": "apac", "kind": "msisdn", "lines": ["+442071838751"]},
    ],
    "contracts": [{"id": "main", "starts_on": "2026-01-01", "grants": {"voice": 600, "data": 1_000_000}}],
    "tariffs": [
        {
            "id": "standard",
            "valid_from": "2026-01-01",
            "currency": "EUR",
            "rates": [
                {
                    "usage_type": "voice",
                    "zone": "uk",
                    "price": "0.05",
                    "per": 60,
                    "prefix": "+44",
                    "increment": 60,
                },
                {
                    "usage_type": "voice",
                    "zone": "us",
                    "price": "0.10",
                    "per": 7,
                    "prefix": "+1",
                    "increment": 60,
                    "connect_fee": "0.01",
                },
                {"usage_type": "data", "zone": "any", "price": "2", "per": 1_000_000, "increment": 1000},
            ],
        }
    ],
    "allocations": [
        {"source": "acme", "target": "emea", "usage_type": "voice", "quantity": 300, "period": "2026-11"},
        {"source": "emea", "target": "sales", "usage_type": "voice", "quantity": 60, "period": "2026-11"},
    ],
}


PORTALS: list["Portal"] = []
"""The one of this session, once somebody wanted it."""
STOCK = make_schema(executor=None)
"""The same schema, executed by the library alone."""


class Portal:
    """The product as its clients see it, and a hand on its clock."""

    def __init__(
        self,
        client: TestClient[Any],
        engine: Engine,
        issuer: DevelopmentIssuer,
        verifier: TokenVerifier,
        clock: list[int],
    ) -> None:
        self.client = client
        self.engine = engine
        self.issuer = issuer
        self.verifier = verifier
        self.clock = clock

    def rest(self) -> None:
        """Let go of every tenant that nobody uses: hundreds that are looked after leave no time for tests."""
        self.engine._idle_seconds, before = 0.0, self.engine._idle_seconds
        try:
            self.run(self.engine.close_idle)
        finally:
            self.engine._idle_seconds = before

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call something in the app's event loop."""
        with self.client.portal() as loop:
            return loop.call(function, *args)

    def stock_answer(self, body: bytes, token: str) -> bytes:
        """What the library's own executor answers to a request, in place of ours."""

        async def answer() -> bytes:
            context = RequestContext(self.engine, await self.verifier.verified(token), Turns())
            return _told(await _executed(STOCK, parsed(JSON, body), context), JSON).content

        return bytes(self.run(answer))

    def tenant(self, definition: dict[str, Any] = DEFINITION, name: str = "Acme") -> "Company":
        entry = TenantEntry(uuid4(), f"t{uuid4().hex}", name, "carrier", "Europe/Berlin", "EUR")
        self.run(self.engine.create_tenant, entry, "carrier:test")
        self.run(
            self.engine.apply_definition,
            entry.tenant_id,
            parse_definition(json.dumps(definition).encode()),
            "carrier:test",
        )
        company = Company(self, entry.tenant_id)
        company.settle()
        return company

    def token(
        self, tenant: UUID | None, *roles: str, nodes: tuple[str, ...] = (), subject: str = "u-1"
    ) -> str:
        return self.issuer.mint(subject, tenant, roles, nodes)


ASKED_AGAIN = 5
JOBS = """{ ratingJobs { nodes {
  job status cause note actor changed difference corrected lookedAt left
} } }"""


class Company:
    """One tenant, seen by principals of its own."""

    def __init__(self, portal: Portal, tenant_id: UUID) -> None:
        self.portal = portal
        self.id = tenant_id

    def token(self, *roles: str, nodes: tuple[str, ...] = ()) -> str:
        return self.portal.token(self.id, *(roles or ("telecoms_manager",)), nodes=nodes)

    def post(self, query: str, *roles: str, nodes: tuple[str, ...] = (), **variables: Any) -> Any:
        """Every query, whatever its answer, is also executed by the library alone, and must agree."""
        token = self.token(*roles, nodes=nodes)
        answer = self._answer(query, token, variables)
        if answer.status_code == 200 and not query.lstrip().startswith("mutation"):
            for _ in range(ASKED_AGAIN):
                stock = self.portal.stock_answer(answer.request.content, token)
                if answer.content == stock:
                    break
                # A job may have gone on between the two: then both are asked again.
                answer = self._answer(query, token, variables)
            assert answer.content == stock
        return answer

    def _answer(self, query: str, token: str, variables: dict[str, Any]) -> Any:
        return self.portal.client.post(
            "/graphql",
            json={"query": query, "variables": variables},
            headers={"Authorization": f"Bearer {token}"},
        )

    def ask(self, query: str, *roles: str, nodes: tuple[str, ...] = (), **variables: Any) -> Any:
        """The data of a query that must succeed."""
        answer = self.post(query, *roles, nodes=nodes, **variables).json()
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def refused(self, query: str, *roles: str, nodes: tuple[str, ...] = (), **variables: Any) -> str:
        """The code of a query that must fail."""
        answer = self.post(query, *roles, nodes=nodes, **variables).json()
        return str(answer["errors"][0]["extensions"]["code"])

    def use(self, *records: dict[str, Any], **parameters: Any) -> Any:
        """Send usage, and wait until the views show it; what the door answered."""
        lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
        answer = self.portal.client.post(
            "/v1/usage",
            content=lines,
            params=parameters,
            headers={"Authorization": f"Bearer {self.token('mediation')}"},
        )
        assert answer.status_code == 200, answer.text
        self.settle()
        return answer.json()

    def until_ended(self, job: str) -> Any:
        """A rating job, once it runs no more."""

        def ended() -> Any:
            return [one for one in self.jobs() if one["job"] == job and one["status"] != "RUNNING"]

        return until(ended)[0]

    def jobs(self) -> Any:
        self.settle()
        return self.ask(JOBS, "carrier")["ratingJobs"]["nodes"]

    def settle(self) -> int:
        """Wait until the views show the whole log; its end."""

        async def wait() -> int:
            writer = await self.portal.engine.writer(self.id)
            await self.portal.engine.follower(self.id).wait_for(writer.seq, PATIENCE_SECONDS)
            return writer.seq

        return int(self.portal.run(wait))


def call(
    record_id: str, seconds: int, to: str = "+442079460000", line: str = "+442071838750", **more: Any
) -> dict[str, Any]:
    return {
        "source": "switch-1",
        "id": record_id,
        "line": line,
        "type": "voice",
        "quantity": seconds,
        "start": "2026-11-15T10:00:00Z",
        "counterpart": to,
        **more,
    }


def callers_known() -> dict[str, Any]:
    """What an app knows callers by: an issuer of its own, who verifies what it mints, and settings."""
    issuer = DevelopmentIssuer(ISSUER, environment="development")
    verifier = TokenVerifier(ISSUER, issuer.audience, IssuerKeys(issuer.jwks))
    settings = Settings.from_env({"ALLOTMENT_HOME": "/tmp/allotment-unused"})
    return {"issuer": issuer, "verifier": verifier, "settings": settings}


@pytest.fixture(scope="session")
def portal(servers, migrated) -> Iterator[Portal]:
    from fixtures_database import _create

    address = _create(servers.database_url, f"portal_{uuid4().hex}", "migrated")
    isolation = Isolation(address)
    clock = [NOON]
    engine = Engine(isolation, RootKey(b"r" * 32), clock=lambda: clock[0])
    known = callers_known()
    app = create_app(engine, **known, lifespan=[lambda _: engine])
    with TestClient(app, raise_server_exceptions=False) as client:
        opened = Portal(client, engine, known["issuer"], known["verifier"], clock)
        PORTALS.append(opened)
        yield opened
        PORTALS.remove(opened)
    isolation.close()


@pytest.fixture(scope="module", autouse=True)
def rested() -> Iterator[None]:
    """After a module its tenants leave memory; who comes back to one opens it again."""
    yield
    for portal in PORTALS:
        portal.rest()


@pytest.fixture
def company(portal) -> Company:
    """A tenant of this test's own."""
    portal.clock[0] = NOON
    return portal.tenant()


@pytest.fixture(name="call")
def call_fixture() -> Callable[..., dict[str, Any]]:
    """Makes a call's record."""
    return call
