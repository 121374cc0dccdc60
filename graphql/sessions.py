"""Sessions: what is authorised now, and how those ended that were; those that changed last first."""

import functools
from enum import Enum
from heapq import merge
from itertools import islice

import strawberry
from strawberry import ID

from ..projections import sessions as views
from ..tenants.isolation import Connection
from .asking import PAGE_USUAL, PageInfo, Reach, cursor_of, page_size, permit, reach_of, seq_before
from .context import Info
from .scalars import Moment, Money, Quantity, Seq


@strawberry.enum
class SessionStatus(Enum):
    OPEN = "open"
    DENIED = strawberry.enum_value(
        "denied", description="It never began: a limit or the allowance forbade it."
    )
    RELEASED = "released"
    EXPIRED = strawberry.enum_value("expired", description="Ended by silence; what was reported is charged.")


@strawberry.type(description="A charging session, as its last event tells of it.")
class Session:
    source: str
    session: str = strawberry.field(description="The source's own id; its charge is the record of that id.")
    seq: Seq = strawberry.field(description="Its last event.")
    status: SessionStatus
    resource_id: ID
    node_id: ID = strawberry.field(description="The node that the resource was on when it began.")
    node_name: str
    rating_group: int = strawberry.field(description="Of the services authorised in one session: which.")
    usage_type: str
    unit: str
    period: str
    started_at: Moment
    direction: str
    used: Quantity = strawberry.field(description="As reported since the start.")
    granted: Quantity = strawberry.field(description="The last slice.")
    held: Quantity = strawberry.field(description="Kept back for it: what it used and the slice, as billed.")
    held_amount: Money
    overrun: Quantity = strawberry.field(
        description="Of `used`: beyond the grant and the limits; not charged."
    )
    reason: str | None = strawberry.field(description="Why more was denied, the last time.")
    stopped_by: ID | None = strawberry.field(description="By whose limit; null beyond your reach.")
    expires_at: Moment | None = strawberry.field(description="Without a report by then it is ended.")
    final_action: str | None = strawberry.field(
        description="When the last units are used: TERMINATE, REDIRECT or RESTRICT_ACCESS."
    )
    recorded_at: Moment


@strawberry.type
class SessionConnection:
    nodes: list[Session]
    page_info: PageInfo


async def sessions(
    info: Info,
    under: ID | None = None,
    status: SessionStatus | None = None,
    first: int = PAGE_USUAL,
    after: str | None = None,
) -> SessionConnection:
    """Of a resource, or at and below a node; those that changed last first."""
    context = info.context
    permit(context, "read")
    size, before = page_size(first), seq_before(after)
    reach = await reach_of(context)
    roots = reach.roots()
    if under is not None:
        roots = [under] if reach.sees_id(under) else []
    query = functools.partial(
        _newest, roots=roots, first=size + 1, before=before, status=status.value if status else None
    )
    _, rows = await context.read(query, ("sessions",))
    page = rows[:size]
    return SessionConnection(
        nodes=[_told(row, reach) for row in page if reach.sees_stay(row.ordinal, row.node)],
        page_info=PageInfo(
            has_next_page=len(rows) > size, end_cursor=cursor_of(page[-1].seq) if page else None
        ),
    )


def _newest(
    db: Connection, *, roots: list[str | None], first: int, before: int | None, status: str | None
) -> list[views.Session]:
    pages = [views.sessions_page(db, first, before, root, status) for root in roots]
    return list(islice(merge(*pages, key=lambda row: -row.seq), first))


def _told(row: views.Session, reach: Reach) -> Session:
    stopped_by = row.stopped_by_id if row.stopped_by is not None and reach.sees(row.stopped_by) else None
    return Session(
        source=row.source,
        session=row.session,
        seq=Seq(row.seq),
        status=SessionStatus(row.status),
        resource_id=ID(row.resource_id),
        node_id=ID(row.node_id),
        node_name=row.node_name,
        rating_group=row.rating_group,
        usage_type=row.usage_type,
        unit=reach.units[row.usage_type],
        period=row.period,
        started_at=Moment(row.started_at),
        direction=row.direction,
        used=Quantity(row.used),
        granted=Quantity(row.granted),
        held=Quantity(row.held),
        held_amount=Money(row.amount),
        overrun=Quantity(row.overrun),
        reason=row.reason or None,
        stopped_by=ID(stopped_by) if stopped_by is not None else None,
        expires_at=Moment(row.expires_at) if row.expires_at is not None else None,
        final_action=row.final_action or None,
        recorded_at=Moment(row.recorded_at),
    )
