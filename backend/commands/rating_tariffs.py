"""Tariffs from files: what a tenant's would be with a rate sheet and with own rates, without any tenant.

The same rules carry the files out that would in a tenant's log: the sheet amends the tariff, own rates
are laid over every version that comes of it. Nothing here is of the past, whatever its date: usage of
any time is to be rated.
"""

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from ...domain.rating.overriding import RatesOverridden
from ...domain.refusals import Refused
from ...domain.tariff import PublishTariff, Tariff, Tariffs
from ...domain.versioning import About, VersionCommand, decide_versions
from ...tenants.definition import DefinitionError
from ...tenants.own_rates_file import own_rates_command, parse_own_rates
from ...tenants.tariff_file import refusal_told

LONG_AGO = 0


class OfferedTariffs:
    """Tariffs, made of files one after the other."""

    def __init__(self, base: PublishTariff, zone: ZoneInfo, units: dict[str, str]) -> None:
        self.tariffs = Tariffs()
        self._zone = zone
        self._about = About(base.currency, units, zone.key)
        self._carry_out(base)

    def take_sheet(self, file: str, layout: Path | None, from_day: str | None, *, part: bool) -> None:
        """A carrier's A-Z sheet, as `allotment deck import` takes it."""
        from ...domain.decks.importing import command_of, take_for  # noqa: PLC0415  (who has none goes without)
        from .decks import sheet_of, terms_of  # noqa: PLC0415

        begins = self.tariffs.versions[0].published.valid_from
        terms = terms_of(self._zone, from_day, "supersede", begins)
        try:
            sheet = sheet_of(file, layout, self._about.currency, part=part)
            command = command_of(self.tariffs, take_for(self.tariffs, sheet, terms), terms, "")
            if command is not None:
                self._carry_out(command)
        except Refused as refused:
            raise DefinitionError(f"{file}: the sheet cannot be used: {_told(refused)}") from refused

    def lay_over(self, file: Path) -> None:
        """A customer's own rates, as `allotment tariff override` lays them."""
        try:
            self._carry_out(own_rates_command(parse_own_rates(file.read_bytes()), self._zone))
        except Refused as refused:
            raise DefinitionError(f"{file}: the own rates cannot be used: {_told(refused)}") from refused
        except DefinitionError as error:
            raise DefinitionError(f"{file}: {error}") from error

    def at(self, moment: int) -> Tariff:
        """The version that holds then; before any does, the first."""
        return self.tariffs.at(moment) or self.tariffs.versions[0]

    def _carry_out(self, command: VersionCommand) -> None:
        for event in decide_versions(self.tariffs, command, self._about, LONG_AGO):
            self.tariffs.apply(event)


def own_of(tariff: Tariff, place: int) -> dict[str, Any]:
    """Where a rate comes from, if not simply from the base."""
    source, made = tariff.sources.get(place), tariff.made
    if source is None or not isinstance(made, RatesOverridden):
        return {}
    about = {"base_version": made.of, "in_place_of": source.of}
    return {"own": {"why": source.why, "place": source.place, **about}}


def _told(refused: Refused) -> str:
    if refused.code == "no_base":
        return "valid_from: they begin before the tariff does: let them begin with it, or later"
    if refused.code == "bad_deck":
        return "; ".join(map(_line_told, refused.facts["lines"]))
    return refusal_told(refused)


def _line_told(one: dict[str, Any]) -> str:
    return f"line {one['line']}: {one['field']} {one['value']!r}: {one['remedy']}"
