"""The log of one tenant in PostgreSQL: read in order, appended to in groups by one writer.

`append` is one transaction: the head row is advanced only if the epoch is still ours and the
end is where we saw it, or nothing of it is stored. So seq has no holes, commit order is seq order,
and a writer that lost its epoch appends nothing.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable
from uuid import UUID

import msgspec
import psycopg
from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from psycopg import Connection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import PoolClosed

from ..domain import proof
from ..domain.charging import UsageCharged, UsageRejected, UsageSuspended
from ..domain.contract import PeriodOpened
from ..domain.events import Recorded, decode
from ..domain.refusals import InvariantBroken
from ..domain.session import PART, SessionEvent
from ..tenants.isolation import Isolation, Role
from . import appending, inserting, taking_over
from .leaves import append_peaks, leaves_of
from .sending import Sending

READ_MAX = 10_000
"""Events fetched at a time."""
MICROSECONDS = "(extract(epoch FROM {}) * 1000000)::bigint"
"""A time of PostgreSQL's as we know it."""
COLUMNS = f"seq, topic, state, {MICROSECONDS.format('recorded_at')}, command_key, leaf_hash"
"""Of `events`, as a `Row` has them."""


class Row(NamedTuple):
    """One stored event."""

    seq: int
    topic: str
    state: bytes
    recorded_at: int
    command_key: bytes | None
    leaf_hash: bytes


class Head(NamedTuple):
    """Where a log ends, and under which epoch it may be continued."""

    seq: int
    epoch: int
    peaks: list[bytes]


class Fenced(Exception):
    """Another writer has taken the log over. Nothing of the group was stored."""


class NotHeld(Exception):
    """The tenant's lease names another worker: this one may not take the log over."""


class LogUnavailable(Exception):
    """The database did not answer: the group may be stored or not. Read before trying again."""


class LogClosed(LogUnavailable):
    """This process has let go of the database: it is not worth trying again."""


class KeyStored(LogUnavailable):
    """A command of the group is stored already. Nothing of the group was."""


class Group:
    """What one commit appends: events of consecutive seqs, their hashes, and new subject keys."""

    def __init__(self, tenant: UUID, head: Head, recorded_at: int) -> None:
        self.tenant = tenant
        self.epoch = head.epoch
        self.seen = head.seq
        self.recorded_at = recorded_at
        self.topics: list[str] = []
        self.states: list[bytes] = []
        self.command_keys: list[bytes | None] = []
        self.leaves: list[bytes] = []
        self.peaks = list(head.peaks)
        self.subject_keys: dict[bytes, bytes] = {}
        self.follows: Future[bool] | None = None
        """Whether the group before was stored, where that is still on its way: this one waits for it."""
        self.sent = False
        """Whether all of it is with the store and only the commit is waited for: another may follow."""

    @property
    def last(self) -> int:
        return self.seen + len(self.states)

    def add(self, topic: str, state: bytes, command_key: bytes | None) -> int:
        """Give an event its place; its seq."""
        self.add_all([topic], [state], [command_key])
        return self.last

    def add_all(self, topics: list[str], states: list[bytes], command_keys: list[bytes | None]) -> None:
        """The same for many events at once."""
        size = self.last
        leaves = leaves_of(self.tenant.bytes, size, topics, self.recorded_at, command_keys, states)
        self.topics += topics
        self.states += states
        self.command_keys += command_keys
        self.leaves += leaves
        append_peaks(self.peaks, size, leaves)

    def rows(self) -> Iterator[Row]:
        columns = zip(self.topics, self.states, self.command_keys, self.leaves, strict=True)
        for seq, (topic, state, key, leaf) in enumerate(columns, self.seen + 1):
            yield Row(seq, topic, state, self.recorded_at, key, leaf)


class Log(Protocol):
    """What the writer needs of a store; the in-memory and the PostgreSQL log pass the same tests."""

    def claim(self) -> Head:
        """Take the log over: a new epoch, under which only the caller may append."""
        ...

    def head(self) -> Head: ...

    def append(self, group: Group) -> None:
        """Store a group, all or nothing; raises Fenced or LogUnavailable."""
        ...

    def read(self, after: int = 0, limit: int = READ_MAX, upto: int | None = None) -> list[Row]: ...

    def find(self, command_keys: Sequence[bytes]) -> list[Row]:
        """The first events of the commands with these keys."""
        ...


@runtime_checkable
class Sends(Protocol):
    """A store that may be appended to from the event loop."""

    def send(self, group: Group) -> "asyncio.Future[None] | None": ...


class PostgresLog(PostgresApplicationRecorder):
    """The eventsourcing library's recorder for one tenant: originator = tenant, version = seq.

    Its readers work on the view `stored_events`. Its way of writing is replaced: no table-wide
    lock, no retry that could not tell "stored" from "conflict".
    """

    def __init__(self, isolation: Isolation, tenant: UUID, role: Role = "app") -> None:
        super().__init__(TenantDatastore(isolation, tenant, role), events_table_name="stored_events")
        self.isolation = isolation
        self.tenant = tenant
        self.role = role

    def claim(self) -> Head:
        with reachable():
            try:
                return self._claim()
            except psycopg.errors.LockNotAvailable:
                taking_over.end_holders(self.isolation, self.tenant)
                return self._claim()

    def _claim(self) -> Head:
        with self.isolation.transaction(self.tenant) as connection:
            taking_over.wait_alone(connection, self.tenant)
            found = connection.execute(
                "INSERT INTO log_heads AS held (tenant_id, epoch) VALUES (%s, 1) "
                "ON CONFLICT (tenant_id) DO UPDATE SET epoch = held.epoch + 1 RETURNING seq, epoch, peaks",
                (self.tenant,),
            ).fetchone()
        assert found is not None
        return Head(found[0], found[1], proof.unpack(found[2]))

    def head(self) -> Head:
        with reachable(), self.isolation.transaction(self.tenant, self.role) as connection:
            found = connection.execute("SELECT seq, epoch, peaks FROM log_heads").fetchone()
        return Head(found[0], found[1], proof.unpack(found[2])) if found else Head(0, 0, [])

    def append(self, group: Group) -> None:
        with reachable():
            # Asked before: with our connection in hand we might wait for one that never comes free.
            may_copy = self.isolation.may_copy()
        with reachable():
            if may_copy:
                self._append_by_copy(group)
            else:
                self._append_by_insert(group)

    def _append_by_copy(self, group: Group) -> None:
        """In one string, on a connection that was not asked first whether it lives; if not, on another."""
        try:
            self._append_on_one(group)
        except appending.NotSent:
            self.isolation.drop_dead("appending")
            self._append_on_one(group)

    def _append_on_one(self, group: Group) -> None:
        with self.isolation.connection("appending") as connection, _fencing():
            appending.append(connection, group)

    def _append_by_insert(self, group: Group) -> None:
        """Under the policy, where the server gives us no appender."""
        with self.isolation.connection("app") as connection, _fencing():
            inserting.append(connection, group)

    def send(self, group: Group) -> "asyncio.Future[None] | None":
        """Append from the event loop; None, and nothing done, where no connection is at hand."""
        at_hand = self.isolation.at_hand("appending")
        if at_hand is None:
            return None
        stored = asyncio.get_running_loop().create_future()

        def settle(error: Exception | None) -> None:
            if stored.done():
                return
            if error is None:
                stored.set_result(None)
            else:
                stored.set_exception(_told(error))

        sending = Sending(at_hand, group, settle)
        stored.add_done_callback(lambda _: sending.abandon())
        sending.start()
        return stored

    def read(self, after: int = 0, limit: int = READ_MAX, upto: int | None = None) -> list[Row]:
        with reachable(), self.isolation.transaction(self.tenant, self.role) as connection:
            found = connection.execute(
                f"SELECT {COLUMNS} FROM events WHERE seq > %s AND seq <= %s ORDER BY seq LIMIT %s",
                (after, upto if upto is not None else 2**62, limit),
                binary=True,
                prepare=True,
            ).fetchall()
        return [Row(*row) for row in found]

    def find(self, command_keys: Sequence[bytes]) -> list[Row]:
        with reachable(), self.isolation.transaction(self.tenant, self.role) as connection:
            found = connection.execute(
                f"SELECT {COLUMNS} FROM events WHERE command_key = ANY(%b) ORDER BY seq",
                (list(command_keys),),
                binary=True,
                prepare=True,
            ).fetchall()
        return [Row(*row) for row in found]

    # --- the library's own way in, on ours ---------------------------------------------------

    def insert_events(self, stored_events: Sequence[StoredEvent], **_: Any) -> Sequence[int]:
        """Append events that the library's mapper made, continuing the log under a new epoch."""
        head = self.claim()
        expected = range(head.seq + 1, head.seq + 1 + len(stored_events))
        if [event.originator_version for event in stored_events] != list(expected):
            raise Fenced(f"the log ends at {head.seq}")
        group = Group(self.tenant, head, self._not_before(head, time.time_ns() // 1_000))
        for event in stored_events:
            group.add(event.topic, event.state, None)
        self.append(group)
        return list(expected)

    def _not_before(self, head: Head, now: int) -> int:
        """Time does not go back along a log."""
        last = self.read(head.seq - 1, 1) if head.seq else []
        return max(now, last[0].recorded_at) if last else now

    def create_table(self) -> None:
        raise NotImplementedError("tables are made by migrations only: allotment migrate")


class TenantDatastore(PostgresDatastore):
    """Lets the library's readers in through our door: tenant, role and pool are ours."""

    def __init__(self, isolation: Isolation, tenant: UUID, role: Role) -> None:
        # The library's own initialiser would open a second pool, bound to no tenant.
        self.schema = "allotment"
        self.originator_id_type = "uuid"
        self.enable_db_functions = False
        self.lock_timeout = 0
        self.single_row_tracking = True
        self.db_type_names: set[str] = set()
        self.psycopg_type_adapters = {}
        self.psycopg_python_types = {}
        self._isolation, self._tenant, self._role = isolation, tenant, role

    def register_type_adapters(self) -> None:
        """Nothing to register: the append does not use the library's composite types."""

    @contextmanager
    def get_connection(self) -> Iterator[Connection[DictRow]]:
        with self._isolation.transaction(self._tenant, self._role) as connection:
            given: Any = connection
            usual, given.row_factory = given.row_factory, dict_row
            try:
                yield given
            finally:
                given.row_factory = usual

    def close(self) -> None:
        """The pool belongs to the isolation door."""

    def __del__(self) -> None:
        """As above."""


class MemoryLog:
    """The same log without a database, for tests and for rating without a server."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._by_key: dict[bytes, Row] = {}
        self._epoch = 0
        self._peaks: list[bytes] = []
        self.subject_keys: dict[bytes, bytes] = {}

    def claim(self) -> Head:
        self._epoch += 1
        return self.head()

    def head(self) -> Head:
        return Head(len(self._rows), self._epoch, list(self._peaks))

    def append(self, group: Group) -> None:
        if group.epoch != self._epoch or group.seen != len(self._rows):
            raise _fenced(group)
        rows = list(group.rows())
        keyed = {row.command_key: row for row in rows if row.command_key is not None}
        keys = [row.command_key for row in rows if row.command_key is not None]
        if len(keyed) != len(keys) or any(key in self._by_key for key in keys):
            raise KeyStored("a command key is stored already")
        self._rows += rows
        self._by_key.update(keyed)
        self._peaks = list(group.peaks)
        self.subject_keys.update(group.subject_keys)

    def read(self, after: int = 0, limit: int = READ_MAX, upto: int | None = None) -> list[Row]:
        end = len(self._rows) if upto is None else min(upto, len(self._rows))
        return self._rows[after : min(end, after + limit)]

    def find(self, command_keys: Sequence[bytes]) -> list[Row]:
        return sorted(self._by_key[key] for key in set(command_keys) if key in self._by_key)


def _fenced(group: Group) -> Fenced:
    return Fenced(f"epoch {group.epoch} at seq {group.seen} is not the log's any more")


def recorded(row: Row) -> Recorded:
    """A stored row as the event it tells of."""
    try:
        envelope = decode(row.topic, row.state)
    except msgspec.DecodeError as error:
        raise unreadable(row.seq, row.topic, error) from error
    return Recorded(
        row.seq, row.recorded_at, row.topic, envelope.actor, envelope.digest, row.command_key, envelope.event
    )


def unreadable(seq: int, topic: str, error: Exception) -> InvariantBroken:
    """What a stored event is that has not the form of its topic."""
    return InvariantBroken("a stored event can be read", seq=seq, topic=topic, error=str(error))


def recorded_at(db: Connection[Any], seq: int) -> int | None:
    """When an event was recorded, of the tenant that the connection is bound to; None where there is none."""
    found = db.execute(
        f"SELECT {MICROSECONDS.format('recorded_at')} FROM events WHERE seq = %s", (seq,)
    ).fetchone()
    return int(found[0]) if found else None


def follow(log: Log, after: int = 0, upto: int | None = None) -> Iterator[Row]:
    """Every stored row after a seq, fetched in chunks; the next one while one is worked on."""
    end = 2**62 if upto is None else upto
    for rows in ahead(lambda seen: log.read(seen, READ_MAX, upto), lambda rows: rows[-1].seq, after, end):
        yield from rows


def replay(log: Log, after: int = 0, upto: int | None = None) -> Iterator[Recorded]:
    return map(recorded, follow(log, after, upto))


T = TypeVar("T")


def ahead(read: Callable[[int], T | None], last_of: Callable[[T], int], after: int, upto: int) -> Iterator[T]:
    """What is read piece by piece, until there is no more; one piece is read ahead."""
    if after >= upto:
        return
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as ahead:
        piece = read(after)
        while piece:
            after = last_of(piece)
            coming = ahead.submit(read, after) if after < upto else None
            yield piece
            piece = coming.result() if coming is not None else None


def answer_of(log: Log, *keys: bytes) -> list[Recorded]:
    """What a command that was carried out led to: its first event, and those that follow from it.

    One is stored under one of its keys.
    """
    found = log.find(keys)
    if not found:
        return []
    following: Iterable[Row] = log.read(found[0].seq, ANSWER_EVENTS_MAX)
    events, is_opening = [found[0]], False
    for row in following:
        if row.command_key is not None:
            # A period that was opened on the way, with what it grants, is nobody's answer.
            is_opening = row.topic == PeriodOpened.topic
            if not is_opening and not _is_charge_of(events[0], row):
                break
        if not is_opening:
            events.append(row)
    return [recorded(row) for row in events]


def _is_charge_of(first: Row, row: Row) -> bool:
    """Whether a record was decided by the report on its session, in the midst of what that led to."""
    if not first.topic.startswith("session.") or not row.topic.startswith("usage."):
        return False
    session, charge = recorded(first).event, recorded(row).event
    if not isinstance(session, SessionEvent):
        return False
    if not isinstance(charge, UsageCharged | UsageRejected | UsageSuspended):
        return False
    own: str = session.session.partition(PART)[0]
    return bool(charge.source == session.source and charge.record_id.partition(PART)[0] == own)


ANSWER_EVENTS_MAX = 1_000
"""A command leads to one event and a few thresholds; this bounds the look."""


@contextmanager
def reachable() -> Iterator[None]:
    """Trouble that passes; what is our own mistake (a bad statement, missing rights) stays an error."""
    try:
        yield
    except psycopg.errors.UniqueViolation as error:
        raise KeyStored(str(error)) from error
    except PoolClosed as error:
        raise LogClosed(str(error)) from error
    except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError, TimeoutError) as error:
        raise LogUnavailable(str(error)) from error


@contextmanager
def _fencing() -> Iterator[None]:
    """Another writer's traces tell that the log is not ours any more."""
    try:
        yield
    except psycopg.DatabaseError as error:
        if appending.is_fenced(error):
            raise Fenced(str(error)) from error
        raise


def _told(error: Exception) -> Exception:
    """What went wrong, as it is told to whoever appends."""
    try:
        with reachable(), _fencing():
            raise error
    except Exception as told:  # noqa: BLE001  (it is handed on)
        return told
