"""Notices: who is told of what, where, and when.

What is told is an event of the log; this is who asked for it. A recipient is a role at a node that gets
e-mail; a webhook is an address of a program. Neither address stands here: an event holds a keyed hash of
it, by which it is found beside the log and can be erased there. A webhook's secret follows from the
tenant's key and the name given here, so that no event tells it.

Whoever asked at a node is told of that node and of what is below it, and of nothing else.
"""

from collections.abc import Collection, Iterator
from typing import ClassVar

from msgspec import Struct

from .hierarchy import Hierarchy
from .limit import ThresholdCrossed
from .quiet import DIGESTS, QuietHours, check_quiet
from .refusals import InvariantBroken, Refused, check_text
from .usage_type import UsageTypes

RECIPIENTS_MAX = 1_000
WEBHOOKS_MAX = 100
TOPICS_MAX = 50
PERCENT_MAX = 1_000
OVERLAP_SECONDS_MAX = 7 * 86_400
SEQ_MAX = 2**62
URGENT_PERCENT = 100
BULK = frozenset(
    {"usage.charged", "session.reserved", "session.updated", "session.released", "session.expired"}
)
"""Told by no notice: they are as many as the usage itself, which is exported, not announced."""
USUAL = (ThresholdCrossed.topic,)

_IDS = ("node", "source", "target", "parent", "resource")


class Filter(Struct, frozen=True, array_like=True):
    """Of which events somebody wants to know."""

    node: str
    topics: tuple[str, ...] = USUAL
    usage_types: tuple[str, ...] = ()
    """None given: all of them, and events that are about none."""
    percent_min: int = 0
    """Of thresholds: from this one on."""
    below: bool = True
    """Whether events of members below the node count as well."""


class RecipientSet(Struct, frozen=True, array_like=True):
    """A role at a node gets e-mail from now on, as said here and no longer as said before."""

    topic: ClassVar[str] = "notice.recipient_set"
    recipient: str
    node: str
    role: str
    address: bytes
    """A keyed hash of the e-mail address, which is kept beside the log."""
    wants: Filter
    quiet: QuietHours | None
    digest: str
    """"", "hour" or "day": one message with all that came in it."""
    urgent_at_once: bool
    """What is at 100 % of a limit that stops usage waits for no digest, and for no morning."""
    note: str


class RecipientRemoved(Struct, frozen=True, array_like=True):
    """A recipient is told nothing more."""

    topic: ClassVar[str] = "notice.recipient_removed"
    recipient: str
    node: str
    note: str


class WebhookCreated(Struct, frozen=True, array_like=True):
    """A program is told from now on."""

    topic: ClassVar[str] = "notice.webhook_created"
    webhook: str
    node: str
    host: str
    """Where it is. The rest of its address may hold a secret, and is kept beside the log."""
    address: bytes
    secret: bytes
    """Which secret signs: its name, not itself."""
    wants: Filter
    note: str


class WebhookSecretRotated(Struct, frozen=True, array_like=True):
    """Another secret signs; for a while the one before does as well."""

    topic: ClassVar[str] = "notice.webhook_secret_rotated"
    webhook: str
    node: str
    secret: bytes
    before_until: int
    note: str


class WebhookDisabled(Struct, frozen=True, array_like=True):
    """A program is told nothing more, until it is enabled again."""

    topic: ClassVar[str] = "notice.webhook_disabled"
    webhook: str
    node: str
    reason: str
    """"asked", or what it did: "failing", "gone"."""
    note: str


class WebhookEnabled(Struct, frozen=True, array_like=True):
    """A program that was disabled is told again, from now on."""

    topic: ClassVar[str] = "notice.webhook_enabled"
    webhook: str
    node: str
    note: str


class WebhookReplayed(Struct, frozen=True, array_like=True):
    """A program is told again of all that it wants to know between an event and this one."""

    topic: ClassVar[str] = "notice.webhook_replayed"
    webhook: str
    node: str
    after: int
    """The seq that it begins after; 0 for all."""
    note: str


class SetRecipient(Struct, frozen=True, array_like=True):
    """Let a role at a node be told by e-mail; the same recipient again: from now on so."""

    recipient: str
    role: str
    address: bytes
    wants: Filter
    quiet: QuietHours | None = None
    digest: str = ""
    urgent_at_once: bool = True
    note: str = ""


class RemoveRecipient(Struct, frozen=True, array_like=True):
    recipient: str
    note: str = ""


class CreateWebhook(Struct, frozen=True, array_like=True):
    webhook: str
    host: str
    address: bytes
    secret: bytes
    wants: Filter
    note: str = ""


class RotateWebhookSecret(Struct, frozen=True, array_like=True):
    webhook: str
    secret: bytes
    overlap_seconds: int = 86_400
    note: str = ""


class DisableWebhook(Struct, frozen=True, array_like=True):
    webhook: str
    reason: str = "asked"
    note: str = ""


class EnableWebhook(Struct, frozen=True, array_like=True):
    webhook: str
    note: str = ""


class ReplayWebhook(Struct, frozen=True, array_like=True):
    """Tell a program again, under the same ids, of what it wants to know after an event."""

    webhook: str
    after: int = 0
    note: str = ""


NoticeEvent = (
    RecipientSet
    | RecipientRemoved
    | WebhookCreated
    | WebhookSecretRotated
    | WebhookDisabled
    | WebhookEnabled
    | WebhookReplayed
)
NoticeCommand = (
    SetRecipient
    | RemoveRecipient
    | CreateWebhook
    | RotateWebhookSecret
    | DisableWebhook
    | EnableWebhook
    | ReplayWebhook
)


class Webhook(Struct, frozen=True, array_like=True):
    """As it stands now."""

    created: WebhookCreated
    secret: bytes
    before: bytes = b""
    before_until: int = 0
    disabled: str = ""
    """Why, if it is."""

    @property
    def id(self) -> str:
        return self.created.webhook

    @property
    def wants(self) -> Filter:
        return self.created.wants

    def secrets_at(self, now: int) -> list[bytes]:
        """The names of the secrets that sign, the newest first."""
        return [self.secret, self.before] if now < self.before_until else [self.secret]


class Notices:
    """Whoever is told of something."""

    def __init__(self) -> None:
        self.recipients: dict[str, RecipientSet] = {}
        self.webhooks: dict[str, Webhook] = {}

    # --- who is told ----------------------------------------------------------------------

    def recipients_of(self, event: Struct, hierarchy: Hierarchy) -> Iterator[RecipientSet]:
        told = _Told(event, hierarchy)
        return (one for one in self.recipients.values() if told.is_wanted(one.wants))

    def webhooks_of(self, event: Struct, hierarchy: Hierarchy) -> Iterator[Webhook]:
        told = _Told(event, hierarchy)
        return (one for one in self.webhooks.values() if not one.disabled and told.is_wanted(one.wants))

    # --- decide ---------------------------------------------------------------------------

    def decide(
        self,
        command: NoticeCommand,
        hierarchy: Hierarchy,
        types: UsageTypes,
        topics: Collection[str],
        now: int,
    ) -> list[NoticeEvent]:
        match command:
            case SetRecipient():
                return [self._set(command, hierarchy, types, topics)]
            case RemoveRecipient(recipient, note):
                return [RecipientRemoved(recipient, self._recipient(recipient).node, _checked(note))]
            case CreateWebhook():
                return [self._create(command, hierarchy, types, topics)]
            case RotateWebhookSecret():
                return [self._rotate(command, now)]
            case DisableWebhook(webhook, reason, note):
                held = self._webhook(webhook)
                if held.disabled:
                    raise Refused("webhook_disabled", webhook=webhook, reason=held.disabled)
                return [WebhookDisabled(webhook, held.created.node, reason, _checked(note))]
            case EnableWebhook(webhook, note):
                held = self._webhook(webhook)
                if not held.disabled:
                    raise Refused("webhook_not_disabled", webhook=webhook)
                return [WebhookEnabled(webhook, held.created.node, _checked(note))]
            case ReplayWebhook(webhook, after, note):
                return [self._replay(webhook, after, note)]

    def _set(
        self, command: SetRecipient, hierarchy: Hierarchy, types: UsageTypes, topics: Collection[str]
    ) -> RecipientSet:
        check_text("recipient", command.recipient)
        check_text("role", command.role)
        check_filter(command.wants, hierarchy, types, topics)
        check_quiet(command.quiet)
        if command.digest not in ("", *DIGESTS):
            raise Refused("bad_digest", digest=command.digest, known=[*DIGESTS])
        if command.recipient not in self.recipients and len(self.recipients) >= RECIPIENTS_MAX:
            raise Refused("too_many_recipients", recipients_max=RECIPIENTS_MAX)
        return RecipientSet(
            command.recipient,
            command.wants.node,
            command.role,
            command.address,
            command.wants,
            command.quiet,
            command.digest,
            command.urgent_at_once,
            _checked(command.note),
        )

    def _create(
        self, command: CreateWebhook, hierarchy: Hierarchy, types: UsageTypes, topics: Collection[str]
    ) -> WebhookCreated:
        check_text("webhook", command.webhook)
        check_text("url", command.host)
        check_filter(command.wants, hierarchy, types, topics)
        if command.webhook in self.webhooks:
            raise Refused("webhook_exists", webhook=command.webhook)
        if len(self.webhooks) >= WEBHOOKS_MAX:
            raise Refused("too_many_webhooks", webhooks_max=WEBHOOKS_MAX)
        return WebhookCreated(
            command.webhook,
            command.wants.node,
            command.host,
            command.address,
            command.secret,
            command.wants,
            _checked(command.note),
        )

    def _rotate(self, command: RotateWebhookSecret, now: int) -> WebhookSecretRotated:
        held = self._webhook(command.webhook)
        if not 0 <= command.overlap_seconds <= OVERLAP_SECONDS_MAX:
            raise Refused(
                "bad_overlap", overlap_seconds=command.overlap_seconds, seconds_max=OVERLAP_SECONDS_MAX
            )
        until = now + command.overlap_seconds * 1_000_000
        return WebhookSecretRotated(
            command.webhook, held.created.node, command.secret, until, _checked(command.note)
        )

    def _replay(self, webhook: str, after: int, note: str) -> WebhookReplayed:
        held = self._webhook(webhook)
        if held.disabled:
            raise Refused("webhook_disabled", webhook=webhook, reason=held.disabled)
        if not 0 <= after <= SEQ_MAX:
            raise Refused("bad_after", after=after, after_max=SEQ_MAX)
        return WebhookReplayed(webhook, held.created.node, after, _checked(note))

    def _recipient(self, ident: str) -> RecipientSet:
        if ident not in self.recipients:
            raise Refused("unknown_recipient", recipient=ident)
        return self.recipients[ident]

    def _webhook(self, ident: str) -> Webhook:
        if ident not in self.webhooks:
            raise Refused("unknown_webhook", webhook=ident)
        return self.webhooks[ident]

    # --- apply ----------------------------------------------------------------------------

    def apply(self, event: NoticeEvent) -> None:
        match event:
            case RecipientSet(recipient):
                self.recipients[recipient] = event
            case RecipientRemoved(recipient):
                del self.recipients[recipient]
            case WebhookCreated(webhook):
                self.webhooks[webhook] = Webhook(event, event.secret)
            case WebhookSecretRotated(webhook, _, secret, until):
                held = self.webhooks[webhook]
                self.webhooks[webhook] = Webhook(held.created, secret, held.secret, until, held.disabled)
            case WebhookDisabled(webhook, _, reason):
                self._disable(webhook, reason)
            case WebhookEnabled(webhook):
                self._disable(webhook, "")
            case WebhookReplayed():
                """Whoever sends notices does that, when it comes to this event."""

    def _disable(self, webhook: str, reason: str) -> None:
        held = self.webhooks[webhook]
        self.webhooks[webhook] = Webhook(held.created, held.secret, held.before, held.before_until, reason)

    def check_whole(self, hierarchy: Hierarchy) -> None:
        every: list[RecipientSet | WebhookCreated] = [*self.recipients.values()]
        every += [webhook.created for webhook in self.webhooks.values()]
        for one in every:
            if one.node != one.wants.node or one.node not in hierarchy.by_id:
                raise InvariantBroken("who is told is at a node", told=one.topic, node=one.node)


class _Told:
    """One event, as those who may want it look at it."""

    def __init__(self, event: Struct, hierarchy: Hierarchy) -> None:
        self._event = event
        self._topic: str = getattr(event, "topic", "")
        self._hierarchy = hierarchy
        self._at = concerned(event, hierarchy) if self._topic not in BULK else []

    def is_wanted(self, wants: Filter) -> bool:
        if not self._at or self._topic not in wants.topics:
            return False
        if wants.usage_types and getattr(self._event, "usage_type", "") not in wants.usage_types:
            return False
        if isinstance(self._event, ThresholdCrossed) and self._event.percent < wants.percent_min:
            return False
        node = self._hierarchy.by_id[wants.node].ordinal
        return any(path[0] == node or (wants.below and node in path) for path in self._at)


def concerned(event: Struct, hierarchy: Hierarchy) -> list[tuple[int, ...]]:
    """The members an event is about, each with the nodes above it; the enterprise where it names none."""
    path = getattr(event, "path", None)
    if path:
        return [tuple(path)]
    named = [getattr(event, name, "") for name in _IDS]
    members = [hierarchy.by_id[ident] for ident in named if ident in hierarchy.by_id]
    # One that has ended has no path any more: it is where it was.
    paths = [member.path or _last_path(member.stays) or (member.ordinal,) for member in members]
    return paths or ([(0,)] if hierarchy.members else [])


def _last_path(stays: list[tuple[int, tuple[int, ...]]]) -> tuple[int, ...]:
    return next((path for _, path in reversed(stays) if path), ())


def wanted(event: Struct, wants: Filter, hierarchy: Hierarchy) -> bool:
    """Whether somebody who asked for this is told of it."""
    return _Told(event, hierarchy).is_wanted(wants)


def is_below(event: Struct, node: str, hierarchy: Hierarchy) -> bool:
    """Whether an event is about a member, or one that is below it."""
    ordinal = hierarchy.by_id[node].ordinal
    return any(ordinal in path for path in concerned(event, hierarchy))


def is_urgent(event: Struct) -> bool:
    """Whether usage is being stopped: a limit that stops it is reached."""
    return (
        isinstance(event, ThresholdCrossed)
        and event.percent >= URGENT_PERCENT
        # A limit that only tells stops nothing.
        and not getattr(event, "soft", False)
    )


def check_filter(wants: Filter, hierarchy: Hierarchy, types: UsageTypes, topics: Collection[str]) -> None:
    """Refuses what nobody could be told of."""
    hierarchy.member(wants.node)
    known = sorted(set(topics) - BULK)
    unknown = [topic for topic in wants.topics if topic not in known]
    if unknown or not 1 <= len(wants.topics) <= TOPICS_MAX:
        raise Refused("unknown_topic", topics=unknown, known=known)
    for usage_type in wants.usage_types:
        types.check(usage_type, money=True)
    if not 0 <= wants.percent_min <= PERCENT_MAX:
        raise Refused("bad_percent", percent=wants.percent_min, percent_max=PERCENT_MAX)


def _checked(note: str) -> str:
    check_text("note", note, empty=True)
    return note
