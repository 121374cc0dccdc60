"""Projecting: a process of its own carries every tenant's log into its views.

It hears of commits over NATS, and looks by itself who is behind: a commit that nobody told it of
is late by `LOOK_SECONDS`, and never lost. Several may run, on several machines. A tenant is worked
on by whoever holds its claim, which whoever is killed lets go of at once. Claims only save double
work: it is exact because positions are locked, and committed with the rows.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import psycopg
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from psycopg.errors import LockNotAvailable
from psycopg_pool import PoolTimeout

from ..tenants.isolation import Connection, Isolation
from . import wires
from .following import CHUNK, Projector
from .keeping_up import woken
from .lagging import Behind, tenants_behind
from .stopping import cancelled

LOOK_SECONDS = 1.0
"""How often it looks for tenants that are behind and that nobody told it of."""
LOOK_SHARE = 20
"""A look that takes long is taken less often: it may cost a twentieth of the time."""
PACE_SECONDS = 0.02
"""Between two small chunks of a tenant: one of forty events costs the database as much as ten of four."""
POLL_SECONDS_MIN, POLL_SECONDS_MAX = 0.05, 1.0
"""How soon a tenant that was at work is looked at again, should nobody tell of its commits."""
REST_SECONDS = 30.0
"""A tenant without commits for so long is forgotten, and its claim let go of."""
TENANTS_MAX = 1_000
"""Tenants remembered at once, each with its hierarchy; then who has nothing to do makes room at once."""
ELSEWHERE_SECONDS = 1.0
"""How long another's claim is taken for granted."""
STUCK_SECONDS = 5.0
"""Whoever claims a tenant and does not move it for so long has stopped: then it is done without a claim."""
THREADS_MAX = 4

COMMITS = "evt.*.>"
"""What the messenger tells after a commit: `evt.<tenant id>.<topic>`."""
SHOWN = "view"
"""`view.<tenant id>`: how far the tenant's views have come, after each chunk."""

log = structlog.get_logger()
R = TypeVar("R")


class Shown(msgspec.Struct):
    """What is told under `view.<tenant id>`."""

    seq: int


class Projecting:
    """Keeps the views of all tenants up. Use it as an async context manager, in one event loop."""

    def __init__(
        self,
        isolation: Isolation,
        *,
        on_shown: Callable[[UUID, int], None] | None = None,
        look_seconds: float = LOOK_SECONDS,
        chunk: int = CHUNK,
    ) -> None:
        self.on_shown = on_shown
        self._isolation = isolation
        self._look_seconds = look_seconds
        self._chunk = chunk
        self._executor = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="projecting")
        self._claims = Claims(isolation)
        self._at_work: dict[UUID, tuple[asyncio.Event, asyncio.Task[None]]] = {}
        self._elsewhere: dict[UUID, float] = {}
        self._unmoved: dict[UUID, tuple[int, float]] = {}
        """Of tenants claimed elsewhere: where they were seen, and since when they have stood there."""
        self._errors: dict[UUID | None, str] = {}
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Projecting":
        self._looking = asyncio.create_task(self._look_again_and_again(), name="looking")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finish the chunks at hand, and let go of all claims."""
        tasks = [task for _, task in self._at_work.values()]
        if self._looking is not None:
            tasks.append(self._looking)
        await cancelled(tasks)
        self._executor.shutdown()
        self._claims.close()

    def heard(self, tenant: UUID) -> None:
        """Something was committed for this tenant."""
        at_work = self._at_work.get(tenant)
        if at_work is not None:
            at_work[0].set()
        elif time.monotonic() >= self._elsewhere.get(tenant, 0.0):
            self._begin(tenant)

    # --- who is behind ------------------------------------------------------------------------

    async def _look_again_and_again(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self._look()
                self._errors.pop(None, None)
            except (psycopg.Error, PoolTimeout, OSError) as error:
                self._stumbled(None, error)
            taken = time.monotonic() - began
            await asyncio.sleep(max(self._look_seconds, LOOK_SHARE * taken))

    async def _look(self) -> None:
        behind = await self._in_thread(partial(tenants_behind, self._isolation, TENANTS_MAX))
        await self._in_thread(self._claims.check)
        now = time.monotonic()
        self._elsewhere = {tenant: until for tenant, until in self._elsewhere.items() if until > now}
        self._unmoved = {
            one.tenant: self._unmoved_since(one, now) for one in behind if one.tenant not in self._at_work
        }
        for one in behind:
            at_work = self._at_work.get(one.tenant)
            if at_work is not None:
                at_work[0].set()
            else:
                _, since = self._unmoved[one.tenant]
                self._begin(one.tenant, claimed=now - since < STUCK_SECONDS)

    def _unmoved_since(self, one: Behind, now: float) -> tuple[int, float]:
        shown, since = self._unmoved.get(one.tenant, (-1, now))
        return (shown, since) if shown == one.shown else (one.shown, now)

    # --- one tenant ---------------------------------------------------------------------------

    def _begin(self, tenant: UUID, *, claimed: bool = True) -> None:
        if len(self._at_work) < TENANTS_MAX:
            wake = asyncio.Event()
            task = asyncio.create_task(self._work(tenant, wake, claimed), name=f"projecting-{tenant}")
            self._at_work[tenant] = wake, task

    async def _work(self, tenant: UUID, wake: asyncio.Event, claimed: bool) -> None:
        try:
            if not claimed:
                log.warning("views do not move under another's claim", tenant=str(tenant))
            elif not await self._in_thread(partial(self._claims.take, tenant)):
                self._elsewhere[tenant] = time.monotonic() + ELSEWHERE_SECONDS
                return
            await self._keep_up(tenant, wake)
            self._errors.pop(tenant, None)
        except Exception as error:  # noqa: BLE001  (one tenant's trouble is not another's; the next look tries again)
            self._elsewhere[tenant] = time.monotonic() + ELSEWHERE_SECONDS
            self._stumbled(tenant, error)
        finally:
            del self._at_work[tenant]
            with contextlib.suppress(psycopg.Error, RuntimeError):
                await self._in_thread(partial(self._claims.release, tenant))

    async def _keep_up(self, tenant: UUID, wake: asyncio.Event) -> None:
        """Chunk after chunk, until there has been nothing for a while."""
        projector = Projector(self._isolation, tenant, chunk=self._chunk)
        shown, moved, pause = 0, time.monotonic(), POLL_SECONDS_MIN
        while time.monotonic() - moved < (REST_SECONDS if len(self._at_work) < TENANTS_MAX else 0.1):
            wake.clear()
            began = time.monotonic()
            before, more = shown, False
            # Somebody else who has the views in hand is looked at again like one that has nothing to do.
            with contextlib.suppress(LockNotAvailable):
                shown, more = await self._in_thread(projector.step)
            if more:
                self._tell(tenant, shown)
                moved, pause = time.monotonic(), POLL_SECONDS_MIN
                if shown - before < self._chunk:
                    await asyncio.sleep(PACE_SECONDS - (moved - began))
            elif not await woken(wake, pause):
                pause = min(2 * pause, POLL_SECONDS_MAX)

    def _tell(self, tenant: UUID, shown: int) -> None:
        self._errors.pop(tenant, None)
        if self.on_shown is not None:
            self.on_shown(tenant, shown)

    def _stumbled(self, tenant: UUID | None, error: Exception) -> None:
        """Say it once, not at every attempt."""
        if self._errors.get(tenant) != str(error):
            self._errors[tenant] = str(error)
            log.warning("views do not follow", tenant=str(tenant or "all"), error=str(error))

    async def _in_thread(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


class Claims:
    """Which tenants are ours, by advisory locks of one session: PostgreSQL frees them when it ends."""

    def __init__(self, isolation: Isolation) -> None:
        self._isolation = isolation
        self._session = ExitStack()
        self._db: Connection | None = None
        self._using = threading.Lock()

    def take(self, tenant: UUID) -> bool:
        with self._using:
            found = self._connection().execute("SELECT pg_try_advisory_lock(%s)", (_key(tenant),)).fetchone()
        return bool(found and found[0])

    def release(self, tenant: UUID) -> None:
        with self._using:
            if self._db is not None and not self._db.broken:
                # Where it was done without a claim there is nothing to let go of, which is only a warning.
                self._db.execute("SELECT pg_advisory_unlock(%s)", (_key(tenant),))

    def check(self) -> None:
        """Find out whether the session still lives; with it all claims are gone, and can be taken again."""
        with self._using:
            if self._db is not None:
                self._db.execute("SELECT")

    def close(self) -> None:
        with self._using:
            self._end()

    def _connection(self) -> Connection:
        if self._db is not None and (self._db.broken or self._db.closed):
            self._end()
        if self._db is None:
            self._db = self._session.enter_context(self._isolation.connection("projector"))
        return self._db

    def _end(self) -> None:
        if self._db is not None:
            # Closed, not handed back: whoever was given it next would hold our claims.
            self._db.close()
        self._db = None
        self._session.close()


def _key(tenant: UUID) -> int:
    """Two tenants of one key would only wait for each other's projector, and not for long."""
    return int.from_bytes(tenant.bytes[:8], "big", signed=True)


# --- with NATS -------------------------------------------------------------------------------------


@asynccontextmanager
async def projecting(isolation: Isolation, nats_url: str) -> AsyncIterator[Projecting]:
    """Keep all views up while the block lasts; told of commits over NATS, and telling what is shown."""
    async with Projecting(isolation) as keeping:
        listening = asyncio.create_task(_listen(keeping, nats_url), name="commits") if nats_url else None
        try:
            yield keeping
        finally:
            if listening is not None:
                await cancelled([listening])


async def _listen(keeping: Projecting, nats_url: str) -> None:
    """Without NATS the views are later by a look, no more: so it is waited for, and not insisted on."""
    client = Client()
    telling: set[asyncio.Task[None]] = set()

    async def heard(message: Msg) -> None:
        with contextlib.suppress(ValueError):
            keeping.heard(UUID(message.subject.split(".")[1]))

    def shown(tenant: UUID, seq: int) -> None:
        told = client.publish(f"{SHOWN}.{tenant}", msgspec.json.encode(Shown(seq)))
        task = asyncio.create_task(_attempted(told))
        telling.add(task)
        task.add_done_callback(telling.discard)

    while True:
        try:
            await wires.connect(client, nats_url)
            await client.subscribe(COMMITS, cb=heard)
            break
        except Exception as error:  # noqa: BLE001  (whatever it was, the next attempt may do)
            log.warning("commits are not heard of, only looked for", error=repr(error))
            await asyncio.sleep(wires.RECONNECT_SECONDS)
    keeping.on_shown = shown
    try:
        await asyncio.Event().wait()
    finally:
        keeping.on_shown = None
        with contextlib.suppress(Exception):
            await client.close()


async def _attempted(telling: Coroutine[Any, Any, None]) -> None:
    """Who misses it finds it out by looking."""
    with contextlib.suppress(Exception):
        await telling
