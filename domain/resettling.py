"""Plans of closed periods settled again: the invoice keeps its line, the difference is owed elsewhere.

What a plan comes to in a closed period is its line, as told by the tariff known at the close, and all
corrections since: so whoever asks again finds nothing left to correct. A plan is corrected as a whole or
charge by charge, never both: nothing is owed twice.
"""

from collections.abc import Iterator

from .contract import Contracts, PeriodOpened
from .planned import Counting, Plans
from .rating.plan import PricePlan
from .rating_job import RatingStarted, Scope
from .refusals import InvariantBroken, Refused
from .rerated import UsageTakenBack
from .resettled import PLANS_MAX, CorrectPlans, PlanCorrected, Settled
from .rollover import RollOvers
from .tariff import Tariffs


def is_settled_whole(plan: PricePlan) -> bool:
    """Whether the invoice settles the whole of it, by a line of its own."""
    return plan.kind == "volume" or bool(plan.minimum)


def settled_whole(tariffs: Tariffs) -> frozenset[str]:
    """The plans that some version has settled as a whole: of these no charge of a closed period changes."""
    return frozenset(
        plan.plan for tariff in tariffs.versions for plan in tariff.published.plans if is_settled_whole(plan)
    )


def settles_plans(scope: Scope) -> bool:
    """Whether a job is about all that a plan counts in a period: a part of it has no line of its own."""
    return scope == Scope(period=scope.period, tariff=scope.tariff)


class Resettling:
    """What corrections of plans in closed periods add up to."""

    def __init__(self, contracts: Contracts, tariffs: Tariffs, rollovers: RollOvers, plans: Plans) -> None:
        self._contracts = contracts
        self._tariffs = tariffs
        self._rollovers = rollovers
        self._plans = plans
        self.corrected: dict[Counting, int] = {}
        """Owed elsewhere for a plan of a closed period; nothing, where it is as it was settled again."""
        self.by_charge: set[tuple[str, str]] = set()
        """Plans and closed periods in which single charges were corrected."""

    # --- decide -------------------------------------------------------------------------------

    def told(
        self, command: CorrectPlans, job: RatingStarted, now: int
    ) -> tuple[list[PlanCorrected], list[str]]:
        """What changes, and of what should but stays why."""
        if len(command.plans) > PLANS_MAX:
            raise Refused("too_many_records", count=len(command.plans), count_max=PLANS_MAX)
        opened = self._contracts.periods.get(command.period)
        if opened is None or not self._rollovers.is_closed(opened, now):
            raise Refused("bad_scope", field="period", remedy="name a period that is closed")
        settled = settled_whole(self._tariffs)
        changing = [one for one in command.plans if one.plan in settled and self.differs(one, command.period)]
        left = [reason for one in changing if (reason := self.why_left(one, command.period))]
        if not changing:
            return [], []
        running = self._contracts.period_for(now)
        if running is None:
            return [], ["no_open_period"] * len(changing)
        return [*self._corrected(changing, job, opened, running)], left

    def differs(self, one: Settled, period: str) -> bool:
        """What was counted since it was worked out makes it nobody's: the next look finds it."""
        at = _counting(one, period)
        counts = self._plans.counter(at)[0]
        return counts == one.units and one.owed != one.was + self.corrected.get(at, 0)

    def why_left(self, one: Settled, period: str) -> str:
        """Why it cannot be corrected as a whole; "" where it can."""
        return "corrected_by_charge" if (one.plan, period) in self.by_charge else ""

    def _corrected(
        self, changing: list[Settled], job: RatingStarted, opened: PeriodOpened, running: PeriodOpened
    ) -> Iterator[PlanCorrected]:
        for one in changing:
            if not self.why_left(one, opened.period):
                was = one.was + self.corrected.get(_counting(one, opened.period), 0)
                yield PlanCorrected(
                    *(job.job, job.cause, running.period, opened.period, one.plan, one.of, one.node),
                    *(one.units, one.was_tariff, was, one.tariff, one.owed),
                )

    # --- apply --------------------------------------------------------------------------------

    def apply(self, event: PlanCorrected) -> None:
        at = Counting(event.plan, event.of_period, event.counted_at)
        if (event.plan, event.of_period) in self.by_charge:
            raise InvariantBroken("a plan is corrected as a whole, or charge by charge", plan=event.plan)
        self.corrected[at] = self.corrected.get(at, 0) + event.difference

    def apply_charges(self, event: UsageTakenBack) -> None:
        """Charges of open periods are taken back; where none are, those of a closed one are corrected."""
        opened = {taken.charge.period for taken in event.charges}
        closed = [one for one in event.counting if one.period not in opened]
        if any(one in self.corrected for one in closed):
            raise InvariantBroken(
                "a plan is corrected as a whole, or charge by charge", plans=str(closed[:5])
            )
        self.by_charge.update((one.plan, one.period) for one in closed)


def _counting(one: Settled, period: str) -> Counting:
    return Counting(one.plan, period, one.of)
