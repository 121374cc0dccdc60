"""What back-dated changes make of a resource: on its first node earlier, suspended or resumed earlier.

What was told of later moments stays as it was told.
"""

from .hierarchy import Hierarchy
from .life import ResourceJoinedEarlier
from .member import Member, Spell, Stays, go_on

Turns = tuple[tuple[int, bool], ...]
"""(since, whether suspended), oldest first."""


def join_earlier(hierarchy: Hierarchy, resource: Member, event: ResourceJoinedEarlier) -> None:
    """Along the ways that led up from its first node meanwhile; its first lines were its own, too."""
    node, first = hierarchy.by_id[event.node], event.until
    laid: Stays = []
    for at in (event.since, *(since for since, _ in node.stays if event.since < since < first)):
        go_on(laid, at, (resource.ordinal, *node.path_at(at)))
    for at, path in resource.stays:
        go_on(laid, at, path)
    resource.stays[:] = laid
    for token in hierarchy.tokens_of(resource):
        hierarchy.by_token[token] = tuple(
            Spell(resource, event.since, holder.until)
            if isinstance(holder, Spell) and holder.member is resource and holder.since == first
            else holder
            for holder in hierarchy.by_token[token]
        )


def with_turn(turns: Turns, turn: tuple[int, bool]) -> Turns:
    """In its place; of what follows, what says the same is left out."""
    found: list[tuple[int, bool]] = []
    for one in sorted((*turns, turn)):
        if not found or found[-1][1] != one[1]:
            found.append(one)
    return tuple(found)
