"""Fees: what the carrier's staff charge once and take back, and the channels that fees are owed for."""

from hashlib import sha256
from typing import Annotated

import strawberry
from strawberry import ID

from ..domain.channels import ChannelsSet, SetChannels
from ..domain.one_off import ChargeFee, FeeCharged, FeeCredited, UndoFee
from .changing import DryRun, change, seqs_of
from .context import Info
from .problems import (
    InsufficientAllowance,
    OfAllocation,
    ProblemType,
    UsualProblem,
)
from .scalars import Moment, Money, Seq
from .wording import DRY, EVENTS, KEY, NOTE, REPEATED, WHICH_PERIOD

_WHY = f"Why: {NOTE[0].lower()}{NOTE[1:]}"


@strawberry.input(description="Something that is owed once: it stands on the invoice of its period.")
class ChargeFeeInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    name: str = strawberry.field(description="What it is called on the invoice.")
    node: ID = strawberry.field(description="At which node it stands.")
    amount: Money
    period: str | None = strawberry.field(default=None, description=WHICH_PERIOD)
    note: str = strawberry.field(description=_WHY)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="A fee that is taken back: a credit in the period that runs.")
class UndoFeeInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    fee: ID
    note: str = strawberry.field(description=_WHY)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="How many channels a resource has: fees per channel are owed for them.")
class SetChannelsInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    resource: ID
    channels: int
    since: Moment | None = strawberry.field(default=None, description="Else from now on.")
    note: str = strawberry.field(default="", description=_WHY)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.type(description="A one-off fee, or the credit for one, durably on an invoice.")
class FeeDone:
    fee: ID = strawberry.field(description="By it the fee is taken back.")
    name: str
    node: ID
    period: str
    amount: Money = strawberry.field(description="Less than nothing where it was taken back.")
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


@strawberry.type(description="The resource has so many channels, durably.")
class SetChannelsDone:
    resource: ID
    channels: int
    since: Moment
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


FeePayload = Annotated[
    FeeDone | DryRun | UsualProblem,
    strawberry.union("FeePayload"),
]
SetChannelsPayload = Annotated[
    SetChannelsDone | DryRun | UsualProblem,
    strawberry.union("SetChannelsPayload"),
]


async def charge_fee(info: Info, input: ChargeFeeInput) -> FeePayload:
    command = ChargeFee(
        *(_id_of(input.idempotency_key), input.name, str(input.node), input.amount),
        *(input.period or "", input.note),
    )
    return await _fee(info, command, input.idempotency_key, {"node": str(input.node)}, dry_run=input.dry_run)


async def undo_fee(info: Info, input: UndoFeeInput) -> FeePayload:
    command = UndoFee(str(input.fee), input.note)
    return await _fee(info, command, input.idempotency_key, {}, dry_run=input.dry_run)


async def set_channels(info: Info, input: SetChannelsInput) -> SetChannelsPayload:
    command = SetChannels(str(input.resource), input.channels, input.since or 0, input.note)
    nodes = {"resource": command.resource}
    answer = await change(
        info.context, "configure", command, input.idempotency_key, nodes, dry_run=input.dry_run
    )
    if isinstance(answer, DryRun | ProblemType):
        assert not isinstance(answer, InsufficientAllowance | OfAllocation)
        return answer
    (told,) = (event for event in answer.events if isinstance(event, ChannelsSet))
    return SetChannelsDone(
        resource=ID(told.resource),
        channels=told.channels,
        since=Moment(told.since),
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


async def _fee(
    info: Info, command: ChargeFee | UndoFee, key: ID, nodes: dict[str, str], *, dry_run: bool
) -> FeePayload:
    answer = await change(info.context, "configure", command, key, nodes, dry_run=dry_run)
    if isinstance(answer, DryRun | ProblemType):
        assert not isinstance(answer, InsufficientAllowance | OfAllocation)
        return answer
    (told,) = (event for event in answer.events if isinstance(event, FeeCharged | FeeCredited))
    return FeeDone(
        fee=ID(told.fee),
        name=told.name,
        node=ID(told.node),
        period=told.period,
        amount=Money(-told.amount if isinstance(told, FeeCredited) else told.amount),
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


def _id_of(idempotency_key: str) -> str:
    """The fee's id: sent again with the same key, it is the same fee."""
    return f"f-{sha256(idempotency_key.encode()).hexdigest()[:20]}"
