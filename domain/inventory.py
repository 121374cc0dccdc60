"""The inventory in one command: resources joined, moved, renumbered, suspended and ended line by line.

Each line is decided against what the lines before it lead to. All of them are carried out, or none:
every line that cannot be is told, with its number, field and reason.
"""

from collections import ChainMap
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

from msgspec import Struct

from .hierarchy import (
    AddResource,
    EndResource,
    Hierarchy,
    MoveResource,
    ResourceAdded,
    ResourceEnded,
    ResourceMoved,
)
from .life import (
    ChangeIdentities,
    LabelResource,
    LifeEvent,
    ResumeResource,
    SuspendResource,
)
from .living import Life, effective
from .member import Identity, Member, Spell
from .refusals import Refused, check_text

LINES_MAX = 5_000
"""Of one command: more would keep those who charge waiting. A longer file is several commands."""
TOLD_MAX = 1_000
"""Of the lines that cannot be carried out."""
STATUSES = ("active", "suspended", "ended")

Happened = ResourceAdded | ResourceMoved | ResourceEnded | LifeEvent

FIELDS = {
    "unknown_node": "node",
    "node_closed": "node",
    "unknown_kind": "kind",
    "no_identity": "lines",
    "identity_in_use": "lines",
    "identity_twice": "lines",
    "too_many_identities": "lines",
    "not_its_line": "lines",
    "in_the_past": "since",
    "not_after_last_move": "since",
    "not_after_last_change": "since",
    "resource_ended": "status",
    "ends_already": "status",
    "unknown_status": "status",
    "kind_stays": "kind",
    "not_in_the_past": "since",
    "period_closed": "since",
    "joined_already": "since",
    "lines_change_now": "lines",
    "suspended_already": "status",
    "not_suspended": "status",
}
"""The column that a refusal of a line is about; else its id."""
REMEDIES = {
    "unknown_node": "name a node that exists",
    "node_closed": "name a node that is open",
    "unknown_kind": "use one of the known kinds",
    "no_identity": "give at least one line",
    "identity_in_use": "end or change the other holder of this line first",
    "identity_twice": "give each line once",
    "too_many_identities": "give fewer lines",
    "in_the_past": "leave it empty for now, give a moment to come, or name a job that charges again",
    "not_after_last_move": "give a moment after its last move",
    "not_after_last_change": "give a moment after its last change",
    "resource_ended": "add a resource under another id",
    "unknown_status": "use active, suspended or ended",
    "kind_stays": "end it, and add one of the other kind",
    "period_closed": "give a moment in a period that is open: what was charged before stays",
    "joined_already": "give a moment before it was there",
    "lines_change_now": "leave the date empty to change lines, in a file of its own: they are not dated back",
    "bad_text": "1 to 200 printable characters",
    "exists_already": "choose another id: a node has this one",
    "resource_twice": "say all of a resource in one line",
    "unknown_resource": "give its node, kind and lines to add it",
}


class Line(Struct, frozen=True, array_like=True):
    """How a resource shall be from a moment on (0 is now); None leaves that as it is."""

    number: int
    resource: str
    node: str | None
    kind: str | None
    status: str | None
    since: int
    identities: tuple[Identity, ...] | None
    label: tuple[bytes, bytes] | None


class ChangeInventory(Struct, frozen=True, array_like=True):
    """Make resources be as these lines say: all of them, or nothing."""

    lines: tuple[Line, ...]
    note: str = ""


class CorrectInventory(Struct, frozen=True, array_like=True):
    """The same where lines may be about moments that are over: what was used since is charged again."""

    job: str
    lines: tuple[Line, ...]
    note: str = ""
    shown: str = ""
    """The digest of the difference that was shown to whoever confirmed it."""


def decide_inventory(command: ChangeInventory, hierarchy: Hierarchy, life: Life, now: int) -> list[Happened]:
    check_text("note", command.note, empty=True)
    if not 0 < len(command.lines) <= LINES_MAX:
        raise Refused("too_many_lines", lines=len(command.lines), lines_max=LINES_MAX)
    draft = Draft(hierarchy)
    return line_by_line(command.lines, Deciding(draft, life.drafted(draft), now, command.note))


def line_by_line(lines: Sequence[Line], deciding: "Deciding") -> list[Happened]:
    """All of them, or every one that cannot be, with the reason."""
    events: list[Happened] = []
    refused: list[dict[str, Any]] = []
    seen: set[str] = set()
    for line in lines:
        try:
            if line.resource in seen:
                raise Refused("resource_twice", resource=line.resource)
            seen.add(line.resource)
            events += deciding.line(line)
        except Refused as refusal:
            refused.append(_told(line, refusal))
    if refused:
        raise Refused("lines_refused", lines=refused[:TOLD_MAX], refused=len(refused))
    if not events:
        raise Refused("nothing_to_change", lines=len(lines))
    return events


def _told(line: Line, refusal: Refused) -> dict[str, Any]:
    code = refusal.code
    field = str(refusal.facts["field"]) if code == "bad_text" else FIELDS.get(code, "resource")
    return {
        "line": line.number,
        "field": field,
        "code": code,
        "resource": line.resource,
        "remedy": REMEDIES.get(code, "correct this line"),
    }


class Deciding:
    """Line after line, each against what came of those before."""

    def __init__(self, draft: "Draft", life: Life, now: int, note: str) -> None:
        self._draft = draft
        self._life = life
        self._now = now
        self._note = note

    def line(self, line: Line) -> list[Happened]:
        if line.status is not None and line.status not in STATUSES:
            raise Refused("unknown_status", status=line.status)
        known = self._draft.by_id.get(line.resource)
        if known is None:
            return self._joined(line)
        if known.is_node:
            raise Refused("exists_already", id=line.resource)
        return self._changed(line, known)

    def _joined(self, line: Line) -> list[Happened]:
        if line.node is None or line.kind is None:
            raise Refused("unknown_resource", resource=line.resource)
        since = line.since or self._now
        add = AddResource(line.resource, line.node, line.kind, since, line.identities or ())
        happened = self._applied(self._draft.decide(add))
        return [*happened, *self._labelled(line), *self._stands(line, max(since, self._now))]

    def _changed(self, line: Line, known: Member) -> list[Happened]:
        if line.kind is not None and line.kind != known.kind:
            raise Refused("kind_stays", resource=line.resource, kind=known.kind)
        at = effective(line.since, self._now)
        happened: list[Happened] = []
        assert known.parent is not None
        if line.node is not None and line.node != known.parent.id:
            happened += self._applied(self._draft.decide(MoveResource(line.resource, line.node, at)))
        return [
            *happened,
            *self._renumbered(line, known, at),
            *self._labelled(line),
            *self._stands(line, at),
        ]

    def _renumbered(self, line: Line, known: Member, at: int) -> list[Happened]:
        if line.identities is None:
            return []
        held = {identity.token for identity in known.identities}
        wanted = {identity.token for identity in line.identities}
        if held == wanted and len(wanted) == len(line.identities):
            return []
        added = tuple(one for one in line.identities if one.token not in held)
        removed = tuple(one.token for one in known.identities if one.token not in wanted)
        change = ChangeIdentities(line.resource, added, removed, at, self._note)
        return self._applied(self._life.decide_identities(change, self._now))

    def _labelled(self, line: Line) -> list[Happened]:
        known = self._draft.by_id[line.resource]
        if line.label is None or line.label[0] == self._life.labels.get(known.ordinal, (b"", b""))[0]:
            return []
        return self._applied(self._life.decide(LabelResource(line.resource, *line.label), self._now))

    def _stands(self, line: Line, at: int) -> list[Happened]:
        known = self._draft.by_id[line.resource]
        ends = not known.stays[-1][1]
        told = self._draft.suspended.get(known.ordinal, ())
        suspended = bool(told) and told[-1][1]
        match line.status:
            case "ended" if not ends:
                return self._applied(self._draft.decide(EndResource(line.resource, at)))
            case "active" | "suspended" if ends:
                raise Refused("resource_ended", resource=line.resource)
            case "suspended" if not suspended:
                return self._applied(
                    self._life.decide(SuspendResource(line.resource, at, self._note), self._now)
                )
            case "active" if suspended:
                return self._applied(
                    self._life.decide(ResumeResource(line.resource, at, self._note), self._now)
                )
        return []

    def _applied(self, events: Sequence[Any]) -> list[Happened]:
        for event in events:
            self._draft.own(event)
            if isinstance(event, ResourceAdded | ResourceMoved | ResourceEnded):
                self._draft.apply(event)
            else:
                self._life.apply(event)
        return [*events]


class _Layered(list[Member]):
    """Members with others in place of some, and some more: a million are not copied for a few."""

    def __init__(self, below: list[Member]) -> None:
        super().__init__()
        self._below = below
        self._own: dict[int, Member] = {}
        self._size = len(below)

    def __len__(self) -> int:
        return self._size

    def __bool__(self) -> bool:
        return self._size > 0

    def __getitem__(self, ordinal: Any) -> Any:
        own = self._own.get(ordinal)
        return self._below[ordinal] if own is None else own

    def __setitem__(self, ordinal: Any, member: Any) -> None:
        self._own[ordinal] = member

    def __iter__(self) -> Iterator[Member]:
        return (self[ordinal] for ordinal in range(self._size))

    def append(self, member: Member) -> None:
        self._own[self._size] = member
        self._size += 1


class Draft(Hierarchy):
    """A hierarchy to try changes of resources on: what they touch is copied first."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        super().__init__()
        self.members = _Layered(hierarchy.members)
        self.by_id = ChainMap({}, hierarchy.by_id)
        self.by_token = ChainMap({}, hierarchy.by_token)
        self.placed = ChainMap({}, hierarchy.placed)
        self.suspended = ChainMap({}, hierarchy.suspended)
        self.below, self.parents, self.closed = hierarchy.below, hierarchy.parents, hierarchy.closed
        self._owned: set[int] = set()
        self._own_places: set[int] = set()

    def own(self, event: Any) -> None:
        """Copy what an event is about to change."""
        node = event.node if isinstance(event, ResourceAdded | ResourceMoved) else ""
        if node:
            ordinal = self.by_id[node].ordinal
            if ordinal not in self._own_places:
                self._own_places.add(ordinal)
                self.placed[ordinal] = list(self.placed.get(ordinal, ()))
        known = self.by_id.get(event.resource)
        if known is not None and known.ordinal not in self._owned:
            self._own_member(known)
        elif known is None:
            self._owned.add(event.ordinal)

    def _own_member(self, known: Member) -> None:
        self._owned.add(known.ordinal)
        mine = copy(known)
        mine.stays = known.stays.copy()
        self.members[known.ordinal] = mine
        self.by_id[known.id] = mine
        for token in set(self.tokens_of(known)):
            self.by_token[token] = tuple(_holder(holder, known, mine) for holder in self.by_token[token])


def _holder(holder: Member | Spell, known: Member, mine: Member) -> Member | Spell:
    if isinstance(holder, Spell):
        return Spell(mine, holder.since, holder.until) if holder.member is known else holder
    return mine if holder is known else holder
