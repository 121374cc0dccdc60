"""Back-dated changes of the hierarchy, within periods that are open: looked at first, then confirmed.

A dry run shows who would get what back, and who would pay. Its digest confirms exactly that: where
anything has changed meanwhile, nothing is done, and what would be done now is shown.
"""

from enum import Enum
from typing import Annotated

import strawberry
from strawberry import ID

from ..domain.correcting import (
    CorrectAdd,
    CorrectClose,
    CorrectEnd,
    Correction,
    CorrectJoin,
    CorrectMerge,
    CorrectMove,
    CorrectNodeMove,
    CorrectRename,
    CorrectResumption,
    CorrectSuspension,
)
from ..domain.inventory_dated import AnyCorrection
from ..domain.life import IdentityRemoved
from ..domain.rating_job import Scope
from ..domain.refusals import Refused
from ..tenants.access import NotPermitted, require
from .asking import Reach, reach_of
from .changing import ForeseenEvent, bad_key, foreseen_events
from .context import Context, Info, TryAgain
from .correction_runs import CorrectionRuns, correction_runs
from .problems import IdempotencyMismatch, InvalidInput, UnknownNode
from .problems import NotPermitted as NotPermittedProblem
from .problems import TryAgain as TryAgainProblem
from .refusals import invalid, problem_of, unknown_node
from .rerating import (
    ChangedSinceShown,
    RatingDifference,
    RerateDone,
    confirmed,
    narrow,
    shown_difference,
)
from .scalars import Moment
from .wording import DRY, MERGER_LEAVES, NOTE


@strawberry.enum(description="What was so since an earlier moment than was told.")
class BackdatedAct(Enum):
    CREATE = strawberry.enum_value("create", description="A node was there, below `to`.")
    RENAME = strawberry.enum_value("rename", description="A node was called `name`.")
    MOVE = strawberry.enum_value("move", description="A node with its subtree, or a resource, stood on `to`.")
    MERGE = strawberry.enum_value("merge", description="A node was merged into `to`, with all there.")
    CLOSE = strawberry.enum_value("close", description="A node was closed: empty then and since.")
    JOIN = strawberry.enum_value("join", description="A resource was on its first node.")
    END = strawberry.enum_value("end", description="A resource had ended.")
    SUSPEND = strawberry.enum_value("suspend", description="A resource was suspended.")
    RESUME = strawberry.enum_value("resume", description="A suspended resource was resumed.")


SOMEWHERE = (BackdatedAct.CREATE, BackdatedAct.MOVE, BackdatedAct.MERGE)
NAMING = (BackdatedAct.CREATE, BackdatedAct.RENAME)


@strawberry.input(description="What has been so since a moment that is over, in a period that is not closed.")
class BackdateInput:
    idempotency_key: str = strawberry.field(description="Also the name of the job, for ever.")
    act: BackdatedAct
    id: ID = strawberry.field(description="The node or resource.")
    at: Moment = strawberry.field(description="Since when.")
    to: ID | None = strawberry.field(
        default=None,
        description="Of a move: the parent, or node; of a merger: the successor; of a creation: the parent.",
    )
    name: str = strawberry.field(default="", description="Of a node that is created, or renamed.")
    kind: str = strawberry.field(default="", description="Of a node that is created, as in `addNode`.")
    note: str = strawberry.field(default="", description=NOTE)
    shown: str = strawberry.field(
        default="", description="The digest of the difference that was confirmed; needed, but for a dry run."
    )
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.type(description="What would be told, and who would be charged again. Nothing has changed.")
class BackdateShown:
    events: list[ForeseenEvent]
    difference: RatingDifference
    leaves: list[str] = strawberry.field(description="What stays as it is, though told in time it might not.")


BackdatePayload = Annotated[
    RerateDone
    | BackdateShown
    | ChangedSinceShown
    | CorrectionRuns
    | InvalidInput
    | UnknownNode
    | NotPermittedProblem
    | IdempotencyMismatch
    | TryAgainProblem,
    strawberry.union("BackdatePayload"),
]


async def backdate(info: Info, input: BackdateInput) -> BackdatePayload:
    context = info.context
    try:
        require(context.principal, "organise")
        return await _checked(context, input)
    except (NotPermitted, Refused, TryAgain) as refusal:
        if isinstance(refusal, Refused) and refusal.code == "correction_runs":
            return await correction_runs(context, refusal)
        return narrow(problem_of(refusal))


async def _checked(context: Context, input: BackdateInput) -> BackdatePayload:
    if (problem := bad_key(input.idempotency_key)) is not None:
        return problem
    if (input.to is None) == (input.act in SOMEWHERE):
        return invalid("to", "a move, a merger and a creation need to know where to; nothing else does")
    if input.name and input.act not in NAMING:
        return invalid("name", "only what is created or renamed gets a name")
    if input.kind and input.act is not BackdatedAct.CREATE:
        return invalid("kind", "only what is created gets a kind")
    reach = await reach_of(context)
    asked = None if input.act is BackdatedAct.CREATE else input.id
    for field, node in (("id", asked), ("to", input.to)):
        if node is not None and not reach.sees_id(node):
            return unknown_node(node, field)
    command = await _command(context, input)
    if not input.dry_run:
        if not await context.was_begun(input.idempotency_key):
            await check_reach(context, command, reach)
        return await confirmed(context, command)
    events = await check_reach(context, command, reach)
    difference = await shown_difference(context, Scope(), command)
    leaves = [MERGER_LEAVES] if input.act is BackdatedAct.MERGE else []
    return BackdateShown(events=events, difference=difference, leaves=leaves)


async def check_reach(context: Context, command: AnyCorrection, reach: Reach) -> list[ForeseenEvent]:
    """What would be told; refuses what would take a line from somebody whom the caller may not see."""
    try:
        answer = await context.start_rating(command, dry=True)
    except Refused as refusal:
        unseen = {
            fact: None
            for fact in ("holder", "by")
            if (one := refusal.facts.get(fact)) and not reach.sees_id(one)
        }
        raise Refused(refusal.code, **refusal.facts | unseen) from None
    for event in answer.events:
        if isinstance(event, IdentityRemoved) and not reach.sees_id(event.resource):
            raise Refused("identity_in_use", resource=str(event.resource), holder=None)
    return await foreseen_events(context, reach, answer.events)


async def _command(context: Context, input: BackdateInput) -> Correction:
    about = (input.at, input.note, input.shown)
    match input.act:
        case BackdatedAct.CREATE:
            described = (input.to or "", input.name, input.kind)
            return CorrectAdd(input.idempotency_key, input.id, *described, *about)
        case BackdatedAct.RENAME:
            return CorrectRename(input.idempotency_key, input.id, input.name, *about)
        case BackdatedAct.MOVE:
            to, members = input.to or "", (await context.state()).hierarchy.by_id
            member = members.get(input.id)
            move = CorrectNodeMove if member is not None and member.is_node else CorrectMove
            return move(input.idempotency_key, input.id, to, *about)
        case BackdatedAct.MERGE:
            return CorrectMerge(input.idempotency_key, input.id, input.to or "", *about)
        case BackdatedAct.CLOSE:
            return CorrectClose(input.idempotency_key, input.id, *about)
        case BackdatedAct.JOIN:
            return CorrectJoin(input.idempotency_key, input.id, *about)
        case BackdatedAct.END:
            return CorrectEnd(input.idempotency_key, input.id, *about)
        case BackdatedAct.SUSPEND:
            return CorrectSuspension(input.idempotency_key, input.id, *about)
        case BackdatedAct.RESUME:
            return CorrectResumption(input.idempotency_key, input.id, *about)
