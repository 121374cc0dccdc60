"""Usage records: what a network element says happened, before anybody decides who pays.

A record is normalised once, at the edge (`backend/intake`). From here on its quantity is a
whole number in the unit of its usage type, its time is UTC microseconds, and its numbers are
E.164, an extension, or a SIP identity. `(source, record_id)` is its identity for ever: one
record is charged once, whatever is sent twice.
"""

import re

import msgspec
from msgspec import Struct

USAGE_TYPES = {
    "data": "byte",
    "voice": "second",
    "messaging": "message",
    "video": "second",
}
"""The metered usage types and the unit each is counted in. Money is `money`, in micro-units."""

MONEY = "money"

NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
"""What a usage type may be called. Whether a tenant counts it, its state says."""


class UsageRecord(Struct, frozen=True, array_like=True, gc=False):
    """One metered use, normalised. Personal: `line` and `counterpart`."""

    source: str
    record_id: str
    line: str
    """Who used it, as the network knows them: "+442071838750", "100", "alice"."""
    usage_type: str
    """A key of `USAGE_TYPES`, or a name that the carrier has defined for the tenant, or will."""
    quantity: int
    """In the usage type's unit, not rounded to any increment; 0 for an unanswered call."""
    started_at: int
    """Microseconds since the epoch, UTC. For a call: when it was answered, or tried."""
    direction: str = "outbound"
    """"outbound" or "inbound", as the owner of `line` sees it."""
    counterpart: str = ""
    """The other party: E.164 where it is a public number, else as dialled; "" where there is none."""
    attributes: tuple[tuple[str, str], ...] = ()
    """What steering may ask about: network, application, place ... sorted by name."""


class UnreadableRecord(Struct, frozen=True, array_like=True, gc=False):
    """A record that mediation cannot vouch for. It goes to suspense with its reason."""

    source: str
    record_id: str
    """The record's own id, or one derived from its content where it has none."""
    reason: str
    """A stable code: "malformed", "contradictory", "missing_field", "bad_value" ..."""
    field: str
    detail: str
    """What is wrong and what to do about it, in a sentence, without personal data."""
    raw: str
    """The record as it came. Personal: it is sealed before it is stored."""
    position: str = ""
    """Where it stood: "calls.csv:12"."""
    header: str = ""
    """The header of its file, where the row says nothing without it. It is no part of what was sent."""


Usage = UsageRecord | UnreadableRecord
"""Whatever a network element sends."""


def pack_personal(record: UsageRecord) -> bytes:
    """The personal part of a record, as it is sealed."""
    return _pack((record.line, record.counterpart))


def unpack_personal(plain: bytes) -> tuple[str, str]:
    """Line and counterpart, of what was unsealed."""
    return _unpack(plain)


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[str, str]).decode
