"""Legs: the rows of one call put together, so that no second is counted twice.

A call is answered while at least one of its legs is: its quantity is the union of their answered
spans. Legs are held only as long as others may follow, so that memory does not grow with the file.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from operator import attrgetter

import msgspec
from msgspec import Struct

from ...domain.usage import UsageRecord

LEGS_MAX = 1_000
"""Legs of one call. Rows that all claim to be the same call must not fill the memory."""


class Leg(Struct, gc=False):
    """One leg, as a record of its own and with what is needed to join it to others."""

    record: UsageRecord
    first: int
    order: int
    answered_at: int | None
    ended_at: int | None
    row: int = 0


class OpenCalls:
    """The calls of which more legs may follow, the one that waited longest first.

    Most calls have one leg, which is kept as it is: hundreds of thousands of lists would make
    the garbage collector the slowest part of reading.
    """

    def __init__(self, window_rows: int) -> None:
        self._window_rows = window_rows
        self._calls: OrderedDict[str, Leg | list[Leg]] = OrderedDict()

    def add(self, leg: Leg, row: int) -> bool:
        """Whether the leg belongs to a call that is already open."""
        leg.row = row
        key = leg.record.record_id
        known = self._calls.get(key)
        if known is None:
            self._calls[key] = leg
            return False
        if isinstance(known, list):
            known.append(leg)
        else:
            self._calls[key] = [known, leg]
        self._calls.move_to_end(key)
        return True

    def is_full(self, leg: Leg) -> bool:
        """Whether the call of this leg has as many legs as a call can have."""
        known = self._calls.get(leg.record.record_id)
        return isinstance(known, list) and len(known) >= LEGS_MAX

    def complete(self, row: int) -> Iterator[list[Leg]]:
        """Take out the calls to which nothing was added within the window."""
        while self._calls:
            oldest = next(iter(self._calls.values()))
            if _legs(oldest)[-1].row > row - self._window_rows:
                return
            yield _legs(self._calls.popitem(last=False)[1])

    def rest(self) -> Iterator[list[Leg]]:
        """Take out all others, at the end of the file."""
        while self._calls:
            yield _legs(self._calls.popitem(last=False)[1])


def answered_microseconds(legs: Iterable[Leg]) -> int:
    """Length of the union of the spans between answer and end."""
    total = covered_to = 0
    for answered_at, ended_at in sorted(map(_answered, filter(_is_answered, legs))):
        total += max(0, ended_at - max(answered_at, covered_to))
        covered_to = max(covered_to, ended_at)
    return total


def joined(legs: list[Leg], seconds: int) -> UsageRecord:
    """One record for the call: whose it is says its first leg, whom it reached its first answered one."""
    by_time = sorted(legs, key=attrgetter("first", "order"))
    # Who was only rung, or answered for no time, is reached when nobody else was.
    reached = min(
        filter(_is_answered, by_time), key=lambda leg: (not _lasted(leg), _answered(leg)), default=by_time[0]
    )
    return msgspec.structs.replace(
        by_time[0].record,
        quantity=seconds,
        started_at=reached.record.started_at,
        counterpart=reached.record.counterpart,
    )


def _is_answered(leg: Leg) -> bool:
    return leg.answered_at is not None and leg.ended_at is not None


def _lasted(leg: Leg) -> bool:
    answered_at, ended_at = _answered(leg)
    return ended_at > answered_at


def _answered(leg: Leg) -> tuple[int, int]:
    return leg.answered_at or 0, leg.ended_at or 0


def _legs(call: Leg | list[Leg]) -> list[Leg]:
    return [call] if isinstance(call, Leg) else call
