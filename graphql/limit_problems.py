"""Limit problems: how raising a limit can fail beyond what every change can."""

import strawberry
from strawberry import ID

from ..domain.limit import SetLimit
from ..domain.raising import RaiseLimit
from ..domain.refusals import Refused
from ..tenants.access import NotPermitted
from .changing import DryRun, carried_out
from .context import Answer, Context, TryAgain
from .problems import Problem, ProblemType
from .refusals import problem_of
from .scalars import Quantity


@strawberry.type(description="Who may raise a limit, and how far.")
class Raiser:
    role: str
    up_to: Quantity | None = strawberry.field(description="Null where nothing bounds it.")


@strawberry.type(description="By the limit's own rule you may not raise it, or not so far.")
class MayNotRaise(Problem):
    node: ID
    window: str
    up_to: Quantity = strawberry.field(description="How far you may.")
    may_raise: list[Raiser]


async def limit_change(
    context: Context, command: SetLimit | RaiseLimit, idempotency_key: str, *, dry_run: bool
) -> Answer | DryRun | MayNotRaise | ProblemType:
    """Set or raise a limit once."""
    nodes = {"node": str(command.node)}
    try:
        return await carried_out(context, "set_limit", command, idempotency_key, nodes, dry_run=dry_run)
    except Refused as refusal:
        told = problem_of(refusal)
        return _may_not_raise(refusal, told) if refusal.code == "may_not_raise" else told
    except (NotPermitted, TryAgain) as refusal:
        return problem_of(refusal)


def _may_not_raise(refusal: Refused, told: ProblemType) -> MayNotRaise:
    facts = refusal.facts
    return MayNotRaise(
        code=refusal.code,
        message=told.message,
        path=told.path,
        node=ID(facts["node"]),
        window=facts["window"],
        up_to=Quantity(facts["up_to"]),
        may_raise=[
            Raiser(role=role, up_to=None if up_to is None else Quantity(up_to))
            for role, up_to in facts["may_raise"]
        ],
    )
