"""`POST /v1/usage`: usage records over HTTP, charged before the answer.

The answer comes after the commit. Whatever was sent and how often, a record is charged once, so
the remedy for every failure is to send the same body again.
"""

import gzip
import io
import re
import zlib
from typing import Any

import orjson
from litestar import Litestar, Request, Response, post
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from ...tenants.onboarding import TenantEntry
from ..engine import Engine
from ..intake.declaration import Format
from ..intake.door import IntakeReport, charge_stream
from ..intake.formats import FormatError, shipped_format
from ..intake.unpacking import BEGINNING_BYTES, UnreadableFile, packing_of
from ..writer import Busy
from .answer_headers import answer, finish
from .bearer import Callers
from .problem_details import AnyRequest, HttpProblem, busy, cut_off, handle

PATH = "/v1/usage"
MEDIA_TYPE = "application/json"
BODY_BYTES_MAX = 8 * 1024 * 1024
UNPACKED_BYTES_MAX = 64 * 1024 * 1024
"""Of a compressed body: a few kilobytes can unpack to anything."""
PARAMETERS = ("format", "source", "name")
NAME_MAX = 100
AGAIN = "; part of the body may be charged already: send the same body again, each record is charged once"
_HOST = re.compile(rb"[A-Za-z0-9.-]+(:[0-9]{1,5})?")


class UsageDoor:
    """Charges what a request brings."""

    def __init__(self, engine: Engine, callers: Callers) -> None:
        self._engine = engine
        self._callers = callers

    async def answer(self, request: AnyRequest) -> bytes:
        """What is told of it, in JSON."""
        principal = await self._callers.principal(request)
        tenant = await self._callers.tenant(principal, "write_usage")
        report = await self._charged(tenant, request, principal.actor)
        return orjson.dumps(_told(report))

    async def _charged(self, tenant: TenantEntry, request: AnyRequest, actor: str) -> IntakeReport:
        _check_known(request)
        declared = _format(_parameter(request, "format") or "allotment")
        source, name = _parameter(request, "source"), _parameter(request, "name")
        body = await _body(self._engine, request)
        try:
            return await charge_stream(
                self._engine,
                tenant.tenant_id,
                body,
                declared,
                time_zone=tenant.time_zone,
                actor=actor,
                source=source,
                name=name or "body",
                patient=False,
                packed=False,
                door="http",
            )
        except Busy as error:
            raise busy(error, AGAIN) from error
        except (UnreadableFile, FormatError) as error:
            raise HttpProblem(400, "unreadable", str(error)) from error


def usage_route(door: UsageDoor) -> Any:
    @post(PATH, status_code=200)
    async def charge_usage(request: AnyRequest) -> Response[bytes]:
        return Response(await door.answer(request), media_type=MEDIA_TYPE)

    return charge_usage


class ShortWay:
    """Past the framework: what its pipeline does for a request costs more than to read 100 records.

    The answers are the same, those of refusals too. Whatever is unusual about a request goes the other way.
    """

    def __init__(self, app: Litestar, door: UsageDoor) -> None:
        self._app = app
        self._door = door

    def is_for(self, scope: Any) -> bool:
        return (
            scope["type"] == "http"
            and scope["path"] == PATH
            and scope["method"] == "POST"
            and not scope.get("root_path")
            and all(_HOST.fullmatch(value) for name, value in scope["headers"] if name == b"host")
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["app"] = scope["litestar_app"] = self._app
        scope.setdefault("state", {})
        request: AnyRequest = Request(scope, receive, send)
        try:
            body = await self._door.answer(request)
        except Exception as error:  # noqa: BLE001  (told in the same words as every other door's)
            await self._refuse(request, error, send)
            return
        await answer(scope, send, 200, [(b"content-type", MEDIA_TYPE.encode())], body)

    async def _refuse(self, request: AnyRequest, error: Exception, send: Any) -> None:
        async def finishing(message: Any) -> None:
            await finish(message, request.scope)
            await send(message)

        refusal = handle(request, error).to_asgi_response(None, request)
        await refusal(request.scope, request.receive, finishing)


def _check_known(request: AnyRequest) -> None:
    """A parameter that is misspelt must not be taken for one that was left out."""
    for name in request.query_params if request.scope["query_string"] else ():
        if name not in PARAMETERS:
            known = ", ".join(PARAMETERS)
            raise HttpProblem(400, "unknown_parameter", f"{name[:NAME_MAX]!r} is not one of {known}")


def _parameter(request: AnyRequest, name: str) -> str:
    given = request.query_params.getall(name, []) if request.scope["query_string"] else []
    text = str(given[0]) if given else ""
    if len(given) > 1 or len(text) > NAME_MAX or not text.isprintable():
        raise HttpProblem(
            400, "bad_parameter", f"{name}: give it once, at most {NAME_MAX} printable characters"
        )
    return text


def _format(name: str) -> Format:
    try:
        return shipped_format(name)
    except FormatError as error:
        raise HttpProblem(400, "unknown_format", str(error)) from error


async def _body(engine: Engine, request: AnyRequest) -> io.BytesIO:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise HttpProblem(415, "unsupported_encoding", "Content-Encoding: send gzip, or nothing")
    body = await _received(request)
    packing = packing_of(body[:BEGINNING_BYTES])
    if encoding != "identity" or packing == "gzip":
        return await engine.in_thread(lambda: _unpacked(body))
    if packing:
        raise HttpProblem(
            415, "unsupported_encoding", f"the body is packed with {packing}: send gzip, or plain"
        )
    return io.BytesIO(body)


async def _received(request: AnyRequest) -> bytes:
    """The whole body, in one piece; who announces too much is told before it is read."""
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise RequestEntityTooLarge
    pieces, size, more = list[bytes](), 0, True
    while more:
        message: Any = await request.receive()
        if message["type"] == "http.disconnect":
            raise cut_off()
        pieces.append(message["body"])
        size += len(pieces[-1])
        if size > BODY_BYTES_MAX:
            raise RequestEntityTooLarge
        more = message.get("more_body", False)
    return b"".join(pieces)


def _unpacked(body: bytes) -> io.BytesIO:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
            plain = file.read(UNPACKED_BYTES_MAX + 1)
    except (OSError, EOFError, zlib.error):
        raise HttpProblem(400, "unreadable", "the body is not whole gzip: send it again") from None
    if len(plain) > UNPACKED_BYTES_MAX:
        raise _too_large(UNPACKED_BYTES_MAX)
    if packing_of(plain[:BEGINNING_BYTES]):
        raise HttpProblem(400, "unreadable", "the body is packed twice: pack it once, with gzip")
    return io.BytesIO(plain)


def _too_large(limit: int) -> HttpProblem:
    return HttpProblem(413, "too_large", f"at most {limit} bytes at once: send the records in parts")


def _told(report: IntakeReport) -> dict[str, Any]:
    return {
        "received": report.received,
        "charged": report.charged,
        "duplicate": report.duplicate,
        "suspended": report.suspended,
        "rejected": report.rejected,
        "read": report.read,
        "merged": report.merged,
        "ignored": report.ignored,
        "reasons": report.reasons,
        "problems": [
            {
                "record_id": problem.record_id,
                "status": problem.status,
                "reason": problem.reason,
                "position": problem.position,
                "detail": problem.detail,
                "field": problem.field,
            }
            for problem in report.problems
        ],
    }
