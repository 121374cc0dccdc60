"""Open loop: callers come at a steady rate, whether or not the last ones were answered.

Latency counts from the moment a record was due, so that a pause is felt by all who came during it. All
who are due by a tick begin at once: a timer for each would measure this generator, in the same process.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from uuid import UUID

from ...domain.usage import UsageRecord
from ..engine import Engine

TICK_SECONDS = 0.001
"""Callers begin so much too late, at most, if there is nothing else to do: it counts as latency."""
CALLERS_MAX = 5_000
"""Held before those who were answered are let go: what is kept is looked through for garbage."""


async def acknowledgements_ms(
    engine: Engine, tenant: UUID, given: Sequence[UsageRecord], per_second: int, actor: str
) -> list[float]:
    """Milliseconds from due to answered, sorted; one caller for each record, with Poisson arrivals."""
    chance = random.Random(per_second)  # noqa: S311  (a benchmark, not a secret)
    taken: list[float] = []
    callers: list[asyncio.Task[None]] = []

    async def call(record: UsageRecord, due: float) -> None:
        outcomes = await engine.charge(tenant, [record], actor)
        assert outcomes[0].status == "charged", outcomes
        taken.append((time.perf_counter() - due) * 1e3)

    due = now = time.perf_counter()
    for record in given:
        due += chance.expovariate(per_second)
        while due > now:
            await asyncio.sleep(max(TICK_SECONDS, due - now))
            now = time.perf_counter()
        callers.append(asyncio.create_task(call(record, due)))
        if len(callers) % CALLERS_MAX == 0:
            callers = _unanswered(callers)
    await asyncio.gather(*callers)
    return sorted(taken)


def _unanswered(callers: "list[asyncio.Task[None]]") -> "list[asyncio.Task[None]]":
    """Those who still wait; raises what became of one who was not answered."""
    for caller in callers:
        if caller.done():
            caller.result()
    return [caller for caller in callers if not caller.done()]
