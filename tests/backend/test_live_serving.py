"""Live answers through the real server: told at once, let go of, and no hindrance to stopping."""

import asyncio
import time

import httpx2
from fixtures_app import callers_known
from fixtures_loop import in_a_loop
from fixtures_writer import ROOT, entered, furnish
from patience import PATIENCE_SECONDS, free_port, until_open, until_there

from allotment.backend import feeding
from allotment.backend.app import create_app
from allotment.backend.engine import Engine
from allotment.backend.feeding import Feeds
from allotment.backend.serving import serving
from allotment.domain.limit import SetLimit

NOTICED = 'subscription { noticed(node: "%s", kinds: ["limit.set"], afterSeq: "0") { seq } }'


@in_a_loop
async def test_who_listens_is_told_at_once_and_leaves_nothing_behind(isolation, monkeypatch):
    # Nobody looks: what comes was told.
    monkeypatch.setattr(feeding, "POLL_SECONDS", 10 * PATIENCE_SECONDS)
    store, known, port = entered(isolation), callers_known(), free_port()
    async with Engine(isolation, ROOT, following=False) as engine:
        await furnish(await engine.writer(store.tenant))
        root = (await engine.state(store.tenant)).hierarchy.root.id
        feeds = Feeds(engine)
        app = create_app(engine, **known, feeds=feeds)
        headers = {
            "Authorization": f"Bearer {known['issuer'].mint('u-1', store.tenant, ['telecoms_manager'], ())}",
            "Accept": "text/event-stream",
        }
        body = {"query": NOTICED % root}

        async def set_limit(number):
            await engine.submit(store.tenant, SetLimit(root, "voice", number), f"l{number}", "test")

        base = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=base, timeout=PATIENCE_SECONDS) as client:
            async with serving(app, "127.0.0.1", port):
                await until_open(port)
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
