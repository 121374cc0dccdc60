"""Explaining what waited: why, what was amended meanwhile, and what became of it; linked both ways.

A charge out of suspense names the record that waited, and that one names its charge. Who sees only a part
of the enterprise learns of a charge of theirs that it had waited and what was amended, not who said what.
"""

import functools

import strawberry
from strawberry import ID

from ..domain.charging import UsageCharged, UsageRejected, UsageSuspended
from ..domain.events import Recorded
from ..domain.suspense import UsageAmended, UsageRecycled
from ..domain.writing_off import UsageDismissed
from ..projections import suspense as views
from ..tenants.isolation import Connection
from .asking import Reach
from .context import Context
from .scalars import Moment, Money, Seq


@strawberry.type(description="Something that a record says besides what it is charged by.")
class Attribute:
    name: str
    value: str


@strawberry.type(description="A correction of a record while it waited. What it said first stays in the log.")
class Amendment:
    seq: Seq
    fields: list[str] = strawberry.field(description="Which were corrected; all, where it could not be read.")
    note: str | None = strawberry.field(description="Null beyond your reach.")
    actor: str | None = strawberry.field(description="Null beyond your reach.")
    recorded_at: Moment


@strawberry.type(description="That a record waits, or waited, in suspense.")
class Waited:
    usage_id: ID = strawberry.field(description="Of the record as it came, for `explain`.")
    reason: str = strawberry.field(description="Why it waited at first.")
    since: Moment
    attempts: int = strawberry.field(description="How often it was recycled.")
    amendments: list[Amendment] = strawberry.field(description="Oldest first.")
    accepted_late: bool = strawberry.field(
        description="It came too late to be charged unasked, and was charged on purpose."
    )


@strawberry.type(description="What became of a record that waited.")
class LeftSuspense:
    outcome: str = strawberry.field(description="charged, rejected or dismissed.")
    usage_id: ID | None = strawberry.field(
        description="Of its charge or rejection, for `explain`; null where it was written off."
    )
    seq: Seq = strawberry.field(description="The event that says so.")
    amount: Money = strawberry.field(description="What was charged for it.")
    note: str
    actor: str
    asked_by: str | None = strawberry.field(description="Who asked to write it off, where that took two.")
    recorded_at: Moment


def attributes_of(pairs: tuple[tuple[str, str], ...]) -> list[Attribute]:
    return [Attribute(name=name, value=value) for name, value in pairs]


async def waited_before(context: Context, reach: Reach, told: Recorded) -> Waited | None:
    """Of a record in suspense, or of what was charged or rejected out of it."""
    _, found = await context.read(functools.partial(_found, told=told), ("suspense",))
    if found is None:
        return None
    row, seqs = found
    first, *steps = await context.events([row.seq, *seqs])
    assert isinstance(first.event, UsageSuspended)
    return Waited(
        usage_id=ID(row.usage_id.hex()),
        reason=first.event.reason,
        since=Moment(first.recorded_at),
        attempts=row.attempts,
        amendments=[_amendment(one, reach) for one in steps if isinstance(one.event, UsageAmended)],
        accepted_late=any(isinstance(one.event, UsageRecycled) and one.event.late for one in steps),
    )


async def left_suspense(context: Context, told: Recorded) -> LeftSuspense | None:
    if not isinstance(told.event, UsageSuspended):
        return None
    _, found = await context.read(functools.partial(_found, told=told), ("suspense",))
    if found is None or not found[0].settled_seq:
        return None
    seq = found[0].settled_seq
    settled, *after = await context.events([seq, seq + 1])
    event = settled.event
    assert isinstance(event, UsageRecycled | UsageDismissed)
    charged = isinstance(event, UsageRecycled)
    key = after[0].command_key if charged else None
    return LeftSuspense(
        outcome=found[0].outcome,
        usage_id=ID(key.hex()) if key is not None else None,
        seq=Seq(seq),
        amount=Money((event.value or 0) if charged and found[0].outcome == "charged" else 0),
        note=event.note,
        actor=settled.actor,
        asked_by=event.asked_by or None if isinstance(event, UsageDismissed) else None,
        recorded_at=Moment(settled.recorded_at),
    )


def _found(db: Connection, *, told: Recorded) -> tuple[views.Waiting, list[int]] | None:
    row: views.Waiting | None = None
    if isinstance(told.event, UsageSuspended):
        row = next(iter(views.waited(db, [told.command_key or b""])), None)
    elif isinstance(told.event, UsageCharged | UsageRejected):
        row = views.origin_of(db, told.seq)
    return None if row is None else (row, views.steps_of(db, row.waiting))


def _amendment(told: Recorded, reach: Reach) -> Amendment:
    event = told.event
    assert isinstance(event, UsageAmended)
    return Amendment(
        seq=Seq(told.seq),
        fields=list(event.fields),
        note=event.note if reach.whole else None,
        actor=told.actor if reach.whole else None,
        recorded_at=Moment(told.recorded_at),
    )
