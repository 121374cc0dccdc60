"""What re-rating tells and asks: charges that are taken back, and made again; nothing is edited."""

from typing import ClassVar

from msgspec import Struct
from msgspec.structs import replace

from .bucket import Drawn, Transferred
from .charging import UNCHARGED, UsageCharged
from .hierarchy import Path
from .limit import ThresholdCrossed
from .planned import Counter, Counting
from .rating_job import FinishRating, RatingFinished, RatingStarted, StartRating
from .recounting import WindowCorrected
from .resettled import CorrectPlans, PlanCorrected
from .usage import UsageRecord

CHARGES_MAX = 500
"""Made again in one command: some ten milliseconds, while charging waits."""


class TakenBack(Struct, frozen=True, array_like=True, gc=False):
    """A charge that holds no more: what it took is given back, and what it counted is taken off."""

    seq: int
    """The event it stands in."""
    first: int
    """The event in which its record was charged first."""
    charge: UsageCharged
    """As it was, but for what is sealed: that stays where it is."""


class Was(Struct, frozen=True, array_like=True, gc=False):
    """What a record was charged with before: enough to tell what has changed."""

    billed: int
    overage: int
    amount: int
    tariff: int
    node: int
    """The node that its resource was on."""


class CapCorrected(Struct, frozen=True, array_like=True):
    """What changes of what a capped member has drawn from above."""

    usage_type: str
    period: str
    ordinal: int
    change: int


class UsageTakenBack(Struct, frozen=True, array_like=True):
    """Charges are taken back, exactly as they were given; each is made again by an event that follows."""

    topic: ClassVar[str] = "usage.taken_back"
    job: str
    charges: tuple[TakenBack, ...]
    """None where all that follows is about closed periods."""
    caps: tuple[CapCorrected, ...] = ()
    """What becomes of caps by all of it, the new charges included ..."""
    windows: tuple[WindowCorrected, ...] = ()
    """... and of limits per day, week or rolling window."""
    counting: tuple[Counting, ...] = ()
    """The counters of plans that any of it was, or is, counted in."""


class UsageRerated(Struct, frozen=True, array_like=True, gc=False):
    """A record is charged anew, in place of a charge that was taken back."""

    topic: ClassVar[str] = "usage.rerated"
    seq: int
    """The event whose charge this replaces."""
    first: int
    job: str
    cause: str
    was: Was
    charge: UsageCharged
    by_zone: bool = False
    """Nobody can read the number any more: the prefix that was stored chose the rate."""


class UsageCorrected(Struct, frozen=True, array_like=True, gc=False):
    """What a record of a closed period should have cost; the difference is owed in another period."""

    topic: ClassVar[str] = "usage.corrected"
    seq: int
    first: int
    job: str
    cause: str
    period: str
    """In which the difference is owed, or credited: the one that runs."""
    difference: int
    was: Was
    charge: UsageCharged
    """As it should have been, in its own period: what allowance paid stays paid."""
    by_zone: bool = False


class Again(Struct, frozen=True, gc=False):
    """A charge to be made again, as it stands in the log."""

    seq: int
    first: int
    charge: UsageCharged
    counterpart: str | None = None
    """None where nobody can read the number any more."""
    drawn: Drawn | None = None
    """What its allowance shall be, where it is given in order; None keeps what was given."""
    credit: Drawn | None = None
    path: Path | None = None
    """Where its resource stood, where that is corrected."""
    place: Counter | None = None
    """Where its plan's counter stood when it was used; None where it stood when it was charged."""
    kept: bool = False
    """Only its place is another: it is rated by the rate that it was rated by."""
    becomes: str | None = None
    """Why nobody can be charged for it, where that is so now; "" where somebody can be that could not."""
    record: UsageRecord | None = None
    """Of what was denied: all that its rate may ask for."""


class RerateCharges(Struct, frozen=True, gc=False):
    """One part of a job: make these charges again."""

    job: str
    charges: tuple[Again, ...]


RatingEvent = RatingStarted | RatingFinished | UsageTakenBack | UsageRerated | UsageCorrected | PlanCorrected
RatingCommand = StartRating | FinishRating | RerateCharges | CorrectPlans
Made = UsageTakenBack | Transferred | UsageRerated | UsageCorrected | ThresholdCrossed | PlanCorrected


def was(charge: UsageCharged) -> Was:
    billed, overage = (0, 0) if charge.payer == UNCHARGED else (charge.billed, charge.overage)
    return Was(billed, overage, charge.amount, charge.tariff, charge.path[1])


def unsealed(charge: UsageCharged) -> UsageCharged:
    """A charge without its personal part, which is sealed to the event that it stands in."""
    return replace(charge, sealed=b"")
