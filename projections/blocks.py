"""Blocks: counters of sixteen members in one row, as bytes that are read, added to and written again.

Changing a row costs PostgreSQL nearly the same whether it holds the counters of one member or of
sixteen, and a chunk of usage touches many neighbours. Only who holds the lock on a view's position
writes its blocks, so what was written last may be kept in memory and need not be read again.

Of each member there is a number for each figure, of 8 bytes, the highest first. A figure that does
not fit is an OverflowError, and nothing of its chunk is written. A member whose figures are all
nothing is not told from one that never had any.
"""

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import add
from sys import byteorder
from typing import Any, NamedTuple

from .tables import Connection, Packed, Table, bytea_array, int4_array

BITS = 4
MEMBERS = 1 << BITS
"""Eight cost a third more, thirty-two no less."""
LAST = MEMBERS - 1
NUMBER = 8
KEPT_MAX = 16_384
"""Blocks of a table that are kept, of half a kilobyte: those of 65,000 members in four usage types."""

Group = tuple[Any, ...]
"""What the blocks of many members have in common: a period and a usage type, perhaps a day."""
Together = Callable[[list[bytes], bytes], tuple[list[bytes], bytes]]
"""Adds to each block what is its part of the rest; the sums, and the same as a packed bytea[]."""


def together(held: list[bytes], more: bytes) -> tuple[list[bytes], bytes]:
    """The rule for what native code does."""
    size = len(more) // len(held) if held else 0
    whole = packed(array("q", map(add, numbers(b"".join(held)), numbers(more))))
    sums = [whole[at : at + size] for at in range(0, len(whole), size or 1)]
    return sums, bytea_array(sums)


def numbers(figures: bytes) -> "array[int]":
    found = array("q", figures)
    if byteorder == "little":
        found.byteswap()
    return found


def packed(found: "array[int]") -> bytes:
    if byteorder == "little":
        found.byteswap()
    return found.tobytes()


class Added(NamedTuple):
    """What is to be added: each block of a group once, and the figures of all in their order."""

    groups: Sequence[tuple[Group, Sequence[int]]]
    figures: bytes
    together: Together = together


class Kept:
    """Blocks of one table as they stand at a seq, for whoever writes the next chunk."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.held: dict[Group, dict[int, bytes]] = {}


class Blocks(Table):
    """A table of them: `block` is in its key, and the rest of the key says which group."""

    meeting = "{0} = added.{0}"

    def __init__(self, name: str, key: Mapping[str, str], counts: Sequence[str]) -> None:
        super().__init__(name, key, {"figures": "bytea"})
        self.counts = tuple(counts)
        self.group = tuple(column for column in key if column != "block")
        self.size = MEMBERS * NUMBER * len(counts)
        """Of a block, in bytes."""
        self._nothing = bytes(self.size)
        self._find = self._finding(key)

    def added(self, sums: Mapping[Group, Mapping[int, Sequence[int]]]) -> Added:
        """By group and ordinal; figures that are left out at the end are nothing."""
        groups, parts = [], []
        for group, of in sums.items():
            blocks = sorted({ordinal >> BITS for ordinal in of})
            groups.append((group, blocks))
            parts.append(self._spread(of, {block: place for place, block in enumerate(blocks)}))
        return Added(groups, b"".join(parts))

    def _spread(self, of: Mapping[int, Sequence[int]], places: Mapping[int, int]) -> bytes:
        width = len(self.counts)
        spread = array("q", bytes(len(places) * self.size))
        for ordinal, figures in of.items():
            at = (places[ordinal >> BITS] * MEMBERS + (ordinal & LAST)) * width
            spread[at : at + len(figures)] = array("q", figures)
        return packed(spread)

    def add_blocks(self, db: Connection, kept: Kept, more: Added) -> None:
        """To what is held. Nobody else may write meanwhile."""
        if not more.groups:
            return
        self._read(db, kept, more.groups)
        held = [(kept.held[group], blocks) for group, blocks in more.groups]
        sums, figures = more.together([of[block] for of, blocks in held for block in blocks], more.figures)
        at = 0
        for of, blocks in held:
            of.update(zip(blocks, sums[at : at + len(blocks)], strict=True))
            at += len(blocks)
        columns = self._told(more.groups) | {"figures": figures}
        self.add_packed(db, Packed(len(sums), columns))
        self._forget(kept, more.groups)

    def _told(self, groups: Sequence[tuple[Group, Sequence[int]]]) -> dict[str, bytes]:
        columns: dict[str, list[Any]] = {name: [] for name in self.key}
        for group, blocks in groups:
            columns["block"] += blocks
            for name, value in zip(self.group, group, strict=True):
                columns[name] += [value] * len(blocks)
        return dict(zip(columns, self._arrays(columns), strict=True))

    def _read(self, db: Connection, kept: Kept, groups: Sequence[tuple[Group, Sequence[int]]]) -> None:
        """Those that are not in memory; a block that is nowhere is full of nothing."""
        missing: list[tuple[Group, list[int]]] = []
        for group, blocks in groups:
            of = kept.held.setdefault(group, {})
            unknown = [block for block in blocks if block not in of]
            if unknown:
                of.update(dict.fromkeys(unknown, self._nothing))
                missing.append((group, unknown))
        for group, unknown in missing:
            found = db.execute(self._find, (*group, int4_array(unknown)), binary=True, prepare=False)
            kept.held[group].update(found.fetchall())

    def _finding(self, key: Mapping[str, str]) -> str:
        given = " AND ".join(f"{name} = %s::{key[name]}" for name in self.group)
        return f"SELECT block, figures FROM {self.name} WHERE {given} AND block = ANY(%s::integer[])"

    def _forget(self, kept: Kept, groups: Iterable[tuple[Group, Sequence[int]]]) -> None:
        """Too many: only those that were written last stay."""
        if sum(map(len, kept.held.values())) > KEPT_MAX:
            last = {group: {block: kept.held[group][block] for block in blocks} for group, blocks in groups}
            kept.held = last

    def of(self, ordinal: int, figures: bytes) -> Sequence[int]:
        """A member's numbers, out of those of its block."""
        width = NUMBER * len(self.counts)
        at = (ordinal & LAST) * width
        return numbers(figures[at : at + width])

    def figure(self, count: str, ordinal: str, of: str = "c") -> str:
        """One number in SQL, of a row of this table."""
        at = f"({ordinal} & {LAST}) * {NUMBER * len(self.counts)} + {NUMBER * self.counts.index(count) + 1}"
        return f"('x' || encode(substring({of}.figures FROM {at} FOR {NUMBER}), 'hex'))::bit(64)::bigint"
