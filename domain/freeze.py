"""Freezing: a node, and so everything below it, that neither gives, receives nor uses until it is thawed.

Effective at once. A frozen member takes part in no transfer, and its usage is refused, but for
emergency calls. Where nothing is frozen, nothing is asked.
"""

from typing import ClassVar

from msgspec import Struct

from .hierarchy import Hierarchy, Member, NodeFrozen, Path
from .refusals import Refused, check_text


class NodeThawed(Struct, frozen=True, array_like=True):
    """A node is not frozen any more; one above it may still be."""

    topic: ClassVar[str] = "allocation.node_thawed"
    node: str
    note: str = ""


class FreezeNode(Struct, frozen=True, array_like=True):
    """Stop all transfers and all usage of a member, and of what is below it, but emergency calls."""

    node: str
    note: str = ""


class ThawNode(Struct, frozen=True, array_like=True):
    """Let a frozen member go on."""

    node: str
    note: str = ""


def decide_freeze(command: FreezeNode | ThawNode, hierarchy: Hierarchy) -> NodeFrozen | NodeThawed:
    check_text("note", command.note, empty=True)
    member = hierarchy.member(command.node)
    is_frozen = member.ordinal in hierarchy.frozen
    match command:
        case FreezeNode():
            if is_frozen:
                raise Refused("frozen_already", node=member.id)
            return NodeFrozen(member.id, command.note)
        case ThawNode():
            if not is_frozen:
                raise Refused("not_frozen", node=member.id)
            return NodeThawed(member.id, command.note)


def apply_freeze(event: NodeFrozen | NodeThawed, hierarchy: Hierarchy) -> None:
    ordinal = hierarchy.by_id[event.node].ordinal
    if isinstance(event, NodeFrozen):
        hierarchy.frozen[ordinal] = event
    else:
        hierarchy.frozen.pop(ordinal, None)


def frozen_on(path: Path, hierarchy: Hierarchy) -> int | None:
    """Who on a path is frozen: the nearest to its foot."""
    frozen = hierarchy.frozen
    return next((ordinal for ordinal in path if ordinal in frozen), None) if frozen else None


def check_thawed(member: Member, hierarchy: Hierarchy, now: int) -> None:
    """Refuses a member that is frozen, or stands below one that is."""
    if hierarchy.frozen:
        frozen = frozen_on(member.standing(now), hierarchy)
        if frozen is not None:
            raise Refused("frozen", node=member.id, frozen=hierarchy.members[frozen].id)
