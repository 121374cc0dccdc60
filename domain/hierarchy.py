"""The enterprise's hierarchy: organization nodes to any depth, and the resources on them.

Every node and resource is a member with an ordinal, given once and never used again. A path is
the tuple of ordinals from a member up to the root; usage is charged along the path that was
valid when it happened, so stays on a node, the nodes above a node, and who has an identity are dated.
What becomes of members later is decided in `living.py`.
"""

from collections.abc import MutableMapping
from typing import ClassVar

from msgspec import Struct

from .member import Holder, Identity, Member, Path, before, placed_since
from .refusals import Refused, check_text
from .ways import Ways, join

__all__ = ("Identity", "Member", "Path")

NODE_KINDS = ("enterprise", "division", "cost_centre", "group")
RESOURCE_KINDS = ("msisdn", "sip", "extension", "imsi", "softphone")
MEMBERS_MAX = 4_000_000
DEPTH_MAX = 64


class NodeAdded(Struct, frozen=True, array_like=True):
    """An organization node has entered the hierarchy, below its parent."""

    topic: ClassVar[str] = "hierarchy.node_added"
    node: str
    ordinal: int
    parent: str
    name: str
    kind: str
    since: int = 0
    """Since when it exists, where that was told back-dated; else since it was recorded."""


class ResourceAdded(Struct, frozen=True, array_like=True):
    """A resource stands on a node from a date on, under its identities."""

    topic: ClassVar[str] = "hierarchy.resource_added"
    resource: str
    ordinal: int
    node: str
    kind: str
    since: int
    identities: tuple[Identity, ...]


class ResourceMoved(Struct, frozen=True, array_like=True):
    """A resource stands on another node from a date on."""

    topic: ClassVar[str] = "hierarchy.resource_moved"
    resource: str
    node: str
    since: int


class ResourceEnded(Struct, frozen=True, array_like=True):
    """A resource is nobody's from this moment on."""

    topic: ClassVar[str] = "hierarchy.resource_ended"
    resource: str
    at: int


class NodeFrozen(Struct, frozen=True, array_like=True):
    """A node and everything below it neither gives, receives nor uses from now on."""

    topic: ClassVar[str] = "allocation.node_frozen"
    node: str
    note: str = ""


class AddNode(Struct, frozen=True, array_like=True):
    """Add an organization node. The first one, without a parent, is the enterprise."""

    node: str
    parent: str
    name: str
    kind: str


class AddResource(Struct, frozen=True, array_like=True):
    """Put a resource on a node, from a date on."""

    resource: str
    node: str
    kind: str
    since: int
    identities: tuple[Identity, ...]


class MoveResource(Struct, frozen=True, array_like=True):
    """Move a resource to another node from a date on. Earlier usage stays where it was charged."""

    resource: str
    node: str
    since: int
    expected: int | None = None


class EndResource(Struct, frozen=True, array_like=True):
    """End a resource: usage from this moment on is not its own any more."""

    resource: str
    at: int
    expected: int | None = None


class Hierarchy(Ways):
    """Who exists, under whom, since when."""

    def __init__(self) -> None:
        super().__init__()
        self.by_id: MutableMapping[str, Member] = {}
        self.by_token: MutableMapping[bytes, tuple[Holder, ...]] = {}
        self.frozen: dict[int, NodeFrozen] = {}
        """Who is frozen, with the event that says so: see freeze.py."""
        self.closed: dict[int, tuple[int, int]] = {}
        """Node -> since when it is closed, and the ordinal of its successor, or -1."""
        self.suspended: MutableMapping[int, tuple[tuple[int, bool], ...]] = {}
        """Of resources that ever were: (since, whether suspended), oldest first."""
        self.former: dict[int, set[bytes]] = {}
        """Of resources: tokens of identities that they had until some moment."""

    @property
    def root(self) -> Member:
        if not self.members:
            raise Refused("no_hierarchy", remedy="add the enterprise node first")
        return self.members[0]

    def node(self, ident: str) -> Member:
        member = self.by_id.get(ident)
        if member is None or not member.is_node:
            raise Refused("unknown_node", node=ident)
        return member

    def member(self, ident: str) -> Member:
        member = self.by_id.get(ident)
        if member is None:
            raise Refused("unknown_node", node=ident)
        return member

    def resource(self, ident: str) -> Member:
        member = self.by_id.get(ident)
        if member is None or member.is_node:
            raise Refused("unknown_resource", resource=ident)
        return member

    def guide(self, token: bytes, at: int) -> Path | None:
        """The path of whoever used this identity at this moment.

        None when nobody ever had it, an empty path when nobody had it at that time.
        """
        members = self.by_token.get(token)
        if members is None:
            return None
        for member in members:
            path = member.path_at(at)
            if path:
                return path
        return ()

    def decide(
        self, command: AddNode | AddResource | MoveResource | EndResource
    ) -> list[NodeAdded | ResourceAdded | ResourceMoved | ResourceEnded]:
        match command:
            case AddNode():
                return [self._add_node(command)]
            case AddResource():
                return [self._add_resource(command)]
            case MoveResource(resource, node, since):
                moved = self.living(resource)
                self.check_open(self.node(node))
                self._check_after(moved, since)
                return [ResourceMoved(resource, node, since)]
            case EndResource(resource, at):
                self._check_after(self.living(resource), at)
                return [ResourceEnded(resource, at)]

    def check_open(self, node: Member) -> Member:
        """The node; refuses one that is closed: nothing new comes to it."""
        closed = self.closed.get(node.ordinal)
        if closed is not None:
            successor = self.members[closed[1]].id if closed[1] >= 0 else ""
            raise Refused("node_closed", node=node.id, closed_at=closed[0], successor=successor)
        return node

    def tokens_of(self, resource: Member) -> list[bytes]:
        """Of all identities that it has, or ever had: what was sealed under one of them is its own."""
        return [
            *(identity.token for identity in resource.identities),
            *sorted(self.former.get(resource.ordinal, ())),
        ]

    def is_suspended(self, ordinal: int, at: int) -> bool:
        """Whether a resource was suspended at a moment."""
        suspended = False
        for since, begins in self.suspended.get(ordinal, ()):
            if since > at:
                break
            suspended = begins
        return suspended

    def _check_after(self, resource: Member, since: int) -> None:
        last = placed_since(resource.stays)
        if since <= last:
            raise Refused("not_after_last_move", resource=resource.id, since=last)

    def living(self, ident: str) -> "Member":
        resource = self.resource(ident)
        ended_at, path = resource.stays[-1]
        if not path:
            raise Refused("resource_ended", resource=ident, ended_at=ended_at)
        return resource

    def _add_node(self, command: AddNode) -> NodeAdded:
        self._check_new(command.node)
        check_text("name", command.name, empty=True)
        if command.kind not in NODE_KINDS:
            raise Refused("unknown_kind", kind=command.kind, known=list(NODE_KINDS))
        if not command.parent and self.members:
            raise Refused("second_root", root=self.root.id)
        if command.parent and self._depth(self.check_open(self.node(command.parent))) >= DEPTH_MAX:
            raise Refused("too_deep", node=command.node, depth_max=DEPTH_MAX)
        return NodeAdded(
            command.node, len(self.members), command.parent, command.name or command.node, command.kind
        )

    def _add_resource(self, command: AddResource) -> ResourceAdded:
        self._check_new(command.resource)
        self.check_open(self.node(command.node))
        if command.kind not in RESOURCE_KINDS:
            raise Refused("unknown_kind", kind=command.kind, known=list(RESOURCE_KINDS))
        if not command.identities:
            raise Refused("no_identity", resource=command.resource)
        if len({identity.token for identity in command.identities}) != len(command.identities):
            raise Refused("identity_twice", resource=command.resource)
        for identity in command.identities:
            self.check_free(command.resource, identity.token, command.since)
        return ResourceAdded(
            command.resource,
            len(self.members),
            command.node,
            command.kind,
            command.since,
            command.identities,
        )

    def check_free(self, resource: str, token: bytes, since: int) -> None:
        """Refuses an identity that somebody has at that moment, or later."""
        for holder in self.by_token.get(token, ()):
            if holder.held_until() > since:
                raise Refused("identity_in_use", resource=resource, holder=holder.id)

    def _depth(self, node: Member) -> int:
        """The most nodes there are, or will be, on the way up from a node."""
        return max(len(node.way), *(len(path) for _, path in node.stays)) if node.stays else len(node.way)

    def _check_new(self, ident: str) -> None:
        check_text("id", ident)
        if ident in self.by_id:
            raise Refused("exists_already", id=ident)
        if len(self.members) >= MEMBERS_MAX:
            raise Refused("too_many_members", members_max=MEMBERS_MAX)

    def apply(self, event: NodeAdded | ResourceAdded | ResourceMoved | ResourceEnded) -> None:
        match event:
            case NodeAdded(node, ordinal, parent, name, kind):
                member = Member(node, ordinal, kind, name, is_node=True)
                if parent:
                    above = member.parent = self.by_id[parent]
                    member.way = (ordinal, *above.way)
                    member.stays = [(since, (ordinal, *path)) for since, path in above.stays]
                    join(self.below.setdefault(above.ordinal, []), ordinal)
                self._enter(member)
            case ResourceAdded(resource, ordinal, node, kind, since, identities):
                member = Member(resource, ordinal, kind, "", is_node=False)
                member.identities = identities
                self._enter(member)
                self._stay(member, self.by_id[node], since)
                for identity in identities:
                    self.by_token[identity.token] = (*self.by_token.get(identity.token, ()), member)
            case ResourceMoved(resource, node, since):
                self._stay(self.by_id[resource], self.by_id[node], since)
            case ResourceEnded(resource, at):
                stays = self.by_id[resource].stays
                stays[:] = [*before(stays, at), (at, ())]

    def _enter(self, member: Member) -> None:
        self.members.append(member)
        self.by_id[member.id] = member

    def _stay(self, member: Member, node: Member, since: int) -> None:
        """On a node from a moment on, along the ways that lead up from it then and later."""
        member.parent = node
        ways = [(since, node.path_at(since)), *(way for way in node.stays if way[0] > since)]
        member.stays[:] = [*before(member.stays, since), *((at, (member.ordinal, *way)) for at, way in ways)]
        join(self.placed.setdefault(node.ordinal, []), member.ordinal)
