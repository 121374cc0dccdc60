"""The hierarchy with its balances and limits, a whole screen in one round trip."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import strawberry
from msgspec import Struct
from strawberry import ID
from strawberry.types.nodes import SelectedField

from ..domain.usage import MONEY, USAGE_TYPES
from ..projections import member_life, members
from ..projections.bounds import Bounds, bounds_among
from ..projections.figures import SUBTREE as BELOW
from ..projections.figures import Figures, figures_among, side_by_side
from ..projections.limits import Crossing
from ..projections.trees import Tree
from ..tenants.access import in_scope
from ..tenants.isolation import Connection
from .asking import (
    AsOf,
    Looking,
    looking,
    period_of,
    permit,
    reach_of,
    usage_types_of,
)
from .columns import TOLD, Columns, Cut
from .context import Context, Info
from .refusals import QueryRefused
from .scalars import Moment, Quantity, Seq
from .wording import WHICH_PERIOD

MEMBERS_MAX = 2_000
DEPTH_USUAL = 4
VIEWS = ("members", "balances", "limits")
UNITS = {**USAGE_TYPES, MONEY: "micro-unit"}


@strawberry.type(description="The sum of all buckets at and below a member, and of all usage there.")
class SubtreeBalance:
    granted: Quantity
    remaining: Quantity
    reserved: Quantity
    available: Quantity
    consumed: Quantity
    used: Quantity = strawberry.field(description="All usage, covered by an allowance or not.")
    overage: Quantity = strawberry.field(description="Of `used`: what no allowance covered.")
    charges: Quantity = strawberry.field(description="Usage records charged.")
    rejected: Quantity = strawberry.field(description="Usage records denied.")


@strawberry.type(description="A member's bucket of one usage type in one period, in the type's unit.")
class Balance:
    usage_type: str
    unit: str
    period: str
    granted: Quantity = strawberry.field(description="Put in by the contract, top-ups included.")
    received: Quantity = strawberry.field(description="Handed down to it, less what it gave back.")
    allocated: Quantity = strawberry.field(description="Handed down by it, less what came back.")
    traded: Quantity = strawberry.field(description="Received in trades less given in trades.")
    rolled_in: Quantity = strawberry.field(description="Rolled over from the period before.")
    rolled_over: Quantity = strawberry.field(description="Rolled over into the next period.")
    expired: Quantity = strawberry.field(description="Lost at the period's end.")
    own: Quantity = strawberry.field(
        description="Held and not handed on: granted + received + traded + rolledIn - allocated "
        "- rolledOver - expired."
    )
    consumed: Quantity = strawberry.field(description="Of `own`: what usage has drawn.")
    remaining: Quantity = strawberry.field(description="own - consumed.")
    reserved: Quantity = strawberry.field(
        description="Set aside for running sessions, open offers and transfers that wait."
    )
    available: Quantity = strawberry.field(description="remaining - reserved: what can be used or moved.")
    used_own: Quantity = strawberry.field(description="Used by the member itself.")
    subtree: SubtreeBalance


@strawberry.type(description="A percentage of a limit at which somebody is told.")
class Threshold:
    percent: int
    crossed: bool
    crossed_at: Moment | None
    seq: Seq | None = strawberry.field(description="The event that tells of it.")


@strawberry.type(description="What may be used at and below a member in a period.")
class Limit:
    usage_type: str
    quantity: Quantity
    used: Quantity
    remaining: Quantity = strawberry.field(description="What may still be used; 0 once it is reached.")
    from_period: str
    set_by: Seq = strawberry.field(description="The event that set it.")
    thresholds: list[Threshold]


@strawberry.type(description="What will become of a node.")
class Plan:
    act: str = strawberry.field(description="rename, move or close.")
    to: str = strawberry.field(description="The new name, parent or successor.")
    at: Moment


@strawberry.type(description="What became of a member since it was added.")
class MemberLife:
    closed_at: Moment | None
    successor_id: ID | None = strawberry.field(description="Into whom it was merged.")
    suspended_at: Moment | None = strawberry.field(description="Of a resource: its last suspension ...")
    resumed_at: Moment | None = strawberry.field(description="... and when that ended.")
    plan: Plan | None


@strawberry.type(description="A node of the enterprise, or a resource on one.")
class Member:
    id: ID
    name: str
    kind: str
    is_node: bool
    depth: int = strawberry.field(description="Below the root of what was asked for.")
    parent_id: ID | None = strawberry.field(description="Null where your reach ends.")
    since: Moment | None = strawberry.field(
        description="Of a resource: since when it is on its node. Of a node that was added back-dated: of it."
    )
    until: Moment | None = strawberry.field(description="Of a resource that has ended: when.")
    balances: list[Balance]
    limits: list[Limit]
    children: list["Member"] = strawberry.field(default_factory=list, description="As deep as was asked for.")
    life: MemberLife | None = strawberry.field(
        default=None, description="Null where nothing has become of it."
    )


@strawberry.type(description="A part of the hierarchy as of one seq, in pre-order.")
class Hierarchy:
    seq: Seq = strawberry.field(description="The last event that is counted in.")
    period: str
    root: Member
    nodes: list[Member] = strawberry.field(description="Everything asked for, flat, parents first.")


TOLD.update((Member, Balance, SubtreeBalance, Limit))


class Wanted(Struct, frozen=True):
    """Which part of the tree, and which figures."""

    roots: list[str | None]
    depth: int | None
    period: str
    usage_types: list[str]
    resources: bool
    balances: bool
    limits: bool
    life: bool = False
    units: Mapping[str, str] = MappingProxyType(USAGE_TYPES)
    """Of the tenant's own usage types as well."""


class _Shown:
    """A Hierarchy whose members are objects only for who asks for such."""

    def __init__(self, seq: int, period: str, nodes: "Columns | list[Member]") -> None:
        self.seq = Seq(seq)
        self.period = period
        self.nodes = nodes

    @property
    def root(self) -> Member:
        member: Member = self.nodes.row(0) if isinstance(self.nodes, Columns) else self.nodes[0]
        return member


async def hierarchy(
    info: Info,
    under: Annotated[ID | None, strawberry.argument(description="Leave it out for all you may see.")] = None,
    depth: Annotated[int, strawberry.argument(description="Levels below `under`.")] = DEPTH_USUAL,
    period: Annotated[str | None, strawberry.argument(description=WHICH_PERIOD)] = None,
    usage_types: list[str] | None = None,
    resources: Annotated[bool, strawberry.argument(description="With the devices on the nodes.")] = False,
    as_of: AsOf | None = None,
    at_least: Annotated[Seq | None, strawberry.argument(description="To see your own write.")] = None,
) -> Hierarchy | None:
    context = info.context
    permit(context, "read")
    if depth < 0:
        raise QueryRefused("bad_depth", "depth: ask for 0 or more levels")
    from_where, state = await looking(context, as_of), await context.state()
    asked = names_among(info.selected_fields)
    wanted = Wanted(
        [under] if under is not None else (await reach_of(context)).roots(),
        depth,
        period_of(state, period, from_where.at),
        usage_types_of(usage_types, state),
        resources,
        "balances" in asked,
        "limits" in asked,
        "life" in asked,
        state.types.units,
    )
    seq, parts = await _read(context, wanted, from_where, at_least or 0)
    if not parts:
        return None
    # Several parts, or each with those below it: that takes objects.
    as_columns = len(parts) == 1 and "children" not in asked
    nodes = parts[0] if as_columns else [member for part in parts for member in part]
    return _Shown(seq, wanted.period, nodes)  # type: ignore[return-value]


async def node(info: Info, id: ID, period: str | None = None, as_of: AsOf | None = None) -> Member | None:
    """A node or resource with its balances and limits; null when there is none in reach."""
    context = info.context
    permit(context, "read")
    from_where, state = await looking(context, as_of), await context.state()
    wanted = Wanted(
        [id],
        1,
        period_of(state, period, from_where.at),
        usage_types_of(None, state),
        resources=False,
        balances=True,
        limits=True,
        life=True,
        units=state.types.units,
    )
    _, found = await read_tree(context, wanted, from_where)
    return found[0] if found else None


async def read_tree(
    context: Context, wanted: Wanted, from_where: Looking, at_least: int = 0
) -> tuple[int, list[Member]]:
    """The members in reach, in pre-order; none where a root is not to be seen."""
    seq, parts = await _read(context, wanted, from_where, at_least)
    return seq, [member for part in parts for member in part]


async def _read(
    context: Context, wanted: Wanted, from_where: Looking, at_least: int
) -> tuple[int, list[Columns]]:
    query = functools.partial(_trees, context=context, wanted=wanted)
    return await context.read(query, VIEWS, as_of=from_where.seq, at_least=at_least)


def names_among(selections: Iterable[Any]) -> set[str]:
    """The names of all fields that stand anywhere in the question."""
    names: set[str] = set()
    waiting = [*selections]
    while waiting:
        selected = waiting.pop()
        if type(selected) is SelectedField:
            names.add(selected.name)
        waiting += selected.selections
    return names


def _trees(db: Connection, *, context: Context, wanted: Wanted) -> list[Columns]:
    """One for each root that is to be seen."""
    found: list[Columns] = []
    for root in wanted.roots:
        # By the hierarchy as of what is read. Unknown and out of reach take the same queries; who sees
        # everything needs none.
        bound = root is not None and bool(context.principal.nodes)
        above = [member.id for member in members.ancestors(db, root or "")] if bound else []
        if not in_scope(context.principal, above if root is None else [*above, root]):
            continue
        tree = context.trees.read(db, root, wanted.depth, resources=wanted.resources)
        if sum(map(len, found)) + len(tree) > MEMBERS_MAX:
            raise QueryRefused(
                "too_many_members",
                f"more than {MEMBERS_MAX} members: ask for less depth, or under a lower node",
            )
        if len(tree):
            found.append(_members_told(db, tree, wanted, apart=not in_scope(context.principal, above)))
    return found


def _members_told(db: Connection, tree: Tree, wanted: Wanted, *, apart: bool) -> Columns:
    """One statement for each view, however many members there are. `apart`: who is above is not told."""
    figures = figures_among(db, tree, wanted.period, wanted.usage_types) if wanted.balances else None
    asked = (db, tree, wanted.period, wanted.usage_types, figures)
    bounds = bounds_among(*asked) if wanted.limits else Bounds(tree, [], [])
    lives = member_life.lives_among(db, tree.listed) if wanted.life else {}

    def parents() -> list[ID | None]:
        known: list[ID | None] = tree.column("parent_id")
        return [None, *known[1:]] if apart else known

    plain = ("id", "kind", "is_node", "depth", "since", "until")
    return Columns(
        Member,
        len(tree),
        {
            **{name: functools.partial(tree.column, name) for name in plain},
            "name": functools.partial(tree.column, "title"),
            "parent_id": parents,
            "balances": lambda: _balances_told(tree, figures or {}, wanted),
            "limits": lambda: _limits_told(bounds),
            "life": lambda: [_life_told(lives.get(ordinal)) for ordinal in tree.ordinals],
        },
        _nested,
    )


_OWN = (
    *("granted", "received", "allocated", "traded", "rolled_in", "expired", "own", "consumed"),
    *("remaining", "reserved", "available", "used_own"),
)
_SUBTREE = ("granted", "remaining", "reserved", "available", "consumed")
_USED = ("used", "overage", "charges", "rejected")


def _balances_told(tree: Tree, figures: Mapping[str, Figures], wanted: Wanted) -> Cut:
    """Of each member, one balance for each usage type."""
    units = {**wanted.units, MONEY: UNITS[MONEY]}
    rows, each = len(tree) * len(figures), len(figures)

    def column(name: str) -> Callable[[], list[Any]]:
        return lambda: side_by_side([one.column(name) for one in figures.values()])

    below = {name: column(f"{BELOW}{name}") for name in _SUBTREE} | {name: column(name) for name in _USED}
    flat = Columns(
        Balance,
        rows,
        {
            "usage_type": lambda: [*figures] * len(tree),
            "unit": lambda: [units[usage_type] for usage_type in figures] * len(tree),
            "period": lambda: [wanted.period] * rows,
            **{name: column(name) for name in _OWN},
            "rolled_over": column("rolled_out"),
            "subtree": lambda: Columns(SubtreeBalance, rows, below),
        },
    )
    return Cut(flat, [*range(each, rows + 1, each)] if each else [0] * len(tree))


def _life_told(life: member_life.LifeOf | None) -> MemberLife | None:
    if life is None:
        return None
    plan = Plan(act=life.plan, to=life.plan_to or "", at=Moment(life.plan_at or 0)) if life.plan else None
    return MemberLife(
        closed_at=life.closed_at,  # type: ignore[arg-type]
        successor_id=ID(life.successor_id) if life.successor_id else None,
        suspended_at=life.suspended_at,  # type: ignore[arg-type]
        resumed_at=life.resumed_at,  # type: ignore[arg-type]
        plan=plan,
    )


def _nested(told: list[Member]) -> list[Member]:
    """The same members, each with its children."""
    by_id = {member.id: member for member in told}
    for member in told[1:]:
        if member.parent_id in by_id:
            by_id[member.parent_id].children.append(member)
    return told


# Of these there are thousands in one answer. Their sources are taken as Any because the scalars'
# names, such as Quantity, are types to mypy, but calls to Python: a third of the time that making
# the objects takes.


def balance_told(balance: Any, units: dict[str, str] = UNITS) -> Balance:
    own = balance.bucket
    return Balance(
        usage_type=balance.usage_type,
        unit=units[balance.usage_type],
        period=balance.period,
        granted=own.granted,
        received=balance.received,
        allocated=balance.allocated,
        traded=balance.traded,
        rolled_in=balance.rolled_in,
        rolled_over=balance.rolled_out,
        expired=balance.expired,
        own=own.own,
        consumed=own.consumed,
        remaining=own.remaining,
        reserved=own.reserved,
        available=own.available,
        used_own=balance.used_own,
        subtree=_subtree_told(balance, balance.subtree),
    )


def _subtree_told(balance: Any, all_below: Any) -> SubtreeBalance:
    return SubtreeBalance(
        granted=all_below.granted,
        remaining=all_below.remaining,
        reserved=all_below.reserved,
        available=all_below.available,
        consumed=all_below.consumed,
        used=balance.used,
        overage=balance.overage,
        charges=balance.charges,
        rejected=balance.rejected,
    )


def _limits_told(bounds: Bounds) -> Cut:
    flat = Columns(
        Limit,
        len(bounds),
        {
            "usage_type": lambda: bounds.usage_type,
            "quantity": lambda: bounds.quantity,
            "used": lambda: bounds.used,
            "remaining": lambda: bounds.remaining,
            "from_period": lambda: bounds.from_period,
            "set_by": lambda: bounds.seq,
            "thresholds": lambda: [
                _thresholds(percents, bounds.crossed.get(place, ()))
                for place, percents in enumerate(bounds.thresholds)
            ],
        },
    )
    return Cut(flat, bounds.ends)


def _thresholds(percents: Sequence[int], crossings: Sequence[Crossing]) -> list[Threshold]:
    if not crossings:
        return _not_crossed(tuple(percents))
    crossed = {
        crossing.percent: Threshold(
            percent=crossing.percent,
            crossed=True,
            crossed_at=Moment(crossing.recorded_at),
            seq=Seq(crossing.seq),
        )
        for crossing in crossings
    }
    return [crossed.get(percent) or _not_crossed((percent,))[0] for percent in percents]


@functools.lru_cache(maxsize=1_000)
def _not_crossed(percents: tuple[int, ...]) -> list[Threshold]:
    """Of most limits: they share it, and nobody changes it."""
    return [Threshold(percent=percent, crossed=False, crossed_at=None, seq=None) for percent in percents]
