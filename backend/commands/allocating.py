"""`allotment allocation ...`: allocations, transfers and caps as sheets, in and out."""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from zoneinfo import ZoneInfo

import rich_click as click
from click.exceptions import Exit

from ...domain.allocation import TransferMany
from ...domain.contract import name_of
from ...domain.refusals import Refused
from ...domain.running import Line
from ...domain.sheet import csv_of, lines_of
from ...projections.allocations import as_lines
from ...projections.balances import period_at
from ...tenants.onboarding import TenantEntry, find_tenant
from ..deciding import Answer
from ..engine import wall_clock
from ..following import catch_up
from ..running import running
from .changing import carried_out
from .input import check_readable
from .options import JSON, TENANT
from .output import note, say, settings_for_command, tell_json
from .sheets import tell_refusal, text_of

ACTOR = "telecoms_manager:command-line"


@click.group()
def allocation() -> None:
    """Allocations, transfers and caps as sheets (CSV)."""


@allocation.command(name="import")
@click.argument("file", metavar="FILE")
@TENANT
@click.option("--period", default="", help="Of lines that name none: 2026-11. Else what runs.")
@click.option("--note", "about", default="", help="For the history, of lines that have none.")
@click.option("--key", default="", help="Another key carries out a sheet again that was carried out before.")
@click.option("--dry-run", is_flag=True, help="Say what would happen; store nothing.")
@JSON
def allocation_import(
    file: str, slug: str, period: str, about: str, key: str, dry_run: bool, as_json: bool
) -> None:
    """Carry out the lines of FILE ("-" reads stdin) in their order: all of them, or none.

    The first row names the columns: action,source,target,usage_type,quantity,period,note. An action is
    allocate, return, trade, cap, template or return_unused. A quantity may have a unit: 2 GB, 90 min.

    \b
    allotment allocation import november.csv --tenant acme --dry-run
    allotment allocation import november.csv --tenant acme --period 2026-11
    """
    settings = settings_for_command()
    check_readable(file)
    text = text_of(file)
    try:
        command = TransferMany(lines_of(text, period), about)
        with running(settings) as product:
            entry = find_tenant(product.isolation, slug)
            idempotency_key = f"sheet:{key or sha256(f'{period} {about} {text}'.encode()).hexdigest()}"
            answer = carried_out(product, entry, command, idempotency_key, dry=dry_run, actor=ACTOR).answer
    except Refused as refusal:
        tell_refusal(refusal, as_json=as_json)
        raise Exit(1) from None
    _tell(entry, answer, as_json=as_json)


def _tell(entry: TenantEntry, answer: Answer, *, as_json: bool) -> None:
    counts = Counter(event.topic for event in answer.events)
    told = {"transfers": counts["bucket.transferred"], "caps": counts["allocation.cap_set"]}
    if as_json:
        about = {"tenant": entry.slug, "dry_run": answer.dry, "repeated": answer.repeated, **told}
        tell_json({**about, "first_seq": answer.first_seq, "last_seq": answer.last_seq})
        return
    did = "would be" if answer.dry else "were"
    if answer.repeated:
        note("This sheet had been carried out before: --key NAME carries it out again.")
    say(f"{told['transfers']:,} transfers and {told['caps']:,} caps {did} carried out for {entry.slug}.")


@allocation.command(name="export")
@TENANT
@click.option("--period", default="", help="Such as 2026-11; else what runs.")
def allocation_export(slug: str, period: str) -> None:
    """Print what everybody has, and every cap, as a sheet that gives it to them in another period.

    \b
    allotment allocation export --tenant acme --period 2026-11 > november.csv
    allotment allocation import november.csv --tenant acme --period 2026-12
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        catch_up(product.isolation, entry.tenant_id)
        with product.isolation.transaction(entry.tenant_id) as db:
            wanted = period or period_at(db, wall_clock()) or _month(entry)
            lines: Sequence[Line] = as_lines(db, wanted)
    for row in csv_of(lines):
        say(row.rstrip("\n"))


def _month(entry: TenantEntry) -> str:
    return name_of(wall_clock(), ZoneInfo(entry.time_zone))
