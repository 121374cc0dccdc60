"""A program that carries a tenant's rating jobs on until there are none, and says so after each part.

It is killed by its test. Arguments: database address, tenant, the moment that its clock says, and how
many charges are a part.
"""

import asyncio
import sys
from uuid import UUID

import structlog
from fixtures_writer import ROOT

from allotment.backend import rerating
from allotment.backend.engine import Engine
from allotment.domain.rerated import RerateCharges
from allotment.tenants.isolation import Isolation


async def main(database_url: str, tenant: UUID, now: int, part: int) -> None:
    rerating.PART_MAX = part
    async with Engine(Isolation(database_url), ROOT, clock=lambda: now, following=False) as engine:
        carry_out = engine.carry_out_here

        async def told(whose, order, actor):
            answer = await carry_out(whose, order, actor)
            if isinstance(order.command, RerateCharges):
                print("part", flush=True)
            return answer

        engine.carry_out_here = told
        writer = await engine.writer(tenant)
        while writer.state.rerating.jobs:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        print("done", flush=True)


structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
asyncio.run(main(sys.argv[1], UUID(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
