"""Versioning: how tariff versions come and go, and that a customer's own rates stay laid over the base.

Whatever changes the bases (a version published, amended by a rate sheet, withdrawn before it holds)
or the own rates, in the same breath the versions follow in which both stand together. What was
rated stays: a version holds for usage to come, unless it is said that it supersedes what was.
"""

from collections.abc import Mapping, Sequence
from itertools import count

from msgspec import Struct

from .rating.amending import (
    AMENDMENTS_MAX,
    Amendment,
    AmendTariff,
    TariffAmended,
    TariffWithdrawn,
    WithdrawTariff,
    rates_after,
    zones_after,
)
from .rating.checking import Checked
from .rating.finding import is_plain, prefixes_of
from .rating.language import Rate, Zone
from .rating.overriding import (
    OverrideRates,
    Overrides,
    RatesOverridden,
    check_against,
    check_overrides,
)
from .rating.plan_checks import check_planned
from .rating.timeline import Entry, Laid, at, bases, missing, own_rates
from .refusals import InvariantBroken, Refused, check_text
from .tariff import PublishTariff, TariffEvent, TariffPublished, Tariffs, amended

LATE_MAX = 600_000_000
"""What is to hold from now on may have been on its way for ten minutes."""

VersionCommand = PublishTariff | AmendTariff | WithdrawTariff | OverrideRates


class About(Struct, frozen=True):
    """What a tariff must fit."""

    currency: str
    units: Mapping[str, str]
    """Of the usage types there are."""
    time_zone: str


def decide_versions(tariffs: Tariffs, command: VersionCommand, about: About, now: int) -> list[TariffEvent]:
    """The version asked for, then those with own rates that follow from it."""
    if tariffs.prepared is not None:
        ready = tariffs.prepared.events(tariffs, command, about, now)
        if ready is not None:
            return ready
    match command:
        case PublishTariff():
            told: list[TariffEvent] = [*tariffs.decide(command, about.currency, about.units, about.time_zone)]
        case AmendTariff():
            told = [*_amended(tariffs, command, about, now)]
        case WithdrawTariff():
            told = [*_withdrawn(tariffs, command, now)]
        case OverrideRates():
            return _overridden(tariffs, command, about, now)
    return _laid_again(tariffs, told, about, _note(command))


def check_moments(command: VersionCommand, now: int) -> None:
    """Refuses what would hold in the past by now, and need not have when it was prepared."""
    if isinstance(command, AmendTariff):
        for change in command.changes:
            _check_moment(change.valid_from, now, supersede=command.supersede)
    elif isinstance(command, OverrideRates):
        _check_moment(command.valid_from, now, supersede=command.supersede)


def _note(command: VersionCommand) -> str:
    return "" if isinstance(command, PublishTariff) else command.note


# --- amending ---------------------------------------------------------------------------------


def _amended(tariffs: Tariffs, command: AmendTariff, about: About, now: int) -> list[TariffAmended]:
    check_text("note", command.note, empty=True)
    check_text("sheet", command.sheet, empty=True)
    if command.seen != len(tariffs.versions):
        raise Refused("tariffs_changed", seen=command.seen, versions=len(tariffs.versions))
    if not 1 <= len(command.changes) <= AMENDMENTS_MAX:
        raise Refused(
            "bad_amendment", field="changes", value=len(command.changes), remedy=f"1 to {AMENDMENTS_MAX}"
        )
    made: dict[int, TariffPublished] = {}
    told: list[TariffAmended] = []
    for version, change in zip(count(command.seen + 1), command.changes, strict=False):
        of = made.get(change.of) or _base(tariffs, change.of)
        _check_moment(change.valid_from, now, supersede=command.supersede)
        _check_amendment(of, change, about)
        event = TariffAmended(of.tariff, version, of.currency, change, command.note, command.sheet)
        made[version] = amended(of, event)
        told.append(event)
    return told


def _base(tariffs: Tariffs, version: int) -> TariffPublished:
    known = 1 <= version <= len(tariffs.versions) and version not in tariffs.withdrawn
    if not known or isinstance(tariffs.versions[version - 1].made, RatesOverridden):
        raise Refused("unknown_version", version=version)
    return tariffs.versions[version - 1].published


def _check_moment(valid_from: int, now: int, *, supersede: bool) -> None:
    if valid_from < now - LATE_MAX and not supersede:
        raise Refused("holds_in_the_past", valid_from=valid_from, now=now)


def _check_amendment(of: TariffPublished, change: Amendment, about: About) -> None:
    """What is new is checked like any tariff; of the rest only that nothing is there twice."""
    if any(not 0 <= place < len(of.rates) for place in change.dropped):
        raise Refused(
            "bad_amendment", field="dropped", value=max(change.dropped), remedy="name rates that it has"
        )
    rates, zones = rates_after(of.rates, change), zones_after(of.zones, change)
    if change.rates:
        parts = (change.rates, zones, of.windows, of.holidays, of.time_zone, about.units)
        checked = Checked(*parts)
        # What is there twice is found below, among the rates that stay too.
        if all(map(is_plain, change.rates)):
            checked.check_plain()
        else:
            checked.check()
        check_planned(change.rates, of.plans)
    if not rates:
        raise Refused(
            "bad_amendment", field="dropped", value=len(change.dropped), remedy="leave one rate at least"
        )
    _check_once(rates, zones)


def _check_once(rates: Sequence[Rate], zones: Sequence[Zone]) -> None:
    by_name = {zone.name: zone for zone in zones}
    seen: dict[tuple[str, str, str, str], set[str]] = {}
    for rate in rates:
        if rate.origin and rate.origin not in by_name:
            raise Refused(
                "bad_amendment", field="zones", value=rate.origin, remedy="a rate still speaks of it"
            )
        there = seen.setdefault((rate.usage_type, rate.direction, rate.origin, rate.window), set())
        prefixes = prefixes_of(rate, by_name)
        if not there.isdisjoint(prefixes):
            twice = min(there.intersection(prefixes))
            raise Refused("bad_amendment", field="rates", value=twice, remedy="it has a rate already")
        there.update(prefixes)


# --- withdrawing ------------------------------------------------------------------------------


def _withdrawn(tariffs: Tariffs, command: WithdrawTariff, now: int) -> list[TariffWithdrawn]:
    check_text("note", command.note, empty=True)
    version = command.version
    if not 1 <= version <= len(tariffs.versions):
        raise Refused("unknown_version", version=version)
    if version in tariffs.withdrawn:
        raise Refused("withdrawn_already", version=version)
    tariff = tariffs.versions[version - 1]
    if tariff.published.valid_from <= now:
        raise Refused("holds_already", version=version, valid_from=tariff.published.valid_from)
    made = tariff.made
    if not isinstance(made, RatesOverridden):
        return [TariffWithdrawn(version, command.note)]
    if made.since != made.valid_from:
        raise Refused("laid_over_base", version=version, base=made.of)
    # The same own rates may have been laid over several bases of that moment.
    return [
        TariffWithdrawn(entry.version, command.note)
        for entry in tariffs.entries()
        if entry.overridden is not None
        and entry.valid_from == made.valid_from
        and entry.overridden.overrides == made.overrides
    ]


# --- own rates --------------------------------------------------------------------------------


def _overridden(tariffs: Tariffs, command: OverrideRates, about: About, now: int) -> list[TariffEvent]:
    check_text("note", command.note, empty=True)
    check_overrides(command.overrides, about.units)
    _check_moment(command.valid_from, now, supersede=command.supersede)
    entries = tariffs.entries()
    if at(bases(entries), command.valid_from) is None:
        raise Refused("no_base", valid_from=command.valid_from)
    own = [one for one in own_rates(entries) if one[0] != command.valid_from]
    own = sorted([*own, (command.valid_from, command.overrides)], key=lambda one: one[0])
    told = _follow(tariffs, [], entries, own, about, command.note)
    if not told:
        raise Refused("overridden_already", valid_from=command.valid_from)
    return told


def _laid_again(tariffs: Tariffs, told: Sequence[TariffEvent], about: About, note: str) -> list[TariffEvent]:
    entries = tariffs.entries()
    if not any(entry.overridden for entry in entries):
        return [*told]
    gone = {event.version for event in told if isinstance(event, TariffWithdrawn)}
    entries = [entry for entry in entries if entry.version not in gone]
    entries += [
        Entry(event.version, event.valid_from)
        for event in told
        if isinstance(event, TariffPublished | TariffAmended)
    ]
    return [*told, *_follow(tariffs, told, entries, own_rates(entries), about, note)]


def _follow(
    tariffs: Tariffs,
    told: Sequence[TariffEvent],
    entries: Sequence[Entry],
    own: Sequence[tuple[int, Overrides]],
    about: About,
    note: str,
) -> list[TariffEvent]:
    missed, surplus = missing(entries, own)
    after = _published_after(tariffs, told)
    versions = count(len(after) + 1)
    events: list[TariffEvent] = [TariffWithdrawn(version, note) for version in surplus]
    for one in missed:
        base = after[one.of - 1]
        _check_laid(base, one, about)
        events.append(
            RatesOverridden(
                *(base.tariff, next(versions), one.of, one.valid_from, base.currency, one.since),
                *(one.overrides, note),
            )
        )
    return events


def _published_after(tariffs: Tariffs, told: Sequence[TariffEvent]) -> list[TariffPublished]:
    """What each version says once these have happened."""
    after = [tariff.published for tariff in tariffs.versions]
    for event in told:
        if isinstance(event, TariffPublished):
            after.append(event)
        elif isinstance(event, TariffAmended):
            after.append(amended(after[event.change.of - 1], event))
    return after


def _check_laid(base: TariffPublished, one: Laid, about: About) -> None:
    overrides = one.overrides
    check_against(base.rates, base.zones, overrides)
    if not overrides.rates:
        return
    zones = {zone.name: zone for zone in (*base.zones, *overrides.zones)}
    parts = (overrides.rates, tuple(zones.values()), base.windows, base.holidays, base.time_zone, about.units)
    try:
        Checked(*parts).check()
        check_planned(overrides.rates, base.plans)
    except Refused as refused:
        facts = refused.facts
        raise Refused(
            "bad_override",
            field=facts["field"],
            value=facts.get("value", facts.get("count")),
            remedy=facts.get("remedy", "write it as in a tariff"),
        ) from None


def check_versions(tariffs: Tariffs) -> None:
    """That own rates stand over every base that they are for, and over nothing else."""
    entries = tariffs.entries()
    missed, surplus = missing(entries, own_rates(entries))
    if missed or surplus:
        raise InvariantBroken("own rates are laid over every base", missed=len(missed), surplus=len(surplus))
    if any(not 1 <= version <= len(tariffs.versions) for version in tariffs.withdrawn):
        raise InvariantBroken("only what there is is withdrawn", withdrawn=sorted(tariffs.withdrawn))
