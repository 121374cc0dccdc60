"""Mapping: what makes a usage record of the cells of one row, compiled once per file.

A row either becomes a record that mediation vouches for, or raises `Unvouched` with the reason.
Reasons name columns and durations, never the parties.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

from ...domain.usage import MONEY, NAME, USAGE_TYPES, UsageRecord
from .amounts import counted, whole
from .clocks import MICROSECONDS
from .declaration import DIRECTIONS, UNITS, Format, Places, Quantity, places_of, referenced
from .legs import Leg
from .moments import Moments, moments_reader, span, started_at_reader
from .numbers import normal_number
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
    quantity_of = _quantity(format, locate)
    parties_of = _parties(format, locate)
    attributes_of = _attributes(format, locate)
    closed = _closed(format)

    def record_of(row: Any, moments: Moments) -> UsageRecord:
        record = record_id(row)
        usage_type = usage_type_of(row)
        quantity = quantity_of(row, usage_type, moments)
        line, direction, counterpart = parties_of(row)
        return UsageRecord(
            source_of(row), record, line, usage_type, quantity, started_at_of(moments),
            direction, counterpart, attributes_of(row) if attributes_of else (),
        )  # fmt: skip

    leg_of = _leg(format, locate)

    def read(row: Any) -> UsageRecord | Leg:
        if closed is not None:
            closed(row)
        moments = moments_of(row)
        record = record_of(row, moments)
        return leg_of(row, record, moments) if leg_of is not None else record

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
        return lambda row: required(own(row), column)

    def record_id(row: Any) -> str:
        parts = [required(own(row), column), *filter(None, (reader(row) for reader in apart))]
        return fitting("/".join(map(_part, parts)), column) if len(parts) > 1 else parts[0]

    return record_id


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
        return lambda row: required(default, "source")
    own = text_at(format.fields.source, locate)
    column = label(format.fields.source)
    return lambda row: required(own(row) or default, column)


def _ignores(format: Format, locate: Locate) -> Callable[[Any], bool] | None:
    tests = [(locate(column), frozenset(texts)) for column, texts in format.ignore.items()]
    return (lambda row: any(read(row) in texts for read, texts in tests)) if tests else None


def _closed(format: Format) -> Callable[[Any], None] | None:
    if format.kind == "csv" or not format.json.closed:
        return None
    known = {path.partition(".")[0] for path in referenced(format)}

    def closed(row: dict[str, Any]) -> None:
        for key in row.keys() - known:
            detail = f"a key is not one of {', '.join(sorted(known))}; is it misspelt?"
            raise Unvouched("unknown_field", key[:TEXT_MAX], detail)

    return closed


def _quantity(format: Format, locate: Locate) -> Callable[[Any, str, Moments], int]:
    quantity = format.quantity
    if quantity.start is not None and quantity.end is not None:
        return _spanned(quantity, list(format.times.at))
    texts, column = _amount_texts(quantity, locate)
    units = _units(quantity)
    # Of a type of the carrier's own without a declared unit, units are counted.
    usual = "message" if quantity.unit is None else None

    def quantity_of(row: Any, usage_type: str, moments: Moments) -> int:
        try:
            unit = units.get(usage_type, usual)
            if unit is None:
                raise KeyError(usage_type)
            amounts = [counted(text, unit) for read in texts if (text := read(row))]
            if not amounts:
                required("", column)
            return whole(sum(amounts), quantity.round)
        except ValueError as error:
            raise Unvouched("bad_value", column, f"{column} {error}") from error
        except KeyError as error:
            detail = f"{column} has no unit for {usage_type}; declare one in quantity.unit"
            raise Unvouched("bad_value", column, detail) from error

    return quantity_of


def _usage_type(places: Places, locate: Locate) -> Text:
    """One of those built in; where a column names the type itself, also one of the carrier's own."""
    read, column = text_at(places, locate), label(places)
    checked = one_of(read, column, tuple(USAGE_TYPES))
    if any(place.table or place.constant is not None for place in places_of(places)):
        return checked

    def usage_type_of(row: Any) -> str:
        text = read(row)
        return text if NAME.fullmatch(text) and text != MONEY else checked(row)

    return usage_type_of


def _amount_texts(quantity: Quantity, locate: Locate) -> tuple[list[Text], str]:
    if quantity.sum:
        return [locate(column) for column in quantity.sum], quantity.sum[0]
    assert quantity.at is not None, "a format that loads gives one of the three"
    return [text_at(quantity.at, locate)], label(quantity.at)


def _units(quantity: Quantity) -> dict[str, str]:
    """Usage type -> unit of the column, for the usage types that the unit can count."""
    own = {"second": "s", "byte": "byte", "message": "message"}
    if isinstance(quantity.unit, dict):
        return quantity.unit
    units = {usage_type: quantity.unit or own[unit] for usage_type, unit in USAGE_TYPES.items()}
    return {
        usage_type: unit for usage_type, unit in units.items() if UNITS[unit][0] == USAGE_TYPES[usage_type]
    }


def _spanned(quantity: Quantity, names: list[str]) -> Callable[[Any, str, Moments], int]:
    start, end = names.index(quantity.start or ""), names.index(quantity.end or "")

    def quantity_of(row: Any, usage_type: str, moments: Moments) -> int:
        if USAGE_TYPES.get(usage_type) != "second":
            detail = f"a span between times cannot be counted as {usage_type}"
            raise Unvouched("bad_value", quantity.end or "", detail)
        return seconds_of(span(moments[start], moments[end]), quantity)

    return quantity_of


def seconds_of(microseconds: int, quantity: Quantity) -> int:
    """A length of time as a quantity, rounded as the format says."""
    seconds, part = divmod(microseconds, MICROSECONDS)
    try:
        return whole(Fraction(microseconds, MICROSECONDS) if part else seconds, quantity.round)
    except ValueError as error:
        raise Unvouched("bad_value", quantity.end or "", f"the span {error}") from error


def _parties(format: Format, locate: Locate) -> Callable[[Any], tuple[str, str, str]]:
    fields, numbers = format.fields, format.numbers
    turns = fields.caller is not None
    own = fields.caller if fields.caller is not None else fields.line
    other = fields.called if turns else fields.counterpart
    assert own is not None, "a format that loads has a line or a caller"
    first, first_column = text_at(own, locate), label(own)
    second, second_column = (text_at(other, locate), label(other)) if other is not None else (nothing, "")
    direction_of = one_of(text_at(fields.direction, locate), label(fields.direction), DIRECTIONS)

    def number(text: str, column: str) -> str:
        return normal_number(fitting(text, column), numbers.region, numbers.extension_digits_max)

    def parties(row: Any) -> tuple[str, str, str]:
        direction = direction_of(row)
        line, counterpart = number(first(row), first_column), number(second(row), second_column)
        if turns and direction == "inbound":
            return required(counterpart, second_column), direction, line
        return required(line, first_column), direction, counterpart

    return parties


def _attributes(format: Format, locate: Locate) -> Callable[[Any], tuple[tuple[str, str], ...]] | None:
    readers = [(name, text_at(format.attributes[name], locate)) for name in sorted(format.attributes)]
    if format.attributes_at:
        return _open_attributes(format.attributes_at.split("."))
    if not readers:
        return None
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
    legs, quantity, names = format.legs, format.quantity, list(format.times.at)
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
