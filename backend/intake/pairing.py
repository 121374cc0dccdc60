"""Pairing: two rows that make one record, such as the INVITE and the BYE of a call.

Each row ends up in exactly one record: with its other half, in whatever order the two came, or
alone. A row that begins or ends something and whose other half never came is told as such. Rows wait
only as long as the window is, so that memory does not grow with the file.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from .declaration import Pairs
from .places import Locate, Text
from .rows import Problem, Row

Key = tuple[str, ...]
Locating = Callable[[Row], Locate | None]
"""How the columns of a row are found; None for a row that is not of this format."""
_TOGETHER = "bring both rows into one file, or correct and recycle"


def paired(
    rows: Iterator[Row], pairs: Pairs, locating: Locating, misfit: Callable[[Row], str]
) -> Iterator[Row]:
    """The rows, those that belong together as one."""
    halves = _Halves(pairs)
    for row in rows:
        if row.problem is not None:
            yield row
        elif (locate := locating(row)) is None:
            yield row._replace(problem=Problem(misfit(row).removeprefix("the row ")))
        elif (found := halves.take(row, locate)) is not None:
            yield found
        yield from halves.given_up()
    yield from halves.rest()


class _Halves:
    """The rows whose other half may still come, the one that waited longest first."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._tellers: dict[int, _Teller] = {}
        self._waiting: OrderedDict[tuple[Key, bool], tuple[int, Row]] = OrderedDict()
        self._done: OrderedDict[Key, int] = OrderedDict()
        """What has ended within the window: both sides may hang up."""
        self._count = 0

    def take(self, row: Row, locate: Locate) -> Row | None:
        """The record that is complete with this row, if one is."""
        self._count += 1
        teller = self._teller(row, locate)
        begins = teller.begins(row.value)
        if not begins and not teller.ends(row.value):
            return row._replace(value=_both(row.value, None))
        key = teller.key(row.value)
        if (other := self._waiting.pop((key, not begins), None)) is not None:
            self._done[key] = self._count
            return _joined(row, other[1]) if begins else _joined(other[1], row)
        if not begins and (key in self._done or (key, False) in self._waiting):
            return row._replace(value=None, repeats=True)
        if (key, begins) in self._waiting:
            return _alone(row, begins=True)
        self._waiting[key, begins] = (self._count, row)
        return None

    def given_up(self) -> Iterator[Row]:
        """Take out those that waited as long as the window is."""
        upto = self._count - self._pairs.window_rows
        while self._done and next(iter(self._done.values())) <= upto:
            self._done.popitem(last=False)
        while self._waiting and next(iter(self._waiting.values()))[0] <= upto:
            yield self._alone()

    def rest(self) -> Iterator[Row]:
        """Take out all others, at the end of the file."""
        while self._waiting:
            yield self._alone()

    def _alone(self) -> Row:
        (_, begins), (_, row) = self._waiting.popitem(last=False)
        return _alone(row, begins=begins)

    def _teller(self, row: Row, locate: Locate) -> "_Teller":
        layout = len(row.value) if isinstance(row.value, list) else 0
        if layout not in self._tellers:
            self._tellers[layout] = _Teller(self._pairs, locate)
        return self._tellers[layout]


class _Teller:
    """How the rows of one layout are told apart."""

    def __init__(self, pairs: Pairs, locate: Locate) -> None:
        self.begins = _all_of(pairs.begins, locate)
        self.ends = _all_of(pairs.ends, locate)
        self._same = [locate(column) for column in pairs.same]
        self._crossed = [locate(column) for column in pairs.crossed]

    def key(self, value: Any) -> Key:
        return (*(read(value) for read in self._same), *sorted(read(value) for read in self._crossed))


def _all_of(wanted: dict[str, list[str]], locate: Locate) -> Callable[[Any], bool]:
    tests: list[tuple[Text, frozenset[str]]] = [
        (locate(column), frozenset(texts)) for column, texts in wanted.items()
    ]
    return lambda value: all(read(value) in texts for read, texts in tests)


def _joined(first: Row, last: Row) -> Row:
    raw = first.raw.rstrip(b"\r\n") + b"\n" + last.raw
    return Row(first.number, raw, _both(first.value, last.value), rows=first.rows + last.rows)


def _alone(row: Row, *, begins: bool) -> Row:
    if begins:
        return row._replace(value=_both(row.value, None), lone=f"has no row that ends it; {_TOGETHER}")
    return row._replace(value=_both(None, row.value), lone=f"ends what no row begins; {_TOGETHER}")


def _both(first: Any, last: Any) -> Any:
    if isinstance(first, list) or isinstance(last, list):
        width = len(last if first is None else first)
        blank = [""] * width
        return list(chain(blank if first is None else first, blank if last is None else last))
    return {**(first or {}), "end": last}
