"""Recurring fees: what is owed for being there, for each part of a period by its exact share.

A tariff version has fees; each is for the enterprise, or for each node, resource or channel of a
kind. A share is of the whole stretch of the contract's calendar, in days or by the microsecond.
However a stretch is cut, by moves, by other versions, the shares of its parts add up to 1. Each
line is rounded once.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

from ..calendar import Stretch, local_day, midnight
from .plan import Share, micro

Each = Literal["enterprise", "node", "resource", "channel"]
"""What a fee is for. `channel`: each channel of a resource, such as a SIP trunk."""


class Fee(Struct, frozen=True, array_like=True):
    """Owed for each whole period, and for a part of one as `share` says."""

    fee: str
    """What it is called on the invoice."""
    amount: str
    """In the tariff's currency, for each: "4.90"."""
    each: Each = "enterprise"
    kind: str = ""
    """Of node or resource: "cost_centre", "sip"; "" means all of them."""
    share: Share = "day"


class Presence(Struct, frozen=True):
    """So many of a kind that were on a node from one moment to another."""

    node: int
    since: int
    until: int
    count: int
    """Members, or channels of them."""


class Ruler:
    """Measures parts of one stretch."""

    def __init__(self, stretch: Stretch, share: Share, zone: ZoneInfo) -> None:
        self.stretch = stretch
        self._midnights = _midnights(stretch, zone) if share == "day" else []
        self.whole = len(self._midnights) or stretch.ends_at - stretch.starts_at

    def length(self, since: int, until: int) -> int:
        """Of the part that lies within the stretch; of `whole` of them it is the share."""
        since, until = max(since, self.stretch.starts_at), min(until, self.stretch.ends_at)
        if since >= until:
            return 0
        if not self._midnights:
            return until - since
        return bisect_right(self._midnights, until) - bisect_right(self._midnights, since)


def shares(ruler: Ruler, there: Iterable[Presence]) -> dict[int, Fraction]:
    """By node: how many whole periods were spent there, all together."""
    lengths: dict[int, int] = {}
    for one in there:
        length = one.count * ruler.length(one.since, one.until)
        if length:
            lengths[one.node] = lengths.get(one.node, 0) + length
    return {node: Fraction(length, ruler.whole) for node, length in sorted(lengths.items())}


def owed(fee: Fee, share: Fraction) -> Fraction:
    """In micro-units, exactly."""
    return micro(fee.amount) * share


def _midnights(stretch: Stretch, zone: ZoneInfo) -> Sequence[int]:
    """The ends of all days of a stretch, the last of them its own end."""
    ends: list[int] = []
    day = local_day(stretch.starts_at, zone)
    while not ends or ends[-1] < stretch.ends_at:
        day += timedelta(days=1)
        ends.append(midnight(day, zone))
    ends[-1] = stretch.ends_at
    return ends
