"""Which member of a charging request a refusal is about: told beside its code, in `invalidParams`.

A refusal that no other value of a member would have spared, such as one for want of a tariff, names none.
"""

from collections.abc import Sequence
from typing import Any

from ...domain.session_request import GroupReport

MEMBERS = {
    "unknown_line": "subscriberIdentifier",
    "line_not_active": "subscriberIdentifier",
    "in_the_future": "invocationTimeStamp",
    "too_late": "invocationTimeStamp",
    "session_exists": "chargingId",
    "charged_already": "chargingId",
    "conflicting_duplicate": "chargingId",
    "idempotency_mismatch": "invocationSequenceNumber",
    "report_out_of_order": "invocationSequenceNumber",
    "usage_taken_back": "multipleUnitUsage",
    "quantity_out_of_range": "multipleUnitUsage",
    "beyond_counting": "multipleUnitUsage",
    "unknown_usage_type": "multipleUnitUsage",
    "no_value": "attributes",
    "bad_multiple": "attributes",
}


def invalid_params(
    code: str, reason: str, groups: Sequence[GroupReport], usage_type: str = ""
) -> dict[str, Any]:
    """What an answer says of it, in its own words; nothing where it is about no member."""
    member = MEMBERS.get(code, "")
    if code == "unknown_usage_type":
        member = _usage_type_at(groups, usage_type)
    return {"invalidParams": [{"param": member, "reason": reason}]} if member else {}


def _usage_type_at(groups: Sequence[GroupReport], usage_type: str) -> str:
    places = [place for place, group in enumerate(groups) if usage_type in ("", group.usage_type)]
    return f"multipleUnitUsage[{places[0]}].usageType" if places else MEMBERS["unknown_usage_type"]
