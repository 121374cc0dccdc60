"""The figures of all workers behind one address: whoever is asked asks the others.

They share a port, so that a scrape reaches any of them. Each worker's figures carry its name.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from ..leases import NAME
from ..sharing import Sharing
from ..wire import Counted, Counting
from ..writer import Unavailable


async def all_figures(registry: CollectorRegistry, sharing: Sharing | None) -> bytes:
    """In the text format; of this process alone where it shares its address with none."""
    mine = generate_latest(registry)
    if sharing is None or not sharing.in_crew:
        return mine
    names = {
        worker: name for worker, name in sharing.placement.on_this_machine() if worker != sharing.placement.me
    }
    told = await asyncio.gather(*(_figures_of(sharing, worker) for worker in names))
    return _together({NAME: mine, **dict(zip(names.values(), told, strict=True))})


async def _figures_of(sharing: Sharing, worker: Any) -> bytes:
    """Nothing of one that does not answer: it will be missed."""
    try:
        told = await sharing.peers.ask(worker, Counting(), lambda: sharing.placement.is_alive(worker))
    except Unavailable:
        return b""
    return told.figures if isinstance(told, Counted) else b""


def _together(by_worker: dict[str, bytes]) -> bytes:
    families: dict[str, Metric] = {}
    for name, figures in by_worker.items():
        for family in text_string_to_metric_families(figures.decode()):
            whole = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type, family.unit)
            )
            for sample in family.samples:
                whole.add_sample(sample.name, {**sample.labels, "worker": name}, sample.value)
    registry = CollectorRegistry()
    registry.register(_Told(families.values()))
    return generate_latest(registry)


class _Told(Collector):
    """Families as they were told."""

    def __init__(self, families: Any) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


class SharingFigures(Collector):
    """How tenants are shared: asked when somebody looks."""

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        sharing, placement = self._sharing, self._sharing.placement
        for name, told, figure in (
            ("allotment_leases_held", "Tenants this worker serves", len(placement.held)),
            ("allotment_workers", "Workers that take tenants, as this one sees it", placement.takers),
        ):
            yield GaugeMetricFamily(name, told, figure)
        for name, told, figure in (
            ("allotment_takeovers", "Tenants taken over from workers that were gone", placement.takeovers),
            ("allotment_leases_lost", "Tenants taken over from this worker", placement.lost),
            ("allotment_handovers", "Tenants handed to another worker", sharing.handed_over),
            (
                "allotment_forwarded_requests",
                "Requests passed on to another worker",
                sharing.forwarded,
            ),
            ("allotment_answered_requests", "Requests answered for another worker", sharing.answered),
        ):
            yield CounterMetricFamily(name, told, figure)
