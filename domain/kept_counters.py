"""How a snapshot keeps lists of counters: one for each member, of a million members.

Most are the usual value, or all are different: so either the few that are not are told, or all of
them, eight bytes each, which the same list is made of again in milliseconds.
"""

from array import array
from collections.abc import Sequence

from msgspec import Struct

from .bucket import NEVER

FEW = 8
"""At most one in so many is told by itself."""


class KeptCounters(Struct, array_like=True, gc=False):
    """A list of numbers."""

    size: int
    usual: int
    few: dict[int, int]
    """Those that are not the usual one, by ordinal; or else ..."""
    every: bytes = b""
    """... all of them."""


def keep_counters(counters: Sequence[int]) -> KeptCounters:
    size = len(counters)
    usual = NEVER if 2 * counters.count(NEVER) > size else 0
    if (size - counters.count(usual)) * FEW > size:
        return KeptCounters(size, usual, {}, array("q", counters).tobytes())
    return KeptCounters(
        size, usual, {ordinal: value for ordinal, value in enumerate(counters) if value != usual}
    )


def restore_counters(kept: KeptCounters) -> list[int]:
    if kept.every:
        return array("q", kept.every).tolist()
    counters = [kept.usual] * kept.size
    for ordinal, value in kept.few.items():
        counters[ordinal] = value
    return counters
