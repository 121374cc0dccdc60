"""Changing: what all mutations have in common: who may, whether it may be seen, and what it led to.

A change is answered after it is stored and can be read. Whatever goes wrong is a `Problem`;
a node out of reach is one that does not exist.
"""

from collections.abc import Sequence

from ..domain.bucket import Allocate, Return, Trade
from ..domain.limit import SetLimit
from ..domain.refusals import Refused
from ..tenants.access import NotPermitted, Verb, require
from .asking import Looking, reach_of
from .context import Answer, Context, TryAgain
from .hierarchy import Member, Wanted, read_tree
from .problems import ProblemType
from .refusals import invalid, problem_of, unknown_node
from .scalars import Seq

KEY_MAX = 200

Changing = Allocate | Return | Trade | SetLimit


async def change(
    context: Context, verb: Verb, command: Changing, idempotency_key: str, nodes: dict[str, str]
) -> Answer | ProblemType:
    """Carry a command out once. `nodes` are those it names, by input field: all must be in reach."""
    try:
        require(context.principal, verb)
        reach = await reach_of(context)
        if not 0 < len(idempotency_key) <= KEY_MAX or not idempotency_key.isprintable():
            return invalid("idempotencyKey", f"give a key of 1 to {KEY_MAX} printable characters")
        for field, node in nodes.items():
            if not reach.sees_id(node):
                return unknown_node(node, field)
        return await context.submit(command, idempotency_key)
    except (NotPermitted, Refused, TryAgain) as refusal:
        return problem_of(refusal)


def seqs_of(answer: Answer) -> list[Seq]:
    return [Seq(seq) for seq in range(answer.first_seq, answer.last_seq + 1)]


async def changed(
    context: Context, answer: Answer, nodes: Sequence[str], period: str, usage_type: str
) -> list[Member]:
    """The members as they stand now, each without what is below it."""
    wanted = Wanted(list(nodes), 0, period, [usage_type], resources=False, balances=True, limits=True)
    _, members = await read_tree(context, wanted, Looking(None, context.now()), answer.last_seq)
    return members
