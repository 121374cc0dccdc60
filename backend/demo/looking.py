"""The demonstration's manager looks at the month, and thinks of the next contract.

What is told is what `review` and `sizing` answer; each chapter compares it with the state that the
writer keeps.
"""

from collections.abc import Callable
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from ...domain.contract import bounds_of
from ...domain.sizing import Assumptions
from ...projections.members import tree
from ...projections.reviews import Asked, Review, review_of
from ...projections.sizings import Sizing, sizing_among
from ...tenants.isolation import Connection
from ..commands.output import amount
from ..commands.reviewing import percent, review_told
from ..engine import Engine
from ..following import catch_up
from ..running import Product
from .stage import Chapter, Stage

ROOT = "acme"
ASSUMED = Assumptions(periods=3, growth_percent=10, margin_percent=5)

R = TypeVar("R")


async def look_at_the_month(product: Product, engine: Engine, stage: Stage) -> Chapter:
    """Where the month stands, when the allowance will be gone, and who uses most of it."""
    found = await _read(product, engine, stage, _review(engine, stage))
    state = await engine.state(stage.entries[0].tenant_id)
    left = sum(state.families["data", stage.period].remaining)
    shares = [one.share for one in found.children.consumers]
    whole = sum(shares) + found.children.others_share + found.children.rest_share
    told = review_told(found)
    return Chapter(
        "month_reviewed",
        found.days[-1].remaining == left and whole == 10_000,
        _sentence(found),
        {
            name: told[name]
            for name in ("used", "remaining", "exhaustedOn", "projections", "topChildren", "previous")
        },
    )


def _review(engine: Engine, stage: Stage) -> Callable[[Connection], Review]:
    bounds = bounds_of(stage.period, ZoneInfo(stage.cast[0].time_zone))
    asked = Asked(ROOT, "data", stage.period, bounds, engine.clock(), top=3)

    def read(db: Connection) -> Review:
        found = review_of(db, asked)
        assert found is not None
        return found

    return read


def _sentence(found: Review) -> str:
    most = found.children.consumers[0]
    end = f"is gone on {found.exhausted_on}" if found.exhausted_on else "lasts until its end"
    return (
        f"Reviewed: on day {len(found.days)} of {found.days_in_period}"
        f" {_data(found.balance.subtree.remaining)} of data are left; at {_data(found.rates[0].per_day)}"
        f" a day the month's allowance {end}. Most went to {most.name or most.id}: {percent(most.share)}."
    )


async def size_the_next_contract(product: Product, engine: Engine, stage: Stage) -> Chapter:
    """What to grant from the months before, with growth and a margin, and what that would have saved."""

    def read(db: Connection) -> Sizing:
        listed = tree(db, ROOT, 1)
        return sizing_among(db, listed, ["data"], ASSUMED, engine.clock(), stage.period)

    found = await _read(product, engine, stage, read)
    whole, *parts = found.sized
    made = whole.proposal
    sentence = (
        f"Sized: the most of {len(found.periods)} months, {_data(int(made.base))}, with"
        f" {ASSUMED.growth_percent} % growth and {ASSUMED.margin_percent} % margin needs"
        f" {_data(made.quantity)} of data a month where {_data(whole.held)} are held; {len(parts)} divisions,"
        f" each for itself, would need {_data(whole.below or 0)}."
    )
    ok = bool(found.periods) and made.quantity >= max(past.used for past in made.replayed)
    facts: dict[str, Any] = {
        "periods": found.periods,
        "held": whole.held,
        "proposal": made.quantity,
        "working": whole.working,
        "below": whole.below,
        "overage_avoided": sum(past.overage_avoided for past in made.replayed),
    }
    return Chapter("contract_sized", ok, sentence, facts)


async def _read(product: Product, engine: Engine, stage: Stage, query: Callable[[Connection], R]) -> R:
    tenant = stage.entries[0].tenant_id

    def read() -> R:
        catch_up(product.isolation, tenant)
        with product.isolation.snapshot(tenant) as db:
            return query(db)

    return await engine.in_thread(read)


def _data(quantity: int) -> str:
    return amount(quantity, "data")
