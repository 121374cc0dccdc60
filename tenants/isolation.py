"""The one door to a tenant's rows: a transaction bound to that tenant, in a role that can do the least.

The binding lasts as long as the transaction (`set_config(.., true)`), never longer: a pooled
connection carries nothing to its next user. Without it every isolated table raises.

Every wait has a bound: PostgreSQL's own for statements, locks and transactions at rest, TCP's for machines
that are gone, and ours for connections on which nobody answers (silence.py).
"""

import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import Any, Literal, NamedTuple
from uuid import UUID

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from .silence import (
    APPEND_SECONDS_MAX,
    ASK_SECONDS_MAX,
    CONNECT_SECONDS_MAX,
    LEASE_SILENT_SECONDS,
    SILENT_SECONDS,
    Asking,
    BoundedConnection,
    Patience,
)

Role = Literal["app", "projector", "auditor", "directory", "placement"]
Pool = Role | Literal["appending"]
"""Connections that append are the application's, and kept apart: commits wait for nobody who reads."""
Connection = psycopg.Connection[TupleRow]

STATEMENT_TIMEOUT_MS = 60_000
LOCK_TIMEOUT_MS = 10_000
IDLE_IN_TRANSACTION_TIMEOUT_MS = 10_000
POOL_MAX = 14
"""Per role. Readers take at most 10 of them (web/request_context.py), so that commits find one."""
POOL_SECONDS_MAX = 15
"""How long a connection is waited for; and how long opening one is tried before it is begun anew."""
USUAL_PATIENCE = Patience()
PATIENCE: dict[Pool, Patience] = {
    "appending": Patience(SILENT_SECONDS, APPEND_SECONDS_MAX),
    "placement": Patience(LEASE_SILENT_SECONDS),
}
NETWORK: dict[str, Any] = {
    "connect_timeout": CONNECT_SECONDS_MAX,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""How soon TCP tells us that the server's machine is gone; what the address itself says counts more."""
SMALL_POOLS: dict[Pool, int] = {"placement": 4, "appending": 8}
GIVEN_UP_SECONDS_MAX = 0.2
"""How long each thread of a pool that is given up is waited for: it may be about to open a connection."""
AT_HAND_SECONDS = 0.001
"""Waited at most for a connection that was at rest just now."""
SEND_BUFFER_BYTES = 2_000_000
"""Asked for of a Unix socket: room for all of a group. With the usual 200 kB the server waits again and again
until a thread of ours has its turn with the interpreter (decision 0057)."""


class AtHand(NamedTuple):
    """A connection that was taken without waiting for one, and where it goes back."""

    connection: BoundedConnection
    pool: "ConnectionPool[BoundedConnection]"

    def give_back(self) -> None:
        self.pool.putconn(self.connection)


class Isolation:
    """Connections to one database, by role. Every way to a tenant's rows starts here."""

    def __init__(self, database_url: str, *, pool_max: int = POOL_MAX) -> None:
        self.database_url = database_url
        self._pool_max = pool_max
        self._pools: dict[Pool, ConnectionPool[BoundedConnection]] = {}
        self._opening = Lock()
        self._given_up = False
        self._distrusted_at = 0.0
        """Connections opened before are not asked any more: one of them was silent."""
        self._asking = Asking(database_url, _settings_to_ask(database_url))
        self._may_copy: bool | None = None

    @contextmanager
    def transaction(self, tenant: UUID, role: Role = "app", setting: str = "") -> Iterator[Connection]:
        """A transaction that sees and writes this tenant's rows only; commits at the end.

        What else is to be set for as long as it lasts goes along with its beginning.
        """
        with self.connection(role) as connection:
            bind(connection, tenant, setting)
            try:
                yield connection
            except BaseException:
                _roll_back(connection)
                raise
            if connection.execute("COMMIT").statusmessage != "COMMIT":
                raise psycopg.errors.InFailedSqlTransaction("PostgreSQL had given the transaction up")

    @contextmanager
    def snapshot(self, tenant: UUID, role: Role = "app", *, temporary: bool = False) -> Iterator[Connection]:
        """A transaction that sees one moment, for as long as it takes, and changes nothing.

        With `temporary` it may make tables of its own, which go with it: it is rolled back.
        """
        with self.connection(role) as connection:
            bound = f"SELECT set_config('app.tenant', '{UUID(str(tenant))}', true)"
            may_write = "READ WRITE" if temporary else "READ ONLY"
            patient = "SET LOCAL idle_in_transaction_session_timeout = 0"
            begun = f"BEGIN ISOLATION LEVEL REPEATABLE READ {may_write}; {bound}; {patient}"
            connection.execute(begun, prepare=False)
            try:
                yield connection
            finally:
                _roll_back(connection)

    @contextmanager
    def directory(self) -> Iterator[Connection]:
        """A transaction on the directory of tenants: who there is, never what they have."""
        with self.connection("directory") as connection, connection.transaction():
            yield connection

    @contextmanager
    def connection(self, role: Pool) -> Iterator[Connection]:
        with self._pool(role).connection() as connection:
            yield connection

    def at_hand(self, role: Pool) -> AtHand | None:
        """A connection at rest, for an event loop that may not wait; None where there is none that lives."""
        pool = self._pools.get(role)
        if pool is None or not pool.get_stats()["pool_available"]:
            return None
        try:
            taken = AtHand(pool.getconn(AT_HAND_SECONDS), pool)
        except (PoolTimeout, PoolClosed):
            return None
        if _says_something(taken.connection):
            taken.connection.close()
            taken.give_back()
            return None
        return taken

    def drop_dead(self, role: Pool) -> None:
        """Open every connection at rest anew: one was dead, and they may have been cut all at once."""
        self._pool(role).drain()

    def may_copy(self) -> bool:
        """Whether this server let the migration make the role that appends by COPY."""
        if self._may_copy is None:
            with self.connection("app") as connection:
                found = connection.execute(
                    "SELECT rolbypassrls AND pg_has_role(session_user, oid, 'SET') "
                    "FROM pg_roles WHERE rolname = 'allotment_appender'"
                ).fetchone()
            self._may_copy = bool(found and found[0])
        return self._may_copy

    def _pool(self, role: Pool) -> ConnectionPool[BoundedConnection]:
        with self._opening:
            pool = self._pools.get(role)
            if pool is None and self._given_up:
                raise PoolClosed("the database is not waited for any more")
            if pool is None:
                pool = self._pools[role] = ConnectionPool(
                    self.database_url,
                    connection_class=BoundedConnection,
                    kwargs=connection_settings(role) | network_settings(self.database_url),
                    configure=self._prepare(role),
                    min_size=0,
                    max_size=min(SMALL_POOLS.get(role, self._pool_max), self._pool_max),
                    max_idle=60,
                    timeout=POOL_SECONDS_MAX,
                    reconnect_timeout=POOL_SECONDS_MAX,
                    # An append asks nothing first: that would be one more round trip for each group.
                    check=None if role == "appending" else ConnectionPool.check_connection,
                    name=f"allotment-{role}",
                    open=True,
                )
            return pool

    def _prepare(self, role: Pool) -> Callable[[BoundedConnection], None]:
        def prepare(connection: BoundedConnection) -> None:
            _make_room(connection)
            connection.patience = PATIENCE.get(role, USUAL_PATIENCE)
            connection.asking = self._asking
            connection.on_silence = self._distrust
            connection.opened_at = monotonic()

        return prepare

    def _distrust(self, silent: BoundedConnection) -> None:
        """Open everything anew: what swallowed one connection has mostly swallowed all there were."""
        if silent.opened_at <= self._distrusted_at:
            return
        self._distrusted_at = monotonic()
        with self._opening:
            pools = list(self._pools.values())
        for pool in pools:
            pool.drain()

    def give_up(self) -> None:
        """Tell all who wait for a connection, and all who will, that there is none. From any thread.

        What is under way on a connection in hand comes to its own end.
        """
        with self._opening:
            self._given_up = True
            pools = list(self._pools.values())
        for pool in pools:
            pool.close(GIVEN_UP_SECONDS_MAX)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()


def connection_settings(role: Pool) -> dict[str, Any]:
    """How every connection is opened: in its role, in our schema, with bounds on waiting."""
    options = {
        "role": f"allotment_{'app' if role == 'appending' else role}",
        "search_path": "allotment",
        "statement_timeout": str(STATEMENT_TIMEOUT_MS),
        "lock_timeout": str(LOCK_TIMEOUT_MS),
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
        # A client whose machine is gone: its session ends, and lets go of what it holds.
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "20000",
        "timezone": "UTC",
        # Whatever the database's default: what we acknowledge is on the disk.
        "synchronous_commit": "on",
        # A group that waited for the one before sees what that has stored.
        "default_transaction_isolation": "read\\ committed",
    }
    return {
        "autocommit": True,
        "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
        "application_name": f"allotment-{role}",
    }


def network_settings(database_url: str) -> dict[str, Any]:
    """What TCP is told, where the address does not say it."""
    said = conninfo_to_dict(database_url)
    return {name: value for name, value in NETWORK.items() if name not in said}


def _settings_to_ask(database_url: str) -> dict[str, Any]:
    """How the server is asked whom it works for: as who logs in, for only they see their own sessions."""
    options = f"-c statement_timeout={ASK_SECONDS_MAX * 1_000}"
    own = {"autocommit": True, "application_name": "allotment-asking", "options": options}
    return network_settings(database_url) | own


def bind(connection: Connection, tenant: UUID, setting: str = "") -> None:
    """Begin a transaction bound to a tenant, in one round trip."""
    bound = f"BEGIN; SELECT set_config('app.tenant', '{UUID(str(tenant))}', true)"
    connection.execute(f"{bound}; {setting}" if setting else bound, prepare=False)


def _make_room(connection: Connection) -> None:
    """Let the kernel take much at once. It gives what the system allows; TCP finds its own measure."""
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        if line.family == socket.AF_UNIX:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)


def _says_something(connection: Connection) -> bool:
    """Whether the server spoke unasked, as it does for the last time when it ends a session."""
    listening = select.poll()
    listening.register(connection.fileno(), select.POLLIN)
    return bool(listening.poll(0))


def _roll_back(connection: Connection) -> None:
    if not connection.closed and not connection.broken:
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()
