"""The inventory, dated back: lines about moments that are over, in periods that are open, in one command.

Each such line is the back-dated change that it tells of, decided as that is, against what the lines
before it lead to. One job then charges again what any of these resources has used since the earliest of
these moments. All of the lines, or none; lines about now or later are decided as in any inventory.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from .backdating import CAUSE, Backdating
from .contract import Contracts
from .correcting import CorrectEnd, Correction, CorrectJoin, CorrectMove, CorrectResumption, CorrectSuspension
from .hierarchy import Hierarchy, ResourceAdded
from .inventory import CorrectInventory, Deciding, Draft, Happened, Line, line_by_line
from .living import Life
from .member import Member
from .rating_job import RatingStarted, Scope, StartRating
from .refusals import Refused, check_text
from .rerating import Rerating
from .rollover import RollOvers

LINES_MAX = 200
"""Each resource is looked for in every charge that is read."""

Told = Happened | RatingStarted
AnyCorrection = Correction | CorrectInventory


def decide_dated(
    command: CorrectInventory,
    hierarchy: Hierarchy,
    life: Life,
    contracts: Contracts,
    rollovers: RollOvers,
    rerating: Rerating,
    now: int,
) -> list[Told]:
    check_text("note", command.note, empty=True)
    if not 0 < len(command.lines) <= LINES_MAX:
        raise Refused("too_many_lines", lines=len(command.lines), lines_max=LINES_MAX)
    draft = Draft(hierarchy)
    draft.former = {ordinal: set(tokens) for ordinal, tokens in hierarchy.former.items()}
    drafted = life.drafted(draft)
    backdating = Backdating(draft, contracts, rollovers, rerating, drafted)
    backdating.check_alone()
    deciding = _Dating(draft, drafted, now, command, backdating)
    events = line_by_line(command.lines, deciding)
    if not deciding.scopes:
        raise Refused("nothing_dated_back", lines=len(command.lines))
    started = StartRating(command.job, _united(deciding.scopes), CAUSE, command.note, command.shown)
    return [*events, *rerating.decide(started, now)]  # type: ignore[list-item]


def _united(scopes: Sequence[Scope]) -> Scope:
    ends = [scope.ends_at for scope in scopes]
    return Scope(
        starts_at=min(scope.starts_at for scope in scopes),
        ends_at=0 if 0 in ends else max(ends),
        guided=True,
        resources=tuple(dict.fromkeys(one for scope in scopes for one in scope.resources)),
        anew=True,
    )


class _Dating(Deciding):
    """Line after line; of those that are dated back, what is to be charged again."""

    def __init__(
        self, draft: Draft, life: Life, now: int, command: CorrectInventory, backdating: Backdating
    ) -> None:
        super().__init__(draft, life, now, command.note)
        self._command = command
        self._backdating = backdating
        self.scopes: list[Scope] = []

    def _is_over(self, line: Line) -> bool:
        return 0 < line.since < self._now

    def _joined(self, line: Line) -> list[Happened]:
        """Its line may wait in suspense for it."""
        happened = super()._joined(line)
        if self._is_over(line):
            self._backdating.check_open(line.since, self._now)
            assert isinstance(happened[0], ResourceAdded)
            self._charge_again(Scope(starts_at=line.since, resources=(line.resource,)))
        return happened

    def _changed(self, line: Line, known: Member) -> list[Happened]:
        if not self._is_over(line):
            return super()._changed(line, known)
        if line.kind is not None and line.kind != known.kind:
            raise Refused("kind_stays", resource=line.resource, kind=known.kind)
        self._check_lines(line, known)
        happened: list[Happened] = []
        for asked in self._asked(line, known):
            happened += self._corrected(asked)
        return [*happened, *self._labelled(line)]

    def _check_lines(self, line: Line, known: Member) -> None:
        if line.identities is not None and {one.token for one in line.identities} != {
            one.token for one in known.identities
        }:
            raise Refused("lines_change_now", resource=line.resource)

    def _asked(self, line: Line, known: Member) -> list[Correction]:
        """The changes that a line tells of: where it was, since when, and how it stood."""
        job, resource, at = self._command.job, line.resource, line.since
        note, shown = self._note, self._command.shown
        asked: list[Correction] = []
        assert known.parent is not None
        if line.node is not None and line.node != known.parent.id:
            asked.append(CorrectMove(job, resource, line.node, at, note, shown))
        elif line.since < known.stays[0][0] and line.status != "ended":
            asked.append(CorrectJoin(job, resource, at, note, shown))
        ends = not known.stays[-1][1]
        told = self._draft.suspended.get(known.ordinal, ())
        suspended = bool(told) and told[-1][1]
        match line.status:
            case "ended":
                asked.append(CorrectEnd(job, resource, at, note, shown))
            case "active" | "suspended" if ends:
                raise Refused("resource_ended", resource=line.resource)
            case "suspended":
                asked.append(CorrectSuspension(job, resource, at, note, shown))
            case "active" if suspended:
                asked.append(CorrectResumption(job, resource, at, note, shown))
        return asked

    def _corrected(self, asked: Correction) -> list[Happened]:
        told = self._backdating.decide(asked, self._now)
        started = told[-1]
        assert isinstance(started, RatingStarted)
        self._charge_again(started.scope)
        return self._applied(told[:-1])

    def _charge_again(self, scope: Scope) -> None:
        """A move's is of the resource as a place."""
        of = (scope.node,) if scope.node else scope.resources
        self.scopes.append(replace(scope, node="", resources=of))
