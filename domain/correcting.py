"""Correcting where a resource stood: a move that is dated back, within periods that are open.

What it used since is charged again where it stood, by a job that begins with the move, in one command:
the paths of usage and of the hierarchy never part for good. What is in closed periods stays.
"""

from msgspec import Struct

from .contract import Contracts
from .hierarchy import Hierarchy, MoveResource, ResourceMoved
from .rating_job import RatingStarted, Scope, StartRating
from .refusals import Refused
from .rerating import Rerating
from .rollover import RollOvers


class CorrectMove(Struct, frozen=True, array_like=True):
    """Let a resource have stood on another node since a moment that is over."""

    job: str
    """The name of the job that charges again what it has used since."""
    resource: str
    node: str
    since: int
    note: str = ""
    shown: str = ""
    expected: int | None = None


def decide_correction(
    command: CorrectMove,
    hierarchy: Hierarchy,
    contracts: Contracts,
    rollovers: RollOvers,
    rerating: Rerating,
    now: int,
) -> list[ResourceMoved | RatingStarted]:
    if command.since >= now:
        raise Refused("not_in_the_past", at=command.since, now=now)
    opened = contracts.period_at(command.since)
    if opened is None or rollovers.is_closed(opened, now):
        raise Refused("period_closed", period=contracts.name_at(command.since))
    moved = hierarchy.decide(MoveResource(command.resource, command.node, command.since))
    begun = rerating.decide(begun_by(command), now)
    return [*moved, *begun]  # type: ignore[list-item]


def begun_by(command: CorrectMove) -> StartRating:
    """The job that a correction begins."""
    scope = Scope(node=command.resource, starts_at=command.since, guided=True)
    return StartRating(command.job, scope, "hierarchy_corrected", command.note, command.shown)
