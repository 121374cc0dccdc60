"""Figures: the balances of a whole tree as columns, one number for each of its members.

They are the figures of `balances.py`, to the unit. PostgreSQL gives each column as one array, which
is taken in one go: a thousand rows of twenty figures, each an object in Python, would cost more than
everything else that is done for a screen. A column is made when somebody asks for it.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from operator import itemgetter, sub

from .balances import AMONG, TOLD
from .subtrees import Asked, held_below
from .tables import Connection, int8s
from .trees import Tree
from .used import COUNTS, Used, used_among

BELOW = ("granted", "own", "consumed", "reserved")
"""What is added up over the buckets below."""
SUBTREE = "subtree_"
"""Before the name of what is added up: `subtree_granted`."""

Column = list[int]


class Figures:
    """Of one usage type in one period. Columns have the names of `Balance` and `Holding`."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.read: dict[str, Callable[[], Column]] = {}
        """As they were read: those of members that have any, in an order of their own."""
        self.used: Used | None = None
        """What charges have counted, in the order of the tree."""
        self._made: dict[str, Column] = {}
        self.below: list[tuple[int, tuple[int, ...]]] = []
        """What else is below members of the tree: the place of each, and its four figures."""
        self.besides = True
        """Whether that is besides their own buckets, or these are among it."""

    def column(self, name: str) -> Column:
        """In the order of the tree."""
        made = self._made.get(name)
        if made is None:
            made = self._made[name] = self._column(name)
        return made

    def _column(self, name: str) -> Column:
        whose = SUBTREE if name.startswith(SUBTREE) else ""
        match name.removeprefix(SUBTREE):
            case "remaining":
                return list(map(sub, self.column(f"{whose}own"), self.column(f"{whose}consumed")))
            case "available":
                return list(map(sub, self.column(f"{whose}remaining"), self.column(f"{whose}reserved")))
            case figure if whose:
                return self._added_up(figure)
        if self.used is not None and name in COUNTS:
            return self.used.column(name)
        read = self.read.get(name)
        # Whoever has no row has nothing: it comes last of all that was read.
        return self._in_order([*read(), 0]) if read else [0] * len(self._tree)

    def _added_up(self, figure: str) -> Column:
        """Of each member with all that are below it."""
        sums = self.column(figure).copy() if self.besides else [0] * len(self._tree)
        at = BELOW.index(figure)
        for place, held in self.below:
            sums[place] += held[at]
        for place, above in self._tree.upwards:
            sums[above] += sums[place]
        return sums

    @cached_property
    def _in_order(self) -> Callable[[Column], Column]:
        """Puts what was read into the order of the tree."""
        places = self._tree.places
        at = [-1] * len(places)
        for row, ordinal in enumerate(self.read["ordinal"]()):
            at[places[ordinal]] = row
        if len(at) == 1:
            return lambda column: [column[at[0]]]
        picked = itemgetter(*at)
        return lambda column: list(picked(column))


def figures_among(
    db: Connection, tree: Tree, period: str, usage_types: Sequence[str], *, below: bool = True
) -> dict[str, Figures]:
    """By usage type, in the order asked for. `below`: with what there is in subtrees."""
    found = {usage_type: Figures(tree) for usage_type in usage_types}
    asked = {"period": period, "usage_types": list(found), "ordinals": tree.packed}
    cursor = db.execute(_FIGURES, asked, binary=True)
    result = cursor.pgresult
    assert result is not None, "it gave rows"
    for row in range(result.ntuples):
        usage_type = (result.get_value(row, 0) or b"").decode()
        for at, name in enumerate(("ordinal", *TOLD), 1):
            found[usage_type].read[name] = _later(result.get_value(row, at) or b"")
    for usage_type, used in used_among(db, tree.ordinals, period, list(found)).items():
        found[usage_type].used = used
    if below and len(tree):
        rows, besides = held_below(db, Asked(tree, period, list(found)))
        for figures in found.values():
            figures.besides = besides
        for ordinal, usage_type, *held in rows:
            found[usage_type].below.append((tree.places[ordinal], tuple(held)))
    return found


def side_by_side(columns: Sequence[Column]) -> Column:
    """The first of each, then the second of each, and so on."""
    if len(columns) == 1:
        return columns[0]
    together = [0] * sum(map(len, columns))
    for place, column in enumerate(columns):
        together[place :: len(columns)] = column
    return together


def _later(packed: bytes) -> Callable[[], Column]:
    return lambda: int8s(packed)


_ARRAYS = ", ".join(f"array_agg(({one})::bigint)" for one in ("b.ordinal", *TOLD.values()))
_FIGURES = f"SELECT b.usage_type, {_ARRAYS} FROM balances b WHERE {AMONG} GROUP BY b.usage_type"
