"""Timeline: which tariff version holds when, of bases and of what a customer has of its own over them.

A base is published, or amended from another. A customer's own rates hold from a moment on over
whatever is the base then: wherever a base begins under them, and wherever they begin over a base,
there is a version with both. So when the base changes, they are laid over it again.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from msgspec import Struct

from .overriding import Overrides, RatesOverridden


class Entry(Struct, frozen=True):
    """A version, of what a timeline needs."""

    version: int
    valid_from: int
    overridden: RatesOverridden | None = None
    """None: it is a base."""


class Laid(Struct, frozen=True):
    """Own rates over a base, from a moment on."""

    valid_from: int
    of: int
    since: int
    overrides: Overrides


def holding(entries: Iterable[Entry]) -> list[Entry]:
    """Those that hold at some time, by it: of two that begin at once the later one does."""
    by_start: dict[int, Entry] = {}
    for entry in sorted(entries, key=lambda entry: entry.version):
        by_start[entry.valid_from] = entry
    return sorted(by_start.values(), key=lambda entry: entry.valid_from)


def bases(entries: Iterable[Entry]) -> list[Entry]:
    return holding(entry for entry in entries if entry.overridden is None)


def at(entries: Sequence[Entry], moment: int) -> Entry | None:
    """Of those in order of time, the one that holds."""
    place = bisect_right(entries, moment, key=lambda entry: entry.valid_from)
    return entries[place - 1] if place else None


def own_rates(entries: Iterable[Entry]) -> list[tuple[int, Overrides]]:
    """What a customer has of its own, and since when, in order of time."""
    found: dict[int, Overrides] = {}
    for entry in sorted(entries, key=lambda entry: entry.version):
        if entry.overridden is not None and entry.overridden.since == entry.valid_from:
            found[entry.valid_from] = entry.overridden.overrides
    return sorted(found.items(), key=lambda one: one[0])


def laid(entries: Sequence[Entry], own: Sequence[tuple[int, Overrides]]) -> list[Laid]:
    """Every version with own rates that there should be."""
    lower = bases(entries)
    found: list[Laid] = []
    for moment in sorted({entry.valid_from for entry in lower} | {since for since, _ in own}):
        base = at(lower, moment)
        place = bisect_right(own, moment, key=lambda one: one[0])
        if base is not None and place:
            since, overrides = own[place - 1]
            found.append(Laid(moment, base.version, since, overrides))
    return found


def missing(entries: Sequence[Entry], own: Sequence[tuple[int, Overrides]]) -> tuple[list[Laid], list[int]]:
    """Versions with own rates that there should be and are not; and those that should not be."""
    there = {entry.valid_from: entry for entry in holding(e for e in entries if e.overridden is not None)}
    wanted = {one.valid_from: one for one in laid(entries, own)}
    missed = [one for one in wanted.values() if not _is(there.get(one.valid_from), one)]
    surplus = [
        entry.version for entry in entries if entry.overridden is not None and entry.valid_from not in wanted
    ]
    return missed, surplus


def _is(entry: Entry | None, wanted: Laid) -> bool:
    told = entry.overridden if entry is not None else None
    return told is not None and (told.of, told.since, told.overrides) == (
        wanted.of,
        wanted.since,
        wanted.overrides,
    )
