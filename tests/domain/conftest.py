"""A small enterprise for the tests of the rules, told by its history.

acme 0 > emea 1 > sales 2 > r-1 4        granted in November 2026: 1000 seconds of voice,
       > apac 3 > r-2 5                  10_000 bytes of data; it is the 15th, in Berlin
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import settings

from allotment.domain.bucket import Granted
from allotment.domain.charging import ChargeUsage
from allotment.domain.contract import (
    ContractSigned,
    Grant,
    OpenPeriod,
    PeriodNotOpen,
    PeriodOpened,
    bounds_of,
)
from allotment.domain.hierarchy import Identity, NodeAdded, ResourceAdded
from allotment.domain.refusals import Refused
from allotment.domain.tariff import Rate, TariffPublished
from allotment.domain.tenant import Event, Tenant, TenantOpened
from allotment.domain.usage import UsageRecord

# How long an example takes on a busy machine says nothing about the rules.
settings.register_profile("rules", deadline=None)
settings.load_profile("rules")

BERLIN = ZoneInfo("Europe/Berlin")
NOVEMBER = bounds_of("2026-11", BERLIN)


def moment(text: str, zone: str = "Europe/Berlin") -> int:
    """Microseconds since the epoch of a local time: "2026-11-15 12:00"."""
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))
    return int(local.timestamp()) * 1_000_000


NOW = moment("2026-11-15 12:00")

RATES = (
    Rate("voice", "national", "0.06", per=60, prefix="+49", increment=60),
    Rate("voice", "world", "0.60", per=60, prefix="+"),
    Rate("voice", "internal", "0"),
    Rate("data", "any", "0.01", per=1000),
    Rate("messaging", "any", "0.05", included=False),
)

ACME: tuple[Event, ...] = (
    TenantOpened("Acme", "Europe/Berlin", "EUR", "carrier"),
    NodeAdded("acme", 0, "", "Acme", "enterprise"),
    NodeAdded("emea", 1, "acme", "EMEA", "division"),
    NodeAdded("sales", 2, "emea", "Sales", "cost_centre"),
    NodeAdded("apac", 3, "acme", "APAC", "division"),
    ResourceAdded("r-1", 4, "sales", "msisdn", 0, (Identity(b"r-1", b""),)),
    ResourceAdded("r-2", 5, "apac", "extension", 0, (Identity(b"r-2", b""),)),
    ContractSigned("frame", 1, "2026-01-01", (Grant("voice", 1000), Grant("data", 10_000)), overage=True),
    TariffPublished("standard", 1, 0, "EUR", "half_up", 4, RATES),
    PeriodOpened("2026-11", *NOVEMBER, "frame", 1, overage=True),
    Granted("acme", "voice", "2026-11", 1000),
    Granted("acme", "data", "2026-11", 10_000),
)


class Company:
    """Acme, to be commanded. `history` is everything that has happened to it."""

    def __init__(self, history: Sequence[Event] = ACME) -> None:
        self.tenant = Tenant()
        self.history: list[Event] = []
        self.tell(*history)

    def tell(self, *events: Event) -> "Company":
        for event in events:
            self.tenant.apply(event)
            self.history.append(event)
        return self

    def do(self, command: Any, now: int = NOW) -> list[Event]:
        """Decide and apply; periods that are needed are opened before, as the writer does it."""
        try:
            events = self.tenant.decide(command, now)
        except PeriodNotOpen as needed:
            self.tell(*self.tenant.decide(OpenPeriod(needed.period), now))
            events = self.tenant.decide(command, now)
        self.tell(*events)
        self.tenant.check_whole()
        return events

    def ask(self, command: Any, now: int = NOW) -> Any:
        """The events a command would lead to, or its refusal's code."""
        try:
            return self.tenant.decide(command, now)
        except Refused as refusal:
            return refusal.code

    def refusal(self, command: Any, now: int = NOW) -> tuple[str, dict[str, Any]]:
        with pytest.raises(Refused) as refused:
            self.tenant.decide(command, now)
        return refused.value.code, refused.value.facts

    def use(
        self,
        quantity: int,
        usage_type: str = "voice",
        counterpart: str = "+4930123456",
        at: int = NOW,
        line: str = "r-1",
        now: int = NOW,
        direction: str = "outbound",
    ) -> list[Any]:
        record = UsageRecord(
            "src", f"id-{len(self.history)}", line, usage_type, quantity, at, direction, counterpart
        )
        return self.do(ChargeUsage(record, line.encode(), b"sealed"), now)

    def family(self, usage_type: str = "voice", period: str = "2026-11") -> Any:
        return self.tenant.families[usage_type, period]


@pytest.fixture
def acme() -> Company:
    return Company()


@pytest.fixture
def bare() -> Company:
    """Acme without any allowance: all that is used costs money."""
    return bare_acme()


@pytest.fixture
def bare_company() -> Callable[..., Company]:
    """Makes such an Acme: for tests that play many histories."""
    return bare_acme


def bare_acme() -> Company:
    signed = ContractSigned("frame", 1, "2026-01-01", (), overage=True)
    kept = [event for event in ACME if not isinstance(event, Granted)]
    return Company([signed if isinstance(event, ContractSigned) else event for event in kept])


@pytest.fixture
def company() -> Callable[..., Company]:
    """Acme with more history: `company(*events)`."""
    return lambda *events: Company((*ACME, *events))


@pytest.fixture
def told() -> Callable[..., Company]:
    """An enterprise with this history and no other."""
    return lambda *events: Company(events)


@pytest.fixture
def at() -> Callable[..., int]:
    """`at("2026-11-01 00:00", "Europe/Berlin")` in microseconds."""
    return moment


@pytest.fixture
def now() -> int:
    return NOW
