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
    END,
    TIME_FORMATS,
    UNITS,
    Blocks,
    Csv,
    Fields,
    Format,
    Json,
    Legs,
    Pairs,
    Place,
    Places,
    Times,
    all_places,
    columns_of,
    layouts,
    places_of,
    referenced,
    terms_of,
    time_names,
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
    if format.pairs:
        yield from _pair_problems(format, format.pairs)
    yield from _kind_problems(format)
    region = format.numbers.region
    if region and not re.fullmatch("[A-Z]{2}", region):
        yield "numbers.region", f"{region!r} is not a country of two capital letters, such as GB"
    if any(mark.isdigit() or mark in "+ " for mark in format.numbers.masked):
        yield "numbers.masked", 'a digit, a plus or a space cannot stand for a secret digit; write "*x"'
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
    if place.smallest and not isinstance(place.at, list):
        yield "smallest needs several columns in at"
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
    names = time_names(times)
    for where, name in _time_references(format):
        if name not in names:
            yield where, f"{name!r} is not a time; times.at has {', '.join(names)}"
    yield from _derived_problems(times)


def _derived_problems(times: Times) -> Problems:
    for name, derived in times.derived.items():
        where = f"times.derived.{name}"
        if name in times.at:
            yield where, "stands in times.at already; name it otherwise"
        if derived.start not in times.at:
            yield where, f"{derived.start!r} is not in times.at, which has {', '.join(times.at)}"
        if not derived.plus and not derived.minus:
            yield where, "adds and takes nothing; give plus or minus"
        if UNITS.get(derived.unit, ("",))[0] != "second":
            yield where, f"{derived.unit!r} is not a unit of time"


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
    both = format.legs is not None and quantity.at is not None and not quantity.sum
    if (quantity.at is not None) + bool(quantity.sum) + (spans and not both) != 1:
        yield "quantity", "give one of at, sum, and from with to; with legs, at besides from and to"
    if (quantity.start is None) != (quantity.end is None):
        yield "quantity", "from and to go together"
    if spans and not both and quantity.unit is not None:
        yield "quantity.unit", "a span between times has no unit; leave it out"
    if quantity.times < 1 or any(term.times < 1 for term in terms_of(quantity)):
        yield "quantity", "times must be at least 1"
    if quantity.times != 1 and quantity.at is None:
        yield "quantity.times", "belongs to at; in a sum, give it to each column"
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
    if csv.type_row and csv.header == "no":
        yield "csv.type_row", 'stands after a header, and header is "no"'
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


def _kind_problems(format: Format) -> Problems:
    for kind, settings, empty in (
        ("csv", format.csv, Csv()),
        ("json", format.json, Json()),
        ("blocks", format.blocks, Blocks()),
    ):
        # NDJSON takes what JSON has for its objects, as there is nothing else to say of it.
        if kind != format.kind and not (kind == "json" and format.kind == "ndjson") and settings != empty:
            yield kind, f"says something of {kind}, but the kind is {format.kind}; leave it out"
    if format.kind == "ndjson" and (format.json.list or format.json.single):
        yield "json", "in NDJSON each line is a record; leave out list and single"
    if len(format.blocks.separator) != 1 or len(format.blocks.quote) > 1 or not format.blocks.title:
        yield "blocks", "needs a separator of one character, a quote of at most one, and a title"
    if format.kind == "blocks" and not _encoding_fits(format.blocks.encoding):
        yield "blocks.encoding", f"{format.blocks.encoding!r} is not an encoding that extends ASCII"


def _pair_problems(format: Format, pairs: Pairs) -> Problems:
    if format.kind == "json":
        yield "pairs", "needs rows that come one by one; send NDJSON"
    if format.legs:
        yield "pairs", "and legs exclude each other: a leg is one row"
    if not pairs.begins or not pairs.ends or not all([*pairs.begins.values(), *pairs.ends.values()]):
        yield "pairs", "give begins and ends, each with a column and its texts"
    if not pairs.same:
        yield "pairs.same", "names no column in which both rows agree"
    if len(pairs.crossed) not in (0, 2):
        yield "pairs.crossed", "needs two columns"
    if pairs.window_rows < 1:
        yield "pairs.window_rows", "must be at least 1"
    if not any(column.startswith(END) for _, places in all_places(format) for column in _read_by(places)):
        yield "pairs", f"nothing is read of the row that ends a record; write {END}COLUMN"


def _read_by(places: Places) -> list[str]:
    return [column for place in places_of(places) for column in columns_of(place)]


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
