"""Reviews: one member, one usage type, one period: what is left, how fast it goes, who uses it.

Composed of what other views hold, in one reading; nothing is kept for it. What remains at the end
of each day is counted back from what remains now, so the last day is the balance itself. Usage that
is charged days later is taken from the day on which it began: where it drew on what was handed down
only later, less than nothing remained. Days before the period's first, on which next month's
allowance may move, count to its first; what comes late to its last.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from msgspec import Struct

from ..domain.burning import Basis, Outlook, Rate, outlook
from ..domain.days import date_of, day_of, start_of
from .balances import Balance, balance_of, periods
from .consumers import Ranking, children_of, resources_of
from .consumption import CALENDAR, DayUsed, days_of, days_of_resource
from .limits import Limit, limits_of
from .members import Member, member
from .tables import Connection

TOP_USUAL, TOP_MAX = 10, 50
PREVIOUS_USUAL, PREVIOUS_MAX = 3, 12
RATE_DAYS = 7

Bounds = tuple[int, int]
"""Of a period: [starts_at, ends_at)."""


class Asked(Struct, frozen=True):
    """What is reviewed, from which moment, and how much of it is told."""

    member: str
    usage_type: str
    period: str
    bounds: Bounds
    """Of the period, should it not have been opened yet."""
    at: int
    top: int = TOP_USUAL
    previous: int = PREVIOUS_USUAL


class DayLine(Struct, frozen=True):
    """A day of the period; what remained of the allowance at its end."""

    date: str
    used: int
    overage: int
    amount: int
    records: int
    drawn: int
    moved: int
    remaining: int


class Foresight(Struct, frozen=True):
    """What becomes of the allowance, or of the limit, at one rate; and how that was computed."""

    of: Literal["allowance", "limit"]
    outlook: Outlook
    date: str | None
    """The day on which nothing will be left, or on which nothing was any more."""
    working: str


class Compared(Struct, frozen=True):
    """An earlier period beside the one that is reviewed."""

    period: str
    same_days: int
    """Used in as many first days of it as are complete in the reviewed period."""
    difference: int
    """What the reviewed period used in these days, less that."""
    whole: int


class Review(Struct, frozen=True):
    member: Member
    usage_type: str
    period: str
    starts_at: int
    ends_at: int
    at: int
    """From when it is looked at."""
    complete_days: int
    days_in_period: int
    balance: Balance
    limit: Limit | None
    days: list[DayLine]
    """From the first to the one that is running, or the last."""
    rates: list[Rate]
    foresights: list[Foresight]
    exhausted_on: str | None
    """By the freshest rate: the first day on which allowance or limit ends, or had ended."""
    children: Ranking
    resources: Ranking
    complete_days_used: int
    previous: list[Compared]
    """The newest first."""


def review_of(db: Connection, asked: Asked) -> Review | None:
    """None where there is no such member; raises TooManyRecords for a resource that used too often."""
    about = member(db, asked.member)
    if about is None:
        return None
    return _Reviewing(db, asked, about).told()


class _Reviewing:
    """One review in the making; each day is read once."""

    def __init__(self, db: Connection, asked: Asked, about: Member) -> None:
        self.db = db
        self.asked = asked
        self.about = about
        self.zone = CALENDAR.zone(db)
        self.opened = {one.period: (one.starts_at, one.ends_at) for one in periods(db)}
        self.starts_at, self.ends_at = self.opened.get(asked.period, asked.bounds)
        self.first, self.last = day_of(self.starts_at, self.zone), day_of(self.ends_at - 1, self.zone)
        self.over = asked.at >= self.ends_at
        self.today = self.last if self.over else day_of(asked.at, self.zone)
        (self.balance,) = balance_of(db, asked.member, asked.period, [asked.usage_type])
        limits = limits_of(db, asked.member, asked.period, [asked.usage_type])
        self.limit = limits[0] if limits else None
        self._days: dict[str, list[DayUsed]] = {}

    def told(self) -> Review:
        asked, complete = self.asked, max(0, self.today - self.first + self.over)
        complete_used = self._used_in_first(asked.period, complete)
        days = self._series()
        foresights = self._foresights(days)
        return Review(
            self.about,
            asked.usage_type,
            asked.period,
            self.starts_at,
            self.ends_at,
            asked.at,
            complete,
            self.last - self.first + 1,
            self.balance,
            self.limit,
            days,
            self._rates(lambda day: day.used),
            foresights,
            _first_end(foresights),
            self._ranked(children_of),
            self._ranked(resources_of),
            complete_used,
            [self._compared(period, complete, complete_used) for period in self._periods_before()],
        )

    # --- days ---------------------------------------------------------------------------------

    def days(self, period: str) -> list[DayUsed]:
        if period not in self._days:
            counted = days_of if self.about.is_node else days_of_resource
            self._days[period] = counted(self.db, self.about.ordinal, period, self.asked.usage_type)
        return self._days[period]

    def _series(self) -> list[DayLine]:
        """Counted back from what remains now."""
        told = {day: [0] * 6 for day in range(self.first, self.today + 1)}
        if not told:
            return []
        for one in self.days(self.asked.period):
            row = told[min(max(one.day, self.first), self.today)]
            for place, figure in enumerate(_figures(one)):
                row[place] += figure
        lines, remaining = [], self.balance.subtree.remaining
        for day, row in reversed(told.items()):
            lines.append(_line(day, row, remaining))
            remaining += row[_DRAWN] - row[_MOVED]
        return lines[::-1]

    def _used_in_first(self, period: str, days: int) -> int:
        """What comes late counts to the period's last day."""
        starts_at, ends_at = self.opened.get(period, self.asked.bounds)
        last = day_of(ends_at - 1, self.zone)
        end = day_of(starts_at, self.zone) + days
        return sum(one.used for one in self.days(period) if min(one.day, last) < end) if days else 0

    # --- how fast -----------------------------------------------------------------------------

    def _rates(self, figure: Callable[[DayUsed], int]) -> list[Rate]:
        """By the last seven complete days, where there are any, and by all of the period so far."""
        rates = []
        until = start_of(self.today + self.over, self.zone)
        earliest = min((bounds[0] for bounds in self.opened.values()), default=self.starts_at)
        since = max(start_of(self.today + self.over - RATE_DAYS, self.zone), earliest)
        if self.asked.at >= self.starts_at:
            if since < until:
                rates.append(self._rate("last_7_days", figure, since, until))
            quantity = sum(figure(one) for one in self.days(self.asked.period))
            now = min(self.asked.at, self.ends_at)
            rates.append(Rate("period_to_date", quantity, self.starts_at, now))
        return rates

    def _rate(self, basis: Basis, figure: Callable[[DayUsed], int], since: int, until: int) -> Rate:
        first, end = day_of(since, self.zone), day_of(until - 1, self.zone) + 1
        touched = [
            period
            for period, (starts_at, ends_at) in self.opened.items()
            if starts_at < until and since < ends_at
        ]
        days = [one for period in touched for one in self.days(period) if first <= one.day < end]
        return Rate(basis, sum(map(figure, days)), since, until)

    def _foresights(self, days: Sequence[DayLine]) -> list[Foresight]:
        told = []
        if self.balance.subtree.own:
            left = self.balance.subtree.remaining
            told += [self._foresight("allowance", left, rate, days) for rate in self._rates(_drawn)]
        if self.limit is not None:
            left = self.limit.quantity - self.limit.used
            told += [self._foresight("limit", left, rate, ()) for rate in self._rates(_used)]
        return told

    def _foresight(
        self, of: Literal["allowance", "limit"], left: int, rate: Rate, days: Sequence[DayLine]
    ) -> Foresight:
        found = outlook(left, rate, self.asked.at, self.ends_at)
        date = None
        if found.exhausted_at is not None:
            date = date_of(day_of(found.exhausted_at, self.zone))
        elif found.status == "exhausted":
            date = _empty_since(days)
        return Foresight(of, found, date, working(found, date))

    # --- who, and compared with when ----------------------------------------------------------

    def _ranked(self, ranking: Callable[..., Ranking]) -> Ranking:
        asked = self.asked
        return ranking(self.db, self.about, asked.period, asked.usage_type, asked.top, self.balance.used)

    def _periods_before(self) -> list[str]:
        before = sorted(
            (bounds[0], period) for period, bounds in self.opened.items() if bounds[0] < self.starts_at
        )
        return [period for _, period in reversed(before)][: self.asked.previous]

    def _compared(self, period: str, days: int, used: int) -> Compared:
        same = self._used_in_first(period, days)
        return Compared(period, same, used - same, sum(one.used for one in self.days(period)))


def working(found: Outlook, date: str | None) -> str:
    """How it was computed, in the unit of the usage type."""
    rate = found.rate
    seconds, rest = divmod(rate.until - rate.since, 1_000_000)
    lasted = f"{seconds} s" if not rest else f"{seconds}.{rest:06d} s"
    at_rate = f"{found.left} left, {rate.quantity} used in {lasted}"
    return {
        "ended": f"the period has ended with {found.left} left",
        "exhausted": f"nothing is left since {date}" if date else "nothing is left",
        "unused": f"{at_rate}: it lasts",
        "lasts": f"{at_rate}: {found.left} x {lasted} / {rate.quantity} reaches beyond the period's end",
        "runs_out": f"{at_rate}: {found.left} x {lasted} / {rate.quantity} ends on {date}",
    }[found.status]


def _first_end(foresights: Sequence[Foresight]) -> str | None:
    freshest = foresights[0].outlook.rate.basis if foresights else None
    return min(
        (one.date for one in foresights if one.date and one.outlook.rate.basis == freshest), default=None
    )


def _empty_since(days: Sequence[DayLine]) -> str | None:
    """The first of the days at whose ends nothing was left, up to now."""
    since = None
    for day in reversed(days):
        if day.remaining > 0:
            break
        since = day.date
    return since


_DRAWN, _MOVED = 4, 5


def _figures(one: DayUsed) -> tuple[int, ...]:
    return (one.used, one.overage, one.amount, one.records, one.drawn, one.moved)


def _line(day: int, row: Sequence[int], remaining: int) -> DayLine:
    used, overage, amount, records, drawn, moved = row
    return DayLine(date_of(day), used, overage, amount, records, drawn, moved, remaining)


def _used(one: DayUsed) -> int:
    return one.used


def _drawn(one: DayUsed) -> int:
    return one.drawn
