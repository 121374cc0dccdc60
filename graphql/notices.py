"""Notices: who is told of what, where and when; what was delivered, and telling it again.

No answer holds an address or a secret, but for the one that a webhook has just been given.
"""

import re
from enum import Enum
from functools import partial
from typing import Annotated, cast

import strawberry
from strawberry import ID

from ..domain.notice import (
    OVERLAP_SECONDS_MAX,
    USUAL,
    CreateWebhook,
    DisableWebhook,
    EnableWebhook,
    Filter,
    NoticeCommand,
    NoticeEvent,
    Notices,
    RecipientSet,
    RemoveRecipient,
    ReplayWebhook,
    RotateWebhookSecret,
    SetRecipient,
    Webhook,
)
from ..domain.quiet import QuietHours
from ..domain.refusals import Refused
from ..projections import notices as views
from ..tenants.access import NotPermitted, require
from .asking import PAGE_USUAL, AsOf, PageInfo, looking, page_size, permit, reach_of, seq_before
from .changing import DryRun, change, seqs_of
from .context import Answer, BadAddress, Context, Info
from .problems import (
    IdempotencyMismatch,
    InsufficientAllowance,
    InvalidInput,
    OfAllocation,
    ProblemType,
    UnknownNode,
)
from .problems import NotPermitted as NotPermittedProblem
from .problems import TryAgain as TryAgainProblem
from .refusals import QueryRefused, invalid, problem_of, unknown_node
from .scalars import Moment, Seq
from .wording import DRY, EVENTS, KEY, NOTE, REPEATED

EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,188}[A-Za-z0-9])?")
CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")


@strawberry.enum(description="One message with all that came in that time.")
class Digest(Enum):
    HOUR = "hour"
    DAY = strawberry.enum_value("day", description="In the morning, at 08:00 of the tenant's time zone.")


@strawberry.enum
class DeliveryStatus(Enum):
    WAITING = strawberry.enum_value("waiting", description="To be delivered, for the first time or again.")
    DELIVERED = "delivered"
    FAILED = strawberry.enum_value("failed", description="Not tried again, unless it is replayed.")


@strawberry.enum(description="What is about to be told.")
class DeliveryChannel(Enum):
    WEBHOOK = "webhook"
    EMAIL = "email"


# --- what may be asked for ---------------------------------------------------------------------------


@strawberry.input(description="When nobody wants to be told, in the tenant's time zone.")
class QuietHoursInput:
    starts: str = strawberry.field(description='Such as "22:00".')
    ends: str = strawberry.field(description='Such as "07:00": what was held back is told then.')


@strawberry.input(description="Of which events somebody wants to know.")
class NoticeFilterInput:
    node: ID = strawberry.field(description="Of this node or resource.")
    below: bool = strawberry.field(default=True, description="And of what is below it.")
    kinds: list[str] = strawberry.field(
        default_factory=lambda: list(USUAL), description="Topics of events, such as limit.threshold_crossed."
    )
    usage_types: list[str] = strawberry.field(default_factory=list, description="None given: all.")
    percent_min: int = strawberry.field(default=0, description="Of thresholds: from this one on.")


@strawberry.input(description="A role at a node that is told by e-mail.")
class SetRecipientInput:
    idempotency_key: ID
    recipient: ID = strawberry.field(description="Yours; the same again changes what it is told.")
    role: str = strawberry.field(description='As whom: "cost centre manager".')
    email: str = strawberry.field(description="Kept beside the log, sealed; never told again.")
    filter: NoticeFilterInput
    quiet: QuietHoursInput | None = None
    digest: Digest | None = None
    urgent_at_once: bool = strawberry.field(
        default=True, description="What stops usage waits for neither digest nor morning."
    )
    note: str = ""
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input
class RemoveRecipientInput:
    idempotency_key: ID
    recipient: ID
    note: str = ""
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="A program that is told by HTTP, signed as Standard Webhooks says.")
class CreateWebhookInput:
    idempotency_key: ID
    url: str = strawberry.field(description="Begins with https://; kept beside the log, sealed.")
    filter: NoticeFilterInput
    note: str = ""
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input
class RotateWebhookSecretInput:
    idempotency_key: ID
    webhook: ID
    overlap_seconds: int = strawberry.field(
        default=86_400, description=f"How long the old secret signs as well: 0 to {OVERLAP_SECONDS_MAX}."
    )
    note: str = ""
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input
class WebhookInput:
    idempotency_key: ID
    webhook: ID
    note: str = ""
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input
class ReplayWebhookInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    webhook: ID
    after_seq: Seq = strawberry.field(description="Everything it wants to know after this event; 0 for all.")
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


# --- what is answered --------------------------------------------------------------------------------


@strawberry.type(description="Of which events somebody is told.")
class NoticeFilter:
    node: ID
    below: bool
    kinds: list[str]
    usage_types: list[str]
    percent_min: int


@strawberry.type(description="A role at a node that is told by e-mail.")
class NoticeRecipient:
    id: ID
    role: str
    filter: NoticeFilter
    quiet_starts: str | None
    quiet_ends: str | None
    digest: Digest | None
    urgent_at_once: bool
    note: str


@strawberry.type(description="A program that is told by HTTP.")
class NoticeWebhook:
    id: ID
    origin: str = strawberry.field(description="Where it is; the rest of its address may be a secret.")
    filter: NoticeFilter
    disabled: str | None = strawberry.field(description="asked, failing or gone; null while it is told.")
    old_secret_until: Moment | None = strawberry.field(description="Until then two secrets sign.")
    note: str


@strawberry.type
class RecipientConnection:
    nodes: list[NoticeRecipient]
    page_info: PageInfo


@strawberry.type
class WebhookConnection:
    nodes: list[NoticeWebhook]
    page_info: PageInfo


@strawberry.type(description="One event on its way to one place.")
class Delivery:
    seq: Seq = strawberry.field(description="The event.")
    kind: str
    status: DeliveryStatus
    attempts: int
    replays: int = strawberry.field(description="How often it was asked for again.")
    due_at: Moment = strawberry.field(description="Not tried before.")
    tried_at: Moment | None
    took_ms: int | None
    detail: str = strawberry.field(description="The last answer: a status, or what went wrong.")


@strawberry.type
class DeliveryConnection:
    nodes: list[Delivery]
    page_info: PageInfo


@strawberry.type(description="It holds, durably.")
class RecipientDone:
    recipient: ID
    event_seqs: list[Seq]
    repeated: bool


@strawberry.type(description="It holds, durably.")
class WebhookDone:
    webhook: NoticeWebhook
    secret: str | None = strawberry.field(
        description="Told this once, for a new secret; null otherwise, and when repeated."
    )
    event_seqs: list[Seq]
    repeated: bool


@strawberry.type(description="It will be told again, under the same ids.")
class ReplayDone:
    webhook: ID
    upto_seq: Seq
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


NoticeProblem = InvalidInput | UnknownNode | NotPermittedProblem | IdempotencyMismatch | TryAgainProblem
SetRecipientPayload = Annotated[
    RecipientDone | DryRun | NoticeProblem,
    strawberry.union("SetRecipientPayload"),
]
WebhookPayload = Annotated[
    WebhookDone | DryRun | NoticeProblem,
    strawberry.union("WebhookPayload"),
]
ReplayPayload = Annotated[
    ReplayDone | DryRun | NoticeProblem,
    strawberry.union("ReplayPayload"),
]


# --- changing ----------------------------------------------------------------------------------------


async def set_recipient(info: Info, input: SetRecipientInput) -> SetRecipientPayload:
    context = info.context
    if not EMAIL.fullmatch(input.email) or ".." in input.email:
        return invalid("email", "give an e-mail address such as manager@example.com", "bad_email")
    quiet = None
    if input.quiet is not None:
        quiet = _hours(input.quiet)
        if quiet is None:
            return invalid("quiet", 'give times of the day such as "22:00" and "07:00"', "bad_hours")
    digest = input.digest.value if input.digest is not None else ""
    stop = await _stopped(context, input.filter.node)
    if stop is not None:
        return stop
    wants = _filter(input.filter)
    ref = await context.outlets.name(input.email)
    command = SetRecipient(
        str(input.recipient), input.role, ref, wants, quiet, digest, input.urgent_at_once, input.note
    )
    before = (await context.state()).notices.recipients.get(command.recipient)
    if before is not None and not (await reach_of(context)).sees_id(before.node):
        # Somebody else's has this id: it is neither told nor touched.
        return invalid("recipient", "this id cannot be used: choose another one", "recipient_exists")
    if not input.dry_run and await _would_do(context, command):
        await context.outlets.keep(input.email)
    answer = await _changed(context, command, input, {"node": str(input.filter.node)})
    if isinstance(answer, DryRun | NoticeProblem):
        return answer
    await _forget_unused(context, before)
    return _recipient_done(command.recipient, answer)


async def remove_recipient(info: Info, input: RemoveRecipientInput) -> SetRecipientPayload:
    context = info.context
    held = (await context.state()).notices.recipients.get(str(input.recipient))
    reach = await reach_of(context)
    if held is not None and not reach.sees_id(held.node):
        return _narrow(problem_of(Refused("unknown_recipient", recipient=str(input.recipient))))
    command = RemoveRecipient(str(input.recipient), input.note)
    answer = await _changed(context, command, input, {})
    if isinstance(answer, DryRun | NoticeProblem):
        return answer
    await _forget_unused(context, held)
    return _recipient_done(command.recipient, answer)


async def create_webhook(info: Info, input: CreateWebhookInput) -> WebhookPayload:
    context = info.context
    stop = await _stopped(context, input.filter.node)
    if stop is not None:
        return stop
    try:
        origin = await context.outlets.checked(input.url)
    except BadAddress as error:
        return invalid("url", str(error), error.code)
    name = await context.outlets.name(f"webhook {input.idempotency_key}")
    command = CreateWebhook(
        f"wh_{name.hex()}",
        origin,
        await context.outlets.name(input.url),
        await context.outlets.name(f"secret {input.idempotency_key}"),
        _filter(input.filter),
        input.note,
    )
    if not input.dry_run and await _would_do(context, command):
        await context.outlets.keep(input.url)
    answer = await _changed(context, command, input, {"node": str(input.filter.node)})
    if isinstance(answer, DryRun | NoticeProblem):
        return answer
    return await _webhook_done(context, command.webhook, answer, command.secret)


async def rotate_webhook_secret(info: Info, input: RotateWebhookSecretInput) -> WebhookPayload:
    context = info.context
    secret = await context.outlets.name(f"secret {input.idempotency_key}")
    command = RotateWebhookSecret(str(input.webhook), secret, input.overlap_seconds, input.note)
    return await _change_webhook(context, command, input, secret)


async def disable_webhook(info: Info, input: WebhookInput) -> WebhookPayload:
    command = DisableWebhook(str(input.webhook), "asked", input.note)
    return await _change_webhook(info.context, command, input)


async def enable_webhook(info: Info, input: WebhookInput) -> WebhookPayload:
    command = EnableWebhook(str(input.webhook), input.note)
    done = await _change_webhook(info.context, command, input)
    if isinstance(done, WebhookDone):
        await info.context.outlets.try_at_once(command.webhook)
    return done


async def replay_webhook(info: Info, input: ReplayWebhookInput) -> ReplayPayload:
    command = ReplayWebhook(str(input.webhook), input.after_seq, input.note)
    answer = await _of_webhook(info.context, command, input)
    if isinstance(answer, DryRun | NoticeProblem):
        return answer
    return ReplayDone(
        webhook=input.webhook,
        upto_seq=Seq(answer.last_seq - 1),
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


NoticeInput = (
    SetRecipientInput
    | RemoveRecipientInput
    | CreateWebhookInput
    | RotateWebhookSecretInput
    | WebhookInput
    | ReplayWebhookInput
)


async def _changed(
    context: Context, command: NoticeCommand, input: NoticeInput, nodes: dict[str, str]
) -> Answer | DryRun | NoticeProblem:
    answer = await change(context, "set_notice", command, input.idempotency_key, nodes, dry_run=input.dry_run)
    return _narrow(answer) if isinstance(answer, ProblemType) else answer


async def _change_webhook(
    context: Context,
    command: RotateWebhookSecret | DisableWebhook | EnableWebhook,
    input: RotateWebhookSecretInput | WebhookInput,
    secret: bytes | None = None,
) -> WebhookPayload:
    answer = await _of_webhook(context, command, input)
    if isinstance(answer, DryRun | NoticeProblem):
        return answer
    return await _webhook_done(context, command.webhook, answer, secret)


async def _of_webhook(
    context: Context,
    command: RotateWebhookSecret | DisableWebhook | EnableWebhook | ReplayWebhook,
    input: NoticeInput,
) -> Answer | DryRun | NoticeProblem:
    """Of one that is in reach; else there is none."""
    try:
        require(context.principal, "set_notice")
        await _webhook_in_reach(context, command.webhook)
    except (NotPermitted, Refused) as refusal:
        return _narrow(problem_of(refusal))
    return await _changed(context, command, input, {})


async def _webhook_in_reach(context: Context, ident: str) -> Webhook:
    webhook = (await context.state()).notices.webhooks.get(ident)
    if webhook is None or not (await reach_of(context)).sees_id(webhook.created.node):
        raise Refused("unknown_webhook", webhook=ident)
    return webhook


async def _stopped(context: Context, node: ID) -> NotPermittedProblem | UnknownNode | None:
    """Asked before anything is kept: who may not, or sees no such node, leaves no address behind."""
    try:
        require(context.principal, "set_notice")
    except NotPermitted as refusal:
        problem = problem_of(refusal)
        assert isinstance(problem, NotPermittedProblem)
        return problem
    return None if (await reach_of(context)).sees_id(str(node)) else unknown_node(str(node))


async def _would_do(context: Context, command: NoticeCommand) -> bool:
    try:
        (await context.state()).decide(command, context.now())
    except Refused:
        return False
    return True


async def _forget_unused(context: Context, before: RecipientSet | None) -> None:
    """An address that no recipient has any more is erased."""
    used = {one.address for one in (await context.state()).notices.recipients.values()}
    if before is not None and before.address not in used:
        await context.outlets.forget(before.address)


def _narrow(problem: ProblemType) -> NoticeProblem:
    assert not isinstance(problem, InsufficientAllowance | OfAllocation)
    return problem


def _recipient_done(recipient: str, answer: Answer) -> RecipientDone:
    return RecipientDone(recipient=ID(recipient), event_seqs=seqs_of(answer), repeated=answer.repeated)


async def _webhook_done(
    context: Context, ident: str, answer: Answer, secret: bytes | None = None
) -> WebhookDone:
    webhook = (await context.state()).notices.webhooks[ident]
    told = await context.outlets.secret(secret) if secret is not None and not answer.repeated else None
    return WebhookDone(
        webhook=_webhook(webhook), secret=told, event_seqs=seqs_of(answer), repeated=answer.repeated
    )


def _filter(given: NoticeFilterInput) -> Filter:
    # What has no place in 32 bits does not come this far.
    return Filter(
        str(given.node), tuple(given.kinds), tuple(given.usage_types), given.percent_min, given.below
    )


def _hours(given: QuietHoursInput) -> QuietHours | None:
    starts, ends = CLOCK.fullmatch(given.starts), CLOCK.fullmatch(given.ends)
    if starts is None or ends is None:
        return None
    return QuietHours(*(int(clock[1]) * 60 + int(clock[2]) for clock in (starts, ends)))


# --- reading -----------------------------------------------------------------------------------------


async def recipients(
    info: Info, first: int = PAGE_USUAL, after: str | None = None, as_of: AsOf | None = None
) -> RecipientConnection:
    context = info.context
    permit(context, "read")
    reach = await reach_of(context)
    held = (await _notices(context, as_of)).recipients
    seen = {ident: one for ident, one in held.items() if reach.sees_id(one.node)}
    page, info_of_page = _page(seen, first, after)
    return RecipientConnection(nodes=[_recipient(seen[ident]) for ident in page], page_info=info_of_page)


async def webhooks(
    info: Info, first: int = PAGE_USUAL, after: str | None = None, as_of: AsOf | None = None
) -> WebhookConnection:
    context = info.context
    permit(context, "read")
    reach = await reach_of(context)
    held = (await _notices(context, as_of)).webhooks
    seen = {ident: one for ident, one in held.items() if reach.sees_id(one.created.node)}
    page, info_of_page = _page(seen, first, after)
    return WebhookConnection(nodes=[_webhook(seen[ident]) for ident in page], page_info=info_of_page)


async def deliveries(
    info: Info,
    to: ID,
    channel: DeliveryChannel | None = None,
    status: DeliveryStatus | None = None,
    first: int = PAGE_USUAL,
    after: str | None = None,
) -> DeliveryConnection | None:
    """What one webhook, or recipient, was told; null when there is none in reach."""
    context = info.context
    permit(context, "read")
    size, before = page_size(first), seq_before(after)
    notices, ident = (await context.state()).notices, str(to)
    channel = channel or DeliveryChannel.WEBHOOK
    if channel is DeliveryChannel.WEBHOOK:
        webhook = notices.webhooks.get(ident)
        node = webhook.created.node if webhook is not None else ""
    else:
        node = notices.recipients[ident].node if ident in notices.recipients else ""
    if not (await reach_of(context)).sees_id(node):
        return None
    wanted = status.value if status is not None else None
    rows = await context.outlets.deliveries(channel.value, ident, wanted, size + 1, before)
    page = rows[:size]
    end = f"s{page[-1].seq}" if page else None
    return DeliveryConnection(
        nodes=[
            Delivery(
                seq=Seq(row.seq),
                kind=row.topic,
                status=DeliveryStatus(row.status),
                attempts=row.attempts,
                replays=row.replays,
                due_at=Moment(row.due_at),
                tried_at=Moment(row.tried_at) if row.tried_at is not None else None,
                took_ms=row.took_ms,
                detail=row.detail,
            )
            for row in page
        ],
        page_info=PageInfo(has_next_page=len(rows) > size, end_cursor=end),
    )


async def _notices(context: Context, as_of: AsOf | None) -> Notices:
    """Who is told, or was: what was ever said of it is folded again, as far as is asked for."""
    if as_of is None:
        return (await context.state()).notices
    from_where, past = await looking(context, as_of), Notices()
    assert from_where.seq is not None
    _, seqs = await context.read(partial(views.notice_events, upto=from_where.seq), ("notices",))
    for told in await context.events(seqs):
        past.apply(cast("NoticeEvent", told.event))
    return past


def _page(
    held: dict[str, RecipientSet] | dict[str, Webhook], first: int, after: str | None
) -> tuple[list[str], PageInfo]:
    """In the order of their ids."""
    size = page_size(first)
    if after is not None and not after.startswith("i"):
        raise QueryRefused("bad_cursor", "after: give the endCursor of the page before, unchanged")
    listed = sorted(ident for ident in held if after is None or ident > after[1:])
    page = listed[:size]
    return page, PageInfo(has_next_page=len(listed) > size, end_cursor=f"i{page[-1]}" if page else None)


def _told_filter(wants: Filter) -> NoticeFilter:
    return NoticeFilter(
        node=ID(wants.node),
        below=wants.below,
        kinds=list(wants.topics),
        usage_types=list(wants.usage_types),
        percent_min=wants.percent_min,
    )


def _recipient(held: RecipientSet) -> NoticeRecipient:
    quiet = held.quiet
    return NoticeRecipient(
        id=ID(held.recipient),
        role=held.role,
        filter=_told_filter(held.wants),
        quiet_starts=_clock(quiet.starts) if quiet else None,
        quiet_ends=_clock(quiet.ends) if quiet else None,
        digest=Digest(held.digest) if held.digest else None,
        urgent_at_once=held.urgent_at_once,
        note=held.note,
    )


def _webhook(held: Webhook) -> NoticeWebhook:
    return NoticeWebhook(
        id=ID(held.id),
        origin=held.created.host,
        filter=_told_filter(held.wants),
        disabled=held.disabled or None,
        old_secret_until=Moment(held.before_until) if held.before_until else None,
        note=held.created.note,
    )


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
