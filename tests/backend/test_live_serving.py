"""Live answers through the real server: told at once, let go of, and no hindrance to stopping."""

import asyncio
import time

import httpx2
from fixtures_loop import in_a_loop
from fixtures_writer import ROOT, Store, furnish
from patience import PATIENCE_SECONDS, free_port, until_there

from allotment.backend import feeding
from allotment.backend.app import create_app
from allotment.backend.engine import Engine
from allotment.backend.feeding import Feeds
from allotment.backend.serving import serving
from allotment.backend.settings import Settings
from allotment.domain.limit import SetLimit
from allotment.tenants.identity import IssuerKeys, TokenVerifier
from allotment.tenants.issuer import DevelopmentIssuer
from allotment.tenants.onboarding import TenantEntry, register

NOTICED = 'subscription { noticed(node: "%s", kinds: ["limit.set"], afterSeq: "0") { seq } }'
ISSUER = "http://issuer.test"


@in_a_loop
async def test_who_listens_is_told_at_once_and_leaves_nothing_behind(isolation, monkeypatch):
    # Nobody looks: what comes was told.
    monkeypatch.setattr(feeding, "POLL_SECONDS", 10 * PATIENCE_SECONDS)
    store = Store(isolation)
    register(isolation, ROOT, TenantEntry(store.tenant, "acme", "Acme", "carrier", "Europe/Berlin", "EUR"))
    issuer = DevelopmentIssuer(ISSUER, environment="development")
    verifier = TokenVerifier(ISSUER, issuer.audience, IssuerKeys(issuer.jwks))
    settings = Settings.from_env({"ALLOTMENT_HOME": "/tmp/allotment-unused"})
    port = free_port()
    async with Engine(isolation, ROOT, following=False) as engine:
        await furnish(await engine.writer(store.tenant))
        root = (await engine.state(store.tenant)).hierarchy.root.id
        feeds = Feeds(engine)
        app = create_app(engine, verifier=verifier, issuer=issuer, settings=settings, feeds=feeds)
        headers = {
            "Authorization": f"Bearer {issuer.mint('u-1', store.tenant, ['telecoms_manager'], ())}",
            "Accept": "text/event-stream",
        }
        body = {"query": NOTICED % root}

        async def set_limit(number):
            await engine.submit(store.tenant, SetLimit(root, "voice", number), f"l{number}", "test")

        base = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=base, timeout=PATIENCE_SECONDS) as client:
            async with serving(app, "127.0.0.1", port):
                await _up(client)
                async with client.stream("POST", "/graphql", json=body, headers=headers) as answer:
                    lines = answer.aiter_lines()
                    await set_limit(1)
                    assert await anext(lines) == "event: next"
                    for number in (2, 3):
                        await set_limit(number)
                        while not (await anext(lines)).startswith("data: "):
                            pass
                    assert feeds.listeners == 1
                # The server finds out by itself.
                await until_there(lambda: not feeds.listeners)
                listening = asyncio.create_task(_listen(client, body, headers))
                await until_there(lambda: feeds.listeners)
                stopped = time.monotonic()
            assert time.monotonic() - stopped < PATIENCE_SECONDS / 2, "it did not wait for who listens"
            await asyncio.gather(listening, return_exceptions=True)


async def _listen(client, body, headers):
    async with client.stream("POST", "/graphql", json=body, headers=headers) as answer:
        async for _ in answer.aiter_lines():
            pass


async def _up(client):
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                await client.get("/healthz")
                return
            except httpx2.TransportError:
                await asyncio.sleep(0.05)
