"""Our own shape, read quickly: a line that is plainly one of ours, decoded and checked in one go.

It gives the record that the format "allotment" declares, or None for anything out of the ordinary,
such as attributes, a missing field or a space too many: that line is read as declared, with its reason.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from ...domain.usage import UsageRecord
from .amounts import AMOUNT_MAX
from .clocks import DAYS_END
from .declaration import Format
from .formats import shipped_format
from .numbers import normal_number
from .places import TEXT_MAX

_Name = Annotated[str, Meta(min_length=1, max_length=TEXT_MAX)]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Line(Struct, forbid_unknown_fields=True, gc=False):
    source: _Name
    id: _Name
    line: _Name
    type: Literal["data", "voice", "messaging", "video"]
    quantity: Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]
    start: str
    direction: Literal["outbound", "inbound"] = "outbound"
    counterpart: Annotated[str, Meta(max_length=TEXT_MAX)] = ""


_decode = msgspec.json.Decoder(_Line).decode


def quick_reader(format: Format) -> Callable[[bytes], UsageRecord | None] | None:
    """Reads the plain lines of our own format; None for every other format."""
    if format != shipped_format("allotment"):
        return None
    region, extension_digits_max = format.numbers.region, format.numbers.extension_digits_max

    def record_of(raw: bytes) -> UsageRecord | None:
        try:
            told = _decode(raw)
            since = datetime.fromisoformat(told.start) - _EPOCH
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
            return None  # TypeError: a time without its offset from UTC
        source, record_id, line, counterpart = told.source, told.id, told.line, told.counterpart
        together = source + record_id + line + counterpart
        if " " in together or not together.isprintable() or not 0 <= since.days < DAYS_END:
            return None
        line = normal_number(line, region, extension_digits_max)
        counterpart = normal_number(counterpart, region, extension_digits_max)
        if len(line) > TEXT_MAX or len(counterpart) > TEXT_MAX:
            return None
        started_at = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
        return UsageRecord(
            source, record_id, line, told.type, told.quantity, started_at, told.direction, counterpart
        )

    return record_of
