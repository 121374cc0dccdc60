"""Reading many events: put together by the server and decoded in one call, for rows cost more than that.

The same events come out as when rows are read one by one; where they cannot be read this way, as
when another version wrote them, they are.
"""

from array import array
from collections.abc import Callable, Sequence
from functools import partial
from sys import byteorder
from typing import Any, NamedTuple, TypeVar, cast
from zoneinfo import ZoneInfo

import msgspec

from ..domain.brief import Charge, Charged, ChargeInBrief, ChargeOfAnyType
from ..domain.charging import UsageCharged
from ..domain.events import SCHEMA, Envelope, Recorded, decode
from ..domain.refusals import InvariantBroken
from ..projections.chunk import NO_CHARGES, Charges, Ways
from ..projections.counted import Counted
from ..projections.tally import Tally
from ..tenants.isolation import Connection
from .copying import SINCE_2000
from .keys import KEY_BYTES
from .learned_texts import LearnedTexts
from .log import MICROSECONDS, PostgresLog, Row, reachable, recorded, unreadable
from .tallied import Stored, counted

CHUNK_MAX = 20_000
"""Events folded at a time: a few megabytes, decoded in one call."""

CHARGED = UsageCharged.topic

One = TypeVar("One")


class Chunk(NamedTuple):
    """Consecutive events, as they are folded: the charges by themselves, for they are most of them."""

    first: int
    last: int
    recorded_at: int
    """Of the last."""
    charges: Sequence[Charged]
    keys: list[bytes]
    """Of the charges."""
    others: list[Recorded]
    leaves: bytes
    """Of all, in order; empty where they were not asked for."""


class Stretch(NamedTuple):
    """Consecutive events, as they are projected."""

    first: int
    last: int
    charges: Charges
    others: list[Recorded]
    added_up: Tally | None = None
    """What its charges come to, and ..."""
    copied: bytes | bytearray = b""
    """... their rows, where somebody made them ready."""
    counted: Counted | None = None
    """What its plain charges come to, where they were read natively."""


class Later(Sequence[One]):
    """A sequence that is made when somebody looks at it: mostly nobody does."""

    def __init__(self, size: int, make: Callable[[], Sequence[One]]) -> None:
        self._size = size
        self._make = make
        self._made: Sequence[One] | None = None

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, place: Any) -> Any:
        if self._made is None:
            self._made = self._make()
            assert len(self._made) == self._size
        return self._made[place]


# --- to fold ---------------------------------------------------------------------------------------


class Fetched(NamedTuple):
    """Consecutive events as the server put them together; the charges are not decoded."""

    first: int
    last: int
    recorded_at: int
    """Of the last."""
    is_whole: bool
    """Whether every event is there, and every charge has its key."""
    charged: int
    states: bytes
    keys: bytes
    """Of the charges, as their states, one after the other."""
    leaves: bytes
    others: list[Recorded]


def fetch(log: PostgresLog, after: int, upto: int, *, leaves: bool) -> Fetched:
    last = min(upto, after + CHUNK_MAX)
    with reachable(), log.isolation.transaction(log.tenant, log.role) as connection:
        statement = _CHUNK_AND_LEAVES if leaves else _CHUNK
        found = connection.execute(
            statement, {"after": after, "last": last}, binary=True, prepare=True
        ).fetchone()
    assert found is not None
    count, recorded_at, charged, keyed, states, keys, hashes, *others = found
    whole = charged == keyed and count == last - after
    return Fetched(
        *(after + 1, last, recorded_at, whole, charged, states or b"", keys or b"", hashes or b""),
        _others(others) if whole else [],
    )


def unfold(log: PostgresLog, fetched: Fetched) -> Chunk | None:
    """With its charges decoded; from the rows, where it cannot be read as it was put together."""
    first, last, recorded_at, whole, charged, states, keys, hashes, others = fetched
    charges = decode_charges(charged, states) if whole else None
    if charges is None:
        return chunk_of(log.read(first - 1, CHUNK_MAX, last))
    return Chunk(first, last, recorded_at, charges, _keys(keys), others, hashes)


def chunk_of(rows: Sequence[Row]) -> Chunk | None:
    """A chunk of rows that were fetched one by one."""
    if not rows:
        return None
    told = [recorded(row) for row in rows]
    mine = [one for one in told if one.topic == CHARGED and one.command_key is not None]
    return Chunk(
        rows[0].seq,
        rows[-1].seq,
        rows[-1].recorded_at,
        [Envelope(SCHEMA, one.actor, one.digest, cast("UsageCharged", one.event)) for one in mine],
        [one.command_key for one in mine if one.command_key is not None],
        [one for one in told if one.topic != CHARGED or one.command_key is None],
        b"".join(row.leaf_hash for row in rows),
    )


# --- to project ------------------------------------------------------------------------------------


def read_stretch(
    db: Connection,
    after: int,
    upto: int,
    limit: int,
    zone: ZoneInfo | None = None,
    ways: Ways | None = None,
    *,
    prepare: bool = False,
) -> Stretch | None:
    """The next events of the tenant that the connection is bound to; None when there are none.

    Where the calendar is known, plain charges are counted as they are read; where the hierarchy is, they
    are held against it. To be prepared only where rows are found by index whatever their number.
    """
    last = min(upto, after + limit)
    found = db.execute(_STRETCH, {"after": after, "last": last}, binary=True, prepare=prepare).fetchone()
    assert found is not None
    count, charged, keyed, states, keys, times, *others = found
    if not count:
        return None
    if charged != keyed:
        return _stretch_of_rows(db, after, last)
    told = _others(others)
    seqs = _seqs(after + 1, after + count, told)
    stored = Stored(states or b"", array("q", seqs).tobytes(), keys or b"", times or b"")
    readable = partial(_readable, states or b"", seqs)
    added_up = counted(stored, zone, readable, ways) if zone is not None and charged else None
    charges = _decoded((stored.states,), charged) if added_up is None else None
    if added_up is None and charges is None:
        return _stretch_of_rows(db, after, last)
    beside = seqs, Later(charged, lambda: _keys(keys)), _times(times)
    if added_up is None:
        assert charges is not None
        return Stretch(after + 1, after + count, Charges(*beside, charges), told)
    all_of_them = Charges(*beside, Later(charged, lambda: readable((stored.states,), charged)))
    return Stretch(after + 1, after + count, all_of_them, told, None, added_up[1], added_up[0])


def _stretch_of_rows(db: Connection, after: int, last: int) -> Stretch:
    found = db.execute(
        f"SELECT {_COLUMNS} FROM events WHERE seq > %s AND seq <= %s ORDER BY seq",
        (after, last),
        binary=True,
        prepare=False,
    )
    told = [recorded(Row._make(row)) for row in found]
    return Stretch(told[0].seq, told[-1].seq, NO_CHARGES, told)


def _seqs(first: int, last: int, others: Sequence[Recorded]) -> list[int]:
    """Of the charges: all that are not another's, for a log has no holes."""
    seqs: list[int] = []
    for other in others:
        seqs += range(first, other.seq)
        first = other.seq + 1
    seqs += range(first, last + 1)
    return seqs


def _times(sent: bytes | None) -> list[int]:
    times = array("q", sent or b"")
    if byteorder == "little":
        times.byteswap()
    return [time + SINCE_2000 for time in times]


# --- both --------------------------------------------------------------------------------------------


def _decoded(states: Sequence[bytes], count: int = 0) -> list[ChargeInBrief] | None:
    envelopes = decode_charges(count or len(states), b"".join(states))
    return None if envelopes is None else [envelope.event for envelope in envelopes]


def _readable(
    stored: bytes, seqs: Sequence[int], states: Sequence[bytes], count: int = 0
) -> Sequence[Charge]:
    """Some of the stored charges of these seqs, which were counted without looking at all that they hold."""
    charges = _decoded(states, count)
    if charges is None:
        _check_readable(stored, seqs)
        raise InvariantBroken("a stored charge can be read", after=seqs[0] - 1, upto=seqs[-1])
    return charges


def _check_readable(stored: bytes, seqs: Sequence[int]) -> None:
    for seq, state in zip(seqs, _apart(len(seqs), stored), strict=True):
        try:
            decode(CHARGED, bytes(state))
        except msgspec.DecodeError as error:
            raise unreadable(seq, CHARGED, error) from error


def _apart(count: int, states: bytes) -> list[msgspec.Raw]:
    return msgspec.msgpack.decode(_array(count, states), type=list[msgspec.Raw])


def _array(count: int, inside: bytes) -> bytes:
    """What stands one after the other, as an array of msgpack."""
    return b"\xdd" + count.to_bytes(4, "big") + inside


def decode_charges(count: int, states: bytes) -> list[Envelope[ChargeInBrief]] | None:
    """So many stored charges, one after the other: as the array that they are the inside of."""
    array = _array(count, states)
    try:
        envelopes = _texts.decode(array)
    except msgspec.DecodeError:
        return _decode_any(array)
    return None if any(envelope.schema != SCHEMA for envelope in envelopes) else envelopes


def _decode_any(array: bytes) -> list[Envelope[ChargeInBrief]] | None:
    """The same where a carrier has defined types of its own."""
    try:
        envelopes = _decode_of_any_type(array)
    except msgspec.DecodeError:
        return None
    return None if any(envelope.schema != SCHEMA for envelope in envelopes) else list(envelopes)


def _keys(keys: bytes | None) -> list[bytes]:
    return [keys[at : at + KEY_BYTES] for at in range(0, len(keys), KEY_BYTES)] if keys else []


def _others(columns: list[Any]) -> list[Recorded]:
    if not columns[0]:
        return []
    return [recorded(Row._make((*row, b""))) for row in zip(*columns, strict=True)]


_texts = LearnedTexts()
_decode_of_any_type: Callable[[bytes], Sequence[Envelope[Any]]] = msgspec.msgpack.Decoder(
    list[Envelope[ChargeOfAnyType]]
).decode

_COLUMNS = f"seq, topic, state, {MICROSECONDS.format('recorded_at')}, command_key, ''::bytea"
_MINE = f"FILTER (WHERE topic = '{CHARGED}')"
_OTHERS = ", ".join(
    f"array_agg({column} ORDER BY seq) FILTER (WHERE topic <> '{CHARGED}')"
    for column in ("seq", "topic", "state", MICROSECONDS.format("recorded_at"), "command_key")
)
_RANGE = "FROM events WHERE seq > %(after)s AND seq <= %(last)s"

_CHUNK_WITH = f"""
SELECT count(*), {MICROSECONDS.format("max(recorded_at)")}, count(*) {_MINE}, count(command_key) {_MINE},
       string_agg(state, '' ORDER BY seq) {_MINE}, string_agg(command_key, '' ORDER BY seq) {_MINE},
       {{leaves}}, {_OTHERS}
{_RANGE}
"""
_CHUNK = _CHUNK_WITH.format(leaves="NULL::bytea")
_CHUNK_AND_LEAVES = _CHUNK_WITH.format(leaves="string_agg(leaf_hash, '' ORDER BY seq)")

_STRETCH = f"""
SELECT count(*), count(*) {_MINE}, count(command_key) {_MINE},
       string_agg(state, '' ORDER BY seq) {_MINE}, string_agg(command_key, '' ORDER BY seq) {_MINE},
       string_agg(timestamptz_send(recorded_at), '' ORDER BY seq) {_MINE}, {_OTHERS}
{_RANGE}
"""
