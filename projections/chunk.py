"""A chunk of the log, sorted once by what it tells of, for all views that fold it.

Events name members by id, views know them by ordinal: `Ordinals` knows both, as of the chunk's
end. It is fed by the events themselves, so no view asks the database anything per event.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

from ..domain.brief import Charge
from ..domain.bucket import Granted, Transferred
from ..domain.charging import UsageCharged, UsageRejected, UsageSuspended
from ..domain.events import Recorded
from ..domain.granting import GrantChanged, ToppedUp
from ..domain.hierarchy import NodeAdded, ResourceAdded, ResourceEnded, ResourceMoved
from ..domain.life import NodeClosed, NodeMoved
from ..domain.rerated import UsageRerated, UsageTakenBack
from ..domain.rollover import RolledOver
from ..domain.tenant import TenantOpened
from .counted import Counted
from .tally import Tally, tally

ROOT = -1
"""The parent of who has none."""
FOLLOWED = (TenantOpened, NodeAdded, ResourceAdded, ResourceMoved, ResourceEnded, NodeMoved, NodeClosed)
"""The events that ordinals follow."""
WORLD = ZoneInfo("UTC")


class Ordinals:
    """Every member's ordinal by its id, and its parent's ordinal; `seq` is the last event told."""

    def __init__(self, seq: int = 0) -> None:
        self.seq = seq
        self.of: dict[str, int] = {}
        self.parents: list[int] = []
        self.nodes: set[int] = set()
        """All others are resources."""
        self.ended: dict[int, int] = {}
        """Resources that have ended, or will: when."""
        self.zone = WORLD
        """Of the tenant's calendar, as far as it was told."""

    def enter(self, ident: str, ordinal: int, parent: int, *, is_node: bool) -> None:
        assert ordinal == len(self.parents)
        self.of[ident] = ordinal
        self.parents.append(parent)
        if is_node:
            self.nodes.add(ordinal)

    def path(self, ordinal: int) -> list[int]:
        """From the root down to the member itself."""
        path = []
        while ordinal != ROOT:
            path.append(ordinal)
            ordinal = self.parents[ordinal]
        path.reverse()
        return path

    def tell(self, event: object) -> int:
        """Follow the hierarchy; the ordinal of the node that a member leaves, if it does."""
        match event:
            case TenantOpened():
                self.zone = ZoneInfo(event.time_zone)
            case NodeAdded(node, ordinal, parent):
                self.enter(node, ordinal, self.of[parent] if parent else ROOT, is_node=True)
            case ResourceAdded(resource, ordinal, node):
                self.enter(resource, ordinal, self.of[node], is_node=False)
            case ResourceMoved(member, node) | NodeMoved(member, node):
                ordinal = self.of[member]
                left, self.parents[ordinal] = self.parents[ordinal], self.of[node]
                self.ended.pop(ordinal, None)
                return left
            case NodeClosed(node, successor, at) if successor:
                self._succeed(self.of[node], self.of[successor], at)
            case ResourceEnded(resource, at):
                ordinal = self.of[resource]
                self.ended[ordinal] = at
                return self.parents[ordinal]
        return ROOT

    def _succeed(self, node: int, successor: int, at: int) -> None:
        """Who had ended by then stays where it last was."""
        for ordinal, parent in enumerate(self.parents):
            if parent == node and self.ended.get(ordinal, at + 1) > at:
                self.parents[ordinal] = successor


class Charges(NamedTuple):
    """Charges, and beside each its seq, its record's key and when it was recorded."""

    seqs: Sequence[int]
    keys: Sequence[bytes]
    times: Sequence[int]
    events: Sequence[Charge]


NO_CHARGES = Charges((), (), (), ())


class Moved(NamedTuple):
    """Allowance that moved, entered or left."""

    at: int | None
    """When the log took it; None for what is there from the period's beginning, whenever it was told."""
    period: str
    usage_type: str
    quantity: int
    less: Sequence[int]
    """Who has less by it, and who has more, all as the hierarchy stood then. Whoever is above both sides
    has the same as before."""
    more: Sequence[int]


class Chunk:
    """Events of consecutive seqs: usage by its outcome, and the rest in order."""

    __slots__ = (
        *("_counted", "_tally", "charges", "copied", "corrections", "left", "may_copy", "moved"),
        *("ordinals", "others", "rejected", "suspended"),
    )

    def __init__(
        self,
        events: Iterable[Recorded],
        ordinals: Ordinals,
        charges: Charges = NO_CHARGES,
        *,
        may_copy: bool = False,
        added_up: Tally | None = None,
        counted: Counted | None = None,
        copied: bytes | bytearray = b"",
    ) -> None:
        self.charges = charges
        self._tally = added_up
        self._counted = counted
        self.copied = copied
        """The rows of usage of these charges, where they were made ready beforehand."""
        self.may_copy = may_copy
        """Whether rows may be added by COPY: not to the temporary tables of who looks back."""
        self.rejected: list[tuple[Recorded, UsageRejected]] = []
        self.suspended: list[tuple[Recorded, UsageSuspended]] = []
        self.others: list[Recorded] = []
        self.corrections: list[tuple[UsageCharged, int]] = []
        """Charges that were taken back, with -1, and those made again, with 1: whoever adds up adds these."""
        self.ordinals = ordinals
        self.left: dict[int, int] = {}
        """Seq of a move or an end -> ordinal of the node that the member left."""
        self.moved: list[Moved] = []
        more: list[tuple[Recorded, UsageCharged]] = []
        for told in events:
            self._sort(told, more)
            ordinals.seq = max(ordinals.seq, told.seq)
        if more:
            self.charges = _with(charges, more)
            self._tally, self._counted, self.copied = None, None, b""
        if charges.seqs:
            ordinals.seq = max(ordinals.seq, charges.seqs[-1])

    @property
    def rest(self) -> Sequence[Charge]:
        """The charges that are not among the counted ones: all that are not plain are here."""
        return self.charges.events if self._counted is None else self._counted.rest

    def counted(self, zone: ZoneInfo | None = None) -> Counted | None:
        """What the plain charges come to, where they were counted already, and by days of this calendar."""
        if self._counted is not None and zone is not None and zone.key != self._counted.zone.key:
            self._counted = self._tally = None
        return self._counted

    def tally(self, zone: ZoneInfo | None = None) -> Tally:
        """What the rest comes to; with days of this calendar, for whom these matter."""
        counted = self.counted(zone)
        if self._tally is None or (zone is not None and zone.key != self._tally.zone.key):
            known = self.ordinals.zone if counted is None else counted.zone
            self._tally = tally(self.rest, known if zone is None else zone)
        return self._tally

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
            if isinstance(event, UsageTakenBack):
                self.corrections += [(taken.charge, -1) for taken in event.charges]
            elif isinstance(event, UsageRerated):
                self.corrections.append((event.charge, 1))
            left = self.ordinals.tell(event)
            if left != ROOT:
                self.left[told.seq] = left
            self.moved += _moved(told, self.ordinals)


def _moved(told: Recorded, ordinals: Ordinals) -> Iterator[Moved]:
    path, of, event = ordinals.path, ordinals.of, told.event
    match event:
        case Granted(node, usage_type, period, quantity):
            yield Moved(None, period, usage_type, quantity, [], path(of[node]))
        case ToppedUp(node, usage_type, period, quantity):
            yield Moved(told.recorded_at, period, usage_type, quantity, [], path(of[node]))
        case GrantChanged(node, usage_type, period):
            yield Moved(told.recorded_at, period, usage_type, event.change, [], path(of[node]))
        case Transferred(source, target, usage_type, period, quantity):
            less, more = path(of[source]), path(of[target])
            above = sum(1 for one, other in zip(less, more, strict=False) if one == other)
            yield Moved(told.recorded_at, period, usage_type, quantity, less[above:], more[above:])
        case RolledOver(usage_type, period, into, buckets):
            for bucket in buckets:
                rolled = sum(part for _, part in bucket.rolled)
                gone = rolled + bucket.expired
                yield Moved(told.recorded_at, period, usage_type, gone, path(bucket.ordinal), [])
                if rolled:
                    yield Moved(None, into, usage_type, rolled, [], path(bucket.target))


def _with(charges: Charges, more: Sequence[tuple[Recorded, UsageCharged]]) -> Charges:
    """Those that were read one by one, after the others: no view depends on their order."""
    return Charges(
        [*charges.seqs, *(told.seq for told, _ in more)],
        [*charges.keys, *(told.command_key or b"" for told, _ in more)],
        [*charges.times, *(told.recorded_at for told, _ in more)],
        [*charges.events, *(event for _, event in more)],
    )
