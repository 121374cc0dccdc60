"""Tables of views, written a chunk at a time: one statement, its rows as binary arrays.

Names are unqualified on purpose. Rebuilding and looking back run the same statements on temporary
tables of the same names, which PostgreSQL finds first. So nothing here may be prepared: a prepared
statement would keep to the table that it met first.
"""

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from struct import Struct as Layout
from sys import byteorder
from typing import Any, cast

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.rows import TupleRow

Connection = psycopg.Connection[TupleRow]
Key = tuple[Any, ...]


class Table:
    """A table's columns with their SQL types, its key first. The tenant is the one that is bound."""

    def __init__(self, name: str, key: Mapping[str, str], figures: Mapping[str, str]) -> None:
        self.name = name
        self.key = tuple(key)
        self.figures = tuple(figures)
        self.columns = dict(key) | dict(figures)
        names = ", ".join(self.columns)
        arrays = ", ".join(f"%s::{_carrier(kind).sql}[]" for kind in self.columns.values())
        values = ", ".join(_carrier(kind).back.format(name, kind) for name, kind in self.columns.items())
        self._carriers = [_carrier(kind) for kind in self.columns.values()]
        self._insert = (
            f"INSERT INTO {name} AS held (tenant_id, {names}) "
            f"SELECT (SELECT current_setting('app.tenant'))::uuid, {values} "
            f"FROM unnest({arrays}) AS added ({names})"
        )
        conflict = f" ON CONFLICT (tenant_id, {', '.join(key)}) DO UPDATE SET "
        self._add = self._insert + conflict + ", ".join(f"{of} = held.{of} + excluded.{of}" for of in figures)
        self._put = self._insert + conflict + ", ".join(f"{of} = excluded.{of}" for of in figures)

    def insert(self, db: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Rows that are new."""
        self._execute(db, self._insert, rows)

    def put(self, db: Connection, rows: Mapping[Key, Sequence[Any]]) -> None:
        """Rows that replace what is held under the same key."""
        self._execute(db, self._put, [(*key, *row) for key, row in rows.items()])

    def add(self, db: Connection, sums: Mapping[Key, Sequence[int]]) -> None:
        """Figures to be added to what is held under the same key."""
        self._execute(db, self._add, [(*key, *figures) for key, figures in sums.items()])

    def _execute(self, db: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            columns = zip(*rows, strict=True)
            arrays = [carrier.pack(column) for carrier, column in zip(self._carriers, columns, strict=True)]
            db.execute(statement, arrays, prepare=False)


# Binary arrays, packed here: the driver looks at each element, which takes longer than the insert.


class Int8Array(bytes):
    """A packed bigint[]."""


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
_register(TextArray, 1009)
_register(ByteaArray, 1001)

_HEADER = Layout(">5i")
_LENGTH = Layout(">i").pack
_INT8 = Layout(">iq").pack
_NULL = _LENGTH(-1)


def int8_array(values: Sequence[int | None]) -> Int8Array:
    if None in values:
        parts = [_NULL if value is None else _INT8(8, value) for value in values]
        return Int8Array(_HEADER.pack(1, 1, 20, len(parts), 1) + b"".join(parts))
    numbers = array("q", cast("Sequence[int]", values))
    if byteorder == "little":
        numbers.byteswap()
    raw = numbers.tobytes()
    packed = bytearray(12 * len(numbers))
    packed[3::12] = b"\x08" * len(numbers)
    for place in range(8):
        packed[4 + place :: 12] = raw[place::8]
    return Int8Array(_HEADER.pack(1, 0, 20, len(numbers), 1) + packed)


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

    def __init__(self, sql: str, pack: Callable[[Any], bytes], back: str) -> None:
        self.sql = sql
        self.pack = pack
        self.back = back


_INTS = _Carrier("bigint", int8_array, "added.{0}")
_CARRIERS = {
    "bigint": _INTS,
    "integer": _INTS,
    "boolean": _Carrier("bigint", int8_array, "added.{0} <> 0"),
    "text": _Carrier("text", text_array, "added.{0}"),
    "bytea": _Carrier("bytea", bytea_array, "added.{0}"),
}


def _carrier(kind: str) -> _Carrier:
    """Arrays within arrays would be flattened: they travel as their text."""
    if kind.endswith("[]"):
        return _Carrier("text", lambda rows: text_array(map(_literal, rows)), "added.{0}::{1}")
    return _CARRIERS[kind]


def _literal(values: Iterable[int | bytes]) -> str:
    texts = (f'"\\\\x{one.hex()}"' if isinstance(one, bytes) else str(one) for one in values)
    return "{" + ",".join(texts) + "}"
