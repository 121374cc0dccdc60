"""Command keys: what makes a command known for ever, and where its key stands in the unique index.

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
