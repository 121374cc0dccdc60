"""Exchanges: every request under way, its body taken in time and whole, and an answer also when we stop.

A client that leaves in the midst of its body, or falls silent, is told so and costs nothing more. When
the server stops, what answers without end (subscriptions, live counters) is ended after a moment; what
is being worked on may finish, and is told to come again where that takes too long.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Send

from .answer_headers import answer
from .problem_details import MEDIA_TYPE, HttpProblem, body_of, cut_off, later, too_slow

SILENT_SECONDS_MAX = 30.0
"""How long a client may send nothing in the midst of a body."""
LOOK_SECONDS = 0.02


class Exchanges:
    """An app that knows which requests it is answering."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open: dict[asyncio.Task[Any], _Exchange] = {}

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if scope["type"] == "lifespan" or task is None:
            await self._app(scope, receive, send)
            return
        exchange = self._open[task] = _Exchange(scope, receive, send)
        try:
            if scope["type"] == "http":
                await self._app(scope, exchange.receive, exchange.send)
            else:
                await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not exchange.is_told_to_end or exchange.is_answering:
                raise
            told = "this server stops: send the same again, nothing is done twice"
            await exchange.refuse(later(503, "unavailable", told))
        finally:
            del self._open[task]

    async def stop(self, polite_seconds: float, most_seconds: float) -> None:
        """End what answers without end after the one time, and all that is left after the other."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while self._open and loop.time() < began + most_seconds:
            if loop.time() >= began + polite_seconds:
                self._end(task for task, one in self._open.items() if one.is_answering)
            await asyncio.sleep(LOOK_SECONDS)
        self._end(self._open)

    def _end(self, tasks: Iterable["asyncio.Task[Any]"]) -> None:
        for task in [*tasks]:
            if not self._open[task].is_told_to_end:
                self._open[task].is_told_to_end = True
                task.cancel()


class _Exchange:
    """One request and its answer."""

    __slots__ = ("_receive", "_scope", "_send", "_whole", "is_answering", "is_told_to_end")

    def __init__(self, scope: Any, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._whole = False
        """All of its body is here."""
        self.is_answering = scope["type"] != "http"
        """The answer has begun; a conversation is one from the beginning."""
        self.is_told_to_end = False

    async def receive(self) -> Any:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout(SILENT_SECONDS_MAX):
                message = await self._receive()
        except TimeoutError:
            raise too_slow() from None
        if message["type"] == "http.disconnect":
            raise cut_off()
        self._whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        self.is_answering = True
        await self._send(message)

    async def refuse(self, problem: HttpProblem) -> None:
        headers = {"content-type": MEDIA_TYPE, **problem.headers}
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await answer(self._scope, self._send, problem.status, pairs, body_of(problem, self._scope))
