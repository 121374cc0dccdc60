"""Reservations: quantity of a bucket that was promised to somebody, and cannot be used or moved meanwhile.

Open offers and transfers that wait for approval reserve in the same counter as running sessions do.
Each event that changes what they reserve tells what it reserves and what it frees, so whoever
follows the log adds and takes away.
"""

from collections.abc import Iterable

from msgspec import Struct

from .bucket import Family
from .hierarchy import Hierarchy
from .refusals import InvariantBroken

Place = tuple[str, str, int]
"""Usage type, period, and the ordinal of the member whose bucket it is."""


class Reservation(Struct, frozen=True, array_like=True):
    """So much of a member's bucket."""

    node: str
    usage_type: str
    period: str
    quantity: int


Reservations = tuple[Reservation, ...]


class Leg(Struct, frozen=True, array_like=True):
    """One way of a transfer: an exchange has two, each of them zero-sum in its own type."""

    source: str
    target: str
    usage_type: str
    period: str
    quantity: int

    @property
    def reservation(self) -> Reservation:
        return Reservation(self.source, self.usage_type, self.period, self.quantity)

    @property
    def back(self) -> "Leg":
        return Leg(self.target, self.source, self.usage_type, self.period, self.quantity)


def legs_of(
    source: str, target: str, given: tuple[str, int], price: tuple[str, int], period: str
) -> tuple[Leg, ...]:
    """What goes there, and what comes back for it, if anything does."""
    leg = Leg(source, target, given[0], period, given[1])
    return (leg, Leg(target, source, price[0], period, price[1])) if price[1] else (leg,)


def reserve(
    families: dict[tuple[str, str], Family], hierarchy: Hierarchy, reserved: Iterable[Reservation]
) -> None:
    for one in reserved:
        family, ordinal = families[one.usage_type, one.period], hierarchy.by_id[one.node].ordinal
        total = family.reserved[ordinal] = family.reserved[ordinal] + one.quantity
        if one.quantity <= 0 or total > family.remaining[ordinal]:
            raise InvariantBroken("0 <= reserved <= remaining", node=one.node, reserved=total)


def free(families: dict[tuple[str, str], Family], hierarchy: Hierarchy, freed: Iterable[Reservation]) -> None:
    """The reverse of `reserve`."""
    for one in freed:
        family, ordinal = families[one.usage_type, one.period], hierarchy.by_id[one.node].ordinal
        left = family.reserved[ordinal] = family.reserved[ordinal] - one.quantity
        if one.quantity <= 0 or left < 0:
            raise InvariantBroken("only what is reserved is freed", node=one.node, reserved=left)
