"""Paging: a page of what members did, newest first: of all, or of one member and all below it.

Rows have a seq, and the ordinals of the resource and of the node they belong to, each of them indexed
with the seq. So a page costs what it holds, however long the view is.
"""

from collections.abc import Sequence
from typing import Any

from .members import places
from .tables import Connection

PLACES_MAX = 200
"""Nodes whose newest rows are merged; for more, all rows are walked and theirs picked."""


def newest(
    db: Connection, table: str, conditions: Sequence[str], values: dict[str, Any], under: str | None
) -> str | None:
    """The query for a page, to be run with `values`, which have `before` and `first`; None where none is."""
    page = f"WHERE {' AND '.join(('seq < %(before)s', *conditions))} {{}}ORDER BY seq DESC LIMIT %(first)s"
    if under is None:
        return f"SELECT * FROM {table} {page.format('')}"
    found = places(db, under)
    if found is None:
        return None
    column, values["places"] = found
    if column == "node" and len(values["places"]) > PLACES_MAX:
        return f"SELECT * FROM {table} {page.format('AND node = ANY(%(places)s::int[]) ')}"
    each = page.format(f"AND {column} = places.ordinal ")
    return (
        "SELECT page.* FROM unnest(%(places)s::int[]) AS places (ordinal) CROSS JOIN LATERAL "
        f"(SELECT * FROM {table} {each}) AS page ORDER BY page.seq DESC LIMIT %(first)s"
    )


def page_values(first: int, before: int | None) -> dict[str, Any]:
    """What a page is asked for with; without `before` it begins with the newest."""
    return {"before": 2**62 if before is None else before, "first": first}
