"""Looking back: the views as they were, and built again beside the live ones to be compared.

Both are the fold that follows the log, into temporary tables that stand before the live ones.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from msgspec import Struct

from ..projections.chunk import Ordinals
from ..projections.tables import AS_USUAL, BY_INDEX, Table
from ..projections.views import VIEWS, View, views_for
from ..tenants.isolation import Connection, Isolation, Role
from .following import CHUNK, advance, clear, fold, lock, positions
from .log import recorded_at
from .reading_log import read_stretch

SEQ_MAX = 2**62
DIFFERENCES_MAX = 10
"""Differences told per table; the first few say what is wrong."""


class Difference(Struct, frozen=True):
    """A row that is not what the log gives; None on the side where there is none."""

    view: str
    table: str
    key: dict[str, Any]
    live: dict[str, Any] | None
    rebuilt: dict[str, Any] | None


def rebuild(isolation: Isolation, tenant: UUID) -> int:
    """Build all views again from event 1, and replace the live rows at once; the seq reached."""
    with isolation.transaction(tenant, "projector") as db:
        _unbounded(db)
        lock(db, VIEWS)
        for view in VIEWS:
            clear(db, view)
        reached = _project(db, VIEWS, SEQ_MAX)
        advance(db, VIEWS, reached)
    return reached


def rebuild_and_compare(isolation: Isolation, tenant: UUID) -> list[Difference]:
    """Build all views again beside the live ones, as of where those stand; empty when equal."""
    differences: list[Difference] = []
    with _snapshot(isolation, tenant, "projector") as db:
        standing: dict[int, list[View]] = {}
        held = positions(db)
        for view in VIEWS:
            version, seq = held.get(view.name, (view.version, 0))
            if version != view.version:
                told = {"version": version}, {"version": view.version}
                key = {"projection": view.name}
                differences.append(Difference(view.name, "projection_positions", key, *told))
            else:
                standing.setdefault(seq, []).append(view)
        _shadow(db, VIEWS)
        for seq, views in standing.items():
            _project(db, views, seq)
            for view in views:
                for table in view.tables:
                    differences += _differences(db, view, table)
    return differences


@contextmanager
def past(
    isolation: Isolation, tenant: UUID, seq: int, views: Iterable[str] | None = None, role: Role = "app"
) -> Iterator[Connection]:
    """A connection on which these views, or all, are as they were at a seq, for their queries.

    Views not named, nor read by those named, have no rows and no columns there: asking them fails.
    """
    with _snapshot(isolation, tenant, role) as db:
        chosen = VIEWS if views is None else views_for(views)
        _shadow(db, chosen)
        reached = _project(db, chosen, seq)
        if reached < seq:
            raise LookupError(f"the log ends at seq {reached}, there is no {seq} yet: ask for that at most")
        yield db


def seq_at(isolation: Isolation, tenant: UUID, moment: int, role: Role = "app") -> int:
    """The last seq recorded by a moment (microseconds); 0 when there was nothing yet."""
    with isolation.transaction(tenant, role) as db:
        found = db.execute("SELECT seq FROM log_heads").fetchone()
        low, high = 0, found[0] if found else 0
        while low < high:
            middle = (low + high + 1) // 2
            stored = recorded_at(db, middle)
            assert stored is not None, "the log has no holes"
            if stored <= moment:
                low = middle
            else:
                high = middle - 1
    return low


def dump_views(connection: Connection) -> Iterator[dict[str, Any]]:
    """Every row of every view, in an order that does not depend on how it came about."""
    for view in VIEWS:
        for table in view.tables:
            columns = list(table.columns)
            with connection.cursor(name=f"dump_{table.name}") as cursor:
                cursor.itersize = CHUNK
                cursor.execute(f"SELECT {_listed(columns)} FROM {table.name} ORDER BY {_listed(table.key)}")
                for row in cursor:
                    told = {column: _plain(value) for column, value in zip(columns, row, strict=True)}
                    yield {"is": "view", "view": view.name, "table": table.name, "row": told}


def _project(db: Connection, views: Sequence[View], upto: int) -> int:
    """Fold the log from event 1 into empty tables; the seq reached."""
    ordinals = Ordinals()
    db.execute(BY_INDEX, prepare=False)
    while told := read_stretch(db, ordinals.seq, upto, CHUNK, ordinals.zone):
        fold(db, views, told, ordinals)
    db.execute(AS_USUAL, prepare=False)
    return ordinals.seq


# --- temporary tables ----------------------------------------------------------------------------


@contextmanager
def _snapshot(isolation: Isolation, tenant: UUID, role: Role) -> Iterator[Connection]:
    """A transaction that sees one moment and is always rolled back.

    On it nothing is prepared: a statement prepared earlier would read the live table, not the
    temporary one that has its name now.
    """
    with isolation.snapshot(tenant, role, temporary=True) as db:
        usual, db.prepare_threshold = db.prepare_threshold, None
        try:
            _unbounded(db)
            yield db
        finally:
            db.prepare_threshold = usual


def _unbounded(db: Connection) -> None:
    """A whole log takes as long as it takes."""
    db.execute("SELECT set_config('statement_timeout', '0', true)")


def _shadow(db: Connection, views: Sequence[View]) -> None:
    """Empty tables that stand before the live ones for the rest of the transaction.

    They have the live ones' policy as well: it brings the tenant into each condition, without which
    no index would serve.
    """
    mine = "(tenant_id = (SELECT current_setting('app.tenant')::uuid))"
    chosen = {view.name for view in views}
    for view in VIEWS:
        for table in view.tables:
            columns = f"LIKE allotment.{table.name} INCLUDING ALL" if view.name in chosen else ""
            statement = f"CREATE TEMPORARY TABLE {table.name} ({columns}) ON COMMIT DROP"
            if columns:
                statement += (
                    f"; ALTER TABLE pg_temp.{table.name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
                    f"; CREATE POLICY mine ON pg_temp.{table.name} USING {mine} WITH CHECK {mine}"
                )
            db.execute(statement, prepare=False)


def _differences(db: Connection, view: View, table: Table) -> list[Difference]:
    columns, key = _listed(table.columns), _listed(table.key)
    sides: list[dict[tuple[Any, ...], dict[str, Any]]] = []
    for one, other in (("allotment", "pg_temp"), ("pg_temp", "allotment")):
        found = db.execute(
            f"SELECT {columns} FROM {one}.{table.name} EXCEPT ALL SELECT {columns} FROM {other}.{table.name} "
            f"ORDER BY {key} LIMIT {DIFFERENCES_MAX}",
        )
        rows = [dict(zip(table.columns, row, strict=True)) for row in found]
        sides.append({tuple(row[column] for column in table.key): row for row in rows})
    live, rebuilt = sides
    first = sorted({*live, *rebuilt})[:DIFFERENCES_MAX]
    keys = (dict(zip(table.key, at, strict=True)) for at in first)
    return [
        Difference(view.name, table.name, told, live.get(at), rebuilt.get(at))
        for told, at in zip(keys, first, strict=True)
    ]


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(columns)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return [_plain(one) for one in value] if isinstance(value, list) else value
