"""`POST /v1/usage`: usage records over HTTP, charged before the answer.

The answer comes after the commit. Whatever was sent and how often, a record is charged once, so
the remedy for every failure is to send the same body again.
"""

import gzip
import io
import zlib
from typing import Any

import orjson
from litestar import Response, post

from ...tenants.onboarding import TenantEntry
from ..engine import Engine
from ..intake.declaration import Format
from ..intake.door import IntakeReport, charge_stream
from ..intake.formats import FormatError, shipped_format
from ..intake.unpacking import UnreadableFile
from .bearer import Callers
from .problem_details import AnyRequest, HttpProblem

BODY_BYTES_MAX = 8 * 1024 * 1024
UNPACKED_BYTES_MAX = 64 * 1024 * 1024
"""Of a compressed body: a few kilobytes can unpack to anything."""
NAME_MAX = 100
_GZIP = b"\x1f\x8b"


def usage_route(engine: Engine, callers: Callers) -> Any:
    @post("/v1/usage", status_code=200, request_max_body_size=BODY_BYTES_MAX)
    async def charge_usage(request: AnyRequest) -> Response[bytes]:
        principal = await callers.principal(request)
        tenant = await callers.tenant(principal, "write_usage")
        report = await _charged(engine, tenant, request, principal.actor)
        return Response(orjson.dumps(_told(report)), media_type="application/json")

    return charge_usage


async def _charged(engine: Engine, tenant: TenantEntry, request: AnyRequest, actor: str) -> IntakeReport:
    declared = _format(_parameter(request, "format") or "allotment")
    source, name = _parameter(request, "source"), _parameter(request, "name")
    body = await _body(engine, request)
    try:
        return await charge_stream(
            engine,
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
    except (UnreadableFile, FormatError) as error:
        raise HttpProblem(400, "unreadable", str(error)) from error


def _parameter(request: AnyRequest, name: str) -> str:
    given = request.query_params.getall(name, [])
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
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            raise _too_large(BODY_BYTES_MAX)
    if encoding != "identity" or body[:2] == _GZIP:
        return await engine.in_thread(lambda: _unpacked(bytes(body)))
    return io.BytesIO(body)


def _unpacked(body: bytes) -> io.BytesIO:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
            plain = file.read(UNPACKED_BYTES_MAX + 1)
    except (OSError, EOFError, zlib.error):
        raise HttpProblem(400, "unreadable", "the body is not whole gzip: send it again") from None
    if len(plain) > UNPACKED_BYTES_MAX:
        raise _too_large(UNPACKED_BYTES_MAX)
    if plain[:2] == _GZIP:
        raise HttpProblem(400, "unreadable", "the body is packed twice: pack it once")
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
            }
            for problem in report.problems
        ],
    }
