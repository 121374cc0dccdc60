"""Keys: what makes a record or a command known for ever, and where its key stands in the unique index.

A key of usage is the day and the moment it speaks of, then a hash: time keeps neighbours together
in the index, the hash alone is the identity. So the same record under another time is found too.

Before decision 0049 the hash had two bytes more, and the moment none. Such a key is read like any
other: its identity is the same, and its moment is no moment. Who asks the log by a key asks for both
forms; what has no time (commands, contradictions, what could not be read) has that form for ever.
"""

from hashlib import sha256

KEY_BYTES = 16
DAY_BYTES = 2
TIME_BYTES = 4
"""The day, and the moment of the day in two more."""
MOMENT_BYTES = TIME_BYTES - DAY_BYTES
IDENTITY_BYTES = KEY_BYTES - TIME_BYTES

_DAY_MICROSECONDS = 86_400_000_000
_LAST_DAY = (1 << 8 * DAY_BYTES) - 1
_MOMENTS = 1 << 8 * MOMENT_BYTES
"""Of a day: each is 1.3 seconds, in which some pages of the index are filled, and then left alone."""
NO_DAY = bytes(DAY_BYTES)
"""The day of what has no date."""
NO_TIME = bytes(TIME_BYTES)
COMMANDS = b"\xff\xff"
"""The day of commands: their keys stand together."""


def time_of(started_at: int) -> bytes:
    """Day and moment."""
    day, within = divmod(started_at, _DAY_MICROSECONDS)
    if not 0 < day < _LAST_DAY:
        return NO_TIME
    moment = within * _MOMENTS // _DAY_MICROSECONDS
    return day.to_bytes(DAY_BYTES, "big") + moment.to_bytes(MOMENT_BYTES, "big")


def identity(what: str) -> bytes:
    """The hash of what a command is, whatever time it speaks of."""
    return hash_of(what)[MOMENT_BYTES:]


def hash_of(what: str) -> bytes:
    """All of the hash that a key without a moment has."""
    return sha256(what.encode()).digest()[: KEY_BYTES - DAY_BYTES]


def both_forms(what: str, started_at: int) -> tuple[bytes, bytes]:
    """The key of something, and the one under which releases before decision 0049 stored it."""
    time, full = time_of(started_at), hash_of(what)
    return time + full[MOMENT_BYTES:], time[:DAY_BYTES] + full


def undated_key(what: str) -> bytes:
    """Of what has no date."""
    return NO_DAY + hash_of(what)


def key_of_command(what: str) -> bytes:
    """A function of the command alone: the same again has the same key, whenever it comes."""
    return COMMANDS + hash_of(what)


# --- of what ----------------------------------------------------------------------------------


def usage_identity(source: str, record_id: str) -> bytes:
    """The identity of a usage record, for ever, whatever it says."""
    return identity(_usage(source, record_id))


def usage_key(source: str, record_id: str, started_at: int) -> bytes:
    """The key under which a record is stored when it is the first of its identity."""
    return usage_keys(source, record_id, started_at)[0]


def usage_keys(source: str, record_id: str, started_at: int) -> tuple[bytes, bytes]:
    """That, and the one that releases before decision 0049 stored it under."""
    return both_forms(_usage(source, record_id), started_at)


def undated_usage_key(source: str, record_id: str) -> bytes:
    """Of a record that could not be read."""
    return undated_key(_usage(source, record_id))


def _usage(source: str, record_id: str) -> str:
    return f"usage\x1f{source}\x1f{record_id}"


def replacing_key(seq: int, started_at: int) -> bytes:
    """The key under which a charge is stored that takes the place of the one in an event: there is one."""
    return replacing_keys(seq, started_at)[0]


def replacing_keys(seq: int, started_at: int) -> tuple[bytes, bytes]:
    """That, and the one of earlier releases."""
    return both_forms(_replacing(seq), started_at)


def replacing_identity(seq: int) -> bytes:
    return identity(_replacing(seq))


def _replacing(seq: int) -> str:
    return f"replaces\x1f{seq}"


def recycled_identity(source: str, record_id: str) -> bytes:
    """Of what became of a record that had waited: there is one charge, whatever waited under its id."""
    return identity(_recycled(source, record_id))


def recycled_key(source: str, record_id: str, started_at: int) -> bytes:
    return recycled_keys(source, record_id, started_at)[0]


def recycled_keys(source: str, record_id: str, started_at: int) -> tuple[bytes, bytes]:
    return both_forms(_recycled(source, record_id), started_at)


def _recycled(source: str, record_id: str) -> str:
    return f"recycled\x1f{source}\x1f{record_id}"


def conflict_key(source: str, record_id: str, digest: bytes) -> bytes:
    """Of a record that came under the identity of another: it is itself kept only once."""
    return undated_key(f"conflict\x1f{hash_of(_usage(source, record_id)).hex()}\x1f{digest.hex()}")


def session_key(source: str, session: str, number: int | str, now: int) -> bytes:
    """Of a session's report, by its number; kept together by time."""
    return time_of(now) + identity(f"session\x1f{source}\x1f{session}\x1f{number}")


def period_key(period: str) -> bytes:
    return key_of_command(f"period\x1f{period}")


def command_key(idempotency_key: str) -> bytes:
    return key_of_command(f"command\x1f{idempotency_key}")
