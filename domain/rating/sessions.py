"""What a session must know of its rate: when the price changes, and where the maximum charge ends it."""

from .rate import CompiledRate
from .shaped import ShapedRate

HORIZON_STEPS_MAX = 32
"""Stretches that are looked through for another price: days, mostly."""


def switches_at(rate: CompiledRate, after: int, until: int) -> int:
    """When, after a moment, other prices hold for what is used then; 0 where none do before the end."""
    if not isinstance(rate, ShapedRate) or not rate.row.split or rate.clock is None or rate.price is not None:
        return 0
    window, at = rate.clock.stretch(after)
    for _ in range(HORIZON_STEPS_MAX):
        if at >= until:
            return 0
        following, ends = rate.clock.stretch(at)
        if rate.nums[following] != rate.nums[window]:
            return at
        at = ends
    return 0


def ends_sessions(rate: CompiledRate) -> bool:
    return isinstance(rate, ShapedRate) and rate.row.ends and rate.most is not None


def has_ended(rate: CompiledRate, billed: int, taken: int, at: int) -> int | None:
    """The maximum charge, where so much costs that or more before it is held down to it."""
    if not isinstance(rate, ShapedRate) or rate.most is None or billed <= taken or rate.is_beyond(billed):
        return None
    return int(rate.most) if rate.unheld(billed, taken, at) >= rate.most else None
