"""Following: carries each tenant's log into its views, a chunk at a time, each event exactly once.

A chunk is one transaction: the views' positions are locked, the events after them are folded, and
rows and positions are committed together. So it does not matter who follows, how many do, or
when one of them is killed. Rebuilding and looking back are the same fold, into temporary tables.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from heapq import heappop, heappush
from itertools import count
from typing import Any
from uuid import UUID

import psycopg
import structlog
from msgspec import Struct

from ..domain.events import Recorded
from ..domain.hierarchy import NodeAdded, ResourceAdded, ResourceEnded, ResourceMoved
from ..projections import members
from ..projections.chunk import Chunk, Ordinals
from ..projections.tables import Table
from ..projections.views import VIEWS, View, views_for
from ..tenants.isolation import Connection, Isolation, Role
from .log import Row, recorded, recorded_all

CHUNK = 5_000
"""Events folded in one transaction: more would keep readers waiting longer for the newest."""
POLL_SECONDS = 1.0
"""How often a follower looks by itself, for commits that nobody told it of."""
PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.05, 2.0
SEQ_MAX = 2**62
DIFFERENCES_MAX = 10
"""Differences told per table; the first few say what is wrong."""

log = structlog.get_logger()


class NewerView(Exception):
    """A newer version of the product builds this view. Leave it to that one."""


class Difference(Struct, frozen=True):
    """A row that is not what the log gives; None on the side where there is none."""

    view: str
    table: str
    key: dict[str, Any]
    live: dict[str, Any] | None
    rebuilt: dict[str, Any] | None


def catch_up(isolation: Isolation, tenant: UUID, *, upto: int | None = None, chunk: int = CHUNK) -> int:
    """Project what is not projected yet; the seq that all views have reached."""
    return Projector(isolation, tenant, chunk=chunk).catch_up(upto)


class Projector:
    """Projects one tenant's log. Between chunks it remembers the hierarchy, and nothing else."""

    def __init__(
        self, isolation: Isolation, tenant: UUID, *, views: Sequence[View] = VIEWS, chunk: int = CHUNK
    ) -> None:
        self._isolation = isolation
        self._tenant = tenant
        self._views = views
        self._chunk = chunk
        self._ordinals: Ordinals | None = None

    def catch_up(self, upto: int | None = None) -> int:
        reached, more = self.step(upto)
        while more:
            reached, more = self.step(upto)
        return reached

    def step(self, upto: int | None = None) -> tuple[int, bool]:
        """Project one chunk; the seq that all views have reached, and whether to go on."""
        ordinals, self._ordinals = self._ordinals, None
        with self._isolation.transaction(self._tenant, "projector") as db:
            standing = _standing(db, self._views, upto)
            if standing is not None:
                self._ordinals = ordinals
                return standing, False
            positions = _lock(db, self._views)
            start = min(positions.values())
            due = [view for view in self._views if positions[view.name] == start]
            events = _read(db, start, self._end(start, positions, upto), self._chunk)
            if events:
                if ordinals is None or ordinals.seq != start:
                    ordinals = _ordinals_at(db, start, positions.get("members"))
                _fold(db, due, events, ordinals)
                _advance(db, due, events[-1].seq)
                # Whatever a crash may take of it is folded again: nobody needs to wait for the disk.
                db.execute("SELECT set_config('synchronous_commit', 'off', true)")
        # Only what is committed is remembered: an exception leaves the memory empty.
        self._ordinals = ordinals
        if not events:
            return start, False
        return min(positions[view.name] if view not in due else events[-1].seq for view in self._views), True

    def _end(self, start: int, positions: dict[str, int], upto: int | None) -> int:
        """Views that lag behind go on until they meet the next one."""
        ahead = [seq for seq in positions.values() if seq > start]
        return min([*ahead, start + self._chunk, *([] if upto is None else [upto])])


class Follower:
    """Keeps a tenant's views up with its log. Use it from the event loop that started it."""

    def __init__(
        self,
        isolation: Isolation,
        tenant: UUID,
        *,
        executor: Executor | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.tenant = tenant
        self.position = 0
        """The seq that all views have reached, as far as this follower knows."""
        self.error: Exception | None = None
        """Why it is not getting on at the moment; None when it is."""
        self._projector = Projector(isolation, tenant)
        self._executor = executor
        self._poll_seconds = poll_seconds
        self._head = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._places = count()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._follow(), name=f"follower-{self.tenant}")

    async def close(self) -> None:
        """Finish the chunk at hand, then stop."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        self._release(Exception("the follower was closed"))

    def notify(self, seq: int = 0) -> None:
        """Something was committed, up to this seq."""
        self._head = max(self._head, seq)
        self._wake.set()

    @property
    def lag(self) -> int:
        """Events committed, as far as known here, and not yet visible."""
        return max(0, self._head - self.position)

    async def wait_for(self, seq: int, timeout: float) -> None:  # noqa: ASYNC109  (a reader's patience)
        """Return once the views show at least this seq; TimeoutError if they do not in time."""
        if seq <= self.position:
            return
        shown: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (seq, next(self._places), shown))
        self._wake.set()
        try:
            await asyncio.wait_for(shown, timeout)
        except TimeoutError:
            raise TimeoutError(f"the views have reached {self.position}, not yet {seq}: ask again") from None

    async def _follow(self) -> None:
        pause = PAUSE_SECONDS_MIN
        while not self._closing:
            self._wake.clear()
            try:
                more = await self._step()
                pause = PAUSE_SECONDS_MIN
                if not more:
                    await self._sleep(self._poll_seconds)
            except (psycopg.Error, OSError) as error:
                self._stumbled(error)
                self._wake.clear()
                await self._sleep(pause)
                pause = min(2 * pause, PAUSE_SECONDS_MAX)
            except Exception as error:  # noqa: BLE001  (a view that cannot go on must not take the writer along)
                self._stumbled(error)
                self._release(error)
                self._wake.clear()
                await self._sleep(PAUSE_SECONDS_MAX)

    async def _step(self) -> bool:
        loop = asyncio.get_running_loop()
        reached, more = await loop.run_in_executor(self._executor, self._projector.step)
        self.error = None
        self.position = reached
        self._head = max(self._head, reached)
        while self._waiting and self._waiting[0][0] <= reached:
            _, _, shown = heappop(self._waiting)
            if not shown.done():
                shown.set_result(None)
        return more

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return

    def _stumbled(self, error: Exception) -> None:
        if str(error) != str(self.error):
            log.warning("views do not follow", tenant=str(self.tenant), at=self.position, error=str(error))
        self.error = error

    def _release(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, []
        for _, _, shown in waiting:
            if not shown.done():
                shown.set_exception(error)


# --- rebuilding, and looking back --------------------------------------------------------------


def rebuild(isolation: Isolation, tenant: UUID) -> int:
    """Build all views again from event 1, and replace the live rows at once; the seq reached."""
    with isolation.transaction(tenant, "projector") as db:
        _unbounded(db)
        _lock(db, VIEWS)
        for view in VIEWS:
            _clear(db, view)
        reached = _project(db, VIEWS, SEQ_MAX)
        _advance(db, VIEWS, reached)
    return reached


def rebuild_and_compare(isolation: Isolation, tenant: UUID) -> list[Difference]:
    """Build all views again beside the live ones, as of where those stand; empty when equal."""
    differences: list[Difference] = []
    with _snapshot(isolation, tenant, "projector") as db:
        standing: dict[int, list[View]] = {}
        held = _positions(db)
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


def position(db: Connection) -> int:
    """The seq that all views show at least."""
    return min((seq for _, seq in _positions(db).values()), default=0)


def stands_at(db: Connection, seq: int) -> bool:
    """Whether every view shows the log up to exactly this seq."""
    return set(_positions(db).values()) == {(view.version, seq) for view in VIEWS}


def seq_at(isolation: Isolation, tenant: UUID, recorded_at: int, role: Role = "app") -> int:
    """The last seq recorded by a moment (microseconds); 0 when there was nothing yet."""
    with isolation.transaction(tenant, role) as db:
        found = db.execute("SELECT seq FROM log_heads").fetchone()
        low, high = 0, found[0] if found else 0
        while low < high:
            middle = (low + high + 1) // 2
            if _recorded_at(db, middle) <= recorded_at:
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


# --- one chunk -----------------------------------------------------------------------------------


def _project(db: Connection, views: Sequence[View], upto: int) -> int:
    """Fold the log from event 1 into empty tables; the seq reached."""
    ordinals = Ordinals()
    while events := _read(db, ordinals.seq, upto, CHUNK):
        _fold(db, views, events, ordinals)
    return ordinals.seq


def _fold(db: Connection, views: Sequence[View], events: list[Recorded], ordinals: Ordinals) -> None:
    chunk = Chunk(events, ordinals)
    for view in views:
        view.apply(chunk, db)


def _read(db: Connection, after: int, upto: int, limit: int) -> list[Recorded]:
    found = db.execute(
        "SELECT seq, topic, state, (extract(epoch FROM recorded_at) * 1000000)::bigint, command_key, "
        "''::bytea "
        "FROM events WHERE seq > %s AND seq <= %s ORDER BY seq LIMIT %s",
        (after, upto, limit),
        binary=True,
        prepare=False,
    )
    return recorded_all([Row._make(row) for row in found])


def _recorded_at(db: Connection, seq: int) -> int:
    found = db.execute(
        "SELECT (extract(epoch FROM recorded_at) * 1000000)::bigint FROM events WHERE seq = %s", (seq,)
    ).fetchone()
    assert found is not None, "the log has no holes"
    return int(found[0])


def _ordinals_at(db: Connection, seq: int, members_seq: int | None) -> Ordinals:
    """The hierarchy as of a seq: from its view where that stands there, else from the log."""
    if seq == members_seq:
        return members.load(db, seq)
    ordinals = Ordinals(seq)
    topics = [kind.topic for kind in (NodeAdded, ResourceAdded, ResourceMoved, ResourceEnded)]
    found = db.execute(
        "SELECT seq, topic, state, 0, NULL::bytea, ''::bytea FROM events "
        "WHERE seq <= %s AND topic = ANY(%s) ORDER BY seq",
        (seq, topics),
    )
    for row in found:
        ordinals.tell(recorded(Row._make(row)).event)
    return ordinals


# --- positions -----------------------------------------------------------------------------------


def _positions(db: Connection) -> dict[str, tuple[int, int]]:
    found = db.execute("SELECT projection, version, seq FROM projection_positions")
    return {name: (version, seq) for name, version, seq in found}


def _standing(db: Connection, views: Sequence[View], upto: int | None) -> int | None:
    """Where all views stand if there is nothing to do: looking locks nothing, and writes nothing."""
    found = db.execute("SELECT seq FROM log_heads").fetchone()
    head = found[0] if found else 0
    wanted = head if upto is None else min(head, upto)
    held = _positions(db)
    for view in views:
        version, seq = held.get(view.name, (view.version, 0))
        if version != view.version or seq < wanted:
            return None
    return min((held[view.name][1] for view in views if view.name in held), default=0)


def _lock(db: Connection, views: Sequence[View]) -> dict[str, int]:
    """The views' positions, ours alone until the transaction ends; a changed view starts at 0."""
    names = [view.name for view in views]
    locking = (
        "SELECT projection, version, seq FROM projection_positions WHERE projection = ANY(%s) "
        "ORDER BY projection FOR UPDATE"
    )
    found = db.execute(locking, (names,), prepare=False).fetchall()
    if len(found) < len(views):
        db.execute(
            "INSERT INTO projection_positions (projection, version, seq) "
            "SELECT *, 0 FROM unnest(%s::text[], %s::int[]) ON CONFLICT DO NOTHING",
            (names, [view.version for view in views]),
        )
        found = db.execute(locking, (names,), prepare=False).fetchall()
    held = {name: (version, seq) for name, version, seq in found}
    return {view.name: _at(db, view, *held[view.name]) for view in views}


def _at(db: Connection, view: View, version: int, seq: int) -> int:
    if version > view.version:
        raise NewerView(f"{view.name} has version {version}, this product builds {view.version}: update it")
    if version < view.version:
        _clear(db, view)
        db.execute(
            "UPDATE projection_positions SET version = %s, seq = 0 WHERE projection = %s",
            (view.version, view.name),
        )
        return 0
    return seq


def _advance(db: Connection, views: Sequence[View], seq: int) -> None:
    db.execute(
        "UPDATE projection_positions SET seq = %s WHERE projection = ANY(%s)",
        (seq, [view.name for view in views]),
        prepare=False,
    )


def _clear(db: Connection, view: View) -> None:
    for table in view.tables:
        db.execute(f"DELETE FROM {table.name}", prepare=False)


# --- temporary tables ----------------------------------------------------------------------------


@contextmanager
def _snapshot(isolation: Isolation, tenant: UUID, role: Role) -> Iterator[Connection]:
    """A transaction that sees one moment and is always rolled back.

    On it nothing is prepared: a statement prepared earlier would read the live table, not the
    temporary one that has its name now.
    """
    with isolation.connection(role) as db:
        usual, db.prepare_threshold = db.prepare_threshold, None
        try:
            db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            db.execute("SELECT set_config('app.tenant', %s, true)", (str(tenant),))
            _unbounded(db)
            yield db
        finally:
            db.prepare_threshold = usual
            if not db.closed and not db.broken:
                db.execute("ROLLBACK")


def _unbounded(db: Connection) -> None:
    """A whole log takes as long as it takes."""
    db.execute("SELECT set_config('statement_timeout', '0', true)")


def _shadow(db: Connection, views: Sequence[View]) -> None:
    """Empty tables that stand before the live ones for the rest of the transaction.

    They have the live ones' policy as well: it brings the tenant into each condition, without which
    no index would serve.
    """
    mine = "(tenant_id = (SELECT current_setting('app.tenant'))::uuid)"
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
