"""A group into PostgreSQL, all of it said at once: what is to be done is one string, COPY among it.

The transaction shares a lock that who takes the log over wants alone, fills in the rows as the
appender, and last of all advances the head, or fails: the head's row is held for a moment only. So
a second group may be copied while the first is on its way to the disk. It says its last word after
the first is stored: groups are stored in order, and never one on top of another that failed.
"""

from typing import TYPE_CHECKING
from uuid import UUID

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.waiting import Wait

from ..domain import proof
from ..tenants.isolation import Connection
from .copying import COPY, copy_buffer

if TYPE_CHECKING:
    from .log import Group

FENCED = "AL001"
"""What `advance_log` says where epoch or end are not the log's any more."""
PIECE_BYTES = 256 * 1024
"""Of the rows, handed to libpq at a time."""
_APART = 0x616C6C6F746C6F67
"""Keeps these locks apart from others that are made of a tenant's number."""


class NotSent(psycopg.OperationalError):
    """The connection was dead before it took anything: nothing of the group can be stored."""


def lock_of(tenant: UUID) -> int:
    """The number of the lock that appenders share, and that who takes the log over wants alone."""
    high, low = tenant.int >> 64, tenant.int & (1 << 64) - 1
    return (high ^ low ^ _APART) - (1 << 63)


def append(connection: Connection, group: "Group") -> None:
    """Store a group, all or nothing, in a transaction of its own."""
    try:
        _begin(connection, group)
        _copy(connection, group)
        _finish(connection, group)
    except BaseException:
        _leave_clean(connection)
        raise


def _begin(connection: Connection, group: "Group") -> None:
    """Everything that is to be done; the server goes on with it as far as the rows."""
    try:
        connection.pgconn.send_query(_said(group).encode())
        results = connection.wait(generators.execute(connection.pgconn))
        check(results, connection)
    except psycopg.OperationalError as error:
        if connection.broken:
            raise NotSent(str(error)) from error
        raise
    assert results[-1].status == pq.ExecStatus.COPY_IN, "the rows are asked for"


def _copy(connection: Connection, group: "Group") -> None:
    rows = memoryview(
        copy_buffer(
            group.seen, group.recorded_at, group.topics, group.states, group.command_keys, group.leaves
        )
    )
    connection.wait(_pieces(connection.pgconn, rows, through=group.follows is not None))


def _pieces(pgconn: pq.abc.PGconn, rows: memoryview, *, through: bool) -> PQGen[None]:
    for at in range(0, len(rows), PIECE_BYTES):
        yield from generators.copy_to(pgconn, rows[at : at + PIECE_BYTES], flush=through)


def _finish(connection: Connection, group: "Group") -> None:
    """The last word, which commits: not before the group that this one follows is stored."""
    follows = group.follows is None or group.follows.result()
    pgconn = connection.pgconn
    trouble = None if follows else b"the group before was not stored"
    connection.wait(_ended(pgconn, trouble))
    group.sent = follows
    results = connection.wait(generators.fetch_many(pgconn))
    check(results, connection)
    if results[-1].command_status != b"COMMIT":
        raise psycopg.errors.InFailedSqlTransaction("PostgreSQL had given the transaction up")


def _ended(pgconn: pq.abc.PGconn, trouble: bytes | None) -> PQGen[None]:
    while pgconn.put_copy_end(trouble) == 0:
        yield Wait.W
    yield from generators.send(pgconn)


def check(results: list[pq.abc.PGresult], connection: Connection) -> None:
    if not results:
        raise psycopg.OperationalError("the server said nothing")
    for result in results:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise error_from_result(result, encoding=connection.info.encoding)


def _leave_clean(connection: Connection) -> None:
    """Whatever happened, who has the connection next finds no transaction in it."""
    if connection.info.transaction_status == pq.TransactionStatus.INERROR:
        try:
            connection.execute("ROLLBACK")
            return
        except psycopg.Error:
            pass
    if connection.info.transaction_status != pq.TransactionStatus.IDLE:
        connection.close()


def _said(group: "Group") -> str:
    """The whole transaction. All that is in it are numbers of ours and bytes in hexadecimal."""
    peaks = _bytes(proof.pack(group.peaks))
    head = f"{int(group.epoch)}, {int(group.seen)}, {int(group.last)}, {peaks}"
    return "; ".join(
        (
            "BEGIN",
            f"SET LOCAL app.tenant = '{UUID(str(group.tenant))}'",
            f"SELECT pg_advisory_xact_lock_shared({lock_of(group.tenant)})",
            *_subject_keys(group.subject_keys),
            "SET LOCAL ROLE allotment_appender",
            COPY,
            "SET LOCAL ROLE allotment_app",
            f"SELECT advance_log({head})",
            "COMMIT",
        )
    )


def _subject_keys(keys: dict[bytes, bytes]) -> list[str]:
    if not keys:
        return []
    rows = ", ".join(f"({_MINE}, {_bytes(subject)}, {_bytes(key)})" for subject, key in keys.items())
    return [f"INSERT INTO subject_keys (tenant_id, subject, wrapped) VALUES {rows}"]


_MINE = "current_setting('app.tenant')::uuid"


def _bytes(content: bytes) -> str:
    return f"decode('{content.hex()}', 'hex')"


_TAKEN = ("events_pkey", "subject_keys_pkey")


def is_fenced(error: psycopg.Error) -> bool:
    """Whether the group was refused because another writer has been there: a seq, a subject are taken."""
    return error.sqlstate == FENCED or error.diag.constraint_name in _TAKEN
