"""Roll-over: what becomes, at a period's end, of what is left in its buckets.

Where the contract rolls over, or lets expire, every unit that is left at a period's end and not held
for a session either enters the next period or expires: an event tells of every bucket. What a session
holds is looked at when it has ended. A cap is shared out in proportion to what buckets have left.
"""

from collections.abc import Iterator
from heapq import nsmallest
from typing import ClassVar

from msgspec import Struct

from .bucket import Family
from .contract import Contracts, PeriodOpened
from .hierarchy import Hierarchy
from .refusals import InvariantBroken, Refused
from .terms import RollOverRule
from .vintage import put, take_oldest

BUCKETS_AT_ONCE = 1_000
"""Told of in one event; what is left over is due again at once."""
HOUR = 3_600_000_000


class RolledBucket(Struct, frozen=True, array_like=True, gc=False):
    """What becomes of one bucket's rest."""

    ordinal: int
    target: int
    """Whose bucket of the next period gets what is rolled over."""
    rolled: tuple[tuple[int, int], ...]
    """(how often it was rolled over before, quantity)."""
    expired: int


class RolledOver(Struct, frozen=True, array_like=True):
    """A period is over: of its buckets some was rolled over, and the rest has expired."""

    topic: ClassVar[str] = "bucket.rolled_over"
    usage_type: str
    period: str
    into: str
    """The next period; "" where no contract goes on."""
    buckets: tuple[RolledBucket, ...]


class RollOver(Struct, frozen=True, array_like=True):
    """Roll over what is left of a type at a period's end. Time asks for it, turn by turn."""

    usage_type: str
    period: str
    turn: int
    """How often it was done before for this type and period."""


class RollOvers:
    """Which periods are over and still have something left."""

    def __init__(
        self, hierarchy: Hierarchy, contracts: Contracts, families: dict[tuple[str, str], Family]
    ) -> None:
        self._hierarchy = hierarchy
        self._contracts = contracts
        self._families = families
        self.turns: dict[tuple[str, str], int] = {}
        self._unsettling: set[str] = set()
        """Periods whose terms settle none: asked once, and not again. To others something may come back."""

    def due(self, now: int) -> list[RollOver]:
        return [
            RollOver(family.usage_type, family.period, self.turns.get((family.usage_type, family.period), 0))
            for at, period in self._unsettled()
            if at <= now
            for family in self._of(period)
            if family.remaining_total and _has_available(family)
        ]

    def next_due(self) -> int | None:
        return min(
            (
                at
                for at, period in self._unsettled()
                if any(family.remaining_total and _has_available(family) for family in self._of(period))
            ),
            default=None,
        )

    def _unsettled(self) -> Iterator[tuple[int, PeriodOpened]]:
        """The periods that will be settled, or have been begun with, and when."""
        for period in list(self._contracts.periods.values()):
            if period.period in self._unsettling:
                continue
            if not self._contracts.terms_of(period).settles:
                self._unsettling.add(period.period)
                continue
            yield self._settled_at(period), period

    def _settled_at(self, period: PeriodOpened) -> int:
        return _settled_at(self._contracts, period)

    def _of(self, period: PeriodOpened) -> Iterator[Family]:
        for usage_type in self._contracts.types.known(money=True):
            yield self._families[usage_type, period.period]

    def is_closed(self, period: PeriodOpened, now: int) -> bool:
        """Whether a period is settled: its buckets are rolled over or expired, and its bill stands."""
        return self._contracts.terms_of(period).settles and now >= self._settled_at(period)

    # --- decide -------------------------------------------------------------------------------

    def decide(self, command: RollOver, now: int) -> RolledOver:
        self._contracts.types.check(command.usage_type, money=True)
        period = self._contracts.periods.get(command.period)
        if period is None:
            raise Refused("not_a_period", period=command.period, example="2026-11")
        at = (command.usage_type, command.period)
        family = self._families[at]
        over = now >= self._settled_at(period) and self._contracts.terms_of(period).settles
        if not over or self.turns.get(at, 0) != command.turn or not _has_available(family):
            raise Refused("nothing_to_roll_over", usage_type=command.usage_type, period=command.period)
        following = self._contracts.period_for(period.ends_at)
        into = following.period if following is not None else ""
        buckets = self._share_out(family, period, into)
        return RolledOver(command.usage_type, command.period, into, tuple(buckets))

    def _share_out(self, family: Family, period: PeriodOpened, into: str) -> list[RolledBucket]:
        """Each bucket's part of what is left of the cap, out of what is left in this and later buckets.

        So the parts add up to the cap exactly, in however many turns they are told.
        """
        terms = self._contracts.terms_of(period)
        rule = next((rule for rule in terms.rollover if rule.usage_type == family.usage_type), None)
        if rule is None or not into:
            return _expired(family)
        rest = {ordinal: family.available(ordinal) for ordinal in sorted(family.holders)}
        rest = {ordinal: available for ordinal, available in rest.items() if available > 0}
        granted = family.granted_total - family.rolled_in_total
        may = {ordinal: min(left, _young(family, ordinal, rule)) for ordinal, left in rest.items()}
        total, most, told = sum(may.values()), rule.cap(granted), []
        cap = total if most is None else max(0, most - family.rolled_total)
        for ordinal in [*rest][:BUCKETS_AT_ONCE]:
            part = may[ordinal] if cap >= total else cap * may[ordinal] // total
            total, cap = total - may[ordinal], cap - part
            target = 0 if terms.rolls_to_enterprise else self._heir(ordinal)
            rolled = _youngest(family, ordinal, part)
            told.append(RolledBucket(ordinal, target, rolled, rest[ordinal] - part))
        return told

    def _heir(self, ordinal: int) -> int:
        """Who can use it: of a closed node whoever it was merged into, else the enterprise."""
        while ordinal in self._hierarchy.closed:
            ordinal = self._hierarchy.closed[ordinal][1]
        return 0 if ordinal < 0 or self._has_ended(ordinal) else ordinal

    def _has_ended(self, ordinal: int) -> bool:
        """A resource that nobody has any more could never use it."""
        stays = self._hierarchy.members[ordinal].stays
        return bool(stays) and not stays[-1][1]

    # --- apply --------------------------------------------------------------------------------

    def apply(self, event: RolledOver) -> None:
        family = self._families[event.usage_type, event.period]
        following = self._families[event.usage_type, event.into] if event.into else None
        for bucket in event.buckets:
            _take_out(family, bucket)
            if following is not None and bucket.rolled:
                _put_in(following, bucket)
        family.check()
        if following is not None:
            following.check()
        at = (event.usage_type, event.period)
        self.turns[at] = self.turns.get(at, 0) + 1


def closes_at(contracts: Contracts, period: PeriodOpened) -> int | None:
    """From when on a period is closed; None where its contract settles none."""
    return _settled_at(contracts, period) if contracts.terms_of(period).settles else None


def _settled_at(contracts: Contracts, period: PeriodOpened) -> int:
    return period.ends_at + contracts.terms_of(period).settle_after_hours * HOUR


def _expired(family: Family) -> list[RolledBucket]:
    """The first buckets that have something left; those that had their turn cost next to nothing."""
    remaining, reserved = family.remaining, family.reserved
    left = (ordinal for ordinal in family.holders if remaining[ordinal] > reserved[ordinal])
    return [
        RolledBucket(ordinal, ordinal, (), family.available(ordinal))
        for ordinal in nsmallest(BUCKETS_AT_ONCE, left)
    ]


def _has_available(family: Family) -> bool:
    return any(family.remaining[ordinal] > family.reserved[ordinal] for ordinal in family.holders)


def _young(family: Family, ordinal: int, rule: RollOverRule) -> int:
    """What of a bucket was not rolled over too often yet."""
    ages = family.rolled.get(ordinal, {})
    old = sum(quantity for age, quantity in ages.items() if age >= rule.cycles)
    return family.remaining[ordinal] - old


def _youngest(family: Family, ordinal: int, quantity: int) -> tuple[tuple[int, int], ...]:
    """So much of a bucket by age, the youngest first: it lives longest."""
    ages = family.rolled.get(ordinal, {})
    fresh = family.remaining[ordinal] - sum(ages.values())
    told, left = [], quantity
    for age, held in ((0, fresh), *sorted(ages.items())):
        part = min(held, left)
        if part > 0:
            told.append((age, part))
            left -= part
    return tuple(told)


def _take_out(family: Family, bucket: RolledBucket) -> None:
    ordinal, rolled = bucket.ordinal, sum(quantity for _, quantity in bucket.rolled)
    ages = family.rolled.get(ordinal, {})
    for age, quantity in bucket.rolled:
        if age:
            ages[age] -= quantity
            if not ages[age]:
                del ages[age]
    if not ages:
        family.rolled.pop(ordinal, None)
    take_oldest(family.rolled, ordinal, bucket.expired)
    left = family.remaining[ordinal] = family.remaining[ordinal] - rolled - bucket.expired
    family.remaining_total -= rolled + bucket.expired
    family.rolled_total += rolled
    family.expired_total += bucket.expired
    if left < family.reserved[ordinal]:
        raise InvariantBroken("only what is not reserved is rolled over", member=ordinal, left=left)


def _put_in(family: Family, bucket: RolledBucket) -> None:
    quantity = sum(part for _, part in bucket.rolled)
    put(family.rolled, bucket.target, {age + 1: part for age, part in bucket.rolled})
    family.granted_total += quantity
    family.rolled_in_total += quantity
    family.remaining_total += quantity
    family.remaining[bucket.target] += quantity
    family.holders.add(bucket.target)
