"""Hierarchy life: nodes and resources added, renamed, moved, merged, closed, suspended, renumbered.

Everything takes effect now, or at the moment given; never in the past, for what was charged since
would have to move: `backdating.py` does that. `expectedSeq` is the last event that the caller had seen:
if the member has changed since, nothing is done.
"""

from collections.abc import Callable
from typing import Annotated, Any

import strawberry
from strawberry import ID

from ..domain.hierarchy import AddNode, EndResource, MoveResource, ResourceEnded, ResourceMoved
from ..domain.life import (
    CancelPlan,
    CloseNode,
    IdentityAdded,
    IdentityRemoved,
    MoveNode,
    NodeChangePlanned,
    NodeClosed,
    NodeMoved,
    NodePlanCancelled,
    NodeRenamed,
    RenameNode,
    ResourceJoinedEarlier,
    ResourceLabelled,
    ResourceResumed,
    ResourceSuspended,
    ResumeResource,
    SuspendResource,
)
from ..domain.living import effective
from ..domain.refusals import Refused
from ..domain.tenant import Command, Event
from ..projections import timeline
from ..tenants.access import NotPermitted as Forbidden
from ..tenants.lines import LabelAs, SwapLines, Unsealed
from ..tenants.onboarding import Enrol
from .asking import Looking, Reach, period_of, reach_of, usage_types_of
from .changing import DryRun, carried_out, seqs_of
from .context import Answer, Context, Info
from .context import TryAgain as Later
from .hierarchy import Member, Wanted, read_tree
from .problems import (
    InsufficientAllowance,
    OfAllocation,
    Problem,
    UsualProblem,
)
from .refusals import TOLD, invalid, problem_of
from .scalars import Moment, Seq
from .wording import DRY, EVENTS, KEY, REPEATED

LINES_MAX = 20


@strawberry.type(description="The member has changed since the caller looked; nothing was done.")
class VersionConflict(Problem):
    node: ID
    changes: int = strawberry.field(description="How often it has changed since `expectedSeq`.")


@strawberry.type(description="It is so, or planned, durably.")
class LifeDone:
    member: Member = strawberry.field(description="As it stands now.")
    planned: bool = strawberry.field(description="It will take effect at a moment to come.")
    event_seqs: list[Seq] = strawberry.field(description=EVENTS)
    repeated: bool = strawberry.field(description=REPEATED)


OfLife = InsufficientAllowance | UsualProblem
LifeProblem = VersionConflict | OfLife
LifePayload = Annotated[LifeDone | DryRun | LifeProblem, strawberry.union("LifePayload")]


@strawberry.input(description="A change of one node or resource.")
class ChangeInput:
    idempotency_key: ID = strawberry.field(description=KEY)
    id: ID
    at: Moment | None = strawberry.field(default=None, description="When it takes effect; else now.")
    expected_seq: Seq | None = strawberry.field(
        default=None, description="The last event you had seen: refused if the member has changed since."
    )
    note: str = strawberry.field(default="", description="For the history. No personal data.")
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="Another name for a node.")
class RenameInput(ChangeInput):
    name: str = ""


@strawberry.input(description="A node or resource, and where it goes.")
class MoveInput(ChangeInput):
    to: ID = strawberry.field(default=ID(""), description="The new parent, or node.")


@strawberry.input(description="A node to close, and who succeeds it.")
class MergeInput(ChangeInput):
    into: ID = strawberry.field(
        default=ID(""), description="Who gets its nodes, resources and available quantity."
    )


@strawberry.input(description="Other lines for a resource.")
class ChangeLinesInput(ChangeInput):
    added: list[str] = strawberry.field(default_factory=list, description="Such as the new SIM's.")
    removed: list[str] = strawberry.field(default_factory=list)


@strawberry.input(description="Who or what a resource is for. It is personal, and stored sealed.")
class LabelInput:
    idempotency_key: ID
    id: ID
    label: str = strawberry.field(description='"" takes it away.')
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="A new node.")
class AddNodeInput:
    idempotency_key: ID
    id: ID
    parent: ID
    name: str
    kind: str = strawberry.field(description="division, cost_centre or group.")
    dry_run: bool = strawberry.field(default=False, description=DRY)


@strawberry.input(description="A new resource.")
class AddResourceInput:
    idempotency_key: ID
    id: ID
    node: ID
    kind: str = strawberry.field(description="msisdn, sip, extension, imsi or softphone.")
    lines: list[str] = strawberry.field(description="As the network knows it; stored sealed.")
    since: Moment | None = strawberry.field(default=None, description="Else now.")
    dry_run: bool = strawberry.field(default=False, description=DRY)


async def add_node(info: Info, input: AddNodeInput) -> LifePayload:
    command = AddNode(input.id, input.parent, input.name, input.kind)
    nodes = {"parent": input.parent}
    return await _change(info.context, input.idempotency_key, input.id, command, nodes, dry_run=input.dry_run)


async def add_resource(info: Info, input: AddResourceInput) -> LifePayload:
    context = info.context
    since = context.now() if input.since is None else input.since
    if len(input.lines) > LINES_MAX:
        return invalid("lines", f"give at most {LINES_MAX} lines")
    command = Enrol(input.id, input.node, input.kind, since, tuple(input.lines))
    nodes = {"node": input.node}
    return await _change(context, input.idempotency_key, input.id, command, nodes, dry_run=input.dry_run)


async def rename_node(info: Info, input: RenameInput) -> LifePayload:
    return await _carry_out(
        info, input, lambda expected: RenameNode(input.id, input.name, input.at or 0, input.note, expected)
    )


async def move_node(info: Info, input: MoveInput) -> LifePayload:
    return await _carry_out(
        info,
        input,
        lambda expected: MoveNode(input.id, input.to, input.at or 0, input.note, expected),
        to=input.to,
    )


async def merge_nodes(info: Info, input: MergeInput) -> LifePayload:
    if not input.into:
        return invalid("into", "say which node succeeds it")
    return await _carry_out(
        info,
        input,
        lambda expected: CloseNode(input.id, input.into, input.at or 0, input.note, expected),
        into=input.into,
    )


async def close_node(info: Info, input: ChangeInput) -> LifePayload:
    return await _carry_out(
        info, input, lambda expected: CloseNode(input.id, "", input.at or 0, input.note, expected)
    )


async def cancel_plan(info: Info, input: ChangeInput) -> LifePayload:
    return await _carry_out(info, input, lambda _: CancelPlan(input.id, input.note))


async def move_resource(info: Info, input: MoveInput) -> LifePayload:
    return await _dated(
        info, input, lambda at, expected: MoveResource(input.id, input.to, at, expected), to=input.to
    )


async def end_resource(info: Info, input: ChangeInput) -> LifePayload:
    return await _dated(info, input, lambda at, expected: EndResource(input.id, at, expected))


async def suspend_resource(info: Info, input: ChangeInput) -> LifePayload:
    return await _carry_out(
        info, input, lambda expected: SuspendResource(input.id, input.at or 0, input.note, expected)
    )


async def resume_resource(info: Info, input: ChangeInput) -> LifePayload:
    return await _carry_out(
        info, input, lambda expected: ResumeResource(input.id, input.at or 0, input.note, expected)
    )


async def change_lines(info: Info, input: ChangeLinesInput) -> LifePayload:
    if len(input.added) + len(input.removed) > 2 * LINES_MAX:
        return invalid("added", f"give at most {LINES_MAX} lines")
    lines = tuple(input.added), tuple(input.removed)
    return await _carry_out(
        info, input, lambda expected: SwapLines(input.id, *lines, input.at or 0, input.note, expected)
    )


async def label_resource(info: Info, input: LabelInput) -> LifePayload:
    command, nodes = LabelAs(input.id, input.label), {"id": input.id}
    return await _change(info.context, input.idempotency_key, input.id, command, nodes, dry_run=input.dry_run)


# --- carried out --------------------------------------------------------------------------------


async def _dated(
    info: Info, input: ChangeInput, command: Callable[[int, int | None], Command], **others: ID
) -> LifePayload:
    """A change whose rules know no clock: it is refused here where it would be in the past."""
    now = info.context.now()
    try:
        at = effective(input.at or 0, now)
    except Refused as refusal:
        return _told(refusal)
    return await _carry_out(info, input, lambda expected: command(at, expected), **others)


async def _carry_out(
    info: Info, input: ChangeInput, command: Callable[[int | None], Command | Unsealed], **others: ID
) -> LifePayload:
    context = info.context
    expected = None
    if input.expected_seq is not None:
        try:
            expected = await _version_at(context, input.id, input.expected_seq)
        except Later as later:
            return _told(later)
    nodes = {"id": input.id, **others}
    return await _change(
        context, input.idempotency_key, input.id, command(expected), nodes, dry_run=input.dry_run
    )


def _told(refusal: Forbidden | Refused | Later) -> OfLife:
    problem = problem_of(refusal)
    assert not isinstance(problem, OfAllocation), "nobody is frozen or capped by a change of the hierarchy"
    return problem


async def _version_at(context: Context, ident: str, seq: int) -> int:
    """How often a member had changed by an event."""

    def query(db: Any) -> list[int]:
        return timeline.changes_of(db, ident, seq)

    _, seqs = await context.read(query, ("timeline",))
    events = [recorded.event for recorded in await context.events(seqs)]
    return sum(_whom(event) == ident for event in events)


def _whom(event: Event) -> str:
    """Whose change it is, of whatever members it touches."""
    match event:
        case ResourceMoved(resource) | ResourceEnded(resource):
            return resource
        case NodeRenamed() | NodeMoved() | NodeClosed() | NodeChangePlanned() | NodePlanCancelled():
            return event.node
        case (
            ResourceJoinedEarlier()
            | ResourceSuspended()
            | ResourceResumed()
            | IdentityAdded()
            | IdentityRemoved()
            | ResourceLabelled()
        ):
            return event.resource
    return ""


async def _change(
    context: Context,
    key: str,
    ident: str,
    command: Command | Unsealed,
    nodes: dict[str, ID],
    *,
    dry_run: bool = False,
) -> LifePayload:
    try:
        answer = await carried_out(context, "organise", command, key, nodes, dry_run=dry_run)
    except Forbidden as refusal:
        return _told(refusal)
    except (Refused, Later) as refusal:
        return life_problem_of(refusal, await reach_of(context))
    if isinstance(answer, DryRun | UsualProblem):
        return answer
    return await _done(context, answer, ident)


async def _done(context: Context, answer: Answer, ident: str) -> LifeDone:
    now = context.now()
    state = await context.state()
    wanted = Wanted(
        [ident],
        0,
        period_of(state, None, now),
        usage_types_of(None, state),
        resources=False,
        balances=True,
        limits=True,
        life=True,
        units=state.types.units,
    )
    _, found = await read_tree(context, wanted, Looking(None, now), answer.last_seq)
    return LifeDone(
        member=found[0],
        planned=any(isinstance(event, NodeChangePlanned) for event in answer.events),
        event_seqs=seqs_of(answer),
        repeated=answer.repeated,
    )


_NAMED = ("holder", "successor", "by")
"""Facts that name members the caller did not name."""


def life_problem_of(refusal: Forbidden | Refused | Later, reach: Reach | None) -> LifeProblem:
    """The API's word for it, naming nobody beyond the caller's reach."""
    if not isinstance(refusal, Refused):
        return _told(refusal)
    facts = {
        name: value
        if name not in _NAMED or not value or (reach is not None and reach.sees_id(value))
        else "somebody beyond your reach"
        for name, value in refusal.facts.items()
    }
    if refusal.code == "version_conflict":
        return VersionConflict(
            code=refusal.code,
            message=TOLD[refusal.code].message.format(**facts),
            path=["input", "expectedSeq"],
            node=ID(facts["node"]),
            changes=refusal.facts["version"] - refusal.facts["expected"],
        )
    return _told(Refused(refusal.code, **facts))
