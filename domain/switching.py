"""Switching: when a running session goes on at other prices, and what its reports say of that.

What is counted in seconds is placed in time by its tariff, and has the version of its start. Of everything
else only reports know when it was used: at a report other prices may begin to hold, by a window
of a rate that goes by reports or by a tariff version that began meanwhile. What was used until then costs
what held before, whenever it is reported; a price is never changed for units that were granted at another.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

from .rating.basis import NO_BASIS, Basis, Switch
from .rating.checking import SECOND_UNIT
from .rating.plan import CompiledPlan
from .rating.rate import CompiledRate
from .rating.sessions import stretches
from .rating.shaped import ShapedRate
from .rating.switched_rate import SWITCHES_MAX, costs_alike, with_switches
from .refusals import Refused
from .session import VALIDITY_SECONDS, Report, Session
from .tariff import Tariff, Tariffs

SECOND = 1_000_000


class Priced(Protocol):
    """A session, or what it was charged: what its first price follows from."""

    @property
    def usage_type(self) -> str: ...
    @property
    def direction(self) -> str: ...
    @property
    def started_at(self) -> int: ...
    @property
    def tariff(self) -> int: ...
    @property
    def rate(self) -> int: ...
    @property
    def prefix(self) -> str: ...
    @property
    def basis(self) -> Basis | None: ...


class Switching:
    """By the tariffs of a tenant, and the units of its usage types."""

    def __init__(self, tariffs: Tariffs, units: Mapping[str, str]) -> None:
        self._tariffs = tariffs
        self._units = units

    def reported(self, session: Session, report: Report, used: int, now: int) -> tuple[Switch, ...]:
        """The switches of a session after a report: `used` since its start."""
        switches = self.within(session, report, now)
        return self._after(session, switches, used, now)

    def within(self, session: Session, report: Report, now: int) -> tuple[Switch, ...]:
        """The same, of what is told of the past only."""
        switches = known(session)
        for units, moment in report.changes:
            at = min(max(moment, _last_at(session, switches)), now)
            switches = self._after(session, switches, session.used + units, at)
        return switches

    def again(self, charge: Priced, switches: tuple[Switch, ...]) -> tuple[Switch, ...]:
        """Those that a charge has by the tariffs as they are now, where it had some before."""
        found: tuple[Switch, ...] = ()
        for one in switches:
            found = self._after(charge, found, one.begins, one.at)
        return found

    def next_at(self, session: Session, now: int) -> int:
        """When other prices will hold for what is used then, in the time that a slice is valid; 0 for not."""
        if not self._goes_by_reports(session):
            return 0
        until = now + VALIDITY_SECONDS * SECOND
        tariff, rate = self._in_force(session, known(session))
        for moment in sorted(self._moments(tariff.rates[rate], now, until)):
            if self._found(session, known(session), moment) is not None:
                return moment
        return 0

    def _moments(self, rate: CompiledRate, now: int, until: int) -> Iterator[int]:
        begins = self._tariffs.next_after(now)
        if begins is not None and begins < until:
            yield begins
        if isinstance(rate, ShapedRate) and rate.row.by_reports and rate.clock is not None:
            yield from stretches(rate.clock, now, until)

    def _after(self, session: Priced, switches: tuple[Switch, ...], used: int, at: int) -> tuple[Switch, ...]:
        """With what holds for what is used after so much."""
        if len(switches) >= SWITCHES_MAX or not self._goes_by_reports(session):
            return switches
        found = self._found(session, switches, at)
        if found is None:
            return switches
        # What nothing was used at since has no part in it.
        kept = tuple(one for one in switches if one.begins < used)
        return (*kept, Switch(used, at, found.version, found.index))

    def _goes_by_reports(self, session: Priced) -> bool:
        return self._units.get(session.usage_type) != SECOND_UNIT

    def _in_force(self, session: Priced, switches: tuple[Switch, ...]) -> tuple[Tariff, int]:
        version, rate = (
            (switches[-1].tariff, switches[-1].rate) if switches else (session.tariff, session.rate)
        )
        return self._tariffs.versions[version - 1], rate

    def _found(self, session: Priced, switches: tuple[Switch, ...], at: int) -> CompiledRate | None:
        """The rate that holds at a moment, where it costs something else than the one in force."""
        before, place = self._in_force(session, switches)
        then = self._tariffs.at(at)
        rate = before.rates[place]
        if then is None or (then is before and not rate.row.by_reports) or _is_planned(rate.plan):
            return None
        found = self._rate_at(then, session, at)
        if found is None or _is_planned(found.plan) or costs_alike(found.row, rate.row):
            return None
        return found

    def _rate_at(self, tariff: Tariff, session: Priced, at: int) -> CompiledRate | None:
        found = _find(tariff, session, at)
        if found is None or not found.row.window or found.row.by_reports:
            return found
        # Rated as at its start: the first moment at which this version holds for it.
        return _find(tariff, session, max(tariff.published.valid_from, session.started_at))


def known(session: Priced) -> tuple[Switch, ...]:
    return session.basis.switches if session.basis is not None else ()


def going_on(session: Priced) -> Basis | None:
    """For what is charged apart from all that was used before: at the price it went on with."""
    last = known(session)[-1:]
    return with_switches(session.basis, tuple(Switch(0, one.at, one.tariff, one.rate) for one in last))


def _find(tariff: Tariff, session: Priced, at: int) -> CompiledRate | None:
    """By the prefix that it was found by: its numbers are sealed."""
    try:
        return tariff.find_again(
            session.usage_type, session.direction, session.prefix, at, session.basis or NO_BASIS
        )
    except Refused:
        # It asks for something that nobody knows any more.
        return None


def _is_planned(plan: CompiledPlan | None) -> bool:
    """Whether units are priced by a plan, where its counter stands."""
    return plan is not None and plan.has_prices


def _last_at(session: Priced, switches: tuple[Switch, ...]) -> int:
    return switches[-1].at if switches else session.started_at
