"""Following: carries each tenant's log into its views, a chunk at a time, each event exactly once.

A chunk is one transaction: the views' positions are locked, the events after them are folded, and
rows and positions are committed together. So it does not matter who follows, how many do, or
when one of them is killed. Who follows waits for nobody within a lock: threads are few, and other tenants'
views wait for them. Who calls it when is decided in `keeping_up.py` and `projecting.py`.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import UUID
from zoneinfo import ZoneInfo

from psycopg.errors import LockNotAvailable

from ..projections import members
from ..projections.chunk import FOLLOWED, Chunk, Ordinals, Ways
from ..projections.consumption import CALENDAR
from ..projections.tables import BY_INDEX
from ..projections.tally import tally
from ..projections.usages import copied
from ..projections.views import VIEWS, View
from ..tenants.isolation import Connection, Isolation
from .log import Row, recorded, recorded_at
from .reading_log import Stretch, read_stretch
from .snapshots import collector_paused

CHUNK = 5_000
"""Events folded in one transaction: more would keep readers waiting longer for the newest."""
CHUNK_MAX = 40_000
"""As many while there is more than that to do: then each counter is touched less often."""
HELD_SECONDS_MAX = 10.0
"""Who catches up waits so long for somebody else who has the views in hand."""
HELD_PAUSE_SECONDS_MIN, HELD_PAUSE_SECONDS_MAX = 0.01, 0.25
_reading = ThreadPoolExecutor(4, thread_name_prefix="read-ahead")
"""As many as a projector writes for at once."""


_WRITING = f"SET LOCAL synchronous_commit = off; {BY_INDEX}"
"""Whatever a crash may take of a chunk is folded again: nobody needs to wait for the disk."""


class NewerView(Exception):
    """A newer version of the product builds this view. Leave it to that one."""


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
        self._chunk = self._limit = chunk
        self._ahead: Future[Stretch | None] | None = None
        """The next stretch, read while the one before it is written. What is in a log stays as it is."""
        self._ordinals: Ordinals | None = None
        self._moving = False
        """Whether the last step found something: then there is mostly more, and it is not asked first."""

    def catch_up(self, upto: int | None = None) -> int:
        reached, more = self._step_in_turn(upto)
        while more:
            reached, more = self._step_in_turn(upto)
        return reached

    def _step_in_turn(self, upto: int | None) -> tuple[int, bool]:
        """Whoever else has the views in hand comes first, and may well do what there is to do."""
        latest, pause = time.monotonic() + HELD_SECONDS_MAX, HELD_PAUSE_SECONDS_MIN
        while True:
            try:
                return self.step(upto)
            except LockNotAvailable:
                if time.monotonic() >= latest:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, HELD_PAUSE_SECONDS_MAX)

    def step(self, upto: int | None = None) -> tuple[int, bool]:
        """Project one chunk; the seq that all views have reached, and whether to go on.

        Raises LockNotAvailable at once where somebody else has the views in hand.
        """
        ordinals, self._ordinals = self._ordinals, None
        ahead, self._ahead = self._ahead, None
        # Both before: with our connection in hand we might wait for one that never comes free.
        read = ahead.result() if ahead is not None else None
        may_copy = self._isolation.may_copy()
        with self._isolation.transaction(self._tenant, "projector", _WRITING) as db:
            standing = None if self._moving else _standing(db, self._views, upto)
            self._moving = False
            if standing is not None:
                self._ordinals = ordinals
                return standing, False
            held = lock(db, self._views, wait=False)
            start = min(held.values())
            due = [view for view in self._views if held[view.name] == start]
            end = self._end(start, held, upto)
            told = self._next(db, read, start, end, ordinals)
            if told is not None:
                if ordinals is None or ordinals.seq != start:
                    ordinals = _ordinals_at(db, start, held.get("members"))
                with collector_paused():
                    fold(db, due, told, ordinals, may_copy=may_copy)
                advance(db, due, told.last)
        # Only what is committed is remembered: an exception leaves the memory empty.
        self._ordinals = ordinals
        self._moving = told is not None
        if told is None:
            return start, False
        return min(held[view.name] if view not in due else told.last for view in self._views), True

    def _next(
        self, db: Connection, told: Stretch | None, start: int, end: int, ordinals: Ordinals | None
    ) -> Stretch | None:
        """What was read ahead, if it is what comes next; the one after it is read from now on."""
        zone, ways = (None, None) if ordinals is None else (ordinals.zone, ordinals.ways())
        if told is None or told.first != start + 1 or told.last > end:
            told = read_stretch(db, start, end, self._limit, zone, ways, prepare=True)
        if told is not None and told.last - start >= self._limit:
            self._limit = max(self._limit, min(2 * self._limit, CHUNK_MAX) if self._chunk == CHUNK else 0)
            self._ahead = _reading.submit(self._fetch, told.last, self._limit, zone, ways)
        else:
            self._limit = self._chunk
        return told

    def _fetch(self, after: int, limit: int, zone: ZoneInfo | None, ways: Ways | None) -> Stretch | None:
        """Read, and where the calendar is known added up: the database writes meanwhile."""
        with collector_paused():
            with self._isolation.transaction(self._tenant, "projector") as db:
                read = read_stretch(db, after, after + limit, limit, zone, ways)
            if read is None or zone is None or not read.charges.events or read.counted is not None:
                return read
            return read._replace(added_up=tally(read.charges.events, zone), copied=copied(read.charges))

    def _end(self, start: int, held: dict[str, int], upto: int | None) -> int:
        """Views that lag behind go on until they meet the next one."""
        ahead = [seq for seq in held.values() if seq > start]
        return min([*ahead, start + CHUNK_MAX, *([] if upto is None else [upto])])


def position(db: Connection) -> int:
    """The seq that all views show at least."""
    held = positions(db)
    standing = (held.get(view.name, (view.version, 0)) for view in VIEWS)
    return min(
        0 if version < view.version else seq for view, (version, seq) in zip(VIEWS, standing, strict=True)
    )


def stands_at(db: Connection, seq: int) -> bool:
    """Whether every view shows the log up to exactly this seq."""
    return set(positions(db).values()) == {(view.version, seq) for view in VIEWS}


# --- one chunk -----------------------------------------------------------------------------------


def fold(
    db: Connection, views: Sequence[View], told: Stretch, ordinals: Ordinals, *, may_copy: bool = False
) -> None:
    """Rows are found `BY_INDEX`: set that before."""
    chunk = Chunk(
        told.others,
        ordinals,
        told.charges,
        may_copy=may_copy,
        added_up=told.added_up,
        counted=told.counted,
        copied=told.copied,
    )
    for view in views:
        view.apply(chunk, db)


def _ordinals_at(db: Connection, seq: int, members_seq: int | None) -> Ordinals:
    """The hierarchy as of a seq: from its view where that stands there, else from the log."""
    if seq == members_seq:
        loaded = members.load(db, seq)
        # Only a guess where that view stands elsewhere: it looks itself before it counts days.
        loaded.zone = CALENDAR.zone(db)
        # When they moved last is not known here: surely not after what was told since.
        loaded.moved_at = max(loaded.moved_at, recorded_at(db, seq) or 0)
        return loaded
    ordinals = Ordinals(seq)
    topics = [kind.topic for kind in FOLLOWED]
    found = db.execute(
        "SELECT seq, topic, state, 0, NULL::bytea, ''::bytea FROM events "
        "WHERE seq <= %s AND topic = ANY(%s) ORDER BY seq",
        (seq, topics),
    )
    for row in found:
        ordinals.tell(recorded(Row._make(row)).event)
    return ordinals


# --- positions -----------------------------------------------------------------------------------


def positions(db: Connection) -> dict[str, tuple[int, int]]:
    found = db.execute("SELECT projection, version, seq FROM projection_positions")
    return {name: (version, seq) for name, version, seq in found}


def _standing(db: Connection, views: Sequence[View], upto: int | None) -> int | None:
    """Where all views stand if there is nothing to do: looking locks nothing, and writes nothing."""
    found = db.execute("SELECT seq FROM log_heads").fetchone()
    head = found[0] if found else 0
    wanted = head if upto is None else min(head, upto)
    held = positions(db)
    for view in views:
        version, seq = held.get(view.name, (view.version, 0))
        if version != view.version or seq < wanted:
            return None
    return min((held[view.name][1] for view in views if view.name in held), default=0)


def lock(db: Connection, views: Sequence[View], *, wait: bool = True) -> dict[str, int]:
    """The views' positions, ours alone until the transaction ends; a changed view starts at 0."""
    names = [view.name for view in views]
    locking = (
        "SELECT projection, version, seq FROM projection_positions WHERE projection = ANY(%s) "
        f"ORDER BY projection FOR UPDATE{'' if wait else ' NOWAIT'}"
    )
    found = db.execute(locking, (names,), prepare=True).fetchall()
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
        clear(db, view)
        db.execute(
            "UPDATE projection_positions SET version = %s, seq = 0 WHERE projection = %s",
            (view.version, view.name),
        )
        return 0
    return seq


def advance(db: Connection, views: Sequence[View], seq: int) -> None:
    db.execute(
        "UPDATE projection_positions SET seq = %s WHERE projection = ANY(%s)",
        (seq, [view.name for view in views]),
        prepare=True,
    )


def clear(db: Connection, view: View) -> None:
    for table in view.tables:
        db.execute(f"DELETE FROM {table.name}", prepare=False)
