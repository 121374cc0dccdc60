"""Soundness: whether a declared format can be read.

A format that passes has nothing left to go wrong but its input: whatever it names exists, its
patterns compile, its units can be turned into those of its usage types.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from zoneinfo import ZoneInfo

from ...domain.usage import USAGE_TYPES
from .declaration import (
    DIRECTIONS,
    TIME_FORMATS,
    UNITS,
    Fields,
    Format,
    Legs,
    Place,
    Places,
    all_places,
    layouts,
    places_of,
    referenced,
)

Problems = Iterator[tuple[str, str]]
"""The key, and what is wrong with it and what to do."""

ZONES = ("utc", "tenant", "stated")


def problems(format: Format) -> Problems:
    """What keeps the format from being used, if anything."""
    yield from _place_problems(format)
    yield from _party_problems(format.fields)
    yield from _time_problems(format)
    yield from _quantity_problems(format)
    if format.kind == "csv":
        yield from _csv_problems(format)
    if format.legs:
        yield from _leg_problems(format, format.legs)
    region = format.numbers.region
    if region and not re.fullmatch("[A-Z]{2}", region):
        yield "numbers.region", f"{region!r} is not a country of two capital letters, such as GB"
    if format.fields.source is None and not format.source:
        yield "source", "is missing; name the network element, it is half of a record's identity"


def is_zone(name: str) -> bool:
    """Whether the time zone database has this name."""
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        return False
    return True


def _place_problems(format: Format) -> Problems:
    for where, places in all_places(format):
        for place in places_of(places):
            yield from ((where, problem) for problem in _problems_of(place))
    for where, places, known in (
        ("fields.usage_type", format.fields.usage_type, tuple(USAGE_TYPES)),
        ("fields.direction", format.fields.direction, DIRECTIONS),
    ):
        for target in _fixed_texts(places):
            if target not in known:
                yield where, f"{target!r} is not one of {', '.join(known)}"


def _problems_of(place: Place) -> Iterator[str]:
    if (place.at is None) == (place.constant is None):
        yield "give either at or constant"
    if place.at in ("", []) or place.constant == "":
        yield "names nothing"
    if place.pattern:
        try:
            groups = re.compile(place.pattern).groups
        except re.error as error:
            yield f"pattern is not a regular expression: {error}"
        else:
            if groups != 1:
                yield f"pattern has {groups} groups, it needs one; write (?:...) for the others"


def _fixed_texts(places: Places) -> Iterator[str]:
    for place in places_of(places):
        if place.table:
            yield from place.table.values()
        elif place.constant is not None:
            yield place.constant


def _party_problems(fields: Fields) -> Problems:
    pair = fields.caller is not None and fields.called is not None
    if (fields.caller is None) != (fields.called is None):
        yield "fields", "caller and called go together"
    if pair == (fields.line is not None) or (pair and fields.counterpart is not None):
        yield "fields", "give line (and counterpart), or caller and called"


def _time_problems(format: Format) -> Problems:
    times = format.times
    if times.format not in TIME_FORMATS and "%" not in times.format:
        yield "times.format", f"is neither a strptime pattern nor one of {', '.join(TIME_FORMATS)}"
    if times.zone not in ZONES and not is_zone(times.zone):
        yield (
            "times.zone",
            f'{times.zone!r} is not a time zone; write "utc", "tenant" or a name such as Asia/Tokyo',
        )
    if not times.started_at:
        yield "times.started_at", "names no time"
    for where, name in _time_references(format):
        if name not in times.at:
            yield where, f"{name!r} is not a time; times.at has {', '.join(times.at)}"


def _time_references(format: Format) -> Iterator[tuple[str, str]]:
    yield from (("times.started_at", name) for name in format.times.started_at)
    for check in format.checks:
        yield from (("checks.from", check.start), ("checks.to", check.end))
    if format.quantity.start is not None:
        yield "quantity.from", format.quantity.start
    if format.quantity.end is not None:
        yield "quantity.to", format.quantity.end
    if format.legs:
        yield "legs.first", format.legs.first


def _quantity_problems(format: Format) -> Problems:
    quantity = format.quantity
    spans = quantity.start is not None or quantity.end is not None
    if (quantity.at is not None) + bool(quantity.sum) + spans != 1:
        yield "quantity", "give one of at, sum, and from with to"
    if (quantity.start is None) != (quantity.end is None):
        yield "quantity", "from and to go together"
    if spans and quantity.unit is not None:
        yield "quantity.unit", "a span between times has no unit; leave it out"
    usage_types = _usage_types(format)
    if spans and usage_types and not all(USAGE_TYPES[name] == "second" for name in usage_types):
        yield "quantity", "a span between times counts seconds, which this usage type does not"
    yield from _unit_problems(quantity.unit, usage_types)
    for check in format.checks:
        if UNITS.get(check.unit, ("",))[0] != "second":
            yield "checks.unit", f"{check.unit!r} is not a unit of time"


def _usage_types(format: Format) -> list[str]:
    return [name for name in _fixed_texts(format.fields.usage_type) if name in USAGE_TYPES]


def _unit_problems(unit: str | dict[str, str] | None, usage_types: Iterable[str]) -> Problems:
    if unit is None:
        return
    by_type = unit if isinstance(unit, dict) else dict.fromkeys(usage_types, unit)
    for usage_type, name in {**by_type, **({"": unit} if isinstance(unit, str) else {})}.items():
        if name not in UNITS:
            yield "quantity.unit", f"{name!r} is not one of {', '.join(UNITS)}"
        elif usage_type and usage_type not in USAGE_TYPES:
            yield "quantity.unit", f"{usage_type!r} is not one of {', '.join(USAGE_TYPES)}"
        elif usage_type and UNITS[name][0] != USAGE_TYPES[usage_type]:
            yield (
                "quantity.unit",
                f"{name!r} cannot be counted as {usage_type}, in {USAGE_TYPES[usage_type]}s",
            )


def _csv_problems(format: Format) -> Problems:
    csv = format.csv
    for key in ("separator", "quote", "escape"):
        text = getattr(csv, key)
        if len(text) > 1 or not text.isascii() or text in ("\r", "\n") or (key == "separator" and not text):
            yield f"csv.{key}", f"{text!r} is not one ASCII character"
    if not _encoding_fits(csv.encoding):
        yield "csv.encoding", f"{csv.encoding!r} is not an encoding that extends ASCII; export as utf-8"
    if csv.header != "yes" and not csv.columns:
        yield "csv.columns", "name the columns in their order: the file need not have a header"
    if len(set(csv.columns)) != len(csv.columns):
        yield "csv.columns", "a name stands twice"
    for column in (column for group in csv.optional for column in group):
        if column not in csv.columns:
            yield "csv.optional", f"{column!r} is not in csv.columns"
    if csv.columns:
        for column, where in referenced(format).items():
            if column not in csv.columns and column not in csv.header_only:
                yield where, f"{column!r} is not in csv.columns"
    if len(layouts(csv)) != 2 ** len(csv.optional):
        yield "csv.optional", "two choices of columns have the same length, so a row cannot tell which it is"


def _encoding_fits(name: str) -> bool:
    try:
        return codecs.lookup(name).name.isascii() and '\n,;"'.encode(name) == b'\n,;"'
    except (LookupError, ValueError):
        return False


def _leg_problems(format: Format, legs: Legs) -> Problems:
    if format.quantity.start is None:
        yield "quantity", "with legs, give from and to: a call is the union of its legs' spans"
    if not legs.leg:
        yield "legs.leg", "names no column"
    if legs.window_rows < 1:
        yield "legs.window_rows", "must be at least 1"
