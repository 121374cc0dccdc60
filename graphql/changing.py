"""Changing: what all mutations have in common: who may, whether it may be seen, and what it led to.

A change is answered after it is stored and can be read. Whatever goes wrong is a `Problem`;
a node out of reach is one that does not exist. A dry run tells what would stand in the log.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import strawberry
from msgspec.structs import replace

from ..domain.refusals import Refused
from ..domain.sheet import check
from ..domain.tenant import Command, Event
from ..tenants.access import NotPermitted, Verb, require
from ..tenants.lines import Unsealed
from .asking import Looking, Reach, reach_of
from .context import Answer, Context, TryAgain
from .hierarchy import Member, Wanted, read_tree
from .problems import (
    BadLines,
    Frozen,
    InsufficientAllowance,
    InvalidInput,
    OverCommitted,
    ProblemType,
    UnknownNode,
    UsualProblem,
)
from .refusals import invalid, problem_of, unknown_node
from .scalars import Json, Seq
from .telling import Teller

KEY_MAX = 200


@strawberry.type(description="An event that would stand in the log.")
class ForeseenEvent:
    topic: str
    sentence: str = strawberry.field(description="What would have happened, for people.")
    event: Json = strawberry.field(description="Its own fields, without what is sealed.")


@strawberry.type(
    description="What the change would lead to, as things are now. Nothing has changed, "
    "and the idempotency key is not used up."
)
class DryRun:
    events: list[ForeseenEvent]


async def change(
    context: Context,
    verb: Verb,
    command: Command | Unsealed,
    idempotency_key: str,
    nodes: Mapping[str, str],
    *,
    dry_run: bool = False,
) -> Answer | DryRun | ProblemType:
    """Carry a command out once. `nodes` are those it names, by input field: all must be in reach."""
    try:
        return await carried_out(context, verb, command, idempotency_key, nodes, dry_run=dry_run)
    except (NotPermitted, Refused, TryAgain) as refusal:
        return problem_of(refusal)


def _within(reach: Reach, code: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Facts without those of members beyond the caller's reach."""
    if code == "bad_lines":
        lines = [bad | {"facts": _within(reach, bad["code"], bad["facts"])} for bad in facts["lines"]]
        return facts | {"lines": lines}
    whose = {"over_committed": "node", "frozen": "frozen"}.get(code)
    if whose is None or reach.sees_id(facts[whose]):
        return facts
    hidden = (whose, "available", "committed") if code == "over_committed" else (whose,)
    return facts | dict.fromkeys(hidden)


async def carried_out(
    context: Context,
    verb: Verb,
    command: Command | Unsealed,
    idempotency_key: str,
    nodes: Mapping[str, str],
    *,
    dry_run: bool = False,
) -> Answer | DryRun | InvalidInput | UnknownNode:
    """The same; what the rules refuse is raised."""
    require(context.principal, verb)
    reach = await reach_of(context)
    if (problem := bad_key(idempotency_key)) is not None:
        return problem
    for field, node in nodes.items():
        if not reach.sees_id(node):
            return unknown_node(node, field)
    try:
        answer = await context.submit(command, idempotency_key, dry=dry_run)
    except Refused as refusal:
        raise Refused(refusal.code, **_within(reach, refusal.code, refusal.facts)) from None
    return DryRun(events=await foreseen(context, reach, answer)) if answer.dry else answer


def check_reach_of_lines(reach: Reach, named: Iterable[Sequence[str]]) -> None:
    """Of many lines, with whom each is about: each is told by itself; who is out of reach does not exist."""
    check(
        [
            {"line": number, "code": "unknown_node", "facts": {"node": ident}}
            for number, idents in enumerate(named, 1)
            if (ident := next((one for one in idents if not reach.sees_id(one)), None)) is not None
        ]
    )


def of_lines(problem: ProblemType) -> BadLines | UsualProblem:
    """What can be wrong with many lines that move no allowance."""
    assert not isinstance(problem, InsufficientAllowance | OverCommitted | Frozen)
    return problem


def bad_key(key: str) -> InvalidInput | None:
    """What is wrong with an idempotency key."""
    if 0 < len(key) <= KEY_MAX and key.isprintable():
        return None
    return invalid("idempotencyKey", f"give a key of 1 to {KEY_MAX} printable characters")


async def foreseen(context: Context, reach: Reach, answer: Answer) -> list[ForeseenEvent]:
    return await foreseen_events(context, reach, answer.events)


async def foreseen_events(context: Context, reach: Reach, events: Iterable[Event]) -> list[ForeseenEvent]:
    teller = Teller(await context.state(), reach)
    return [
        ForeseenEvent(topic=event.topic, sentence=teller.sentence(event), event=teller.facts(event))
        for event in events
        if teller.sees(event)
    ]


def roles_of(context: Context) -> tuple[str, ...]:
    """The roles that a rule about raising or approving is asked with; a carrier is above such rules."""
    roles = context.principal.roles
    return () if "carrier" in roles else tuple(sorted(roles))


def seqs_of(answer: Answer) -> list[Seq]:
    return [Seq(seq) for seq in range(answer.first_seq, answer.last_seq + 1)]


async def changed(
    context: Context, answer: Answer, nodes: Sequence[str], period: str, usage_type: str
) -> list[Member]:
    """The members as they stand now, each without what is below it."""
    wanted = Wanted(list(nodes), 0, period, [usage_type], resources=False, balances=True, limits=True)
    wanted = replace(wanted, units=(await context.state()).types.units)
    _, members = await read_tree(context, wanted, Looking(None, context.now()), answer.last_seq)
    return members
