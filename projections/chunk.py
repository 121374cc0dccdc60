"""A chunk of the log, sorted once by what it tells of, for all views that fold it.

Events name members by id, views know them by ordinal: `Ordinals` knows both, as of the chunk's
end. It is fed by the events themselves, so no view asks the database anything per event.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar
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
from .along import Elsewhere, Key, Went, apart, drawn_above, elsewhere
from .blocks import Blocks, Kept
from .counted import Counted
from .tally import Tally, tally

ROOT = -1
"""The parent of who has none."""
FOLLOWED = (TenantOpened, NodeAdded, ResourceAdded, ResourceMoved, ResourceEnded, NodeMoved, NodeClosed)
"""The events that ordinals follow."""
WORLD = ZoneInfo("UTC")

One = TypeVar("One")


class Ways(NamedTuple):
    """Every member's parent by its ordinal, as 4 bytes each, for whoever reads charges natively."""

    shape: object
    """Of the ordinals that it was taken from: another, once somebody has moved."""
    parents: bytes


class Ordinals:
    """Every member's ordinal by its id, and its parent's ordinal; `seq` is the last event told."""

    def __init__(self, seq: int = 0) -> None:
        self.seq = seq
        self.of: dict[str, int] = {}
        self.parents = array("i")
        self.shape = object()
        """Stays the same until somebody moves."""
        self.nodes: set[int] = set()
        """All others are resources."""
        self.ended: dict[int, int] = {}
        """Resources that have ended, or will: when."""
        self.zone = WORLD
        """Of the tenant's calendar, as far as it was told."""
        self.moved_at = 0
        """What began later was used where its resource stands now: none has moved since."""
        self.line_kinds = set[int]()
        """Kinds of invoice lines that the view is known to hold."""
        self.kept: dict[str, Any] = {}
        """What views have read of their own tables: it stands, for nobody else writes them."""
        self._ways = set[tuple[int, ...]]()
        """Ways up from nodes that were asked for, and stand."""
        self.blocks: dict[str, Kept] = {}
        """By table: blocks of counters as they were written last."""

    def enter(self, ident: str, ordinal: int, parent: int, *, is_node: bool) -> None:
        assert ordinal == len(self.parents)
        self.of[ident] = ordinal
        self.parents.append(parent)
        if is_node:
            self.nodes.add(ordinal)

    def ways(self) -> Ways:
        return Ways(self.shape, self.parents.tobytes())

    def path(self, ordinal: int) -> list[int]:
        """From the root down to the member itself."""
        path = []
        while ordinal != ROOT:
            path.append(ordinal)
            ordinal = self.parents[ordinal]
        path.reverse()
        return path

    def stands(self, path: tuple[int, ...]) -> bool:
        """Whether a way up, from a resource to the root, is the one that it has now."""
        nodes = path[1:]
        if self.parents[path[0]] != nodes[0]:
            return False
        if nodes not in self._ways:
            if tuple(reversed(self.path(nodes[0]))) != nodes:
                return False
            self._ways.add(nodes)
        return True

    def going(self, event: object) -> list[int]:
        """Who will stand below another by an event."""
        match event:
            case ResourceMoved(member) | NodeMoved(member):
                return [self.of[member]]
            case NodeClosed(node, successor, at) if successor:
                return self._heirs(self.of[node], at)
        return []

    def tell(self, event: object) -> int:
        """Follow the hierarchy; the ordinal of the node that a member leaves, if it does."""
        match event:
            case TenantOpened():
                self.zone = ZoneInfo(event.time_zone)
            case NodeAdded(node, ordinal, parent):
                self.enter(node, ordinal, self.of[parent] if parent else ROOT, is_node=True)
            case ResourceAdded(resource, ordinal, node):
                self.enter(resource, ordinal, self.of[node], is_node=False)
            case ResourceMoved(member, node, since) | NodeMoved(member, node, since):
                self.moved_at = max(self.moved_at, since)
                ordinal = self.of[member]
                left, self.parents[ordinal] = self.parents[ordinal], self.of[node]
                self._turned()
                self.ended.pop(ordinal, None)
                return left
            case NodeClosed(node, successor, at) if successor:
                self.moved_at = max(self.moved_at, at)
                self._succeed(self.of[node], self.of[successor], at)
            case ResourceEnded(resource, at):
                ordinal = self.of[resource]
                self.ended[ordinal] = at
                return self.parents[ordinal]
        return ROOT

    def _succeed(self, node: int, successor: int, at: int) -> None:
        for ordinal in self._heirs(node, at):
            self.parents[ordinal] = successor
        self._turned()

    def _turned(self) -> None:
        self.shape = object()
        self._ways.clear()

    def _heirs(self, node: int, at: int) -> list[int]:
        """Who stands below a node; whoever had ended by then stays where it last was."""
        return [
            ordinal
            for ordinal, parent in enumerate(self.parents)
            if parent == node and self.ended.get(ordinal, at + 1) > at
        ]


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
        *("_after", "_counted", "_looked", "_tally", "charges", "copied", "corrections", "elsewhere", "left"),
        *("may_copy", "moved", "ordinals", "others", "rejected", "suspended"),
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
        self._after = ordinals.seq
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
        self.moved: list[Moved | Went] = []
        self.elsewhere: list[Elsewhere] = []
        """What buckets paid for usage that came another way up than theirs."""
        more: list[tuple[Recorded, UsageCharged]] = []
        self._looked = _Looked(0, 0, 0)
        for told in events:
            self._sort(told, more)
            ordinals.seq = max(ordinals.seq, told.seq)
        self._look_at_the_rest()
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

    def kept(self, name: str, read: Callable[[], One], *, changes: bool = False) -> One:
        """What a view has read of its own tables before this chunk, under a name of its own.

        It is read again after a chunk that changes it.
        """
        known = self.ordinals.kept
        found: One = known[name] if name in known else read()
        if changes:
            known.pop(name, None)
        else:
            known[name] = found
        return found

    def blocks(self, table: Blocks) -> Kept:
        """Its blocks as they stand before this chunk, as far as they are known: ask once, and write."""
        kept = self.ordinals.blocks.get(table.name)
        if kept is None or kept.seq != self._after:
            kept = self.ordinals.blocks[table.name] = Kept(self._after)
        kept.seq = self.ordinals.seq
        return kept

    def _sort(self, told: Recorded, charged: list[tuple[Recorded, UsageCharged]]) -> None:
        event = told.event
        if type(event) is UsageCharged:
            charged.append((told, event))
            self.elsewhere += elsewhere((event,), self.ordinals)
        elif isinstance(event, UsageRejected):
            self.rejected.append((told, event))
        elif isinstance(event, UsageSuspended):
            self.suspended.append((told, event))
        else:
            self.others.append(told)
            if isinstance(event, UsageTakenBack):
                self.corrections += [(taken.charge, -1) for taken in event.charges]
                self.elsewhere += elsewhere((taken.charge for taken in event.charges), self.ordinals, -1)
            elif isinstance(event, UsageRerated):
                self.corrections.append((event.charge, 1))
                self.elsewhere += elsewhere((event.charge,), self.ordinals)
            going = self.ordinals.going(event)
            drawn = self._drawn_before(told.seq, charged) if going else {}
            above = self.ordinals.path(going[0])[:-1] if going else []
            left = self.ordinals.tell(event)
            if left != ROOT:
                self.left[told.seq] = left
            if going:
                sides = apart(above, self.ordinals.path(going[0])[:-1])
                self.moved.append(Went(told.recorded_at, going, *sides, drawn))
            self.moved += _moved(told, self.ordinals)

    def _look_at_the_rest(self) -> None:
        """Charges that were counted are decoded only where one may have come another way up."""
        counted, seqs = self._counted, self.charges.seqs
        if counted is not None and not self._looked.charges and self._all_stand(counted):
            self.elsewhere += elsewhere(counted.rest, self.ordinals)
        elif seqs:
            self._look(seqs[-1] + 1)

    def _all_stand(self, counted: Counted) -> bool:
        """Whether the counted ones came the ways that stand: they were looked at, or none has moved since."""
        return counted.stood is self.ordinals.shape or counted.since > self.ordinals.moved_at

    def _look(self, before: int) -> Sequence[Charge]:
        """At the charges before a seq that were not looked at, as the hierarchy stands now."""
        first = self._looked.charges
        last = bisect_left(self.charges.seqs, before, first)
        found = self.charges.events[first:last]
        self.elsewhere += elsewhere(found, self.ordinals)
        self._looked = self._looked._replace(charges=last)
        return found

    def _drawn_before(self, seq: int, more: Sequence[tuple[Recorded, UsageCharged]]) -> dict[Key, int]:
        """What buckets have paid since who went before."""
        looked, charges = self._looked, self._look(seq)
        paid = [(charge, 1) for charge in (*charges, *(charge for _, charge in more[looked.more :]))]
        self._looked = _Looked(self._looked.charges, len(more), len(self.corrections))
        return drawn_above([*paid, *self.corrections[looked.corrections :]], self.ordinals)


class _Looked(NamedTuple):
    """How many were looked at."""

    charges: int
    more: int
    corrections: int


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
            sides = apart(path(of[source]), path(of[target]))
            yield Moved(told.recorded_at, period, usage_type, quantity, *sides)
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
