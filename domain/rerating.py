"""Re-rating: charges are taken back as they were given, and made again; nothing is edited.

One command takes back the charges of some hundred records, all of them, and then makes each again:
so no bucket is ever below zero, whatever they hand to each other. A record has one charge at every
moment outside of such a command.
"""

from collections.abc import Sequence

from .charging import CORPORATE, Charging
from .contract import Contracts
from .hierarchy import Hierarchy
from .limit import Limits
from .planned import Counting, united
from .rating_job import (
    JOBS_MAX,
    FinishRating,
    RatingFinished,
    RatingJob,
    RatingStarted,
    StartRating,
    check_cause,
)
from .refusals import InvariantBroken, Refused
from .remaking import Families, Making, Parts
from .rerated import (
    CHARGES_MAX,
    Made,
    RatingCommand,
    RatingEvent,
    RerateCharges,
    UsageCorrected,
    UsageRerated,
    UsageTakenBack,
)
from .resettled import CorrectPlans, PlanCorrected
from .resettling import Resettling
from .rollover import RollOvers
from .tariff import Tariffs
from .usage import MONEY


class Rerating:
    """The jobs that run, and what corrections of closed periods add up to."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        contracts: Contracts,
        tariffs: Tariffs,
        limits: Limits,
        families: Families,
        charging: Charging,
        rollovers: RollOvers,
    ) -> None:
        self.hierarchy = hierarchy
        self.contracts = contracts
        self.tariffs = tariffs
        self.limits = limits
        self.families = families
        self.charging = charging
        self.rollovers = rollovers
        self.jobs: dict[str, RatingJob] = {}
        self.corrected: dict[str, int] = {}
        """By period: what is owed there for others that are closed, or credited."""
        self.changed = 0
        """By how much the enterprise was charged more since, in periods that are open, or less."""
        self.unsettled: tuple[Counting, ...] = ()
        """Counters of plans that a job had begun to count again when it was stopped: the next goes on."""
        self.resettling = Resettling(contracts, tariffs, rollovers, charging.plans)
        self.waiting: dict[int, int] = {}
        """Charges that were taken back and are not made again yet, by the event they stood in."""

    # --- what time asks for ---------------------------------------------------------------------

    def due(self, now: int) -> tuple[()]:
        """Nothing that a command could do at once."""
        return ()

    def next_due(self) -> int | None:
        """A job that was begun is gone on with at once, by whoever serves the tenant."""
        return 0 if self.jobs else None

    # --- decide -------------------------------------------------------------------------------

    def decide(self, command: RatingCommand, now: int) -> Sequence[RatingStarted | RatingFinished | Made]:
        match command:
            case StartRating():
                return [self._start(command, now)]
            case FinishRating():
                return [self._finish(command)]
            case CorrectPlans():
                events, _ = self.settled(command, now)
            case _:
                events, _ = self.made(command, now)
        if not events:
            raise Refused("nothing_to_rerate", job=command.job)
        return events

    def _start(self, command: StartRating, now: int) -> RatingStarted:
        check_cause(command)
        if command.job in self.jobs:
            raise Refused("rating_job_runs", job=command.job)
        if len(self.jobs) >= JOBS_MAX:
            raise Refused("too_many_rating_jobs", jobs_max=JOBS_MAX)
        self._check_scope(command, now)
        return RatingStarted(command.job, command.scope, command.cause, command.note, command.shown)

    def _check_scope(self, command: StartRating, now: int) -> None:
        scope = command.scope
        if scope.node:
            self.hierarchy.member(scope.node)
        if scope.usage_type:
            self.contracts.types.check(scope.usage_type)
        if scope.period and scope.period not in self.contracts.periods:
            raise Refused("bad_scope", field="period", remedy="name a period that was opened")
        if scope.tariff and not 1 <= scope.tariff <= len(self.tariffs.versions):
            raise Refused("bad_scope", field="tariff", remedy="name a version that was published")
        if scope.in_order:
            self._check_order(command, now)

    def _check_order(self, command: StartRating, now: int) -> None:
        """Allowance is given in order among all who draw on the same buckets, or not at all."""
        scope = command.scope
        opened = self.contracts.periods.get(scope.period)
        if opened is None or scope.record_id or scope.tariff or scope.starts_at or scope.ends_at:
            raise Refused("scope_too_narrow", remedy="name a period, and no records, tariff or times")
        if self.rollovers.is_closed(opened, now):
            raise Refused("period_closed", period=scope.period)
        concerned = [
            family
            for family in self.families.values()
            if family.period == scope.period
            and (not scope.usage_type or family.usage_type in (scope.usage_type, MONEY))
        ]
        if any(family.caps is not None and family.caps.quantity for family in concerned):
            raise Refused("capped_allowance", period=scope.period)
        if scope.usage_type and self.families[MONEY, scope.period].granted_total:
            raise Refused("scope_too_narrow", remedy="leave the usage type out: all share money")
        above = self.hierarchy.by_id[scope.node].standing(now)[1:] if scope.node else ()
        if any(ordinal in family.holders for family in concerned for ordinal in above):
            raise Refused("scope_too_narrow", remedy="leave the node out: others draw on what is above")

    def _finish(self, command: FinishRating) -> RatingFinished:
        job = self._running(command.job)
        told = (job.changed, command.left, job.amount, job.corrected, command.stopped)
        return RatingFinished(command.job, command.records, *told)

    def _running(self, name: str) -> RatingJob:
        job = self.jobs.get(name)
        if job is None:
            raise Refused("unknown_rating_job", job=name)
        return job

    def made(self, command: RerateCharges, now: int) -> tuple[list[Made], dict[int, str]]:
        """The events, and of charges that stay as they are though they should not, why: by their seq."""
        if len(command.charges) > CHARGES_MAX:
            raise Refused("too_many_records", count=len(command.charges), count_max=CHARGES_MAX)
        if self.waiting:
            raise InvariantBroken("a record has one charge", waiting=sorted(self.waiting)[:10])
        making = Making(self.parts, self._running(command.job).started, now)
        for again in making.in_order(command.charges):
            making.make(again)
        return making.events(), making.left

    def settled(self, command: CorrectPlans, now: int) -> tuple[list[Made], list[str]]:
        """The same of plans that closed periods have settled as a whole; the reasons of those that stay."""
        events, left = self.resettling.told(command, self._running(command.job).started, now)
        return [*events], left

    # --- apply --------------------------------------------------------------------------------

    def apply(self, event: RatingEvent) -> None:
        match event:
            case RatingStarted():
                self._begin(event)
            case RatingFinished():
                job = self.jobs.pop(event.job)
                if event.stopped:
                    self.unsettled = united(self.unsettled, job.counting)
            case UsageTakenBack():
                self._take_back(event)
            case UsageRerated():
                self._charge_again(event)
            case UsageCorrected() | PlanCorrected():
                if isinstance(event, PlanCorrected):
                    self.resettling.apply(event)
                job = self.jobs[event.job]
                job.changed += 1
                job.corrected += event.difference
                self.corrected[event.period] = self.corrected.get(event.period, 0) + event.difference

    def _begin(self, event: RatingStarted) -> None:
        """With what an earlier job has left half counted, where it is of the periods of this one."""
        period = event.scope.period
        mine = tuple(one for one in self.unsettled if not period or one.period == period)
        self.unsettled = tuple(one for one in self.unsettled if one not in mine)
        self.jobs[event.job] = RatingJob(event, counting=mine)

    def _take_back(self, event: UsageTakenBack) -> None:
        job = self.jobs[event.job]
        job.counting = united(job.counting, event.counting)
        self.resettling.apply_charges(event)
        for taken in event.charges:
            self.charging.count_use(taken.charge, -1, again=True)
            if taken.seq in self.waiting:
                raise InvariantBroken("a charge is taken back once", seq=taken.seq)
            self.waiting[taken.seq] = taken.charge.amount
        for cap in event.caps:
            caps = self.families[cap.usage_type, cap.period].caps
            assert caps is not None
            caps.correct(cap.ordinal, cap.change)
        for window in event.windows:
            self.limits.correct(window.counted, window.ordinal, window.window, window.at, window.change)

    def _charge_again(self, event: UsageRerated) -> None:
        charge, job = event.charge, self.jobs[event.job]
        if event.seq not in self.waiting:
            raise InvariantBroken("one record, one charge", seq=event.seq, record=charge.record_id)
        if charge.payer == CORPORATE:
            self.families[charge.usage_type, charge.period].make_room(charge.path, charge.billed)
            self.families[MONEY, charge.period].make_room(charge.path, charge.amount)
        self.charging.count_use(charge, again=True)
        difference = charge.amount - self.waiting.pop(event.seq)
        job.changed += 1
        job.amount += difference
        if charge.payer == CORPORATE:
            self.changed += difference

    @property
    def parts(self) -> Parts:
        plans = self.charging.plans
        return Parts(
            self.contracts, self.tariffs, self.limits, self.families, self.rollovers, plans, self.hierarchy
        )

    def check_settled(self) -> None:
        """At the end of a log, and wherever a command may be decided."""
        if self.waiting:
            raise InvariantBroken("what is taken back is charged again", waiting=sorted(self.waiting)[:10])
