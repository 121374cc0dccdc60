"""Accuracy: what was received by day and source, what became of it, and what each file brought."""

import functools
from enum import Enum
from typing import Any

import strawberry
from strawberry import ID

from ..domain.days import date_of, day_of
from ..domain.refusals import Refused
from ..projections import accuracy as views
from .asking import PAGE_USUAL, PageInfo, page_size, paged, permit, reach_of, seq_before
from .context import Info
from .refusals import QueryRefused, message_of
from .scalars import Moment, Money, Quantity, Seq
from .suspense import day_number

DAYS_MAX = 366
DAYS_USUAL = 31


@strawberry.type(
    description="What came of one source on a day. received = charged + duplicate + suspended + rejected."
)
class AccuracyDay:
    day: str = strawberry.field(description="On which it came, of the tenant's calendar: 2026-11-15.")
    source: str
    received: Quantity
    charged: Quantity
    duplicate: Quantity
    suspended: Quantity
    rejected: Quantity
    unreadable: Quantity = strawberry.field(description="Of those suspended.")
    late: Quantity = strawberry.field(description="Used more than a day before it came.")
    merged: Quantity = strawberry.field(description="Legs that were folded into the record of their call.")
    ignored: Quantity
    amount: Money = strawberry.field(description="Of those charged.")
    value: Money = strawberry.field(description="Of those suspended, as far as the tariff can tell.")
    recycled: Quantity = strawberry.field(description="Charged on this day, having waited.")
    recycled_amount: Money
    recycled_rejected: Quantity
    dismissed: Quantity


@strawberry.enum
class ImportState(Enum):
    UNFINISHED = strawberry.enum_value("unfinished", description="Under way, or left off: import it again.")
    FINISHED = "finished"
    AGAIN = strawberry.enum_value(
        "again", description="Finished; this very content had been imported before."
    )
    REFUSED = strawberry.enum_value("refused", description="It cannot be read: see `problem`.")


@strawberry.type(description="A file, and what it brought: 0 of everything while it is not finished.")
class Import:
    id: ID
    name: str
    format: str
    digest: str | None = strawberry.field(description="SHA-256; null of what could be read only once.")
    state: ImportState
    problem: str | None = strawberry.field(description="Why it was refused.")
    finished: bool
    again: bool = strawberry.field(description="A file with this very content had been imported before.")
    attempts: int
    began_at: Moment
    finished_at: Moment | None = strawberry.field(description="Or refused.")
    began_seq: Seq
    read: Quantity = strawberry.field(description="Rows: received + merged + ignored.")
    received: Quantity
    charged: Quantity
    duplicate: Quantity
    suspended: Quantity
    rejected: Quantity
    unreadable: Quantity
    late: Quantity
    merged: Quantity
    ignored: Quantity
    amount: Money
    value: Money


@strawberry.type
class ImportConnection:
    nodes: list[Import]
    page_info: PageInfo


async def accuracy(
    info: Info, from_day: str | None = None, to_day: str | None = None, source: str | None = None
) -> list[AccuracyDay]:
    """By day and source, oldest first; without days the last 31."""
    context = info.context
    permit(context, "read")
    if not (await reach_of(context)).whole:
        return []
    try:
        zone = (await context.state()).contracts.zone
        last = day_number(to_day) if to_day else day_of(context.now(), zone)
        first = day_number(from_day) if from_day else last - DAYS_USUAL + 1
    except Refused as refusal:
        raise QueryRefused(refusal.code, message_of(refusal.code, refusal.facts)) from None
    if not 0 <= last - first < DAYS_MAX:
        raise QueryRefused("bad_days", f"fromDay, toDay: ask for 1 to {DAYS_MAX} days")
    query = functools.partial(views.accuracy, first_day=first, last_day=last, source=source)
    _, rows = await context.read(query, ("accuracy",))
    return [_day(row) for row in rows]


async def imports(
    info: Info,
    first: int = PAGE_USUAL,
    after: str | None = None,
    unfinished: bool = False,
    refused: bool = False,
) -> ImportConnection:
    """Newest first; those that were left off only, or those that were refused."""
    permit(info.context, "read")
    size, before = page_size(first), seq_before(after)
    if not (await reach_of(info.context)).whole:
        return ImportConnection(nodes=[], page_info=PageInfo(has_next_page=False, end_cursor=None))
    query = functools.partial(
        views.imports_page, first=size + 1, before=before, unfinished=unfinished, refused=refused
    )
    _, rows = await info.context.read(query, ("accuracy",))
    page, about = paged(rows, size, [row.began_seq for row in rows])
    return ImportConnection(nodes=[_import(row) for row in page], page_info=about)


_COUNTS = (
    *("received", "charged", "duplicate", "suspended", "rejected", "unreadable", "late"),
    *("merged", "ignored"),
)


def _counts(row: views.Accuracy | views.Import) -> dict[str, Any]:
    counts: dict[str, Any] = {name: Quantity(getattr(row, name)) for name in _COUNTS}
    return {**counts, "amount": Money(row.amount), "value": Money(row.value)}


def _day(row: views.Accuracy) -> AccuracyDay:
    return AccuracyDay(
        day=date_of(row.day),
        source=row.source,
        recycled=Quantity(row.recycled),
        recycled_amount=Money(row.recycled_amount),
        recycled_rejected=Quantity(row.recycled_rejected),
        dismissed=Quantity(row.dismissed),
        **_counts(row),
    )


def _import(row: views.Import) -> Import:
    return Import(
        id=ID(row.import_id),
        name=row.name,
        format=row.format,
        digest=row.digest or None,
        state=ImportState(row.state),
        problem=row.problem or None,
        finished=row.finished_seq > 0,
        again=row.again,
        attempts=row.attempts,
        began_at=Moment(row.began_at),
        finished_at=Moment(row.finished_at) if row.finished_at else None,
        began_seq=Seq(row.began_seq),
        read=Quantity(row.read),
        **_counts(row),
    )
