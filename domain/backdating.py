"""Changes of the hierarchy that are dated back, within periods that are open, and the job that follows.

A node with its subtree has stood elsewhere, was merged into another or closed; a resource has joined,
ended, was suspended or resumed earlier than was told. What was used since is charged again as if that had
been told in time, by a job that begins with the change, in one command.
One at a time: each goes by the hierarchy as it is.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from .bucket import Transferred
from .closing import closed_earlier, merged_earlier
from .contract import Contracts
from .correcting import (
    CorrectAdd,
    CorrectClose,
    CorrectEnd,
    Correction,
    CorrectJoin,
    CorrectMerge,
    CorrectMove,
    CorrectNodeMove,
    CorrectRename,
    CorrectResumption,
    CorrectSuspension,
    OfNode,
    OfResource,
)
from .hierarchy import DEPTH_MAX, AddNode, Hierarchy, MoveResource, NodeAdded, ResourceEnded, ResourceMoved
from .life import (
    IdentityRemoved,
    NodeClosed,
    NodeMoved,
    NodeRenamed,
    ResourceJoinedEarlier,
    ResourceResumed,
    ResourceSuspended,
)
from .living import Life
from .member import BEFORE_ALL, Holder, Member, Spell, placed_since
from .rating_job import RatingStarted, Scope, StartRating
from .refusals import Refused, check_text
from .rerating import Rerating
from .rollover import RollOvers

CAUSE = "hierarchy_corrected"


Told = (
    ResourceMoved
    | NodeAdded
    | NodeRenamed
    | NodeMoved
    | NodeClosed
    | Transferred
    | ResourceJoinedEarlier
    | IdentityRemoved
    | ResourceEnded
    | ResourceSuspended
    | ResourceResumed
    | RatingStarted
)


class Backdating:
    """Decides them, on the parts of one tenant's state."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        contracts: Contracts,
        rollovers: RollOvers,
        rerating: Rerating,
        life: Life,
    ) -> None:
        self._hierarchy = hierarchy
        self._contracts = contracts
        self._rollovers = rollovers
        self._rerating = rerating
        self._life = life

    def decide(self, command: Correction, now: int) -> Sequence[Told]:
        self.check_alone()
        check_text("note", command.note, empty=True)
        self._check_member(command)
        self.check_open(_moment(command), now)
        told, scope = self._changed(command)
        started = StartRating(command.job, scope, CAUSE, command.note, command.shown)
        begun = self._rerating.decide(started, now)
        return [*told, *begun]  # type: ignore[list-item]

    def check_alone(self) -> None:
        """Each is charged by where all stood at its beginning: another would pull it away meanwhile."""
        for name, job in self._rerating.jobs.items():
            started = job.started
            if started.scope.guided:
                raise Refused("correction_runs", job=name, note=started.note, changed=job.changed)

    def check_open(self, at: int, now: int) -> None:
        if at >= now:
            raise Refused("not_in_the_past", at=at, now=now)
        opened = self._contracts.period_at(at)
        if opened is None or self._rollovers.is_closed(opened, now):
            raise Refused("period_closed", period=self._contracts.name_at(at))

    def _check_member(self, command: Correction) -> None:
        """Refuses what was asked of who is not there, or no longer is as whoever asks has seen it."""
        match command:
            case CorrectAdd():
                return
            case CorrectMove(expected=None):
                return  # the hierarchy says who is not there
            case _:
                self._life.check_version(self._member(command), command.expected)

    def _member(self, command: CorrectMove | OfNode | OfResource) -> Member:
        if isinstance(command, OfNode):
            return self._hierarchy.check_open(self._hierarchy.node(command.node))
        return self._hierarchy.resource(command.resource)

    def _changed(self, command: Correction) -> tuple[list[Told], Scope]:
        match command:
            case CorrectAdd():
                return self._added(command)
            case CorrectMove(_, resource, node, since):
                (moved,) = self._hierarchy.decide(MoveResource(resource, node, since))
                assert isinstance(moved, ResourceMoved)
                return [moved], Scope(node=resource, starts_at=since, guided=True)
        member = self._member(command)
        match command:
            case CorrectRename(_, node, name, since, note):
                check_text("name", name)
                return [NodeRenamed(node, name, note, since)], _nothing(node, since)
            case CorrectNodeMove():
                return self._moved(command, member)
            case CorrectMerge():
                return self._merged(command, member)
            case CorrectClose(_, _, at, note):
                told = closed_earlier(self._hierarchy, self._life, member, at, note)
                return [*told], Scope(node=member.id, starts_at=at, guided=True)
            case CorrectJoin():
                return self._joined(command, member)
            case CorrectEnd():
                return self._ended(command, member)
            case CorrectSuspension():
                return self._suspended(command, member)
            case CorrectResumption():
                return self._resumed(command, member)

    # --- a node and all below it ----------------------------------------------------------------

    def _added(self, command: CorrectAdd) -> tuple[list[Told], Scope]:
        """Paths know no beginning of a node: whoever turns out to have been there may be moved there."""
        if not command.parent:
            raise Refused("second_root", root=self._hierarchy.root.id)
        added = AddNode(command.node, command.parent, command.name, command.kind)
        (told,) = self._hierarchy.decide(added)
        assert isinstance(told, NodeAdded)
        return [replace(told, since=command.since)], _nothing(command.node, command.since)

    def _moved(self, command: CorrectNodeMove, node: Member) -> tuple[list[Told], Scope]:
        hierarchy, since = self._hierarchy, command.since
        if node is hierarchy.root:
            raise Refused("root_stays", node=node.id)
        parent = hierarchy.check_open(hierarchy.node(command.parent))
        plan = self._life.plans.get(node.ordinal)
        if plan is not None and plan.act != "rename":
            raise Refused("planned_already", node=node.id, act=plan.act, planned_at=plan.at)
        if parent is node.parent:
            raise Refused("stands_there_already", node=node.id, parent=parent.id)
        moved_at = max((at for at, _ in hierarchy.parents.get(node.ordinal, ())), default=BEFORE_ALL)
        if since <= moved_at:
            raise Refused("not_after_last_move", resource=node.id, since=moved_at)
        self._check_tree(node, parent, since)
        scope = Scope(node=node.id, starts_at=since, guided=True)
        return [NodeMoved(node.id, parent.id, since, command.note)], scope

    def _merged(self, command: CorrectMerge, node: Member) -> tuple[list[Told], Scope]:
        target = self._hierarchy.check_open(self._hierarchy.node(command.successor))
        told = merged_earlier(self._hierarchy, self._life, node, target, command.at, command.note)
        # The node itself does not go there, but what is below it.
        self._check_tree(node, target, command.at, itself=0)
        return [*told], Scope(node=node.id, starts_at=command.at, guided=True)

    def _check_tree(self, node: Member, parent: Member, since: int, itself: int = 1) -> None:
        """Refuses what would have made a circle, or too deep a tree, at any moment since."""
        for at in self._life.times(since):
            above = self._way_up(node, parent, at)
            if above + self._height_at(node, at) - 1 + itself > DEPTH_MAX:
                raise Refused("too_deep", node=node.id, depth_max=DEPTH_MAX)

    def _way_up(self, node: Member, parent: Member | None, at: int) -> int:
        """How many nodes there were from one up to the root; refuses a way that comes by another."""
        above = 0
        while parent is not None and above <= DEPTH_MAX:
            if parent is node:
                raise Refused("cycle", node=node.id)
            above, parent = above + 1, self._hierarchy.parent_at(parent, at)
        return above

    def _height_at(self, node: Member, at: int) -> int:
        """How many levels of nodes there were, from a node down."""
        height, level = 0, [node]
        while level and height <= DEPTH_MAX:
            height += 1
            ever = [
                self._hierarchy.members[one]
                for up in level
                for one in self._hierarchy.below.get(up.ordinal, ())
            ]
            above = {up.ordinal for up in level}
            level = [one for one in ever if (p := self._hierarchy.parent_at(one, at)) and p.ordinal in above]
        return height

    # --- a resource -----------------------------------------------------------------------------

    def _joined(self, command: CorrectJoin, resource: Member) -> tuple[list[Told], Scope]:
        first, path = resource.stays[0]
        if command.at >= first:
            raise Refused("joined_already", resource=resource.id, since=first)
        removed: list[Told] = []
        whose = {resource.id: None}
        for token in self._first_tokens(resource, first):
            holder = self._holder_before(token, resource, command.at, first)
            if holder is not None:
                removed.append(IdentityRemoved(holder, token, command.at, command.note))
            # What was taken back stands with whoever it was charged to first.
            whose.update(dict.fromkeys(one.id for one in self._hierarchy.by_token[token]))
        scope = Scope(starts_at=command.at, ends_at=first, guided=True, resources=tuple(whose), anew=True)
        node = self._hierarchy.members[path[1]].id
        stayed = all(along[1:2] == path[1:2] for _, along in resource.stays if along)
        joined = ResourceJoinedEarlier(resource.id, node, command.at, first, command.note, stayed)
        return [*removed, joined], scope

    def _first_tokens(self, resource: Member, first: int) -> list[bytes]:
        """The lines that it had from its first moment on."""
        return [
            token
            for token in self._hierarchy.tokens_of(resource)
            if any(
                _begins(holder) == first
                for holder in self._hierarchy.by_token[token]
                if holder.id == resource.id
            )
        ]

    def _holder_before(self, token: bytes, resource: Member, since: int, first: int) -> str | None:
        """Who had a line at that moment, and gives it up; refuses where another got it only since."""
        found = None
        for holder in self._hierarchy.by_token[token]:
            if holder.id == resource.id or holder.held_until() <= since or _begins(holder) >= first:
                continue
            if _begins(holder) >= since:
                raise Refused("identity_in_use", resource=resource.id, holder=holder.id)
            found = holder.id
        return found

    def _ended(self, command: CorrectEnd, resource: Member) -> tuple[list[Told], Scope]:
        told_at, path = resource.stays[-1]
        until = 0 if path else told_at
        if until and command.at >= until:
            raise Refused("resource_ended", resource=resource.id, ended_at=until)
        last = placed_since(resource.stays if path else resource.stays[:-1])
        if command.at <= last:
            raise Refused("not_after_last_move", resource=resource.id, since=last)
        scope = _of(resource, command.at, until)
        return [ResourceEnded(resource.id, command.at)], scope

    def _suspended(self, command: CorrectSuspension, resource: Member) -> tuple[list[Told], Scope]:
        began, ended, before = self._last_spell(resource)
        if command.at <= before:
            raise Refused("not_after_last_change", resource=resource.id, since=before)
        if began is not None and began <= command.at and (ended is None or command.at <= ended):
            raise Refused("suspended_already", resource=resource.id, since=began)
        until = began if began is not None and command.at < began else 0
        told = ResourceSuspended(resource.id, command.at, command.note)
        return [told], _of(resource, command.at, until)

    def _resumed(self, command: CorrectResumption, resource: Member) -> tuple[list[Told], Scope]:
        began, ended, _ = self._last_spell(resource)
        if began is None or (ended is not None and command.at >= ended):
            raise Refused("not_suspended", resource=resource.id)
        if command.at <= began:
            raise Refused("not_after_last_change", resource=resource.id, since=began)
        told = ResourceResumed(resource.id, command.at, command.note)
        return [told], _of(resource, command.at, ended or 0)

    def _last_spell(self, resource: Member) -> tuple[int | None, int | None, int]:
        """When it was suspended last, and resumed, if it was; and when the spell before that ended."""
        turns = self._hierarchy.suspended.get(resource.ordinal, ())
        if not turns:
            return None, None, BEFORE_ALL
        began = turns[-1] if turns[-1][1] else turns[-2]
        ended = None if turns[-1][1] else turns[-1][0]
        earlier = [at for at, _ in turns if at < began[0]]
        return began[0], ended, max(earlier, default=BEFORE_ALL)


def _of(resource: Member, since: int, until: int) -> Scope:
    return Scope(starts_at=since, ends_at=until, guided=True, resources=(resource.id,), anew=True)


def _nothing(node: str, since: int) -> Scope:
    """Nobody's usage: what a node is called, and since when it is there, is charged to nobody."""
    return Scope(starts_at=since, ends_at=since + 1, guided=True, resources=(node,))


def _begins(holder: Holder) -> int:
    return holder.since if isinstance(holder, Spell) else holder.stays[0][0]


def _moment(command: Correction) -> int:
    match command:
        case CorrectMove() | CorrectAdd() | CorrectRename() | CorrectNodeMove():
            return command.since
        case _:
            return command.at
