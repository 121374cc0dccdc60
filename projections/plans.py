"""Plans on an invoice: what each has counted, and what its whole comes to beside its charges.

Charges under a volume plan cost what a graduated one would; here stands the difference to what all
of it costs at the price of the tier that was reached. A minimum is owed as far as it was not spent.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain

from msgspec import Struct
from msgspec.structs import replace

from ..domain.charging import CORPORATE
from ..domain.rating.fees import Ruler, shares
from ..domain.rating.plan import CompiledPlan, PricePlan, micro
from ..domain.rating.rounding import round_to
from .chunk import Chunk
from .in_force import InForce, Published
from .presence import members_there
from .tables import Connection, Table

COUNTERS = Table(
    "plan_counters",
    {"period": "text", "plan": "text", "ordinal": "integer"},
    dict.fromkeys(("records", "units", "spent"), "bigint"),
)
TABLES = (COUNTERS,)
VERSION = 1


class Counter(Struct, frozen=True):
    """What a plan has counted for one who counts for itself."""

    plan: str
    ordinal: int
    records: int
    units: int
    spent: int
    """What these units were charged, in micro-units."""


class PlanLine(Struct, frozen=True):
    """What a plan comes to beside the charges under it."""

    kind: str
    """"volume", or "minimum"."""
    plan: str
    ordinal: int
    """Who counts: the enterprise, a node, a resource."""
    tariff: int
    """The version that says it: the last one of the period that has the plan."""
    units: int
    spent: int
    """What charges, and the lines before this one, come to."""
    owed: int
    """What it comes to in the end."""
    exact: tuple[int, int]
    """That before rounding."""

    @property
    def amount(self) -> int:
        """Less than nothing where the whole is cheaper than its parts."""
        return self.owed - self.spent


Said = tuple[PricePlan, Published]
Counters = dict[int, Counter]
"""By who counts."""


def apply(chunk: Chunk, db: Connection) -> None:
    sums: dict[tuple[str, str, int], list[int]] = {}
    charged = ((charge, 1) for charge in chunk.rest)
    for charge, sign in chain(charged, chunk.corrections):
        counted = charge.basis.counted if charge.basis is not None else None
        if counted is not None and charge.payer == CORPORATE:
            row = sums.setdefault((charge.period, counted.plan, counted.of), [0, 0, 0])
            for place, much in enumerate((1, counted.units, counted.spent)):
                row[place] += sign * much
    COUNTERS.add(db, sums)


# --- queries ---------------------------------------------------------------------------------


def counters(db: Connection, period: str) -> list[Counter]:
    found = db.execute(
        "SELECT plan, ordinal, records, units, spent FROM plan_counters WHERE period = %s "
        "ORDER BY plan, ordinal",
        (period,),
    )
    return [Counter(*row) for row in found]


def lines(db: Connection, period: str, held: InForce) -> list[PlanLine]:
    """Of each plan by the last version of the period that has it."""
    counted = by_plan(db, period)
    found: list[PlanLine] = []
    for name, (plan, published) in sorted(last_said(held).items()):
        for counter, minimum in standing(db, held, plan, counted.get(name, {})):
            found += _of(CompiledPlan(plan), published, counter, minimum)
    return found


def last_said(held: InForce) -> dict[str, Said]:
    """By plan: what it is in the end, and the version that says so."""
    return {plan.plan: (plan, published) for published in held.versions for plan in published.plans}


def by_plan(db: Connection, period: str) -> dict[str, Counters]:
    counted: dict[str, Counters] = {}
    for counter in counters(db, period):
        counted.setdefault(counter.plan, {})[counter.ordinal] = counter
    return counted


def standing(
    db: Connection, held: InForce, plan: PricePlan, whose: Counters
) -> Iterator[tuple[Counter, Fraction]]:
    """Each who has counted in a plan, or owes something all the same, with that."""
    minimums = _minimums(db, held, plan) if plan.minimum else {}
    for ordinal in sorted({*whose, *minimums}):
        counter = whose.get(ordinal) or Counter(plan.plan, ordinal, 0, 0, 0)
        yield counter, minimums.get(ordinal, Fraction(0))


def owed(said: Said, counter: Counter, minimum: Fraction, before: PricePlan | None = None) -> int:
    """What a plan comes to in the end, its lines included. `before`: by whose prices charges were made.

    Where it is not by these that all was charged, all is priced anew, in one: a part has no place of its own.
    """
    plan, published = said
    come_to = counter.spent
    priced_anew = before is not None and _prices(plan) != _prices(before) and plan.kind != "spend"
    if counter.units and (plan.kind == "volume" or priced_anew):
        come_to = _rounded(published, _whole(CompiledPlan(plan), counter.units))
    return max(come_to, _rounded(published, minimum))


def _prices(plan: PricePlan) -> PricePlan:
    """Of two that are the same, the same units cost the same."""
    return replace(plan, minimum="", share="whole")


def _whole(plan: CompiledPlan, units: int) -> Fraction:
    exact = plan.whole(units)
    return exact if plan.cap is None else min(exact, Fraction(plan.cap))


def _of(plan: CompiledPlan, published: Published, counter: Counter, minimum: Fraction) -> Iterator[PlanLine]:
    about = (counter.plan, counter.ordinal, published.version, counter.units)
    spent = counter.spent
    if plan.plan.kind == "volume" and counter.units:
        exact = _whole(plan, counter.units)
        comes_to = _rounded(published, exact)
        if comes_to != spent:
            yield PlanLine("volume", *about, spent, comes_to, exact.as_integer_ratio())
        spent = comes_to
    at_least = _rounded(published, minimum)
    if at_least > spent:
        yield PlanLine("minimum", *about, spent, at_least, minimum.as_integer_ratio())


def _rounded(published: Published, exact: Fraction) -> int:
    return round_to(published.step, published.method, exact.numerator, exact.denominator)


def _minimums(db: Connection, held: InForce, plan: PricePlan) -> dict[int, Fraction]:
    """What each who counts for itself owes at least: for as much of the period as it was there."""
    found: dict[int, Fraction] = {}
    ruler = Ruler(held.stretch, plan.share, held.zone)
    for since, until in held.spans:
        if plan.scope == "enterprise":
            parts = {0: Fraction(ruler.length(since, until), ruler.whole)}
        else:
            there = members_there(db, plan.scope, plan.of_kind, plan.share, since, until)
            parts = shares(ruler, there)
        for ordinal, part in parts.items():
            found[ordinal] = found.get(ordinal, Fraction(0)) + part
    whole = plan.share == "whole"
    return {ordinal: micro(plan.minimum) * (1 if whole else part) for ordinal, part in found.items()}
