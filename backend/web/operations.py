"""What operators watch: is the process alive, may it take requests, how is it doing.

Anybody on the network may read these, so they tell sums, never of one tenant.
"""

from collections.abc import Iterator
from typing import Any

import orjson
import psycopg
import structlog
from litestar import Response, get
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from psycopg_pool import PoolTimeout

from ..engine import Engine
from ..lagging import oldest_waits_ms, tenants_behind
from ..log import Group
from ..running import newest_version, schema_version
from .crew_metrics import SharingFigures, all_figures
from .problem_details import HttpProblem

RECORD_TOPICS = {
    "usage.charged": "charged",
    "usage.rejected": "rejected",
    "usage.suspended": "suspended",
}

BEHIND_TOLD_MAX = 10
"""Tenants whose lag is told, by rank: labels stay few, and none of them names a tenant."""
BEHIND_COUNTED_MAX = 10_000
_FURTHEST = "ten tenants furthest behind"
TEXT_FORMAT = CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8")
"""The framework adds the charset: told twice, it makes the type unreadable for who scrapes."""

log = structlog.get_logger()


def operations_routes(engine: Engine) -> list[Any]:
    registry = CollectorRegistry()
    _count_commits(engine, registry)
    queues = _Queues(engine)
    registry.register(queues)
    if engine.sharing is not None:
        registry.register(SharingFigures(engine.sharing))
        engine.sharing.count = lambda: generate_latest(registry)

    @get("/healthz", sync_to_thread=False)
    def healthz() -> Response[bytes]:
        return _json({"status": "ok"})

    @get("/readyz")
    async def readyz() -> Response[bytes]:
        fault = await engine.in_thread(lambda: _fault(engine.isolation.database_url))
        if fault:
            raise HttpProblem(503, "not_ready", fault, {"Retry-After": "2"})
        return _json({"status": "ok"})

    @get("/metrics")
    async def metrics() -> Response[bytes]:
        await queues.look()
        return Response(await all_figures(registry, engine.sharing), media_type=TEXT_FORMAT)

    return [healthz, readyz, metrics]


def _fault(database_url: str) -> str:
    """Why requests cannot be served; "" when they can."""
    try:
        revision = schema_version(database_url)
    except (psycopg.Error, OSError) as error:
        log.warning("database not reachable", error=type(error).__name__)
        return "the database cannot be reached"
    if revision != newest_version():
        return "the database is not at this version: run `allotment migrate`"
    return ""


def _count_commits(engine: Engine, registry: CollectorRegistry) -> None:
    """Count what every commit stored, whatever door it came in by."""
    commits = Counter("allotment_commits", "Groups committed", registry=registry)
    events = Counter("allotment_events", "Events committed", registry=registry)
    records = Counter("allotment_usage_records", "Usage records by outcome", ["outcome"], registry=registry)
    for outcome in RECORD_TOPICS.values():
        records.labels(outcome)
    before = engine.on_commit

    def count(group: Group) -> None:
        commits.inc()
        events.inc(len(group.topics))
        left = len(group.topics)
        for topic, outcome in RECORD_TOPICS.items():
            if left and (number := group.topics.count(topic)):
                records.labels(outcome).inc(number)
                left -= number
        if before is not None:
            before(group)

    engine.on_commit = count


class _Queues(Collector):
    """What waits now: asked when somebody looks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._behind: list[tuple[int, int]] = []
        self._tenants_behind = 0

    async def look(self) -> None:
        """Ask the database whose views are behind; without it, no figure is better than an old one."""
        try:
            self._tenants_behind, self._behind = await self._engine.in_thread(self._lags)
        except (psycopg.Error, PoolTimeout, OSError) as error:
            log.warning("lags not known", error=type(error).__name__)
            self._tenants_behind, self._behind = 0, []

    def _lags(self) -> tuple[int, list[tuple[int, int]]]:
        isolation, now = self._engine.isolation, self._engine.clock()
        behind = tenants_behind(isolation, BEHIND_COUNTED_MAX)
        told = [(one.events, oldest_waits_ms(isolation, one, now)) for one in behind[:BEHIND_TOLD_MAX]]
        return len(behind), told

    def describe(self) -> Iterator[GaugeMetricFamily]:
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        # litestar calls us in the event loop, where the writers live.
        writers = self._engine.open_writers()
        yield GaugeMetricFamily("allotment_writers", "Tenants with an open writer", len(writers))
        waiting = sum(writer.waiting for writer in writers.values())
        yield GaugeMetricFamily("allotment_writer_inbox", "Records and commands waiting", waiting)
        yield from self._lag_figures()

    def _lag_figures(self) -> Iterator[GaugeMetricFamily]:
        events, milliseconds = zip((0, 0), *self._behind, strict=True)
        yield GaugeMetricFamily(
            "allotment_projection_lag_events", "Events the slowest view is behind its log", max(events)
        )
        yield GaugeMetricFamily(
            "allotment_projection_lag_ms",
            "How long the oldest unseen event waits",
            max(milliseconds),
        )
        yield GaugeMetricFamily(
            "allotment_projection_tenants_behind", "Tenants whose views are behind", self._tenants_behind
        )
        by_rank = GaugeMetricFamily(
            "allotment_projection_rank_lag_events",
            f"The same in events, of each of the {_FURTHEST}",
            labels=["rank"],
        )
        waits = GaugeMetricFamily(
            "allotment_projection_rank_lag_ms", f"The same wait, of each of the {_FURTHEST}", labels=["rank"]
        )
        for rank, (behind, waited) in enumerate(self._behind, 1):
            by_rank.add_metric([str(rank)], behind)
            waits.add_metric([str(rank)], waited)
        yield by_rank
        yield waits


def _json(answer: dict[str, Any]) -> Response[bytes]:
    return Response(orjson.dumps(answer), media_type="application/json")
