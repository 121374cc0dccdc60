"""Mapping: what makes a usage record of the cells of one row, compiled once per file.

A row either becomes a record that mediation vouches for, or raises `Unvouched` with the reason.
Reasons name columns and durations, never the parties.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from ...domain.usage import MONEY, NAME, USAGE_TYPES, UsageRecord
from .declaration import Format, Place, Places, places_of, referenced, time_names
from .legs import Leg
from .moments import Moments, moments_reader, started_at_reader
from .parties import parties_reader
from .places import (
    TEXT_MAX,
    Locate,
    Text,
    Unvouched,
    fitting,
    label,
    nothing,
    one_of,
    required,
    scalar,
    text_at,
)
from .quantities import quantity_reader

ATTRIBUTES_MAX = 32


class Mapping(NamedTuple):
    """The compiled format for one layout of rows."""

    read: Callable[[Any], UsageRecord | Leg]
    ignores: Callable[[Any], bool] | None
    identity: Text
    """Of an unreadable row: its record's id, with the leg's where there are legs. "" where unknown."""
    source: Text


def compiled(format: Format, locate: Locate, time_zone: str, source: str) -> Mapping:
    """`locate` gives the text of a column. `source` counts where the record names none."""
    fields = format.fields
    record_id = _record_id(format, locate)
    source_of = _source(format, locate, source)
    usage_type_of = _usage_type(fields.usage_type, locate)
    moments_of = moments_reader(format, locate, time_zone)
    started_at_of = started_at_reader(format)
    quantity_of = quantity_reader(format, locate)
    parties_of = parties_reader(format, locate)
    attributes_of = _attributes(format, locate)
    closed = _closed(format)

    leg_of = _leg(format, locate)

    def read(row: Any) -> UsageRecord | Leg:
        if closed is not None:
            closed(row)
        moments = moments_of(row)
        record = record_id(row)
        usage_type = usage_type_of(row)
        quantity = quantity_of(row, usage_type, moments)
        line, direction, counterpart = parties_of(row)
        made = UsageRecord(
            source_of(row), record, line, usage_type, quantity, started_at_of(moments),
            direction, counterpart, attributes_of(row) if attributes_of is not None else (),
        )  # fmt: skip
        return made if leg_of is None else leg_of(row, made, moments)

    return Mapping(
        read=read,
        ignores=_ignores(format, locate),
        identity=_identity(format, locate, record_id),
        source=source_of,
    )


def _record_id(format: Format, locate: Locate) -> Text:
    column = label(format.fields.id)
    own = text_at(format.fields.id, locate)
    apart = [locate(name) for name in format.legs.apart] if format.legs else []
    if not any(reader is not nothing for reader in apart):
        return _required_at(own, column)

    def record_id(row: Any) -> str:
        parts = [required(own(row), column), *filter(None, (reader(row) for reader in apart))]
        return fitting("/".join(map(_part, parts)), column) if len(parts) > 1 else parts[0]

    return record_id


def _required_at(read: Text, column: str) -> Text:
    def found(row: Any) -> str:
        text = read(row)
        return text if 0 < len(text) <= TEXT_MAX and "\0" not in text else required(text, column)

    return found


def _part(text: str) -> str:
    # Two different lists of parts must never make the same id.
    return text.replace("%", "%25").replace("/", "%2F") if "/" in text or "%" in text else text


def _identity(format: Format, locate: Locate, record_id: Text) -> Text:
    if not format.legs:
        return record_id
    legs = [locate(column) for column in format.legs.leg]

    def identity(row: Any) -> str:
        parts = [reader(row) for reader in legs]
        # Without its own number, a leg is known by its content alone.
        return fitting("/".join([record_id(row), *map(_part, parts)]), "id") if all(parts) else ""

    return identity


def _source(format: Format, locate: Locate, source: str) -> Text:
    default = source or format.source
    if format.fields.source is None:
        return lambda row: default or required("", "source")
    own = text_at(format.fields.source, locate)
    column = label(format.fields.source)
    return lambda row: required(own(row) or default, column)


def _ignores(format: Format, locate: Locate) -> Callable[[Any], bool] | None:
    tests = [(locate(column), frozenset(texts)) for column, texts in format.ignore.items()]
    filled = [locate(column) for column in format.ignore_filled]
    if not tests and not filled:
        return None

    def ignores(row: Any) -> bool:
        for read, texts in tests:
            if read(row) in texts:
                return True
        return any(read(row) for read in filled)

    return ignores


def _closed(format: Format) -> Callable[[Any], None] | None:
    if format.kind == "csv" or not format.json.closed:
        return None
    known = {path.partition(".")[0] for path in referenced(format)}

    def closed(row: dict[str, Any]) -> None:
        for key in row.keys() - known:
            detail = f"a key is not one of {', '.join(sorted(known))}; is it misspelt?"
            raise Unvouched("unknown_field", key[:TEXT_MAX], detail)

    return closed


def _usage_type(places: Places, locate: Locate) -> Text:
    """One of those built in; where a column names the type itself, also one of the carrier's own."""
    read, column = text_at(places, locate), label(places)
    checked = one_of(read, column, tuple(USAGE_TYPES))
    listed = places_of(places)
    if len(listed) == 1 and (constant := listed[0].constant) is not None and not listed[0].table:
        return lambda row: constant
    if any(place.table or place.constant is not None for place in places_of(places)):
        return checked

    usual = frozenset(USAGE_TYPES)

    def usage_type_of(row: Any) -> str:
        text = read(row)
        if text in usual:
            return text
        return text if NAME.fullmatch(text) and text != MONEY else checked(row)

    return usage_type_of


def _attributes(format: Format, locate: Locate) -> Callable[[Any], tuple[tuple[str, str], ...]] | None:
    readers = [(name, text_at(format.attributes[name], locate)) for name in sorted(format.attributes)]
    if format.attributes_at:
        return _open_attributes(format.attributes_at.split("."))
    if not readers:
        return None
    constants = [format.attributes[name] for name, _ in readers]
    if all(isinstance(place, Place) and place.constant is not None for place in constants):
        always = tuple((name, fitting(read(None), name)) for name, read in readers)
        return lambda row: always
    return lambda row: tuple((name, fitting(text, name)) for name, read in readers if (text := read(row)))


def _open_attributes(keys: list[str]) -> Callable[[Any], tuple[tuple[str, str], ...]]:
    column = ".".join(keys)

    def attributes(row: Any) -> tuple[tuple[str, str], ...]:
        for key in keys:
            row = row.get(key) if isinstance(row, dict) else None
        if row is None:
            return ()
        if not isinstance(row, dict) or len(row) > ATTRIBUTES_MAX:
            detail = f"{column} must be an object of at most {ATTRIBUTES_MAX} entries"
            raise Unvouched("bad_value", column, detail)
        pairs = ((required(name, column), scalar(row[name], column)) for name in sorted(row))
        return tuple((name, fitting(text, column)) for name, text in pairs if text)

    return attributes


def _leg(format: Format, locate: Locate) -> Callable[[Any, UsageRecord, Moments], Leg] | None:
    legs, quantity, names = format.legs, format.quantity, time_names(format.times)
    if legs is None:
        return None
    first = names.index(legs.first)
    start, end = names.index(quantity.start or ""), names.index(quantity.end or "")
    order_of = locate(legs.order) if legs.order else nothing

    def leg(row: Any, record: UsageRecord, moments: Moments) -> Leg:
        began, order = moments[first], order_of(row)
        return Leg(
            record,
            record.started_at if began is None else began,
            int(order) if order.isdecimal() and len(order) < 19 else 0,
            moments[start],
            moments[end],
        )

    return leg
