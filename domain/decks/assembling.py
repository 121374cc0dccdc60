"""Assembling: what must change in a tariff version so that it has the rates of a lane.

The prefixes of a destination become a zone with one rate: fifty thousand prefixes are some
thousand rates, and a bill has one line for each destination. A zone that something else speaks
of too is left alone; then each prefix has a rate of its own.
"""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from ..rating.amending import Amendment
from ..rating.language import Rate, Zone
from .composing import Given, Lane, is_spoken_of
from .layout import Layout


def amendment(of: Given, lane: Lane, layout: Layout, at: int) -> Amendment:
    """The change of a version that gives it exactly this lane."""
    spoken = {place: rate for place, rate in enumerate(of.rates) if is_spoken_of(rate, layout)}
    others = _named([rate for place, rate in enumerate(of.rates) if place not in spoken])
    rates, zones = _desired(lane, of.zones, others)
    kept = set(rates)
    had = set(spoken.values())
    return Amendment(
        of.number,
        at,
        tuple(place for place, rate in spoken.items() if rate not in kept),
        tuple(rate for rate in rates if rate not in had),
        tuple(
            zone.name
            for zone in of.zones
            if zone.name not in zones
            and zone.name not in others
            and not zone.networks
            and _of(zone, spoken.values())
        ),
        tuple(zone for zone in zones.values() if zone not in of.zones),
    )


def _desired(lane: Lane, present: Sequence[Zone], others: set[str]) -> tuple[list[Rate], dict[str, Zone]]:
    groups: dict[str, dict[Rate, list[str]]] = {}
    for prefix, rate in lane.items():
        groups.setdefault(rate.zone, {}).setdefault(rate, []).append(prefix)
    there = {zone.name: zone for zone in present}
    rates: list[Rate] = []
    zones: dict[str, Zone] = {}
    for name, by_rate in groups.items():
        largest = max(by_rate, key=lambda rate: len(by_rate[rate]))
        free = name not in others or _has(there.get(name), by_rate[largest])
        whole = largest if free else None
        for rate, prefixes in by_rate.items():
            if rate is not whole or (len(prefixes) == 1 and name not in there):
                rates.extend(replace(rate, prefix=prefix) for prefix in prefixes)
                continue
            rates.append(rate)
            zones[name] = _zone(name, prefixes, there.get(name))
    return rates, zones


def _zone(name: str, prefixes: list[str], present: Zone | None) -> Zone:
    if present is None:
        return Zone(name, tuple(prefixes))
    if _has(present, prefixes):
        return present
    return replace(present, prefixes=tuple(prefixes))


def _has(zone: Zone | None, prefixes: list[str]) -> bool:
    """Whether it is a zone of exactly these."""
    return zone is not None and set(zone.prefixes) == set(prefixes)


def _named(rates: Iterable[Rate]) -> set[str]:
    """The zones that rates speak of, as destinations or as origins."""
    return {name for rate in rates for name in (rate.zone, rate.origin) if name}


def _of(zone: Zone, rates: Iterable[Rate]) -> bool:
    return any(rate.zone == zone.name and not rate.prefix for rate in rates)
