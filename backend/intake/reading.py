"""Reading: the usage records of a file, in the order in which they are complete.

Every row that was read is accounted for: it became a record, was folded into the record of its
call, is unreadable with a reason, or is one that the format ignores. A bad row stops nothing; a
file that is not what its format says is refused before anything of it is handed on.
"""

import hashlib
from collections.abc import Iterator
from io import BufferedReader
from itertools import chain
from typing import Any, BinaryIO

from msgspec import Struct

from ...domain.usage import UnreadableRecord, UsageRecord
from .declaration import END, Format, layouts, referenced
from .formats import FormatError
from .legs import LEGS_MAX, Leg, OpenCalls, answered_microseconds, joined
from .mapping import Mapping, compiled
from .own_shape import quick_reader
from .pairing import paired
from .places import Unvouched, cell_at, member_at, nothing
from .quantities import seconds_of
from .rows import ROW_BYTES_MAX, Row, block_rows, csv_rows, json_rows, ndjson_rows
from .soundness import is_zone
from .unpacking import UnreadableFile, is_damage, opened

HEADER_MAX = 16_384
"""Characters: a longer header is not kept with each row that cannot be read."""
HEAD_ROWS = 20
"""When none of so many rows is what the format says, the file is another file."""


_TOO_MANY_LEGS = Unvouched(
    "too_many_legs", "", f"the call has more than {LEGS_MAX} legs; is its id really that of one call?"
)


class ReadingCounts(Struct):
    """What became of the rows so far. `read` is the sum of the others, and of legs still awaited."""

    read: int = 0
    records: int = 0
    merged: int = 0
    """Legs folded into the record of their call."""
    unreadable: int = 0
    ignored: int = 0


class Reader:
    """Iterate over it once for the records of one stream; `counts` keeps up."""

    def __init__(
        self,
        stream: BinaryIO,
        format: Format,
        *,
        time_zone: str,
        name: str = "",
        source: str = "",
        packed: bool = True,
    ) -> None:
        if not is_zone(time_zone):
            raise FormatError(
                f"time_zone: {time_zone!r} is not a time zone; use a name such as Europe/London"
            )
        self.counts = ReadingCounts()
        self._stream = stream
        self._format = format
        self._time_zone = time_zone
        self._name = name or "input"
        self._source = source
        self._packed = packed
        self._position = 0
        self._mappings: dict[int, Mapping] = {}
        """By number of cells; for JSON, where that means nothing, under 0."""
        self._widths: set[int] = set()
        self._header = ""
        """As it stood, where the rows of a file need it."""
        self._locates: dict[int, Any] = {}
        """By number of cells, or 0: how the columns of a row are found before it is paired."""

    @property
    def row(self) -> int:
        """Where the record just handed on stood; 0 for a call, which may have stood in many rows."""
        return 0 if self._format.legs else self._position

    @property
    def position(self) -> str:
        """The same, with the name of what is read; or ""."""
        return "" if self._format.legs else f"{self._name}:{self._position}"

    def __iter__(self) -> Iterator[UsageRecord | UnreadableRecord]:
        try:
            yield from self._records(self._rows())
        except UnreadableFile as error:
            raise UnreadableFile(f"{self._name}: {error} (format {self._format.name})") from error
        except Exception as error:
            if not is_damage(error):
                raise
            where = f"{self._name}: the compressed data is damaged after row {self._position}"
            raise UnreadableFile(f"{where}; fetch the file again") from error

    def _records(self, rows: Iterator[Row]) -> Iterator[UsageRecord | UnreadableRecord]:
        if self._format.legs:
            yield from self._joined(rows, OpenCalls(self._format.legs.window_rows))
            return
        counts, read = self.counts, self._read
        for row in rows:
            counts.read += row[4]
            self._position = row[0]
            found = read(row)
            if found.__class__ is UsageRecord:
                counts.records += 1
                counts.merged += row[4] - 1
                yield found
            elif found is None:
                self._count_left_out(row)
            else:
                counts.merged += row[4] - 1
                yield self._counted(found)  # type: ignore[arg-type]

    def _joined(self, rows: Iterator[Row], calls: OpenCalls) -> Iterator[UsageRecord | UnreadableRecord]:
        """The records of calls of several legs; rows are not paired then."""
        counts = self.counts
        for row in rows:
            counts.read += 1
            self._position = row.number
            found = self._read(row)
            if found is None:
                self._count_left_out(row)
            elif not isinstance(found, Leg):
                yield self._counted(found)
            elif calls.is_full(found):
                yield self._counted(self._unreadable(row, self._mapping_for(row), _TOO_MANY_LEGS))
            else:
                counts.merged += calls.add(found, counts.read)
            for call in calls.complete(counts.read):
                yield self._counted(self._call(call))
        for call in calls.rest():
            yield self._counted(self._call(call))

    def _count_left_out(self, row: Row) -> None:
        if row.repeats:
            self.counts.merged += 1
        else:
            self.counts.ignored += 1
            self.counts.merged += row.rows - 1

    def _counted(self, found: UsageRecord | UnreadableRecord) -> UsageRecord | UnreadableRecord:
        if isinstance(found, UsageRecord):
            self.counts.records += 1
        else:
            self.counts.unreadable += 1
        return found

    def _read(self, row: Row) -> UsageRecord | Leg | UnreadableRecord | None:
        if row.value.__class__ is UsageRecord:
            return row.value
        if row.repeats:
            return None
        if row.problem is not None:
            return self._unreadable(row, None, Unvouched("malformed", "", f"the row {row.problem.detail}"))
        mapping = self._mapping_for(row)
        if mapping is None:
            return self._unreadable(row, None, Unvouched("malformed", "", self._misfit(row)))
        try:
            if mapping.ignores is not None and mapping.ignores(row.value):
                return None
            if row.lone:
                raise Unvouched("unpaired", "", f"the row {row.lone}")
            return mapping.read(row.value)
        except Unvouched as reason:
            return self._unreadable(row, mapping, reason)

    def _call(self, legs: list[Leg]) -> UsageRecord:
        if len(legs) == 1:
            return legs[0].record
        return joined(legs, seconds_of(answered_microseconds(legs), self._format.quantity))

    def _unreadable(self, row: Row, mapping: Mapping | None, reason: Unvouched) -> UnreadableRecord:
        digest = row.problem.digest if row.problem else ""
        return UnreadableRecord(
            source=(mapping and _tried(mapping.source, row)) or self._own_source(),
            record_id=(mapping and _tried(mapping.identity, row)) or _raw_id(row.raw, digest),
            reason=reason.reason,
            field=reason.field,
            detail=reason.detail,
            raw=self._text(row.raw[:ROW_BYTES_MAX]),
            position=f"{self._name}:{row.number}",
            header=self._header,
        )

    def _text(self, raw: bytes) -> str:
        encodings = {"csv": self._format.csv.encoding, "blocks": self._format.blocks.encoding}
        encoding = encodings.get(self._format.kind, "utf-8")
        return raw.decode(encoding, "backslashreplace").rstrip("\r\n")

    def _own_source(self) -> str:
        return self._source or self._format.source or self._format.name

    def _rows(self) -> Iterator[Row]:
        rows = self._unpaired_rows(opened(self._stream, packed=self._packed))
        pairs = self._format.pairs
        return paired(rows, pairs, self._located, self._misfit) if pairs else rows

    def _unpaired_rows(self, file: BufferedReader) -> Iterator[Row]:
        if self._format.kind == "csv":
            return self._csv_rows(csv_rows(file, self._format.csv, self._widths))
        self._learn([], {0: member_at})
        if self._format.kind == "ndjson":
            return self._headed(ndjson_rows(file, quick_reader(self._format)))
        if self._format.kind == "blocks":
            return self._headed(block_rows(file, self._format.blocks))
        json = self._format.json
        return self._headed(json_rows(file, json.list, single=json.single))

    def _csv_rows(self, rows: Iterator[Row]) -> Iterator[Row]:
        first = next(rows, None)
        if first is None:
            return iter(())
        if (columns := _header(first, self._format)) is not None:
            header = self._text(first.raw)
            self._header = header if len(header) <= HEADER_MAX else ""
            self._learn([columns], {len(columns): _locator(columns)})
            return self._without_types(rows)
        known = layouts(self._format.csv)
        self._learn(list(known.values()), {width: _locator(known[width]) for width in known})
        return self._headed(chain([first], rows))

    def _learn(self, layouts_of: list[list[str]], locates: dict[int, Any]) -> None:
        """What rows there may be, and how each is read."""
        self._locates = locates
        self._widths.update(len(columns) for columns in layouts_of)
        if self._format.pairs and layouts_of:
            locates = {2 * len(columns): _locator(_twice(columns)) for columns in layouts_of}
        self._mappings = {width: self._compiled(locate) for width, locate in locates.items()}

    def _without_types(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows after a header, without one that says what types the columns have."""
        words = tuple(word.casefold() for word in self._format.csv.type_row)
        if not words or (first := next(rows, None)) is None:
            return rows
        cells = [cell.strip().casefold() for cell in first.value or []]
        is_types = any(cells) and all(cell.startswith(words) for cell in cells if cell)
        return rows if is_types else chain([first], rows)

    def _compiled(self, locate: Any) -> Mapping:
        return compiled(self._format, locate, self._time_zone, self._source)

    def _headed(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows, if at least one of the first is what the format says."""
        head = []
        for row in rows:
            head.append(row)
            if self._is_meant(row):
                return chain(head, rows)
            if len(head) == HEAD_ROWS:
                break
        if head:
            row = head[0]
            problem = f"the row {row.problem.detail}" if row.problem else self._misfit(row)
            raise UnreadableFile(f"line {row.number}: {problem}; is this the right format?")
        return iter(())

    def _is_meant(self, row: Row) -> bool:
        """Whether a row is of this format; a damaged JSON object is, and waits in suspense."""
        if row.problem is None:
            return isinstance(row.value, UsageRecord) or self._located(row) is not None
        return self._format.kind == "ndjson" and row.raw.lstrip().startswith(b'{"')

    def _mapping_for(self, row: Row) -> Mapping | None:
        value = row.value
        if value.__class__ is dict:
            return self._mappings.get(0)
        if value.__class__ is not list or self._format.kind != "csv":
            return None
        return self._mappings.get(len(value))

    def _located(self, row: Row) -> Any:
        """How the columns of a row are found; None where it is not of this format."""
        if self._format.kind == "csv":
            return self._locates.get(len(row.value))
        return self._locates[0] if isinstance(row.value, dict) else None

    def _misfit(self, row: Row) -> str:
        if self._format.kind == "csv":
            expected = " or ".join(str(width) for width in sorted(self._locates))
            return f"the row has {len(row.value)} columns instead of {expected}"
        return "the record is not a JSON object"


def read_records(
    stream: BinaryIO, format: Format, *, time_zone: str, name: str = "", source: str = ""
) -> Iterator[UsageRecord | UnreadableRecord]:
    """The records of a stream. `time_zone` is the tenant's; `name` and `source` say what is read."""
    return iter(Reader(stream, format, time_zone=time_zone, name=name, source=source))


def _tried(read: Any, row: Row) -> str:
    try:
        return str(read(row.value))
    except Unvouched:
        return ""


def _raw_id(raw: bytes, digest: str) -> str:
    return f"raw:{(digest or hashlib.sha256(raw).hexdigest())[:32]}"


def _locator(columns: list[str]) -> Any:
    positions = {_plain(column): i for i, column in enumerate(columns)}

    def locate(column: str) -> Any:
        index = positions.get(_plain(column))
        return nothing if index is None else cell_at(index)

    return locate


def _twice(columns: list[str]) -> list[str]:
    """The columns of a row that begins a record, and of the row that ends it."""
    return [*columns, *(END + column for column in columns)]


def _plain(column: str) -> str:
    return column.strip().casefold()


def _header(first: Row, format: Format) -> list[str] | None:
    """The columns that the first row names, if the format has a header and this is one."""
    if format.csv.header == "no":
        return None
    needed = _needed(format)
    columns = [_plain(cell) for cell in first.value or []]
    missing = [column for column in needed if _plain(column) not in columns]
    # Half of the names cannot stand in a row of values: it is a header, of another file.
    if format.csv.header == "detect" and len(missing) > len(needed) // 2:
        return None
    if missing:
        raise UnreadableFile(
            f"line {first.number}: the header lacks {', '.join(missing)}; is this the right format?"
        )
    if twice := [column for column in needed if columns.count(_plain(column)) > 1]:
        raise UnreadableFile(f"line {first.number}: the header names {', '.join(twice)} twice; rename one")
    return columns


def _needed(format: Format) -> list[str]:
    may_lack = {column for group in format.csv.optional for column in group} | set(format.csv.header_only)
    return [column for column in referenced(format) if column not in may_lack]
