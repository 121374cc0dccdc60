"""`allotment allocation ...`: allocations, transfers and caps as sheets, in and out."""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

import rich_click as click
from click.exceptions import Exit

from ...domain.allocation import TransferMany
from ...domain.refusals import Refused
from ...domain.running import Line
from ...domain.sheet import csv_of, lines_of
from ...projections.allocations import as_lines
from ...projections.in_force import agreed_in
from ...tenants.onboarding import TenantEntry, find_tenant
from ..asking import Answer
from ..engine import wall_clock
from ..following import catch_up
from ..running import running
from .changing import carried_out
from .input import check_readable
from .options import JSON, TENANT
from .output import say, settings_for_command
from .sheets import tell_carried_out, tell_refusal, text_of

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
    topics = Counter(event.topic for event in answer.events)
    counts = {"transfers": topics["bucket.transferred"], "caps": topics["allocation.cap_set"]}
    did = "would be" if answer.dry else "were"
    told = (
        f"{counts['transfers']:,} transfers and {counts['caps']:,} caps {did} carried out for {entry.slug}."
    )
    tell_carried_out(entry, answer, counts, told, as_json=as_json)


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
            lines: Sequence[Line] = as_lines(db, period or agreed_in(db).name_at(wall_clock()))
    for row in csv_of(lines):
        say(row.rstrip("\n"))
