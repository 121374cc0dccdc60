"""Usage types: what a tenant counts, and in which unit.

Four are built in. Others a carrier defines for a tenant, by a name and a unit, and then they are
granted, rated, limited and charged like those. What was defined stays: records tell of it.
"""

from collections.abc import Iterator
from typing import ClassVar

from msgspec import Struct

from .refusals import Refused, check_text
from .usage import MONEY, NAME, USAGE_TYPES

TYPES_MAX = 50


class UsageTypeDefined(Struct, frozen=True, array_like=True):
    """From now on the tenant counts this, too."""

    topic: ClassVar[str] = "usage_type.defined"
    name: str
    unit: str
    """One of them: "message", "location fix"."""
    note: str = ""


class DefineUsageType(Struct, frozen=True, array_like=True):
    """Let a tenant's contract, tariffs, limits and usage speak of a type of its carrier's own."""

    name: str
    unit: str
    note: str = ""


class UsageTypes:
    """A tenant's own set: the source of truth for what is granted, rated, limited and charged."""

    def __init__(self) -> None:
        self.defined: list[UsageTypeDefined] = []
        self.units = dict(USAGE_TYPES)

    def __contains__(self, name: object) -> bool:
        return name in self.units

    def __iter__(self) -> Iterator[str]:
        return iter(self.units)

    def check(self, name: str, *, money: bool = False) -> None:
        """Refuses a type that this tenant does not have."""
        if name not in self.units and not (money and name == MONEY):
            raise Refused("unknown_usage_type", usage_type=name, known=self.known(money=money))

    def known(self, *, money: bool = False) -> list[str]:
        return [*self.units, MONEY] if money else [*self.units]

    def decide(self, command: DefineUsageType) -> UsageTypeDefined:
        if not NAME.fullmatch(command.name):
            remedy = "1 to 32 small letters, digits and underscores, a letter first"
            raise Refused("bad_usage_type", usage_type=command.name, remedy=remedy)
        check_text("unit", command.unit)
        check_text("note", command.note, empty=True)
        if command.name in self.units or command.name == MONEY:
            raise Refused("usage_type_exists", usage_type=command.name)
        if len(self.defined) >= TYPES_MAX:
            raise Refused("too_many_usage_types", types_max=TYPES_MAX)
        return UsageTypeDefined(command.name, command.unit, command.note)

    def apply(self, event: UsageTypeDefined) -> None:
        self.defined.append(event)
        self.units[event.name] = event.unit
