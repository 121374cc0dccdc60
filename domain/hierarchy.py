"""The enterprise's hierarchy: organization nodes to any depth, and the resources on them.

Every node and resource is a member with an ordinal, given once and never used again. A path is
the tuple of ordinals from a member up to the root; usage is charged along the path that was
valid when it happened, so a resource's stay on a node is dated.
"""

from bisect import bisect_right
from typing import ClassVar

from msgspec import Struct

from .refusals import Refused, check_text

NODE_KINDS = ("enterprise", "division", "cost_centre", "group")
RESOURCE_KINDS = ("msisdn", "sip", "extension", "imsi", "softphone")
MEMBERS_MAX = 4_000_000
DEPTH_MAX = 64

Path = tuple[int, ...]


class Identity(Struct, frozen=True, array_like=True):
    """A name under which the network knows a resource. The name itself is sealed."""

    token: bytes
    """Keyed hash of the name: what usage is guided by."""
    sealed: bytes


class NodeAdded(Struct, frozen=True, array_like=True):
    """An organization node has entered the hierarchy, below its parent."""

    topic: ClassVar[str] = "hierarchy.node_added"
    node: str
    ordinal: int
    parent: str
    name: str
    kind: str


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


class EndResource(Struct, frozen=True, array_like=True):
    """End a resource: usage from this moment on is not its own any more."""

    resource: str
    at: int


class Member:
    """A node or a resource, as the next decision needs it."""

    __slots__ = ("id", "identities", "is_node", "kind", "name", "ordinal", "parent", "path", "stays")

    def __init__(self, ident: str, ordinal: int, kind: str, name: str, *, is_node: bool) -> None:
        self.id = ident
        self.ordinal = ordinal
        self.kind = kind
        self.name = name
        self.is_node = is_node
        self.parent: Member | None = None
        self.path: Path = (ordinal,)
        self.stays: list[tuple[int, Path]] = []
        self.identities: tuple[Identity, ...] = ()

    def path_at(self, at: int) -> Path:
        """A resource's path at a moment; empty before its first stay and after its end."""
        stays = self.stays
        if len(stays) == 1:
            since, path = stays[0]
            return path if at >= since else ()
        index = bisect_right(stays, at, key=_since) - 1
        return stays[index][1] if index >= 0 else ()

    def standing(self, now: int) -> Path:
        """Where the member stands in the hierarchy now; a resource that does not, where it last did."""
        return self.path if self.is_node else self.path_at(now) or self.path


class Hierarchy:
    """Who exists, under whom, since when."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.by_id: dict[str, Member] = {}
        self.by_token: dict[bytes, tuple[Member, ...]] = {}

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
                moved = self._living(resource)
                self.node(node)
                if since <= moved.stays[-1][0]:
                    raise Refused("not_after_last_move", resource=resource, since=moved.stays[-1][0])
                return [ResourceMoved(resource, node, since)]
            case EndResource(resource, at):
                ended = self._living(resource)
                if at <= ended.stays[-1][0]:
                    raise Refused("not_after_last_move", resource=resource, since=ended.stays[-1][0])
                return [ResourceEnded(resource, at)]

    def _living(self, ident: str) -> "Member":
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
        if command.parent and len(self.node(command.parent).path) >= DEPTH_MAX:
            raise Refused("too_deep", node=command.node, depth_max=DEPTH_MAX)
        return NodeAdded(
            command.node, len(self.members), command.parent, command.name or command.node, command.kind
        )

    def _add_resource(self, command: AddResource) -> ResourceAdded:
        self._check_new(command.resource)
        self.node(command.node)
        if command.kind not in RESOURCE_KINDS:
            raise Refused("unknown_kind", kind=command.kind, known=list(RESOURCE_KINDS))
        if not command.identities:
            raise Refused("no_identity", resource=command.resource)
        if len({identity.token for identity in command.identities}) != len(command.identities):
            raise Refused("identity_twice", resource=command.resource)
        for identity in command.identities:
            for holder in self.by_token.get(identity.token, ()):
                if holder.stays[-1][1] or holder.stays[-1][0] > command.since:
                    raise Refused("identity_in_use", resource=command.resource, holder=holder.id)
        return ResourceAdded(
            command.resource,
            len(self.members),
            command.node,
            command.kind,
            command.since,
            command.identities,
        )

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
                    member.parent = self.by_id[parent]
                    member.path = (ordinal, *member.parent.path)
                self._enter(member)
            case ResourceAdded(resource, ordinal, node, kind, since, identities):
                member = Member(resource, ordinal, kind, "", is_node=False)
                member.identities = identities
                self._enter(member)
                self._stay(member, node, since)
                for identity in identities:
                    self.by_token[identity.token] = (*self.by_token.get(identity.token, ()), member)
            case ResourceMoved(resource, node, since):
                self._stay(self.by_id[resource], node, since)
            case ResourceEnded(resource, at):
                self.by_id[resource].stays.append((at, ()))

    def _enter(self, member: Member) -> None:
        self.members.append(member)
        self.by_id[member.id] = member

    def _stay(self, member: Member, node: str, since: int) -> None:
        member.parent = self.by_id[node]
        member.path = (member.ordinal, *member.parent.path)
        member.stays.append((since, member.path))


def _since(stay: tuple[int, Path]) -> int:
    return stay[0]
