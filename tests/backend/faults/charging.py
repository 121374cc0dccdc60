"""A program that charges records without end, and prints the id of each one it was told is charged.

It is killed by its test. Arguments: database address, tenant, first record, lines, and how many
seconds each caller rests between two batches.
"""

import asyncio
import sys
from uuid import UUID

import structlog
from fixtures_writer import ROOT, call

from allotment.backend import writer
from allotment.backend.engine import Engine
from allotment.backend.writer import Unavailable
from allotment.tenants.isolation import Isolation

BATCH = 20
CALLERS = 6


async def main(database_url: str, tenant: str, first: int, lines: int, pause: float) -> None:
    isolation = Isolation(database_url)
    isolation._pool("app").timeout = isolation._pool("appending").timeout = 2
    writer.SECOND_MIN = BATCH  # so that two groups are under way often
    async with Engine(isolation, ROOT) as engine:

        async def keep_charging(caller: int) -> None:
            number = first + caller
            while True:
                numbers = [number + CALLERS * i for i in range(BATCH)]
                records = [call(one, one % lines) for one in numbers]
                try:
                    outcomes = await engine.charge(UUID(tenant), records, "mediation:faults")
                except Unavailable:
                    continue
                told = [
                    record.record_id
                    for record, outcome in zip(records, outcomes, strict=True)
                    if outcome.status in ("charged", "duplicate")
                ]
                print("\n".join(told), flush=True)
                number += CALLERS * BATCH
                await asyncio.sleep(pause)

        await asyncio.gather(*(keep_charging(caller) for caller in range(CALLERS)))


structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
