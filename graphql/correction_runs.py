"""Why a correction of the hierarchy has to wait: another runs, and this is how far it is."""

from typing import cast

import strawberry
from strawberry import ID

from ..domain.refusals import Refused
from .context import Context
from .problems import Problem
from .refusals import problem_of
from .scalars import Quantity, Seq

RETRY_MS = 1_000
"""A job of a few thousand charges is done by then."""
RETRY_SESSIONS_MS = 30_000
"""Sessions end when they end."""


@strawberry.type(description="An earlier correction is being carried out; one runs at a time. Come again.")
class CorrectionRuns(Problem):
    job: ID = strawberry.field(description="As in `ratingJobs`; `stopRating` ends it.")
    note: str = strawberry.field(description="Why it was begun.")
    changed: Quantity = strawberry.field(description="Charges that it has made again so far.")
    reached: Seq | None = strawberry.field(description="How far through the log it is, where it runs here.")
    end: Seq | None = strawberry.field(description="And how far it has to go.")
    sessions: int = strawberry.field(description="Running sessions whose end it has to wait for.")
    retry_after_ms: int


async def correction_runs(context: Context, refusal: Refused) -> CorrectionRuns:
    facts, usual = refusal.facts, problem_of(refusal)
    standing = await context.correction_standing(cast("str", facts["job"]))
    return CorrectionRuns(
        code=usual.code,
        message=usual.message,
        path=usual.path,
        job=ID(str(facts["job"])),
        note=str(facts["note"]),
        changed=Quantity(cast("int", facts["changed"])),
        reached=None if standing.reached is None else Seq(standing.reached),
        end=None if standing.end is None else Seq(standing.end),
        sessions=standing.sessions,
        retry_after_ms=RETRY_SESSIONS_MS if standing.sessions else RETRY_MS,
    )
