"""Taking a log over from a writer that holds its head and says nothing.

A writer that was stopped within a transaction, or whose machine is gone, holds the head row of its
log. PostgreSQL ends a transaction that is idle too long, but never one that waits for the rest of
a COPY. So whoever takes over waits a moment, then ends the session that is in the way, if that
waits for its client. Nothing is lost by it: a group is stored whole or not at all, and a writer
that comes back is fenced by the epoch.
"""

from uuid import UUID

import psycopg
import structlog

from ..tenants.isolation import Connection, Isolation

HELD_MS_MAX = 1_000
"""Longer than a writer at work holds the head, also on a slow disk."""
ENDING_MS_MAX = 2_000

log = structlog.get_logger()

_HOLDER = """
SELECT pid FROM pg_locks
WHERE locktype = 'transactionid' AND granted AND pid <> pg_backend_pid()
  AND transactionid = (SELECT xmax FROM log_heads WHERE tenant_id = %s)
"""
_END = """
SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity
WHERE pid = %s AND wait_event_type = 'Client' AND xact_start IS NOT NULL
"""


def wait_briefly(connection: Connection) -> None:
    """Let this transaction wait for the head of a log no longer than a writer at work holds it."""
    connection.execute(f"SET LOCAL lock_timeout = {HELD_MS_MAX}")


def end_holder(isolation: Isolation, tenant: UUID) -> None:
    """End the session that holds a log's head and waits for a client that says nothing."""
    try:
        with isolation.transaction(tenant) as connection:
            held = connection.execute(_HOLDER, (tenant,)).fetchone()
            if held is None:
                return
            # Only the role that a session was opened in may end it: ours, where all writers log in alike.
            connection.execute("SET LOCAL ROLE NONE")
            ended = connection.execute(_END, (ENDING_MS_MAX, held[0])).fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        log.warning("a session holds a log and may not be ended", tenant=str(tenant), error=str(error))
        return
    if ended is not None:
        log.warning("ended a session that held a log", tenant=str(tenant), session=held[0], ended=ended[0])
