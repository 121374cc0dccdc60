"""Snapshots: where a tenant's writer begins, instead of at event 1. Disposable, every one of them.

A snapshot is written beside the load, never in a commit, and only of what is committed. It is used
only by the very code that wrote it (its `reducer`), and only if its Merkle peaks and the leaves of
the events after it lead to the root in the log's head: another log, or a truncated one, never
matches. Whatever is wrong with it, the log is folded from event 1, and comes to the same.
"""

import gc
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct

from ..domain import proof
from ..domain.refusals import InvariantBroken
from ..domain.snapshot import (
    COUNTED,
    CountersCopy,
    copy_counters,
    encode_counters,
    encode_structure,
    restore,
)
from ..domain.tenant import Tenant
from ..tenants.isolation import Connection, Isolation
from .folding import apply_piece, pieces
from .leaves import append_peaks
from .log import Head, Log, PostgresLog, reachable
from .seen import KeptKeys, SeenKeys

SNAPSHOT_EVERY = 50_000
"""Events between two snapshots: read and applied in a quarter of a second."""
EVENTS_PER_BYTE = 1 / 100
"""A large snapshot is taken less often: it should not cost more bytes than a quarter of its events."""
CLOSING_MIN = 1_000
"""Events since the last snapshot that make one worth its while at a clean close."""
SEQ_MAX = 2**62
KEPT = 2
"""Snapshots kept: the newest, and one more."""
COMMIT_SECONDS_MAX = 10.0
COMMIT_PAUSE_SECONDS = 0.05

log = structlog.get_logger()


def _reducer() -> bytes:
    """What a snapshot depends on: the source of the rules, and of what this folder keeps in it."""
    product = Path(__file__).parents[1]
    sources = sorted((product / "domain").glob("*.py"))
    names = ("deciding", "folding", "plain_run", "seen", "snapshots")
    sources += [product / "backend" / f"{name}.py" for name in names]
    sources += [product / "backend/native" / f"{name}.c" for name in ("charging", "replaying", "seen")]
    hashed = sha256()
    for source in sources:
        content = source.read_bytes()
        hashed.update(f"{source.name}\x1f{len(content)}\x1f".encode() + content)
    return hashed.digest()[:16]


REDUCER = _reducer()
MAIN = "main"
STRUCTURE = "structure"
OLD_KEYS = "old-keys"
LOADED = object()
"""Stands for the structure as it was loaded, until somebody goes on from there."""


class Folded(NamedTuple):
    """The log up to its head, in memory."""

    state: Tenant
    seen: SeenKeys
    recorded_at: int
    snapshot: int
    """The seq of the snapshot it began with; 0 for none."""
    restructured: bool = False
    """Whether what `encode_structure` tells of has changed since."""


class Standing(Protocol):
    """Whoever stands at the end of a log, with its state: the decider."""

    state: Tenant
    seen: SeenKeys
    recorded_at: int
    restructured: int
    """Grows before anything changes that `encode_structure` tells of."""

    at_rest: bool

    @property
    def standing(self) -> Head: ...


class Part(Struct, frozen=True, array_like=True):
    """What changes seldom, stored once for many snapshots."""

    name: str
    seq: int
    digest: bytes


class Main(Struct, frozen=True, array_like=True):
    recorded_at: int
    peaks: bytes
    counters: bytes
    forgotten: bool
    days: list[bytes]
    young: dict[bytes, bytes]
    levels: list[tuple[int, int]]
    """(size_bits, left) of the filters; their bits are parts, compressed while there is room left."""
    parts: list[Part]


class Taken(NamedTuple):
    """A state as it stood at one seq, copied and not encoded yet."""

    of: Standing
    at: Head
    recorded_at: int
    restructured: int
    counters: CountersCopy
    keys: KeptKeys


class Snapshots:
    """The snapshots of one tenant, for its one writer."""

    def __init__(
        self, isolation: Isolation, tenant: UUID, executor: Executor, *, every: int = SNAPSHOT_EVERY
    ) -> None:
        self._isolation = isolation
        self._tenant = tenant
        self._executor = executor
        self._every = every
        self._parts: dict[str, tuple[object, Part]] = {}
        """What is stored already, and of what: while that is the same, it is not stored again."""
        self._writing = threading.Lock()
        self._of: Standing | None = None
        self._next = every
        self.last = 0
        """The seq of the newest snapshot stored or loaded."""
        self.bytes_last = 0

    # --- taking -----------------------------------------------------------------------------

    def serve(self, standing: Standing, snapshot: int) -> None:
        """From now on snapshots are taken of this state, which began with that snapshot."""
        self._of, self.last = standing, snapshot
        token, part = self._parts.pop(STRUCTURE, (None, None))
        if not snapshot:
            self._parts = {}
        elif token is LOADED and part is not None:
            self._parts[STRUCTURE] = ((standing, standing.restructured), part)
        self._next = max(snapshot + self._every, standing.standing.seq)

    def is_due(self, seq: int) -> bool:
        return seq >= self._next and not self._writing.locked()

    def take(self) -> None:
        """Copy the state, which must stand still meanwhile; the rest goes on beside. Blocks a little."""
        try:
            self._executor.submit(self._write, self._copy())
        except RuntimeError as error:
            log.warning("no snapshot", tenant=str(self._tenant), error=str(error))

    def close(self) -> None:
        """A last snapshot, if it is worth it. Blocks; nothing may be decided any more."""
        of, worth = self._of, min(CLOSING_MIN, self._every)
        if of is not None and of.at_rest and of.standing.seq - self.last >= worth:
            self._write(self._copy(), patience_seconds=0)
        # Nothing of the tenant is held any more, and no circle of references keeps it.
        self._of, self._parts = None, {}

    def _copy(self) -> Taken:
        of = self._of
        assert of is not None
        at = of.standing
        self._next = at.seq + max(self._every, int(self.bytes_last * EVENTS_PER_BYTE))
        return Taken(
            of,
            Head(at.seq, at.epoch, list(at.peaks)),
            of.recorded_at,
            of.restructured,
            copy_counters(of.state),
            of.seen.copy(),
        )

    # --- writing ----------------------------------------------------------------------------

    def _write(self, taken: Taken, patience_seconds: float = COMMIT_SECONDS_MAX) -> None:
        """Encode and store. A snapshot that fails is no loss: it is said, and the next one tried."""
        with self._writing, collector_paused():
            try:
                self._store(taken, patience_seconds)
            except Exception as error:  # noqa: BLE001  (nothing rests on a snapshot)
                self._parts.clear()
                log.warning("no snapshot", tenant=str(self._tenant), seq=taken.at.seq, error=str(error))

    def _store(self, taken: Taken, patience_seconds: float) -> None:
        tokens: dict[str, object] = {STRUCTURE: (taken.of, taken.restructured), OLD_KEYS: taken.keys.old}
        fresh: dict[str, bytes] = {}
        if not self._is_stored(STRUCTURE, tokens[STRUCTURE]):
            structure = _structure_of(taken)
            if structure is None:
                # It will stand still another time.
                self._next = taken.at.seq + self._every // 4
                return
            fresh[STRUCTURE] = structure
        if not self._is_stored(OLD_KEYS, taken.keys.old):
            fresh[OLD_KEYS] = _encode(taken.keys.old)
        levels: list[tuple[int, int]] = []
        for number, (size_bits, left, bits) in enumerate(taken.keys.levels):
            levels.append((size_bits, left))
            name = _level(number)
            # The one that still fills is stored once for each generation of keys: those since are held.
            tokens[name] = bits if left <= 0 else taken.keys.old
            if not self._is_stored(name, tokens[name]):
                fresh[name] = bytes(bits) if left <= 0 else zlib.compress(bits, 1)
        parts = [self._part(name, fresh, taken.at.seq) for name in tokens]
        main = Main(
            taken.recorded_at,
            proof.pack(taken.at.peaks),
            encode_counters(taken.counters),
            taken.keys.forgotten,
            taken.keys.days,
            taken.keys.young,
            levels,
            parts,
        )
        encoded = _encode(main)
        if self._insert(taken.at, encoded, fresh, parts, patience_seconds):
            self._parts = {part.name: (tokens[part.name], part) for part in parts}
            self.last = taken.at.seq
            self.bytes_last = len(encoded) + sum(map(len, fresh.values()))

    def _is_stored(self, name: str, token: object) -> bool:
        """Of the same object, or of the same state of the structure."""
        stored, _ = self._parts.get(name, (None, None))
        return stored is token or (isinstance(token, tuple) and stored == token)

    def _part(self, name: str, fresh: dict[str, bytes], seq: int) -> Part:
        if name in fresh:
            return Part(name, seq, sha256(fresh[name]).digest())
        return self._parts[name][1]

    def _insert(
        self, at: Head, main: bytes, fresh: dict[str, bytes], parts: Sequence[Part], patience_seconds: float
    ) -> bool:
        """Store it once its last event is committed; not at all if that never will be."""
        deadline = time.monotonic() + patience_seconds
        while True:
            with self._isolation.transaction(self._tenant) as db:
                found = db.execute("SELECT seq, epoch FROM log_heads").fetchone()
                if found is None or found[1] != at.epoch:
                    return False
                if found[0] >= at.seq:
                    # What another version stored at this very seq is of no use to us.
                    names = [MAIN, *fresh]
                    db.execute("DELETE FROM snapshots WHERE seq = %s AND part = ANY(%s)", (at.seq, names))
                    for name, state in fresh.items():
                        _add(db, at.seq, name, state, [])
                    _add(db, at.seq, MAIN, main, [_place(part) for part in parts])
                    _drop_old(db)
                    return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(COMMIT_PAUSE_SECONDS)

    # --- loading ----------------------------------------------------------------------------

    def load(self, store: Log, head: Head, keys: Callable[[], SeenKeys]) -> Folded | None:
        """The log up to its head from the newest snapshot that belongs to it, if one does."""
        for seq, encoded in self._newest(head.seq):
            try:
                main = _decode_main(encoded)
                parts = self._read_parts(main.parts)
                state = restore(main.counters, parts[STRUCTURE])
                seen = keys()
                old = _decode_keys(parts[OLD_KEYS])
                seen.restore(KeptKeys(main.forgotten, main.days, main.young, old, _levels(main, parts)))
                peaks = proof.unpack(main.peaks)
                folded = fold(store, head, Folded(state, seen, main.recorded_at, seq), peaks)
            except UNFIT as error:
                log.warning("snapshot passed over", tenant=str(self._tenant), seq=seq, error=str(error))
                continue
            self._remember(main, old, folded)
            self.bytes_last = len(encoded)
            return folded
        return None

    def structure(self) -> tuple[int, Tenant] | None:
        """The newest snapshot by itself, for whoever only reads: its seq, and the state as of then."""
        for seq, encoded in self._newest(SEQ_MAX):
            try:
                main = _decode_main(encoded)
                return seq, restore(main.counters, self._read_parts(main.parts)[STRUCTURE])
            except UNFIT as error:
                log.warning("snapshot passed over", tenant=str(self._tenant), seq=seq, error=str(error))
        return None

    def _remember(self, main: Main, old: dict[bytes, bytes], folded: Folded) -> None:
        """What this snapshot used is stored, and can be used by the next."""
        tokens: dict[str, object] = {STRUCTURE: None if folded.restructured else LOADED, OLD_KEYS: old}
        levels = zip(main.levels, folded.seen.levels(), strict=False)
        for number, ((_, left), (_, _, bits)) in enumerate(levels):
            # One that had room then has its bits stored as of then, also where it is full by now.
            tokens[_level(number)] = bits if left <= 0 else old
        self._parts = {part.name: (tokens[part.name], part) for part in main.parts}

    def _newest(self, upto: int) -> list[tuple[int, bytes]]:
        with reachable(), self._isolation.transaction(self._tenant) as db:
            return [
                (seq, state)
                for seq, state in db.execute(
                    "SELECT seq, state FROM snapshots WHERE part = %s AND reducer = %s AND seq <= %s "
                    "ORDER BY seq DESC",
                    (MAIN, REDUCER, upto),
                    binary=True,
                )
            ]

    def _read_parts(self, parts: Sequence[Part]) -> dict[str, bytes]:
        read: dict[str, bytes] = {}
        with reachable(), self._isolation.transaction(self._tenant) as db:
            for part in parts:
                found = db.execute(
                    "SELECT state FROM snapshots WHERE seq = %s AND part = %s",
                    (part.seq, part.name),
                    binary=True,
                ).fetchone()
                if found is None or sha256(found[0]).digest() != part.digest:
                    raise Unusable(f"its part {_place(part)} is not there, or another")
                read[part.name] = found[0]
        return read


class Unusable(Exception):
    """A snapshot that does not belong to this log, or is not whole."""


UNFIT = (Unusable, InvariantBroken, msgspec.MsgspecError, zlib.error, LookupError, ValueError)
"""What a snapshot may fail with. A log that cannot be reached is not among it."""


class SnapshottedLog(PostgresLog):
    """A tenant's log with its snapshots beside it."""

    def __init__(
        self, isolation: Isolation, tenant: UUID, executor: Executor, *, every: int = SNAPSHOT_EVERY
    ) -> None:
        super().__init__(isolation, tenant)
        self.snapshots = Snapshots(isolation, tenant, executor, every=every)


def snapshots_of(store: Log) -> Snapshots | None:
    return store.snapshots if isinstance(store, SnapshottedLog) else None


def load(store: Log, head: Head, keys: Callable[[], SeenKeys]) -> Folded:
    """The log up to its head: from a snapshot where one belongs to it, else from event 1. Blocks."""
    snapshots = snapshots_of(store)
    with collector_paused():
        folded = snapshots.load(store, head, keys) if snapshots is not None and head.seq else None
        return folded or fold(store, head, Folded(Tenant(), keys(), 0, 0))


def fold(store: Log, head: Head, begun: Folded, peaks: list[bytes] | None = None) -> Folded:
    """Apply the events from where it begins up to the head.

    With the peaks of there: they and the leaves that follow must lead to those of the head.
    """
    state, seen, recorded_at, after, restructured = begun
    proving = peaks is not None
    for piece in pieces(store, after, head.seq, leaves=proving):
        whole = not proving or len(piece.leaves) == proof.HASH_BYTES * (piece.last - after)
        if piece.first != after + 1 or not whole:
            raise InvariantBroken("the log has no holes", read=after, next=piece.first)
        apply_piece(state, seen, piece)
        restructured = restructured or any(other.topic not in COUNTED for other in piece.others)
        if peaks is not None:
            append_peaks(peaks, after, proof.unpack(piece.leaves))
        after, recorded_at = piece.last, piece.recorded_at
    if after != head.seq:
        raise InvariantBroken("the log has no holes", read=after, head=head.seq)
    if peaks is not None and peaks != head.peaks:
        raise Unusable("it and the events after it do not lead to the log's root: it is of another log")
    return Folded(state, seen, recorded_at, begun.snapshot, restructured)


_pausing = threading.Lock()
_paused: list[bool] = []
"""For each that has the collector paused now: whether it was on when the first of them began."""


@contextmanager
def collector_paused() -> Iterator[None]:
    """Without garbage collection: it would look at a million members again and again.

    What is made here is kept, or freed by its references alone.
    """
    with _pausing:
        _paused.append(_paused[0] if _paused else gc.isenabled())
        gc.disable()
    try:
        yield
    finally:
        with _pausing:
            if _paused.pop() and not _paused:
                gc.enable()


def _add(db: Connection, seq: int, part: str, state: bytes, uses: list[str]) -> None:
    db.execute(
        "INSERT INTO snapshots (seq, part, reducer, state, uses) VALUES (%s, %s, %b, %b, %s)",
        (seq, part, REDUCER, state, uses),
    )


def _drop_old(db: Connection) -> None:
    db.execute(
        "DELETE FROM snapshots WHERE part = %s AND seq NOT IN "
        "(SELECT seq FROM snapshots WHERE part = %s ORDER BY seq DESC LIMIT %s)",
        (MAIN, MAIN, KEPT),
    )
    db.execute(
        "DELETE FROM snapshots AS old WHERE part <> %s AND NOT EXISTS "
        "(SELECT FROM snapshots AS kept WHERE kept.part = %s "
        "AND old.seq || '/' || old.part = ANY(kept.uses))",
        (MAIN, MAIN),
    )


def _place(part: Part) -> str:
    return f"{part.seq}/{part.name}"


def _structure_of(taken: Taken) -> bytes | None:
    """None where the structure moved while it was read."""
    try:
        encoded = encode_structure(taken.of.state)
    except RuntimeError:
        # A dictionary that grows under our hands says so; what moved is known all the same.
        if taken.of.restructured == taken.restructured:
            raise
        return None
    return encoded if taken.of.restructured == taken.restructured else None


def _level(number: int) -> str:
    return f"keys-{number}"


def _levels(main: Main, parts: dict[str, bytes]) -> list[tuple[int, int, bytes | bytearray]]:
    return [
        (size_bits, left, zlib.decompress(parts[_level(number)]) if left > 0 else parts[_level(number)])
        for number, (size_bits, left) in enumerate(main.levels)
    ]


_encode = msgspec.msgpack.Encoder().encode
_decode_main = msgspec.msgpack.Decoder(Main).decode
_decode_keys = msgspec.msgpack.Decoder(dict[bytes, bytes]).decode
