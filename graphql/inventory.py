"""Inventory: every resource with its node, status and use; those that cost without use, and other waste."""

import functools
import re
from enum import Enum

import strawberry
from msgspec.structs import replace
from strawberry import ID

from ..projections import inventory as views
from ..projections import members
from ..tenants.access import in_scope, may
from ..tenants.isolation import Connection
from .asking import PAGE_USUAL, AsOf, PageInfo, looking, page_size, period_of, permit, reach_of
from .context import Context, Info
from .hierarchy import UNITS
from .refusals import QueryRefused
from .scalars import Moment, Money, Quantity

DAY = 86_400_000_000
DAYS_MAX = 3_660
VIEWS = ("members", "balances", "limits", "usages")


@strawberry.enum
class ResourceStatus(Enum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    ENDED = "ended"
    PLANNED = strawberry.enum_value("planned", description="Its stay on its node has not begun.")


@strawberry.type(description="What a resource used of one type in the period.")
class UsedQuantity:
    usage_type: str
    unit: str
    quantity: Quantity


@strawberry.type(description="A resource.")
class InventoryItem:
    id: ID
    kind: str
    node_id: ID
    node_name: str
    since: Moment = strawberry.field(description="Since when it is on its node.")
    until: Moment | None = strawberry.field(description="When it ended, or will.")
    status: ResourceStatus
    lines: int = strawberry.field(description="How many lines it has; they are personal.")
    label: str | None = strawberry.field(
        description="Who or what it is for: for roles that may read personal data; null once erased."
    )
    last_used_at: Moment | None
    charges: int = strawberry.field(description="Usage records charged in the period.")
    amount: Money = strawberry.field(description="Charged in the period.")
    used: list[UsedQuantity]
    percent_of_limit: int | None = strawberry.field(
        description="How much of the tightest of its own limits is used."
    )


@strawberry.type
class InventoryConnection:
    period: str
    nodes: list[InventoryItem]
    page_info: PageInfo


@strawberry.input(description="Everything given must hold.")
class InventoryFilter:
    under: ID | None = strawberry.field(default=None, description="At or below this node.")
    kind: str | None = None
    status: ResourceStatus | None = None
    unused_days: int | None = strawberry.field(
        default=None, description="Without any usage record for so many days."
    )
    unassigned: bool = strawberry.field(
        default=False, description="On the enterprise itself, or on a node that is closed."
    )
    over_percent: int | None = strawberry.field(
        default=None, description="So much or more of a limit of its own is used."
    )
    duplicates: bool = strawberry.field(
        default=False, description="Of which another has the same label, or had the same line."
    )
    label: str | None = strawberry.field(
        default=None, description="For exactly this; for roles that may read personal data."
    )


async def inventory(
    info: Info,
    filter: InventoryFilter | None = None,
    period: str | None = None,
    first: int = PAGE_USUAL,
    after: str | None = None,
    as_of: AsOf | None = None,
) -> InventoryConnection | None:
    """In the order in which resources were added; null where `under` is not in reach."""
    context = info.context
    permit(context, "read")
    asked = filter or InventoryFilter()
    size, place = page_size(first), _place(after)
    from_where = await looking(context, as_of)
    month = period_of(await context.state(), period, from_where.at)
    wanted = await _wanted(context, asked, from_where.at)
    roots: list[str | None] = [asked.under]
    if asked.under is None:
        roots = (await reach_of(context)).roots()
    query = functools.partial(
        _page,
        context=context,
        roots=roots,
        size=size,
        place=place,
        period=month,
        now=from_where.at,
        wanted=wanted,
    )
    _, found = await context.read(query, VIEWS, as_of=from_where.seq)
    if found is None:
        return None
    items = [await _told(context, item) for item in found[:size]]
    end = f"r{found[:size][-1].ordinal}" if found else None
    return InventoryConnection(
        period=month, nodes=items, page_info=PageInfo(has_next_page=len(found) > size, end_cursor=end)
    )


async def _wanted(context: Context, asked: InventoryFilter, now: int) -> views.InventoryFilter:
    if asked.unused_days is not None and not 1 <= asked.unused_days <= DAYS_MAX:
        raise QueryRefused("bad_filter", f"unusedDays: ask for 1 to {DAYS_MAX}")
    if asked.over_percent is not None and asked.over_percent < 1:
        raise QueryRefused("bad_filter", "overPercent: ask for 1 or more")
    token = None
    if asked.label is not None:
        permit(context, "read_personal")
        token = await context.label_token(asked.label)
    return views.InventoryFilter(
        kind=asked.kind,
        status=asked.status.value if asked.status else None,
        unused_since=None if asked.unused_days is None else now - asked.unused_days * DAY,
        unassigned=asked.unassigned,
        over_percent=asked.over_percent,
        duplicates=asked.duplicates,
        label_token=token,
    )


def _page(
    db: Connection,
    *,
    context: Context,
    roots: list[str | None],
    size: int,
    place: int,
    period: str,
    now: int,
    wanted: views.InventoryFilter,
) -> list[views.Item] | None:
    """By the hierarchy as of what is read. Unknown and out of reach take the same queries."""
    under: list[int] = []
    for root in roots:
        if root is None:
            continue
        found = members.member(db, root)
        above = [member.id for member in members.ancestors(db, root)]
        if found is None or not in_scope(context.principal, [*above, root]):
            return None
        under.append(found.ordinal)
    if not roots:
        return []
    return views.inventory_page(db, size + 1, place, period, now, replace(wanted, under=under))


async def _told(context: Context, item: views.Item) -> InventoryItem:
    label = None
    if item.label_sealed and item.label_token and may(context.principal, "read_personal"):
        opened = await context.opened([item.label_token], item.label_sealed, item.label_token)
        label = None if opened is None else opened.decode()
    return InventoryItem(
        id=ID(item.id),
        kind=item.kind,
        node_id=ID(item.node_id),
        node_name=item.node_name,
        since=Moment(item.since),
        until=None if item.until is None else Moment(item.until),
        status=ResourceStatus(item.status),
        lines=len(item.tokens),
        label=label,
        last_used_at=None if item.last_used_at is None else Moment(item.last_used_at),
        charges=item.charges,
        amount=Money(item.amount),
        used=[
            UsedQuantity(usage_type=usage_type, unit=UNITS.get(usage_type, "unit"), quantity=Quantity(much))
            for usage_type, much in item.used
        ],
        percent_of_limit=item.of_limit,
    )


def _place(after: str | None) -> int:
    """The ordinal that a page continues after."""
    if after is None:
        return -1
    if not re.fullmatch(r"r[0-9]{1,9}", after):
        raise QueryRefused("bad_cursor", "after: give the endCursor of the page before, unchanged")
    return int(after[1:])
