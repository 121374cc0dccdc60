"""`allotment bench intake`: how fast files become rated usage, where the time goes, and what it keeps.

Each process reads its part of a CSV file, normalises it, finds whose usage it is, rates it and counts it
against balances and limits, as the writer does; nothing is sealed or stored, which `bench charge`
measures. Memory is looked at while a file of any size streams through one reader.
"""

import asyncio
import io
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

from msgspec import Struct

from ...domain.tenant import OpenTenant, Tenant
from ...domain.usage import UsageRecord
from ...tenants.sealing import Sealer
from ..engine import moment, wall_clock
from ..intake.formats import load_format
from ..intake.gate import checked
from ..intake.mapping import compiled
from ..intake.numbers import number_of
from ..intake.reading import Reader, _locator
from ..intake.rows import csv_rows
from ..intake.unpacking import opened
from ..keys import command_key
from ..log import MemoryLog
from ..tuning import tuned
from ..writer import Writer
from .folders import own_folder
from .workload import ACTOR, Shape, commands, furnish, records, rss_bytes

BATCH = 500
STAGE_RECORDS = 20_000
LOOKS = 20
"""How often memory is looked at while a file streams through."""
COLUMNS = "id,type,line,counterpart,direction,start,quantity\n"
FORMAT = "generic-csv"

Progress = Callable[[str], None]


class Plan(Struct, frozen=True):
    """What is measured, and how often."""

    rounds: int = 2
    records: int = 200_000
    """Of all processes together, in each round."""
    processes: int = 2
    devices: int = 5_000
    depth: int = 5
    megabytes: int = 200
    """Of the file that streams through while memory is looked at."""

    @property
    def shape(self) -> Shape:
        return Shape(self.devices, self.depth)


def run(plan: Plan, progress: Progress) -> dict[str, Any]:
    """All rounds; figures by name, ready to print."""
    measured: dict[str, list[float]] = {}
    with own_folder() as home:
        progress(f"writing {plan.records:,} records as CSV, for {plan.processes} processes")
        parts = _parts(plan, home)
        for number in range(1, plan.rounds + 1):
            progress(f"round {number} of {plan.rounds}: read, normalise, guide, rate")
            _round(plan, parts, measured)
    progress(f"streaming {plan.megabytes:,} MB through one reader")
    measured |= streamed(plan.megabytes)
    told = {name: statistics.median(figures) for name, figures in measured.items()}
    spread = {name: [min(figures), max(figures)] for name, figures in measured.items()}
    return {**told, "spread": spread}


def _parts(plan: Plan, home: Path) -> list[Path]:
    """A file for each process."""
    parts, now = [], wall_clock()
    share = plan.records // plan.processes
    for number in range(plan.processes):
        part = home / f"part-{number}.csv"
        rows = (_row(record) for record in records(plan.shape, share, now, number))
        part.write_text(COLUMNS + "".join(rows), encoding="utf-8")
        parts.append(part)
    return parts


def _row(record: UsageRecord) -> str:
    began = moment(record.started_at - record.started_at % 1_000_000).isoformat()
    return (
        f"{record.record_id},{record.usage_type},{record.line},{record.counterpart},{record.direction},{began},"
        f"{record.quantity}\n"
    )


def _round(plan: Plan, parts: list[Path], measured: dict[str, list[float]]) -> None:
    context = multiprocessing.get_context("spawn")
    gate, answers = context.Barrier(len(parts)), context.Queue()
    workers = [
        # If we are stopped so are they, not waited for.
        context.Process(target=_work, args=(part, plan.shape, gate, answers), daemon=True)
        for part in parts
    ]
    for worker in workers:
        worker.start()
    told = [answers.get() for _ in workers]
    for worker in workers:
        worker.join()
    seconds = max(one["ended"] for one in told) - min(one["began"] for one in told)
    count = sum(one["records"] for one in told)
    measured.setdefault("rated_per_s", []).append(count / seconds)
    measured.setdefault("rated_per_cpu_s", []).append(count / sum(one["cpu_s"] for one in told))
    for name in told[0]["stages"]:
        figure = statistics.mean(one["stages"][name] for one in told)
        measured.setdefault(f"{name}_us", []).append(figure)


def _work(part: Path, shape: Shape, gate: Any, answers: Any) -> None:
    """One process: its part of the file to charges, then the stages one by one."""
    with tuned():
        state, sealer = asyncio.run(_tenant(shape))
        now = wall_clock()
        gate.wait()
        began, cpu = time.monotonic(), time.process_time()
        count = _charge_file(part, state, sealer, now)
        ended, cpu = time.monotonic(), time.process_time() - cpu
        stages = _stages(part, state, sealer, now)
        answers.put({"records": count, "began": began, "ended": ended, "cpu_s": cpu, "stages": stages})


async def _tenant(shape: Shape) -> tuple[Tenant, Sealer]:
    """A tenant of this shape, in memory, with its period open."""
    tenant = uuid4()
    sealer = Sealer(tenant, tenant.bytes * 2, {})
    writer = Writer(tenant, MemoryLog(), lambda: sealer, wall_clock)
    await writer.start()
    try:
        opened = OpenTenant("Benchmark", "Europe/Berlin", "EUR", "bench")
        await writer.submit(opened, command_key("open"), ACTOR)
        await furnish(writer, commands(shape), wall_clock)
        await writer.submit_usage(records(shape, BATCH, wall_clock(), 99), ACTOR)
        return writer.state, writer._deciding().sealer
    finally:
        await writer.close()


def _charge_file(part: Path, state: Tenant, sealer: Sealer, now: int) -> int:
    charge, token, count = state.plain.charge, sealer.token, 0
    with part.open("rb") as stream:
        found = iter(Reader(stream, load_format(FORMAT), time_zone="UTC", name=part.name))
        while batch := list(islice(found, BATCH)):
            for record in map(checked, batch):
                assert isinstance(record, UsageRecord), record
                charged = charge(record, token(record.line), b"", now)
                assert charged is not None, "the workload is charged plainly"
            count += len(batch)
    return count


def _stages(part: Path, state: Tenant, sealer: Sealer, now: int) -> dict[str, float]:
    """Microseconds of each stage for a record, one stage after the other."""
    with part.open("rb") as stream:
        head = b"".join(islice(stream, STAGE_RECORDS + 1))
    format = load_format(FORMAT)
    read_all = Reader(io.BytesIO(head), format, time_zone="UTC")
    found = [record for record in read_all if isinstance(record, UsageRecord)]
    rows = [row.value for row in csv_rows(opened(io.BytesIO(head)), format.csv, set())]
    read = compiled(format, _locator(rows[0]), "UTC", "").read
    charge, token, guide = state.plain.charge, sealer.token, state.hierarchy.guide
    mapped = _per_record(lambda: [read(row) for row in rows[1:]])
    normalised = _per_record(
        lambda: [(number_of(one.line, "", 6), number_of(one.counterpart, "", 6)) for one in found]
    )
    guided = _per_record(lambda: [guide(token(one.line), one.started_at) for one in found])
    rated = _per_record(lambda: [charge(one, token(one.line), b"", now) for one in found])
    return {
        "parse": _per_record(lambda: list(csv_rows(opened(io.BytesIO(head)), format.csv, set()))),
        "map": max(0.0, mapped - normalised),
        "normalise": normalised,
        "check": _per_record(lambda: [checked(one) for one in found]),
        "guide": guided,
        "rate_and_count": max(0.0, rated - guided),
    }


def _per_record(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) / STAGE_RECORDS * 1e6


def streamed(megabytes: int) -> dict[str, list[float]]:
    """How fast one reader is, and what the process holds, while so much streams through it."""
    size = megabytes * 1_000_000
    source = _Endless(size)
    reader = Reader(source, load_format(FORMAT), time_zone="UTC", name="endless")  # type: ignore[arg-type]
    began, looks, count = time.process_time(), list[int](), 0
    found = iter(reader)
    while batch := list(islice(found, 10_000)):
        count += len(batch)
        if source.given >= len(looks) * size // LOOKS:
            looks.append(rss_bytes())
    assert reader.counts.unreadable == 0, "what we write can be read"
    # What is remembered of numbers and times fills up to its bounds in the first part of the file.
    settled = looks[: len(looks) // 2]
    return {
        "streamed_mb": [source.given / 1e6],
        "streamed_records_per_cpu_s": [count / (time.process_time() - began)],
        "rss_mb_first_half_max": [max(settled) / 1e6],
        "rss_mb_max": [max(looks) / 1e6],
    }


class _Endless(io.RawIOBase):
    """A CSV file of a given size that is nowhere kept."""

    def __init__(self, size: int) -> None:
        self._size, self.given = size, 0
        self._rows = self._made()
        self._left = COLUMNS.encode()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while len(self._left) < size and self.given < self._size:
            self._left += "".join(islice(self._rows, 1_000)).encode()
        block, self._left = self._left[:size], self._left[size:]
        self.given += len(block)
        return block if self.given <= self._size or b"\n" not in block else self._ended(block)

    def _ended(self, block: bytes) -> bytes:
        """The last lines that fit, whole."""
        self._left = b""
        return block[: block.rindex(b"\n") + 1]

    def _made(self) -> Iterator[str]:
        chance, number = random.Random(1), 0  # noqa: S311  (a benchmark, not a secret)
        start = 1_772_366_400
        while True:
            number += 1
            if number % 1_000 == 1:
                began = moment((start + number // 1_000) * 1_000_000).isoformat()
            line, other = chance.randrange(10_000), chance.randrange(10**8)
            yield (
                f"call-{number},voice,+447700{line:07d},+4420{other:08d},outbound,{began},"
                f"{chance.randrange(3_600)}\n"
            )
