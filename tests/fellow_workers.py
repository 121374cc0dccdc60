"""Engines that share their tenants, as the processes of `serve --workers` do."""

import asyncio
import json
from contextlib import AsyncExitStack
from uuid import uuid4

from fixtures_workers import DEFINITION
from fixtures_writer import NOON, ROOT, in_time

from allotment.backend.engine import Engine
from allotment.backend.peers import Peers
from allotment.backend.placement import Placement, Timing
from allotment.backend.sharing import Sharing
from allotment.tenants.onboarding import TenantEntry, parse_definition

QUICK = Timing(lease=1.2, beat=0.15, margin=0.4, settled=0.3)


class Workers:
    """Engines that share one database and one NATS, as processes do."""

    def __init__(self, isolation, nats_url):
        self.isolation, self.nats_url = isolation, nats_url
        self.stack = AsyncExitStack()

    def made(self, *, serves=True, nats_url=None, timing=QUICK):
        placement = Placement(self.isolation, takes_tenants=serves, timing=timing)
        url = self.nats_url if nats_url is None else nats_url
        sharing = Sharing(placement, Peers(placement.me, lambda: url, listens=serves))
        return Engine(self.isolation, ROOT, clock=lambda: NOON, following=False, sharing=sharing)

    async def worker(self, **how):
        return await self.stack.enter_async_context(self.made(**how))

    async def tenant(self, engine):
        entry = TenantEntry(uuid4(), f"t{uuid4().hex}", "Acme", "carrier", "Europe/Berlin", "EUR")
        await in_time(engine.create_tenant(entry, "carrier:test"))
        definition = parse_definition(json.dumps(DEFINITION).encode())
        await in_time(engine.apply_definition(entry.tenant_id, definition, "carrier:test"))
        return entry.tenant_id

    async def until_seen(self, *engines):
        """Until each of them knows of all."""
        while any(len(one.sharing.placement.others()) < len(engines) - 1 for one in engines):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
