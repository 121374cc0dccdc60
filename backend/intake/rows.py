"""Rows: a stream of bytes cut into the rows of a CSV, NDJSON or JSON file.

A row that cannot be cut is handed on with its problem and never takes its neighbours with it.
CSV and NDJSON need memory for a few lines, whatever the length of the file. Compressed files
(gzip) and byte order marks are recognised by their bytes.
"""

import csv
import gzip
import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterator
from itertools import dropwhile
from typing import Any, BinaryIO, NamedTuple

import msgspec

from .declaration import Csv

ROW_BYTES_MAX = 131_072
"""A longer row is malformed. No record of ours comes near, and a row must fit into memory and suspense."""
ROW_LINES_MAX = 50
"""Lines that a quoted cell may run over. An unclosed quote spoils its own line, not the rest of the file."""
JSON_BYTES_MAX = 128 << 20
"""A JSON document is read whole; NDJSON is for more."""

_BLOCK = 1 << 16
_BOM = b"\xef\xbb\xbf"


class UnreadableFile(ValueError):
    """The file is not what its format says. Says which file, where, and what to do."""


class Problem(NamedTuple):
    """Why a row could not be cut. The digest is that of all its bytes, kept or not."""

    detail: str
    digest: str = ""


class Row(NamedTuple):
    """One row: where it starts, its bytes, and what it holds or why it holds nothing."""

    number: int
    raw: bytes
    value: Any
    problem: Problem | None = None


def opened(stream: BinaryIO) -> io.BufferedReader:
    """The stream, unpacked if it is compressed. The caller's stream stays open."""
    whole = _buffered(stream)
    if whole.peek(2)[:2] == b"\x1f\x8b":
        whole = io.BufferedReader(gzip.GzipFile(fileobj=whole), _BLOCK)
    if whole.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UnreadableFile("is in UTF-16; export it as UTF-8")
    return whole


def lines(file: io.BufferedReader) -> Iterator[Row]:
    """Physical lines, without those that are blank."""
    number = 0
    while raw := file.readline(ROW_BYTES_MAX + 1):
        number += 1
        if number == 1:
            raw = raw.removeprefix(_BOM)
        if len(raw) > ROW_BYTES_MAX:
            yield Row(number, raw, None, _over_long(raw, file))
        elif b"\0" in raw:
            yield Row(number, raw, None, Problem("holds NUL bytes; it was damaged on its way"))
        elif not raw.isspace():
            yield Row(number, raw, None)


def ndjson_rows(file: io.BufferedReader, quick: Callable[[bytes], Any] | None = None) -> Iterator[Row]:
    """One object per line; or what `quick` makes of the line, where that is not None."""
    decode = decoder().decode
    for number, raw, value, problem in lines(file):
        if problem is None:
            if quick is not None and (value := quick(raw)) is not None:
                yield Row(number, raw, value)
                continue
            try:
                value = decode(raw)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                problem = Problem(f"is not JSON: {error}")
        yield Row(number, raw, value, problem)


def json_rows(file: io.BufferedReader, path: str) -> Iterator[Row]:
    """The members of the list at this path. Each keeps its own bytes."""
    text = file.read(JSON_BYTES_MAX + 1)
    if len(text) > JSON_BYTES_MAX:
        raise UnreadableFile(f"is larger than {JSON_BYTES_MAX} bytes; fetch smaller pages, or send NDJSON")
    decode = decoder().decode
    for number, raw in enumerate(_listed(text.removeprefix(_BOM), path), 1):
        try:
            yield Row(number, bytes(raw), decode(raw))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            yield Row(number, bytes(raw), None, Problem(f"is not JSON: {error}"))


def csv_rows(file: io.BufferedReader, layout: Csv, widths: set[int]) -> Iterator[Row]:
    """Cells. `widths` are the lengths a row may have, as far as they are known yet."""
    cells_of = _cell_cutter(layout)
    source = dropwhile(lambda row: row.number <= layout.skip_lines, lines(file))
    ahead: deque[Row] = deque()
    while row := ahead.popleft() if ahead else next(source, None):
        if row.problem is None:
            try:
                cells = cells_of(row.raw)
                row = Row(row.number, row.raw, cells)
            except _Unclosed:
                row = _over_lines(row, cells_of, source, ahead, widths)
            except ValueError as error:
                row = row._replace(problem=Problem(str(error)))
        yield row


def decoder() -> "msgspec.json.Decoder[Any]":
    """A JSON decoder that keeps decimals as the text they were: no float comes near a quantity."""
    return msgspec.json.Decoder(float_hook=str)


class _Unclosed(Exception):
    """A quote was opened and the line ended."""


class _Prefixed(io.RawIOBase):
    """Any stream that can `read`, for a BufferedReader, which wants `readinto`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._stream.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)


def _buffered(stream: BinaryIO) -> io.BufferedReader:
    return io.BufferedReader(_Prefixed(stream), _BLOCK)


def _over_long(raw: bytes, file: io.BufferedReader) -> Problem:
    digest = hashlib.sha256(raw)
    while not raw.endswith(b"\n") and (raw := file.readline(_BLOCK)):
        digest.update(raw)
    detail = f"is longer than {ROW_BYTES_MAX} bytes; only its beginning was kept"
    return Problem(detail, digest.hexdigest())


def _cell_cutter(layout: Csv) -> Any:
    quote, separator = layout.quote, layout.separator
    dialect = _dialect(layout)
    special = [mark.encode() for mark in (quote, layout.escape) if mark]

    def cut(raw: bytes) -> list[str]:
        try:
            text = raw.decode(layout.encoding).rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"is not {layout.encoding}; declare the encoding it was written in") from error
        for mark in special:
            if mark in raw:
                break
        else:
            if "\r" not in text:
                return text.split(separator)
        try:
            return next(csv.reader((text,), dialect))
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise _Unclosed from error
            raise ValueError(f"is not CSV: {error}") from error

    return cut


def _dialect(layout: Csv) -> Any:
    # The reader's own dialect object is used as it is; anything else would be read again for each row.
    return csv.reader(
        [],
        delimiter=layout.separator,
        quotechar=layout.quote or None,
        quoting=csv.QUOTE_MINIMAL if layout.quote else csv.QUOTE_NONE,
        escapechar=layout.escape or None,
        doublequote=not layout.escape,
        strict=True,
    ).dialect


def _over_lines(first: Row, cells_of: Any, source: Iterator[Row], ahead: deque[Row], widths: set[int]) -> Row:
    """A row with a line break inside quotes; if there is none, the line that opened the quote."""
    raw, taken = first.raw, 0
    while taken < ROW_LINES_MAX and len(raw) <= ROW_BYTES_MAX:
        if taken == len(ahead):
            if (line := next(source, None)) is None:
                break
            ahead.append(line)
        if ahead[taken].problem is not None:
            break
        raw += ahead[taken].raw
        taken += 1
        try:
            cells = cells_of(raw)
        except _Unclosed:
            continue
        except ValueError:
            break
        if widths and len(cells) not in widths:
            break
        for _ in range(taken):
            ahead.popleft()
        return Row(first.number, raw, cells)
    return first._replace(problem=Problem("opens a quote that is not closed"))


def _listed(text: bytes, path: str) -> list[msgspec.Raw]:
    node: Any = msgspec.Raw(text)
    done = "the document"
    try:
        for key in path.split(".") if path else []:
            members = msgspec.json.decode(node, type=dict[str, msgspec.Raw])
            if key not in members:
                raise UnreadableFile(
                    f"has no {key!r} in {done}, which holds {', '.join(members) or 'nothing'}"
                )
            node, done = members[key], key
        return msgspec.json.decode(node, type=list[msgspec.Raw])
    except msgspec.ValidationError as error:
        raise UnreadableFile(f"{done} is not what the format says: {error}") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        if isinstance(error, UnreadableFile):
            raise
        raise UnreadableFile(f"is not JSON: {error}") from error
