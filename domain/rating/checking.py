"""Checking a tariff before it is published: every fault is told with its path, its value and a remedy."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from fractions import Fraction
from math import lcm
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..refusals import TEXT_MAX, Refused, check_text
from .finding import NETWORK, grouped, lanes_of, plain_network, prefixes_of
from .language import (
    DAY_MINUTES,
    DAYS,
    DECIMALS_MAX,
    PRICE,
    RATE_FIRST,
    TIMES,
    UNITS_MAX,
    Band,
    Rate,
    Window,
    Zone,
    first_rate,
)
from .rate import EXACT_MAX, money, per_unit
from .shaped import prices_of, steps_of
from .windows import uncovered

RATES_MAX = 200_000
ZONES_MAX = 10_000
PREFIXES_MAX = 500_000
"""Of all zones together."""
BANDS_MAX = 20
WINDOWS_MAX = 50
SPANS_MAX = 50
HOLIDAYS_MAX = 2_000
PERCENT = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,4})?")
HOLIDAY = re.compile(r"(?:[0-9]{4}-)?[0-9]{2}-[0-9]{2}")
TIME_ZONE = re.compile(r"UTC|[A-Z][A-Za-z_]+(?:/[A-Za-z0-9_+-]+){1,2}")
LEAP_YEAR = "2000-"
SECOND_UNIT = "second"
VALUE_DENOMINATOR = 10**12
"""Of a percentage of a value, in micro-units, at most."""

PRICE_REMEDY = 'an exact amount as text, such as "0.05": at most 9 digits before the point and 12 after'
Fault = tuple[str, bool, str]


def bad(field: str, value: object, remedy: str) -> Refused:
    return Refused("bad_tariff", field=field, value=str(value), remedy=remedy)


class Checked:
    """The parts of a tariff, to be checked against each other. `units`: of the usage types there are."""

    def __init__(
        self,
        rates: Sequence[Rate],
        zones: Sequence[Zone],
        windows: Sequence[Window],
        holidays: Sequence[str],
        time_zone: str,
        units: Mapping[str, str],
    ) -> None:
        self.rates = rates
        self.zones = {zone.name: zone for zone in zones}
        self.windows = {window.name: window for window in windows}
        self.holidays = holidays
        self._units = units
        _check_zones(zones)
        _check_windows(windows)
        _check_holidays(holidays)
        check_time_zone(time_zone)
        if not 1 <= len(rates) <= RATES_MAX:
            raise bad("rates", len(rates), f"give 1 to {RATES_MAX} rates")

    def check_plain(self) -> None:
        """The same for rates that are all plain; terms that many of them have are checked once."""
        seen: set[tuple[object, ...]] = set()
        for index, rate in enumerate(self.rates):
            terms = (
                *(rate.usage_type, rate.price, rate.per, rate.direction, rate.increment, rate.minimum),
                *(rate.connect_fee, rate.included, rate.blocked),
            )
            if terms not in seen:
                seen.add(terms)
                self._check_rate(f"rates[{index}]", rate)
            elif not (_is_prefix(rate.zone) and (not rate.prefix or _is_prefix(rate.prefix))):
                self._check_rate(f"rates[{index}]", rate)

    def check(self) -> None:
        for index, rate in enumerate(self.rates):
            self._check_rate(f"rates[{index}]", rate)
        groups = grouped(self.rates, self.zones)
        self._check_once(groups)
        self._check_origins()
        for places in groups.values():
            if len(places) > 1 or self.rates[places[0]].window:
                self._check_group(places)

    def _check_rate(self, path: str, rate: Rate) -> None:
        check_text(f"{path}.zone", rate.zone)
        check_text(f"{path}.prefix", rate.prefix, empty=True)
        for field, wrong, remedy in self._faults(rate):
            if wrong:
                raise bad(f"{path}.{field}", getattr(rate, field), remedy)
        if rate.bands:
            _check_bands(path, rate)
        if rate.times or rate.percent or rate.bands:
            _check_countable(path, [rate])

    def _faults(self, rate: Rate) -> Iterator[Fault]:
        yield "usage_type", rate.usage_type not in self._units, f"use one of {', '.join(self._units)}"
        yield from _price_faults(rate)
        yield "connect_fee", not PRICE.fullmatch(rate.connect_fee), PRICE_REMEDY
        unknown = rate.direction not in ("", "outbound", "inbound")
        yield "direction", unknown, 'outbound, inbound, or "" for both'
        if len(first_rate(rate)) > RATE_FIRST:
            yield from self._faults_of_shape(rate)

    def _faults_of_shape(self, rate: Rate) -> Iterator[Fault]:
        yield "origin", bool(rate.origin) and rate.origin not in self.zones, "the name of one of `zones`"
        yield "window", bool(rate.window) and rate.window not in self.windows, "the name of one of `windows`"
        in_seconds = self._units.get(rate.usage_type) == SECOND_UNIT
        yield "split", rate.split and not in_seconds, "only what is counted in seconds can be split"
        yield "by_reports", rate.by_reports and in_seconds, "what is counted in seconds can be split"
        for field in ("minimum_charge", "maximum_charge"):
            text = getattr(rate, field)
            yield field, bool(text) and not PRICE.fullmatch(text), PRICE_REMEDY
        least, most = rate.minimum_charge, rate.maximum_charge
        both = bool(least and most)
        yield "maximum_charge", both and money(most) < money(least), "not less than `minimum_charge`"
        yield "ends", rate.ends and not most, "give a `maximum_charge` at which the session ends"
        unread = bool(rate.percent) and not PERCENT.fullmatch(rate.percent)
        yield "percent", unread, 'per cent as text, such as "2.5"'
        timed = rate.blocked and bool(rate.window)
        yield "blocked", timed, "what is blocked is so at any time: leave the window out"
        yield "times", bool(rate.times) and rate.times not in TIMES, f"use one of {', '.join(TIMES)}"

    def _check_once(self, groups: Mapping[tuple[str, ...], list[int]]) -> None:
        """Each prefix has one rate, for each direction, origin and window."""
        seen: dict[tuple[str, str, str, str], tuple[str, ...]] = {}
        for key, places in groups.items():
            windows: set[str] = set()
            for place in places:
                rate = self.rates[place]
                if rate.window in windows:
                    raise bad(f"rates[{place}].prefix", rate.prefix, "given twice")
                windows.add(rate.window)
            first = self.rates[places[0]]
            for prefix in prefixes_of(first, self.zones):
                one = (first.usage_type, first.direction, first.origin, prefix)
                if seen.setdefault(one, key) != key:
                    raise bad(f"rates[{places[0]}].prefix", prefix, "given twice")

    def _check_origins(self) -> None:
        """A line, and a network, comes from one zone."""
        used: dict[tuple[str, str], dict[str, str]] = {}
        for index, rate in enumerate(self.rates):
            for lane in lanes_of(rate) if rate.origin else ():
                zone, seen = self.zones[rate.origin], used.setdefault(lane, {})
                for part in (*zone.prefixes, *map(plain_network, zone.networks)):
                    other = seen.setdefault(part, zone.name)
                    if other != zone.name:
                        raise bad(f"rates[{index}].origin", zone.name, f"{part} is in zone {other}, too")

    def _check_group(self, places: list[int]) -> None:
        """Rates for different times: at each time one holds, and what is split has increments in common."""
        rows = [self.rates[place] for place in places]
        named = {row.window for row in rows}
        windows = [window for window in self.windows.values() if window.name in named]
        if all(row.window for row in rows):
            gap = uncovered(windows, holidays=bool(self.holidays))
            if gap is not None:
                when = f"{gap[0]} {gap[1] // 60:02d}:{gap[1] % 60:02d}"
                remedy = f"no rate for {when}: add one of the same prefix without a window"
                raise bad(f"rates[{places[0]}].window", rows[0].window, remedy)
        for place, row in zip(places, rows, strict=True):
            if row.split != rows[0].split:
                raise bad(f"rates[{place}].split", row.split, f"the same as in rates[{places[0]}]")
            if row.by_reports != rows[0].by_reports:
                raise bad(f"rates[{place}].by_reports", row.by_reports, f"the same as in rates[{places[0]}]")
            if (row.split or row.by_reports) and _common(row) != _common(rows[0]):
                remedy = f"what is split has the bands, increments and minimums of rates[{places[0]}]"
                raise bad(f"rates[{place}].increment", row.increment, remedy)
        _check_countable(f"rates[{places[0]}]", rows)


def _common(rate: Rate) -> tuple[object, ...]:
    """What does not depend on the window where usage is split."""
    return steps_of(rate), [band.starts for band in rate.bands], rate.times, rate.included, rate.plan


def _price_faults(rate: Rate | Band) -> Iterator[Fault]:
    yield "price", not PRICE.fullmatch(rate.price), PRICE_REMEDY
    yield "per", not 1 <= rate.per <= UNITS_MAX, f"1 to {UNITS_MAX}"
    yield "increment", not 1 <= rate.increment <= UNITS_MAX, f"1 to {UNITS_MAX}"
    yield "minimum", not 0 <= rate.minimum <= UNITS_MAX, f"0 to {UNITS_MAX}"


def _check_bands(path: str, rate: Rate) -> None:
    if len(rate.bands) > BANDS_MAX:
        raise bad(f"{path}.bands", len(rate.bands), f"at most {BANDS_MAX}")
    before = 0
    for place, band in enumerate(rate.bands):
        at = f"{path}.bands[{place}]"
        if not before < band.starts <= UNITS_MAX:
            raise bad(f"{at}.from", band.starts, f"after the band before it, which begins at {before}")
        for field, wrong, remedy in _price_faults(band):
            if wrong:
                raise bad(f"{at}.{field}", getattr(band, field), remedy)
        before = band.starts
    for place, (step, band) in enumerate(zip(steps_of(rate)[1:], rate.bands[1:], strict=False)):
        if step.begins >= band.starts:
            remedy = f"never reached: the increment before it ends at {step.begins}, and then the next holds"
            raise bad(f"{path}.bands[{place}].from", rate.bands[place].starts, remedy)


def _check_countable(path: str, rows: Sequence[Rate]) -> None:
    """The exact cost has a denominator that can be stored."""
    prices = [per_unit(price) for row in rows for price in prices_of(row)]
    texts = [text for row in rows for text in (row.connect_fee, row.minimum_charge, row.maximum_charge)]
    fees = [money(text) for text in texts if text]
    percents = [Fraction(1, VALUE_DENOMINATOR) for row in rows if row.percent]
    if lcm(*(one.denominator for one in (*prices, *fees, *percents))) >= EXACT_MAX:
        remedy = "fewer decimals, or prices of so many units that are multiples of each other"
        raise bad(f"{path}.per", rows[0].per, remedy)


def _check_zones(zones: Sequence[Zone]) -> None:
    if len(zones) > ZONES_MAX or sum(len(zone.prefixes) for zone in zones) > PREFIXES_MAX:
        raise bad("zones", len(zones), f"at most {ZONES_MAX}, with {PREFIXES_MAX} prefixes")
    names: set[str] = set()
    for index, zone in enumerate(zones):
        path = f"zones[{index}]"
        check_text(f"{path}.name", zone.name)
        if zone.name in names:
            raise bad(f"{path}.name", zone.name, "given twice")
        names.add(zone.name)
        if not zone.prefixes and not zone.networks:
            raise bad(path, zone.name, "give prefixes, networks, or both")
        _check_parts(path, zone)


def _check_parts(path: str, zone: Zone) -> None:
    # Of fifty thousand prefixes all are right, nearly always: then nothing is told of any.
    if len(set(zone.prefixes)) == len(zone.prefixes) and all(map(_is_prefix, zone.prefixes)):
        prefixes: tuple[str, ...] = ()
    else:
        prefixes = zone.prefixes
    seen: set[str] = set()
    for place, prefix in enumerate(prefixes):
        check_text(f"{path}.prefixes[{place}]", prefix)
        if prefix in seen:
            raise bad(f"{path}.prefixes[{place}]", prefix, "given twice")
        seen.add(prefix)
    for place, network in enumerate(zone.networks):
        if not NETWORK.fullmatch(network):
            raise bad(
                f"{path}.networks[{place}]",
                network,
                'MCC and MNC such as "234-15", or "234" for all of a country',
            )


def _is_prefix(text: str) -> bool:
    return 0 < len(text) <= TEXT_MAX and text.isprintable()


def _check_windows(windows: Sequence[Window]) -> None:
    if len(windows) > WINDOWS_MAX:
        raise bad("windows", len(windows), f"at most {WINDOWS_MAX}")
    names: set[str] = set()
    for index, window in enumerate(windows):
        path = f"windows[{index}]"
        check_text(f"{path}.name", window.name)
        if window.name in names:
            raise bad(f"{path}.name", window.name, "given twice")
        names.add(window.name)
        if not 1 <= len(window.spans) <= SPANS_MAX:
            raise bad(f"{path}.spans", len(window.spans), f"give 1 to {SPANS_MAX}")
        for place, span in enumerate(window.spans):
            at = f"{path}.spans[{place}]"
            for day in span.days:
                if day not in DAYS:
                    raise bad(f"{at}.days", day, f"use {', '.join(DAYS)}")
            if not 0 <= span.from_minute < DAY_MINUTES:
                raise bad(f"{at}.from", span.from_minute, "00:00 to 23:59")
            if not 0 < span.to_minute <= DAY_MINUTES:
                raise bad(f"{at}.to", span.to_minute, "00:01 to 24:00")
            if span.from_minute == span.to_minute:
                raise bad(f"{at}.to", span.to_minute, "another time than it begins")


def _check_holidays(holidays: Sequence[str]) -> None:
    if len(holidays) > HOLIDAYS_MAX:
        raise bad("holidays", len(holidays), f"at most {HOLIDAYS_MAX}")
    for place, text in enumerate(holidays):
        if not HOLIDAY.fullmatch(text) or not _is_date(
            text if len(text) > len("12-25") else LEAP_YEAR + text
        ):
            raise bad(f"holidays[{place}]", text, 'a date such as "2026-12-25", or "12-25" for every year')


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def check_time_zone(name: str) -> None:
    try:
        if name and not TIME_ZONE.fullmatch(name):
            raise ValueError(name)
        ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise bad("time_zone", name, "a name such as Europe/London") from None


def check_decimals(decimals: int) -> None:
    if not 0 <= decimals <= DECIMALS_MAX:
        raise bad("decimals", decimals, f"0 to {DECIMALS_MAX}")
