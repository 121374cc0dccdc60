"""`allotment bench charge`: ours beside its baselines, interleaved in one run on one machine.

Each round measures every contender once; what is told is the median of the rounds, with minimum
and maximum, and ratios are taken round by round: the machine's speed drifts, the ratio less so.
"""

import asyncio
import contextlib
import gc
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from msgspec import Struct

from ...domain import canonical
from ...domain.tenant import Tenant
from ...domain.usage import UsageRecord
from ...migrations.run import migrate
from ...tenants.isolation import Isolation
from ...tenants.sealing import RootKey
from ..embedded import embedded_servers
from ..engine import Engine, wall_clock
from ..following import catch_up
from ..log import PostgresLog, follow, recorded
from . import baselines
from .workload import ACTOR, Shape, onboard, records

IN_FLIGHT = 10_000
SWITCH_INTERVAL_SECONDS = 0.0005


class Plan(Struct, frozen=True):
    """What is measured, and how often."""

    rounds: int = 5
    records: int = 30_000
    """Charged per round in batches; single callers charge a share of it."""
    batch: int = 500
    shape: Shape = Shape()
    history: int = 0
    """Events in the log before the first round."""
    duplicates: int = 0
    """Per cent of the records of a batch that were charged before."""
    baselines: bool = True
    seconds: float = 2.0
    """How long each pgbench run takes."""


Progress = Callable[[str], None]


class Figure(Struct, frozen=True):
    median: float
    minimum: float
    maximum: float


def run(plan: Plan, progress: Progress) -> dict[str, Any]:
    """All rounds on embedded PostgreSQL; figures by name, ready to print."""
    with _tuned(), _home() as home, embedded_servers(home, postgres=True, nats=False) as servers:
        migrate(servers.database_url)
        if plan.baselines:
            baselines.prepare(servers.database_url)
        measured = asyncio.run(_rounds(plan, servers.database_url, progress))
    return _report(plan, measured)


async def _rounds(plan: Plan, database_url: str, progress: Progress) -> dict[str, list[float]]:
    isolation = Isolation(database_url, pool_max=16)
    measured: dict[str, list[float]] = {}
    try:
        async with Engine(isolation, RootKey(bytes(32)), following=False) as engine:
            progress(f"onboarding {plan.shape.devices:,} devices in {plan.shape.depth} levels")
            tenant = await onboard(engine, plan.shape)
            await _charge_all(engine, tenant, records(plan.shape, 2_000, wall_clock(), 0), 500, [])
            if plan.history:
                progress(f"writing {plan.history:,} events of history")
                await _history(engine, tenant, plan)
            gc.collect()
            gc.freeze()
            for number in range(1, plan.rounds + 1):
                progress(f"round {number} of {plan.rounds}")
                await _round(plan, engine, tenant, number, measured)
                if plan.baselines:
                    log = PostgresLog(isolation, tenant)
                    head = log.head().seq
                    rows = list(follow(log, max(0, head - 20_000), head))
                    await asyncio.to_thread(_baselines, plan, database_url, rows, measured)
            await _readers(isolation, tenant, measured, progress)
    finally:
        isolation.close()
    return measured


async def _round(
    plan: Plan, engine: Engine, tenant: UUID, number: int, measured: dict[str, list[float]]
) -> None:
    for name, batch, share, in_flight in (
        ("charges_per_s", plan.batch, 1, IN_FLIGHT),
        ("single_64_per_s", 1, 8, 64),
        ("single_1024_per_s", 1, 4, 1024),
    ):
        count = plan.records // share
        given = records(plan.shape, count, wall_clock(), number * 10 + share)
        repeated = count * plan.duplicates // 100
        given += given[:repeated]
        latencies: list[float] = []
        rate = await _charge_all(engine, tenant, given, batch, latencies, in_flight)
        measured.setdefault(name, []).append(rate)
        prefix = "ack_ms" if batch > 1 else name.replace("_per_s", "_ack_ms")
        latencies.sort()
        measured.setdefault(f"{prefix}_p50", []).append(latencies[len(latencies) // 2] * 1e3)
        measured.setdefault(f"{prefix}_p99", []).append(latencies[len(latencies) * 99 // 100] * 1e3)


async def _charge_all(
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
            for outcome in outcomes:
                if outcome.status not in ("charged", "duplicate"):
                    raise AssertionError(f"the workload is charged, not {outcome}")

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(max(1, in_flight // batch))))
    return len(given) / (time.perf_counter() - started)


async def _history(engine: Engine, tenant: UUID, plan: Plan) -> None:
    written = 0
    while written < plan.history:
        some = min(100_000, plan.history - written)
        given = records(plan.shape, some, wall_clock(), 1_000_003 + written)
        await _charge_all(engine, tenant, given, 500, [])
        written += some


def _baselines(plan: Plan, database_url: str, rows: Sequence[Any], measured: dict[str, list[float]]) -> None:
    def note(name: str, figure: float) -> None:
        measured.setdefault(name, []).append(figure)

    note("copy_rows_per_s", baselines.copy_limit(database_url, rows))
    best = max(baselines.row_lock(database_url, baselines.ROW_LOCK, c, plan.seconds) for c in (1, 2, 4))
    one = max(baselines.row_lock(database_url, baselines.ONE_STATEMENT, c, plan.seconds) for c in (1, 2, 4))
    note("row_lock_ancestors_per_s", best)
    note("row_lock_one_statement_per_s", one)
    note("row_lock_per_s", max(best, one))
    note("row_lock_64_per_s", baselines.row_lock(database_url, baselines.ROW_LOCK, 64, plan.seconds))
    note("set_based_per_s", baselines.set_based(database_url, plan.batch, 40))
    note("stock_per_s", baselines.stock(database_url, 400, 1))
    note("stock_batched_per_s", baselines.stock(database_url, 4_000, 500))


async def _readers(
    isolation: Isolation, tenant: UUID, measured: dict[str, list[float]], progress: Progress
) -> None:
    progress("replay and projection")
    log = PostgresLog(isolation, tenant)
    head = log.head().seq

    def replay() -> None:
        started = time.perf_counter()
        state = Tenant()
        for row in follow(log):
            state.apply(recorded(row).event)
        measured["replay_per_s"] = [head / (time.perf_counter() - started)]
        assert b"".join(canonical.lines(state))

    def project() -> None:
        started = time.perf_counter()
        catch_up(isolation, tenant)
        measured["projection_per_s"] = [head / (time.perf_counter() - started)]

    await asyncio.to_thread(replay)
    await asyncio.to_thread(project)


def _report(plan: Plan, measured: dict[str, list[float]]) -> dict[str, Any]:
    ratios = {
        "ratio_row_lock": ("charges_per_s", "row_lock_per_s"),
        "ratio_stock": ("charges_per_s", "stock_per_s"),
        "ratio_set_based": ("charges_per_s", "set_based_per_s"),
        "fraction_of_limit": ("charges_per_s", "copy_rows_per_s"),
        "ratio_single_64": ("single_64_per_s", "row_lock_64_per_s"),
        "ratio_single_1024": ("single_1024_per_s", "row_lock_64_per_s"),
    }
    for name, (ours, theirs) in ratios.items():
        if theirs in measured:
            measured[name] = [a / b for a, b in zip(measured[ours], measured[theirs], strict=True)]
    figures = {name: _figure(values) for name, values in measured.items()}
    return {
        "plan": plan,
        **{name: figure.median for name, figure in figures.items()},
        "spread": {name: [figure.minimum, figure.maximum] for name, figure in figures.items()},
    }


def _figure(values: Sequence[float]) -> Figure:
    return Figure(round(statistics.median(values), 3), round(min(values), 3), round(max(values), 3))


@contextlib.contextmanager
def _tuned() -> Iterator[None]:
    """As `serve` runs: threads hand over quickly, the collector leaves what stays alone."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


@contextlib.contextmanager
def _home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="allotment-bench-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        yield home / "home"
