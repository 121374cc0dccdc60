"""The contract: what the enterprise bought, per usage type and period.

A period is a calendar month in the tenant's time zone. It is opened in the log, with its bounds
and its grants, before anything is charged to it: replay never asks a calendar again.
Times are microseconds since the epoch, UTC; bounds are [starts_at, ends_at).
"""

import re
from bisect import bisect_right
from datetime import date, datetime
from typing import ClassVar
from zoneinfo import ZoneInfo

from msgspec import Struct

from .refusals import Refused, check_text
from .usage import USAGE_TYPES

QUANTITY_MAX = 2**60
YEAR_MIN = 1970
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
PERIODS_AHEAD_DAYS = 45
"""A period that starts later than this is a typing mistake, not a plan."""


class Grant(Struct, frozen=True, array_like=True):
    usage_type: str
    quantity: int


class ContractSigned(Struct, frozen=True, array_like=True):
    """What is granted in each period from a date on: a new version of the contract."""

    topic: ClassVar[str] = "contract.signed"
    contract: str
    version: int
    starts_on: str
    grants: tuple[Grant, ...]
    overage: bool


class PeriodOpened(Struct, frozen=True, array_like=True):
    """A month of the tenant's calendar has begun to count, with its bounds and its contract."""

    topic: ClassVar[str] = "contract.period_opened"
    period: str
    starts_at: int
    ends_at: int
    contract: str
    version: int
    overage: bool


class SignContract(Struct, frozen=True, array_like=True):
    """What the enterprise gets each period from `starts_on` (a date, YYYY-MM-DD) on.

    `overage`: usage beyond the allowance is charged at the tariff; otherwise it is rejected.
    Signed again under the same name it is the next version, valid from the next period opened.
    """

    contract: str
    starts_on: str
    grants: tuple[Grant, ...]
    overage: bool = True


class OpenPeriod(Struct, frozen=True, array_like=True):
    """Open a period, with the grants of the contract valid at its start."""

    period: str


class PeriodNotOpen(Exception):
    """The rules first need this period opened; then the command is decided again."""

    def __init__(self, period: str) -> None:
        super().__init__(period)
        self.period = period


class Contracts:
    """The agreements, and the periods opened under them."""

    def __init__(self) -> None:
        self.zone = ZoneInfo("UTC")
        self.signed: list[ContractSigned] = []
        self.periods: dict[str, PeriodOpened] = {}
        self._starts: list[int] = []
        self._opened: list[PeriodOpened] = []
        self._last: PeriodOpened | None = None
        self.begins_at: int | None = None
        """When the first contract begins."""

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
            bounds_of(period, self.zone)
            if self._contract_for(period) is None:
                raise Refused("no_contract", period=period)

    def require(self, period: str) -> PeriodOpened:
        """The period, opened; asks for it to be opened first."""
        opened = self.periods.get(period)
        if opened is None:
            self.check(period)
            raise PeriodNotOpen(period)
        return opened

    def period_for(self, at: int) -> PeriodOpened | None:
        """The period of a moment; asks for it to be opened, or None where no contract covers it."""
        if self.begins_at is None or at < self.begins_at:
            return None
        opened = self.period_at(at)
        if opened is None and (period := name_of(at, self.zone)) not in self.periods:
            if self._contract_for(period) is None:
                return None
            raise PeriodNotOpen(period)
        return opened

    def decide(
        self, command: SignContract | OpenPeriod, now: int
    ) -> tuple[ContractSigned | PeriodOpened, tuple[Grant, ...]]:
        """The event, and the grants that enter the enterprise's buckets with it."""
        if isinstance(command, SignContract):
            return self._sign(command), ()
        return self._open(command.period, now)

    def _sign(self, command: SignContract) -> ContractSigned:
        if _date(command.starts_on).year < YEAR_MIN:
            raise Refused("not_a_date", date=command.starts_on, example="2026-11-01")
        types = [grant.usage_type for grant in command.grants]
        check_text("contract", command.contract)
        if len(set(types)) != len(types):
            raise Refused("granted_twice", usage_types=types)
        for grant in command.grants:
            if grant.usage_type not in USAGE_TYPES:
                raise Refused("unknown_usage_type", usage_type=grant.usage_type, known=[*USAGE_TYPES])
            if not 0 <= grant.quantity <= QUANTITY_MAX:
                raise Refused("quantity_out_of_range", usage_type=grant.usage_type, quantity_max=QUANTITY_MAX)
        version = 1 + sum(1 for signed in self.signed if signed.contract == command.contract)
        return ContractSigned(command.contract, version, command.starts_on, command.grants, command.overage)

    def _open(self, period: str, now: int) -> tuple[PeriodOpened, tuple[Grant, ...]]:
        starts_at, ends_at = bounds_of(period, self.zone)
        if period in self.periods:
            raise Refused("period_open_already", period=period)
        if starts_at > now + PERIODS_AHEAD_DAYS * 86_400_000_000:
            raise Refused("period_too_far_ahead", period=period, days_max=PERIODS_AHEAD_DAYS)
        contract = self._contract_for(period)
        if contract is None:
            raise Refused("no_contract", period=period)
        opened = PeriodOpened(
            period, starts_at, ends_at, contract.contract, contract.version, contract.overage
        )
        return opened, contract.grants

    def _contract_for(self, period: str) -> ContractSigned | None:
        """The contract that began last before the period ends."""
        _, ends_at = bounds_of(period, self.zone)
        begun = [signed for signed in self.signed if midnight(_date(signed.starts_on), self.zone) < ends_at]
        # Of two that begin on the same day, the one signed later.
        return max(reversed(begun), key=lambda signed: signed.starts_on, default=None)

    def apply(self, event: ContractSigned | PeriodOpened) -> None:
        match event:
            case ContractSigned():
                self.signed.append(event)
                begins_at = midnight(_date(event.starts_on), self.zone)
                if self.begins_at is None or begins_at < self.begins_at:
                    self.begins_at = begins_at
            case PeriodOpened(period, starts_at):
                index = bisect_right(self._starts, starts_at)
                self.periods[period] = event
                self._starts.insert(index, starts_at)
                self._opened.insert(index, event)


def name_of(at: int, zone: ZoneInfo) -> str:
    """The month a moment belongs to, as the tenant's calendar has it: "2026-11"."""
    local = datetime.fromtimestamp(at // 1_000_000, zone)
    return f"{local.year:04d}-{local.month:02d}"


def bounds_of(period: str, zone: ZoneInfo) -> tuple[int, int]:
    try:
        first = date.fromisoformat(f"{period}-01") if len(period) == len("2026-11") else None
    except ValueError:
        first = None
    if first is None or not YEAR_MIN <= first.year <= 9998:
        raise Refused("not_a_period", period=period, example="2026-11")
    following = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    return midnight(first, zone), midnight(following, zone)


def midnight(day: date, zone: ZoneInfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1_000_000


def _date(text: str) -> date:
    try:
        # Other forms of ISO 8601 would be stored as they came, and not compare as text.
        if not DATE.fullmatch(text):
            raise ValueError(text)
        return date.fromisoformat(text)
    except ValueError:
        raise Refused("not_a_date", date=text, example="2026-11-01") from None
