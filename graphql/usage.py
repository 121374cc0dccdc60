"""Usage: what became of each record, newest first; and what waits in suspense."""

import functools
from collections.abc import Callable, Sequence
from enum import Enum
from heapq import merge
from itertools import islice

import strawberry
from strawberry import ID

from ..projections import usages as views
from ..tenants.isolation import Connection
from .asking import (
    PAGE_USUAL,
    AsOf,
    PageInfo,
    Reach,
    cursor_of,
    looking,
    page_size,
    paged,
    permit,
    reach_of,
    seq_before,
    usage_id_of,
)
from .context import Context, Info
from .scalars import Moment, Money, Quantity, Seq


@strawberry.enum
class UsageStatus(Enum):
    CHARGED = "charged"
    REJECTED = strawberry.enum_value("rejected", description="Denied by a limit or an empty allowance.")
    SUSPENDED = strawberry.enum_value(
        "suspended", description="Was put into suspense; `suspense` lists those that still wait."
    )


@strawberry.type(description="A node or resource, named as it was then.")
class Place:
    id: ID
    name: str
    kind: str


@strawberry.type(description="The record was charged again, in place of what it was charged before.")
class Rerating:
    seq: Seq
    job: ID
    cause: str
    was_billed: Quantity
    was_overage: Quantity
    was_amount: Money
    billed: Quantity
    overage: Quantity
    amount: Money
    tariff_version: int
    zone: str
    node_id: ID | None = strawberry.field(description="The node that the resource was on; null out of reach.")
    corrected_in: str | None = strawberry.field(
        description="The period in which the difference is owed, where the record's own is closed."
    )
    by_zone: bool
    recorded_at: Moment


@strawberry.type(description="One usage record and what became of it.")
class Usage:
    id: ID = strawberry.field(description="For `explain`.")
    seq: Seq
    status: UsageStatus
    source: str
    record_id: str
    resource_id: ID | None
    node_id: ID | None = strawberry.field(description="The node that the resource was on.")
    node_name: str | None
    usage_type: str | None
    unit: str | None
    period: str | None
    started_at: Moment | None
    direction: str | None
    quantity: Quantity
    billed: Quantity
    overage: Quantity
    amount: Money
    zone: str | None
    reason: str | None = strawberry.field(description="Why it was rejected or suspended.")
    recorded_at: Moment
    reratings: list[Rerating] = strawberry.field(
        description="What it was charged later, oldest first: the last of them holds. The fields above are "
        "those of the first charge."
    )
    current_amount: Money = strawberry.field(description="Of the charge that holds.")


@strawberry.type
class UsageConnection:
    nodes: list[Usage]
    page_info: PageInfo


@strawberry.input(description="Everything given must hold.")
class UsageFilter:
    under: ID | None = strawberry.field(
        default=None, description="Used by this resource, or at or below this node."
    )
    status: UsageStatus | None = None
    usage_type: str | None = None
    period: str | None = None
    reason: str | None = None


async def usages(
    info: Info,
    filter: UsageFilter | None = None,
    first: int = PAGE_USUAL,
    after: str | None = None,
    as_of: AsOf | None = None,
) -> UsageConnection:
    """Newest first. Those in suspense belong to nobody yet: who is bound to nodes sees none."""
    permit(info.context, "read")
    asked = filter or UsageFilter()
    wanted = views.UsageFilter(
        asked.under,
        asked.status.value if asked.status else None,
        asked.usage_type,
        asked.period,
        asked.reason,
    )
    return await _page(info.context, wanted, first, after, as_of)


async def suspense(
    info: Info, first: int = PAGE_USUAL, after: str | None = None, reason: str | None = None
) -> UsageConnection:
    """What waits to be corrected, newest first: only for whoever sees the whole enterprise."""
    permit(info.context, "read")
    size, before = page_size(first), seq_before(after)
    reach = await reach_of(info.context)
    if not reach.whole:
        return UsageConnection(nodes=[], page_info=PageInfo(has_next_page=False, end_cursor=None))
    query = functools.partial(views.suspense_page, first=size + 1, before=before, reason=reason)
    _, rows = await info.context.read(query, ("usages", "suspense"))
    page, about = paged(rows, size, [row.seq for row in rows])
    return UsageConnection(nodes=[told(row, reach) for row in page], page_info=about)


async def usage(info: Info, id: ID) -> Usage | None:
    """One usage record; null when there is none in reach."""
    context = info.context
    permit(context, "read")
    key = usage_id_of(id)
    if key is None:
        return None
    _, (found, remade) = await context.read(functools.partial(_one, usage_id=key), ("usages",))
    reach = await reach_of(context)
    return told(found, reach, remade) if found is not None and _seen(reach, found) else None


def _one(db: Connection, *, usage_id: bytes) -> tuple[views.Usage | None, list[views.Remade]]:
    found = views.usage(db, usage_id)
    return found, [] if found is None else views.remade(db, [found.seq]).get(found.seq, [])


async def _page(
    context: Context, wanted: views.UsageFilter, first: int, after: str | None, as_of: AsOf | None
) -> UsageConnection:
    size, before = page_size(first), seq_before(after)
    from_where = await looking(context, as_of)
    if from_where.seq is not None:
        # Rows are only ever added: the past is what has a lower seq.
        before = min(before or from_where.seq + 1, from_where.seq + 1)
    reach = await reach_of(context)
    roots = reach.roots()
    if wanted.under is not None:
        roots = [wanted.under] if reach.sees_id(wanted.under) else []
    query = functools.partial(_newest, roots=roots, first=size + 1, before=before, wanted=wanted)
    both = functools.partial(_with_remade, query=query, upto=from_where.seq)
    _, (rows, remade) = await context.read(both, ("usages",), at_least=from_where.seq or 0)
    page = rows[:size]
    return UsageConnection(
        nodes=[told(row, reach, remade.get(row.seq, ())) for row in page if _seen(reach, row)],
        page_info=PageInfo(
            has_next_page=len(rows) > size, end_cursor=cursor_of(page[-1].seq) if page else None
        ),
    )


def _with_remade(
    db: Connection, *, query: Callable[[Connection], list[views.Usage]], upto: int | None
) -> tuple[list[views.Usage], dict[int, list[views.Remade]]]:
    rows = query(db)
    return rows, views.remade(db, [row.seq for row in rows], upto)


def _newest(
    db: Connection,
    *,
    roots: list[str | None],
    first: int,
    before: int | None,
    wanted: views.UsageFilter,
) -> list[views.Usage]:
    """The newest under any of the roots."""
    pages = [
        views.usages_page(
            db,
            first,
            before,
            views.UsageFilter(root, wanted.status, wanted.usage_type, wanted.period, wanted.reason),
        )
        for root in roots
    ]
    return list(islice(merge(*pages, key=lambda row: -row.seq), first))


def _seen(reach: Reach, row: views.Usage) -> bool:
    """By the node that the resource was on then, not by where it is now."""
    if row.node is None or row.ordinal is None:
        return reach.whole
    return reach.sees_stay(row.ordinal, row.node)


def told(row: views.Usage, reach: Reach, remade: Sequence[views.Remade] = ()) -> Usage:
    return Usage(
        id=ID(row.usage_id.hex()),
        seq=Seq(row.seq),
        status=UsageStatus(row.status),
        source=row.source,
        record_id=row.record_id,
        resource_id=ID(row.resource_id) if row.resource_id is not None else None,
        node_id=ID(row.node_id) if row.node_id is not None else None,
        node_name=row.node_name,
        usage_type=row.usage_type or None,
        unit=reach.units.get(row.usage_type),
        period=row.period or None,
        started_at=Moment(row.started_at) if row.started_at else None,
        direction=row.direction or None,
        quantity=Quantity(row.quantity),
        billed=Quantity(row.billed),
        overage=Quantity(row.overage),
        amount=Money(row.amount),
        zone=row.zone or None,
        reason=row.reason or None,
        recorded_at=Moment(row.recorded_at),
        reratings=[_remade(one, reach) for one in remade],
        current_amount=Money(remade[-1].amount if remade else row.amount),
    )


def _remade(one: views.Remade, reach: Reach) -> Rerating:
    return Rerating(
        seq=Seq(one.seq),
        job=ID(one.job),
        cause=one.cause,
        was_billed=Quantity(one.was_billed),
        was_overage=Quantity(one.was_overage),
        was_amount=Money(one.was_amount),
        billed=Quantity(one.billed),
        overage=Quantity(one.overage),
        amount=Money(one.amount),
        tariff_version=one.tariff,
        zone=one.zone,
        node_id=reach.id_of(one.node),
        corrected_in=one.corrected_in or None,
        by_zone=one.by_zone,
        recorded_at=Moment(one.recorded_at),
    )
