"""How long a commit takes to be seen: in the views, kept up by a projector of its own, and by who listens.

The whole way is taken: engine, PostgreSQL, NATS, the projector's process, and back to the reader.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from uuid import UUID

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from ...domain.usage import UsageRecord
from ...tenants.isolation import Isolation
from ...tenants.sealing import RootKey
from ..embedded import Servers
from ..engine import Engine, wall_clock
from ..log import Group
from ..messaging import Messenger
from ..offspring import projector_process
from .workload import ACTOR, Shape, records

WARM = 50
SECONDS = 5
PATIENCE_SECONDS = 60.0


class Told(msgspec.Struct):
    """What is published of a commit, for one topic."""

    seqs: list[int]


async def measure(
    servers: Servers, isolation: Isolation, root: RootKey, tenant: UUID, shape: Shape, rate: int, batch: int
) -> dict[str, list[float]]:
    """Milliseconds from commit to visible, and from commit to a subscriber, at a steady rate in batches."""
    commits: dict[int, float] = {}
    heard: list[float] = []

    async def listened(message: Msg) -> None:
        now = time.perf_counter()
        committed = commits.get(msgspec.json.decode(message.data, type=Told).seqs[-1])
        if committed is not None:
            heard.append(now - committed)

    async with (
        Engine(isolation, root, projected_elsewhere=True) as engine,
        projector_process(servers.database_url, servers.nats_url),
        Messenger(engine, servers.nats_url) as messenger,
    ):
        engine.on_commit = _both(commits, messenger)
        listener = Client()
        await listener.connect(servers.nats_url)
        await listener.subscribe(f"evt.{tenant}.usage.charged", cb=listened)
        # Measured again, it must be other records: repeated ones are only answered.
        seed = 9_000_000 + 2 * (await engine.writer(tenant)).seq
        await _warm(engine, tenant, shape, seed)
        given = records(shape, rate * SECONDS, wall_clock(), seed + 1)
        seen, reached = await _steadily(engine, tenant, given, rate, batch)
        await listener.close()
    measured = {"lag_records_per_s": [reached]}
    for name, seconds in (("projection_lag_ms", seen), ("live_ms", heard)):
        ordered = sorted(seconds)
        for percent in (50, 99):
            measured[f"{name}_p{percent}"] = [ordered[len(ordered) * percent // 100] * 1e3]
    return measured


def _both(commits: dict[int, float], messenger: Messenger) -> Callable[[Group], None]:
    def told(group: Group) -> None:
        commits[group.last] = time.perf_counter()
        messenger.committed(group)

    return told


async def _warm(engine: Engine, tenant: UUID, shape: Shape, seed: int) -> None:
    """Until the projector is up and at the end of the log."""
    outcomes = await engine.charge(tenant, records(shape, WARM, wall_clock(), seed), ACTOR)
    await engine.follower(tenant).wait_for(outcomes[-1].seq, PATIENCE_SECONDS)


async def _steadily(
    engine: Engine, tenant: UUID, given: Sequence[UsageRecord], rate: int, batch: int
) -> tuple[list[float], float]:
    """Seconds from each answer to its being visible; and records per second that were really answered."""
    follower, seen = engine.follower(tenant), list[float]()
    answered_at = 0.0

    async def one(some: Sequence[UsageRecord]) -> None:
        nonlocal answered_at
        outcomes = await engine.charge(tenant, some, ACTOR)
        answered = answered_at = time.perf_counter()
        await follower.wait_for(max(outcome.seq for outcome in outcomes), PATIENCE_SECONDS)
        seen.append(time.perf_counter() - answered)

    started = time.perf_counter()
    asked = []
    for at in range(0, len(given), batch):
        asked.append(asyncio.create_task(one(given[at : at + batch])))
        await asyncio.sleep(max(0.0, started + at / rate - time.perf_counter()))
    await asyncio.gather(*asked)
    return seen, len(given) / (answered_at - started)
