"""Schedules: allocations to be carried out at a moment, again and again, or when a period opens.

Each occurrence ends in one event: carried out, followed by what it led to in the same commit, or
skipped with the reason. The next moment is written into that event, so replay asks no calendar.
After a pause in which nobody was there, what was missed is carried out once.
"""

from datetime import UTC, datetime, timedelta
from typing import ClassVar, Literal, get_args
from zoneinfo import ZoneInfo

from msgspec import Struct

from .allocation import Allocations
from .bucket import Granted
from .contract import Contracts, PeriodOpened
from .hierarchy import Hierarchy
from .refusals import Refused, check_text
from .running import ACTIONS, Line, Moved, Running, members_of
from .splitting import SCHEDULES

Every = Literal["once", "day", "week", "month", "period"]
EVERY: tuple[Every, ...] = get_args(Every)
SCHEDULES_MAX = 1_000
SCHEDULED_LINES_MAX = 1_000
AHEAD_MAX = 10 * 366 * 86_400_000_000
"""A moment more than ten years away is a typing mistake."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AllocationScheduled(Struct, frozen=True, array_like=True):
    """Lines are to be carried out at a moment, or at every one of a kind, or when a period opens."""

    topic: ClassVar[str] = "allocation.scheduled"
    schedule: str
    lines: tuple[Line, ...]
    every: Every
    first_at: int
    """Of periods: those that end after this."""
    until: int
    """0: without an end."""
    note: str = ""


class ScheduleCancelled(Struct, frozen=True, array_like=True):
    """A schedule is not carried out any more."""

    topic: ClassVar[str] = "allocation.schedule_cancelled"
    schedule: str
    note: str = ""


class ScheduleCarriedOut(Struct, frozen=True, array_like=True):
    """What was scheduled for a moment has been done: the transfers and caps that follow."""

    topic: ClassVar[str] = "allocation.schedule_carried_out"
    schedule: str
    at: int
    """When it was due."""
    period: str
    count: int
    """How many transfers and caps follow."""
    next_at: int
    """0: it is over, or waits for a period."""


class ScheduleSkipped(Struct, frozen=True, array_like=True):
    """What was scheduled for a moment could not be done, and why. Nothing of it was."""

    topic: ClassVar[str] = "allocation.schedule_skipped"
    schedule: str
    at: int
    period: str
    code: str
    """Of the refusal; of several lines, of the first that does not fit."""
    line: int
    """Which line, counted from 1."""
    next_at: int


class ScheduleAllocation(Struct, frozen=True, array_like=True):
    """Have lines carried out at `first_at` and at every day, week or month after, or for each period."""

    schedule: str
    lines: tuple[Line, ...]
    every: Every = "once"
    first_at: int = 0
    until: int = 0
    note: str = ""


class CancelSchedule(Struct, frozen=True, array_like=True):
    """Have a schedule carried out no more."""

    schedule: str
    note: str = ""


class CarryOutSchedule(Struct, frozen=True, array_like=True):
    """Do what was scheduled for a moment: asked by time itself."""

    schedule: str
    at: int


ScheduleCommand = ScheduleAllocation | CancelSchedule | CarryOutSchedule
ScheduleEvent = AllocationScheduled | ScheduleCancelled | ScheduleCarriedOut | ScheduleSkipped


class Schedules:
    """What is scheduled, and when each is due next."""

    def __init__(self, hierarchy: Hierarchy, contracts: Contracts, allocations: Allocations) -> None:
        self._hierarchy = hierarchy
        self._contracts = contracts
        self._allocations = allocations
        self.by_id: dict[str, AllocationScheduled] = {}
        self.next_at: dict[str, int] = {}
        """Of those that wait for a moment; no entry for those that wait for a period."""

    # --- time -------------------------------------------------------------------------------

    def due(self, now: int) -> list[CarryOutSchedule]:
        """What is to be done by now, the longest overdue first."""
        if not self.next_at:
            return []
        waiting = [(at, schedule) for schedule, at in self.next_at.items() if at <= now]
        return [CarryOutSchedule(schedule, at) for at, schedule in sorted(waiting)]

    def next_due(self) -> int | None:
        return min(self.next_at.values(), default=None)

    # --- decide -----------------------------------------------------------------------------

    def decide(self, command: ScheduleCommand, now: int) -> list[ScheduleEvent | Moved]:
        match command:
            case ScheduleAllocation():
                return [self._schedule(command, now)]
            case CancelSchedule():
                check_text("note", command.note, empty=True)
                self._known(command.schedule)
                return [ScheduleCancelled(command.schedule, command.note)]
            case CarryOutSchedule():
                return self._carry_out(command, now)

    def _known(self, schedule: str) -> AllocationScheduled:
        found = self.by_id.get(schedule)
        if found is None:
            raise Refused("unknown_schedule", schedule=schedule)
        return found

    def _schedule(self, command: ScheduleAllocation, now: int) -> AllocationScheduled:
        check_text("schedule", command.schedule)
        check_text("note", command.note, empty=True)
        if command.schedule in self.by_id:
            raise Refused("exists_already", id=command.schedule)
        if len(self.by_id) >= SCHEDULES_MAX:
            raise Refused("too_many_schedules", schedules_max=SCHEDULES_MAX)
        if command.every not in EVERY:
            raise Refused("unknown_recurrence", every=command.every, known=list(EVERY))
        self._check_lines(command.lines)
        first_at = self._first(command, now)
        if command.until and command.until <= first_at:
            raise Refused("ends_before_it_begins", until=command.until, first_at=first_at)
        told = (command.schedule, command.lines, command.every, first_at, command.until, command.note)
        return AllocationScheduled(*told)

    def _first(self, command: ScheduleAllocation, now: int) -> int:
        if command.every == "period" and not command.first_at:
            return now
        if not now < command.first_at <= now + AHEAD_MAX:
            raise Refused("not_ahead", at=command.first_at)
        return command.first_at

    def _check_lines(self, lines: tuple[Line, ...]) -> None:
        """Refuses what no later day could make right."""
        if not lines:
            raise Refused("no_lines")
        if len(lines) > SCHEDULED_LINES_MAX:
            raise Refused("too_many_lines", lines=len(lines), lines_max=SCHEDULED_LINES_MAX)
        for line in lines:
            check_text("note", line.note, empty=True)
            if line.action not in ACTIONS:
                raise Refused("unknown_action", action=line.action, known=list(ACTIONS))
            if line.period:
                raise Refused("no_period_here", period=line.period)
            if line.usage_type or line.action not in ("template", "return_unused"):
                self._contracts.types.check(line.usage_type, money=line.action != "cap")
            for ident in members_of(line):
                self._hierarchy.member(ident)
            if line.action in ("allocate", "return", "trade") and (line.quantity or 0) <= 0:
                raise Refused("not_positive", quantity=line.quantity)

    def _carry_out(self, command: CarryOutSchedule, now: int) -> list[ScheduleEvent | Moved]:
        scheduled = self._known(command.schedule)
        due_at = self.next_at.get(command.schedule)
        if due_at != command.at or command.at > now:
            raise Refused("not_due", id=command.schedule, due_at=due_at)
        period = self._contracts.name_at(now)
        following = next_after(scheduled, now, self._contracts.zone)
        try:
            self._contracts.check(period)
        except Refused as refusal:
            return [_skipped(scheduled, command.at, period, refusal, following)]
        self._contracts.require(period)
        return self._done(scheduled, command.at, period, following, self._allocations.begin(now, SCHEDULES))

    def _done(
        self, scheduled: AllocationScheduled, at: int, period: str, following: int, running: Running
    ) -> list[ScheduleEvent | Moved]:
        try:
            events = self._allocations.lines(scheduled.lines, running, period)
        except Refused as refusal:
            return [_skipped(scheduled, at, period, refusal, following)]
        return [ScheduleCarriedOut(scheduled.schedule, at, period, len(events), following), *events]

    def opening(self, opened: PeriodOpened, granted: list[Granted], now: int) -> list[ScheduleEvent | Moved]:
        """What is scheduled for each period, in the one that is being opened with these grants."""
        waiting = [one for one in self.by_id.values() if _awaits(one, opened)]
        if not waiting:
            return []
        grants = {one.usage_type: one.quantity for one in granted}
        events: list[ScheduleEvent | Moved] = []
        for scheduled in waiting:
            # Those before have taken effect, those that were skipped have none.
            running = self._allocations.begin(now, SCHEDULES)
            running.open(opened, grants)
            running.take(events)
            events += self._done(scheduled, opened.starts_at, opened.period, 0, running)
        return events

    # --- apply ------------------------------------------------------------------------------

    def apply(self, event: ScheduleEvent) -> None:
        schedule = event.schedule
        match event:
            case AllocationScheduled():
                self.by_id[schedule] = event
                if event.every != "period":
                    self.next_at[schedule] = event.first_at
            case ScheduleCancelled():
                self._end(schedule)
            case ScheduleCarriedOut(next_at=next_at) | ScheduleSkipped(next_at=next_at):
                if next_at:
                    self.next_at[schedule] = next_at
                elif self.by_id[schedule].every != "period":
                    self._end(schedule)

    def _end(self, schedule: str) -> None:
        self.by_id.pop(schedule, None)
        self.next_at.pop(schedule, None)


def next_after(scheduled: AllocationScheduled, now: int, zone: ZoneInfo) -> int:
    """The next moment of a schedule after now, at the same time of day; 0 when there is none."""
    if scheduled.every in ("once", "period"):
        return 0
    first = (_EPOCH + timedelta(microseconds=scheduled.first_at)).astimezone(zone)
    local = (_EPOCH + timedelta(microseconds=now)).astimezone(zone)
    number = _passed(scheduled.every, first, local)
    following = _moment(_occurrence(first, scheduled.every, number))
    while following <= now:
        number += 1
        following = _moment(_occurrence(first, scheduled.every, number))
    return 0 if scheduled.until and following > scheduled.until else following


def _passed(every: Every, first: datetime, now: datetime) -> int:
    """How many occurrences have surely gone by: a few less than there were."""
    days = (now.date() - first.date()).days
    if every == "month":
        return max(1, (now.year - first.year) * 12 + now.month - first.month - 1)
    return max(1, days // (7 if every == "week" else 1) - 1)


def _occurrence(first: datetime, every: Every, number: int) -> datetime:
    """By the wall clock: it stays 9 o'clock when summer begins. Of a month, its last day at the latest."""
    if every != "month":
        return first.replace(fold=0) + timedelta(days=number * (7 if every == "week" else 1))
    months = first.year * 12 + first.month - 1 + number
    year, month = divmod(months, 12)
    following = first.replace(year=year + (month == 11), month=(month + 1) % 12 + 1, day=1)
    last = (following - timedelta(days=1)).day
    return first.replace(year=year, month=month + 1, day=min(first.day, last), fold=0)


def _moment(local: datetime) -> int:
    return (local.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)


def _awaits(scheduled: AllocationScheduled, opened: PeriodOpened) -> bool:
    if scheduled.every != "period" or opened.ends_at <= scheduled.first_at:
        return False
    return not scheduled.until or opened.starts_at < scheduled.until


def _skipped(
    scheduled: AllocationScheduled, at: int, period: str, refusal: Refused, following: int
) -> ScheduleSkipped:
    code, line = refusal.code, 0
    if code == "bad_lines":
        code, line = refusal.facts["why"], refusal.facts["first"]
    return ScheduleSkipped(scheduled.schedule, at, period, code, line, following)
