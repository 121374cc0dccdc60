"""What is agreed at each moment: which version of which contract is in force, and the period it asks for.

Of two versions the one that begins later holds, and of two that begin on one day the one signed
later. A contract that has ended covers nothing. Versions of one calendar that follow each other
are a run: its periods go on across them. A run of another calendar begins where the open periods
end, or at its own start if that is later: bounds that stand in the log never change.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import ClassVar
from zoneinfo import ZoneInfo

from msgspec import Struct

from .calendar import Calendar, date_of, local_day, midnight, stretch_at
from .terms import USUAL, Grant, Terms, share_of

FOREVER = 1 << 62


class ContractSigned(Struct, frozen=True, array_like=True):
    """What is granted in each period from a date on: a new version of the contract."""

    topic: ClassVar[str] = "contract.signed"
    contract: str
    version: int
    starts_on: str
    grants: tuple[Grant, ...]
    overage: bool
    terms: Terms | None = None
    """None: the usual ones, calendar months until further notice."""
    note: str = ""

    @property
    def agreed(self) -> Terms:
        return USUAL if self.terms is None else self.terms


class Span(Struct, frozen=True):
    """One version in force, within [starts_at, ends_at)."""

    starts_at: int
    ends_at: int
    signed: ContractSigned


class Plan(Struct, frozen=True):
    """A period that is not open yet, as it would be opened."""

    name: str
    starts_at: int
    ends_at: int
    signed: ContractSigned
    share: tuple[int, int]
    """How much of a whole stretch of its calendar it covers."""


class Agreed:
    """The versions in force, in order of time."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._starts: list[int] = []

    def put(self, signed: Sequence[ContractSigned], ends: dict[str, int], zone: ZoneInfo) -> None:
        """All versions in the order they were signed, and when contracts end."""
        ordered = sorted(enumerate(signed), key=lambda one: (one[1].starts_on, one[0]))
        starts = [midnight(date_of(one.starts_on), zone) for _, one in ordered]
        self.spans = []
        for (_, one), starts_at, following in zip(ordered, starts, [*starts, FOREVER][1:], strict=True):
            ends_at = min(following, ends.get(one.contract, FOREVER))
            if starts_at < ends_at:
                self.spans.append(Span(starts_at, ends_at, one))
        self._starts = [span.starts_at for span in self.spans]

    def at(self, at: int) -> Span | None:
        place = bisect_right(self._starts, at) - 1
        return self.spans[place] if place >= 0 and at < self.spans[place].ends_at else None

    def run_at(self, at: int) -> list[Span]:
        """The versions around a moment that follow each other without a gap, on one calendar."""
        place = bisect_right(self._starts, at) - 1
        if place < 0 or at >= self.spans[place].ends_at:
            return []
        first = last = place
        while first > 0 and self._goes_on(first - 1):
            first -= 1
        while last + 1 < len(self.spans) and self._goes_on(last):
            last += 1
        return self.spans[first : last + 1]

    def _goes_on(self, place: int) -> bool:
        before, after = self.spans[place : place + 2]
        return before.ends_at == after.starts_at and (
            before.signed.agreed.calendar == after.signed.agreed.calendar
        )

    def plan(self, at: int, opened: Iterable[tuple[int, int]], zone: ZoneInfo) -> Plan | None:
        """The period of a moment that no open period has, between the bounds of those that are open."""
        run = self.run_at(at)
        stretch = stretch_at(run[0].signed.agreed.calendar, at, zone) if run else None
        if stretch is None:
            return None
        calendar = run[0].signed.agreed.calendar
        starts_at, ends_at = stretch.starts_at, min(stretch.ends_at, run[-1].ends_at)
        covered_from = max(starts_at, run[0].starts_at)
        if calendar.kind != "month" or run[0] is not self.spans[0]:
            # The very first month is shown whole, though it is covered from the contract's first day on.
            starts_at = covered_from
        for one_starts_at, one_ends_at in opened:
            if one_ends_at <= at:
                starts_at = max(starts_at, one_ends_at)
            else:
                ends_at = min(ends_at, one_starts_at)
        covered = ends_at - max(starts_at, covered_from)
        signed = [span.signed for span in run if span.starts_at < ends_at][-1]
        share = share_of(covered, stretch.ends_at - stretch.starts_at)
        name = _name(calendar, starts_at, stretch.starts_at, zone)
        return Plan(name, starts_at, ends_at, signed, share)


def _name(calendar: Calendar, starts_at: int, stretch_starts_at: int, zone: ZoneInfo) -> str:
    """Names sort as their periods start: "2026-11" is a month from its first day, others have a day."""
    first = local_day(starts_at, zone).isoformat()
    return first[:7] if calendar.kind == "month" and starts_at == stretch_starts_at else first


def end_of(ends_on: str, zone: ZoneInfo) -> int:
    """The first moment after the last day that is covered."""
    return midnight(date_of(ends_on) + timedelta(days=1), zone)
