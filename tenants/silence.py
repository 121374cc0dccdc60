"""Connections that notice when nobody answers any more, and do not wait for ever.

A network that swallows everything, a server whose machine is gone, a proxy that hangs: none of them
says so. Who has waited a while without a word asks on a new connection whether the server still works
for the one that is silent. If it does, however slowly, it is waited for: PostgreSQL itself bounds
statements and locks. If it does not, or cannot be asked, the connection is closed, and whoever waits
hears an error that passes. What was under way may be done or not, as after any cut.

Silence is counted in looks, not by a clock: a process that stood still itself has looked once.
"""

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple, TypeVar

import psycopg
import structlog
from psycopg.abc import PQGen
from psycopg.rows import TupleRow

LOOK_SECONDS = 0.1
SILENT_SECONDS = 3.0
"""Without a word for so long, it is asked whether the server still works for us."""
LEASE_SILENT_SECONDS = 0.8
"""The same for leases: the next heartbeat has to come in time on another connection."""
GRACE_SECONDS = 0.5
"""An answer may be on its way just when the server says that it has nothing to do."""
APPEND_SECONDS_MAX = 20.0
"""Longer than an append works on any disk: then it is given up even where the server says it does."""
CONNECT_SECONDS_MAX = 5
ASK_SECONDS_MAX = 2
ASKED_AGO_SECONDS_MAX = 0.5
"""Many who wait for one server ask it once."""

log = structlog.get_logger()
R = TypeVar("R")


class Silent(psycopg.OperationalError):
    """Nobody answered. What was under way may be done or not."""


class Patience(NamedTuple):
    """How long a connection is waited for without a word."""

    silent_seconds: float = SILENT_SECONDS
    longest_seconds: float | None = None
    """After so long it is given up even if the server says that it works; None where its own limits do."""


class Asking:
    """Finds out which sessions a server works for, on a connection of its own."""

    def __init__(self, database_url: str, settings: dict[str, Any]) -> None:
        self._database_url = database_url
        self._settings = settings
        self._lock = threading.Lock()
        self._asked_at = 0.0
        self._at_work: frozenset[int] | None = frozenset()

    def works_for(self, session: int) -> bool:
        """Whether the server works for a session of ours; where it does answer but may not say, it may."""
        with self._lock:
            if monotonic() - self._asked_at > ASKED_AGO_SECONDS_MAX:
                self._at_work = self._ask()
                self._asked_at = monotonic()
            return self._at_work is None or session in self._at_work

    def _ask(self) -> frozenset[int] | None:
        try:
            with _Asked.connect(self._database_url, **self._settings) as db:
                return frozenset(session for (session,) in db.execute(_AT_WORK))
        except psycopg.OperationalError as error:
            # A server that turns us away lives: nothing is known of the session, so it is waited for.
            return None if _REFUSED in str(error) else frozenset()


_REFUSED = "FATAL"
_AT_WORK = """
SELECT pid FROM pg_stat_activity
WHERE usename = session_user AND pid <> pg_backend_pid()
  AND coalesce(state, '') NOT LIKE 'idle%' AND wait_event_type IS DISTINCT FROM 'Client'
"""
"""A session that waits for its client has answered, or has not heard what it was asked."""


class BoundedConnection(psycopg.Connection[TupleRow]):
    """A connection that is given up when nobody answers. Its pool says how patient it is, and who is told."""

    patience = Patience()
    asking: Asking | None = None
    """Who is asked when it is silent; it is given up at once where there is nobody."""
    on_silence: Callable[["BoundedConnection"], None] | None = None
    opened_at = 0.0
    """By the monotonic clock; known to who opened it."""

    def wait(self, gen: PQGen[R], interval: float = LOOK_SECONDS, timeout: float | None = None) -> R:
        return super().wait(self._watched(gen), interval, timeout)

    def _watched(self, gen: PQGen[R]) -> PQGen[R]:
        """The same, counting how often nothing has come."""
        session = self.pgconn.backend_pid
        looks, silent = 0, 0
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    silent = 0
                else:
                    looks, silent = looks + 1, silent + 1
                    silent = self._looked(session, silent, looks)
                wanted = gen.send(ready)
        except StopIteration as ended:
            result: R = ended.value
            return result

    def _looked(self, session: int, silent: int, looks: int) -> int:
        """After a look that found nothing: how many such looks in a row count. Raises when it is given up."""
        patience, asking = self.patience, self.asking
        if patience.longest_seconds is not None and looks * LOOK_SECONDS >= patience.longest_seconds:
            self._give_up(session)
        if silent * LOOK_SECONDS < patience.silent_seconds:
            return silent
        if asking is not None and asking.works_for(session):
            return 0
        if asking is None or silent * LOOK_SECONDS >= patience.silent_seconds + GRACE_SECONDS:
            self._give_up(session)
        return silent

    def _give_up(self, session: int) -> None:
        log.warning("gave up a connection on which nobody answers", session=session)
        self.pgconn.finish()
        if self.on_silence is not None:
            self.on_silence(self)
        raise Silent("nobody answers on this connection")


class _Asked(BoundedConnection):
    """The connection to ask on, which nobody is asked about."""

    patience = Patience(ASK_SECONDS_MAX)
