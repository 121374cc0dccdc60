"""Caps: how much a member may draw, per usage type and period, from the buckets above it.

Allowance that nobody has handed down is shared by everything below. A cap bounds a member's share
of it; what the member's subtree draws from buckets of its own does not count. A cap holds from a
period on, like a limit: what was valid in earlier periods stays valid there.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from msgspec import Struct

from .bucket import Drawn, Family
from .capped import NOBODY, FamilyCaps
from .contract import QUANTITY_MAX, Contracts
from .hierarchy import Hierarchy, Member, Path, ResourceMoved
from .life import NodeClosed, NodeMoved
from .refusals import Refused, check_text
from .usage_type import UsageTypes


class CapSet(Struct, frozen=True, array_like=True):
    """A member may draw so much from the buckets above it from a period on, or as much as there is."""

    topic: ClassVar[str] = "allocation.cap_set"
    node: str
    usage_type: str
    quantity: int | None
    """Per period; None lifts the cap, 0 leaves the member's own bucket only."""
    from_period: str
    note: str = ""
    held: tuple[tuple[str, int], ...] = ()
    """Period, and what sessions hold from above as counting begins there; not told where it is nothing."""


class CapReached(Struct, frozen=True, array_like=True):
    """A cap has kept usage from buckets above that still had something: told once until it is set anew."""

    topic: ClassVar[str] = "allocation.cap_reached"
    node: str
    usage_type: str
    period: str
    quantity: int
    drawn: int
    """What the member had drawn from above before."""


class SetCap(Struct, frozen=True, array_like=True):
    """Let a member draw at most so much from the buckets above it; None lifts that."""

    node: str
    usage_type: str
    quantity: int | None
    from_period: str = ""
    """"" means the period that is running."""
    note: str = ""


class Caps:
    """Every cap ever set."""

    def __init__(self, hierarchy: Hierarchy, contracts: Contracts) -> None:
        self._hierarchy = hierarchy
        self._contracts = contracts
        self.by_type: dict[str, dict[int, list[CapSet]]] = {}

    def of(self, ordinal: int, usage_type: str, period: str) -> CapSet | None:
        """The cap of a member in a period, the last one set for it; it may be one that lifts it."""
        begun = [
            cap for cap in self.by_type.get(usage_type, {}).get(ordinal, ()) if cap.from_period <= period
        ]
        if ordinal in self._hierarchy.closed:
            return None
        return max(reversed(begun), key=lambda cap: cap.from_period, default=None)

    def apply(self, event: CapSet | CapReached, families: Mapping[tuple[str, str], Family]) -> None:
        ordinal = self._hierarchy.by_id[event.node].ordinal
        if isinstance(event, CapReached):
            caps = families[event.usage_type, event.period].caps
            assert caps is not None
            caps.told.add(ordinal)
            return
        usage_type = event.usage_type
        self.by_type.setdefault(usage_type, {}).setdefault(ordinal, []).append(event)
        held = dict(event.held)
        for family in families.values():
            if family.usage_type != usage_type or family.period < event.from_period:
                continue
            caps = self.on(family)
            caps.drawn.setdefault(ordinal, held.get(family.period, 0))
            if self.of(ordinal, usage_type, family.period) is event:
                caps.set(ordinal, event.quantity, family.own)

    def on(self, family: Family) -> FamilyCaps:
        if family.caps is None:
            percent = self._contracts.over_commitment(self._contracts.periods[family.period])
            family.caps = FamilyCaps(self._hierarchy.members, percent)
        return family.caps

    def in_force(self, usage_type: str, period: str) -> dict[int, int]:
        """Whose caps hold in a period, and how much they allow."""
        caps = (self.of(ordinal, usage_type, period) for ordinal in self.by_type.get(usage_type, ()))
        by_id = self._hierarchy.by_id
        return {by_id[cap.node].ordinal: cap.quantity for cap in caps if cap and cap.quantity is not None}

    def arm(self, family: Family) -> None:
        """Put the caps of a family in force that has just been opened: nothing is drawn."""
        for ordinal in self.by_type.get(family.usage_type, ()):
            cap = self.of(ordinal, family.usage_type, family.period)
            if cap is not None:
                self.on(family).set(ordinal, cap.quantity, family.own)

    def follow(self, event: Struct, families: Mapping[tuple[str, str], Family]) -> None:
        """Whoever has a cap, or is above who has, may stand elsewhere; who is closed has none."""
        if not self.by_type or not isinstance(event, ResourceMoved | NodeMoved | NodeClosed):
            return
        moved = self._hierarchy.by_id[event.resource].ordinal if isinstance(event, ResourceMoved) else None
        for caps in (family.caps for family in families.values()):
            if caps is not None and (moved is None or moved in caps.quantity):
                caps.forget()
        if isinstance(event, NodeClosed):
            self._lift(self._hierarchy.by_id[event.node].ordinal, families)

    def _lift(self, ordinal: int, families: Mapping[tuple[str, str], Family]) -> None:
        for family in families.values():
            if family.caps is not None and ordinal in family.caps.quantity:
                family.caps.set(ordinal, None, family.own)

    def forget(self, families: Mapping[tuple[str, str], Family], usage_type: str) -> None:
        """Buckets of a type hold more or less, otherwise than by a transfer or a grant."""
        for family in families.values() if self.by_type else ():
            if family.usage_type == usage_type and family.caps is not None:
                family.caps.forget()


def check_cap(command: SetCap, hierarchy: Hierarchy, types: UsageTypes) -> Member:
    """The member to be capped; refuses what no cap may be."""
    check_text("note", command.note, empty=True)
    member = hierarchy.check_open(hierarchy.member(command.node))
    if member.parent is None:
        raise Refused("nothing_above", node=member.id)
    types.check(command.usage_type)
    if command.quantity is not None and not 0 <= command.quantity <= QUANTITY_MAX:
        raise Refused("quantity_out_of_range", quantity=command.quantity, quantity_max=QUANTITY_MAX)
    return member


def held_back(family: Family, path: Path, quantity: int, held: Mapping[int, int] | None = None) -> int:
    """Whose cap keeps buckets above it from paying for a quantity; `NOBODY` where none does."""
    caps, own = family.caps, held or {}
    if caps is None or not caps.touches(path):
        return NOBODY
    return caps.draw(path, quantity, lambda one: family.available(one) + own.get(one, 0), own).stopped_by


def reached(
    family: Family,
    path: Path,
    quantity: int,
    members: Sequence[Member],
    held: Mapping[int, int] | None = None,
) -> list[CapReached]:
    """What is told of the cap that keeps buckets from paying for so much, if it has not been told."""
    ordinal = held_back(family, path, quantity, held)
    if ordinal == NOBODY or family.caps is None or ordinal in family.caps.told:
        return []
    caps, told = family.caps, (members[ordinal].id, family.usage_type, family.period)
    return [CapReached(*told, caps.quantity[ordinal], caps.drawn[ordinal])]


def count_drawn(family: Family, path: Path, drawn: Drawn, sign: int = 1) -> None:
    if family.caps is not None:
        family.caps.count(path, drawn, sign)
