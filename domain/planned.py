"""Plans at work: what each has counted, per period and whoever counts for itself.

A charge under a plan is rated with its counter as it stands and says so; whoever counts it finds the
counter just there. A charge that is made again says where it stands among those used before it. What
somebody else pays for is priced where the counter stands and not counted.
"""

from msgspec import Struct

from .hierarchy import Hierarchy, Path
from .rating.plan import CompiledPlan
from .rating.planned_rate import PlannedRate
from .rating.rate import CompiledRate
from .rating.standing import Counted, Standing
from .refusals import InvariantBroken

Counter = tuple[int, int]
"""Units, and what they were charged in micro-units."""
NOTHING_YET: Counter = (0, 0)


class Counting(Struct, frozen=True, array_like=True, order=True):
    """Whose counter of which plan, in which period."""

    plan: str
    period: str
    of: int
    """An ordinal."""


def united(some: tuple[Counting, ...], others: tuple[Counting, ...]) -> tuple[Counting, ...]:
    known = set(some)
    new = [one for one in others if one not in known]
    return tuple(sorted((*some, *new))) if new else some


class Plans:
    """The counters of all plans. A plan that goes on in another tariff version goes on counting."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self.counters: dict[tuple[str, str], dict[int, Counter]] = {}
        """By plan and period: of each ordinal that counts for itself."""

    def bound(self, rate: CompiledRate, period: str, path: Path) -> CompiledRate:
        """A rate under its plan, as that stands for a use on this path; any other as it is."""
        if isinstance(rate, PlannedRate):
            rate = rate.inner
        if rate.plan is None or rate.price is not None:
            return rate
        return PlannedRate(rate, self.standing(rate.plan, period, path))

    def standing(self, plan: CompiledPlan, period: str, path: Path) -> Standing:
        """Where a use on this path would be counted, and how far that is."""
        of = self.whose(plan, path)
        counters = self.counters.get((plan.plan.plan, period))
        return Standing(plan, of, *(counters.get(of, NOTHING_YET) if counters else NOTHING_YET))

    def counter(self, counting: Counting) -> Counter:
        counters = self.counters.get((counting.plan, counting.period))
        return counters.get(counting.of, NOTHING_YET) if counters else NOTHING_YET

    def whose(self, plan: CompiledPlan, path: Path) -> int:
        """The narrowest of its kind on the path; the enterprise, where there is none."""
        scope, kind, members = plan.plan.scope, plan.plan.of_kind, self._hierarchy.members
        if scope == "enterprise":
            return path[-1]
        those = path[:1] if scope == "resource" else path[1:]
        return next((one for one in those if kind in ("", members[one].kind)), path[-1])

    def count(self, period: str, counted: Counted) -> None:
        counters = self.counters.setdefault((counted.plan, period), {})
        units, spent = counters.get(counted.of, NOTHING_YET)
        if (units, spent) != (counted.before, counted.spent_before):
            raise InvariantBroken(
                "a charge is rated where its plan stands", plan=counted.plan, member=counted.of, units=units
            )
        if counted.units < 0 or counted.spent < 0:
            raise InvariantBroken("a plan only counts up", plan=counted.plan, member=counted.of)
        counters[counted.of] = units + counted.units, spent + counted.spent

    def recount(self, period: str, counted: Counted, sign: int) -> None:
        """Take off what a charge has added, or add what it adds instead: wherever among others it stands."""
        counters = self.counters.setdefault((counted.plan, period), {})
        units, spent = counters.get(counted.of, NOTHING_YET)
        units, spent = units + sign * counted.units, spent + sign * counted.spent
        if units < 0 or spent < 0:
            raise InvariantBroken(
                "no more comes off a plan than it counts", plan=counted.plan, member=counted.of, units=units
            )
        counters[counted.of] = units, spent

    def check_whole(self) -> None:
        for (plan, _), counters in self.counters.items():
            for of, (units, spent) in counters.items():
                if units < 0 or spent < 0:
                    raise InvariantBroken("no plan counts less than nothing", plan=plan, member=of)

    def spent(self, period: str) -> int:
        """What was charged under plans in a period."""
        return sum(
            spent
            for (_, of), counters in self.counters.items()
            if of == period
            for _, spent in counters.values()
        )
