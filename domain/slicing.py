"""Slicing: how much a session is granted at a time.

As much as it will use in a while at its own pace; where what is left is not plenty for all that draw on it,
a share of it, so that the last units are handed out in small slices and nobody takes the rest of all. A
slice is never smaller than the least that is worth asking for, while there is that much.
"""

from msgspec import Struct

from .hierarchy import Path
from .usage import MONEY

SECOND = 1_000_000
SLICE_SECONDS = 120
"""A slice should last so long."""
PACE_SECONDS_MIN = 10
"""Of a session that has run for less the pace is not known."""
FASTER_MAX = 100
"""However fast a session is, it gets no more than so many usual slices at once."""
SHARES = 8
"""A slice is at most an eighth of what is left on its path: one session does not take the rest of all."""
ROUNDS = 2
"""Of those who share what is left, each should come to it so often."""


class Quota(Struct, frozen=True):
    """How much is granted at a time where the network leaves it to us."""

    usual: int
    least: int
    """When little is left, slices become smaller, but not smaller than this."""


QUOTAS = {
    "data": Quota(10_000_000, 100_000),
    "voice": Quota(120, 10),
    "messaging": Quota(10, 1),
    "video": Quota(120, 10),
}
"""By usage type, in its unit."""
QUOTA_OF_OTHERS = Quota(100, 1)
"""Of types that a carrier has defined: what a unit of theirs is worth, we do not know."""


class Wish(Struct, frozen=True):
    """What a session would be granted, were there plenty."""

    quantity: int
    least: int
    is_choice: bool
    """The network leaves it to us."""

    def shares(self, sharing: int) -> int:
        """In how many parts what is left is divided, with so many sessions at it."""
        return max(SHARES, ROUNDS * sharing) if self.is_choice else max(1, sharing)

    def of(self, left: int, sharing: int) -> int:
        """Its share of what is left."""
        share = max(min(left, self.least), left // self.shares(sharing))
        return min(self.quantity, max(0, share))


def wish(requested: int, quota: Quota, used: int, lasted: int) -> Wish:
    """As requested, or for 0 by the session's own pace: what it has used in so many microseconds."""
    if requested:
        return Wish(requested, quota.least, is_choice=False)
    if not used or lasted < PACE_SECONDS_MIN * SECOND:
        return Wish(quota.usual, quota.least, is_choice=True)
    at_pace = used * SLICE_SECONDS * SECOND // lasted
    return Wish(min(max(at_pace, quota.least), quota.usual * FASTER_MAX), quota.least, is_choice=True)


def quota_of(usage_type: str, usual: int = 0, least: int = 0) -> Quota:
    """Of a usage type, with what terms lay down in place of the usual."""
    known = QUOTAS.get(usage_type, QUOTA_OF_OTHERS)
    if not usual and not least:
        return known
    usual = usual or max(known.usual, least)
    return Quota(usual, min(usual, least or known.least))


class Crowd:
    """How many sessions run at and below each member."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str, int], int] = {}
        """By usage type, or money for all of them, period and ordinal."""

    def count(self, usage_type: str, period: str, path: Path, sign: int = 1) -> None:
        running = self._running
        for counted in (usage_type, MONEY):
            for ordinal in path:
                key = (counted, period, ordinal)
                running[key] = running.get(key, 0) + sign
                if not running[key]:
                    del running[key]

    def at(self, counted: str, period: str, ordinal: int) -> int:
        return self._running.get((counted, period, ordinal), 0)
