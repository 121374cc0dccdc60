"""Orphans: a worker whose parent is gone answers nobody new, hands over what it can, and is soon gone itself.

The parent owned the address, and the servers where they are embedded: both belong to whoever starts next.
Where the servers are somebody else's, workers of other machines take the tenants, as from any that stops.
"""

import os
import signal
import sys
import threading
import time

SECONDS_MAX = 5.0
"""From the end of the parent to that of the worker, whatever hangs."""
HAND_OVER_SECONDS_MAX = 2.0
LOOK_SECONDS = 0.1


class Parent:
    """The process that started this one, and was to outlive it."""

    def __init__(self, pid: int, listening: int, *, has_servers: bool) -> None:
        self._pid = pid
        self.listening = listening
        """The descriptor of its socket."""
        self.has_servers = has_servers
        """Whether PostgreSQL ends with it."""
        self.is_gone = False

    def watch(self) -> None:
        """Be told by SIGTERM when it is gone, however it ended.

        By a thread that looks: the kernel's own signal comes while the parent is still on its way out.
        """
        if os.getppid() != self._pid:
            sys.exit("the process that wanted this worker has gone")
        threading.Thread(target=self._look, name="parent", daemon=True).start()

    def _look(self) -> None:
        while os.getppid() == self._pid:
            time.sleep(LOOK_SECONDS)
        self.is_gone = True
        # The kernel ends what has not ended by itself then: nothing of ours can hold that up.
        signal.setitimer(signal.ITIMER_REAL, SECONDS_MAX)
        os.kill(os.getpid(), signal.SIGTERM)

    def leave_address(self) -> None:
        """Whoever starts next listens there."""
        os.close(self.listening)
