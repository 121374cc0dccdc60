"""`allotment bench sustained`: millions of charges on one tenant, second by second.

What is asked is whether it stays as fast as it begins, and memory flat: so each second is told
with what happened in it (a snapshot, a checkpoint, what the collector and other programs took), how
fast the machine's cores were, and how much the kernel has yet to write.
"""

import asyncio
import contextlib
import gc
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from msgspec import Struct

from ...domain.usage import UsageRecord
from ...migrations.run import migrate
from ...tenants.isolation import Isolation
from ...tenants.sealing import RootKey
from ..embedded import embedded_servers
from ..engine import Engine, wall_clock
from ..snapshots import Snapshots, snapshots_of
from ..stopping import cancelled, complete
from ..tuning import tuned
from . import stocking
from .charge import Progress
from .folders import embedded_home
from .workload import ACTOR, CLOCK_SECONDS, Shape, onboard, records, rss_bytes

POOL_RECORDS = 50_000
"""Made once; each time round they come as new ones. Millions in memory would be most of what is measured."""
SECONDS_MIN = 2
"""Whole ones: the first is left out, and of the others one is the slowest."""
SLOW = 0.8
"""Of the median: a second below that is slow."""
FEEL_SECONDS = 0.05
"""How often it is felt how fast the cores are."""


class Endurance(Struct, frozen=True):
    """What is measured, and for how long."""

    records: int = 3_000_000
    batch: int = 500
    in_flight: int = 20_000
    devices: int = 10_000
    depth: int = 5
    views: bool = False
    """Also keep the views up to date, in the same process."""


class Second(Struct):
    """One second of it, and what happened meanwhile."""

    charged: int = 0
    cpu_ms: int = 0
    """What our own process had of the machine; 1,000 is one whole core."""
    rss_mb: int = 0
    snapshot: bool = False
    checkpoint: bool = False
    collections: int = 0
    """Of the oldest generation."""
    stolen_ms: int = 0
    """What other machines on the same host had of our cores, where the system says so."""
    dirty_mb: int = 0
    """What the kernel has yet to write: most of it goes at once, and commits wait behind it."""
    pace: float = 1.0
    """How fast the cores were with the same small work, as a shared host lets them; told to their median."""


def run(plan: Endurance, progress: Progress) -> dict[str, Any]:
    """Charge them all on embedded PostgreSQL; second by second, ready to print."""
    with tuned(), embedded_home() as home, embedded_servers(home, postgres=True, nats=False) as servers:
        migrate(servers.database_url)
        seconds, took_s = complete(_endure(plan, servers.database_url, progress))
    if len(seconds) < SECONDS_MIN:
        progress(
            f"All were charged in {took_s:.1f} s: too short for its slowest second and the figures beside it."
            f" They need at least {SECONDS_MIN} whole seconds: charge more with --records."
        )
    return report(plan, seconds, took_s)


async def _endure(plan: Endurance, database_url: str, progress: Progress) -> tuple[list[Second], float]:
    """Each second, and how many it took in all."""
    isolation = Isolation(database_url, pool_max=16)
    try:
        async with Engine(isolation, RootKey(bytes(32)), following=plan.views) as engine:
            shape = Shape(plan.devices, plan.depth)
            progress(f"onboarding {plan.devices:,} devices in {plan.depth} levels")
            tenant = await onboard(engine, shape)
            await asyncio.to_thread(stocking.stock, database_url, plan.records)
            pool = records(shape, POOL_RECORDS, wall_clock(), 1)
            watch = _Watch(await _snapshots(engine, tenant), database_url, progress, plan.records)
            batches = _batches(plan, pool)
            callers = max(1, plan.in_flight // plan.batch)
            beside = [asyncio.create_task(watch.run()), asyncio.create_task(watch.cores.feel())]
            began = time.perf_counter()
            await asyncio.gather(*(_charge(engine, tenant, batches, watch) for _ in range(callers)))
            took_s = time.perf_counter() - began
            await cancelled(beside)
            return watch.seconds, took_s
    finally:
        isolation.close()


async def _snapshots(engine: Engine, tenant: UUID) -> Snapshots:
    snapshots = snapshots_of((await engine.writer(tenant)).store)
    assert snapshots is not None, "the engine's writers have snapshots"
    return snapshots


def _batches(plan: Endurance, pool: list[UsageRecord]) -> Iterator[list[UsageRecord]]:
    """The pool again and again, each time as records of their own that began a moment ago."""
    for first in range(0, plan.records, plan.batch):
        now = wall_clock()
        yield [
            msgspec.structs.replace(pool[number % POOL_RECORDS], record_id=f"s{number}", started_at=now)
            for number in range(first, min(first + plan.batch, plan.records))
        ]


async def _charge(
    engine: Engine, tenant: UUID, batches: Iterator[list[UsageRecord]], watch: "_Watch"
) -> None:
    for batch in batches:
        outcomes = await engine.charge(tenant, batch, ACTOR)
        if any(outcome.status != "charged" for outcome in outcomes):
            raise AssertionError("the workload is charged")
        watch.charged += len(outcomes)


class _Watch:
    """Looks once a second."""

    def __init__(self, snapshots: Snapshots, database_url: str, progress: Progress, wanted: int) -> None:
        self.charged = 0
        self.seconds: list[Second] = []
        self.cores = _Cores()
        self._snapshots = snapshots
        self._progress = progress
        self._wanted = wanted
        self._database_url = database_url

    async def run(self) -> None:
        with psycopg.connect(self._database_url, autocommit=True) as connection:
            before = self._look(connection)
            due = time.perf_counter()
            while True:
                due += 1
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                now = self._look(connection)
                self._note(before, now)
                before = now

    def _look(self, connection: psycopg.Connection[Any]) -> tuple[int, ...]:
        found = connection.execute("SELECT num_timed + num_requested FROM pg_stat_checkpointer").fetchone()
        assert found is not None
        cpu_ms = round(time.process_time() * 1_000)
        collections = gc.get_stats()[2]["collections"]
        return (self.charged, cpu_ms, self._snapshots.last, found[0], collections, _stolen_ms())

    def _note(self, before: tuple[int, ...], now: tuple[int, ...]) -> None:
        past = (b - a for a, b in zip(before, now, strict=True))
        charged, cpu_ms, snapshot, checkpoint, collections, stolen_ms = past
        told = Second(
            *(charged, cpu_ms, rss_bytes() >> 20, snapshot != 0, checkpoint != 0, collections, stolen_ms),
            *(_dirty_mb(), self.cores.pace()),
        )
        self.seconds.append(told)
        if len(self.seconds) % 10 == 0:
            self._progress(f"{self.charged:,} of {self._wanted:,}, {told.charged:,}/s, {told.rss_mb} MB")


class _Cores:
    """How fast they are, felt by looking up the same few hundred of many numbers again and again."""

    def __init__(self) -> None:
        self._many = {number: number for number in range(300_000)}
        self._some = random.Random(1).sample(range(len(self._many)), 300)  # noqa: S311  (no secret)
        self._taken: list[int] = []

    async def feel(self) -> None:
        while True:
            await asyncio.sleep(FEEL_SECONDS)
            began = time.thread_time_ns()
            for number in self._some:
                self._many[number]
            self._taken.append(time.thread_time_ns() - began)

    def pace(self) -> float:
        """Since it was asked last: so many of these a millisecond of processor time."""
        taken, self._taken = self._taken, []
        return len(taken) * 1e6 / sum(taken) if taken else 0.0


def _dirty_mb() -> int:
    with contextlib.suppress(OSError):
        told = dict(line.split(":") for line in _MEMORY.read_text(encoding="ascii").splitlines())
        return sum(int(told.get(name, "0").split()[0]) for name in ("Dirty", "Writeback")) >> 10
    return 0


def _stolen_ms() -> int:
    """Since the start, of all cores together."""
    with contextlib.suppress(OSError, IndexError):
        ticks = int(_CORES.read_text(encoding="ascii").split()[_STOLEN])
        return round(ticks * CLOCK_SECONDS * 1_000)
    return 0


_MEMORY = Path("/proc/meminfo")
_CORES, _STOLEN = Path("/proc/stat"), 8
"""Its first line is of all cores: its name, user, nice, system, idle, iowait, irq, softirq, steal."""


def _to_their_median(seconds: list[Second]) -> list[Second]:
    """The same, with how fast the cores were as a part of how fast they usually were."""
    usual = statistics.median([second.pace for second in seconds[1:] or seconds] or [0.0]) or 1.0
    return [msgspec.structs.replace(second, pace=round(second.pace / usual, 2)) for second in seconds]


def report(plan: Endurance, seconds: list[Second], took_s: float) -> dict[str, Any]:
    """What matters of it: the first second, in which nothing was under way yet, is left out."""
    seconds = _to_their_median(seconds)
    return {
        "plan": plan,
        "took_s": round(took_s, 3),
        "average_per_s": round(plan.records / took_s),
        **(_figures(seconds[1:]) if len(seconds) >= SECONDS_MIN else _TOO_SHORT),
        "per_second": [msgspec.to_builtins(second) for second in seconds],
    }


def _figures(counted: list[Second]) -> dict[str, Any]:
    rates = [second.charged for second in counted]
    median = statistics.median(rates)
    per_cpu = [round(second.charged * 1_000 / second.cpu_ms) for second in counted if second.cpu_ms]
    slow = [
        {"second": number, **msgspec.to_builtins(second)}
        for number, second in enumerate(counted, 1)
        if second.charged < SLOW * median
    ]
    at_pace = min(one.charged / max(0.1, min(1.0, one.pace)) for one in counted)
    return {
        "seconds": len(counted),
        "charges_per_s": median,
        "slowest_per_s": min(rates),
        "slowest_of_median": _part(min(rates), median),
        "slowest_at_pace": _part(at_pace, median),
        "charges_per_cpu_s": statistics.median(per_cpu) if per_cpu else None,
        "rss_mb_start": counted[0].rss_mb,
        "rss_mb_middle": counted[len(counted) // 2].rss_mb,
        "rss_mb_end": counted[-1].rss_mb,
        "snapshots": sum(second.snapshot for second in counted),
        "slow_seconds": slow,
    }


def _part(rate: float, median: float) -> float | None:
    return round(rate / median, 3) if median else None


_TOO_SHORT: dict[str, Any] = dict.fromkeys(_figures([Second()])) | {"seconds": 0, "slow_seconds": []}
"""The same names, for a run of which no second counts."""
