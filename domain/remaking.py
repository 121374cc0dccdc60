"""Making charges again: what each becomes by the rates that hold now, beside the state as it is.

What was ruled of usage, and who pays for it, stays as it was; so does allowance that was given, unless
the job is to give it in order. Limits stop no correction. In a period that is closed nothing moves: the
difference of the amount is owed in the one that runs. What counts in a plan is rated at the place that the
command tells for it; where it tells none, at the place that it was rated at before.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from .bucket import Drawn, Family
from .charging import CORPORATE, UsageCharged, find_rate, rated_again, told_of
from .contract import Contracts
from .heirs import Heirs, Pass
from .hierarchy import Hierarchy, Path
from .ledger import Ledger, trimmed
from .limit import Limits
from .planned import Counter, Counting, Plans
from .rating.basis import NO_BASIS, Switch
from .rating.planned_rate import PlannedRate
from .rating.standing import Counted, Standing
from .rating.switched_rate import with_switches
from .rating_job import RatingStarted
from .recounting import Recount
from .refusals import Refused
from .rerated import Again, CapCorrected, Made, TakenBack, UsageCorrected, UsageRerated, UsageTakenBack, was
from .resettling import settled_whole, settles_plans
from .rollover import RollOvers
from .switching import Switching
from .tariff import EXACT_MAX, CompiledRate, Tariffs
from .usage import MONEY
from .withdrawn import revived, withdrawn

Families = Mapping[tuple[str, str], Family]


class Parts(NamedTuple):
    """Of a tenant's state: what charges are made again from."""

    contracts: Contracts
    tariffs: Tariffs
    limits: Limits
    families: Families
    rollovers: RollOvers
    plans: Plans
    hierarchy: Hierarchy


class Making:
    """The charges of one command, made one after the other; nothing changes but this."""

    def __init__(self, of: Parts, job: RatingStarted, now: int) -> None:
        self._of = of
        self._job = job
        self._now = now
        self._ledgers: dict[tuple[str, str], Ledger] = {}
        self._made: list[tuple[Again, UsageCharged, bool]] = []
        self._corrected: list[tuple[Again, UsageCorrected]] = []
        self.left: dict[int, str] = {}
        self._closed: dict[str, bool] = {}
        self._heirs = Heirs(of.hierarchy)
        self._settled_whole: frozenset[str] | None = None
        self._late: set[int] = set()
        """Who cannot have the allowance that was told: by the event that the charge stands in."""

    def in_order(self, charges: Sequence[Again]) -> Iterator[Again]:
        """As they come. Those whose allowance is told first give back all, then get theirs, the rest last."""
        told = [one for one in charges if one.drawn is not None]
        for one in told:
            self._give_back(one.charge)
        late = []
        for one in charges:
            if one.drawn is None or self._permits(one, one.drawn):
                yield one
            else:
                self._late.add(one.seq)
                late.append(one)
        yield from late

    def _permits(self, again: Again, drawn: Drawn) -> bool:
        path = again.path or again.charge.path
        money = self._money(again.charge)
        return self._ledger(again.charge).permits(path, drawn) and money.permits(path, again.credit or ())

    def make(self, again: Again) -> None:
        before, closed = again.charge, self._is_closed(again.charge.period)
        rate, by_zone = self._rate(again)
        if again.drawn is None and not closed:
            self._give_back(before)
        problem, after = self._again(again, rate, closed=closed)
        if problem:
            self.left[again.seq] = problem
            if again.drawn is not None:
                # It has given its allowance to others, so nothing of this part is right.
                raise Refused("cannot_be_made_again", record=before.record_id, reason=problem)
        if closed:
            if after is not None and after != before:
                self._correct(again, after, by_zone=by_zone)
            return
        settled = before if after is None else after
        self._ledger(settled).take(settled.path, settled.drawn)
        self._money(settled).take(settled.path, settled.credit)
        if settled != before:
            self._made.append((again, settled, by_zone))

    def _is_closed(self, period: str) -> bool:
        known = self._closed.get(period)
        if known is None:
            opened = self._of.contracts.periods[period]
            known = self._closed[period] = self._of.rollovers.is_closed(opened, self._now)
        return known

    def _again(
        self, again: Again, rate: CompiledRate | None, *, closed: bool
    ) -> tuple[str, UsageCharged | None]:
        """The new charge; None and why, where there is none, or nothing that anybody pays has changed.

        What it gives back to nodes that were merged moves on to their successors.
        """
        if closed or not self._job.scope.guided or not self._of.hierarchy.closed:
            return self._becomes(again, rate, closed=closed)
        before = list(self._passes(again, None))
        self._pass(before, 1)
        problem, after = self._becomes(again, rate, closed=closed)
        if after is None:
            self._pass(before, -1)
            return problem, None
        rest = list(self._passes(again, after))
        self._pass(rest, 1)
        self._heirs.note([*before, *rest])
        return problem, after

    def _passes(self, again: Again, after: UsageCharged | None) -> Iterator[Pass]:
        charge = again.charge
        path, ends_at = again.path or charge.path, self._of.contracts.periods[charge.period].ends_at
        for usage_type, had, has in (
            (charge.usage_type, charge.drawn, after.drawn if after else ()),
            (MONEY, charge.credit, after.credit if after else ()),
        ):
            key = (usage_type, charge.period)
            if after is None:
                yield from self._heirs.before(key, had, path, ends_at)
            else:
                yield from self._heirs.after(key, had, has, path, ends_at)

    def _pass(self, passes: list[Pass], sign: int) -> None:
        for key, source, target, part in passes:
            self._ledger_of(*key).pass_on(source, target, sign * part)

    def _becomes(
        self, again: Again, rate: CompiledRate | None, *, closed: bool
    ) -> tuple[str, UsageCharged | None]:
        if again.becomes:
            return _withdrawn(again, again.becomes, closed=closed)
        if rate is None:
            return "no_rate", None
        before = again.charge
        if again.becomes is not None:
            if closed:
                return "period_closed", None
            before = revived(before)
        rate = self._placed(again, rate)
        if closed and before.payer != CORPORATE:
            return "paid_by_others", None
        if closed and (self._is_settled_whole(rate) or self._is_settled_whole(self._rate_before(before))):
            return self._left_to_plan(again, before, rate), None
        after = self._rated(replace(again, charge=before), rate, closed=closed)
        if max(after.exact) >= EXACT_MAX:
            return "beyond_counting", None
        had = before.overage if again.becomes is None else 0
        short = after.overage > had and rate.included and after.payer == CORPORATE
        if short and not self._of.contracts.periods[before.period].overage:
            return "insufficient_allowance", None
        return "", None if _same(again.charge, after) else after

    def _is_settled_whole(self, rate: CompiledRate) -> bool:
        """Whether the invoice settles all of its plan by a line of its own, which is told as it was."""
        if rate.plan is None or rate.price is not None:
            return False
        if self._settled_whole is None:
            self._settled_whole = settled_whole(self._of.tariffs)
        return rate.plan.plan.plan in self._settled_whole

    def _left_to_plan(self, again: Again, before: UsageCharged, rate: CompiledRate) -> str:
        """Why a charge stays that should not: what its plan comes to differs for all of it together."""
        after = self._rated(replace(again, charge=before), rate, closed=True)
        is_told = settles_plans(self._job.scope) and _beside_plan(before) == _beside_plan(after)
        return "" if is_told or _same(before, after) else "counts_in_a_plan"

    def _rated(self, again: Again, rate: CompiledRate, *, closed: bool) -> UsageCharged:
        before, path = again.charge, again.path or again.charge.path
        billed, ruling = rate.billed(before.quantity), before.ruling
        if ruling is not None and ruling.above > billed:
            ruling = replace(ruling, above=billed)
        coverable = self._coverable(before, rate, billed - (ruling.above if ruling else 0), again)
        if closed:
            drawn = trimmed(before.drawn, coverable)
        else:
            given = self._given(again, again.drawn, before.drawn)
            drawn = self._ledger(before).again(path, coverable, given)
        overage = billed - _sum(drawn)
        after = replace(
            before,
            path=path,
            billed=billed,
            tariff=rate.version,
            rate=rate.index,
            prefix=rate.prefix,
            zone=rate.zone,
            basis=rate.basis,
            drawn=drawn,
            overage=overage,
            ruling=ruling,
        )
        rated = rated_again(rate, after)
        basis = rate.basis if rate.plain else told_of(rate, rated, after.payer, ruling)
        after = replace(after, amount=rated.amount, exact=rated.exact, basis=basis, credit=())
        if after.payer != CORPORATE:
            return after
        if closed:
            return replace(after, credit=trimmed(before.credit, rated.amount))
        given = self._given(again, again.credit, before.credit)
        payable = self._creditable(again, path, rated.amount)
        return replace(after, credit=self._money(before).again(path, payable, given))

    def _placed(self, again: Again, rate: CompiledRate) -> CompiledRate:
        """A rate under its plan, at the charge's place in it; any other as it is."""
        if rate.plan is None or rate.price is not None:
            return rate
        path = again.path or again.charge.path
        counting = Counting(rate.plan.plan.plan, again.charge.period, self._of.plans.whose(rate.plan, path))
        return PlannedRate(rate, Standing(rate.plan, counting.of, *self._place(again, counting)))

    def _place(self, again: Again, counting: Counting) -> Counter:
        if again.place is not None:
            return again.place
        counted = counted_in(again.charge)
        if counted is not None and counting_of(again.charge) == counting:
            return counted.before, counted.spent_before
        return self._of.plans.counter(counting)

    def _given(self, again: Again, told: Drawn | None, before: Drawn) -> Drawn:
        """What is free for it because it gave that back, or because it was told to have it."""
        if again.drawn is not None:
            return () if again.seq in self._late else told or ()
        return before if again.path in (None, again.charge.path) else ()

    def _coverable(self, before: UsageCharged, rate: CompiledRate, most: int, again: Again) -> int:
        """How many units an allowance may pay: what it paid, and of what was not billed before all."""
        if before.payer != CORPORATE or not rate.included:
            return 0
        if again.drawn is not None and again.seq not in self._late:
            return min(most, _sum(again.drawn))
        moved = again.path not in (None, before.path) or again.becomes is not None
        if again.drawn is not None or moved:
            return most
        if not self._rate_before(before).included:
            return most
        taken = before.billed - before.overage
        return min(most, taken + max(0, most - before.billed))

    def _rate_before(self, before: UsageCharged) -> CompiledRate:
        return self._of.tariffs.versions[before.tariff - 1].rates[before.rate]

    def _creditable(self, again: Again, path: Path, amount: int) -> int:
        """The same for money."""
        before = again.charge
        if again.drawn is not None and again.seq not in self._late:
            return min(amount, _sum(again.credit or ()))
        if again.drawn is not None or path != before.path or again.becomes is not None:
            return amount
        return min(amount, _sum(before.credit) + max(0, amount - before.amount))

    def _rate(self, again: Again) -> tuple[CompiledRate | None, bool]:
        """The rate that holds now for when it was used; by the stored prefix where no number is known."""
        charge, of = again.charge, self._of
        if again.kept:
            found = (
                of.tariffs.versions[charge.tariff - 1].rates[charge.rate].again(charge.prefix, charge.basis)
            )
            return of.contracts.rate_of(of.contracts.periods[charge.period], charge.usage_type, found), False
        tariff = of.tariffs.at(charge.started_at)
        if tariff is None:
            return None, False
        number = charge.prefix if again.counterpart is None else again.counterpart
        about = (charge.usage_type, charge.direction, number, charge.started_at)
        try:
            if again.record is not None:
                rate = find_rate(tariff, again.record)
            else:
                rate = tariff.find_again(*about, charge.basis or NO_BASIS)
        except Refused:
            # It asks for something that the charge knows nothing of.
            return None, False
        if rate is None:
            return None, False
        if charge.basis is not None and charge.basis.switches:
            rate = self._switched(charge, rate, charge.basis.switches)
        rate = of.contracts.rate_of(of.contracts.periods[charge.period], charge.usage_type, rate)
        return rate, again.counterpart is None

    def _switched(self, charge: UsageCharged, rate: CompiledRate, were: tuple[Switch, ...]) -> CompiledRate:
        """With the prices that its session went on into, as they are by now."""
        of = self._of
        found_by = {"tariff": rate.version, "rate": rate.index, "prefix": rate.prefix, "basis": rate.basis}
        switches = Switching(of.tariffs, of.contracts.types.units).again(replace(charge, **found_by), were)
        basis = with_switches(rate.basis, switches)
        return of.tariffs.versions[rate.version - 1].rate_of(rate.index, rate.prefix, basis)

    def _correct(self, again: Again, after: UsageCharged, *, by_zone: bool) -> None:
        running = self._of.contracts.period_for(self._now)
        if running is None:
            self.left[again.seq] = "no_open_period"
            return
        corrected = UsageCorrected(
            *(again.seq, again.first, self._job.job, self._job.cause, running.period),
            *(after.amount - again.charge.amount, was(again.charge), after, by_zone),
        )
        self._corrected.append((again, corrected))

    def _give_back(self, charge: UsageCharged) -> None:
        self._ledger(charge).give_back(charge.path, charge.drawn)
        self._money(charge).give_back(charge.path, charge.credit)

    def _ledger(self, charge: UsageCharged) -> Ledger:
        return self._ledger_of(charge.usage_type, charge.period)

    def _money(self, charge: UsageCharged) -> Ledger:
        return self._ledger_of(MONEY, charge.period)

    def _ledger_of(self, usage_type: str, period: str) -> Ledger:
        key = (usage_type, period)
        if key not in self._ledgers:
            self._ledgers[key] = Ledger(self._of.families[key])
        return self._ledgers[key]

    def _counting(self) -> tuple[Counting, ...]:
        changed = [
            *((again.charge, after) for again, after, _ in self._made),
            *((again.charge, told.charge) for again, told in self._corrected),
        ]
        found = {counting_of(charge) for both in changed for charge in both}
        return tuple(sorted(one for one in found if one is not None))

    def events(self) -> list[Made]:
        """What is taken back, all of it, and moves on; then each made again; what they reach; corrections."""
        if not self._made and not self._corrected:
            return []
        job, recount = self._job, Recount(self._of.limits, self._of.families)
        for again, after, _ in self._made:
            recount.replace(again.charge, after)
        caps = tuple(
            CapCorrected(*key, *changed)
            for key, ledger in self._ledgers.items()
            for changed in ledger.drawn_past_caps()
        )
        back = tuple(TakenBack(again.seq, again.first, again.charge) for again, _, _ in self._made)
        return [
            UsageTakenBack(job.job, back, caps, recount.windows(), self._counting()),
            *self._heirs.events(job.note),
            *(
                UsageRerated(*(again.seq, again.first, job.job, job.cause, was(again.charge), after, by_zone))
                for again, after, by_zone in self._made
            ),
            *recount.crossings(),
            *(corrected for _, corrected in self._corrected),
        ]


def counted_in(charge: UsageCharged) -> Counted | None:
    """What it adds to a plan, and where; None where it is under none, or is free."""
    return charge.basis.counted if charge.basis is not None else None


def counting_of(charge: UsageCharged) -> Counting | None:
    counted = counted_in(charge)
    return None if counted is None else Counting(counted.plan, charge.period, counted.of)


def _withdrawn(again: Again, reason: str, *, closed: bool) -> tuple[str, UsageCharged | None]:
    """Nobody can be charged for it; what a closed period has settled stays settled."""
    before = again.charge
    if closed:
        return "period_closed", None
    return "", withdrawn(replace(before, path=again.path or before.path), reason)


def _same(before: UsageCharged, after: UsageCharged) -> bool:
    """Whether nothing has changed that anybody pays, or reads on a bill, or that a plan counts.

    Another place in a plan is no change by itself: it costs the same there.
    """
    found_by = {"tariff": before.tariff, "rate": before.rate, "prefix": before.prefix, "basis": before.basis}
    return replace(after, **found_by) == before and _adds(before) == _adds(after)


def _beside_plan(charge: UsageCharged) -> tuple[Counting | None, int, int, int]:
    """What a plan counts of it, and what it costs beside that."""
    counting, units, spent = _adds(charge)
    return counting, units, charge.overage, charge.amount - spent


def _adds(charge: UsageCharged) -> tuple[Counting | None, int, int]:
    counted = counted_in(charge)
    return counting_of(charge), *((counted.units, counted.spent) if counted is not None else (0, 0))


def _sum(drawn: Drawn) -> int:
    return sum(part for _, part in drawn)
