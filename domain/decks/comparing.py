"""Comparing: what changes between two tariffs, prefix by prefix and by zone.

Applied to the first, the changes give the second: nothing is left out, and nothing is told twice.
Prices are compared exactly, per unit, however they are written.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from itertools import chain
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from ..rating.language import Rate, Zone

Kind = Literal["new", "raised", "lowered", "changed", "blocked", "removed", "unchanged"]
KINDS: tuple[Kind, ...] = ("new", "raised", "lowered", "changed", "blocked", "removed", "unchanged")
"""`changed`: the same price, but other increments, fee or zone."""
PERCENT_DECIMALS = 2

Key = tuple[str, str, str, str, str]
"""Usage type, direction, prefix, and the origin and window that a rate asks for."""
Flat = Mapping[Key, Rate]
"""A tariff's rates by what they are found by."""


class Change(Struct, frozen=True):
    """What becomes of one prefix."""

    kind: Kind
    key: Key
    before: Rate | None
    after: Rate | None


class ZoneChange(Struct, frozen=True):
    """The prefixes of one zone with which the same happens."""

    kind: Kind
    zone: str
    usage_type: str
    direction: str
    prefixes: tuple[str, ...]
    before: Rate | None
    after: Rate | None

    @property
    def percent(self) -> str:
        """How much dearer, "+12.5", or cheaper, "-3.33"; "" where there is nothing to compare."""
        if self.before is None or self.after is None:
            return ""
        return percent_of(unit_price(self.before), unit_price(self.after))


def flat(rates: Iterable[Rate], zones: Iterable[Zone] = ()) -> dict[Key, Rate]:
    """A rate of a zone stands at each of its prefixes; of two rates with one the first holds."""
    by_name = {zone.name: zone.prefixes for zone in zones}
    found: dict[Key, Rate] = {}
    for rate in rates:
        for prefix in prefixes_of(rate, by_name):
            found.setdefault((rate.usage_type, rate.direction, prefix, rate.origin, rate.window), rate)
    return found


def prefixes_of(rate: Rate, zones: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """What a rate is found by."""
    return (rate.prefix,) if rate.prefix else zones.get(rate.zone) or ("",)


def compare(before: Flat, after: Flat) -> list[Change]:
    """All prefixes of both, those of the second first, in its order."""
    keys = chain(after, (key for key in before if key not in after))
    return [_change(key, before.get(key), after.get(key)) for key in keys]


def applied(before: Flat, changes: Iterable[Change]) -> dict[Key, Rate]:
    """What the changes make of a tariff."""
    found = dict(before)
    for change in changes:
        if change.after is None:
            found.pop(change.key, None)
        else:
            found[change.key] = change.after
    return found


def by_zone(changes: Iterable[Change]) -> list[ZoneChange]:
    """The same, prefixes of a zone together, in the order of kinds and zones."""
    groups: dict[tuple[Kind, str, str, str, Rate | None, Rate | None], list[str]] = {}
    for change in changes:
        usage_type, direction, prefix = change.key[:3]
        named = change.after or change.before
        assert named is not None
        pair = (_without_prefix(change.before), _without_prefix(change.after))
        groups.setdefault((change.kind, named.zone, usage_type, direction, *pair), []).append(prefix)
    told = [
        ZoneChange(kind, zone, usage_type, direction, tuple(prefixes), before, after)
        for (kind, zone, usage_type, direction, before, after), prefixes in groups.items()
    ]
    return sorted(told, key=lambda one: (KINDS.index(one.kind), one.zone, one.usage_type, one.direction))


def counted(changes: Iterable[Change]) -> dict[Kind, int]:
    """How many prefixes there are of each kind."""
    counts = dict.fromkeys(KINDS, 0)
    for change in changes:
        counts[change.kind] += 1
    return counts


def _change(key: Key, before: Rate | None, after: Rate | None) -> Change:
    return Change(_kind(before, after), key, before, after)


def _kind(before: Rate | None, after: Rate | None) -> Kind:
    if after is None:
        return "removed"
    if before is after or before == after:
        return "unchanged"
    if after.blocked:
        return "changed" if before is not None and before.blocked else "blocked"
    if before is None or before.blocked:
        return "new"
    was, becomes = unit_price(before), unit_price(after)
    if was == becomes:
        return "changed"
    return "raised" if becomes > was else "lowered"


def _without_prefix(rate: Rate | None) -> Rate | None:
    return None if rate is None else replace(rate, prefix="")


def unit_price(rate: Rate) -> Fraction:
    """Of one unit, in the tariff's currency."""
    return Fraction(Decimal(rate.price)) * Fraction(1, rate.per)


def percent_of(before: Fraction, after: Fraction) -> str:
    """The difference, rounded half up to `PERCENT_DECIMALS`; "" from nothing to something."""
    if not before:
        return ""
    hundredths = Fraction(after - before, before) * 100 * 10**PERCENT_DECIMALS
    rounded = (abs(hundredths) + Fraction(1, 2)).__floor__()
    whole, rest = divmod(rounded, 10**PERCENT_DECIMALS)
    digits = f"{whole}.{rest:0{PERCENT_DECIMALS}d}".rstrip("0").rstrip(".")
    return f"{'-' if hundredths < 0 else '+'}{digits}"
