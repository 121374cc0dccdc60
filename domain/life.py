"""The life of a hierarchy: what may become of nodes and resources after they were added.

What takes effect later than now is told at once as planned, and paths follow it by date; at its
moment it is told again as done. Earlier usage stays where it was charged. `at` and `since` of a
command: microseconds since the epoch, 0 for now. `expected`: how often the member had changed
when whoever asks looked at it (`Life.versions`), or None where that does not matter.
"""

from typing import ClassVar, Literal

from msgspec import Struct

from .member import Identity

Act = Literal["rename", "move", "close"]


class NodeRenamed(Struct, frozen=True, array_like=True):
    """A node has another name."""

    topic: ClassVar[str] = "hierarchy.node_renamed"
    node: str
    name: str
    note: str = ""
    since: int = 0
    """Since when it is called so, where that was told back-dated; else since it was recorded."""


class NodeMoved(Struct, frozen=True, array_like=True):
    """A node, and all below it, stands below another from a moment on; its buckets go with it."""

    topic: ClassVar[str] = "hierarchy.node_moved"
    node: str
    parent: str
    since: int
    note: str = ""


class NodeClosed(Struct, frozen=True, array_like=True):
    """Nothing new comes to a node. What was on it and below it is its successor's from then on."""

    topic: ClassVar[str] = "hierarchy.node_closed"
    node: str
    successor: str
    """Empty where nothing was there any more."""
    at: int
    note: str = ""


class NodeChangePlanned(Struct, frozen=True, array_like=True):
    """What will become of a node at a moment to come."""

    topic: ClassVar[str] = "hierarchy.node_change_planned"
    node: str
    act: Act
    to: str
    """The new name, parent or successor."""
    at: int
    note: str = ""


class NodePlanCancelled(Struct, frozen=True, array_like=True):
    """What was planned for a node will not happen: by wish, or because it could not."""

    topic: ClassVar[str] = "hierarchy.node_plan_cancelled"
    node: str
    reason: str
    """Empty for a wish; else the code of what stood in its way at its moment."""
    note: str = ""


class ResourceSuspended(Struct, frozen=True, array_like=True):
    """A resource may not be used from a moment on, but for emergency calls."""

    topic: ClassVar[str] = "hierarchy.resource_suspended"
    resource: str
    at: int
    note: str = ""


class ResourceResumed(Struct, frozen=True, array_like=True):
    """A suspended resource may be used again from a moment on."""

    topic: ClassVar[str] = "hierarchy.resource_resumed"
    resource: str
    at: int
    note: str = ""


class ResourceJoinedEarlier(Struct, frozen=True, array_like=True):
    """A resource was on its first node since an earlier moment than was told."""

    topic: ClassVar[str] = "hierarchy.resource_joined_earlier"
    resource: str
    node: str
    """Its first node."""
    since: int
    until: int
    """Since when it was told to be there."""
    note: str = ""
    stayed: bool = True
    """Whether it has been on that node ever since."""


class IdentityAdded(Struct, frozen=True, array_like=True):
    """The network knows a resource by one more identity, from a moment on."""

    topic: ClassVar[str] = "hierarchy.identity_added"
    resource: str
    identity: Identity
    since: int
    note: str = ""


class IdentityRemoved(Struct, frozen=True, array_like=True):
    """An identity is this resource's no longer, from a moment on."""

    topic: ClassVar[str] = "hierarchy.identity_removed"
    resource: str
    token: bytes
    at: int
    note: str = ""


class ResourceLabelled(Struct, frozen=True, array_like=True):
    """Who or what a resource is for, sealed; both empty where that is no longer told."""

    topic: ClassVar[str] = "hierarchy.resource_labelled"
    resource: str
    token: bytes
    """Keyed hash of the label: by it a label is found, and found twice."""
    sealed: bytes


class RenameNode(Struct, frozen=True, array_like=True):
    """Give a node another name."""

    node: str
    name: str
    at: int = 0
    note: str = ""
    expected: int | None = None


class MoveNode(Struct, frozen=True, array_like=True):
    """Move a node with all that is below it. Its buckets go with it; what was used above stays there."""

    node: str
    parent: str
    since: int = 0
    note: str = ""
    expected: int | None = None


class CloseNode(Struct, frozen=True, array_like=True):
    """Close a node that is empty, or merge it into a successor, which gets all that can move."""

    node: str
    successor: str = ""
    at: int = 0
    note: str = ""
    expected: int | None = None


class CancelPlan(Struct, frozen=True, array_like=True):
    """Leave a node as it is, whatever was planned for it."""

    node: str
    note: str = ""


class CarryOutPlan(Struct, frozen=True, array_like=True):
    """Do what was planned for a node: its moment has come. The product itself asks for it."""

    node: str
    at: int


class SuspendResource(Struct, frozen=True, array_like=True):
    """Let a resource not be used, but for emergency calls."""

    resource: str
    at: int = 0
    note: str = ""
    expected: int | None = None


class ResumeResource(Struct, frozen=True, array_like=True):
    """Let a suspended resource be used again."""

    resource: str
    at: int = 0
    note: str = ""
    expected: int | None = None


class ChangeIdentities(Struct, frozen=True, array_like=True):
    """Give a resource other identities from a moment on: another SIM, another number."""

    resource: str
    added: tuple[Identity, ...]
    removed: tuple[bytes, ...]
    """By token."""
    since: int = 0
    note: str = ""
    expected: int | None = None


class LabelResource(Struct, frozen=True, array_like=True):
    """Say who or what a resource is for. Label and token come sealed; both empty take it away."""

    resource: str
    token: bytes
    sealed: bytes


NodeLife = RenameNode | MoveNode | CloseNode | CancelPlan | CarryOutPlan
ResourceLife = SuspendResource | ResumeResource | ChangeIdentities | LabelResource
LifeCommand = NodeLife | ResourceLife

LifeEvent = (
    NodeRenamed
    | NodeMoved
    | NodeClosed
    | NodeChangePlanned
    | NodePlanCancelled
    | ResourceSuspended
    | ResourceResumed
    | ResourceJoinedEarlier
    | IdentityAdded
    | IdentityRemoved
    | ResourceLabelled
)
