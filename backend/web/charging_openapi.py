"""The charging door as an OpenAPI document: what it takes, printed from the code, and what it answers."""

from typing import Any

import msgspec

from ...domain.session_terms import ACTIONS
from .charging_request import ChargingData

VERSION = "1.0.0"
_TEXT = {"type": "string"}
_NUMBER = {"type": "integer", "minimum": 0}
_MOMENT = {"type": "string", "format": "date-time"}
RESULT_CODES = [
    *("SUCCESS", "QUOTA_LIMIT_REACHED", "END_USER_SERVICE_DENIED"),
    *("END_USER_SERVICE_REJECTED", "RATING_FAILED"),
]


def charging_openapi() -> dict[str, Any]:
    _, taken = msgspec.json.schema_components([ChargingData], ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Allotment charging",
            "version": VERSION,
            "description": "In the shape of 3GPP Nchf_ConvergedCharging (TS 32.291), without claiming to "
            "conform to it.",
        },
        "paths": {
            "/v1/charging/chargingdata": _path("Open a session, or charge an event at once.", "201", {}),
            "/v1/charging/chargingdata/{ChargingDataRef}/update": _path(
                "Report usage, and ask for more.", "200", _REF
            ),
            "/v1/charging/chargingdata/{ChargingDataRef}/release": _path(
                "Report the last usage, and end the session.", "204", _REF
            ),
        },
        "components": {
            "schemas": {**dict(sorted(taken.items())), **_ANSWERED},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


_REF = {
    "parameters": [{"name": "ChargingDataRef", "in": "path", "required": True, "schema": _TEXT}],
}


def _path(summary: str, status: str, more: dict[str, Any]) -> dict[str, Any]:
    answers: dict[str, Any] = {status: _answer(status), "default": _PROBLEM}
    body = {"application/json": {"schema": _ref("ChargingData")}}
    asked = {"summary": summary, "requestBody": {"required": True, "content": body}, "responses": answers}
    return {**more, "post": asked}


def _answer(status: str) -> dict[str, Any]:
    if status == "204":
        return {"description": "It has ended."}
    told: dict[str, Any] = {
        "description": "A result for every rating group.",
        "content": {"application/json": {"schema": _ref("ChargingDataResponse")}},
    }
    if status == "201":
        told["headers"] = {"Location": {"description": "Of the session.", "schema": _TEXT}}
    return told


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: list[str], **members: Any) -> dict[str, Any]:
    # Closed, so that a member that is answered and not told of here fails a test.
    return {
        "type": "object",
        "properties": members,
        "required": required,
        "additionalProperties": False,
    }


_PROBLEM = {
    "description": "Why not.",
    "content": {"application/problem+json": {"schema": _ref("ProblemDetails")}},
}
_VALUE = _object(["valueDigits", "exponent", "per"], valueDigits=_NUMBER, exponent={"const": -6}, per=_NUMBER)
_ANSWERED: dict[str, Any] = {
    "ChargingDataResponse": _object(
        ["invocationSequenceNumber", "multipleUnitInformation"],
        invocationTimeStamp=_MOMENT,
        invocationSequenceNumber=_NUMBER,
        multipleUnitInformation={"type": "array", "items": _ref("MultipleUnitInformation")},
        creditPools={
            "type": "array",
            "items": _object(["poolId", "added"], poolId=_NUMBER, added=_ref("UnitValue")),
        },
    ),
    "MultipleUnitInformation": _object(
        ["ratingGroup", "resultCode"],
        ratingGroup=_NUMBER,
        resultCode={"enum": RESULT_CODES},
        grantedUnit=_ref("GrantedUnit"),
        validityTime=_NUMBER,
        quotaHoldingTime=_NUMBER,
        timeQuotaThreshold=_NUMBER,
        volumeQuotaThreshold=_NUMBER,
        unitQuotaThreshold=_NUMBER,
        finalUnitIndication=_ref("FinalUnitIndication"),
        creditPool=_object(["poolId", "unitValue"], poolId=_NUMBER, unitValue=_ref("UnitValue")),
        throttleKbps=_NUMBER,
        payer=_TEXT,
    ),
    "GrantedUnit": _object(
        [], time=_NUMBER, totalVolume=_NUMBER, serviceSpecificUnits=_NUMBER, tariffTimeChange=_MOMENT
    ),
    "FinalUnitIndication": _object(
        ["finalUnitAction"],
        finalUnitAction={"enum": list(ACTIONS)},
        redirectServer=_object(
            ["redirectAddressType", "redirectServerAddress"],
            redirectAddressType={"enum": ["URL", "SIP_URI"]},
            redirectServerAddress=_TEXT,
        ),
        filterId=_TEXT,
    ),
    "UnitValue": {**_VALUE, "description": "valueDigits x 10^exponent of the currency for `per` units."},
    "ProblemDetails": _object(
        ["type", "title", "status", "detail", "code", "request_id"],
        type=_TEXT,
        title=_TEXT,
        status=_NUMBER,
        detail=_TEXT,
        code=_TEXT,
        request_id=_TEXT,
        cause=_TEXT,
        invalidParams={
            "type": "array",
            "items": _object(["param", "reason"], param=_TEXT, reason=_TEXT),
        },
    ),
}
