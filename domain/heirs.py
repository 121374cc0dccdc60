"""Heirs: where allowance goes that is given back to a node which has been merged into another.

Told in time, it would have gone to the successor with all that the node held. So it does when charges
are made again elsewhere, in the same command: a closed node is left with nothing that it gave before.
"""

from collections.abc import Iterator

from .bucket import Drawn, Transferred
from .hierarchy import Hierarchy, Path

Key = tuple[str, str]
"""Usage type and period."""
Pass = tuple[Key, int, int, int]
"""From whom, to whom, and how much."""


class Heirs:
    """Of one command."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self._passed: dict[tuple[Key, int, int], int] = {}

    def of(self, ordinal: int, path: Path, ends_at: int) -> int:
        """Who has what a node held: the first successor that is open, or stands on a path.

        Itself, where it is not closed, closed without a successor, or closed after the period's end.
        """
        closed, found = self._hierarchy.closed, ordinal
        while found in closed and found not in path:
            at, found = closed[found]
            if found < 0 or at >= ends_at:
                return ordinal
        return found

    def before(self, key: Key, drawn: Drawn, path: Path, ends_at: int) -> Iterator[Pass]:
        """What moves on before a charge is made again on this path: parts of nodes that are not on it."""
        for ordinal, part in drawn:
            heir = self.of(ordinal, path, ends_at)
            if heir != ordinal:
                yield key, ordinal, heir, part

    def after(self, key: Key, had: Drawn, drawn: Drawn, path: Path, ends_at: int) -> Iterator[Pass]:
        """And after that: what was given back to nodes that are closed by now, and is not taken again."""
        taken = dict(drawn)
        given: dict[int, int] = {}
        for ordinal, part in had:
            stands = self.of(ordinal, path, ends_at)
            given[stands] = given.get(stands, 0) + part
        for ordinal, part in given.items():
            heir, left = self.of(ordinal, (), ends_at), part - taken.get(ordinal, 0)
            if heir != ordinal and left > 0:
                yield key, ordinal, heir, left

    def note(self, passes: list[Pass]) -> None:
        for key, source, target, part in passes:
            about = (key, source, target)
            self._passed[about] = self._passed.get(about, 0) + part

    def events(self, note: str) -> list[Transferred]:
        """Whoever closed first hands on first: a successor was open then."""
        members, closed = self._hierarchy.members, self._hierarchy.closed
        told = sorted(self._passed.items(), key=lambda one: (closed[one[0][1]][0], one[0]))
        return [
            Transferred(
                *(members[source].id, members[target].id, *key, part),
                "return" if target in members[source].way else "trade",
                note,
            )
            for (key, source, target), part in told
        ]
