"""Lines of a bulk as a sheet: CSV with the same columns in and out.

    action,source,target,usage_type,quantity,period,note
    allocate,acme,sales,data,2 GB,,for the trade fair
    cap,,apac,voice,90000,,

The first row names the columns, in any order; comma or semicolon. A quantity is a whole number in the
usage type's unit, or has a unit of its own, such as 2 GB or 90 min. A cap without one is lifted.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from .refusals import Refused
from .running import ACTIONS, BAD_LINES_TOLD_MAX, LINES_MAX, Line

COLUMNS = ("action", "source", "target", "usage_type", "quantity", "period", "note")
REQUIRED = ("action", "target")
UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "s": 1,
    "min": 60,
    "h": 3600,
}
T = TypeVar("T")
_QUANTITY = re.compile(r"([0-9]{1,19})\s*([a-z]{0,3})", re.IGNORECASE)


def lines_of(text: str, period: str = "") -> tuple[Line, ...]:
    """The lines of a CSV; refuses it with every row that cannot be read. `period`: of rows without."""
    return read(text, COLUMNS, REQUIRED, LINES_MAX, lambda told: line_of(told, period))


def read(
    text: str, columns: Sequence[str], required: Sequence[str], most: int, line: Callable[[dict[str, str]], T]
) -> tuple[T, ...]:
    """What `line` makes of each row's cells by their columns; refused with every row it refuses."""
    rows = text.removeprefix("\ufeff").splitlines()
    heading = rows[0] if rows else ""
    delimiter = ";" if heading.count(";") > heading.count(",") else ","
    names = [name.strip().lower() for name in heading.split(delimiter)]
    if set(names) - set(columns) or not set(required) <= set(names) or len(set(names)) != len(names):
        raise Refused("bad_heading", heading=heading[:100], known=list(columns))
    if len(rows) - 1 > 2 * most:
        raise Refused("too_many_lines", lines=len(rows) - 1, lines_max=most)
    lines: list[T] = []
    bad: list[dict[str, Any]] = []
    for number, row in enumerate((row for row in csv.reader(rows[1:], delimiter=delimiter) if any(row)), 1):
        try:
            if len(row) != len(names):
                raise Refused("bad_row", columns=len(row), expected=len(names))
            lines.append(line(dict(zip(names, map(str.strip, row), strict=True))))
        except Refused as refusal:
            bad.append({"line": number, "code": refusal.code, "facts": refusal.facts})
    check(bad)
    return tuple(lines)


def check(bad: Sequence[dict[str, Any]]) -> None:
    if bad:
        told = list(bad[:BAD_LINES_TOLD_MAX])
        raise Refused("bad_lines", count=len(bad), lines=told, first=bad[0]["line"], why=bad[0]["code"])


def line_of(told: dict[str, str], period: str = "") -> Line:
    action: Any = told.get("action", "").lower()
    if action not in ACTIONS:
        raise Refused("unknown_action", action=action, known=list(ACTIONS))
    return Line(
        action,
        told.get("source", ""),
        told.get("target", ""),
        told.get("usage_type", "").lower(),
        quantity_of(told.get("quantity", "")),
        told.get("period", "") or period,
        told.get("note", ""),
    )


def quantity_of(text: str) -> int | None:
    """A whole number, with a unit or without."""
    if not text:
        return None
    found = _QUANTITY.fullmatch(text)
    unit = found[2].lower() if found else ""
    if found is None or (unit and unit not in UNITS):
        raise Refused("bad_quantity", quantity=text[:50], example="90000, 2 GB or 90 min")
    return int(found[1]) * UNITS.get(unit, 1)


def csv_of(lines: Sequence[Line]) -> Iterator[str]:
    """The same lines as CSV, with its heading."""
    return rows_of(COLUMNS, map(_row, lines))


def rows_of(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Rows of cells as CSV, with its heading."""
    told: list[str] = []

    class Sink:
        def write(self, row: str) -> None:
            told.append(row)

    writer = csv.writer(Sink(), lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return iter(told)


def _row(line: Line) -> tuple[object, ...]:
    quantity = "" if line.quantity is None else line.quantity
    ends = (line.action, line.source, line.target)
    return (*ends, line.usage_type, quantity, line.period, line.note)
