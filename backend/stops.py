"""What stopped a record, in words: the same when it is decided and when it is asked for again."""

from ..domain.charging import UsageRejected
from ..domain.tenant import Tenant
from ..domain.usage import MONEY
from ..domain.window import PERIOD
from .money import counted_text


def stop_told(told: UsageRejected, state: Tenant) -> str:
    """Whose limit it was and how far it is, or what else stopped the record, and the remedy."""
    member = state.hierarchy.members[told.stopped_by].id
    used, limit = (counted_text(quantity, told.counted) for quantity in (told.used, told.limit))
    what = f"{limit} {_unit(told.counted, state)}"
    if told.ruling is not None:
        rule = f"policy {told.ruling.policy} ({told.ruling.action}) at {member}"
        return f"{rule}: {used} used, beyond {what} per {told.window}"
    match told.reason:
        case "suspended":
            return f"{member} is suspended: resume it, or look for who uses it"
        case "limit_exceeded":
            per = "" if told.window == PERIOD else f" per {told.window}"
            return f"the limit of {member}{per}: {used} of {what} used{_raisers(told, state)}"
        case "cap_reached":
            return f"the cap of {member}: {used} of {what} drawn from above"
        case "frozen":
            return f"{member} is frozen: thaw it"
    return f"{limit} left for it on the way up to {member}, and the contract allows no overage"


def _unit(counted: str, state: Tenant) -> str:
    """What stands behind a number: the tenant's currency, else what is counted."""
    return state.opened.currency if counted == MONEY and state.opened is not None else counted


def _raisers(told: UsageRejected, state: Tenant) -> str:
    """Who may raise the limit, where it has a rule about that."""
    limit = state.limits.of(told.stopped_by, told.counted, told.period, None, told.window)
    roles = sorted({rule.role for rule in limit.may_raise}) if limit is not None else []
    return f"; {', '.join(roles)} may raise it" if roles else ""
