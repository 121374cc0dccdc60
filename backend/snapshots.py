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
from itertools import chain
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
    Moved,
    copy_counters,
    encode_counters,
    encode_structure,
    restore,
)
from ..domain.tenant import Tenant
from ..tenants.isolation import Connection, Isolation
from .folding import apply_piece, pieces
from .key_table import SHELF_BYTES, capacity
from .leaves import append_peaks
from .log import Head, Log, PostgresLog, reachable
from .seen import Account, Entered, KeptKeys, SeenKeys, count_of, entered_of, together

SNAPSHOT_EVERY = 50_000
"""Events between two snapshots: read and applied in a quarter of a second."""
EVENTS_PER_BYTE = 1 / 100
"""A large snapshot is taken less often: it should not cost more bytes than a quarter of its events."""
CLOSING_MIN = 1_000
"""Events since the last snapshot that make one worth its while at a clean close."""
SEQ_MAX = 2**62
KEPT = 2
"""Snapshots kept: the newest, and one more."""
TABLE_AFTER = 400_000
"""Keys that are told one by one before the last table is stored anew, or ..."""
TABLE_SHARE = 4
"""... a quarter of what the table has, if that is more: else it would be most of a snapshot."""
COPIED_SHELVES = 1 << 12
"""Of the last table at a time: while they are copied nobody enters a key."""
PIECES_MAX = 128
"""Pieces of keys told; then they are put together."""
ROW_BYTES = 4_000_000
"""Of a part that are written at once: a large one must not stand in the way of commits."""
ROW_PAUSE_SECONDS = 0.02
WAITS_MAX = 8
"""Quarters of the usual distance that a snapshot is put off while the structure changes."""
COMMIT_SECONDS_MAX = 10.0
COMMIT_PAUSE_SECONDS = 0.05

log = structlog.get_logger()


def _reducer() -> bytes:
    """What a snapshot depends on: the source of the rules, and of what this folder keeps in it."""
    product = Path(__file__).parents[1]
    sources = sorted((product / "domain").glob("*.py"))
    names = ("deciding", "folding", "key_table", "keys", "plain_run", "seen", "snapshots")
    sources += [product / "backend" / f"{name}.py" for name in names]
    sources += [
        product / "backend/native" / f"{name}.c" for name in ("charging", "key_table", "replaying", "seen")
    ]
    hashed = sha256()
    for source in sources:
        content = source.read_bytes()
        hashed.update(f"{source.name}\x1f{len(content)}\x1f".encode() + content)
    return hashed.digest()[:16]


REDUCER = _reducer()
MAIN = "main"
STRUCTURE = "structure"
COUNTERS = "counters"
HELD = "keys-held"
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
    """What is stored apart: what changes seldom once for many snapshots, and whatever is large."""

    name: str
    seq: int
    digest: bytes
    rows: int = 1

    @property
    def row_names(self) -> list[str]:
        return [self.name, *(f"{self.name}~{number}" for number in range(1, self.rows))]


class Piece(Struct, frozen=True, array_like=True):
    """Keys that came between two snapshots, stored once."""

    part: Part
    newest: int
    """Generation."""
    count: int


class Main(Struct, frozen=True, array_like=True):
    recorded_at: int
    peaks: bytes
    forgotten: bool
    days: list[bytes]
    generation: int
    levels: list[tuple[int, int]]
    """(size_bits, left) of the tables; their shelves are parts, those of the last one compressed."""
    parts: list[Part]
    pieces: list[Piece]
    """Of all keys that are held, and of those that the last table as stored may lack; oldest first."""
    complete: int
    """The seq up to which they lack none."""


class Taken(NamedTuple):
    """A state as it stood at one seq, copied and not encoded yet."""

    of: Standing
    at: Head
    recorded_at: int
    restructured: int
    counters: CountersCopy
    forgotten: bool
    days: list[bytes]
    generation: int
    levels: list[tuple[int, int, bytes | bytearray]]
    came: Account
    """What came since the last snapshot that was stored; and ..."""
    held: KeptKeys | None
    """... all that is held, where it is not known what is stored."""


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
        self._pieces: list[Piece] = []
        self._complete = 0
        self._came: list[Entered] = []
        """Keys that no stored snapshot tells of."""
        self._whole = True
        """Whether all keys that the stored tables lack are among those, or in the pieces."""
        self._lost = False
        """Whether what is stored is not known, for a snapshot has failed."""
        self._writing = threading.Lock()
        self._of: Standing | None = None
        self._next = every
        self._looked_at = self._moved_at = self._waited = 0
        """What `restructured` was last, since when, and how often a snapshot was put off for it."""
        self.last = 0
        """The seq of the newest snapshot stored or loaded."""
        self.bytes_last = 0

    # --- taking -----------------------------------------------------------------------------

    def serve(self, standing: Standing, snapshot: int) -> None:
        """From now on snapshots are taken of this state, which began with that snapshot."""
        self._of, self.last = standing, snapshot
        self._looked_at, self._moved_at = standing.restructured, 0
        token, part = self._parts.pop(STRUCTURE, (None, None))
        if not snapshot:
            self._forget()
        elif token is LOADED and part is not None:
            self._parts[STRUCTURE] = ((standing, standing.restructured), part)
        self._next = max(snapshot + self._every, standing.standing.seq)

    def is_due(self, seq: int) -> bool:
        if self._of is not None and self._of.restructured != self._looked_at:
            self._looked_at, self._moved_at = self._of.restructured, seq
        return seq >= self._next and not self._writing.locked()

    def take(self) -> None:
        """Copy the state, which must stand still meanwhile; the rest goes on beside. Blocks a little."""
        if self._waits_for_structure():
            return
        try:
            self._executor.submit(self._write, self._copy())
        except RuntimeError as error:
            log.warning("no snapshot", tenant=str(self._tenant), error=str(error))

    def _waits_for_structure(self) -> bool:
        """Whether it has just changed: while a fleet is taken on each snapshot of it would be for nothing.

        Only so often, for somebody may change a little all the time.
        """
        of, patience = self._of, self._every // 4
        assert of is not None
        stands = of.standing.seq >= self._moved_at + patience
        if stands or self._waited == WAITS_MAX or self._is_stored(STRUCTURE, (of, of.restructured)):
            self._waited = 0
            return False
        self._waited += 1
        self._next = of.standing.seq + patience
        return True

    def close(self) -> None:
        """A last snapshot, if it is worth it. Blocks; nothing may be decided any more."""
        of, worth = self._of, min(CLOSING_MIN, self._every)
        if of is not None and of.at_rest and of.standing.seq - self.last >= worth:
            self._write(self._copy(), patience_seconds=0)
        # Nothing of the tenant is held any more, and no circle of references keeps it.
        self._of = None
        self._forget()

    def _copy(self) -> Taken:
        of = self._of
        assert of is not None
        at = of.standing
        self._next = at.seq + max(self._every, int(self.bytes_last * EVENTS_PER_BYTE))
        entered, whole = of.seen.account()
        self._came += entered
        self._whole = self._whole and whole
        return Taken(
            of,
            Head(at.seq, at.epoch, list(at.peaks)),
            of.recorded_at,
            of.restructured,
            copy_counters(of.state),
            of.seen.forgotten,
            of.seen.days,
            of.seen.generation,
            of.seen.levels(),
            Account(self._came.copy(), self._whole),
            of.seen.copy() if self._lost else None,
        )

    # --- writing ----------------------------------------------------------------------------

    def _write(self, taken: Taken, patience_seconds: float = COMMIT_SECONDS_MAX) -> None:
        """Encode and store. A snapshot that fails is no loss: it is said, and the next one tried."""
        with self._writing, collector_paused():
            try:
                self._store(taken, patience_seconds)
            except Exception as error:  # noqa: BLE001  (nothing rests on a snapshot)
                self._forget()
                self._lost = True
                log.warning("no snapshot", tenant=str(self._tenant), seq=taken.at.seq, error=str(error))

    def _store(self, taken: Taken, patience_seconds: float) -> None:
        tokens: dict[str, object] = {STRUCTURE: (taken.of, taken.restructured), COUNTERS: object()}
        fresh: dict[str, bytes] = {COUNTERS: encode_counters(taken.counters)}
        if not self._is_stored(STRUCTURE, tokens[STRUCTURE]):
            structure = _structure_of(taken)
            if structure is None:
                # It will stand still another time.
                self._next = taken.at.seq + self._every // 4
                return
            fresh[STRUCTURE] = structure
        came = together(
            taken.came.entered if taken.held is None else entered_of(taken.held, taken.generation)
        )
        complete = self._tables_of(taken, count_of(came), tokens, fresh)
        pieces = self._pieces_of(taken, came, complete, fresh)
        parts = [self._part(name, fresh, taken.at.seq) for name in tokens]
        main = Main(
            taken.recorded_at,
            proof.pack(taken.at.peaks),
            taken.forgotten,
            taken.days,
            taken.generation,
            [(size_bits, left) for size_bits, left, _ in taken.levels],
            parts,
            pieces,
            complete,
        )
        encoded = _encode(main)
        used = [*parts, *(piece.part for piece in pieces)]
        if self._insert(taken.at, encoded, fresh, used, patience_seconds):
            self._parts = {part.name: (tokens[part.name], part) for part in parts}
            self._pieces, self._complete = pieces, complete
            self._whole, self._lost = True, False
            del self._came[: len(taken.came.entered)]
            self.last = taken.at.seq
            self.bytes_last = len(encoded) + sum(map(len, fresh.values()))

    def _tables_of(self, taken: Taken, came: int, tokens: dict[str, object], fresh: dict[str, bytes]) -> int:
        """The tables that are to be stored now; the seq up to which what is stored lacks no key.

        A full one never changes again. The last does with every key, and is stored
        when so many keys have come since that to tell these would be more than all of it.
        """
        *full, (size_bits, left, shelves) = taken.levels
        for number, level in enumerate(full):
            tokens[_level(number)] = level[2]
            if not self._is_stored(_level(number), level[2]):
                fresh[_level(number)] = bytes(level[2])
        name, had = _level(len(full)), capacity(size_bits) - left
        since = came + sum(piece.count for piece in self._pieces if piece.part.seq > self._complete)
        if taken.came.whole and taken.held is None and since <= max(TABLE_AFTER, had // TABLE_SHARE):
            if name in self._parts:
                tokens[name] = self._parts[name][0]
            return self._complete
        tokens[name] = object()
        fresh[name] = _compressed(shelves)
        return taken.at.seq

    def _pieces_of(
        self, taken: Taken, came: list[Entered], complete: int, fresh: dict[str, bytes]
    ) -> list[Piece]:
        """Of which pieces this snapshot is; what came is a new one."""
        needed = [
            piece
            for piece in self._pieces
            if piece.newest >= taken.generation - 1 or piece.part.seq > complete
        ]
        if len(needed) >= PIECES_MAX:
            read = self._read_parts([piece.part for piece in needed])
            came = together([*chain.from_iterable(map(_decode_entered, read)), *came])
            needed = []
        if came:
            fresh[HELD] = _encode(came)
            newest = max(one.generation for one in came)
            needed.append(Piece(self._part(HELD, fresh, taken.at.seq), newest, count_of(came)))
        return needed

    def _forget(self) -> None:
        """Nothing is known to be stored."""
        self._parts, self._pieces, self._came = {}, [], []
        self._complete, self._whole, self._lost = 0, True, False

    def _is_stored(self, name: str, token: object) -> bool:
        """Of the same object, or of the same state of the structure."""
        stored, _ = self._parts.get(name, (None, None))
        return stored is token or (isinstance(token, tuple) and stored == token)

    def _part(self, name: str, fresh: dict[str, bytes], seq: int) -> Part:
        if name in fresh:
            rows = max(1, -(-len(fresh[name]) // ROW_BYTES))
            return Part(name, seq, sha256(fresh[name]).digest(), rows)
        return self._parts[name][1]

    def _insert(
        self, at: Head, main: bytes, fresh: dict[str, bytes], used: Sequence[Part], patience_seconds: float
    ) -> bool:
        """Store it once its last event is committed; not at all if that never will be.

        The parts come first, row by row: until the last row tells of them nobody looks for them.
        """
        if not self._is_committed(at, patience_seconds):
            return False
        for part in used:
            if part.seq == at.seq and part.name in fresh:
                self._insert_part(part, fresh[part.name])
        with self._isolation.transaction(self._tenant) as db:
            if _reached(db, at) is not True:
                return False
            _add(db, at.seq, MAIN, main, [place for part in used for place in _places(part)])
            _drop_old(db)
        return True

    def _is_committed(self, at: Head, patience_seconds: float) -> bool:
        deadline = time.monotonic() + patience_seconds
        while True:
            with self._isolation.transaction(self._tenant) as db:
                reached = _reached(db, at)
            if reached is not None:
                return reached
            if time.monotonic() >= deadline:
                return False
            time.sleep(COMMIT_PAUSE_SECONDS)

    def _insert_part(self, part: Part, state: bytes) -> None:
        for number, name in enumerate(part.row_names):
            if number:
                time.sleep(ROW_PAUSE_SECONDS)
            with self._isolation.transaction(self._tenant) as db:
                _add(db, part.seq, name, state[number * ROW_BYTES : (number + 1) * ROW_BYTES], [])

    # --- loading ----------------------------------------------------------------------------

    def load(self, store: Log, head: Head, keys: Callable[[], SeenKeys]) -> Folded | None:
        """The log up to its head from the newest snapshot that belongs to it, if one does."""
        for seq, encoded in self._newest(head.seq):
            try:
                main = _decode_main(encoded)
                parts = self._read_named(main)
                state = restore(parts[COUNTERS], parts[STRUCTURE])
                seen = self._restore_keys(keys(), main, parts)
                peaks = proof.unpack(main.peaks)
                folded = fold(store, head, Folded(state, seen, main.recorded_at, seq), peaks)
            except UNFIT as error:
                log.warning("snapshot passed over", tenant=str(self._tenant), seq=seq, error=str(error))
                continue
            self._remember(main, folded)
            self.bytes_last = len(encoded)
            return folded
        return None

    def _restore_keys(self, seen: SeenKeys, main: Main, parts: dict[str, bytes]) -> SeenKeys:
        last = len(main.levels) - 1
        levels: list[tuple[int, int, bytes | bytearray]] = [
            (size_bits, left, zlib.decompress(shelves) if shelves and number == last else shelves)
            for number, (size_bits, left) in enumerate(main.levels)
            for shelves in (parts.get(_level(number), b""),)
        ]
        told = chain.from_iterable(map(_decode_entered, self._read_parts([one.part for one in main.pieces])))
        seen.restore_account(KeptKeys(main.forgotten, main.days, {}, {}, levels), main.generation, told)
        return seen

    def structure(self) -> tuple[int, Tenant] | None:
        """The newest snapshot by itself, for whoever only reads: its seq, and the state as of then."""
        for seq, encoded in self._newest(SEQ_MAX):
            try:
                main = _decode_main(encoded)
                named = {part.name: part for part in main.parts}
                counters, structure = self._read_parts([named[COUNTERS], named[STRUCTURE]])
                return seq, restore(counters, structure)
            except UNFIT as error:
                log.warning("snapshot passed over", tenant=str(self._tenant), seq=seq, error=str(error))
        return None

    def _remember(self, main: Main, folded: Folded) -> None:
        """What this snapshot used is stored, and can be used by the next."""
        tokens: dict[str, object] = {STRUCTURE: None if folded.restructured else LOADED, COUNTERS: object()}
        full = len(main.levels) - 1
        for number, (_, _, shelves) in enumerate(folded.seen.levels()[: full + 1]):
            # The last of then is stored as of then, also where it is full by now.
            tokens[_level(number)] = shelves if number < full else object()
        self._forget()
        self._parts = {part.name: (tokens[part.name], part) for part in main.parts}
        self._pieces, self._complete = main.pieces, main.complete
        folded.seen.newest  # noqa: B018  (put in order here, and not when the first is charged)

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

    def _read_named(self, main: Main) -> dict[str, bytes]:
        read = self._read_parts(main.parts)
        return {part.name: state for part, state in zip(main.parts, read, strict=True)}

    def _read_parts(self, parts: Sequence[Part]) -> list[bytes]:
        read: list[bytes] = []
        with reachable(), self._isolation.transaction(self._tenant) as db:
            for part in parts:
                state = b"".join(_read_row(db, part.seq, name) for name in part.row_names)
                if sha256(state).digest() != part.digest:
                    raise Unusable(f"its part {part.seq}/{part.name} is not there, or another")
                read.append(state)
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


def _reached(db: Connection, at: Head) -> bool | None:
    """Whether the log has come to there, by the writer of then; None: not yet."""
    found = db.execute("SELECT seq, epoch FROM log_heads").fetchone()
    if found is None or found[1] != at.epoch:
        return False
    return True if found[0] >= at.seq else None


def _read_row(db: Connection, seq: int, name: str) -> bytes:
    found = db.execute(
        "SELECT state FROM snapshots WHERE seq = %s AND part = %s", (seq, name), binary=True
    ).fetchone()
    return found[0] if found is not None else b""


def _add(db: Connection, seq: int, part: str, state: bytes, uses: list[str]) -> None:
    """In place of what another version stored at this very seq, which is of no use to us."""
    db.execute("DELETE FROM snapshots WHERE seq = %s AND part = %s", (seq, part))
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


def _places(part: Part) -> list[str]:
    return [f"{part.seq}/{name}" for name in part.row_names]


def _structure_of(taken: Taken) -> bytes | None:
    """None where the structure moved while it was read."""

    def moved() -> bool:
        return taken.of.restructured != taken.restructured

    try:
        encoded = encode_structure(taken.of.state, moved)
    except (RuntimeError, Moved):
        # A dictionary that grows under our hands says so; what moved is known all the same.
        if not moved():
            raise
        return None
    return None if moved() else encoded


def _compressed(shelves: bytes | bytearray) -> bytes:
    """Piece by piece, no shelf half: more are entered meanwhile.

    What was entered before is found in it, for the shelves before it were taken then; what is
    entered meanwhile may be found in it or not.
    """
    # What there is to save are places where nothing stands: marks and moments repeat nothing.
    packer, size = zlib.compressobj(1, strategy=zlib.Z_RLE), COPIED_SHELVES * SHELF_BYTES
    packed = [packer.compress(bytes(shelves[at : at + size])) for at in range(0, len(shelves), size)]
    return b"".join([*packed, packer.flush()])


def _level(number: int) -> str:
    return f"keys-{number}"


_encode = msgspec.msgpack.Encoder().encode
_decode_main = msgspec.msgpack.Decoder(Main).decode
_decode_entered = msgspec.msgpack.Decoder(list[Entered]).decode
