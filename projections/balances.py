"""Balances: what each member holds, hands on and uses, per usage type and period.

`own` is what a member has and has not handed on; over all members it adds up to what was
granted, always. `used` counts all usage at and below a member, covered by the allowance or not;
in `money`, what it cost; it is counted in `used.py`. What running sessions hold is counted there as
well, until it is charged or given back; what offers and waiting transfers promise is `reserved`.
Buckets move with nobody: a resource that moves keeps its own.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from ..domain.bucket import Granted, Transferred
from ..domain.charging import CORPORATE
from ..domain.contract import PeriodOpened
from ..domain.granting import GrantChanged, ToppedUp
from ..domain.hold import Hold
from ..domain.reservation import Reservations
from ..domain.rollover import RolledOver
from ..domain.session import (
    SessionDenied,
    SessionEvent,
    SessionExpired,
    SessionReleased,
    SessionReserved,
    SessionUpdated,
)
from ..domain.trading import Reserving
from ..domain.usage import MONEY, USAGE_TYPES
from .chunk import Chunk
from .members import Listed, ordinals_of, tree
from .subtrees import OWN, Asked, subtree_sums
from .tables import Connection, Table
from .trees import Tree
from .used import COUNTS, USED, Sums, added, used_among

BALANCES = Table(
    "balances",
    {"period": "text", "usage_type": "text", "ordinal": "integer"},
    dict.fromkeys(
        (
            *("granted", "allocated_in", "allocated_out", "returned_in", "returned_out"),
            *(
                "traded_in",
                "traded_out",
                "consumed",
                "reserved",
                "rejected",
                *("expired", "rolled_out", "rolled_in"),
                "resource_gains",
            ),
        ),
        "bigint",
    ),
)
PERIODS = Table(
    "periods",
    {"period": "text"},
    {
        "starts_at": "bigint",
        "ends_at": "bigint",
        "contract": "text",
        "version": "integer",
        "overage": "boolean",
        "seq": "bigint",
        "share_part": "bigint",
        "share_whole": "bigint",
        "commitment": "bigint",
    },
)
TABLES = (BALANCES, USED, PERIODS)
VERSION = 5

_COLUMN = {figure: place for place, figure in enumerate(BALANCES.figures)}
_GRANTED, _CONSUMED = _COLUMN["granted"], _COLUMN["consumed"]
_RESERVED, _REJECTED = _COLUMN["reserved"], _COLUMN["rejected"]
_EXPIRED, _ROLLED_OUT, _ROLLED_IN = (_COLUMN[figure] for figure in ("expired", "rolled_out", "rolled_in"))
_RESOURCE_GAINS = _COLUMN["resource_gains"]
"""How often something came into the bucket of a resource; of nodes it is not counted."""
_MOVED = {
    "allocate": (_COLUMN["allocated_out"], _COLUMN["allocated_in"]),
    "return": (_COLUMN["returned_out"], _COLUMN["returned_in"]),
    "trade": (_COLUMN["traded_out"], _COLUMN["traded_in"]),
    "undo": (_COLUMN["traded_out"], _COLUMN["traded_in"]),
}
_NOTHING = [0] * len(BALANCES.figures)


class Holding(Struct, frozen=True, gc=False):
    """A bucket, or the sum of the buckets of a subtree."""

    granted: int
    """Put in by the contract."""
    own: int
    """Held and not handed on, used up or not."""
    consumed: int
    """Of `own`: what usage has drawn."""
    remaining: int
    reserved: int
    """Of what remains: set aside for sessions that are running, offers and transfers that wait."""
    available: int


class Balance(Struct, frozen=True, gc=False):
    """One member's figures of one usage type in one period, in that type's unit."""

    ordinal: int
    id: str
    parent_id: str | None
    name: str
    kind: str
    depth: int
    period: str
    usage_type: str
    bucket: Holding
    """The member's own bucket."""
    subtree: Holding
    """All buckets at and below the member."""
    received: int
    """Handed down to it, less what it gave back up."""
    allocated: int
    """Handed down by it, less what came back up."""
    traded: int
    """Received in trades less given in trades."""
    used_own: int
    """Used by the member itself."""
    used: int
    """Used at and below the member, and held there by sessions that are running."""
    overage: int
    """Of `used`: what no allowance covered."""
    charges: int
    """Records charged at and below; in money: those that cost something."""
    rejected: int
    """Records refused at and below."""
    expired: int = 0
    """At the period's end."""
    rolled_out: int = 0
    """Into the next period."""
    rolled_in: int = 0
    """From the period before."""


class Period(Struct, frozen=True):
    """A stretch of time that is open for charging; its bounds in microseconds, the end excluded."""

    period: str
    starts_at: int
    ends_at: int
    contract: str
    version: int
    overage: bool
    seq: int
    share_part: int
    """Grants and commitment are those of a whole period, times part / whole."""
    share_whole: int
    commitment: int


def apply(chunk: Chunk, db: Connection) -> None:
    sums: dict[Any, list[int]] = {}
    used = Sums()
    _corrections(chunk, sums, used)
    for _, denied in chunk.rejected:
        for ordinal in denied.path:
            _of(sums, denied.period, denied.usage_type, ordinal)[_REJECTED] += 1
    periods = {}
    for told in chunk.others:
        match told.event:
            case (
                SessionReserved() | SessionUpdated() | SessionDenied() | SessionReleased() | SessionExpired()
            ):
                _hold(sums, used, told.event, told.event.before, -1)
                _hold(sums, used, told.event, told.event.held, 1)
            case _ if isinstance(told.event, Reserving):
                _reserve(sums, told.event.freed, chunk, -1)
                _reserve(sums, told.event.reserved, chunk, 1)
            case Granted(node, usage_type, period, quantity):
                _of(sums, period, usage_type, chunk.ordinals.of[node])[_GRANTED] += quantity
            case Transferred(source, target, usage_type, period, quantity, reason):
                given, taken = _MOVED[reason]
                _of(sums, period, usage_type, chunk.ordinals.of[source])[given] += quantity
                gaining = chunk.ordinals.of[target]
                _of(sums, period, usage_type, gaining)[taken] += quantity
                _gain(sums, chunk, period, usage_type, gaining)
            case ToppedUp(node, usage_type, period, quantity):
                _of(sums, period, usage_type, chunk.ordinals.of[node])[_GRANTED] += quantity
            case GrantChanged(node, usage_type, period):
                _of(sums, period, usage_type, chunk.ordinals.of[node])[_GRANTED] += told.event.change
            case RolledOver():
                _roll_over(sums, told.event, chunk)
            case PeriodOpened(period, starts_at, ends_at, contract, version, overage, share, commitment):
                periods[(period,)] = (
                    *(starts_at, ends_at, contract, version, overage, told.seq),
                    *(*share, commitment),
                )
    PERIODS.put(db, periods)
    BALANCES.add(db, sums)
    _charges(chunk, db, used)


def _gain(sums: dict[Any, list[int]], chunk: Chunk, period: str, usage_type: str, ordinal: int) -> None:
    if ordinal not in chunk.ordinals.nodes:
        _of(sums, period, usage_type, ordinal)[_RESOURCE_GAINS] += 1


def _roll_over(sums: dict[Any, list[int]], event: RolledOver, chunk: Chunk) -> None:
    for bucket in event.buckets:
        figures = _of(sums, event.period, event.usage_type, bucket.ordinal)
        rolled = sum(part for _, part in bucket.rolled)
        figures[_EXPIRED] += bucket.expired
        figures[_ROLLED_OUT] += rolled
        if rolled:
            _of(sums, event.into, event.usage_type, bucket.target)[_ROLLED_IN] += rolled
            _gain(sums, chunk, event.into, event.usage_type, bucket.target)


def _charges(chunk: Chunk, db: Connection, used: Sums) -> None:
    """What they come to, and whatever else was used."""
    counted, told, kept = chunk.counted(), chunk.tally().used, chunk.blocks(USED)
    if counted is not None:
        BALANCES.add_packed(db, counted.consumed)
        USED.add_blocks(db, kept, counted.used)
    consumed = [(of, figures.paid()) for of, figures in told.items() if figures.consumed]
    BALANCES.add_parts(db, ("period", "usage_type"), consumed)
    USED.add_blocks(db, kept, added(told))
    USED.add_blocks(db, kept, USED.added(used.of))


def _corrections(chunk: Chunk, sums: dict[Any, list[int]], used: Sums) -> None:
    """What was taken back, and what was charged in its place."""
    for charge, sign in chunk.corrections:
        if charge.payer != CORPORATE:
            continue
        path, period = charge.path, charge.period
        used.along(period, charge.usage_type, path, sign * charge.billed, sign * charge.overage, sign)
        if charge.amount:
            used.along(period, MONEY, path, sign * charge.amount, 0, sign)
        for usage_type, parts in ((charge.usage_type, charge.drawn), (MONEY, charge.credit)):
            for ordinal, part in parts:
                _of(sums, period, usage_type, ordinal)[_CONSUMED] += sign * part


def _hold(sums: dict[Any, list[int]], used: Sums, event: SessionEvent, hold: Hold, sign: int) -> None:
    """What a session holds, or gives back: reserved in its buckets, used along its path."""
    for ordinal, part in hold.drawn:
        _of(sums, event.period, event.usage_type, ordinal)[_RESERVED] += sign * part
    if hold.billed:
        billed, overage = sign * hold.billed, sign * hold.overage
        used.along(event.period, event.usage_type, event.path, billed, overage, 0)
    if hold.amount:
        used.along(event.period, MONEY, event.path, sign * hold.amount, 0, 0)


def _reserve(sums: dict[Any, list[int]], reserved: Reservations, chunk: Chunk, sign: int) -> None:
    for one in reserved:
        figures = _of(sums, one.period, one.usage_type, chunk.ordinals.of[one.node])
        figures[_RESERVED] += sign * one.quantity


def _of(sums: dict[Any, list[int]], period: str, usage_type: str, ordinal: int) -> list[int]:
    key = (period, usage_type, ordinal)
    figures = sums.get(key)
    if figures is None:
        figures = sums[key] = _NOTHING.copy()
    return figures


# --- queries ---------------------------------------------------------------------------------


def periods(db: Connection) -> list[Period]:
    found = db.execute(f"SELECT {', '.join(PERIODS.columns)} FROM periods ORDER BY period")
    return [Period(*row) for row in found]


def balances_under(
    db: Connection,
    root: str | None,
    depth: int | None,
    period: str,
    usage_types: Sequence[str] = (*USAGE_TYPES, MONEY),
    *,
    resources: bool = False,
) -> list[Balance]:
    """For each member of a tree in pre-order, and each usage type in the order asked for: its figures.

    No root means the enterprise. The root itself is always told of, be it a node or a resource.
    """
    return balances_among(db, tree(db, root, depth, resources=resources), period, usage_types, depth)


def balances_among(
    db: Connection,
    listed: Sequence[Listed],
    period: str,
    usage_types: Sequence[str],
    depth: int | None = None,
) -> list[Balance]:
    """The same for a tree that has been read to this depth, its root first."""
    if not listed:
        return []
    asked = {"period": period, "usage_types": list(usage_types)}
    found = db.execute(_FIGURES, asked | {"ordinals": ordinals_of(listed)}, binary=True).fetchall()
    figures = {(row[0], row[1]): row for row in found}
    own = {key: row[2:6] for key, row in figures.items() if row[2] or row[3]}
    subtrees = subtree_sums(db, Asked(Tree(list(listed), depth), period, usage_types), own)
    used = used_among(db, [member.ordinal for member in listed], period, usage_types)
    counts = {of: zip(*map(one.column, COUNTS), strict=True) for of, one in used.items()}
    keys = [(member, (member.ordinal, usage_type)) for member in listed for usage_type in usage_types]
    return [
        _balance(member, period, key[1], figures.get(key), subtrees.get(key), next(counts[key[1]]))
        for member, key in keys
    ]


def balance_of(
    db: Connection, ident: str, period: str, usage_types: Sequence[str] = (*USAGE_TYPES, MONEY)
) -> list[Balance]:
    """One member's balances, be it a node or a resource; none when there is no such member."""
    return balances_under(db, ident, 0, period, usage_types)


def _balance(
    member: Listed,
    period: str,
    usage_type: str,
    row: tuple[Any, ...] | None,
    below: Sequence[int] | None,
    used: Sequence[int],
) -> Balance:
    whose = (member.ordinal, member.id, member.parent_id, member.name, member.kind, member.depth)
    subtree = _holding(*below) if below else _EMPTY
    held, moved, ended = (row[2:6], row[6:9], row[9:]) if row is not None else ((0,) * 4, (0,) * 3, (0,))
    own = subtree if held == below else _holding(*held)
    return Balance(*whose, period, usage_type, own, subtree, *moved, *used, *ended)


def _holding(granted: int, own: int, consumed: int, reserved: int) -> Holding:
    remaining = own - consumed
    return Holding(granted, own, consumed, remaining, reserved, remaining - reserved)


_EMPTY = Holding(0, 0, 0, 0, 0, 0)

TOLD = {
    "granted": "b.granted",
    "own": OWN,
    "consumed": "b.consumed",
    "reserved": "b.reserved",
    "received": "b.allocated_in - b.returned_out",
    "allocated": "b.allocated_out - b.returned_in",
    "traded": "b.traded_in - b.traded_out",
    "rejected": "b.rejected",
    "expired": "b.expired",
    "rolled_out": "b.rolled_out",
    "rolled_in": "b.rolled_in",
}
"""What is told of a bucket, of itself or of what moved through it; in the order of `Balance`, where what
was used stands before `rejected`."""
AMONG = """b.period = %(period)s AND b.usage_type = ANY(%(usage_types)s::text[])
  AND b.ordinal = ANY(%(ordinals)s::bigint[]::integer[])"""

_FIGURES = f"SELECT b.ordinal, b.usage_type, {', '.join(TOLD.values())} FROM balances b WHERE {AMONG}"
