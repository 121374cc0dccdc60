"""Our own shape, read quickly: a line that is plainly one of ours, decoded and checked in one go.

It gives the record that the format "allotment" declares, or None for anything out of the ordinary,
such as attributes, a missing field or a space too many: that line is read as declared, with its reason.
Native code reads the plainest lines, many at a time; the rule is `QuickReader.record_of`.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from ...domain.usage import UsageRecord
from ..native import using
from .amounts import AMOUNT_MAX
from .clocks import DAYS_END
from .declaration import Format
from .formats import shipped_format
from .numbers import BEGINNINGS, beginning, normal_number
from .places import TEXT_MAX
from .rows import ROW_BYTES_MAX

_Name = Annotated[str, Meta(min_length=1, max_length=TEXT_MAX)]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LIMITS = (AMOUNT_MAX, DAYS_END, TEXT_MAX)


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


class QuickReader:
    """Reads the plain lines of our own format."""

    def __init__(self, region: str, extension_digits_max: int) -> None:
        self._region = region
        self._extension_digits_max = extension_digits_max

    def record_of(self, raw: bytes) -> UsageRecord | None:
        try:
            told = _decode(raw)
            since = datetime.fromisoformat(told.start) - _EPOCH
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
            return None  # TypeError: a time without its offset from UTC
        source, record_id, line, counterpart = told.source, told.id, told.line, told.counterpart
        together = source + record_id + line + counterpart
        if " " in together or not together.isprintable() or not 0 <= since.days < DAYS_END:
            return None
        line, counterpart = self._normal(line), self._normal(counterpart)
        if len(line) > TEXT_MAX or len(counterpart) > TEXT_MAX:
            return None
        started_at = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
        return UsageRecord(
            source, record_id, line, told.type, told.quantity, started_at, told.direction, counterpart
        )

    def read(self, body: bytes, at: int, most: int, records: list[Any]) -> int:
        """Add the records of so many lines from a place on; where the first begins that is not plain.

        Blank lines are not plain. Beyond `most` it reads at most one.
        """
        upto = len(records) + most
        while at < len(body) and len(records) < upto:
            at = self._read_natively(body, at, upto - len(records), records)
            if at == len(body):
                break
            end = body.find(b"\n", at)
            raw = body[at:] if end < 0 else body[at:end]
            record = self.record_of(raw) if len(raw) < ROW_BYTES_MAX else None
            if record is None:
                break
            records.append(record)
            at = len(body) if end < 0 else end + 1
        return at

    def _normal(self, text: str) -> str:
        return normal_number(text, self._region, self._extension_digits_max)

    def _read_natively(self, body: bytes, at: int, most: int, records: list[Any]) -> int:
        native = using.native()
        if native is None:
            return at
        return native.read_lines(body, at, most, records, _LIMITS, (BEGINNINGS, beginning, self._normal))


def plain_reader(format: Format) -> QuickReader | None:
    """None for every format but our own."""
    if format != shipped_format("allotment"):
        return None
    return QuickReader(format.numbers.region, format.numbers.extension_digits_max)


def quick_reader(format: Format) -> Callable[[bytes], UsageRecord | None] | None:
    """The same for one line after the other."""
    reader = plain_reader(format)
    return None if reader is None else reader.record_of
