"""`allotment deck ...`: a carrier's rate sheet, looked at and taken over, all of it or nothing."""

from datetime import date
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import rich_click as click

from ...domain.contract import midnight
from ...domain.decks.composing import Given, Past, Terms
from ...domain.decks.importing import Used, command_of, take_for, what_it_costs
from ...domain.decks.layout import LAYOUT_BYTES_MAX, USUAL, Layout, parse_layout
from ...domain.decks.reading import SHEET_BYTES_MAX, Sheet, read_sheet
from ...domain.decks.report import Taken, take
from ...domain.rating.amending import TariffAmended
from ...domain.rating.overriding import RatesOverridden
from ...domain.refusals import Refused
from ...domain.tenant import Tenant
from ...projections.invoices import rates_charged
from ...tenants.onboarding import TenantEntry, find_tenant
from ...tenants.tariff_file import usable_tariff
from ..asking import Answer
from ..engine import wall_clock
from ..following import catch_up
from ..running import Product, running
from ..stopping import complete
from .deck_telling import report_told, say_report
from .input import InputError, check_readable, opened
from .options import JSON, TENANT
from .output import say, settings_for_command, tell_json

ACTOR = "carrier:command-line"
REFUSED = 1

_LAYOUT = click.option(
    "--layout",
    "layout_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="How the sheet is laid out, in TOML; else columns are found by their usual names.",
)
_FROM = click.option("--from", "from_day", help="The day on which the sheet begins to hold: 2026-12-01.")
_PART = click.option("--part", is_flag=True, help="The sheet is a part: what it does not name stays.")
_PAST = click.option(
    "--past",
    type=click.Choice(["refuse", "from-now-on", "supersede"]),
    default="refuse",
    show_default=True,
    help="Rows that begin in the past with another price.",
)


@click.group()
def deck() -> None:
    """Check rate sheets (A-Z price lists as CSV), and take them over as tariff versions."""


@deck.command()
@click.argument("file")
@click.option("--tariff", "tariff_file", type=click.File("rb"), required=True, help="What holds, as JSON.")
@click.option("--time-zone", default="UTC", show_default=True, help="Of the sheet's days.")
@_LAYOUT
@_FROM
@_PART
@_PAST
@JSON
@click.pass_context
def check(
    ctx: click.Context,
    file: str,
    tariff_file: BinaryIO,
    time_zone: str,
    layout_file: Path | None,
    from_day: str | None,
    past: str,
    *,
    part: bool,
    as_json: bool,
) -> None:
    """Read the sheet FILE and tell what it would change of a tariff. Needs no server.

    \b
    allotment deck check a-z.csv --tariff tariff.json
    allotment deck check a-z.csv --tariff tariff.json --layout ours.toml --from 2026-12-01 --json
    """
    settings_for_command()
    zone = _zone(time_zone)
    published = usable_tariff(tariff_file.read(), zone)
    given = Given(1, published.valid_from, published.rates, published.zones)
    try:
        sheet = sheet_of(file, layout_file, published.currency, part=part)
        taken = take(sheet, [given], terms_of(zone, from_day, past))
    except Refused as refused:
        ctx.exit(say_refused(refused, as_json=as_json))
    if as_json:
        tell_json(report_told(taken.report))
    else:
        say_report(taken.report, (), published.currency)


@deck.command(name="import")
@click.argument("file")
@TENANT
@_LAYOUT
@_FROM
@_PART
@_PAST
@click.option("--period", help="Whose usage the money is told of; else the one before the running one.")
@click.option("--note", default="", help="For the history. No personal data: it cannot be erased.")
@click.option("--dry-run", "dry", is_flag=True, help="Only tell what it would lead to.")
@JSON
@click.pass_context
def import_command(
    ctx: click.Context,
    file: str,
    slug: str,
    layout_file: Path | None,
    from_day: str | None,
    past: str,
    period: str | None,
    note: str,
    *,
    part: bool,
    dry: bool,
    as_json: bool,
) -> None:
    """Take over the sheet FILE as tariff versions of a tenant: all of it, or nothing.

    \b
    allotment deck import a-z.csv --tenant acme --dry-run
    allotment deck import a-z.csv --tenant acme --note "December sheet"
    """
    settings = settings_for_command()
    check_readable(file)
    with running(settings) as product:
        entry = find_tenant(product.isolation, slug)
        terms = terms_of(ZoneInfo(entry.time_zone), from_day, past)
        try:
            sheet = sheet_of(file, layout_file, entry.currency, part=part)
            told = complete(_import(product, entry, sheet, terms, note, dry=dry))
        except Refused as refused:
            ctx.exit(say_refused(refused, as_json=as_json))
        state, taken, answer = told
        used = _used(product, entry, taken.layout, period or _last_period(state))
    money = what_it_costs(state.tariffs, taken, used)
    versions = [
        event.version
        for event in (answer.events if answer else ())
        if isinstance(event, TariffAmended | RatesOverridden)
    ]
    if as_json:
        tell_json({"dry_run": dry, "made": versions, **report_told(taken.report, money)})
        return
    say_report(taken.report, money, entry.currency)
    if versions:
        say(f"\n{'Would be' if dry else 'Published'} as version {', '.join(map(str, versions))}.")


async def _import(
    product: Product, entry: TenantEntry, sheet: Sheet, terms: Terms, note: str, *, dry: bool
) -> tuple[Tenant, Taken, Answer | None]:
    async with product.engine() as engine:
        state = await engine.state(entry.tenant_id)
        taken = take_for(state.tariffs, sheet, terms)
        command = command_of(state.tariffs, taken, terms, note)
        if command is None:
            return state, taken, None
        key = f"deck:{uuid4()}"
        return state, taken, await engine.submit(entry.tenant_id, command, key, ACTOR, dry=dry)


def _last_period(state: Tenant) -> str:
    """The one before the one that runs; else that one."""
    running_now = state.contracts.name_at(wall_clock())
    before = [period for period in state.contracts.periods if period < running_now]
    return max(before, default=running_now)


def _used(product: Product, entry: TenantEntry, layout: Layout, period: str) -> list[Used]:
    catch_up(product.isolation, entry.tenant_id)
    with product.isolation.snapshot(entry.tenant_id) as db:
        charged = rates_charged(db, period, layout.usage_type, layout.of_rates)
    return [Used(*msgspec.structs.astuple(one)) for one in charged]


def sheet_of(file: str, layout_file: Path | None, currency: str, *, part: bool) -> Sheet:
    layout = _layout(layout_file)
    if part:
        layout = msgspec.structs.replace(layout, whole=False)
    check_readable(file)
    with opened(file) as stream:
        text = stream.read(SHEET_BYTES_MAX + 1)
    try:
        return read_sheet(text.decode("utf-8-sig"), layout, currency)
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8: export it as CSV in UTF-8") from None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise click.BadParameter(f"{name!r} is not a time zone; use a name such as Europe/London") from None


def _layout(file: Path | None) -> Layout:
    if file is None:
        return USUAL
    with file.open("rb") as stream:
        text = stream.read(LAYOUT_BYTES_MAX + 1)
    return parse_layout(text)


def terms_of(zone: ZoneInfo, from_day: str | None, past: str, now: int | None = None) -> Terms:
    starts_at = None
    if from_day is not None:
        try:
            starts_at = midnight(date.fromisoformat(from_day), zone)
        except ValueError:
            raise InputError(f"--from: {from_day!r} is not a date such as 2026-12-01") from None
    chosen: Past = "refuse" if past == "refuse" else "from_now_on" if past == "from-now-on" else "supersede"
    return Terms(wall_clock() if now is None else now, lambda day: midnight(day, zone), starts_at, chosen)


def say_refused(refused: Refused, *, as_json: bool) -> int:
    """Every bad line, with what to do; the exit code. What is not about lines goes to the edge."""
    if refused.code != "bad_deck":
        raise refused
    lines: list[dict[str, Any]] = refused.facts["lines"]
    if as_json:
        tell_json({"refused": lines, "count": refused.facts["count"]})
        return REFUSED
    say(f"Nothing was changed: {refused.facts['count']} lines cannot be used.")
    for one in lines:
        say(f"  line {one['line']}: {one['field']} {one['value']!r}: {one['remedy']}")
    return REFUSED
