"""`allotment usage accuracy` and `imports`: what was received, and what became of it."""

import csv
import sys
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import rich_click as click

from ...domain.days import date_of, day_of
from ...graphql.scalars import moment_text
from ...graphql.suspense import day_number
from ...projections.accuracy import Accuracy, imports_page
from ...projections.accuracy import accuracy as accuracy_of
from ...tenants.onboarding import find_tenant
from ..engine import wall_clock
from ..following import catch_up
from ..money import money
from ..running import running
from .input import InputError
from .options import JSON, TENANT
from .output import note, say, settings_for_command, table, tell_json

DAYS_USUAL = 31
IMPORTS_SHOWN = 100
_COUNTS = ("received", "charged", "duplicate", "suspended", "rejected", "late", "unreadable", "merged")
_DAY = click.DateTime(["%Y-%m-%d"])


@click.command()
@TENANT
@click.option("--from", "from_day", type=_DAY, help="First day; else 31 days up to the last.")
@click.option("--to", "to_day", type=_DAY, help="Last day; else today.")
@click.option("--source", help="Only this network element.")
@click.option("--csv", "as_csv", is_flag=True, help="As CSV, money in micro-units.")
@JSON
def accuracy(
    slug: str,
    from_day: datetime | None,
    to_day: datetime | None,
    source: str | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """What was received by day and source, and what became of it; the counts add up.

    \b
    allotment usage accuracy --tenant acme --from 2026-11-01 --to 2026-11-30 --csv
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        catch_up(product.isolation, entry.tenant_id)
        today = day_of(wall_clock(), ZoneInfo(entry.time_zone))
        last = day_number(to_day.date().isoformat()) if to_day else today
        first = day_number(from_day.date().isoformat()) if from_day else last - DAYS_USUAL + 1
        if first > last:
            raise InputError("--from: must not be after --to.")
        with product.isolation.snapshot(entry.tenant_id) as db:
            found = accuracy_of(db, first, last, source)
    if as_json:
        tell_json({"tenant": entry.slug, "currency": entry.currency, "days": [_told(one) for one in found]})
    elif as_csv:
        _write_csv(found)
    elif not found:
        note("Nothing was received on these days.")
    else:
        rows = [
            (
                *(date_of(one.day), one.source, *(f"{getattr(one, name):,}" for name in _COUNTS)),
                *(money(one.amount), money(one.value), f"{one.recycled:,}", f"{one.dismissed:,}"),
            )
            for one in found
        ]
        head = ("day", "source", *_COUNTS, f"charged {entry.currency}", "at stake", "recycled", "dismissed")
        say(table(head, rows, right=range(2, len(head))))


@click.command()
@TENANT
@click.option("--unfinished", is_flag=True, help="Only those that were left off: import the file again.")
@click.option("--refused", is_flag=True, help="Only those that cannot be read: import a corrected file.")
@JSON
def imports(slug: str, unfinished: bool, refused: bool, as_json: bool) -> None:
    """Files that were imported, newest first, and what each brought.

    \b
    allotment usage imports --tenant acme --unfinished
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        catch_up(product.isolation, entry.tenant_id)
        with product.isolation.snapshot(entry.tenant_id) as db:
            found = imports_page(db, IMPORTS_SHOWN, unfinished=unfinished, refused=refused)
    if as_json:
        told = [{**msgspec.structs.asdict(one), "state": one.state} for one in found]
        tell_json({"tenant": entry.slug, "imports": told})
        return
    if not found:
        note("No such imports.")
        return
    rows = [
        (
            *(one.name, moment_text(one.began_at)[:16], one.state),
            *(f"{getattr(one, name):,}" for name in _COUNTS),
            money(one.amount),
        )
        for one in found
    ]
    head = ("file", "began (UTC)", "state", *_COUNTS, f"charged {entry.currency}")
    say(table(head, rows, right=range(3, len(head))))
    for one in found:
        if one.problem:
            say(f"{one.name}: {one.problem}")


def _told(one: Accuracy) -> dict[str, Any]:
    return {**msgspec.structs.asdict(one), "day": date_of(one.day)}


def _write_csv(found: list[Accuracy]) -> None:
    writer = csv.DictWriter(sys.stdout, Accuracy.__struct_fields__, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(_told, found))
