"""Taking a log over from a writer that holds it and says nothing.

Whoever appends shares a lock for the whole of the transaction, and holds the head's row at its end;
whoever takes the log over wants that lock alone. A writer that was stopped within a transaction, or
whose machine is gone, keeps it. PostgreSQL ends a transaction that is idle too long, but never one
that waits for the rest of a COPY. So whoever takes over waits a moment, then ends the sessions that
are in the way, if they wait for their client. Nothing is lost by it: a group is stored whole or not
at all, and a writer that comes back is fenced by the epoch.
"""

from typing import LiteralString
from uuid import UUID

import psycopg
import structlog

from ..tenants.isolation import Connection, Isolation
from .appending import lock_of

HELD_MS_MAX = 1_000
"""Longer than a writer at work holds the head, also on a slow disk."""
ENDING_MS_MAX = 2_000

log = structlog.get_logger()

_HOLDERS = """
SELECT pid FROM pg_locks
WHERE granted AND pid <> pg_backend_pid() AND (
    locktype = 'transactionid' AND transactionid = (SELECT xmax FROM log_heads WHERE tenant_id = %(tenant)s)
    OR locktype = 'advisory' AND objsubid = 1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND classid::bigint << 32 | objid::bigint = %(lock)s
)
GROUP BY pid
"""
_END = """
SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity
WHERE pid = %s AND wait_event_type = 'Client' AND xact_start IS NOT NULL
"""


def share(connection: Connection, tenant: UUID) -> None:
    """Let whoever takes the log over wait for this transaction."""
    connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", (lock_of(tenant),), prepare=True)


def wait_briefly(connection: Connection) -> None:
    """Let this transaction wait for the head of a log no longer than a writer at work holds it."""
    connection.execute(f"SET LOCAL lock_timeout = {HELD_MS_MAX}")


def wait_alone(
    connection: Connection, tenant: UUID, where: LiteralString = "", values: tuple[UUID, ...] = ()
) -> None:
    """Wait for all who append to a log, no longer than a writer at work takes, and keep others out."""
    wait_briefly(connection)
    connection.execute(f"SELECT pg_advisory_xact_lock(%s) {where}", (lock_of(tenant), *values))


def end_holders(isolation: Isolation, tenant: UUID) -> None:
    """End the sessions that hold a log and wait for a client that says nothing."""
    try:
        with isolation.transaction(tenant) as connection:
            held = connection.execute(_HOLDERS, {"tenant": tenant, "lock": lock_of(tenant)}).fetchall()
            # Only the role that a session was opened in may end it: ours, where all writers log in alike.
            connection.execute("SET LOCAL ROLE NONE")
            for (session,) in held:
                _end(connection, tenant, session)
    except psycopg.errors.InsufficientPrivilege as error:
        log.warning("a session holds a log and may not be ended", tenant=str(tenant), error=str(error))


def _end(connection: Connection, tenant: UUID, session: int) -> None:
    ended = connection.execute(_END, (ENDING_MS_MAX, session)).fetchone()
    if ended is not None:
        log.warning("ended a session that held a log", tenant=str(tenant), session=session, ended=ended[0])
