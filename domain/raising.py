"""Raising: a limit is lifted for a time, by somebody who may; after it the old one holds again.

Whether a use meets the raised limit is decided by when it happened: nothing has to be done at the
end, and late usage of that time is treated as it would have been then.
"""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from msgspec import Struct

from .refusals import Refused
from .window import PERIOD

RULES_MAX = 20
PERCENT_MIN, PERCENT_MAX = 100, 10_000
DAYS_MAX = 366
RAISES_KEPT = 50
"""Of one limit: usage so late that it would meet an older one meets the limit as it was set."""


class MayRaise(Struct, frozen=True, array_like=True):
    """Who may raise a limit, and how far."""

    role: str
    percent: int = 0
    """Of the limit as it was set: 150 is half as much again. 0 where a quantity says it, or nothing does."""
    quantity: int = 0


class LimitRaised(Struct, frozen=True, array_like=True):
    """A limit is a larger one for what happens from a moment until another."""

    topic: ClassVar[str] = "limit.raised"
    node: str
    usage_type: str
    window: str
    quantity: int
    since: int
    until: int
    note: str = ""


class RaiseLimit(Struct, frozen=True, array_like=True):
    """Raise a limit to a quantity, or by one, until a moment."""

    node: str
    usage_type: str
    until: int
    to: int | None = None
    by: int | None = None
    window: str = PERIOD
    roles: tuple[str, ...] = ()
    """Of whoever asks; none for the carrier's own programs, which may."""
    note: str = ""


def check_rules(rules: Sequence[MayRaise], quantity_max: int) -> None:
    """Refuses rules that say nothing, or too much."""
    for rule in rules:
        if not rule.role.isidentifier():
            raise Refused("bad_rule", value=rule.role, remedy="name a role")
        if rule.percent and not PERCENT_MIN <= rule.percent <= PERCENT_MAX:
            raise Refused("bad_rule", value=rule.percent, remedy=f"{PERCENT_MIN} to {PERCENT_MAX} per cent")
        if not 0 <= rule.quantity <= quantity_max or (rule.quantity and rule.percent):
            raise Refused("bad_rule", value=rule.quantity, remedy="a quantity, a percentage, or neither")
    if len(rules) > RULES_MAX:
        raise Refused("bad_rule", value=len(rules), remedy=f"at most {RULES_MAX} rules")


def bound_of(rules: Iterable[MayRaise], roles: Sequence[str], quantity: int) -> int | None:
    """How far somebody with these roles may raise a limit of this quantity; None where nothing bounds it."""
    mine = [rule for rule in rules if rule.role in roles]
    if any(not rule.percent and not rule.quantity for rule in mine):
        return None
    bounds = (rule.quantity or quantity * rule.percent // 100 for rule in mine)
    return max((quantity, *bounds))


def check_may_raise(
    node: str, window: str, rules: Sequence[MayRaise], roles: Sequence[str], quantity: int, wanted: int | None
) -> None:
    """Refuses a raise beyond what the limit's own rules allow; without rules nothing is forbidden here.

    `wanted` None is to lift the limit altogether.
    """
    if not rules:
        return
    up_to = bound_of(rules, roles, quantity)
    if up_to is not None and (wanted is None or wanted > up_to):
        raise Refused(
            "may_not_raise",
            node=node,
            window=window,
            wanted=wanted,
            up_to=up_to,
            roles=sorted({rule.role for rule in rules}),
            may_raise=[[rule.role, bound_of([rule], [rule.role], quantity)] for rule in rules],
        )


def raised(raises: Iterable[LimitRaised], quantity: int, at: int) -> int:
    """The quantity that holds for what happens at a moment."""
    return max((quantity, *(one.quantity for one in raises if one.since <= at < one.until)))
