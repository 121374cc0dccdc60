"""Price plans: what units cost that are counted over a period: packages, tiers, volume, caps.

A plan gives what the first n units of a period cost together; a charge costs what it adds to that,
so charges of any size add up to the same, exactly. Only overage counts: units that an allowance
covers are in no plan. Prices are exact fractions of a micro-unit; nothing is rounded here.

Under a volume plan a use is charged tier by tier like a graduated one. What the whole quantity costs
at the price of the tier that it ended in is told by `whole`; the invoice has the difference as one line.
"""

from bisect import bisect_right
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from msgspec import Struct

MICRO = 1_000_000

PlanKind = Literal["graduated", "volume", "package", "spend"]
"""How the price of a unit follows from its place in the period. `spend`: not at all, its rate says it."""
Scope = Literal["enterprise", "node", "resource"]
"""Who counts: all together; each node of a kind, for what is below it; each resource."""
Share = Literal["day", "exact", "whole"]
"""How a part of a period is counted. `day`: a day counts for who is there at its end. `exact`: by the
microsecond. `whole`: not at all; whoever is there for any part of the period is there for all of it,
where it was last."""


class Tier(Struct, frozen=True, array_like=True):
    """The units after those of the tier before it, up to a number."""

    upto: int = 0
    """The last unit of the period that belongs to it; 0 of the last tier: there is no last."""
    price: str = "0"
    """Of `per` units, in the tariff's currency: "0.05"."""
    per: int = 1
    fee: str = "0"
    """Once, when its first unit is used."""


class PricePlan(Struct, frozen=True, array_like=True):
    """Prices of a period. Rates name it; what they all bill beyond the allowance counts in it."""

    plan: str
    kind: PlanKind
    tiers: tuple[Tier, ...] = ()
    """Of a graduated or volume plan."""
    free: int = 0
    """Of a package: so many units cost nothing ..."""
    block: int = 0
    """... and after them each block that is begun costs its price."""
    price: str = "0"
    """Of a block."""
    scope: Scope = "enterprise"
    of_kind: str = ""
    """Of the nodes, or resources, that count each for itself; of resources "" means all. Who is none of
    them, nor below one, counts for the enterprise."""
    cap: str = ""
    """Beyond so much in a period nothing is charged any more; "" means no cap."""
    minimum: str = ""
    """What is missing to so much is owed all the same, by each who counts; "" means no minimum."""
    share: Share = "whole"
    """How much of the minimum is for a part of a period."""


class Part(Struct, frozen=True):
    """What some of the units cost, and why."""

    name: str
    """"tier 2", "entry of tier 2", "free", "block", "cap"."""
    units: int
    price: str
    per: int
    exact: Fraction
    """In micro-units. Of a cap: what it takes away."""


class CompiledPlan:
    """A plan, ready to be applied."""

    __slots__ = ("_block", "_fees", "_prices", "_starts", "cap", "has_prices", "minimum", "plan")

    def __init__(self, plan: PricePlan) -> None:
        self.plan = plan
        self.has_prices = plan.kind != "spend"
        self._starts = [0, *(tier.upto for tier in plan.tiers[:-1])]
        """How many units come before each tier."""
        self._prices = [micro(tier.price) * Fraction(1, tier.per) for tier in plan.tiers]
        self._fees = [micro(tier.fee) for tier in plan.tiers]
        self._block = micro(plan.price)
        self.cap = int(micro(plan.cap)) if plan.cap else None
        self.minimum = int(micro(plan.minimum)) if plan.minimum else 0

    def parts(self, before: int, units: int) -> Iterator[Part]:
        """What the units after the first `before` cost."""
        if units <= 0:
            return
        if self.plan.kind == "package":
            yield from self._of_package(before, units)
        else:
            yield from self._of_tiers(before, units)

    def cost(self, before: int, units: int) -> Fraction:
        return sum((part.exact for part in self.parts(before, units)), Fraction(0))

    def whole(self, units: int) -> Fraction:
        """What so many units cost in the end: under a volume plan all of them at one price."""
        if self.plan.kind != "volume" or units <= 0:
            return self.cost(0, units)
        last = bisect_right(self._starts, units - 1) - 1
        return units * self._prices[last] + self._fees[last]

    def left(self, spent: int) -> int | None:
        """What may still be charged before the cap; None without one."""
        return None if self.cap is None else max(0, self.cap - spent)

    def _of_package(self, before: int, units: int) -> Iterator[Part]:
        plan, after = self.plan, before + units
        free = min(after, plan.free) - min(before, plan.free)
        if free:
            yield Part("free", free, "0", 1, Fraction(0))
        if units > free:
            begun = self._blocks(after) - self._blocks(before)
            yield Part("block", units - free, plan.price, plan.block, begun * self._block)

    def _blocks(self, units: int) -> int:
        """How many are begun when so many units are used."""
        return -(-max(0, units - self.plan.free) // self.plan.block)

    def _of_tiers(self, before: int, units: int) -> Iterator[Part]:
        after, starts, tiers = before + units, self._starts, self.plan.tiers
        for place in range(bisect_right(starts, before) - 1, len(tiers)):
            begins = max(before, starts[place])
            ends = after if place + 1 == len(tiers) else min(after, starts[place + 1])
            tier, name = tiers[place], f"tier {place + 1}"
            if begins == starts[place] and self._fees[place]:
                yield Part(f"entry of {name}", 0, tier.fee, 1, self._fees[place])
            yield Part(name, ends - begins, tier.price, tier.per, (ends - begins) * self._prices[place])
            if ends == after:
                return


def micro(text: str) -> Fraction:
    """An amount of the currency in micro-units, exactly."""
    return Fraction(Decimal(text)) * MICRO
