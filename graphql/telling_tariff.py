"""Telling of tariffs: their versions, and a customer's own rates, as sentences for people."""

from ..domain.rating.amending import TariffAmended, TariffWithdrawn
from ..domain.rating.overriding import RatesOverridden
from ..domain.tariff import TariffEvent, TariffPublished


def tariff_sentence(event: TariffEvent) -> str:
    match event:
        case TariffPublished():
            return f"Tariff {event.tariff} was published as version {event.version}."
        case TariffAmended():
            return f"{_amended(event)}{_note(event.note)}"
        case RatesOverridden():
            return f"{_overridden(event)}{_note(event.note)}"
        case TariffWithdrawn():
            return f"Tariff version {event.version} was withdrawn before it held.{_note(event.note)}"


def _amended(event: TariffAmended) -> str:
    change = event.change
    return (
        f"Tariff {event.tariff} was changed from version {change.of} to version {event.version}: "
        f"{len(change.dropped)} rates left it, {len(change.rates)} came."
    )


def _overridden(event: RatesOverridden) -> str:
    own, off = len(event.overrides.rates), len(event.overrides.discounts)
    if not event.overrides:
        return f"Version {event.version} of tariff {event.tariff} is its base alone, version {event.of}."
    return (
        f"Version {event.version} of tariff {event.tariff} is version {event.of} with "
        f"{own} own rates and {off} discounts."
    )


def _note(note: str) -> str:
    return f" {note}" if note else ""
