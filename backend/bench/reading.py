"""`allotment bench reading`: what readers wait for in a deep, wide tree while usage flows.

The whole way is taken: HTTP, token, GraphQL, PostgreSQL, with the views kept up by a projector of its
own. Every node holds an allowance, so that sums over subtrees have something to add up. The client
is in the same process, so these are ceilings; who asks is one portal, then several at once.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID, uuid4

from msgspec import Struct

from ...domain.bucket import Allocate
from ...domain.contract import name_of
from ...domain.tenant import Command
from ...domain.usage import USAGE_TYPES
from ...migrations.run import migrate
from ...tenants.isolation import Isolation
from ...tenants.onboarding import Enrol, TenantEntry
from ...tenants.sealing import RootKey
from ..embedded import Servers, embedded_servers
from ..engine import Engine, wall_clock
from ..following import Projector
from ..offspring import projector_process
from ..stopping import complete
from ..tuning import tuned
from .charge import Progress, figure
from .folders import embedded_home
from .fronts import Served, _request, _timed, served
from .workload import ACTOR, UTC, Shape, _nodes, commands, furnish, records

BATCH = 50
PATIENCE_SECONDS = 600.0
TARGET_NODES = 1_000
SETTLING_SECONDS = 15
"""Usage flows before anybody asks: the first snapshot of so many members is written beside it, once."""
ALONE = 20
"""Requests with nothing beside them, for the processor time of one."""

BALANCES = """query($node: ID!, $types: [String!]) {
  hierarchy(under: $node, depth: 9, usageTypes: $types) { seq nodes { id name kind depth parentId
    balances { usageType own consumed remaining available subtree { granted used remaining } } } } }"""
REVIEW = """query($node: ID!) { review(node: $node, usageType: "data") {
  exhaustedOn days { date used remaining } burnRates { perDay } projections { status working }
  topChildren { consumers { id used share } } topResources { consumers { id used share } }
  previous { period sameDays whole } } }"""
SIZING = (
    """query($node: ID) { sizing(node: $node) { proposals { node usageType proposal working below } } }"""
)


class Plan(Struct, frozen=True):
    """How large the enterprise is, what flows, and how often is asked."""

    devices: int = 100_000
    depth: int = 10
    rate: int = 1_000
    """Records per second that are charged meanwhile."""
    requests: int = 100
    """Of each question, one after the other."""
    portals: int = 4
    """That ask at the same time, in the end."""


def run(plan: Plan, progress: Progress) -> dict[str, Any]:
    """All questions on embedded servers; figures by name, ready to print."""
    with tuned(), embedded_home() as home, embedded_servers(home, postgres=True, nats=True) as servers:
        migrate(servers.database_url)
        measured = complete(_measured(plan, servers, progress))
    figures = {name: figure(values) for name, values in measured.items()}
    return {
        "plan": plan,
        **{name: one.median for name, one in figures.items()},
        "spread": {name: [one.minimum, one.maximum] for name, one in figures.items()},
    }


async def _measured(plan: Plan, servers: Servers, progress: Progress) -> dict[str, list[float]]:
    isolation, root = Isolation(servers.database_url, pool_max=16), RootKey(bytes(32))
    shape = Shape(plan.devices, plan.depth)
    try:
        async with Engine(isolation, root, projected_elsewhere=True) as engine:
            progress(f"onboarding {plan.devices:,} devices in {plan.depth} levels")
            tenant = await _onboarded(engine, shape)
            progress("bringing the views up")
            await asyncio.to_thread(Projector(isolation, tenant).catch_up)
            async with (
                projector_process(servers.database_url, servers.nats_url),
                served(engine, tenant) as api,
            ):
                return await _asked(plan, shape, engine, tenant, api, progress)
    finally:
        isolation.close()


async def _onboarded(engine: Engine, shape: Shape) -> UUID:
    tenant = uuid4()
    entry = TenantEntry(tenant, f"bench-{tenant.hex[:12]}", "Benchmark", "bench", "Europe/Berlin", "EUR")
    await engine.create_tenant(entry, ACTOR)
    await furnish(await engine.writer(tenant), _furniture(shape), engine.clock)
    return tenant


def _furniture(shape: Shape) -> Iterator[Command | Enrol]:
    yield from commands(shape)
    period = name_of(wall_clock(), UTC)
    nodes, _ = _nodes(shape)
    for node in nodes[1:]:
        yield Allocate(nodes[0].id, node.id, "data", period, 10**9)


def subtree(shape: Shape, wanted: int = TARGET_NODES) -> tuple[str, int]:
    """The first node with at least so many nodes at and below it, as low as there is one; and how many."""
    nodes, _ = _nodes(shape)
    below = dict.fromkeys((node.id for node in nodes), 1)
    for node in reversed(nodes):
        if node.parent:
            below[node.parent] += below[node.id]
    return min(
        ((node.id, below[node.id]) for node in nodes if below[node.id] >= wanted), key=lambda one: one[1]
    )


async def _asked(
    plan: Plan, shape: Shape, engine: Engine, tenant: UUID, api: Served, progress: Progress
) -> dict[str, list[float]]:
    node, count = subtree(shape)
    small = {"node": node}
    questions: dict[str, tuple[str, dict[str, Any]]] = {
        "balances": (BALANCES, {**small, "types": ["data"]}),
        "balances_of_4_types": (BALANCES, {**small, "types": [*USAGE_TYPES]}),
        "review": (REVIEW, small),
        "review_of_all": (REVIEW, {"node": "n0"}),
        "sizing": (SIZING, small),
    }
    flow = _Flow(engine, tenant, shape, plan.rate)
    progress(f"usage flows for {SETTLING_SECONDS} s")
    await flow.while_flowing(asyncio.sleep(SETTLING_SECONDS))
    measured: dict[str, list[float]] = {"nodes": [count]}
    for name, (query, variables) in questions.items():
        progress(f"{name}, {plan.requests} times")
        request = _graphql(api, query, variables)
        await _repeatedly(api, request, 3)
        measured[f"{name}_request_cpu_ms"] = [await _cpu_ms(api, request)]
        taken, cpu_ms, charged = await flow.while_flowing(_repeatedly(api, request, plan.requests))
        measured |= _told(name, taken) | {f"{name}_flow_per_s": [charged], f"{name}_cpu_ms": [cpu_ms]}
    progress(f"balances, {plan.portals} portals at once")
    request = _graphql(api, *questions["balances"])
    together = asyncio.gather(
        *(_repeatedly(api, request, plan.requests // plan.portals) for _ in range(plan.portals))
    )
    taken_by_each, _, _ = await flow.while_flowing(together)
    taken = [one for each in taken_by_each for one in each]
    return measured | _told(f"balances_{plan.portals}_portals", taken)


def _told(name: str, taken: Sequence[float]) -> dict[str, list[float]]:
    ordered = sorted(taken)
    p95 = ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)]
    return {f"{name}_ms_p50": [statistics.median(ordered)], f"{name}_ms_p95": [p95]}


def _graphql(api: Served, query: str, variables: dict[str, Any]) -> bytes:
    body = json.dumps({"query": query, "variables": variables}).encode()
    return _request("/graphql", api.token("telecoms_manager"), "application/json", body)


async def _cpu_ms(api: Served, request: bytes) -> float:
    """Processor time of one request with nothing beside it, the client's part included."""
    began = time.process_time()
    await _repeatedly(api, request, ALONE)
    return (time.process_time() - began) * 1e3 / ALONE


async def _repeatedly(api: Served, request: bytes, times: int) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port, limit=2**24)
    taken = []
    for _ in range(times):
        milliseconds, answer = await _timed(reader, writer, request)
        assert b'"errors"' not in answer, answer[:500]
        taken.append(milliseconds)
    writer.close()
    return taken


class _Flow:
    """Usage at a steady rate, for as long as something else lasts."""

    def __init__(self, engine: Engine, tenant: UUID, shape: Shape, rate: int) -> None:
        self._engine = engine
        self._tenant = tenant
        self._shape = shape
        self._rate = rate
        self._seed = 1

    async def while_flowing(self, work: Any) -> tuple[Any, float, float]:
        """What the work gives, our processor time for each second in ms, and records charged in one."""
        flowing = asyncio.create_task(self._flow())
        started, cpu = time.perf_counter(), time.process_time()
        done = await work
        seconds = time.perf_counter() - started
        busy = (time.process_time() - cpu) * 1e3 / seconds
        flowing.cancel()
        charged = (await asyncio.gather(flowing, return_exceptions=True))[0]
        if isinstance(charged, Exception):
            raise charged
        return done, busy, self._charged / seconds

    async def _flow(self) -> None:
        self._charged = 0
        due = time.perf_counter()
        while True:
            self._seed += 1
            given = records(self._shape, BATCH, wall_clock(), self._seed)
            await self._engine.charge(self._tenant, given, ACTOR)
            self._charged += len(given)
            due = max(due + BATCH / self._rate, time.perf_counter() - 1)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
