"""Imports: files, told to the log when they begin and when all of them has been received.

An import that was killed shows as unfinished. The same file again goes on with it: what was charged
before is a duplicate then. What cannot be read shows as refused, with the reason. A file whose very
content was imported before is imported again, and said to be: each of its records is a duplicate.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from uuid import UUID, uuid4

from msgspec import Struct

from ...domain.receiving import (
    SOURCES_MAX,
    BeginImport,
    FinishImport,
    RefuseImport,
    SourceCounts,
    Tally,
)
from ...domain.refusals import TEXT_MAX
from ...projections.accuracy import imports_of
from ...tenants.isolation import Isolation
from ..engine import Engine
from ..following import catch_up
from .declaration import Format
from .door import IntakeReport, charge_stream
from .unpacking import UnreadableFile

PIECE_BYTES = 1 << 20
REASON = "it cannot be read"


class Known(Struct, frozen=True):
    """What is known of a file before it is read."""

    digest: str
    again: bool
    """Whether this very content has been imported to its end."""
    unfinished: str
    """The import of it that was left off; "" for none."""


async def known(engine: Engine, tenant: UUID, path: str) -> Known:
    """Of what can be read only once, nothing is known."""
    return await engine.in_thread(lambda: _known(engine.isolation, tenant, digest_of(path)))


def _known(isolation: Isolation, tenant: UUID, digest: str) -> Known:
    if not digest:
        return Known("", again=False, unfinished="")
    catch_up(isolation, tenant)
    with isolation.transaction(tenant) as db:
        before = imports_of(db, digest)
    left = [row.import_id for row in before if row.state == "unfinished"]
    finished = any(row.finished_seq for row in before)
    return Known(digest, again=finished, unfinished=left[0] if left else "")


async def import_stream(
    engine: Engine,
    tenant: UUID,
    stream: BinaryIO,
    format: Format,
    about: Known,
    *,
    time_zone: str,
    actor: str,
    source: str = "",
    name: str = "",
    progress: Callable[[IntakeReport], None] | None = None,
) -> IntakeReport:
    """Charge a file, and tell the log what it brought, or why it is refused. Raises as `charge_stream`."""
    ident = about.unfinished or uuid4().hex
    so_far = IntakeReport()

    def heard(report: IntakeReport) -> None:
        nonlocal so_far
        so_far = report
        if progress is not None:
            progress(report)

    begin = BeginImport(ident, _printable(name), _printable(format.name), about.digest)
    await engine.submit(tenant, begin, f"import:begin:{uuid4()}", actor)
    try:
        report = await charge_stream(
            *(engine, tenant, stream, format),
            time_zone=time_zone,
            actor=actor,
            source=source,
            name=name,
            progress=heard,
        )
    except UnreadableFile as error:
        refuse = RefuseImport(ident, _printable(str(error), REASON), counts_of(so_far))
        await engine.submit(tenant, refuse, f"import:refuse:{uuid4()}", actor)
        raise
    finish = FinishImport(ident, report.read, report.merged, report.ignored, counts_of(report))
    await engine.submit(tenant, finish, f"import:finish:{uuid4()}", actor)
    return report


def counts_of(report: IntakeReport) -> tuple[SourceCounts, ...]:
    """By source; beyond a thousand of them the rest together, under no name."""
    named = sorted(report.sources.items())
    rest = Tally()
    for _, tally in named[SOURCES_MAX - 1 :]:
        rest.add(tally)
    told = [*named[: SOURCES_MAX - 1], *([("", rest)] if rest.received else [])]
    return tuple(tally.of(source) for source, tally in told)


def digest_of(path: str) -> str:
    """SHA-256 of a file; "" of a pipe, which gives what it has only once."""
    if path == "-" or not Path(path).is_file():
        return ""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _printable(text: str, otherwise: str = "file") -> str:
    """A file may be called anything."""
    return "".join(letter for letter in text if letter.isprintable())[:TEXT_MAX] or otherwise
