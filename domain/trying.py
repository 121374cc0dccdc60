"""Trying a policy out: what it would have done to usage that was decided long ago.

The log is folded twice beside itself, with today's limits and policies, once without and once with the
policy; every use in it is decided again by the code that decides live. Nothing is written. Records say
nothing of roles any more, and running sessions are looked at as the usage they became.
"""

from collections.abc import Iterable

from msgspec import Struct

from .bucket import Transferred
from .charging import CORPORATE, Charged, ChargeUsage, UsageCharged, UsageRejected, UsageSuspended, Use
from .events import Recorded
from .granting import GrantChanged
from .hierarchy import NodeAdded, ResourceAdded
from .limit import LimitSet, ThresholdCrossed
from .policy import PERSONAL, PolicySet, PolicyWithdrawn, UsageApproved
from .raising import LimitRaised
from .receiving import ReceivingEvent
from .refusals import InvariantBroken, Refused
from .rollover import RolledOver
from .session import SessionEvent
from .suspense import SuspenseEvent
from .tariff import CompiledRate, Tariff
from .tenant import Tenant
from .trading import TradingEvent
from .usage import MONEY, UsageRecord

SINCE_EVER = "0000-00"
"""From which period on today's limits are taken to have held."""

Rule = LimitSet | PolicySet


class Tally(Struct):
    """What became of usage: records, billed units by what happened to them, and money."""

    records: int = 0
    charged: int = 0
    rejected: int = 0
    """By limits and an empty allowance."""
    blocked: int = 0
    waiting: int = 0
    """For an approval."""
    redirected: int = 0
    throttled: int = 0
    repriced: int = 0
    """Beyond a threshold, at the price of a policy."""
    amount: int = 0
    """The enterprise pays it."""
    personal: int = 0
    """Users pay it."""

    def count(self, told: Charged) -> None:
        self.records += 1
        if isinstance(told, UsageRejected):
            action = told.ruling.action if told.ruling else ""
            self.blocked += action == "block"
            self.waiting += action == "approval"
            self.rejected += not action
        elif isinstance(told, UsageCharged):
            self._charge(told)

    def _charge(self, told: UsageCharged) -> None:
        action = told.ruling.action if told.ruling else ""
        self.charged += 1
        self.redirected += told.payer == PERSONAL
        self.throttled += action == "throttle"
        self.repriced += action == "overage"
        if told.payer == CORPORATE:
            self.amount += told.amount
        else:
            self.personal += told.amount


class Tried(Struct):
    """Usage of a node, or of all, as it was recorded, and decided again without and with the policy."""

    recorded: Tally
    without: Tally
    proposed: Tally

    @property
    def saved(self) -> int:
        """Money that the enterprise would not have paid; less than 0 where it would have paid more."""
        return self.without.amount - self.proposed.amount

    @property
    def moved(self) -> int:
        """Money that users would have paid in its place."""
        return self.proposed.personal - self.without.personal


def tried() -> Tried:
    return Tried(Tally(), Tally(), Tally())


class Trial:
    """Feed it the log in order."""

    def __init__(self, policy: PolicySet, rules: Iterable[Rule], starts_at: int, ends_at: int) -> None:
        self.starts_at = starts_at
        self.ends_at = ends_at
        self.by_node: dict[int, Tried] = {}
        """By the ordinal of the node that the resource was on."""
        self.total = tried()
        self.left_out = 0
        """Records whose number nobody can read any more, so that no rate is known for them."""
        today = [*rules]
        self._without = _World([rule for rule in today if not _is(rule, policy)])
        self._proposed = _World([*(rule for rule in today if not _is(rule, policy)), policy])
        if any(_is(rule, policy) for rule in today):
            # A new version of what holds today is compared with that.
            self._without = _World(today)

    @property
    def hierarchy_ids(self) -> list[str]:
        return [member.id for member in self._without.tenant.hierarchy.members]

    def feed(self, told: Recorded, counterpart: str | None) -> None:
        """An event, and for usage the other party's number where it can be read."""
        event = told.event
        if isinstance(event, UsageCharged | UsageRejected):
            self._decide(event, counterpart)
        else:
            self._without.apply(event)
            self._proposed.apply(event)

    def _decide(self, event: UsageCharged | UsageRejected, counterpart: str | None) -> None:
        without = self._without.decide(event, counterpart)
        proposed = self._proposed.decide(event, counterpart)
        if not self.starts_at <= event.started_at < self.ends_at:
            return
        if without is None or proposed is None:
            self.left_out += 1
            return
        for tally in (self.total, self.by_node.setdefault(event.path[1], tried())):
            tally.recorded.count(event)
            tally.without.count(without)
            tally.proposed.count(proposed)


class _World:
    """A tenant as it would have become, under rules that held from the beginning."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.tenant = Tenant()
        self._waiting: dict[str, list[Rule]] = {}
        """By the node that they are about, until that is there."""
        for rule in rules:
            self._waiting.setdefault(rule.node, []).append(rule)

    def apply(self, event: object) -> None:
        match event:
            case (
                ThresholdCrossed()
                | LimitSet()
                | LimitRaised()
                | PolicySet()
                | PolicyWithdrawn()
                | UsageApproved()
                | UsageSuspended()
            ):
                return
            case _ if isinstance(event, SessionEvent | SuspenseEvent | ReceivingEvent):
                return
            case Transferred(source, _, usage_type, period, quantity):
                # Where more was used than in fact, less is left to be moved.
                family = self.tenant.families[usage_type, period]
                if family.available(self.tenant.hierarchy.by_id[source].ordinal) < quantity:
                    return
        try:
            self.tenant.apply(event)  # type: ignore[arg-type]
        except InvariantBroken:
            # The buckets of this world hold other quantities than those that this was decided of.
            if not isinstance(event, RolledOver | GrantChanged | TradingEvent):
                raise
        if isinstance(event, NodeAdded | ResourceAdded):
            ident = event.node if isinstance(event, NodeAdded) else event.resource
            for rule in self._waiting.pop(ident, ()):
                self.tenant.apply(rule)

    def decide(self, event: UsageCharged | UsageRejected, counterpart: str | None) -> Charged | None:
        """As `Charging.decide`, of a use that has been guided: its path and period stand in the event."""
        tenant = self.tenant
        rate = self._rate(event, counterpart)
        if rate is None:
            return None
        number = counterpart if counterpart is not None else rate.prefix
        record = UsageRecord(
            *(event.source, event.record_id, "", event.usage_type, event.quantity),
            *(event.started_at, event.direction, number),
            attributes=() if isinstance(event, UsageCharged) else event.attributes,
        )
        overage = tenant.contracts.periods[event.period].overage
        family = tenant.families[event.usage_type, event.period]
        billed = rate.billed(event.quantity)
        use = Use(ChargeUsage(record, b"", b""), event.path, family, billed, rate, overage)
        events = tenant.charging.decide_use(use, tenant.families[MONEY, event.period])
        for told in events:
            tenant.apply(told)
        return events[0]

    def _rate(self, event: UsageCharged | UsageRejected, counterpart: str | None) -> CompiledRate | None:
        tariffs, contracts = self.tenant.tariffs, self.tenant.contracts
        if isinstance(event, UsageCharged):
            version = tariffs.versions[event.tariff - 1]
            rate: CompiledRate | None = version.rate_of(event.rate, event.prefix, event.basis)
        else:
            tariff = tariffs.at(event.started_at)
            if tariff is None or counterpart is None:
                return None
            rate = _found(tariff, event, counterpart)
        if rate is None:
            return None
        rate = contracts.rate_of(contracts.periods[event.period], event.usage_type, rate)
        return self.tenant.plans.bound(rate, event.period, event.path)


def _found(tariff: Tariff, event: UsageRejected, counterpart: str) -> CompiledRate | None:
    """None where the rate asks for the line, or for attributes that were not kept of older rejections."""
    about = (event.usage_type, event.direction, counterpart, event.started_at)
    try:
        return tariff.find(*about, attributes=event.attributes)
    except Refused:
        return None


def rules_of(tenant: Tenant, period: str, at: int) -> list[Rule]:
    """The limits and policies that hold now, as if they had always held."""
    limits = tenant.limits
    found: list[Rule] = []
    for usage_type, by_ordinal in limits.by_type.items():
        for ordinal in by_ordinal:
            held = limits.of(ordinal, usage_type, period)
            if held is not None:
                found.append(
                    LimitSet(
                        *(held.node, usage_type, held.quantity, held.thresholds, SINCE_EVER),
                        kind=held.kind,
                        quantities=held.quantities,
                    )
                )
    for windows in limits.windows.values():
        found += [limit for by_window in windows.values() for limit in by_window.values()]
    found += [_ever(compiled.version) for compiled in limits.policies.in_force(at)]
    return found


def _ever(policy: PolicySet) -> PolicySet:
    return PolicySet(
        *(policy.policy, policy.version, 0, policy.node, policy.counted, policy.window),
        *(policy.steps, policy.selector, policy.groups, policy.note),
    )


def proposed(tenant: Tenant, policy: PolicySet) -> PolicySet:
    """The version that is tried, as if it had always held."""
    assert policy.node in tenant.hierarchy.by_id
    return _ever(policy)


def _is(rule: Rule, policy: PolicySet) -> bool:
    return isinstance(rule, PolicySet) and rule.policy == policy.policy
