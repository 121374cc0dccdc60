"""Plans counted again: each charge where those that were used before it have left the plan's counter.

The order is that of use; of two at one moment the one that was charged first goes first. What one adds
the next one finds, so all of a counter cost what they would have cost, had each come when it was used.
"""

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from .charging import CORPORATE, UsageCharged
from .planned import NOTHING_YET, Counter, Counting
from .rating.rate import CompiledRate
from .rating_job import RatingStarted
from .remaking import Making, Parts, counted_in, counting_of
from .rerated import Again


class Positions:
    """How far counters have come, in the order of use."""

    def __init__(self) -> None:
        self._reached: dict[Counting, Counter] = {}

    def of(self, counting: Counting) -> Counter:
        return self._reached.get(counting, NOTHING_YET)

    def pass_by(self, counting: Counting, units: int, spent: int) -> None:
        before = self.of(counting)
        self._reached[counting] = before[0] + units, before[1] + spent

    def pass_charge(self, charge: UsageCharged) -> None:
        """What the enterprise does not pay for is priced where its plan stands, and not counted."""
        counted, counting = counted_in(charge), counting_of(charge)
        if counted is not None and counting is not None and charge.payer == CORPORATE:
            self.pass_by(counting, counted.units, counted.spent)


class Replanning(Making):
    """Charges as they are used, one after the other; those before them are told by the positions."""

    def __init__(self, of: Parts, job: RatingStarted, now: int, positions: Positions) -> None:
        super().__init__(of, job, now)
        self._positions = positions
        self._stood: Counter | None = None
        """Where the plan stood for the charge at hand, if it is under one."""
        self.is_whole = True
        """Whether `events` tells of all that changes: not of what is owed for closed periods."""

    def told(self, charges: Iterable[Again]) -> Iterator[Again]:
        """Those that change, each with its place."""
        for again in charges:
            found = None if self._stands(again) else self._told(again)
            if found is None:
                self._positions.pass_charge(again.charge)
            else:
                yield found

    def _stands(self, again: Again) -> bool:
        """Whether only its place could be another, and that is what it was."""
        counted, counting = counted_in(again.charge), counting_of(again.charge)
        if not again.kept or again.path or counted is None or counting is None:
            return False
        units, spent = self._positions.of(counting)
        if counted.before != units:
            return False
        rate, _ = self._rate(again)
        assert rate is not None
        return counted.spent_before == spent or (rate.plan is not None and rate.plan.cap is None)

    def _told(self, again: Again) -> Again | None:
        before, closed = again.charge, self._is_closed(again.charge.period)
        rate, by_zone = self._rate(again)
        if not closed:
            self._give_back(before)
        again, after = self._remade(again, rate, closed=closed)
        settled = before if after is None else after
        if not closed:
            self._ledger(settled).take(settled.path, settled.drawn)
            self._money(settled).take(settled.path, settled.credit)
        if after is None:
            return None
        self._positions.pass_charge(after)
        again = replace(again, place=self._stood)
        if closed:
            self.is_whole = False
        else:
            self._made.append((again, after, by_zone and not again.kept))
        return again

    def _remade(
        self, again: Again, rate: CompiledRate | None, *, closed: bool
    ) -> tuple[Again, UsageCharged | None]:
        """With what it becomes. What cannot be rated as it should be still has its place."""
        self._stood = None
        problem, after = self._again(again, rate, closed=closed)
        if not problem or again.kept or counted_in(again.charge) is None:
            if problem:
                self.left[again.seq] = problem
            return again, after
        self.left[again.seq] = problem
        kept = replace(again, kept=True, path=None, becomes=None)
        return self._remade(kept, self._rate(kept)[0], closed=closed)

    def _place(self, again: Again, counting: Counting) -> Counter:
        self._stood = self._positions.of(counting)
        return self._stood
