"""Plans and fees of a tariff as a carrier writes them down: as in `domain.rating`, by name."""

from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import astuple

from ..domain.rating.fees import Each, Fee
from ..domain.rating.plan import PlanKind, PricePlan, Scope, Share, Tier

Amount = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,9}(\.[0-9]{1,12})?$",
        description="An exact amount as text, in the tariff's currency.",
        examples=["4.90"],
    ),
]


def _said(description: str) -> Meta:
    return Meta(description=description)


class TierDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """The units of a period after those of the tier before it."""

    upto: Annotated[int, _said("The last unit of the period that belongs to it; the last tier has none.")] = 0
    price: Amount = "0"
    per: Annotated[int, _said("So many units cost `price`: 60 for a price per minute.")] = 1
    fee: Annotated[Amount, _said("Once, when the tier is entered.")] = "0"


class PlanDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """Prices that count over a period. Rates name it."""

    plan: Annotated[str, _said("Its name.")]
    kind: PlanKind
    tiers: Annotated[tuple[TierDefinition, ...], _said("Of a graduated or volume plan.")] = ()
    free: Annotated[int, _said("Of a package: so many units cost nothing.")] = 0
    block: Annotated[int, _said("Of a package: so many units, begun, cost `price`.")] = 0
    price: Annotated[Amount, _said("Of a block.")] = "0"
    scope: Annotated[Scope, _said("Who counts: all together, each node of a kind, or each resource.")] = (
        "enterprise"
    )
    of_kind: Annotated[str, _said("The kind of node, or resource, that counts for itself.")] = ""
    cap: Annotated[str, _said("Beyond so much in a period nothing is charged any more.")] = ""
    minimum: Annotated[str, _said("What is missing to so much in a period is owed all the same.")] = ""
    share: Annotated[Share, _said("How much of the minimum is for a part of a period.")] = "whole"

    def made(self) -> PricePlan:
        plan, kind, tiers, *rest = astuple(self)
        return PricePlan(plan, kind, tuple(Tier(*astuple(tier)) for tier in tiers), *rest)


class FeeDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """What is owed for being there."""

    fee: Annotated[str, _said("What it is called on the invoice.")]
    amount: Amount
    each: Annotated[Each, _said("What it is for.")] = "enterprise"
    kind: Annotated[str, _said("The kind of node or resource; all of them, if left out.")] = ""
    share: Annotated[Share, _said("How a part of a period counts: by the day, exactly, or as a whole.")] = (
        "day"
    )

    def made(self) -> Fee:
        return Fee(*astuple(self))


def plans_of(definitions: tuple[PlanDefinition, ...]) -> tuple[PricePlan, ...]:
    return tuple(one.made() for one in definitions)


def fees_of(definitions: tuple[FeeDefinition, ...]) -> tuple[Fee, ...]:
    return tuple(one.made() for one in definitions)


assert PlanDefinition.__struct_fields__ == PricePlan.__struct_fields__
assert TierDefinition.__struct_fields__ == Tier.__struct_fields__
assert FeeDefinition.__struct_fields__ == Fee.__struct_fields__
