"""The demonstration's stage: two enterprises as tenants, their history, and what was counted.

Everything comes through the doors that customers use: definitions are applied, usage is a stream.
"""

import io
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct, field

from ...domain.contract import bounds_of
from ...domain.tenant import Tenant
from ...domain.usage import MONEY
from ...tenants.onboarding import SlugTaken, TenantEntry, tenants
from ..commands.counting import add_report
from ..engine import Engine
from ..intake.declaration import Format
from ..intake.door import IntakeReport, charge_stream
from ..intake.formats import load_format
from ..money import money
from ..running import Product
from ..verifying import VerifyReport, verify
from . import traffic
from .enterprises import CARRIER, Enterprise, enterprises, months_before

ACTOR = "carrier:demo"
MONTHS = 3
SLUGS_MAX = 10_000

Tell = Callable[[str], None]


class Chapter(Struct, frozen=True):
    """One thing that happened, and whether it happened as the story has it."""

    name: str
    ok: bool
    told: str
    facts: dict[str, Any] = field(default_factory=dict)


class Stage(Struct):
    """Who plays: two tenants, and what has been counted of their usage."""

    entries: list[TenantEntry]
    cast: tuple[Enterprise, Enterprise]
    period: str
    """The month that is running."""
    report: IntakeReport = field(default_factory=IntakeReport)
    chapters: list[Chapter] = field(default_factory=list)


async def onboard(product: Product, engine: Engine, *, reuse: bool, tell: Tell) -> tuple[Stage, bool]:
    """Both enterprises as tenants, and whether they were there already."""
    now = engine.clock()
    months = months_before(datetime.fromtimestamp(now // 1_000_000, ZoneInfo("Europe/London")).date(), MONTHS)
    cast = enterprises(months)
    known = await engine.in_thread(lambda: tenants(product.isolation))
    ours = {entry.slug: entry for entry in known if entry.carrier == CARRIER}
    if reuse and all(one.slug in ours for one in cast):
        return Stage([ours[one.slug] for one in cast], cast, months[-1]), True
    entries = []
    for one in cast:
        entry = await _created(engine, one, {entry.slug for entry in known})
        steps = await engine.apply_definition(entry.tenant_id, one.definition, ACTOR)
        devices = len(one.definition.resources)
        tell(f"{CARRIER} has onboarded {one.name} as {entry.slug}: {devices} devices, {steps} steps.")
        entries.append(entry)
    return Stage(entries, cast, months[-1]), False


async def _created(engine: Engine, one: Enterprise, taken: set[str]) -> TenantEntry:
    """Under the first free name: acme, acme-2, ..."""
    for number in range(1, SLUGS_MAX):
        slug = one.slug if number == 1 else f"{one.slug}-{number}"
        if slug in taken:
            continue
        entry = TenantEntry(uuid4(), slug, one.name, CARRIER, one.time_zone, one.currency)
        try:
            await engine.create_tenant(entry, ACTOR)
        except SlugTaken:
            continue
        return entry
    raise SlugTaken(f"{one.slug}: all names up to {one.slug}-{SLUGS_MAX - 1} are taken")


async def play_history(engine: Engine, stage: Stage, tell: Tell) -> None:
    """Three months of usage, up to now."""
    until = datetime.fromtimestamp(engine.clock() // 1_000_000, UTC)
    for entry, one in zip(stage.entries, stage.cast, strict=True):
        zone = ZoneInfo(one.time_zone)
        first = months_before(until.astimezone(zone).date(), MONTHS)[0]
        since = datetime.fromtimestamp(bounds_of(first, zone)[0] // 1_000_000, zone)
        stream = traffic.history(one, since, until.astimezone(zone))
        started = time.monotonic()
        report = await charge(engine, stage, entry, stream, name="history")
        tell(
            f"{entry.slug}: {report.received:,} records of three months charged in"
            f" {time.monotonic() - started:.1f} s: {_counted(report)}."
        )


async def play_file(engine: Engine, stage: Stage, stream: Any, format: Format, name: str, tell: Tell) -> None:
    """Somebody's own records, for Acme. Lines that nobody there has wait in suspense."""
    entry = stage.entries[0]
    report = await charge_stream(
        engine, entry.tenant_id, stream, format, time_zone=entry.time_zone, actor=ACTOR, name=name
    )
    add_report(stage.report, report)
    tell(f"{entry.slug}: {report.received:,} records of {name}: {_counted(report)}.")


async def charge(
    engine: Engine, stage: Stage, entry: TenantEntry, lines: bytes, name: str = "story"
) -> IntakeReport:
    """Through the door that files come by."""
    report = await charge_stream(
        engine,
        entry.tenant_id,
        io.BytesIO(lines),
        load_format("allotment"),
        time_zone=entry.time_zone,
        actor=ACTOR,
        name=name,
    )
    add_report(stage.report, report)
    return report


def _counted(report: IntakeReport) -> str:
    names = ("charged", "duplicate", "suspended", "rejected")
    return ", ".join(f"{getattr(report, name):,} {name}" for name in names)


async def pool_left(engine: Engine, stage: Stage, node: str) -> int:
    """What a node's own bucket of data holds now."""
    state = await engine.state(stage.entries[0].tenant_id)
    family = state.families["data", stage.period]
    return family.available(state.hierarchy.by_id[node].ordinal)


# --- the end -------------------------------------------------------------------------------------


async def verified(product: Product, engine: Engine, stage: Stage, tell: Tell) -> list[VerifyReport]:
    """Every log from event 1, hash by hash, charge by charge, view by view."""
    reports = []
    for entry in stage.entries:
        report = await engine.in_thread(partial(verify, product.isolation, entry.tenant_id))
        reports.append(report)
        if report.ok:
            tell(f"{entry.slug}: verified {report.seq:,} events from the first; root {report.root[:16]}.")
        else:
            tell(f"{entry.slug}: DOES NOT VERIFY at {report.first_offending_seq}: {report.problem}")
    return reports


def costs(state: Tenant, entry: TenantEntry, period: str) -> str:
    """What a month costs so far."""
    family = state.families.get((MONEY, period))
    return money(family.used[state.hierarchy.root.ordinal] if family else 0, entry.currency)


def summary(stage: Stage, reports: list[VerifyReport], seconds: float) -> dict[str, Any]:
    """The one line of `demo --once --json`."""
    names = ("received", "charged", "duplicate", "suspended", "rejected")
    return {
        "tenants": len(stage.entries),
        "usage": {name: getattr(stage.report, name) for name in names},
        "events": sum(report.seq for report in reports),
        "verify": {"ok": all(report.ok for report in reports)},
        "seconds": round(seconds, 1),
        "verified": msgspec.to_builtins(reports),
        "slugs": [entry.slug for entry in stage.entries],
        "reasons": stage.report.reasons,
        "story": [{"chapter": one.name, "ok": one.ok, **one.facts} for one in stage.chapters],
    }
