"""Engines that share their tenants, as the processes of `serve --workers` do."""

import asyncio
import json
from contextlib import AsyncExitStack
from uuid import uuid4

from fixtures_workers import DEFINITION
from fixtures_writer import NOON, ROOT, in_time
from patience import until_there

from allotment.backend.engine import Engine
from allotment.backend.peers import Peers
from allotment.backend.placement import Placement, Timing
from allotment.backend.sharing import Sharing
from allotment.backend.stopping import cancelled
from allotment.tenants.onboarding import TenantEntry, parse_definition

STEADY = Timing(lease=60, beat=0.15, margin=0.4, settled=0.3)
"""However long a busy machine holds one up, nobody takes it for dead."""
QUICK = STEADY._replace(lease=1.2)


class Workers:
    """Engines that share one database and one NATS, as processes do."""

    def __init__(self, isolation, nats_url):
        self.isolation, self.nats_url = isolation, nats_url
        self.stack = AsyncExitStack()

    def made(self, *, serves=True, nats_url=None, timing=STEADY):
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
        await until_there(
            lambda: all(len(one.sharing.placement.others()) >= len(engines) - 1 for one in engines)
        )


async def stand_still(engine):
    """As a process does that is stopped: one heartbeat more, for a short lease, and then none."""
    placement = engine.sharing.placement
    await cancelled([placement._beating])
    _live_by(placement, QUICK)
    await placement._beat()


def go_on(engine):
    """It wakes up."""
    placement = engine.sharing.placement
    _live_by(placement, STEADY)
    placement._beating = asyncio.create_task(placement._keep_beating())


def _live_by(placement, timing):
    placement.timing, placement._leases._lease_seconds = timing, timing.lease
