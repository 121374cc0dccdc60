"""Keeping up: who waits until the views show an event, and who sees to it that they do.

A `Follower` carries one tenant's log into its views itself. Where a projector does that in a
process of its own (`projecting.py`), a `Watcher` looks how far it has come: only while somebody
waits, and at once when it hears of it. Readers cannot tell the two apart.
"""

import asyncio
from concurrent.futures import Executor
from heapq import heappop, heappush
from itertools import count
from typing import Protocol
from uuid import UUID

import psycopg
import structlog
from psycopg.errors import LockNotAvailable

from ..tenants.isolation import Isolation
from .following import Projector, position
from .stopping import cancelled

POLL_SECONDS = 1.0
"""How often a follower looks by itself, for commits that nobody told it of."""
PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.05, 2.0
LOOK_SECONDS_MIN, LOOK_SECONDS_MAX = 0.01, 0.1
"""How often a watcher looks while somebody waits: soon at first, less often for who waits long."""

log = structlog.get_logger()


class Keeper(Protocol):
    """What an engine needs of either."""

    position: int
    error: Exception | None

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def notify(self, seq: int = 0) -> None:
        """Something was committed, up to this seq."""
        ...

    @property
    def is_busy(self) -> bool:
        """Whether somebody waits, or work is known to be left."""
        ...

    async def wait_for(self, seq: int, timeout: float) -> None:  # noqa: ASYNC109  (a reader's patience)
        """Return once the views show at least this seq; TimeoutError if they do not in time."""
        ...


class _Readers:
    """Who waits for which seq."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._places = count()

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, seq: int, timeout: float) -> None:  # noqa: ASYNC109  (a reader's patience)
        shown: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (seq, next(self._places), shown))
        await asyncio.wait_for(shown, timeout)

    def reached(self, seq: int) -> None:
        while self._waiting and (self._waiting[0][0] <= seq or self._waiting[0][2].done()):
            _, _, shown = heappop(self._waiting)
            if not shown.done():
                shown.set_result(None)

    def fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, []
        for _, _, shown in waiting:
            if not shown.done():
                shown.set_exception(error)


def _not_yet(position: int, seq: int) -> TimeoutError:
    return TimeoutError(f"the views have reached {position}, not yet {seq}: ask again")


class Follower:
    """Keeps a tenant's views up with its log. Use it from the event loop that started it."""

    def __init__(
        self,
        isolation: Isolation,
        tenant: UUID,
        *,
        executor: Executor | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.tenant = tenant
        self.position = 0
        """The seq that all views have reached, as far as this follower knows."""
        self.error: Exception | None = None
        """Why it is not getting on at the moment; None when it is."""
        self._projector = Projector(isolation, tenant)
        self._executor = executor
        self._poll_seconds = poll_seconds
        self._head = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._readers = _Readers()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._follow(), name=f"follower-{self.tenant}")

    async def close(self) -> None:
        """Finish the chunk at hand, then stop."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        self._readers.fail(Exception("the follower was closed"))

    def notify(self, seq: int = 0) -> None:
        """Something was committed, up to this seq."""
        self._head = max(self._head, seq)
        self._wake.set()

    @property
    def lag(self) -> int:
        """Events committed, as far as known here, and not yet visible."""
        return max(0, self._head - self.position)

    @property
    def is_busy(self) -> bool:
        return self.lag > 0

    async def wait_for(self, seq: int, timeout: float) -> None:  # noqa: ASYNC109  (a reader's patience)
        """Return once the views show at least this seq; TimeoutError if they do not in time."""
        if seq <= self.position:
            return
        self._wake.set()
        try:
            await self._readers.wait(seq, timeout)
        except TimeoutError:
            raise _not_yet(self.position, seq) from None

    async def _follow(self) -> None:
        pause = PAUSE_SECONDS_MIN
        while not self._closing:
            self._wake.clear()
            try:
                more = await self._step()
                pause = PAUSE_SECONDS_MIN
                if not more:
                    await woken(self._wake, self._poll_seconds)
            except (psycopg.Error, OSError) as error:
                # Where somebody else has the views in hand, they do follow.
                if not isinstance(error, LockNotAvailable):
                    self._stumbled(error)
                self._wake.clear()
                await woken(self._wake, pause)
                pause = min(2 * pause, PAUSE_SECONDS_MAX)
            except Exception as error:  # noqa: BLE001  (a view that cannot go on must not take the writer along)
                self._stumbled(error)
                self._readers.fail(error)
                self._wake.clear()
                await woken(self._wake, PAUSE_SECONDS_MAX)

    async def _step(self) -> bool:
        loop = asyncio.get_running_loop()
        reached, more = await loop.run_in_executor(self._executor, self._projector.step)
        self.error = None
        self.position = reached
        self._head = max(self._head, reached)
        self._readers.reached(reached)
        return more

    def _stumbled(self, error: Exception) -> None:
        if str(error) != str(self.error):
            log.warning("views do not follow", tenant=str(self.tenant), at=self.position, error=str(error))
        self.error = error


async def woken(wake: asyncio.Event, seconds: float) -> bool:
    """Wait for so long, or until somebody wakes us."""
    try:
        await asyncio.wait_for(wake.wait(), seconds)
    except TimeoutError:
        return False
    return True


class Watcher:
    """Tells readers when a projector elsewhere has come far enough. Use it from one event loop."""

    def __init__(self, isolation: Isolation, tenant: UUID, *, executor: Executor | None = None) -> None:
        self.tenant = tenant
        self.position = 0
        """The seq that all views have reached, as far as was looked or heard."""
        self.error: Exception | None = None
        """Why it cannot be looked at the moment; None when it can."""
        self._isolation = isolation
        self._executor = executor
        self._readers = _Readers()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Nothing to do before somebody waits."""

    async def close(self) -> None:
        if self._task is not None:
            await cancelled([self._task])
        self._readers.fail(Exception("the watcher was closed"))

    def notify(self, seq: int = 0) -> None:
        """The projector hears of commits by itself."""

    def shown(self, seq: int) -> None:
        """The projector says how far it has come."""
        self.position = max(self.position, seq)
        self._readers.reached(self.position)

    @property
    def is_busy(self) -> bool:
        return len(self._readers) > 0

    async def wait_for(self, seq: int, timeout: float) -> None:  # noqa: ASYNC109  (a reader's patience)
        if seq <= self.position:
            return
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look(), name=f"watcher-{self.tenant}")
        try:
            await self._readers.wait(seq, timeout)
        except TimeoutError:
            raise _not_yet(self.position, seq) from None

    async def _look(self) -> None:
        """While somebody waits. Who gave up waiting is forgotten at the next look."""
        loop, pause = asyncio.get_running_loop(), LOOK_SECONDS_MIN
        # The one who started us begins to wait only when we first let go.
        await asyncio.sleep(LOOK_SECONDS_MIN)
        while len(self._readers):
            try:
                self.shown(await loop.run_in_executor(self._executor, self._standing))
                self.error = None
            except (psycopg.Error, OSError) as error:
                self.error = error
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, LOOK_SECONDS_MAX)

    def _standing(self) -> int:
        with self._isolation.transaction(self.tenant) as db:
            return position(db)
