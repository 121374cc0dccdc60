"""Burning: how fast an allowance is used up, and when it will be gone if that goes on.

A rate is exact: so much in so long. What is shown of it per day is rounded once, half up; the
moment of exhaustion is computed from the rate itself. Times are microseconds since the epoch.
"""

from typing import Literal

from msgspec import Struct

DAY = 86_400_000_000

Basis = Literal["last_7_days", "period_to_date"]
Status = Literal["runs_out", "lasts", "exhausted", "unused", "ended"]


class Rate(Struct, frozen=True):
    """So much was used from one moment to another."""

    basis: Basis
    quantity: int
    since: int
    until: int

    @property
    def per_day(self) -> int:
        """Rounded half up, to be shown."""
        lasted = self.until - self.since
        return (2 * self.quantity * DAY + lasted) // (2 * lasted) if lasted > 0 else 0


class Outlook(Struct, frozen=True):
    """What becomes of what is left, if it is used at this rate."""

    rate: Rate
    left: int
    status: Status
    exhausted_at: int | None
    """When nothing will be left; None unless it runs out before the end."""


def outlook(left: int, rate: Rate, at: int, ends_at: int) -> Outlook:
    """From a moment on, until what is left ends by itself."""
    if at >= ends_at:
        return Outlook(rate, left, "ended", None)
    if left <= 0:
        return Outlook(rate, left, "exhausted", None)
    if rate.quantity <= 0 or rate.until <= rate.since:
        return Outlook(rate, left, "unused", None)
    # The first moment at which all of it is used: so rounded up.
    exhausted_at = at - (-left * (rate.until - rate.since) // rate.quantity)
    if exhausted_at >= ends_at:
        return Outlook(rate, left, "lasts", None)
    return Outlook(rate, left, "runs_out", exhausted_at)


def shares_of(parts: list[int], whole: int = 10_000) -> list[int]:
    """The parts in so many equal pieces, as exact as these allow; together they are the whole.

    Each gets what it fully fills; the pieces left go to the largest remainders, the first of equals.
    """
    total = sum(parts)
    if total <= 0:
        return [0] * len(parts)
    shares = [part * whole // total for part in parts]
    by_remainder = sorted(range(len(parts)), key=lambda place: (-(parts[place] * whole % total), place))
    for place in by_remainder[: whole - sum(shares)]:
        shares[place] += 1
    assert sum(shares) == whole
    return shares
