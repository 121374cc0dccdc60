"""Records on their way from whoever reads them to whoever charges them, a batch at a time.

Where a record stood is said only of those that are not simply charged: so positions in a row are made
when somebody asks for one.
"""

from collections.abc import Iterator, Sequence
from typing import overload

from ...domain.usage import Usage


class Positions(Sequence[str]):
    """Rows one after the other of what has a name: "body:1", "body:2" ..."""

    __slots__ = ("_name", "_rows")

    def __init__(self, name: str, rows: range) -> None:
        self._name = name
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> "Positions": ...
    def __getitem__(self, place: int | slice) -> "str | Positions":
        if isinstance(place, slice):
            return Positions(self._name, self._rows[place])
        return f"{self._name}:{self._rows[place]}"


class Records:
    """A batch, each record with the position where it stood. Empty: there is no more."""

    __slots__ = ("positions", "records")

    def __init__(self, records: list[Usage], positions: Sequence[str]) -> None:
        self.records = records
        self.positions = positions

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[tuple[Usage, str]]:
        return zip(self.records, self.positions, strict=True)
