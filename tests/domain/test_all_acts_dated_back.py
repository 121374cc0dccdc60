"""Every act there is, and changes of the hierarchy that are dated back, with usage in between.

Each job that follows such a change is carried out part by part, as the product's are, while other things
go on. What always holds does so at every seq (see `test_all_acts_always_hold.py`); and once the jobs are
through, each record stands where it was used, as the hierarchy tells by then.
"""

from typing import Any

import pytest
from all_acts import DAY, HOUR
from domain.test_all_acts_always_hold import Count, World

from allotment.domain.charging import CORPORATE, ChargeUsage, UsageCharged, UsageRejected, UsageSuspended
from allotment.domain.correcting import (
    CorrectAdd,
    CorrectClose,
    CorrectEnd,
    CorrectJoin,
    CorrectMerge,
    CorrectMove,
    CorrectNodeMove,
    CorrectRename,
    CorrectResumption,
    CorrectSuspension,
)
from allotment.domain.emergency import is_emergency
from allotment.domain.inventory import CorrectInventory, Line
from allotment.domain.rating_job import FinishRating, RatingJob
from allotment.domain.rerated import (
    Again,
    RerateCharges,
    UsageCorrected,
    UsageRerated,
    UsageTakenBack,
    unsealed,
)
from allotment.domain.suspense import RecycleUsage, waiting_id
from allotment.domain.usage import UsageRecord
from allotment.domain.withdrawn import of_rejected, standing

JOBS = (CorrectMove, CorrectNodeMove, CorrectMerge, CorrectClose, CorrectAdd, CorrectRename)
OF_RESOURCES = (CorrectJoin, CorrectEnd, CorrectSuspension, CorrectResumption)
PART = 3


class Corrected(Count):
    """By the book: each record has one charge, and what is taken back is what was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seq = 0
        self.standing: dict[int, UsageCharged] = {}
        """By the event in which a record was charged first."""
        self.where: dict[int, int] = {}

    def tell(self, event: Any) -> None:
        self.seq += 1
        super().tell(event)
        match event:
            case UsageCharged():
                self.standing[self.seq], self.where[self.seq] = unsealed(event), self.seq
            case UsageRejected(reason="suspended"):
                self.standing[self.seq], self.where[self.seq] = of_rejected(event), self.seq
            case UsageTakenBack():
                for taken in event.charges:
                    assert self.where[taken.first] == taken.seq
                    assert self.standing.pop(taken.first) == taken.charge
                    self.count(taken.charge, -1)
            case UsageRerated():
                assert event.first not in self.standing
                self.standing[event.first], self.where[event.first] = event.charge, self.seq
                self.count(event.charge, 1)
            case UsageCorrected():
                # Its period closed while the job ran: only the difference of the amount is owed.
                self.standing[event.first], self.where[event.first] = event.charge, self.seq

    def count(self, charge: UsageCharged, sign: int) -> None:
        for usage_type, drawn in ((charge.usage_type, charge.drawn), ("money", charge.credit)):
            for ordinal, part in drawn:
                self.remaining[usage_type, charge.period, ordinal] -= sign * part
                self.consumed[usage_type, charge.period, ordinal] += sign * part
        if charge.payer == CORPORATE:
            self.use(charge, charge.billed, charge.amount, sign)

    def check(self, tenant: Any) -> None:
        super().check(tenant)
        assert self.standing.keys() == self.where.keys()


class DatedBack(World):
    """A tenant to which everything happens, some of it told too late."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.count = Corrected()
        for event in self.history:
            self.count.tell(event)
        self.records: dict[str, UsageRecord] = {}
        self.acts.acts = (*self.acts.acts, *[self.correct] * 6)

    # --- what is told too late ------------------------------------------------------------------

    def correct(self) -> Any:
        chance, acts = self.chance, self.acts
        job, order = f"j{acts.made}", chance.choice([*JOBS, *OF_RESOURCES])
        resource, node, at = self.concerned()
        if chance.random() < 0.15:
            return CorrectInventory(job, (self.line(resource, at), self.line(acts.resource(), at)))
        if order in OF_RESOURCES:
            return order(job, resource, at)
        if order is CorrectMove:
            return order(job, resource, acts.node(), at)
        if order is CorrectAdd:
            return order(job, f"n{acts.made}", node, "", "group", at)
        if order is CorrectClose:
            return order(job, acts.node(), at)
        if order is CorrectRename:
            return order(job, node, f"name {acts.made}", at)
        return order(job, node, acts.node(), at)

    def line(self, resource: str, at: int) -> Line:
        node = self.acts.node() if self.chance.random() < 0.7 else None
        status = self.chance.choice([None, None, "active", "suspended", "ended"])
        return Line(self.acts.made, resource, node, None, status, at, None, None)

    def concerned(self) -> tuple[str, str, int]:
        """A resource, a node and a moment, mostly such that something was used there since."""
        late = self.chance.choice([0, 1, HOUR, 30 * HOUR])
        recent = [one for one in self.count.standing.values() if self.now - one.started_at < 20 * DAY]
        if not recent or self.chance.random() < 0.2:
            return self.acts.resource(), self.acts.node(), self.now - 1 - late
        charge, members = self.chance.choice(recent[-12:]), self.tenant.hierarchy.members
        above = self.chance.choice(charge.path[1:])
        return members[charge.path[0]].id, members[above].id, charge.started_at - late

    def do(self, command: Any, *, timed: bool = False) -> None:
        record = getattr(command, "record", None)
        if isinstance(record, UsageRecord):
            self.records.setdefault(record.record_id, record)
        super().do(command, timed=timed)

    # --- the jobs that follow -------------------------------------------------------------------

    def step(self) -> None:
        super().step()
        for name, job in [*self.tenant.rerating.jobs.items()]:
            self.carry_out(name, job)

    def carry_out(self, name: str, job: RatingJob) -> None:
        """In parts, with something else between them; again, until everything stands where it was used."""
        for _ in range(20):
            again = self.changing(job)
            for first in range(0, len(again), PART):
                # Nobody else replaces a charge meanwhile: one correction runs at a time.
                self.do(RerateCharges(name, tuple(again[first : first + PART])))
                if self.chance.random() < 0.3:
                    super().step()
            again = self.changing(job)
            _, left = self.tenant.rerating.made(RerateCharges(name, tuple(again)), self.now)
            astray = [one for one in again if one.path or one.becomes is not None]
            if all(one.seq in left for one in astray):
                break
        else:
            raise AssertionError(f"a job comes to its end: {[(one.seq, one.path) for one in astray]}")
        self.answers.update(left[one.seq] for one in astray)
        self.recycle(job)
        self.do(FinishRating(name, 0, 0))
        self.tenant.rerating.check_settled()

    def changing(self, job: RatingJob) -> list[Again]:
        scope, hierarchy, found = job.started.scope, self.tenant.hierarchy, []
        for first, charge in self.count.standing.items():
            seq, called = self.count.where[first], self.records.get(charge.record_id)
            if not scope.takes(charge, hierarchy, self.tenant.tariffs):
                continue
            path, becomes = self.stood(charge, anew=scope.anew)
            denied = seq == first and isinstance(self.history[seq - 1], UsageRejected)
            if denied and (not scope.anew or becomes != "" or called is None):
                continue
            number = called.counterpart if called is not None else None
            record = called if denied else None
            found.append(Again(seq, first, charge, number, path=path, becomes=becomes, record=record))
        return found

    def stood(self, charge: UsageCharged, *, anew: bool) -> Any:
        called, hierarchy = self.records.get(charge.record_id), self.tenant.hierarchy
        if anew:
            token = called.line.encode() if called is not None else None
            emergency = called is not None and is_emergency(called)
            return standing(hierarchy, charge, token, emergency=emergency)
        path = hierarchy.members[charge.path[0]].path_at(charge.started_at)
        return path if path and path != charge.path else None, None

    def recycle(self, job: RatingJob) -> None:
        scope, tenant = job.started.scope, self.tenant
        for event in [one for one in self.history if isinstance(one, UsageSuspended)]:
            revision = tenant.suspense.waiting.get(waiting_id(event))
            record = self.records.get(event.record_id)
            if revision is None or record is None or not scope.anew or not scope.spans(event.started_at):
                continue
            if tenant.hierarchy.guide(record.line.encode(), event.started_at):
                charge = ChargeUsage(record, record.line.encode(), b"")
                self.do(RecycleUsage(waiting_id(event), revision, charge))


@pytest.mark.parametrize("seed", [0, 1, 2, 6])
def test_whatever_is_dated_back_adds_up_and_is_told_by_the_log(seed):
    world = DatedBack(seed)
    world.run(160)
    for topic in ("rating.finished", "usage.rerated", "usage.charged"):
        assert world.answers[topic], topic


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1_000, 1_400))
def test_so_it_does_for_longer(seed):
    DatedBack(seed).run(350)
