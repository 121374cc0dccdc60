"""Rating jobs: which charges are to be rated again, why, and what came of it.

A job is begun, carried out part by part, and finished, each told in the log: an auditor sees who asked
for it and what changed. What it may touch is its scope; the log up to its beginning is looked through.
"""

from typing import ClassVar

from msgspec import Struct

from .charging import CORPORATE, UsageCharged
from .hierarchy import Hierarchy
from .planned import Counting
from .refusals import Refused, check_text
from .tariff import Tariffs

CAUSES = ("tariff_corrected", "late_usage", "hierarchy_corrected", "requested")
JOBS_MAX = 10
"""Running at once, of one tenant."""


class Scope(Struct, frozen=True, array_like=True):
    """Which charges: everything given must hold. Nothing given means all of them."""

    source: str = ""
    record_id: str = ""
    """With `source`: one record."""
    node: str = ""
    """Used at or below it, as the hierarchy was when it was charged."""
    usage_type: str = ""
    period: str = ""
    tariff: int = 0
    """Usage for which this version of the tariff holds now."""
    starts_at: int = 0
    ends_at: int = 0
    """Used in [starts_at, ends_at); 0 leaves that side open."""
    in_order: bool = False
    """Give the allowance to whoever used it first, not to whoever was charged first."""
    guided: bool = False
    """Charge it where the resource stood, as the hierarchy says now."""
    resources: tuple[str, ...] = ()
    """Used by one of these."""
    anew: bool = False
    """Decide anew who had the line, and whether it might be used: what nobody can be charged for is taken
    back, and what was taken back, denied or kept waiting for that reason is charged where somebody can."""

    def spans(self, at: int) -> bool:
        return at >= self.starts_at and (not self.ends_at or at < self.ends_at)

    def takes(self, charge: UsageCharged, hierarchy: Hierarchy, tariffs: Tariffs) -> bool:
        at = charge.started_at
        if (self.usage_type and charge.usage_type != self.usage_type) or (
            self.period and charge.period != self.period
        ):
            return False
        if not self.spans(at):
            return False
        if self.record_id and (charge.source, charge.record_id) != (self.source, self.record_id):
            return False
        if self.node and hierarchy.by_id[self.node].ordinal not in charge.path:
            return False
        if self.resources and all(hierarchy.by_id[one].ordinal != charge.path[0] for one in self.resources):
            return False
        if self.tariff:
            held = tariffs.at(at)
            return held is not None and held.published.version == self.tariff
        return not self.in_order or charge.payer == CORPORATE


class RatingStarted(Struct, frozen=True, array_like=True):
    """Charges are being rated again, from here on part by part."""

    topic: ClassVar[str] = "rating.started"
    job: str
    scope: Scope
    cause: str
    note: str
    shown: str = ""
    """The digest of the difference that was shown to whoever confirmed it; "" where none was."""


class RatingFinished(Struct, frozen=True, array_like=True):
    """A job is done: what all its parts have changed."""

    topic: ClassVar[str] = "rating.finished"
    job: str
    records: int
    """Charges that were looked at."""
    changed: int
    left: int
    """Charges that could not be rated again: they stay as they are."""
    amount: int
    """Charged more in periods that are open, or less."""
    corrected: int
    """Owed more for periods that are closed, or less: it stands in the period that runs."""
    stopped: bool = False
    """Somebody ended it before it was through."""


class StartRating(Struct, frozen=True, array_like=True):
    """Begin to rate charges again. `job` is its name, once and for ever."""

    job: str
    scope: Scope
    cause: str = "requested"
    note: str = ""
    shown: str = ""


class FinishRating(Struct, frozen=True, array_like=True):
    """End a job that is through, or is to go no further."""

    job: str
    records: int
    left: int
    stopped: bool = False


class RatingJob(Struct, array_like=True):
    """A job that runs, and what it has changed so far."""

    started: RatingStarted
    changed: int = 0
    amount: int = 0
    corrected: int = 0
    counting: tuple[Counting, ...] = ()
    """The counters of plans that it has begun to count again."""


def check_cause(command: StartRating) -> None:
    check_text("job", command.job)
    check_text("note", command.note, empty=True)
    if command.cause not in CAUSES:
        raise Refused("unknown_cause", cause=command.cause, known=list(CAUSES))
    scope = command.scope
    if bool(scope.source) != bool(scope.record_id):
        raise Refused("bad_scope", field="record", remedy="give the source and the id of the record")
    if scope.ends_at and scope.ends_at <= scope.starts_at:
        raise Refused("bad_scope", field="ends_at", remedy="choose a moment after starts_at")
