"""Rereading: one row of a file read again by itself, by a format that was corrected since.

What could not be read is kept as it stood, with the header of its file where that had one: a row without
it says nothing. A member of a JSON document is read as the document's only one. What stood around the
row, such as lines to skip or rows of types, is not asked for again.
"""

import io

import msgspec
from msgspec.structs import replace

from ...domain.usage import UnreadableRecord, UsageRecord
from .declaration import Format, Json
from .reading import read_records
from .unpacking import UnreadableFile

_WITH_HEADER = b"\xc1"
"""Begins no text in UTF-8, so what was kept without a header is told apart."""
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[str, str]).decode


def kept(record: UnreadableRecord) -> bytes:
    """What is sealed of a record that could not be read."""
    if not record.header:
        return record.raw.encode()
    return _WITH_HEADER + _pack((record.header, record.raw))


def cut(plain: bytes) -> tuple[str, str]:
    """The header, if one was kept, and the row, of what was unsealed."""
    return _unpack(plain[1:]) if plain.startswith(_WITH_HEADER) else ("", plain.decode())


def read_alone(
    header: str, raw: str, format: Format, *, time_zone: str, source: str, name: str
) -> UsageRecord | UnreadableRecord | str:
    """The record of a row, or why there is none."""
    named = format.kind == "csv" and format.csv.header != "no"
    if named and format.csv.header == "yes" and not header:
        return "the header of its file was not kept with it: give the record by hand"
    text = f"{header}\n{raw}\n" if named and header else f"{raw}\n"
    stream = io.BytesIO(text.encode())
    try:
        read = read_records(stream, _alone(format), time_zone=time_zone, name=name, source=source)
        found = list(read)
    except UnreadableFile as error:
        return str(error)
    return found[0] if len(found) == 1 else "it is not one record in this format"


def _alone(format: Format) -> Format:
    """The same for one row that is text already."""
    return replace(
        format,
        csv=replace(format.csv, skip_lines=0, encoding="utf-8"),
        blocks=replace(format.blocks, encoding="utf-8"),
        json=Json(closed=format.json.closed, single=True),
    )
