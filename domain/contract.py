"""The contract: what the enterprise bought, per usage type and period.

A period is a stretch of the contract's calendar in the tenant's time zone. It is opened in the
log, with its bounds and its grants, before anything is charged to it: replay never asks a calendar
again. Times are microseconds since the epoch, UTC; bounds are [starts_at, ends_at).
"""

from bisect import bisect_right
from collections.abc import Iterator
from datetime import date, timedelta
from typing import ClassVar
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import astuple, replace

from .agreed import FOREVER, Agreed, ContractSigned, Plan, end_of
from .calendar import (
    YEAR_MIN,
    add_months,
    bounds_of,
    date_of,
    local_day,
    midnight,
    month_of,
    name_of,
)
from .refusals import Refused, check_text
from .tariff import CompiledRate
from .terms import QUANTITY_MAX, USUAL, Grant, Terms, check_ends_on, check_terms, prorated
from .usage_type import UsageTypes

__all__ = [
    "PERIODS_AHEAD_DAYS",
    "QUANTITY_MAX",
    "YEAR_MIN",
    "ContractEnded",
    "ContractRenewed",
    "ContractSigned",
    "Contracts",
    "EndContract",
    "Grant",
    "OpenPeriod",
    "PeriodNotOpen",
    "PeriodOpened",
    "RenewContract",
    "SignContract",
    "Terms",
    "bounds_of",
    "first_form",
    "midnight",
    "name_of",
]

PERIODS_AHEAD_DAYS = 45
"""A period that starts later than this is a typing mistake, not a plan."""
DAY = 86_400_000_000
RENEWED_BEFORE = DAY
"""So long before its end a contract that renews itself is renewed: nobody is uncovered meanwhile."""


class PeriodOpened(Struct, frozen=True, array_like=True):
    """A stretch of the tenant's calendar has begun to count, with its bounds and its contract."""

    topic: ClassVar[str] = "contract.period_opened"
    period: str
    starts_at: int
    ends_at: int
    contract: str
    version: int
    overage: bool
    share: tuple[int, int] = (1, 1)
    """The part of a whole stretch that grants and commitment were given for."""
    commitment: int = 0
    """Spend agreed for this period, in micro-units."""


class ContractEnded(Struct, frozen=True, array_like=True):
    """A contract covers nothing after a day, and does not renew itself."""

    topic: ClassVar[str] = "contract.ended"
    contract: str
    ends_on: str
    note: str = ""


class ContractRenewed(Struct, frozen=True, array_like=True):
    """A contract goes on, until another day or until further notice."""

    topic: ClassVar[str] = "contract.renewed"
    contract: str
    ends_on: str
    """"" means until further notice."""
    note: str = ""


class SignContract(Struct, frozen=True, array_like=True):
    """What the enterprise gets each period from `starts_on` (a date, YYYY-MM-DD) on.

    `overage`: usage beyond the allowance is charged at the tariff; otherwise it is rejected.
    Signed again under the same name it is the next version, valid from the next period opened.
    """

    contract: str
    starts_on: str
    grants: tuple[Grant, ...]
    overage: bool = True
    terms: Terms | None = None
    note: str = ""

    def first_form(self) -> object:
        """As it was told before there were terms, or an end of what is left over."""
        plain = self.contract, self.starts_on, self.grants, self.overage
        if self.terms is None:
            return self if self.note else plain
        return self if self.terms.expires else (*plain, astuple(self.terms)[:-1], self.note)


def first_form(command: object) -> object:
    """A command as it was told before it had its newer fields, where they say nothing: so keys and digests
    stay the same."""
    told = getattr(command, "first_form", None)
    return command if told is None else told()


class EndContract(Struct, frozen=True, array_like=True):
    """Let a contract cover nothing after a day, today at the earliest; it stops renewing itself."""

    contract: str
    ends_on: str
    note: str = ""


class RenewContract(Struct, frozen=True, array_like=True):
    """Let a contract that ends go on until a later day, or until further notice ("")."""

    contract: str
    ends_on: str = ""
    note: str = ""


class OpenPeriod(Struct, frozen=True, array_like=True):
    """Open a period, with the grants of the contract valid at its start."""

    period: str


ContractEvent = ContractSigned | ContractEnded | ContractRenewed | PeriodOpened


class PeriodNotOpen(Exception):
    """The rules first need this period opened; then the command is decided again."""

    def __init__(self, period: str) -> None:
        super().__init__(period)
        self.period = period


class Ending(Struct, frozen=True, array_like=True):
    """When a contract ends, and whether somebody ended it."""

    ends_on: str
    ended: bool = False


class Contracts:
    """The agreements, and the periods opened under them."""

    def __init__(self, types: UsageTypes | None = None) -> None:
        self.zone = ZoneInfo("UTC")
        self.types = types or UsageTypes()
        self.signed: list[ContractSigned] = []
        self.ends: dict[str, Ending] = {}
        """Of the contracts that end."""
        self.periods: dict[str, PeriodOpened] = {}
        self.agreed = Agreed()
        self._rates: dict[tuple[str, int, int, int, str], CompiledRate] = {}
        self._versions: dict[tuple[str, int], ContractSigned] = {}
        self._starts: list[int] = []
        self._opened: list[PeriodOpened] = []
        self._last: PeriodOpened | None = None
        self._planned: tuple[int, Plan | None] | None = None
        """The plan asked for last, and of which moment: a slice of commands asks for one again and again."""

    # --- periods ------------------------------------------------------------------------------

    def period_at(self, at: int) -> PeriodOpened | None:
        """The open period a moment belongs to."""
        last = self._last
        if last is not None and last.starts_at <= at < last.ends_at:
            return last
        index = bisect_right(self._starts, at) - 1
        if index < 0 or at >= self._opened[index].ends_at:
            return None
        self._last = self._opened[index]
        return self._last

    def check(self, period: str) -> None:
        """Refuses what is no period, or one that no contract covers."""
        if period not in self.periods:
            self._named(period)

    def require(self, period: str) -> PeriodOpened:
        """The period, opened; asks for it to be opened first."""
        opened = self.periods.get(period)
        if opened is None:
            self.check(period)
            raise PeriodNotOpen(period)
        return opened

    def period_for(self, at: int) -> PeriodOpened | None:
        """The period of a moment; asks for it to be opened, or None where no contract covers it."""
        if self.agreed.at(at) is None:
            return None
        opened = self.period_at(at)
        if opened is None and (plan := self._plan(at)) is not None:
            raise PeriodNotOpen(plan.name)
        return opened

    def name_at(self, at: int) -> str:
        """What the period of a moment is called, open or not; without a contract, its month."""
        found = self.period_at(at) or self._plan(at)
        if found is None:
            return name_of(at, self.zone)
        return found.period if isinstance(found, PeriodOpened) else found.name

    def bounds(self, period: str) -> tuple[int, int]:
        """Of a period, open or not. Refuses what is none, or what no contract covers."""
        opened = self.periods.get(period)
        if opened is not None:
            return opened.starts_at, opened.ends_at
        plan = self._named(period)
        return plan.starts_at, plan.ends_at

    def shown(self, period: str) -> tuple[int, int]:
        """The same; of a month that no contract covers, as the calendar has it."""
        try:
            return self.bounds(period)
        except Refused:
            if month_of(period) is None:
                raise
            return bounds_of(period, self.zone)

    def terms_of(self, period: PeriodOpened) -> Terms:
        """What was agreed for an open period."""
        return self.terms_under(period.contract, period.version)

    def terms_under(self, contract: str, version: int) -> Terms:
        signed = self._versions.get((contract, version))
        return USUAL if signed is None else signed.agreed

    def granted(self, period: PeriodOpened, usage_type: str) -> int:
        """What the contract grants of a type for a whole period like this one, as it was opened."""
        signed = self._versions.get((period.contract, period.version))
        grants = signed.grants if signed is not None else ()
        return next((grant.quantity for grant in grants if grant.usage_type == usage_type), 0)

    def rate_of(self, period: PeriodOpened, usage_type: str, rate: CompiledRate) -> CompiledRate:
        """The tariff's rate, with the price that the contract has for overage of this type, if any."""
        prices = self.terms_of(period).overage_prices
        if not prices or not rate.included:
            return rate
        own = (rate.priced(one) for one in prices if one.usage_type == usage_type)
        if not rate.plain:
            # It is bound to one usage.
            return next(own, rate)
        key = (period.contract, period.version, rate.version, rate.index, rate.prefix)
        found = self._rates.get(key)
        if found is None:
            found = self._rates[key] = next(own, rate)
        return found

    def _plan(self, at: int) -> Plan | None:
        known = self._planned
        if known is not None and known[0] == at:
            return known[1]
        plan = self._plan_anew(at)
        self._planned = (at, plan)
        return plan

    def _plan_anew(self, at: int) -> Plan | None:
        index = bisect_right(self._starts, at)
        beside = self._opened[max(0, index - 1) : index + 1]
        return self.agreed.plan(at, [(one.starts_at, one.ends_at) for one in beside], self.zone)

    def _named(self, period: str) -> Plan:
        """The plan of a period that is not open, by its name."""
        first = month_of(period)
        if first is None:
            at = midnight(_day_of(period), self.zone)
        else:
            at, ends_at = bounds_of(period, self.zone)
            begun = self.agreed.spans[0].starts_at if self.agreed.spans else at
            at = begun if at < begun < ends_at else at
        opened = self.period_at(at)
        plan = None if opened is not None else self._plan(at)
        if opened is None and plan is None:
            raise Refused("no_contract", period=period)
        if plan is None or plan.name != period:
            example = plan.name if plan is not None else self.name_at(at)
            raise Refused("not_a_period", period=period, example=example)
        return plan

    # --- decide -------------------------------------------------------------------------------

    def decide(
        self, command: SignContract | EndContract | RenewContract | OpenPeriod, now: int
    ) -> tuple[ContractEvent, tuple[Grant, ...]]:
        """The event, and the whole grants of the period that is opened with it."""
        match command:
            case SignContract():
                return self._sign(command), ()
            case EndContract():
                return self._end(command, now), ()
            case RenewContract():
                return self._renew(command), ()
        return self._open(command.period, now)

    def _sign(self, command: SignContract) -> ContractSigned:
        date_of(command.starts_on)
        types = [grant.usage_type for grant in command.grants]
        check_text("contract", command.contract)
        check_text("note", command.note, empty=True)
        if len(set(types)) != len(types):
            raise Refused("granted_twice", usage_types=types)
        for grant in command.grants:
            self.types.check(grant.usage_type, money=True)
            if not 0 <= grant.quantity <= QUANTITY_MAX:
                raise Refused("quantity_out_of_range", usage_type=grant.usage_type, quantity_max=QUANTITY_MAX)
        terms = command.terms if command.terms != USUAL else None
        if terms is not None:
            check_terms(terms, command.starts_on, command.grants)
            for price in terms.overage_prices:
                self.types.check(price.usage_type)
        self._check_alone(command.contract, command.starts_on, terms.ends_on if terms else "")
        version = 1 + sum(1 for signed in self.signed if signed.contract == command.contract)
        about = (command.contract, version, command.starts_on, command.grants, command.overage)
        return ContractSigned(*about, terms, command.note)

    def over_commitment(self, opened: PeriodOpened) -> int:
        """By how much more than there is may be promised in a period, in percent."""
        return self.terms_of(opened).over_commitment_percent

    def _check_alone(self, contract: str, starts_on: str, ends_on: str) -> None:
        """One contract may take over from another; one that ends may not lie across another."""
        starts_at = midnight(date_of(starts_on), self.zone)
        ends_at = end_of(ends_on, self.zone) if ends_on else FOREVER
        for span in self.agreed.spans:
            other = span.signed.contract
            takes_over = not ends_on and other not in self.ends
            if other == contract or takes_over or span.ends_at <= starts_at or ends_at <= span.starts_at:
                continue
            other_ends_on = self.ends[other].ends_on if other in self.ends else ""
            raise Refused(
                "contracts_overlap",
                contract=other,
                starts_on=span.signed.starts_on,
                ends_on=other_ends_on or "further notice",
            )

    def _end(self, command: EndContract, now: int) -> ContractEnded:
        first = self._known(command.contract)
        check_text("note", command.note, empty=True)
        check_ends_on(command.ends_on, first.starts_on)
        today = local_day(now, self.zone).isoformat()
        if command.ends_on < today:
            raise Refused("ends_in_the_past", ends_on=command.ends_on, today=today)
        ending = self.ends.get(command.contract)
        if ending is not None and command.ends_on > ending.ends_on:
            raise Refused("ends_already", contract=command.contract, ends_on=ending.ends_on)
        return ContractEnded(command.contract, command.ends_on, command.note)

    def _renew(self, command: RenewContract) -> ContractRenewed:
        self._known(command.contract)
        check_text("note", command.note, empty=True)
        ending = self.ends.get(command.contract)
        if ending is None:
            raise Refused("no_end", contract=command.contract)
        if command.ends_on and date_of(command.ends_on) <= date_of(ending.ends_on):
            raise Refused("not_longer", contract=command.contract, ends_on=ending.ends_on)
        after = (date_of(ending.ends_on) + timedelta(days=1)).isoformat()
        self._check_alone(command.contract, after, command.ends_on)
        return ContractRenewed(command.contract, command.ends_on, command.note)

    def _known(self, contract: str) -> ContractSigned:
        """The contract's version that begins first."""
        found = [signed for signed in self.signed if signed.contract == contract]
        if not found:
            raise Refused("unknown_contract", contract=contract)
        return min(found, key=lambda signed: signed.starts_on)

    def newest(self, contract: str) -> ContractSigned:
        """The version signed last, with the end that the contract has now."""
        self._known(contract)
        signed = [signed for signed in self.signed if signed.contract == contract][-1]
        ending = self.ends.get(contract)
        terms = replace(signed.agreed, ends_on=ending.ends_on if ending is not None else "")
        return replace(signed, terms=None if terms == USUAL else terms)

    def _open(self, period: str, now: int) -> tuple[PeriodOpened, tuple[Grant, ...]]:
        if period in self.periods:
            raise Refused("period_open_already", period=period)
        plan = self._named_soon(period, now)
        signed, terms = plan.signed, plan.signed.agreed
        share = plan.share if terms.prorate else (1, 1)
        opened = PeriodOpened(
            *(period, plan.starts_at, plan.ends_at, signed.contract, signed.version, signed.overage),
            *(share, prorated(terms.commitment, share)),
        )
        return opened, signed.grants

    def _named_soon(self, period: str, now: int) -> Plan:
        """Too far ahead is told before whether there will be a contract."""
        first = month_of(period) or _day_of(period)
        if midnight(first, self.zone) > now + PERIODS_AHEAD_DAYS * DAY:
            raise Refused("period_too_far_ahead", period=period, days_max=PERIODS_AHEAD_DAYS)
        return self._named(period)

    # --- what time asks for -------------------------------------------------------------------

    def due(self, now: int) -> list[RenewContract]:
        """The renewals that contracts have agreed to beforehand."""
        return [renewal for at, renewal in self._renewals() if at <= now]

    def next_due(self) -> int | None:
        return min((at for at, _ in self._renewals()), default=None)

    def _renewals(self) -> Iterator[tuple[int, RenewContract]]:
        for contract, ending in self.ends.items():
            months = self.newest(contract).agreed.renews_months
            if not months or ending.ended:
                continue
            ends_at = end_of(ending.ends_on, self.zone)
            last = self.agreed.at(ends_at - 1)
            renewal = RenewContract(contract, add_months(ending.ends_on, months), "by its terms")
            if last is not None and last.signed.contract == contract and self._may(renewal):
                yield ends_at - RENEWED_BEFORE, renewal

    def _may(self, renewal: RenewContract) -> bool:
        try:
            self._renew(renewal)
        except Refused:
            return False
        return True

    # --- apply --------------------------------------------------------------------------------

    def apply(self, event: ContractEvent) -> None:
        self._planned = None
        match event:
            case PeriodOpened(period, starts_at):
                index = bisect_right(self._starts, starts_at)
                self.periods[period] = event
                self._starts.insert(index, starts_at)
                self._opened.insert(index, event)
                return
            case ContractSigned():
                self.signed.append(event)
                self._versions[event.contract, event.version] = event
                self._put_end(event.contract, event.agreed.ends_on)
            case ContractEnded(contract, ends_on):
                self.ends[contract] = Ending(ends_on, ended=True)
            case ContractRenewed(contract, ends_on):
                self._put_end(contract, ends_on)
        self.arrange()

    def _put_end(self, contract: str, ends_on: str) -> None:
        self.ends.pop(contract, None)
        if ends_on:
            self.ends[contract] = Ending(ends_on)

    def arrange(self) -> None:
        """Put what is in force in order, after it has changed."""
        self._planned = None
        ends = {contract: end_of(ending.ends_on, self.zone) for contract, ending in self.ends.items()}
        self.agreed.put(self.signed, ends, self.zone)


def check_name(period: str) -> None:
    """Refuses what no period can be called, whatever the contract."""
    if month_of(period) is None:
        _day_of(period)


def granted(
    opened: PeriodOpened, grants: tuple[Grant, ...]
) -> Iterator[tuple[Grant, tuple[int, ...] | tuple[int, int, tuple[int, int]]]]:
    """What enters the enterprise's bucket with a period: quantity, and its working where it is a share."""
    for grant in grants:
        quantity = prorated(grant.quantity, opened.share)
        if quantity:
            whole = opened.share == (1, 1)
            yield grant, (quantity,) if whole else (quantity, grant.quantity, opened.share)


def _day_of(period: str) -> date:
    try:
        return date_of(period)
    except Refused:
        raise Refused("not_a_period", period=period, example="2026-11") from None
