"""Charging: from a usage record to the event that says who paid what, and why.

guide (whose is it) -> rate (what is billed) -> draw (whose buckets pay, narrowest first) ->
check every limit on the path -> charged, or rejected by the limit that stopped it. What cannot
be guided or rated waits in suspense with its reason. A record always ends in an event.
"""

from typing import ClassVar

from msgspec import Struct

from .bucket import Family
from .hierarchy import Path
from .usage import UsageRecord

FUTURE_MAX = 86_400_000_000
"""A record may be up to a day ahead of our clock; more is a wrong clock."""

CORPORATE = "corporate"
STEERING_DEFAULT = "default"
"""The steering rule in force while a tenant has none of its own: the enterprise pays."""


class UsageCharged(Struct, frozen=True, array_like=True, gc=False):
    topic: ClassVar[str] = "usage.charged"
    source: str
    record_id: str
    path: Path
    """Who used it: the resource's ordinal, then its nodes up to the root, as they were then."""
    usage_type: str
    period: str
    started_at: int
    direction: str
    quantity: int
    billed: int
    """The quantity rounded up to the tariff's increment."""
    tariff: int
    rate: int
    """Which of the tariff version's rates, with its prefix and zone beside it."""
    prefix: str
    zone: str
    payer: str
    steering: str
    drawn: tuple[tuple[int, int], ...]
    """What each bucket paid, in the order of consumption: (ordinal, quantity)."""
    overage: int
    """billed - what the buckets paid."""
    amount: int
    exact: tuple[int, int]
    sealed: bytes
    """The line and the other party, under the line's own key."""


class UsageRejected(Struct, frozen=True, array_like=True, gc=False):
    """Denied by a limit or an empty allowance, and remembered: the customer will ask why."""

    topic: ClassVar[str] = "usage.rejected"
    source: str
    record_id: str
    path: Path
    usage_type: str
    period: str
    started_at: int
    direction: str
    quantity: int
    billed: int
    reason: str
    """"limit_exceeded" or "insufficient_allowance"."""
    stopped_by: int
    """The ordinal of the member whose limit, or bucket, stopped it."""
    counted: str
    """What the limit counts: the usage type or "money"."""
    used: int
    limit: int
    sealed: bytes


class UsageSuspended(Struct, frozen=True, array_like=True, gc=False):
    """Waiting, with its reason, to be corrected and recycled."""

    topic: ClassVar[str] = "usage.suspended"
    source: str
    record_id: str
    reason: str
    field: str
    detail: str
    position: str
    usage_type: str
    quantity: int
    started_at: int
    direction: str
    attributes: tuple[tuple[str, str], ...]
    sealed: bytes
    """The line and the other party, or the raw record where it could not be read."""
    readable: bool


class ChargeUsage(Struct, frozen=True, gc=False):
    """Charge one record. Its personal part comes sealed, its line as a keyed hash."""

    record: UsageRecord
    token: bytes
    sealed: bytes
    position: str = ""


class SuspendUsage(Struct, frozen=True, gc=False):
    """Keep a record that mediation could not vouch for, or that contradicts an earlier one."""

    source: str
    record_id: str
    reason: str
    field: str
    detail: str
    position: str
    sealed: bytes
    started_at: int = 0


def suspended(record: UsageRecord, sealed: bytes, position: str, reason: str, field: str, detail: str) -> UsageSuspended:
    return UsageSuspended(
        record.source,
        record.record_id,
        reason,
        field,
        detail,
        position,
        record.usage_type,
        record.quantity,
        record.started_at,
        record.direction,
        record.attributes,
        sealed,
        readable=True,
    )


def unreadable(command: SuspendUsage) -> UsageSuspended:
    return UsageSuspended(
        command.source,
        command.record_id,
        command.reason,
        command.field,
        command.detail,
        command.position,
        "",
        0,
        command.started_at,
        "",
        (),
        command.sealed,
        readable=False,
    )


def stopped_at(family: Family, path: Path, quantity: int) -> bool:
    """Whether something waits on this path for this much more usage: a threshold or a limit."""
    used, mark = family.used, family.mark
    return any(used[ordinal] + quantity >= mark[ordinal] for ordinal in path)
