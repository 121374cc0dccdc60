"""Lines of a bulk as a sheet: CSV with the same columns in and out.

    action,source,target,usage_type,quantity,period,note
    allocate,acme,sales,data,2 GB,,for the trade fair
    cap,,apac,voice,90000,,

The first row names the columns, in any order; comma or semicolon. A quantity is a whole number in the
usage type's unit, or has a unit of its own, such as 2 GB or 90 min. A cap without one is lifted.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from typing import Any

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
_QUANTITY = re.compile(r"([0-9]{1,19})\s*([a-z]{0,3})", re.IGNORECASE)


def lines_of(text: str, period: str = "") -> tuple[Line, ...]:
    """The lines of a CSV; refuses it with every row that cannot be read. `period`: of rows without."""
    rows = text.removeprefix("\ufeff").splitlines()
    heading = rows[0] if rows else ""
    delimiter = ";" if heading.count(";") > heading.count(",") else ","
    names = [name.strip().lower() for name in heading.split(delimiter)]
    if set(names) - set(COLUMNS) or not set(REQUIRED) <= set(names) or len(set(names)) != len(names):
        raise Refused("bad_heading", heading=heading[:100], known=list(COLUMNS))
    if len(rows) - 1 > 2 * LINES_MAX:
        raise Refused("too_many_lines", lines=len(rows) - 1, lines_max=LINES_MAX)
    return _read([row for row in csv.reader(rows[1:], delimiter=delimiter) if any(row)], names, period)


def _read(rows: Sequence[Sequence[str]], names: Sequence[str], period: str) -> tuple[Line, ...]:
    lines: list[Line] = []
    bad: list[dict[str, Any]] = []
    for number, row in enumerate(rows, 1):
        try:
            if len(row) != len(names):
                raise Refused("bad_row", columns=len(row), expected=len(names))
            lines.append(line_of(dict(zip(names, map(str.strip, row), strict=True)), period))
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
    rows: list[str] = []

    class Sink:
        def write(self, row: str) -> None:
            rows.append(row)

    writer = csv.writer(Sink(), lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        quantity = "" if line.quantity is None else line.quantity
        ends = (line.action, line.source, line.target)
        writer.writerow((*ends, line.usage_type, quantity, line.period, line.note))
    return iter(rows)
