"""The gate: what no record may be, by whichever door it came.

A record that passes can be stored, sealed and projected. One that does not becomes unreadable,
with the field that is wrong, under an identity of its own, and goes to suspense.
"""

from hashlib import sha256

import msgspec

from ...domain.usage import MONEY, NAME, USAGE_TYPES, UnreadableRecord, UsageRecord

TEXT_MAX = 200
DIRECTIONS = frozenset(("outbound", "inbound"))
ATTRIBUTES_MAX = 32
QUANTITY_MAX = 2**44
"""17 terabytes, or half a million years: more is a counter that ran over."""
MOMENT_MIN = 31_536_000_000_000
"""1971: a date at the epoch is a missing date."""
MOMENT_MAX = 4_102_444_800_000_000
"""2100."""


def checked(record: UsageRecord | UnreadableRecord) -> UsageRecord | UnreadableRecord:
    """The record itself, or why it cannot be charged."""
    if isinstance(record, UnreadableRecord):
        return record if _is_text(record.source) and _is_text(record.record_id) else _renamed(record)
    source, record_id, line, counterpart = record.source, record.record_id, record.line, record.counterpart
    if (
        record.quantity.__class__ is int
        and 0 <= record.quantity <= QUANTITY_MAX
        and MOMENT_MIN <= record.started_at <= MOMENT_MAX
        and (record.usage_type in USAGE_TYPES or _is_type(record.usage_type))
        and record.direction in DIRECTIONS
        and 0 < len(source) <= TEXT_MAX
        and 0 < len(record_id) <= TEXT_MAX
        and 0 < len(line) <= TEXT_MAX
        and len(counterpart) <= TEXT_MAX
        # All of them at once: this is asked of every record.
        and (source + record_id + line + counterpart).isprintable()
        and (not record.attributes or _are_attributes(record.attributes))
    ):
        return record
    return _refused(record)


def _refused(record: UsageRecord) -> UnreadableRecord:
    field, detail = next((field, detail) for field, wrong, detail in _faults(record) if wrong)
    return _renamed(
        UnreadableRecord(
            record.source, record.record_id, "bad_value", field, detail, repr(msgspec.structs.asdict(record))
        )
    )


def _faults(record: UsageRecord) -> list[tuple[str, bool, str]]:
    text = f"must be 1 to {TEXT_MAX} printable characters"
    return [
        ("source", not _is_text(record.source), text),
        ("record_id", not _is_text(record.record_id), text),
        ("line", not _is_text(record.line), text),
        ("counterpart", bool(record.counterpart) and not _is_text(record.counterpart), text),
        (
            "usage_type",
            not _is_type(record.usage_type),
            f"must be one of {', '.join(USAGE_TYPES)}, or the name of a type the carrier has defined",
        ),
        ("direction", record.direction not in DIRECTIONS, "must be outbound or inbound"),
        ("started_at", not MOMENT_MIN <= record.started_at <= MOMENT_MAX, "must be between 1971 and 2100"),
        (
            "attributes",
            not _are_attributes(record.attributes),
            f"must be at most {ATTRIBUTES_MAX} pairs of printable text",
        ),
        ("quantity", True, f"must be a whole number from 0 to {QUANTITY_MAX}"),
    ]


def _renamed(record: UnreadableRecord) -> UnreadableRecord:
    """With an identity that can be stored, made of what came, where its own cannot."""
    changes = {}
    if not _is_text(record.source):
        changes["source"] = "unknown"
    if not _is_text(record.record_id):
        raw = f"{record.record_id}\n{record.raw}".encode("utf-8", "surrogatepass")
        changes["record_id"] = f"raw:{sha256(raw).hexdigest()[:32]}"
    clean = record.raw.encode("utf-8", "replace").decode()
    return msgspec.structs.replace(record, raw=clean, **changes)


def _is_text(text: str) -> bool:
    return 0 < len(text) <= TEXT_MAX and text.isprintable()


def _is_type(name: str) -> bool:
    """Whether the tenant counts it is decided with the rest."""
    return NAME.fullmatch(name) is not None and name != MONEY


def _are_attributes(attributes: tuple[tuple[str, str], ...]) -> bool:
    return len(attributes) <= ATTRIBUTES_MAX and all(
        _is_text(name) and (not value or _is_text(value)) for name, value in attributes
    )
