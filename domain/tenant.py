"""One enterprise tenant: the state that its next decision needs, as a fold of its log.

`decide` changes nothing and answers with events, or refuses; `apply` decides nothing. After
each event the invariants of domain/README.md ("What always holds") that it could have touched are asserted.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import ClassVar, Protocol, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct
from msgspec.structs import replace

from .allocation import Allocations, ReturnUnused, TransferMany
from .authorising import Sessions
from .backdating import Backdating
from .bucket import Allocate, Family, Granted, Return, Trade, Transferred, check_transfer
from .cap import CapReached, Caps, CapSet, SetCap
from .channels import Channels, ChannelsSet, SetChannels
from .charging import (
    ChargeUsage,
    Charging,
    SuspendUsage,
    UsageCharged,
    UsageRejected,
    UsageSuspended,
    suspended_unreadable,
)
from .contract import (
    ContractEnded,
    ContractRenewed,
    Contracts,
    ContractSigned,
    EndContract,
    OpenPeriod,
    PeriodOpened,
    RenewContract,
    SignContract,
    granted,
)
from .correcting import Correction
from .freeze import FreezeNode, NodeThawed, ThawNode, apply_freeze, decide_freeze
from .granting import ChangeGrants, GrantChanged, ToppedUp, TopUp, apply_change, decide_change, decide_top_up
from .hierarchy import (
    AddNode,
    AddResource,
    EndResource,
    Hierarchy,
    MoveResource,
    NodeAdded,
    NodeFrozen,
    ResourceAdded,
    ResourceEnded,
    ResourceMoved,
)
from .inventory import ChangeInventory, CorrectInventory, decide_inventory
from .inventory_dated import decide_dated
from .lateness import LateRuleSet, SetLateRule
from .life import LifeCommand, LifeEvent
from .limit import Limits, LimitSet, SetAnyLimit, SetLimit, ThresholdCrossed, check_limit
from .limits_at_once import SetLimits, decide_limits
from .living import Life
from .notice import NoticeCommand, NoticeEvent, Notices
from .one_off import FeeCommand, FeeEvent, Fees
from .plain_charge import PlainCharges
from .planned import Plans
from .policy import ApproveUsage, PolicySet, PolicyWithdrawn, SetPolicy, UsageApproved, WithdrawPolicy
from .raising import LimitRaised, RaiseLimit
from .rating.amending import AmendTariff, TariffAmended, TariffWithdrawn, WithdrawTariff
from .rating.overriding import OverrideRates, RatesOverridden
from .receiving import (
    BeginImport,
    CountDuplicates,
    DuplicatesCounted,
    FinishImport,
    ImportBegun,
    ImportFinished,
    ImportRefused,
    Receiving,
    ReceivingCommand,
    ReceivingEvent,
    RefuseImport,
)
from .refusals import InvariantBroken, Refused, check_text
from .rerated import RatingCommand, RatingEvent
from .rerating import Rerating
from .rollover import RolledOver, RollOver, RollOvers
from .schedule import ScheduleCommand, ScheduleEvent, Schedules
from .session import (
    AskMore,
    ExpireSession,
    KeepSession,
    ReleaseSession,
    ReserveUnits,
    SessionCommand,
    SessionDenied,
    SessionExpired,
    SessionReleased,
    SessionReserved,
    SessionUpdated,
    UpdateSession,
)
from .session_terms import SessionTermsSet, SetSessionTerms
from .splitting import SCHEDULES
from .suspense import Suspense, SuspenseCommand, SuspenseEvent
from .tariff import PublishTariff, TariffPublished, Tariffs
from .template import ApplyTemplate, DefineTemplate, TemplateDefined, Templates
from .trading import Trading, TradingCommand, TradingEvent
from .usage import MONEY
from .usage_type import DefineUsageType, UsageTypeDefined, UsageTypes
from .versioning import About, check_versions, decide_versions
from .window import PERIOD
from .writing_off import DismissalRuleSet, SetDismissalRule

TIME_ZONE = re.compile(r"UTC|[A-Z][A-Za-z_]+(?:/[A-Za-z0-9_+-]+){1,2}")
CURRENCY = re.compile(r"[A-Z]{3}")


class TenantOpened(Struct, frozen=True, array_like=True):
    """The first event of every log."""

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


SuspenseRule = LateRuleSet | DismissalRuleSet
AllocationEvent = CapSet | CapReached | NodeFrozen | NodeThawed | TemplateDefined | ScheduleEvent

Event = (
    TenantOpened
    | NodeAdded
    | ResourceAdded
    | ResourceMoved
    | ResourceEnded
    | LifeEvent
    | ContractSigned
    | PeriodOpened
    | Granted
    | Transferred
    | LimitSet
    | ThresholdCrossed
    | TariffPublished
    | TariffAmended
    | TariffWithdrawn
    | RatesOverridden
    | UsageCharged
    | UsageRejected
    | UsageSuspended
    | SessionReserved
    | SessionUpdated
    | SessionDenied
    | SessionReleased
    | SessionExpired
    | SessionTermsSet
    | ContractEnded
    | ContractRenewed
    | ToppedUp
    | GrantChanged
    | RolledOver
    | UsageTypeDefined
    | TradingEvent
    | NoticeEvent
    | AllocationEvent
    | LimitRaised
    | PolicySet
    | PolicyWithdrawn
    | UsageApproved
    | RatingEvent
    | SuspenseEvent
    | ReceivingEvent
    | FeeEvent
    | ChannelsSet
    | SuspenseRule
)

AgreementCommand = (
    SignContract
    | OpenPeriod
    | EndContract
    | RenewContract
    | TopUp
    | ChangeGrants
    | RollOver
    | DefineUsageType
    | PublishTariff
    | AmendTariff
    | WithdrawTariff
    | OverrideRates
    | FeeCommand
    | SetChannels
    | SetLateRule
    | SetDismissalRule
)

HierarchyCommand = (
    Correction
    | AddNode
    | AddResource
    | MoveResource
    | EndResource
    | LifeCommand
    | ChangeInventory
    | CorrectInventory
)

Command = (
    OpenTenant
    | Allocate
    | Return
    | Trade
    | SetLimit
    | ChargeUsage
    | SuspendUsage
    | ReserveUnits
    | UpdateSession
    | ReleaseSession
    | ExpireSession
    | KeepSession
    | AskMore
    | SetSessionTerms
    | SetCap
    | TransferMany
    | ReturnUnused
    | DefineTemplate
    | ApplyTemplate
    | FreezeNode
    | ThawNode
    | ScheduleCommand
    | TradingCommand
    | AgreementCommand
    | HierarchyCommand
    | NoticeCommand
    | SetAnyLimit
    | SetLimits
    | RaiseLimit
    | SetPolicy
    | WithdrawPolicy
    | ApproveUsage
    | RatingCommand
    | SuspenseCommand
    | ReceivingCommand
)

_TOPICS = frozenset(event.topic for event in get_args(Event))


class Timed(Protocol):
    """A part of the state of which time itself asks something."""

    def due(self, now: int) -> "Iterable[Command]":
        """Commands for what should have happened by now, oldest first, each unlike any other ever.

        Carried out, they are not due any more; nor are those that are refused. Cheap where nothing is.
        """
        ...

    def next_due(self) -> int | None:
        """When the next will be due, or earlier; None while there is none."""
        ...


class Tenant:
    """What a tenant's writer holds in memory. `fold(log)` gives the same, always."""

    def __init__(self) -> None:
        self.opened: TenantOpened | None = None
        self.hierarchy = Hierarchy()
        self.types = UsageTypes()
        self.contracts = Contracts(self.types)
        self.limits = Limits()
        self.tariffs = Tariffs()
        self.notices = Notices()
        self.families: dict[tuple[str, str], Family] = {}
        self.life = Life(self.hierarchy, self.contracts, self.families)
        parts = (self.hierarchy, self.contracts, self.tariffs, self.limits, self.families)
        self.plans = Plans(self.hierarchy)
        self.fees = Fees(self.hierarchy, self.contracts)
        self.channels = Channels(self.hierarchy)
        self.charging = Charging(*parts, self.plans)
        self.suspense = Suspense(self.charging, self.contracts)
        self.receiving = Receiving()
        self.sessions = Sessions(*parts, self.plans)
        self.rollovers = RollOvers(self.hierarchy, self.contracts, self.families)
        self.rerating = Rerating(*parts, self.charging, self.rollovers)
        self.backdating = Backdating(self.hierarchy, self.contracts, self.rollovers, self.rerating, self.life)
        self.trading = Trading(self.hierarchy, self.contracts, self.families)
        self.caps = Caps(self.hierarchy, self.contracts)
        self.templates = Templates(self.types)
        self.allocations = Allocations(
            self.hierarchy, self.contracts, self.caps, self.templates, self.families, self.sessions.holds
        )
        self.allocations.permit = self.trading.permit
        self.schedules = Schedules(self.hierarchy, self.contracts, self.allocations)
        self.plain = PlainCharges(self.hierarchy, self.contracts, self.tariffs, self.families, self.charging)
        self.timed: tuple[Timed, ...] = (
            *(self.sessions, self.contracts, self.rollovers, self.trading, self.life, self.schedules),
            self.rerating,
        )

    # --- what time asks for ---------------------------------------------------------------

    def due(self, now: int) -> "Iterator[Command]":
        """What should have happened by now: whoever keeps the time has it carried out, once."""
        return chain.from_iterable(part.due(now) for part in self.timed)

    def next_due(self) -> int | None:
        """When to look again, at the latest."""
        return min((at for part in self.timed if (at := part.next_due()) is not None), default=None)

    # --- decide ---------------------------------------------------------------------------

    def decide(self, command: Command, now: int, by: str = "") -> Sequence[Event]:
        """The events that follow from a command of an actor; raises Refused, or PeriodNotOpen first."""
        if self.opened is None and not isinstance(command, OpenTenant):
            raise Refused("tenant_not_open")
        if type(command) is ChargeUsage:
            return self.charging.decide(command, now)
        if isinstance(command, SetLimit):
            # Before the long unions: a fleet has five of them for each device.
            return self._limit(command, now, self._counted(now))
        if isinstance(command, TradingCommand):
            return self._guarded(self.trading.decide(command, now, by), now)
        if isinstance(command, AgreementCommand):
            return self._agree(command, now)
        if isinstance(command, HierarchyCommand):
            return self._decide_hierarchy(command, now)
        if isinstance(command, NoticeCommand):
            return [*self.notices.decide(command, self.hierarchy, self.types, _TOPICS, now)]
        match command:
            case _ if isinstance(command, SessionCommand | SetSessionTerms):
                return self.sessions.decide(command, now)
            case Allocate() | Return() | Trade():
                return self.trading.settled(self._transfer(command, now), now, by)
            case SetLimits() | RaiseLimit() | SetPolicy() | WithdrawPolicy() | ApproveUsage():
                return self._rule(command, now)
            case SuspendUsage():
                return [suspended_unreadable(command)]
            case _ if isinstance(command, SuspenseCommand):
                return self.suspense.decide(command, now, by)
            case BeginImport() | FinishImport() | RefuseImport() | CountDuplicates():
                return [self.receiving.decide(command)]
            case OpenTenant():
                return [self._open(command)]
        return self._decide_allocation(command, now, by)

    def _agree(self, command: AgreementCommand, now: int) -> Sequence[Event]:
        """What the carrier and the enterprise agree on, and what follows from it in time."""
        match command:
            case PublishTariff() | AmendTariff() | WithdrawTariff() | OverrideRates():
                return decide_versions(self.tariffs, command, self.about_tariffs(), now)
            case SignContract() | OpenPeriod() | EndContract() | RenewContract():
                return self._contract(command, now)
            case TopUp():
                return [decide_top_up(command, self.contracts, self.families, self._root(), now)]
            case ChangeGrants():
                return [*decide_change(command, self.contracts, self.families, self._root(), now)]
            case RollOver():
                return [self.rollovers.decide(command, now)]
            case DefineUsageType():
                return [self.types.decide(command)]
            case SetChannels():
                return [self.channels.decide(command, now)]
            case SetLateRule():
                return [self.charging.late.decide(command)]
            case SetDismissalRule():
                return [self.suspense.writing_off.rule_set(command)]
            case _:
                return [self.fees.decide(command, now)]

    def _guarded(self, events: Sequence[Event], now: int) -> Sequence[Event]:
        """What trading leads to, unless somebody is frozen, or too much is promised already."""
        self.allocations.check(events, now)
        return events

    def _decide_allocation(self, command: Command, now: int, by: str) -> Sequence[Event]:
        match command:
            case SetCap() | TransferMany() | ReturnUnused() | ApplyTemplate():
                return self.trading.counted(self.allocations.decide(command, now, by), now, by)
            case _ if isinstance(command, ScheduleCommand):
                return self.trading.counted(self.schedules.decide(command, now), now, SCHEDULES)
            case DefineTemplate():
                return [self.templates.decide(command)]
            case _ if isinstance(command, RatingCommand):
                return self.rerating.decide(command, now)
            case FreezeNode() | ThawNode():
                return [decide_freeze(command, self.hierarchy)]
        raise AssertionError(command)

    def _open(self, command: OpenTenant) -> TenantOpened:
        if self.opened is not None:
            raise Refused("tenant_open_already", name=self.opened.name)
        check_text("name", command.name)
        check_text("carrier", command.carrier, empty=True)
        try:
            # Neither a folder of zones nor what a machine calls its own is one.
            if not TIME_ZONE.fullmatch(command.time_zone):
                raise ValueError(command.time_zone)
            ZoneInfo(command.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise Refused("unknown_time_zone", time_zone=command.time_zone, example="Europe/London") from None
        if not CURRENCY.fullmatch(command.currency):
            raise Refused("unknown_currency", currency=command.currency, example="EUR")
        return TenantOpened(command.name, command.time_zone, command.currency, command.carrier)

    def _contract(
        self, command: SignContract | OpenPeriod | EndContract | RenewContract, now: int
    ) -> list[Event]:
        event, grants = self.contracts.decide(command, now)
        if not isinstance(event, PeriodOpened):
            return [event]
        root = self.hierarchy.root.id
        told = [
            Granted(root, grant.usage_type, event.period, *part) for grant, part in granted(event, grants)
        ]
        scheduled = self.trading.counted(self.schedules.opening(event, told, now), now, SCHEDULES)
        return [event, *told, *scheduled]

    def _root(self) -> str:
        return self.hierarchy.root.id

    def _transfer(self, command: Allocate | Return | Trade, now: int) -> Transferred:
        self.types.check(command.usage_type, money=True)
        period = command.period or self.contracts.name_at(now)
        self.contracts.check(period)
        check_transfer(command, self.hierarchy, now)
        # Last: what is refused anyway shall not open a period.
        self.contracts.require(period)
        return self.allocations.transfer(replace(command, period=period), now)

    def _counted(self, now: int) -> tuple[str, list[Family]]:
        """What limits are set in: the period that is running, and all that is counted."""
        return self.contracts.name_at(now), list(self.families.values())

    def _limit(self, command: SetLimit, now: int, counted: tuple[str, list[Family]]) -> list[Event]:
        if command.from_period:
            self.contracts.check(command.from_period)
        member = check_limit(command, self.hierarchy, self.types)
        if command.from_period:
            self.contracts.require(command.from_period)
        held: list[tuple[int, int]] = []
        if isinstance(command, SetAnyLimit):
            held = self.sessions.held_at(member.ordinal, command.usage_type)
        return [*self.limits.decide(command, self.hierarchy, *counted, held, now)]

    def _rule(
        self, command: SetLimits | RaiseLimit | SetPolicy | WithdrawPolicy | ApproveUsage, now: int
    ) -> Sequence[Event]:
        policies = self.limits.policies
        match command:
            case SetLimits():
                counted = self._counted(now)
                return [*decide_limits(command, lambda one: self._limit(one, now, counted))]
            case RaiseLimit():
                self.types.check(command.usage_type, money=True)
                running, families = self.contracts.name_at(now), list(self.families.values())
                return self.limits.decide_raise(command, self.hierarchy, running, families, now)
            case SetPolicy():
                self.hierarchy.member(command.node)
                self.types.check(command.counted, money=True)
                for usage_type in command.selector.usage_types:
                    self.types.check(usage_type)
                return [policies.set(command, self.hierarchy, now)]
            case WithdrawPolicy():
                return [policies.withdraw(command, now)]
            case ApproveUsage():
                return [policies.approve(command, self.hierarchy, now)]

    # --- apply ----------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        if type(event) is UsageCharged:
            self.charging.count(event)
            return
        match event:  # what a log has most of comes first, and what is one of many kinds last
            case (
                LimitSet()
                | LimitRaised()
                | ThresholdCrossed()
                | PolicySet()
                | PolicyWithdrawn()
                | UsageApproved()
            ):
                self._apply_rule(event)
            case NodeAdded() | ResourceAdded() | ResourceMoved() | ResourceEnded():
                self._apply_to_hierarchy(event)
            case TenantOpened():
                self.opened = event
                self.contracts.zone = self.limits.calendar.zone = ZoneInfo(event.time_zone)
            case _ if isinstance(event, TradingEvent):
                self.trading.apply(event)
            case _ if isinstance(event, LifeEvent):
                self.life.apply(event)
                self.caps.follow(event, self.families)
            case ContractSigned() | ContractEnded() | ContractRenewed() | PeriodOpened() | UsageTypeDefined():
                self._apply_agreed(event)
            case Granted() | ToppedUp() | GrantChanged() | RolledOver():
                self._apply_granted(event)
            case Transferred():
                self._move(event)
            case TariffPublished() | TariffAmended() | TariffWithdrawn() | RatesOverridden():
                self.tariffs.apply(event)
                self.plain.forget()
            case _ if isinstance(event, UsageRejected | UsageSuspended | SuspenseEvent | SuspenseRule):
                self._apply_not_charged(event)
            case (
                SessionReserved()
                | SessionUpdated()
                | SessionDenied()
                | SessionReleased()
                | SessionExpired()
                | SessionTermsSet()
            ):
                self.sessions.apply(event)
            case ImportBegun() | ImportFinished() | ImportRefused() | DuplicatesCounted():
                self.receiving.apply(event)
            case _:
                self._apply_allocation(event)

    def _apply_not_charged(
        self, event: UsageRejected | UsageSuspended | SuspenseEvent | SuspenseRule
    ) -> None:
        if isinstance(event, LateRuleSet):
            self.charging.late.apply(event)
            return
        if isinstance(event, DismissalRuleSet):
            self.suspense.writing_off.apply(event)
            return
        if isinstance(event, UsageRejected | UsageSuspended):
            self.charging.apply(event)
        if not isinstance(event, UsageRejected):
            self.suspense.apply(event)

    def _apply_allocation(self, event: Event) -> None:
        match event:
            case CapSet() | CapReached():
                self.caps.apply(event, self.families)
            case NodeFrozen() | NodeThawed():
                apply_freeze(event, self.hierarchy)
            case TemplateDefined():
                self.templates.apply(event)
            case ChannelsSet():
                self.channels.apply(event)
            case _ if isinstance(event, ScheduleEvent):
                self.schedules.apply(event)
            case _ if isinstance(event, RatingEvent):
                self.rerating.apply(event)
            case _ if isinstance(event, FeeEvent):
                self.fees.apply(event)
            case _ if isinstance(event, NoticeEvent):
                self.notices.apply(event)

    def _decide_hierarchy(
        self,
        command: HierarchyCommand,
        now: int,
    ) -> list[Event]:
        match command:
            case AddNode() | AddResource() | MoveResource() | EndResource():
                self.life.check_asked(command)
                return [*self.hierarchy.decide(command)]
            case _ if isinstance(command, Correction):
                return [*self.backdating.decide(command, now)]
            case ChangeInventory():
                return [*decide_inventory(command, self.hierarchy, self.life, now)]
            case CorrectInventory():
                parts = (self.hierarchy, self.life, self.contracts, self.rollovers, self.rerating)
                return [*decide_dated(command, *parts, now)]
            case _:
                return [*self.life.decide(command, now)]

    def _apply_to_hierarchy(self, event: NodeAdded | ResourceAdded | ResourceMoved | ResourceEnded) -> None:
        self.hierarchy.apply(event)
        match event:
            case NodeAdded() | ResourceAdded():
                for family in self.families.values():
                    family.grow()
            case ResourceMoved() | ResourceEnded():
                self.life.changed(event)
                self.caps.follow(event, self.families)

    def _apply_rule(
        self,
        event: LimitSet | LimitRaised | ThresholdCrossed | PolicySet | PolicyWithdrawn | UsageApproved,
    ) -> None:
        if isinstance(event, PolicySet | PolicyWithdrawn | UsageApproved):
            self.limits.policies.apply(event, self.hierarchy)
            self.limits.arm_all(self.families.values())
            return
        held: list[tuple[int, int]] = []
        if isinstance(event, LimitSet) and event.window != PERIOD:
            held = self.sessions.held_at(self.hierarchy.by_id[event.node].ordinal, event.usage_type)
            self.plain.forget()
        self.limits.apply(event, self.hierarchy, list(self.families.values()), held)

    def _apply_agreed(
        self, event: ContractSigned | ContractEnded | ContractRenewed | PeriodOpened | UsageTypeDefined
    ) -> None:
        self.plain.forget()
        if isinstance(event, UsageTypeDefined):
            self.types.apply(event)
            for period in self.contracts.periods:
                self._found(event.name, period)
            return
        self.contracts.apply(event)
        if isinstance(event, PeriodOpened):
            self.limits.begin(period.starts_at for period in self.contracts.periods.values())
            for usage_type in (*self.types, MONEY):
                self._found(usage_type, event.period)

    def _apply_granted(self, event: Granted | ToppedUp | GrantChanged | RolledOver) -> None:
        if isinstance(event, RolledOver):
            self.rollovers.apply(event)
            self.caps.forget(self.families, event.usage_type)
            return
        family, ordinal = (
            self.families[event.usage_type, event.period],
            self.hierarchy.by_id[event.node].ordinal,
        )
        if isinstance(event, GrantChanged):
            apply_change(event, family, ordinal)
            self.caps.forget(self.families, event.usage_type)
        else:
            family.grant(ordinal, event.quantity)

    def _found(self, usage_type: str, period: str) -> None:
        """A family of empty buckets."""
        family = Family(usage_type, period, len(self.hierarchy.members))
        self.families[usage_type, period] = family
        self.limits.arm(family)
        self.caps.arm(family)

    def _move(self, event: Transferred) -> None:
        members = self.hierarchy.by_id
        self.families[event.usage_type, event.period].move(
            members[event.source].ordinal, members[event.target].ordinal, event.quantity
        )
        self.trading.rules.count(event)

    def about_tariffs(self) -> About:
        """What a tariff must fit."""
        assert self.opened is not None
        return About(self.opened.currency, dict(self.types.units), self.opened.time_zone)

    def check_whole(self) -> None:
        """Every invariant over the whole state; for verification, not for each event."""
        for family in self.families.values():
            family.check_whole()
        self.sessions.check_whole(self.trading.reserved())
        self.trading.check_whole()
        self.life.check_whole()
        self.notices.check_whole(self.hierarchy)
        self.limits.check_whole()
        check_versions(self.tariffs)
        self.suspense.check_whole()
        self.fees.check_whole()
        self._check_plans()
        at_root = sum(family.used[0] for family in self.families.values() if family.usage_type == MONEY)
        held = sum(session.hold.amount for session in self.sessions.open.values())
        if at_root != self.charging.amount_total + held:
            raise InvariantBroken(
                "the root has counted every charge and hold",
                root=at_root,
                total=self.charging.amount_total,
                held=held,
            )

    def _check_plans(self) -> None:
        """What was charged under plans is part of what was charged at all."""
        self.plans.check_whole()
        for period in self.contracts.periods:
            money, held = self.families[MONEY, period], self.sessions.held_amount(period)
            charged = (money.used[0] if money.used else 0) - held
            if not 0 <= (spent := self.plans.spent(period)) <= charged:
                raise InvariantBroken("plans are charged within charges", period=period, spent=spent)
