"""Parties: whose usage a row is, in which direction, and who was at the other end.

Numbers are normalised here, once. A text that was seen before costs one look-up: a file names the
same parties again and again.
"""

from collections.abc import Callable
from typing import Any

from .declaration import DIRECTIONS, Format, Numbers, Places, places_of
from .numbers import number_of
from .places import Locate, Text, fitting, label, nothing, one_of, required, text_at

PartiesOf = Callable[[Any], tuple[str, str, str]]
"""Row -> line, direction, counterpart."""

NUMBERS_KEPT = 1 << 18


def parties_reader(format: Format, locate: Locate) -> PartiesOf:
    fields = format.fields
    turns = fields.caller is not None
    own = fields.caller if fields.caller is not None else fields.line
    other = fields.called if turns else fields.counterpart
    assert own is not None, "a format that loads has a line or a caller"
    known: dict[str, str] = {}
    first, first_column = _number_at(own, locate, format.numbers, known), label(own)
    second = nothing if other is None else _number_at(other, locate, format.numbers, known)
    second_column = "" if other is None else label(other)
    direction_of = one_of(text_at(fields.direction, locate), label(fields.direction), DIRECTIONS)

    def parties(row: Any) -> tuple[str, str, str]:
        direction = direction_of(row)
        line, counterpart = first(row), second(row)
        if turns and direction == "inbound":
            return counterpart or required("", second_column), direction, line
        return line or required("", first_column), direction, counterpart

    def outbound(row: Any) -> tuple[str, str, str]:
        return first(row) or required("", first_column), "outbound", second(row)

    return outbound if _is_always(fields.direction, "outbound") else parties


def _is_always(places: Places, text: str) -> bool:
    listed = places_of(places)
    return len(listed) == 1 and listed[0].constant == text and not listed[0].table


def _number_at(places: Places, locate: Locate, numbers: Numbers, known: dict[str, str]) -> Text:
    read, column = text_at(places, locate), label(places)

    def number(row: Any) -> str:
        text = read(row)
        found = known.get(text)
        if found is None:
            if len(known) >= NUMBERS_KEPT:
                known.clear()
            found = number_of(
                fitting(text, column), numbers.region, numbers.extension_digits_max, numbers.masked
            )
            known[text] = fitting(found, column)
        return found

    return number
