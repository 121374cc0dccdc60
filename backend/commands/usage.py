"""`allotment usage ...`: charging files of usage, and looking at what waits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich_click as click

from ...projections.suspense import SuspenseFilter, suspense_counts, waiting_page
from ...tenants.onboarding import TenantEntry, find_tenant
from ..following import catch_up
from ..intake.column_map import mapped
from ..intake.declaration import Format
from ..intake.door import IntakeReport, dry_run
from ..intake.formats import format_names, load_format
from ..intake.importing import import_stream, known
from ..running import Product, running
from ..stopping import complete
from . import accuracy as received
from . import suspense as leaving
from .counting import add_report, report_told
from .input import check_readable, opened
from .options import JSON, TENANT
from .output import (
    end_progress,
    note,
    progress,
    say,
    settings_for_command,
    table,
    tell_json,
)
from .suspense_rules import suspense_rules
from .watching import fetch_files, watch_folder

ACTOR = "mediation:command-line"
SUSPENSE_SHOWN_MAX = 100
PROBLEMS_SHOWN = 10

_OPTIONS = [
    click.argument("files", nargs=-1, required=True, metavar="FILE..."),
    TENANT,
    click.option(
        "--format", "-f", "format_name", default="allotment", show_default=True, help="See `usage formats`."
    ),
    click.option(
        "--map", "-m", "column_map", multiple=True, metavar="FIELD=COLUMN",
        help="Where a field of the format is found; FIELD:=TEXT gives it a text. Repeat it.",
    ),
    click.option("--source", default="", help="Who wrote the records, where they do not say it themselves."),
    click.option("--time-zone", default="", help="Of times without a zone; else the tenant's."),
    click.option("--dry-run", is_flag=True, help="Say what would happen; store nothing."),
    JSON,
]  # fmt: skip


def _with_options(command: Any) -> Any:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group()
def usage() -> None:
    """Charge usage from files; see what waits in suspense."""


usage.add_command(watch_folder)
usage.add_command(fetch_files)


@usage.command(name="import")
@_with_options
def usage_import(**given: Any) -> None:
    """Charge the usage records of FILEs ("-" reads stdin; gzip, bzip2, xz and zip are understood).

    A record is charged once, whatever is sent twice: import a file again after an interruption.
    What cannot be charged goes to suspense with its reason.

    \b
    allotment usage import calls.csv --tenant acme --format asterisk-csv
    allotment usage import page.json --tenant acme --format twilio-calls --json
    allotment usage import usage.ndjson.gz --tenant acme --dry-run
    allotment usage import any.csv --tenant acme --format generic-csv -m id=Ref -m line=From -m type:=voice
    """
    _import(**given)


@click.command(name="import")
@_with_options
def import_usage(**given: Any) -> None:
    """Short for `usage import`.

    \b
    allotment import calls.csv --tenant acme --format asterisk-csv --dry-run
    """
    _import(**given)


def _import(
    *,
    files: Sequence[str],
    slug: str,
    format_name: str,
    column_map: Sequence[str],
    source: str,
    time_zone: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    settings = settings_for_command()
    format = mapped(load_format(format_name), column_map)
    for file in files:
        check_readable(file)
    with running(settings) as product:
        entry = find_tenant(product.isolation, slug)
        zone = time_zone or entry.time_zone
        report = complete(_charge(product, entry, files, format, zone, source, dry=dry_run))
    told = report_told(report)
    if as_json:
        tell_json({"tenant": entry.slug, "dry_run": dry_run, **told})
    else:
        _say_report(report, dry=dry_run)


async def _charge(
    product: Product,
    entry: TenantEntry,
    files: Sequence[str],
    format: Format,
    time_zone: str,
    source: str,
    *,
    dry: bool,
) -> IntakeReport:
    total = IntakeReport()
    async with product.engine(following=not dry) as engine:
        for file in files:
            with opened(file) as stream:
                common: dict[str, Any] = {
                    "time_zone": time_zone,
                    "source": source,
                    "name": "stdin" if file == "-" else Path(file).name,
                    "progress": progress(file),
                }
                if dry:
                    report = await dry_run(engine, entry.tenant_id, stream, format, **common)
                else:
                    about = await known(engine, entry.tenant_id, file)
                    if about.again:
                        note(f"{file}: this very content was imported before; its records are duplicates.")
                    elif about.unfinished:
                        note(f"{file}: goes on where an import of it was left off.")
                    report = await import_stream(
                        engine, entry.tenant_id, stream, format, about, actor=ACTOR, **common
                    )
            end_progress()
            add_report(total, report)
    return total


def _say_report(report: IntakeReport, *, dry: bool) -> None:
    if dry:
        say("Nothing was stored. This would happen:")
    for name in ("received", "charged", "duplicate", "suspended", "rejected"):
        say(f"{name:<10} {getattr(report, name):>10,}")
    say(f"from {report.read:,} rows: {report.merged:,} legs joined to their call, {report.ignored:,} ignored")
    for problem in report.problems[:PROBLEMS_SHOWN]:
        where = f"{problem.position} " if problem.position else ""
        why = f"{problem.reason}: {problem.detail}" if problem.detail else problem.reason
        say(f"  {where}{problem.record_id} {problem.status}: {why}")
    if len(report.problems) > PROBLEMS_SHOWN:
        say("  ... `allotment usage suspense` lists what waits")


@usage.command()
@TENANT
@click.option("--reason", default=None, help="Only those that wait for this reason.")
@JSON
def suspense(slug: str, reason: str | None, as_json: bool) -> None:
    """List what waits to be corrected, newest first, and why.

    \b
    allotment usage suspense --tenant acme
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        catch_up(product.isolation, entry.tenant_id)
        counts, waiting = _suspense(product, entry, reason)
    if as_json:
        tell_json(
            {"tenant": entry.slug, "waiting": sum(counts.values()), "reasons": counts, "records": waiting}
        )
        return
    if not counts:
        note("Nothing waits.")
        return
    say(table(("reason", "records"), sorted(counts.items()), right=(1,)))
    say()
    for one in waiting:
        say(f"{one['source']}/{one['record_id']} {one['position']}")
        say(f"  {one['reason']}: {one['detail']}")
        if one["write_off_asked_by"]:
            say("  somebody asked to write it off: that takes another person")


def _suspense(
    product: Product, entry: TenantEntry, reason: str | None
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    with product.isolation.transaction(entry.tenant_id) as db:
        counts = suspense_counts(db)
        page = waiting_page(db, SUSPENSE_SHOWN_MAX, None, SuspenseFilter(reason))
    told = [
        {
            "usage_id": one.usage_id.hex(),
            "source": one.source,
            "record_id": one.record_id,
            "reason": one.reason,
            "field": one.field,
            "detail": one.detail,
            "position": one.position,
            "attempts": one.attempts,
            "value": one.value,
            "write_off_asked_by": one.asked_by or None,
            "seq": one.seq,
        }
        for one in page
    ]
    return counts, told


@usage.command()
@JSON
def formats(as_json: bool) -> None:
    """List the formats that come with the product; a path to your own .toml works as well."""
    known = [load_format(name) for name in format_names()]
    if as_json:
        tell_json([{"name": one.name, "kind": one.kind, "description": one.description} for one in known])
    else:
        say(
            table(("name", "kind", "what it reads"), [(one.name, one.kind, one.description) for one in known])
        )


for _command in (
    leaving.recycle,
    leaving.amend,
    leaving.reread,
    leaving.dismiss,
    leaving.keep,
    leaving.ageing,
):
    usage.add_command(_command)
usage.add_command(suspense_rules)
for _command in (received.accuracy, received.imports):
    usage.add_command(_command)
