"""Rating jobs: what was rated again, by whom and why, how far it is, and what it has changed.

What is changed so far adds up as charges are made again, so a job that was broken off shows it too.
"""

from typing import Any

import msgspec
from msgspec import Struct

from ..domain.rating_job import RatingFinished, RatingStarted
from ..domain.rerated import UsageCorrected, UsageRerated
from ..domain.resettled import PlanCorrected
from .chunk import Chunk
from .tables import Connection, Table

JOBS = Table(
    "rating_jobs",
    {"job": "text"},
    {
        "seq": "bigint",
        "scope": "text",
        "cause": "text",
        "note": "text",
        "shown": "text",
        "actor": "text",
        "started_at": "bigint",
    },
)
CHANGES = Table(
    "rating_changes", {"job": "text"}, dict.fromkeys(("changed", "amount", "corrected"), "bigint")
)
ENDS = Table(
    "rating_ends",
    {"job": "text"},
    {
        "seq": "bigint",
        "records": "bigint",
        "left_alone": "bigint",
        "stopped": "boolean",
        "finished_at": "bigint",
    },
)
TABLES = (JOBS, CHANGES, ENDS)
VERSION = 1


class RatedAgain(Struct, frozen=True):
    """A job, and what it has changed so far."""

    job: str
    seq: int
    scope: str
    """As JSON."""
    cause: str
    note: str
    shown: str
    actor: str
    started_at: int
    changed: int
    amount: int
    corrected: int
    finished_seq: int | None
    records: int | None
    """That were looked at; None while it runs."""
    left: int | None
    """That could not be rated again."""
    stopped: bool | None
    finished_at: int | None

    @property
    def status(self) -> str:
        if self.finished_at is None:
            return "running"
        return "stopped" if self.stopped else "finished"


def apply(chunk: Chunk, db: Connection) -> None:
    begun, ended, changes = [], [], dict[Any, list[int]]()
    for told in chunk.others:
        match told.event:
            case RatingStarted(job, scope, cause, note, shown):
                of = msgspec.json.encode(msgspec.structs.asdict(scope)).decode()
                begun.append((job, told.seq, of, cause, note, shown, told.actor, told.recorded_at))
            case RatingFinished(job, records, _, left):
                ended.append((job, told.seq, records, left, told.event.stopped, told.recorded_at))
            case UsageRerated(_, _, job):
                _add(changes, job, told.event.charge.amount - told.event.was.amount, 0)
            case UsageCorrected(job=job) | PlanCorrected(job=job):
                _add(changes, job, 0, told.event.difference)
    JOBS.insert(db, begun)
    ENDS.insert(db, ended)
    CHANGES.add(db, changes)


def _add(changes: dict[Any, list[int]], job: str, amount: int, corrected: int) -> None:
    row = changes.setdefault((job,), [0, 0, 0])
    row[0] += 1
    row[1] += amount
    row[2] += corrected


# --- queries ---------------------------------------------------------------------------------


def jobs_page(db: Connection, first: int, before: int | None = None) -> list[RatedAgain]:
    """The jobs begun last, newest first."""
    values = {"first": first, "before": 2**62 if before is None else before}
    found = db.execute(f"{_JOBS} WHERE j.seq < %(before)s ORDER BY j.seq DESC LIMIT %(first)s", values)
    return [RatedAgain(*row) for row in found]


def job(db: Connection, name: str) -> RatedAgain | None:
    row = db.execute(f"{_JOBS} WHERE j.job = %s", (name,)).fetchone()
    return RatedAgain(*row) if row is not None else None


_JOBS = """
SELECT j.job, j.seq, j.scope, j.cause, j.note, j.shown, j.actor, j.started_at,
       coalesce(c.changed, 0), coalesce(c.amount, 0), coalesce(c.corrected, 0),
       e.seq, e.records, e.left_alone, e.stopped, e.finished_at
FROM rating_jobs j
LEFT JOIN rating_changes c ON c.job = j.job
LEFT JOIN rating_ends e ON e.job = j.job
"""
