"""Rows: a stream of bytes cut into the rows of a CSV, NDJSON or JSON file.

A row that cannot be cut is handed on with its problem and never takes its neighbours with it.
CSV, NDJSON and blocks need memory for a few lines, whatever the length of the file. Byte order marks
are recognised by their bytes.
"""

import csv
import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterator
from itertools import dropwhile
from typing import Any, NamedTuple

import msgspec

from .declaration import Blocks, Csv
from .unpacking import UnreadableFile

ROW_BYTES_MAX = 131_072
"""A longer row is malformed. No record of ours comes near, and a row must fit into memory and suspense."""
ROW_LINES_MAX = 50
"""Lines that a quoted cell may run over. An unclosed quote spoils its own line, not the rest of the file."""
JSON_BYTES_MAX = 128 << 20
"""A JSON document is read whole; NDJSON is for more."""

_BLOCK = 1 << 16
_BOM = b"\xef\xbb\xbf"
_MAYBE_BLANK = frozenset(b" \t\r\n\x0b\x0c")


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
    rows: int = 1
    """How many rows of the file it is made of."""
    lone: str = ""
    """What a row lacks that is only half of a record."""
    repeats: bool = False
    """Whether it says again what a row before it said."""


Line = tuple[int, bytes, Problem | None]


def lines(file: io.BufferedReader) -> Iterator[Line]:
    """Physical lines, without those that are blank: their number, their bytes, what is wrong with them."""
    number = 0
    while raw := file.readline(ROW_BYTES_MAX + 1):
        number += 1
        if number == 1:
            raw = raw.removeprefix(_BOM)
        if len(raw) > ROW_BYTES_MAX:
            yield number, raw, _over_long(raw, file)
        elif b"\0" in raw:
            yield number, raw, Problem("holds NUL bytes; it was damaged on its way")
        elif raw[0] not in _MAYBE_BLANK or not raw.isspace():
            yield number, raw, None


def ndjson_rows(file: io.BufferedReader, quick: Callable[[bytes], Any] | None = None) -> Iterator[Row]:
    """One object per line; or what `quick` makes of the line, where that is not None."""
    decode = decoder().decode
    for number, raw, problem in lines(file):
        value = None
        if problem is None:
            if quick is not None and (value := quick(raw)) is not None:
                yield Row(number, raw, value)
                continue
            try:
                value = decode(raw)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                problem = Problem(f"is not JSON: {error}")
        yield Row(number, raw, value, problem)


def json_rows(file: io.BufferedReader, path: str, *, single: bool = False) -> Iterator[Row]:
    """The members of the list at this path. Each keeps its own bytes.

    With `single`, an object there is the list's only member.
    """
    text = file.read(JSON_BYTES_MAX + 1)
    if len(text) > JSON_BYTES_MAX:
        raise UnreadableFile(f"is larger than {JSON_BYTES_MAX} bytes; fetch smaller pages, or send NDJSON")
    decode = decoder().decode
    for number, raw in enumerate(_listed(text.removeprefix(_BOM), path, single=single), 1):
        try:
            yield Row(number, bytes(raw), decode(raw))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            yield Row(number, bytes(raw), None, Problem(f"is not JSON: {error}"))


def csv_rows(file: io.BufferedReader, layout: Csv, widths: set[int]) -> Iterator[Row]:
    """Cells. `widths` are the lengths a row may have, as far as they are known yet."""
    cells_of = _cell_cutter(layout)
    source = lines(file)
    if layout.skip_lines:
        source = dropwhile(lambda line: line[0] <= layout.skip_lines, source)
    ahead: deque[Line] = deque()
    while line := ahead.popleft() if ahead else next(source, None):
        number, raw, problem = line
        if problem is not None:
            yield Row(number, raw, None, problem)
            continue
        try:
            yield Row(number, raw, cells_of(raw))
        except _Unclosed:
            yield _over_lines(number, raw, cells_of, source, ahead, widths)
        except ValueError as error:
            yield Row(number, raw, None, Problem(str(error)))


def block_rows(file: io.BufferedReader, layout: Blocks) -> Iterator[Row]:
    """Objects of one text per line, with blank lines between them."""
    number, first, block = 0, 0, list[bytes]()
    size = 0
    while raw := file.readline(ROW_BYTES_MAX + 1):
        number += 1
        if raw.isspace():
            if block:
                yield _block(first, block, layout)
            block, size = [], 0
            continue
        first = first if block else number
        # What is too long is kept up to its bound, and then told.
        if size <= ROW_BYTES_MAX:
            block.append(raw.removeprefix(_BOM) if number == 1 else raw)
            size += len(raw)
    if block:
        yield _block(first, block, layout)


def decoder() -> "msgspec.json.Decoder[Any]":
    """A JSON decoder that keeps decimals as the text they were: no float comes near a quantity."""
    return msgspec.json.Decoder(float_hook=str)


class _Unclosed(Exception):
    """A quote was opened and the line ended."""


def _block(number: int, lines_of: list[bytes], layout: Blocks) -> Row:
    raw = b"".join(lines_of)
    if len(raw) > ROW_BYTES_MAX:
        detail = f"is longer than {ROW_BYTES_MAX} bytes; only its beginning was kept"
        return Row(number, raw, None, Problem(detail))
    if b"\0" in raw:
        return Row(number, raw, None, Problem("holds NUL bytes; it was damaged on its way"))
    try:
        return Row(number, raw, _named(raw.decode(layout.encoding), layout))
    except UnicodeDecodeError:
        detail = f"is not {layout.encoding}; declare the encoding it was written in"
    except ValueError as error:
        detail = str(error)
    return Row(number, raw, None, Problem(detail))


def _named(text: str, layout: Blocks) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for i, line in enumerate(text.splitlines()):
        name, separator, value = line.partition(layout.separator)
        if not separator:
            if i:
                raise ValueError(f"has no {layout.separator!r} in its line {i + 1}")
            name, value = layout.title, line
        name, value = name.strip(), _unquoted(value.strip(), layout.quote)
        # An attribute that is given several times is a list.
        if name in found:
            known = found[name]
            found[name] = [*(known if isinstance(known, list) else [known]), value]
        else:
            found[name] = value
    return found


def _unquoted(text: str, quote: str) -> str:
    if not quote or len(text) < 2 or not (text.startswith(quote) and text.endswith(quote)):
        return text
    return text[1:-1].replace("\\" + quote, quote).replace("\\\\", "\\")


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

    encoding = layout.encoding

    def cut(raw: bytes) -> list[str]:
        try:
            text = raw.decode(encoding).rstrip("\r\n")
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


def _over_lines(
    number: int, first: bytes, cells_of: Any, source: Iterator[Line], ahead: deque[Line], widths: set[int]
) -> Row:
    """A row with a line break inside quotes; if there is none, the line that opened the quote."""
    raw, taken = first, 0
    while taken < ROW_LINES_MAX and len(raw) <= ROW_BYTES_MAX:
        if taken == len(ahead):
            if (line := next(source, None)) is None:
                break
            ahead.append(line)
        if ahead[taken][2] is not None:
            break
        raw += ahead[taken][1]
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
        return Row(number, raw, cells)
    return Row(number, first, None, Problem("opens a quote that is not closed"))


def _listed(text: bytes, path: str, *, single: bool) -> list[msgspec.Raw]:
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
        if single and bytes(node).lstrip().startswith(b"{"):
            msgspec.json.decode(node, type=dict[str, msgspec.Raw])  # or the whole is not JSON
            return [msgspec.Raw(node)]
        return msgspec.json.decode(node, type=list[msgspec.Raw])
    except msgspec.ValidationError as error:
        raise UnreadableFile(f"{done} is not what the format says: {error}") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        if isinstance(error, UnreadableFile):
            raise
        raise UnreadableFile(f"is not JSON: {error}") from error
