"""The door of usage: the same for files, HTTP and NATS.

A stream is read as its format says, in batches; each batch is charged, and acknowledged only
when it is stored. Sent twice, by whichever door, a record is charged once: so whoever was
interrupted starts again from the beginning.
"""

import asyncio
import os
import stat
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO
from uuid import UUID

import msgspec
from msgspec import Struct

from ...domain.receiving import LATE, Tally
from ...domain.usage import UnreadableRecord, Usage, UsageRecord
from ...tenants.sealing import load_sealer
from ..asking import UsageOutcome
from ..engine import Engine
from ..log import Group, Head, PostgresLog, Row
from ..native import using
from ..writer import Busy, Writer
from .batches import Records
from .declaration import Format
from .elsewhere import WORTHWHILE_BYTES, Elsewhere, Task, reading_elsewhere
from .plain_lines import PlainLines, read_plainly
from .reading import Reader, ReadingCounts
from .unpacking import UnreadableFile

BATCH_RECORDS = 500
BATCHES_IN_FLIGHT = 10
PROBLEMS_TOLD_MAX = 100
FIELD_NAMES = {"record_id": "id", "usage_type": "type", "started_at": "start"}
"""What a sender calls a field of a record, where it is not called the same: as formats do."""

Charges = Coroutine[Any, Any, list[UsageOutcome]]
Charge = Callable[[Sequence[Usage], Sequence[str]], Charges]
"""Charges records, each with the position where it stood."""


class Problem(Struct, frozen=True):
    """A record that was not simply charged, and why."""

    record_id: str
    status: str
    reason: str
    position: str = ""
    detail: str = ""
    """What is wrong with which field, and what to do about it."""
    field: str = ""
    """That field alone, as the sender calls it; "" where it is the record as a whole."""


class IntakeReport(Struct):
    """What became of a stream. `received` = charged + duplicate + suspended + rejected."""

    received: int = 0
    charged: int = 0
    duplicate: int = 0
    suspended: int = 0
    rejected: int = 0
    read: int = 0
    """Rows of the stream: `received` + `merged` + `ignored`."""
    merged: int = 0
    """Legs that were folded into the record of their call."""
    ignored: int = 0
    reasons: dict[str, int] = msgspec.field(default_factory=dict)
    problems: list[Problem] = msgspec.field(default_factory=list)
    """The first hundred."""
    sources: dict[str, Tally] = msgspec.field(default_factory=dict)
    now: int = 0
    """When it began."""

    def count(self, records: Records, outcomes: Sequence[UsageOutcome]) -> None:
        if self._count_charged(records, outcomes):
            return
        self.received += len(records)
        for (record, position), outcome in zip(records, outcomes, strict=True):
            setattr(self, outcome.status, getattr(self, outcome.status) + 1)
            _count(self._tally(record.source), record, outcome, self.now)
            if outcome.reason:
                self.reasons[outcome.reason] = self.reasons.get(outcome.reason, 0) + 1
                if len(self.problems) < PROBLEMS_TOLD_MAX:
                    self.problems.append(_problem(record, position, outcome))

    def _count_charged(self, records: Records, outcomes: Sequence[UsageOutcome]) -> bool:
        """The same at once, for a batch of one source that was all charged, as most are; else False."""
        together = _charged_together(records.records, outcomes, self.now - LATE)
        if together is None:
            return False
        source, amount, late = together
        tally = self._tally(source)
        for counts in (self, tally):
            counts.received += len(records)
            counts.charged += len(records)
        tally.amount += amount
        tally.late += late
        return True

    def _tally(self, source: str) -> Tally:
        tally = self.sources.get(source)
        if tally is None:
            tally = self.sources[source] = Tally()
        return tally


def _charged_together(
    records: list[Usage], outcomes: Sequence[UsageOutcome], before: int
) -> tuple[str, int, int] | None:
    """Where all were charged, and of one source: the source, what they cost, and how many began before."""
    native = using.native()
    if native is not None and isinstance(outcomes, list):
        return native.charged_together(records, outcomes, before)
    amounts = [one.amount for one in outcomes if one.status == "charged" and not one.reason]
    starts = [record.started_at for record in records if record.__class__ is UsageRecord]
    sources = {record.source for record in records}
    if not len(amounts) == len(starts) == len(records) or len(sources) != 1:
        return None
    return sources.pop(), sum(amounts), sum(1 for start in starts if start < before)


def _count(tally: Tally, record: Usage, outcome: UsageOutcome, now: int) -> None:
    tally.received += 1
    status = outcome.status
    if status == "charged":
        tally.charged += 1
        tally.amount += outcome.amount
    else:
        setattr(tally, status, getattr(tally, status) + 1)
    if status == "suspended":
        tally.value += outcome.amount
    if not isinstance(record, UsageRecord):
        tally.unreadable += status == "suspended"
    elif now - record.started_at > LATE and status != "duplicate":
        tally.late += 1


async def charge_stream(
    engine: Engine,
    tenant: UUID,
    stream: BinaryIO,
    format: Format,
    *,
    time_zone: str,
    actor: str,
    source: str = "",
    name: str = "",
    patient: bool = True,
    packed: bool = True,
    door: str = "",
    progress: Callable[[IntakeReport], None] | None = None,
) -> IntakeReport:
    """Charge every record of a stream; the report, when all of it is stored.

    `packed` is whether it may be compressed: of what comes from outside, others decide that.
    With a `door` what leaves no event is counted there, and told to the log in a while.

    Raises UnreadableFile, FormatError; and where it is not `patient`, Busy: then what was
    taken so far stands, and the whole may be sent again.
    """

    def charge(records: Sequence[Usage], positions: Sequence[str]) -> Charges:
        return engine.charge(tenant, records, actor, positions)

    with engine.using(tenant):
        if packed and (file := _worth_a_process(stream)):
            task = Task(file, format, time_zone, name or "input", source)
            async with reading_elsewhere(task) as elsewhere:
                report = await _charge(engine, charge, elsewhere, patient=patient, progress=progress)
        else:
            plain = None if packed else await read_plainly(stream, format, name, BATCH_RECORDS)
            if plain is None:
                reader = Reader(stream, format, time_zone=time_zone, name=name, source=source, packed=packed)
            if plain is not None and (batch := plain.all_at_once) is not None:
                report = IntakeReport(now=engine.clock(), read=plain.counts.read)
                report.count(batch, await _submit(charge, batch, patient=patient))
                if progress is not None:
                    progress(report)
            else:
                here = plain or _Here(engine, reader)
                report = await _charge(engine, charge, here, patient=patient, progress=progress)
    if door:
        engine.tallies.add(tenant, door, report)
    return report


async def dry_run(
    engine: Engine,
    tenant: UUID,
    stream: BinaryIO,
    format: Format,
    *,
    time_zone: str,
    source: str = "",
    name: str = "",
    progress: Callable[[IntakeReport], None] | None = None,
) -> IntakeReport:
    """What charging a stream would do now, decided by the same code, with nothing stored."""
    writer = Writer(
        tenant,
        _Shadow(PostgresLog(engine.isolation, tenant)),
        lambda: load_sealer(engine.isolation, engine.root, tenant),
        engine.clock,
    )
    await writer.start()

    def charge(records: Sequence[Usage], positions: Sequence[str]) -> Charges:
        return writer.submit_usage(records, "dry-run", positions)

    try:
        reader = Reader(stream, format, time_zone=time_zone, name=name, source=source)
        return await _charge(engine, charge, _Here(engine, reader), patient=True, progress=progress)
    finally:
        await writer.close()


class _Here:
    """The records of a reader in this process, read in a thread."""

    def __init__(self, engine: Engine, reader: Reader) -> None:
        self._engine = engine
        self._reader = reader
        self._records = iter(reader)

    @property
    def counts(self) -> ReadingCounts:
        return self._reader.counts

    async def next(self) -> Records:
        return await self._engine.in_thread(lambda: _next(self._reader, self._records))


def _worth_a_process(stream: BinaryIO) -> str:
    """The file behind a stream, if it is a whole one, large enough, and there is a core to read it on."""
    name = getattr(stream, "name", None)
    if not isinstance(name, str | os.PathLike) or (os.cpu_count() or 1) < 2:
        return ""
    try:
        stated = os.stat(name)
        same = os.fstat(stream.fileno())
        whole = stat.S_ISREG(stated.st_mode) and stated.st_ino == same.st_ino and stream.tell() == 0
    except OSError:
        return ""
    return os.fspath(name) if whole and stated.st_size >= WORTHWHILE_BYTES else ""


async def _charge(
    engine: Engine,
    charge: Charge,
    source: "_Here | PlainLines | Elsewhere",
    *,
    patient: bool,
    progress: Callable[[IntakeReport], None] | None,
) -> IntakeReport:
    report = IntakeReport(now=engine.clock())
    flying: deque[tuple[Records, asyncio.Task[list[UsageOutcome]]]] = deque()
    damage: UnreadableFile | None = None
    try:
        try:
            while batch := await source.next():
                flying.append((batch, asyncio.create_task(_submit(charge, batch, patient=patient))))
                if len(flying) >= BATCHES_IN_FLIGHT:
                    await _land(flying, report, progress)
        except UnreadableFile as error:
            # What was read before it is charged, and told.
            damage = error
        while flying:
            await _land(flying, report, progress)
    finally:
        for _, task in flying:
            task.cancel()
        await asyncio.gather(*(task for _, task in flying), return_exceptions=True)
    if damage is not None:
        raise damage
    counts = source.counts
    report.read, report.merged, report.ignored = counts.read, counts.merged, counts.ignored
    return report


async def _land(
    flying: "deque[tuple[Records, asyncio.Task[list[UsageOutcome]]]]",
    report: IntakeReport,
    progress: Callable[[IntakeReport], None] | None,
) -> None:
    batch, task = flying[0]
    outcomes = await task
    flying.popleft()
    report.count(batch, outcomes)
    if progress is not None:
        progress(report)


async def _submit(charge: Charge, batch: Records, *, patient: bool) -> list[UsageOutcome]:
    while True:
        try:
            return await charge(batch.records, batch.positions)
        except Busy as busy:
            if not patient:
                raise
            await asyncio.sleep(busy.retry_after_ms / 1_000)


def _next(reader: Reader, records: Iterator[Usage]) -> Records:
    found, positions = list[Usage](), list[str]()
    for record in islice(records, BATCH_RECORDS):
        found.append(record)
        positions.append(reader.position)
    return Records(found, positions)


def _problem(record: Usage, position: str, outcome: UsageOutcome) -> Problem:
    field, detail = FIELD_NAMES.get(outcome.field, outcome.field), outcome.detail
    if isinstance(record, UnreadableRecord):
        position = record.position or position
        if record.reason == outcome.reason:
            # A column, called as its format calls it.
            field, detail = record.field, record.detail
    told = _naming(field, detail)
    return Problem(record.record_id, outcome.status, outcome.reason, position, told, field)


def _naming(field: str, detail: str) -> str:
    """What is wrong, with the field that is, where it does not begin with it."""
    if not field or not field.isprintable() or detail.startswith(f"{field} "):
        return detail
    return f"{field}: {detail}"


class _Shadow:
    """A log that can be read and claimed, and stores nothing."""

    def __init__(self, store: PostgresLog) -> None:
        self._store = store
        self._head = Head(0, 0, [])

    def claim(self) -> Head:
        self._head = self._store.head()
        return self._head

    def head(self) -> Head:
        return self._head

    def append(self, group: Group) -> None:
        """Nothing is stored."""

    def read(self, after: int = 0, limit: int = 10_000, upto: int | None = None) -> list[Row]:
        return self._store.read(after, limit, upto)

    def find(self, command_keys: Sequence[bytes]) -> list[Row]:
        return self._store.find(command_keys)
