"""Undoing: a transfer, or both legs of an accepted offer, goes back as a counter-trade, once."""

from collections.abc import Sequence
from typing import Annotated

import strawberry
from strawberry import ID

from ..domain.bucket import Transferred
from ..domain.events import Recorded
from ..domain.offer import OfferAccepted
from ..domain.refusals import Refused
from ..domain.reservation import Leg
from ..domain.tenant import Tenant
from ..domain.trading import UndoTransfer
from .asking import Reach
from .changing import DryRun, changed, seqs_of
from .context import Context, Info
from .hierarchy import Member
from .scalars import Seq
from .trade_problems import (
    TradeProblem,
)
from .trading import trade_change
from .wording import DRY, EVENTS, KEY, NOTE, REPEATED

COMMIT_MAX = 8
"""Events that a transfer and what belongs to it may be, at most."""


@strawberry.input(description="What is undone: any event of the transfer, or of the acceptance.")
class UndoTransferInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    seq: Seq
    note: str = strawberry.field(default="", description=NOTE)
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.type(description="What had moved is back, durably.")
class UndoTransferDone:
    source: Member = strawberry.field(description="Who had given, as it stands now.")
    target: Member = strawberry.field(description="Who had got, as it stands now.")
    undone: Seq
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


UndoTransferPayload = Annotated[
    UndoTransferDone | DryRun | TradeProblem,
    strawberry.union("UndoTransferPayload"),
]


async def undo_transfer(info: Info, input: UndoTransferInput) -> UndoTransferPayload:
    context = info.context
    seq, legs = await _moved(context, input.seq)

    def check(_: Tenant, reach: Reach) -> None:
        # Beyond reach is as if there were no such transfer.
        if not legs or not all(reach.sees_id(end) for leg in legs for end in (leg.source, leg.target)):
            raise Refused("not_a_transfer", seq=input.seq)

    command = UndoTransfer(seq, legs, input.note)
    answer = await trade_change(
        *(context, "trade", command, input.idempotency_key, {}), dry_run=input.dry_run, check=check
    )
    if isinstance(answer, DryRun | TradeProblem):
        return answer
    leg = legs[0]
    source, target = await changed(context, answer, [leg.source, leg.target], leg.period, leg.usage_type)
    return UndoTransferDone(
        source=source,
        target=target,
        undone=Seq(seq),
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


async def _moved(context: Context, seq: int) -> tuple[int, tuple[Leg, ...]]:
    """The event to be undone and what it moved: an exchange goes back as a whole, or not at all."""
    return moved_at(await context.events(near(seq)), seq)


def near(seq: int) -> range:
    """Where the events stand that belong to one."""
    return range(max(1, seq - COMMIT_MAX), seq + COMMIT_MAX + 1)


def moved_at(events: Sequence[Recorded], seq: int) -> tuple[int, tuple[Leg, ...]]:
    """The same, of the events near it; no legs where nothing of that kind has moved."""
    told = _of_one_command(events, seq)
    for one in told:
        if isinstance(one.event, OfferAccepted):
            return one.seq, one.event.legs
    for one in told:
        event = one.event
        if isinstance(event, Transferred) and one.seq == seq and event.reason != "undo":
            leg = Leg(event.source, event.target, event.usage_type, event.period, event.quantity)
            return seq, (leg,)
    return seq, ()


def _of_one_command(near: Sequence[Recorded], seq: int) -> list[Recorded]:
    """The events that one command led to, the one of this seq among them: its key is on the first."""
    found: list[Recorded] = []
    for one in near:
        if one.command_key is not None:
            if found and found[-1].seq >= seq:
                break
            found = []
        found.append(one)
    return found if any(one.seq == seq for one in found) else []
