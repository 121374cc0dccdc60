"""Serving: the API on one event loop with the engine, until somebody says stop.

Granian runs inside our own loop: what is asked over HTTP and what is decided share their memory.
Stopping lets requests finish, and ends after a moment those that would go on for ever, such as
subscriptions; granian alone would wait for them.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from granian.constants import Interfaces
from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server.embed import Server

from .running import is_free
from .settings import SettingsError
from .web.exchanges import Exchanges

DATABASE_LOOK_SECONDS = 1.0
DATABASE_MISSED_MAX = 3
STOP_SECONDS_POLITE = 1.0
"""After so long what answers without end is ended."""
STOP_SECONDS_MAX = 10.0
"""So long requests may go on that are being worked on: a large batch takes a second, or some."""
CLOSING_SECONDS_MAX = 2.0

BACKLOG = 1_024

R = TypeVar("R")
Asgi = Callable[[Any, Any, Any], Awaitable[None]]


class NotServing(Exception):
    """Something that should run until the end ended by itself."""


class _Sharing(Server):
    """A server on a socket that other processes have as well: each connection is taken by one of them.

    Granian's own way, a socket for each process, loses the connections that wait in the queue of one
    that stops.
    """

    listening: int

    def _init_shared_socket(self) -> None:
        # Its stubs leave out that a holder is made of a descriptor.
        holder: Any = SocketHolder
        self._ssp, self._shd = None, holder(os.dup(self.listening), False, BACKLOG)


@asynccontextmanager
async def serving(
    app: Asgi, host: str, port: int, listening: int | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """Serve the app while the block lasts. The task given ends only if the server fails.

    `listening` is the descriptor of a socket that listens there already.
    """
    if listening is None and not is_free(host, port):
        # Granian would share the port with whoever has it, and every other request went there.
        raise SettingsError(
            f"ALLOTMENT_PORT: {host}:{port} is in use or cannot be listened on. Set another, or 0 for any."
        )
    exchanges = Exchanges(app)
    kind = Server if listening is None else _Sharing
    server = kind(
        exchanges, host, port, interface=Interfaces.ASGI, log_enabled=False, websockets=True, backlog=BACKLOG
    )
    if isinstance(server, _Sharing) and listening is not None:
        server.listening = listening
    task = asyncio.create_task(server.serve(), name="web")
    try:
        yield task
    finally:
        server.stop()  # type: ignore[no-untyped-call]
        await exchanges.stop(STOP_SECONDS_POLITE, STOP_SECONDS_MAX)
        await asyncio.wait([task], timeout=CLOSING_SECONDS_MAX)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def watch_database(database_url: str) -> None:
    """Ends when our own PostgreSQL has gone for good: nobody but a new start brings it back.

    One that is starting or recovering answers, if only to say so.
    """
    missed = 0
    while missed < DATABASE_MISSED_MAX:
        await asyncio.sleep(DATABASE_LOOK_SECONDS)
        missed = missed + 1 if await asyncio.to_thread(is_gone, database_url) else 0
    raise NotServing("the embedded PostgreSQL has ended; what was acknowledged is kept: start again")


def is_gone(database_url: str) -> bool:
    try:
        with psycopg.connect(database_url, connect_timeout=2):
            return False
    except psycopg.OperationalError as error:
        # With nobody behind the socket there is no answer; a server that refuses gives a reason.
        return error.sqlstate is None and "FATAL" not in str(error)


async def serve_until(told: Awaitable[R], *tasks: "asyncio.Task[None]") -> R:
    """Until somebody says stop, and what they said; raises if one of the tasks ends before."""
    waiting = asyncio.ensure_future(told)
    done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task in done:
            waiting.cancel()
            error = task.exception()
            raise NotServing(f"{task.get_name()} ended by itself: {error or 'no reason given'}") from error
    return waiting.result()
