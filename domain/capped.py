"""The caps of one family: how much the members that have one may draw from buckets above them.

A capped member's subtree draws its own buckets freely, and what stands above it up to the cap; what it
has drawn from above, and holds there for sessions, is counted exactly from the cap's first day on.
No more than the cap is ever drawn, but for what had been before the cap was lowered.

Beside this, what caps promise: a capped member may ask for its cap from whoever is above it. A bucket
serves what is asked of it, and asks for the rest above. Where nobody is above, or a cap ends it, what
is asked beyond what there is, is over-committed.
"""

from collections.abc import Callable, Mapping, Sequence

from .hierarchy import Member, Path
from .refusals import InvariantBroken, Refused

Drawn = tuple[tuple[int, int], ...]
UNCAPPED = 1 << 62
NOBODY = -1

Own = Callable[[int], int]
"""What a member's bucket holds by its ordinal, used up or not."""


class Draw:
    """What buckets on a path would pay, and which capped member kept buckets above it from paying more."""

    __slots__ = ("drawn", "stopped_by", "taken")

    def __init__(self, drawn: Drawn, taken: int, stopped_by: int) -> None:
        self.drawn = drawn
        self.taken = taken
        self.stopped_by = stopped_by


class FamilyCaps:
    """Caps in force in one usage type and period, what was drawn from above, and what is promised."""

    __slots__ = ("_members", "_stale", "ceiling", "committed", "drawn", "percent", "quantity", "told")

    def __init__(self, members: Sequence[Member], percent: int) -> None:
        self._members = members
        self._stale = True
        self.percent = percent
        """By how much more may be promised than there is: the contract's word."""
        self.quantity: dict[int, int] = {}
        self.drawn: dict[int, int] = {}
        """Of everybody who ever had a cap here."""
        self.ceiling: dict[int, int] = {}
        self.committed: dict[int, int] = {}
        """What caps below ask of a member's bucket, and of what is above it."""
        self.told: set[int] = set()
        """Whose cap was told to be reached."""

    # --- drawing ----------------------------------------------------------------------------

    def touches(self, path: Path) -> bool:
        return not self.quantity.keys().isdisjoint(path)

    def draw(
        self, path: Path, quantity: int, free: Callable[[int], int], held: Mapping[int, int] = {}
    ) -> Draw:
        """Narrowest scope first. `held` is what is free because this usage itself holds it already."""
        drawn: list[tuple[int, int]] = []
        left, room, by, stopped_by = quantity, UNCAPPED, NOBODY, NOBODY
        for place, ordinal in enumerate(path):
            wanted = min(free(ordinal), left)
            part = min(wanted, room)
            if part < wanted and stopped_by == NOBODY:
                stopped_by = by
            if part > 0:
                drawn.append((ordinal, part))
                left -= part
                room -= part
            if ordinal in self.quantity:
                own = sum(held.get(above, 0) for above in path[place + 1 :]) if held else 0
                # What was held before the cap was lowered may still be used.
                mine = max(0, own, self.quantity[ordinal] - self.drawn[ordinal] + own)
                if mine < room:
                    room, by = mine, ordinal
        return Draw(tuple(drawn), quantity - left, stopped_by)

    def count(self, path: Path, drawn: Drawn, sign: int = 1) -> None:
        """Add what was drawn, or given back, to every counted member it was drawn past."""
        if not drawn or self.drawn.keys().isdisjoint(path):
            return
        parts = dict(drawn)
        above = sum(parts.values())
        for ordinal in path:
            above -= parts.get(ordinal, 0)
            if not above:
                return
            if ordinal in self.drawn:
                self._count(ordinal, sign * above)

    def _count(self, ordinal: int, more: int) -> None:
        total = self.drawn[ordinal] = self.drawn[ordinal] + more
        if total < 0 or total > self.ceiling.get(ordinal, UNCAPPED):
            raise InvariantBroken(
                "what is drawn from above never passes a cap",
                member=ordinal,
                drawn=total,
                ceiling=self.ceiling.get(ordinal),
            )

    # --- setting ----------------------------------------------------------------------------

    def set(self, ordinal: int, quantity: int | None, own: Own) -> None:
        self.promise(ordinal, quantity, own)
        drawn = self.drawn.setdefault(ordinal, 0)
        self.told.discard(ordinal)
        if quantity is None:
            self.ceiling.pop(ordinal, None)
        else:
            # What was drawn before the cap came down stays drawn, so it may stand above the cap.
            self.ceiling[ordinal] = max(quantity, drawn)

    # --- promising --------------------------------------------------------------------------

    def promise(self, ordinal: int, quantity: int | None, own: Own) -> dict[int, int]:
        """Put a cap in force, or lift it; for everybody this concerns, how over-committed they were."""
        before = self._asked(ordinal, own(ordinal)), self.excess(ordinal, own(ordinal))
        if quantity is None:
            self.quantity.pop(ordinal, None)
        else:
            self.quantity[ordinal] = quantity
        return self._changed(ordinal, before, own)

    def held(self, ordinal: int, more: int, own: Own) -> dict[int, int]:
        """The same when a bucket has come to hold more, or less."""
        had = own(ordinal) - more
        return self._changed(ordinal, (self._asked(ordinal, had), self.excess(ordinal, had)), own)

    def _changed(self, ordinal: int, before: tuple[int, int], own: Own) -> dict[int, int]:
        asked, excess = before
        touched = {ordinal: excess}
        if self._stale:
            return touched
        more = self._asked(ordinal, own(ordinal)) - asked
        for above in self._members[ordinal].path[1:] if more else ():
            had = self.committed.get(above, 0)
            self.committed[above] = had + more
            cap = self.quantity.get(above)
            if cap is not None or self._members[above].parent is None:
                touched[above] = had - self._backed(own(above) + (cap or 0))
                break
            backed = self._backed(own(above))
            more = max(0, had + more - backed) - max(0, had - backed)
            if not more:
                break
        return touched

    def _asked(self, ordinal: int, has: int) -> int:
        """What is asked above a member, for itself or for those below whom its bucket does not serve."""
        cap = self.quantity.get(ordinal)
        if cap is not None:
            return cap
        return max(0, self.committed.get(ordinal, 0) - self._backed(has))

    def _backed(self, has: int) -> int:
        return has * (100 + self.percent) // 100

    def excess(self, ordinal: int, has: int) -> int:
        """What is promised beyond what may be, where nobody above can be asked for it; negative: room."""
        cap = self.quantity.get(ordinal)
        if cap is None and self._members[ordinal].parent is not None:
            return -1
        return self.committed.get(ordinal, 0) - self._backed(has + (cap or 0))

    def check_promised(self, touched: Mapping[int, int], own: Own) -> None:
        """Refuses what makes anybody more over-committed than the contract allows."""
        for ordinal, before in touched.items():
            has = own(ordinal)
            if self.excess(ordinal, has) > max(0, before):
                raise Refused(
                    "over_committed",
                    node=self._members[ordinal].id,
                    available=has + self.quantity.get(ordinal, 0),
                    committed=self.committed.get(ordinal, 0),
                    percent=self.percent,
                )

    def forget(self) -> None:
        """Somebody stands elsewhere: what is committed is added up again when it is asked for."""
        self._stale = True

    def refresh(self, own: Own) -> None:
        if self._stale:
            asked, self.quantity, self.committed = self.quantity, {}, {}
            self._stale = False
            for ordinal, quantity in asked.items():
                self.promise(ordinal, quantity, own)

    def copy(self) -> "FamilyCaps":
        """For trying out: promises only."""
        copied = FamilyCaps(self._members, self.percent)
        copied._stale = self._stale
        copied.quantity, copied.committed = self.quantity.copy(), self.committed.copy()
        return copied

    def counters(self) -> "FamilyCaps":
        """For keeping: what was drawn and told only."""
        copied = FamilyCaps((), self.percent)
        copied.drawn, copied.ceiling, copied.told = self.drawn.copy(), self.ceiling.copy(), set(self.told)
        return copied

    def for_drawing(self) -> "FamilyCaps":
        """For trying out: who may draw how much, and has."""
        copied = FamilyCaps(self._members, self.percent)
        copied.quantity, copied.drawn, copied.ceiling = self.quantity, self.drawn.copy(), self.ceiling
        return copied

    def correct(self, ordinal: int, more: int) -> None:
        """A correction has changed what was drawn past a member's cap."""
        self._count(ordinal, more)

    def check_whole(self, own: Own) -> None:
        again = self.copy()
        again.forget()
        again.refresh(own)
        if not self._stale and _known(again.committed) != _known(self.committed):
            raise InvariantBroken("what is committed is what caps ask for", committed=self.committed)
        for ordinal, drawn in self.drawn.items():
            if not 0 <= drawn <= self.ceiling.get(ordinal, UNCAPPED):
                raise InvariantBroken("what is drawn from above never passes a cap", member=ordinal)


def _known(committed: Mapping[int, int]) -> dict[int, int]:
    return {ordinal: asked for ordinal, asked in committed.items() if asked}
