"""Telling of the hierarchy: who was added, moved, merged, closed, suspended, and under what lines."""

from typing import Protocol

from ..domain.hierarchy import NodeAdded, ResourceAdded, ResourceEnded, ResourceMoved
from ..domain.life import (
    IdentityAdded,
    IdentityRemoved,
    LifeEvent,
    NodeChangePlanned,
    NodeClosed,
    NodeMoved,
    NodePlanCancelled,
    NodeRenamed,
    ResourceJoinedEarlier,
    ResourceLabelled,
    ResourceResumed,
    ResourceSuspended,
)
from .scalars import moment_text

BEYOND = "a member beyond your reach"

HierarchyEvent = NodeAdded | ResourceAdded | ResourceMoved | ResourceEnded | LifeEvent


class Naming(Protocol):
    """Who tells, and to whom."""

    def name(self, ident: str) -> str:
        """Of a member, as its reader may know it."""
        ...

    def sees_id(self, ident: str) -> bool: ...


def hierarchy_sentence(teller: Naming, event: HierarchyEvent) -> str:
    match event:
        case NodeAdded(node, _, parent, name, kind, since):
            under = f" under {teller.name(parent)}" if parent else ""
            under += _since(since)
            # One that is only foreseen is not there to be asked for.
            told = name if parent and teller.sees_id(parent) else teller.name(node)
            return f"{teller.name(node) if teller.sees_id(node) else told} ({kind}) was added{under}."
        case NodeMoved(node, parent, since):
            return f"{teller.name(node)} moved under {teller.name(parent)} on {moment_text(since)}."
        case NodeClosed(node, successor, at):
            into = f" and merged into {teller.name(successor)}" if successor else ""
            return f"{teller.name(node)} was closed{into} on {moment_text(at)}."
        case NodeRenamed(node, name, _, since):
            return f"{_id_of(teller, node)} was renamed to {_if_seen(teller, node, name)}{_since(since)}."
        case NodeChangePlanned():
            return _planned(teller, event)
        case NodePlanCancelled(node, reason):
            why = f": {reason}" if reason else ""
            return f"What was planned for {teller.name(node)} was called off{why}."
        case _:
            return _resource(teller, event)


def _resource(
    teller: Naming,
    event: ResourceAdded
    | ResourceMoved
    | ResourceEnded
    | ResourceSuspended
    | ResourceResumed
    | ResourceJoinedEarlier
    | IdentityAdded
    | IdentityRemoved
    | ResourceLabelled,
) -> str:
    match event:
        case ResourceAdded(resource, _, node, kind):
            return f"{resource} ({kind}) was put on {teller.name(node)}."
        case ResourceMoved(resource, node, since):
            return f"{resource} moved to {teller.name(node)} on {moment_text(since)}."
        case ResourceEnded(resource, at):
            return f"{resource} ended on {moment_text(at)}."
        case ResourceSuspended(resource, at):
            return f"{resource} was suspended on {moment_text(at)}."
        case ResourceResumed(resource, at):
            return f"{resource} was resumed on {moment_text(at)}."
        case ResourceJoinedEarlier(resource, node, since, until):
            told = f"not only since {moment_text(until)}"
            return f"{resource} was on {teller.name(node)} since {moment_text(since)}, {told}."
        case IdentityAdded(resource, _, since):
            return f"{resource} got one more line on {moment_text(since)}."
        case IdentityRemoved(resource, _, at):
            return f"{resource} lost a line on {moment_text(at)}."
        case ResourceLabelled(resource, token):
            return f"{resource} {'was labelled' if token else 'lost its label'}."


def _planned(teller: Naming, event: NodeChangePlanned) -> str:
    name, when = teller.name(event.node), moment_text(event.at)
    match event.act:
        case "rename":
            return f"{name} will be renamed to {_if_seen(teller, event.node, event.to)} on {when}."
        case "move":
            return f"{name} will move under {teller.name(event.to)} on {when}."
        case "close":
            into = f" and merged into {teller.name(event.to)}" if event.to else ""
            return f"{name} will be closed{into} on {when}."


def _since(since: int) -> str:
    """Where it was told back-dated."""
    return f", since {moment_text(since)}" if since else ""


def _id_of(teller: Naming, ident: str) -> str:
    """Its name is another by now."""
    return ident if teller.sees_id(ident) else BEYOND


def _if_seen(teller: Naming, ident: str, text: str) -> str:
    return text if teller.sees_id(ident) else "another name"
