"""A group of events in PostgreSQL's binary COPY format: the cheapest way into the log.

COPY is refused under row-level security, so it runs in the role `allotment_appender`: that
role passes row-level security but may only insert, and may not name the tenant. PostgreSQL
itself fills in `tenant_id`, from the tenant that the transaction is bound to.
"""

from collections.abc import Sequence
from struct import Struct

from ..projections.tables import COPY_HEADER, COPY_TRAILER
from .native import using

COPY = "COPY events (seq, topic, state, recorded_at, command_key, leaf_hash) FROM STDIN (FORMAT binary)"

SINCE_2000 = 946_684_800_000_000
"""PostgreSQL counts time from the year 2000."""

_start = Struct("!hiqi").pack
_length = Struct("!i").pack
_end = Struct("!iqi16si32s").pack
_end_without_key = Struct("!iqii32s").pack
_COLUMNS = 6
_NULL = -1


def copy_buffer(
    seen: int,
    recorded_at: int,
    topics: Sequence[str],
    states: Sequence[bytes],
    command_keys: Sequence[bytes | None],
    leaves: Sequence[bytes],
) -> bytes | bytearray:
    """The rows after seq `seen`, ready to be sent."""
    at, native = recorded_at - SINCE_2000, using.native()
    if native is not None:
        rows = native.copy_rows(
            COPY_HEADER, COPY_TRAILER, seen, at, list(topics), list(states), list(command_keys), list(leaves)
        )
        if rows is not None:
            return rows
    buffer = bytearray(COPY_HEADER)
    encoded = {topic: topic.encode() for topic in set(topics)}
    seq = seen
    for topic, state, key, leaf in zip(topics, states, command_keys, leaves, strict=True):
        seq += 1
        name = encoded[topic]
        buffer += _start(_COLUMNS, 8, seq, len(name))
        buffer += name
        buffer += _length(len(state))
        buffer += state
        if key is None:
            buffer += _end_without_key(8, at, _NULL, 32, leaf)
        else:
            buffer += _end(8, at, 16, key, 32, leaf)
    buffer += COPY_TRAILER
    return buffer
