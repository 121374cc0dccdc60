"""Plans of closed periods settled again: what each came to at the close, and what it comes to by now.

Only plans are told of that a version published since has changed; their parts are those of the invoice.
"""

from fractions import Fraction

from ..domain.rating.plan import PricePlan
from ..domain.resettled import Settled
from .in_force import InForce, in_force
from .plans import Counter, Said, by_plan, last_said, owed, standing
from .tables import Connection, int8_array

NOBODY = Counter("", 0, 0, 0, 0), Fraction(0)
Standing = dict[int, tuple[Counter, Fraction]]


def resettled(db: Connection, period: str, tariff: int = 0) -> list[Settled]:
    """Of a closed period, by plan and who counts; with a version only what that one has changed."""
    known, now = in_force(db, period), in_force(db, period, by_now=True)
    if now is None:
        return []
    before = last_said(known) if known is not None else {}
    counted = by_plan(db, period)
    found: list[tuple[Said | None, Said, Counter, Fraction, Fraction]] = []
    for name, said in sorted(last_said(now).items()):
        was = before.get(name)
        if not _is_said_anew(was, said, now, name, tariff):
            continue
        whose = counted.get(name, {})
        at_close = {} if known is None or was is None else _standing(db, known, was, whose)
        by_now = _standing(db, now, said, whose)
        for ordinal in sorted({*at_close, *by_now}):
            counter, minimum = by_now.get(ordinal, (at_close.get(ordinal, NOBODY)[0], Fraction(0)))
            found.append((was, said, counter, at_close.get(ordinal, NOBODY)[1], minimum))
    places = _places(db, sorted({counter.ordinal for _, _, counter, _, _ in found}))
    return [_settled(*one, places[one[2].ordinal]) for one in found]


def _is_said_anew(was: Said | None, said: Said, now: InForce, name: str, tariff: int) -> bool:
    if was is not None and (was[1].version == said[1].version or _counts(was[0]) != _counts(said[0])):
        return False
    return not tariff or any(
        published.version == tariff and any(plan.plan == name for plan in published.plans)
        for published in now.versions
    )


def _counts(plan: PricePlan) -> tuple[str, str]:
    """Who counts for itself: where that is another, nothing is counted by which it could be priced."""
    return plan.scope, plan.of_kind


def _standing(db: Connection, held: InForce, said: Said, whose: dict[int, Counter]) -> Standing:
    return {one.ordinal: (one, minimum) for one, minimum in standing(db, held, said[0], whose)}


def _settled(
    was: Said | None, said: Said, counter: Counter, was_minimum: Fraction, minimum: Fraction, node: int
) -> Settled:
    return Settled(
        *(counter.plan, counter.ordinal, node, counter.units),
        was_tariff=was[1].version if was is not None else 0,
        was=counter.spent if was is None else owed(was, counter, was_minimum),
        tariff=said[1].version,
        owed=owed(said, counter, minimum, was[0] if was is not None else None),
    )


def _places(db: Connection, ordinals: list[int]) -> dict[int, int]:
    """Where the line of each stands: a resource's at its node."""
    return dict(db.execute(_NODES, (int8_array(ordinals),), prepare=False).fetchall()) if ordinals else {}


_NODES = (
    "SELECT ordinal, CASE WHEN is_node THEN ordinal ELSE parent END FROM members "
    "WHERE ordinal = ANY(%s::bigint[]::integer[])"
)
