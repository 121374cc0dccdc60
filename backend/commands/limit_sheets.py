"""`allotment limit import` and `export`: limits as a sheet, in and out."""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

import rich_click as click
from click.exceptions import Exit

from ...domain.limit import SetAnyLimit
from ...domain.limit_sheet import COLUMNS, as_set, limits_of, row_of, together
from ...domain.refusals import Refused
from ...domain.sheet import rows_of
from ...projections import members, rules
from ...projections.in_force import agreed_in
from ...projections.used import used_in
from ...tenants.onboarding import TenantEntry, find_tenant
from ..asking import Answer
from ..engine import wall_clock
from ..following import catch_up
from ..running import Product, running
from ..stopping import complete
from .changing import carried_out_by
from .input import InputError, check_readable
from .options import JSON, TENANT
from .output import say, settings_for_command
from .sheets import tell_carried_out, tell_refusal, text_of


@click.command(name="import")
@click.argument("file", metavar="FILE")
@TENANT
@click.option("--note", "why", default="", help="For the history, of lines that have none.")
@click.option("--key", default="", help="Another key carries out a sheet again that was carried out before.")
@click.option("--dry-run", is_flag=True, help="Say what would happen; store nothing.")
@JSON
def limit_import(file: str, slug: str, why: str, key: str, dry_run: bool, as_json: bool) -> None:
    """Set the limits of FILE ("-" reads stdin): all of them, or none.

    The first row names the columns: node,usage_type,quantity,window,kind,thresholds,from_period,note. A
    quantity may have a unit: 5 GB, 90 min; "none" lifts the limit. Thresholds: 80% 100%. Who may raise a
    limit stays as it is.

    \b
    allotment limit import limits.csv --tenant acme --dry-run
    allotment limit import limits.csv --tenant acme
    """
    settings = settings_for_command()
    check_readable(file)
    text = text_of(file)
    try:
        limits = limits_of(text, why)
        with running(settings) as product:
            entry = find_tenant(product.isolation, slug)
            sheet_key = f"limits:{key or sha256(f'{why} {text}'.encode()).hexdigest()}"
            answer = complete(_set_together(product, entry, limits, sheet_key, dry=dry_run))
    except Refused as refusal:
        tell_refusal(refusal, as_json=as_json)
        raise Exit(1) from None
    _tell_set(entry, answer, as_json=as_json)


async def _set_together(
    product: Product, entry: TenantEntry, limits: Sequence[SetAnyLimit], key: str, *, dry: bool
) -> Answer:
    async with product.engine(following=not dry) as engine:
        command = together(limits, await engine.state(entry.tenant_id), engine.clock(), ())
        return (await carried_out_by(engine, entry, command, key, dry=dry)).answer


def _tell_set(entry: TenantEntry, answer: Answer, *, as_json: bool) -> None:
    topics = Counter(event.topic for event in answer.events)
    counts = {"limits": topics["limit.set"], "crossed": topics["limit.threshold_crossed"]}
    did = "would be" if answer.dry else "were"
    crossed = f"; usage has reached {counts['crossed']:,} thresholds already" if counts["crossed"] else ""
    told = f"{counts['limits']:,} limits {did} set for {entry.slug}{crossed}."
    tell_carried_out(entry, answer, counts, told, as_json=as_json)


@click.command(name="export")
@TENANT
@click.option("--node", default="", help="Of this node and what is below it; else of all.")
def limit_export(slug: str, node: str) -> None:
    """Print the limits in force as a sheet that sets them again.

    \b
    allotment limit export --tenant acme > limits.csv
    """
    with running(settings_for_command()) as product:
        _, found = limits_in_force(product, find_tenant(product.isolation, slug), node)
    found.sort(key=lambda one: (one.ordinal, one.usage_type, one.in_force.window))
    rows = (row_of(as_set(one.usage_type, one.in_force)) for one in found)
    for row in rows_of(COLUMNS, rows):
        say(row.rstrip("\n"))


def limits_in_force(
    product: Product, entry: TenantEntry, node: str
) -> tuple[dict[int, str], list[rules.Limit]]:
    """Of a node and what is below it, or of all; with the members' ids by ordinal."""
    catch_up(product.isolation, entry.tenant_id)
    with product.isolation.snapshot(entry.tenant_id) as db:
        listed = members.tree(db, node or None, None, resources=True)
        names = {member.ordinal: member.id for member in listed}
        period = agreed_in(db).name_at(wall_clock())
        found = rules.limits_at(db, [*names], period, wall_clock(), used_in(db, [*names], period))
    if node and not names:
        raise InputError(f"{entry.slug} has no node {node!r}")
    return names, found
