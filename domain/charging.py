"""Charging: from a usage record to the event that says who paid what, and why.

guide (whose is it) -> rate (what is billed) -> draw (whose buckets pay, narrowest first) ->
check every limit on the path -> charged, or rejected by the limit that stopped it. What cannot
be guided or rated waits in suspense with its reason. A record always ends in an event.
"""

from collections.abc import Mapping
from typing import ClassVar

from msgspec import Struct
from msgspec.structs import replace

from .bucket import NEVER, Drawn, Family
from .cap import CapReached, count_drawn, held_back, reached
from .capped import NOBODY
from .contract import Contracts
from .emergency import is_emergency
from .freeze import frozen_on
from .hierarchy import Hierarchy, Path
from .lateness import TOO_LATE, LateRules
from .limit import Limits, Stop, ThresholdCrossed
from .planned import Plans
from .policy import EMERGENCY, PERSONAL, Asked, Ruling, priced_above
from .rating.basis import Basis
from .refusals import InvariantBroken, Refused
from .tariff import EXACT_MAX, NOTHING, CompiledRate, Rated, Tariff, Tariffs
from .usage import MONEY, UsageRecord

FUTURE_MAX = 86_400_000_000
"""A record may be up to a day ahead of our clock; more is a wrong clock."""

CORPORATE = "corporate"
"""The enterprise pays. What anybody else pays for draws no allowance and counts in no limit."""
UNCHARGED = "nobody"
"""Nobody pays: the charge was taken back, and its steering says why (see withdrawn.py)."""
ENTERPRISE: Path = (0,)
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
    ruling: Ruling | None = None
    """What a policy ruled, where one did."""
    basis: Basis | None = None
    """What else the rate was chosen and applied by, where more than the prefix counted."""

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
    """"limit_exceeded", "suspended"; "insufficient_allowance": then `limit` is what the path still had;
    "blocked_by_policy" or "approval_required": then it is the threshold. "cap_reached": `used` of `limit`
    was drawn from above; "frozen": it stood below a frozen member."""
    stopped_by: int
    """The ordinal of the member whose limit, or bucket, stopped it; of a resource that is suspended."""
    counted: str
    """What the limit counts: the usage type or "money"."""
    used: int
    limit: int
    sealed: bytes
    window: str = "period"
    """What the limit counts in."""
    ruling: Ruling | None = None
    attributes: tuple[tuple[str, str], ...] = ()
    """What the record said besides: it can be decided again as it was."""


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
    value: int | None = None
    """What it would cost by the tariff of its time, all of it as overage; None where nothing can tell."""


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


class Use(Struct, frozen=True, gc=False):
    """A record with what it would be charged with: as the enterprise's, without any policy."""

    command: ChargeUsage
    path: Path
    family: Family
    billed: int
    rate: CompiledRate
    overage: bool
    """Whether the contract lets usage go beyond the allowance."""


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
        plans: Plans | None = None,
    ) -> None:
        self.plans = plans or Plans(hierarchy)
        self.late = LateRules()
        self._hierarchy = hierarchy
        self._contracts = contracts
        self._tariffs = tariffs
        self.limits = limits
        self._families = families
        self.counts = dict.fromkeys(("charged", "rejected", "suspended"), 0)
        self.amount_total = 0

    def decide(self, command: ChargeUsage, now: int) -> list[Charged]:
        """Always an event: charged, rejected or suspended, then the thresholds and caps it reached."""
        if self.late.holds(command.record, now):
            return [replace(_suspended(command, TOO_LATE), value=self.worth(command.record))]
        return self.decide_in_time(command, now)

    def decide_in_time(self, command: ChargeUsage, now: int) -> list[Charged]:
        """The same whatever the age of the record: it came in time, or is accepted although it is late."""
        events = self._decide(command, now)
        told = events[0]
        if isinstance(told, UsageCharged | UsageRejected):
            family = self._families[told.usage_type, told.period]
            if family.caps is not None:
                return [*events, *self._caps_reached(told, family)]
        elif isinstance(told, UsageSuspended):
            return [replace(told, value=self.worth(command.record))]
        return events

    def worth(self, record: UsageRecord) -> int | None:
        """What a record would cost by the tariff of its time, as if no allowance paid any of it."""
        at = record.started_at
        tariff, period = self._tariffs.at(at), self._contracts.period_at(at)
        try:
            rate = find_rate(tariff, record) if tariff else None
        except Refused:
            return None
        if rate is None or record.usage_type not in self._contracts.types:
            return None
        if period is not None:
            rate = self._contracts.rate_of(period, record.usage_type, rate)
            # Whose it is may be unknown: under a plan, at the price that the enterprise has reached.
            rate = self.plans.bound(rate, period.period, ENTERPRISE) if self._hierarchy.members else rate
        rated = rate.rate(rate.billed(record.quantity), 0, at)
        return rated.amount if max(rated.exact) < EXACT_MAX else None

    def _caps_reached(self, told: UsageCharged | UsageRejected, family: Family) -> list[CapReached]:
        if isinstance(told, UsageRejected):
            concerned = told.reason == "cap_reached"
        else:
            rate = self._tariffs.versions[told.tariff - 1].rates[told.rate]
            concerned = told.overage > 0 and told.payer == CORPORATE and rate.included
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
        try:
            rate = find_rate(tariff, record) if tariff else None
        except Refused as refused:
            return [_suspended(command, refused.code)]
        if rate is None:
            return [_suspended(command, "no_rate")]
        rate = self._contracts.rate_of(period, record.usage_type, rate)
        if rate.plan is not None:
            rate = self.plans.bound(rate, period.period, path)
        family = self._families[record.usage_type, period.period]
        use = Use(command, path, family, rate.billed(record.quantity), rate, period.overage)
        barred = self._barred(use)
        if barred is not None:
            return [_rejected(use, barred)]
        return self.decide_use(use, self._families[MONEY, period.period])

    def _barred(self, use: Use) -> Stop | None:
        """Who is suspended, or stands below somebody who is frozen, uses nothing but emergency calls."""
        record, path, family = use.command.record, use.path, use.family
        suspended = self._hierarchy.is_suspended(path[0], record.started_at)
        by = path[0] if suspended else frozen_on(path, self._hierarchy)
        if by is None or is_emergency(record):
            return None
        return Stop("suspended" if suspended else "frozen", by, family.usage_type, family.used[by], 0)

    def decide_use(self, use: Use, money: Family) -> list[Charged]:
        """The same for a record that has been guided and has its rate."""
        family, path, billed, rate = use.family, use.path, use.billed, use.rate
        drawn, taken = family.draw(path, billed) if billed and rate.included else ((), 0)
        rated = rate.rate(billed, taken, use.command.record.started_at) if taken < billed else NOTHING
        if self._is_near(use, money, rated.amount):
            return self._decide_near(use, money, drawn, rated)
        if _is_short(use, rated):
            return self._stopped(use, _shortage(use, rated))
        if rated.overage and max(rated.exact) >= EXACT_MAX:
            return [_suspended(use.command, "beyond_counting")]
        return [_charged(use, drawn, rated, money)]

    def _is_near(self, use: Use, money: Family, amount: int) -> bool:
        """Whether a threshold, a limit or a policy is to be asked about it."""
        path, billed, limits = use.path, use.billed, self.limits
        if not billed:
            return False
        if use.family.is_near(path, billed) or (amount and money.is_near(path, amount)):
            return True
        at, counted = use.command.record.started_at, use.family.usage_type
        return bool(limits.gauges) and (
            limits.is_near(counted, path, billed, at)
            or (amount > 0 and limits.is_near(MONEY, path, amount, at))
        )

    def _decide_near(self, use: Use, money: Family, drawn: Drawn, rated: Rated) -> list[Charged]:
        """What a policy rules of it first, then whether a hard limit stops it, then what it crosses."""
        asked, ruling = self._asked(use), None
        if self.limits.policies and not is_emergency(use.command.record):
            ruling = self._ruled(use, money, rated, asked)
        match ruling.action if ruling else "":
            case "block" | "approval":
                assert ruling is not None
                return [_rejected(use, self._stop_of(ruling, use, money), ruling)]
            case "redirect":
                rated = use.rate.rate(use.billed, 0, use.command.record.started_at)
                return [_of_another(use, rated, PERSONAL, ruling)]
            case "overage":
                assert ruling is not None
                drawn, rated, ruling = self.priced(use, ruling)
        if _is_short(use, rated):
            return self._stopped(use, _shortage(use, rated))
        if rated.overage and max(rated.exact) >= EXACT_MAX:
            return [_suspended(use.command, "beyond_counting")]
        return self._decide_limited(use, money, drawn, rated, asked, ruling)

    def _decide_limited(
        self, use: Use, money: Family, drawn: Drawn, rated: Rated, asked: Asked, ruling: Ruling | None
    ) -> list[Charged]:
        """A charge that crosses a threshold, or would pass a hard limit: the tightest stops it."""
        path, counted = use.path, [(use.family, use.billed)]
        if rated.amount:
            counted.append((money, rated.amount))
        for counter, quantity in counted:
            if counter.used[path[-1]] + quantity >= NEVER:
                return [_suspended(use.command, "beyond_counting")]
            stop = self.limits.stop(counter, path, quantity, asked.at)
            if stop is not None:
                return self._stopped(use, stop)
        crossings = [
            crossing
            for counter, quantity in counted
            for crossing in self.limits.crossed(counter, path, quantity, asked)
        ]
        return [_charged(use, drawn, rated, money, ruling), *crossings]

    def _stopped(self, use: Use, stop: Stop) -> list[Charged]:
        """Rejected, but for a call for help: that goes through, free of charge and counted nowhere."""
        if is_emergency(use.command.record):
            return [_of_another(use, Rated(use.billed, 0, (0, 1)), EMERGENCY)]
        return [_rejected(use, stop)]

    def _asked(self, use: Use) -> Asked:
        record, kind = use.command.record, self._hierarchy.members[use.path[0]].kind
        role = next((value for name, value in record.attributes if name == "role"), "")
        return Asked(
            use.path, record.usage_type, record.direction, record.started_at, kind, role, record.counterpart
        )

    def _ruled(self, use: Use, money: Family, rated: Rated, asked: Asked) -> Ruling | None:
        reached = [*self.limits.reached(use.family, use.path, use.billed, asked.at)]
        if rated.amount:
            reached += self.limits.reached(money, use.path, rated.amount, asked.at)
        return self.limits.policies.decide(asked, reached)

    def _stop_of(self, ruling: Ruling, use: Use, money: Family) -> Stop:
        """The threshold that a policy stops at, with what was used below it."""
        counter = money if ruling.counted == MONEY else use.family
        used = self.limits.used(counter, ruling.limit_of, ruling.window, use.command.record.started_at)
        reason = "approval_required" if ruling.action == "approval" else "blocked_by_policy"
        return Stop(reason, ruling.limit_of, ruling.counted, used, ruling.at, ruling.window)

    def priced(self, use: Use, ruling: Ruling) -> tuple[Drawn, Rated, Ruling]:
        """What is beyond the threshold costs the policy's price, and no allowance covers it."""
        above = use.billed
        if ruling.counted != MONEY:
            started_at = use.command.record.started_at
            used = self.limits.used(use.family, ruling.limit_of, ruling.window, started_at)
            above = min(above, used + use.billed - ruling.at)
        rest = use.billed - above
        drawn, taken = use.family.draw(use.path, rest) if rest and use.rate.included else ((), 0)
        at = use.command.record.started_at
        rated = priced_above(use.rate, rest, taken, above, ruling.price, ruling.per, at)
        return drawn, rated, replace(ruling, above=above)

    def apply(self, event: UsageCharged | UsageRejected | UsageSuspended) -> None:
        if isinstance(event, UsageCharged):
            self.count(event)
        elif isinstance(event, UsageRejected):
            self.counts["rejected"] += 1
        else:
            self.counts["suspended"] += 1

    def count(self, event: UsageCharged) -> None:
        """Take a charge out of its buckets and add it to every counter on its path."""
        self.count_use(event)
        count_drawn(self._families[event.usage_type, event.period], event.path, event.drawn)
        if self.limits.gauges and event.payer == CORPORATE:
            self.count_windows(event.usage_type, event.path, event.started_at, event.billed, event.amount)

    def count_use(self, event: UsageCharged, sign: int = 1, *, again: bool = False) -> None:
        """All that a charge adds to its period and takes from its buckets; with a minus, taken back as given.

        But for what it counts towards caps and in windows other than the period. `again`: it is made in
        place of another, so its place in a plan is not where the plan's counter stands.
        """
        family = self._families[event.usage_type, event.period]
        taken = family.settle(event.drawn, sign)
        if taken + event.overage != event.billed:
            raise InvariantBroken(
                "the parts of a charge add up", taken=taken, overage=event.overage, billed=event.billed
            )
        self.counts["charged"] += sign
        if event.payer != CORPORATE:
            if taken:
                raise InvariantBroken("the enterprise's allowance pays for nobody else", payer=event.payer)
            return
        if event.basis is not None and event.basis.counted is not None:
            if sign < 0 or again:
                self.plans.recount(event.period, event.basis.counted, sign)
            else:
                self.plans.count(event.period, event.basis.counted)
        if event.billed:
            family.count(event.path, sign * event.billed)
        if event.amount:
            money = self._families[MONEY, event.period]
            if event.credit and money.settle(event.credit, sign) > event.amount:
                raise InvariantBroken("credit pays no more than the amount", amount=event.amount)
            money.count(event.path, sign * event.amount)
            self.amount_total += sign * event.amount

    def count_windows(self, usage_type: str, path: Path, at: int, billed: int, amount: int) -> None:
        """The same in every window other than the period."""
        if billed:
            self.limits.count(usage_type, path, billed, at)
        if amount:
            self.limits.count(MONEY, path, amount, at)


def find_rate(tariff: Tariff, record: UsageRecord) -> CompiledRate | None:
    """A record's rate in a version; refuses a record that does not say what its rate asks for."""
    return tariff.find(
        record.usage_type,
        record.direction,
        record.counterpart,
        record.started_at,
        record.line,
        record.attributes,
    )


def rated_again(rate: CompiledRate, charge: UsageCharged) -> Rated:
    """What the overage of a charge costs, by the tariff or by the policy that ruled it."""
    if charge.payer in (EMERGENCY, UNCHARGED):
        return Rated(charge.overage, 0, (0, 1))
    taken, at, ruling = charge.billed - charge.overage, charge.started_at, charge.ruling
    if ruling is not None and ruling.action == "overage":
        rest = charge.billed - ruling.above
        return priced_above(rate, rest, taken, ruling.above, ruling.price, ruling.per, at)
    return rate.rate(charge.billed, taken, at)


def _shortage(use: Use, rated: Rated) -> Stop:
    """The allowance is at its end, and the contract lets nobody go beyond."""
    return uncovered(use.family, use.path, use.billed, use.billed - rated.overage)


def _is_short(use: Use, rated: Rated) -> bool:
    return bool(rated.overage) and use.rate.included and not use.overage


def uncovered(
    family: Family, path: Path, billed: int, taken: int, held: Mapping[int, int] | None = None
) -> Stop:
    """Why buckets do not pay for all of it: a cap below them, or there is no more."""
    ordinal, counted, root = held_back(family, path, billed, held), family.usage_type, path[-1]
    if ordinal == NOBODY or family.caps is None:
        return Stop("insufficient_allowance", root, counted, family.used[root], taken)
    return Stop("cap_reached", ordinal, counted, family.caps.drawn[ordinal], family.caps.quantity[ordinal])


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


CONFLICTING = (
    "conflicting_duplicate",
    "record_id",
    "a record with this id and other content came before: compare the two, correct the wrong one",
)
"""Of a record whose identity another has: reason, field and remedy."""
SUSPENSE = {
    "unknown_line": ("line", "nobody has this line: add the resource"),
    "line_not_active": ("line", "nobody had this line at that time: check the dates"),
    "beyond_counting": (
        "quantity",
        "it would cost or count more than anything can: check its unit and the tariff",
    ),
    "in_the_future": ("started_at", "the record lies in the future: check its clock and time zone"),
    TOO_LATE: (
        "started_at",
        "it came later than is charged unasked: recycle it and accept that it is late, or write it off",
    ),
    "no_contract": ("started_at", "no contract covers that day: sign one that does"),
    "unknown_usage_type": ("usage_type", "the tenant has no such usage type: define it, or correct this"),
    "no_value": (
        "attributes",
        "its rate is a percentage of a value: state it as the attribute value, such as 12.50",
    ),
    "bad_multiple": (
        "attributes",
        "its rate is for each segment or participant: state how many as a whole number",
    ),
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


def _rejected(use: Use, stop: Stop, ruling: Ruling | None = None) -> UsageRejected:
    record = use.command.record
    return UsageRejected(
        record.source,
        record.record_id,
        use.path,
        record.usage_type,
        use.family.period,
        record.started_at,
        record.direction,
        record.quantity,
        use.billed,
        stop.reason,
        stop.ordinal,
        stop.counted,
        stop.used,
        stop.limit,
        use.command.sealed,
        stop.window,
        ruling,
        record.attributes,
    )


def _charged(
    use: Use, drawn: Drawn, rated: Rated, money: Family, ruling: Ruling | None = None
) -> UsageCharged:
    """The enterprise pays, out of its money buckets as far as they go."""
    command = use.command
    credit, _ = money.draw(use.path, rated.amount)
    about = (command.record, command.sealed, use.path, use.family.period, use.billed, use.rate)
    return charged(*about, drawn, rated, credit, CORPORATE, ruling)


def _of_another(use: Use, rated: Rated, payer: str, ruling: Ruling | None = None) -> UsageCharged:
    """Somebody else pays: no bucket of the enterprise does."""
    command = use.command
    about = (command.record, command.sealed, use.path, use.family.period, use.billed, use.rate)
    return charged(*about, (), rated, (), payer, ruling)


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
    payer: str = CORPORATE,
    ruling: Ruling | None = None,
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
        payer,
        STEERING_DEFAULT if payer == CORPORATE else payer,
        drawn,
        rated.overage,
        rated.amount,
        rated.exact,
        sealed,
        credit,
        ruling,
        rate.basis if rate.plain else told_of(rate, rated, payer, ruling),
    )


def told_of(rate: CompiledRate, rated: Rated, payer: str, ruling: Ruling | None) -> Basis | None:
    """What is kept of how a rate was applied. A call for help is free, and under no plan."""
    if payer in (EMERGENCY, UNCHARGED):
        return rate.basis
    if ruling is None or ruling.action != "overage":
        return rate.told(rated)
    return rate.told(rated, ruling.above, ruling.price, ruling.per)
