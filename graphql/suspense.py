"""Suspense: what waits and the money at stake; and letting it leave: corrected, recycled, written off.

What waits belongs to nobody yet: only whoever sees the whole enterprise sees it.
"""

import functools
from datetime import date
from typing import Any

import strawberry
from strawberry import ID

from ..domain.days import start_of
from ..domain.refusals import Refused
from ..projections import stakes as stakes_view
from ..projections import suspense as views
from ..tenants.access import NotPermitted, Verb, require
from .asking import (
    PAGE_USUAL,
    PageInfo,
    page_size,
    paged,
    permit,
    reach_of,
    seq_before,
    usage_id_of,
)
from .changing import DryRun, bad_key, foreseen, seqs_of
from .context import BulkReport, Context, Info, TryAgain
from .problems import ProblemType
from .refusals import QueryRefused, invalid, message_of, problem_of
from .scalars import Moment, Money, Quantity, Seq

MOST_MAX = 1_000
MOST_USUAL = 500


@strawberry.input(description="Which records that wait; everything given must hold.")
class SuspenseFilter:
    reason: str | None = None
    source: str | None = None
    file: str | None = strawberry.field(default=None, description="The name of the file it stood in.")
    day: str | None = strawberry.field(
        default=None, description="Of usage on this day of the tenant's calendar: 2026-11-15."
    )
    usage_type: str | None = None
    line: str | None = None
    write_off_asked: bool | None = strawberry.field(
        default=None, description="Whether somebody wants to write it off, and needs another person for that."
    )


@strawberry.type(description="A record that waits, as it is now.")
class WaitingRecord:
    id: ID
    seq: Seq
    source: str
    record_id: str
    file: str | None
    position: str | None = strawberry.field(description="Where it stood: calls.csv:12.")
    readable: bool = strawberry.field(description="Whether it is known what it says.")
    usage_type: str | None
    quantity: Quantity
    started_at: Moment | None
    direction: str | None
    reason: str
    field: str
    detail: str = strawberry.field(description="What is wrong, and what to do about it.")
    attempts: int = strawberry.field(description="How often it was recycled.")
    amended: bool
    value: Money | None = strawberry.field(
        description="What it would cost by the tariff of its time, all of it as overage; null where unknown."
    )
    waits_since: Moment
    write_off_asked_by: str | None = strawberry.field(
        description="Who wants to write it off, and needs another person for that: role and opaque id."
    )


@strawberry.type
class WaitingConnection:
    nodes: list[WaitingRecord]
    page_info: PageInfo


@strawberry.type(description="How many have waited for so long.")
class Ages:
    day: int = strawberry.field(description="Up to a day.")
    week: int = strawberry.field(description="One to seven days.")
    month: int = strawberry.field(description="Seven to thirty days.")
    older: int


@strawberry.type(description="Records of one reason, source and usage type that wait, and the money in them.")
class SuspenseStake:
    reason: str
    source: str
    usage_type: str | None
    records: int
    oldest: Moment
    ages: Ages
    rated: int = strawberry.field(description="Of so many the tariff tells what they would cost.")
    rated_value: Money
    estimated: int = strawberry.field(
        description="Of so many the average charge of their source and type does."
    )
    estimated_value: Money
    unknown: int = strawberry.field(description="Of so many nothing does.")


@strawberry.type(description="A record that was not settled, and why.")
class BulkProblem:
    id: ID
    source: str
    record_id: str
    status: str = strawberry.field(description="suspended, rejected or passed_over.")
    reason: str
    detail: str


@strawberry.type(description="What became of records that waited. `lookedAt` is the sum of the others.")
class BulkDone:
    dry_run: bool
    looked_at: int
    charged: int
    rejected: int
    suspended: int = strawberry.field(description="They wait on.")
    amended: int
    dismissed: int
    asked: int = strawberry.field(description="Another person must write them off as well; they wait on.")
    kept: int
    passed_over: int = strawberry.field(description="Nothing was done about them: see `problems`.")
    amount: Money = strawberry.field(description="What was charged.")
    left: int = strawberry.field(description="How many are still to be looked at.")
    end_cursor: str = strawberry.field(description="Give it as `after` to go on.")
    problems: list[BulkProblem] = strawberry.field(description="The first hundred of them.")


@strawberry.input
class RecycleUsageInput:
    idempotency_key: ID
    ids: list[ID] | None = strawberry.field(default=None, description="These records, and no others.")
    filter: SuspenseFilter | None = None
    note: str = ""
    first: int = strawberry.field(default=MOST_USUAL, description="So many of them, oldest first.")
    after: str | None = None
    dry_run: bool = strawberry.field(
        default=False, description="Each is tried by itself, as things are now; nothing is stored."
    )
    accept_late: bool = strawberry.field(
        default=False, description="Charge also what came too late to be charged unasked."
    )


@strawberry.input(
    description="Where the tenant's rule asks for two persons, the first one asks, and the second writes off."
)
class DismissUsageInput:
    idempotency_key: ID
    note: str = strawberry.field(description="Why, for the history.")
    ids: list[ID] | None = None
    filter: SuspenseFilter | None = None
    first: int = MOST_USUAL
    after: str | None = None
    dry_run: bool = False


@strawberry.input(description="Which of the records that somebody wants to write off are to wait on.")
class KeepUsageInput:
    idempotency_key: ID
    note: str = ""
    ids: list[ID] | None = None
    filter: SuspenseFilter | None = None
    first: int = MOST_USUAL
    after: str | None = None
    dry_run: bool = False


@strawberry.input
class RereadUsageInput:
    idempotency_key: ID
    format: str = strawberry.field(description="The name of a format, or the text of a declaration (TOML).")
    note: str
    ids: list[ID] | None = None
    filter: SuspenseFilter | None = None
    first: int = MOST_USUAL
    after: str | None = None
    dry_run: bool = False


@strawberry.input(description="What is left out stays; of a record that could not be read all is needed.")
class AmendUsageInput:
    idempotency_key: ID
    id: ID
    note: str = strawberry.field(description="Why, for the history.")
    line: str | None = None
    counterpart: str | None = None
    usage_type: str | None = None
    quantity: Quantity | None = None
    started_at: Moment | None = None
    direction: str | None = None
    record_id: str | None = strawberry.field(
        default=None, description="Its own id, where it was not known: a record of that id is charged once."
    )
    dry_run: bool = False


@strawberry.type
class AmendUsageDone:
    event_seqs: list[Seq]
    fields: list[str] = strawberry.field(description="What was corrected.")


async def waiting_records(
    info: Info, filter: SuspenseFilter | None = None, first: int = PAGE_USUAL, after: str | None = None
) -> WaitingConnection:
    """Newest first."""
    permit(info.context, "read")
    size, before = page_size(first), seq_before(after)
    if not (await reach_of(info.context)).whole:
        return WaitingConnection(nodes=[], page_info=PageInfo(has_next_page=False, end_cursor=None))
    wanted = await _asked(info.context, filter)
    query = functools.partial(views.waiting_page, first=size + 1, before=before, wanted=wanted)
    _, rows = await info.context.read(query, ("suspense",))
    page, about = paged(rows, size, [row.seq for row in rows])
    return WaitingConnection(nodes=[_told(row) for row in page], page_info=about)


async def suspense_ageing(info: Info, filter: SuspenseFilter | None = None) -> list[SuspenseStake]:
    """By reason, source and usage type; most records first."""
    permit(info.context, "read")
    if not (await reach_of(info.context)).whole:
        return []
    wanted = await _asked(info.context, filter)
    query = functools.partial(stakes_view.stakes, now=info.context.now(), wanted=wanted)
    _, found = await info.context.read(query, ("suspense", "accuracy"))
    return [_stake(one) for one in found]


async def recycle_usage(info: Info, input: RecycleUsageInput) -> BulkDone | ProblemType:
    """Decide records again that wait, as things are now."""
    return await _bulk(info.context, "write_usage", "recycle", input, accept_late=input.accept_late)


async def reread_usage(info: Info, input: RereadUsageInput) -> BulkDone | ProblemType:
    return await _bulk(info.context, "write_usage", "reread", input, format=input.format)


async def dismiss_usage(info: Info, input: DismissUsageInput) -> BulkDone | ProblemType:
    if not input.ids and (input.filter is None or not any(vars(input.filter).values())):
        return invalid("filter", "say which records: all that waits is not written off at once")
    return await _bulk(info.context, "configure", "dismiss", input)


async def keep_usage(info: Info, input: KeepUsageInput) -> BulkDone | ProblemType:
    """Decline, or withdraw, what somebody asked to write off."""
    if not input.ids:
        input.filter = input.filter or SuspenseFilter()
        input.filter.write_off_asked = True
    return await _bulk(info.context, "configure", "keep", input)


async def amend_usage(info: Info, input: AmendUsageInput) -> AmendUsageDone | DryRun | ProblemType:
    context, usage_id = info.context, usage_id_of(input.id)
    changes = {name: value for name in _AMENDABLE if (value := getattr(input, name)) is not None}
    try:
        require(context.principal, "write_usage")
        if (problem := bad_key(input.idempotency_key)) is not None:
            return problem
        if usage_id is None:
            raise Refused("not_waiting", record=input.id, remedy="give an id of what waits")
        answer = await context.corrections.amend(
            usage_id, changes, input.idempotency_key, input.note, dry=input.dry_run
        )
    except (NotPermitted, Refused, TryAgain) as refusal:
        return problem_of(refusal)
    if answer.dry:
        return DryRun(events=await foreseen(context, await reach_of(context), answer))
    fields = getattr(answer.events[0], "fields", ())
    return AmendUsageDone(event_seqs=seqs_of(answer), fields=list(fields))


_AMENDABLE = ("line", "counterpart", "usage_type", "quantity", "started_at", "direction", "record_id")


async def _bulk(
    context: Context, verb: Verb, act: Any, input: Any, *, format: str = "", accept_late: bool = False
) -> BulkDone | ProblemType:
    if not 1 <= input.first <= MOST_MAX:
        return invalid("first", f"ask for 1 to {MOST_MAX}")
    ids = [usage_id_of(ident) for ident in input.ids or ()]
    if None in ids or len(ids) > MOST_MAX:
        return invalid("ids", f"give at most {MOST_MAX} ids of records that wait")
    if (problem := bad_key(input.idempotency_key)) is not None:
        return problem
    try:
        require(context.principal, verb)
        report = await context.corrections.bulk(
            act,
            await _wanted(context, input.filter),
            [ident for ident in ids if ident is not None],
            input.idempotency_key,
            input.note,
            after=seq_before(input.after) or 0,
            most=input.first,
            dry=input.dry_run,
            format=format,
            accept_late=accept_late,
        )
    except (NotPermitted, Refused, TryAgain) as refusal:
        return problem_of(refusal)
    return _done(report, dry=input.dry_run)


async def _asked(context: Context, filter: SuspenseFilter | None) -> views.SuspenseFilter:
    try:
        return await _wanted(context, filter)
    except Refused as refusal:
        raise QueryRefused(refusal.code, message_of(refusal.code, refusal.facts)) from None


async def _wanted(context: Context, asked: SuspenseFilter | None) -> views.SuspenseFilter:
    if asked is None:
        return views.EVERYTHING
    subject = await context.corrections.token_of(asked.line) if asked.line is not None else None
    from_at = until_at = None
    if asked.day is not None:
        zone = (await context.state()).contracts.zone
        day = day_number(asked.day)
        from_at, until_at = start_of(day, zone), start_of(day + 1, zone)
    return views.SuspenseFilter(
        *(asked.reason, asked.source, asked.file, asked.usage_type, subject, from_at, until_at),
        asked=asked.write_off_asked,
    )


def day_number(text: str) -> int:
    """A day of the calendar, since 1970-01-01."""
    try:
        return date.fromisoformat(text).toordinal() - date(1970, 1, 1).toordinal()
    except ValueError:
        raise Refused("not_a_date", date=text, example="2026-11-15") from None


def _told(row: views.Waiting) -> WaitingRecord:
    return WaitingRecord(
        id=ID(row.usage_id.hex()),
        seq=Seq(row.seq),
        source=row.source,
        record_id=row.record_id,
        file=row.file or None,
        position=row.position or None,
        readable=row.readable,
        usage_type=row.usage_type or None,
        quantity=Quantity(row.quantity),
        started_at=Moment(row.started_at) if row.started_at else None,
        direction=row.direction or None,
        reason=row.reason,
        field=row.field,
        detail=row.detail,
        attempts=row.attempts,
        amended=row.revision > row.attempts,
        value=Money(row.value) if row.value is not None else None,
        waits_since=Moment(row.recorded_at),
        write_off_asked_by=row.asked_by or None,
    )


def _stake(one: stakes_view.Stake) -> SuspenseStake:
    return SuspenseStake(
        reason=one.reason,
        source=one.source,
        usage_type=one.usage_type or None,
        records=one.records,
        oldest=Moment(one.oldest),
        ages=Ages(day=one.ages[0], week=one.ages[1], month=one.ages[2], older=one.ages[3]),
        rated=one.rated,
        rated_value=Money(one.rated_value),
        estimated=one.estimated,
        estimated_value=Money(one.estimated_value),
        unknown=one.unknown,
    )


def _done(report: BulkReport, *, dry: bool) -> BulkDone:
    return BulkDone(
        dry_run=dry,
        looked_at=report.looked_at,
        charged=report.charged,
        rejected=report.rejected,
        suspended=report.suspended,
        amended=report.amended,
        dismissed=report.dismissed,
        asked=report.asked,
        kept=report.kept,
        passed_over=report.passed_over,
        amount=Money(report.amount),
        left=report.left,
        end_cursor=f"s{report.after}",
        problems=[
            BulkProblem(
                id=ID(one.usage_id.hex()),
                source=one.source,
                record_id=one.record_id,
                status=one.status,
                reason=one.reason,
                detail=one.detail,
            )
            for one in report.problems
        ],
    )
