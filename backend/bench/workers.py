"""`allotment bench workers`: two tenants on one worker, and on two, in batches and record by record; and what
asking another worker costs.

Each worker is a process that charges its own tenants as fast as it goes, on one PostgreSQL. Rounds are
interleaved, and ratios taken round by round. The processors' time tells what was full.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import UUID

from msgspec import Struct
from msgspec.structs import asdict

from ...migrations.run import migrate
from ...tenants.isolation import Isolation
from ...tenants.sealing import RootKey
from ..embedded import embedded_servers
from ..engine import Engine, wall_clock
from ..peers import Peers
from ..placement import Placement
from ..sharing import Sharing
from ..stopping import complete
from ..tuning import tuned
from .charge import IN_FLIGHT, Figure, Progress, charge_all, figure
from .folders import embedded_home
from .workload import CLOCK_SECONDS, Shape, onboard, records

PROGRAM = "from allotment.backend.bench.workers import worker; worker()"
ROOT = RootKey(bytes(32))
FULL = 0.9
"""Of what there is: nobody gets the last of it."""
SINGLES_IN_FLIGHT = 1_024
"""Of each tenant, where records come one by one; a fourth of the records are charged so."""


class Plan(Struct, frozen=True):
    """What is measured, and how often."""

    rounds: int = 5
    records: int = 40_000
    """Charged for each tenant in each round."""
    batch: int = 500
    devices: int = 10_000
    depth: int = 5


class Load(Struct, frozen=True):
    """What each tenant is charged with in a turn."""

    records: int
    batch: int
    in_flight: int


def run(plan: Plan, progress: Progress) -> dict[str, Any]:
    """All rounds on embedded servers; figures by name, ready to print."""
    with embedded_home() as home, embedded_servers(home, postgres=True, nats=True) as servers:
        migrate(servers.database_url)
        progress(f"onboarding {plan.devices:,} devices, three times")
        tenants = complete(_onboarded(servers.database_url, plan))
        with (
            _worker(servers.database_url, servers.nats_url) as one,
            _worker(servers.database_url, servers.nats_url) as two,
        ):
            measured = _rounds(plan, [one, two], tenants, servers.postgres_pid, progress)
    return _report(plan, measured)


async def _onboarded(database_url: str, plan: Plan) -> list[UUID]:
    isolation = Isolation(database_url)
    try:
        async with Engine(isolation, ROOT, following=False) as engine:
            return [await onboard(engine, Shape(plan.devices, plan.depth)) for _ in range(3)]
    finally:
        isolation.close()


def _rounds(
    plan: Plan, workers: "Sequence[_Process]", tenants: Sequence[UUID], postgres: int, progress: Progress
) -> dict[str, list[float]]:
    one, two = workers
    first, second, third = tenants
    # Where a tenant is used first it stays: nobody here takes any from the others.
    both, each = [(one, [first, second])], [(one, [first]), (two, [third])]
    batches = Load(plan.records, plan.batch, IN_FLIGHT)
    singles = Load(max(1, plan.records // 4), 1, SINGLES_IN_FLIGHT)
    cases = {
        "one_worker_per_s": (both, batches),
        "two_workers_per_s": (each, batches),
        "one_worker_single_per_s": (both, singles),
        "two_workers_single_per_s": (each, singles),
        "one_tenant_per_s": ([(one, [first])], batches),
        "forwarded_per_s": ([(two, [first])], batches),
    }
    measured: dict[str, list[float]] = {}
    for number in range(plan.rounds + 1):
        progress(f"round {number} of {plan.rounds}" if number else "warming up")
        for name, (given, load) in cases.items():
            rate, used = _case(plan, load, given, postgres, number)
            if number:
                measured.setdefault(name, []).append(rate)
                for what, figured in used.items():
                    measured.setdefault(name.replace("_per_s", f"_{what}"), []).append(figured)
    return measured


def _case(
    plan: Plan, load: Load, given: "Sequence[tuple[_Process, list[UUID]]]", postgres: int, number: int
) -> tuple[float, dict[str, float]]:
    """Charges per second, all together, and the time of processors that each part took."""
    for process, tenants in given:
        process.tell(
            tenants=[str(tenant) for tenant in tenants],
            seed=number,
            devices=plan.devices,
            depth=plan.depth,
            **asdict(load),
        )
    for process, _ in given:
        process.hear()
    began, database = time.perf_counter(), _cpu_seconds(postgres)
    for process, _ in given:
        process.tell(go=True)
    cpu = sum(process.hear()["cpu_s"] for process, _ in given)
    took = time.perf_counter() - began
    charged = load.records * sum(len(tenants) for _, tenants in given)
    parts = {"python": cpu, "postgres": _cpu_seconds(postgres) - database}
    cores = {f"{part}_cores": seconds / took for part, seconds in parts.items()}
    return charged / took, cores | {f"{part}_us": 1e6 * s / charged for part, s in parts.items()}


def _report(plan: Plan, measured: dict[str, list[float]]) -> dict[str, Any]:
    for name, (ours, theirs) in {
        "ratio_two_workers": ("two_workers_per_s", "one_worker_per_s"),
        "ratio_two_workers_single": ("two_workers_single_per_s", "one_worker_single_per_s"),
        "ratio_forwarded": ("forwarded_per_s", "one_tenant_per_s"),
    }.items():
        measured[name] = [a / b for a, b in zip(measured[ours], measured[theirs], strict=True)]
    figures: dict[str, Figure] = {name: figure(values) for name, values in measured.items()}
    cores = os.cpu_count() or 1
    used = figures["two_workers_python_cores"].median + figures["two_workers_postgres_cores"].median
    return {
        "plan": plan,
        "cores": cores,
        "full": f"{used:.2f} of {cores} cores used" + (": all of them" if used > FULL * cores else ""),
        **{name: one.median for name, one in figures.items()},
        "spread": {name: [one.minimum, one.maximum] for name, one in figures.items()},
    }


def _cpu_seconds(postmaster: int) -> float:
    """Of the server and its processes, those included that have ended and were waited for."""
    with ExitStack() as stack:
        ticks = 0
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                try:
                    stat = stack.enter_context(open(f"/proc/{entry.name}/stat", encoding="utf-8")).read()
                except OSError:
                    continue
                fields = stat.rpartition(")")[2].split()
                if int(fields[1]) == postmaster:
                    ticks += int(fields[11]) + int(fields[12])
                elif int(entry.name) == postmaster:
                    ticks += sum(map(int, fields[11:15]))
    return ticks * CLOCK_SECONDS


# --- the workers ---------------------------------------------------------------------------------


class _Process:
    """A worker, told what to do line by line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def tell(self, **what: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline() or "{}")
        if not told:
            raise RuntimeError("a worker of the benchmark ended")
        return told


@contextmanager
def _worker(database_url: str, nats_url: str) -> Iterator[_Process]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, database_url, nats_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield _Process(process)
        assert process.stdin is not None
        process.stdin.close()


def worker() -> None:
    """The program of one worker: reads what to charge, and says how long it took."""
    with tuned():
        asyncio.run(_work(*sys.argv[1:3]))


async def _work(database_url: str, nats_url: str) -> None:
    isolation = Isolation(database_url)
    placement = Placement(isolation, takes_tenants=False)
    sharing = Sharing(placement, Peers(placement.me, lambda: nats_url, listens=True))
    async with Engine(isolation, ROOT, following=False, sharing=sharing) as engine:
        while told := await asyncio.to_thread(sys.stdin.readline):
            await _charge(engine, json.loads(told))
    isolation.close()


async def _charge(engine: Engine, told: dict[str, Any]) -> None:
    shape = Shape(told["devices"], told["depth"])
    seed = int.from_bytes(os.urandom(4)) + told["seed"]
    given = [
        (UUID(tenant), records(shape, told["records"], wall_clock(), seed + place))
        for place, tenant in enumerate(told["tenants"])
    ]
    _say({"ready": True})
    await asyncio.to_thread(sys.stdin.readline)
    began = time.process_time()
    await asyncio.gather(
        *(charge_all(engine, tenant, some, told["batch"], [], told["in_flight"]) for tenant, some in given)
    )
    _say({"cpu_s": time.process_time() - began})


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()
