"""`allotment bench notices`: from the commit of a crossing to whoever is told, beside bulk usage.

The whole way is taken: writer, PostgreSQL, NATS, the process that sends, HTTP; and for who listens, the
reader of the log in the process that serves.
"""

import asyncio
import base64
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from ...domain.limit import SetLimit, ThresholdCrossed
from ...domain.notice import CreateWebhook, Filter
from ...migrations.run import migrate
from ...tenants.isolation import Isolation
from ...tenants.sealing import RootKey
from ..embedded import Servers, embedded_servers
from ..engine import Engine, wall_clock
from ..feeding import Feeds
from ..log import Group
from ..messaging import Messenger
from ..offspring import Child
from ..stopping import complete
from ..web.outlets import TenantOutlets
from .charge import Progress
from .folders import embedded_home
from .workload import ACTOR, Shape, onboard, records

ROOT = bytes(32)
BATCH = 50
PATIENCE_SECONDS = 30.0


class Plan(Struct, frozen=True):
    """What is measured, and how often."""

    crossings: int = 400
    crossings_per_s: int = 20
    records_per_s: int = 1_000
    """Charged beside."""
    devices: int = 1_000
    depth: int = 4


def run(plan: Plan, progress: Progress) -> dict[str, Any]:
    with embedded_home() as home, embedded_servers(home, postgres=True, nats=True) as servers:
        migrate(servers.database_url)
        isolation = Isolation(servers.database_url)
        try:
            return complete(_measured(servers, isolation, plan, progress))
        finally:
            isolation.close()


async def _measured(servers: Servers, isolation: Isolation, plan: Plan, progress: Progress) -> dict[str, Any]:
    committed: dict[int, float] = {}
    received: dict[int, float] = {}
    heard: dict[int, float] = {}
    receiver = await asyncio.start_server(_receiving(received), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{receiver.sockets[0].getsockname()[1]}/"
    async with (
        Engine(isolation, RootKey(ROOT), projected_elsewhere=True) as engine,
        Messenger(engine, servers.nats_url) as messenger,
    ):
        engine.on_commit = _noting(committed, messenger.committed)
        feeds = Feeds(engine)
        shape = Shape(plan.devices, plan.depth)
        progress(f"onboarding {plan.devices:,} devices")
        tenant = await onboard(engine, shape)
        for some in _batches(records(shape, 20 * plan.devices, wall_clock(), 1)):
            await engine.charge(tenant, some, ACTOR)
        await _want(engine, tenant, url)
        sending = asyncio.create_task(_child(servers).keep_running())
        listening = asyncio.create_task(_listen(feeds, tenant, heard))
        try:
            await _until_there(engine, tenant, received, heard)
            for told in (committed, received, heard):
                told.clear()
            progress(f"{plan.crossings} crossings beside {plan.records_per_s} records/s")
            await _cross(engine, tenant, plan, shape)
            await _settled(committed, received, heard)
        finally:
            for task in (sending, listening):
                task.cancel()
            await asyncio.gather(sending, listening, return_exceptions=True)
            receiver.close()
    return _report(plan, committed, {"webhook": received, "subscription": heard})


def _child(servers: Servers) -> Child:
    environment = {
        "DATABASE_URL": servers.database_url,
        "NATS_URL": servers.nats_url,
        "ALLOTMENT_ROOT_KEY": base64.b64encode(ROOT).decode(),
        "ALLOTMENT_WEBHOOK_PRIVATE": "allowed",
    }
    return Child(("project", "--child"), environment)


async def _want(engine: Engine, tenant: UUID, url: str) -> None:
    outlets = TenantOutlets(engine, tenant, engine.in_thread, private=True)
    await outlets.keep(url)
    command = CreateWebhook("bench", url, await outlets.name(url), b"bench", Filter("n0"))
    await engine.submit(tenant, command, "bench", ACTOR)


async def _listen(feeds: Feeds, tenant: UUID, heard: dict[int, float]) -> None:
    async for batch in feeds.follow(tenant, [ThresholdCrossed.topic], None):
        now = time.perf_counter()
        heard.update((told.seq, now) for told in batch)


async def _cross(engine: Engine, tenant: UUID, plan: Plan, shape: Shape) -> None:
    """A limit below what was used is crossed by being set: at a steady rate, beside bulk usage."""
    bulk = asyncio.create_task(_charge_on(engine, tenant, plan, shape))
    started = time.perf_counter()
    for number in range(plan.crossings):
        await _cross_one(engine, tenant, number)
        due = started + (number + 1) / plan.crossings_per_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    bulk.cancel()
    await asyncio.gather(bulk, return_exceptions=True)


async def _cross_one(engine: Engine, tenant: UUID, number: int) -> None:
    limit = SetLimit("n0", "voice", 1 + number % 50, (100,))
    await engine.submit(tenant, limit, f"cross {number} {time.time_ns()}", ACTOR)


async def _charge_on(engine: Engine, tenant: UUID, plan: Plan, shape: Shape) -> None:
    started, seed = time.perf_counter(), 2
    while True:
        for some in _batches(records(shape, 10 * BATCH, wall_clock(), seed)):
            await engine.charge(tenant, [one for one in some if one.usage_type != "voice"], ACTOR)
            due = started + (seed - 2) * 10 * BATCH / plan.records_per_s
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        seed += 1


async def _until_there(
    engine: Engine, tenant: UUID, received: dict[int, float], heard: dict[int, float]
) -> None:
    """Until whoever sends is up."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        number = 1_000
        while not (received and heard):
            await _cross_one(engine, tenant, number)
            number += 1
            await asyncio.sleep(0.5)


async def _settled(committed: dict[int, float], *told: dict[int, float]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while any(committed.keys() - some.keys() for some in told):  # noqa: ASYNC110  (nobody tells us)
            await asyncio.sleep(0.1)


def _noting(committed: dict[int, float], then: Callable[[Group], None]) -> Callable[[Group], None]:
    def noted(group: Group) -> None:
        now = time.perf_counter()
        for seq, topic in enumerate(group.topics, group.seen + 1):
            if topic == ThresholdCrossed.topic:
                committed[seq] = now
        then(group)

    return noted


def _receiving(received: dict[int, float]) -> Callable[..., Any]:
    """As little of HTTP as it takes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                received.setdefault(int(msgspec.json.decode(body)["sequence"]), time.perf_counter())
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    return serve


def _report(plan: Plan, committed: dict[int, float], told: dict[str, dict[int, float]]) -> dict[str, Any]:
    figures: dict[str, float] = {}
    spread: dict[str, list[float]] = {}
    for name, when in told.items():
        taken = sorted((when[seq] - at) * 1e3 for seq, at in committed.items())
        for percent in (50, 99):
            figures[f"{name}_ms_p{percent}"] = taken[len(taken) * percent // 100]
            spread[f"{name}_ms_p{percent}"] = [taken[0], taken[-1]]
    return {"plan": plan, "crossings": len(committed), **figures, "spread": spread}


def _batches(given: list[Any]) -> list[list[Any]]:
    return [given[at : at + BATCH] for at in range(0, len(given), BATCH)]
