"""`allotment usage recycle`, `amend`, `reread`, `dismiss`, `keep`, `ageing`: how records leave suspense."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import msgspec
import rich_click as click

from ...projections.stakes import Stake, stakes
from ...projections.suspense import SuspenseFilter
from ...tenants.onboarding import TenantEntry, find_tenant
from ...tenants.sealing import load_sealer
from ..engine import Engine, normal_line, wall_clock
from ..following import catch_up
from ..intake.formats import load_format
from ..money import money
from ..recycling import BulkReport, Recycling, Selection
from ..running import Product, running
from ..stopping import complete
from .input import InputError
from .options import JSON, TENANT
from .output import end_progress, note, say, settings_for_command, table, tell_json

ACTOR = "carrier:command-line"

_FILTERS = [
    TENANT,
    click.option("--id", "ids", multiple=True, help="A record, by its usage id; may be given many times."),
    click.option("--reason", help="Only those that wait for this reason."),
    click.option("--source", help="Only those of this network element."),
    click.option("--file", help="Only those that stood in this file."),
    click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="Only usage of this day."),
    click.option("--type", "usage_type", help="Only those of this usage type."),
    click.option("--line", help="Only those of this line."),
]
_BULK = [
    *_FILTERS,
    click.option("--most", type=click.IntRange(0), default=0, help="At most so many; else all."),
    click.option("--after", type=click.IntRange(0), default=0, help="Go on after this seq."),
    click.option("--key", default="", help="Sent again with the same key, no record is tried again."),
    click.option("--dry-run", "dry", is_flag=True, help="Say what would happen; store nothing."),
    JSON,
]
_WHY = click.option("--note", "why", required=True, help="Why, for the history.")


def _with(options: list[Any]) -> Callable[[Any], Any]:
    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.command()
@_with(_BULK)
@click.option("--note", "why", default="", help="For the history.")
@click.option("--accept-late", is_flag=True, help="Charge also what came too late to be charged unasked.")
def recycle(*, accept_late: bool, **given: Any) -> None:
    """Decide records that wait again, as things are now: when the cause has been corrected.

    Each is charged, rejected, or waits on with its new reason. Interrupted, run it again.

    \b
    allotment usage recycle --tenant acme --reason unknown_line --dry-run
    allotment usage recycle --tenant acme --file calls.csv
    allotment usage recycle --tenant acme --reason too_late --accept-late --note "agreed with the customer"
    """

    def act(work: Recycling, selection: Selection, **how: Any) -> Awaitable[BulkReport]:
        return work.recycle(selection, accept_late=accept_late, **how)

    _bulk(act, **given)


@click.command()
@_with(_BULK)
@_WHY
def dismiss(**given: Any) -> None:
    """Write records off that wait: nobody will be charged for them.

    Where the tenant's rule asks for two persons (`usage rules`), this asks, and another person writes them
    off as well. Everybody at the command line is one person to it: the other uses the API.

    \b
    allotment usage dismiss --tenant acme --reason malformed --file test.csv --note "a test file"
    """
    if not given["ids"] and not any(given[name] for name in _NARROWING):
        raise InputError("Say which: all that waits is not written off at once.")
    _bulk(lambda work, selection, **how: work.dismiss(selection, **how), **given)


@click.command()
@_with(_BULK)
@click.option("--note", "why", default="", help="For the history.")
def keep(**given: Any) -> None:
    """Let records wait on that somebody asked to write off: decline that, or withdraw it.

    \b
    allotment usage keep --tenant acme --source switch-1 --note "the customer pays"
    """
    _bulk(lambda work, selection, **how: work.keep(selection, **how), asked=True, **given)


@click.command()
@_with(_BULK)
@click.option("--format", "-f", "format_name", required=True, help="The corrected format; see `formats`.")
@_WHY
def reread(format_name: str, **given: Any) -> None:
    """Read records again that could not be read, by a corrected format; then recycle them.

    \b
    allotment usage reread --tenant acme --file calls.csv --format ./our-switch.toml --note "new columns"
    """
    format = load_format(format_name)

    def act(work: Recycling, selection: Selection, *, zone: str, **how: Any) -> Awaitable[BulkReport]:
        return work.reread(selection, format, zone, **how)

    _bulk(act, zoned=True, **given)


@click.command()
@click.argument("usage_id")
@TENANT
@click.option("--line", help="Whose usage it is: the number, in clear; it is sealed.")
@click.option("--counterpart", help="The other end of it; sealed as well.")
@click.option("--type", "usage_type", help="The usage type: voice, data ...")
@click.option("--quantity", type=click.IntRange(0), help="In the unit of its type.")
@click.option("--started-at", help="With its offset from UTC: 2026-11-02T09:00:00+01:00.")
@click.option("--direction", type=click.Choice(["outbound", "inbound"]), help="As the line sees it.")
@click.option("--record-id", help="Where its own id is not known yet, or another record's.")
@_WHY
@click.option("--key", default="", help="Sent again with the same key it changes nothing.")
@click.option("--dry-run", "dry", is_flag=True, help="Say what would happen; store nothing.")
@JSON
def amend(usage_id: str, slug: str, why: str, key: str, dry: bool, as_json: bool, **fields: Any) -> None:
    """Correct a record that waits; what it said first stays in the log. Recycle it afterwards.

    \b
    allotment usage amend 1f0c... --tenant acme --line +442071838750 --note "digits swapped"
    """
    changes = {name: value for name, value in fields.items() if value is not None}
    if "started_at" in changes:
        changes["started_at"] = _moment(changes["started_at"])
    for name in ("line", "counterpart"):
        if name in changes:
            changes[name] = normal_line(changes[name], "")
    (wanted,) = _ids((usage_id,))
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        catch_up(product.isolation, entry.tenant_id)

        async def work(engine: Engine) -> Any:
            keyed = key or uuid4().hex
            recycling = Recycling(engine, entry.tenant_id, ACTOR, key=keyed, note=why, dry=dry)
            return await recycling.amend(wanted, changes)

        answer = complete(_in_engine(product, work))
    told = {"tenant": entry.slug, "dry_run": dry, "seq": answer.first_seq, "fields": answer.events[0].fields}
    tell_json(told) if as_json else say(f"Corrected: {', '.join(told['fields'])}.")


@click.command()
@_with(_FILTERS)
@JSON
def ageing(as_json: bool, slug: str, **given: Any) -> None:
    """How much waits, for how long, and the money at stake, by reason and source.

    \b
    allotment usage ageing --tenant acme
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        catch_up(product.isolation, entry.tenant_id)
        wanted = _selection(product, entry, **given).wanted
        with product.isolation.snapshot(entry.tenant_id) as db:
            found = stakes(db, wall_clock(), wanted)
    if as_json:
        tell_json({"tenant": entry.slug, "currency": entry.currency, "suspense": found})
    elif not found:
        note("Nothing waits.")
    else:
        head = ("reason", "source", "records", "<1 d", "1-7 d", "7-30 d", ">30 d", "at stake", "how known")
        rows = [
            (one.reason, one.source, one.records, *one.ages, money(one.value, entry.currency), _known(one))
            for one in found
        ]
        say(table(head, rows, right=(2, 3, 4, 5, 6, 7)))


def _known(one: Stake) -> str:
    parts = ((one.rated, "rated"), (one.estimated, "estimated"), (one.unknown, "unknown"))
    return ", ".join(f"{records} {how}" for records, how in parts if records)


# --- in common ----------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIGURES = (
    *("looked_at", "charged", "rejected", "suspended", "amended", "dismissed", "asked", "kept"),
    "passed_over",
)
_NARROWING = ("reason", "source", "file", "day", "usage_type", "line")


def _bulk(
    act: Any, *, slug: str, why: str, key: str, dry: bool, as_json: bool, most: int, after: int,
    zoned: bool = False, asked: bool | None = None, **given: Any,
) -> None:  # fmt: skip
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        catch_up(product.isolation, entry.tenant_id)
        selection = _selection(product, entry, asked=asked, **given)

        async def work(engine: Engine) -> BulkReport:
            recycling = Recycling(engine, entry.tenant_id, ACTOR, key=key or uuid4().hex, note=why, dry=dry)
            how: dict[str, Any] = {"after": after, "most": most, "progress": None}
            if zoned:
                how["zone"] = entry.time_zone
            report: BulkReport = await act(recycling, selection, **how)
            return report

        report = complete(_in_engine(product, work))
    end_progress()
    if as_json:
        tell_json({"tenant": entry.slug, "dry_run": dry, **_told(report)})
    else:
        _say(report, entry.currency, dry=dry)


async def _in_engine(product: Product, work: Callable[[Engine], Awaitable[Any]]) -> Any:
    async with product.engine(following=False) as engine:
        return await work(engine)


def _selection(
    product: Product,
    entry: TenantEntry,
    *,
    ids: tuple[str, ...],
    reason: str | None,
    source: str | None,
    file: str | None,
    day: datetime | None,
    usage_type: str | None,
    line: str | None,
    asked: bool | None = None,
) -> Selection:
    subject = None
    if line is not None:
        sealer = load_sealer(product.isolation, product.root_key(), entry.tenant_id)
        subject = sealer.token(normal_line(line, ""))
    from_at, until_at = (None, None) if day is None else _bounds(day, entry.time_zone)
    about = (reason, source, file, usage_type, subject, from_at, until_at)
    wanted = SuspenseFilter(*about, asked=asked)
    return Selection(wanted, _ids(ids))


def _bounds(day: datetime, time_zone: str) -> tuple[int, int]:
    """The microseconds of a day of the tenant's calendar: 23 or 25 hours, now and then."""
    zone = ZoneInfo(time_zone)
    begins, ends = (moment.replace(tzinfo=zone) for moment in (day, day + timedelta(days=1)))
    return int(begins.timestamp()) * 1_000_000, int(ends.timestamp()) * 1_000_000


def _ids(ids: tuple[str, ...]) -> tuple[bytes, ...]:
    try:
        return tuple(bytes.fromhex(ident) for ident in ids)
    except ValueError:
        raise InputError("A usage id is 32 hexadecimal digits: `usage suspense --json` tells them.") from None


def _moment(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InputError("--started-at: give a time with its offset, such as 2026-11-02T09:00:00+01:00.")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _told(report: BulkReport) -> dict[str, Any]:
    told = msgspec.structs.asdict(report)
    problems = [{**msgspec.structs.asdict(one), "usage_id": one.usage_id.hex()} for one in report.problems]
    return {**told, "problems": problems}


def _say(report: BulkReport, currency: str, *, dry: bool) -> None:
    if dry:
        say("Nothing was stored. This would happen:")
    for name in _FIGURES:
        count = getattr(report, name)
        if count or name == "looked_at":
            say(f"{name.replace('_', ' '):<12} {count:>10,}")
    if report.amount:
        say(f"{'amount':<12} {money(report.amount, currency):>10}")
    for reason, count in sorted(report.reasons.items()):
        say(f"  {reason}: {count:,}")
    if report.left:
        say(f"{report.left:,} more: go on with --after {report.after}")
