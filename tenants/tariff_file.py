"""Tariff files: a tariff version as a carrier writes it, in JSON. `docs/tariffs.md` explains each key.

One format for definition files, the command line and the API. What it says becomes the command that
publishes the version; what cannot be used is told with its path, its value and a remedy.
"""

import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta, Struct, field

from ..domain.calendar import midnight
from ..domain.rating.checking import SECOND_UNIT
from ..domain.rating.language import DAY_MINUTES, Band, Day, Method, Span, Window, Zone
from ..domain.refusals import Refused
from ..domain.tariff import PublishTariff, Rate, check_tariff
from ..domain.usage import USAGE_TYPES
from .definition import DefinitionError, parse, wrong
from .plan_definition import FeeDefinition, PlanDefinition, fees_of, plans_of

CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00")
SCHEMA_ID = "urn:allotment:tariff:1"

Price = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,9}(\.[0-9]{1,12})?$",
        description="An exact amount as text, in the tariff's currency.",
        examples=["0.05"],
    ),
]
Units = Annotated[int, Meta(ge=1, le=10**12)]
Clock = Annotated[str, Meta(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$", examples=["08:00"])]


def _said(description: str) -> Meta:
    return Meta(description=description)


class BandDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """What holds from a unit of a usage on."""

    starts: Annotated[Units, _said("The first unit, counted from 0: the second after which it holds.")] = (
        field(name="from")
    )
    price: Price
    per: Annotated[Units | None, _said("So many units cost `price`; as the rate, if left out.")] = None
    increment: Annotated[Units | None, _said("Billed in so many units; as the rate, if left out.")] = None
    minimum: Annotated[int, _said("Of the units billed in this band, once it is entered.")] = 0


class RateDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a tariff: what usage costs, and which usage."""

    usage_type: Annotated[str, _said("voice, data, messaging, video, or a type of the carrier's own.")]
    zone: Annotated[str, _said("What bills call it; a zone of the tariff with prefixes stands for those.")]
    price: Price
    per: Annotated[Units, _said("So many units cost `price`: 60 for a price per minute.")] = 1
    prefix: Annotated[str, _said('What the other number begins with: "+44". The longest wins.')] = ""
    direction: Annotated[Literal["", "outbound", "inbound"], _said('"" is both.')] = ""
    increment: Annotated[Units, _said("Billed in so many units, the last one begun.")] = 1
    minimum: Annotated[int, _said("So many units are billed at least.")] = 0
    connect_fee: Annotated[Price, _said("Charged once, with the first unit that costs anything.")] = "0"
    included: Annotated[bool, _said("Whether the allowance covers it.")] = True
    origin: Annotated[str, _said("A zone that the serving network, or else the own number, is in.")] = ""
    window: Annotated[str, _said('A window of the tariff; "" is at any other time.')] = ""
    across: Annotated[
        Literal["", "start", "split", "report"],
        _said(
            "What goes on into another window: rated as at its start, or split there (what is counted in "
            "seconds), or by what its session reports (all else). Else the tariff says."
        ),
    ] = ""
    bands: tuple[BandDefinition, ...] = ()
    minimum_charge: Annotated[str, _said("A use that costs anything costs this at least.")] = ""
    maximum_charge: Annotated[str, _said("A use costs this at most.")] = ""
    at_maximum: Annotated[
        Literal["free", "end"], _said("What is beyond the maximum charge is free, or the session ends.")
    ] = "free"
    percent: Annotated[str, _said("So many per cent of the record's attribute `value` are added.")] = ""
    times: Annotated[
        Literal["", "segments", "participants"], _said("The attribute that multiplies what is billed.")
    ] = ""
    blocked: Annotated[bool, _said("Nothing is offered there, whatever a shorter prefix costs.")] = False
    plan: Annotated[str, _said("A plan of the tariff, in which what no allowance covers counts.")] = ""

    def rate(self, across: str) -> Rate:
        return Rate(
            *(self.usage_type, self.zone, self.price, self.per, self.prefix, self.direction),
            *(self.increment, self.minimum, self.connect_fee, self.included, self.origin, self.window),
            (self.across or across) == "split",
            tuple(map(self._band, self.bands)),
            *(self.minimum_charge, self.maximum_charge, self.at_maximum == "end", self.percent, self.times),
            self.blocked,
            self.plan,
            self.across == "report",
        )

    def _band(self, band: BandDefinition) -> Band:
        per, increment = band.per or self.per, band.increment or self.increment
        return Band(band.starts, band.price, per, increment, band.minimum)


class ZoneDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers that begin alike and networks, by one name."""

    name: str
    prefixes: Annotated[tuple[str, ...], _said('Of public numbers, each with its "+".')] = ()
    networks: Annotated[tuple[str, ...], _said('MCC-MNC: "234-15", or "234" for all of a country.')] = ()


class SpanDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """Hours of some days by the clock on the wall."""

    days: Annotated[tuple[Day, ...], _said("None: every day. A holiday is no day of the week.")] = ()
    begins: Clock = field(default="00:00", name="from")
    ends: Annotated[Clock, _said("Before `from`: on the day after.")] = field(default="24:00", name="to")


class WindowDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """Times at which other prices hold. Of two that contain a moment the first counts."""

    name: str
    spans: tuple[SpanDefinition, ...]


class Rounding(Struct, frozen=True, forbid_unknown_fields=True):
    """Once per charge."""

    method: Method = "half_up"
    decimals: Annotated[int, Meta(ge=0, le=6)] = 4


class TariffDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """A tariff version."""

    id: str
    valid_from: Annotated[str, _said("The first day it holds: 2026-11-01.")]
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$", examples=["EUR"])]
    rates: tuple[RateDefinition, ...]
    rounding: Rounding = Rounding()
    zones: tuple[ZoneDefinition, ...] = ()
    windows: tuple[WindowDefinition, ...] = ()
    holidays: Annotated[tuple[str, ...], _said('"2026-12-25", or "12-25" in every year.')] = ()
    time_zone: Annotated[str, _said("Of dates, windows and holidays; the tenant's own, if left out.")] = ""
    across: Annotated[
        Literal["start", "split"],
        _said("For rates that leave it out: usage in seconds that goes on into another window."),
    ] = "start"
    plans: tuple[PlanDefinition, ...] = ()
    fees: tuple[FeeDefinition, ...] = ()
    schema: Annotated[str, _said("For your editor; of no meaning here.")] = field(default="", name="$schema")


def parse_tariff(text: bytes) -> TariffDefinition:
    return parse(text, TariffDefinition, "the tariff")


def tariff_command(tariff: TariffDefinition, zone: ZoneInfo, path: str = "") -> PublishTariff:
    """The command that publishes it. `zone` is the tenant's, `path` where it stands in a larger file."""
    own = _zone(f"{path}time_zone", tariff.time_zone) if tariff.time_zone else zone
    return PublishTariff(
        tariff.id,
        midnight(_date(f"{path}valid_from", tariff.valid_from), own),
        tariff.currency,
        tuple(rate.rate(_across(rate, tariff)) for rate in tariff.rates),
        tariff.rounding.method,
        tariff.rounding.decimals,
        tuple(Zone(one.name, one.prefixes, one.networks) for one in tariff.zones),
        tuple(_window(f"{path}windows[{place}]", one) for place, one in enumerate(tariff.windows)),
        tariff.holidays,
        tariff.time_zone,
        plans_of(tariff.plans),
        fees_of(tariff.fees),
    )


def usable_tariff(text: bytes, zone: ZoneInfo, units: Mapping[str, str] = USAGE_TYPES) -> PublishTariff:
    """A tariff file as a command that the rules would carry out, where there are these usage types."""
    command = tariff_command(parse_tariff(text), zone)
    try:
        check_tariff(command, units)
    except Refused as refused:
        raise DefinitionError(f"the tariff cannot be used: {refusal_told(refused)}") from refused
    return command


def refusal_told(refused: Refused) -> str:
    """A refusal of the rules in the words of the file."""
    facts = refused.facts
    where, value = path_in_file(str(facts.get("field", ""))), facts.get("value", "")
    if where.endswith((".across", ".at_maximum")):
        meant = "report" if facts["field"].endswith(".by_reports") else "split"
        said = {".across": {"True": meant}, ".at_maximum": {"True": "end"}}
        value = said[where[where.rindex(".") :]].get(value, "start")
    return str(wrong(where, value, str(facts.get("remedy", refused.code))))


def path_in_file(path: str) -> str:
    """Where a field of the command stands in the file."""
    names = {"tariff": "id", "decimals": "rounding.decimals"}
    path = names.get(path, path)
    return re.sub(r"\.(split|by_reports)$", ".across", re.sub(r"\.ends$", ".at_maximum", path))


def tariff_schema() -> dict[str, Any]:
    """The JSON Schema of tariff files, for editors."""
    return schema_of(TariffDefinition, SCHEMA_ID)


def schema_of(kind: type[Struct], ident: str) -> dict[str, Any]:
    """The JSON Schema of files of one kind."""
    _, parts = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    named = {name.removesuffix("Definition"): _plain(part) for name, part in parts.items()}
    whole = named.pop(kind.__name__.removesuffix("Definition"))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ident,
        **whole,
        "$defs": dict(sorted(named.items())),
    }


def tariff_schema_document() -> str:
    """The same as a file."""
    return as_document(tariff_schema())


def as_document(schema: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def _plain(part: Any) -> Any:
    """References without the ending that our own names have."""
    if isinstance(part, dict):
        return {name: _plain(told) for name, told in part.items()}
    if isinstance(part, list):
        return [_plain(told) for told in part]
    return part.removesuffix("Definition") if isinstance(part, str) else part


def _across(rate: RateDefinition, tariff: TariffDefinition) -> str:
    """The tariff's choice is about what can be split: what is counted in seconds, where there are windows."""
    split = tariff.windows and USAGE_TYPES.get(rate.usage_type) == SECOND_UNIT
    return tariff.across if split else "start"


def _window(path: str, window: WindowDefinition) -> Window:
    spans = (
        Span(
            span.days,
            _minute(f"{path}.spans[{place}].from", span.begins),
            _minute(f"{path}.spans[{place}].to", span.ends),
        )
        for place, span in enumerate(window.spans)
    )
    return Window(window.name, tuple(spans))


def _minute(path: str, text: str) -> int:
    if not CLOCK.fullmatch(text):
        raise wrong(path, text, 'a time of day such as "08:00", or "24:00"')
    hour, minute = map(int, text.split(":"))
    return min(hour * 60 + minute, DAY_MINUTES)


def _date(path: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise wrong(path, text, "a date such as 2026-11-01") from None


def _zone(path: str, name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise wrong(path, name, "a time zone such as Europe/London") from None
