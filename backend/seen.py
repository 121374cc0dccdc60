"""Which records were seen: duplicates are known in memory, without a query per record.

A command key is the day it speaks of, then a hash: the day keeps neighbours together in the
unique index, the hash alone is the identity. So the same record under another day is found too.
The newest keys are held with digest and status. Of all others a Bloom filter knows that they
cannot have been seen, or that the log must be asked.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from struct import Struct
from typing import NamedTuple

from .native import using

KEY_BYTES = 16
DAY_BYTES = 2
HASH_BYTES = KEY_BYTES - DAY_BYTES

RECENT_MAX = 200_000
"""Keys held per generation, of which there are two."""
BITS_PER_KEY = 40
SIZE_BITS_MAX = 30
PROBES = 4
"""At most one in 12,000 keys that were never seen is asked for, when a level is full: with two it was one in
400, and each slice of a long log had to wait for an answer."""
FIRST_LEVEL_BITS = 23

_DAY_MICROSECONDS = 86_400_000_000
_LAST_DAY = (1 << 8 * DAY_BYTES) - 1
NO_DAY = bytes(DAY_BYTES)
"""The day of what has no date."""
COMMANDS = b"\xff\xff"
"""The day of commands: their keys stand together."""


_STATUS = {"usage.charged": b"\x01", "usage.rejected": b"\x02", "usage.suspended": b"\x03"}


def status_of(topic: str) -> bytes:
    """What became of a key's command, by the first event it led to: one byte."""
    return _STATUS.get(topic, b"\x00")


def day_of(started_at: int) -> bytes:
    day = started_at // _DAY_MICROSECONDS
    return day.to_bytes(DAY_BYTES, "big") if 0 < day < _LAST_DAY else NO_DAY


def identity(what: str) -> bytes:
    """The hash of what a command is, whatever day it speaks of."""
    return sha256(what.encode()).digest()[:HASH_BYTES]


class KeptKeys(NamedTuple):
    """What is known of the keys at one moment. Only `young` and the last level still change."""

    forgotten: bool
    days: list[bytes]
    young: dict[bytes, bytes]
    old: dict[bytes, bytes]
    levels: list[tuple[int, int, bytes | bytearray]]
    """(size_bits, left, bits) of each filter; one that has nothing left never changes again.

    Of the last one bits of older standing do, as long as all keys since then are held.
    """


class Gathered(NamedTuple):
    """Keys that stand one after the other, as do their digests; and what became of all of them."""

    keys: bytes
    digests: bytes
    status: bytes


class Entered(NamedTuple):
    """Keys that came to be held at once, of one status."""

    generation: int
    keys: Sequence[bytes] | bytes
    """One after the other, or each for itself, as their digests."""
    digests: Sequence[bytes] | bytes
    status: bytes

    def gathered(self) -> Gathered:
        return Gathered(_together(self.keys), _together(self.digests), self.status)


class Account(NamedTuple):
    """What came since the last account, for whoever keeps what is held."""

    entered: list[Entered]
    whole: bool
    """Whether nothing is missing: what was forgotten again before anybody asked is in the filters alone."""


class SeenKeys:
    """Every key of a log: the young ones exactly, all of them approximately.

    Those that are gathered while a log is folded are held as they stand, until somebody asks: most of
    them are forgotten again before.
    """

    def __init__(self, recent_max: int = RECENT_MAX) -> None:
        self._recent_max = recent_max
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._levels = [_Filter(FIRST_LEVEL_BITS)]
        self._days: dict[bytes, None] = {}
        self._unsettled: list[bytes] = []
        """Keys that are held already, and stand in no filter yet."""
        self._gathered: list[Gathered] = []
        """Of the young, and ..."""
        self._gathered_old: list[Gathered] = []
        """... of the old: they stand in a filter, and are not looked up one by one yet."""
        self._gathered_count = 0
        """Of the young."""
        self.forgotten = False
        """Whether there are keys that are not held any more."""
        self.generation = 0
        """Of the young; the old are of the one before."""
        self._entered: list[Entered] = []
        self._accounted = True

    def recall(self, hashed: bytes) -> bytes | None:
        """Day, digest and status byte of a key, if it is among the newest."""
        if self._gathered or self._gathered_old:
            self._unfold()
        return self._young.get(hashed) or self._old.get(hashed)

    @property
    def newest(self) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """The keys held, in two generations: where `recall` looks."""
        self._unfold()
        return self._young, self._old

    def sort_out(self, hashes: Sequence[bytes]) -> tuple[list[int], list[bytes]]:
        """The places of those held, and those of which only the log can tell whether they were seen."""
        young, old = self.newest
        held = [place for place, hashed in enumerate(hashes) if hashed in young or hashed in old]
        known = {hashes[place] for place in held}
        unknown = [hashed for hashed in hashes if hashed not in known] if known else hashes
        found = [hashed for level in self._levels for hashed in level.may_hold(unknown)]
        return held, [*dict.fromkeys(found)]

    def candidates(self, hashed: bytes) -> Iterator[bytes]:
        """The keys under which the log may hold a hash: one for every day it speaks of."""
        return (day + hashed for day in self._days)

    def add(self, key: bytes, digest: bytes, status: bytes) -> None:
        """Hold a key. `settle` after each slice: nothing is forgotten in between."""
        self.remember(key, digest, status)
        self._unsettled.append(key)

    def settle(self) -> None:
        """Enter what was added into the filters, and forget the oldest where too many are held."""
        keys, self._unsettled = self._unsettled, []
        self._enter([key[DAY_BYTES:] for key in keys], [key[:DAY_BYTES] for key in keys])
        if len(self._young) + self._gathered_count >= self._recent_max:
            self._turn()

    def gather(self, keys: bytes, digests: bytes, status: bytes) -> None:
        """Hold many keys of one status, that stand one after the other, in order, and settle them."""
        native = using.native()
        count = len(keys) // KEY_BYTES
        if native is None or not count:
            self.add_all(*_apart(keys, digests), status)
            return
        self._days.update(dict.fromkeys(native.days_of(keys)))
        for first, last in self._room(count):
            self._levels[-1].add_gathered(keys, first, last)
        width = len(digests) // count
        for first in range(0, count, self._recent_max):
            last = min(count, first + self._recent_max)
            part = Gathered(
                keys[first * KEY_BYTES : last * KEY_BYTES], digests[first * width : last * width], status
            )
            self._gathered.append(part)
            self._entered.append(Entered(self.generation, *part))
            self._gathered_count += last - first
            self.settle()

    def _unfold(self) -> None:
        """Look up one by one what was gathered."""
        if self._gathered or self._gathered_old:
            for gathered, into in ((self._gathered_old, self._old), (self._gathered, self._young)):
                for part in gathered:
                    _hold(into, part)
            self._gathered, self._gathered_old, self._gathered_count = [], [], 0

    def add_all(self, keys: Sequence[bytes], digests: Sequence[bytes], status: bytes) -> None:
        """Hold many keys of one status, in order, and settle them."""
        native = using.native()
        if native is not None and len(keys) <= self._recent_max:
            held = native.hold(self._young, self._days, list(keys), list(digests), status)
            if held is not None:
                if held:
                    self._entered.append(Entered(self.generation, keys, digests, status))
                self._enter(held, ())
                self.settle()
                return
        hashes = [key[DAY_BYTES:] for key in keys]
        days = [key[:DAY_BYTES] for key in keys]
        values = (day + digest + status for day, digest in zip(days, digests, strict=True))
        pairs = zip(hashes, values, strict=True)
        self._enter(hashes, days)
        for first in range(0, len(keys), self._recent_max):
            some = slice(first, first + self._recent_max)
            self._young.update(islice(pairs, self._recent_max))
            self._entered.append(Entered(self.generation, keys[some], digests[some], status))
            self.settle()

    def _enter(self, hashes: Sequence[bytes], days: Iterable[bytes]) -> None:
        self._days.update(dict.fromkeys(days))
        for first, last in self._room(len(hashes)):
            self._levels[-1].add_all(hashes[first:last])

    def _room(self, count: int) -> Iterator[tuple[int, int]]:
        """So many keys, in parts that the last level has room for; it grows in between."""
        first = 0
        while first < count:
            level = self._levels[-1]
            if level.left <= 0:
                level = self._grow()
            last = min(count, first + level.left)
            yield first, last
            first = last

    @property
    def days(self) -> list[bytes]:
        """Every day that any key speaks of."""
        return list(self._days)

    def account(self) -> Account:
        """What came to be held since this was asked last; to keep it costs no copy of all that is held."""
        self.settle()
        told = Account(self._entered, self._accounted)
        self._entered, self._accounted = [], True
        return told

    def copy(self) -> KeptKeys:
        """What is known now. Nothing may be added meanwhile."""
        self._unfold()
        self.settle()
        return KeptKeys(self.forgotten, list(self._days), self._young.copy(), self._old, self.levels())

    def levels(self) -> list[tuple[int, int, bytes | bytearray]]:
        """Size, room left and bits of each filter."""
        return [(level.size_bits, level.left, level.bits()) for level in self._levels]

    def restore(self, kept: KeptKeys) -> None:
        """Know what was known."""
        self.forgotten = kept.forgotten
        self._days = dict.fromkeys(kept.days)
        self._young, self._old = kept.young, kept.old
        self._levels = [_Filter(size_bits, left, bits) for size_bits, left, bits in kept.levels]
        self._levels[-1].hold([*self._old, *self._young])

    def restore_account(self, kept: KeptKeys, generation: int, entered: Iterable[Entered]) -> None:
        """Know what was known, from all that came since the bits of the last level were kept.

        What is of the last two generations is held; all of it is entered.
        """
        self.restore(kept)
        self.generation = generation
        for one in entered:
            part = one.gathered()
            self._levels[-1].hold_gathered(part.keys)
            if one.generation == generation:
                self._gathered.append(part)
                self._gathered_count += len(part.keys) // KEY_BYTES
            elif one.generation == generation - 1:
                self._gathered_old.append(part)

    def remember(self, key: bytes, digest: bytes, status: bytes) -> None:
        """Hold a key that the log was asked for."""
        self._young[key[DAY_BYTES:]] = key[:DAY_BYTES] + digest + status
        self._entered.append(Entered(self.generation, key, digest, status))

    def _turn(self) -> None:
        """A new generation: the oldest of the keys held are forgotten."""
        self.generation += 1
        entered = [one for one in self._entered if one.generation >= self.generation - 1]
        self._accounted = self._accounted and len(entered) == len(self._entered)
        self._entered = entered
        self.forgotten = self.forgotten or bool(self._old or self._gathered_old)
        self._old, self._young = self._young, {}
        self._gathered_old, self._gathered, self._gathered_count = self._gathered, [], 0

    def _grow(self) -> "_Filter":
        """Another filter, four times the last, for the last is full."""
        level = _Filter(min(self._levels[-1].size_bits + 2, SIZE_BITS_MAX))
        self._levels.append(level)
        return level


class _Filter:
    """A Bloom filter for so many keys; a false "may hold" costs a look-up, nothing else."""

    __slots__ = ("_bits", "_mask", "left", "size_bits")

    def __init__(
        self, size_bits: int, left: int | None = None, bits: bytes | bytearray | None = None
    ) -> None:
        """Without bits: an empty one."""
        self.size_bits = size_bits
        self.left = capacity(size_bits) if left is None else left
        self._mask = (1 << size_bits) - 1
        self._bits = bytearray(bits) if bits else bytearray(1 << (size_bits - 3))

    def add_all(self, hashes: Sequence[bytes]) -> None:
        native = using.native()
        if native is None or not native.enter(self._bits, self.size_bits, list(hashes)):
            self._add_all(hashes)
        self.left -= len(hashes)

    def add_gathered(self, keys: bytes, first: int, last: int) -> None:
        native = using.native()
        if native is None or not native.enter_gathered(self._bits, self.size_bits, keys, first, last):
            self._add_all(_hashes(keys[first * KEY_BYTES : last * KEY_BYTES]))
        self.left -= last - first

    def _add_all(self, hashes: Sequence[bytes]) -> None:
        bits, mask = self._bits, self._mask
        for first, step in _all_parts(b"".join(hashes)):
            for at in range(first, first + PROBES * step, step) if step else (first,):
                bits[(at & mask) >> 3] |= 1 << (at & 7)

    def bits(self) -> bytearray:
        """Not a copy: more may be set in them while they are read, which only leads to a look-up more."""
        return self._bits

    def hold(self, hashes: Sequence[bytes]) -> None:
        """Set the bits of keys that were counted already."""
        left = self.left
        self.add_all(hashes)
        self.left = left

    def hold_gathered(self, keys: bytes) -> None:
        """The same of keys that stand one after the other."""
        left = self.left
        self.add_gathered(keys, 0, len(keys) // KEY_BYTES)
        self.left = left

    def may_hold(self, hashes: Sequence[bytes]) -> list[bytes]:
        """Those that may have been added."""
        native = using.native()
        found = native.may_hold(self._bits, self.size_bits, list(hashes)) if native is not None else None
        return self._may_hold(hashes) if found is None else found

    def _may_hold(self, hashes: Sequence[bytes]) -> list[bytes]:
        parts = zip(hashes, _all_parts(b"".join(hashes)), strict=True)
        return [hashed for hashed, (first, step) in parts if self._all_set(first, step)]

    def _all_set(self, first: int, step: int) -> bool:
        bits, mask = self._bits, self._mask
        probes = (first + number * step for number in range(PROBES))
        return all(bits[(at & mask) >> 3] >> (at & 7) & 1 for at in probes)


def together(entered: Iterable[Entered]) -> list[Entered]:
    """The same in as few as can be: one of each generation, status, and size of digests."""
    alike: dict[tuple[int, bytes, int], list[Gathered]] = {}
    for one in entered:
        part = one.gathered()
        count = len(part.keys) // KEY_BYTES
        width = len(part.digests) // count if count else 0
        alike.setdefault((one.generation, one.status, width), []).append(part)
    return [
        Entered(
            generation,
            b"".join(part.keys for part in parts),
            b"".join(part.digests for part in parts),
            status,
        )
        for (generation, status, _), parts in alike.items()
    ]


def entered_of(kept: KeptKeys, generation: int) -> list[Entered]:
    """All that is held, as if it came now."""
    return [
        Entered(at, value[:DAY_BYTES] + hashed, value[DAY_BYTES:-1], value[-1:])
        for at, held in ((generation - 1, kept.old), (generation, kept.young))
        for hashed, value in held.items()
    ]


def capacity(size_bits: int) -> int:
    """For how many keys a filter of that size is."""
    return (1 << size_bits) // BITS_PER_KEY


def count_of(entered: Iterable[Entered]) -> int:
    """How many keys, of those that stand one after the other."""
    return sum(len(one.keys) // KEY_BYTES for one in entered)


def _together(each: Sequence[bytes] | bytes) -> bytes:
    return each if isinstance(each, bytes) else b"".join(each)


def _hashes(keys: bytes) -> list[bytes]:
    return [keys[at + DAY_BYTES : at + KEY_BYTES] for at in range(0, len(keys), KEY_BYTES)]


def _apart(keys: bytes, digests: bytes) -> tuple[list[bytes], list[bytes]]:
    """Each for itself."""
    each = [keys[at : at + KEY_BYTES] for at in range(0, len(keys), KEY_BYTES)]
    width = len(digests) // len(each) if each else 0
    return each, [digests[at * width : (at + 1) * width] for at in range(len(each))]


def _hold(held: dict[bytes, bytes], part: Gathered) -> None:
    native = using.native()
    if native is None or not native.hold_gathered(held, part.keys, part.digests, part.status):
        for key, digest in zip(*_apart(part.keys, part.digests), strict=True):
            held[key[DAY_BYTES:]] = key[:DAY_BYTES] + digest + part.status


_all_parts = Struct(">QxxI").iter_unpack
"""Where the bits of each hash begin, and in which steps they go on: out of its 14 bytes."""
