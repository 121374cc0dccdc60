"""Columns: many objects of one type as one list for each of their attributes.

An answer of a thousand nodes is read as columns and told as columns: a compiled selection takes them
as they are, and no object is made. Whoever wants objects, such as the library's own executor,
iterates, and gets the very objects that would have been there. Columns are made when they are asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

Made = Callable[[], "list[Any] | Columns | Cut"]

TOLD: set[type] = set()
"""The types that are told as columns anywhere: for others nothing is compiled."""


class Columns:
    """Objects of a type. A column may hold values, or be Columns or Cut of other objects."""

    def __init__(
        self,
        kind: type,
        rows: int,
        columns: Mapping[str, Made],
        finish: Callable[[list[Any]], list[Any]] = list,
    ) -> None:
        """`finish` is given all objects where these are wanted."""
        self.kind = kind
        self.rows = rows
        self._finish = finish
        self._columns = columns
        self._made: dict[str, Any] = {}
        assert kind in TOLD, "types that are told as columns are entered in TOLD"

    def column(self, name: str) -> Any:
        """KeyError where it is not told as a column."""
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = self._columns[name]()
        return made

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[Any]:
        names = list(self._columns)
        objects = [
            self.kind(**dict(zip(names, values, strict=True)))
            for values in zip(*map(self.column, names), strict=True)
        ]
        return iter(self._finish(objects))

    def row(self, at: int) -> Any:
        """One object alone, as it is before it is finished with the others."""
        return self.kind(**{name: _one(self.column(name), at) for name in self._columns})


class Cut:
    """A list of objects for each row: all of them as columns, and after how many each list ends."""

    def __init__(self, flat: Columns, ends: list[int]) -> None:
        self.flat = flat
        self._ends = ends

    def lists(self, flat: list[Any]) -> list[list[Any]]:
        return [flat[first:end] for first, end in pairwise([0, *self._ends])]

    def row(self, at: int) -> list[Any]:
        first = self._ends[at - 1] if at else 0
        return [self.flat.row(place) for place in range(first, self._ends[at])]

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[list[Any]]:
        return iter(self.lists(list(self.flat)))


def _one(column: Any, at: int) -> Any:
    return column.row(at) if isinstance(column, Columns | Cut) else column[at]
