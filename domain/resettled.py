"""What re-rating tells and asks of plans whose whole a closed period has settled: one difference each."""

from typing import ClassVar

from msgspec import Struct

PLANS_MAX = 500
"""Settled again in one command: some milliseconds, while charging waits."""


class Settled(Struct, frozen=True, array_like=True):
    """What a plan came to by the tariff known when its period closed, and by the one known now."""

    plan: str
    of: int
    """Who counts: the enterprise, a node, a resource."""
    node: int
    """Where its line stands."""
    units: int
    """That it had counted when this was worked out."""
    was_tariff: int
    """The version that was known; 0 where none had the plan."""
    was: int
    tariff: int
    owed: int


class CorrectPlans(Struct, frozen=True, array_like=True):
    """One part of a job: owe what plans of a closed period come to beside what was owed for them."""

    job: str
    period: str
    plans: tuple[Settled, ...]


class PlanCorrected(Struct, frozen=True, array_like=True):
    """What a plan should have come to in a closed period; the difference is owed in the one that runs."""

    topic: ClassVar[str] = "plan.corrected"
    job: str
    cause: str
    period: str
    """In which the difference is owed, or credited."""
    of_period: str
    plan: str
    counted_at: int
    """Who counts: an ordinal, and so is ..."""
    stands_at: int
    """... the node where the line stands."""
    units: int
    was_tariff: int
    was: int
    """What was owed for it, with what corrections before this one have changed."""
    tariff: int
    owed: int

    @property
    def difference(self) -> int:
        return self.owed - self.was
