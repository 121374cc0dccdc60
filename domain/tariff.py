"""Tariffs: what a unit costs, by usage type, direction, origin, destination and time.

Prices are exact fractions of a micro-unit per unit; a charge is computed exactly and rounded
once, by the method and to the decimals its tariff names. Usage is rated with the version that
was valid when it happened: versions are only ever added. What rates is in `rating/`.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from .rating.amending import TariffAmended, TariffWithdrawn, rates_after, zones_after
from .rating.amending import as_told as changes_as_told
from .rating.basis import Basis
from .rating.checking import Checked, check_decimals
from .rating.fees import Fee
from .rating.finding import Clocks, Deck, Finder, Lane, Origins, bound, refound_attributes
from .rating.language import (
    MICRO,
    PRICE,
    UNITS_MAX,
    Method,
    Priced,
    Rate,
    Window,
    Zone,
    first_rate,
    told_first,
)
from .rating.overriding import RatesOverridden, Source, compose
from .rating.overriding import as_told as overrides_as_told
from .rating.plan import CompiledPlan, PricePlan
from .rating.plan_checks import check_fees, check_planned, check_plans
from .rating.planned_rate import as_it_was
from .rating.rate import EXACT_MAX, NOTHING, Attributes, CompiledRate, Rated
from .rating.rounding import round_to, round_up_to
from .rating.shaped import ShapedRate
from .rating.switched_rate import switched
from .rating.timeline import Entry
from .refusals import InvariantBroken, Refused, check_text
from .usage import USAGE_TYPES

__all__ = [
    "EXACT_MAX",
    "MICRO",
    "NOTHING",
    "PRICE",
    "UNITS_MAX",
    "CompiledRate",
    "Made",
    "Method",
    "Priced",
    "PublishTariff",
    "Rate",
    "Rated",
    "Tariff",
    "TariffEvent",
    "TariffPublished",
    "Tariffs",
    "check_tariff",
    "first_published",
    "published_as",
    "round_to",
    "round_up_to",
]

PUBLISHED_FIRST, PUBLISH_FIRST = 7, 6
"""So many fields had a version and the command for it at first."""


class TariffPublished(Struct, frozen=True, array_like=True):
    """A tariff version holds for usage from a moment on."""

    topic: ClassVar[str] = "tariff.published"
    tariff: str
    version: int
    valid_from: int
    currency: str
    method: Method
    decimals: int
    rates: tuple[Rate, ...]
    zones: tuple[Zone, ...] = ()
    windows: tuple[Window, ...] = ()
    """Of two that contain a moment the first counts."""
    holidays: tuple[str, ...] = ()
    """Dates that are no weekdays: "2026-12-25", or "12-25" in every year."""
    time_zone: str = ""
    """Of the windows and holidays."""
    plans: tuple[PricePlan, ...] = ()
    fees: tuple[Fee, ...] = ()


Made = TariffPublished | TariffAmended | RatesOverridden
"""What a version may come from."""
TariffEvent = Made | TariffWithdrawn
NO_SOURCES: Mapping[int, Source] = MappingProxyType({})


class PublishTariff(Struct, frozen=True, array_like=True):
    """A tariff version: usage from `valid_from` (microseconds) on is rated with it."""

    tariff: str
    valid_from: int
    currency: str
    rates: tuple[Rate, ...]
    method: Method = "half_up"
    decimals: int = 4
    zones: tuple[Zone, ...] = ()
    windows: tuple[Window, ...] = ()
    holidays: tuple[str, ...] = ()
    time_zone: str = ""
    """"" is the tenant's own."""
    plans: tuple[PricePlan, ...] = ()
    fees: tuple[Fee, ...] = ()

    def first_form(self) -> tuple[object, ...]:
        """As it was told before it could say more, where it says no more: its digest stays the same."""
        rates = tuple(map(first_rate, self.rates))
        return tuple(rates if part is self.rates else part for part in told_first(self, PUBLISH_FIRST))


class Tariff:
    """One version, compiled when it is first rated with: of most nothing is rated any more, or yet."""

    def __init__(
        self,
        published: TariffPublished,
        made: Made | None = None,
        sources: Mapping[int, Source] = NO_SOURCES,
        versions: Sequence["Tariff"] = (),
    ) -> None:
        self.published = published
        """All that it says, however it was made."""
        self.made: Made = published if made is None else made
        """The event that it was made by."""
        self.plans = {plan.plan: CompiledPlan(plan) for plan in published.plans}
        self.sources = sources
        """By the place of a rate, where it comes from if that is not the base."""
        self._versions = versions
        """All of the tenant: a session may go on into a later one."""

    @cached_property
    def _finder(self) -> Finder:
        published = self.published
        clocks = Clocks(published.windows, published.holidays, published.time_zone)
        finder = Finder(published.rates, published.zones, clocks, published)
        for rate in finder.rates if self.plans else ():
            if isinstance(rate, ShapedRate) and rate.row.plan:
                rate.plan = self.plans[rate.row.plan]
        return finder

    @property
    def is_compiled(self) -> bool:
        return "_finder" in self.__dict__

    def compile(self) -> None:
        """Now, and not when it is first rated with."""
        assert self._finder is not None

    def among(self, versions: Sequence["Tariff"]) -> "Tariff":
        """The same as one of these."""
        self._versions = versions
        return self

    @cached_property
    def rates(self) -> list[CompiledRate]:
        return self._finder.rates

    @cached_property
    def _origins(self) -> dict[Lane, Origins]:
        return self._finder.origins

    @cached_property
    def decks(self) -> dict[Lane, Deck]:
        """By usage type and direction, of rates for any origin."""
        return self._finder.decks

    def find(
        self,
        usage_type: str,
        direction: str,
        counterpart: str,
        at: int = 0,
        line: str = "",
        attributes: Attributes = (),
    ) -> CompiledRate | None:
        """The rate of a usage, bound to it; refuses one that does not say what its rate asks for."""
        lane = (usage_type, direction)
        origins = self._origins.get(lane) if self._origins else None
        if origins is not None:
            origin = origins.of(line, attributes)
            return self._finder.from_origin(lane, origin, counterpart, at, attributes)
        deck = self.decks.get(lane)
        found = deck.find(counterpart) if deck is not None else None
        return found if found is None or found.plain else bound(found, "", at, attributes)

    def find_again(
        self, usage_type: str, direction: str, counterpart: str, at: int, basis: Basis
    ) -> CompiledRate | None:
        """The same for usage that was charged before: by what its charge knows of it."""
        attributes = refound_attributes(basis)
        return self._finder.from_origin((usage_type, direction), basis.origin, counterpart, at, attributes)

    def rate_of(self, index: int, prefix: str, basis: Basis | None) -> CompiledRate:
        """One of its rates, as a charge has applied it."""
        rate = self.rates[index]
        if basis is None or not basis.switches:
            return as_it_was(rate.again(prefix, basis), rate.plan, basis)

        def following(version: int, place: int) -> CompiledRate:
            of = self if version == self.published.version else self._versions[version - 1]
            return of.rates[place].again(prefix, basis)

        return as_it_was(switched(rate.again(prefix, basis), basis, following), rate.plan, basis)

    def has_prefix(self, index: int, prefix: str) -> bool:
        """Whether a rate is for a prefix."""
        return self._finder.has_prefix(index, prefix)


class Ready(Protocol):
    """See `preparing.py`."""

    def made(self, event: TariffEvent) -> Tariff | None: ...
    def events(self, tariffs: "Tariffs", command: Any, about: Any, now: int) -> list[TariffEvent] | None: ...


class Tariffs:
    """All versions, by the moment each begins to hold."""

    def __init__(self) -> None:
        self.versions: list[Tariff] = []
        self.withdrawn: dict[int, TariffWithdrawn] = {}
        self._newest_first: list[Tariff] = []
        self.prepared: Ready | None = None
        """What was made ready beside the writer for the command that is decided now."""

    def copied(self) -> "Tariffs":
        """The same versions, to be gone on with apart."""
        other = Tariffs()
        other.versions = [*self.versions]
        other.withdrawn = dict(self.withdrawn)
        other._newest_first = [*self._newest_first]
        return other

    def at(self, at: int) -> Tariff | None:
        for tariff in self._newest_first:
            if tariff.published.valid_from <= at:
                return tariff
        return None

    def next_after(self, at: int) -> int | None:
        """When another version begins to hold."""
        return min(
            (t.published.valid_from for t in self._newest_first if t.published.valid_from > at), default=None
        )

    def entries(self) -> list[Entry]:
        """The versions that were not withdrawn, as a timeline has them."""
        return [
            Entry(
                tariff.published.version,
                tariff.published.valid_from,
                tariff.made if isinstance(tariff.made, RatesOverridden) else None,
            )
            for tariff in self.versions
            if tariff.published.version not in self.withdrawn
        ]

    def decide(
        self,
        command: PublishTariff,
        currency: str,
        units: Mapping[str, str] = USAGE_TYPES,
        time_zone: str = "UTC",
    ) -> list[TariffPublished]:
        check_tariff(command, units)
        if command.currency != currency:
            raise Refused("wrong_currency", currency=command.currency, expected=currency)
        return [published_as(command, len(self.versions) + 1, time_zone)]

    def apply(self, event: TariffEvent) -> None:
        if isinstance(event, TariffWithdrawn):
            self.withdrawn[event.version] = event
        else:
            if event.version != len(self.versions) + 1:
                raise InvariantBroken("versions are counted one by one", version=event.version)
            self.versions.append(self._made(event))
        # A later version that begins at the same moment replaces the earlier one.
        self._newest_first = sorted(
            (tariff for tariff in self.versions if tariff.published.version not in self.withdrawn),
            key=lambda tariff: (-tariff.published.valid_from, -tariff.published.version),
        )

    def _made(self, event: Made) -> Tariff:
        ready = self.prepared.made(event) if self.prepared is not None else None
        if ready is not None:
            return ready.among(self.versions)
        match event:
            case TariffAmended():
                of = self.versions[event.change.of - 1].published
                return Tariff(amended(of, event), event, versions=self.versions)
            case RatesOverridden():
                of = self.versions[event.of - 1].published
                composed = compose(of.rates, of.zones, event.overrides)
                published = replace(
                    of,
                    tariff=event.tariff,
                    version=event.version,
                    valid_from=event.valid_from,
                    rates=composed.rates,
                    zones=composed.zones,
                )
                return Tariff(published, event, composed.sources, self.versions)
            case TariffPublished():
                return Tariff(event, versions=self.versions)


def amended(of: TariffPublished, event: TariffAmended) -> TariffPublished:
    """All that a version says which was made of another."""
    return replace(
        of,
        tariff=event.tariff,
        version=event.version,
        valid_from=event.valid_from,
        rates=rates_after(of.rates, event.change),
        zones=zones_after(of.zones, event.change),
    )


def published_as(command: PublishTariff, version: int, time_zone: str) -> TariffPublished:
    """What a command leads to. Its windows keep the time zone that they were published with."""
    zone = (command.time_zone or time_zone) if command.windows else command.time_zone
    return TariffPublished(
        command.tariff,
        version,
        command.valid_from,
        command.currency,
        command.method,
        command.decimals,
        command.rates,
        command.zones,
        command.windows,
        command.holidays,
        zone,
        command.plans,
        command.fees,
    )


def check_tariff(command: PublishTariff, units: Mapping[str, str] = USAGE_TYPES) -> None:
    """Refuses what cannot be rated with, naming rate and field. `units`: of the usage types there are."""
    check_text("tariff", command.tariff)
    check_decimals(command.decimals)
    parts = (command.rates, command.zones, command.windows, command.holidays, command.time_zone)
    Checked(*parts, units).check()
    check_plans(command.plans, command.decimals)
    check_planned(command.rates, command.plans)
    check_fees(command.fees)


def first_published(published: Made) -> dict[str, Any]:
    """A version by its fields' names, as told before it could say more; of others, what makes them so."""
    if isinstance(published, TariffAmended):
        published = replace(published, change=changes_as_told((published.change,))[0])
    elif isinstance(published, RatesOverridden):
        published = replace(published, overrides=overrides_as_told(published.overrides))
    if not isinstance(published, TariffPublished):
        plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.asdict(published))
        return plain
    names = published.__struct_fields__
    told = dict(zip(names, told_first(published, PUBLISHED_FIRST), strict=False))
    told["rates"] = [*map(first_rate, published.rates)]
    builtins: dict[str, Any] = msgspec.to_builtins(told)
    return builtins
