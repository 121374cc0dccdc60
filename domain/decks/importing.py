"""Importing: a rate sheet as the change of one tenant's tariffs, and what it would have cost that tenant.

The sheet changes bases. What the tenant has of its own stays laid over them, and counts in what a
past period would have cost.
"""

from collections.abc import Iterable

from msgspec import Struct

from ..rating.amending import AmendTariff
from ..rating.overriding import compose
from ..rating.timeline import bases, own_rates
from ..tariff import Tariffs
from .comparing import ZoneChange, by_zone, compare, flat, prefixes_of
from .composing import Given, Lane, Terms, lane_of
from .reading import Sheet
from .report import Charged, Moved, Taken, moved, take


class Used(Struct, frozen=True):
    """What one rate of one version has charged in a period."""

    tariff: int
    rate: int
    records: int
    billed: int
    overage: int
    amount: int


def take_for(tariffs: Tariffs, sheet: Sheet, terms: Terms) -> Taken:
    """What a sheet makes of a tenant's tariffs."""
    return take(sheet, givens(tariffs), terms, len(tariffs.versions))


def command_of(
    tariffs: Tariffs, taken: Taken, terms: Terms, note: str, sheet: str = ""
) -> AmendTariff | None:
    """None where nothing changes."""
    if not taken.changes:
        return None
    return AmendTariff(taken.changes, len(tariffs.versions), note, terms.past == "supersede", sheet)


def givens(tariffs: Tariffs) -> list[Given]:
    """The bases that hold at some time, in order of time."""
    found = [tariffs.versions[entry.version - 1].published for entry in bases(tariffs.entries())]
    return [Given(one.version, one.valid_from, one.rates, one.zones) for one in found]


def what_it_costs(tariffs: Tariffs, taken: Taken, used: Iterable[Used]) -> list[Moved]:
    """By zone: what the usage of a period would have cost by the last version of the sheet."""
    return moved([_charged(tariffs, one) for one in used], _lane(tariffs, taken), taken.layout)


def _lane(tariffs: Tariffs, taken: Taken) -> Lane:
    """With what the tenant has of its own then."""
    last = taken.last
    own = [
        overrides for since, overrides in own_rates(tariffs.entries()) if last and since <= last.valid_from
    ]
    if last is None or not own:
        return taken.lane
    composed = compose(last.rates, last.zones, own[-1])
    return lane_of(Given(last.number, last.valid_from, composed.rates, composed.zones), taken.layout)


def _charged(tariffs: Tariffs, used: Used) -> Charged:
    published = tariffs.versions[used.tariff - 1].published
    rate = published.rates[used.rate]
    zones = {zone.name: zone.prefixes for zone in published.zones}
    about = (used.records, used.billed, used.overage, used.amount)
    return Charged(rate, prefixes_of(rate, zones), *about)


def differences(tariffs: Tariffs, before: int, after: int) -> list[ZoneChange]:
    """What changes from one version to another, by zone; not what stays."""
    flats = [
        flat(published.rates, published.zones)
        for published in (tariffs.versions[number - 1].published for number in (before, after))
    ]
    return by_zone(change for change in compare(*flats) if change.kind != "unchanged")
