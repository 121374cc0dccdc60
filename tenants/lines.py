"""Lines and labels in clear, on their way in: commands that name people are sealed by the writer.

A label says who or what a resource is for. It is found by a keyed hash of its words, whatever
their case and the spaces between them.
"""

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from ..domain.hierarchy import Identity
from ..domain.inventory import ChangeInventory, CorrectInventory, Line
from ..domain.life import ChangeIdentities, LabelResource
from ..domain.refusals import check_text
from .onboarding import Enrol
from .sealing import Sealer

Normalise = Callable[[str], str]


class SwapLines(Struct, frozen=True):
    """Give a resource other lines from a moment on."""

    resource: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    since: int = 0
    note: str = ""
    expected: int | None = None

    def sealed_by(self, sealer: Sealer) -> ChangeIdentities:
        added = tuple(identity_of(line, sealer) for line in self.added)
        removed = tuple(sealer.token(line) for line in self.removed)
        return ChangeIdentities(self.resource, added, removed, self.since, self.note, self.expected)

    def normalised(self, normal: Normalise) -> "SwapLines":
        return replace(self, added=tuple(map(normal, self.added)), removed=tuple(map(normal, self.removed)))


class LabelAs(Struct, frozen=True):
    """Say who or what a resource is for; "" takes it away."""

    resource: str
    label: str

    def sealed_by(self, sealer: Sealer) -> LabelResource:
        check_text("label", self.label, empty=True)
        return LabelResource(self.resource, *sealed_label(self.label, sealer))

    def normalised(self, normal: Normalise) -> "LabelAs":
        return self


class InventoryLine(Struct, frozen=True):
    """How a resource shall be: None leaves that as it is."""

    number: int
    resource: str
    node: str | None = None
    kind: str | None = None
    status: str | None = None
    since: int = 0
    lines: tuple[str, ...] | None = None
    label: str | None = None


class TakeStock(Struct, frozen=True):
    """Make the inventory be as these lines say: all of them, or nothing."""

    lines: tuple[InventoryLine, ...]
    note: str = ""

    def sealed_by(self, sealer: Sealer) -> ChangeInventory:
        return ChangeInventory(tuple(_sealed(line, sealer) for line in self.lines), self.note)

    def corrected_by(self, sealer: Sealer, job: str, shown: str) -> CorrectInventory:
        """With lines about moments that are over."""
        return CorrectInventory(job, self.sealed_by(sealer).lines, self.note, shown)

    def normalised(self, normal: Normalise) -> "TakeStock":
        def of(line: InventoryLine) -> InventoryLine:
            return line if line.lines is None else replace(line, lines=tuple(map(normal, line.lines)))

        return replace(self, lines=tuple(map(of, self.lines)))


Unsealed = Enrol | SwapLines | LabelAs | TakeStock
LINES_IN_CLEAR = (Enrol, SwapLines, LabelAs, TakeStock)


def identity_of(line: str, sealer: Sealer) -> Identity:
    token = sealer.token(line)
    return Identity(token, sealer.seal(token, line.encode(), token))


def label_token(label: str, sealer: Sealer) -> bytes:
    return sealer.token(f"label:{' '.join(label.split()).casefold()}")


def sealed_label(label: str, sealer: Sealer) -> tuple[bytes, bytes]:
    if not label.strip():
        return b"", b""
    token = label_token(label, sealer)
    return token, sealer.seal(token, label.encode(), token)


def _sealed(line: InventoryLine, sealer: Sealer) -> Line:
    lines = None if line.lines is None else tuple(identity_of(one, sealer) for one in line.lines)
    label = None if line.label is None else sealed_label(line.label, sealer)
    return Line(line.number, line.resource, line.node, line.kind, line.status, line.since, lines, label)
