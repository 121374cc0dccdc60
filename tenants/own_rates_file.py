"""Own-rates files: what one customer has agreed on over the carrier's base tariff, in JSON.

    {"valid_from": "2026-12-01",
     "rates": [{"usage_type": "voice", "zone": "UK", "prefix": "+44", "price": "0.01", "per": 60}],
     "discounts": [{"usage_type": "voice", "percent": "12.5", "zone": "France"}]}

Rates and zones are written as in a tariff file. The base is not named: it is whatever the tenant's
tariff is at each moment, and stays in the tenant's own log.
"""

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from msgspec import Meta, Struct, field

from ..domain.calendar import midnight
from ..domain.rating.language import Zone
from ..domain.rating.overriding import Discount, OverrideRates, Overrides
from .definition import parse, wrong
from .tariff_file import RateDefinition, ZoneDefinition, as_document, schema_of

SCHEMA_ID = "urn:allotment:own-rates:1"


def _said(description: str) -> Meta:
    return Meta(description=description)


Percent = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,3}(\.[0-9]{1,2})?$",
        description="Off the price, at most 100, with at most two decimals.",
        examples=["12.5"],
    ),
]


class DiscountDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """So much off what the base says, for what has no own rate."""

    usage_type: Annotated[str, _said("voice, data, messaging, video, or a type of the carrier's own.")]
    percent: Percent
    zone: Annotated[str, _said("Of the base; left out: every zone that no other discount names.")] = ""
    direction: Annotated[Literal["", "outbound", "inbound"], _said('"" is both.')] = ""
    fees: Annotated[bool, _said("Whether connect fees are lowered too.")] = False


class OwnRatesDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """All that a customer has of its own from a day on; nothing in it lifts what there was."""

    valid_from: Annotated[str, _said("The first day they hold: 2026-11-01.")]
    rates: Annotated[
        tuple[RateDefinition, ...],
        _said("In place of the base's for the same usage, or of all of a zone; else in addition."),
    ] = ()
    discounts: tuple[DiscountDefinition, ...] = ()
    zones: Annotated[tuple[ZoneDefinition, ...], _said("Of one's own, for one's own rates.")] = ()
    note: Annotated[str, _said("For the history. No personal data: it cannot be erased.")] = ""
    schema: Annotated[str, _said("For your editor; of no meaning here.")] = field(default="", name="$schema")


def own_rates_schema_document() -> str:
    """The JSON Schema of these files, for editors."""
    return as_document(schema_of(OwnRatesDefinition, SCHEMA_ID))


def parse_own_rates(text: bytes) -> OwnRatesDefinition:
    return parse(text, OwnRatesDefinition, "the file of own rates")


def own_rates_command(told: OwnRatesDefinition, zone: ZoneInfo, note: str = "") -> OverrideRates:
    try:
        valid_from = midnight(date.fromisoformat(told.valid_from), zone)
    except ValueError:
        raise wrong("valid_from", told.valid_from, "a date such as 2026-11-01") from None
    return OverrideRates(overrides_of(told), valid_from, note or told.note)


def overrides_of(told: OwnRatesDefinition) -> Overrides:
    return Overrides(
        tuple(rate.rate("start") for rate in told.rates),
        tuple(
            Discount(one.usage_type, int(Decimal(one.percent) * 100), one.zone, one.direction, one.fees)
            for one in told.discounts
        ),
        tuple(Zone(one.name, one.prefixes, one.networks) for one in told.zones),
    )
