"""Telling: an event of the log as a person reads it, and as clear fields.

Sealed fields never leave this way. Members out of the reader's reach have neither name nor id.
"""

from typing import Any

import msgspec

from ..domain.bucket import Granted, Transferred
from ..domain.cap import CapReached, CapSet
from ..domain.charging import CORPORATE, UsageCharged, UsageRejected, UsageSuspended
from ..domain.contract import ContractEnded, ContractRenewed, ContractSigned, PeriodOpened
from ..domain.freeze import NodeThawed
from ..domain.granting import GrantChanged, ToppedUp
from ..domain.hierarchy import NodeFrozen
from ..domain.hold import Hold
from ..domain.life import NodeChangePlanned, NodeRenamed
from ..domain.limit import LimitSet, ThresholdCrossed
from ..domain.notice import (
    NoticeEvent,
    RecipientRemoved,
    RecipientSet,
    WebhookCreated,
    WebhookDisabled,
    WebhookEnabled,
    WebhookReplayed,
    WebhookSecretRotated,
)
from ..domain.offer import OfferMade
from ..domain.policy import PolicySet, PolicyWithdrawn, Ruling, UsageApproved
from ..domain.raising import LimitRaised
from ..domain.rating.amending import TariffAmended, TariffWithdrawn
from ..domain.rating.overriding import RatesOverridden
from ..domain.receiving import ReceivingEvent
from ..domain.rerated import RatingEvent
from ..domain.rollover import RolledBucket, RolledOver
from ..domain.schedule import AllocationScheduled, ScheduleCancelled, ScheduleCarriedOut, ScheduleSkipped
from ..domain.session import (
    SessionDenied,
    SessionEvent,
    SessionExpired,
    SessionReleased,
    SessionReserved,
    SessionUpdated,
)
from ..domain.session_terms import SessionTermsSet
from ..domain.suspense import SuspenseEvent
from ..domain.tariff import TariffPublished
from ..domain.template import TemplateDefined
from ..domain.tenant import AllocationEvent, Event, SuspenseRule, Tenant, TenantOpened
from ..domain.trading import TradingEvent
from ..domain.usage import MONEY
from ..domain.usage_type import UsageTypeDefined
from ..domain.window import PERIOD
from . import telling_rating
from .asking import Reach
from .hierarchy import UNITS
from .refusals import camel
from .scalars import Json, moment_text, money_text
from .telling_fees import OwedEvent, owed_sentence
from .telling_hierarchy import BEYOND, HierarchyEvent, hierarchy_sentence
from .telling_suspense import receiving_sentence, rule_sentence, suspense_sentence
from .telling_tariff import tariff_sentence
from .telling_trade import TradeTeller, trade_fact

_SEALED = ("sealed", "identities", "identity", "token", "subject", "address", "secret", "waiting")
_IDS = ("node", "source", "target", "parent", "resource", "successor")
_MOMENTS = (
    *("started_at", "since", "at", "starts_at", "ends_at", "valid_from", "expires_at"),
    *("before_until", "first_at", "until", "next_at"),
)
_ORDINALS = ("stopped_by", "counted_at", "stands_at")
_QUANTITIES = (
    *("quantity", "billed", "overage", "used", "limit", "amount"),
    *("requested", "granted", "overrun", "counted_used", "drawn"),
    *("whole", "before", "after", "change", "commitment"),
    *("price", "left", "above", "value", "owed", "was"),
)
_CAUSES = {
    "insufficient_allowance": "the allowance",
    "cap_reached": "the cap",
    "frozen": "the freeze",
    "maximum_charge": "the maximum charge",
}
_VERBS = {"allocate": "allocated", "return": "returned", "trade": "traded", "undo": "gave back"}
_OUTCOMES = UsageCharged | UsageRejected | UsageSuspended | SessionEvent | SuspenseEvent


class Teller:
    """Tells one reader."""

    def __init__(self, tenant: Tenant, reach: Reach) -> None:
        self._tenant = tenant
        self._reach = reach

    def sees(self, event: Event) -> bool:
        """Whether a reader bound to nodes may know of this at all."""
        match event:
            case (
                UsageCharged()
                | UsageRejected()
                | SessionReserved()
                | SessionUpdated()
                | SessionDenied()
                | SessionReleased()
                | SessionExpired()
            ):
                return self._reach.sees_path(event.path)
            case _ if isinstance(event, UsageSuspended | SuspenseEvent | ReceivingEvent | SuspenseRule):
                return self._reach.whole
            case _ if isinstance(event, RatingEvent):
                return telling_rating.seen(event, self._reach)
            case RolledOver():
                return self._reach.whole or bool(self._buckets(event))
            case OfferMade(everybody=True) if self._reach.stands_below(event.target):
                return True
        return self._reach.whole or any(self._reach.sees_id(getattr(event, name, "")) for name in _IDS)

    def name(self, ident: str) -> str:
        if not self._reach.sees_id(ident):
            return BEYOND
        member = self._tenant.hierarchy.by_id.get(ident)
        # Of what is only foreseen, a member need not be there yet.
        return (member.name if member is not None else "") or ident

    def member_name(self, ordinal: int) -> str:
        return self.name(self._tenant.hierarchy.members[ordinal].id)

    def facts(self, event: Event) -> Json:
        """The event's own fields, camel case, without what is sealed."""
        told: dict[str, Any] = {}
        for name in event.__struct_fields__:
            if name not in _SEALED:
                value = getattr(event, name)
                part = telling_rating.fact(value, self.facts) if isinstance(event, RatingEvent) else None
                told[camel(name)] = self._fact(event, name, value) if part is None else part
        return Json(told)

    def _fact(self, event: Event, name: str, value: Any) -> Any:
        members = self._tenant.hierarchy.members
        if name == "path":
            return [members[ordinal].id for ordinal in value if self._reach.sees(ordinal)]
        if isinstance(event, RolledOver) and name == "buckets":
            return [
                {
                    "node": members[one.ordinal].id,
                    "into": self._id(members[one.target].id),
                    "rolled": str(sum(part for _, part in one.rolled)),
                    "expired": str(one.expired),
                }
                for one in self._buckets(event)
            ]
        if name in ("drawn", "credit") and not isinstance(value, int):
            return [[self._id(members[ordinal].id), str(part)] for ordinal, part in value]
        if name in _ORDINALS:
            return self._id(members[value].id)
        if name in _IDS and not isinstance(event, _OUTCOMES):
            return self._id(value)
        if name == "to" and isinstance(event, NodeChangePlanned):
            seen = value in self._tenant.hierarchy.by_id and self._reach.sees_id(value)
            named = event.act == "rename" and self._reach.sees_id(event.node)
            return value if seen or named or not value else None
        if name in ("name", "note") and isinstance(event, NodeRenamed):
            return value if self._reach.sees_id(event.node) else None
        if isinstance(value, Ruling):
            return self._ruling(value)
        if name in _MOMENTS and isinstance(value, int) and not isinstance(event, ThresholdCrossed):
            return moment_text(value) if value else None
        if name in _QUANTITIES and isinstance(value, int):
            return str(value)
        if isinstance(value, Hold):
            # Not whose buckets: those above are nobody's below.
            reserved = sum(part for _, part in value.drawn)
            return {"total": str(value.total), "billed": str(value.billed), "reserved": str(reserved)}
        if (told := trade_fact(value, self._id)) is not None:
            return told
        if name == "exact":
            return f"{value[0]}/{value[1]}"
        if name in ("rates", "lines", "plans", "fees"):
            return len(value)
        return msgspec.to_builtins(value)

    def sees_id(self, ident: str) -> bool:
        return self._reach.sees_id(ident)

    def _ruling(self, ruling: Ruling) -> dict[str, Any]:
        """With the limit's member by id, where the reader may see it."""
        member = self._tenant.hierarchy.members[ruling.limit_of].id
        told = {camel(name): value for name, value in msgspec.structs.asdict(ruling).items()}
        return {**told, "limitOf": self._id(member), "at": str(ruling.at), "above": str(ruling.above)}

    def _id(self, ident: str) -> str | None:
        return ident if self._reach.sees_id(ident) else None

    def sentence(self, event: Event) -> str:
        if isinstance(event, TradingEvent):
            return TradeTeller(self.name, quantity_text).sentence(event)
        if isinstance(event, HierarchyEvent):
            return hierarchy_sentence(self, event)
        if isinstance(event, RatingEvent):
            return telling_rating.sentence(event, self.member_name)
        if isinstance(event, SuspenseEvent):
            return suspense_sentence(event)
        if isinstance(event, ReceivingEvent):
            return receiving_sentence(event)
        if isinstance(event, SuspenseRule):
            return rule_sentence(event)
        return self._sentence(event)

    def _sentence(self, event: Event) -> str:
        assert not isinstance(
            event, TradingEvent | HierarchyEvent | RatingEvent | SuspenseEvent | ReceivingEvent | SuspenseRule
        ), "told elsewhere"
        match event:
            case TenantOpened():
                return f"{event.name} was opened, with {event.currency} and the time zone {event.time_zone}."
            case ContractSigned() | PeriodOpened() | ContractEnded() | ContractRenewed() | UsageTypeDefined():
                return self._agreed(event)
            case Granted() | ToppedUp() | GrantChanged() | RolledOver():
                return self._granted(event)
            case TariffPublished() | TariffAmended() | TariffWithdrawn() | RatesOverridden():
                return tariff_sentence(event)
            case _ if isinstance(event, OwedEvent):
                return owed_sentence(self.name, event)
            case Transferred():
                return self._transferred(event)
            case (
                LimitSet()
                | ThresholdCrossed()
                | LimitRaised()
                | PolicySet()
                | PolicyWithdrawn()
                | UsageApproved()
            ):
                return self._rule(event)
            case UsageCharged() | UsageRejected() | UsageSuspended():
                return self._usage(event)
            case (
                SessionReserved() | SessionUpdated() | SessionDenied() | SessionReleased() | SessionExpired()
            ):
                return self._session(event)
            case SessionTermsSet():
                return self._session_terms(event)
            case (
                RecipientSet()
                | RecipientRemoved()
                | WebhookCreated()
                | WebhookSecretRotated()
                | WebhookDisabled()
                | WebhookEnabled()
                | WebhookReplayed()
            ):
                return self._notice(event)
            case _:
                return self._allocation(event)

    def _allocation(self, event: AllocationEvent) -> str:
        """Caps, freezes, templates and schedules."""
        match event:
            case CapSet():
                name, since = self.name(event.node), event.from_period
                if event.quantity is None:
                    return f"{name} may draw as much {event.usage_type} as there is from {since} on."
                much = quantity_text(event.quantity, event.usage_type)
                return f"{name} may draw {much} per period from above, from {since} on."
            case CapReached():
                much = quantity_text(event.quantity, event.usage_type)
                return f"{self.name(event.node)} reached its cap for {event.period}: {much} from above."
            case NodeFrozen():
                return f"{self.name(event.node)} was frozen."
            case NodeThawed():
                return f"{self.name(event.node)} was thawed."
            case TemplateDefined():
                return f"The template {event.template} was defined for {event.usage_type}."
            case AllocationScheduled():
                return f"The schedule {event.schedule} was made, with {len(event.lines)} lines."
            case ScheduleCancelled():
                return f"The schedule {event.schedule} was cancelled."
            case ScheduleCarriedOut():
                return f"The schedule {event.schedule} was carried out: {event.count} changes."
            case ScheduleSkipped():
                return f"The schedule {event.schedule} was skipped, with nothing done: {event.code}."

    def _transferred(self, event: Transferred) -> str:
        much = quantity_text(event.quantity, event.usage_type)
        verb = _VERBS[event.reason]
        return f"{self.name(event.source)} {verb} {much} to {self.name(event.target)} for {event.period}."

    def _agreed(
        self, event: ContractSigned | PeriodOpened | ContractEnded | ContractRenewed | UsageTypeDefined
    ) -> str:
        match event:
            case ContractSigned(contract, version, starts_on, note=note):
                return f"Contract {contract} (version {version}) was signed, from {starts_on}{noted(note)}."
            case PeriodOpened():
                return f"The period {event.period} was opened under contract {event.contract}."
            case ContractEnded(contract, ends_on, note):
                return f"Contract {contract} ends on {ends_on}{noted(note)}."
            case ContractRenewed(contract, ends_on, note):
                return f"Contract {contract} was renewed until {ends_on or 'further notice'}{noted(note)}."
            case UsageTypeDefined(name, unit, note):
                return f"The usage type {name} was defined, counted by {unit}{noted(note)}."

    def _granted(self, event: Granted | ToppedUp | GrantChanged | RolledOver) -> str:
        match event:
            case Granted(node, usage_type, period, quantity):
                return f"{self.name(node)} was granted {quantity_text(quantity, usage_type)} for {period}."
            case ToppedUp(node, usage_type, period, quantity, note):
                much = quantity_text(quantity, usage_type)
                return f"{self.name(node)} got {much} more for {period}{noted(note)}."
            case GrantChanged():
                return self._grant_changed(event)
            case RolledOver():
                return self._rolled_over(event)

    def _grant_changed(self, event: GrantChanged) -> str:
        much = quantity_text(abs(event.change), event.usage_type)
        way = "got" if event.change >= 0 else "gave back"
        return (
            f"The grant of {event.usage_type} was changed from {event.before} to {event.after}: "
            f"{self.name(event.node)} {way} {much} for {event.period}{noted(event.note)}."
        )

    def _rolled_over(self, event: RolledOver) -> str:
        """Of the buckets that the reader may see."""
        seen = self._buckets(event)
        rolled = sum(part for bucket in seen for _, part in bucket.rolled)
        expired = sum(bucket.expired for bucket in seen)
        into = f"{rolled} went on into {event.into}" if event.into else "nothing goes on"
        return (
            f"{event.period} is over: of {event.usage_type} in {len(seen)} "
            f"bucket{'' if len(seen) == 1 else 's'} {into}, {expired} expired."
        )

    def _buckets(self, event: RolledOver) -> list[RolledBucket]:
        return [bucket for bucket in event.buckets if self._reach.sees(bucket.ordinal)]

    def _limit_set(self, event: LimitSet) -> str:
        name = self.name(event.node)
        if event.quantity is None:
            what = f"The limit of {name} for {event.usage_type}{_per(event.window)}"
            return f"{what} was lifted from {event.from_period} on."
        much = quantity_text(event.quantity, event.usage_type)
        if event.window != PERIOD:
            return f"{name} was limited to {much}{_per(event.window)}{_softly(event.kind)}."
        return f"{name} was limited to {much} per period from {event.from_period} on{_softly(event.kind)}."

    def _crossed(self, event: ThresholdCrossed) -> str:
        when = event.of or event.period
        reached = f"{event.percent} %" if event.percent else f"the mark of {event.at}"
        much = quantity_text(event.used, event.usage_type)
        limit = f"its limit{_per(event.window)} for {when}"
        return f"{self.name(event.node)} reached {reached} of {limit}: {much} of {event.limit}."

    def _rule(
        self, event: LimitSet | ThresholdCrossed | LimitRaised | PolicySet | PolicyWithdrawn | UsageApproved
    ) -> str:
        name = self.name(event.node)
        match event:
            case LimitSet():
                return self._limit_set(event)
            case ThresholdCrossed():
                return self._crossed(event)
            case LimitRaised():
                much = quantity_text(event.quantity, event.usage_type)
                until = moment_text(event.until)
                return f"The limit of {name}{_per(event.window)} was raised to {much} until {until}."
            case PolicySet():
                since = moment_text(event.valid_from)
                return f"Policy {event.policy} (version {event.version}) holds at {name} from {since} on."
            case PolicyWithdrawn():
                return f"Policy {event.policy} at {name} ends on {moment_text(event.valid_from)}."
            case UsageApproved():
                until = moment_text(event.until)
                return f"Usage that {event.policy} lets wait was approved at {name} until {until}."

    def _usage(self, event: UsageCharged | UsageRejected | UsageSuspended) -> str:
        if isinstance(event, UsageSuspended):
            why = event.detail.rstrip(".?")
            return f"Record {event.record_id} of {event.source} waits in suspense: {why}."
        who = self.member_name(event.path[0])
        much = quantity_text(event.quantity, event.usage_type)
        if isinstance(event, UsageCharged) and event.payer != CORPORATE:
            amount = money_text(event.amount)
            return f"{who} used {much}; {event.billed} billed, {amount} charged, paid by: {event.payer}."
        if isinstance(event, UsageCharged):
            return f"{who} used {much}; {event.billed} billed, {money_text(event.amount)} charged."
        stopper = self.member_name(event.stopped_by)
        if event.reason == "suspended":
            return f"{who} was denied {much}: it is suspended."
        cause = _cause(event.reason, event.window)
        return f"{who} was denied {much} by {cause} of {stopper}: {event.used} of {event.limit} used."

    def _session(self, event: SessionEvent) -> str:
        who, session = self.member_name(event.path[0]), f"session {event.session}"
        match event:
            case SessionReserved(granted=granted):
                return f"{who} opened {session} and was granted {quantity_text(granted, event.usage_type)}."
            case SessionUpdated(used=used, granted=granted):
                much = quantity_text(granted, event.usage_type)
                return f"{who} has used {used} in {session} and was granted {much} more."
            case SessionDenied():
                if event.reason == "suspended":
                    return f"{who} was denied more in {session}: it is suspended."
                cause = _cause(event.reason, event.window)
                stopper = self.member_name(event.stopped_by)
                told = f"{event.counted_used} of {event.limit} used"
                return f"{who} was denied more in {session} by {cause} of {stopper}: {told}."
            case SessionReleased(used=used):
                return f"{who} ended {session} after {quantity_text(used, event.usage_type)}."
            case SessionExpired(used=used):
                much = quantity_text(used, event.usage_type)
                return f"The {session} of {who} was silent for too long and ended, after {much}."

    def _session_terms(self, event: SessionTermsSet) -> str:
        where, of = self.name(event.node), event.usage_type or "all usage"
        if event.terms is None:
            return f"Sessions of {of} at {where} have no terms of their own any more{noted(event.note)}."
        ends = _FINAL[event.terms.action].format(event.terms)
        return f"Sessions of {of} at {where} have terms of their own; in the end {ends}{noted(event.note)}."

    def _notice(self, event: NoticeEvent) -> str:
        where = self.name(event.node)
        match event:
            case RecipientSet(role=role):
                return f"{role} of {where} is told by e-mail of {', '.join(event.wants.topics)}."
            case RecipientRemoved(recipient=recipient):
                return f"The recipient {recipient} of {where} is told nothing more."
            case WebhookCreated(host=host):
                return f"A webhook of {where} at {host} is told of {', '.join(event.wants.topics)}."
            case WebhookSecretRotated(webhook=webhook):
                return f"The webhook {webhook} of {where} was given another secret."
            case WebhookDisabled(webhook=webhook, reason=reason):
                return f"The webhook {webhook} of {where} was disabled: {_DISABLED.get(reason, reason)}."
            case WebhookEnabled(webhook=webhook):
                return f"The webhook {webhook} of {where} was enabled again."
            case WebhookReplayed(webhook=webhook, after=after):
                return f"The webhook {webhook} of {where} is told again what came after event {after}."


_FINAL = {
    "TERMINATE": "they are terminated",
    "REDIRECT": "the user is redirected to {0.address}",
    "RESTRICT_ACCESS": "the user reaches only what filter {0.filter_id} lets through",
}
_DISABLED = {
    "asked": "somebody asked for it",
    "failing": "it has not taken what it was told",
    "gone": "it says that it is gone",
}


def _per(window: str) -> str:
    return "" if window == PERIOD else f" per {window.replace('_', ' ')}"


def _softly(kind: str) -> str:
    return ", softly" if kind == "soft" else ""


def _cause(reason: str, window: str) -> str:
    if reason in _CAUSES:
        return _CAUSES[reason]
    limit = f"the limit{_per(window)}"
    return limit if reason == "limit_exceeded" else f"a policy on {limit}"


def noted(note: str) -> str:
    return f" ({note})" if note else ""


def quantity_text(quantity: int, usage_type: str) -> str:
    if usage_type == MONEY:
        return f"{money_text(quantity)} of money"
    unit = UNITS.get(usage_type, "unit")
    return f"{quantity} {unit}{'' if quantity == 1 else 's'} of {usage_type or 'usage'}"
