"""Splitting: what one person moves from one member to another in pieces, each too small to need approval.

An approval rule with a window adds the pieces up. What was approved is no piece, and undoing gives none
back. So nobody moves more than the rule's quantity between two members in a window without an approval, in
however many pieces; a rule counts from when the first rule with a window stands on the path.
"""

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from msgspec import Struct

from .bucket import Transferred
from .hierarchy import Hierarchy
from .refusals import InvariantBroken
from .reservation import Leg

Window = Literal["", "day", "period"]
WINDOWS: tuple[Window, ...] = ("", "day", "period")
"""Each transfer by itself; those of a day of the tenant's calendar; those of a period."""
SCHEDULES = "schedules"
"""Who carries out what was scheduled: all schedules are one person, or many would pass where one does not."""

Piece = tuple[str, int, int, str, str, str]
"""Person, ordinals of source and target, usage type; the window, and which one: "day", "2026-11-22"."""


class TransferCounted(Struct, frozen=True, array_like=True):
    """What a person has moved between two members without approval counts for the next transfer."""

    topic: ClassVar[str] = "transfer.counted"
    person: str
    """An opaque id: whoever really acts."""
    source: str
    target: str
    usage_type: str
    period: str
    day: str
    """Of the tenant's calendar: when it moved."""
    quantity: int
    """By this command."""


class Pieces:
    """What was moved in pieces: today, and in each period."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self.moved: dict[Piece, int] = {}
        self.day = ""
        """The newest day of which something is counted."""

    def before(self, window: Window, person: str, leg: Leg, day: str) -> int:
        """What counts besides this leg."""
        return self.moved.get(self.piece(window, person, leg, day), 0) if window else 0

    def piece(self, window: Window, person: str, leg: Leg | Transferred | TransferCounted, day: str) -> Piece:
        by_id = self._hierarchy.by_id
        ends = by_id[leg.source].ordinal, by_id[leg.target].ordinal
        return person, *ends, leg.usage_type, window, day if window == "day" else leg.period

    def apply(self, event: TransferCounted) -> None:
        if event.day > self.day:
            self.day = event.day
            self.moved = {piece: moved for piece, moved in self.moved.items() if piece[4] != "day"}
        for window in WINDOWS[1:]:
            if window == "day" and event.day < self.day:
                continue
            piece = self.piece(window, event.person, event, event.day)
            self.moved[piece] = self.moved.get(piece, 0) + event.quantity

    def check_whole(self) -> None:
        for piece, moved in self.moved.items():
            if moved <= 0 or (piece[4] == "day" and piece[5] != self.day):
                raise InvariantBroken("what counts for approval was moved, today or in a period", piece=piece)


def counted(transfers: Iterable[Transferred], person: str, day: str) -> Iterator[TransferCounted]:
    """One for each pair of members and type, however many transfers a command led to."""
    sums: dict[tuple[str, str, str, str], int] = {}
    for one in transfers:
        key = one.source, one.target, one.usage_type, one.period
        sums[key] = sums.get(key, 0) + one.quantity
    return (TransferCounted(person, *key, day, quantity) for key, quantity in sums.items())
