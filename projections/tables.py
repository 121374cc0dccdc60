"""Tables of views, written a chunk at a time: one statement, its rows as binary arrays.

Names are unqualified on purpose. Rebuilding and looking back run the same statements on temporary
tables of the same names, which PostgreSQL finds first. So nothing may be prepared on their connections
(`backend/looking_back.py`): a prepared statement would keep to the table that it met first.
"""

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from struct import Struct as Layout
from sys import byteorder
from typing import Any, NamedTuple, cast

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.rows import TupleRow

Connection = psycopg.Connection[TupleRow]
Key = tuple[Any, ...]
Columns = Mapping[str, Sequence[Any]]


class Packed(NamedTuple):
    """Rows to be added, as columns of binary arrays; a figure that is not there is nothing in all of them."""

    size: int
    columns: Mapping[str, bytes]


class Table:
    """A table's columns with their SQL types, its key first. The tenant is the one that is bound."""

    meeting = "{0} = held.{0} + added.{0}"
    """What becomes of a figure that is held already."""

    def __init__(self, name: str, key: Mapping[str, str], figures: Mapping[str, str]) -> None:
        self.name = name
        self.key = tuple(key)
        self.figures = tuple(figures)
        self._counts = frozenset(figures)
        self.columns = dict(key) | dict(figures)
        names = ", ".join(self.columns)
        values = ", ".join(_carrier(kind).back.format(name, kind) for name, kind in self.columns.items())
        self._carriers = {name: _carrier(kind) for name, kind in self.columns.items()}
        self._insert = (
            f"INSERT INTO {name} AS held (tenant_id, {names}) "
            f"SELECT (SELECT current_setting('app.tenant')::uuid), {values} FROM {self._unnest(self.columns)}"
        )
        conflict = f" ON CONFLICT (tenant_id, {', '.join(key)}) DO UPDATE SET "
        self._put = self._insert + conflict + ", ".join(f"{of} = excluded.{of}" for of in figures)

    def insert(self, db: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Rows that are new."""
        self._execute(db, self._insert, rows)

    def put(self, db: Connection, rows: Mapping[Key, Sequence[Any]]) -> None:
        """Rows that replace what is held under the same key."""
        self._execute(db, self._put, [(*key, *row) for key, row in rows.items()])

    def add(self, db: Connection, sums: Mapping[Key, Sequence[int]], by: Sequence[str] = ()) -> None:
        """Figures to be added to what is held under the same key. Nobody else may write them meanwhile.

        MERGE costs two thirds of ON CONFLICT. `by` are columns of the key that many rows have in common.
        """
        if not sums:
            return
        rest = [name for name in self.key if name not in by]
        common, own = ([self.key.index(name) for name in names] for names in (by, rest))
        parts: dict[Key, dict[Key, Sequence[int]]] = {}
        for key, figures in sums.items():
            same = tuple([key[at] for at in common])
            parts.setdefault(same, {})[tuple([key[at] for at in own])] = figures
        self.add_parts(db, by, [(same, self._columns(rest, rows)) for same, rows in parts.items()])

    def add_parts(self, db: Connection, by: Sequence[str], parts: Sequence[tuple[Key, Columns]]) -> None:
        """The same, in columns: what the rows of a part have in common, and the rest, in the key's order.

        Rows that follow each other in the index are found sooner. What they have in common is told with
        each row all the same: said once, as a constant, the planner of a table that was never analysed
        takes it to leave one row, and compares every row added with every row held.
        """
        if parts:
            self._add(db, self._merged(by, parts))

    def _columns(self, keys: Sequence[str], rows: Mapping[Key, Sequence[int]]) -> Columns:
        ordered = sorted(rows)
        figures = zip(self.figures, zip(*[rows[key] for key in ordered], strict=True), strict=True)
        columns: dict[str, Sequence[Any]] = dict(zip(keys, zip(*ordered, strict=True), strict=True))
        columns.update((name, column) for name, column in figures if any(column))
        return columns

    def _merged(self, by: Sequence[str], parts: Sequence[tuple[Key, Columns]]) -> Columns:
        told = {name for _, columns in parts for name in columns}
        merged: dict[str, list[Any]] = {name: [] for name in self.columns if name in by or name in told}
        for same, columns in parts:
            common, size = dict(zip(by, same, strict=True)), len(next(iter(columns.values())))
            for name, column in merged.items():
                held = columns.get(name)
                column += held if held is not None else [common.get(name, 0)] * size
        return merged

    def add_packed(self, db: Connection, rows: Packed) -> None:
        """The same, in columns that are packed already."""
        if rows.size:
            arrays = [self._carriers[name].packed(column) for name, column in rows.columns.items()]
            self._merge(db, tuple(rows.columns), arrays, rows.size)

    def _add(self, db: Connection, columns: Columns) -> None:
        size = len(next(iter(columns.values())))
        self._merge(db, tuple(columns), self._arrays(columns), size)

    def _merge(self, db: Connection, columns: Sequence[str], arrays: Sequence[bytes], size: int) -> None:
        # Planning it takes as long as adding fifty rows. (Nothing is prepared beside temporary tables.)
        done = db.execute(self._change(columns), arrays, prepare=True).rowcount
        assert done == size, f"{done} of {size} rows of {self.name}"

    def _change(self, columns: Sequence[str]) -> str:
        """Each row added meets the one held under its key, or none.

        MERGE is planned as an outer join: whatever the planner guesses of either side, it goes through the
        rows added and looks each up, never the other way round.
        """
        figures = [name for name in columns if name in self._counts]
        places = ", ".join(map(self.meeting.format, figures)) or (
            f"{self.figures[0]} = held.{self.figures[0]}"
        )
        values = ", ".join(f"added.{name}" if name in columns else "0" for name in self.columns)
        found = " AND ".join(f"held.{name} = added.{name}" for name in self.key)
        tenant = "(SELECT current_setting('app.tenant')::uuid)"
        return (
            f"MERGE INTO {self.name} AS held USING {self._unnest(columns)} "
            f"ON {found} "
            f"WHEN MATCHED THEN UPDATE SET {places} "
            f"WHEN NOT MATCHED THEN INSERT (tenant_id, {', '.join(self.columns)}) VALUES ({tenant}, {values})"
        )

    def _unnest(self, names: Iterable[str]) -> str:
        """Told row by row: as a function in FROM, each array would be kept as a table of its own first."""
        rows = ", ".join(f"unnest(%s::{self._carriers[name].sql}[]) AS {name}" for name in names)
        return f"(SELECT {rows}) AS added"

    def _arrays(self, columns: Mapping[str, Sequence[Any]]) -> list[bytes]:
        return [self._carriers[name].pack(column) for name, column in columns.items()]

    def _execute(self, db: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            columns = zip(self.columns, zip(*rows, strict=True), strict=True)
            db.execute(statement, self._arrays(dict(columns)), prepare=False)


_SWITCHES = (
    *("enable_hashjoin", "enable_mergejoin", "enable_seqscan", "enable_bitmapscan", "enable_material"),
    "jit",
)
"""What the planner may do by itself."""
BY_INDEX = "; ".join(f"SET LOCAL {switch} = off" for switch in _SWITCHES)
"""While rows are written: they are few of many, which the planner cannot know of an array."""
AS_USUAL = "; ".join(f"RESET {switch}" for switch in _SWITCHES)


# COPY is refused under row-level security. The appender passes it, may only add, and cannot name the
# tenant: PostgreSQL fills that in from the transaction's own (docs/decisions/0002).

COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"


def copy_in(db: Connection, statement: str, rows: bytes | bytearray) -> None:
    db.execute("SET LOCAL ROLE allotment_appender", prepare=False)
    with db.cursor().copy(statement) as copy:
        copy.write(rows)
    db.execute("SET LOCAL ROLE allotment_projector", prepare=False)


def copied_text(text: str) -> bytes:
    encoded = text.encode()
    return _LENGTH(len(encoded)) + encoded


# Binary arrays, packed here: the driver looks at each element, which takes longer than the insert.


class Int8Array(bytes):
    """A packed bigint[]."""


class Int4Array(bytes):
    """A packed integer[]."""


class TextArray(bytes):
    """A packed text[]."""


class ByteaArray(bytes):
    """A packed bytea[]."""


class _Packed(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return obj


def _register(kind: type[bytes], array_oid: int) -> None:
    dumper = type(f"_{kind.__name__}Dumper", (_Packed,), {"oid": array_oid})
    psycopg.adapters.register_dumper(kind, dumper)


_register(Int8Array, 1016)
_register(Int4Array, 1007)
_register(TextArray, 1009)
_register(ByteaArray, 1001)

_HEADER = Layout(">5i")
_LENGTH = Layout(">i").pack
_INT8 = Layout(">iq").pack
_INT4 = Layout(">ii").pack
_NULL = _LENGTH(-1)


def int8_array(values: Sequence[int | None]) -> Int8Array:
    return Int8Array(_int_array(values, _INT8, "q", 20))


def int4_array(values: Sequence[int | None]) -> Int4Array:
    return Int4Array(_int_array(values, _INT4, "i", 23))


def _int_array(values: Sequence[int | None], one: Callable[[int, int], bytes], code: str, oid: int) -> bytes:
    """An array of numbers of one size, each behind its length."""
    size = array(code).itemsize
    if None in values:
        parts = [_NULL if value is None else one(size, value) for value in values]
        return _HEADER.pack(1, 1, oid, len(parts), 1) + b"".join(parts)
    numbers = array(code, cast("Sequence[int]", values))
    if byteorder == "little":
        numbers.byteswap()
    raw, step = numbers.tobytes(), size + 4
    packed = bytearray(step * len(numbers))
    packed[3::step] = bytes([size]) * len(numbers)
    for place in range(size):
        packed[4 + place :: step] = raw[place::size]
    return _HEADER.pack(1, 0, oid, len(numbers), 1) + packed


def int8s(told: bytes) -> list[int]:
    """The numbers of a bigint[] as PostgreSQL sends it: a header, and each behind its length."""
    raw = told[_HEADER.size :]
    assert len(raw) % 12 == 0, "there is no null among them"
    swapped = bytearray(len(raw) // 12 * 8)
    for place in range(8):
        at = 7 - place if byteorder == "little" else place
        swapped[at::8] = raw[4 + place :: 12]
    return array("q", bytes(swapped)).tolist()


def int4s(told: bytes) -> Sequence[int]:
    """The same of an integer[]: each and its length are of one size."""
    found = array("i", told[_HEADER.size :])
    if byteorder == "little":
        found.byteswap()
    return found[1::2]


def text_array(values: Iterable[str | None]) -> TextArray:
    parts = list(map(_Texts().__getitem__, values))
    return TextArray(_HEADER.pack(1, 1, 25, len(parts), 1) + b"".join(parts))


def bytea_array(values: Sequence[bytes | None]) -> ByteaArray:
    parts = [_NULL if value is None else _LENGTH(len(value)) + value for value in values]
    return ByteaArray(_HEADER.pack(1, 1, 17, len(parts), 1) + b"".join(parts))


class _Texts(dict[str | None, bytes]):
    """Packed texts; most columns repeat a few."""

    def __missing__(self, text: str | None) -> bytes:
        encoded = b"" if text is None else text.encode()
        packed = self[text] = _NULL if text is None else _LENGTH(len(encoded)) + encoded
        return packed


class _Carrier:
    """How values of a type travel, and how they become that type again."""

    def __init__(
        self, sql: str, pack: Callable[[Any], bytes], back: str, packed: Callable[[bytes], bytes] = bytes
    ) -> None:
        self.sql = sql
        self.pack = pack
        self.back = back
        self.packed = packed
        """Says what packed bytes are."""


_INTS = _Carrier("bigint", int8_array, "added.{0}", Int8Array)
_CARRIERS = {
    "bigint": _INTS,
    "integer": _Carrier("integer", int4_array, "added.{0}", Int4Array),
    "boolean": _Carrier("bigint", int8_array, "added.{0} <> 0"),
    "text": _Carrier("text", text_array, "added.{0}", TextArray),
    "bytea": _Carrier("bytea", bytea_array, "added.{0}", ByteaArray),
}


def _carrier(kind: str) -> _Carrier:
    """Arrays within arrays would be flattened: they travel as their text."""
    if kind.endswith("[]"):
        return _Carrier("text", lambda rows: text_array(map(_literal, rows)), "added.{0}::{1}")
    return _CARRIERS[kind]


def _literal(values: Iterable[int | bytes]) -> str:
    texts = (f'"\\\\x{one.hex()}"' if isinstance(one, bytes) else str(one) for one in values)
    return "{" + ",".join(texts) + "}"
