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
from sqlalchemy.exc import SQLAlchemyError

from ...migrations.run import head_revision, revision_of
from ..engine import Engine
from ..log import Group
from .crew_metrics import SharingFigures, all_figures
from .problem_details import HttpProblem

RECORD_TOPICS = {
    "usage.charged": "charged",
    "usage.rejected": "rejected",
    "usage.suspended": "suspended",
}

log = structlog.get_logger()


def operations_routes(engine: Engine) -> list[Any]:
    registry = CollectorRegistry()
    _count_commits(engine, registry)
    registry.register(_Queues(engine))
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
        return Response(await all_figures(registry, engine.sharing), media_type=CONTENT_TYPE_LATEST)

    return [healthz, readyz, metrics]


def _fault(database_url: str) -> str:
    """Why requests cannot be served; "" when they can."""
    try:
        revision = revision_of(database_url)
    except (SQLAlchemyError, psycopg.Error, OSError) as error:
        log.warning("database not reachable", error=type(error).__name__)
        return "the database cannot be reached"
    if revision != head_revision():
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
        for topic, outcome in RECORD_TOPICS.items():
            if number := group.topics.count(topic):
                records.labels(outcome).inc(number)
        if before is not None:
            before(group)

    engine.on_commit = count


class _Queues(Collector):
    """What waits now: asked when somebody looks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterator[GaugeMetricFamily]:
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        # litestar calls us in the event loop, where the writers live.
        writers = self._engine.open_writers()
        lags = [self._engine.follower(tenant).lag for tenant in writers]
        yield GaugeMetricFamily("allotment_writers", "Tenants with an open writer", len(writers))
        waiting = sum(writer.waiting for writer in writers.values())
        yield GaugeMetricFamily("allotment_writer_inbox", "Records and commands waiting", waiting)
        yield GaugeMetricFamily(
            "allotment_projection_lag_events", "Events the slowest view is behind its log", max([0, *lags])
        )


def _json(answer: dict[str, Any]) -> Response[bytes]:
    return Response(orjson.dumps(answer), media_type="application/json")
