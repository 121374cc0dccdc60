"""How a snapshot keeps the limits of members: millions of them say the same in a few words.

What they have in common is told once, with who has it and the quantity of each.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from .hierarchy import Member
from .limit import LimitSet

BLOCK = 20_000
"""Limits looked at, or told in one piece: others get their turn in between."""

ByType = dict[str, dict[int, list[LimitSet]]]


class KeptLimits(Struct, array_like=True, gc=False):
    """Limits of one usage type that differ in nothing but member and quantity, each the only one there."""

    like: LimitSet
    """Without a node."""
    ordinals: list[int]
    quantities: list[int | None]


class KeptMany(Struct, array_like=True, gc=False):
    """Limits of one member and usage type, in the order in which they were set."""

    usage_type: str
    ordinal: int
    limits: list[LimitSet]


def keep_limits(by_type: ByType, between: Callable[[], None]) -> tuple[list[KeptLimits], list[KeptMany]]:
    """Those alike, in pieces, and the others. `between` is called between two blocks."""
    alike: dict[tuple[Any, ...], KeptLimits] = {}
    pieces: list[KeptLimits] = []
    many: list[KeptMany] = []
    for usage_type, by_ordinal in list(by_type.items()):
        for number, (ordinal, limits) in enumerate(by_ordinal.items()):
            if number % BLOCK == 0:
                between()
            if len(limits) == 1:
                _keep_one(ordinal, limits[0], alike, pieces)
            else:
                many.append(KeptMany(usage_type, ordinal, limits))
    return pieces, many


def _keep_one(
    ordinal: int, limit: LimitSet, alike: dict[tuple[Any, ...], KeptLimits], pieces: list[KeptLimits]
) -> None:
    words = _words(limit)
    kept = alike.get(words)
    if kept is None or len(kept.ordinals) == BLOCK:
        kept = alike[words] = KeptLimits(LimitSet("", limit.usage_type, None, *words[1:]), [], [])
        pieces.append(kept)
    kept.ordinals.append(ordinal)
    kept.quantities.append(limit.quantity)


def _words(limit: LimitSet) -> tuple[Any, ...]:
    """All that it says, but of whom and how much."""
    return (
        *(limit.usage_type, limit.thresholds, limit.from_period, limit.window, limit.kind),
        *(limit.quantities, limit.may_raise, limit.note),
    )


def restore_limits(by_type: ByType, kept: Iterable[KeptLimits], members: Sequence[Member]) -> None:
    for one in kept:
        usage_type, *words = _words(one.like)
        by_ordinal = by_type.setdefault(usage_type, {})
        for ordinal, quantity in zip(one.ordinals, one.quantities, strict=True):
            by_ordinal[ordinal] = [LimitSet(members[ordinal].id, usage_type, quantity, *words)]


def restore_many(by_type: ByType, kept: Iterable[KeptMany]) -> None:
    for several in kept:
        by_type.setdefault(several.usage_type, {})[several.ordinal] = several.limits
