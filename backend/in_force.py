"""In force: whether a step of a definition asks for what holds already: a file may be applied again."""

from hashlib import sha256

import msgspec

from ..domain.limit import LimitSet, SetAnyLimit, SetLimit
from ..domain.policy import SetPolicy
from ..domain.tenant import Tenant
from ..domain.window import PERIOD


def is_limited(limit: SetLimit, state: Tenant, now: int) -> bool:
    """Whether the member has this very limit."""
    member = state.hierarchy.by_id.get(limit.node)
    if member is None:
        return False
    held = _held(limit, state, limit.from_period or state.contracts.name_at(now))
    if held is None:
        return False
    terms = (held.quantity, held.thresholds, held.kind, held.quantities, held.may_raise)
    if isinstance(limit, SetAnyLimit):
        more = (limit.kind, tuple(sorted(set(limit.quantities))), limit.may_raise)
    else:
        # It says nothing about who may raise it.
        more = ("hard", (), held.may_raise)
    return terms == (limit.quantity, tuple(sorted(set(limit.thresholds))), *more)


def is_ruled(policy: SetPolicy, state: Tenant, now: int) -> bool:
    """Whether the policy says this already."""
    held = state.limits.policies.version_at(policy.policy, now)
    if held is None:
        return False
    steps = tuple(sorted(policy.steps, key=lambda step: (step.percent, step.at)))
    asked = (policy.node, policy.counted, policy.window, steps, policy.selector, policy.groups, policy.note)
    told = (held.node, held.counted, held.window, held.steps, held.selector, held.groups, held.note)
    return asked == told


def turn_of(command: SetLimit | SetPolicy, state: Tenant) -> str:
    """Which turn it is: what was set back by hand may be set anew by the same file."""
    if isinstance(command, SetPolicy):
        return str(len(state.limits.policies.versions.get(command.policy, ())))
    member = state.hierarchy.by_id.get(command.node)
    if member is None:
        return "0"
    if isinstance(command, SetAnyLimit) and command.window != PERIOD:
        held = _held(command, state, "")
        return sha256(msgspec.json.encode(held)).hexdigest()
    return str(len(state.limits.by_type.get(command.usage_type, {}).get(member.ordinal, ())))


def _held(limit: SetLimit, state: Tenant, since: str) -> LimitSet | None:
    ordinal, limits = state.hierarchy.by_id[limit.node].ordinal, state.limits
    if isinstance(limit, SetAnyLimit) and limit.window != PERIOD:
        return limits.windows.get(limit.usage_type, {}).get(ordinal, {}).get(limit.window)
    given = [
        one for one in limits.by_type.get(limit.usage_type, {}).get(ordinal, ()) if one.from_period == since
    ]
    return given[-1] if given else None
