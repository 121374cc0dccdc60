"""Limits: how much may be used below a member in a period, and who is told on the way there.

A limit counts all usage of one type (or its money) in the subtree, covered by the allowance or
not. Each threshold fires once per crossing and period, in the same commit as the usage that
crossed it. A limit holds from a period on: what was valid in earlier periods stays valid there.
"""

from collections.abc import Sequence
from typing import ClassVar

from msgspec import Struct

from .bucket import NEVER, Family
from .contract import QUANTITY_MAX
from .hierarchy import Hierarchy, Member, Path
from .refusals import InvariantBroken, Refused
from .usage_type import UsageTypes

THRESHOLDS = (80, 100)
THRESHOLDS_MAX = 20


class LimitSet(Struct, frozen=True, array_like=True):
    """A limit holds at a member from a period on, or is lifted."""

    topic: ClassVar[str] = "limit.set"
    node: str
    usage_type: str
    quantity: int | None
    """Per period; None lifts the limit."""
    thresholds: tuple[int, ...]
    from_period: str


class InForce(Struct, frozen=True):
    """A limit that holds: as `LimitSet`, and there is a quantity."""

    node: str
    quantity: int
    thresholds: tuple[int, ...]
    from_period: str


class ThresholdCrossed(Struct, frozen=True, array_like=True):
    """Usage has reached a percentage of a limit: told once per crossing and period."""

    topic: ClassVar[str] = "limit.threshold_crossed"
    node: str
    usage_type: str
    period: str
    percent: int
    used: int
    limit: int


class SetLimit(Struct, frozen=True, array_like=True):
    """Limit what may be used of a type, or of `money`, at and below a member per period.

    A quantity of None lifts the limit; 0 stops all usage. Below what is used already it stops
    what follows; what was charged stays charged. Thresholds not reached yet are armed anew.
    """

    node: str
    usage_type: str
    quantity: int | None
    thresholds: tuple[int, ...] = THRESHOLDS
    from_period: str = ""
    """"" means the period that is running."""


class Limits:
    """Every limit ever set, and which thresholds have fired in which period."""

    def __init__(self) -> None:
        self.by_type: dict[str, dict[int, list[LimitSet]]] = {}
        self.fired: dict[tuple[str, str, int], int] = {}
        """(usage type, period, ordinal) -> highest percent fired of the limit in force."""

    def of(self, ordinal: int, usage_type: str, period: str) -> InForce | None:
        """The limit in force at a member in a period, if it has one."""
        last = self._last(ordinal, usage_type, period)
        return None if last is None else _in_force(last)

    def _last(self, ordinal: int, usage_type: str, period: str) -> LimitSet | None:
        """The one that holds from the latest period on, and of several the one set later."""
        limits = self.by_type.get(usage_type, {}).get(ordinal, ())
        begun = [limit for limit in limits if limit.from_period <= period]
        return max(reversed(begun), key=lambda limit: limit.from_period, default=None)

    def decide(
        self, command: SetLimit, hierarchy: Hierarchy, running: str, families: list[Family]
    ) -> list[LimitSet | ThresholdCrossed]:
        member = check_limit(command, hierarchy)
        event = LimitSet(
            member.id,
            command.usage_type,
            command.quantity,
            tuple(sorted(set(command.thresholds))),
            command.from_period or running,
        )
        passed = [
            crossing
            for family in families
            if _concerns(event, family)
            for crossing in self._passed(event, family, member.ordinal)
        ]
        return [event, *passed]

    def _passed(self, event: LimitSet, family: Family, ordinal: int) -> list[ThresholdCrossed]:
        """What a limit finds passed already, but for what was told of the very same one."""
        before = self._last(ordinal, family.usage_type, family.period)
        new = _in_force(event)
        if before is not None and before.from_period > event.from_period:
            return []
        fired = self._fired(family, ordinal) if before and _same(_in_force(before), new) else 0
        return _crossings(new, family, family.used[ordinal], fired)

    def _fired(self, family: Family, ordinal: int) -> int:
        return self.fired.get((family.usage_type, family.period, ordinal), 0)

    def crossed(self, family: Family, path: Path, quantity: int) -> list[ThresholdCrossed]:
        """The thresholds this usage crosses, from the foot of its path upwards."""
        crossings: list[ThresholdCrossed] = []
        for ordinal in path:
            total = family.used[ordinal] + quantity
            if total >= family.mark[ordinal]:
                limit = self.of(ordinal, family.usage_type, family.period)
                crossings += _crossings(limit, family, total, self._fired(family, ordinal))
        return crossings

    def apply(self, event: LimitSet | ThresholdCrossed, hierarchy: Hierarchy, families: list[Family]) -> None:
        ordinal = hierarchy.by_id[event.node].ordinal
        match event:
            case LimitSet(_, usage_type):
                concerned = [family for family in families if _concerns(event, family)]
                before = [self.of(ordinal, usage_type, family.period) for family in concerned]
                self.by_type.setdefault(usage_type, {}).setdefault(ordinal, []).append(event)
                for family, was in zip(concerned, before, strict=True):
                    if not _same(was, self.of(ordinal, usage_type, family.period)):
                        self.fired.pop((usage_type, family.period, ordinal), None)
                    self._arm(family, ordinal)
            case ThresholdCrossed(_, usage_type, period, percent):
                if percent <= self.fired.get((usage_type, period, ordinal), 0):
                    raise InvariantBroken("a threshold fires once", node=event.node, percent=percent)
                self.fired[usage_type, period, ordinal] = percent
                for family in families:
                    if family.usage_type == usage_type and family.period == period:
                        self._arm(family, ordinal)

    def arm(self, family: Family) -> None:
        """Set the marks of a family that has just been opened: nothing is used, nothing has fired.

        For all members in one go: a million of them must not hold up the first record of a month.
        """
        marks: dict[tuple[int, tuple[int, ...]], int] = {}
        for ordinal, given in self.by_type.get(family.usage_type, {}).items():
            limit = given[0] if len(given) == 1 else self._last(ordinal, family.usage_type, family.period)
            if limit is None or limit.quantity is None or limit.from_period > family.period:
                continue
            wanted = (limit.quantity, limit.thresholds)
            if wanted not in marks:
                marks[wanted] = _first_mark(limit.quantity, limit.thresholds)
            family.mark[ordinal] = marks[wanted]
            family.ceiling[ordinal] = limit.quantity

    def _arm(self, family: Family, ordinal: int) -> None:
        limit = self.of(ordinal, family.usage_type, family.period)
        if limit is None:
            family.mark[ordinal] = family.ceiling[ordinal] = NEVER
            return
        fired = self._fired(family, ordinal)
        family.mark[ordinal] = _first_mark(limit.quantity, [one for one in limit.thresholds if one > fired])
        # What was used before the limit came stays charged, so it may stand above the limit.
        family.ceiling[ordinal] = max(limit.quantity, family.used[ordinal])


def check_limit(command: SetLimit, hierarchy: Hierarchy, types: UsageTypes | None = None) -> Member:
    """The member to be limited; refuses what no limit may be."""
    member = hierarchy.member(command.node)
    if types is not None:
        types.check(command.usage_type, money=True)
    if command.quantity is not None and not 0 <= command.quantity <= QUANTITY_MAX:
        raise Refused("quantity_out_of_range", quantity=command.quantity, quantity_max=QUANTITY_MAX)
    wanted = command.thresholds
    if len(wanted) > THRESHOLDS_MAX or any(not 1 <= percent <= 100 for percent in wanted):
        raise Refused("bad_thresholds", thresholds=list(wanted), thresholds_max=THRESHOLDS_MAX)
    return member


def _same(one: InForce | None, other: InForce | None) -> bool:
    """Whether two limits ask for the same: then what was told of one was told of the other."""
    return (
        one is not None
        and other is not None
        and (one.quantity, one.thresholds) == (other.quantity, other.thresholds)
    )


def _in_force(limit: LimitSet) -> InForce | None:
    if limit.quantity is None:
        return None
    return InForce(limit.node, limit.quantity, limit.thresholds, limit.from_period)


def _concerns(event: LimitSet, family: Family) -> bool:
    return family.usage_type == event.usage_type and event.from_period <= family.period


def _crossings(limit: InForce | None, family: Family, total: int, fired: int) -> list[ThresholdCrossed]:
    if limit is None:
        return []
    return [
        ThresholdCrossed(limit.node, family.usage_type, family.period, percent, total, limit.quantity)
        for percent in limit.thresholds
        if percent > fired and total >= _reached_at(limit.quantity, percent)
    ]


def _first_mark(quantity: int, thresholds: Sequence[int]) -> int:
    """The first quantity at which something is to be told, or to be stopped."""
    return min([*(_reached_at(quantity, percent) for percent in thresholds), quantity + 1])


def _reached_at(limit: int, percent: int) -> int:
    """The first whole quantity that is at least `percent` of the limit; never 0."""
    return max(1, -(-limit * percent // 100))
