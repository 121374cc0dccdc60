"""`allotment rate`: what records cost by a tariff, with the working, without any server."""

from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import rich_click as click

from ...domain.charging import SUSPENSE, find_rate
from ...domain.rating.plan import CompiledPlan
from ...domain.rating.planned_rate import PlannedRate
from ...domain.rating.rate import Rated
from ...domain.rating.standing import Standing
from ...domain.rating.working import Component, working
from ...domain.refusals import Refused
from ...domain.tariff import EXACT_MAX, MICRO, CompiledRate, Tariff, TariffPublished
from ...domain.usage import USAGE_TYPES, UnreadableRecord, UsageRecord
from ...tenants.definition import DefinitionError
from ...tenants.tariff_file import usable_tariff
from ..intake.formats import load_format
from ..intake.reading import read_records
from .input import opened
from .output import note, settings_for_command, tell_json
from .rating_tariffs import OfferedTariffs, own_of

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.option("--tariff", "tariff_file", type=click.File("rb"), required=True, help="A tariff as JSON.")
@click.option("--usage", "usage_file", required=True, help='Usage records; "-" reads stdin.')
@click.option("--format", "-f", "format_name", default="allotment", show_default=True, help="Of the records.")
@click.option(
    "--time-zone", default="UTC", show_default=True, help="Of the tariff's dates, and of times without zone."
)
@click.option("--usage-type", "own_types", multiple=True, metavar="NAME=UNIT", help="Of the carrier's own.")
@click.option(
    "--own-rates", type=_FILE, help="A customer's own rates, laid over the tariff: as in `tariff override`."
)
@click.option("--sheet", help="A rate sheet (CSV) that amends the tariff: as in `deck import`.")
@click.option("--layout", type=_FILE, help="How the sheet is laid out, in TOML.")
@click.option("--from", "from_day", help="The day on which the sheet begins to hold: 2026-12-01.")
@click.option("--part", is_flag=True, help="The sheet is a part: what it does not name stays.")
def rate(
    tariff_file: BinaryIO,
    usage_file: str,
    format_name: str,
    time_zone: str,
    own_types: tuple[str, ...],
    own_rates: Path | None,
    sheet: str | None,
    layout: Path | None,
    from_day: str | None,
    *,
    part: bool,
) -> None:
    """Rate usage records by a tariff: one JSON line each, with the working. Needs no server.

    Allowances are not looked at: each record is rated as if it were all overage. Plans count the records
    in their order, as if all were of one period: each line for itself, or all lines together.

    \b
    allotment rate --tariff tariff.json --usage usage.ndjson
    allotment rate --tariff tariff.json --usage calls.csv --format asterisk-csv --time-zone Europe/London
    allotment rate --tariff tariff.json --own-rates acme.json --usage usage.ndjson
    allotment rate --tariff tariff.json --sheet a-z.csv --usage usage.ndjson

    A tariff is one entry of `tariffs` in `allotment tenant example`; docs/tariffs.md explains each key:

    \b
    {"id": "standard", "valid_from": "2026-01-01", "currency": "GBP",
     "rates": [{"usage_type": "voice", "zone": "uk", "prefix": "+44", "price": "0.02", "per": 60}]}
    """
    settings_for_command()
    format = load_format(format_name)
    if (layout or from_day or part) and sheet is None:
        raise click.UsageError("--layout, --from and --part go with --sheet")
    tariffs = _tariffs(tariff_file, _zone(time_zone), _units(own_types))
    if sheet is not None:
        tariffs.take_sheet(sheet, layout, from_day, part=part)
    if own_rates is not None:
        tariffs.lay_over(own_rates)
    failed, plans = 0, Counters()
    with opened(usage_file) as stream:
        for record in read_records(stream, format, time_zone=time_zone, name=Path(usage_file).name):
            at = record.started_at if isinstance(record, UsageRecord) else 0
            told = rated(record, tariffs.at(at), plans)
            failed += "problem" in told
            tell_json(told)
    if failed:
        note(f"{failed} records cannot be rated; their lines say why.")


class Counters:
    """What plans have counted of a file."""

    def __init__(self) -> None:
        self._counted: dict[tuple[str, str], tuple[int, int]] = {}

    def bound(self, rate: CompiledRate, line: str) -> CompiledRate:
        if rate.plan is None:
            return rate
        units, spent = self._counted.get(_counter(rate.plan, line), (0, 0))
        return PlannedRate(rate, Standing(rate.plan, 0, units, spent))

    def count(self, rate: CompiledRate, rated: Rated, line: str) -> dict[str, Any]:
        """What a charge adds; told with what was there before."""
        basis = rate.told(rated)
        counted = basis.counted if basis is not None else None
        if counted is None or rate.plan is None:
            return {}
        units, spent = counted.before + counted.units, counted.spent_before + counted.spent
        self._counted[_counter(rate.plan, line)] = units, spent
        return {"plan": {"name": counted.plan, "before": counted.before, "units": counted.units}}


def _counter(plan: CompiledPlan, line: str) -> tuple[str, str]:
    return plan.plan.plan, line if plan.plan.scope == "resource" else ""


def rated(
    record: UsageRecord | UnreadableRecord, tariff: Tariff, plans: Counters | None = None
) -> dict[str, Any]:
    """What a record costs, or why that cannot be said."""
    about = {"source": record.source, "record_id": record.record_id}
    if isinstance(record, UnreadableRecord):
        where = {"position": record.position, "field": record.field}
        return {**about, **where, "problem": record.reason, "detail": record.detail}
    about |= {"usage_type": record.usage_type, "direction": record.direction}
    published = tariff.published
    if record.started_at < published.valid_from:
        detail = "the tariff is not valid yet when the record starts"
        return {**about, "problem": "before_tariff", "detail": detail}
    try:
        found = find_rate(tariff, record)
    except Refused as refused:
        field, detail = SUSPENSE[refused.code]
        return {**about, "field": field, "problem": refused.code, "detail": detail}
    if found is None:
        return {**about, "problem": "no_rate", "detail": "no rate of the tariff is for this record"}
    own = own_of(tariff, found.index)
    return {**about, **_working(record, found, published, plans or Counters()), **own}


def _working(
    record: UsageRecord, found: CompiledRate, published: TariffPublished, plans: Counters
) -> dict[str, Any]:
    found = plans.bound(found, record.line)
    billed = found.billed(record.quantity)
    charge = found.rate(billed, 0, record.started_at)
    if max(charge.exact) >= EXACT_MAX:
        field, detail = SUSPENSE["beyond_counting"]
        return {"field": field, "problem": "beyond_counting", "detail": detail}
    basis = found.basis
    return {
        "quantity": record.quantity,
        "billed": billed,
        "tariff": published.tariff,
        "tariff_version": published.version,
        "rate": found.index,
        "prefix": found.prefix,
        "zone": found.zone,
        **({"origin": basis.origin, "window": basis.window, "times": basis.times} if basis else {}),
        **plans.count(found, charge, record.line),
        "currency": published.currency,
        "components": [_told(one, found) for one in working(found, billed, 0, record.started_at)],
        "unrounded": _exact(Fraction(*charge.exact)),
        "rounding": {"method": published.method, "decimals": published.decimals},
        "amount": f"{Decimal(charge.amount) / MICRO:.{published.decimals}f}",
    }


def _told(one: Component, found: CompiledRate) -> dict[str, Any]:
    about: dict[str, Any] = {"component": one.kind}
    if one.kind == "usage":
        about |= {"prefix": found.prefix, "zone": found.zone, "band": one.band, "window": one.window}
        about |= {"from": one.begins, "to": one.ends, "units": one.units}
        about |= {"increment": one.increment, "blocks": one.blocks, "price": one.price, "per": one.per}
    elif one.kind == "plan":
        about |= {"part": one.part, "units": one.units, "price": one.price, "per": one.per}
    elif one.kind == "percentage":
        about |= {"percent": one.price, "of": found.basis.value if found.basis else ""}
    else:
        about |= {"price": one.price}
    return {**about, "exact": _exact(one.exact)}


def _exact(micro_units: Fraction) -> str:
    """A decimal number where that is exact, else a fraction; both in whole units of the currency."""
    amount = micro_units / MICRO
    rest = amount.denominator
    for factor in (2, 5):
        while rest % factor == 0:
            rest //= factor
    if rest != 1:
        return f"{amount.numerator}/{amount.denominator}"
    places = 0
    while (amount * 10**places).denominator != 1:
        places += 1
    number = (amount * 10**places).numerator
    digits = f"{abs(number):0{places + 1}d}"
    sign = "-" if number < 0 else ""
    return sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def _tariffs(file: BinaryIO, zone: ZoneInfo, units: dict[str, str]) -> OfferedTariffs:
    try:
        command = usable_tariff(file.read(), zone, units)
    except DefinitionError as error:
        raise DefinitionError(f"{getattr(file, 'name', 'stdin')}: {error}") from error
    return OfferedTariffs(command, zone, units)


def _units(own_types: tuple[str, ...]) -> dict[str, str]:
    units = dict(USAGE_TYPES)
    for text in own_types:
        name, equals, unit = text.partition("=")
        if not (name and equals and unit):
            raise click.BadParameter(f"{text!r}: give NAME=UNIT, such as sensor=message")
        units[name] = unit
    return units


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise click.BadParameter(f"{name!r} is not a time zone; use a name such as Europe/London") from None
