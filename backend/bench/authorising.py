"""How long an authorisation takes: alone, and beside as much bulk usage as the writer can take.

A steady number of sessions each second, each opened, updated and released; every answer counts.
"""

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar
from uuid import UUID

from ...domain.session import ReleaseSession, Report, UpdateSession
from ...domain.usage import UsageRecord
from ..authorising import StartSession
from ..engine import Engine, wall_clock
from .workload import ACTOR, line_of

SESSIONS_PER_S = 100
SECONDS = 1.5
SLICE_SECONDS = 60

T = TypeVar("T")


async def measure(
    engine: Engine,
    tenant: UUID,
    number: int,
    devices: int,
    bulk: Awaitable[T],
    measured: dict[str, list[float]],
) -> None:
    """Notes the milliseconds until an answer, of a round; `bulk` is the load beside."""
    alone = await _sessions(engine, tenant, f"{number}-alone", devices)
    load = asyncio.ensure_future(bulk)
    try:
        beside = await _sessions(engine, tenant, f"{number}-beside", devices, load)
    finally:
        await load
    for name, taken in (("authorisation_alone_ms", alone), ("authorisation_ms", beside)):
        taken.sort()
        measured.setdefault(f"{name}_p50", []).append(taken[len(taken) // 2] * 1e3)
        measured.setdefault(f"{name}_p99", []).append(taken[len(taken) * 99 // 100] * 1e3)


async def _sessions(
    engine: Engine, tenant: UUID, name: str, devices: int, load: "asyncio.Future[T] | None" = None
) -> list[float]:
    """One after the other at a steady pace, for as long as the load lasts, at most."""
    taken: list[float] = []
    running: list[asyncio.Task[None]] = []
    began = time.perf_counter()
    while time.perf_counter() - began < SECONDS and not (load is not None and load.done()):
        session = f"{name}-{len(running)}"
        line = line_of(len(running) % devices)
        running.append(asyncio.create_task(_session(engine, tenant, session, line, taken)))
        await asyncio.sleep(max(0.0, began + len(running) / SESSIONS_PER_S - time.perf_counter()))
    await asyncio.gather(*running)
    return taken


async def _session(engine: Engine, tenant: UUID, session: str, line: str, taken: list[float]) -> None:
    started_at = wall_clock()
    record = UsageRecord("network", session, line, "voice", SLICE_SECONDS, started_at, "outbound", "+4477")
    for command in (
        StartSession(record, 0),
        UpdateSession("network", session, 1, Report(SLICE_SECONDS), SLICE_SECONDS),
        ReleaseSession("network", session, 2, Report(10)),
    ):
        asked = time.perf_counter()
        await engine.authorise(tenant, command, ACTOR)
        taken.append(time.perf_counter() - asked)
