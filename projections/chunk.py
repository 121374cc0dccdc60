"""A chunk of the log, sorted once by what it tells of, for all views that fold it.

Events name members by id, views know them by ordinal: `Ordinals` knows both, as of the chunk's
end. It is fed by the events themselves, so no view asks the database anything per event.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..domain.brief import Charge
from ..domain.bucket import Granted, Transferred
from ..domain.charging import UsageCharged, UsageRejected, UsageSuspended
from ..domain.events import Recorded
from ..domain.hierarchy import NodeAdded, ResourceAdded, ResourceEnded, ResourceMoved

ROOT = -1
"""The parent of who has none."""


class Ordinals:
    """Every member's ordinal by its id, and its parent's ordinal; `seq` is the last event told."""

    def __init__(self, seq: int = 0) -> None:
        self.seq = seq
        self.of: dict[str, int] = {}
        self.parents: list[int] = []

    def enter(self, ident: str, ordinal: int, parent: int) -> None:
        assert ordinal == len(self.parents)
        self.of[ident] = ordinal
        self.parents.append(parent)

    def path(self, ordinal: int) -> list[int]:
        """From the root down to the member itself."""
        path = []
        while ordinal != ROOT:
            path.append(ordinal)
            ordinal = self.parents[ordinal]
        path.reverse()
        return path

    def tell(self, event: object) -> int:
        """Follow the hierarchy; the ordinal of the node that a resource leaves, if it does."""
        match event:
            case NodeAdded(node, ordinal, parent):
                self.enter(node, ordinal, self.of[parent] if parent else ROOT)
            case ResourceAdded(resource, ordinal, node):
                self.enter(resource, ordinal, self.of[node])
            case ResourceMoved(resource, node):
                ordinal = self.of[resource]
                left, self.parents[ordinal] = self.parents[ordinal], self.of[node]
                return left
            case ResourceEnded(resource):
                return self.parents[self.of[resource]]
        return ROOT


class Charges(NamedTuple):
    """Charges, and beside each its seq, its record's key and when it was recorded."""

    seqs: Sequence[int]
    keys: Sequence[bytes]
    times: Sequence[int]
    events: Sequence[Charge]


NO_CHARGES = Charges((), (), (), ())


class Chunk:
    """Events of consecutive seqs: usage by its outcome, and the rest in order."""

    __slots__ = ("charges", "left", "may_copy", "moved", "ordinals", "others", "rejected", "suspended")

    def __init__(
        self,
        events: Iterable[Recorded],
        ordinals: Ordinals,
        charges: Charges = NO_CHARGES,
        *,
        may_copy: bool = False,
    ) -> None:
        self.charges = charges
        self.may_copy = may_copy
        """Whether rows may be added by COPY: not to the temporary tables of who looks back."""
        self.rejected: list[tuple[Recorded, UsageRejected]] = []
        self.suspended: list[tuple[Recorded, UsageSuspended]] = []
        self.others: list[Recorded] = []
        self.ordinals = ordinals
        self.left: dict[int, int] = {}
        """Seq of a move or an end -> ordinal of the node that the resource left."""
        self.moved: list[tuple[Recorded, Granted | Transferred, list[int], list[int]]] = []
        """Allowance that moved: the ordinals that have less by it, and those that have more, all as
        the hierarchy stood then; whoever is above both sides has the same as before."""
        more: list[tuple[Recorded, UsageCharged]] = []
        for told in events:
            self._sort(told, more)
            ordinals.seq = max(ordinals.seq, told.seq)
        if more:
            self.charges = _with(charges, more)
        if charges.seqs:
            ordinals.seq = max(ordinals.seq, charges.seqs[-1])

    def _sort(self, told: Recorded, charged: list[tuple[Recorded, UsageCharged]]) -> None:
        event = told.event
        if type(event) is UsageCharged:
            charged.append((told, event))
        elif isinstance(event, UsageRejected):
            self.rejected.append((told, event))
        elif isinstance(event, UsageSuspended):
            self.suspended.append((told, event))
        else:
            self.others.append(told)
            left = self.ordinals.tell(event)
            if left != ROOT:
                self.left[told.seq] = left
            if isinstance(event, Granted | Transferred):
                self.moved.append((told, event, *self._sides(event)))

    def _sides(self, event: Granted | Transferred) -> tuple[list[int], list[int]]:
        path, of = self.ordinals.path, self.ordinals.of
        if isinstance(event, Granted):
            return [], path(of[event.node])
        less, more = path(of[event.source]), path(of[event.target])
        above = sum(1 for one, other in zip(less, more, strict=False) if one == other)
        return less[above:], more[above:]


def _with(charges: Charges, more: Sequence[tuple[Recorded, UsageCharged]]) -> Charges:
    """Those that were read one by one, after the others: no view depends on their order."""
    return Charges(
        [*charges.seqs, *(told.seq for told, _ in more)],
        [*charges.keys, *(told.command_key or b"" for told, _ in more)],
        [*charges.times, *(told.recorded_at for told, _ in more)],
        [*charges.events, *(event for _, event in more)],
    )
