"""Watching: the files of a folder charged one after the other, as they become whole.

Each file is read to its end before the next one. What cannot be reached for a while is tried again,
with the file where it was; what cannot be read is refused and holds up nobody.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import structlog

from .door import IntakeReport
from .folder import Folder
from .unpacking import UnreadableFile

POLL_SECONDS = 1.0
RETRY_SECONDS = 5.0

log = structlog.get_logger()

Charge = Callable[[BinaryIO, str, Callable[[IntakeReport], None]], Awaitable[IntakeReport]]
"""Charges a stream of this name, and tells how far it has come."""
Told = Callable[[Path, dict[str, Any]], None]
"""Hears where a file went, and its report."""


async def watch(folder: Folder, charge: Charge, told: Told, *, about: dict[str, str], once: bool) -> int:
    """Charge every file, until cancelled; or once all are done that were there. How many were refused.

    `about` goes into each report. A folder is watched by one process at a time.
    """
    refused = 0
    with folder.held():
        while True:
            files, others = folder.waiting(time.monotonic())
            if once and not files and not others:
                return refused
            try:
                for file in files:
                    where, report = await _taken_up(folder, file, charge, about)
                    told(where, report)
                    refused += "problem" in report
            except Exception as error:
                if once:
                    raise
                # What cannot be reached now may be reached later. The files stay, in their order.
                log.warning("a file could not be charged yet, it is tried again", error=repr(error))
                await asyncio.sleep(RETRY_SECONDS)
            if not files:
                await asyncio.sleep(POLL_SECONDS)


async def _taken_up(
    folder: Folder, file: Path, charge: Charge, about: dict[str, str]
) -> tuple[Path, dict[str, Any]]:
    resumed = folder.begin(file)
    report: dict[str, Any] = {"file": file.name, **about, "began_at": _now(), "interrupted_before": resumed}
    so_far = IntakeReport()

    def heard(told: IntakeReport) -> None:
        nonlocal so_far
        so_far = told

    with file.open("rb") as stream:
        digest = await asyncio.to_thread(_digest, stream)
        report |= {"bytes": stream.tell(), "sha256": digest}
        stream.seek(0)
        try:
            so_far = await charge(stream, file.name, heard)
        except UnreadableFile as error:
            report["problem"] = str(error)
    report |= {"ended_at": _now(), **msgspec.structs.asdict(so_far)}
    return folder.finish(file, report, refused="problem" in report), report


def _digest(stream: BinaryIO) -> str:
    return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
