"""Buckets: what an enterprise bought, divided over the members of its hierarchy.

A bucket holds a quantity of one usage type for one period at one member. All buckets of one
usage type and period are a family. Whatever is moved, in a family at every moment:
granted = what remains in its buckets + consumed from them + expired + rolled over.
What a member has not handed down is shared by everything below it.
"""

from typing import ClassVar, Literal, Protocol

from msgspec import Struct

from .capped import FamilyCaps
from .freeze import check_thawed
from .hierarchy import Hierarchy, Member, Path
from .refusals import InvariantBroken, Refused, check_text
from .vintage import Rolled, put, take_oldest, take_youngest

Reason = Literal["allocate", "return", "trade", "undo"]

Drawn = tuple[tuple[int, int], ...]
"""What buckets paid, in the order of consumption: (ordinal, quantity)."""

NEVER = 1 << 62
"""A counter's next interesting value when nothing is waiting for it; no counter gets that far."""


class Granted(Struct, frozen=True, array_like=True):
    """Units have entered the enterprise's bucket from the contract."""

    topic: ClassVar[str] = "bucket.granted"
    node: str
    usage_type: str
    period: str
    quantity: int
    whole: int = 0
    """Before proration, where it was prorated: `quantity` is this times `share`, rounded down."""
    share: tuple[int, int] = (1, 1)


class Transferred(Struct, frozen=True, array_like=True):
    """Quantity has moved from one bucket to another, whole."""

    topic: ClassVar[str] = "bucket.transferred"
    source: str
    target: str
    usage_type: str
    period: str
    quantity: int
    reason: Reason
    note: str = ""


class Allocate(Struct, frozen=True, array_like=True):
    """Hand some of a node's quantity down to a member below it."""

    source: str
    target: str
    usage_type: str
    period: str
    quantity: int
    note: str = ""


class Return(Struct, frozen=True, array_like=True):
    """Hand quantity that is not needed back up."""

    source: str
    target: str
    usage_type: str
    period: str
    quantity: int
    note: str = ""


class Trade(Struct, frozen=True, array_like=True):
    """Give some of one member's quantity to another that is neither above nor below it."""

    source: str
    target: str
    usage_type: str
    period: str
    quantity: int
    note: str = ""


class Family:
    """All buckets of one usage type and period, and the counters of its limits.

    Lists are indexed by member ordinal. `used` counts the whole subtree, allowance or not;
    `mark` is the value of `used` at which something happens: one comparison per ancestor.
    """

    __slots__ = (
        "agreed",
        "caps",
        "ceiling",
        "consumed",
        "consumed_total",
        "expired_total",
        "granted_total",
        "holders",
        "mark",
        "period",
        "remaining",
        "remaining_total",
        "reserved",
        "rolled",
        "rolled_in_total",
        "rolled_total",
        "usage_type",
        "used",
    )

    def __init__(self, usage_type: str, period: str, members: int) -> None:
        self.usage_type = usage_type
        self.period = period
        self.granted_total = 0
        self.remaining_total = 0
        self.consumed_total = 0
        self.expired_total = 0
        self.rolled_total = 0
        """Rolled over into the next period."""
        self.rolled_in_total = 0
        """Of what was granted: rolled over into this period."""
        self.rolled: Rolled = {}
        self.agreed: int | None = None
        """The whole grant of this period, where it was changed after the period was opened."""
        self.remaining = [0] * members
        self.consumed = [0] * members
        self.reserved = [0] * members
        self.used = [0] * members
        self.mark = [NEVER] * members
        self.ceiling = [NEVER] * members
        self.holders: set[int] = set()
        """Everybody whose bucket was ever filled: nobody else is asked to pay."""
        self.caps: FamilyCaps | None = None
        """None until a member has a cap."""

    def grow(self) -> None:
        for counters in (self.remaining, self.consumed, self.reserved, self.used):
            counters.append(0)
        self.mark.append(NEVER)
        self.ceiling.append(NEVER)

    def available(self, ordinal: int) -> int:
        return self.remaining[ordinal] - self.reserved[ordinal]

    def reserved_of(self, ordinal: int) -> int:
        return self.reserved[ordinal]

    def own(self, ordinal: int) -> int:
        """What a bucket holds and has not handed on, used up or not."""
        return self.remaining[ordinal] + self.consumed[ordinal]

    def draw(self, path: Path, quantity: int) -> tuple[Drawn, int]:
        """Whose buckets would pay for a quantity used at the foot of a path, and how much of it.

        Narrowest scope first; what nobody on the path has is left over.
        """
        if quantity <= 0:
            return (), 0
        if self.caps is not None and self.caps.touches(path):
            capped = self.caps.draw(path, quantity, self.available)
            return capped.drawn, capped.taken
        remaining, reserved, holders = self.remaining, self.reserved, self.holders
        drawn: Drawn = ()
        left = quantity
        for ordinal in path:
            if ordinal not in holders:
                continue
            free = remaining[ordinal] - reserved[ordinal]
            if free >= left:
                return (*drawn, (ordinal, left)), quantity
            if free > 0:
                drawn = (*drawn, (ordinal, free))
                left -= free
        return drawn, quantity - left

    def is_near(self, path: Path, quantity: int) -> bool:
        """Whether so much more usage reaches a threshold, or a limit, anywhere on the path."""
        used, mark = self.used, self.mark
        for ordinal in path:  # noqa: SIM110  (half the cost of any() on the hot path)
            if used[ordinal] + quantity >= mark[ordinal]:
                return True
        return False

    def grant(self, ordinal: int, quantity: int) -> None:
        self.granted_total += quantity
        self.remaining_total += quantity
        self.remaining[ordinal] += quantity
        self.holders.add(ordinal)
        if self.caps is not None:
            self.caps.held(ordinal, quantity, self.own)
        self.check()

    def move(self, source: int, target: int, quantity: int) -> None:
        if source in self.rolled:
            put(self.rolled, target, take_youngest(self.rolled, source, self.remaining[source], quantity))
        self.remaining[target] += quantity
        self.holders.add(target)
        if self.caps is not None:
            self.caps.held(target, quantity, self.own)
        self.remaining[source] -= quantity
        if self.caps is not None:
            self.caps.held(source, -quantity, self.own)
        if self.remaining[source] < self.reserved[source] or quantity <= 0:
            raise InvariantBroken("only what is not reserved can move", source=source, quantity=quantity)
        self.check()

    def consume(self, drawn: Drawn) -> int:
        """Take the parts out of their buckets; their sum."""
        taken = 0
        for ordinal, part in drawn:
            left = self.remaining[ordinal] = self.remaining[ordinal] - part
            self.consumed[ordinal] += part
            taken += part
            if left < self.reserved[ordinal] or part <= 0:
                raise InvariantBroken("no bucket is overdrawn", member=ordinal, left=left, part=part)
        self.remaining_total -= taken
        self.consumed_total += taken
        if self.rolled:
            for ordinal, part in drawn:
                take_oldest(self.rolled, ordinal, part)
        if self.granted_total - self.remaining_total - self.consumed_total != (
            self.expired_total + self.rolled_total
        ):
            self.check()
        return taken

    def settle(self, drawn: Drawn, sign: int) -> int:
        """Take the parts out of their buckets, or put them back as they came; their sum."""
        if not drawn:
            return 0
        return self.consume(drawn) if sign > 0 else self.give_back(drawn)

    def give_back(self, drawn: Drawn) -> int:
        """Put parts that were consumed back into their buckets; their sum.

        Nobody knows any more which of them had been rolled over: what comes back is young.
        """
        given = 0
        for ordinal, part in drawn:
            left = self.consumed[ordinal] = self.consumed[ordinal] - part
            self.remaining[ordinal] += part
            self.holders.add(ordinal)
            given += part
            if left < 0 or part <= 0:
                raise InvariantBroken("only what was consumed is given back", member=ordinal, part=part)
        self.remaining_total += given
        self.consumed_total -= given
        self.check()
        return given

    def make_room(self, path: Path, quantity: int) -> None:
        """Let so much more be counted: what was charged stays charged, also where it stands above a limit."""
        for ordinal in path:
            self.ceiling[ordinal] = max(self.ceiling[ordinal], self.used[ordinal] + quantity)

    def count(self, path: Path, quantity: int) -> None:
        """Add usage to every counter on its path. No counter passes its ceiling."""
        used, mark, ceiling = self.used, self.mark, self.ceiling
        for ordinal in path:
            total = used[ordinal] = used[ordinal] + quantity
            if total >= mark[ordinal] and total > ceiling[ordinal]:
                raise InvariantBroken(
                    "usage never passes a limit", member=ordinal, used=total, ceiling=ceiling[ordinal]
                )

    def count_unless_near(self, path: Path, quantity: int) -> bool:
        """The same where nothing is waiting on the whole path; otherwise nothing is counted."""
        used, mark = self.used, self.mark
        for ordinal in path:
            total = used[ordinal] + quantity
            if total >= mark[ordinal]:
                break
            used[ordinal] = total
        else:
            return True
        self.uncount(path[: path.index(ordinal)], quantity)
        return False

    def uncount(self, path: Path, quantity: int) -> None:
        """Take back what was counted a moment ago."""
        for ordinal in path:
            self.used[ordinal] -= quantity

    def check(self) -> None:
        gone = self.expired_total + self.rolled_total
        if self.granted_total != self.remaining_total + self.consumed_total + gone:
            raise InvariantBroken(
                "granted = remaining + consumed + expired + rolled over",
                usage_type=self.usage_type,
                period=self.period,
                granted=self.granted_total,
                remaining=self.remaining_total,
                consumed=self.consumed_total,
                expired=self.expired_total,
                rolled=self.rolled_total,
            )

    def check_whole(self) -> None:
        """The same over every single bucket: for verification, not for each event."""
        self.check()
        if sum(self.remaining) != self.remaining_total or sum(self.consumed) != self.consumed_total:
            raise InvariantBroken("buckets add up to their family", usage_type=self.usage_type)
        for ordinal, remaining in enumerate(self.remaining):
            if not 0 <= self.reserved[ordinal] <= remaining:
                raise InvariantBroken("0 <= reserved <= remaining", member=ordinal, remaining=remaining)
            if remaining and ordinal not in self.holders:
                raise InvariantBroken("who holds something can be asked to pay", member=ordinal)
        for ordinal, ages in self.rolled.items():
            if not 0 < sum(ages.values()) <= self.remaining[ordinal] or min(ages.values()) <= 0:
                raise InvariantBroken("what was rolled over is part of what remains", member=ordinal)
        if self.caps is not None:
            self.caps.check_whole(self.own)


class Holdings(Protocol):
    """A family as a transfer needs it: as it is, or as it would be."""

    @property
    def usage_type(self) -> str: ...
    @property
    def period(self) -> str: ...
    def available(self, ordinal: int) -> int: ...
    def reserved_of(self, ordinal: int) -> int: ...


class Movement(Struct, frozen=True):
    """A transfer that may be asked for: between whom, and which way."""

    source: Member
    target: Member
    reason: Reason


def check_transfer(command: Allocate | Return | Trade, hierarchy: Hierarchy, now: int) -> Movement:
    """Refuses what no bucket could make right."""
    check_text("note", command.note, empty=True)
    source = hierarchy.member(command.source)
    target = hierarchy.member(command.target)
    if command.quantity <= 0:
        raise Refused("not_positive", quantity=command.quantity)
    if source is target:
        raise Refused("same_node", node=source.id)
    hierarchy.check_open(target)
    for end in (source, target):
        check_thawed(end, hierarchy, now)
    return Movement(source, target, _reason(command, source, target, now))


def decide_transfer(command: Allocate | Return | Trade, movement: Movement, family: Holdings) -> Transferred:
    source, target = movement.source, movement.target
    available = family.available(source.ordinal)
    if command.quantity > available:
        # Refuse all of it: moving what is left would look like success to who asked for more.
        raise Refused(
            "insufficient_allowance",
            node=source.id,
            usage_type=family.usage_type,
            period=family.period,
            available=available,
            reserved=family.reserved_of(source.ordinal),
            quantity=command.quantity,
        )
    return Transferred(
        source.id,
        target.id,
        family.usage_type,
        family.period,
        command.quantity,
        movement.reason,
        command.note,
    )


def _reason(command: Allocate | Return | Trade, source: Member, target: Member, now: int) -> Reason:
    below = source.ordinal in target.standing(now)
    above = target.ordinal in source.standing(now)
    match command:
        case Allocate():
            if not below:
                raise Refused("not_below", source=source.id, target=target.id)
            return "allocate"
        case Return():
            if not above:
                raise Refused("not_above", source=source.id, target=target.id)
            return "return"
        case Trade():
            if below or above:
                remedy = "allocate" if below else "return"
                raise Refused("not_a_trade", source=source.id, target=target.id, remedy=remedy)
            return "trade"
