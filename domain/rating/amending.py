"""Amending: a tariff version made of another by what changes, and one taken back before it holds.

A carrier's sheet of fifty thousand prefixes changes some hundred prices a month: the log tells
these, not the rest once more. Everything else of a version stays as in the one that was amended.
"""

from typing import ClassVar

from msgspec import Struct
from msgspec.structs import replace

from .language import Rate, Zone, as_amended

AMENDMENTS_MAX = 100


class Amendment(Struct, frozen=True, array_like=True):
    """What changes of a version, and from when on."""

    of: int
    """The version; counted on, where it is another amendment of the same command."""
    valid_from: int
    dropped: tuple[int, ...] = ()
    """Which of its rates are left out, counted from 0."""
    rates: tuple[Rate, ...] = ()
    """What comes in addition."""
    zones_dropped: tuple[str, ...] = ()
    zones: tuple[Zone, ...] = ()
    """In addition, or in place of those of the same name."""


class TariffAmended(Struct, frozen=True, array_like=True):
    """A tariff version holds for usage from a moment on: another one with these changes."""

    topic: ClassVar[str] = "tariff.amended"
    tariff: str
    version: int
    currency: str
    change: Amendment
    note: str = ""
    sheet: str = ""
    """The digest of the rate sheet that asked for it, and of how it was to be taken."""

    @property
    def valid_from(self) -> int:
        return self.change.valid_from


class TariffWithdrawn(Struct, frozen=True, array_like=True):
    """A version that was to hold from a moment on will not."""

    topic: ClassVar[str] = "tariff.withdrawn"
    version: int
    note: str = ""


class AmendTariff(Struct, frozen=True, array_like=True):
    """New versions, all or none, made of those that were seen; each holds from its own moment on."""

    changes: tuple[Amendment, ...]
    seen: int
    """How many versions there were, for if there are others now it is not what was meant."""
    note: str = ""
    supersede: bool = False
    """Whether it may hold for usage of the past, which then is to be rated again."""
    sheet: str = ""
    """The digest of the rate sheet that asks for it."""

    def first_form(self) -> object:
        """What the same request always says: what a sheet changes depends on what holds when it comes."""
        return ("sheet", self.sheet) if self.sheet else replace(self, changes=as_told(self.changes))


class WithdrawTariff(Struct, frozen=True, array_like=True):
    """Let a version never hold: only before it does."""

    version: int
    note: str = ""


def as_told(changes: tuple[Amendment, ...]) -> tuple[Amendment, ...]:
    """As they were told before rates could say more, where they say no more."""
    return tuple(replace(change, rates=as_amended(change.rates)) for change in changes)


def rates_after(rates: tuple[Rate, ...], change: Amendment) -> tuple[Rate, ...]:
    dropped = frozenset(change.dropped)
    if not dropped:
        return (*rates, *change.rates)
    return (*(rate for place, rate in enumerate(rates) if place not in dropped), *change.rates)


def zones_after(zones: tuple[Zone, ...], change: Amendment) -> tuple[Zone, ...]:
    found = {zone.name: zone for zone in zones if zone.name not in change.zones_dropped}
    found.update((zone.name, zone) for zone in change.zones)
    return tuple(found.values())
