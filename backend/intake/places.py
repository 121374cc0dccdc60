"""Places: the text that stands at some place in a row, whatever kind of row it is.

A text is compiled once per file to a function of the row. Where a place holds nothing the text is
"". What a place must not hold raises `Unvouched`, which names the column and never what it held.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Any, Literal

from .declaration import Place, Places, columns_of, places_of

TEXT_MAX = 200
"""Characters in an id, a number or an attribute."""

_INTEGER = re.compile("-?[0-9]{1,10}")

Text = Callable[[Any], str]
"""Row -> the text at some place in it, "" where there is none."""
Locate = Callable[[str], Text]
"""Column or path -> how to read it."""


class Unvouched(Exception):
    """A row that cannot become a record."""

    def __init__(self, reason: str, field: str, detail: str) -> None:
        super().__init__(reason, field, detail)
        self.reason = reason
        self.field = field
        self.detail = detail


def cell_at(index: int) -> Text:
    """The text of one cell of a CSV row."""
    return lambda cells: cells[index].strip()


def nothing(_: Any) -> str:
    """The text of a column that the file does not have."""
    return ""


def member_at(path: str) -> Text:
    """The text at a path in a JSON object. Numbers in a path count the members of lists."""
    keys = path.split(".")

    def member(node: Any) -> str:
        for key in keys:
            node = _member(node, key)
        return scalar(node, path)

    return member


def _member(node: Any, key: str) -> Any:
    if isinstance(node, dict):
        return node.get(key)
    if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
        return node[int(key)]
    return None


def scalar(value: Any, path: str) -> str:
    """The text of a JSON value that is not a list or an object."""
    if isinstance(value, str):
        return value.strip()
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) < 10**40:
        return str(value)
    raise Unvouched("bad_value", path, f"{path} must be a text or a number")


def text_at(places: Places, locate: Locate) -> Text:
    """The text of the first of several places that holds one."""
    readers = [_place(place, locate) for place in places_of(places)]
    if len(readers) == 1:
        return readers[0]
    if len(readers) == 2:
        one, other = readers
        return lambda row: one(row) or other(row)

    def first(row: Any) -> str:
        for reader in readers:
            if text := reader(row):
                return text
        return ""

    return first


def _place(place: Place, locate: Locate) -> Text:
    read = _located(place, locate)
    if place.address:
        read = _addressed(read, place.address, label(place))
    if place.pattern:
        read = _matched(read, place.pattern)
    if place.table is not None:
        read = _translated(read, place.table, label(place))
    return _digested(read) if place.digest else read


def _located(place: Place, locate: Locate) -> Text:
    if (constant := place.constant) is not None:
        return lambda row: constant
    readers = [locate(column) for column in columns_of(place)]
    if len(readers) == 1:
        return readers[0]
    if place.smallest:
        return lambda row: min((text for reader in readers if (text := reader(row))), default="")
    if len(readers) == 2:
        return _two(readers[0], readers[1], place.join)
    return lambda row: place.join.join(text for reader in readers if (text := reader(row)))


def _two(first: Text, second: Text, join: str) -> Text:
    def both(row: Any) -> str:
        one, other = first(row), second(row)
        return f"{one}{join}{other}" if one and other else one or other

    return both


def _addressed(read: Text, form: str, column: str) -> Text:
    order: Literal["little", "big"] = "little" if form == "ipv4_low_byte_first" else "big"

    def addressed(row: Any) -> str:
        text = read(row)
        if text in ("", "0"):
            return ""
        if not _INTEGER.fullmatch(text) or not -(2**31) <= int(text) < 2**32:
            raise Unvouched("bad_value", column, f"{column} is not an address written as an integer")
        return ".".join(map(str, (int(text) % 2**32).to_bytes(4, order)))

    return addressed


def _matched(read: Text, pattern: str) -> Text:
    search = re.compile(pattern).search

    def matched(row: Any) -> str:
        found = search(read(row))
        return (found.group(1) or "").strip() if found else ""

    return matched


def _translated(read: Text, table: dict[str, str], column: str) -> Text:
    def translated(row: Any) -> str:
        if not (text := read(row)):
            return ""
        if (meaning := table.get(text)) is None:
            raise Unvouched(
                "bad_value", column, f"{column} is not one of {', '.join(table)}; extend its table"
            )
        return meaning

    return translated


def _digested(read: Text) -> Text:
    return lambda row: hashlib.sha256(text.encode()).hexdigest()[:32] if (text := read(row)) else ""


def label(places: Places) -> str:
    """What an error calls a place: the first column it reads."""
    columns = [column for place in places_of(places) for column in columns_of(place)]
    return columns[0] if columns else "a constant"


def required(text: str, column: str) -> str:
    """The text, which must not be empty."""
    if not text:
        raise Unvouched("missing_field", column, f"{column} is empty or missing")
    return fitting(text, column)


def fitting(text: str, column: str) -> str:
    """The text, which must be one that can be stored."""
    if len(text) > TEXT_MAX:
        raise Unvouched("bad_value", column, f"{column} is longer than {TEXT_MAX} characters")
    if "\0" in text:
        raise Unvouched("bad_value", column, f"{column} holds a NUL character")
    return text


def one_of(read: Text, column: str, known: tuple[str, ...]) -> Text:
    """A text that must be one of those known."""

    fine = frozenset(known)

    def checked(row: Any) -> str:
        text = read(row)
        if text not in fine:
            required(text, column)
            raise Unvouched("bad_value", column, f"{column} is not one of {', '.join(known)}")
        return text

    return checked
