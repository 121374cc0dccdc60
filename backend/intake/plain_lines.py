"""Plain lines: a body of nothing but plain lines of our own shape, read at once.

It gives the records, positions and counts that a `Reader` gives of the same body, or nothing: one
line that is out of the ordinary, and all of it is read as declared, from the beginning. Nothing has
been charged by then. It is read in the event loop, a little at a time: threads that decode and a
loop that charges would wait for each other longer than the reading takes.
"""

import asyncio
from io import BytesIO
from typing import BinaryIO

from ...domain.usage import Usage
from .batches import Positions, Records
from .declaration import Format
from .own_shape import plain_reader
from .reading import ReadingCounts

BYTES_MAX = 1 << 20
"""Some 5,000 records: more is read as it is charged, and not kept in memory."""
LINES_AT_ONCE = 500
"""Read before others get their turn: half a millisecond in native code, some four without."""


class PlainLines:
    """What `read_plainly` has read, in batches."""

    def __init__(self, name: str, records: list[Usage], batch: int) -> None:
        self._told = Records(records, Positions(name, range(1, len(records) + 1)))
        self._batch = batch
        self._next = 0
        self.counts = ReadingCounts(read=len(records), records=len(records))

    @property
    def all_at_once(self) -> Records | None:
        """All of it, where it is one batch."""
        return self._told if len(self._told) <= self._batch else None

    async def next(self) -> Records:
        told, first, upto = self._told, self._next, self._next + self._batch
        self._next = upto
        return Records(told.records[first:upto], told.positions[first:upto])


async def read_plainly(stream: BinaryIO, format: Format, name: str, batch: int) -> PlainLines | None:
    """None where there is a line that is not plain, or too much of it."""
    reader = plain_reader(format)
    if reader is None or not isinstance(stream, BytesIO):
        return None
    body = stream.getvalue()
    if not 0 < len(body) <= BYTES_MAX:
        return None
    records: list[Usage] = []
    at = upto = 0
    while True:
        upto += LINES_AT_ONCE
        at = reader.read(body, at, LINES_AT_ONCE, records)
        if at == len(body):
            return PlainLines(name or "input", records, batch)
        if len(records) < upto:
            return None
        await asyncio.sleep(0)
