"""Plans that closed periods have settled as a whole: what a rating job owes for them beside its charges.

What they came to, and come to by now, is read where the invoice reads it. The writer decides each again:
what was counted since is left to the next look, and what was corrected already is not owed twice.
"""

from collections.abc import Awaitable, Callable, Iterator
from hashlib import sha256
from uuid import UUID

from msgspec import Struct

from ..domain.contract import OpenPeriod, PeriodNotOpen
from ..domain.difference import Difference
from ..domain.rating_job import Scope
from ..domain.refusals import Refused
from ..domain.rerated import Made
from ..domain.resettled import CorrectPlans, Settled
from ..domain.resettling import settled_whole, settles_plans
from ..domain.tenant import Tenant
from ..projections.resettled import resettled
from ..tenants.isolation import Isolation
from .asking import Answer
from .following import catch_up
from .keys import command_key

PLANS_AT_ONCE = 200
"""Settled again in one command: the writer decides them in some milliseconds."""
LOOKS_MAX = 5
"""How often a job looks for what was counted in a closed period while it settled its plans."""

Submit = Callable[[CorrectPlans, bytes], Awaitable[Answer]]


class Unsettled(Struct):
    """Of some periods: what differs."""

    commands: list[CorrectPlans]
    left: list[str]
    """Of what should be corrected and cannot be: why."""


def unsettled(
    isolation: Isolation, tenant: UUID, state: Tenant, job: str, scope: Scope, now: int
) -> Unsettled:
    """What a job would owe for plans of closed periods. Blocks."""
    found = Unsettled([], [])
    if not settles_plans(scope) or not settled_whole(state.tariffs):
        return found
    catch_up(isolation, tenant)
    resettling = state.rerating.resettling
    with isolation.snapshot(tenant) as db:
        for period in _closed(state, scope, now):
            differing = [
                one for one in resettled(db, period, scope.tariff) if resettling.differs(one, period)
            ]
            plans = [one for one in differing if not resettling.why_left(one, period)]
            found.left += [why for one in differing if (why := resettling.why_left(one, period))]
            found.commands += _commands(job, period, plans)
    return found


def show(difference: Difference, state: Tenant, found: Unsettled, now: int) -> None:
    """Add what would be owed to a preview; only the state that is given becomes another."""
    difference.leave(found.left)
    for command in found.commands:
        events, left = _settled(state, command, now)
        for event in events:
            state.apply(event)
        difference.add(events)
        difference.leave(left)


async def settle(
    look: Callable[[], Awaitable[Unsettled]], submit: Submit, goes_on: Callable[[], bool]
) -> list[str]:
    """Hand what differs to the writer, until nothing does; why something stays that should not."""
    for _ in range(LOOKS_MAX):
        found = await look()
        if not found.commands:
            return found.left
        for command in found.commands:
            if not goes_on():
                return []
            await _hand_over(command, submit)
    return [*found.left, *("counted_meanwhile" for command in found.commands for _ in command.plans)]


async def _hand_over(command: CorrectPlans, submit: Submit) -> None:
    try:
        await submit(command, plans_key(command))
    except Refused as refusal:
        if refusal.code != "nothing_to_rerate":
            raise


def _settled(state: Tenant, command: CorrectPlans, now: int) -> tuple[list[Made], list[str]]:
    try:
        return state.rerating.settled(command, now)
    except PeriodNotOpen as needed:
        for event in state.decide(OpenPeriod(needed.period), now):
            state.apply(event)
        return _settled(state, command, now)


def _closed(state: Tenant, scope: Scope, now: int) -> list[str]:
    return [
        opened.period
        for opened in list(state.contracts.periods.values())
        if scope.period in ("", opened.period) and state.rollovers.is_closed(opened, now)
    ]


def _commands(job: str, period: str, plans: list[Settled]) -> Iterator[CorrectPlans]:
    for first in range(0, len(plans), PLANS_AT_ONCE):
        yield CorrectPlans(job, period, tuple(plans[first : first + PLANS_AT_ONCE]))


def plans_key(command: CorrectPlans) -> bytes:
    """Of exactly these: another look may find others."""
    told = sha256(repr((command.period, command.plans)).encode()).hexdigest()
    return command_key(f"rating:{command.job}:plans:{told}")
