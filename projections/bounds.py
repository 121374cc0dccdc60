"""Bounds: the limits in force in a whole tree as columns, in the order of its members.

They are the limits of `limits.py`, to the unit. Most of a tree have the same thresholds from the same
period on: PostgreSQL gives those as one row, with an array each of members, quantities and seqs.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

from .figures import Column, Figures, figures_among, side_by_side
from .limits import IN_FORCE, Crossing, crossings_of
from .tables import Connection, int8s
from .trees import Tree

_COLUMNS = ("at", "quantity", "seq", "thresholds", "from_period")


class Bounds:
    """Of a tree; each limit is one place of every column."""

    def __init__(self, tree: Tree, usage_types: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
        self._tree = tree
        self._usage_types = usage_types
        columns: tuple[Any, ...] = tuple(zip(*sorted(rows), strict=True)) or ((),) * len(_COLUMNS)
        self.at: Column
        """Member by member, and for each of them type by type."""
        self.at, self.quantity, self.seq, self.thresholds, self.from_period = map(list, columns)
        self.used: Column = []
        self.crossed: dict[int, list[Crossing]] = {}
        """By place; of most limits there is none."""

    def __len__(self) -> int:
        return len(self.at)

    @cached_property
    def usage_type(self) -> list[str]:
        each = len(self._usage_types)
        return [self._usage_types[at % each] for at in self.at]

    @cached_property
    def remaining(self) -> Column:
        """What may still be used; 0 once it is reached."""
        pairs = zip(self.quantity, self.used, strict=True)
        return [quantity - used if used < quantity else 0 for quantity, used in pairs]

    @cached_property
    def ends(self) -> Column:
        """Up to which place those of each member stand."""
        counts = [0] * len(self._tree)
        each = len(self._usage_types)
        for at in self.at:
            counts[at // each] += 1
        return list(accumulate(counts))


def bounds_among(
    db: Connection,
    tree: Tree,
    period: str,
    usage_types: Sequence[str],
    figures: Mapping[str, Figures] | None = None,
) -> Bounds:
    """What its members have used may be known already."""
    asked = {"period": period, "usage_types": list(usage_types), "ordinals": tree.packed}
    bounds = Bounds(tree, usage_types, _read(db, tree, usage_types, asked))
    if len(bounds):
        figures = figures or figures_among(db, tree, period, usage_types, below=False)
        used = side_by_side([figures[usage_type].column("used") for usage_type in usage_types])
        bounds.used = [used[at] for at in bounds.at]
        bounds.crossed = _crossed(db, bounds, tree, usage_types, asked)
    return bounds


def _read(
    db: Connection, tree: Tree, usage_types: Sequence[str], asked: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    each, places = len(usage_types), tree.places
    cursor = db.execute(_IN_FORCE, asked, binary=True)
    result = cursor.pgresult
    assert result is not None, "it gave rows"
    for group, (usage_type, from_period, thresholds, *_) in enumerate(cursor):
        kind = usage_types.index(usage_type)
        packed = (result.get_value(group, column) or b"" for column in (3, 4, 5))
        for ordinal, quantity, seq in zip(*map(int8s, packed), strict=True):
            rows.append((places[ordinal] * each + kind, quantity, seq, thresholds, from_period))
    return rows


def _crossed(
    db: Connection, bounds: Bounds, tree: Tree, usage_types: Sequence[str], asked: Mapping[str, Any]
) -> dict[int, list[Crossing]]:
    each, places = len(usage_types), tree.places
    at = {at: place for place, at in enumerate(bounds.at)}

    def held(ordinal: int, usage_type: str) -> tuple[int, Sequence[int]] | None:
        place = at.get(places[ordinal] * each + usage_types.index(usage_type))
        return None if place is None else (bounds.quantity[place], bounds.thresholds[place])

    return {
        at[places[ordinal] * each + usage_types.index(usage_type)]: crossings
        for (ordinal, usage_type), crossings in crossings_of(db, asked, held).items()
    }


_IN_FORCE = f"""
SELECT usage_type, from_period, thresholds,
       array_agg(ordinal::bigint), array_agg(quantity), array_agg(seq)
FROM ({IN_FORCE}) AS held WHERE quantity IS NOT NULL GROUP BY usage_type, from_period, thresholds
"""
