"""Rating jobs that run: whoever serves a tenant carries its jobs on, wherever they were broken off.

A job that was begun stands in the tenant's state until it is finished, so nothing else has to be
remembered: after a crash the next worker looks through the log again, and finds what is left to do.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from msgspec import Struct

from ..domain.difference import Difference
from ..domain.inventory_dated import AnyCorrection
from ..domain.rating_job import FinishRating, RatingJob, Scope
from ..domain.refusals import Refused
from ..domain.rerated import RerateCharges
from ..domain.resettled import CorrectPlans
from ..domain.session import Session
from ..domain.tenant import Tenant
from .asking import Answer, Order
from .charges import state_at
from .correcting import RecycleRecord
from .log import LogUnavailable
from .rerating import PREVIEW, Outcome, Plan, Progress, begun, finish, hand_over, preview, start_key
from .resettling import Unsettled, settle, show, unsettled
from .stopping import cancelled
from .writer import Busy, Unavailable, Writer

if TYPE_CHECKING:
    from .engine import Engine

LOOK_SECONDS = 0.5
"""How often jobs that were begun are looked for."""
PAUSE_SECONDS = 2.0
"""After a job was broken off, until it is gone on with."""
JOBS_ACTOR = "allotment:rating"

log = structlog.get_logger()
Key = tuple[UUID, str]


class Reached(Struct):
    """How far a job has looked through the log."""

    seq: int
    of: int


class RatingJobs:
    """Starts and stops with its engine."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self.reached: dict[Key, Reached] = {}
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._looking = asyncio.create_task(self._look(), name="rating-jobs")

    async def stop(self) -> None:
        tasks = [*self._tasks.values(), *([self._looking] if self._looking else [])]
        await cancelled(tasks)

    async def _look(self) -> None:
        while True:
            for tenant, writer in self._engine.open_writers().items():
                if not writer.halted and not writer.lost:
                    self._begin(tenant, writer)
            await asyncio.sleep(LOOK_SECONDS)

    def _begin(self, tenant: UUID, writer: Writer) -> None:
        for name, job in writer.state.rerating.jobs.items():
            key = (tenant, name)
            if key not in self._tasks:
                self._tasks[key] = asyncio.create_task(self._run(key, job), name=f"rating-{name}")

    async def _run(self, key: Key, job: RatingJob) -> None:
        try:
            with self._engine.using(key[0]):
                await self._carry_out(key, job)
        except (Busy, Unavailable, LogUnavailable) as error:
            log.warning("a rating job will be gone on with", tenant=str(key[0]), job=key[1], error=str(error))
            await asyncio.sleep(PAUSE_SECONDS)
        except Refused as refusal:
            # Somebody has stopped it, or ended it elsewhere.
            log.info("a rating job was refused", tenant=str(key[0]), job=key[1], code=refusal.code)
        except Exception:
            log.exception("a rating job was broken off", tenant=str(key[0]), job=key[1])
            await asyncio.sleep(PAUSE_SECONDS)
        finally:
            self._tasks.pop(key, None)
            self.reached.pop(key, None)

    async def _carry_out(self, key: Key, job: RatingJob) -> None:
        tenant, name = key

        async def submit(
            command: RerateCharges | CorrectPlans | FinishRating | RecycleRecord, command_key: bytes
        ) -> Answer:
            return await self._engine.carry_out_here(tenant, Order(command, command_key), JOBS_ACTOR)

        def progress(seq: int, of: int) -> None:
            self.reached[key] = Reached(seq, of)

        def goes_on() -> bool:
            writer = self._engine.open_writers().get(tenant)
            return writer is not None and name in writer.state.rerating.jobs

        outcomes, after = list[Outcome](), 0
        while True:
            plan = await self._plan(tenant, job, after)
            outcome = await hand_over(
                plan, name, submit, self._engine.in_thread, goes_on=goes_on, progress=progress
            )
            if outcome.stopped:
                return
            _tell_if_differs(key, outcome)
            outcomes.append(outcome)
            # Of a hierarchy that was corrected: what others charged again meanwhile, and what still runs.
            again = job.started.scope.guided and outcome.passed_over
            again = await self._sessions_ended(key, job, goes_on) or again
            if not again:
                break
            after = plan.upto

        async def look() -> Unsettled:
            return await self._unsettled(key, job)

        # After the charges, for these say what plans have counted.
        outcomes[-1].planned.leave(await settle(look, submit, goes_on))
        if goes_on():
            await finish(name, outcomes, submit)

    async def _unsettled(self, key: Key, job: RatingJob) -> Unsettled:
        tenant, name = key
        state = self._engine.open_writers()[tenant].state
        about = (self._engine.isolation, tenant, state, name, job.started.scope, self._engine.clock())
        return await self._engine.in_thread(lambda: unsettled(*about))

    async def _sessions_ended(self, key: Key, job: RatingJob, goes_on: Callable[[], bool]) -> bool:
        """Whether sessions that began elsewhere had to be waited for: they are charged where they began."""
        waited = False
        while goes_on() and any(elsewhere(self._engine.open_writers()[key[0]].state, job.started.scope)):
            waited = True
            await asyncio.sleep(LOOK_SECONDS)
        return waited

    async def _plan(self, tenant: UUID, job: RatingJob, after: int = 0) -> Plan:
        reading, sealer = self._engine.reading_log(tenant), await self._engine.sealer(tenant)
        now = self._engine.clock()

        def folded() -> Plan:
            begun_with = reading.find([start_key(job.started.job)])
            end = reading.head().seq
            upto = begun_with[0].seq if begun_with and not job.started.scope.guided else end
            state = state_at(reading, reading.snapshots, end)
            return Plan(reading, sealer, state, begun(job), upto, now, end, look, after)

        def look() -> tuple[int, Tenant]:
            end = reading.head().seq
            return end, state_at(reading, reading.snapshots, end)

        return await self._engine.in_thread(folded)

    async def preview(
        self,
        tenant: UUID,
        scope: Scope,
        progress: Progress = lambda done, of: None,
        *,
        correction: AnyCorrection | None = None,
    ) -> tuple[int, Difference]:
        """What rating a scope again would change, and the seq that was looked up to; raises Refused.

        With a correction: what that would change.
        """
        reading, sealer = self._engine.reading_log(tenant), await self._engine.sealer(tenant)
        now = self._engine.clock()

        def shown() -> tuple[int, Difference]:
            end = reading.head().seq
            state = state_at(reading, reading.snapshots, end)
            about = (reading, sealer, state, scope, now)
            difference = preview(*about, upto=end, correction=correction, progress=progress)
            if correction is None:
                found = unsettled(self._engine.isolation, tenant, state, PREVIEW, scope, now)
                show(difference, state, found, now)
            return end, difference

        return await self._engine.in_thread(shown)


def elsewhere(state: Tenant, scope: Scope) -> Iterator[Session]:
    """The sessions that run and began where, as the hierarchy says now, their resource was not."""
    hierarchy = state.hierarchy
    whose = {hierarchy.by_id[one].ordinal for one in (scope.node, *scope.resources) if one}
    for session in state.sessions.open.values() if scope.guided else ():
        if not scope.spans(session.started_at) or whose.isdisjoint(session.path):
            continue
        at, ordinal = session.started_at, session.path[0]
        barred = scope.anew and not session.emergency and hierarchy.is_suspended(ordinal, at)
        stood = hierarchy.members[ordinal].path_at(at)
        if scope.anew:
            stood = hierarchy.guide(session.subject, at) or ()
        if barred or stood != session.path:
            yield session


def _tell_if_differs(key: Key, outcome: Outcome) -> None:
    if outcome.differs:
        # The log tells what was done; only here stands how far that is from what was shown.
        log.warning(
            "usage that came meanwhile has changed what a rating job does",
            tenant=str(key[0]),
            job=key[1],
            parts=outcome.differs,
            charges_passed_over=outcome.passed_over,
        )
