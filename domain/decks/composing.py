"""Composing: what a rate sheet makes of the tariffs in force and to come, moment by moment.

A sheet has rows that begin on different days: each moment at which something changes becomes a
version of its own, until the last of them. What a sheet does not speak of (other usage types, the
other direction, rates for an origin or a window) stays as it is, in each version that is
scheduled already too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from ..rating.language import Rate, Zone
from ..refusals import Refused
from .comparing import prefixes_of, unit_price
from .layout import Layout
from .reading import BAD_LINES_TOLD_MAX, EVER, NEVER, Row, Sheet, check_lines

MOMENTS_MAX = 100
"""Versions that one sheet may become."""
Past = Literal["refuse", "from_now_on", "supersede"]
"""What becomes of a row that begins in the past with another price than was charged."""
Lane = dict[str, Rate]
"""The rates of one usage type and direction by prefix; none of them names it once more."""


class Given(Struct, frozen=True):
    """A tariff version, of what a sheet needs."""

    number: int
    valid_from: int
    rates: tuple[Rate, ...]
    zones: tuple[Zone, ...]


class Terms(Struct, frozen=True):
    """How a sheet is taken."""

    now: int
    moment_of: Callable[[date], int]
    """The first moment of a day, in the tenant's time zone."""
    starts_at: int | None = None
    """From when the sheet holds, for what it gives no date; None: the first date to come."""
    past: Past = "refuse"


class Step(Struct, frozen=True):
    """What the lane shall be from a moment on, and the version that holds there before."""

    at: int
    before: Lane
    after: Lane
    scheduled: int | None
    """The version that begins at this very moment already; None: what held just before."""


class Surprise(Struct, frozen=True):
    """A row whose status says otherwise than the prices in force."""

    line: int
    status: str
    told: str


def settled(sheet: Sheet, versions: Sequence[Given]) -> Sheet:
    """With the direction that the tariff has its rates for, where the layout leaves it out."""
    layout = sheet.layout
    mine = {
        rate.direction for given in versions for rate in given.rates if rate.usage_type == layout.usage_type
    }
    if not layout.direction:
        return replace(sheet, layout=replace(layout, direction="both" if "" in mine else "outbound"))
    if layout.of_rates and "" in mine:
        raise Refused(
            "bad_layout",
            field="direction",
            remedy=f"the tariff has rates of {layout.usage_type} for both directions: declare both, or none",
        )
    return sheet


def steps_of(sheet: Sheet, versions: Sequence[Given], terms: Terms) -> list[Step]:
    """Each moment at which something changes, in order. `versions`: in force or to come, by time."""
    sheet = settled(sheet, versions)
    lanes = [(given, lane_of(given, sheet.layout)) for given in versions]
    held = _held_at(lanes, terms.now)
    starts_at = _start(sheet, terms)
    timed = _timed(sheet, held, terms, starts_at)
    steps: list[Step] = []
    held = _held_at(lanes, starts_at)
    for at in _moments(timed, versions, starts_at):
        given = next((one for one, _ in lanes if one.valid_from == at), None)
        base = _held_at(lanes, at)
        before = base if given is not None else held
        after = _lane_at(at, base, timed, whole=sheet.layout.whole)
        if after != before:
            steps.append(Step(at, before, after, None if given is None else given.number))
        held = after
    if len(steps) > MOMENTS_MAX:
        raise Refused(
            "bad_sheet",
            field="starts_on",
            remedy=f"its prices change at {len(steps)} moments, at most {MOMENTS_MAX}: split it",
        )
    return steps


def lane_of(given: Given, layout: Layout) -> Lane:
    """The rates that a sheet of this layout speaks of, by prefix."""
    zones = {zone.name: zone.prefixes for zone in given.zones}
    lane: Lane = {}
    for rate in given.rates:
        if is_spoken_of(rate, layout):
            named = replace(rate, prefix="")
            for prefix in prefixes_of(rate, zones):
                lane.setdefault(prefix, named)
    return lane


def is_spoken_of(rate: Rate, layout: Layout) -> bool:
    return (rate.usage_type, rate.direction, rate.origin, rate.window) == (
        layout.usage_type,
        layout.of_rates,
        "",
        "",
    )


def rate_of(row: Row, layout: Layout) -> Rate:
    """What a row says, for its destination as a zone."""
    return Rate(
        layout.usage_type,
        row.destination,
        row.price,
        layout.per,
        direction=layout.of_rates,
        increment=row.increment,
        minimum=0 if row.minimum == row.increment else row.minimum,
        connect_fee=row.connect_fee,
        included=layout.included,
        blocked=row.status == "blocked",
    )


def surprises(sheet: Sheet, before: Lane) -> Iterator[Surprise]:
    """Rows whose status contradicts the prices in force: told, for the carrier to ask."""
    for row in sheet.rows:
        for prefix in row.prefixes:
            found = before.get(prefix)
            said = _contradiction(row, found, sheet.layout)
            if said:
                yield Surprise(row.line, row.status, f"{prefix} {said}")
                break


def _contradiction(row: Row, found: Rate | None, layout: Layout) -> str:
    if found is None or found.blocked:
        return "has no price in force" if row.status in ("raised", "lowered", "removed") else ""
    was, becomes = unit_price(found), unit_price(rate_of(row, layout))
    match row.status:
        case "raised" if becomes <= was:
            return f"does not become dearer than {found.price} per {found.per}"
        case "lowered" if becomes >= was:
            return f"does not become cheaper than {found.price} per {found.per}"
        case "new":
            return f"has a price in force, {found.price} per {found.per}"
    return ""


# --- when each row holds ------------------------------------------------------------------------


class _Timed(Struct, frozen=True):
    """A row's rate, for one prefix, within [starts_at, ends_at)."""

    starts_at: int
    ends_at: int
    rate: Rate | None
    """None: nothing is offered."""


FOREVER = 1 << 62


def _start(sheet: Sheet, terms: Terms) -> int:
    """From when the sheet holds, for what has no date of its own."""
    if terms.starts_at is not None:
        if terms.starts_at < terms.now and terms.past != "supersede":
            raise Refused("bad_sheet", field="starts_on", remedy="let the sheet begin now or later")
        return terms.starts_at
    if terms.past == "from_now_on":
        return terms.now
    dated = [terms.moment_of(day) for day in {row.starts_on for row in sheet.rows} if day != EVER]
    coming = [at for at in dated if terms.past == "supersede" or at > terms.now]
    if not coming:
        raise Refused(
            "bad_sheet",
            field="starts_on",
            remedy="no row begins in the future: say from which day on the sheet holds, or from now on",
        )
    return min(coming)


def _timed(sheet: Sheet, held: Lane, terms: Terms, starts_at: int) -> dict[str, list[_Timed]]:
    """Of each prefix, its rows in order of time."""
    moments: dict[date, int] = {}
    timed: dict[str, list[_Timed]] = {}
    late: list[dict[str, Any]] = []
    for row in sorted(sheet.rows, key=lambda row: row.starts_on):
        begins = _moment(row.starts_on, moments, terms) if row.starts_on != EVER else starts_at
        ends = FOREVER if row.ends_on == NEVER else _moment(row.ends_on + timedelta(1), moments, terms)
        if ends <= terms.now and terms.past != "supersede":
            continue
        rate = None if row.ends else rate_of(row, sheet.layout)
        told = _Timed(begins, ends, rate)
        if begins < terms.now and terms.past != "supersede":
            changed = [prefix for prefix in row.prefixes if not _same(held.get(prefix), rate)]
            if changed and terms.past == "refuse":
                late.append(_late(row, changed[0], held.get(changed[0])))
            told = _Timed(0 if not changed else terms.now, ends, rate)
        for prefix in row.prefixes:
            timed.setdefault(prefix, []).append(told)
    check_lines(late[:BAD_LINES_TOLD_MAX])
    for rows in timed.values():
        if len(rows) > 1:
            rows[:] = _closed(rows)
    return timed


def _moment(day: date, moments: dict[date, int], terms: Terms) -> int:
    if day not in moments:
        moments[day] = terms.moment_of(day)
    return moments[day]


def _late(row: Row, prefix: str, held: Rate | None) -> dict[str, Any]:
    price = "nothing" if held is None else f"{held.price} per {held.per}"
    remedy = (
        f"{prefix} has cost {price} since: what was charged stays; let it hold from now on, "
        "or supersede it and have usage rated again"
    )
    return {"line": row.line, "field": "starts_on", "value": row.starts_on.isoformat(), "remedy": remedy}


def _same(held: Rate | None, rate: Rate | None) -> bool:
    """Whether usage costs the same, whatever the zone is called."""
    if held is None or rate is None:
        return held is rate
    if held.blocked and rate.blocked:
        return True
    return _costs(held) == _costs(rate)


def _costs(rate: Rate) -> tuple[object, ...]:
    terms = (max(rate.minimum, rate.increment), rate.increment, unit_price(rate), rate.included, rate.blocked)
    more = (rate.bands, rate.minimum_charge, rate.maximum_charge, rate.percent, rate.times)
    return (*terms, unit_price_of(rate.connect_fee), *more)


def unit_price_of(price: str) -> object:
    return price.rstrip("0").rstrip(".") if "." in price else price


def _closed(rows: list[_Timed]) -> list[_Timed]:
    """A row without an end ends where the next begins."""
    ends = [min(one.ends_at, following.starts_at) for one, following in pairwise(rows)]
    return [
        _Timed(one.starts_at, end, one.rate)
        for one, end in zip(rows, [*ends, rows[-1].ends_at], strict=True)
        if one.starts_at < end
    ]


# --- what holds when ----------------------------------------------------------------------------


def _moments(timed: Mapping[str, list[_Timed]], versions: Sequence[Given], starts_at: int) -> list[int]:
    moments = {starts_at, *(given.valid_from for given in versions if given.valid_from > starts_at)}
    for rows in timed.values():
        for one in rows:
            moments.add(one.starts_at)
            moments.add(one.ends_at)
    return sorted(at for at in moments if starts_at <= at < FOREVER)


def _held_at(lanes: Sequence[tuple[Given, Lane]], at: int) -> Lane:
    return next((lane for given, lane in reversed(lanes) if given.valid_from <= at), {})


def _lane_at(at: int, base: Lane, timed: Mapping[str, list[_Timed]], *, whole: bool) -> Lane:
    """The sheet's rows in force; where none has begun yet, what would hold without the sheet."""
    lane: Lane = {}
    settle = _Settled()
    if not whole:
        lane.update((prefix, rate) for prefix, rate in base.items() if prefix not in timed)
    for prefix, rows in timed.items():
        held = base.get(prefix)
        rate = held if at < rows[0].starts_at else None
        for one in rows:
            if one.starts_at <= at < one.ends_at:
                rate = settle(held, one.rate)
        if rate is not None:
            lane[prefix] = rate
    return lane


class _Settled:
    """What is only written otherwise, 0.10 for 0.1, stays as it was. Most prefixes ask the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[Rate, Rate], Rate] = {}

    def __call__(self, held: Rate | None, rate: Rate | None) -> Rate | None:
        if held is None or rate is None:
            return rate
        known = self._known.get((held, rate))
        if known is None:
            known = held if held.zone == rate.zone and _same(held, rate) else rate
            self._known[held, rate] = known
        return known
