"""Peers: asking the worker that serves a tenant, and answering those who ask us. Core NATS, no streams.

Nothing is kept on the way. Who hears no answer asks again, perhaps somebody else: usage is known by its
identity and a command by its key, so that nothing is done twice.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
import structlog

from . import wires
from .stopping import cancelled
from .wire import Asked, Told, pack, trouble_of, unpack_asked, unpack_told
from .writer import Moved, Unavailable

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

SUBJECT = "allotment.work"
LOOK_SECONDS = 0.2
CONNECT_SECONDS_MAX = 5.0
PENDING_BYTES_MAX = 256 * 1024 * 1024

log = structlog.get_logger()
Answering = Callable[[Asked], Awaitable[Told]]


class TooLarge(Exception):
    """More than one message may hold."""


class Peers:
    """One worker's line to the others. Connects when it is first needed."""

    def __init__(self, me: UUID, url: Callable[[], str], *, listens: bool) -> None:
        self._me = me
        self._url = url
        self._listens = listens
        """Whether others may ask us. Else the line is opened only to ask."""
        self._client: Client | None = None
        self._breaks = 0
        """How often the line was cut: an answer that was on its way is lost with it."""
        self._connecting = asyncio.Lock()
        self._answering: set[asyncio.Task[None]] = set()
        self._answer: Answering | None = None

    async def start(self, answer: Answering) -> None:
        self._answer = answer
        if self._listens:
            await self._connected()

    async def stop(self) -> None:
        await cancelled(self._answering)
        if self._client is not None:
            with contextlib.suppress(*_troubles()):
                await self._client.close()

    # --- asking -----------------------------------------------------------------------------

    async def ask(self, worker: UUID, asked: Asked, is_there: Callable[[], bool]) -> Told:
        """What the worker says. Moved when it is not there (any more), Unavailable when it says nothing.

        TooLarge before anything is sent.
        """
        body = pack(asked)
        client = await self._connected()
        if len(body) > client.max_payload:
            raise TooLarge
        breaks = self._breaks
        asking = asyncio.create_task(client.request(f"{SUBJECT}.{worker.hex}", body, timeout=asked.seconds))
        try:
            while not asking.done() and is_there() and breaks == self._breaks:
                await asyncio.wait([asking], timeout=LOOK_SECONDS)
            if not asking.done():
                raise Moved("the worker that was asked is gone, or the line to it was cut")
            answer = asking.result()
        except _troubles() as error:
            if _nobody_listens(error):
                raise Moved("the worker that was asked does not answer") from error
            raise Unavailable(f"no answer from the tenant's worker: {error!r}") from error
        finally:
            asking.cancel()
        told: Told = unpack_told(answer.data)
        return told

    async def _connected(self) -> "Client":
        async with self._connecting:
            if self._client is None:
                try:
                    self._client = await self._connect()
                except _troubles() as error:
                    raise Unavailable(
                        f"NATS cannot be reached, to ask the tenant's worker: {error!r}"
                    ) from error
            return self._client

    async def _connect(self) -> "Client":
        from nats.aio.client import Client  # noqa: PLC0415  (as below)

        client, url = Client(), await asyncio.to_thread(self._url)
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                await wires.connect(client, url, cut=self._cut)
            await client.subscribe(
                f"{SUBJECT}.{self._me.hex}", cb=self._asked, pending_bytes_limit=PENDING_BYTES_MAX
            )
            await client.flush()
        except BaseException:
            # Half a line is none, whoever gave up on it.
            await client.close()
            raise
        return client

    async def _cut(self) -> None:
        self._breaks += 1

    # --- answering --------------------------------------------------------------------------

    async def _asked(self, message: "Msg") -> None:
        task = asyncio.create_task(self._tell(message))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _tell(self, message: "Msg") -> None:
        assert self._answer is not None
        try:
            asked = unpack_asked(message.data)
        except msgspec.MsgspecError as error:
            log.warning("a worker asked what this version does not know", error=str(error))
            return
        told: Told
        try:
            async with asyncio.timeout(asked.seconds):
                told = await self._answer(asked)
        except TimeoutError:
            return
        except Exception as error:  # noqa: BLE001  (those that are foreseen are told, the others raised again)
            told = trouble_of(error)
        with contextlib.suppress(*_troubles()):
            await message.respond(pack(told))


def _troubles() -> tuple[type[Exception], ...]:
    """What a line may fail with. Loaded when it is needed: most commands never ask another worker."""
    from nats.errors import Error  # noqa: PLC0415

    return (Error, OSError, TimeoutError)


def _nobody_listens(error: Exception) -> bool:
    from nats.errors import NoRespondersError  # noqa: PLC0415

    return isinstance(error, NoRespondersError)
