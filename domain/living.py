"""Living: decides what becomes of nodes and resources, and keeps the hierarchy as it then is.

A bucket belongs to its node and goes with it; counters stay where usage was counted. At every
moment, now and to come, the nodes form one tree below the root, within its greatest depth.
"""

from collections import ChainMap
from collections.abc import MutableMapping, Sequence

from .bucket import Family, Transferred
from .contract import Contracts
from .hierarchy import (
    DEPTH_MAX,
    AddNode,
    AddResource,
    EndResource,
    Hierarchy,
    MoveResource,
    ResourceEnded,
    ResourceMoved,
)
from .joined import join_earlier, with_turn
from .life import (
    CancelPlan,
    CarryOutPlan,
    ChangeIdentities,
    CloseNode,
    IdentityAdded,
    IdentityRemoved,
    LabelResource,
    LifeCommand,
    LifeEvent,
    MoveNode,
    NodeChangePlanned,
    NodeClosed,
    NodeLife,
    NodeMoved,
    NodePlanCancelled,
    NodeRenamed,
    RenameNode,
    ResourceJoinedEarlier,
    ResourceLabelled,
    ResourceResumed,
    ResourceSuspended,
    ResumeResource,
    SuspendResource,
)
from .member import FOR_EVER, Identity, Member, Spell
from .refusals import InvariantBroken, Refused, check_text
from .ways import paths_from

IDENTITIES_MAX = 20
"""Of one resource, at a time."""

Told = LifeEvent | Transferred


class Life:
    """What is planned, how often who has changed, and what resources are for."""

    def __init__(
        self, hierarchy: Hierarchy, contracts: Contracts, families: dict[tuple[str, str], Family]
    ) -> None:
        self._hierarchy = hierarchy
        self._contracts = contracts
        self._families = families
        self.plans: dict[int, NodeChangePlanned] = {}
        """By the node's ordinal: one at a time."""
        self.versions: MutableMapping[int, int] = {}
        """How often a member has changed since it was added; nothing for never."""
        self.labels: MutableMapping[int, tuple[bytes, bytes]] = {}
        """Of resources: token and sealed label."""

    def drafted(self, draft: Hierarchy) -> "Life":
        """The same on a draft of the hierarchy, to try changes of resources on."""
        life = Life(draft, self._contracts, self._families)
        # No copies: of a million resources each has a version, and each command would copy them all.
        life.plans = self.plans
        life.versions, life.labels = ChainMap({}, self.versions), ChainMap({}, self.labels)
        return life

    # --- what time asks for ---------------------------------------------------------------------

    def due(self, now: int) -> list[CarryOutPlan]:
        """What is to be carried out by now, oldest first."""
        due = sorted((plan.at, plan.node) for plan in self.plans.values() if plan.at <= now)
        return [CarryOutPlan(node, at) for at, node in due]

    def next_due(self) -> int | None:
        """When there will be something to carry out."""
        return min((plan.at for plan in self.plans.values()), default=None)

    # --- decide ---------------------------------------------------------------------------------

    def decide(self, command: LifeCommand, now: int) -> Sequence[Told]:
        match command:
            case RenameNode() | MoveNode() | CloseNode() | CancelPlan() | CarryOutPlan():
                return self._node(command, now)
            case SuspendResource() | ResumeResource():
                return [self._suspend(command, now)]
            case ChangeIdentities():
                return self.decide_identities(command, now)
            case LabelResource(resource, token, sealed):
                self._hierarchy.resource(resource)
                return [ResourceLabelled(resource, token, sealed)]

    def _node(self, command: NodeLife, now: int) -> Sequence[Told]:
        match command:
            case CancelPlan(ident, note):
                check_text("note", note, empty=True)
                return [NodePlanCancelled(self._planned(ident).node, "", note)]
            case CarryOutPlan(ident, at):
                return self._carry_out(self._planned(ident), at, now)
        node = self._hierarchy.node(command.node)
        check_text("note", command.note, empty=True)
        self.check_version(node, command.expected)
        self._hierarchy.check_open(node)
        at = effective(command.since if isinstance(command, MoveNode) else command.at, now)
        told = self._change(command, node, at, now)
        return [_plan(command, at)] if at > now else told

    def check_version(self, member: Member, expected: int | None) -> None:
        """Refuses what was asked of a member as it no longer is."""
        version = self.versions.get(member.ordinal, 0)
        if expected is not None and expected != version:
            raise Refused("version_conflict", node=member.id, expected=expected, version=version)

    def check_asked(self, command: AddNode | AddResource | MoveResource | EndResource) -> None:
        """The same for what the hierarchy itself decides."""
        if isinstance(command, MoveResource | EndResource) and command.expected is not None:
            self.check_version(self._hierarchy.resource(command.resource), command.expected)

    def _change(
        self, command: RenameNode | MoveNode | CloseNode, node: Member, at: int, now: int
    ) -> list[Told]:
        if node.ordinal in self.plans and (at > now or not isinstance(command, RenameNode)):
            plan = self.plans[node.ordinal]
            raise Refused("planned_already", node=node.id, act=plan.act, planned_at=plan.at)
        match command:
            case RenameNode(_, name):
                check_text("name", name)
                return [NodeRenamed(node.id, name, command.note)]
            case MoveNode(_, parent):
                self._check_move(node, self._hierarchy.node(parent), at)
                return [NodeMoved(node.id, parent, at, command.note)]
            case CloseNode(_, successor):
                return self._close(node, successor, at, command.note)

    def _planned(self, ident: str) -> NodeChangePlanned:
        plan = self.plans.get(self._hierarchy.node(ident).ordinal)
        if plan is None:
            raise Refused("nothing_planned", node=ident)
        return plan

    def _carry_out(self, plan: NodeChangePlanned, at: int, now: int) -> Sequence[Told]:
        """As it was planned; what cannot be done any more is called off."""
        if plan.at != at or plan.at > now:
            raise Refused("nothing_planned", node=plan.node)
        node = self._hierarchy.node(plan.node)
        try:
            self._hierarchy.check_open(node)
            match plan.act:
                case "rename":
                    return [NodeRenamed(plan.node, plan.to, plan.note)]
                case "move":
                    self._check_move(node, self._hierarchy.node(plan.to), plan.at)
                    return [NodeMoved(plan.node, plan.to, plan.at, plan.note)]
                case "close":
                    return self._close(node, plan.to, plan.at, plan.note)
        except Refused as refusal:
            return [NodePlanCancelled(plan.node, refusal.code)]

    # --- moving ---------------------------------------------------------------------------------

    def _check_move(self, node: Member, parent: Member, at: int) -> None:
        self._check_not_root(node)
        self._hierarchy.check_open(parent)
        if parent is node.parent:
            raise Refused("stands_there_already", node=node.id, parent=parent.id)
        self._check_tree(node, {node.ordinal: parent}, at)

    def _check_not_root(self, node: Member) -> None:
        if node is self._hierarchy.root:
            raise Refused("root_stays", node=node.id)

    def _check_tree(self, node: Member, above: dict[int, Member], at: int) -> None:
        """Refuses other parents that would make a circle, or too deep a tree, then or later."""
        height = self._height(node)
        for moment in self.times(at):
            movers = {ordinal: self._hierarchy.members[ordinal] for ordinal in above}
            movers |= {
                ordinal: self._hierarchy.members[ordinal]
                for ordinal, plan in self.plans.items()
                if plan.act == "move" and plan.at <= moment
            }
            for mover in movers.values():
                depth = self._way_up(mover, above, moment)
                if depth + (height if mover.ordinal in above else self._height(mover)) - 1 > DEPTH_MAX:
                    raise Refused("too_deep", node=node.id, depth_max=DEPTH_MAX)

    def _way_up(self, node: Member, above: dict[int, Member], at: int) -> int:
        """How many nodes there are on the way up from a node, were some below others."""
        depth, one = 1, above.get(node.ordinal) or self._hierarchy.parent_at(node, at)
        while one is not None:
            if one is node or depth > 2 * DEPTH_MAX:
                raise Refused("cycle", node=node.id)
            depth, one = depth + 1, above.get(one.ordinal) or self._hierarchy.parent_at(one, at)
        return depth

    def _height(self, node: Member) -> int:
        return max(len(one.way) for one in self._hierarchy.nodes_under(node)) - len(node.way) + 1

    def times(self, at: int) -> list[int]:
        """A moment, and those after it at which nodes move: later ones, where it is over, or planned."""
        dated = self._hierarchy.parents.values()
        return [at, *sorted({since for moves in dated for since, _ in moves if since > at})]

    # --- closing --------------------------------------------------------------------------------

    def _close(self, node: Member, successor: str, at: int, note: str) -> list[Told]:
        """The events of a close; with a successor those that empty it come first."""
        self.check_may_close(node)
        if not successor:
            self._check_empty(node, at)
            return [NodeClosed(node.id, "", at, note)]
        target = self._hierarchy.check_open(self._hierarchy.node(successor))
        if target is node or node.ordinal in target.way:
            raise Refused("cycle", node=node.id)
        for child in self._hierarchy.children(node):
            self._check_tree(child, {child.ordinal: target}, at)
        return [*self.emptied(node, target, at, note), NodeClosed(node.id, target.id, at, note)]

    def check_may_close(self, node: Member) -> None:
        self._check_not_root(node)
        for plan in self.plans.values():
            if plan.act != "rename" and plan.to == node.id:
                raise Refused("planned_into", node=node.id, by=plan.node, planned_at=plan.at)

    def _check_empty(self, node: Member, at: int) -> None:
        closed = self._hierarchy.closed
        nodes = [child for child in self._hierarchy.children(node) if child.ordinal not in closed]
        resources = [
            resource
            for resource in self._hierarchy.resources_of(node)
            if any(path[1:2] == (node.ordinal,) for path in paths_from(resource, at))
        ]
        remaining = sum(family.remaining[node.ordinal] for family in self.running(at))
        if nodes or resources or remaining:
            raise Refused(
                "node_not_empty",
                node=node.id,
                nodes=len(nodes),
                resources=len(resources),
                remaining=remaining,
            )

    def emptied(self, node: Member, target: Member, at: int, note: str) -> list[Transferred]:
        """What can move of its buckets in periods that are not over."""
        reason = "return" if target.ordinal in node.way else "trade"
        return [
            Transferred(node.id, target.id, family.usage_type, family.period, available, reason, note)  # type: ignore[arg-type]
            for family in self.running(at)
            if (available := family.available(node.ordinal)) > 0
        ]

    def running(self, at: int) -> list[Family]:
        periods = self._contracts.periods
        return [family for family in self._families.values() if periods[family.period].ends_at > at]

    # --- resources ------------------------------------------------------------------------------

    def _suspend(
        self, command: SuspendResource | ResumeResource, now: int
    ) -> ResourceSuspended | ResourceResumed:
        resource = self._hierarchy.living(command.resource)
        check_text("note", command.note, empty=True)
        self.check_version(resource, command.expected)
        at = effective(command.at, now)
        told = self._hierarchy.suspended.get(resource.ordinal, ())
        if told and at <= told[-1][0]:
            raise Refused("not_after_last_change", resource=resource.id, since=told[-1][0])
        suspended = bool(told) and told[-1][1]
        if isinstance(command, SuspendResource):
            if suspended:
                raise Refused("suspended_already", resource=resource.id, since=told[-1][0])
            return ResourceSuspended(resource.id, at, command.note)
        if not suspended:
            raise Refused("not_suspended", resource=resource.id)
        return ResourceResumed(resource.id, at, command.note)

    def decide_identities(self, command: ChangeIdentities, now: int) -> list[IdentityAdded | IdentityRemoved]:
        resource = self._hierarchy.living(command.resource)
        check_text("note", command.note, empty=True)
        self.check_version(resource, command.expected)
        since = effective(command.since, now)
        held = {identity.token for identity in resource.identities}
        added = [identity.token for identity in command.added]
        if not set(command.removed) <= held:
            raise Refused("not_its_line", resource=resource.id)
        if len({*held, *added}) != len(held) + len(added):
            raise Refused("identity_twice", resource=resource.id)
        left = len(held - set(command.removed)) + len(added)
        if not left or not (added or command.removed):
            raise Refused("no_identity", resource=resource.id)
        if left > IDENTITIES_MAX:
            raise Refused("too_many_identities", resource=resource.id, identities_max=IDENTITIES_MAX)
        for token in (*added, *command.removed):
            self._check_since(resource, token, since)
        removed = [IdentityRemoved(resource.id, token, since, command.note) for token in command.removed]
        return [
            *removed,
            *(IdentityAdded(resource.id, identity, since, command.note) for identity in command.added),
        ]

    def _check_since(self, resource: Member, token: bytes, since: int) -> None:
        """Refuses what would begin before, or end before it began."""
        first = resource.stays[0][0]
        for holder in self._hierarchy.by_token.get(token, ()):
            if isinstance(holder, Spell) and holder.member is resource:
                first = max(first, holder.since if holder.until == FOR_EVER else holder.until)
            elif not isinstance(holder, Spell) and holder.id == resource.id:
                continue
            elif holder.held_until() > since:
                raise Refused("identity_in_use", resource=resource.id, holder=holder.id)
        if since < first:
            raise Refused("not_after_last_change", resource=resource.id, since=first)

    # --- apply ----------------------------------------------------------------------------------

    def apply(self, event: LifeEvent) -> None:
        hierarchy = self._hierarchy
        member = self.changed(event)
        match event:
            case NodeRenamed(_, name):
                self._done(member, "rename", name)
                member.name = name
            case NodeMoved(_, parent, since):
                above = hierarchy.by_id[parent]
                if not self._done(member, "move", parent):
                    hierarchy.put(member, above, since, self.times(since))
                hierarchy.arrive(member, above)
            case NodeClosed(_, successor, at):
                self._done(member, "close", successor)
                self._closed(member, hierarchy.by_id.get(successor), at)
            case NodeChangePlanned(_, act, to, at):
                if act == "move":
                    hierarchy.put(member, hierarchy.by_id[to], at, self.times(at))
                self.plans[member.ordinal] = event
            case NodePlanCancelled():
                plan = self.plans.pop(member.ordinal)
                if plan.act == "move":
                    hierarchy.take_back(member, plan.at, self.times(plan.at))
            case ResourceSuspended(_, at) | ResourceResumed(_, at):
                told = hierarchy.suspended.get(member.ordinal, ())
                turn = (at, isinstance(event, ResourceSuspended))
                hierarchy.suspended[member.ordinal] = with_turn(told, turn)
            case ResourceJoinedEarlier():
                join_earlier(hierarchy, member, event)
            case IdentityAdded(_, identity, since):
                add_identity(hierarchy, member, identity, since)
            case IdentityRemoved(_, token, at):
                remove_identity(hierarchy, member, token, at)
            case ResourceLabelled(_, token, sealed):
                self.labels.pop(member.ordinal, None)
                if token:
                    self.labels[member.ordinal] = (token, sealed)

    def changed(self, event: LifeEvent | ResourceMoved | ResourceEnded) -> Member:
        """Whom an event is about, counted as a change of it."""
        match event:
            case NodeRenamed() | NodeMoved() | NodeClosed() | NodeChangePlanned() | NodePlanCancelled():
                member = self._hierarchy.by_id[event.node]
            case _:
                member = self._hierarchy.by_id[event.resource]
        self.versions[member.ordinal] = self.versions.get(member.ordinal, 0) + 1
        return member

    def _done(self, node: Member, act: str, to: str) -> bool:
        """Whether it was planned; then it is no more."""
        plan = self.plans.get(node.ordinal)
        if plan is None or (plan.act, plan.to) != (act, to):
            return False
        del self.plans[node.ordinal]
        return True

    def _closed(self, node: Member, successor: Member | None, at: int) -> None:
        hierarchy = self._hierarchy
        hierarchy.closed[node.ordinal] = (at, -1 if successor is None else successor.ordinal)
        if successor is None:
            return
        hierarchy.inherit(node, successor, at, self.times(at))
        hierarchy.succeed(node, successor, at)

    def check_whole(self) -> None:
        """The paths are those that follow from who stands below whom, each within one tree."""
        for member in self._hierarchy.members:
            if member.is_node:
                above = member.parent.way if member.parent is not None else ()
                if member.way != (member.ordinal, *above) or member.way[-1] != 0:
                    raise InvariantBroken("a node stands below its parent", node=member.id, way=member.way)
            for since, path in member.stays:
                if path and (path[-1] != 0 or len(set(path)) != len(path)):
                    raise InvariantBroken(
                        "a path leads to the root", member=member.id, since=since, path=path
                    )


def effective(at: int, now: int) -> int:
    """The moment that is meant; refuses one that is over: what was charged since would have to move."""
    if at and at < now:
        raise Refused("in_the_past", at=at, now=now)
    return at or now


def add_identity(hierarchy: Hierarchy, resource: Member, identity: Identity, since: int) -> None:
    resource.identities = (*resource.identities, identity)
    holders = hierarchy.by_token.get(identity.token, ())
    hierarchy.by_token[identity.token] = (*holders, Spell(resource, since, FOR_EVER))


def remove_identity(hierarchy: Hierarchy, resource: Member, token: bytes, at: int) -> None:
    resource.identities = tuple(one for one in resource.identities if one.token != token)
    hierarchy.former.setdefault(resource.ordinal, set()).add(token)
    hierarchy.by_token[token] = tuple(
        Spell(resource, _since_of(holder), at)
        if holder.id == resource.id and holder.held_until() > at
        else holder
        for holder in hierarchy.by_token[token]
    )


def _since_of(holder: Member | Spell) -> int:
    return holder.since if isinstance(holder, Spell) else holder.stays[0][0]


def _plan(command: RenameNode | MoveNode | CloseNode, at: int) -> NodeChangePlanned:
    match command:
        case RenameNode(node, name):
            return NodeChangePlanned(node, "rename", name, at, command.note)
        case MoveNode(node, parent):
            return NodeChangePlanned(node, "move", parent, at, command.note)
        case CloseNode(node, successor):
            return NodeChangePlanned(node, "close", successor, at, command.note)
