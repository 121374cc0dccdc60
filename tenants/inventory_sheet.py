"""The inventory as a sheet: CSV whose lines say how their resources shall be.

    resource,node,kind,status,lines,label,effective_from
    r-17,sales,msisdn,active,+442071838750,Ada Lovelace,
    r-18,apac,,,,,2026-12-01T00:00:00+01:00

The first row names the columns, in any order; those that only an export has are passed over. An empty cell
leaves that as it is; without `effective_from` it is so from now on.
"""

import csv
import io
from datetime import datetime
from typing import Any

from ..domain.inventory import LINES_MAX, TOLD_MAX
from ..domain.refusals import Refused
from .lines import InventoryLine, Normalise

READ = ("resource", "node", "kind", "status", "lines", "label", "effective_from")
"""What is read."""
COLUMNS = (*READ[:-1], "since", "until", "last_used_at", "charges", "amount")
"""What an export says."""
SHEET_MAX = 10_000_000
"""Characters."""


class _BadCell(Exception):
    """A cell that says nothing: the column, and what to do."""


def read_lines(text: str, normalise: Normalise) -> tuple[InventoryLine, ...]:
    """What a sheet says; refused with every line of it that says nothing that can be used."""
    if len(text) > SHEET_MAX:
        raise _bad_sheet(f"it has more than {SHEET_MAX} characters: split it")
    try:
        reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
        names = reader.fieldnames or ()
        unknown = [name for name in names if name not in (*READ, *COLUMNS)]
        if "resource" not in names or unknown:
            raise _bad_sheet(
                f"the first line names the columns: {', '.join(READ)}; not {', '.join(unknown) or 'none'}"
            )
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise _bad_sheet(f"it is no CSV: {error}") from None
    if not 0 < len(rows) <= LINES_MAX:
        raise _bad_sheet(f"it has {len(rows)} lines: give 1 to {LINES_MAX} at a time")
    lines: list[InventoryLine] = []
    bad: list[dict[str, Any]] = []
    for number, row in rows:
        try:
            lines.append(_line(number, row, normalise))
        except _BadCell as error:
            field, remedy = error.args
            about = {"code": "bad_value", "resource": row.get("resource") or "", "remedy": remedy}
            bad.append({"line": number, "field": field, **about})
    if bad:
        raise Refused("lines_refused", lines=bad[:TOLD_MAX], refused=len(bad))
    return tuple(lines)


def _bad_sheet(remedy: str) -> Refused:
    return Refused("bad_sheet", field="csv", remedy=remedy)


def _line(number: int, row: dict[str | None, Any], normalise: Normalise) -> InventoryLine:
    if None in row or None in row.values():
        raise _BadCell("line", "give as many cells as there are columns")
    cells = {str(name): str(cell).strip() for name, cell in row.items()}
    lines = tuple(normalise(one) for one in cells.get("lines", "").split())
    return InventoryLine(
        number,
        cells["resource"],
        cells.get("node") or None,
        cells.get("kind") or None,
        cells.get("status") or None,
        _moment(cells.get("effective_from", "")),
        lines or None,
        cells.get("label") or None,
    )


def _moment(text: str) -> int:
    if not text:
        return 0
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise _BadCell("effective_from", "a moment with its zone, such as 2026-12-01T00:00:00+01:00")
    return round(at.timestamp()) * 1_000_000
