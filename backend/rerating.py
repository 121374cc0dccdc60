"""Re-rating: a job looks through the log beside the writer, and hands it what changes, part by part.

What would change is found on a state of the job's own, by the code that decides; a preview ends there.
A job goes on and gives each part to the writer, which decides it again on the state as it is, for usage
goes on meanwhile; where that gives something else, it is counted. Each charge is replaced once, by its
key in the log: so a job may be broken off anywhere, and begun again from the start of the log.

Where a charge counts in a plan, all of its counter are counted again, in the order of use. What came
meanwhile was charged where the counter stood by then: it is counted again at the end, until nothing changes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from hashlib import sha256

from msgspec import Struct

from ..domain.charging import ChargeUsage, UsageCharged, UsageRejected
from ..domain.contract import OpenPeriod, PeriodNotOpen
from ..domain.difference import Difference
from ..domain.inventory_dated import AnyCorrection
from ..domain.ordering import Ordering, Tracks
from ..domain.ordering import parts as in_parts
from ..domain.planned import Counting
from ..domain.rating_job import FinishRating, RatingJob, RatingStarted, Scope, StartRating
from ..domain.refusals import Refused
from ..domain.remaking import counting_of
from ..domain.replanning import Replanning
from ..domain.rerated import Again, Made, RerateCharges, UsageCorrected, UsageRerated, UsageTakenBack
from ..domain.suspense import RecycleUsage
from ..domain.tenant import Event, Tenant
from ..tenants.sealing import Sealer
from .asking import Answer
from .charges import READ_MAX, TOPICS, Charges
from .correcting import RecycleRecord
from .counted_charges import CountedCharges, Run
from .folding import pieces
from .keys import command_key
from .log import PostgresLog, recorded
from .rerated_chain import events_at
from .stopping import cancelled
from .waiting_usage import WaitingUsage

PART_MAX = 200
"""Charges handed to the writer in one command: it decides them in some twenty milliseconds."""
WALK_MAX = 500
"""Charges that are read at once to be counted again."""
WAITING_MAX = 100
"""Records in suspense tried again at once: a slice of the writer of some ten milliseconds."""
PREVIEW = "preview"
IN_ORDER_MAX = 500_000
"""Charges of a period that can be put in order: they are held in memory meanwhile, a kilobyte each."""

ROUNDS_MAX = 50
"""How often what came meanwhile is counted again: each time that is what came while the last was."""

Look = Callable[[], tuple[int, Tenant]]
"""The log's end by now, and a state of one's own as of there. Blocks."""
Submit = Callable[[RerateCharges | FinishRating | RecycleRecord, bytes], Awaitable[Answer]]
InThread = Callable[[Callable[[], "Part | None"]], Awaitable["Part | None"]]
Progress = Callable[[int, int], None]


class Part(Struct, frozen=True):
    """Charges that change, with what they would change to."""

    charges: tuple[Again, ...]
    events: tuple[Made, ...]
    waiting: tuple[RecycleRecord, ...] = ()
    """Records in suspense that can be charged now; then there are no charges."""


HANDED_OVER = Part((), ())
"""No part: what follows is found in the log, with all parts before it."""


class Plan:
    """What a job changes, found on a state of its own."""

    def __init__(
        self,
        log: PostgresLog,
        sealer: Sealer,
        state: Tenant,
        started: StartRating,
        upto: int,
        now: int,
        end: int = 0,
        look: Look | None = None,
        after: int = 0,
    ) -> None:
        """Of the charges up to a seq, after another.

        `state` is that of the log's end, and the plan's own from here on. `look`: by which the plan follows
        what comes meanwhile, where it is carried out.
        """
        self.difference = Difference()
        self.upto = upto
        self._end = end or upto
        self._state = state
        self._now = now
        self._job = started.job
        self._log = log
        self._sealer = sealer
        self._scope = started.scope
        self._look = look
        self._waiting = WaitingUsage(log, sealer, state, started.scope)
        if started.job not in state.rerating.jobs:
            for event in state.rerating.decide(started, now):
                state.apply(event)
        has_plans = any(tariff.published.plans for tariff in state.tariffs.versions)
        self._counted = CountedCharges(started.scope.period) if has_plans else None
        self._counting = set(self._job_as_it_is.counting)
        """The counters that are counted again."""
        tell = self._counted.tell if self._counted is not None else None
        # Counters are counted again from their beginning.
        self._charges = Charges(log, sealer, state, started.scope, tell, 0 if has_plans else after)
        self._told_upto = 0
        """How far the charges that count were told."""

    @property
    def reached(self) -> int:
        return self._charges.looked_at

    @property
    def _job_as_it_is(self) -> RatingJob:
        return self._state.rerating.jobs[self._job]

    def parts(self) -> Iterator[Part]:
        """In the order of the log, or as they were used; then what came meanwhile. Blocks."""
        if self._scope.in_order:
            yield from self._parts_in_order()
        else:
            yield from self._parts_of_log()
            yield from self._parts_of_plans()
        yield from self._parts_of_suspense()
        yield from self._parts_meanwhile()
        self.difference.trim()

    # --- suspense -----------------------------------------------------------------------------

    def _parts_of_suspense(self) -> Iterator[Part]:
        """After what is given back, and so may be drawn."""
        found = list(self._waiting.read(self.upto))
        self.difference.looked_at += len(found) + self._waiting.erased
        self.difference.leave(["erased"] * self._waiting.erased)
        for first in range(0, len(found), WAITING_MAX):
            part = tuple(found[first : first + WAITING_MAX])
            for command in part:
                self._recycle(command)
            yield Part((), (), part)

    def _recycle(self, command: RecycleRecord) -> None:
        """As the writer will; nothing has to be sealed for it."""
        token = self._sealer.token(command.record.line)
        charge = ChargeUsage(command.record, token, b"", command.position)
        recycled = RecycleUsage(command.waiting, command.revision, charge, note=command.note)
        for event in self._recycled(recycled):
            self._state.apply(event)
            if isinstance(event, UsageCharged):
                self.difference.add_new(event)
            elif isinstance(event, UsageRejected):
                self.difference.leave([event.reason])

    def _recycled(self, command: RecycleUsage) -> Sequence[Event]:
        try:
            return self._state.decide(command, self._now)
        except PeriodNotOpen as needed:
            for event in self._state.decide(OpenPeriod(needed.period), self._now):
                self._state.apply(event)
            return self._recycled(command)

    # --- plans --------------------------------------------------------------------------------

    def _parts_of_plans(self) -> Iterator[Part]:
        """Counters that any charge of the scope is to leave, to enter, or to change, all of each."""
        if self._counted is not None and self._counting:
            self._follow(self._counted)
            yield from self._parts_of(self._counted.all_of(self._counting))

    def _parts_meanwhile(self) -> Iterator[Part]:
        """What was charged where a counter stood while it was counted again, and whoever comes after it."""
        if self._counted is None or self._look is None:
            return
        self._counting.update(self._job_as_it_is.counting)
        for _ in range(ROUNDS_MAX):
            if not self._counting or self._job not in self._state.rerating.jobs:
                return
            yield HANDED_OVER
            self._end, self._state = self._look()
            if self._job not in self._state.rerating.jobs:
                return
            self._follow(self._counted)
            for told in events_at(self._log, self._counted.not_come()):
                self._counted.tell(told)
            run = self._counted.since_changed(self._counting)
            if not run.seqs:
                return
            self._charges = Charges(self._log, self._sealer, self._state, self._scope)
            yield from self._parts_of(run)
        self.difference.leave(["counted_meanwhile"])

    def _follow(self, counted: CountedCharges) -> None:
        """Tell of what was charged, and made again, up to where the state is."""
        while self._told_upto < self._end:
            rows = self._log.read(self._told_upto, READ_MAX, self._end)
            self._told_upto = rows[-1].seq if rows else self._end
            for row in rows:
                if row.topic in TOPICS:
                    counted.tell(recorded(row))

    def _parts_of(self, run: Run) -> Iterator[Part]:
        waiting: list[Again] = []
        replanning = self._replanning(run)
        for first in range(0, len(run.seqs), WALK_MAX):
            for again in self._charges.at(run.seqs[first : first + WALK_MAX], self.upto):
                waiting += replanning.told([again])
                if len(waiting) == PART_MAX:
                    yield from self._replanned(waiting, replanning)
                    # The state has changed by it.
                    waiting, replanning = [], self._replanning(run)
        yield from self._replanned(waiting, replanning)

    def _replanned(self, charges: list[Again], replanning: Replanning) -> Iterator[Part]:
        if not replanning.is_whole:
            yield from self._part(charges)
        elif events := replanning.events():
            yield self._decided(charges, events)

    def _replanning(self, run: Run) -> Replanning:
        return Replanning(self._state.rerating.parts, self._job_as_it_is.started, self._now, run.positions)

    # --- allowance in order ---------------------------------------------------------------------

    def _parts_in_order(self) -> Iterator[Part]:
        """What each shall have is found first, for all of them: that needs them in memory."""
        charges: list[Again] = []
        for found in self._charges.read(self.upto, beside=True):
            charges += found
            if len(charges) > IN_ORDER_MAX:
                raise Refused("too_many_records", count=len(charges), count_max=IN_ORDER_MAX)
        self._told_upto = self.upto
        counted = {counting_of(again.charge) for again in charges if not again.kept}
        charges = [again for again in charges if not again.kept or counting_of(again.charge) in counted]
        self.difference.looked_at = len(charges)
        rerating = self._state.rerating
        ordering = Ordering(
            rerating.parts, rerating.jobs[self._job].started, self._now, self._tracks(self._scope.period)
        )
        changing = list(ordering.told(charges))
        self.difference.leave(ordering.left.values())
        for part in in_parts(changing, self._state.families):
            yield from self._part(part)

    def _tracks(self, period: str) -> Tracks:
        ordinals = {member.id: member.ordinal for member in self._state.hierarchy.members}
        tracks = Tracks(period)
        for piece in pieces(self._log, 0, self._end, leaves=False):
            for told in piece.others:
                tracks.tell(told, ordinals)
        return tracks

    def _parts_of_log(self) -> Iterator[Part]:
        waiting: list[Again] = []
        for found in self._charges.read(self.upto):
            self.difference.looked_at += len(found)
            for first in range(0, len(found), PART_MAX):
                events, changing = self._changing(found[first : first + PART_MAX])
                if not waiting and len(changing) > PART_MAX // 2 and not self._is_mixed(events, changing):
                    # Nothing has happened since: it would be the same again.
                    yield self._decided(changing, events)
                    continue
                waiting += changing
                while len(waiting) >= PART_MAX:
                    yield from self._part(waiting[:PART_MAX])
                    del waiting[:PART_MAX]
        self._told_upto = self.upto
        yield from self._part(waiting)

    def _changing(self, charges: list[Again]) -> tuple[list[Made], list[Again]]:
        """Of these: those that become another, as things are. Who counts in a plan has its turn later."""
        events, left = self._made(charges)
        self.difference.leave(left.values())
        after = {
            event.seq: event.charge for event in events if isinstance(event, UsageRerated | UsageCorrected)
        }
        return events, [
            again
            for again in charges
            if again.seq in after and not self._counts(again, counting_of(after[again.seq]))
        ]

    def _is_mixed(self, events: list[Made], changing: list[Again]) -> bool:
        """Whether some of it is of charges that have their turn later."""
        return sum(isinstance(event, UsageRerated | UsageCorrected) for event in events) != len(changing)

    def _counts(self, again: Again, after: Counting | None) -> bool:
        """Whether a charge that changes is to be counted again among others."""
        found = {one for one in (counting_of(again.charge), after) if one is not None}
        if not found:
            return False
        assert self._counted is not None
        self._counting |= found
        if counting_of(again.charge) is None:
            self._counted.enter(again.first)
        return True

    def _part(self, charges: list[Again]) -> Iterator[Part]:
        events, _ = self._made(charges)
        if events:
            yield self._decided(charges, events)

    def _decided(self, charges: list[Again], events: list[Made]) -> Part:
        for event in events:
            self._state.apply(event)
        self.difference.add(events)
        if self._counted is not None:
            for event in events:
                if isinstance(event, UsageRerated | UsageCorrected):
                    self._counted.expect(event.first, event.charge)
        return Part(tuple(charges), tuple(events))

    def _made(self, charges: list[Again]) -> tuple[list[Made], dict[int, str]]:
        command = RerateCharges(self._job, tuple(charges))
        try:
            return self._state.rerating.made(command, self._now)
        except PeriodNotOpen as needed:
            for event in self._state.decide(OpenPeriod(needed.period), self._now):
                self._state.apply(event)
            return self._made(charges)


def preview(
    log: PostgresLog,
    sealer: Sealer,
    state: Tenant,
    scope: Scope,
    now: int,
    *,
    upto: int,
    correction: AnyCorrection | None = None,
    progress: Progress = lambda done, of: None,
) -> Difference:
    """What rating this scope again would change. Only the state that is given becomes another. Blocks.

    With a correction: what that would change, whose scope it is.
    """
    started = StartRating(PREVIEW, scope)
    if correction is not None:
        for event in state.decide(correction, now):
            state.apply(event)
        started = begun(state.rerating.jobs[correction.job])
    plan = Plan(log, sealer, state, started, upto, now)
    for _ in plan.parts():
        progress(plan.reached, upto)
    return plan.difference


class Outcome(Struct):
    """What a job has come to."""

    planned: Difference
    done: Difference
    differs: int = 0
    """Parts in which usage that came meanwhile led to something else than planned."""
    passed_over: int = 0
    """Charges that somebody else had replaced meanwhile."""
    stopped: bool = False


async def carry_out(
    plan: Plan,
    job: str,
    submit: Submit,
    in_thread: InThread,
    *,
    goes_on: Callable[[], bool] = lambda: True,
    progress: Progress = lambda done, of: None,
) -> Outcome:
    """Hand the parts of a plan to the writer, one after the other, and end the job."""
    outcome = await hand_over(plan, job, submit, in_thread, goes_on=goes_on, progress=progress)
    if not outcome.stopped:
        await finish(job, [outcome], submit)
    return outcome


async def hand_over(
    plan: Plan,
    job: str,
    submit: Submit,
    in_thread: InThread,
    *,
    goes_on: Callable[[], bool] = lambda: True,
    progress: Progress = lambda done, of: None,
) -> Outcome:
    """The parts of a plan, one after the other; while one is stored the next is found. The job goes on."""
    outcome, parts = Outcome(plan.difference, Difference()), plan.parts()
    handing: asyncio.Task[None] | None = None
    try:
        while part := await in_thread(lambda: next(parts, None)):
            if handing is not None:
                await handing
                handing = None
            if not goes_on():
                outcome.stopped = True
                return outcome
            if part is not HANDED_OVER:
                hand = _try_again if part.waiting else _hand_over
                handing = asyncio.create_task(hand(part, job, submit, outcome))
            progress(plan.reached, plan.upto)
        if handing is not None:
            await handing
    finally:
        if handing is not None:
            await cancelled([handing])
    outcome.done.looked_at, outcome.done.left = plan.difference.looked_at, plan.difference.left
    outcome.done.trim()
    return outcome


async def finish(job: str, outcomes: Sequence[Outcome], submit: Submit) -> None:
    looked_at = sum(outcome.planned.looked_at for outcome in outcomes)
    left = sum(sum(outcome.planned.left.values()) for outcome in outcomes)
    await submit(FinishRating(job, looked_at, left), finish_key(job))


async def _try_again(part: Part, job: str, submit: Submit, outcome: Outcome) -> None:
    """Records that waited, each by itself; one that somebody has touched meanwhile is passed over."""

    async def tried(command: RecycleRecord) -> None:
        try:
            answer = await submit(command, waiting_key(job, command))
        except Refused as refusal:
            if refusal.code not in ("not_waiting", "record_changed", "bad_record"):
                raise
            outcome.passed_over += 1
            return
        for event in () if answer.repeated else answer.events:
            if isinstance(event, UsageCharged):
                outcome.done.add_new(event)

    await asyncio.gather(*(tried(command) for command in part.waiting))


async def _hand_over(part: Part, job: str, submit: Submit, outcome: Outcome) -> None:
    try:
        answer = await submit(RerateCharges(job, part.charges), part_key(job, part))
    except Refused as refusal:
        if refusal.code not in ("nothing_to_rerate", "cannot_be_made_again"):
            raise
        outcome.differs += 1
        outcome.passed_over += len(part.charges)
        return
    if answer.repeated:
        return
    told = [event for event in answer.events if isinstance(event, Made)]
    outcome.done.add(told)
    outcome.differs += _charges_of(told) != _charges_of(part.events)


def _charges_of(events: object) -> list[object]:
    assert isinstance(events, list | tuple)
    return [event for event in events if isinstance(event, UsageTakenBack | UsageRerated | UsageCorrected)]


def start_key(job: str) -> bytes:
    return command_key(f"rating:{job}")


def part_key(job: str, part: Part) -> bytes:
    """Of exactly these charges: another run may cut its parts elsewhere."""
    seqs = sha256(repr([again.seq for again in part.charges]).encode()).hexdigest()
    return command_key(f"rating:{job}:{seqs}")


def waiting_key(job: str, command: RecycleRecord) -> bytes:
    return command_key(f"rating:{job}:{command.waiting.hex()}:{command.revision}")


def finish_key(job: str) -> bytes:
    return command_key(f"rating:{job}:finish")


def begun(job: RatingJob) -> StartRating:
    """The command that a running job was begun with."""
    told: RatingStarted = job.started
    return StartRating(told.job, told.scope, told.cause, told.note, told.shown)
