"""`allotment rate`: what records cost by a tariff, with the working, without any server."""

from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import rich_click as click

from ...domain.refusals import Refused
from ...domain.tariff import MICRO, CompiledRate, Tariff, TariffPublished, check_tariff
from ...domain.usage import UnreadableRecord, UsageRecord
from ...tenants.onboarding import DefinitionError, TariffDefinition, tariff_command
from ..intake.formats import load_format
from ..intake.reading import read_records
from .input import opened
from .output import note, settings_for_command, tell_json


@click.command()
@click.option("--tariff", "tariff_file", type=click.File("rb"), required=True, help="A tariff as JSON.")
@click.option("--usage", "usage_file", required=True, help='Usage records; "-" reads stdin.')
@click.option("--format", "-f", "format_name", default="allotment", show_default=True, help="Of the records.")
@click.option(
    "--time-zone", default="UTC", show_default=True, help="Of the tariff's dates, and of times without zone."
)
def rate(tariff_file: BinaryIO, usage_file: str, format_name: str, time_zone: str) -> None:
    """Rate usage records by one tariff: one JSON line each, with the working. Needs no server.

    Allowances are not looked at: each record is rated as if it were all overage.

    \b
    allotment rate --tariff tariff.json --usage usage.ndjson
    allotment rate --tariff tariff.json --usage calls.csv --format asterisk-csv --time-zone Europe/London

    A tariff is one entry of `tariffs` in `allotment tenant example`:

    \b
    {"id": "standard", "valid_from": "2026-01-01", "currency": "GBP",
     "rates": [{"usage_type": "voice", "zone": "uk", "prefix": "+44", "price": "0.02", "per": 60}]}
    """
    settings_for_command()
    format = load_format(format_name)
    tariff = _tariff(tariff_file, _zone(time_zone))
    failed = 0
    with opened(usage_file) as stream:
        for record in read_records(stream, format, time_zone=time_zone, name=Path(usage_file).name):
            told = rated(record, tariff)
            failed += "problem" in told
            tell_json(told)
    if failed:
        note(f"{failed} records cannot be rated; their lines say why.")


def rated(record: UsageRecord | UnreadableRecord, tariff: Tariff) -> dict[str, Any]:
    """What a record costs, or why that cannot be said."""
    about = {"source": record.source, "record_id": record.record_id}
    if isinstance(record, UnreadableRecord):
        where = {"position": record.position, "field": record.field}
        return {**about, **where, "problem": record.reason, "detail": record.detail}
    about |= {"usage_type": record.usage_type, "direction": record.direction}
    published = tariff.published
    if record.started_at < published.valid_from:
        return {
            **about,
            "problem": "before_tariff",
            "detail": "the tariff is not valid yet when the record starts",
        }
    found = tariff.find(record.usage_type, record.direction, record.counterpart)
    if found is None:
        return {**about, "problem": "no_rate", "detail": "no rate of the tariff is for this record"}
    return {**about, **_working(record, found, published)}


def _working(record: UsageRecord, found: CompiledRate, published: TariffPublished) -> dict[str, Any]:
    billed = found.billed(record.quantity)
    charge = found.rate(billed)
    used = Fraction(billed * found.num, found.den)
    fee = Fraction(found.fee if billed else 0, found.den)
    return {
        "quantity": record.quantity,
        "billed": billed,
        "tariff": published.tariff,
        "rate": found.index,
        "prefix": found.prefix,
        "zone": found.zone,
        "currency": published.currency,
        "components": [
            {"component": "usage", "price": published.rates[found.index].price,
             "per": published.rates[found.index].per, "exact": _exact(used)},
            {"component": "connect_fee", "exact": _exact(fee)},
        ],
        "unrounded": _exact(Fraction(*charge.exact)),
        "rounding": {"method": published.method, "decimals": published.decimals},
        "amount": f"{Decimal(charge.amount) / MICRO:.{published.decimals}f}",
    }  # fmt: skip


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
    digits = f"{(amount * 10**places).numerator:0{places + 1}d}"
    return f"{digits[:-places]}.{digits[-places:]}" if places else digits


def _tariff(file: BinaryIO, zone: ZoneInfo) -> Tariff:
    try:
        definition = msgspec.json.decode(file.read(), type=TariffDefinition)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DefinitionError(f"{file.name}: the tariff cannot be used: {error}") from error
    command = tariff_command(definition, zone)
    try:
        check_tariff(command)
    except Refused as refused:
        raise DefinitionError(f"{file.name}: the tariff cannot be used: {refused}") from refused
    return Tariff(
        TariffPublished(
            *(command.tariff, 1, command.valid_from, command.currency),
            *(command.method, command.decimals, command.rates),
        )
    )


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise click.BadParameter(f"{name!r} is not a time zone; use a name such as Europe/London") from None
