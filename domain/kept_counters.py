"""How a snapshot keeps lists of counters: one for each member, of a million members.

Most are the usual value, or all are different: so either the few that are not are told, or all of
them, eight bytes each, which the same list is made of again in milliseconds.
"""

from array import array
from collections.abc import Sequence

from msgspec import Struct

FEW = 8
"""At most one in so many is told by itself."""
SAMPLE = 100
"""Looked at first, about: which value is the usual one, and whether there is one at all, which ..."""
SELDOM = 4
"""... is so where less than one in so many of them is another."""


class KeptCounters(Struct, array_like=True, gc=False):
    """A list of numbers."""

    size: int
    usual: int
    few: dict[int, int]
    """Those that are not the usual one, by ordinal; or else ..."""
    every: bytes = b""
    """... all of them."""


def keep_counters(counters: Sequence[int]) -> KeptCounters:
    """As few as it can; to go through all of a list once for each question would cost more than the rest."""
    size, sample = len(counters), sorted(counters[:: len(counters) // SAMPLE + 1])
    usual = sample[len(sample) // 2] if sample else 0  # what more than half are stands in the middle
    if (len(sample) - sample.count(usual)) * SELDOM <= len(sample):
        others = size - counters.count(usual)
        if others * FEW <= size:
            return KeptCounters(size, usual, _unlike(counters, usual, others))
    return KeptCounters(size, usual, {}, array("q", counters).tobytes())


def _unlike(counters: Sequence[int], usual: int, others: int) -> dict[int, int]:
    """So many that are not the usual one. Mostly they are of nodes high up, which come first."""
    few: dict[int, int] = {}
    if others:
        for ordinal, value in enumerate(counters):
            if value != usual:
                few[ordinal] = value
                if len(few) == others:
                    break
    return few


def restore_counters(kept: KeptCounters) -> list[int]:
    if kept.every:
        return array("q", kept.every).tolist()
    counters = [kept.usual] * kept.size
    for ordinal, value in kept.few.items():
        counters[ordinal] = value
    return counters
