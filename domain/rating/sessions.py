"""What a session must know of its rate: when the price changes, and where the maximum charge ends it."""

from collections.abc import Iterator

from .planned_rate import PlannedRate
from .rate import CompiledRate
from .shaped import ShapedRate
from .switched_rate import SwitchedRate
from .windows import Clock

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


def stretches(clock: Clock, after: int, until: int) -> Iterator[int]:
    """When windows may begin, after a moment and before another."""
    at = after
    for _ in range(HORIZON_STEPS_MAX):
        at = clock.stretch(at)[1]
        if at >= until:
            return
        yield at


def ends_sessions(rate: CompiledRate) -> bool:
    return isinstance(rate, ShapedRate | SwitchedRate) and rate.row.ends and rate.most is not None


def may_cost_more(rate: CompiledRate) -> bool:
    """Whether what was held may cost more by now: its plan has gone on, or other prices hold."""
    return isinstance(rate, PlannedRate | SwitchedRate)


def begun_before(rate: CompiledRate, quantity: int) -> int:
    """What is billed before the increment that the last of so many units lies in."""
    inner = rate.inner if isinstance(rate, SwitchedRate) else rate
    return inner.begun(quantity) if isinstance(inner, ShapedRate) else 0


def has_ended(rate: CompiledRate, billed: int, taken: int, at: int) -> int | None:
    """The maximum charge, where so much costs that or more before it is held down to it."""
    if not isinstance(rate, ShapedRate | SwitchedRate):
        return None
    if rate.most is None or billed <= taken or rate.is_beyond(billed):
        return None
    return int(rate.most) if rate.unheld(billed, taken, at) >= rate.most else None
