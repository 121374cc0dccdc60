"""`allotment bench growth`: what a charge costs in large enterprises, and with records that repeat.

Each size is charged by turns with the smallest one, in one process on one database, and what is told is
the ratio within a turn. Counted is processor time, of our own process and of PostgreSQL's backends, so
that other work on the machine weighs on both sides alike.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from msgspec import Struct

from ...migrations.run import migrate
from ...tenants.isolation import Isolation
from ...tenants.sealing import RootKey, load_sealer
from ..deciding import Decider
from ..embedded import embedded_servers
from ..engine import Engine, wall_clock
from ..snapshots import SnapshottedLog
from ..stopping import complete
from ..tuning import tuned
from .charge import Progress, charge_all
from .folders import embedded_home
from .workload import CLOCK_SECONDS, Shape, onboard, records, rss_bytes

IN_FLIGHT = 10_000
HISTORY_AT_ONCE = 50_000
HISTORY_US = 28 * 86_400_000_000
"""Over so long the usage of a history is spread."""
REST_SECONDS, REST_SECONDS_MAX = 0.5, 300.0
"""How long the process is watched for work beside, and at most waited for."""
REST_SHARE = 0.1
"""Of a core: less is rest."""
GOALS = {"depth": 1.5, "devices": 1.6, "history": 1.1, "duplicates": 1.2}
"""At most so many times the cost of the smallest."""


class Plan(Struct, frozen=True):
    """What is measured: the first of each is what the others are compared with."""

    rounds: int = 12
    """Many, for a turn is short, and its ratio moves by a third on a busy machine."""
    records: int = 10_000
    """Charged in each turn."""
    batch: int = 500
    depths: tuple[int, ...] = (3, 5, 8, 12)
    devices: tuple[int, ...] = (1_000, 10_000, 100_000)
    history: tuple[int, ...] = (10_000, 1_000_000)
    duplicates: tuple[int, ...] = (0, 10)
    """Per cent of the records that were charged before: half of them a moment ago, half of them long ago."""
    usual: Shape = Shape(2_000, 5)
    """Of whatever is not asked about."""


class Size(Struct):
    """One enterprise to be charged, and what its charges took, turn by turn."""

    name: int
    tenant: UUID
    shape: Shape
    duplicates: int = 0
    ours_us: list[float] = []
    postgres_us: list[float] = []
    state_bytes: float = 0.0
    """Of a device, as the process grew when it was taken on."""
    cold_start_s: float = 0.0
    """Of our processor time, from the snapshot that was written when it was left."""


def run(plan: Plan, progress: Progress) -> dict[str, Any]:
    """All of it on embedded PostgreSQL; figures by name, ready to print."""
    with tuned(), embedded_home() as home, embedded_servers(home, postgres=True, nats=False) as servers:
        migrate(servers.database_url)
        return report(plan, complete(_all(plan, servers.database_url, progress)))


async def _all(plan: Plan, database_url: str, progress: Progress) -> dict[str, list[Size]]:
    measured: dict[str, list[Size]] = {}
    for what, take_on in (
        ("depth", _depths),
        ("devices", _devices),
        ("history", _histories),
        ("duplicates", _duplicates),
    ):
        measured[what] = await _dimension(plan, database_url, what, take_on, progress)
        gc.collect()
    return measured


TakeOn = Callable[["_Turns"], Any]


async def _dimension(
    plan: Plan, database_url: str, what: str, take_on: TakeOn, progress: Progress
) -> list[Size]:
    """An engine of its own for each: what one of them holds in memory slows no other down."""
    isolation = Isolation(database_url, pool_max=16)
    try:
        async with Engine(isolation, RootKey(bytes(32)), following=False) as engine:
            with psycopg.connect(database_url, autocommit=True) as db:
                turns = _Turns(plan, engine, db, progress)
                await take_on(turns)
                progress(f"{what}: {', '.join(f'{size.name:,}' for size in turns.sizes)}")
                await turns.take()
        progress(f"{what}: cold start")
        for size in turns.sizes:
            size.cold_start_s = await asyncio.to_thread(_cold_start, isolation, size.tenant)
        return turns.sizes
    finally:
        isolation.close()


def _cold_start(isolation: Isolation, tenant: UUID) -> float:
    root = RootKey(bytes(32))
    with ThreadPoolExecutor(1) as threads:
        began = time.process_time()
        Decider.load(SnapshottedLog(isolation, tenant, threads), lambda: load_sealer(isolation, root, tenant))
        return time.process_time() - began


async def _depths(turns: "_Turns") -> None:
    for depth in turns.plan.depths:
        await turns.enter(depth, Shape(turns.plan.usual.devices, depth))


async def _devices(turns: "_Turns") -> None:
    for devices in turns.plan.devices:
        await turns.enter(devices, Shape(devices, turns.plan.usual.depth))


async def _histories(turns: "_Turns") -> None:
    for events in turns.plan.history:
        size = await turns.enter(events, turns.plan.usual)
        await turns.grow(size, events)


async def _duplicates(turns: "_Turns") -> None:
    for share in turns.plan.duplicates:
        size = await turns.enter(share, turns.plan.usual)
        size.duplicates = share


class _Turns:
    """Enterprises that are charged one after the other, again and again."""

    def __init__(self, plan: Plan, engine: Engine, db: psycopg.Connection[Any], progress: Progress) -> None:
        self.plan = plan
        self.sizes: list[Size] = []
        self._engine = engine
        self._db = db
        self._progress = progress
        self._seed = 0
        self._charged: dict[UUID, list[Any]] = {}
        """Of each enterprise: what it was charged with first."""

    async def enter(self, name: int, shape: Shape) -> Size:
        self._progress(f"taking on {shape.devices:,} devices in {shape.depth} levels")
        held = rss_bytes()
        tenant = await onboard(self._engine, shape)
        grown = (rss_bytes() - held) / shape.devices
        size = Size(name, tenant, shape, 0, [], [], grown)
        self._charged[tenant] = await self._charge(size, self.plan.records)
        self.sizes.append(size)
        return size

    async def grow(self, size: Size, events: int) -> None:
        """Charge until the log has so many: usage of the weeks before, day after day."""
        writer = await self._engine.writer(size.tenant)
        while writer.seq < events:
            ago = HISTORY_US * (events - writer.seq) // events
            await self._charge(size, min(HISTORY_AT_ONCE, events - writer.seq), ago)

    async def take(self) -> None:
        """By turns, each time beginning with another: none is always the first."""
        for size in self.sizes:
            await self._charge(size, self.plan.records)
        await self._at_rest()
        gc.collect()
        gc.freeze()
        try:
            for number in range(self.plan.rounds):
                place = number % len(self.sizes)
                for size in (*self.sizes[place:], *self.sizes[:place]):
                    await self._turn(size)
        finally:
            gc.unfreeze()

    async def _at_rest(self) -> None:
        """Until nothing is done in the background: first snapshots of millions of members take a while."""
        self._progress("waiting for what is done beside")
        for _ in range(round(REST_SECONDS_MAX / REST_SECONDS)):
            used = time.process_time()
            await asyncio.sleep(REST_SECONDS)
            if time.process_time() - used < REST_SHARE * REST_SECONDS:
                return

    async def _turn(self, size: Size) -> None:
        given = self._given(size)
        ours, postgres = time.process_time(), self._postgres_seconds()
        await charge_all(self._engine, size.tenant, given, self.plan.batch, [], IN_FLIGHT)
        size.ours_us.append((time.process_time() - ours) / self.plan.records * 1e6)
        size.postgres_us.append((self._postgres_seconds() - postgres) / self.plan.records * 1e6)

    def _given(self, size: Size) -> list[Any]:
        """New ones, and so many besides that were charged before; some of them twice by now."""
        given = self._new(size, self.plan.records)
        again = len(given) * size.duplicates // 100
        return [*given, *given[: again // 2], *self._charged[size.tenant][: again - again // 2]]

    def _new(self, size: Size, count: int, ago_us: int = 0) -> list[Any]:
        self._seed += 1
        return records(size.shape, count, wall_clock() - ago_us, self._seed)

    async def _charge(self, size: Size, count: int, ago_us: int = 0) -> list[Any]:
        given = self._new(size, count, ago_us)
        await charge_all(self._engine, size.tenant, given, self.plan.batch, [], IN_FLIGHT)
        return given

    def _postgres_seconds(self) -> float:
        """What the backends have used so far that serve us; checkpoints and such come and go."""
        found = self._db.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")
        return sum(_used_by(pid) for (pid,) in found.fetchall())


def _used_by(pid: int) -> float:
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(told[11]) + int(told[12])) * CLOCK_SECONDS


def report(plan: Plan, measured: dict[str, list[Size]]) -> dict[str, Any]:
    """Each size beside the smallest, turn by turn; of each dimension the largest decides."""
    told = {what: [_told(size, sizes[0]) for size in sizes] for what, sizes in measured.items()}
    return {
        "plan": plan,
        "ratios": {what: max(one["ratio"] for one in sizes) for what, sizes in told.items()},
        "goals": GOALS,
        **told,
    }


def _told(size: Size, least: Size) -> dict[str, Any]:
    whole, smallest = _whole(size), _whole(least)
    ratios = [one / other for one, other in zip(whole, smallest, strict=True)]
    return {
        "size": size.name,
        "cpu_us": round(statistics.median(whole), 1),
        "ours_us": round(statistics.median(size.ours_us), 1),
        "postgres_us": round(statistics.median(size.postgres_us), 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "bytes_per_device": round(size.state_bytes),
        "cold_start_s": round(size.cold_start_s, 3),
    }


def _whole(size: Size) -> Sequence[float]:
    return [ours + postgres for ours, postgres in zip(size.ours_us, size.postgres_us, strict=True)]
