"""Letting go: who stops does not wait for a database that has gone.

To close in order takes the database: groups under way, snapshots, leases. Where nobody is behind its
address any more, all who wait for it are told so at once. Nothing is lost by it: what was acknowledged
is stored, and a lease that is not given back runs out.
"""

import threading
from types import TracebackType

import structlog

from ..tenants.isolation import Isolation
from .serving import is_gone

LOOK_SECONDS = 0.5
MISSED_MAX = 3
"""So often in a row: a server that is started again answers, or will in a moment."""

log = structlog.get_logger()


class LettingGo:
    """Around all that is closed on the way out. A thread: whoever closes may hold up the event loop."""

    def __init__(self, isolation: Isolation) -> None:
        self._isolation = isolation
        self._closed = threading.Event()

    def __enter__(self) -> "LettingGo":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._closed.set()

    def begin(self, *, at_once: bool = False) -> None:
        """From here on all is being closed; `at_once`: the database is known to be on its way out."""
        threading.Thread(target=self._look, args=(at_once,), name="letting go", daemon=True).start()

    def _look(self, at_once: bool) -> None:
        missed = MISSED_MAX if at_once else 0
        while missed < MISSED_MAX:
            if self._closed.wait(LOOK_SECONDS):
                return
            missed = missed + 1 if is_gone(self._isolation.database_url) else 0
        log.warning("the database has gone, nothing waits for it any more; what was acknowledged is kept")
        self._isolation.give_up()
