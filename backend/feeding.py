"""Feeding: a tenant's events to those who listen, as they are committed: first what they missed, then live.

One reader for each tenant and process, however many listen, and none while nobody does. Who cannot keep up
is cut off with the seq that came last, and goes on from there: nobody slow costs anybody memory or time.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TypeVar
from uuid import UUID

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from ..domain.events import Recorded
from ..graphql.context import TooSlow
from ..tenants.isolation import Isolation
from .engine import Engine
from .log import COLUMNS, Group, Row, recorded
from .stopping import cancelled

CHUNK = 2_000
"""Events read at a time."""
QUEUE_MAX = 5_000
"""Events that wait for one listener."""
POLL_SECONDS = 0.25
"""How often the log is looked at, for commits that nobody tells of here."""
PACE_SECONDS = 0.02
"""Between two looks: what is committed in that time is told together."""
RETRY_SECONDS = 1.0

log = structlog.get_logger()
R = TypeVar("R")


class Feeds:
    """Use it from the engine's event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._feeds: dict[UUID, Feed] = {}
        self.hear: Callable[[UUID, Callable[[], None]], contextlib.AbstractAsyncContextManager[None]] | None
        self.hear = None
        """Has the function called when something is committed for the tenant elsewhere."""
        before = engine.on_commit

        def committed(group: Group) -> None:
            feed = self._feeds.get(group.tenant)
            if feed is not None:
                feed.wake.set()
            if before is not None:
                before(group)

        engine.on_commit = committed

    async def close(self) -> None:
        await cancelled([feed.task for feed in self._feeds.values()])

    @property
    def listeners(self) -> int:
        return sum(len(feed.seats) for feed in self._feeds.values())

    async def follow(
        self, tenant: UUID, topics: Collection[str], after: int | None
    ) -> AsyncIterator[Sequence[Recorded]]:
        """Batches of events of these topics, in order, without a gap; raises TooSlow."""
        read = partial(self._read, tenant, topics)
        at = after
        while at is not None:
            # Far behind: by our own reading, so that nothing waits meanwhile.
            end, told = await read(at, None)
            if told:
                yield told
            if end - at < CHUNK:
                at = end
                break
            at = end
        feed, seat = self._joined(tenant, topics)
        try:
            joined = await seat.admitted
            while at is not None and at < joined:
                at, told = await read(at, joined)
                if told:
                    yield told
            while True:
                batch = [one for one in await seat.batch() if at is None or one.seq > at]
                if batch:
                    yield batch
        finally:
            feed.seats.discard(seat)
            if not feed.seats and self._feeds.get(tenant) is feed:
                del self._feeds[tenant]
                feed.task.cancel()

    def _joined(self, tenant: UUID, topics: Collection[str]) -> "tuple[Feed, Seat]":
        feed = self._feeds.get(tenant)
        if feed is None or feed.task.done():
            feed = self._feeds[tenant] = Feed(partial(self._read, tenant))
            feed.task = asyncio.create_task(self._run(tenant, feed), name="live events")
        seat = Seat(frozenset(topics))
        feed.seats.add(seat)
        feed.wake.set()
        return feed, seat

    async def _run(self, tenant: UUID, feed: "Feed") -> None:
        hearing = self.hear(tenant, feed.wake.set) if self.hear is not None else contextlib.nullcontext()
        async with hearing:
            await feed.run()

    async def _read(
        self, tenant: UUID, topics: Collection[str], after: int, upto: int | None
    ) -> tuple[int, list[Recorded]]:
        return await self._engine.in_thread(
            lambda: read_events(self._engine.isolation, tenant, topics, after, upto)
        )


class Feed:
    """What one tenant's listeners are told from."""

    def __init__(self, read: Callable[..., Awaitable[tuple[int, list[Recorded]]]]) -> None:
        self.seats: set[Seat] = set()
        self.wake = asyncio.Event()
        self.task: asyncio.Task[None]
        self._read = read
        self._at = -1

    async def run(self) -> None:
        while True:
            self.wake.clear()
            try:
                more = await self._step()
            except (psycopg.Error, PoolTimeout, OSError) as error:
                log.warning("live events are late", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            await asyncio.sleep(PACE_SECONDS)
            if not more:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.wake.wait(), POLL_SECONDS)

    async def _step(self) -> bool:
        if self._at < 0:
            self._at, _ = await self._read((), END, None)
        # Whoever has come since is told of what is read from here on.
        here = [seat for seat in self.seats if not seat.cut]
        for seat in here:
            seat.admit(self._at)
        topics = frozenset[str]().union(*(seat.topics for seat in here))
        end, told = await self._read(topics, self._at, None)
        more = end - self._at >= CHUNK
        self._at = end
        for seat in here:
            seat.put([one for one in told if one.topic in seat.topics])
        return more


class Seat:
    """One listener."""

    def __init__(self, topics: frozenset[str]) -> None:
        self.topics = topics
        self.admitted: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.cut = False
        self._waiting: list[Recorded] = []
        self._there = asyncio.Event()

    def admit(self, at: int) -> None:
        if not self.admitted.done():
            self.admitted.set_result(at)

    def put(self, told: Sequence[Recorded]) -> None:
        if told and not self.cut:
            if len(self._waiting) + len(told) > QUEUE_MAX:
                self.cut = True
                self._waiting.clear()
            else:
                self._waiting += told
            self._there.set()

    async def batch(self) -> list[Recorded]:
        await self._there.wait()
        self._there.clear()
        if self.cut:
            raise TooSlow
        batch, self._waiting = self._waiting, []
        return batch


END = 2**62


def read_events(
    isolation: Isolation, tenant: UUID, topics: Collection[str], after: int, upto: int | None
) -> tuple[int, list[Recorded]]:
    """The events of these topics among the next ones, and up to which seq was looked."""
    with isolation.transaction(tenant) as db:
        head = db.execute("SELECT seq FROM log_heads").fetchone()
        last = head[0] if head else 0
        if after >= last:
            return last if after >= END else after, []
        end = min(last if upto is None else min(upto, last), after + CHUNK)
        rows = db.execute(_EVENTS, (after, end, list(topics)), binary=True).fetchall() if topics else []
    return end, [recorded(Row(*row)) for row in rows]


_EVENTS = f"SELECT {COLUMNS} FROM events WHERE seq > %s AND seq <= %s AND topic = ANY(%s) ORDER BY seq"
