"""What every error of the HTTP doors looks like: problem details (RFC 9457), and nothing inside out.

A client's mistake is told with its remedy. Ours is logged once, with the request's id, and told as
"try again": no text of an exception, no stack, nothing of another tenant.
"""

import re
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import orjson
import psycopg
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import Scope

from ...tenants.access import NotPermitted
from ...tenants.identity import InvalidToken, KeysUnavailable
from ..log import LogUnavailable
from ..writer import Busy, Halted, Unavailable

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
RESOURCE_METADATA_PATH = "/.well-known/oauth-protected-resource"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+")
_TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not permitted",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    408: "Too slow",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    429: "Too many requests",
    500: "Something went wrong",
    503: "Not available",
}

log = structlog.get_logger()
AnyRequest = Request[Any, Any, Any]


class HttpProblem(Exception):
    """An answer that is not the one asked for."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        headers: dict[str, str] | None = None,
        *,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.more = more or {}
        """Members that a door of its own adds."""


def request_id(scope: Scope) -> str:
    """The id that the request came with, or one of our own; it is in every answer and log line."""
    state: dict[str, Any] = scope.setdefault("state", {})
    known = state.get("request_id")
    if known is None:
        sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        text = sent.decode("latin-1")
        known = state["request_id"] = text if _REQUEST_ID.fullmatch(text) else uuid4().hex
    return str(known)


def handle(request: AnyRequest, error: Exception) -> Response[bytes]:
    """The one exception handler of the app."""
    problem = _problem_of(request, error)
    if problem.status >= 500:
        log.error(
            "request failed",
            request_id=request_id(request.scope),
            path=request.scope["path"],
            code=problem.code,
            exc_info=error if problem.status == 500 else None,
        )
    body = body_of(problem, request.scope)
    return Response(body, status_code=problem.status, media_type=MEDIA_TYPE, headers=problem.headers)


def body_of(problem: HttpProblem, scope: Scope) -> bytes:
    told = {
        "type": "about:blank",
        "title": _TITLES.get(problem.status, "Error"),
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id(scope),
        **problem.more,
    }
    return orjson.dumps(told)


def cut_off() -> HttpProblem:
    """The client left before all of its body was here: mostly nobody is there to be told."""
    return HttpProblem(400, "body_cut_off", "the body ended before all of it was here: send it again")


def too_slow() -> HttpProblem:
    """The client has sent nothing for long, in the midst of its body."""
    return HttpProblem(408, "too_slow", "the rest of the body did not come: send all of it again")


def not_authenticated(request: AnyRequest, code: str, remedy: str) -> HttpProblem:
    """401, with where a token comes from (RFC 6750 §3, RFC 9728 §5.1)."""
    challenge = ['Bearer realm="allotment"']
    if code != "missing_token":
        # Only printable text without quotes may stand in a header, whatever the token held.
        told = re.sub(r"[^ !#-\[\]-~]", "'", f"{code}: {remedy}")
        challenge += ['error="invalid_token"', f'error_description="{told}"']
    base = str(request.base_url).rstrip("/")
    if _HOST.fullmatch(base):
        challenge.append(f'resource_metadata="{base}{RESOURCE_METADATA_PATH}"')
    return HttpProblem(401, code, remedy, {"WWW-Authenticate": ", ".join(challenge)})


def busy(error: Busy, remedy: str = "") -> HttpProblem:
    """429, saying in its sentence what its header says."""
    seconds = max(1, -(-error.retry_after_ms // 1_000))
    return later(429, "busy", f"too much at once: try again in {seconds} s{remedy}", seconds)


def _problem_of(request: AnyRequest, error: Exception) -> HttpProblem:
    match error:
        case HttpProblem():
            return error
        case InvalidToken():
            return not_authenticated(request, error.code, error.remedy)
        case NotPermitted():
            return HttpProblem(403, error.code, str(error))
        case Busy():
            return busy(error)
        case Unavailable() | LogUnavailable() | psycopg.OperationalError():
            return later(
                503, "unavailable", "the log cannot be reached: send the same again, nothing is done twice"
            )
        case Halted():
            return later(503, "halted", "the tenant takes no changes until its operator has looked", 60)
        case KeysUnavailable():
            return later(503, "keys_unavailable", "tokens cannot be checked now: try again")
        case HTTPException():
            return _of_framework(error)
    return HttpProblem(500, "internal", "something went wrong here: send the request id to your carrier")


def later(status: int, code: str, detail: str, seconds: int = RETRY_AFTER_SECONDS) -> HttpProblem:
    return HttpProblem(status, code, detail, {"Retry-After": str(max(1, seconds))})


def _of_framework(error: HTTPException) -> HttpProblem:
    """What the framework says by itself: its status, and a sentence of ours."""
    status = error.status_code
    if status >= 500:
        return HttpProblem(500, "internal", "something went wrong here: send the request id to your carrier")
    code, detail = _FRAMEWORK.get(status, ("bad_request", "the request cannot be read"))
    allowed = {name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
    return HttpProblem(status, code, detail, allowed)


_FRAMEWORK = {
    400: ("bad_request", "the request cannot be read: check its parameters and body"),
    404: ("not_found", "there is nothing at this address"),
    405: ("method_not_allowed", "use another method: see the Allow header"),
    413: ("too_large", "the body is larger than this address takes: send it in parts"),
}
