"""Limits: how much may be used below a member in a window of time, and who is told on the way there.

A limit counts all usage of one type (or its money) in the subtree, covered by the allowance or
not: in the contract's period, or in the tenant's days, weeks or a rolling window. A hard one stops,
a soft one only tells. Each threshold fires once per crossing and window, in the same commit as the
usage that crossed it. A limit per period holds from a period on: what was valid in earlier periods
stays valid there. Others hold from when they are set, and begin to count then.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import ClassVar, Literal

from msgspec import Struct
from msgspec.structs import replace

from .bucket import NEVER, Family
from .contract import QUANTITY_MAX
from .gauge import Gauge, Told
from .hierarchy import Hierarchy, Member, Path
from .policy import Asked, Policies, Reached
from .raising import (
    DAYS_MAX,
    RAISES_KEPT,
    LimitRaised,
    MayRaise,
    RaiseLimit,
    check_may_raise,
    check_rules,
    raised,
)
from .refusals import InvariantBroken, Refused, check_text
from .usage import MONEY
from .usage_type import UsageTypes
from .window import PERIOD, Calendar, Unit, window_of

THRESHOLDS = (80, 100)
THRESHOLDS_MAX = 20
SOFT_PERCENT_MAX = 1_000
DAY = 86_400_000_000
PERIODS_KEPT = 3
"""Days and weeks are counted for usage since the start of the last so many periods: the one that
runs, the one before, and one that was opened ahead."""

Kind = Literal["hard", "soft"]
NOBODY: tuple[str, ...] = ("",)


class LimitSet(Struct, frozen=True, array_like=True, gc=False):
    """A limit holds at a member from a period on, or is lifted."""

    topic: ClassVar[str] = "limit.set"
    node: str
    usage_type: str
    quantity: int | None
    """Per window; None lifts the limit."""
    thresholds: tuple[int, ...]
    from_period: str
    window: str = PERIOD
    kind: Kind = "hard"
    quantities: tuple[int, ...] = ()
    """Thresholds that are quantities, not percentages."""
    may_raise: tuple[MayRaise, ...] = ()
    """Who may raise it; none: whoever may set limits there."""
    note: str = ""


class InForce(Struct, frozen=True):
    """A limit that holds: as `LimitSet`, and there is a quantity."""

    node: str
    quantity: int
    """As raised for the moment asked about."""
    thresholds: tuple[int, ...]
    from_period: str
    window: str = PERIOD
    kind: Kind = "hard"
    quantities: tuple[int, ...] = ()
    may_raise: tuple[MayRaise, ...] = ()
    set_to: int | None = None
    """The quantity it was set to, where it is raised."""


class ThresholdCrossed(Struct, frozen=True, array_like=True):
    """Usage has reached a threshold of a limit: told once per crossing and window."""

    topic: ClassVar[str] = "limit.threshold_crossed"
    node: str
    usage_type: str
    period: str
    percent: int
    """0 where the threshold is a quantity."""
    used: int
    limit: int
    window: str = PERIOD
    of: str = ""
    """Which day or week, or the last day or hour of a rolling window; empty for the period."""
    at: int = 0
    """The threshold, where it is a quantity."""
    policy: str = ""
    """Whose threshold it is, where it is not the limit's own."""
    version: int = 0


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


class SetAnyLimit(SetLimit, frozen=True, array_like=True):
    """The same for any window and kind, with who may raise it.

    A command of its own: what `SetLimit` was asked under a key stays the same question for ever.
    """

    window: str = PERIOD
    kind: Kind = "hard"
    quantities: tuple[int, ...] = ()
    may_raise: tuple[MayRaise, ...] = ()
    roles: tuple[str, ...] = ()
    """Of whoever asks; none for the carrier's own programs."""
    note: str = ""


class Stop(Struct, frozen=True, gc=False):
    """What stops a charge: whose limit or bucket, what it counts, how far it is."""

    reason: str
    ordinal: int
    counted: str
    used: int
    limit: int
    window: str = PERIOD


LimitEvent = LimitSet | LimitRaised | ThresholdCrossed
Key = tuple[str, str, int]


class Limits:
    """Every limit ever set, and which thresholds have fired in which window."""

    def __init__(self) -> None:
        self.calendar = Calendar()
        self.policies = Policies(self.calendar)
        self.by_type: dict[str, dict[int, list[LimitSet]]] = {}
        """Those per period."""
        self.fired: dict[Key, int] = {}
        """(usage type, period, ordinal) -> highest percent fired of the limit in force."""
        self.told: dict[Key, tuple[Told, ...]] = {}
        """What else fired: thresholds that are quantities, of policies, or of a limit while it was raised."""
        self.raises: dict[Key, tuple[LimitRaised, ...]] = {}
        """(usage type, window, ordinal) -> of the limit as it was set last."""
        self.windows: dict[str, dict[int, dict[str, LimitSet]]] = {}
        """Limits per day, week or rolling window: by usage type, ordinal and window."""
        self.gauges: dict[str, dict[int, dict[str, Gauge]]] = {}
        """What they count."""
        self.horizon = 0
        """Usage before this is counted per period only."""

    # --- in force -------------------------------------------------------------------------------

    def of(
        self, ordinal: int, usage_type: str, period: str, at: int | None = None, window: str = PERIOD
    ) -> InForce | None:
        """The limit in force at a member, if it has one; with a moment, as raised for that."""
        if window == PERIOD:
            last = self._last(ordinal, usage_type, period)
        else:
            last = self.windows.get(usage_type, {}).get(ordinal, {}).get(window)
        if last is None or last.quantity is None:
            return None
        if at is None or not self.raises:
            return _in_force(last, last.quantity)
        raises = self.raises.get((usage_type, window, ordinal), ())
        return _in_force(last, raised(raises, last.quantity, at))

    def _last(self, ordinal: int, usage_type: str, period: str) -> LimitSet | None:
        """The one that holds from the latest period on, and of several the one set later."""
        limits = self.by_type.get(usage_type, {}).get(ordinal, ())
        begun = [limit for limit in limits if limit.from_period <= period]
        return max(reversed(begun), key=lambda limit: limit.from_period, default=None)

    def counts_windows(self, usage_type: str) -> bool:
        """Whether usage of this type, or what it costs, is counted in any other window than the period."""
        return usage_type in self.gauges or MONEY in self.gauges

    # --- decided --------------------------------------------------------------------------------

    def decide(
        self,
        command: SetLimit,
        hierarchy: Hierarchy,
        running: str,
        families: list[Family],
        held: Iterable[tuple[int, int]] = (),
        now: int = 0,
    ) -> list[LimitSet | ThresholdCrossed]:
        """`held` is what a new window limit would find there: moments and quantities of open sessions."""
        member = check_limit(command, hierarchy)
        event = self._check_raising(_limit_set(command, member, running), member, command)
        if event.window != PERIOD:
            return [event, *self._passed_window(event, member, running, held, now)]
        passed = [
            crossing
            for family in families
            if _concerns(event, family)
            for crossing in self._passed(event, family, member.ordinal)
        ]
        return [event, *passed]

    def _check_raising(self, event: LimitSet, member: Member, command: SetLimit) -> LimitSet:
        """Who may not raise a limit by so much may not set it anew as high either, nor change the rule.

        A plain `SetLimit` says nothing about the rule, and so keeps it.
        """
        before = self.of(member.ordinal, event.usage_type, event.from_period, None, event.window)
        if before is None or not before.may_raise:
            return event
        if not isinstance(command, SetAnyLimit):
            event, roles = replace(event, may_raise=before.may_raise), NOBODY
        elif not command.roles:
            return event
        else:
            roles = command.roles
        wanted = None if event.kind == "soft" and before.kind == "hard" else event.quantity
        if event.may_raise != before.may_raise and wanted is not None:
            wanted = QUANTITY_MAX
        check_may_raise(event.node, event.window, before.may_raise, roles, before.quantity, wanted)
        return event

    def decide_raise(
        self, command: RaiseLimit, hierarchy: Hierarchy, running: str, families: list[Family], now: int
    ) -> list[LimitRaised | ThresholdCrossed]:
        check_text("note", command.note, empty=True)
        member = hierarchy.member(command.node)
        window_of(command.window)
        limit = self.of(member.ordinal, command.usage_type, running, now, command.window)
        if limit is None:
            raise Refused("no_limit", node=member.id, usage_type=command.usage_type, window=command.window)
        if not now < command.until <= now + DAYS_MAX * DAY:
            raise Refused("bad_end", until=command.until, now=now, days_max=DAYS_MAX)
        quantity = _raised_to(command, limit)
        base = limit.quantity if limit.set_to is None else limit.set_to
        if command.roles:
            check_may_raise(member.id, limit.window, limit.may_raise, command.roles, base, quantity)
        event = LimitRaised(
            member.id, command.usage_type, command.window, quantity, now, command.until, command.note
        )
        return [event, *self._passed_raised(event, limit, member.ordinal, running, families)]

    def _passed_raised(
        self, event: LimitRaised, limit: InForce, ordinal: int, running: str, families: list[Family]
    ) -> list[ThresholdCrossed]:
        """The thresholds of the raised limit that usage has reached already."""
        new = _in_force(limit, event.quantity, set_to=limit.set_to or limit.quantity)
        if event.window == PERIOD:
            return [
                crossing
                for family in families
                if (family.usage_type, family.period) == (event.usage_type, running)
                for crossing in self._crossings(new, family, family.used[ordinal], ordinal)
            ]
        gauge = self.gauges[event.usage_type][ordinal][event.window]
        number = self.calendar.bin_of(gauge.window.unit, event.since)
        used, last = gauge.fullest(number)
        return self._gauge_crossings(new, gauge, event.usage_type, running, number, used, used, last)

    def _passed(self, event: LimitSet, family: Family, ordinal: int) -> list[ThresholdCrossed]:
        """What a limit finds passed already, but for what was told of the very same one."""
        before = self._last(ordinal, family.usage_type, family.period)
        if event.quantity is None or (before is not None and before.from_period > event.from_period):
            return []
        new = _in_force(event, event.quantity)
        same = before is not None and _same(before, event)
        return self._crossings(new, family, family.used[ordinal], ordinal if same else None)

    def _passed_window(
        self, event: LimitSet, member: Member, running: str, held: Iterable[tuple[int, int]], now: int
    ) -> list[ThresholdCrossed]:
        """The same for another window: by what was counted for a limit that it replaces."""
        if event.quantity is None:
            return []
        gauge = self._gauge_of(event, member.ordinal) or self._fresh(event, held)
        number = self.calendar.bin_of(gauge.window.unit, now)
        used, last = gauge.fullest(number)
        before = self.of(member.ordinal, event.usage_type, running, None, event.window)
        if before is None or not _same(before, event):
            gauge = _copy_untold(gauge)
        new = _in_force(event, event.quantity)
        return self._gauge_crossings(new, gauge, event.usage_type, running, number, used, used, last)

    # --- asked ----------------------------------------------------------------------------------

    def is_near(self, counted: str, path: Path, quantity: int, at: int) -> bool:
        """Whether so much more reaches anything in a window other than the period, anywhere on the path."""
        return any(
            gauge.fullest(number)[0] + quantity >= gauge.mark
            for _, gauge, number in self.gauges_on(counted, path, at)
        )

    def stop(self, counter: Family, path: Path, quantity: int, at: int) -> Stop | None:
        """The tightest hard limit on a path that so much more would pass, nearest first of several."""
        best: Stop | None = None
        for stop in self._stops(counter, path, quantity, at):
            if best is None or stop.limit - stop.used < best.limit - best.used:
                best = stop
        return best

    def _stops(self, counter: Family, path: Path, quantity: int, at: int) -> Iterator[Stop]:
        counted, period = counter.usage_type, counter.period
        for ordinal in path:
            used = counter.used[ordinal]
            if used + quantity >= counter.mark[ordinal]:
                limit = self.of(ordinal, counted, period, at)
                if limit is not None and limit.kind == "hard" and used + quantity > limit.quantity:
                    yield Stop("limit_exceeded", ordinal, counted, used, limit.quantity)
        for ordinal, gauge, number in self.gauges_on(counted, path, at):
            used, _ = gauge.fullest(number)
            if used + quantity >= gauge.mark:
                limit = self.of(ordinal, counted, period, at, gauge.window.name)
                if limit is not None and limit.kind == "hard" and used + quantity > limit.quantity:
                    yield Stop("limit_exceeded", ordinal, counted, used, limit.quantity, limit.window)

    def used(self, counter: Family, ordinal: int, window: str, at: int) -> int:
        """At and below a member, in the window of a moment."""
        if window == PERIOD:
            return counter.used[ordinal]
        gauge = self.gauges[counter.usage_type][ordinal][window]
        return gauge.fullest(self.calendar.bin_of(gauge.window.unit, at))[0]

    def reached(self, counter: Family, path: Path, quantity: int, at: int) -> Iterator[Reached]:
        """How far each limit on a path would come with so much more: what policies are asked about."""
        counted, period = counter.usage_type, counter.period
        known = self.by_type.get(counted, {})
        for ordinal in path:
            limit = self.of(ordinal, counted, period, at) if ordinal in known else None
            if limit is not None:
                total = counter.used[ordinal] + quantity
                yield Reached(ordinal, counted, PERIOD, limit.quantity, total)
        for ordinal, gauge, number in self.gauges_on(counted, path, at):
            limit = self.of(ordinal, counted, period, at, gauge.window.name)
            if limit is not None:
                total = gauge.fullest(number)[0] + quantity
                yield Reached(ordinal, counted, limit.window, limit.quantity, total)

    def crossed(self, family: Family, path: Path, quantity: int, asked: Asked) -> list[ThresholdCrossed]:
        """The thresholds this usage crosses, from the foot of its path upwards."""
        crossings: list[ThresholdCrossed] = []
        counted, period, at = family.usage_type, family.period, asked.at
        for ordinal in path:
            total = family.used[ordinal] + quantity
            if total >= family.mark[ordinal]:
                limit = self.of(ordinal, counted, period, at)
                if limit is not None:
                    crossings += self._crossings(limit, family, total, ordinal, asked)
        for ordinal, gauge, number in self.gauges_on(counted, path, at):
            before, last = gauge.fullest(number)
            limit = self.of(ordinal, counted, period, at, gauge.window.name)
            if limit is not None and before + quantity >= gauge.mark:
                told = (limit, gauge, counted, period, number, before, before + quantity, last)
                crossings += self._gauge_crossings(*told, ordinal, asked)
        return crossings

    def _crossings(
        self, limit: InForce, family: Family, total: int, ordinal: int | None, asked: Asked | None = None
    ) -> list[ThresholdCrossed]:
        """Those of a limit per period that are reached; with an ordinal, but for what it was told of."""
        key = None if ordinal is None else (family.usage_type, family.period, ordinal)
        fired = self.fired.get(key, 0) if key is not None else 0
        told = self.told.get(key, ()) if key is not None else ()
        return [
            _crossing(limit, family.usage_type, family.period, total, threshold)
            for threshold in self._thresholds(limit, family.usage_type, ordinal, asked)
            if total >= _reached_at(threshold, limit.quantity)
            and not (threshold[1] <= fired if _is_plain(threshold, limit) else threshold in told)
        ]

    def _gauge_crossings(
        self,
        limit: InForce,
        gauge: Gauge,
        counted: str,
        period: str,
        number: int,
        before: int,
        total: int,
        last: int,
        ordinal: int | None = None,
        asked: Asked | None = None,
    ) -> list[ThresholdCrossed]:
        """Those of another window. What a rolling one had reached before this usage was told then."""
        of = self.calendar.label(gauge.window.unit, last)
        rolls = gauge.window.bins > 1 and total > before
        return [
            _crossing(limit, counted, period, total, threshold, of)
            for threshold in self._thresholds(limit, counted, ordinal, asked)
            if total >= (reached_at := _reached_at(threshold, limit.quantity))
            and not (rolls and before >= reached_at)
            and not gauge.is_told(number, threshold)
        ]

    def _thresholds(
        self, limit: InForce, counted: str, ordinal: int | None, asked: Asked | None
    ) -> list[Told]:
        """In the order in which they are reached."""
        own: list[Told] = [(limit.quantity, percent, 0, "") for percent in limit.thresholds]
        own += [(limit.quantity, 0, at, "") for at in limit.quantities]
        if self.policies and asked is not None and ordinal is not None:
            own += [
                (limit.quantity, step.percent, step.at, f"{version.policy}\x1f{version.version}")
                for version, step in self.policies.thresholds(asked, ordinal, counted, limit.window)
            ]
        elif not limit.quantities:
            return own
        return sorted(dict.fromkeys(own), key=lambda one: (_reached_at(one, limit.quantity), one[1:]))

    def gauges_on(self, counted: str, path: Path, at: int) -> Iterator[tuple[int, Gauge, int]]:
        """Each gauge on a path with the bin of a moment, where that is still kept."""
        by_ordinal = self.gauges.get(counted)
        for ordinal in path if by_ordinal else ():
            for gauge in (by_ordinal or {}).get(ordinal, {}).values():
                number = self.calendar.bin_of(gauge.window.unit, at)
                if gauge.keeps(number):
                    yield ordinal, gauge, number

    def passed_by(self, family: Family, ordinal: int, more: int) -> list[ThresholdCrossed]:
        """The thresholds of a limit per period that a correction by so much reaches."""
        total, limit = family.used[ordinal] + more, self.of(ordinal, family.usage_type, family.period)
        if limit is None or total < family.mark[ordinal]:
            return []
        return self._crossings(limit, family, total, ordinal)

    def passed_window_by(
        self, counted: str, ordinal: int, window: str, period: str, at: int, more: int
    ) -> list[ThresholdCrossed]:
        """The same in the windows that a moment is in."""
        gauge = self.gauges[counted][ordinal][window]
        number = self.calendar.bin_of(gauge.window.unit, at)
        before, last = gauge.fullest(number)
        limit = self.of(ordinal, counted, period, at, window)
        if limit is None or before + more < gauge.mark:
            return []
        told = (limit, gauge, counted, period, number, before, before + more, last)
        return self._gauge_crossings(*told, ordinal)

    # --- applied --------------------------------------------------------------------------------

    def correct(self, counted: str, ordinal: int, window: str, at: int, change: int) -> None:
        """Usage was corrected. What was charged stays charged, also where it stands above a limit."""
        gauge = self.gauges[counted][ordinal][window]
        number = self.calendar.bin_of(gauge.window.unit, at)
        if change > 0 and gauge.keeps(number):
            gauge.ceiling = max(gauge.ceiling, gauge.fullest(number)[0] + change)
        gauge.add(number, change)

    def count(self, counted: str, path: Path, quantity: int, at: int) -> None:
        """Add usage to the windows on its path, or take back what a session held."""
        for _, gauge, number in self.gauges_on(counted, path, at):
            gauge.add(number, quantity)

    def apply(
        self,
        event: LimitEvent,
        hierarchy: Hierarchy,
        families: list[Family],
        held: Iterable[tuple[int, int]] = (),
    ) -> None:
        ordinal = hierarchy.by_id[event.node].ordinal
        match event:
            case LimitSet(window="period"):
                self._set(event, ordinal, families)
            case LimitSet():
                self._set_window(event, ordinal, held)
            case LimitRaised():
                self._raise(event, ordinal, families)
            case ThresholdCrossed():
                self._fire(event, ordinal, families)

    def _set(self, event: LimitSet, ordinal: int, families: list[Family]) -> None:
        usage_type = event.usage_type
        concerned = [family for family in families if _concerns(event, family)]
        before = [self._last(ordinal, usage_type, family.period) for family in concerned]
        by_ordinal = self.by_type.setdefault(usage_type, {})
        if ordinal in by_ordinal:
            by_ordinal[ordinal].append(event)
        else:
            # A list of one, not one that has room for four.
            by_ordinal[ordinal] = [event]
        self.raises.pop((usage_type, PERIOD, ordinal), None)
        for family, was in zip(concerned, before, strict=True):
            if not _same(was, self._last(ordinal, usage_type, family.period)):
                self.fired.pop((usage_type, family.period, ordinal), None)
                self.told.pop((usage_type, family.period, ordinal), None)
            self._arm(family, ordinal)

    def _set_window(self, event: LimitSet, ordinal: int, held: Iterable[tuple[int, int]]) -> None:
        usage_type, window = event.usage_type, event.window
        before = self.windows.get(usage_type, {}).get(ordinal, {}).get(window)
        self.raises.pop((usage_type, window, ordinal), None)
        if event.quantity is None:
            _drop(self.windows, usage_type, ordinal, window)
            _drop(self.gauges, usage_type, ordinal, window)
            return
        gauge = self._gauge_of(event, ordinal)
        if gauge is None:
            gauge = self._fresh(event, held)
            self.gauges.setdefault(usage_type, {}).setdefault(ordinal, {})[window] = gauge
        elif not _same(before, event):
            gauge.told = {}
        self.windows.setdefault(usage_type, {}).setdefault(ordinal, {})[window] = event
        self._arm_gauge(gauge, event)

    def _raise(self, event: LimitRaised, ordinal: int, families: list[Family]) -> None:
        key = (event.usage_type, event.window, ordinal)
        self.raises[key] = (*self.raises.get(key, ()), event)[-RAISES_KEPT:]
        if event.window != PERIOD:
            gauge = self.gauges[event.usage_type][ordinal][event.window]
            if gauge.ceiling < event.quantity:
                gauge.ceiling = event.quantity
            return
        for family in families:
            if family.usage_type == event.usage_type:
                self._arm(family, ordinal)

    def _fire(self, event: ThresholdCrossed, ordinal: int, families: list[Family]) -> None:
        named = f"{event.policy}\x1f{event.version}" if event.policy else ""
        threshold: Told = (event.limit, event.percent, event.at, named)
        if event.window != PERIOD:
            gauge = self.gauges[event.usage_type][ordinal][event.window]
            number = self.calendar.bin_named(gauge.window.unit, event.of)
            told = gauge.told.get(number, ())
            if threshold in told:
                raise InvariantBroken("a threshold fires once", node=event.node, threshold=threshold)
            gauge.told[number] = (*told, threshold)
            return
        key = (event.usage_type, event.period, ordinal)
        limit = self.of(ordinal, event.usage_type, event.period)
        if limit is None or _is_plain(threshold, limit):
            if event.percent <= self.fired.get(key, 0):
                raise InvariantBroken("a threshold fires once", node=event.node, percent=event.percent)
            self.fired[key] = event.percent
        elif threshold in self.told.get(key, ()):
            raise InvariantBroken("a threshold fires once", node=event.node, threshold=threshold)
        else:
            self.told[key] = (*self.told.get(key, ()), threshold)
        for family in families:
            if (family.usage_type, family.period) == key[:2]:
                self._arm(family, ordinal)

    def begin(self, starts: Iterable[int]) -> None:
        """A period has been opened: of all that are open, when they begin. Old days leave memory."""
        newest = sorted(starts)[-PERIODS_KEPT:]
        self.horizon = newest[0] if len(newest) == PERIODS_KEPT else 0
        if self.horizon:
            for by_ordinal in self.gauges.values():
                for gauges in by_ordinal.values():
                    for gauge in gauges.values():
                        gauge.forget(self._first_bin(gauge.window.unit, gauge.window.bins))

    def _first_bin(self, unit: Unit, bins: int) -> int:
        return max(0, self.calendar.bin_of(unit, self.horizon) - bins + 1) if self.horizon else 0

    def _fresh(self, event: LimitSet, held: Iterable[tuple[int, int]]) -> Gauge:
        """A gauge that begins with what open sessions hold."""
        window = window_of(event.window)
        assert window is not None
        gauge = Gauge(window, self._first_bin(window.unit, window.bins))
        gauge.ceiling = NEVER
        for at, quantity in held:
            gauge.add(self.calendar.bin_of(window.unit, at), quantity)
        return gauge

    def _gauge_of(self, event: LimitSet, ordinal: int) -> Gauge | None:
        return self.gauges.get(event.usage_type, {}).get(ordinal, {}).get(event.window)

    def _arm_gauge(self, gauge: Gauge, limit: LimitSet) -> None:
        """What stands above the limit when it is set stays charged: in any of its windows."""
        assert limit.quantity is not None
        gauge.mark = self._mark(limit)
        gauge.ceiling = NEVER
        if limit.kind == "hard":
            most = max((gauge.sum_of(number) for number in gauge.bins), default=0)
            if gauge.window.bins > 1 and gauge.bins:
                spread = range(min(gauge.bins), gauge.latest + 1)
                most = max((gauge.sum_of(number) for number in spread), default=most)
            gauge.ceiling = max(limit.quantity, most)

    # --- marks of a period ----------------------------------------------------------------------

    def arm(self, family: Family) -> None:
        """Set the marks of a family that has just been opened: nothing is used, nothing has fired.

        For all members in one go: a million of them must not hold up the first record of a month.
        """
        marks: dict[tuple[int, tuple[int, ...], tuple[int, ...], Kind], int] = {}
        for ordinal, given in self.by_type.get(family.usage_type, {}).items():
            limit = given[0] if len(given) == 1 else self._last(ordinal, family.usage_type, family.period)
            if limit is None or limit.quantity is None or limit.from_period > family.period:
                continue
            wanted = (limit.quantity, limit.thresholds, limit.quantities, limit.kind)
            if wanted not in marks:
                marks[wanted] = self._mark(limit)
            family.mark[ordinal] = marks[wanted]
            family.ceiling[ordinal] = self._ceiling(limit, family, ordinal)

    def arm_all(self, families: Iterable[Family]) -> None:
        """Policies have changed: so has where they may have a say."""
        for family in families:
            for ordinal in self.by_type.get(family.usage_type, {}):
                self._arm(family, ordinal)
        for usage_type, by_ordinal in self.windows.items():
            for ordinal, limits in by_ordinal.items():
                for window, limit in limits.items():
                    self.gauges[usage_type][ordinal][window].mark = self._mark(limit)

    def _arm(self, family: Family, ordinal: int) -> None:
        limit = self._last(ordinal, family.usage_type, family.period)
        if limit is None or limit.quantity is None:
            family.mark[ordinal] = family.ceiling[ordinal] = NEVER
            return
        key = (family.usage_type, family.period, ordinal)
        family.mark[ordinal] = self._mark(limit, self.fired.get(key, 0), self.told.get(key, ()))
        # What was used before the limit came stays charged, so it may stand above the limit.
        family.ceiling[ordinal] = self._ceiling(limit, family, ordinal)

    def _ceiling(self, limit: LimitSet, family: Family, ordinal: int) -> int:
        if limit.kind == "soft" or limit.quantity is None:
            return NEVER
        raises = self.raises.get((family.usage_type, PERIOD, ordinal), ()) if self.raises else ()
        return max((limit.quantity, family.used[ordinal], *(one.quantity for one in raises)))

    def _mark(self, limit: LimitSet, fired: int = 0, told: Sequence[Told] = ()) -> int:
        """The first quantity at which something is to be told, or stopped, or a policy asked."""
        quantity = limit.quantity
        assert quantity is not None
        waiting = [
            _reached_at((0, percent, 0, ""), quantity) for percent in limit.thresholds if percent > fired
        ]
        waiting += [max(1, at) for at in limit.quantities if (quantity, 0, at, "") not in told]
        if limit.kind == "hard":
            waiting.append(quantity + 1)
        asked = self.policies.lowest(limit.usage_type, limit.window, quantity) if self.policies else None
        return min(waiting if asked is None else [*waiting, asked], default=NEVER)

    def check_whole(self) -> None:
        """Over all windows: bins add up, and each belongs to a limit."""
        for usage_type, by_ordinal in self.gauges.items():
            for ordinal, gauges in by_ordinal.items():
                if set(gauges) != set(self.windows[usage_type][ordinal]):
                    raise InvariantBroken("each gauge has its limit", member=ordinal)
                for gauge in gauges.values():
                    gauge.check_whole()


def check_limit(command: SetLimit, hierarchy: Hierarchy, types: UsageTypes | None = None) -> Member:
    """The member to be limited; refuses what no limit may be."""
    member = hierarchy.member(command.node)
    if types is not None:
        types.check(command.usage_type, money=True)
    if command.quantity is not None and not 0 <= command.quantity <= QUANTITY_MAX:
        raise Refused("quantity_out_of_range", quantity=command.quantity, quantity_max=QUANTITY_MAX)
    percent_max = SOFT_PERCENT_MAX if isinstance(command, SetAnyLimit) and command.kind == "soft" else 100
    wanted = command.thresholds
    count = len(wanted) + (len(command.quantities) if isinstance(command, SetAnyLimit) else 0)
    if count > THRESHOLDS_MAX or any(not 1 <= percent <= percent_max for percent in wanted):
        raise Refused(
            "bad_thresholds", thresholds=list(wanted), thresholds_max=THRESHOLDS_MAX, percent_max=percent_max
        )
    if isinstance(command, SetAnyLimit):
        _check_any(command)
    return member


def _check_any(command: SetAnyLimit) -> None:
    check_text("note", command.note, empty=True)
    if command.kind not in ("hard", "soft"):
        raise Refused("bad_kind", value=command.kind, known=["hard", "soft"])
    highest = QUANTITY_MAX if command.kind == "soft" or command.quantity is None else command.quantity
    if any(not 1 <= at <= highest for at in command.quantities):
        raise Refused("bad_quantities", quantities=list(command.quantities), quantity_max=highest)
    check_rules(command.may_raise, QUANTITY_MAX)
    if window_of(command.window) is not None and command.from_period:
        raise Refused("begins_now", window=command.window)


def _limit_set(command: SetLimit, member: Member, running: str) -> LimitSet:
    event = LimitSet(
        member.id,
        command.usage_type,
        command.quantity,
        _in_order(command.thresholds),
        command.from_period or running,
    )
    if not isinstance(command, SetAnyLimit):
        return event
    return LimitSet(
        event.node,
        event.usage_type,
        event.quantity,
        event.thresholds,
        event.from_period,
        command.window,
        command.kind,
        tuple(sorted(set(command.quantities))),
        command.may_raise,
        command.note,
    )


@lru_cache(maxsize=1_000)
def _in_order(thresholds: tuple[int, ...]) -> tuple[int, ...]:
    """Each once; the same tuple for all limits that ask for the same: there may be millions."""
    return tuple(sorted(set(thresholds)))


def _raised_to(command: RaiseLimit, limit: InForce) -> int:
    """To what; a raise that raises nothing is a mistake."""
    if (command.to is None) == (command.by is None):
        raise Refused("bad_raise", quantity=limit.quantity, remedy="give the quantity to raise to, or by")
    quantity = command.to if command.to is not None else limit.quantity + (command.by or 0)
    if not limit.quantity < quantity <= QUANTITY_MAX:
        raise Refused("bad_raise", quantity=limit.quantity, remedy=f"more than {limit.quantity}")
    return quantity


def _same(one: LimitSet | InForce | None, other: LimitSet | InForce | None) -> bool:
    """Whether two limits ask for the same: then what was told of one was told of the other."""
    return (
        one is not None
        and other is not None
        and one.quantity is not None
        and (one.quantity, one.thresholds, one.quantities)
        == (other.quantity, other.thresholds, other.quantities)
    )


def _in_force(limit: LimitSet | InForce, quantity: int, set_to: int | None = None) -> InForce:
    if set_to is None and isinstance(limit, LimitSet) and limit.quantity != quantity:
        set_to = limit.quantity
    return InForce(
        limit.node,
        quantity,
        limit.thresholds,
        limit.from_period,
        limit.window,
        limit.kind,
        limit.quantities,
        limit.may_raise,
        set_to,
    )


def _concerns(event: LimitSet, family: Family) -> bool:
    return family.usage_type == event.usage_type and event.from_period <= family.period


def _copy_untold(gauge: Gauge) -> Gauge:
    """The same counters for another limit, of which nothing was told."""
    copied = Gauge(gauge.window, gauge.first)
    copied.bins, copied.latest, copied.total = gauge.bins, gauge.latest, gauge.total
    return copied


def _drop(
    of: dict[str, dict[int, dict[str, LimitSet]]] | dict[str, dict[int, dict[str, Gauge]]],
    usage_type: str,
    ordinal: int,
    window: str,
) -> None:
    """Without leaving empty shells: where nothing is, nobody looks."""
    by_ordinal = of.get(usage_type, {})
    held = by_ordinal.get(ordinal, {})
    held.pop(window, None)
    if not held:
        by_ordinal.pop(ordinal, None)
    if not by_ordinal:
        of.pop(usage_type, None)


def _is_plain(threshold: Told, limit: InForce) -> bool:
    """A percentage of the limit as it was set: `fired` remembers those by the highest."""
    quantity, percent, _, policy = threshold
    return bool(percent) and not policy and limit.set_to is None and quantity == limit.quantity


def _reached_at(threshold: Told, limit: int) -> int:
    """The first whole quantity that reaches a threshold; never 0."""
    _, percent, at, _ = threshold
    return max(1, -(-limit * percent // 100) if percent else at)


def _crossing(
    limit: InForce, counted: str, period: str, used: int, threshold: Told, of: str = ""
) -> ThresholdCrossed:
    _, percent, at, named = threshold
    policy, _, version = named.partition("\x1f")
    return ThresholdCrossed(
        *(limit.node, counted, period, percent, used, limit.quantity),
        *(limit.window, of, at, policy, int(version or 0)),
    )
