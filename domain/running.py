"""Lines of allocation, decided one after the other against what those before them would lead to.

Nothing here changes the tenant: a line that fits becomes an event, and its effect is remembered
beside the buckets as they are. So many lines are one decision, carried out whole or not at all.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from .bucket import Allocate, Drawn, Family, Return, Trade, Transferred, check_transfer, decide_transfer
from .cap import Caps, CapSet, SetCap, check_cap
from .capped import FamilyCaps
from .contract import Contracts, PeriodOpened
from .freeze import check_thawed
from .hierarchy import Hierarchy, Path
from .permit import Permit
from .refusals import Refused

LINES_MAX = 10_000
"""Lines of one command, and events that one may lead to: decided in one go, while charging waits."""
BAD_LINES_TOLD_MAX = 100
ACTIONS = ("allocate", "return", "trade", "cap", "template", "return_unused")

FamilyKey = tuple[str, str]
Moved = Transferred | CapSet
Holds = Callable[[], Iterable[tuple[FamilyKey, Path, Drawn]]]
"""Family, path and parts of buckets of everything that sessions hold."""


class Line(Struct, frozen=True, array_like=True):
    """One act of a bulk or a schedule."""

    action: Literal["allocate", "return", "trade", "cap", "template", "return_unused"]
    source: str
    """Who gives. Of a template: the node whose it is to divide. Of a cap: nobody."""
    target: str
    """Who gets. Of a cap: who is capped. Of a template: its name."""
    usage_type: str
    quantity: int | None = None
    """Of a cap: None lifts it. Of a template, and of what is unused: none."""
    period: str = ""
    note: str = ""


def members_of(line: Line) -> list[str]:
    """Whom a line names: a template's name is no member, and the parent need not be named."""
    match line.action:
        case "template":
            return [line.source]
        case "cap":
            return [line.target]
        case "return_unused":
            return [line.source, *([line.target] if line.target else [])]
    return [line.source, line.target]


class FamilyAhead:
    """A family as it would be: as it is, and what lines before have moved."""

    def __init__(self, usage_type: str, period: str, family: Family | None) -> None:
        self.usage_type = usage_type
        self.period = period
        self._family = family
        self.moved: dict[int, int] = {}
        self._caps: FamilyCaps | None = None

    def available(self, ordinal: int) -> int:
        has = self._family.available(ordinal) if self._family is not None else 0
        return has + self.moved.get(ordinal, 0)

    def reserved_of(self, ordinal: int) -> int:
        return self._family.reserved[ordinal] if self._family is not None else 0

    def own(self, ordinal: int) -> int:
        family, moved = self._family, self.moved.get(ordinal, 0)
        return moved if family is None else family.remaining[ordinal] + family.consumed[ordinal] + moved

    def holders(self) -> list[int]:
        """Who may have something, in a fixed order."""
        held = self._family.holders if self._family is not None else set()
        return sorted(held | self.moved.keys())

    def caps(self) -> FamilyCaps | None:
        """A copy to try things on; None where nobody is capped."""
        if self._caps is None and self._family is not None and self._family.caps is not None:
            self._family.caps.refresh(self._family.own)
            self._caps = self._family.caps.copy()
        return self._caps

    def begin_caps(self, caps: FamilyCaps) -> FamilyCaps:
        caps.refresh(self.own)
        self._caps = caps
        return caps

    def move(self, ordinal: int, quantity: int, caps: FamilyCaps | None) -> dict[int, int]:
        """Who is asked for more or less by this, and how over-committed they were."""
        self.moved[ordinal] = self.moved.get(ordinal, 0) + quantity
        return caps.held(ordinal, quantity, self.own) if caps is not None else {}


class Running:
    """The buckets and caps of a tenant, and what was decided on them so far."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        contracts: Contracts,
        caps: Caps,
        families: Mapping[FamilyKey, Family],
        holds: "Holds",
        now: int,
    ) -> None:
        self._holds = holds
        self._held: dict[FamilyKey, dict[int, int]] | None = None
        self.hierarchy = hierarchy
        self.contracts = contracts
        self.caps = caps
        self.families = families
        self.now = now
        self.ahead: dict[FamilyKey, FamilyAhead] = {}
        self.permit: Permit | None = None
        self._opening: PeriodOpened | None = None
        self._periods: dict[tuple[str, str], list[FamilyKey]] = {}

    def open(self, opened: PeriodOpened, granted: Mapping[str, int]) -> None:
        """As if this period were open already, with these grants in the enterprise's buckets."""
        self._opening = opened
        for usage_type in self.contracts.types.known(money=True):
            family = self.family(usage_type, opened.period)
            if granted.get(usage_type):
                family.moved[self.hierarchy.root.ordinal] = granted[usage_type]
            in_force = self.caps.in_force(usage_type, opened.period)
            if in_force:
                caps = FamilyCaps(self.hierarchy.members, self._percent(opened.period))
                caps.quantity = in_force
                family.begin_caps(caps)

    def take(self, events: Sequence[Struct]) -> None:
        """The effect of what was decided already."""
        by_id = self.hierarchy.by_id
        for event in events:
            if isinstance(event, Transferred):
                family = self.family(event.usage_type, event.period)
                ends = by_id[event.source].ordinal, by_id[event.target].ordinal
                self._shift(family, *ends, event.quantity)
                if self.permit is not None:
                    self.permit.take(event, self.now)
            elif isinstance(event, CapSet):
                for family in list(self.ahead.values()):
                    if family.usage_type == event.usage_type and family.period >= event.from_period:
                        self._promise(event, by_id[event.node].ordinal, family, checked=True)

    def _percent(self, period: str) -> int:
        opening = self._opening
        if opening is not None and opening.period == period:
            return self.contracts.over_commitment(opening)
        return self.contracts.over_commitment(self.contracts.periods[period])

    def family(self, usage_type: str, period: str) -> FamilyAhead:
        key = usage_type, period
        found = self.ahead.get(key)
        if found is None:
            found = self.ahead[key] = FamilyAhead(usage_type, period, self.families.get(key))
        return found

    def transfer(self, command: Allocate | Return | Trade) -> Transferred:
        """Decide a transfer in an open period, and remember its effect; refuses it without one."""
        movement = check_transfer(command, self.hierarchy, self.now)
        family = self.family(command.usage_type, command.period)
        event = decide_transfer(command, movement, family)
        if self.permit is not None:
            self.permit(event, self.now)
        self._move(family, movement.source.ordinal, movement.target.ordinal, event.quantity)
        if self.permit is not None:
            self.permit.take(event, self.now)
        return event

    def check(self, event: Transferred) -> None:
        """Of a transfer that was decided elsewhere: whether it may be, after those before it."""
        source, target = (self.hierarchy.by_id[one] for one in (event.source, event.target))
        for end in (source, target):
            check_thawed(end, self.hierarchy, self.now)
        family = self.family(event.usage_type, event.period)
        self._move(family, source.ordinal, target.ordinal, event.quantity)

    def _move(self, family: FamilyAhead, source: int, target: int, quantity: int) -> None:
        touched = self._shift(family, source, target, quantity)
        caps = family.caps()
        if caps is not None:
            try:
                caps.check_promised(touched, family.own)
            except Refused:
                self._shift(family, target, source, quantity)
                raise

    def _shift(self, family: FamilyAhead, source: int, target: int, quantity: int) -> dict[int, int]:
        """Who is asked for more or less by this, and how over-committed they were."""
        caps = family.caps()
        # The target first: whoever gets something below asks for less above.
        touched = family.move(target, quantity, caps)
        for ordinal, excess in family.move(source, -quantity, caps).items():
            touched.setdefault(ordinal, excess)
        return touched

    def cap(self, command: SetCap, running: str) -> CapSet:
        member = check_cap(command, self.hierarchy, self.contracts.types)
        since = command.from_period or running
        concerned = self._concerned(command.usage_type, since)
        held = tuple((key[1], begun) for key in concerned if (begun := self._held_above(key, member.ordinal)))
        event = CapSet(member.id, command.usage_type, command.quantity, since, command.note, held)
        for key in concerned:
            self._promise(event, member.ordinal, self.family(*key))
        return event

    def _concerned(self, usage_type: str, since: str) -> list[FamilyKey]:
        """The open periods in which a cap from then on may hold; the same for most lines."""
        found = self._periods.get((usage_type, since))
        if found is None:
            every = dict.fromkeys((*self.families, *self.ahead))
            found = [key for key in every if key[0] == usage_type and key[1] >= since]
            self._periods[usage_type, since] = found
        return found

    def _held_above(self, key: FamilyKey, ordinal: int) -> int:
        """What sessions below a member hold from above it, where this is not counted yet."""
        family = self.families.get(key)
        if family is None or (family.caps is not None and ordinal in family.caps.drawn):
            return 0
        if self._held is None:
            self._held = _held_from_above(self._holds())
        return self._held.get(key, {}).get(ordinal, 0)

    def _promise(self, event: CapSet, ordinal: int, family: FamilyAhead, *, checked: bool = False) -> None:
        later = self.caps.of(ordinal, family.usage_type, family.period)
        if later is not None and later.from_period > event.from_period:
            return
        caps = family.caps()
        if caps is None:
            caps = family.begin_caps(FamilyCaps(self.hierarchy.members, self._percent(family.period)))
        before = caps.quantity.get(ordinal)
        try:
            touched = caps.promise(ordinal, event.quantity, family.own)
            if not checked:
                caps.check_promised(touched, family.own)
        except Refused:
            caps.promise(ordinal, before, family.own)
            raise


def _held_from_above(
    holds: Iterable[tuple[FamilyKey, Path, Drawn]],
) -> dict[FamilyKey, dict[int, int]]:
    """For every member on the way of a session: how much is held from above it."""
    held: dict[FamilyKey, dict[int, int]] = {}
    for key, path, drawn in holds:
        parts, of = dict(drawn), held.setdefault(key, {})
        above = sum(parts.values())
        for ordinal in path:
            above -= parts.get(ordinal, 0)
            if not above:
                break
            of[ordinal] = of.get(ordinal, 0) + above
    return held


class Expanding(Protocol):
    """What makes several transfers of one line."""

    def __call__(self, line: Line, running: Running) -> list[Transferred]: ...


def decide_line(line: Line, running: Running, period: str, expand: Mapping[str, Expanding]) -> list[Moved]:
    """The events of one line, whose effect is then part of what runs. `period` is the one that runs."""
    if line.action == "cap":
        if line.source:
            raise Refused("cap_has_no_source", source=line.source)
        wanted = SetCap(line.target, line.usage_type, line.quantity, line.period, line.note)
        return [running.cap(wanted, period)]
    if line.action in expand:
        if line.quantity is not None:
            raise Refused("no_quantity_here", action=line.action)
        return [*expand[line.action](line, running)]
    order = _ORDERS.get(line.action)
    if order is None:
        raise Refused("unknown_action", action=line.action, known=list(ACTIONS))
    running.contracts.types.check(line.usage_type, money=True)
    ends = line.source, line.target
    return [
        running.transfer(order(*ends, line.usage_type, line.period or period, line.quantity or 0, line.note))
    ]


def decide_lines(lines: tuple[Line, ...], decide: Callable[[Line], list[Moved]]) -> list[Moved]:
    """All of them, or a refusal that names every line that does not fit, and why."""
    events: list[Moved] = []
    bad: list[dict[str, object]] = []
    count = 0
    for number, line in enumerate(lines, 1):
        try:
            events += decide(line)
        except Refused as refusal:
            count += 1
            if len(bad) < BAD_LINES_TOLD_MAX:
                bad.append({"line": number, "code": refusal.code, "facts": refusal.facts})
    if bad:
        raise Refused("bad_lines", count=count, lines=bad, first=bad[0]["line"], why=bad[0]["code"])
    check_few(len(events))
    return events


def check_few(count: int) -> None:
    if count > LINES_MAX:
        raise Refused("too_many_lines", lines=count, lines_max=LINES_MAX)


_ORDERS: dict[str, type[Allocate | Return | Trade]] = {
    "allocate": Allocate,
    "return": Return,
    "trade": Trade,
}
