"""`allotment inventory ...`: what an enterprise has, as a file, and back again.

An export can be edited and imported: a line says how its resource shall be, an empty cell leaves
that as it is, and what is so already changes nothing.
"""

import csv
import sys
from collections.abc import Iterator
from typing import Any, TextIO
from uuid import uuid4

import rich_click as click

from ...domain.refusals import Refused
from ...projections.in_force import agreed_in
from ...projections.inventory import InventoryFilter, Item, inventory_page
from ...projections.members import member
from ...tenants.inventory_sheet import COLUMNS, read_lines
from ...tenants.lines import InventoryLine, TakeStock
from ...tenants.onboarding import TenantEntry, find_tenant
from ...tenants.sealing import Sealer, load_sealer
from ..asking import Answer
from ..engine import moment, normal_line, wall_clock
from ..following import catch_up
from ..running import Product, running
from ..stopping import complete
from .correcting import carry_out
from .input import InputError, check_readable
from .options import JSON, TENANT
from .output import note, say, settings_for_command, tell_json
from .sheets import text_of

ACTOR = "operator:command-line"
PAGE = 1_000
DAY = 86_400_000_000
REFUSED = 1


@click.group()
def inventory() -> None:
    """See what resources there are, as CSV; change many of them at once."""


@inventory.command(name="export")
@click.argument("file", type=click.Path(allow_dash=True), default="-")
@TENANT
@click.option(
    "--period", default="", help='Whose usage is told, such as "2026-11"; else the one that is running.'
)
@click.option("--under", default="", help="Only at or below this node.")
@click.option(
    "--status",
    type=click.Choice(["active", "suspended", "ended", "planned"]),
    default=None,
    help="Only those that stand so.",
)
@click.option("--unused-days", type=click.IntRange(1, 3_660), help="Only without usage for so many days.")
@click.option("--unassigned", is_flag=True, help="Only on the enterprise itself, or on a closed node.")
@click.option("--over-percent", type=click.IntRange(1), help="Only with so much of a limit used.")
@click.option("--duplicates", is_flag=True, help="Only those that share a label, or a line at some time.")
def export_command(file: str, slug: str, **wanted: Any) -> None:
    """Write resources to FILE ("-" is stdout), with their lines and labels in clear.

    \b
    allotment inventory export --tenant acme > inventory.csv
    allotment inventory export waste.csv --tenant acme --unused-days 60
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        catch_up(product.isolation, entry.tenant_id)
        sealer = load_sealer(product.isolation, product.root_key(), entry.tenant_id)
        items = list(_items(product, entry, **wanted))
    rows = [_row(item, sealer) for item in items]
    if file == "-":
        _write(sys.stdout, rows)
        return
    with open(file, "w", encoding="utf-8", newline="") as stream:
        _write(stream, rows)
    note(f"{len(rows)} resources written to {file}.")


def _items(
    product: Product,
    entry: TenantEntry,
    *,
    period: str,
    under: str,
    status: str | None,
    unused_days: int | None,
    unassigned: bool,
    over_percent: int | None,
    duplicates: bool,
) -> Iterator[Item]:
    now = wall_clock()
    with product.isolation.transaction(entry.tenant_id) as db:
        root = member(db, under) if under else None
        if under and root is None:
            raise InputError(f"--under: {entry.slug} has no node {under}")
        wanted = InventoryFilter(
            under=[root.ordinal] if root else (),
            status=status,
            unused_since=None if unused_days is None else now - unused_days * DAY,
            unassigned=unassigned,
            over_percent=over_percent,
            duplicates=duplicates,
        )
        after, counted = -1, period or agreed_in(db).name_at(now)
        while page := inventory_page(db, PAGE, after, counted, now, wanted):
            yield from page
            after = page[-1].ordinal


def _row(item: Item, sealer: Sealer) -> dict[str, str]:
    lines = [
        (sealer.open(token, sealed, token) or b"").decode()
        for token, sealed in zip(item.tokens, item.sealed, strict=True)
    ]
    label = b""
    if item.label_sealed and item.label_token:
        label = sealer.open(item.label_token, item.label_sealed, item.label_token) or b""
    return {
        "resource": item.id,
        "node": item.node_id,
        "kind": item.kind,
        "status": "" if item.status == "planned" else item.status,
        "lines": " ".join(line for line in lines if line),
        "label": label.decode(),
        "since": moment(item.since).isoformat(),
        "until": "" if item.until is None else moment(item.until).isoformat(),
        "last_used_at": "" if item.last_used_at is None else moment(item.last_used_at).isoformat(),
        "charges": str(item.charges),
        "amount": str(item.amount),
    }


def _write(stream: TextIO, rows: list[dict[str, str]]) -> None:
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


@inventory.command(name="import")
@click.argument("file")
@TENANT
@click.option("--region", default="", help='The country of numbers without "+": "DE".')
@click.option("--note", "why", default="", help="For the history. No personal data.")
@click.option("--dry-run", is_flag=True, help="Say what would happen; store nothing.")
@click.option(
    "--job", default="", help="Let lines be about moments that are over; charged again by this job."
)
@click.option("--shown", help="And the digest that --dry-run has told: exactly that is done.")
@JSON
@click.pass_context
def import_command(
    ctx: click.Context,
    file: str,
    slug: str,
    region: str,
    why: str,
    *,
    dry_run: bool,
    job: str,
    shown: str | None,
    as_json: bool,
) -> None:
    """Make the inventory be as FILE says: all of its lines, or none.

    Columns: resource, node, kind, status (active, suspended, ended), lines (separated by spaces),
    label, effective_from (with its zone; empty for now). It may be over, in a period that is open, where
    --job names what charges again: --dry-run shows what that would change, --shown confirms it.

    \b
    allotment inventory import inventory.csv --tenant acme --dry-run
    allotment inventory import late.csv --tenant acme --job fix-1 --dry-run
    allotment inventory import late.csv --tenant acme --job fix-1 --shown 1f0c...
    """
    settings = settings_for_command()
    check_readable(file)
    lines, bad = _read(text_of(file), region)
    if not bad:
        with running(settings) as product:
            entry = find_tenant(product.isolation, slug)
            asked = TakeStock(lines, why)
            if job:
                bad = _correct(product, entry, asked, job, shown, dry=dry_run, as_json=as_json)
                told: Answer | list[dict[str, Any]] = bad
                if not bad:
                    return
            else:
                told = complete(_take_stock(product, entry, asked, dry=dry_run))
        if isinstance(told, Answer):
            _say_done(told, len(lines), dry=dry_run, as_json=as_json)
            return
        bad = told
    _say_bad(bad, as_json=as_json)
    ctx.exit(REFUSED)


def _read(text: str, region: str) -> tuple[tuple[InventoryLine, ...], list[dict[str, Any]]]:
    """What a sheet says; or its lines that say nothing that can be used."""
    try:
        return read_lines(text, lambda line: normal_line(line, region)), []
    except Refused as refusal:
        if refusal.code != "lines_refused":
            raise InputError(str(refusal.facts["remedy"])) from None
        bad: list[dict[str, Any]] = refusal.facts["lines"]
        return (), bad


def _correct(
    product: Product,
    entry: TenantEntry,
    asked: TakeStock,
    job: str,
    shown: str | None,
    *,
    dry: bool,
    as_json: bool,
) -> list[dict[str, Any]]:
    """Show or carry out what is dated back; the lines that cannot be carried out."""
    if not dry and shown is None:
        raise InputError("--shown: look first with --dry-run, then confirm what was shown")
    sealer = load_sealer(product.isolation, product.root_key(), entry.tenant_id)
    command = asked.corrected_by(sealer, job, shown or "")
    try:
        carry_out(product, entry, command, dry=dry, as_json=as_json)
    except Refused as refusal:
        bad: list[dict[str, Any]] = refusal.facts["lines"]
        return bad
    return []


async def _take_stock(
    product: Product, entry: TenantEntry, command: TakeStock, *, dry: bool
) -> Answer | list[dict[str, Any]]:
    """What it led to; or the lines that cannot be carried out."""
    async with product.engine(following=not dry) as engine:
        try:
            return await engine.submit(entry.tenant_id, command, f"inventory:{uuid4()}", ACTOR, dry=dry)
        except Refused as refusal:
            if refusal.code != "lines_refused":
                raise
            bad: list[dict[str, Any]] = refusal.facts["lines"]
            return bad


def _say_done(answer: Answer, lines: int, *, dry: bool, as_json: bool) -> None:
    counts: dict[str, int] = {}
    for event in answer.events:
        counts[event.topic] = counts.get(event.topic, 0) + 1
    if as_json:
        tell_json({"dry_run": dry, "lines": lines, "events": counts})
        return
    say("Nothing was stored. This would happen:" if dry else f"{lines} lines carried out:")
    for topic, count in sorted(counts.items()):
        say(f"{topic:<32} {count:>8,}")


def _say_bad(bad: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        tell_json({"refused": bad})
        return
    say(f"Nothing was changed: {len(bad)} lines cannot be carried out.")
    for one in bad:
        say(f"  line {one['line']} {one['resource']}: {one['field']}: {one['code']}: {one['remedy']}")
