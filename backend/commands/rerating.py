"""`allotment rerate`: charging usage again, by the rates that hold now, after showing what it changes."""

import asyncio
import sys
from typing import Any

import msgspec
import rich_click as click
from click.exceptions import Exit

from ...domain.difference import Change, Difference
from ...domain.rating_job import CAUSES, RatingFinished, Scope, StartRating
from ...domain.refusals import Refused
from ...graphql.refusals import message_of
from ...tenants.onboarding import TenantEntry, find_tenant
from ..engine import Engine
from ..log import PostgresLog, answer_of
from ..money import money
from ..rerating import finish_key
from ..running import Product, running
from ..stopping import complete
from .input import InputError
from .options import JSON, TENANT
from .output import end_progress, note, say, settings_for_command, table, tell_json
from .rules import moment

ACTOR = "carrier:command-line"
LOOK_SECONDS = 0.25
ROWS_MAX = 50


@click.command()
@TENANT
@click.option("--record", default="", metavar="SOURCE/ID", help="One usage record.")
@click.option("--node", default="", help="Used at or below it, as it was charged.")
@click.option("--type", "usage_type", default="", help="voice, data ...")
@click.option("--period", default="", help="Such as 2026-11.")
@click.option("--tariff", type=int, default=0, help="Usage for which this version holds now.")
@click.option("--from", "since", default="", help="Used at this moment or later.")
@click.option("--to", "until", default="", help="Used before this moment.")
@click.option("--in-order", is_flag=True, help="Give the allowance of a period to whoever used it first.")
@click.option(
    "--cause", type=click.Choice(CAUSES), default="requested", show_default=True, help="What led to it."
)
@click.option("--note", "why", default="", help="Why; it stands in the log.")
@click.option("--job", default="", help="The job's name, for ever: the same again goes on with it.")
@click.option("--dry-run", is_flag=True, help="Show what would change; store nothing.")
@JSON
def rerate(**given: Any) -> None:
    """Charge usage again by the rates that hold now: refunds and new charges, nothing is edited.

    Everything given says which charges; without --dry-run a name for the job is needed. A job that was
    interrupted goes on when the tenant is next served, or when the same is asked again. What belongs to
    a closed period becomes a line of the one that runs.

    \b
    allotment rerate --tenant acme --tariff 2 --dry-run
    allotment rerate --tenant acme --tariff 2 --cause tariff_corrected --note "ticket 4711" --job fix-4711
    allotment rerate --tenant acme --period 2026-11 --in-order --cause late_usage --job november-in-order
    """
    command, dry = _command(given), bool(given["dry_run"])
    if not dry and not command.job:
        raise InputError("--job: give the job a name, or look first with --dry-run")
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, given["slug"])
        try:
            if dry:
                seq, found = complete(_shown(product, entry, command.scope))
                tell_difference(entry, seq, found, ids_of(product, entry), as_json=given["as_json"])
            else:
                finished = complete(_carried_out(product, entry, command))
                tell_finished(entry, finished, as_json=given["as_json"])
        except Refused as refusal:
            raise refused(refusal, as_json=given["as_json"]) from None


def refused(refusal: Refused, *, as_json: bool) -> Exit:
    """How a command ends that the rules refuse, once that is told."""
    if as_json:
        tell_json({"refused": refusal.code, **refusal.facts})
    note(f"allotment: refused, nothing was done: {message_of(refusal.code, refusal.facts)}")
    return Exit(1)


def _command(given: dict[str, Any]) -> StartRating:
    source, _, record_id = given["record"].partition("/")
    if bool(source) != bool(record_id):
        raise InputError(f"--record: {given['record']!r} is no record such as pbx-1/c-7")
    scope = Scope(
        *(source, record_id, given["node"], given["usage_type"], given["period"], given["tariff"]),
        moment(given["since"], "--from") if given["since"] else 0,
        moment(given["until"], "--to") if given["until"] else 0,
        given["in_order"],
    )
    return StartRating(given["job"], scope, given["cause"], given["why"])


async def _shown(product: Product, entry: TenantEntry, scope: Scope) -> tuple[int, Difference]:
    async with product.engine(following=False) as engine:
        return await engine.rating.preview(entry.tenant_id, scope, tell_progress)


async def _carried_out(product: Product, entry: TenantEntry, command: StartRating) -> RatingFinished:
    """Begin it, or go on with it, and wait until it is done."""
    async with product.engine(following=False) as engine:
        answer = await engine.begin_rating(entry.tenant_id, command, ACTOR)
        if answer.repeated:
            note(f"The job {command.job} was begun before.")
        return await ended(engine, entry, command.job)


async def ended(engine: Engine, entry: TenantEntry, job: str) -> RatingFinished:
    reading = PostgresLog(engine.isolation, entry.tenant_id)
    while True:
        found = await engine.in_thread(lambda: answer_of(reading, finish_key(job)))
        if found:
            end_progress()
            finished = found[0].event
            assert isinstance(finished, RatingFinished)
            return finished
        reached = engine.rating.reached.get((entry.tenant_id, job))
        if reached is not None:
            tell_progress(reached.seq, reached.of)
        await asyncio.sleep(LOOK_SECONDS)


def tell_progress(seq: int, of: int) -> None:
    if sys.stderr.isatty() and of:
        sys.stderr.write(f"\r\x1b[K{seq:,} of {of:,} events looked at ({100 * seq // of} %)")
        sys.stderr.flush()


def ids_of(product: Product, entry: TenantEntry) -> dict[int, str]:
    with product.isolation.transaction(entry.tenant_id) as db:
        return dict(db.execute("SELECT ordinal, id FROM members").fetchall())


def tell_difference(
    entry: TenantEntry, seq: int, found: Difference, ids: dict[int, str], *, as_json: bool
) -> None:
    end_progress()
    kinds = sorted(found.by_kind.items(), key=lambda one: (-abs(one[1].difference), one[0]))
    if as_json:
        told = [
            {
                "node": ids.get(node, str(node)),
                "usage_type": kind,
                "zone": zone if kind else "",
                "plan": "" if kind else zone,
                **_told(change),
            }
            for (node, kind, zone), change in kinds
        ]
        about = {"tenant": entry.slug, "dry_run": True, "seq": seq, "digest": found.digest}
        counts = {"looked_at": found.looked_at, "left": found.left, **_told(found.total)}
        tell_json({**about, **counts, "kinds": told})
        return
    say(f"{found.looked_at:,} charges looked at, {found.total.records:,} would change.")
    if kinds:
        head = ("node", "type", "zone", "records", "units", "amount", "would be", "difference")
        rows = [
            (
                *(
                    ids.get(node, str(node)),
                    kind or "plan",
                    zone,
                    change.records,
                    change.billed - change.was_billed,
                ),
                *(money(part, entry.currency) for part in (change.was_amount, change.amount)),
                money(change.difference, entry.currency),
            )
            for (node, kind, zone), change in kinds[:ROWS_MAX]
        ]
        say(table(head, rows, right=range(3, 8)))
    say(f"Difference: {money(found.total.difference, entry.currency)}.")
    if found.total.corrected:
        say(f"Of this for closed periods: {money(found.total.corrected, entry.currency)}.")
    for reason, records in sorted(found.left.items()):
        note(f"{records:,} stay as they are: {reason.replace('_', ' ')}.")


def _told(change: Change) -> dict[str, int]:
    return {**msgspec.structs.asdict(change), "difference": change.difference}


def tell_finished(entry: TenantEntry, finished: RatingFinished, *, as_json: bool) -> None:
    if as_json:
        tell_json({"tenant": entry.slug, "dry_run": False, **msgspec.structs.asdict(finished)})
        return
    say(f"{finished.records:,} charges looked at, {finished.changed:,} changed, {finished.left:,} left.")
    say(f"Charged {money(finished.amount, entry.currency)} more.")
    if finished.corrected:
        say(f"Owed for closed periods: {money(finished.corrected, entry.currency)}.")
