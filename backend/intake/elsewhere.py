"""Elsewhere: a file read in a process of its own, while this one charges what came of it.

Reading needs nothing of the tenant's state, and half of what a record from a file costs is reading.
The other process does what `Reader` does, and tells its records in order, in batches, over a pipe:
it stands still when we do, and ends when we do.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import msgspec
from msgspec import Struct

from ...domain.usage import UnreadableRecord, UsageRecord
from .batches import Records
from .declaration import Format
from .formats import FormatError
from .reading import Reader, ReadingCounts
from .unpacking import UnreadableFile

BATCH_RECORDS = 500
FRAME_BYTES_MAX = 1 << 30
"""Far beyond what a batch of the longest rows takes."""
WORTHWHILE_BYTES = 2_000_000
"""A process takes a moment to start: smaller files are read sooner here."""
_PROGRAM = ("-c", "from allotment.backend.intake.elsewhere import main; main()")
_HEAD = 4


class Task(Struct, frozen=True):
    """What is read, and how."""

    file: str
    format: Format
    time_zone: str
    name: str
    source: str


class Batch(Struct):
    """Records in order, the unreadable ones with their places among the others."""

    records: list[UsageRecord]
    unreadable: list[tuple[int, UnreadableRecord]]
    positions: list[int]
    """Rows; empty for calls, which may have stood in many."""
    counts: ReadingCounts
    problem: str = ""
    """Why the file cannot be read any further."""
    kind: str = ""


class Elsewhere:
    """The batches that the other process tells."""

    def __init__(self, task: Task, process: asyncio.subprocess.Process) -> None:
        self.counts = ReadingCounts()
        self._task = task
        self._process = process
        self._decode = msgspec.msgpack.Decoder(Batch).decode

    async def next(self) -> Records:
        """The next records, each with the position where it stood; none at the end."""
        assert self._process.stdout is not None
        try:
            head = await self._process.stdout.readexactly(_HEAD)
            frame = await self._process.stdout.readexactly(int.from_bytes(head, "big"))
        except asyncio.IncompleteReadError as error:
            code = await self._process.wait()
            if code or error.partial:
                raise OSError(0, f"the process that reads {self._task.name} ended with {code}") from error
            return Records([], [])
        batch = self._decode(frame)
        self.counts = batch.counts
        if batch.problem:
            raise (FormatError if batch.kind == "FormatError" else UnreadableFile)(batch.problem)
        # The last batch is empty, and brings the last counts.
        return _together(batch, self._task.name)


@asynccontextmanager
async def reading_elsewhere(task: Task) -> AsyncIterator[Elsewhere]:
    """A process that reads a file, for as long as the block lasts."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *_PROGRAM,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        # Ctrl-C is for us; its pipe then ends it.
        start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    try:
        process.stdin.write(msgspec.msgpack.encode(task))
        process.stdin.write_eof()
        yield Elsewhere(task, process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def main() -> None:
    """What the other process does: the task from stdin, batches to stdout."""
    task = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Task)
    out = sys.stdout.buffer
    encode = msgspec.msgpack.Encoder().encode
    with contextlib.suppress(BrokenPipeError):
        for batch in _batches(task):
            frame = encode(batch)
            assert len(frame) <= FRAME_BYTES_MAX, "a batch has a bound, and so has a row"
            out.write(len(frame).to_bytes(_HEAD, "big") + frame)
            out.flush()


def _batches(task: Task) -> Iterator[Batch]:
    counts = ReadingCounts()
    try:
        with Path(task.file).open("rb") as stream:
            reader = Reader(stream, task.format, time_zone=task.time_zone, name=task.name, source=task.source)
            counts = reader.counts
            found = iter(reader)
            while batch := _batch(found, reader):
                yield batch
            # What was read after the last record, such as rows that are ignored.
            yield Batch([], [], [], counts)
    except (UnreadableFile, FormatError) as error:
        yield Batch([], [], [], counts, str(error), type(error).__name__)


def _batch(found: Iterator[UsageRecord | UnreadableRecord], reader: Reader) -> Batch | None:
    records, unreadable, positions = list[UsageRecord](), list[tuple[int, UnreadableRecord]](), list[int]()
    for place, record in enumerate(islice(found, BATCH_RECORDS)):
        if isinstance(record, UsageRecord):
            records.append(record)
        else:
            unreadable.append((place, record))
        positions.append(reader.row)
    return Batch(records, unreadable, positions, reader.counts) if positions else None


def _together(batch: Batch, name: str) -> Records:
    found: list[UsageRecord | UnreadableRecord] = list(batch.records)
    for place, record in batch.unreadable:
        found.insert(place, record)
    return Records(found, [f"{name}:{row}" if row else "" for row in batch.positions])
