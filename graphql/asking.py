"""Asking: what all queries have in common: as of when, for which period, within whose reach, by page.

Out of a principal's reach is answered as what does not exist, everywhere, with the same work.
"""

import re
from collections.abc import Iterable
from typing import TypeVar

import strawberry
from msgspec import Struct

from ..domain.contract import check_name
from ..domain.hierarchy import Path
from ..domain.refusals import Refused
from ..domain.tenant import Tenant
from ..domain.usage import MONEY
from ..tenants.access import NotPermitted, Verb, in_scope, require
from ..tenants.identity import Principal
from .context import Context
from .refusals import TOLD, QueryRefused
from .scalars import Moment, Seq

PAGE_MAX = 100
PAGE_USUAL = 25
SETTLED_MICROSECONDS = 5_000_000
"""A time younger than this may still get events recorded at it: its answer could change."""

T = TypeVar("T")


@strawberry.input(one_of=True, description="A moment of the log: after an event, or at a time.")
class AsOf:
    seq: Seq | None = strawberry.field(default=strawberry.UNSET, description="After the event with this seq.")
    recorded_at: Moment | None = strawberry.field(
        default=strawberry.UNSET, description="After the last event recorded by then; at least 5 seconds ago."
    )


class Looking(Struct, frozen=True):
    """From where in the log somebody looks."""

    seq: int | None
    """None is the present."""
    at: int


def permit(context: Context, verb: Verb) -> None:
    try:
        require(context.principal, verb)
    except NotPermitted as refusal:
        raise QueryRefused(refusal.code, str(refusal), verb=verb) from None


async def looking(context: Context, as_of: AsOf | None) -> Looking:
    if as_of is None:
        return Looking(None, context.now())
    if isinstance(as_of.seq, int):
        found = await context.events([as_of.seq])
        if not found:
            raise QueryRefused("unknown_seq", f"asOf: the log has no event {as_of.seq}")
        return Looking(as_of.seq, found[0].recorded_at)
    assert isinstance(as_of.recorded_at, int)
    if as_of.recorded_at > context.now() - SETTLED_MICROSECONDS:
        raise QueryRefused("not_settled", "asOf: choose a time at least 5 seconds ago, or leave asOf out")
    seq = await context.seq_at(as_of.recorded_at)
    if not seq:
        raise QueryRefused("before_the_log", "asOf: nothing was recorded by then")
    return Looking(seq, as_of.recorded_at)


def period_of(tenant: Tenant, wanted: str | None, at: int) -> str:
    """The period asked for, or the one that was running."""
    if wanted is None:
        return tenant.contracts.name_at(at)
    try:
        check_name(wanted)
    except Refused as refusal:
        message = TOLD[refusal.code].message.format_map(refusal.facts)
        raise QueryRefused(refusal.code, f"period: {message}") from None
    return wanted


def usage_types_of(wanted: list[str] | None, tenant: Tenant) -> list[str]:
    known = tenant.types.known(money=True)
    unknown = [usage_type for usage_type in wanted or () if usage_type not in known]
    if unknown:
        raise QueryRefused("unknown_usage_type", f"usageTypes: use {', '.join(known)}")
    return list(dict.fromkeys(wanted or known))


# --- reach --------------------------------------------------------------------------------------


class Reach:
    """Which members a principal may see, by what the tenant's hierarchy says now."""

    def __init__(self, principal: Principal, tenant: Tenant) -> None:
        self.principal = principal
        self.whole = not principal.nodes
        self.units = {**tenant.types.units, MONEY: "micro-unit"}
        """Of everything the tenant counts."""
        self._members = tenant.hierarchy.members
        self._by_id = tenant.hierarchy.by_id
        self._seen: dict[int, bool] = {}

    def sees(self, ordinal: int) -> bool:
        known = self._seen.get(ordinal)
        if known is None:
            known = self._seen[ordinal] = self.whole or self.sees_path(self._members[ordinal].path)
        return known

    def id_of(self, ordinal: int) -> strawberry.ID | None:
        """A member's id; None beyond reach."""
        return strawberry.ID(self._members[ordinal].id) if self.sees(ordinal) else None

    def sees_path(self, path: Path) -> bool:
        """Of usage: whoever used it, and the nodes it was on at the time."""
        ids = [self._members[ordinal].id for ordinal in reversed(path)]
        return in_scope(self.principal, ids)

    def sees_stay(self, resource: int, node: int) -> bool:
        """Of a resource while it was on this node."""
        return self.whole or self.sees_path((resource, *self._members[node].path))

    def sees_id(self, ident: str) -> bool:
        member = self._by_id.get(ident)
        return member is not None and self.sees(member.ordinal)

    def stands_below(self, ident: str) -> bool:
        """Whether some of what the principal sees is at or below this member."""
        member = self._by_id.get(ident)
        if member is None or self.whole:
            return member is not None
        known = (self._by_id[node] for node in self.principal.nodes if node in self._by_id)
        return self.sees(member.ordinal) or any(member.ordinal in node.path for node in known)

    def roots(self) -> list[str | None]:
        """Where the principal's part of the hierarchy begins; None is the enterprise."""
        if self.whole:
            return [None]
        known = [self._by_id[node] for node in self.principal.nodes if node in self._by_id]
        top = [
            member.id
            for member in known
            if not any(other is not member and other.ordinal in member.path for other in known)
        ]
        return list(dict.fromkeys(top))


async def reach_of(context: Context) -> Reach:
    return Reach(context.principal, await context.state())


# --- pages --------------------------------------------------------------------------------------


@strawberry.type(description="Where a page ends.")
class PageInfo:
    has_next_page: bool
    end_cursor: str | None = strawberry.field(description="Give it as `after` to get the next page.")


def page_size(first: int) -> int:
    if not 1 <= first <= PAGE_MAX:
        raise QueryRefused("bad_page", f"first: ask for 1 to {PAGE_MAX}")
    return first


def cursor_of(seq: int) -> str:
    return f"s{seq}"


def seq_before(after: str | None) -> int | None:
    """The seq that a page, newest first, continues before."""
    if after is None:
        return None
    if not re.fullmatch(r"s[0-9]{1,18}", after):
        raise QueryRefused("bad_cursor", "after: give the endCursor of the page before, unchanged")
    return int(after[1:])


def paged(rows: Iterable[T], first: int, seqs: Iterable[int]) -> tuple[list[T], PageInfo]:
    """A page out of one row more than it holds."""
    listed, places = list(rows), list(seqs)
    page = listed[:first]
    end = cursor_of(places[len(page) - 1]) if page else None
    return page, PageInfo(has_next_page=len(listed) > first, end_cursor=end)


def usage_id_of(text: str) -> bytes | None:
    """The key behind a usage's id; None for what cannot be one."""
    return bytes.fromhex(text) if re.fullmatch(r"[0-9a-f]{32}", text) else None
