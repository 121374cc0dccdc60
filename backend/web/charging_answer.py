"""What the charging door answers, in the words of TS 32.291: a result for every rating group asked about.

An answer is made of the events alone, so whoever asks again is told the same.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import orjson
from litestar import Response

from ...domain.charging import UsageCharged, UsageRejected
from ...domain.session import (
    RATING_GROUP,
    VALIDITY_SECONDS,
    SessionDenied,
    SessionEvent,
    SessionReleased,
    SessionReserved,
    SessionUpdated,
)
from ...domain.session_conditions import Conditions
from ...domain.session_request import GroupReport, ungranted_id
from ..asking import UsageOutcome
from ..engine import moment
from ..money import counted_text
from .charging_members import invalid_params
from .charging_request import RATING_GROUPS, ChargingData, unit_of
from .problem_details import HttpProblem

_GROUP_OF = {name: group for group, name in RATING_GROUPS.items()}
_USUAL = Conditions()
DENIED = {
    "suspended": "END_USER_SERVICE_DENIED",
    "frozen": "END_USER_SERVICE_DENIED",
    "blocked_by_policy": "END_USER_SERVICE_DENIED",
    "approval_required": "END_USER_SERVICE_DENIED",
    "redirected": "END_USER_SERVICE_DENIED",
}
"""Why no units were granted, where it is not that there are none."""
LIMIT_REACHED = "QUOTA_LIMIT_REACHED"
ENDED_BEFORE = "END_USER_SERVICE_REJECTED"
RATING_FAILED = "RATING_FAILED"


def answered(
    asked: ChargingData, groups: Sequence[GroupReport], events: Sequence[Any], status: int, **headers: str
) -> Response[bytes]:
    """One entry for each rating group, in the order in which they were asked about."""
    told, number = by_group(events), asked.invocation_sequence_number
    units = [
        _unit(group, told.get(group.rating_group) or _ungranted(group, number, events)) for group in groups
    ]
    pooled = _pool([told[group.rating_group] for group in groups if group.rating_group in told])
    return _response(asked, units, status, headers, pooled)


def by_group(events: Sequence[Any]) -> dict[int, SessionEvent]:
    """What came of each rating group in the end."""
    return {_group(event): event for event in events if isinstance(event, SessionEvent)}


def _group(told: SessionEvent) -> int:
    if told.rating_group == RATING_GROUP:
        # Sessions that began before they had several groups all called theirs the first.
        return _GROUP_OF.get(told.usage_type, RATING_GROUP)
    return told.rating_group


def _ungranted(group: GroupReport, number: int, events: Sequence[Any]) -> Any:
    """What became of usage that was reported of a group without units: a record of its own."""
    own = ungranted_id("", group.rating_group, number)
    usage = (event for event in events if isinstance(event, UsageCharged | UsageRejected))
    return next((event for event in usage if event.record_id.endswith(own)), None)


def _unit(group: GroupReport, told: SessionEvent | UsageCharged | UsageRejected | None) -> dict[str, Any]:
    unit: dict[str, Any] = {"ratingGroup": group.rating_group, "resultCode": "SUCCESS"}
    match told:
        case None:
            # Nobody could authorise or charge it: no tariff has a rate for it, or it was charged before.
            unit["resultCode"] = RATING_FAILED
        case SessionReserved() | SessionUpdated():
            _tell_granted(unit, told)
        case UsageRejected():
            unit["resultCode"] = DENIED.get(told.reason, LIMIT_REACHED)
        case SessionDenied():
            unit["resultCode"] = DENIED.get(told.reason, LIMIT_REACHED)
            unit["finalUnitIndication"] = _final(told.conditions or _USUAL)
        case SessionReleased():
            # It had been ended before: what it reported is charged, and there is nothing to go on with.
            unit["resultCode"] = ENDED_BEFORE
            unit["finalUnitIndication"] = _final(_USUAL)
    return unit


def _tell_granted(unit: dict[str, Any], told: SessionReserved | SessionUpdated) -> None:
    conditions, counted = told.conditions or _USUAL, unit_of(told.usage_type)
    asked = isinstance(told, SessionReserved) or told.requested is not None
    if told.granted and asked:
        unit["grantedUnit"] = {counted: told.granted}
        unit["validityTime"] = conditions.validity_seconds or VALIDITY_SECONDS
        if conditions.switch_at:
            unit["grantedUnit"]["tariffTimeChange"] = _moment(conditions.switch_at)
        if conditions.threshold:
            unit[_THRESHOLDS[counted]] = conditions.threshold
        if conditions.holding_seconds:
            unit["quotaHoldingTime"] = conditions.holding_seconds
        if conditions.unit_value:
            unit["creditPool"] = {"poolId": POOL, "unitValue": _value(*conditions.unit_value)}
    ruling = told.ruling
    if ruling is not None and ruling.action == "throttle":
        unit["throttleKbps"] = ruling.kbps
    if isinstance(told, SessionReserved) and told.payer != "corporate":
        unit["payer"] = told.payer
    if told.final:
        unit["finalUnitIndication"] = _final(conditions)


POOL = 1
"""A session has one pool of money, if any."""
_THRESHOLDS = {
    "time": "timeQuotaThreshold",
    "totalVolume": "volumeQuotaThreshold",
    "serviceSpecificUnits": "unitQuotaThreshold",
}


def _final(conditions: Conditions) -> dict[str, Any]:
    told: dict[str, Any] = {"finalUnitAction": conditions.action}
    if conditions.address:
        told["redirectServer"] = {
            "redirectAddressType": "SIP_URI" if conditions.address.startswith("sip") else "URL",
            "redirectServerAddress": conditions.address,
        }
    if conditions.filter_id:
        told["filterId"] = conditions.filter_id
    return told


def _pool(events: Sequence[SessionEvent]) -> dict[str, Any]:
    """What this answer adds to the pool: the sum of the slices at their values, exact."""
    added = Fraction()
    for told in events:
        if isinstance(told, SessionReserved | SessionUpdated) and told.conditions is not None:
            value = told.conditions.unit_value
            added += told.granted * Fraction(*value) if value is not None else 0
    if not added:
        return {}
    return {"creditPools": [{"poolId": POOL, "added": _value(added.numerator, added.denominator)}]}


def _value(numerator: int, denominator: int) -> dict[str, Any]:
    """Exact: so many micro-units of money for so many units."""
    return {"valueDigits": numerator, "exponent": -6, "per": denominator}


def _moment(at: int) -> str:
    return moment(at).isoformat().replace("+00:00", "Z")


# --- what is charged at once -----------------------------------------------------------------


def charged(
    asked: ChargingData, groups: Sequence[GroupReport], outcomes: Sequence[UsageOutcome]
) -> Response[bytes]:
    """An answer of success is leave, and the charge. A single event that is not charged is a problem."""
    if len(outcomes) == 1 and outcomes[0].status in ("rejected", "suspended"):
        raise _not_charged(outcomes[0], groups)
    return _response(asked, [_event(*pair) for pair in zip(groups, outcomes, strict=True)], 201, {})


def _not_charged(outcome: UsageOutcome, groups: Sequence[GroupReport]) -> HttpProblem:
    if outcome.status == "rejected":
        return HttpProblem(403, "quota_limit_reached", outcome.detail, more={"cause": LIMIT_REACHED})
    status, code, cause = SUSPENDED.get(outcome.reason, (400, outcome.reason, "CHARGING_FAILED"))
    detail = f"it is not charged and waits in suspense: {outcome.detail}"
    invalid = invalid_params(outcome.reason, outcome.detail, groups)
    return HttpProblem(status, code, detail, more={"cause": cause, **invalid})


def _event(group: GroupReport, outcome: UsageOutcome) -> dict[str, Any]:
    unit: dict[str, Any] = {"ratingGroup": group.rating_group, "resultCode": "SUCCESS"}
    if outcome.status == "charged":
        unit["grantedUnit"] = {unit_of(group.usage_type): group.requested or group.used}
    elif outcome.status == "rejected":
        unit["resultCode"] = DENIED.get(outcome.reason, LIMIT_REACHED)
    elif outcome.status == "suspended":
        unit["resultCode"] = RATING_FAILED
    return unit


SUSPENDED = {
    "unknown_line": (404, "user_unknown", "USER_UNKNOWN"),
    "line_not_active": (404, "user_unknown", "USER_UNKNOWN"),
    "no_contract": (403, "charging_not_applicable", "CHARGING_NOT_APPLICABLE"),
    "no_rate": (403, "charging_not_applicable", "CHARGING_NOT_APPLICABLE"),
    "conflicting_duplicate": (409, "conflicting_duplicate", "CHARGING_FAILED"),
}


def _response(
    asked: ChargingData,
    units: list[dict[str, Any]],
    status: int,
    headers: dict[str, str],
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Response[bytes]:
    body: dict[str, Any] = {}
    if asked.invocation_time_stamp:
        body["invocationTimeStamp"] = asked.invocation_time_stamp
    body["invocationSequenceNumber"] = asked.invocation_sequence_number
    body["multipleUnitInformation"] = units
    body |= more
    return Response(orjson.dumps(body), status_code=status, media_type="application/json", headers=headers)


# --- what is denied --------------------------------------------------------------------------


def denied(told: Sequence[SessionDenied]) -> HttpProblem:
    """A session that nothing at all was granted to does not begin."""
    first = told[0]
    more = {"cause": "END_USER_REQUEST_DENIED" if first.reason in DENIED else LIMIT_REACHED}
    return HttpProblem(403, "quota_limit_reached", "; ".join(map(_denial, told)), more=more)


def _denial(told: SessionDenied) -> str:
    if told.reason == "suspended":
        return "the line is suspended: only emergency calls are authorised"
    if told.reason == "insufficient_allowance":
        return f"the allowance of {told.usage_type} is used up, and the contract allows no more"
    so_far = " of ".join(counted_text(number, told.counted) for number in (told.counted_used, told.limit))
    what = f"{told.counted} per {told.window.replace('_', ' ')}: {so_far}"
    match told.reason:
        case "maximum_charge":
            return "the maximum charge of its rate is reached, and ends it"
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
