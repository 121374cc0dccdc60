"""Preparing: a large tariff version made ready beside the writer, so that charging does not wait for it.

A sheet of fifty thousand destinations takes a second to check and to compile. That is done on a copy of
the versions as they are; the writer takes what came of it if they still are so, and decides anew
if not. What is decided is the same either way: by the same rules, on the same versions.
"""

from collections.abc import Sequence
from typing import Any

from .rating.amending import AmendTariff, WithdrawTariff
from .rating.language import Rate, Zone
from .rating.overriding import OverrideRates
from .refusals import Refused
from .tariff import PublishTariff, Tariff, TariffEvent, Tariffs
from .versioning import About, VersionCommand, check_moments, decide_versions

LARGE = 1_000
"""Rates and prefixes: fewer are checked within a few milliseconds."""
AHEAD = 3_600_000_000
"""A version that begins to hold within an hour is compiled at once; any other one shortly before it does."""


class Prepared:
    """What a command leads to where versions are as they were seen; its versions are compiled."""

    def __init__(self, command: VersionCommand, about: About, seen: Tariffs, now: int) -> None:
        """Off the writer: `seen` is a copy, and is gone on with here."""
        self._command = command
        self._about = about
        self._seen = _seen(seen)
        self._refused: Refused | None = None
        self._events: list[TariffEvent] = []
        self._made: list[tuple[TariffEvent, Tariff]] = []
        try:
            self._events = decide_versions(seen, command, about, now)
        except Refused as refused:
            self._refused = refused
        for event in self._events:
            seen.apply(event)
            self._made.append((event, seen.versions[-1]))
        for tariff in cold(seen, now, AHEAD):
            tariff.compile()

    def events(
        self, tariffs: Tariffs, command: VersionCommand, about: About, now: int
    ) -> list[TariffEvent] | None:
        """None where it was prepared for something else."""
        if command is not self._command or about != self._about or _seen(tariffs) != self._seen:
            return None
        check_moments(command, now)
        if self._refused is not None:
            raise self._refused
        return [*self._events]

    def made(self, event: TariffEvent) -> Tariff | None:
        """The version that an event of these makes."""
        return next((tariff for known, tariff in self._made if known is event), None)


def is_worth_while(command: object, tariffs: Tariffs) -> bool:
    """Whether it takes long: because it says much, or changes something large."""
    if not isinstance(command, PublishTariff | AmendTariff | OverrideRates | WithdrawTariff):
        return False
    return _said(command) > LARGE or any(map(_is_large, tariffs.versions[-1:]))


def _said(command: VersionCommand) -> int:
    match command:
        case PublishTariff():
            return _size(command.rates, command.zones)
        case AmendTariff():
            return sum(_size(one.rates, one.zones) + len(one.dropped) for one in command.changes)
        case OverrideRates():
            return _size(command.overrides.rates, command.overrides.zones)
    return 0


def _is_large(tariff: Tariff) -> bool:
    return _size(tariff.published.rates, tariff.published.zones) > LARGE


def cold(tariffs: Tariffs, now: int, ahead: int) -> list[Tariff]:
    """Large versions that usage is rated with, now or soon, and that are not compiled."""
    begin = [now]
    while (following := tariffs.next_after(begin[-1])) is not None and following <= now + ahead:
        begin.append(following)
    holding = [tariff for moment in begin if (tariff := tariffs.at(moment)) is not None]
    return [tariff for tariff in holding if not tariff.is_compiled and _is_large(tariff)]


def _size(rates: Sequence[Rate], zones: Sequence[Zone]) -> int:
    return len(rates) + sum(len(zone.prefixes) for zone in zones)


def _seen(tariffs: Tariffs) -> tuple[Any, ...]:
    """By what versions are known: they are only added, and withdrawn."""
    return (
        len(tariffs.versions),
        sorted(tariffs.withdrawn),
        *(tariff.made for tariff in tariffs.versions[-1:]),
    )
