"""Finding: which rate of a tariff is a usage's.

By usage type and direction, then by the usage's origin, then by the longest prefix of the other party's
number, then by the window in which it began. A rate for an origin goes before one for any.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from zoneinfo import ZoneInfo

from .basis import Basis
from .language import Rate, Window, Zone
from .rate import Attributes, CompiledRate, Version
from .shaped import Choice, ShapedRate
from .windows import Clock, Holidays

LOOKUPS_REMEMBERED_MAX = 50_000
NETWORKS = ("network", "mcc_mnc")
"""Attributes in which a record may name the network that served it."""
NETWORK = re.compile(r"([0-9]{3})(?:-?([0-9]{2,3}))?")

Lane = tuple[str, str]
"""Usage type and direction."""


class Deck:
    """The rates of one usage type and direction, by prefix."""

    __slots__ = ("_longest", "_prefixes", "_remembered")

    def __init__(self) -> None:
        self._prefixes: dict[str, CompiledRate] = {}
        self._longest = 0
        self._remembered: dict[str, CompiledRate | None] = {}

    def enter(self, rate: CompiledRate, prefixes: Iterable[str]) -> None:
        """Of two rates with one prefix, the first entered holds."""
        for prefix in prefixes:
            self._prefixes.setdefault(prefix, rate)
            self._longest = max(self._longest, len(prefix))

    def find(self, counterpart: str) -> CompiledRate | None:
        """The rate of the longest prefix that the counterpart starts with."""
        start = counterpart[: self._longest]
        try:
            return self._remembered[start]
        except KeyError:
            if len(self._remembered) >= LOOKUPS_REMEMBERED_MAX:
                self._remembered.clear()
            found = self._remembered[start] = self._search(start)
            return found

    def _search(self, start: str) -> CompiledRate | None:
        for length in range(len(start), -1, -1):
            found = self._prefixes.get(start[:length])
            if found is not None:
                return None if found.row.blocked else found.at_prefix(start[:length])
        return None


class Origins:
    """Where usage comes from: zones by network and by the own line's number, each with rates of its own."""

    __slots__ = ("_networks", "_numbers", "decks")

    def __init__(self) -> None:
        self.decks: dict[str, Deck] = {}
        self._networks: dict[str, str] = {}
        self._numbers: dict[str, str] = {}

    def enter(self, zone: Zone) -> Deck:
        deck = self.decks.get(zone.name)
        if deck is None:
            deck = self.decks[zone.name] = Deck()
            self._networks.update((plain_network(network), zone.name) for network in zone.networks)
            self._numbers.update((prefix, zone.name) for prefix in zone.prefixes)
        return deck

    def of(self, line: str, attributes: Attributes) -> str:
        """The zone of the serving network, else of the line; "" where neither is in one."""
        said = dict(attributes)
        network = next((said[name] for name in NETWORKS if said.get(name)), "")
        parts = NETWORK.fullmatch(network)
        zone = None
        if parts is not None:
            country = parts[1]
            zone = self._networks.get(f"{country}-{parts[2]}") or self._networks.get(country)
        return zone or self._of_number(line)

    def _of_number(self, line: str) -> str:
        for length in range(len(line), 0, -1):
            zone = self._numbers.get(line[:length])
            if zone is not None:
                return zone
        return self._numbers.get("", "")


class Finder:
    """All rates of a tariff version, compiled."""

    def __init__(
        self,
        rates: Sequence[Rate],
        zones: Sequence[Zone],
        clocks: "Clocks",
        published: Version,
    ) -> None:
        self.decks: dict[Lane, Deck] = {}
        """Of rates for any origin."""
        self.origins: dict[Lane, Origins] = {}
        self._zones = {zone.name: zone for zone in zones}
        groups = grouped(rates, self._zones)
        asked = {lane for rate in rates if rate.origin for lane in lanes_of(rate)}
        self.rates: list[CompiledRate] = [*map(CompiledRate, rates, range(len(rates)), repeat(published))]
        for places in groups.values():
            self._shape(places, asked, clocks, published)
        # A rate for one direction goes before one for both.
        for places in sorted(groups.values(), key=lambda places: not rates[places[0]].direction):
            self._enter([self.rates[place] for place in places], clocks, published)

    def _shape(self, places: list[int], asked: set[Lane], clocks: "Clocks", published: Version) -> None:
        """Of a group of rates those that are not plain."""
        rows = {self.rates[place].row.window: self.rates[place].row for place in places}
        clock = clocks.of(rows) if any(rows) else None
        for place in places:
            row = self.rates[place].row
            # One without a window beside others that have one is chosen as they are.
            if clock is not None or not is_plain(row) or not asked.isdisjoint(lanes_of(row)):
                held = rows if row.split or row.by_reports else {row.window: row}
                self.rates[place] = ShapedRate(row, place, published, held, clock)

    def _enter(self, rates: list[CompiledRate], clocks: "Clocks", published: Version) -> None:
        entry = first = rates[0]
        if any(rate.row.window for rate in rates):
            by_window = {rate.row.window: rate for rate in rates if isinstance(rate, ShapedRate)}
            entry = Choice(by_window, clocks.of(by_window), published)
        for lane in lanes_of(first.row):
            if first.row.origin:
                deck = self.origins.setdefault(lane, Origins()).enter(self._zones[first.row.origin])
            else:
                deck = self.decks.setdefault(lane, Deck())
            deck.enter(entry, prefixes_of(first.row, self._zones))

    def from_origin(
        self, lane: Lane, origin: str, counterpart: str, at: int, attributes: Attributes
    ) -> CompiledRate | None:
        """The rate of usage that comes from a zone, or from none, bound to it."""
        origins = self.origins.get(lane)
        own = origins.decks.get(origin) if origins is not None else None
        for deck in (own, self.decks.get(lane)):
            entry = deck.find(counterpart) if deck is not None else None
            if entry is not None:
                return bound(entry, origin, at, attributes)
        return None

    def has_prefix(self, index: int, prefix: str) -> bool:
        return prefix in prefixes_of(self.rates[index].row, self._zones)


class Clocks:
    """The windows of a tariff version, several at a time."""

    def __init__(self, windows: Sequence[Window], holidays: Iterable[str], time_zone: str) -> None:
        self._windows = windows
        self._holidays = Holidays(holidays)
        self._zone = ZoneInfo(time_zone or "UTC")
        self._clocks: dict[frozenset[str], Clock] = {}

    def of(self, names: Iterable[str]) -> Clock:
        chosen = frozenset(names) - {""}
        found = self._clocks.get(chosen)
        if found is None:
            windows = [window for window in self._windows if window.name in chosen]
            found = self._clocks[chosen] = Clock(windows, self._holidays, self._zone)
        return found


def bound(entry: CompiledRate, origin: str, at: int, attributes: Attributes) -> CompiledRate:
    """What was found, as it is for one usage."""
    window, prefix = "", entry.prefix
    if isinstance(entry, Choice):
        window, entry = entry.chosen(at)
    return entry.bound(prefix, origin, window, attributes) if isinstance(entry, ShapedRate) else entry


def is_plain(rate: Rate) -> bool:
    """Whether it says nothing that a rate could not say at first, but for the zone's prefixes."""
    return not (
        rate.origin
        or rate.window
        or rate.bands
        or rate.minimum_charge
        or rate.maximum_charge
        or rate.percent
        or rate.times
        or rate.plan
    )


def grouped(rates: Sequence[Rate], zones: Mapping[str, Zone]) -> dict[tuple[str, ...], list[int]]:
    """Rates, by their places, that differ by their window alone."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, rate in enumerate(rates):
        zone = rate.zone if is_of_zone(rate, zones) else ""
        key = (rate.usage_type, rate.direction, rate.origin, rate.prefix, zone)
        groups.setdefault(key, []).append(index)
    return groups


def is_of_zone(rate: Rate, zones: Mapping[str, Zone]) -> bool:
    """Whether it holds for the prefixes of its zone."""
    return not rate.prefix and rate.zone in zones and bool(zones[rate.zone].prefixes)


def lanes_of(rate: Rate) -> list[Lane]:
    directions = [rate.direction] if rate.direction else ["outbound", "inbound"]
    return [(rate.usage_type, direction) for direction in directions]


def prefixes_of(rate: Rate, zones: Mapping[str, Zone]) -> Sequence[str]:
    """Its own prefix, or those of its zone."""
    return zones[rate.zone].prefixes if is_of_zone(rate, zones) else (rate.prefix,)


def plain_network(text: str) -> str:
    """ "23415" and "234-15" are one network: its country, and its number there."""
    parts = NETWORK.fullmatch(text)
    assert parts is not None
    return f"{parts[1]}-{parts[2]}" if parts[2] else parts[1]


def refound_attributes(basis: Basis) -> Attributes:
    """What a charge still knows of its record's attributes."""
    times = str(basis.times)
    return (("participants", times), ("segments", times), ("value", basis.value))
