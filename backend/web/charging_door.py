"""`/v1/charging/chargingdata`: usage that is authorised while it happens, slice by slice.

Shaped like 3GPP Nchf_ConvergedCharging (TS 32.291), so that who knows that finds its way; it does
not claim to conform to it. Each request carries its `invocationSequenceNumber`: sent again with
the same number and body it is answered as the first time, and has no second effect.
"""

import base64
import binascii
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
import orjson
from litestar import Response, post
from msgspec import Struct, field

from ...domain.refusals import Refused
from ...domain.session import (
    LATE,
    VALIDITY_SECONDS,
    ReleaseSession,
    Report,
    SessionDenied,
    SessionReleased,
    SessionReserved,
    SessionUpdated,
    UpdateSession,
)
from ...domain.usage import UnreadableRecord, UsageRecord
from ...graphql.refusals import problem_of
from ..authorising import StartSession
from ..deciding import Answer
from ..engine import Engine, moment
from ..intake.gate import QUANTITY_MAX, TEXT_MAX, checked
from ..intake.numbers import normal_number
from .bearer import Callers
from .problem_details import AnyRequest, HttpProblem

PATH = "/v1/charging/chargingdata"
BODY_BYTES_MAX = 64 * 1024
NUMBER_MAX = 2**31
EXTENSION_DIGITS_MAX = 6

RATING_GROUPS = {1: "voice", 2: "data", 3: "messaging", 4: "video"}
UNITS = {"voice": "time", "data": "totalVolume", "messaging": "serviceSpecificUnits", "video": "time"}
"""In which member of a unit a usage type is counted: seconds, bytes, messages."""


class Unit(Struct, frozen=True, rename="camel"):
    """Some of one usage type; none given where the choice is ours."""

    time: int | None = None
    total_volume: int | None = None
    uplink_volume: int | None = None
    downlink_volume: int | None = None
    service_specific_units: int | None = None


class UnitUsage(Struct, frozen=True, rename="camel"):
    """What one rating group asks for, and has used since its last report."""

    rating_group: int
    requested_unit: Unit | None = None
    used_unit_container: tuple[Unit, ...] = ()


class Consumer(Struct, frozen=True):
    """The network element that asks: the source of the record that is charged in the end."""

    name: str = field(name="nFName")


class ChargingData(Struct, frozen=True, rename="camel"):
    """A request. Members that we do not know are passed over, as network elements send many."""

    invocation_sequence_number: int
    multiple_unit_usage: tuple[UnitUsage, ...] = ()
    nf_consumer_identification: Consumer | None = None
    charging_id: int | str = ""
    """The session, by the consumer's own id."""
    subscriber_identifier: str = ""
    """Whose line it is: "+442071838750", "msisdn-442071838750", "100"."""
    invocation_time_stamp: str = ""
    counterpart: str = ""
    direction: str = "outbound"
    one_time_event: bool = False
    one_time_event_type: str = "IEC"


_decode = msgspec.json.Decoder(ChargingData).decode
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_MICROSECOND = timedelta(microseconds=1)


def charging_routes(engine: Engine, callers: Callers) -> list[Any]:
    @post(PATH, status_code=201, request_max_body_size=BODY_BYTES_MAX)
    async def create(request: AnyRequest) -> Response[bytes]:
        caller = await _caller(callers, request)
        asked = await _asked(request)
        record = _record(asked)
        if asked.one_time_event:
            return await _immediate(engine, *caller, record, asked)
        answer = await _authorised(engine, *caller, StartSession(record, asked.invocation_sequence_number))
        told = answer.events[0]
        if isinstance(told, SessionDenied):
            raise HttpProblem(403, "quota_limit_reached", _denial(told))
        assert isinstance(told, SessionReserved)
        location = f"{PATH}/{reference(told.source, told.session)}"
        return _granted(told, 201, {"Location": location})

    @post(PATH + "/{ref:str}/update", status_code=200, request_max_body_size=BODY_BYTES_MAX)
    async def update(request: AnyRequest) -> Response[bytes]:
        caller = await _caller(callers, request)
        asked = await _asked(request)
        source, session = _session(request)
        usage = _usage(asked)
        command = UpdateSession(
            source, session, asked.invocation_sequence_number, _report(usage), _requested(usage)
        )
        told = (await _authorised(engine, *caller, command)).events[0]
        assert isinstance(told, SessionUpdated | SessionDenied | SessionReleased)
        return _granted(told, 200, {})

    @post(PATH + "/{ref:str}/release", status_code=204, request_max_body_size=BODY_BYTES_MAX)
    async def release(request: AnyRequest) -> None:
        caller = await _caller(callers, request)
        asked = await _asked(request)
        report = _report(_usage(asked)) if asked.multiple_unit_usage else Report()
        command = ReleaseSession(*_session(request), asked.invocation_sequence_number, report)
        await _authorised(engine, *caller, command)

    return [create, update, release]


async def _caller(callers: Callers, request: AnyRequest) -> tuple[Any, str]:
    principal = await callers.principal(request)
    tenant = await callers.tenant(principal, "write_usage")
    return tenant.tenant_id, principal.actor


async def _authorised(
    engine: Engine, tenant: Any, actor: str, command: StartSession | UpdateSession | ReleaseSession
) -> Answer:
    try:
        return await engine.authorise(tenant, command, actor)
    except Refused as refusal:
        status, code = REFUSED.get(refusal.code, (400, refusal.code))
        raise HttpProblem(status, code, problem_of(refusal).message) from None


REFUSED = {
    "unknown_line": (404, "user_unknown"),
    "line_not_active": (404, "user_unknown"),
    "unknown_session": (404, "unknown_session"),
    "no_contract": (403, "charging_not_applicable"),
    "no_rate": (403, "charging_not_applicable"),
    "session_exists": (409, "session_exists"),
    "charged_already": (409, "charged_already"),
    "idempotency_mismatch": (409, "idempotency_mismatch"),
    "report_out_of_order": (409, "report_out_of_order"),
    "usage_taken_back": (409, "usage_taken_back"),
    "too_many_sessions": (429, "too_many_sessions"),
    "tenant_not_open": (403, "charging_not_applicable"),
    "internal_error": (500, "internal"),
}
"""Status and code, as near to the causes of TS 32.291 as there is one; others are bad requests."""


# --- what came -------------------------------------------------------------------------------


async def _asked(request: AnyRequest) -> ChargingData:
    try:
        asked = _decode(await request.body())
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _bad("bad_request", f"the body is no charging data request: {error}") from None
    if not 0 <= asked.invocation_sequence_number < NUMBER_MAX:
        raise _bad("bad_value", f"invocationSequenceNumber: count from 0 to {NUMBER_MAX - 1}")
    return asked


def _record(asked: ChargingData) -> UsageRecord:
    """The session, or the event, as the usage record it will be."""
    usage = _usage(asked)
    source = asked.nf_consumer_identification.name if asked.nf_consumer_identification else ""
    line = asked.subscriber_identifier.removeprefix("imsi-")
    if line.startswith("msisdn-"):
        line = "+" + line.removeprefix("msisdn-")
    quantity = _requested(usage) or 0
    if asked.one_time_event:
        quantity = quantity or _used(usage)
    record = checked(
        UsageRecord(
            source,
            str(asked.charging_id),
            normal_number(line, "", EXTENSION_DIGITS_MAX),
            _type(usage),
            quantity,
            _started(asked),
            asked.direction,
            normal_number(asked.counterpart, "", EXTENSION_DIGITS_MAX),
        )
    )
    if isinstance(record, UnreadableRecord):
        raise _bad("bad_value", f"{_FIELDS.get(record.field, record.field)}: {record.detail}")
    if len(record.record_id) + len(LATE) > TEXT_MAX:
        raise _bad("bad_value", f"chargingId: must be 1 to {TEXT_MAX - len(LATE)} printable characters")
    return record


_FIELDS = {
    "source": "nfConsumerIdentification.nFName",
    "record_id": "chargingId",
    "line": "subscriberIdentifier",
    "started_at": "invocationTimeStamp",
    "quantity": "multipleUnitUsage",
}


def _usage(asked: ChargingData) -> UnitUsage:
    if len(asked.multiple_unit_usage) != 1:
        raise _bad("bad_value", "multipleUnitUsage: give exactly one rating group")
    usage = asked.multiple_unit_usage[0]
    _type(usage)
    return usage


def _type(usage: UnitUsage) -> str:
    usage_type = RATING_GROUPS.get(usage.rating_group)
    if usage_type is None:
        known = ", ".join(f"{group} ({name})" for group, name in RATING_GROUPS.items())
        raise _bad("bad_value", f"ratingGroup: use one of {known}")
    return usage_type


def _amount(unit: Unit, usage: UnitUsage) -> int | None:
    """How much of its usage type a unit tells; None where it tells nothing."""
    both = [part for part in (unit.uplink_volume, unit.downlink_volume) if part is not None]
    total = sum(both) if both and unit.total_volume is None else unit.total_volume
    given = {
        "time": unit.time,
        "totalVolume": total,
        "serviceSpecificUnits": unit.service_specific_units,
    }
    amount = given[UNITS[_type(usage)]]
    return _counted(amount, usage) if amount is not None else None


def _counted(amount: int | None, usage: UnitUsage) -> int:
    if amount is None or not 0 <= amount <= QUANTITY_MAX:
        counted = UNITS[_type(usage)]
        raise _bad(
            "bad_value",
            f"units of ratingGroup {usage.rating_group}: give {counted}, from 0 to {QUANTITY_MAX}",
        )
    return amount


def _used(usage: UnitUsage) -> int:
    """Counted in its own unit, or refused: what was used must not be taken for nothing."""
    return sum(_counted(_amount(unit, usage), usage) for unit in usage.used_unit_container)


def _report(usage: UnitUsage) -> Report:
    return Report(_used(usage))


def _requested(usage: UnitUsage) -> int | None:
    return None if usage.requested_unit is None else _amount(usage.requested_unit, usage) or 0


def _started(asked: ChargingData) -> int:
    """Microseconds; the moment must carry its zone, so that it means the same everywhere."""
    try:
        at = msgspec.convert(asked.invocation_time_stamp, _Moment)
    except msgspec.ValidationError:
        raise _bad(
            "bad_value", 'invocationTimeStamp: give a moment with its zone: "2026-11-15T10:00:00Z"'
        ) from None
    return (at - moment(0)) // _MICROSECOND


# --- what is answered ------------------------------------------------------------------------


def _granted(
    told: SessionReserved | SessionUpdated | SessionDenied | SessionReleased,
    status: int,
    headers: dict[str, str],
) -> Response[bytes]:
    unit: dict[str, Any] = {"ratingGroup": _GROUP_OF[told.usage_type], "resultCode": "SUCCESS"}
    granted = told.granted if isinstance(told, SessionReserved | SessionUpdated) else 0
    if granted:
        unit["grantedUnit"] = {UNITS[told.usage_type]: granted}
        unit["validityTime"] = VALIDITY_SECONDS
    ruling = told.ruling if isinstance(told, SessionReserved | SessionUpdated) else None
    if ruling is not None and ruling.action == "throttle":
        unit["throttleKbps"] = ruling.kbps
    if isinstance(told, SessionReserved) and told.payer != "corporate":
        unit["payer"] = told.payer
    if isinstance(told, SessionDenied):
        unit["resultCode"] = "QUOTA_LIMIT_REACHED"
    if isinstance(told, SessionReleased):
        # It had been ended before: what it reported is charged, and there is nothing to go on with.
        unit["resultCode"] = "END_USER_SERVICE_REJECTED"
    if isinstance(told, SessionDenied | SessionReleased) or told.final:
        unit["finalUnitIndication"] = {"finalUnitAction": "TERMINATE"}
    return _answer(told.number, unit, status, headers)


async def _immediate(
    engine: Engine, tenant: Any, actor: str, record: UsageRecord, asked: ChargingData
) -> Response[bytes]:
    """One event, charged at once: an answer of success is leave, and the charge."""
    if asked.one_time_event_type != "IEC":
        raise _bad("bad_value", "oneTimeEventType: IEC is taken; reserve units for an event by a session")
    outcome = await engine.charge_now(tenant, record, actor)
    if outcome.status == "rejected":
        raise HttpProblem(403, "quota_limit_reached", outcome.detail)
    if outcome.status == "suspended":
        status, code = SUSPENDED.get(outcome.reason, (400, outcome.reason))
        raise HttpProblem(status, code, f"it is not charged and waits in suspense: {outcome.detail}")
    unit: dict[str, Any] = {"ratingGroup": _GROUP_OF[record.usage_type], "resultCode": "SUCCESS"}
    if outcome.status == "charged":
        unit["grantedUnit"] = {UNITS[record.usage_type]: record.quantity}
    return _answer(asked.invocation_sequence_number, unit, 201, {})


SUSPENDED = {
    "unknown_line": (404, "user_unknown"),
    "line_not_active": (404, "user_unknown"),
    "no_contract": (403, "charging_not_applicable"),
    "no_rate": (403, "charging_not_applicable"),
    "conflicting_duplicate": (409, "conflicting_duplicate"),
}


def _answer(number: int, unit: dict[str, Any], status: int, headers: dict[str, str]) -> Response[bytes]:
    body = {"invocationSequenceNumber": number, "multipleUnitInformation": [unit]}
    return Response(orjson.dumps(body), status_code=status, media_type="application/json", headers=headers)


def _denial(told: SessionDenied) -> str:
    if told.reason == "suspended":
        return "the line is suspended: only emergency calls are authorised"
    if told.reason == "insufficient_allowance":
        return f"the allowance of {told.usage_type} is used up, and the contract allows no more"
    what = f"{told.counted} per {told.window.replace('_', ' ')}: {told.counted_used} of {told.limit}"
    match told.reason:
        case "cap_reached":
            return f"a cap on {told.usage_type} from above is reached: {told.counted_used} of {told.limit}"
        case "frozen":
            return "the line is frozen"
        case "blocked_by_policy":
            return f"a policy stops it beyond a threshold of a limit on {what}"
        case "approval_required":
            return f"it needs somebody's approval beyond a threshold of a limit on {what}"
        case "redirected":
            return (
                f"the enterprise pays no more beyond a threshold of a limit on {what}: begin anew, personally"
            )
    return f"a limit on {what} is reached"


def reference(source: str, session: str) -> str:
    """A session in an address: opaque, and the same whoever answers."""
    return base64.urlsafe_b64encode(f"{source}\x1f{session}".encode()).decode().rstrip("=")


def _session(request: AnyRequest) -> tuple[str, str]:
    ref = str(request.path_params["ref"])
    try:
        text = base64.b64decode(ref + "=" * (-len(ref) % 4), altchars=b"-_", validate=True).decode()
        source, _, session = text.partition("\x1f")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        source = session = ""
    if not source or not session or len(text) > 2 * TEXT_MAX:
        raise HttpProblem(404, "unknown_session", "no such session: use the Location that it was opened with")
    return source, session


def _bad(code: str, detail: str) -> HttpProblem:
    return HttpProblem(400, code, detail)


_GROUP_OF = {name: group for group, name in RATING_GROUPS.items()}
