"""Closing dated back: what a node must have been, then and since, to have been closed or merged.

What it holds goes to its successor now; what it gave for usage since goes there as that is charged again.
"""

from collections.abc import Iterator

from .bucket import Transferred
from .hierarchy import Hierarchy
from .life import NodeClosed
from .living import Life
from .member import BEFORE_ALL, FOR_EVER, Member
from .refusals import Refused

Stood = tuple[Member, int, int]
"""Who stood on a node, or right below it, from when to when."""


def closed_earlier(hierarchy: Hierarchy, life: Life, node: Member, at: int, note: str) -> list[NodeClosed]:
    """Refuses a node that was not empty then, or has not been since; names who stood there last."""
    check_closes(hierarchy, life, node, at)
    there = [one for one in stood_on(hierarchy, node) if one[2] > at]
    if there:
        member, since, until = max(there, key=lambda one: (one[2], -one[0].ordinal))
        until = 0 if until == FOR_EVER else until
        raise Refused("not_empty_then", node=node.id, by=member.id, since=max(since, at), until=until)
    remaining = sum(family.remaining[node.ordinal] for family in life.running(at))
    if remaining:
        raise Refused("node_not_empty", node=node.id, nodes=0, resources=0, remaining=remaining)
    return [NodeClosed(node.id, "", at, note)]


def merged_earlier(
    hierarchy: Hierarchy, life: Life, node: Member, target: Member, at: int, note: str
) -> list[Transferred | NodeClosed]:
    check_closes(hierarchy, life, node, at)
    return [*life.emptied(node, target, at, note), NodeClosed(node.id, target.id, at, note)]


def check_closes(hierarchy: Hierarchy, life: Life, node: Member, at: int) -> None:
    """Refuses what is planned otherwise, and a moment before the last that it moved, or got another's."""
    life.check_may_close(node)
    plan = life.plans.get(node.ordinal)
    if plan is not None:
        raise Refused("planned_already", node=node.id, act=plan.act, planned_at=plan.at)
    moves = [since for since, _ in hierarchy.parents.get(node.ordinal, ())]
    merges = [since for since, successor in hierarchy.closed.values() if successor == node.ordinal]
    last = max((*moves, *merges), default=BEFORE_ALL)
    if at <= last:
        raise Refused("not_after_last_move", resource=node.id, since=last)


def stood_on(hierarchy: Hierarchy, node: Member) -> Iterator[Stood]:
    """Whoever ever was on a node, or a node right below it, that was not closed itself."""
    for ordinal in hierarchy.below.get(node.ordinal, ()):
        child = hierarchy.members[ordinal]
        ends, _ = hierarchy.closed.get(ordinal, (FOR_EVER, -1))
        assert child.parent is not None, "the root stands below nobody"
        dated = hierarchy.parents.get(ordinal) or [(BEFORE_ALL, child.parent)]
        for (since, parent), until in zip(dated, [*(one for one, _ in dated[1:]), FOR_EVER], strict=True):
            if parent is node and since < ends:
                yield child, since, min(until, ends)
    for resource in hierarchy.resources_of(node):
        stays = resource.stays
        for (since, path), until in zip(stays, [*(one for one, _ in stays[1:]), FOR_EVER], strict=True):
            if path[1:2] == (node.ordinal,):
                yield resource, since, until
