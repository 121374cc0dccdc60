"""`/v1/charging/chargingdata`: usage that is authorised while it happens, slice by slice.

Shaped like 3GPP Nchf_ConvergedCharging (TS 32.291), so that who knows that finds its way; it does
not claim to conform to it. Each request carries its `invocationSequenceNumber`: sent again with
the same number and body it is answered as the first time, and has no second effect.
"""

import asyncio
import base64
import binascii
from typing import Any

from litestar import Response, post
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from ...domain.refusals import Refused
from ...domain.session import SessionDenied
from ...graphql.refusals import problem_of
from ..asking import Answer
from ..authorising import AskUnits
from ..engine import Engine
from ..intake.gate import TEXT_MAX
from ..intake.unpacking import BEGINNING_BYTES, packing_of
from .bearer import Callers
from .charging_answer import answered, by_group, charged, denied
from .charging_members import invalid_params
from .charging_request import ChargingData, events, group_reports, opening, read, reporting
from .problem_details import AnyRequest, HttpProblem

PATH = "/v1/charging/chargingdata"
BODY_BYTES_MAX = 64 * 1024


def charging_routes(engine: Engine, callers: Callers) -> list[Any]:
    @post(PATH, status_code=201, request_max_body_size=BODY_BYTES_MAX)
    async def create(request: AnyRequest) -> Response[bytes]:
        caller = await _caller(callers, request)
        asked = read(await _body(request))
        if asked.one_time_event:
            return await _immediate(engine, *caller, asked)
        command = opening(asked)
        answer = await _authorised(engine, *caller, command)
        told = by_group(answer.events).values()
        stopped = [event for event in told if isinstance(event, SessionDenied)]
        if len(stopped) == len(told):
            raise denied(stopped)
        location = f"{PATH}/{reference(command.source, command.session)}"
        return answered(asked, command.groups, answer.events, 201, Location=location)

    @post(PATH + "/{ref:str}/update", status_code=200, request_max_body_size=BODY_BYTES_MAX)
    async def update(request: AnyRequest) -> Response[bytes]:
        caller = await _caller(callers, request)
        asked = read(await _body(request))
        command = reporting(asked, *_session(request), ends=False)
        answer = await _authorised(engine, *caller, command)
        return answered(asked, command.groups, answer.events, 200)

    @post(PATH + "/{ref:str}/release", status_code=204, request_max_body_size=BODY_BYTES_MAX)
    async def release(request: AnyRequest) -> None:
        caller = await _caller(callers, request)
        asked = read(await _body(request))
        await _authorised(engine, *caller, reporting(asked, *_session(request), ends=True))

    return [create, update, release]


async def _caller(callers: Callers, request: AnyRequest) -> tuple[Any, str]:
    principal = await callers.principal(request)
    tenant = await callers.tenant(principal, "write_usage")
    return tenant.tenant_id, principal.actor


async def _body(request: AnyRequest) -> bytes:
    """As it came: the requests of a call are too small to be packed, and belong together."""
    try:
        body = await request.body()
    except RequestEntityTooLarge:
        raise HttpProblem(413, "too_large", _TOO_LARGE, more={"cause": "INVALID_MSG_FORMAT"}) from None
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity" or packing_of(body[:BEGINNING_BYTES]):
        more = {"cause": "INVALID_MSG_FORMAT"}
        raise HttpProblem(415, "unsupported_encoding", "send plain JSON, not packed", more=more)
    return body


_TOO_LARGE = f"a charging request has at most {BODY_BYTES_MAX} bytes: report more often, and less at once"


async def _authorised(engine: Engine, tenant: Any, actor: str, command: AskUnits) -> Answer:
    try:
        return await engine.authorise(tenant, command, actor)
    except Refused as refusal:
        status, code, cause = REFUSED.get(refusal.code, (400, refusal.code, "CHARGING_FAILED"))
        detail = _USED_TWICE if code == "idempotency_mismatch" else problem_of(refusal).message
        usage_type = refusal.facts.get("usage_type", "")
        invalid = invalid_params(refusal.code, detail, command.groups, usage_type)
        raise HttpProblem(status, code, detail, more={"cause": cause, **invalid}) from None


_USED_TWICE = (
    "this invocationSequenceNumber was used in this session for another body: "
    "count on, or send the same body again"
)


_NOT_APPLICABLE = (403, "charging_not_applicable", "CHARGING_NOT_APPLICABLE")
REFUSED = {
    "unknown_line": (404, "user_unknown", "USER_UNKNOWN"),
    "line_not_active": (404, "user_unknown", "USER_UNKNOWN"),
    "unknown_session": (404, "unknown_session", "CONTEXT_NOT_FOUND"),
    "no_contract": _NOT_APPLICABLE,
    "no_rate": _NOT_APPLICABLE,
    "tenant_not_open": _NOT_APPLICABLE,
    "session_exists": (409, "session_exists", "CHARGING_FAILED"),
    "charged_already": (409, "charged_already", "CHARGING_FAILED"),
    "idempotency_mismatch": (409, "idempotency_mismatch", "CHARGING_FAILED"),
    "report_out_of_order": (409, "report_out_of_order", "CHARGING_FAILED"),
    "usage_taken_back": (409, "usage_taken_back", "CHARGING_FAILED"),
    "too_many_sessions": (429, "too_many_sessions", "NF_CONGESTION"),
    "internal_error": (500, "internal", "SYSTEM_FAILURE"),
}
"""Status, code, and a cause as near to those of TS 32.291 as there is one; others are bad requests."""


async def _immediate(engine: Engine, tenant: Any, actor: str, asked: ChargingData) -> Response[bytes]:
    """Events charged at once, each a record of its own."""
    told = [engine.charge_now(tenant, record, actor) for record in events(asked)]
    return charged(asked, group_reports(asked), await asyncio.gather(*told))


def reference(source: str, session: str) -> str:
    """A session in an address: opaque, and the same whoever answers."""
    return base64.urlsafe_b64encode(f"{source}\x1f{session}".encode()).decode().rstrip("=")


def _session(request: AnyRequest) -> tuple[str, str]:
    ref = str(request.path_params["ref"])
    try:
        text = base64.b64decode(ref + "=" * (-len(ref) % 4), altchars=b"-_", validate=True).decode()
        source, _, session = text.partition("\x1f")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        source = session = text = ""
    if not source or not session or len(text) > 2 * TEXT_MAX:
        more = {"cause": "CONTEXT_NOT_FOUND"}
        detail = "no such session: use the Location that it was opened with"
        raise HttpProblem(404, "unknown_session", detail, more=more)
    return source, session
