"""Many limits in one command: whole fleets are limited when they are taken on, or when a plan changes.

Each line is decided as `SetLimit` would decide it, and leads to the same events. All of them hold, or
none: every line that cannot is told, with its number, field and reason. No two lines speak of one limit,
so that their order does not count.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from .limit import LimitSet, SetAnyLimit, SetLimit, ThresholdCrossed
from .refusals import Refused
from .window import PERIOD

LIMITS_MAX = 2_000
"""Of one command: decided within some 25 ms. More would keep those who charge waiting."""
TOLD_MAX = 1_000
"""Of the lines that cannot hold."""

FIELDS = {
    "unknown_node": "node",
    "unknown_usage_type": "usageType",
    "quantity_out_of_range": "quantity",
    "bad_thresholds": "thresholds",
    "bad_quantities": "quantities",
    "bad_kind": "kind",
    "bad_window": "window",
    "begins_now": "fromPeriod",
    "not_a_period": "fromPeriod",
    "no_contract": "fromPeriod",
}
"""The part of a line that a refusal is about; else the member."""
REMEDIES = {
    "unknown_node": "name a node or resource that exists",
    "unknown_usage_type": "use a usage type of this tenant, or money",
    "quantity_out_of_range": "give a quantity that can be counted",
    "bad_thresholds": "give a few percentages from 1 to 100; above that where it is soft",
    "limit_twice": "say all of a limit in one line",
    "may_not_raise": "ask whoever may raise it so far",
    "begins_now": "leave the period out: only limits per period begin with one",
}


class SetLimits(Struct, frozen=True, array_like=True):
    """Set these limits: all of them, or nothing. The plain ones keep who may raise what they replace."""

    plain: tuple[SetLimit, ...] = ()
    limits: tuple[SetAnyLimit, ...] = ()

    @property
    def lines(self) -> tuple[SetLimit, ...]:
        return (*self.plain, *self.limits)


Happened = LimitSet | ThresholdCrossed
DecideOne = Callable[[SetLimit], Sequence[Any]]


def at_once(limits: Iterable[SetLimit]) -> SetLimits:
    """These as one command."""
    given = [*limits]
    return SetLimits(
        tuple(one for one in given if not isinstance(one, SetAnyLimit)),
        tuple(one for one in given if isinstance(one, SetAnyLimit)),
    )


def decide_limits(command: SetLimits, decide: DecideOne) -> list[Happened]:
    """`decide` is asked of each line; a period that must be opened first is asked for as ever."""
    lines = command.lines
    if not 0 < len(lines) <= LIMITS_MAX:
        raise Refused("too_many_lines", lines=len(lines), lines_max=LIMITS_MAX)
    events: list[Happened] = []
    refused: list[dict[str, Any]] = []
    seen: set[tuple[str, str, str]] = set()
    for number, limit in enumerate(lines, 1):
        try:
            named = (limit.node, limit.usage_type, getattr(limit, "window", PERIOD))
            if named in seen:
                raise Refused("limit_twice", node=limit.node, usage_type=limit.usage_type)
            seen.add(named)
            events += decide(limit)
        except Refused as refusal:
            refused.append(_told(number, limit, refusal))
    if refused:
        raise Refused("lines_refused", lines=refused[:TOLD_MAX], refused=len(refused))
    return events


def _told(number: int, limit: SetLimit, refusal: Refused) -> dict[str, Any]:
    code = refusal.code
    return {
        "line": number,
        "field": FIELDS.get(code, str(refusal.facts.get("field", "node"))),
        "code": code,
        "resource": limit.node,
        "remedy": str(refusal.facts.get("remedy", REMEDIES.get(code, "correct this line"))),
    }
