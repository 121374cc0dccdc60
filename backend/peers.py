"""Peers: asking the worker that serves a tenant, and answering those who ask us. Core NATS, no streams.

Nothing is kept on the way. Who hears no answer asks again, perhaps somebody else: usage is known by its
identity and a command by its key, so that nothing is done twice.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import msgspec
import structlog

from . import wires
from .parcels import PARCEL_BYTES_MAX, Fetching, Kept, Parcel, Parcels, Part, Piece, cut
from .stopping import cancelled
from .wire import Asked, Charging, Told, pack, trouble_of, unpack_asked, unpack_told
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
        self._incoming, self._outgoing = Parcels(), Parcels()
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

        TooLarge before anything is sent: of usage, which is cut by its sender; of more than any command.
        """
        body = pack(asked)
        client = await self._connected()
        if len(body) <= client.max_payload:
            told = await self._say(worker, body, asked.seconds, is_there)
        elif isinstance(asked, Charging) or len(body) > PARCEL_BYTES_MAX:
            raise TooLarge
        else:
            told = await self._say_in_pieces(worker, body, asked.seconds, is_there)
        return await self._fetched(worker, told, is_there) if isinstance(told, Parcel) else told

    async def _say_in_pieces(
        self, worker: UUID, body: bytes, seconds: float, is_there: Callable[[], bool]
    ) -> Told:
        parcel, parts = uuid4(), cut(body, self._piece_bytes())
        told: Told = Kept()
        for place, part in enumerate(parts):
            piece = Piece(parcel, place, len(parts), part, seconds)
            told = await self._say(worker, pack(piece), seconds, is_there)
            if not isinstance(told, Kept):
                break
        return told

    async def _fetched(self, worker: UUID, parcel: Parcel, is_there: Callable[[], bool]) -> Told:
        """An answer that came in pieces."""
        parts: list[bytes] = []
        for place in range(parcel.count):
            asked = Fetching(parcel.parcel, place)
            told = await self._say(worker, pack(asked), asked.seconds, is_there)
            if not isinstance(told, Part):
                raise Unavailable("the answer of the tenant's worker was lost on its way")
            parts.append(told.part)
        whole: Told = unpack_told(b"".join(parts))
        return whole

    def _piece_bytes(self) -> int:
        assert self._client is not None
        return self._client.max_payload // 2

    async def _say(self, worker: UUID, body: bytes, seconds: float, is_there: Callable[[], bool]) -> Told:
        client, breaks = await self._connected(), self._breaks
        asking = asyncio.create_task(client.request(f"{SUBJECT}.{worker.hex}", body, timeout=seconds))
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
                told = await self._told(asked)
        except TimeoutError:
            return
        except Exception as error:  # noqa: BLE001  (those that are foreseen are told, the others raised again)
            told = trouble_of(error)
        with contextlib.suppress(*_troubles()):
            await message.respond(self._as_message(pack(told)))

    async def _told(self, asked: Asked) -> Told:
        assert self._answer is not None
        if isinstance(asked, Fetching):
            return Part(self._outgoing.give(asked.parcel, asked.place))
        if isinstance(asked, Piece):
            whole = self._incoming.take(asked)
            if whole is None:
                return Kept()
            return await self._answer(unpack_asked(whole))
        return await self._answer(asked)

    def _as_message(self, answer: bytes) -> bytes:
        """An answer, or where it is too large for a message, how many pieces are to be fetched."""
        assert self._client is not None
        if len(answer) <= self._client.max_payload:
            return answer
        parcel, parts = uuid4(), cut(answer, self._piece_bytes())
        self._outgoing.put(parcel, parts)
        return pack(Parcel(parcel, len(parts)))


def _troubles() -> tuple[type[Exception], ...]:
    """What a line may fail with. Loaded when it is needed: most commands never ask another worker."""
    from nats.errors import Error  # noqa: PLC0415

    return (Error, OSError, TimeoutError)


def _nobody_listens(error: Exception) -> bool:
    from nats.errors import NoRespondersError  # noqa: PLC0415

    return isinstance(error, NoRespondersError)
