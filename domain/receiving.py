"""Receiving: what files and streams brought, told to the log, so that every record is accounted for.

A charge, a rejection and a record in suspense are events of their own. A duplicate, a leg that was
folded into its call and a row that a format ignores are not: their numbers are told here. What a file
brought adds up, by source and in all, or it is not taken.
"""

from typing import ClassVar

from msgspec import Struct

from .refusals import Refused, check_text

SOURCES_MAX = 1_000
LATE = 86_400_000_000
"""Used more than a day before it came."""


class SourceCounts(Struct, frozen=True, array_like=True):
    """What became of one source's records. `received` is the sum of the four that follow."""

    source: str
    received: int
    charged: int
    duplicate: int
    suspended: int
    rejected: int
    unreadable: int = 0
    """Of those suspended."""
    late: int = 0
    """Of all but the duplicates: used more than a day before."""
    amount: int = 0
    """What was charged."""
    value: int = 0
    """What those suspended would cost, as far as this is known."""


class Tally(Struct):
    """The same while it is being counted."""

    received: int = 0
    charged: int = 0
    duplicate: int = 0
    suspended: int = 0
    rejected: int = 0
    unreadable: int = 0
    late: int = 0
    amount: int = 0
    value: int = 0

    def add(self, other: "Tally | SourceCounts") -> None:
        for name in FIGURES:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def of(self, source: str) -> SourceCounts:
        return SourceCounts(source, *(getattr(self, name) for name in FIGURES))


FIGURES = SourceCounts.__struct_fields__[1:]
"""What is counted of a source, a file and a day, wherever it is told."""
assert Tally.__struct_fields__ == FIGURES


class ImportBegun(Struct, frozen=True, array_like=True):
    """Somebody began to import a file, or went on with it. It is under way until it is told how it ended."""

    topic: ClassVar[str] = "import.begun"
    id: str
    name: str
    format: str
    digest: str
    """SHA-256 of the file as it lay there; "" where it could not be read twice."""


class ImportFinished(Struct, frozen=True, array_like=True):
    """All of a file has been received: what became of it."""

    topic: ClassVar[str] = "import.finished"
    id: str
    name: str
    format: str
    digest: str
    read: int
    """Rows: those received, merged and ignored."""
    merged: int
    ignored: int
    sources: tuple[SourceCounts, ...]
    again: bool = False
    """Whether a file with this very content had been imported before."""


class ImportRefused(Struct, frozen=True, array_like=True):
    """A file cannot be read, and nothing more of it will be: what is put right comes as another file."""

    topic: ClassVar[str] = "import.refused"
    id: str
    name: str
    format: str
    digest: str
    problem: str
    """What is wrong with it."""
    sources: tuple[SourceCounts, ...]
    """What was received of it before that showed, as far as it had been counted."""


class DuplicatesCounted(Struct, frozen=True, array_like=True):
    """What came by a door since the last of these, and led to no event of its own."""

    topic: ClassVar[str] = "usage.duplicates_counted"
    door: str
    sources: tuple[tuple[str, int], ...]
    """Duplicates by source."""
    merged: int
    ignored: int


class BeginImport(Struct, frozen=True, array_like=True):
    """Say that a file is being imported."""

    id: str
    name: str
    format: str
    digest: str = ""


class FinishImport(Struct, frozen=True, array_like=True):
    """Say that all of it has been received."""

    id: str
    read: int
    merged: int
    ignored: int
    sources: tuple[SourceCounts, ...]
    digest: str = ""


class RefuseImport(Struct, frozen=True, array_like=True):
    """Say that a file cannot be read, or not to its end."""

    id: str
    problem: str
    sources: tuple[SourceCounts, ...] = ()


class CountDuplicates(Struct, frozen=True, array_like=True):
    """Say what a stream brought that left no event."""

    door: str
    sources: tuple[tuple[str, int], ...]
    merged: int = 0
    ignored: int = 0


ReceivingCommand = BeginImport | FinishImport | RefuseImport | CountDuplicates
ReceivingEvent = ImportBegun | ImportFinished | ImportRefused | DuplicatesCounted


class Receiving:
    """Which imports are under way, or were left off; and which contents have been imported."""

    def __init__(self) -> None:
        self.open: dict[str, ImportBegun] = {}
        self.digests: set[str] = set()

    def decide(self, command: ReceivingCommand) -> ReceivingEvent:
        match command:
            case BeginImport(ident, name, format, digest):
                for field, text in (("id", ident), ("name", name), ("format", format)):
                    check_text(field, text)
                check_text("digest", digest, empty=True)
                return ImportBegun(ident, name, format, digest)
            case FinishImport():
                return self._finish(command)
            case RefuseImport():
                return self._refuse(command)
            case CountDuplicates(door, sources, merged, ignored):
                _check_counts(min((merged, ignored, *(count for _, count in sources))), len(sources))
                return DuplicatesCounted(door, sources, merged, ignored)

    def _begun(self, ident: str) -> ImportBegun:
        begun = self.open.get(ident)
        if begun is None:
            raise Refused("unknown_import", id=ident)
        return begun

    def _refuse(self, command: RefuseImport) -> ImportRefused:
        begun = self._begun(command.id)
        check_text("problem", command.problem)
        _check_counts(0, len(command.sources))
        for counts in command.sources:
            _check_adds_up(counts)
        about = (begun.id, begun.name, begun.format, begun.digest)
        return ImportRefused(*about, command.problem, command.sources)

    def _finish(self, command: FinishImport) -> ImportFinished:
        begun = self._begun(command.id)
        _check_counts(min(command.merged, command.ignored), len(command.sources))
        for counts in command.sources:
            _check_adds_up(counts)
        received = sum(counts.received for counts in command.sources)
        # Legs that are still awaited when a file ends become records: there are no more rows than this.
        if command.read != received + command.merged + command.ignored:
            raise Refused("counts_do_not_add_up", source=begun.name, received=received, read=command.read)
        digest = command.digest or begun.digest
        again = digest != "" and digest in self.digests
        rest = (command.read, command.merged, command.ignored, command.sources, again)
        return ImportFinished(begun.id, begun.name, begun.format, digest, *rest)

    def apply(self, event: ReceivingEvent) -> None:
        match event:
            case ImportBegun():
                self.open[event.id] = event
            case ImportFinished():
                self.open.pop(event.id, None)
                if event.digest:
                    self.digests.add(event.digest)
            case ImportRefused():
                self.open.pop(event.id, None)


def adds_up(counts: SourceCounts) -> bool:
    parts = counts.charged + counts.duplicate + counts.suspended + counts.rejected
    smallest = min(counts.charged, counts.duplicate, counts.suspended, counts.rejected, counts.unreadable)
    return counts.received == parts and smallest >= 0 and counts.unreadable <= counts.suspended


def _check_adds_up(counts: SourceCounts) -> None:
    if not adds_up(counts):
        told = counts.charged + counts.duplicate + counts.suspended + counts.rejected
        raise Refused("counts_do_not_add_up", source=counts.source, received=counts.received, read=told)


def _check_counts(least: int, sources: int) -> None:
    if least < 0 or sources > SOURCES_MAX:
        raise Refused("bad_counts", sources_max=SOURCES_MAX)
