"""What comes in at the charging door, in the words of TS 32.291, read and checked before anybody is asked.

Members that we do not know are passed over, as network elements send many. What is wrong is named by its
place in the request: "multipleUnitUsage[1].ratingGroup".
"""

from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from ...domain.session import LATE, PART
from ...domain.session_request import GROUPS_MAX, GroupReport
from ...domain.usage import NAME, UnreadableRecord, UsageRecord
from ..authorising import AskUnits
from ..engine import moment
from ..intake.gate import QUANTITY_MAX, TEXT_MAX, checked
from ..intake.numbers import normal_number
from .problem_details import HttpProblem

NUMBER_MAX = 2**31
EXTENSION_DIGITS_MAX = 6
GROUP_DIGITS_MAX = NUMBER_DIGITS_MAX = 10
RATING_GROUP_MAX = 2**32 - 1

RATING_GROUPS = {1: "voice", 2: "data", 3: "messaging", 4: "video"}
"""What these count needs not be said. Any other number comes with its `usageType`."""
UNITS = {"voice": "time", "data": "totalVolume", "messaging": "serviceSpecificUnits", "video": "time"}
"""In which member of a unit a usage type is counted: seconds, bytes, messages."""
UNIT_OF_OTHERS = "serviceSpecificUnits"


class Unit(Struct, frozen=True, rename="camel"):
    """Some of one usage type; none given where the choice is ours."""

    time: int | None = None
    total_volume: int | None = None
    uplink_volume: int | None = None
    downlink_volume: int | None = None
    service_specific_units: int | None = None


PRICE_CHANGED = "TARIFF_TIME_CHANGE"


class Trigger(Struct, frozen=True, rename="camel"):
    """Why a container ends. At a change of price what follows is told apart; others are taken note of."""

    trigger_type: str = ""


class Container(Unit, frozen=True, rename="camel"):
    """What was used since the last report, or a part of it: until the price changed, say."""

    triggers: tuple[Trigger, ...] = ()
    trigger_timestamp: str = ""


class UnitUsage(Struct, frozen=True, rename="camel"):
    """What one rating group asks for, and has used since its last report."""

    rating_group: int
    requested_unit: Unit | None = None
    used_unit_container: tuple[Container, ...] = ()
    usage_type: str = ""


class Consumer(Struct, frozen=True):
    """The network element that asks: the source of the record that is charged in the end."""

    name: str = field(name="nFName")


class ChargingData(Struct, frozen=True, rename="camel"):
    """A request, in as much of it as we read."""

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
    attributes: dict[str, str] = {}
    """What else a rate may be chosen by, as a usage record has it: the network, participants."""
    one_time_event: bool = False
    one_time_event_type: str = "IEC"


_decode = msgspec.json.Decoder(ChargingData).decode
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_MICROSECOND = timedelta(microseconds=1)


def read(body: bytes) -> ChargingData:
    try:
        asked = _decode(body)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        detail = f"the body is no charging data request: {error}"
        raise HttpProblem(400, "bad_request", detail, more={"cause": "INVALID_MSG_FORMAT"}) from None
    if not 0 <= asked.invocation_sequence_number < NUMBER_MAX:
        raise bad("invocationSequenceNumber", f"count from 0 to {NUMBER_MAX - 1}")
    if len(asked.multiple_unit_usage) > GROUPS_MAX:
        raise bad("multipleUnitUsage", f"give at most {GROUPS_MAX} rating groups in one request")
    return asked


def bad(param: str, reason: str) -> HttpProblem:
    """A value that is no good, by its place in the request."""
    invalid = [{"param": param, "reason": reason}]
    more = {"cause": "MANDATORY_IE_INCORRECT", "invalidParams": invalid}
    return HttpProblem(400, "bad_value", f"{param}: {reason}", more=more)


def opening(asked: ChargingData) -> AskUnits:
    """A new session, with all the groups that it begins with."""
    groups = group_reports(asked)
    if not groups:
        raise bad("multipleUnitUsage", "give at least one rating group")
    record = record_of(asked, groups[0], 0)
    wanted = tuple(replace(told, requested=told.requested or 0) for told in groups)
    return AskUnits(record.source, record.record_id, asked.invocation_sequence_number, wanted, record)


def reporting(asked: ChargingData, source: str, session: str, *, ends: bool) -> AskUnits:
    """What was used in a running session, and what it asks for next."""
    groups = group_reports(asked)
    if not groups and not ends:
        raise bad("multipleUnitUsage", "give at least one rating group")
    at = _moment(asked) if asked.invocation_time_stamp else 0
    return AskUnits(
        source,
        session,
        asked.invocation_sequence_number,
        groups,
        None,
        ends,
        at,
        tuple(asked.attributes.items()),
    )


def events(asked: ChargingData) -> list[UsageRecord]:
    """What is charged at once: a record for each rating group, the first under the event's own id."""
    if asked.one_time_event_type != "IEC":
        raise bad("oneTimeEventType", "IEC is taken; reserve units for an event by a session")
    groups = group_reports(asked)
    if not groups:
        raise bad("multipleUnitUsage", "give at least one rating group")
    for place, told in enumerate(groups):
        if not (told.requested or told.used):
            raise bad(f"multipleUnitUsage[{place}].requestedUnit", f"give {unit_of(told.usage_type)}, from 1")
    return [
        replace(
            record_of(asked, told, told.requested or told.used),
            record_id=str(asked.charging_id) + (f"{PART}{told.rating_group}" if place else ""),
        )
        for place, told in enumerate(groups)
    ]


def record_of(asked: ChargingData, told: GroupReport, quantity: int) -> UsageRecord:
    """The session's first group, or an event, as the usage record it will be."""
    source = asked.nf_consumer_identification.name if asked.nf_consumer_identification else ""
    line = asked.subscriber_identifier.removeprefix("imsi-")
    if line.startswith("msisdn-"):
        line = "+" + line.removeprefix("msisdn-")
    record = checked(
        UsageRecord(
            source,
            str(asked.charging_id),
            normal_number(line, "", EXTENSION_DIGITS_MAX),
            told.usage_type,
            quantity,
            _moment(asked),
            asked.direction,
            normal_number(asked.counterpart, "", EXTENSION_DIGITS_MAX),
            tuple(asked.attributes.items()),
        )
    )
    if isinstance(record, UnreadableRecord) and record.field != "record_id":
        raise bad(_FIELDS.get(record.field, record.field), record.detail)
    if isinstance(record, UnreadableRecord) or len(record.record_id) > SESSION_MAX:
        raise bad("chargingId", f"must be 1 to {SESSION_MAX} printable characters")
    return record


SESSION_MAX = TEXT_MAX - max(len(LATE), len(PART) + NUMBER_DIGITS_MAX) - len(PART) - GROUP_DIGITS_MAX
"""So that the records made of a session fit: see `part_id` and `ungranted_id`."""
_FIELDS = {
    "source": "nfConsumerIdentification.nFName",
    "record_id": "chargingId",
    "line": "subscriberIdentifier",
    "started_at": "invocationTimeStamp",
    "usage_type": "multipleUnitUsage",
    "quantity": "multipleUnitUsage",
}


def group_reports(asked: ChargingData) -> tuple[GroupReport, ...]:
    groups = tuple(_group(usage, place) for place, usage in enumerate(asked.multiple_unit_usage))
    if len({told.rating_group for told in groups}) < len(groups):
        raise bad("multipleUnitUsage", "give each rating group once")
    return groups


def _group(usage: UnitUsage, place: int) -> GroupReport:
    where = f"multipleUnitUsage[{place}]"
    usage_type = _type(usage, where)
    used = 0
    changes: list[tuple[int, int]] = []
    for at, container in enumerate(usage.used_unit_container):
        # Counted in its own unit, or refused: what was used must not be taken for nothing.
        used += _counted(_amount(container, usage_type), usage_type, f"{where}.usedUnitContainer[{at}]")
        if container.trigger_timestamp and _is_at_another_price(container):
            changes.append((used, _triggered(container, f"{where}.usedUnitContainer[{at}]")))
    told = tuple(changes)
    if used > QUANTITY_MAX:
        raise bad(f"{where}.usedUnitContainer", f"adds up to more than {QUANTITY_MAX}")
    if usage.requested_unit is None:
        return GroupReport(usage.rating_group, usage_type, used, None, told)
    wanted = 0
    if usage.requested_unit != Unit():
        wanted = _counted(_amount(usage.requested_unit, usage_type), usage_type, f"{where}.requestedUnit")
    return GroupReport(usage.rating_group, usage_type, used, wanted, told)


def _is_at_another_price(container: Container) -> bool:
    """Whether what follows it was used at another price."""
    return any(trigger.trigger_type == PRICE_CHANGED for trigger in container.triggers)


def _type(usage: UnitUsage, where: str) -> str:
    if not 1 <= usage.rating_group <= RATING_GROUP_MAX:
        raise bad(f"{where}.ratingGroup", f"give 1 to {RATING_GROUP_MAX}")
    usual = RATING_GROUPS.get(usage.rating_group, usage.usage_type)
    known = ", ".join(f"{group} ({name})" for group, name in RATING_GROUPS.items())
    if not usual:
        raise bad(f"{where}.ratingGroup", f"use one of {known}, or say its usageType")
    if usage.usage_type not in ("", usual):
        raise bad(f"{where}.usageType", f"ratingGroup {usage.rating_group} counts {usual}")
    if not NAME.fullmatch(usual):
        raise bad(f"{where}.usageType", "give the name of a usage type")
    return usual


def unit_of(usage_type: str) -> str:
    return UNITS.get(usage_type, UNIT_OF_OTHERS)


def _amount(unit: Unit, usage_type: str) -> int | None:
    """How much of its usage type a unit tells; None where it tells nothing."""
    both = [part for part in (unit.uplink_volume, unit.downlink_volume) if part is not None]
    total = sum(both) if both and unit.total_volume is None else unit.total_volume
    given = {
        "time": unit.time,
        "totalVolume": total,
        "serviceSpecificUnits": unit.service_specific_units,
    }
    return given[unit_of(usage_type)]


def _counted(amount: int | None, usage_type: str, where: str) -> int:
    if amount is None or not 0 <= amount <= QUANTITY_MAX:
        raise bad(where, f"give {unit_of(usage_type)}, from 0 to {QUANTITY_MAX}")
    return amount


def _moment(asked: ChargingData) -> int:
    return _read_moment(asked.invocation_time_stamp, "invocationTimeStamp")


def _triggered(container: Container, where: str) -> int:
    return _read_moment(container.trigger_timestamp, f"{where}.triggerTimestamp")


def _read_moment(text: str, where: str) -> int:
    """Microseconds; the moment must carry its zone, so that it means the same everywhere."""
    try:
        at: Any = msgspec.convert(text, _Moment)
    except msgspec.ValidationError:
        raise bad(where, 'give a moment with its zone: "2026-11-15T10:00:00Z"') from None
    return int((at - moment(0)) // _MICROSECOND)
