"""Sizings: what to grant or allocate, by node and usage type, from what was used.

History is what the balances hold of complete periods. A node's proposal covers all usage at and
below it; what the proposals right below it add up to stands beside it. They differ where children
peak at different times, and by what resources on the node itself use.
"""

from collections.abc import Sequence

from msgspec import Struct

from ..domain.sizing import Assumptions, Past, Proposal, propose
from .balances import Period, balances_among, periods
from .consumption import used_by_period
from .members import Listed
from .tables import Connection

MEMBERS_MAX = 200


class Sized(Struct, frozen=True):
    """One member's proposal for one usage type."""

    member: Listed
    usage_type: str
    held: int
    """What buckets at and below it hold now, in the period that is running."""
    proposal: Proposal
    below: int | None
    """What the proposals of the nodes right below add up to; None where none are told."""
    apart: int | None
    """The proposal, less that."""
    working: str


class Sizing(Struct, frozen=True):
    periods: list[str]
    """Complete ones, the oldest first: what proposals are made from."""
    held_in: str
    sized: list[Sized]
    """In pre-order of the members, each with its usage types in the order asked for."""


def sizing_among(
    db: Connection,
    listed: Sequence[Listed],
    usage_types: Sequence[str],
    assumed: Assumptions,
    at: int,
    running: str,
) -> Sizing:
    """For a tree that has been read; the assumptions have been checked."""
    complete = complete_periods(periods(db), at, assumed.periods)
    ordinals = [member.ordinal for member in listed]
    used = used_by_period(db, ordinals, complete, usage_types)
    held = {
        (one.ordinal, one.usage_type): one.subtree.own
        for one in balances_among(db, listed, running, usage_types)
    }
    proposals = {
        (member.ordinal, usage_type): propose(
            [_past(used.get((member.ordinal, usage_type, period)), period) for period in complete],
            assumed,
            usage_type,
        )
        for member in listed
        for usage_type in usage_types
    }
    below = _below(listed, usage_types, proposals)
    return Sizing(
        complete,
        running,
        [
            _sized(member, usage_type, held, proposals, below, assumed)
            for member in listed
            for usage_type in usage_types
        ],
    )


def complete_periods(opened: Sequence[Period], at: int, most: int) -> list[str]:
    """The last ones that had ended by a moment."""
    ended = sorted((one.starts_at, one.period) for one in opened if one.ends_at <= at)
    return [period for _, period in ended[-most:]]


Key = tuple[int, str]


def _past(found: tuple[int, int] | None, period: str) -> Past:
    used, overage = found or (0, 0)
    return Past(period, used, overage)


def _below(
    listed: Sequence[Listed], usage_types: Sequence[str], proposals: dict[Key, Proposal]
) -> dict[Key, int]:
    ordinals = {member.id: member.ordinal for member in listed}
    sums: dict[Key, int] = {}
    for member in listed:
        above = ordinals.get(member.parent_id or "")
        if above is not None and member.depth:
            for usage_type in usage_types:
                key = above, usage_type
                sums[key] = sums.get(key, 0) + proposals[member.ordinal, usage_type].quantity
    return sums


def _sized(
    member: Listed,
    usage_type: str,
    held: dict[Key, int],
    proposals: dict[Key, Proposal],
    below: dict[Key, int],
    assumed: Assumptions,
) -> Sized:
    key = member.ordinal, usage_type
    proposal, sum_below = proposals[key], below.get(key)
    apart = None if sum_below is None else proposal.quantity - sum_below
    working = assumed.working(proposal)
    return Sized(member, usage_type, held.get(key, 0), proposal, sum_below, apart, working)
