"""One enterprise tenant: the state that its next decision needs, as a fold of its log.

`decide` changes nothing and answers with events, or refuses; `apply` decides nothing. After
each event the invariants of domain/README.md ("What always holds") that it could have touched are asserted.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import ClassVar, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from .authorising import Sessions
from .bucket import Allocate, Family, Granted, Return, Trade, Transferred, check_transfer, decide_transfer
from .charging import (
    ChargeUsage,
    Charging,
    SuspendUsage,
    UsageCharged,
    UsageRejected,
    UsageSuspended,
    suspended_unreadable,
)
from .contract import Contracts, ContractSigned, OpenPeriod, PeriodOpened, SignContract, name_of
from .hierarchy import (
    AddNode,
    AddResource,
    EndResource,
    Hierarchy,
    MoveResource,
    NodeAdded,
    ResourceAdded,
    ResourceEnded,
    ResourceMoved,
)
from .limit import Limits, LimitSet, SetLimit, ThresholdCrossed, check_limit
from .plain_charge import PlainCharges
from .refusals import InvariantBroken, Refused, check_text
from .session import (
    ExpireSession,
    ReleaseSession,
    ReserveUnits,
    SessionDenied,
    SessionExpired,
    SessionReleased,
    SessionReserved,
    SessionUpdated,
    UpdateSession,
)
from .tariff import PublishTariff, TariffPublished, Tariffs
from .usage import MONEY, USAGE_TYPES

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
    | SessionReserved
    | SessionUpdated
    | SessionDenied
    | SessionReleased
    | SessionExpired
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
    | ReserveUnits
    | UpdateSession
    | ReleaseSession
    | ExpireSession
)


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
        self.contracts = Contracts()
        self.limits = Limits()
        self.tariffs = Tariffs()
        self.families: dict[tuple[str, str], Family] = {}
        parts = (self.hierarchy, self.contracts, self.tariffs, self.limits, self.families)
        self.charging = Charging(*parts)
        self.sessions = Sessions(*parts)
        self.plain = PlainCharges(self.hierarchy, self.contracts, self.tariffs, self.families, self.charging)
        self.timed: tuple[Timed, ...] = (self.sessions,)

    # --- what time asks for ---------------------------------------------------------------

    def due(self, now: int) -> "Iterator[Command]":
        """What should have happened by now: whoever keeps the time has it carried out, once."""
        return chain.from_iterable(part.due(now) for part in self.timed)

    def next_due(self) -> int | None:
        """When to look again, at the latest."""
        return min((at for part in self.timed if (at := part.next_due()) is not None), default=None)

    # --- decide ---------------------------------------------------------------------------

    def decide(self, command: Command, now: int) -> Sequence[Event]:
        """The events that follow from a command; raises Refused, or PeriodNotOpen first."""
        if self.opened is None and not isinstance(command, OpenTenant):
            raise Refused("tenant_not_open")
        if type(command) is ChargeUsage:
            return self.charging.decide(command, now)
        match command:
            case ReserveUnits() | UpdateSession() | ReleaseSession() | ExpireSession():
                return self.sessions.decide(command, now)
            case Allocate() | Return() | Trade():
                return [self._transfer(command, now)]
            case SetLimit():
                return self._limit(command, now)
            case AddNode() | AddResource() | MoveResource() | EndResource():
                return [*self.hierarchy.decide(command)]
            case PublishTariff():
                return [*self.tariffs.decide(command, self.opened.currency if self.opened else "")]
            case SignContract() | OpenPeriod():
                return self._contract(command, now)
            case SuspendUsage():
                return [suspended_unreadable(command)]
            case OpenTenant():
                return [self._open(command)]
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

    def _contract(self, command: SignContract | OpenPeriod, now: int) -> list[Event]:
        event, grants = self.contracts.decide(command, now)
        if isinstance(event, ContractSigned):
            return [event]
        root = self.hierarchy.root.id
        granted = [
            Granted(root, grant.usage_type, event.period, grant.quantity)
            for grant in grants
            if grant.quantity
        ]
        return [event, *granted]

    def _transfer(self, command: Allocate | Return | Trade, now: int) -> Transferred:
        if command.usage_type not in USAGE_TYPES:
            raise Refused("unknown_usage_type", usage_type=command.usage_type, known=[*USAGE_TYPES])
        period = command.period or name_of(now, self.contracts.zone)
        self.contracts.check(period)
        movement = check_transfer(command, self.hierarchy, now)
        # Last: what is refused anyway shall not open a period.
        self.contracts.require(period)
        return decide_transfer(command, movement, self.families[command.usage_type, period])

    def _limit(self, command: SetLimit, now: int) -> list[Event]:
        if command.from_period:
            self.contracts.check(command.from_period)
        check_limit(command, self.hierarchy)
        if command.from_period:
            self.contracts.require(command.from_period)
        running = name_of(now, self.contracts.zone)
        return [*self.limits.decide(command, self.hierarchy, running, list(self.families.values()))]

    # --- apply ----------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        if type(event) is UsageCharged:
            self.charging.count(event)
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
                self.plain.forget()
            case PeriodOpened():
                self.contracts.apply(event)
                self.plain.forget()
                for usage_type in (*USAGE_TYPES, MONEY):
                    family = Family(usage_type, event.period, len(self.hierarchy.members))
                    self.families[usage_type, event.period] = family
                    self.limits.arm(family)
            case Granted(node, usage_type, period, quantity):
                self.families[usage_type, period].grant(self.hierarchy.by_id[node].ordinal, quantity)
            case Transferred(source, target, usage_type, period, quantity):
                members = self.hierarchy.by_id
                self.families[usage_type, period].move(
                    members[source].ordinal, members[target].ordinal, quantity
                )
            case LimitSet() | ThresholdCrossed():
                self.limits.apply(event, self.hierarchy, list(self.families.values()))
            case TariffPublished():
                self.tariffs.apply(event)
                self.plain.forget()
            case UsageRejected() | UsageSuspended():
                self.charging.apply(event)
            case (
                SessionReserved() | SessionUpdated() | SessionDenied() | SessionReleased() | SessionExpired()
            ):
                self.sessions.apply(event)

    def check_whole(self) -> None:
        """Every invariant over the whole state; for verification, not for each event."""
        for family in self.families.values():
            family.check_whole()
        self.sessions.check_whole()
        at_root = sum(family.used[0] for family in self.families.values() if family.usage_type == MONEY)
        held = sum(session.hold.amount for session in self.sessions.open.values())
        if at_root != self.charging.amount_total + held:
            raise InvariantBroken(
                "the root has counted every charge and hold",
                root=at_root,
                total=self.charging.amount_total,
                held=held,
            )
