"""A table of keys that tells when each of them is said to be: approximate, and never without one.

It is made of shelves of 64 bytes, a cache line: twelve tags, then for each the rest of its key's mark and
the key's moment. A key stands on the shelf where it belongs, or on the first behind it that has room; nothing
is ever taken away, so what was entered is found for ever. Another key of the same mark there is a false
hit: it costs a look-up in the log, nothing else. Who looks for what never came reads tags alone.
"""

from collections.abc import Iterable, Iterator, Sequence

from ..domain.refusals import InvariantBroken
from .keys import DAY_BYTES, KEY_BYTES, MOMENT_BYTES, TIME_BYTES
from .native import using

SHELF_BYTES = 64
SLOTS = 12
"""Of a shelf. A tag of 0: nothing stands there, nor behind it on that shelf."""
REST_BYTES = 2
"""Of a mark, beside its tag. One in sixteen million keys has the mark of another."""
ENTRY_BYTES = REST_BYTES + MOMENT_BYTES
FILLED = 8
"""Slots of a shelf that are taken when the table is full, on average: one key in eight stands further on."""


class KeyTable:
    """For so many keys; one that is full never changes again."""

    __slots__ = ("left", "shelves", "size_bits")

    def __init__(self, size_bits: int, shelves: bytes | bytearray | None = None) -> None:
        """Without shelves: an empty one."""
        self.size_bits = size_bits
        self.shelves = bytearray(shelves) if shelves else bytearray(SHELF_BYTES << size_bits)
        if len(self.shelves) != SHELF_BYTES << size_bits:
            raise ValueError(f"a table of {size_bits} bits has not {len(self.shelves)} bytes")
        self.left = capacity(size_bits) - (occupied(self.shelves) if shelves else 0)
        """Slots that may still be taken. A key that stands in it already takes none."""

    def add_all(self, keys: Sequence[bytes]) -> None:
        native = using.native()
        added = native.enter(self.shelves, self.size_bits, list(keys)) if native is not None else None
        self.left -= self._add_all(keys) if added is None else added

    def add_gathered(self, keys: bytes, first: int, last: int) -> None:
        """Of keys that stand one after the other, those from a first to a last."""
        native = using.native()
        if native is not None:
            added = native.enter_gathered(self.shelves, self.size_bits, keys, first, last)
            if added is not None:
                self.left -= added
                return
        places = range(first * KEY_BYTES, last * KEY_BYTES, KEY_BYTES)
        self.left -= self._add_all(keys[at : at + KEY_BYTES] for at in places)

    def _add_all(self, keys: Iterable[bytes]) -> int:
        shelves, mask, added = self.shelves, (1 << self.size_bits) - 1, 0
        for key in keys:
            shelf = (int.from_bytes(key[-4:], "big") & mask) * SHELF_BYTES
            free = shelves.find(0, shelf, shelf + SLOTS)
            if free >= 0 and shelves.find(key[TIME_BYTES] or 1, shelf, free) < 0:
                self._put(shelf, free - shelf, key)
                added += 1
            else:
                added += self._add(key)
        return added

    def _add(self, key: bytes) -> bool:
        """Whether it took a slot, wherever."""
        tag, rest = _mark_of(key[TIME_BYTES:])
        entry = rest + key[DAY_BYTES:TIME_BYTES]
        for shelf, tags in self._shelves_from(key):
            if entry in self._entries(shelf, tags, tag):
                return False
            if not tags[-1]:
                self._put(shelf, tags.index(0), key)
                return True
        raise InvariantBroken("a table of keys has room", size_bits=self.size_bits)

    def _put(self, shelf: int, slot: int, key: bytes) -> None:
        """The tag last: who copies meanwhile finds the whole of it, or nothing."""
        tag, rest = _mark_of(key[TIME_BYTES:])
        at = shelf + SLOTS + slot * ENTRY_BYTES
        self.shelves[at : at + ENTRY_BYTES] = rest + key[DAY_BYTES:TIME_BYTES]
        self.shelves[shelf + slot] = tag

    def moments(self, identities: Sequence[bytes]) -> list[bytes]:
        """Of those that may have been entered: each moment, and the identity."""
        native = using.native()
        if native is not None:
            found = native.moments(self.shelves, self.size_bits, list(identities))
            if found is not None:
                return found
        likely = filter(self._may_hold, identities)
        return [dated for identity in likely for dated in self._dated(identity)]

    def _may_hold(self, identity: bytes) -> bool:
        """Whether one look does not show already that it was not entered."""
        shelf = (int.from_bytes(identity[-4:], "big") & (1 << self.size_bits) - 1) * SHELF_BYTES
        full = self.shelves[shelf + SLOTS - 1]
        return bool(full) or self.shelves.find(identity[0] or 1, shelf, shelf + SLOTS) >= 0

    def _dated(self, identity: bytes) -> Iterator[bytes]:
        tag, rest = _mark_of(identity)
        for shelf, tags in self._shelves_from(identity):
            for entry in self._entries(shelf, tags, tag):
                if entry[:REST_BYTES] == rest:
                    yield entry[REST_BYTES:] + identity
            if not tags[-1]:
                return

    def _shelves_from(self, key: bytes) -> Iterator[tuple[int, bytes]]:
        """Where shelves begin and their tags, from the one on where a key belongs.

        A key ends as its identity does.
        """
        first, size = int.from_bytes(key[-4:], "big"), 1 << self.size_bits
        for number in range(first, first + size):
            shelf = number % size * SHELF_BYTES
            yield shelf, bytes(self.shelves[shelf : shelf + SLOTS])

    def _entries(self, shelf: int, tags: bytes, tag: int) -> list[bytes]:
        """What stands on a shelf beside this tag."""
        if tag not in tags:
            return []
        places = [shelf + SLOTS + slot * ENTRY_BYTES for slot, one in enumerate(tags) if one == tag]
        return [bytes(self.shelves[at : at + ENTRY_BYTES]) for at in places]


def capacity(size_bits: int) -> int:
    """For how many keys a table of that size is."""
    return FILLED << size_bits


def occupied(shelves: bytes | bytearray) -> int:
    """How many slots are taken."""
    native = using.native()
    found = native.occupied(shelves) if native is not None else None
    return _occupied(shelves) if found is None else found


def _occupied(shelves: bytes | bytearray) -> int:
    tags = [shelves[slot::SHELF_BYTES] for slot in range(SLOTS)]
    return sum(len(column) - column.count(0) for column in tags)


def _mark_of(identity: bytes) -> tuple[int, bytes]:
    """Its tag, and the rest."""
    return identity[0] or 1, identity[1 : 1 + REST_BYTES]
