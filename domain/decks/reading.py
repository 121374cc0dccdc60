"""Reading: a carrier's rate sheet as CSV, row by row: all of it, or every line that is bad.

Two rows of one prefix may follow each other in time, but never hold at once. A row that begins
later takes over from one without an end.
"""

import csv
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import pairwise
from typing import Any

from msgspec import Struct

from ..refusals import TEXT_MAX, Refused
from .cells import Unfit, day_of, increment_of, prefixes_of, price_of
from .layout import Columns, Layout, Meaning, Names, names_of

ROWS_MAX = 200_000
PREFIXES_MAX = 200_000
HEADING_LINES_MAX = 40
"""A sheet may begin with the carrier's address and greetings; then comes the heading."""
BAD_LINES_TOLD_MAX = 100
EVER, NEVER = date.min, date.max
SHEET_BYTES_MAX = 32 << 20


class Row(Struct, frozen=True):
    """What a sheet says of some prefixes from one day to another."""

    line: int
    destination: str
    prefixes: tuple[str, ...]
    price: str
    minimum: int
    increment: int
    connect_fee: str
    currency: str
    starts_on: date
    """`EVER` where the sheet does not say."""
    ends_on: date
    """The last day; `NEVER` where the sheet does not say."""
    status: Meaning = "plain"

    @property
    def ends(self) -> bool:
        """Whether nothing is offered there while the row holds."""
        return self.status == "removed"


class Sheet(Struct, frozen=True):
    """A sheet that can be used, row by row in its own order."""

    layout: Layout
    rows: tuple[Row, ...]

    @property
    def prefixes(self) -> int:
        return sum(len(row.prefixes) for row in self.rows)


def read_sheet(text: str, layout: Layout, currency: str) -> Sheet:
    """Every row of a CSV; refuses it with every line that cannot be used. `currency`: the tenant's."""
    if len(text) > SHEET_BYTES_MAX:
        raise Refused("bad_sheet", field="csv", remedy=f"at most {SHEET_BYTES_MAX} bytes: split it")
    if "\0" in text:
        raise Refused("bad_sheet", field="csv", remedy="it holds NUL bytes: export it as CSV in UTF-8")
    lines = text.removeprefix("\ufeff").splitlines()
    heading, separator = _heading(lines, layout)
    read = _Reader(layout, _places(lines[heading], separator, layout), currency)
    rows: list[Row] = []
    bad: list[dict[str, Any]] = []
    for number, cells in _cut(lines, heading + 1, separator):
        try:
            rows.append(read.row(number, cells))
        except Unfit as unfit:
            bad.append(_told(number, unfit))
    check_lines(bad)
    check_lines([_told(row.line, unfit) for row, unfit in _contradictions(rows)])
    if not rows:
        raise Refused("bad_sheet", field="csv", remedy="it has no rows below its heading")
    return Sheet(layout, tuple(rows))


def check_lines(bad: Sequence[dict[str, Any]]) -> None:
    if bad:
        told = sorted(bad, key=lambda one: one["line"])[:BAD_LINES_TOLD_MAX]
        raise Refused("bad_deck", count=len(bad), lines=told, first=told[0]["line"])


def _told(line: int, unfit: Unfit) -> dict[str, Any]:
    return {"line": line, "field": unfit.field, "value": unfit.value, "remedy": unfit.remedy}


# --- the heading --------------------------------------------------------------------------------


def _heading(lines: list[str], layout: Layout) -> tuple[int, str]:
    """The line that names the columns, and what separates them."""
    wanted = (names_of(layout.columns.prefix), names_of(layout.columns.price))
    for place, line in enumerate(lines[:HEADING_LINES_MAX]):
        for separator in [layout.separator] if layout.separator else _likely(line):
            names = _names(line, separator)
            if all(any(name in names for name in listed) for listed in wanted):
                return place, separator
    raise Refused(
        "bad_sheet",
        field="csv",
        remedy=f"none of the first {HEADING_LINES_MAX} lines names the columns "
        f"{_first(layout.columns.prefix)} and {_first(layout.columns.price)}: declare your names in a layout",
    )


def _likely(line: str) -> list[str]:
    return sorted((",", ";", "\t", "|"), key=lambda mark: -line.count(mark))


def _names(line: str, separator: str) -> list[str]:
    try:
        cells = next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []
    return [" ".join(cell.lower().split()) for cell in cells]


def _first(names: Names) -> str:
    return names_of(names)[0]


def _places(line: str, separator: str, layout: Layout) -> dict[str, int]:
    """Which cell holds which fact. Of several names the first that the heading has counts."""
    names = _names(line, separator)
    places: dict[str, int] = {}
    for field in Columns.__struct_fields__:
        wanted = names_of(getattr(layout.columns, field))
        found = next(
            (name for name in wanted if name in names and names.index(name) not in places.values()), None
        )
        if found is None:
            continue
        if names.count(found) > 1:
            raise Refused("bad_sheet", field=found, remedy="two columns have this name: rename one")
        places[field] = names.index(found)
    return {"width": len(names), **places}


def _cut(lines: list[str], first: int, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row with its line, counted from 1; rows without any text are nothing."""
    reader = csv.reader(lines[first:], delimiter=separator)
    before = 0
    for count, cells in enumerate(reader):
        if count > ROWS_MAX:
            raise Refused("bad_sheet", field="csv", remedy=f"more than {ROWS_MAX} rows: split it")
        if any(cell.strip() for cell in cells):
            yield first + before + 1, cells
        before = reader.line_num


# --- a row --------------------------------------------------------------------------------------


class _Reader:
    """Reads the rows of one sheet, whose heading is known."""

    def __init__(self, layout: Layout, places: dict[str, int], currency: str) -> None:
        self._layout = layout
        self._width = places.pop("width")
        self._places = places
        self._currency = currency
        self._meanings = layout.statuses.meanings

    def row(self, number: int, cells: list[str]) -> Row:
        width, formats, decimal = self._width, self._layout.date_formats, self._layout.decimal
        if len(cells) < width or any(cell.strip() for cell in cells[width:]):
            remedy = f"{width} cells, as the heading has: a text that holds the separator needs quotes"
            raise Unfit("line", f"{len(cells)} cells", remedy)
        told = {field: cells[place].strip() for field, place in self._places.items()}
        of = told.get
        status = self._meanings.get(" ".join(of("status", "").lower().split()))
        if status is None:
            raise Unfit("status", told["status"], "declare the word in the layout's statuses")
        prefixes = prefixes_of(told["prefix"], of("country_code", ""))
        minimum, increment = _increments(of("increment") or self._layout.increment, of("minimum", ""))
        starts_on = day_of("starts_on", day, formats) if (day := of("starts_on")) else EVER
        ends_on = day_of("ends_on", day, formats) if (day := of("ends_on")) else NEVER
        if ends_on < starts_on:
            remedy = f"the price ends before it starts on {starts_on}: correct one of the two"
            raise Unfit("ends_on", ends_on, remedy)
        return Row(
            number,
            _destination(of("destination") or prefixes[0]),
            prefixes,
            _price(told["price"], status, decimal),
            minimum,
            increment,
            price_of("connect_fee", of("connect_fee") or "0", decimal),
            self._stated(of("currency", "")),
            starts_on,
            ends_on,
            status,
        )

    def _stated(self, currency: str) -> str:
        stated = (currency or self._layout.currency or self._currency).upper()
        if stated != self._currency:
            raise Unfit("currency", stated, f"the tariff is in {self._currency}: ask for a sheet in it")
        return stated


def _destination(text: str) -> str:
    told = " ".join(text.split())
    if not (told.isprintable() and len(told) <= TEXT_MAX):
        raise Unfit("destination", text, f"a name of at most {TEXT_MAX} printable characters")
    return told


def _price(text: str, status: Meaning, decimal: str) -> str:
    if status in ("blocked", "removed"):
        # Sheets leave the old price there, or write a dash: nothing is charged by it.
        return "0"
    return price_of("price", text, decimal)


def _increments(text: str, minimum: str) -> tuple[int, int]:
    if not minimum:
        return increment_of(text)
    return increment_of(f"{minimum}/{text.strip()}" if text.strip().isdigit() else text)


# --- rows that contradict each other ------------------------------------------------------------


def _contradictions(rows: Sequence[Row]) -> Iterator[tuple[Row, Unfit]]:
    """A prefix that two rows price at once; told of the later line."""
    by_prefix: dict[str, Row | list[Row]] = {}
    count = 0
    for row in rows:
        count += len(row.prefixes)
        if count > PREFIXES_MAX:
            raise Refused("bad_sheet", field="csv", remedy=f"more than {PREFIXES_MAX} prefixes: split it")
        for prefix in row.prefixes:
            known = by_prefix.setdefault(prefix, row)
            if known is row:
                continue
            if isinstance(known, Row):
                known = by_prefix[prefix] = [known]
            known.append(row)
    told: set[tuple[int, int]] = set()
    for prefix, several in by_prefix.items():
        if isinstance(several, list):
            for row, other, unfit in _at_once(prefix, several):
                if (row.line, other.line) not in told:
                    told.add((row.line, other.line))
                    yield row, unfit


def _at_once(prefix: str, rows: list[Row]) -> Iterator[tuple[Row, Row, Unfit]]:
    ordered = sorted(rows, key=lambda row: (row.starts_on, row.line))
    for before, after in pairwise(ordered):
        first, later = sorted((before, after), key=lambda row: row.line)
        if before.starts_on == after.starts_on:
            remedy = f"line {first.line} prices it from the same day on: leave one of the two"
            yield later, first, Unfit("prefix", prefix, remedy)
        elif before.ends_on != NEVER and before.ends_on >= after.starts_on:
            remedy = (
                f"lines {before.line} and {after.line} both price it on {after.starts_on}: correct a date"
            )
            yield later, first, Unfit("prefix", prefix, remedy)
