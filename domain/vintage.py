"""Vintages: which units of a bucket were rolled over from earlier periods, and how often.

Kept per bucket and age, not per unit; what is not told of is of this period. Consumed and expired
is what was rolled over most often first, for it expires first; moved is what is youngest first.
"""

from collections.abc import Mapping

Ages = Mapping[int, int]
"""How often rolled over -> how much; no age is empty."""

Rolled = dict[int, dict[int, int]]
"""Ordinal -> ages; no bucket is empty."""


def put(rolled: Rolled, ordinal: int, ages: Ages) -> None:
    for age, quantity in ages.items():
        if quantity:
            held = rolled.setdefault(ordinal, {})
            held[age] = held.get(age, 0) + quantity


def take_oldest(rolled: Rolled, ordinal: int, quantity: int) -> None:
    """Out of what was rolled over, as far as it goes; the rest is of this period."""
    if ordinal in rolled:
        _take(rolled, ordinal, sorted(rolled[ordinal], reverse=True), quantity)


def take_youngest(rolled: Rolled, ordinal: int, remaining: int, quantity: int) -> dict[int, int]:
    """What of a quantity was rolled over, where units of this period go first."""
    ages = rolled.get(ordinal)
    if not ages:
        return {}
    fresh = remaining - sum(ages.values())
    return _take(rolled, ordinal, sorted(ages), quantity - fresh)


def _take(rolled: Rolled, ordinal: int, order: list[int], quantity: int) -> dict[int, int]:
    ages, taken = rolled[ordinal], dict[int, int]()
    for age in order:
        part = min(ages[age], quantity - sum(taken.values()))
        if part <= 0:
            break
        taken[age] = part
        ages[age] -= part
        if not ages[age]:
            del ages[age]
    if not ages:
        del rolled[ordinal]
    return taken
