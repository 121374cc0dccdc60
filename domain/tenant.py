"""One enterprise tenant: the state that its next decision needs, as a fold of its log.

`decide` changes nothing and answers with events, or refuses; `apply` decides nothing. After
each event the invariants of DESIGN §4 that it could have touched are asserted.
"""

from typing import ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from . import charging
from .bucket import Allocate, Family, Granted, Return, Trade, Transferred, decide_transfer
from .charging import ChargeUsage, SuspendUsage, UsageCharged, UsageRejected, UsageSuspended
from .contract import Contracts, ContractSigned, OpenPeriod, PeriodOpened, SignContract, name_of
from .hierarchy import (
    AddNode,
    AddResource,
    EndResource,
    Hierarchy,
    MoveResource,
    NodeAdded,
    Path,
    ResourceAdded,
    ResourceEnded,
    ResourceMoved,
)
from .limit import Limits, LimitSet, SetLimit, ThresholdCrossed
from .refusals import InvariantBroken, Refused
from .tariff import CompiledRate, PublishTariff, Rated, TariffPublished, Tariffs
from .usage import MONEY, USAGE_TYPES


class TenantOpened(Struct, frozen=True, array_like=True):
    topic: ClassVar[str] = "tenant.opened"
    name: str
    time_zone: str
    currency: str
    carrier: str


class OpenTenant(Struct, frozen=True, array_like=True):
    """The first command of every log."""

    name: str
    time_zone: str
    currency: str
    carrier: str


Event = (
    TenantOpened
    | NodeAdded
    | ResourceAdded
    | ResourceMoved
    | ResourceEnded
    | ContractSigned
    | PeriodOpened
    | Granted
    | Transferred
    | LimitSet
    | ThresholdCrossed
    | TariffPublished
    | UsageCharged
    | UsageRejected
    | UsageSuspended
)

Command = (
    OpenTenant
    | AddNode
    | AddResource
    | MoveResource
    | EndResource
    | SignContract
    | OpenPeriod
    | Allocate
    | Return
    | Trade
    | SetLimit
    | PublishTariff
    | ChargeUsage
    | SuspendUsage
)


class Tenant:
    """What a tenant's writer holds in memory. `fold(log)` gives the same, always."""

    def __init__(self) -> None:
        self.opened: TenantOpened | None = None
        self.hierarchy = Hierarchy()
        self.contracts = Contracts()
        self.limits = Limits()
        self.tariffs = Tariffs()
        self.families: dict[tuple[str, str], Family] = {}
        self.usage_count = dict.fromkeys(("charged", "rejected", "suspended"), 0)
        self.amount_total = 0

    # --- decide ---------------------------------------------------------------------------

    def decide(self, command: Command, now: int) -> list[Event]:
        """The events that follow from a command; raises Refused, or PeriodNotOpen first."""
        if type(command) is ChargeUsage:
            return self._charge(command, now)
        if self.opened is None and not isinstance(command, OpenTenant):
            raise Refused("tenant_not_open")
        match command:
            case Allocate() | Return() | Trade():
                return [*decide_transfer(command, self._family(command, now), self.hierarchy)]
            case SetLimit():
                running = name_of(now, self.contracts.zone)
                if command.from_period and command.from_period not in self.contracts.periods:
                    self.contracts.require(command.from_period)
                return [*self.limits.decide(command, self.hierarchy, running, list(self.families.values()))]
            case AddNode() | AddResource() | MoveResource() | EndResource():
                return [*self.hierarchy.decide(command)]
            case PublishTariff():
                return [*self.tariffs.decide(command, self.opened.currency if self.opened else "")]
            case SignContract() | OpenPeriod():
                return self._contract(command, now)
            case SuspendUsage():
                return [charging.unreadable(command)]
            case OpenTenant():
                return [self._open(command)]
        raise AssertionError(command)

    def _open(self, command: OpenTenant) -> TenantOpened:
        if self.opened is not None:
            raise Refused("tenant_open_already", name=self.opened.name)
        try:
            ZoneInfo(command.time_zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise Refused(
                "unknown_time_zone", time_zone=command.time_zone, example="Europe/London"
            ) from None
        if len(command.currency) != 3 or not command.currency.isalpha() or not command.currency.isupper():
            raise Refused("unknown_currency", currency=command.currency, example="EUR")
        return TenantOpened(command.name, command.time_zone, command.currency, command.carrier)

    def _contract(self, command: SignContract | OpenPeriod, now: int) -> list[Event]:
        event, grants = self.contracts.decide(command, now)
        if isinstance(event, ContractSigned):
            return [event]
        root = self.hierarchy.root.id
        granted = [
            Granted(root, grant.usage_type, event.period, grant.quantity) for grant in grants if grant.quantity
        ]
        return [event, *granted]

    def _family(self, command: Allocate | Return | Trade, now: int) -> Family:
        if command.usage_type not in USAGE_TYPES and command.usage_type != MONEY:
            raise Refused("unknown_usage_type", usage_type=command.usage_type, known=[*USAGE_TYPES, MONEY])
        period = command.period or name_of(now, self.contracts.zone)
        self.contracts.require(period)
        return self.families[command.usage_type, period]

    def _charge(self, command: ChargeUsage, now: int) -> list[Event]:
        record = command.record
        at = record.started_at
        path = self.hierarchy.guide(command.token, at)
        if not path:
            return [self._unguided(command, unknown=path is None)]
        if at > now + charging.FUTURE_MAX:
            return [_suspend(command, "in_the_future", "started_at", "the record starts after today: check its clock and time zone")]
        opened = self.contracts.period_for(at)
        if opened is None:
            return [_suspend(command, "no_contract", "started_at", "no contract covers this day: sign one that does")]
        tariff = self.tariffs.at(at)
        rate = tariff.find(record.usage_type, record.direction, record.counterpart) if tariff else None
        if rate is None:
            return [_suspend(command, "no_rate", "counterpart", "no tariff valid that day has a rate for this: publish one")]
        family = self.families[record.usage_type, opened.period]
        billed = rate.billed(record.quantity)
        drawn = family.draw(path, billed) if rate.included and billed else ()
        rated = rate.rate(billed - _sum(drawn))
        if rated.overage and rate.included and not opened.overage:
            return [self._rejected(command, path, family, billed, "insufficient_allowance", path[-1], family, family.granted_total)]
        crossings = []
        if billed and charging.stopped_at(family, path, billed):
            stop = self._over(family, path, billed)
            if stop is not None:
                return [self._rejected(command, path, family, billed, "limit_exceeded", *stop)]
            crossings = self.limits.crossed(family, path, billed)
        if rated.amount:
            money = self.families[MONEY, opened.period]
            if charging.stopped_at(money, path, rated.amount):
                stop = self._over(money, path, rated.amount)
                if stop is not None:
                    return [self._rejected(command, path, family, billed, "limit_exceeded", *stop)]
                crossings += self.limits.crossed(money, path, rated.amount)
        return [_charged(command, path, family, billed, rate, drawn, rated), *crossings]

    def _over(self, family: Family, path: Path, quantity: int) -> tuple[int, Family, int] | None:
        """The first member on the path whose limit this usage would pass."""
        for ordinal in path:
            limit = self.limits.of(ordinal, family.usage_type, family.period)
            if limit is not None and limit.quantity is not None and family.used[ordinal] + quantity > limit.quantity:
                return ordinal, family, limit.quantity
        return None

    def _unguided(self, command: ChargeUsage, *, unknown: bool) -> UsageSuspended:
        if unknown:
            return _suspend(command, "unknown_line", "line", "nobody has this line: add the resource")
        return _suspend(command, "line_not_active", "line", "nobody had this line at that time: check the dates")

    def _rejected(  # noqa: PLR0913  (the facts of a refusal)
        self,
        command: ChargeUsage,
        path: Path,
        family: Family,
        billed: int,
        reason: str,
        stopped_by: int,
        counter: Family,
        limit: int,
    ) -> UsageRejected:
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
            reason,
            stopped_by,
            counter.usage_type,
            counter.used[stopped_by],
            limit,
            command.sealed,
        )

    # --- apply ----------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        if type(event) is UsageCharged:
            self._apply_charge(event)
            return
        match event:
            case TenantOpened():
                self.opened = event
                self.contracts.zone = ZoneInfo(event.time_zone)
            case NodeAdded() | ResourceAdded() | ResourceMoved() | ResourceEnded():
                self.hierarchy.apply(event)
                if isinstance(event, NodeAdded | ResourceAdded):
                    for family in self.families.values():
                        family.grow()
            case ContractSigned():
                self.contracts.apply(event)
            case PeriodOpened():
                self.contracts.apply(event)
                for usage_type in (*USAGE_TYPES, MONEY):
                    family = Family(usage_type, event.period, len(self.hierarchy.members))
                    self.families[usage_type, event.period] = family
                    self.limits.arm(family)
            case Granted(node, usage_type, period, quantity):
                self.families[usage_type, period].grant(self.hierarchy.by_id[node].ordinal, quantity)
            case Transferred(source, target, usage_type, period, quantity):
                members = self.hierarchy.by_id
                self.families[usage_type, period].move(members[source].ordinal, members[target].ordinal, quantity)
            case LimitSet() | ThresholdCrossed():
                self.limits.apply(event, self.hierarchy, list(self.families.values()))
            case TariffPublished():
                self.tariffs.apply(event)
            case UsageRejected():
                self.usage_count["rejected"] += 1
            case UsageSuspended():
                self.usage_count["suspended"] += 1

    def _apply_charge(self, event: UsageCharged) -> None:
        family = self.families[event.usage_type, event.period]
        taken = family.consume(event.drawn) if event.drawn else 0
        if taken + event.overage != event.billed:
            raise InvariantBroken("the parts of a charge add up", taken=taken, overage=event.overage, billed=event.billed)
        if event.billed:
            family.count(event.path, event.billed)
        if event.amount:
            self.families[MONEY, event.period].count(event.path, event.amount)
            self.amount_total += event.amount
        self.usage_count["charged"] += 1

    def check_whole(self) -> None:
        """Every invariant over the whole state; for verification, not for each event."""
        for family in self.families.values():
            family.check_whole()
        root = 0
        charged = sum(family.used[root] for (kind, _), family in self.families.items() if kind == MONEY and family.used)
        if charged != self.amount_total:
            raise InvariantBroken("the root has counted every charge", root=charged, total=self.amount_total)


def _suspend(command: ChargeUsage, reason: str, field: str, detail: str) -> UsageSuspended:
    return charging.suspended(command.record, command.sealed, command.position, reason, field, detail)


def _charged(  # noqa: PLR0913  (the working of a charge)
    command: ChargeUsage,
    path: Path,
    family: Family,
    billed: int,
    rate: CompiledRate,
    drawn: tuple[tuple[int, int], ...],
    rated: Rated,
) -> UsageCharged:
    record = command.record
    return UsageCharged(
        record.source,
        record.record_id,
        path,
        record.usage_type,
        family.period,
        record.started_at,
        record.direction,
        record.quantity,
        billed,
        rate.version,
        rate.index,
        rate.prefix,
        rate.zone,
        charging.CORPORATE,
        charging.STEERING_DEFAULT,
        drawn,
        rated.overage,
        rated.amount,
        rated.exact,
        command.sealed,
    )


def _sum(drawn: tuple[tuple[int, int], ...]) -> int:
    if len(drawn) == 1:
        return drawn[0][1]
    return sum(part for _, part in drawn)
