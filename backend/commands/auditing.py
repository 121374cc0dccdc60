"""`allotment dump`, `verify`, `rebuild`: what an auditor asks of a log."""

import sys

import rich_click as click

from ...tenants.onboarding import find_tenant
from ..following import catch_up
from ..looking_back import rebuild, rebuild_and_compare
from ..running import running
from ..verifying import dump, verify
from .options import JSON, TENANT
from .output import note, say, settings_for_command, tell_json

DIFFERENCES_SHOWN = 10


@click.command(name="dump")
@TENANT
@click.option("--as-of", type=click.IntRange(min=0), help="The state as of this seq; else the newest.")
def dump_command(slug: str, as_of: int | None) -> None:
    """Print the state as canonical lines: the same log gives the same bytes.

    \b
    allotment dump --tenant acme | sha256sum
    allotment dump --tenant acme --as-of 1000
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        for line in dump(product.isolation, entry.tenant_id, as_of):
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


@click.command(name="verify")
@TENANT
@JSON
@click.pass_context
def verify_command(ctx: click.Context, slug: str, as_json: bool) -> None:
    """Check the whole log: order, hashes, every charge, every invariant, every view.

    Exits with 1, and the first seq that does not hold, if anything is wrong.

    \b
    allotment verify --tenant acme --json
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        report = verify(product.isolation, entry.tenant_id)
    if as_json:
        tell_json({"slug": entry.slug, **_fields(report)})
    elif report.ok:
        looked = ", ".join(f"{number:,} {what}" for what, number in report.checks.items())
        say(f"{entry.slug}: everything holds up to seq {report.seq:,} ({looked}); root {report.root[:16]}")
    else:
        where = f"seq {report.first_offending_seq}: " if report.first_offending_seq else ""
        say(f"{entry.slug}: BROKEN. {where}{report.problem}")
    ctx.exit(0 if report.ok else 1)


def _fields(report: object) -> dict[str, object]:
    return {name: getattr(report, name) for name in report.__struct_fields__}  # type: ignore[attr-defined]


@click.command(name="rebuild")
@TENANT
@click.option("--check", is_flag=True, help="Only compare: rebuild beside the live views, change nothing.")
@JSON
@click.pass_context
def rebuild_command(ctx: click.Context, slug: str, check: bool, as_json: bool) -> None:
    """Rebuild every view of a tenant from its log.

    \b
    allotment rebuild --tenant acme --check
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        seq = catch_up(product.isolation, entry.tenant_id)
        if not check:
            seq = rebuild(product.isolation, entry.tenant_id)
        differences = rebuild_and_compare(product.isolation, entry.tenant_id)
    if as_json:
        told = [_fields(difference) for difference in differences]
        tell_json({"tenant": entry.slug, "seq": seq, "ok": not differences, "differences": told})
    elif differences:
        say(f"{entry.slug}: {len(differences)} rows differ from what the log gives, as of seq {seq:,}:")
        for difference in differences[:DIFFERENCES_SHOWN]:
            say(f"  {difference.table} {difference.key}: {difference.live} should be {difference.rebuilt}")
        note(f"`allotment rebuild --tenant {entry.slug}` puts that right.")
    else:
        say(f"{entry.slug}: every view is what the log gives, as of seq {seq:,}.")
    ctx.exit(1 if differences else 0)
