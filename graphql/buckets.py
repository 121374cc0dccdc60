"""Buckets: handing quantity down and back up, and trading it between equals."""

from typing import Annotated

import strawberry
from strawberry import ID

from ..domain.bucket import Allocate, Return, Trade, Transferred
from ..tenants.access import Verb
from .asking import reach_of
from .changing import DryRun, changed, seqs_of
from .context import Info
from .hierarchy import Member
from .scalars import Quantity, Seq
from .trade_problems import OfTransfers, TradeProblem
from .trading import ApprovalRequired, required, trade_change
from .wording import DRY, EVENTS, KEY, NOTE, REPEATED, WHICH_PERIOD


@strawberry.input(description="What moves, from whom to whom.")
class TransferInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    source: ID = strawberry.field(description="Who gives.")
    target: ID = strawberry.field(description="Who gets.")
    usage_type: str = strawberry.field(description="data, voice, messaging, video or money.")
    quantity: Quantity = strawberry.field(
        description="In the usage type's unit; all of it moves, or nothing."
    )
    period: str | None = strawberry.field(default=None, description=WHICH_PERIOD)
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.type(description="The quantity has moved, durably.")
class TransferDone:
    source: Member = strawberry.field(description="As it stands now.")
    target: Member = strawberry.field(description="As it stands now.")
    quantity: Quantity
    period: str
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


TransferPayload = Annotated[
    TransferDone | ApprovalRequired | DryRun | OfTransfers,
    strawberry.union("TransferPayload"),
]


async def allocate(info: Info, input: TransferInput) -> TransferPayload:
    return await _transfer(info, input, Allocate, "allocate")


async def return_allowance(info: Info, input: TransferInput) -> TransferPayload:
    return await _transfer(info, input, Return, "allocate")


async def trade(info: Info, input: TransferInput) -> TransferPayload:
    return await _transfer(info, input, Trade, "trade")


async def _transfer(
    info: Info, input: TransferInput, order: type[Allocate | Return | Trade], verb: Verb
) -> TransferDone | ApprovalRequired | DryRun | OfTransfers:
    command = order(
        input.source, input.target, input.usage_type, input.period or "", input.quantity, input.note
    )
    nodes = {"source": str(input.source), "target": str(input.target)}
    answer = await trade_change(
        info.context, verb, command, input.idempotency_key, nodes, dry_run=input.dry_run
    )
    if isinstance(answer, DryRun | OfTransfers):
        return answer
    assert not isinstance(answer, TradeProblem), "no offer was asked about"
    waiting = required(answer, await reach_of(info.context))
    if waiting is not None:
        return waiting
    moved = next(event for event in answer.events if isinstance(event, Transferred))
    ends = [moved.source, moved.target]
    source, target = await changed(info.context, answer, ends, moved.period, moved.usage_type)
    return TransferDone(
        source=source,
        target=target,
        quantity=Quantity(moved.quantity),
        period=moved.period,
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )
