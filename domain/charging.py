"""Charging: from a usage record to the event that says who paid what, and why.

guide (whose is it) -> rate (what is billed) -> draw (whose buckets pay, narrowest first) ->
check every limit on the path -> charged, or rejected by the limit that stopped it. What cannot
be guided or rated waits in suspense with its reason. A record always ends in an event.
"""

from collections.abc import Mapping
from typing import ClassVar

import msgspec
from msgspec import Struct

from .bucket import NEVER, Drawn, Family
from .cap import CapReached, count_drawn, held_back, reached
from .capped import NOBODY
from .contract import Contracts
from .emergency import is_emergency
from .freeze import frozen_on
from .hierarchy import Hierarchy, Path
from .limit import Limits, ThresholdCrossed
from .refusals import InvariantBroken
from .tariff import EXACT_MAX, NOTHING, CompiledRate, Rated, Tariffs
from .usage import MONEY, UsageRecord

FUTURE_MAX = 86_400_000_000
"""A record may be up to a day ahead of our clock; more is a wrong clock."""

CORPORATE = "corporate"
STEERING_DEFAULT = "default"
"""The steering rule in force while a tenant has none of its own: the enterprise pays."""


class UsageCharged(Struct, frozen=True, array_like=True, gc=False):
    """A record has been charged: who paid what, and why."""

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
    credit: tuple[tuple[int, int], ...] = ()
    """What money buckets paid of `amount`, in the order of consumption; the rest is payable."""

    @property
    def payable(self) -> int:
        return self.amount - sum(part for _, part in self.credit)


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
    """"limit_exceeded", "suspended", or "insufficient_allowance": then `limit` is what the path still had.
    "cap_reached": `used` of `limit` was drawn from above; "frozen": it stood below a frozen member."""
    stopped_by: int
    """The ordinal of the member whose limit, or bucket, stopped it; of a resource that is suspended."""
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
    subject: bytes
    """Whose key it is sealed with: it opens even if nobody ever has this line."""
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
    subject: bytes
    started_at: int = 0


class Stop(Struct, frozen=True, gc=False):
    """What stops a charge: whose limit or bucket, what it counts, how far it is."""

    reason: str
    ordinal: int
    counter: Family
    limit: int
    drawn: int = NOBODY
    """Where a cap stops it: what was drawn from above."""

    @property
    def used(self) -> int:
        return self.counter.used[self.ordinal] if self.drawn == NOBODY else self.drawn


Charged = UsageCharged | UsageRejected | UsageSuspended | ThresholdCrossed | CapReached


class Charging:
    """Decides charges and counts them, on the parts of one tenant's state."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        contracts: Contracts,
        tariffs: Tariffs,
        limits: Limits,
        families: dict[tuple[str, str], Family],
    ) -> None:
        self._hierarchy = hierarchy
        self._contracts = contracts
        self._tariffs = tariffs
        self._limits = limits
        self._families = families
        self.counts = dict.fromkeys(("charged", "rejected", "suspended"), 0)
        self.amount_total = 0

    def decide(self, command: ChargeUsage, now: int) -> list[Charged]:
        """Always an event: charged, rejected or suspended, then the thresholds and caps it reached."""
        events = self._decide(command, now)
        told = events[0]
        if isinstance(told, UsageCharged | UsageRejected):
            family = self._families[told.usage_type, told.period]
            if family.caps is not None:
                return [*events, *self._caps_reached(told, family)]
        return events

    def _caps_reached(self, told: UsageCharged | UsageRejected, family: Family) -> list[CapReached]:
        if isinstance(told, UsageRejected):
            concerned = told.reason == "cap_reached"
        else:
            concerned = told.overage > 0 and self._tariffs.versions[told.tariff - 1].rates[told.rate].included
        return reached(family, told.path, told.billed, self._hierarchy.members) if concerned else []

    def _decide(self, command: ChargeUsage, now: int) -> list[Charged]:
        record = command.record
        at = record.started_at
        path = self._hierarchy.guide(command.token, at)
        if not path:
            return [_suspended(command, "unknown_line" if path is None else "line_not_active")]
        if at > now + FUTURE_MAX:
            return [_suspended(command, "in_the_future")]
        period = self._contracts.period_for(at)
        if period is None:
            return [_suspended(command, "no_contract")]
        if record.usage_type not in self._contracts.types:
            return [_suspended(command, "unknown_usage_type")]
        tariff = self._tariffs.at(at)
        rate = tariff.find(record.usage_type, record.direction, record.counterpart) if tariff else None
        if rate is None:
            return [_suspended(command, "no_rate")]
        rate = self._contracts.rate_of(period, record.usage_type, rate)
        family = self._families[record.usage_type, period.period]
        billed = rate.billed(record.quantity)
        if self._hierarchy.is_suspended(path[0], at) and not is_emergency(record):
            return [_rejected(command, path, family, billed, Stop("suspended", path[0], family, 0))]
        frozen = frozen_on(path, self._hierarchy)
        if frozen is not None and not is_emergency(record):
            return [_rejected(command, path, family, billed, Stop("frozen", frozen, family, 0))]
        drawn, taken = family.draw(path, billed) if billed and rate.included else ((), 0)
        rated = rate.rate(billed - taken) if taken < billed else NOTHING
        if rated.overage and rate.included and not period.overage:
            stop = uncovered(family, path, billed, taken)
            return [_rejected(command, path, family, billed, stop)]
        told = charged(record, command.sealed, path, family.period, billed, rate, drawn, rated)
        if not billed:
            return [told]
        money: Family | None = None
        if rated.amount:
            money = self._families[MONEY, period.period]
            if max(rated.exact) >= EXACT_MAX:
                return [_suspended(command, "beyond_counting")]
            credit, _ = money.draw(path, rated.amount)
            told = msgspec.structs.replace(told, credit=credit) if credit else told
        if not family.is_near(path, billed) and (money is None or not money.is_near(path, rated.amount)):
            return [told]
        return self._decide_near(told, command, family, money)

    def _decide_near(
        self, told: UsageCharged, command: ChargeUsage, family: Family, money: Family | None
    ) -> list[Charged]:
        """A charge that crosses a threshold, or would pass a limit: the first on its path stops it."""
        counted = [(family, told.billed)]
        if money is not None:
            counted.append((money, told.amount))
        for counter, quantity in counted:
            if counter.used[told.path[-1]] + quantity >= NEVER:
                return [_suspended(command, "beyond_counting")]
            stop = self._stop(counter, told.path, quantity)
            if stop is not None:
                return [_rejected(command, told.path, family, told.billed, stop)]
        crossings = [
            crossing
            for counter, quantity in counted
            for crossing in self._limits.crossed(counter, told.path, quantity)
        ]
        return [told, *crossings]

    def _stop(self, counter: Family, path: Path, quantity: int) -> Stop | None:
        for ordinal in path:
            if counter.used[ordinal] + quantity < counter.mark[ordinal]:
                continue
            limit = self._limits.of(ordinal, counter.usage_type, counter.period)
            if limit is not None and counter.used[ordinal] + quantity > limit.quantity:
                return Stop("limit_exceeded", ordinal, counter, limit.quantity)
        return None

    def apply(self, event: UsageCharged | UsageRejected | UsageSuspended) -> None:
        if isinstance(event, UsageCharged):
            self.count(event)
        elif isinstance(event, UsageRejected):
            self.counts["rejected"] += 1
        else:
            self.counts["suspended"] += 1

    def count(self, event: UsageCharged) -> None:
        """Take a charge out of its buckets and add it to every counter on its path."""
        family = self._families[event.usage_type, event.period]
        taken = family.consume(event.drawn) if event.drawn else 0
        count_drawn(family, event.path, event.drawn)
        if taken + event.overage != event.billed:
            raise InvariantBroken(
                "the parts of a charge add up", taken=taken, overage=event.overage, billed=event.billed
            )
        if event.billed:
            family.count(event.path, event.billed)
        if event.amount:
            money = self._families[MONEY, event.period]
            if event.credit and money.consume(event.credit) > event.amount:
                raise InvariantBroken("credit pays no more than the amount", amount=event.amount)
            money.count(event.path, event.amount)
            self.amount_total += event.amount
        self.counts["charged"] += 1


def uncovered(
    family: Family, path: Path, billed: int, taken: int, held: Mapping[int, int] | None = None
) -> Stop:
    """Why buckets do not pay for all of it: a cap below them, or there is no more."""
    ordinal = held_back(family, path, billed, held)
    if ordinal == NOBODY or family.caps is None:
        return Stop("insufficient_allowance", path[-1], family, taken)
    return Stop("cap_reached", ordinal, family, family.caps.quantity[ordinal], family.caps.drawn[ordinal])


def suspended_unreadable(command: SuspendUsage) -> UsageSuspended:
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
        command.subject,
        readable=False,
    )


SUSPENSE = {
    "unknown_line": ("line", "nobody has this line: add the resource"),
    "line_not_active": ("line", "nobody had this line at that time: check the dates"),
    "beyond_counting": (
        "quantity",
        "it would cost or count more than anything can: check its unit and the tariff",
    ),
    "in_the_future": ("started_at", "the record lies in the future: check its clock and time zone"),
    "no_contract": ("started_at", "no contract covers that day: sign one that does"),
    "unknown_usage_type": ("usage_type", "the tenant has no such usage type: define it, or correct this"),
    "no_rate": ("counterpart", "no tariff valid that day has a rate for this: publish one"),
}
"""Why a readable record waits: the field to look at, and the remedy."""


def _suspended(command: ChargeUsage, reason: str) -> UsageSuspended:
    record = command.record
    field, detail = SUSPENSE[reason]
    return UsageSuspended(
        record.source,
        record.record_id,
        reason,
        field,
        detail,
        command.position,
        record.usage_type,
        record.quantity,
        record.started_at,
        record.direction,
        record.attributes,
        command.sealed,
        command.token,
        readable=True,
    )


def _rejected(command: ChargeUsage, path: Path, family: Family, billed: int, stop: Stop) -> UsageRejected:
    record = command.record
    return UsageRejected(
        record.source,
        record.record_id,
        path,
        record.usage_type,
        family.period,
        record.started_at,
        record.direction,
        record.quantity,
        billed,
        stop.reason,
        stop.ordinal,
        stop.counter.usage_type,
        stop.used,
        stop.limit,
        command.sealed,
    )


def charged(
    record: UsageRecord,
    sealed: bytes,
    path: Path,
    period: str,
    billed: int,
    rate: CompiledRate,
    drawn: Drawn,
    rated: Rated,
    credit: Drawn = (),
) -> UsageCharged:
    """A record's charge, however it was decided."""
    return UsageCharged(
        record.source,
        record.record_id,
        path,
        record.usage_type,
        period,
        record.started_at,
        record.direction,
        record.quantity,
        billed,
        rate.version,
        rate.index,
        rate.prefix,
        rate.zone,
        CORPORATE,
        STEERING_DEFAULT,
        drawn,
        rated.overage,
        rated.amount,
        rated.exact,
        sealed,
        credit,
    )
