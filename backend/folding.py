"""Folding a log into a state: plain charges without an object for each, every other event by its rule.

What a run of charges adds to whose counters is summed up in native code, from the bytes as they are
stored and beside whatever else runs, while the piece before is applied; who cannot be counted by a
sum alone, and every charge where there is no native code, is decoded and counted by the rule
(`count_all`). Both ways come to the same state, to the byte, and to the same keys.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from struct import Struct
from typing import NamedTuple, Protocol

from ..domain.bucket import Family
from ..domain.charging import CORPORATE, UsageCharged
from ..domain.events import SCHEMA, Recorded
from ..domain.refusals import InvariantBroken
from ..domain.snapshot import add_up, count_all, counts_by_sums
from ..domain.tenant import Tenant
from ..domain.usage import MONEY
from ..tenants.sealing import DIGEST_BYTES
from .keys import KEY_BYTES
from .log import Log, PostgresLog, ahead
from .native import using
from .reading_log import CHUNK_MAX, Chunk, Fetched, chunk_of, decode_charges, fetch, unfold
from .seen import status_of

CHARGED = status_of(UsageCharged.topic)
AHEAD = 2
"""Pieces that are fetched at a time: PostgreSQL takes longer to put one together than we to apply it."""


class Keys(Protocol):
    """Whoever holds the keys of what is folded, or has no use for them."""

    def add(self, key: bytes, digest: bytes, status: bytes) -> None: ...
    def add_all(self, keys: list[bytes], digests: list[bytes], status: bytes) -> None: ...
    def gather(self, keys: bytes, digests: bytes, status: bytes) -> None: ...


class Run(NamedTuple):
    """Consecutive charges, added up."""

    end: int
    """Where they end among the states."""
    charged: int
    amount: int
    families: list[tuple[str, str, bytes, bytes]]
    """Usage type, period; whose usage grows and whose bucket pays, as pairs (see `_pairs`)."""
    left_count: int
    left: bytes
    """Charges that are counted by the rule, one after the other."""


class Piece(NamedTuple):
    """Consecutive events, as they are folded: runs of charges, and between two of them another event."""

    first: int
    last: int
    recorded_at: int
    """Of the last."""
    states: bytes
    """Of the charges, one after the other, as are ..."""
    keys: bytes
    digests: bytes
    counts: tuple[int, ...]
    """Of charges in each run; one run more than there are other events, and each may be of none."""
    runs: list[Run]
    others: list[Recorded]
    leaves: bytes
    """Of all, in order; empty where they were not asked for."""


def pieces(log: Log, after: int, upto: int, *, leaves: bool = True) -> Iterator[Piece | Chunk]:
    """The events after a seq up to another; the next are fetched, and summed up, while a piece is folded."""
    if isinstance(log, PostgresLog):
        yield from _read_ahead(log, after, upto, leaves)
    else:
        coming: Iterator[Chunk] = ahead(
            lambda seen: chunk_of(log.read(seen, CHUNK_MAX, upto)), lambda chunk: chunk.last, after, upto
        )
        yield from coming


def _read_ahead(log: PostgresLog, after: int, upto: int, leaves: bool) -> Iterator[Piece | Chunk]:
    """Where pieces begin is known beforehand; one that is shorter shows a hole, and whoever folds sees it."""
    starts = iter(range(after, upto, CHUNK_MAX))
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="read-ahead") as threads:

        def fetched(start: int) -> "Future[Piece | Chunk | None]":
            return threads.submit(read_piece, log, start, upto, leaves=leaves)

        coming = deque(fetched(start) for start in islice(starts, AHEAD))
        while coming and (piece := coming.popleft().result()) is not None:
            coming.extend(fetched(start) for start in islice(starts, 1))
            yield piece


def read_piece(log: PostgresLog, after: int, upto: int, *, leaves: bool = True) -> Piece | Chunk | None:
    fetched = fetch(log, after, upto, leaves=leaves)
    return _piece_of(fetched) or unfold(log, fetched)


def _piece_of(fetched: Fetched) -> Piece | None:
    """None where Python alone can tell what it holds."""
    native = using.native()
    if native is None or not fetched.is_whole:
        return None
    counts = _runs_between(fetched)
    summed = native.add_up(fetched.states, counts, SCHEMA, DIGEST_BYTES, CORPORATE, MONEY)
    if summed is None or sum(counts) * KEY_BYTES != len(fetched.keys):
        return None
    runs, digests = summed
    return Piece(
        fetched.first,
        fetched.last,
        fetched.recorded_at,
        fetched.states,
        fetched.keys,
        digests,
        counts,
        [Run._make(run) for run in runs],
        fetched.others,
        fetched.leaves,
    )


def _runs_between(fetched: Fetched) -> tuple[int, ...]:
    after = [fetched.first - 1, *(other.seq for other in fetched.others)]
    before = [*(other.seq for other in fetched.others), fetched.last + 1]
    return tuple(end - begin - 1 for begin, end in zip(after, before, strict=True))


# --- applied -----------------------------------------------------------------------------------------


def apply_piece(state: Tenant, seen: Keys, piece: Piece | Chunk) -> None:
    """Fold a piece: its runs of charges, and the other events each in its place between them."""
    if isinstance(piece, Chunk):
        apply_chunk(state, seen, piece)
        return
    begin = done = 0
    others = iter(piece.others)
    for count, run in zip(piece.counts, piece.runs, strict=True):
        if count:
            _apply_run(state, piece, begin, count, run)
            last = done + count
            seen.gather(
                piece.keys[done * KEY_BYTES : last * KEY_BYTES],
                piece.digests[done * DIGEST_BYTES : last * DIGEST_BYTES],
                CHARGED,
            )
            begin, done = run.end, last
        other = next(others, None)
        if other is not None:
            _apply_other(state, seen, other)


def _apply_run(state: Tenant, piece: Piece, begin: int, count: int, run: Run) -> None:
    if not counts_by_sums(state):
        _count_decoded(state, count, piece.states[begin : run.end])
        return
    for usage_type, period, used, drawn in run.families:
        _count_up(state.families[usage_type, period], used, drawn)
    state.charging.counts["charged"] += run.charged
    state.charging.amount_total += run.amount
    if run.left_count:
        _count_decoded(state, run.left_count, run.left)


def _count_up(family: Family, used: bytes, drawn: bytes) -> None:
    native = using.native()
    added = native is not None and native.count_up(family.used, family.ceiling, used)
    add_up(family, {} if added else dict(_pairs(used)), dict(_pairs(drawn)))


def _count_decoded(state: Tenant, count: int, states: bytes) -> None:
    charges = decode_charges(count, states)
    if charges is None:
        raise InvariantBroken("a charge that can be added up can be read", charges=count)
    count_all(state, charges)


def apply_chunk(state: Tenant, seen: Keys, chunk: Chunk) -> None:
    """The same of charges that are decoded."""
    done = 0
    for number, other in enumerate(chunk.others):
        before = other.seq - chunk.first - number
        if before > done:
            _apply_charges(state, seen, chunk, done, before)
            done = before
        _apply_other(state, seen, other)
    _apply_charges(state, seen, chunk, done, len(chunk.charges))


def _apply_charges(state: Tenant, seen: Keys, chunk: Chunk, first: int, last: int) -> None:
    charges = chunk.charges[first:last]
    count_all(state, charges)
    seen.add_all(chunk.keys[first:last], [envelope.digest for envelope in charges], CHARGED)


def _apply_other(state: Tenant, seen: Keys, other: Recorded) -> None:
    state.apply(other.event)
    if other.command_key is not None:
        seen.add(other.command_key, other.digest, status_of(other.topic))


_pairs = Struct("=qq").iter_unpack
"""Ordinals, each with a quantity."""
