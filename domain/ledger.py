"""A ledger: what a family's buckets would hold while charges are taken back and made again.

Nothing here changes the family. What was given as allowance stays given where it can: parts are kept,
the widest bucket's is the first to come back, and only what is more is drawn anew.
"""

from collections.abc import Mapping

from .bucket import Drawn, Family
from .hierarchy import Path


class Ledger:
    """One family, and what those before have given back and taken."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self._more: dict[int, int] = {}
        """Beside what is available there."""
        self._caps = family.caps.for_drawing() if family.caps is not None else None
        self._past: dict[int, int] = {}
        """By how much what was drawn past capped members has changed."""

    def available(self, ordinal: int) -> int:
        return self.family.available(ordinal) + self._more.get(ordinal, 0)

    def give_back(self, path: Path, drawn: Drawn) -> None:
        self._count(path, drawn, 1)

    def take(self, path: Path, drawn: Drawn) -> None:
        self._count(path, drawn, -1)

    def pass_on(self, source: int, target: int, part: int) -> None:
        """What one has, another has."""
        self._more[source] = self._more.get(source, 0) - part
        self._more[target] = self._more.get(target, 0) + part

    def permits(self, path: Path, drawn: Drawn) -> bool:
        """Whether buckets on a path have these parts, and no cap below them keeps them back."""
        if any(ordinal not in path or self.available(ordinal) < part for ordinal, part in drawn):
            return False
        if self._caps is None or not self._caps.touches(path):
            return True
        parts = dict(drawn)
        return self._caps.draw(path, sum(parts.values()), lambda one: parts.get(one, 0)).drawn == drawn

    def again(self, path: Path, quantity: int, given: Drawn) -> Drawn:
        """What pays for a quantity: what paid before, and is free, and for more whoever has it.

        No cap keeps back what was given before the cap was set, or lowered.
        """
        kept = trimmed(given, quantity)
        missing = quantity - sum(part for _, part in kept)
        if not missing:
            return kept
        self.take(path, kept)
        more = self._draw(path, missing)
        self.give_back(path, kept)
        return _together(path, kept, more)

    def drawn_past_caps(self) -> list[tuple[int, int]]:
        """By how much what capped members have drawn from above would change."""
        if self.family.caps is None:
            return []
        counted = self.family.caps.drawn
        changes = [(ordinal, max(change, -counted[ordinal])) for ordinal, change in self._past.items()]
        return [(ordinal, change) for ordinal, change in changes if change]

    def _draw(self, path: Path, quantity: int) -> Drawn:
        """Narrowest scope first, as usage does."""
        if not self._more and not self.family.holders:
            return ()
        if self._caps is not None and self._caps.touches(path):
            return self._caps.draw(path, quantity, self.available).drawn
        drawn: list[tuple[int, int]] = []
        for ordinal in path:
            part = min(self.available(ordinal), quantity)
            if part > 0:
                drawn.append((ordinal, part))
                quantity -= part
        return tuple(drawn)

    def _count(self, path: Path, drawn: Drawn, sign: int) -> None:
        for ordinal, part in drawn:
            self._more[ordinal] = self._more.get(ordinal, 0) + sign * part
        if self._caps is None or self.family.caps is None:
            return
        counted = self.family.caps.drawn
        for ordinal, past in past_caps(path, drawn, counted):
            change = self._past[ordinal] = self._past.get(ordinal, 0) - sign * past
            # What was charged before the cap was set does not count in it: no more comes back than counts.
            self._caps.drawn[ordinal] = max(0, counted[ordinal] + change)


def past_caps(path: Path, drawn: Drawn, counted: Mapping[int, int]) -> list[tuple[int, int]]:
    """Whoever is counted on a path, with what of these parts stands above it."""
    parts = dict(drawn)
    above, found = sum(parts.values()), []
    for ordinal in path:
        above -= parts.get(ordinal, 0)
        if not above:
            break
        if ordinal in counted:
            found.append((ordinal, above))
    return found


def trimmed(drawn: Drawn, quantity: int) -> Drawn:
    """The first parts that make up a quantity, or all there are."""
    kept: list[tuple[int, int]] = []
    for ordinal, part in drawn:
        if quantity <= 0:
            break
        kept.append((ordinal, min(part, quantity)))
        quantity -= part
    return tuple(kept)


def _together(path: Path, one: Drawn, other: Drawn) -> Drawn:
    sums: dict[int, int] = {}
    for ordinal, part in (*one, *other):
        sums[ordinal] = sums.get(ordinal, 0) + part
    return tuple((ordinal, sums[ordinal]) for ordinal in path if ordinal in sums)
