"""Stakes: the money in what waits. Exact where the tariff can tell, else estimated, or not known.

An estimate is the average charge of the same source and usage type over the last days; where the
usage type is not known, of the source. It says how many records it was made for.
"""

from collections.abc import Mapping

from msgspec import Struct

from .accuracy import averages
from .suspense import DAY, EVERYTHING, Ageing, SuspenseFilter, ageing
from .tables import Connection

AVERAGE_DAYS = 30


class Stake(Struct, frozen=True):
    """Records of one reason, source and usage type that wait, and the money in them."""

    reason: str
    source: str
    usage_type: str
    records: int
    oldest: int
    ages: tuple[int, int, int, int]
    """How many have waited for up to a day, a week, thirty days, and longer."""
    rated: int
    """Of so many records the tariff tells what they would cost ..."""
    rated_value: int
    estimated: int
    """... of so many an average does ..."""
    estimated_value: int
    unknown: int
    """... and of so many nothing."""

    @property
    def value(self) -> int:
        return self.rated_value + self.estimated_value


class AtRisk(Struct, frozen=True):
    """What waits of a period: it is on no bill yet, and holds none up."""

    records: int
    value: int
    """What the tariff or an average tells it would cost; of the rest nothing is known."""
    unknown: int


def at_risk(db: Connection, period: str, now: int) -> AtRisk:
    """Of usage in a period, and of usage whose time is not known."""
    bounds = db.execute("SELECT starts_at, ends_at FROM periods WHERE period = %s", (period,)).fetchone()
    if bounds is None:
        return AtRisk(0, 0, 0)
    found = stakes(db, now, SuspenseFilter(from_at=bounds[0], until_at=bounds[1], undated=True))
    return AtRisk(
        sum(one.records for one in found), sum(one.value for one in found), sum(one.unknown for one in found)
    )


def stakes(db: Connection, now: int, wanted: SuspenseFilter = EVERYTHING) -> list[Stake]:
    """What waits, by reason, source and usage type; most records first."""
    charged = averages(db, now // DAY - AVERAGE_DAYS)
    return [_stake(one, charged) for one in ageing(db, now, wanted)]


def _stake(one: Ageing, charged: Mapping[tuple[str, str], tuple[int, int]]) -> Stake:
    left = one.records - one.valued
    amount, records = _average(one, charged)
    estimated = left if records else 0
    return Stake(
        *(one.reason, one.source, one.usage_type, one.records, one.oldest, one.ages, one.valued, one.value),
        *(estimated, amount * estimated // records if records else 0, left - estimated),
    )


def _average(one: Ageing, charged: Mapping[tuple[str, str], tuple[int, int]]) -> tuple[int, int]:
    """Of the same source and type, or of the source where the type is not known."""
    fitting = [
        sums
        for (source, usage_type), sums in charged.items()
        if source == one.source and one.usage_type in ("", usage_type)
    ]
    return sum(amount for amount, _ in fitting), sum(records for _, records in fitting)
