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
from .tariff_file import RateDefinition, ZoneDefinition

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

    usage_type: str
    percent: Percent
    zone: str = ""
    direction: Literal["", "outbound", "inbound"] = ""
    fees: bool = False


class OwnRatesDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """All that a customer has of its own from a day on; nothing in it lifts what there was."""

    valid_from: str
    rates: tuple[RateDefinition, ...] = ()
    discounts: tuple[DiscountDefinition, ...] = ()
    zones: tuple[ZoneDefinition, ...] = ()
    note: str = ""
    schema: str = field(default="", name="$schema")


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
