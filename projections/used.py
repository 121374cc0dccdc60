"""Used: what charges count up at and below each member in a period, in blocks of sixteen members.

All of it stands here and nowhere else, whoever counted it: charges, corrections, sessions that hold.
What buckets paid is in `balances`, where the other figures of a bucket are. The table is part of the view
`balances`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any

from .blocks import BITS, LAST, NUMBER, Added, Blocks, numbers
from .tables import Connection, int4_array, int4s
from .tally import Used as Counted

COUNTS = ("used_own", "used", "overage", "charges")
"""Used by the member itself; at and below it; what of that no allowance covered; how many charges."""
USED = Blocks("usage_counters", {"period": "text", "usage_type": "text", "block": "integer"}, COUNTS)

_USED_OWN, _USED, _OVERAGE, _CHARGES = range(len(COUNTS))

Column = list[int]


class Sums:
    """What is still to be added: by period and usage type, and by ordinal, its counts."""

    def __init__(self) -> None:
        self.of: dict[tuple[str, str], dict[int, list[int]]] = {}

    def along(
        self, period: str, usage_type: str, path: Sequence[int], much: int, overage: int, charges: int
    ) -> None:
        """Used by the first of a path, and counted at all above it."""
        of = self.of.setdefault((period, usage_type), {})
        for place, ordinal in enumerate(path):
            figures = of.get(ordinal)
            if figures is None:
                figures = of[ordinal] = [0] * len(COUNTS)
            figures[_USED] += much
            figures[_OVERAGE] += overage
            figures[_CHARGES] += charges
            if not place:
                figures[_USED_OWN] += much


def added(counted: Mapping[tuple[str, str], Counted]) -> Added:
    """What a tally has counted."""
    return USED.added({of: _rows(one) for of, one in counted.items() if one.used})


def _rows(one: Counted) -> dict[int, Sequence[int]]:
    own, overage, charges = one.used_own, one.overage, one.charges
    return {
        ordinal: (own.get(ordinal, 0), much, overage.get(ordinal, 0), charges.get(ordinal, 0))
        for ordinal, much in one.used.items()
    }


# --- queries ---------------------------------------------------------------------------------


class Used:
    """Of one usage type in one period, in the order of the ordinals that were asked for."""

    def __init__(self, ordinals: Sequence[int], blocks: Sequence[int] = (), figures: bytes = b"") -> None:
        self._ordinals = ordinals
        self._blocks = blocks
        # Whoever is in no block has nothing: it comes last.
        self._numbers = numbers(figures + bytes(NUMBER * len(COUNTS)))

    def column(self, name: str) -> Column:
        """Of a count, one number for each."""
        return self._picked(self._numbers[COUNTS.index(name) :: len(COUNTS)])

    @cached_property
    def _picked(self) -> Callable[[Sequence[int]], Column]:
        start = {block: place << BITS for place, block in enumerate(self._blocks)}
        nothing = len(self._blocks) << BITS
        at = [
            start[block] + (ordinal & LAST) if (block := ordinal >> BITS) in start else nothing
            for ordinal in self._ordinals
        ]
        if len(at) < 2:
            return lambda column: [column[place] for place in at]
        picked = itemgetter(*at)
        return lambda column: list(picked(column))


def used_among(
    db: Connection, ordinals: Sequence[int], period: str, usage_types: Sequence[str] | None = None
) -> dict[str, Used]:
    """By usage type: of those asked for each, else those that were used."""
    told = int4_array(sorted({ordinal >> BITS for ordinal in ordinals}))
    asked = {"period": period, "blocks": told, "usage_types": list(usage_types or ())}
    found = {usage_type: Used(ordinals) for usage_type in usage_types or ()}
    statement = _OF_ALL_TYPES if usage_types is None else _OF_TYPES
    for usage_type, blocks, figures in _read(db, statement, asked):
        found[usage_type] = Used(ordinals, blocks, figures)
    return found


def used_by_anybody(
    db: Connection, period: str, usage_type: str
) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """All ordinals there are in its blocks; what each used, at and below it, and itself."""
    for _, blocks, figures in _read(db, _OF_ANYBODY, {"period": period, "usage_types": [usage_type]}):
        ordinals = [ordinal for block in blocks for ordinal in range(block << BITS, (block + 1) << BITS)]
        found = numbers(figures)
        return ordinals, found[_USED :: len(COUNTS)], found[_USED_OWN :: len(COUNTS)]
    return (), (), ()


def used_in(db: Connection, ordinals: Sequence[int], period: str) -> dict[tuple[int, str], int]:
    """What a period has counted at members, by usage type, where it is not nothing."""
    return {
        (ordinal, usage_type): much
        for usage_type, used in used_among(db, ordinals, period).items()
        for ordinal, much in zip(ordinals, used.column("used"), strict=True)
        if much
    }


def _read(
    db: Connection, statement: str, asked: Mapping[str, Any]
) -> Iterator[tuple[str, Sequence[int], bytes]]:
    """By usage type: the blocks found, and their figures one after the other."""
    result = db.execute(statement, asked, binary=True).pgresult
    assert result is not None, "it gave rows"
    for row in range(result.ntuples):
        usage_type, blocks, figures = (result.get_value(row, column) or b"" for column in range(3))
        yield usage_type.decode(), int4s(blocks), figures


# Both arrays are put together from the same rows in the same order.
_TOLD = "SELECT usage_type, array_agg(block), string_agg(figures, ''::bytea) FROM usage_counters"
_ASKED = "period = %(period)s AND usage_type = ANY(%(usage_types)s::text[])"
_OF_TYPES = f"{_TOLD} WHERE {_ASKED} AND block = ANY(%(blocks)s::integer[]) GROUP BY usage_type"
_OF_ANYBODY = f"{_TOLD} WHERE {_ASKED} GROUP BY usage_type"
_OF_ALL_TYPES = (
    f"{_TOLD} WHERE period = %(period)s AND block = ANY(%(blocks)s::integer[]) GROUP BY usage_type "
    "ORDER BY usage_type"
)
