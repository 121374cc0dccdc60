"""A small enterprise's month, decided by the rules: what the golden log was made of.

Scripts only: tests read what was stored, and compare this with it under other hash seeds.
"""

from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from allotment.domain.bucket import Allocate, Return, Trade
from allotment.domain.charging import ChargeUsage, SuspendUsage
from allotment.domain.contract import Grant, OpenPeriod, PeriodNotOpen, SignContract
from allotment.domain.hierarchy import AddNode, AddResource, EndResource, Identity, MoveResource
from allotment.domain.limit import SetLimit
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.tenant import Command, Event, OpenTenant, Tenant
from allotment.domain.usage import UsageRecord


def at(text: str) -> int:
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin"))
    return int(local.timestamp()) * 1_000_000


def used(ident: str, line: str, usage_type: str, quantity: int, when: str, counterpart: str) -> ChargeUsage:
    record = UsageRecord("pbx-1", ident, "", usage_type, quantity, at(when), "outbound", counterpart)
    return ChargeUsage(record, line.encode(), b"sealed " + ident.encode(), "calls.csv:7")


RATES = (
    Rate("voice", "Germany", "0.06", per=60, prefix="+49", increment=60),
    Rate("voice", "World", "0.60", per=60, prefix="+", connect_fee="0.10"),
    Rate("messaging", "any", "0.05", included=False),
)
DE, US = "+4930123456", "+12125550100"

COMMANDS: tuple[Command, ...] = (
    OpenTenant("Acme", "Europe/Berlin", "EUR", "carrier"),
    AddNode("acme", "", "Acme", "enterprise"),
    AddNode("emea", "acme", "EMEA", "division"),
    AddNode("sales", "emea", "Sales", "cost_centre"),
    AddNode("apac", "acme", "APAC", "division"),
    AddResource("r-1", "sales", "msisdn", at("2026-01-01"), (Identity(b"one", b"sealed one"),)),
    AddResource("r-2", "apac", "sip", at("2026-01-01"), (Identity(b"two", b""), Identity(b"2", b""))),
    SignContract("frame", "2026-01-01", (Grant("voice", 600), Grant("video", 0))),
    PublishTariff("standard", at("2026-01-01"), "EUR", RATES),
    OpenPeriod("2026-11"),
    Allocate("acme", "emea", "voice", "2026-11", 200, "for November"),
    Allocate("emea", "r-1", "voice", "2026-11", 30),
    SetLimit("sales", "voice", 500, (100, 80)),
    used("a", "one", "voice", 61, "2026-11-02 09:00", DE),
    Trade("emea", "apac", "voice", "2026-11", 20),
    Return("apac", "acme", "voice", "2026-11", 5),
    used("b", "one", "voice", 290, "2026-11-03 09:00", US),
    used("c", "one", "voice", 100, "2026-11-04 09:00", US),
    used("d", "two", "voice", 250, "2026-11-05 09:00", US),
    used("e", "2", "messaging", 3, "2026-11-06 09:00", US),
    used("f", "nobody", "voice", 60, "2026-11-06 09:00", DE),
    SuspendUsage("pbx-1", "raw:g", "malformed", "row", "is no CSV", "calls.csv:9", b"sealed g", b"raw:g"),
    MoveResource("r-1", "apac", at("2026-11-07")),
    EndResource("r-2", at("2026-11-08")),
    used("h", "one", "voice", 60, "2026-10-31 23:59", DE),
    SetLimit("sales", "voice", None),
)

DECIDED_AT = at("2026-11-20 12:00")


def play() -> Iterator[list[Event]]:
    """The events of each command; a period that is needed comes before, as the writer opens it."""
    tenant = Tenant()
    for command in COMMANDS:
        try:
            events = tenant.decide(command, DECIDED_AT)
        except PeriodNotOpen as needed:
            opening = tenant.decide(OpenPeriod(needed.period), DECIDED_AT)
            yield _apply(tenant, opening)
            events = tenant.decide(command, DECIDED_AT)
        yield _apply(tenant, events)


def _apply(tenant: Tenant, events: list[Event]) -> list[Event]:
    for event in events:
        tenant.apply(event)
    return events
