"""Withdrawn: charges that are taken back because nobody can be charged for what was used.

Such a record keeps its place in the chain of its charges, under nobody's account: it draws nothing,
counts in nothing and costs nothing, and its steering says why. Once somebody turns out to have had
the line, or to have had leave to use it, it is charged again as any charge is. What was denied because
a resource was suspended stands at the beginning of such a chain.
"""

from typing import NamedTuple

from msgspec.structs import replace

from .charging import CORPORATE, STEERING_DEFAULT, UNCHARGED, UsageCharged, UsageRejected
from .hierarchy import Hierarchy, Path
from .policy import EMERGENCY, PERSONAL
from .rating.basis import NO_BASIS

NOT_ACTIVE, SUSPENDED = "line_not_active", "suspended"


class Standing(NamedTuple):
    """What becomes of a charge by who had its line then: nothing where both are None."""

    path: Path | None
    """Where it belongs, where that is elsewhere."""
    becomes: str | None
    """As in `Again`."""


AS_IT_WAS = Standing(None, None)


def standing(hierarchy: Hierarchy, charge: UsageCharged, token: bytes | None, *, emergency: bool) -> Standing:
    """By its line; where nobody can read that any more, by the resource it was charged to."""
    at, ordinal = charge.started_at, charge.path[0]
    path = hierarchy.members[ordinal].path_at(at) if token is None else hierarchy.guide(token, at)
    elsewhere = path if path and path != charge.path else None
    if charge.payer == EMERGENCY:
        return Standing(elsewhere, None)
    reason = _barred(hierarchy, path, at, emergency=emergency)
    if charge.payer == UNCHARGED:
        if reason == charge.steering:
            return Standing(elsewhere, reason) if elsewhere else AS_IT_WAS
        return Standing(elsewhere, reason)
    return Standing(elsewhere, reason or None)


def _barred(hierarchy: Hierarchy, path: Path | None, at: int, *, emergency: bool) -> str:
    if not path:
        return NOT_ACTIVE
    return SUSPENDED if hierarchy.is_suspended(path[0], at) and not emergency else ""


def withdrawn(charge: UsageCharged, reason: str) -> UsageCharged:
    basis = None if charge.basis is None else replace(charge.basis, counted=None)
    return replace(
        charge,
        basis=None if basis == NO_BASIS else basis,
        payer=UNCHARGED,
        steering=reason,
        drawn=(),
        overage=charge.billed,
        amount=0,
        exact=(0, 1),
        credit=(),
    )


def revived(charge: UsageCharged) -> UsageCharged:
    """As it would be charged again; who pays follows from what was ruled of it."""
    payer = PERSONAL if charge.ruling is not None and charge.ruling.action == "redirect" else CORPORATE
    return replace(charge, payer=payer, steering=STEERING_DEFAULT if payer == CORPORATE else payer)


def of_rejected(denied: UsageRejected) -> UsageCharged:
    """What was denied, as the charge that nobody pays."""
    return UsageCharged(
        *(denied.source, denied.record_id, denied.path, denied.usage_type, denied.period),
        *(denied.started_at, denied.direction, denied.quantity, denied.billed),
        tariff=0,
        rate=0,
        prefix="",
        zone="",
        payer=UNCHARGED,
        steering=denied.reason,
        drawn=(),
        overage=denied.billed,
        amount=0,
        exact=(0, 1),
        sealed=b"",
    )
