"""What goes along: who moves takes what its buckets hold away from whom it was below.

Usage stays where it was charged. What a bucket pays counts at whoever it is below when the log takes
the charge, also where usage came another way up: it began before the bucket moved, or it is charged
again. So what was moved less what was drawn is what a subtree holds, whatever moves and when.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from ..domain.brief import Charge
from ..domain.charging import CORPORATE
from ..domain.usage import MONEY
from .blocks import BITS
from .daily import CONSUMPTION
from .tables import Connection, int8_array

Key = tuple[str, str, int]
"""A period, a usage type, and the ordinal of whom it is about."""
Held = defaultdict[tuple[str, str], int]
"""What is at and below one member, by period and usage type."""


class Went(NamedTuple):
    """Members went from below some nodes to below others, with all that is below them."""

    at: int
    """When the log took it."""
    who: Sequence[int]
    less: Sequence[int]
    """Whom they left, and to whom they came; whoever is above both has the same as before."""
    more: Sequence[int]
    drawn: Mapping[Key, int]
    """What buckets have paid in this chunk since who went before, at them and above."""


class Elsewhere(NamedTuple):
    """A bucket paid for usage that came another way up than the one that the bucket is on."""

    started_at: int
    period: str
    usage_type: str
    part: int
    less: Sequence[int]
    """Nodes on that way, but not above the bucket ..."""
    more: Sequence[int]
    """... and those above it that are not on that way."""


class Standing(Protocol):
    """The hierarchy as it stands: see `chunk.Ordinals`."""

    def path(self, ordinal: int) -> list[int]: ...
    def stands(self, path: tuple[int, ...]) -> bool: ...


def apart(one: Sequence[int], other: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """Two ways down from the root, without what they have in common."""
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return one[same:], other[same:]


def elsewhere(charges: Iterable[Charge], standing: Standing, sign: int = 1) -> Iterator[Elsewhere]:
    """This looks at each charge: most have come the way that stands."""
    stands = standing.stands
    for charge in charges:
        if (charge.drawn or charge.credit) and not stands(charge.path) and charge.payer == CORPORATE:
            for usage_type, bucket, part in parts(charge):
                way_up = charge.path[charge.path.index(bucket) + 1 :]
                less, more = apart(way_up[::-1], standing.path(bucket)[:-1])
                if less or more:
                    yield Elsewhere(charge.started_at, charge.period, usage_type, sign * part, less, more)


def parts(charge: Charge) -> Iterator[tuple[str, int, int]]:
    """What buckets paid of it: of which type, whose, and how much."""
    for bucket, part in charge.drawn:
        yield charge.usage_type, bucket, part
    for bucket, part in charge.credit:
        yield MONEY, bucket, part


def drawn_above(charges: Iterable[tuple[Charge, int]], standing: Standing) -> dict[Key, int]:
    """What buckets paid, or got back, at each of them and above it."""
    paid: dict[Key, int] = {}
    for charge, sign in charges:
        if charge.payer == CORPORATE:
            for usage_type, bucket, part in parts(charge):
                key = (charge.period, usage_type, bucket)
                paid[key] = paid.get(key, 0) + sign * part
    above: dict[Key, int] = {}
    for (period, usage_type, bucket), part in paid.items():
        for ordinal in standing.path(bucket):
            key = (period, usage_type, ordinal)
            above[key] = above.get(key, 0) + part
    return above


class Holdings:
    """What is at and below those who go in a chunk: as it was before, and then in step with the chunk."""

    def __init__(self, db: Connection, goers: Iterable[Went]) -> None:
        self._held: dict[int, Held] = {}
        for went in goers:
            self._held.update((ordinal, defaultdict(int)) for ordinal in went.who)
        if self._held:
            found = db.execute(_HELD, (int8_array(sorted(self._held)),), prepare=False)
            for ordinal, period, usage_type, quantity in found:
                self._held[ordinal][period, usage_type] = quantity

    def move(self, ordinals: Iterable[int], period: str, usage_type: str, quantity: int) -> None:
        for ordinal in ordinals:
            if ordinal in self._held:
                self._held[ordinal][period, usage_type] += quantity

    def go(self, went: Went) -> list[tuple[str, str, int]]:
        """What goes along, of each period and usage type."""
        for (period, usage_type, ordinal), part in went.drawn.items():
            self.move((ordinal,), period, usage_type, -part)
        sums: Held = defaultdict(int)
        for ordinal in went.who:
            for key, quantity in self._held[ordinal].items():
                sums[key] += quantity
        told = [(period, usage_type, sums[period, usage_type]) for period, usage_type in sorted(sums)]
        for period, usage_type, quantity in told:
            self.move(went.less, period, usage_type, -quantity)
            self.move(went.more, period, usage_type, quantity)
        return [one for one in told if one[2]]


_GOER = "goer.ordinal::integer"
# Rows stand by period first: each is asked for those who go, for there may be very many others.
_HELD = f"""
WITH RECURSIVE known AS (
    (SELECT period FROM consumption_by_day ORDER BY period LIMIT 1)
    UNION ALL
    SELECT (SELECT period FROM consumption_by_day WHERE period > k.period ORDER BY period LIMIT 1)
    FROM known k WHERE k.period IS NOT NULL
)
SELECT goer.ordinal, c.period, c.usage_type,
       sum({CONSUMPTION.figure("moved", _GOER)} - {CONSUMPTION.figure("drawn", _GOER)})::bigint
FROM known k
CROSS JOIN unnest(%s::bigint[]) AS goer (ordinal)
CROSS JOIN LATERAL (
    SELECT * FROM consumption_by_day WHERE period = k.period AND block = ({_GOER} >> {BITS}) OFFSET 0
) AS c
WHERE k.period IS NOT NULL
GROUP BY goer.ordinal, c.period, c.usage_type
"""
