"""Trying policies out on real usage: the log is read beside the writer, and nothing is written."""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from ..domain.charging import UsageCharged, UsageRejected
from ..domain.events import Recorded
from ..domain.limit import LimitSet, SetLimit
from ..domain.policy import PolicySet, SetPolicy
from ..domain.tenant import Tenant
from ..domain.trying import SINCE_EVER, Rule, Trial, proposed, rules_of
from ..tenants.isolation import Isolation
from ..tenants.sealing import Sealer
from .log import PostgresLog, replay

EVENTS_MAX = 5_000_000
"""A longer log is not folded for a trial."""
EVENTS_AT_ONCE = 10_000
"""After so many it is said how far it is."""

Progress = Callable[[int, int], None]


class TooLong(ValueError):
    """The log has more events than may be folded for one trial."""


def policy_of(state: Tenant, command: SetPolicy, now: int) -> PolicySet:
    """The policy as it would be set; raises the refusal that setting it would meet."""
    event = state.limits.policies.set(msgspec.structs.replace(command, valid_from=0), state.hierarchy, now)
    return proposed(state, event)


def limits_of(state: Tenant, limits: Sequence[SetLimit], now: int) -> list[LimitSet]:
    """Limits to be tried along, as if they had always held."""
    running, found = state.contracts.name_at(now), []
    for limit in limits:
        event = state.limits.decide(limit, state.hierarchy, running, [])[0]
        assert isinstance(event, LimitSet)
        found.append(msgspec.structs.replace(event, from_period=SINCE_EVER))
    return found


def rules_for(state: Tenant, along: list[LimitSet], now: int) -> list[Rule]:
    """Today's limits and policies, with those that are tried along in place of the ones they replace."""
    replaced = {(limit.node, limit.usage_type, limit.window) for limit in along}
    today = [
        rule
        for rule in rules_of(state, state.contracts.name_at(now), now)
        if not isinstance(rule, LimitSet) or (rule.node, rule.usage_type, rule.window) not in replaced
    ]
    return [*today, *along]


def try_out(
    isolation: Isolation,
    tenant: UUID,
    sealer: Sealer,
    trial: Trial,
    *,
    events_max: int = EVENTS_MAX,
    progress: Progress = lambda done, of: None,
) -> int:
    """Feed the log to a trial; the seq it reached. Blocks for as long as that takes."""
    log = PostgresLog(isolation, tenant)
    end = log.head().seq
    if end > events_max:
        raise TooLong(f"the log has {end} events: `allotment policy try` tells how far it is")
    subjects = _Subjects(sealer)
    for told in replay(log, upto=end):
        subjects.tell(told.event)
        trial.feed(told, subjects.counterpart(told))
        if told.seq % EVENTS_AT_ONCE == 0:
            progress(told.seq, end)
    return end


class _Subjects:
    """Whose keys the numbers in usage are sealed with."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._tokens: dict[int, list[bytes]] = {}

    def tell(self, event: Any) -> None:
        if event.topic == "hierarchy.resource_added":
            self._tokens[event.ordinal] = [identity.token for identity in event.identities]

    def counterpart(self, told: Recorded) -> str | None:
        """The other party's number; None where its person was erased."""
        event = told.event
        if not isinstance(event, UsageCharged | UsageRejected) or told.command_key is None:
            return None
        for token in self._tokens.get(event.path[0], ()):
            plain = self._sealer.open(token, event.sealed, told.command_key)
            if plain is not None:
                _, counterpart = msgspec.msgpack.decode(plain, type=tuple[str, str])
                return counterpart
        return None
