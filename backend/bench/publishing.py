"""Publishing: how long charging waits at most while a sheet of 50,000 destinations is published.

Somebody charges one record after the other, each as soon as the one before is stored, on a PostgreSQL of its
own, while the sheet is made ready, published, and first rated with. The longest wait is told beside
the longest of as many records in which nothing was published.
"""

import asyncio
import time
from typing import Any
from uuid import UUID

from ...domain.rating.amending import Amendment, AmendTariff
from ...domain.rating.language import Rate
from ...migrations.run import migrate
from ...tenants.isolation import Isolation
from ...tenants.sealing import RootKey
from ..embedded import embedded_servers
from ..engine import Engine, wall_clock
from ..stopping import complete
from ..tuning import tuned
from .charge import Progress
from .folders import embedded_home
from .workload import ACTOR, Shape, onboard, records

DESTINATIONS = 50_000
SHAPE = Shape(1_000, 4)
SHEETS = 3
AFTER_SECONDS = 1.0
"""Charging goes on for so long when a sheet is published: it is first rated with then."""


def run(say: Progress) -> dict[str, Any]:
    """Milliseconds."""
    with tuned(), embedded_home() as home, embedded_servers(home, postgres=True, nats=False) as servers:
        migrate(servers.database_url)
        isolation = Isolation(servers.database_url, pool_max=8)
        try:
            published, usual = complete(_measured(isolation, say))
        finally:
            isolation.close()
    return {
        "charging_wait_ms_max_while_publishing": max(published),
        "charging_wait_ms_max_usually": max(usual),
        "spread": {
            "charging_wait_ms_max_while_publishing": (min(published), max(published)),
            "charging_wait_ms_max_usually": (min(usual), max(usual)),
        },
    }


async def _measured(isolation: Isolation, say: Progress) -> tuple[list[float], list[float]]:
    """The longest wait of each of some sheets, and of a time without one after it."""
    published: list[float] = []
    usual: list[float] = []
    async with Engine(isolation, RootKey(bytes(32)), following=False) as engine:
        tenant = await onboard(engine, SHAPE)
        charging = Charging(engine, tenant)
        await charging.longest(asyncio.sleep(AFTER_SECONDS))
        for number in range(SHEETS):
            rates, started = _sheet(number), time.perf_counter()
            published.append(await charging.longest(_publish(engine, tenant, rates, number)))
            usual.append(await charging.longest(asyncio.sleep(time.perf_counter() - started)))
            say(f"published {DESTINATIONS:,} destinations")
    return published, usual


def _sheet(number: int) -> tuple[Rate, ...]:
    return tuple(
        Rate("voice", f"destination {n}", f"0.{n % 97 + 1:02d}", 60, f"+99{number}{1_000_000 + 17 * n}")
        for n in range(DESTINATIONS)
    )


async def _publish(engine: Engine, tenant: UUID, rates: tuple[Rate, ...], number: int) -> None:
    tariffs = (await engine.state(tenant)).tariffs
    change = Amendment(1, wall_clock(), (), rates)
    command = AmendTariff((change,), len(tariffs.versions), sheet=f"sheet {number}")
    await engine.submit(tenant, command, f"sheet {number}", ACTOR)
    await asyncio.sleep(AFTER_SECONDS)


class Charging:
    """Records, one after the other."""

    def __init__(self, engine: Engine, tenant: UUID) -> None:
        self._engine = engine
        self._tenant = tenant
        self._seed = 0

    async def longest(self, work: Any) -> float:
        """The longest that one record waited while the work was done."""
        done, waits = asyncio.ensure_future(work), list[float]()
        while not done.done():
            self._seed += 1
            given = records(SHAPE, 1, wall_clock(), self._seed)
            started = time.perf_counter()
            await self._engine.charge(self._tenant, given, ACTOR)
            waits.append((time.perf_counter() - started) * 1_000)
        await done
        return max(waits)
