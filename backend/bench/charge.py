"""`allotment bench charge`: ours beside its baselines, interleaved in one run on one machine.

Each round measures every contender once; what is told is the median of the rounds, with minimum
and maximum, and ratios are taken round by round: the machine's speed drifts, the ratio less so.
"""

import asyncio
import contextlib
import gc
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Any
from uuid import UUID

from msgspec import Struct

from ...domain.usage import UsageRecord
from ...migrations.run import migrate
from ...tenants.isolation import Isolation
from ...tenants.sealing import RootKey, load_sealer
from ..deciding import Decider
from ..embedded import Servers, embedded_servers
from ..engine import Engine, wall_clock
from ..following import catch_up
from ..log import Log, PostgresLog, Row, follow
from ..messaging import Messenger
from ..native import using
from ..offspring import projector_process
from ..snapshots import SnapshottedLog
from ..stopping import complete
from ..tuning import tuned
from . import authorising, baselines, fronts, lags, moves, runner, stocking
from .folders import embedded_home
from .open_loop import acknowledgements_ms
from .workload import ACTOR, Shape, onboard, records, rss_bytes

IN_FLIGHT = 20_000
"""Records on their way where batches are charged: groups are as large as they become."""
ACK_RECORDS_PER_S = 10_000
ACK_SECONDS = 2
LAG_RECORDS_PER_S = 20_000
SMALL_BATCH = 50
"""Records a submission where lag is measured once more: each commit is a small one then."""
NEWEST = 60_000
"""Events whose rows are copied beside."""
RUNNER_EVENTS = 1_500
"""What the library's own runner projects in a few seconds."""


class Plan(Struct, frozen=True):
    """What is measured, and how often."""

    rounds: int = 5
    records: int = 100_000
    """Charged per round in batches; single callers charge a share of it."""
    batch: int = 500
    devices: int = 10_000
    depth: int = 5
    """Levels, the devices' own included."""
    tenants: int = 1
    """Charged at the same time, in the same process."""
    history: int = 0
    """Events in the log before the first round."""
    duplicates: int = 0
    """Per cent of the records of a batch that were charged before."""
    baselines: bool = True
    fronts: bool = True
    """Also through HTTP and GraphQL."""
    lag_rate: int = 0
    """Records per second at which lag is measured; 0 is 20,000, or half of what was charged if less."""
    seconds: float = 2.0
    """How long each pgbench run takes."""
    native: bool = True
    """Whether native code charges, where it was built; else Python alone does."""

    @property
    def shape(self) -> Shape:
        return Shape(self.devices, self.depth)


Progress = Callable[[str], None]

_status = attrgetter("status")
_EXPECTED = frozenset({"charged", "duplicate"})


class Figure(Struct, frozen=True):
    median: float
    minimum: float
    maximum: float


def run(plan: Plan, progress: Progress) -> dict[str, Any]:
    """All rounds on embedded PostgreSQL; figures by name, ready to print."""
    nats = plan.fronts
    charged_by = contextlib.nullcontext() if plan.native else using.python_only()
    with (
        charged_by,
        tuned(),
        embedded_home() as home,
        embedded_servers(home, postgres=True, nats=nats) as servers,
    ):
        migrate(servers.database_url)
        if plan.baselines:
            baselines.prepare(servers.database_url)
        measured = complete(_rounds(plan, servers, progress))
        return _report(plan, measured)


async def _rounds(plan: Plan, servers: Servers, progress: Progress) -> dict[str, list[float]]:
    database_url = servers.database_url
    isolation = Isolation(database_url, pool_max=16)
    measured: dict[str, list[float]] = {}
    root = RootKey(bytes(32))
    try:
        async with Engine(isolation, root, following=False) as engine:
            progress(f"onboarding {plan.devices:,} devices in {plan.depth} levels, {plan.tenants} times")
            began, held = time.perf_counter(), rss_bytes()
            tenants = [await onboard(engine, plan.shape) for _ in range(plan.tenants)]
            measured["onboarding_s"] = [time.perf_counter() - began]
            measured["bytes_per_device"] = [(rss_bytes() - held) / plan.devices / plan.tenants]
            for tenant in tenants:
                await charge_all(engine, tenant, records(plan.shape, 2_000, wall_clock(), 0), 500, [])
            if plan.history:
                progress(f"writing {plan.history:,} events of history")
                await _history(engine, tenants[0], plan)
            every_round = 5 * plan.records + ACK_RECORDS_PER_S * ACK_SECONDS
            await asyncio.to_thread(stocking.stock, database_url, plan.rounds * every_round)
            gc.collect()
            gc.freeze()
            for number in range(1, plan.rounds + 1):
                progress(f"round {number} of {plan.rounds}")
                await _round(plan, engine, tenants, number, measured)
                if plan.fronts:
                    await _through_http(plan, engine, tenants[0], number, "http", measured)
                if plan.baselines:
                    rows = await asyncio.to_thread(_newest, PostgresLog(isolation, tenants[0]))
                    await _baselines(plan, database_url, rows, measured)
            if plan.fronts:
                progress(f"moving {plan.devices:,} devices at once")
                await moves.measure(engine, plan.shape, measured)
        gc.unfreeze()
        await _readers(isolation, root, tenants[0], measured, progress)
        if plan.baselines:
            theirs = await asyncio.to_thread(runner.runner, database_url, RUNNER_EVENTS)
            measured["runner_per_s"] = [theirs]
        if plan.fronts:
            progress("HTTP, GraphQL, and how far behind the views are")
            async with (
                Engine(isolation, root, projected_elsewhere=True) as engine,
                projector_process(servers.database_url, servers.nats_url),
                Messenger(engine, servers.nats_url) as messenger,
            ):
                engine.on_commit = messenger.committed
                await _fronts(plan, engine, tenants[0], measured)
            half = int(statistics.median(measured["charges_per_s"]) / 2)
            rate = plan.lag_rate or max(1, min(half, LAG_RECORDS_PER_S))
            progress(f"a projector of its own, and live listeners, at {rate:,} records/s")
            for prefix, batch in (("", plan.batch), ("small_", SMALL_BATCH)):
                told = await lags.measure(servers, isolation, root, tenants[0], plan.shape, rate, batch)
                measured |= {f"{prefix}{name}": values for name, values in told.items()}
    finally:
        isolation.close()
    return measured


def _newest(log: PostgresLog) -> list[Row]:
    head = log.head().seq
    return list(follow(log, max(0, head - NEWEST), head))


async def _round(
    plan: Plan, engine: Engine, tenants: Sequence[UUID], number: int, measured: dict[str, list[float]]
) -> None:
    for name, batch, share, in_flight in (
        ("charges_per_s", plan.batch, 1, IN_FLIGHT),
        ("single_64_per_s", 1, 8, 64),
        ("single_1024_per_s", 1, 4, 1024),
    ):
        count = max(1, plan.records // share)
        given = records(plan.shape, count, wall_clock(), number * 10 + share)
        repeated = count * plan.duplicates // 100
        given += given[:repeated]
        latencies: list[float] = []
        before = time.process_time()
        rates = await asyncio.gather(
            *(charge_all(engine, tenant, given, batch, latencies, in_flight) for tenant in tenants)
        )
        measured.setdefault(name, []).append(sum(rates))
        # The caller's own part and the driver's included.
        taken_us = (time.process_time() - before) / len(given) / len(tenants) * 1e6
        measured.setdefault(name.replace("_per_s", "_cpu_us"), []).append(taken_us)
        prefix = name.replace("_per_s", "_ack_ms")
        latencies.sort()
        measured.setdefault(f"{prefix}_p50", []).append(latencies[len(latencies) // 2] * 1e3)
        measured.setdefault(f"{prefix}_p99", []).append(latencies[len(latencies) * 99 // 100] * 1e3)
    due = records(plan.shape, ACK_RECORDS_PER_S * ACK_SECONDS, wall_clock(), number * 10 + 9)
    taken = await acknowledgements_ms(engine, tenants[0], due, ACK_RECORDS_PER_S, ACTOR)
    measured.setdefault("ack_ms_p50", []).append(taken[len(taken) // 2])
    measured.setdefault("ack_ms_p99", []).append(taken[len(taken) * 99 // 100])
    load = charge_all(
        engine, tenants[0], records(plan.shape, plan.records, wall_clock(), number * 10 + 3), plan.batch, []
    )
    await authorising.measure(engine, tenants[0], number, plan.devices, load, measured)


async def charge_all(
    engine: Engine,
    tenant: UUID,
    given: Sequence[UsageRecord],
    batch: int,
    latencies: list[float],
    in_flight: int = IN_FLIGHT,
) -> float:
    """Charge everything, so many records at a time on their way; charges per second."""
    todo = deque(given[at : at + batch] for at in range(0, len(given), batch))

    async def caller() -> None:
        while todo:
            mine = todo.popleft()
            asked = time.perf_counter()
            outcomes = await engine.charge(tenant, mine, ACTOR)
            latencies.append(time.perf_counter() - asked)
            if not _EXPECTED.issuperset(map(_status, outcomes)):
                raise AssertionError(f"the workload is charged, not {set(map(_status, outcomes))}")

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(max(1, in_flight // batch))))
    return len(given) / (time.perf_counter() - started)


async def _history(engine: Engine, tenant: UUID, plan: Plan) -> None:
    written = 0
    while written < plan.history:
        some = min(100_000, plan.history - written)
        given = records(plan.shape, some, wall_clock(), 1_000_003 + written)
        await charge_all(engine, tenant, given, 500, [])
        written += some


async def _baselines(
    plan: Plan, database_url: str, rows: Sequence[Any], measured: dict[str, list[float]]
) -> None:
    """Each on a thread by itself: whoever stops the benchmark waits for one of them, not for all."""

    async def best(measure: Callable[..., float], *cases: tuple[Any, ...]) -> float:
        return max([await asyncio.to_thread(measure, database_url, *case) for case in cases])

    def locking(script: str, *clients: int) -> list[tuple[str, int, float]]:
        return [(script, count, plan.seconds) for count in clients]

    copied = await best(baselines.copy_limit, (rows,))
    steps = await best(baselines.row_lock, *locking(baselines.ROW_LOCK, 1, 2, 4))
    one = await best(baselines.row_lock, *locking(baselines.ONE_STATEMENT, 1, 2, 4))
    for name, figure in {
        "copy_rows_per_s": copied,
        "row_lock_ancestors_per_s": steps,
        "row_lock_one_statement_per_s": one,
        "row_lock_per_s": max(steps, one),
        "row_lock_64_per_s": await best(baselines.row_lock, *locking(baselines.ROW_LOCK, 64)),
        "set_based_per_s": await best(baselines.set_based, (plan.batch, 40, 1), (plan.batch, 40, 2)),
        "stock_per_s": await best(baselines.stock, (400, 1)),
        "stock_batched_per_s": await best(baselines.stock, (4_000, 500)),
    }.items():
        measured.setdefault(name, []).append(figure)


async def _readers(
    isolation: Isolation, root: RootKey, tenant: UUID, measured: dict[str, list[float]], progress: Progress
) -> None:
    progress("replay, cold start and projection")
    log = PostgresLog(isolation, tenant)
    head = log.head().seq

    def timed(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    def load(store: Log) -> None:
        Decider.load(store, lambda: load_sealer(isolation, root, tenant))

    whole = await asyncio.to_thread(timed, lambda: load(log))
    measured["replay_per_s"] = [head / whole]
    with ThreadPoolExecutor(1) as threads:
        snapshotted = SnapshottedLog(isolation, tenant, threads)
        measured["cold_start_s"] = [await asyncio.to_thread(timed, lambda: load(snapshotted))]
    measured["projection_per_s"] = [
        head / await asyncio.to_thread(timed, lambda: catch_up(isolation, tenant))
    ]
    measured["log_events"] = [head]


async def _through_http(
    plan: Plan, engine: Engine, tenant: UUID, number: int, name: str, measured: dict[str, list[float]]
) -> None:
    given = records(plan.shape, plan.records, wall_clock(), 7_000_000 + number)
    async with fronts.served(engine, tenant) as api:
        rate, cpu_us = await fronts.http_rate(api.port, api.token("mediation"), given, plan.batch)
    measured.setdefault(f"{name}_charges_per_s", []).append(rate)
    measured.setdefault(f"{name}_cpu_us", []).append(cpu_us)


async def _fronts(plan: Plan, engine: Engine, tenant: UUID, measured: dict[str, list[float]]) -> None:
    """As `serve` has it: a projector builds the views beside."""
    for number in range(plan.rounds):
        await _through_http(plan, engine, tenant, 100 + number, "http_projected", measured)
    await engine.follower(tenant).wait_for((await engine.writer(tenant)).seq, 120)
    async with fronts.served(engine, tenant) as api:
        measured |= await fronts.graphql_ms(api)


def _report(plan: Plan, measured: dict[str, list[float]]) -> dict[str, Any]:
    ratios = {
        "ratio_row_lock": ("charges_per_s", "row_lock_per_s"),
        "ratio_stock": ("charges_per_s", "stock_per_s"),
        "ratio_set_based": ("charges_per_s", "set_based_per_s"),
        "fraction_of_limit": ("charges_per_s", "copy_rows_per_s"),
        "ratio_single_64": ("single_64_per_s", "row_lock_64_per_s"),
        "ratio_single_1024": ("single_1024_per_s", "row_lock_64_per_s"),
        "ratio_projection": ("projection_per_s", "runner_per_s"),
        "ratio_http": ("http_charges_per_s", "row_lock_per_s"),
        "ratio_http_projected": ("http_projected_charges_per_s", "row_lock_per_s"),
        "ratio_graphql": ("graphql_stock_ms", "graphql_ms"),
        "ratio_graphql_hierarchy": ("graphql_hierarchy_stock_ms", "graphql_hierarchy_ms"),
    }
    for name, (ours, theirs) in ratios.items():
        if ours in measured and theirs in measured:
            measured[name] = [a / b for a, b in zip(measured[ours], measured[theirs], strict=True)]
    figures = {name: figure(values) for name, values in measured.items()}
    return {
        "plan": plan,
        "charging": using.told(),
        **{name: figure.median for name, figure in figures.items()},
        "spread": {name: [figure.minimum, figure.maximum] for name, figure in figures.items()},
    }


def figure(values: Sequence[float]) -> Figure:
    return Figure(round(statistics.median(values), 3), round(min(values), 3), round(max(values), 3))
