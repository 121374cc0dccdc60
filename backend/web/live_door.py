"""Live answers over `/graphql`: server-sent events, and WebSockets that speak graphql-transport-ws.

A caller is who its token says, for as long as the token is valid: then the line is closed. A handshake from
another origin's page is refused. Who does not take what it asked for is cut off, with a code that says so,
and subscribes again with `afterSeq`.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import orjson
import structlog
from graphql import GraphQLError
from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect
from strawberry.exceptions import MissingQueryError
from strawberry.schema.exceptions import CannotGetOperationTypeError
from strawberry.types import ExecutionResult

from ...graphql.context import TooSlow
from ...graphql.schema import Schema
from ...tenants.identity import InvalidToken, KeysUnavailable, Principal
from .bearer import Callers
from .problem_details import HttpProblem
from .request_context import RequestContext

PROTOCOL = "graphql-transport-ws"
INIT_SECONDS_MAX = 10.0
SEND_SECONDS_MAX = 10.0
"""Who takes nothing for so long is cut off."""
SILENCE_SECONDS = 15.0
"""After so long without an event something is sent, so that nobody in between hangs up."""
SUBSCRIPTIONS_MAX = 20
MESSAGE_CHARACTERS_MAX = 64 * 1024

BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, INIT_TIMEOUT = 4400, 4401, 4403, 4408
TWICE, TOO_MANY, TOO_SLOW, INTERNAL = 4409, 4429, 4412, 4500

log = structlog.get_logger()
MakeContext = Callable[[Principal], RequestContext]
Socket = WebSocket[Any, Any, Any]


# --- server-sent events ------------------------------------------------------------------------------


async def event_stream(
    schema: Schema,
    context: RequestContext,
    query: str,
    variables: dict[str, Any] | None,
    operation_name: str | None,
) -> AsyncIterator[bytes]:
    """The results of one operation, as graphql-sse says it for a connection of their own."""
    results = results_of(schema, context, query, variables, operation_name)
    ends_at = context.principal.expires_at
    waiting: asyncio.Task[Any] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(results, None))
            seconds = max(0.0, min(SILENCE_SECONDS, ends_at - time.time()))
            done, _ = await asyncio.wait([waiting], timeout=seconds)
            if done:
                result = waiting.result()
                waiting = None
                if result is None:
                    break
                yield _event("next", orjson.dumps(result))
            elif time.time() >= ends_at:
                yield _event("next", orjson.dumps(_errors("token_expired", "get a new token, and go on")))
                break
            else:
                yield b":\n\n"
        yield _event("complete", b"")
    except TooSlow as error:
        yield _event("next", orjson.dumps(_errors("too_slow", str(error))))
        yield _event("complete", b"")
    finally:
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await results.aclose()


def _event(name: str, told: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + told + b"\n\n"


def _errors(code: str, message: str) -> dict[str, Any]:
    return {"errors": [{"message": message, "extensions": {"code": code}}]}


async def results_of(
    schema: Schema,
    context: RequestContext,
    query: str,
    variables: dict[str, Any] | None,
    operation_name: str | None,
) -> Any:
    """Of any operation: many of a subscription, one of any other."""
    try:
        streamed = await _streamed(schema, context, query, variables, operation_name)
    except (GraphQLError, MissingQueryError, CannotGetOperationTypeError) as error:
        yield {"errors": [_formatted(error)]}
        return
    try:
        async for result in streamed:
            assert isinstance(result, ExecutionResult)
            yield told_of(result)
    except (GraphQLError, MissingQueryError, CannotGetOperationTypeError) as error:
        yield {"errors": [_formatted(error)]}
    finally:
        close = getattr(streamed, "aclose", None)
        if close is not None:
            await close()


def _formatted(error: Exception) -> Any:
    """What is wrong with the document or the choice of its operation."""
    return error.formatted if isinstance(error, GraphQLError) else {"message": str(error)}


async def _streamed(
    schema: Schema,
    context: RequestContext,
    query: str,
    variables: dict[str, Any] | None,
    operation_name: str | None,
) -> Any:
    return await schema.stream(
        query, variable_values=variables, context_value=context, operation_name=operation_name
    )


def told_of(result: ExecutionResult) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if result.errors:
        told["errors"] = [error.formatted for error in result.errors]
    if result.data is not None or not result.errors:
        told["data"] = result.data
    return told


# --- WebSockets --------------------------------------------------------------------------------------


def live_route(schema: Schema, callers: Callers, make_context: MakeContext) -> Any:
    @websocket("/graphql")
    async def graphql_live(socket: Socket) -> None:
        if not _same_origin(socket):
            await socket.close(code=FORBIDDEN, reason="another origin")
            return
        if PROTOCOL not in socket.headers.get("sec-websocket-protocol", ""):
            await socket.close(code=4406, reason=f"speak {PROTOCOL}")
            return
        await socket.accept(subprotocols=PROTOCOL)
        await _Line(socket, schema, callers, make_context).serve()

    return graphql_live


def _same_origin(socket: Socket) -> bool:
    """Browsers say whose page it is; programs need not."""
    origin = socket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == socket.headers.get("host", "")


class Closing(Exception):
    """The line is to be closed."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class _Line:
    """One connection and its subscriptions."""

    def __init__(self, socket: Socket, schema: Schema, callers: Callers, make_context: MakeContext) -> None:
        self._socket = socket
        self._schema = schema
        self._callers = callers
        self._make_context = make_context
        self._running: dict[str, asyncio.Task[None]] = {}
        self._closing: asyncio.Future[Closing] = asyncio.get_running_loop().create_future()
        self._sending = asyncio.Lock()

    async def serve(self) -> None:
        try:
            async with asyncio.timeout(INIT_SECONDS_MAX):
                principal = await self._opened()
            reading = asyncio.create_task(self._read(self._make_context(principal)), name="live reading")
            seconds = max(0.0, principal.expires_at - time.time())
            try:
                either: list[asyncio.Future[Any]] = [reading, self._closing]
                await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    reading.result()
                elif self._closing.done():
                    raise self._closing.result()
                else:
                    raise Closing(UNAUTHORIZED, "the token has expired")
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
        except Closing as error:
            await self._close(error.code, str(error))
        except TimeoutError:
            await self._close(INIT_TIMEOUT, "connection_init did not come")
        except WebSocketDisconnect:
            pass
        finally:
            tasks = list(self._running.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _close(self, code: int, reason: str) -> None:
        with contextlib.suppress(Exception):
            await self._socket.close(code=code, reason=reason)

    async def _opened(self) -> Principal:
        message = await self._message()
        if message.get("type") != "connection_init":
            raise Closing(UNAUTHORIZED, "send connection_init first")
        payload = message.get("payload")
        given = payload if isinstance(payload, dict) else {}
        told = {str(name).lower(): value for name, value in given.items()}
        text = told.get("authorization") or self._socket.headers.get("authorization", "")
        scheme, _, token = str(text).partition(" ")
        if scheme.lower() != "bearer":
            raise Closing(FORBIDDEN, "connection_init: send Authorization, Bearer and a token")
        try:
            principal = await self._callers.known(token.strip())
        except (InvalidToken, HttpProblem):
            raise Closing(FORBIDDEN, "the token is not accepted") from None
        except KeysUnavailable:
            raise Closing(INTERNAL, "the issuer's keys cannot be read: try again") from None
        await self._send({"type": "connection_ack"})
        return principal

    async def _read(self, context: RequestContext) -> None:
        while True:
            message = await self._message()
            match message.get("type"):
                case "subscribe":
                    self._subscribe(message, context)
                case "complete":
                    task = self._running.pop(str(message.get("id")), None)
                    if task is not None:
                        task.cancel()
                case "ping":
                    await self._send({"type": "pong"})
                case "pong":
                    pass
                case "connection_init":
                    raise Closing(TOO_MANY, "connection_init came twice")
                case _:
                    raise Closing(BAD_REQUEST, "no message of this type")

    def _subscribe(self, message: dict[str, Any], context: RequestContext) -> None:
        ident, payload = message.get("id"), message.get("payload")
        if not isinstance(ident, str) or not ident or not isinstance(payload, dict):
            raise Closing(BAD_REQUEST, "subscribe: send an id and a payload")
        query, variables, name = (payload.get(key) for key in ("query", "variables", "operationName"))
        fits = isinstance(query, str) and isinstance(variables, dict | None) and isinstance(name, str | None)
        if not fits:
            raise Closing(BAD_REQUEST, "subscribe: send a query, and variables as an object")
        if ident in self._running:
            raise Closing(TWICE, f"Subscriber for {ident} already exists")
        if len(self._running) >= SUBSCRIPTIONS_MAX:
            raise Closing(TOO_MANY, f"at most {SUBSCRIPTIONS_MAX} subscriptions")
        assert isinstance(query, str)
        running = self._run(ident, results_of(self._schema, context, query, variables, name))
        self._running[ident] = asyncio.create_task(running, name="live subscription")

    async def _run(self, ident: str, results: Any) -> None:
        try:
            async for result in results:
                if "data" not in result:
                    await self._send({"id": ident, "type": "error", "payload": result["errors"]})
                    return
                await self._send({"id": ident, "type": "next", "payload": result})
            await self._send({"id": ident, "type": "complete"})
        except TooSlow as error:
            self._end(Closing(TOO_SLOW, str(error)))
        except Closing as error:
            self._end(error)
        except Exception:
            log.exception("a subscription failed")
            self._end(Closing(INTERNAL, "something went wrong here"))
        finally:
            if self._running.get(ident) is asyncio.current_task():
                del self._running[ident]
            await results.aclose()

    def _end(self, why: Closing) -> None:
        if not self._closing.done():
            self._closing.set_result(why)

    async def _message(self) -> dict[str, Any]:
        text = await self._socket.receive_text()
        if len(text) > MESSAGE_CHARACTERS_MAX or "\\u0000" in text:
            raise Closing(BAD_REQUEST, "the message cannot be used")
        try:
            message = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise Closing(BAD_REQUEST, "the message is not JSON") from None
        if not isinstance(message, dict):
            raise Closing(BAD_REQUEST, "the message is no object")
        return message

    async def _send(self, message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS_MAX), self._sending:
                await self._socket.send_text(orjson.dumps(message).decode())
        except TimeoutError:
            raise Closing(TOO_SLOW, TooSlow.MESSAGE) from None
