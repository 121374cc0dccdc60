"""Offers: the board, what became of each offer, and offering, taking, answering and withdrawing."""

import functools
from enum import Enum
from hashlib import sha256
from typing import Annotated

import strawberry
from strawberry import ID

from ..domain.offer import NOTHING_ASKED, AcceptOffer, DeclineOffer, OfferAccepted, OfferTrade, WithdrawOffer
from ..domain.offer import Ask as AskedFor
from ..domain.tenant import Tenant
from ..projections import offers as views
from ..tenants.isolation import Connection
from .asking import (
    PAGE_USUAL,
    AsOf,
    PageInfo,
    Reach,
    cursor_of,
    looking,
    page_size,
    permit,
    reach_of,
    seq_before,
    usage_types_of,
)
from .changing import DryRun, changed, seqs_of
from .context import Answer, Context, Info
from .hierarchy import Member
from .history import HISTORY_MAX, AuditEntry, told_all
from .scalars import Moment, Quantity, Seq
from .trade_problems import (
    TradeProblem,
    not_permitted,
)
from .trading import ApprovalRequired, required, trade_change, visible_offer
from .wording import DRY, EVENTS, KEY, NOTE, REPEATED, WHICH_PERIOD


@strawberry.enum
class OfferState(Enum):
    OPEN = "open"
    ACCEPTED = "accepted"
    WITHDRAWN = "withdrawn"
    DECLINED = strawberry.enum_value("declined", description="By the node that it was made to.")
    COUNTERED = strawberry.enum_value("countered", description="A counter-offer was accepted in its place.")
    EXPIRED = "expired"


@strawberry.type(description="What is wanted in return.")
class Ask:
    usage_type: str
    unit: str
    quantity: Quantity = strawberry.field(description="For every `per` units offered.")
    per: Quantity
    total: Quantity = strawberry.field(description="For all that was offered.")


@strawberry.type(description="Quantity that a node offers, as the last event leaves it.")
class Offer:
    id: ID
    state: OfferState
    source_id: ID = strawberry.field(description="Who offers.")
    source_name: str
    target_id: ID | None = strawberry.field(description="Whom it was made to; null beyond your reach.")
    target_name: str | None
    everybody: bool = strawberry.field(description="Not the target alone: everybody at and below it.")
    yours: bool = strawberry.field(description="Made by a node in your reach.")
    usage_type: str
    unit: str
    period: str
    quantity: Quantity
    left: Quantity = strawberry.field(description="What may still be taken.")
    pending: Quantity = strawberry.field(description="Taken, and waiting for approval.")
    asks: Ask | None = strawberry.field(description="Null asks for nothing.")
    lot: Quantity = strawberry.field(description="Parts of it are multiples of this.")
    expires_at: Moment
    counters: ID | None = strawberry.field(description="The offer that this one answers.")
    note: str
    made_at: Moment
    made: Seq = strawberry.field(description="The event that made it.")
    seq: Seq = strawberry.field(description="Its last event.")


@strawberry.type
class OfferConnection:
    nodes: list[Offer]
    page_info: PageInfo


@strawberry.input(description="What is wanted in return: `quantity` units for every `per` units offered.")
class AskInput:
    usage_type: str = strawberry.field(description="Another type, or money: internal money, in micro-units.")
    quantity: Quantity
    per: Quantity | None = strawberry.field(default=None, description="Left out: for the whole offer.")


@strawberry.input(description="Quantity to be offered; it is set aside until the offer is over.")
class OfferTradeInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    source: ID = strawberry.field(description="Who offers.")
    target: ID | None = strawberry.field(
        default=None, description="Whom to; left out, to everybody in the enterprise."
    )
    everybody: bool = strawberry.field(default=False, description="To everybody at and below the target.")
    usage_type: str = strawberry.field(description="data, voice, messaging, video or money.")
    quantity: Quantity
    asks: AskInput | None = strawberry.field(default=None, description="Left out: nothing.")
    period: str | None = strawberry.field(default=None, description=WHICH_PERIOD)
    whole: bool = strawberry.field(default=False, description="All of it is taken at once, or nothing.")
    expires_at: Moment | None = strawberry.field(
        default=None, description="Left out: in 7 days. With its period at the latest."
    )
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="Other terms for an offer: an offer to who made it.")
class CounterOfferInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    offer: ID = strawberry.field(description="The offer that is answered.")
    source: ID = strawberry.field(description="Who answers.")
    usage_type: str
    quantity: Quantity
    asks: AskInput | None = None
    whole: bool = False
    expires_at: Moment | None = None
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="An offer to be taken, or part of it.")
class AcceptOfferInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    offer: ID
    target: ID = strawberry.field(description="Who takes it, and gives what is asked.")
    quantity: Quantity | None = strawberry.field(default=None, description="Left out: all that is left.")
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="An offer to be taken back, as far as it is left.")
class WithdrawOfferInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    offer: ID
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="An offer to which the node that it was made to says no.")
class DeclineOfferInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    offer: ID
    target: ID = strawberry.field(description="Who declines: the node it was made to.")
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.type(description="The offer stands, or is over, durably.")
class OfferDone:
    offer: Offer = strawberry.field(description="As it stands now.")
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


@strawberry.type(description="Both sides have what was agreed, durably.")
class AcceptOfferDone:
    offer: Offer = strawberry.field(description="As it stands now.")
    target: Member = strawberry.field(description="Who took it, as it stands now.")
    quantity: Quantity
    price_type: str | None
    price: Quantity
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


OfferPayload = Annotated[
    OfferDone | DryRun | TradeProblem,
    strawberry.union("OfferPayload"),
]
AcceptOfferPayload = Annotated[
    AcceptOfferDone | ApprovalRequired | DryRun | TradeProblem,
    strawberry.union("AcceptOfferPayload"),
]


# --- reading ------------------------------------------------------------------------------------


async def offers(
    info: Info,
    usage_types: list[str] | None = None,
    state: OfferState | None = None,
    first: int = PAGE_USUAL,
    after: str | None = None,
    as_of: AsOf | None = None,
) -> OfferConnection:
    """Made by, made to or open to the nodes in reach; the newest first."""
    context = info.context
    permit(context, "read")
    size, before, from_where = page_size(first), seq_before(after), await looking(context, as_of)
    reach = await reach_of(context)
    types = usage_types_of(usage_types, await context.state()) if usage_types is not None else None
    query = functools.partial(
        views.board,
        roots=reach.roots(),
        first=size + 1,
        before=before,
        usage_types=types,
        state=state.value if state else None,
    )
    _, rows = await context.read(query, ("offers",), as_of=from_where.seq)
    page = rows[:size]
    end = cursor_of(page[-1].made) if page else None
    return OfferConnection(
        nodes=[_told(row, reach) for row in page],
        page_info=PageInfo(has_next_page=len(rows) > size, end_cursor=end),
    )


async def offer_history(info: Info, offer: ID) -> list[AuditEntry] | None:
    """Every step of an offer, in order, with who and why; null when there is none in reach."""
    context = info.context
    permit(context, "read")
    reach = await reach_of(context)
    query = functools.partial(_steps, roots=reach.roots(), offer=offer)
    _, seqs = await context.read(query, ("offers",))
    return await told_all(context, reach, seqs) if seqs else None


def _steps(db: Connection, *, roots: list[str | None], offer: str) -> list[int]:
    return views.steps_of(db, offer, HISTORY_MAX) if views.board(db, roots, 1, offer=offer) else []


# --- changing -----------------------------------------------------------------------------------


async def offer_trade(info: Info, input: OfferTradeInput) -> OfferPayload:
    command = OfferTrade(
        *(_id_of(input.idempotency_key), input.source, input.usage_type, input.quantity),
        asks=_asked(input.asks, input.quantity),
        target=input.target or "",
        everybody=input.everybody,
        period=input.period or "",
        whole=input.whole,
        expires_at=input.expires_at or 0,
        note=input.note,
    )

    nodes = {"source": str(input.source)} | ({"target": str(input.target)} if input.target else {})
    answer = await trade_change(
        *(info.context, "trade", command, input.idempotency_key, nodes), dry_run=input.dry_run
    )
    return await _done(info.context, answer, command.offer)


async def counter_offer(info: Info, input: CounterOfferInput) -> OfferPayload:
    def check(tenant: Tenant, reach: Reach) -> None:
        visible_offer(tenant, reach, input.offer)

    answered = (await info.context.state()).trading.offers.known(input.offer)
    command = OfferTrade(
        *(_id_of(input.idempotency_key), input.source, input.usage_type, input.quantity),
        asks=_asked(input.asks, input.quantity),
        period=answered.made.period if answered is not None else "",
        whole=input.whole,
        expires_at=input.expires_at or 0,
        counters=input.offer,
        note=input.note,
    )
    nodes = {"source": str(input.source)}
    answer = await trade_change(
        *(info.context, "trade", command, input.idempotency_key, nodes), dry_run=input.dry_run, check=check
    )
    return await _done(info.context, answer, command.offer)


async def accept_offer(info: Info, input: AcceptOfferInput) -> AcceptOfferPayload:
    def check(tenant: Tenant, reach: Reach) -> None:
        visible_offer(tenant, reach, input.offer)

    context = info.context
    command = AcceptOffer(input.offer, input.target, input.quantity, input.note)
    nodes = {"target": str(input.target)}
    answer = await trade_change(
        *(context, "trade", command, input.idempotency_key, nodes), dry_run=input.dry_run, check=check
    )
    if isinstance(answer, DryRun | TradeProblem):
        return answer
    waiting = required(answer, await reach_of(context))
    if waiting is not None:
        return waiting
    accepted = next(event for event in answer.events if isinstance(event, OfferAccepted))
    (target,) = await changed(context, answer, [accepted.target], accepted.period, accepted.usage_type)
    return AcceptOfferDone(
        offer=await offer_as_it_stands(context, input.offer, answer.last_seq),
        target=target,
        quantity=Quantity(accepted.quantity),
        price_type=accepted.price_type or None,
        price=Quantity(accepted.price),
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


async def withdraw_offer(info: Info, input: WithdrawOfferInput) -> OfferPayload:
    def check(tenant: Tenant, reach: Reach) -> None:
        if not reach.sees_id(visible_offer(tenant, reach, input.offer).made.source):
            raise not_permitted("trade", "only who made an offer may withdraw it")

    command = WithdrawOffer(input.offer, input.note)
    answer = await trade_change(
        *(info.context, "trade", command, input.idempotency_key, {}), dry_run=input.dry_run, check=check
    )
    return await _done(info.context, answer, input.offer)


async def decline_offer(info: Info, input: DeclineOfferInput) -> OfferPayload:
    def check(tenant: Tenant, reach: Reach) -> None:
        visible_offer(tenant, reach, input.offer)

    command, nodes = DeclineOffer(input.offer, input.target, input.note), {"target": str(input.target)}
    answer = await trade_change(
        *(info.context, "trade", command, input.idempotency_key, nodes), dry_run=input.dry_run, check=check
    )
    return await _done(info.context, answer, input.offer)


async def offer_as_it_stands(context: Context, ident: str, at_least: int) -> Offer:
    query = functools.partial(views.board, roots=[None], first=1, offer=ident)
    _, rows = await context.read(query, ("offers",), at_least=at_least)
    return _told(rows[0], await reach_of(context))


async def _done(
    context: Context, answer: Answer | DryRun | TradeProblem, ident: str
) -> OfferDone | DryRun | TradeProblem:
    if isinstance(answer, DryRun | TradeProblem):
        return answer
    offer = await offer_as_it_stands(context, ident, answer.last_seq)
    return OfferDone(offer=offer, event_seqs=seqs_of(answer), repeated=answer.repeated)


def _id_of(idempotency_key: str) -> str:
    """The offer's id: sent again with the same key, it is the same offer."""
    return f"o-{sha256(idempotency_key.encode()).hexdigest()[:20]}"


def _asked(asks: AskInput | None, quantity: int) -> AskedFor:
    if asks is None:
        return NOTHING_ASKED
    return AskedFor(asks.usage_type, asks.quantity, quantity if asks.per is None else asks.per)


def _told(row: views.Offer, reach: Reach) -> Offer:
    seen = reach.sees(row.target)
    return Offer(
        id=ID(row.offer),
        state=OfferState(row.state),
        source_id=ID(row.source_id),
        source_name=row.source_name,
        target_id=ID(row.target_id) if seen else None,
        target_name=row.target_name if seen else None,
        everybody=row.everybody,
        yours=reach.sees(row.source),
        usage_type=row.usage_type,
        unit=reach.units[row.usage_type],
        period=row.period,
        quantity=Quantity(row.quantity),
        left=Quantity(row.remaining),
        pending=Quantity(row.pending),
        asks=_ask_told(row, reach) if row.asks_type else None,
        lot=Quantity(row.lot),
        expires_at=Moment(row.expires_at),
        counters=ID(row.counters) if row.counters else None,
        note=row.note,
        made_at=Moment(row.made_at),
        made=Seq(row.made),
        seq=Seq(row.seq),
    )


def _ask_told(row: views.Offer, reach: Reach) -> Ask:
    asks = AskedFor(row.asks_type, row.asks_quantity, row.asks_per)
    return Ask(
        usage_type=asks.usage_type,
        unit=reach.units[asks.usage_type],
        quantity=Quantity(asks.quantity),
        per=Quantity(asks.per),
        total=Quantity(asks.price_of(row.quantity)),
    )
