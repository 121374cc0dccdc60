"""Leases: PostgreSQL's word on which worker may serve which tenant, by PostgreSQL's clock.

A worker is alive until the moment in its row, which its heartbeat moves on. It holds the leases that
name it for as long: so one row is renewed, however many tenants it serves. A lease is taken only where
nobody alive holds it; taking and renewing lock the same worker's row, so one of them comes first.

A lease is about placement. What keeps a second writer from appending is the epoch in the log's head;
here a log is taken over only by the worker that its lease names.

Every call is one statement, committed with it: a worker that is stopped in the middle of one holds
nothing that another waits for. Each locks leases before workers, one lease or its own, and workers in
the order of their ids or without waiting: no two of them wait for each other.
"""

import os
import socket
from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

from ..domain import proof
from ..tenants.isolation import Isolation
from . import taking_over
from .log import Head, NotHeld, reachable
from .snapshots import SnapshottedLog

FORGOTTEN_AFTER_SECONDS = 60
NAME = f"{socket.gethostname()}:{os.getpid()}"
"""For operators: which process a worker is."""


class WorkerSeen(NamedTuple):
    """Another worker, or oneself, as of the last heartbeat."""

    worker_id: UUID
    alive: bool
    takes_tenants: bool
    """Whether tenants may be placed there: not where it is about to stop, or runs one command."""
    age_seconds: float
    name: str


class NotAlive(Exception):
    """Our own heartbeat has run out: nothing may be taken before the next."""


class Leases:
    """One worker's dealings with the tables. Every call blocks."""

    def __init__(self, isolation: Isolation, worker_id: UUID, lease_seconds: float) -> None:
        self._isolation = isolation
        self._me = worker_id
        self._lease_seconds = lease_seconds

    def beat(self, *, takes_tenants: bool) -> list[WorkerSeen]:
        """Live on, and see who else does: as it was just before, oneself included."""
        told = {"me": self._me, "name": NAME, "takes": takes_tenants, "seconds": self._lease_seconds}
        with reachable(), self._isolation.connection("placement") as db:
            return [WorkerSeen(*row) for row in db.execute(_BEAT, told, prepare=True)]

    def take(self, tenant: UUID) -> UUID:
        """Take the tenant's lease if nobody alive holds it; who holds it now."""
        with reachable(), self._isolation.connection("placement") as db:
            found = db.execute(_TAKE, (tenant, self._me), prepare=True).fetchone()
        if found is None or found[0] is None:
            raise NotAlive("the heartbeat of this worker has run out")
        return UUID(str(found[0]))

    def holder(self, tenant: UUID) -> UUID | None:
        """Who serves the tenant and is alive."""
        with reachable(), self._isolation.connection("placement") as db:
            found = db.execute(
                "SELECT worker_id FROM leases JOIN workers USING (worker_id) "
                "WHERE tenant_id = %s AND until > clock_timestamp()",
                (tenant,),
                prepare=True,
            ).fetchone()
        return found[0] if found else None

    def of(self, workers: Collection[UUID]) -> set[UUID]:
        """The tenants whose leases name one of these workers, alive or not."""
        with reachable(), self._isolation.connection("placement") as db:
            found = db.execute("SELECT tenant_id FROM leases WHERE worker_id = ANY(%s)", (list(workers),))
            return {tenant for (tenant,) in found}

    def give(self, tenant: UUID, successor: UUID) -> None:
        """Hand our lease to another worker; nothing if it is not ours any more."""
        with reachable(), self._isolation.connection("placement") as db:
            db.execute(
                "UPDATE leases SET worker_id = %s, since = clock_timestamp() "
                "WHERE tenant_id = %s AND worker_id = %s",
                (successor, tenant, self._me),
            )

    def release(self, tenant: UUID) -> None:
        """Let a tenant go that nobody uses."""
        with reachable(), self._isolation.connection("placement") as db:
            db.execute("DELETE FROM leases WHERE tenant_id = %s AND worker_id = %s", (tenant, self._me))

    def leave(self) -> None:
        """Serve nothing any more, and be gone."""
        with reachable(), self._isolation.connection("placement") as db:
            db.execute(_LEAVE, {"me": self._me})
            # A lease that was being taken meanwhile: from now on nobody takes one for us.
            db.execute("DELETE FROM leases WHERE worker_id = %s", (self._me,))

    def forget_the_dead(self) -> None:
        """Workers long gone that left nothing behind."""
        with reachable(), self._isolation.connection("placement") as db:
            db.execute(_FORGET, (FORGOTTEN_AFTER_SECONDS,))


class LeasedLog(SnapshottedLog):
    """A tenant's log that is taken over only by the worker that the tenant's lease names."""

    worker_id: UUID

    def _claim(self) -> Head:
        with self.isolation.transaction(self.tenant) as connection:
            taking_over.wait_alone(connection, self.tenant, _WHERE_MINE, (self.tenant, self.worker_id))
            found = connection.execute(_CLAIM, (self.tenant, self.worker_id)).fetchone()
        if found is None:
            raise NotHeld("another worker serves this tenant")
        return Head(found[0], found[1], proof.unpack(found[2]))


_BEAT = """
WITH renewed AS (
    INSERT INTO workers AS mine (worker_id, name, takes_tenants, until)
    VALUES (%(me)s, %(name)s, %(takes)s, clock_timestamp() + make_interval(secs => %(seconds)s))
    ON CONFLICT (worker_id) DO UPDATE SET takes_tenants = excluded.takes_tenants,
        until = clock_timestamp() + make_interval(secs => %(seconds)s)
)
SELECT worker_id, until > clock_timestamp(), takes_tenants,
       extract(epoch FROM clock_timestamp() - started_at)::float, name
FROM workers
"""

_TAKE = "SELECT take_lease(%s, %s)"

_LEAVE = """
WITH given AS (DELETE FROM leases WHERE worker_id = %(me)s RETURNING tenant_id)
DELETE FROM workers WHERE worker_id = %(me)s AND (SELECT count(*) FROM given) >= 0
"""
"""Counting them has the leases go first."""

_WHERE_MINE = "FROM leases WHERE tenant_id = %s AND worker_id = %s"
"""Whom the lease does not name holds up nobody who appends."""

_CLAIM = """
INSERT INTO log_heads AS held (tenant_id, epoch)
SELECT leases.tenant_id, 1 FROM leases WHERE leases.tenant_id = %s AND leases.worker_id = %s
ON CONFLICT (tenant_id) DO UPDATE SET epoch = held.epoch + 1 RETURNING seq, epoch, peaks
"""

_FORGET = """
DELETE FROM workers WHERE worker_id IN (
    SELECT worker_id FROM workers WHERE until < clock_timestamp() - make_interval(secs => %s)
    AND NOT EXISTS (SELECT FROM leases WHERE leases.worker_id = workers.worker_id)
    FOR UPDATE SKIP LOCKED
)
"""
"""Of one that somebody looks at just now the next may be rid."""
