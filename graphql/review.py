"""Review: how a node or resource stands in a period, how fast it goes, who uses it, and what came before."""

import functools
from enum import Enum
from typing import Annotated

import strawberry
from strawberry import ID

from ..domain import burning
from ..domain.refusals import Refused
from ..domain.tenant import Tenant
from ..projections import consumers, members
from ..projections import reviews as views
from ..projections.consumption import TooManyRecords
from ..tenants.access import in_scope
from ..tenants.isolation import Connection
from .asking import AsOf, Reach, looking, period_of, permit, usage_types_of
from .context import Context, Info
from .hierarchy import Balance, balance_told
from .refusals import QueryRefused
from .scalars import Moment, Quantity, Seq
from .wording import WHICH_PERIOD

VIEWS = ("consumption",)
VIEWS_OF_RESOURCE = ("consumption", "usages")


@strawberry.type(description="A day of the tenant's calendar; quantities are in the usage type's unit.")
class ReviewDay:
    date: str
    used: Quantity = strawberry.field(description="At and below, charged on the day on which it began.")
    overage: Quantity = strawberry.field(description="Of `used`: what no allowance covered.")
    records: Quantity
    drawn: Quantity = strawberry.field(description="What buckets at and below paid for usage on that day.")
    moved: Quantity = strawberry.field(
        description="Came into buckets at and below, also with who moved here, less what left them."
    )
    remaining: Quantity = strawberry.field(description="In buckets at and below, at the day's end.")


@strawberry.enum(description="From what a rate is taken.")
class RateBasis(Enum):
    LAST_7_DAYS = "last_7_days"
    PERIOD_TO_DATE = "period_to_date"


@strawberry.type(description="How fast it goes, exactly: so much from one moment to another.")
class BurnRate:
    basis: RateBasis = strawberry.field(description="The last seven complete days, or the period so far.")
    quantity: Quantity
    since: Moment
    until: Moment
    per_day: Quantity = strawberry.field(description="The same in 24 hours, rounded half up.")


@strawberry.enum(description="What becomes of what is left.")
class ProjectionStatus(Enum):
    RUNS_OUT = "runs_out"
    LASTS = "lasts"
    EXHAUSTED = "exhausted"
    UNUSED = "unused"
    ENDED = "ended"


@strawberry.enum(description="What is used up.")
class Projected(Enum):
    ALLOWANCE = "allowance"
    LIMIT = "limit"


@strawberry.type(description="What becomes of the allowance held at and below, or of the limit, at one rate.")
class Projection:
    of: Projected
    status: ProjectionStatus
    left: Quantity
    rate: BurnRate = strawberry.field(
        description="Of the allowance: what was drawn from it; of the limit: what was used."
    )
    exhausted_at: Moment | None = strawberry.field(description="Null unless it runs out in the period.")
    exhausted_on: str | None = strawberry.field(
        description="That day; of what is exhausted: the day since which nothing is left."
    )
    working: str = strawberry.field(description="How it was computed.")


@strawberry.type(description="Somebody who uses.")
class Consumer:
    id: ID
    name: str
    kind: str
    used: Quantity = strawberry.field(description="In the whole period, also before it came here.")
    share: int = strawberry.field(description="In hundredths of a per cent.")


@strawberry.type(description="Who used most. All shares together, `others` and `rest` included, are 10000.")
class Ranking:
    count: int = strawberry.field(description="How many there are, told or not.")
    consumers: list[Consumer]
    others: Quantity = strawberry.field(description="Used by those that are not told.")
    others_share: int
    rest: Quantity = strawberry.field(description="Used on the node itself, or by who has left it.")
    rest_share: int


@strawberry.type(description="An earlier period beside the one that is reviewed.")
class ComparedPeriod:
    period: str
    same_days: Quantity = strawberry.field(
        description="Used in as many first days of it as are complete in the reviewed period."
    )
    difference: Quantity = strawberry.field(description="completeDaysUsed - sameDays.")
    whole: Quantity


@strawberry.type(description="How a node or resource stands with one usage type in a period.")
class Review:
    seq: Seq = strawberry.field(description="The last event that is counted in.")
    id: ID
    name: str
    kind: str
    usage_type: str
    unit: str
    period: str
    starts_at: Moment
    ends_at: Moment = strawberry.field(description="The end itself is not in it.")
    at: Moment = strawberry.field(description="From when it is looked at.")
    days_in_period: int
    complete_days: int = strawberry.field(description="Of them, those that are over.")
    complete_days_used: Quantity
    balance: Balance
    days: list[ReviewDay] = strawberry.field(description="From the first to the one that is running.")
    burn_rates: list[BurnRate] = strawberry.field(description="Of all usage at and below.")
    projections: list[Projection]
    exhausted_on: str | None = strawberry.field(
        description="The first day on which allowance or limit ends, by the freshest rate."
    )
    top_children: Ranking = strawberry.field(description="Of the nodes right below.")
    top_resources: Ranking = strawberry.field(description="Of the resources anywhere below.")
    previous: list[ComparedPeriod] = strawberry.field(description="Earlier periods, the newest first.")


async def review(
    info: Info,
    node: Annotated[ID, strawberry.argument(description="A node or a resource.")],
    usage_type: str = "data",
    period: Annotated[str | None, strawberry.argument(description=WHICH_PERIOD)] = None,
    top: Annotated[
        int, strawberry.argument(description=f"How many consumers, at most {views.TOP_MAX}.")
    ] = views.TOP_USUAL,
    previous: Annotated[
        int, strawberry.argument(description=f"How many periods before, at most {views.PREVIOUS_MAX}.")
    ] = views.PREVIOUS_USUAL,
    as_of: AsOf | None = None,
) -> Review | None:
    """Null where there is no such node in reach."""
    context = info.context
    permit(context, "read")
    _within("top", top, views.TOP_MAX)
    _within("previous", previous, views.PREVIOUS_MAX)
    from_where, state = await looking(context, as_of), await context.state()
    (usage_type,) = usage_types_of([usage_type], state)
    period = period_of(state, period, from_where.at)
    bounds = _bounds(state, period)
    asked = views.Asked(str(node), usage_type, period, bounds, from_where.at, top, previous)
    known = state.hierarchy.by_id.get(str(node))
    seq, found = await context.read(
        functools.partial(_read, context=context, asked=asked),
        VIEWS if known is None or known.is_node else VIEWS_OF_RESOURCE,
        as_of=from_where.seq,
    )
    units = Reach(context.principal, state).units
    return None if found is None else _told(seq, found, units)


def _bounds(state: Tenant, period: str) -> tuple[int, int]:
    try:
        return state.contracts.shown(period)
    except Refused as refusal:
        raise QueryRefused(refusal.code, f"period: {period} is no period of this tenant") from None


def _within(name: str, number: int, most: int) -> None:
    if not 0 <= number <= most:
        raise QueryRefused("bad_page", f"{name}: ask for 0 to {most}")


def _read(db: Connection, *, context: Context, asked: views.Asked) -> views.Review | None:
    above = [member.id for member in members.ancestors(db, asked.member)]
    if not in_scope(context.principal, [*above, asked.member]):
        return None
    try:
        return views.review_of(db, asked)
    except TooManyRecords:
        raise QueryRefused(
            "too_many_records", "node: this resource has too many records in a period to count its days now"
        ) from None


def _told(seq: int, found: views.Review, units: dict[str, str]) -> Review:
    about = found.member
    return Review(
        seq=Seq(seq),
        id=ID(about.id),
        name=about.name or about.id,
        kind=about.kind,
        usage_type=found.usage_type,
        unit=units[found.usage_type],
        period=found.period,
        starts_at=Moment(found.starts_at),
        ends_at=Moment(found.ends_at),
        at=Moment(found.at),
        days_in_period=found.days_in_period,
        complete_days=found.complete_days,
        complete_days_used=Quantity(found.complete_days_used),
        balance=balance_told(found.balance, units),
        days=[_day(day) for day in found.days],
        burn_rates=[_rate(rate) for rate in found.rates],
        projections=[_projection(one) for one in found.foresights],
        exhausted_on=found.exhausted_on,
        top_children=_ranking(found.children),
        top_resources=_ranking(found.resources),
        previous=[_compared(one) for one in found.previous],
    )


def _day(day: views.DayLine) -> ReviewDay:
    return ReviewDay(
        date=day.date,
        used=Quantity(day.used),
        overage=Quantity(day.overage),
        records=Quantity(day.records),
        drawn=Quantity(day.drawn),
        moved=Quantity(day.moved),
        remaining=Quantity(day.remaining),
    )


def _rate(rate: burning.Rate) -> BurnRate:
    return BurnRate(
        basis=RateBasis(rate.basis),
        quantity=Quantity(rate.quantity),
        since=Moment(rate.since),
        until=Moment(rate.until),
        per_day=Quantity(rate.per_day),
    )


def _projection(one: views.Foresight) -> Projection:
    found = one.outlook
    return Projection(
        of=Projected(one.of),
        status=ProjectionStatus(found.status),
        left=Quantity(found.left),
        rate=_rate(found.rate),
        exhausted_at=None if found.exhausted_at is None else Moment(found.exhausted_at),
        exhausted_on=one.date,
        working=one.working,
    )


def _ranking(ranking: consumers.Ranking) -> Ranking:
    return Ranking(
        count=ranking.count,
        consumers=[
            Consumer(
                id=ID(one.id),
                name=one.name or one.id,
                kind=one.kind,
                used=Quantity(one.used),
                share=one.share,
            )
            for one in ranking.consumers
        ],
        others=Quantity(ranking.others),
        others_share=ranking.others_share,
        rest=Quantity(ranking.rest),
        rest_share=ranking.rest_share,
    )


def _compared(one: views.Compared) -> ComparedPeriod:
    return ComparedPeriod(
        period=one.period,
        same_days=Quantity(one.same_days),
        difference=Quantity(one.difference),
        whole=Quantity(one.whole),
    )
