"""Open loop: callers come at a steady rate, whether or not the last ones were answered.

Latency counts from the moment a record was due, so that a pause is felt by all who came during it.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from uuid import UUID

from ...domain.usage import UsageRecord
from ..engine import Engine


async def acknowledgements_ms(
    engine: Engine, tenant: UUID, given: Sequence[UsageRecord], per_second: int, actor: str
) -> list[float]:
    """Milliseconds from due to answered, sorted; one caller for each record, with Poisson arrivals."""
    chance = random.Random(per_second)  # noqa: S311  (a benchmark, not a secret)
    taken: list[float] = []
    callers: set[asyncio.Task[None]] = set()

    async def call(record: UsageRecord, due: float) -> None:
        outcomes = await engine.charge(tenant, [record], actor)
        assert outcomes[0].status == "charged", outcomes
        taken.append((time.perf_counter() - due) * 1e3)

    due = time.perf_counter()
    for record in given:
        due += chance.expovariate(per_second)
        early = due - time.perf_counter()
        if early > 0:
            await asyncio.sleep(early)
        caller = asyncio.create_task(call(record, due))
        callers.add(caller)
        caller.add_done_callback(callers.discard)
    await asyncio.gather(*callers)
    return sorted(taken)
