"""Re-rating: what rating charges again would change, the jobs that do it, and how far they are."""

import functools
from enum import Enum
from typing import Annotated

import strawberry
from strawberry import ID

from ..domain.correcting import CorrectMove
from ..domain.difference import Change, Difference
from ..domain.inventory_dated import AnyCorrection
from ..domain.rating_job import FinishRating, Scope, StartRating
from ..domain.refusals import Refused
from ..domain.rerated import UsageCorrected, UsageRerated
from ..projections import rating_jobs as views
from ..tenants.access import NotPermitted, require
from .asking import PAGE_USUAL, PageInfo, Reach, cursor_of, page_size, permit, reach_of, seq_before
from .changing import DryRun, bad_key, foreseen_events
from .context import Context, Info, TryAgain
from .correction_runs import CorrectionRuns, correction_runs
from .problems import (
    BadLines,
    Frozen,
    IdempotencyMismatch,
    InsufficientAllowance,
    InvalidInput,
    OverCommitted,
    Problem,
    ProblemType,
    UnknownNode,
)
from .problems import NotPermitted as NotPermittedProblem
from .problems import TryAgain as TryAgainProblem
from .refusals import TOLD, QueryRefused, facts_told, problem_of, unknown_node
from .scalars import Moment, Money, Quantity, Seq
from .wording import DRY

VIEWS = ("rating_jobs",)
KINDS_SHOWN_MAX = 500


@strawberry.enum(description="Why charges are rated again.")
class RatingCause(Enum):
    TARIFF_CORRECTED = "tariff_corrected"
    LATE_USAGE = "late_usage"
    HIERARCHY_CORRECTED = "hierarchy_corrected"
    REQUESTED = "requested"


@strawberry.enum
class RatingJobStatus(Enum):
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = strawberry.enum_value("stopped", description="Before it was through.")


@strawberry.input(description="Which charges: everything given must hold; nothing given means all.")
class RatingScopeInput:
    source: str = strawberry.field(default="", description="With `recordId`: one record.")
    record_id: str = ""
    node: ID | None = strawberry.field(default=None, description="Used at or below it, as it was charged.")
    usage_type: str = ""
    period: str = ""
    tariff_version: int = strawberry.field(
        default=0, description="Usage for which this version of the tariff holds now."
    )
    starts_at: Moment | None = strawberry.field(default=None, description="Used at this moment or later.")
    ends_at: Moment | None = strawberry.field(default=None, description="Used before this moment.")
    in_order: bool = strawberry.field(
        default=False,
        description="Give the allowance to whoever used it first, not to whoever was charged first. "
        "Of a whole period, for all who draw on the same buckets.",
    )

    def scope(self) -> Scope:
        return Scope(
            *(self.source, self.record_id, self.node or "", self.usage_type, self.period),
            *(self.tariff_version, self.starts_at or 0, self.ends_at or 0, self.in_order),
        )


@strawberry.input
class RerateInput:
    idempotency_key: str = strawberry.field(description="The job's name, for ever.")
    scope: RatingScopeInput
    cause: RatingCause | None = strawberry.field(default=None, description="REQUESTED where none is given.")
    note: str = ""
    shown: str = strawberry.field(
        default="", description="The digest of the difference that was confirmed; another one is refused."
    )
    dry_run: bool = strawberry.field(
        default=False,
        description="Only tell how it would begin, and those that change most: `previewRerating` tells all.",
    )


@strawberry.input(description="Where a resource has stood since a moment that is over.")
class CorrectMoveInput:
    idempotency_key: str = strawberry.field(description="Also the name of the job, for ever.")
    id: ID
    to: ID = strawberry.field(description="The node.")
    at: Moment = strawberry.field(description="Since when; in a period that is not closed.")
    note: str = strawberry.field(default="", description="For the history. No personal data.")
    shown: str = strawberry.field(
        default="", description="The digest of the difference that was confirmed; needed, but for a dry run."
    )
    dry_run: bool = strawberry.field(default=False, description=DRY)

    def command(self) -> CorrectMove:
        return CorrectMove(self.idempotency_key, self.id, self.to, self.at, self.note, self.shown)


@strawberry.input
class StopRatingInput:
    job: ID
    idempotency_key: str


@strawberry.type(description="Of some records: what was charged, and what would be, or is.")
class RatingChange:
    records: Quantity
    was_billed: Quantity
    billed: Quantity
    was_overage: Quantity = strawberry.field(description="Billed units that no allowance covered.")
    overage: Quantity
    was_amount: Money
    amount: Money
    difference: Money = strawberry.field(description="amount - wasAmount.")
    corrected: Money = strawberry.field(
        description="Of `difference`: owed in the period that runs, because their own is closed."
    )


@strawberry.type(description="The change of one node, usage type and zone.")
class RatingChangeByKind:
    node_id: ID
    usage_type: str = strawberry.field(description="Empty of a plan, and so is the zone.")
    zone: str
    plan: str = strawberry.field(
        description="The plan that a closed period has settled as a whole; empty of charges."
    )
    change: RatingChange


@strawberry.type(description="One record, as it was and as it would be, or is.")
class RatingExample:
    source: str
    record_id: str
    resource_id: ID
    usage_type: str
    started_at: Moment
    was_billed: Quantity
    billed: Quantity
    was_amount: Money
    amount: Money
    tariff_version: int
    zone: str
    by_zone: bool = strawberry.field(
        description="Nobody can read the number any more: the stored prefix chose the rate."
    )


@strawberry.type(description="How many charges stay as they are though they should not, and why.")
class LeftAlone:
    reason: str
    records: int


@strawberry.type(description="What rating charges again changes. Nothing has changed by showing it.")
class RatingDifference:
    seq: Seq = strawberry.field(description="The last event that was looked at.")
    digest: str = strawberry.field(description="Give it back as `shown`, to confirm exactly this.")
    looked_at: Quantity
    total: RatingChange
    kinds: list[RatingChangeByKind] = strawberry.field(description="The largest differences first.")
    left: list[LeftAlone]
    examples: list[RatingExample] = strawberry.field(description="Those that change most.")


@strawberry.type(description="What would change is not what was shown. Nothing has changed.")
class ChangedSinceShown(Problem):
    difference: RatingDifference


@strawberry.type(description="A job that rates charges again.")
class RatingJob:
    job: ID
    status: RatingJobStatus
    cause: RatingCause
    note: str
    actor: str
    started_at: Moment
    finished_at: Moment | None
    changed: Quantity = strawberry.field(description="Charges made again so far.")
    difference: Money = strawberry.field(description="Charged more in open periods, or less.")
    corrected: Money = strawberry.field(description="Owed more for closed periods, or less.")
    looked_at: Quantity | None = strawberry.field(description="Charges; null while it runs.")
    left: Quantity | None
    reached: Seq | None = strawberry.field(description="How far through the log it is, where it runs here.")
    seq: Seq


@strawberry.type
class RatingJobConnection:
    nodes: list[RatingJob]
    page_info: PageInfo


@strawberry.type(description="The job has begun; it goes on by itself, through any restart.")
class RerateDone:
    job: ID
    seq: Seq
    repeated: bool


@strawberry.type(description="The job goes no further. What it has changed stays changed.")
class StopRatingDone:
    job: ID
    seq: Seq
    repeated: bool


ReratePayload = Annotated[
    RerateDone
    | DryRun
    | ChangedSinceShown
    | CorrectionRuns
    | InvalidInput
    | UnknownNode
    | NotPermittedProblem
    | IdempotencyMismatch
    | TryAgainProblem,
    strawberry.union("ReratePayload"),
]
StopRatingPayload = Annotated[
    StopRatingDone | InvalidInput | UnknownNode | NotPermittedProblem | IdempotencyMismatch | TryAgainProblem,
    strawberry.union("StopRatingPayload"),
]


# --- asked -----------------------------------------------------------------------------------


async def preview_rerating(info: Info, scope: RatingScopeInput) -> RatingDifference:
    """What would change, by node, usage type and zone. Nothing changes."""
    permit(info.context, "configure")
    try:
        return await shown_difference(info.context, scope.scope())
    except Refused as refusal:
        told = TOLD[refusal.code].message.format_map(facts_told(refusal.facts))
        raise QueryRefused(refusal.code, told) from None


async def preview_move(info: Info, id: ID, to: ID, at: Moment) -> RatingDifference:
    """What moving a resource back-dated would change, by the node before and after. Nothing changes."""
    context = info.context
    permit(context, "organise")
    reach = await reach_of(context)
    for node in (id, to):
        if not reach.sees_id(node):
            raise QueryRefused("unknown_node", f"there is no node {node}")
    try:
        return await shown_difference(context, Scope(), CorrectMove("preview", id, to, at))
    except Refused as refusal:
        told = TOLD[refusal.code].message.format_map(facts_told(refusal.facts))
        raise QueryRefused(refusal.code, told) from None


async def rating_jobs(info: Info, first: int = PAGE_USUAL, after: str | None = None) -> RatingJobConnection:
    """Newest first: only for whoever sees the whole enterprise."""
    permit(info.context, "configure")
    size = page_size(first)
    query = functools.partial(views.jobs_page, first=size + 1, before=seq_before(after))
    _, rows = await info.context.read(query, VIEWS)
    page = rows[:size]
    return RatingJobConnection(
        nodes=[_job(info.context, row) for row in page],
        page_info=PageInfo(
            has_next_page=len(rows) > size, end_cursor=cursor_of(page[-1].seq) if page else None
        ),
    )


async def rating_job(info: Info, job: ID) -> RatingJob | None:
    permit(info.context, "configure")
    _, row = await info.context.read(functools.partial(views.job, name=job), VIEWS)
    return _job(info.context, row) if row is not None else None


# --- changed ---------------------------------------------------------------------------------


async def rerate(info: Info, input: RerateInput) -> ReratePayload:
    try:
        return await _rerate(info.context, input)
    except (NotPermitted, Refused, TryAgain) as refusal:
        return narrow(problem_of(refusal))


async def _rerate(context: Context, input: RerateInput) -> ReratePayload:
    require(context.principal, "configure")
    key = input.idempotency_key
    if (problem := bad_key(key)) is not None:
        return problem
    cause = input.cause or RatingCause.REQUESTED
    command = StartRating(key, input.scope.scope(), cause.value, input.note, input.shown)
    if input.dry_run:
        return await _foreseen(context, command)
    return await confirmed(context, command) if input.shown else await _begun(context, command)


async def confirmed(context: Context, command: StartRating | AnyCorrection) -> RerateDone | ChangedSinceShown:
    """What was shown is done, and nothing else."""
    if not await context.was_begun(command.job):
        scope = command.scope if isinstance(command, StartRating) else Scope()
        found = await shown_difference(context, scope, None if isinstance(command, StartRating) else command)
        if found.digest != command.shown:
            return ChangedSinceShown(
                code="changed_since_shown",
                message="this is not what was shown: look at the difference again, then confirm that",
                path=["input", "shown"],
                difference=found,
            )
    return await _begun(context, command)


async def _begun(context: Context, command: StartRating | AnyCorrection) -> RerateDone:
    answer = await context.start_rating(command)
    return RerateDone(job=ID(command.job), seq=Seq(answer.first_seq), repeated=answer.repeated)


async def correct_move(info: Info, input: CorrectMoveInput) -> ReratePayload:
    context = info.context
    try:
        require(context.principal, "organise")
        if (problem := bad_key(input.idempotency_key)) is not None:
            return problem
        reach = await reach_of(context)
        for field, node in (("id", input.id), ("to", input.to)):
            if not reach.sees_id(node):
                return unknown_node(node, field)
        if input.dry_run:
            return await _foreseen(context, input.command())
        return await confirmed(context, input.command())
    except (NotPermitted, Refused, TryAgain) as refusal:
        if isinstance(refusal, Refused) and refusal.code == "correction_runs":
            return await correction_runs(context, refusal)
        return narrow(problem_of(refusal))


async def _foreseen(context: Context, command: StartRating | AnyCorrection) -> DryRun:
    answer = await context.start_rating(command, dry=True)
    if isinstance(command, StartRating):
        _, found = await context.preview_rating(command.scope)
    else:
        _, found = await context.preview_rating(Scope(), command)
    events = (*answer.events, *found.examples)
    return DryRun(events=await foreseen_events(context, await reach_of(context), events))


async def stop_rating(info: Info, input: StopRatingInput) -> StopRatingPayload:
    context = info.context
    try:
        require(context.principal, "configure")
        answer = await context.submit(FinishRating(input.job, 0, 0, stopped=True), input.idempotency_key)
    except (NotPermitted, Refused, TryAgain) as refusal:
        return narrow(problem_of(refusal))
    return StopRatingDone(job=input.job, seq=Seq(answer.first_seq), repeated=answer.repeated)


Narrow = InvalidInput | UnknownNode | NotPermittedProblem | IdempotencyMismatch | TryAgainProblem


def narrow(problem: ProblemType) -> Narrow:
    assert not isinstance(problem, InsufficientAllowance | OverCommitted | Frozen | BadLines)
    return problem


# --- told ------------------------------------------------------------------------------------


async def shown_difference(
    context: Context, scope: Scope, correction: AnyCorrection | None = None
) -> RatingDifference:
    seq, found = await context.preview_rating(scope, correction)
    ids = [member.id for member in (await context.state()).hierarchy.members]
    return _difference(seq, found, ids, await reach_of(context))


def _difference(seq: int, found: Difference, ids: list[str], reach: Reach) -> RatingDifference:
    """Of nodes within reach; the totals are of all, for whoever asks may change all of it."""
    visible = [one for one in found.by_kind.items() if reach.sees(one[0][0])]
    kinds = sorted(visible, key=lambda one: (-abs(one[1].difference), one[0]))
    return RatingDifference(
        seq=Seq(seq),
        digest=found.digest,
        looked_at=Quantity(found.looked_at),
        total=_change(found.total),
        kinds=[
            RatingChangeByKind(
                node_id=ID(ids[node]),
                usage_type=kind,
                zone=zone if kind else "",
                plan="" if kind else zone,
                change=_change(change),
            )
            for (node, kind, zone), change in kinds[:KINDS_SHOWN_MAX]
        ],
        left=[LeftAlone(reason=reason, records=records) for reason, records in sorted(found.left.items())],
        examples=[_example(one, ids) for one in found.examples],
    )


def _change(change: Change) -> RatingChange:
    return RatingChange(
        records=Quantity(change.records),
        was_billed=Quantity(change.was_billed),
        billed=Quantity(change.billed),
        was_overage=Quantity(change.was_overage),
        overage=Quantity(change.overage),
        was_amount=Money(change.was_amount),
        amount=Money(change.amount),
        difference=Money(change.difference),
        corrected=Money(change.corrected),
    )


def _example(made: UsageRerated | UsageCorrected, ids: list[str]) -> RatingExample:
    was, charge = made.was, made.charge
    return RatingExample(
        source=charge.source,
        record_id=charge.record_id,
        resource_id=ID(ids[charge.path[0]]),
        usage_type=charge.usage_type,
        started_at=Moment(charge.started_at),
        was_billed=Quantity(was.billed),
        billed=Quantity(charge.billed),
        was_amount=Money(was.amount),
        amount=Money(charge.amount),
        tariff_version=charge.tariff,
        zone=charge.zone,
        by_zone=made.by_zone,
    )


def _job(context: Context, row: views.RatedAgain) -> RatingJob:
    reached = context.rating_reached(row.job)
    return RatingJob(
        job=ID(row.job),
        status=RatingJobStatus(row.status),
        cause=RatingCause(row.cause),
        note=row.note,
        actor=row.actor,
        started_at=Moment(row.started_at),
        finished_at=None if row.finished_at is None else Moment(row.finished_at),
        changed=Quantity(row.changed),
        difference=Money(row.amount),
        corrected=Money(row.corrected),
        looked_at=None if row.records is None else Quantity(row.records),
        left=None if row.left is None else Quantity(row.left),
        reached=None if reached is None else Seq(reached),
        seq=Seq(row.seq),
    )
