"""Own rates: which rate of the base a customer's own rate, or a discount, stands in place of."""

import strawberry

from ..domain.rating.overriding import RatesOverridden
from ..domain.tariff import Tariffs


@strawberry.type(description="A customer's own rate or discount, laid over a base.")
class OwnRate:
    discount: bool = strawberry.field(description="A discount on the base's rate; else a rate of one's own.")
    place: int = strawberry.field(description="Which own rate, or which discount, counted from 0.")
    percent: str | None = strawberry.field(description="Of the discount.")
    base_version: int
    base_rate_index: int | None = strawberry.field(
        description="Which of the base's rates it is in place of; null where it was added."
    )
    base_price: str | None = strawberry.field(description="Of `basePer` units, by the base.")
    base_per: str | None
    told: str = strawberry.field(description="The same as a sentence.")


def own_rate_of(tariffs: Tariffs, version: int, place: int) -> OwnRate | None:
    """Where a rate of a version comes from, if not simply from its base."""
    tariff = tariffs.versions[version - 1]
    made, source = tariff.made, tariff.sources.get(place)
    if source is None or not isinstance(made, RatesOverridden):
        return None
    base = None if source.of is None else tariffs.versions[made.of - 1].published.rates[source.of]
    percent = None
    if source.why == "discount":
        whole, rest = divmod(made.overrides.discounts[source.place].hundredths, 100)
        percent = f"{whole}.{rest:02d}".rstrip("0").rstrip(".")
    told = "an own rate that the base has none for"
    if source.of is not None:
        told = f"{'discount' if percent else 'override'} of rate {source.of} of base version {made.of}"
    return OwnRate(
        discount=percent is not None,
        place=source.place,
        percent=percent,
        base_version=made.of,
        base_rate_index=source.of,
        base_price=None if base is None else base.price,
        base_per=None if base is None else str(base.per),
        told=told,
    )
