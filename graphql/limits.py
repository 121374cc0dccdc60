"""Limits: how much may be used at and below a member, per period."""

from typing import Annotated

import strawberry
from strawberry import ID

from ..domain.limit import THRESHOLDS, LimitSet, SetLimit, ThresholdCrossed
from .changing import DryRun, change, changed, seqs_of
from .context import Info
from .hierarchy import Member
from .problems import (
    IdempotencyMismatch,
    InsufficientAllowance,
    InvalidInput,
    NotPermitted,
    OfAllocation,
    ProblemType,
    TryAgain,
    UnknownNode,
)
from .refusals import invalid
from .scalars import Quantity, Seq


@strawberry.input(description="A limit on a node or resource.")
class SetLimitInput:
    idempotency_key: ID = strawberry.field(
        description="Yours; sent again with the same input it changes nothing."
    )
    node: ID
    usage_type: str = strawberry.field(description="data, voice, messaging, video or money (in micro-units).")
    quantity: Quantity | None = strawberry.field(
        default=strawberry.UNSET,
        description="Per period; 0 stops all usage, an explicit null lifts the limit.",
    )
    thresholds: list[int] = strawberry.field(
        default_factory=lambda: list(THRESHOLDS), description="Percentages at which somebody is told."
    )
    from_period: str | None = strawberry.field(default=None, description='Such as "2026-11"; else what runs.')
    dry_run: bool = strawberry.field(default=False, description="Only tell what it would lead to.")


@strawberry.type(description="The limit holds, durably.")
class SetLimitDone:
    node: Member = strawberry.field(description="As it stands now.")
    from_period: str
    crossed: list[int] = strawberry.field(description="Percentages that usage had reached already.")
    event_seqs: list[Seq] = strawberry.field(description="The events this led to.")
    repeated: bool = strawberry.field(
        description="It had been done before under this key: the first answer again."
    )


SetLimitPayload = Annotated[
    SetLimitDone | DryRun | InvalidInput | UnknownNode | NotPermitted | IdempotencyMismatch | TryAgain,
    strawberry.union("SetLimitPayload"),
]


async def set_limit(info: Info, input: SetLimitInput) -> SetLimitPayload:
    context = info.context
    if input.quantity is strawberry.UNSET:
        # Left out by mistake it must not lift a limit.
        return invalid("quantity", "give a quantity, or an explicit null to lift the limit")
    command = SetLimit(
        input.node, input.usage_type, input.quantity, tuple(input.thresholds), input.from_period or ""
    )
    answer = await change(
        context,
        "set_limit",
        command,
        input.idempotency_key,
        {"node": str(input.node)},
        dry_run=input.dry_run,
    )
    if isinstance(answer, DryRun | ProblemType):
        assert not isinstance(answer, InsufficientAllowance | OfAllocation)
        return answer
    limit = next(event for event in answer.events if isinstance(event, LimitSet))
    running = (await context.state()).contracts.name_at(context.now())
    # A limit that begins later is shown in its first period.
    period = max(running, limit.from_period)
    (node,) = await changed(context, answer, [limit.node], period, limit.usage_type)
    return SetLimitDone(
        node=node,
        from_period=limit.from_period,
        crossed=[event.percent for event in answer.events if isinstance(event, ThresholdCrossed)],
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )
