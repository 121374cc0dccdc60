"""Notifying: whoever wants to know of something is told at once, by webhook, e-mail and NATS.

It hears of commits over NATS and looks by itself who is behind: a commit that nobody told it of is late by
`LOOK_SECONDS`, and never lost. Several may run, on several machines: positions and claims are rows, so each
event is queued once for each place, and tried by one at a time.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from uuid import UUID

import msgspec
import psycopg
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from psycopg_pool import PoolTimeout

from ...domain.events import TOPICS
from ...domain.notice import BULK, DisableWebhook
from ...domain.refusals import Refused
from ...tenants.address_book import open_book
from ...tenants.isolation import Isolation
from ...tenants.sealing import RootKey
from .. import wires
from ..engine import Engine, wall_clock
from ..running import Product
from ..settings import Settings
from ..stopping import cancelled
from . import matching, queue, stream
from .matching import ANNOUNCED
from .sending import Disable, Sender, Tenants

LOOK_SECONDS = 0.5
THREADS_MAX = 6
RECONNECT_SECONDS = 1.0
TIDY_SECONDS = 3_600.0
BEHIND_MAX = 1_000
ACTOR = "allotment:notices"

log = structlog.get_logger()


class Notifying:
    """Use it as an async context manager, in one event loop."""

    def __init__(
        self,
        isolation: Isolation,
        root: RootKey,
        settings: Settings,
        disable: Disable,
        *,
        nats: Client | None = None,
        clock: Callable[[], int] = wall_clock,
        look_seconds: float = LOOK_SECONDS,
        claim_seconds: float | None = None,
        only: UUID | None = None,
    ) -> None:
        """`only` one tenant's notices are looked for, where a process speaks for no other."""
        self._isolation = isolation
        self._only = only
        self._clock = clock
        self._look_seconds = look_seconds
        self._executor = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="notifying")
        self._tenants = Tenants(isolation, self._executor, partial(open_book, isolation, root))
        self.sender = Sender(self._tenants, settings, disable, clock, nats, claim_seconds=claim_seconds)
        self._at_work: dict[UUID, tuple[asyncio.Event, asyncio.Task[None]]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._error = ""
        self._tidied: dict[UUID, float] = {}

    async def __aenter__(self) -> "Notifying":
        self._looking = asyncio.create_task(self._look_again_and_again(), name="notices due")
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [task for _, task in self._at_work.values()]
        if self._looking is not None:
            tasks.append(self._looking)
        await cancelled(tasks)
        await self.sender.close()
        self._executor.shutdown()

    def heard(self, tenant: UUID, topic: str = "", first: int = 0) -> None:
        """Something was committed that somebody may want to know."""
        at_work = self._at_work.get(tenant)
        if at_work is not None:
            at_work[0].set()
            return
        wake = asyncio.Event()
        task = asyncio.create_task(self._work(tenant, wake, topic, first), name="notices")
        self._at_work[tenant] = wake, task

    async def _work(self, tenant: UUID, wake: asyncio.Event, topic: str, first: int) -> None:
        """Look at what is new, until there is nothing."""
        try:
            if topic in ANNOUNCED:
                await self._tenants.in_thread(partial(self._begin, tenant, first))
            wake.set()
            while wake.is_set():
                wake.clear()
                more = True
                while more:
                    work = partial(matching.step, self._isolation, now=self._clock())
                    told, more = await self._tenants.use(tenant, work)
                    for place in told:
                        self.sender.begin(place)
            await self._tidy(tenant)
        except (psycopg.Error, PoolTimeout, OSError) as error:
            self._stumbled(error)
        except Exception:
            # One tenant's trouble is not another's; the next look tries again.
            log.exception("notices do not follow", tenant=str(tenant))
        finally:
            del self._at_work[tenant]

    async def _tidy(self, tenant: UUID) -> None:
        """Now and then, of a tenant that is at work anyway."""
        now = time.monotonic()
        if now - self._tidied.get(tenant, now - TIDY_SECONDS) < TIDY_SECONDS:
            return
        self._tidied[tenant] = now

        def tidy() -> None:
            with self._isolation.transaction(tenant) as db:
                queue.forget_old(db, self._clock())

        await self._tenants.in_thread(tidy)

    def _begin(self, tenant: UUID, first: int) -> None:
        """A tenant of which nobody had asked anything is told on its NATS subject, from here on."""
        with self._isolation.transaction(tenant) as db:
            matching.follow_from(db, first - 1)

    async def _look_again_and_again(self) -> None:
        while True:
            try:
                await self.look()
                self._error = ""
            except (psycopg.Error, PoolTimeout, OSError) as error:
                self._stumbled(error)
            await asyncio.sleep(self._look_seconds)

    async def look(self) -> None:
        """Begin with whatever nobody told us of."""
        behind = partial(matching.behind, self._isolation, BEHIND_MAX)
        for tenant in await self._tenants.in_thread(behind):
            if self._only in (None, tenant):
                self.heard(tenant)
        await self.sender.look(self._only)

    def _stumbled(self, error: Exception) -> None:
        """Say it once, not at every attempt."""
        if self._error != str(error):
            self._error = str(error)
            log.warning("notices do not follow", error=str(error))


# --- with NATS, and with an engine ---------------------------------------------------------------------


class _Told(msgspec.Struct):
    seqs: list[int]


@asynccontextmanager
async def notifying(product: Product, engine: Engine | None = None) -> AsyncIterator[Notifying]:
    """While the block lasts. Without an engine one is opened whenever a webhook is to be disabled."""
    client = Client()
    root = product.root_key()
    disable = partial(_disable, product, engine)
    made = Notifying(product.isolation, root, product.settings, disable, nats=client)
    async with made as notices:
        listening = asyncio.create_task(_listen(notices, client, product.nats_url), name="notices heard of")
        try:
            yield notices
        finally:
            await cancelled([listening])
            with contextlib.suppress(Exception):
                await client.close()


async def _listen(notices: Notifying, client: Client, nats_url: str) -> None:
    """Without NATS notices are later by a look, no more; only those for NATS itself wait."""
    if not nats_url:
        return

    async def heard(message: Msg) -> None:
        with contextlib.suppress(ValueError, msgspec.MsgspecError):
            _, tenant, topic = message.subject.split(".", 2)
            seqs = msgspec.json.decode(message.data, type=_Told).seqs
            notices.heard(UUID(tenant), topic, min(seqs, default=0))

    while True:
        try:
            await wires.connect(client, nats_url)
            await stream.prepare(client)
            for topic in sorted(set(TOPICS) - BULK):
                await client.subscribe(f"evt.*.{topic}", cb=heard)
            return
        except Exception as error:  # noqa: BLE001  (whatever it was, the next attempt may do)
            log.warning("notices are not heard of, only looked for", error=repr(error))
            with contextlib.suppress(Exception):
                await client.close()
            await asyncio.sleep(RECONNECT_SECONDS)


async def _disable(
    product: Product, engine: Engine | None, tenant: UUID, command: DisableWebhook, key: str
) -> None:
    with contextlib.suppress(Refused):
        if engine is not None:
            await engine.submit(tenant, command, key, ACTOR)
            return
        async with product.engine(following=False) as opened:
            await opened.submit(tenant, command, key, ACTOR)
