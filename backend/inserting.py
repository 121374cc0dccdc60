"""A group into PostgreSQL as arrays, in one pipeline of prepared statements: nothing is asked in between.

The same transaction as `appending` makes, with an INSERT under row-level security where that has a COPY
by the appender. What a COPY saves for each row is lost in a small group on two turns more: the server
asks for the rows, and whoever sends them has to win the interpreter back before he can. So this is the
way of small groups, and of all where the server lets us have no appender.

A conversation waits for nobody: it says what it waits for, so that a thread may hold it, or the event
loop itself (`sending.py`). All of it is with the server at once: when the connection is cut after that,
the group may be stored or not. Whatever else goes wrong, nothing is, and the connection is closed.
"""

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakSet

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.waiting import Wait

from ..domain import proof
from ..tenants.isolation import Connection
from .appending import check, lock_of
from .copying import SINCE_2000

if TYPE_CHECKING:
    from .log import Group

STATEMENTS = {
    b"append_begin": b"BEGIN",
    b"append_as": b"SELECT set_config('app.tenant', $1::uuid::text, true), pg_advisory_xact_lock_shared($2)",
    b"append_keys": b"INSERT INTO subject_keys (tenant_id, subject, wrapped) "
    b"SELECT $1::uuid, * FROM unnest($2::bytea[], $3::bytea[])",
    b"append_events": b"INSERT INTO events"
    b" (tenant_id, seq, topic, state, recorded_at, command_key, leaf_hash) "
    b"SELECT $1::uuid, $2::bigint + place, topic, state, $3::timestamptz, command_key, leaf_hash "
    b"FROM unnest($4::text[], $5::bytea[], $6::bytea[], $7::bytea[]) "
    b"WITH ORDINALITY AS added (topic, state, command_key, leaf_hash, place)",
    b"append_advance": b"SELECT advance_log($1::bigint, $2::bigint, $3::bigint, $4::bytea)",
    b"append_commit": b"COMMIT",
}
"""By the names under which a connection knows them, from its first group on."""

_TEXT, _BYTEA = 25, 17
_header = Struct("!iiIii").pack
_length = Struct("!i").pack
_number = Struct("!q").pack
_NULL = _length(-1)
_prepared: "WeakSet[Connection]" = WeakSet()
"""Connections that know the statements."""


class Said(NamedTuple):
    """A statement, and the values it is carried out with, in PostgreSQL's binary form."""

    name: bytes
    values: Sequence[bytes] = ()


def append(connection: Connection, group: "Group") -> None:
    """Store a group, all or nothing; in a thread."""
    if group.follows is not None and not group.follows.result():
        raise psycopg.OperationalError("the group before was not stored")
    try:
        connection.wait(conversation(connection, group))
    except BaseException:
        connection.close()
        raise


def conversation(connection: Connection, group: "Group") -> PQGen[None]:
    """Say all of it, then hear what became of it; raises what the server says went wrong."""
    pgconn = connection.pgconn
    pgconn.enter_pipeline_mode()
    if connection not in _prepared:
        for name, statement in STATEMENTS.items():
            pgconn.send_prepare(name, statement)
    for said in transaction(group):
        pgconn.send_query_prepared(said.name, said.values, [pq.Format.BINARY] * len(said.values))
    pgconn.pipeline_sync()
    yield from _flushed(pgconn)
    group.sent = True
    results = yield from _answers(pgconn)
    check(results, connection)
    assert results[-1].command_status == b"COMMIT", "the last word is the commit's"
    pgconn.exit_pipeline_mode()
    _prepared.add(connection)


def transaction(group: "Group") -> Iterator[Said]:
    """The whole of it: the head is advanced last, and fails where another writer has been there."""
    tenant, seen = group.tenant.bytes, _number(group.seen)
    yield Said(b"append_begin")
    yield Said(b"append_as", (tenant, _number(lock_of(group.tenant))))
    if group.subject_keys:
        subjects, wrapped = group.subject_keys.keys(), group.subject_keys.values()
        yield Said(b"append_keys", (tenant, _array(_BYTEA, [*subjects]), _array(_BYTEA, [*wrapped])))
    yield Said(
        b"append_events",
        (
            tenant,
            seen,
            _number(group.recorded_at - SINCE_2000),
            _array(_TEXT, [topic.encode() for topic in group.topics]),
            _array(_BYTEA, group.states),
            _array(_BYTEA, group.command_keys),
            _array(_BYTEA, group.leaves),
        ),
    )
    peaks = proof.pack(group.peaks)
    yield Said(b"append_advance", (_number(group.epoch), seen, _number(group.last), peaks))
    yield Said(b"append_commit")


def _array(kind: int, elements: Sequence[bytes | None]) -> bytes:
    """An array of one dimension, some of it null or not."""
    parts = [_header(1, 1, kind, len(elements), 1)]
    for element in elements:
        if element is None:
            parts.append(_NULL)
        else:
            parts += (_length(len(element)), element)
    return b"".join(parts)


def _flushed(pgconn: pq.abc.PGconn) -> PQGen[None]:
    while pgconn.flush():
        # Whoever says much has to listen too, or both wait for each other.
        if (yield Wait.RW) & Wait.R:
            pgconn.consume_input()


def _answers(pgconn: pq.abc.PGconn) -> PQGen[list[pq.abc.PGresult]]:
    """One for each statement, up to the end of the pipeline."""
    results: list[pq.abc.PGresult] = []
    while True:
        while pgconn.is_busy():
            yield Wait.R
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None and pgconn.status == pq.ConnStatus.BAD:
            raise psycopg.OperationalError("the connection was cut")
        if result is not None and result.status == pq.ExecStatus.PIPELINE_SYNC:
            return results
        if result is not None:
            results.append(result)
