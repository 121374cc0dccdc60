"""Which records were seen: duplicates are known in memory, without a query per record.

The newest keys are held with digest and status. Of all others a table knows that they cannot have
been seen, or under which moments the log must be asked for them (`keys.py`, `key_table.py`).
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from .key_table import KeyTable
from .keys import DAY_BYTES, KEY_BYTES, MOMENT_BYTES, TIME_BYTES
from .native import using

RECENT_MAX = 200_000
"""Keys held per generation, of which there are two."""
FIRST_LEVEL_BITS = 14
SIZE_BITS_MAX = 21
"""Of a level: 2 to the power of so many shelves."""

_STATUS = {"usage.charged": b"\x01", "usage.rejected": b"\x02", "usage.suspended": b"\x03"}


def status_of(topic: str) -> bytes:
    """What became of a key's command, by the first event it led to: one byte."""
    return _STATUS.get(topic, b"\x00")


class KeptKeys(NamedTuple):
    """What is known of the keys at one moment. Only `young` and the last level still change."""

    forgotten: bool
    days: list[bytes]
    young: dict[bytes, bytes]
    old: dict[bytes, bytes]
    levels: list[tuple[int, int, bytes | bytearray]]
    """(size_bits, left, shelves) of each table; all but the last are full, and never change again.

    Of the last one shelves of older standing do, as long as all keys since then are held.
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
    """Whether nothing is missing: what was forgotten again before anybody asked is in the tables alone."""


class SeenKeys:
    """Every key of a log: the young ones exactly, all of them approximately.

    Those that are gathered while a log is folded are held as they stand, until somebody asks: most of
    them are forgotten again before.
    """

    def __init__(self, recent_max: int = RECENT_MAX) -> None:
        self._recent_max = recent_max
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._levels = [KeyTable(FIRST_LEVEL_BITS)]
        self._days: dict[bytes, None] = {}
        self._unsettled: list[bytes] = []
        """Keys that are held already, and stand in no table yet."""
        self._gathered: list[Gathered] = []
        """Of the young, and ..."""
        self._gathered_old: list[Gathered] = []
        """... of the old: they stand in a table, and are not looked up one by one yet."""
        self._gathered_count = 0
        """Of the young."""
        self.forgotten = False
        """Whether there are keys that are not held any more."""
        self.generation = 0
        """Of the young; the old are of the one before."""
        self._entered: list[Entered] = []
        self._accounted = True

    def recall(self, hashed: bytes) -> bytes | None:
        """Day, moment, digest and status byte of a key, if it is among the newest."""
        if self._gathered or self._gathered_old:
            self._unfold()
        return self._young.get(hashed) or self._old.get(hashed)

    @property
    def newest(self) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """The keys held, in two generations: where `recall` looks."""
        self._unfold()
        return self._young, self._old

    def sort_out(self, hashes: Sequence[bytes]) -> tuple[list[int], list[bytes]]:
        """The places of those held; and of what only the log can tell whether it was seen, moment and hash.

        That is as often as there are moments under which it may be stored. The tables are asked first: what
        is held stands in them as well, and of a slice of fresh usage nothing does.
        """
        found = [dated for level in self._levels for dated in level.moments(hashes)]
        if not found:
            return [], []
        young, old = self.newest
        met = {dated[MOMENT_BYTES:] for dated in found}
        held = [
            place
            for place, hashed in enumerate(hashes)
            if hashed in met and (hashed in young or hashed in old)
        ]
        known = {hashes[place] for place in held}
        return held, [*dict.fromkeys(dated for dated in found if dated[MOMENT_BYTES:] not in known)]

    def candidates(self, dated: bytes) -> Iterator[bytes]:
        """The keys under which the log may hold a hash with its moment: one for every day it speaks of."""
        return (day + dated for day in self._days)

    def add(self, key: bytes, digest: bytes, status: bytes) -> None:
        """Hold a key. `settle` after each slice: nothing is forgotten in between."""
        self.remember(key, digest, status)
        self._unsettled.append(key)

    def settle(self) -> None:
        """Enter what was added into the tables, and forget the oldest where too many are held."""
        keys, self._unsettled = self._unsettled, []
        self._days.update(dict.fromkeys(key[:DAY_BYTES] for key in keys))
        self._enter(keys)
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
        self._enter_gathered(keys)
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
        if (
            native is not None
            and len(keys) <= self._recent_max
            and native.hold(self._young, self._days, list(keys), list(digests), status)
        ):
            if keys:
                self._entered.append(Entered(self.generation, keys, digests, status))
            self._enter(keys)
            self.settle()
            return
        self._days.update(dict.fromkeys(key[:DAY_BYTES] for key in keys))
        self._enter(keys)
        hashes = [key[TIME_BYTES:] for key in keys]
        values = (key[:TIME_BYTES] + digest + status for key, digest in zip(keys, digests, strict=True))
        pairs = zip(hashes, values, strict=True)
        for first in range(0, len(keys), self._recent_max):
            some = slice(first, first + self._recent_max)
            self._young.update(islice(pairs, self._recent_max))
            self._entered.append(Entered(self.generation, keys[some], digests[some], status))
            self.settle()

    def _enter(self, keys: Sequence[bytes]) -> None:
        for first, last in self._room(len(keys)):
            self._levels[-1].add_all(keys[first:last])

    def _enter_gathered(self, keys: bytes) -> None:
        for first, last in self._room(len(keys) // KEY_BYTES):
            self._levels[-1].add_gathered(keys, first, last)

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
        """Size, room left and shelves of each table. No copies: more may be entered while they are read."""
        return [(level.size_bits, level.left, level.shelves) for level in self._levels]

    def restore(self, kept: KeptKeys) -> None:
        """Know what was known."""
        self.forgotten = kept.forgotten
        self._days = dict.fromkeys(kept.days)
        self._young, self._old = kept.young, kept.old
        self._levels = [KeyTable(size_bits, shelves) for size_bits, _, shelves in kept.levels]
        for held in (self._old, self._young):
            self._enter([value[:TIME_BYTES] + hashed for hashed, value in held.items()])

    def restore_account(self, kept: KeptKeys, generation: int, entered: Iterable[Entered]) -> None:
        """Know what was known, from all that came since the last level was kept.

        What is of the last two generations is held; all of it is entered.
        """
        self.restore(kept)
        self.generation = generation
        for one in entered:
            part = one.gathered()
            self._enter_gathered(part.keys)
            if one.generation == generation:
                self._gathered.append(part)
                self._gathered_count += len(part.keys) // KEY_BYTES
            elif one.generation == generation - 1:
                self._gathered_old.append(part)

    def remember(self, key: bytes, digest: bytes, status: bytes) -> None:
        """Hold a key that the log was asked for."""
        self._young[key[TIME_BYTES:]] = key[:TIME_BYTES] + digest + status
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

    def _grow(self) -> KeyTable:
        """Another table, twice the last, for the last is full."""
        level = KeyTable(min(self._levels[-1].size_bits + 1, SIZE_BITS_MAX))
        self._levels.append(level)
        return level


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
        Entered(at, value[:TIME_BYTES] + hashed, value[TIME_BYTES:-1], value[-1:])
        for at, held in ((generation - 1, kept.old), (generation, kept.young))
        for hashed, value in held.items()
    ]


def count_of(entered: Iterable[Entered]) -> int:
    """How many keys, of those that stand one after the other."""
    return sum(len(one.keys) // KEY_BYTES for one in entered)


def _together(each: Sequence[bytes] | bytes) -> bytes:
    return each if isinstance(each, bytes) else b"".join(each)


def _apart(keys: bytes, digests: bytes) -> tuple[list[bytes], list[bytes]]:
    """Each for itself."""
    each = [keys[at : at + KEY_BYTES] for at in range(0, len(keys), KEY_BYTES)]
    width = len(digests) // len(each) if each else 0
    return each, [digests[at * width : (at + 1) * width] for at in range(len(each))]


def _hold(held: dict[bytes, bytes], part: Gathered) -> None:
    native = using.native()
    if native is None or not native.hold_gathered(held, part.keys, part.digests, part.status):
        for key, digest in zip(*_apart(part.keys, part.digests), strict=True):
            held[key[TIME_BYTES:]] = key[:TIME_BYTES] + digest + part.status
