"""The tenant as a whole: opening it, and what holds for every command and event."""

import pytest

from allotment.domain.bucket import Allocate
from allotment.domain.charging import ChargeUsage, SuspendUsage
from allotment.domain.contract import OpenPeriod, SignContract
from allotment.domain.hierarchy import AddNode
from allotment.domain.limit import SetLimit
from allotment.domain.refusals import TEXT_MAX, InvariantBroken, Refused, check_text
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.tenant import OpenTenant, Tenant, TenantOpened
from allotment.domain.usage import UsageRecord

OPENED = TenantOpened("Acme", "Europe/Berlin", "EUR", "carrier")


@pytest.mark.parametrize(
    ("history", "command", "outcome"),
    [
        ([OPENED], OpenTenant("Acme", "UTC", "EUR", ""), "tenant_open_already"),
        ([], OpenTenant("", "UTC", "EUR", ""), "bad_text"),
        ([], OpenTenant("Acme", "UTC", "EUR", "\n"), "bad_text"),
        ([], OpenTenant("Acme", "Mars/Olympus", "EUR", ""), "unknown_time_zone"),
        ([], OpenTenant("Acme", "", "EUR", ""), "unknown_time_zone"),
        ([], OpenTenant("Acme", "../UTC", "EUR", ""), "unknown_time_zone"),
        ([], OpenTenant("Acme", "/etc/localtime", "EUR", ""), "unknown_time_zone"),
        ([], OpenTenant("Acme", "UTC\x00", "EUR", ""), "unknown_time_zone"),
        ([], OpenTenant("Acme", "UTC", "eur", ""), "unknown_currency"),
        ([], OpenTenant("Acme", "UTC", "EURO", ""), "unknown_currency"),
        ([], OpenTenant("Acme", "UTC", "E1R", ""), "unknown_currency"),
        ([], OpenTenant("Acme", "UTC", "", ""), "unknown_currency"),
        ([], OpenTenant("", "Mars/Olympus", "eur", "\n"), "bad_text"),
        ([], OpenTenant("Acme", "Mars/Olympus", "eur", ""), "unknown_time_zone"),
        ([], OpenTenant("Acme", "UTC", "EUR", ""), [TenantOpened("Acme", "UTC", "EUR", "")]),
        ([], OpenTenant("Acme", "Europe/Berlin", "EUR", "carrier"), [OPENED]),
    ],
)
def test_opening_a_tenant(told, history, command, outcome):
    assert told(*history).ask(command) == outcome


@pytest.mark.parametrize("zone", ["Europe", "A" * 300])
def test_a_folder_of_time_zones_is_no_time_zone(told, zone):
    assert told().ask(OpenTenant("Acme", zone, "EUR", "")) == "unknown_time_zone"


@pytest.mark.parametrize("currency", ["ÄÖÜ", "ΑΒΓ"])
def test_a_currency_has_three_latin_letters(told, currency):
    assert told().ask(OpenTenant("Acme", "UTC", currency, "")) == "unknown_currency"


@pytest.mark.parametrize(
    "command",
    [
        AddNode("acme", "", "", "enterprise"),
        SetLimit("acme", "voice", 1),
        Allocate("acme", "emea", "voice", "", 1),
        SignContract("c", "2026-01-01", ()),
        OpenPeriod("2026-11"),
        PublishTariff("t", 0, "EUR", (Rate("voice", "z", "1"),)),
        SuspendUsage("s", "1", "malformed", "row", "", "", b"", b""),
        ChargeUsage(UsageRecord("s", "1", "x", "voice", 1, 0), b"x", b""),
    ],
    ids=lambda command: type(command).__name__,
)
def test_nothing_comes_before_the_tenant_is_open(told, command):
    assert told().ask(command) == "tenant_not_open"


def test_a_period_is_not_opened_before_there_is_an_enterprise_to_grant_to(told):
    company = told(OPENED)
    company.do(SignContract("c", "2026-01-01", ()))
    assert company.ask(OpenPeriod("2026-11")) == "no_hierarchy"


def test_a_running_period_needs_no_name(acme):
    acme.do(SetLimit("emea", "voice", 5))
    (moved,) = acme.do(Allocate("acme", "emea", "voice", "", 5))
    assert moved.period == "2026-11"
    assert acme.tenant.limits.of(1, "voice", "2026-11").from_period == "2026-11"


def test_the_running_period_is_that_of_the_tenants_own_clock(acme, at):
    new_year = at("2027-01-01 00:00")
    (moved,) = acme.do(Allocate("acme", "emea", "voice", "", 5), now=new_year - 1)
    assert moved.period == "2026-12"
    (moved,) = acme.do(Allocate("acme", "emea", "voice", "", 5), now=new_year)
    assert moved.period == "2027-01"


def test_verification_finds_money_that_the_root_has_not_counted(acme):
    acme.use(2000)
    acme.tenant.charging.amount_total += 1
    with pytest.raises(InvariantBroken, match="root has counted"):
        acme.tenant.check_whole()


def test_an_empty_tenant_is_whole():
    Tenant().check_whole()


@pytest.mark.parametrize(
    ("text", "empty", "refused"),
    [
        ("", False, True),
        ("", True, False),
        ("x" * TEXT_MAX, False, False),
        ("x" * (TEXT_MAX + 1), False, True),
        ("Zürich – 東京", False, False),
        ("a\tb", True, True),
        ("a\x00b", True, True),
        ("\ud800", True, True),
        ("\u202egnp.exe", True, True),
        ("\u00a0", True, True),
    ],
)
def test_text_can_be_printed_on_a_bill(text, empty, refused):
    if not refused:
        check_text("name", text, empty=empty)
        return
    with pytest.raises(Refused, match="bad_text") as told:
        check_text("name", text, empty=empty)
    assert told.value.facts["field"] == "name"


def test_a_refusal_reads_as_a_sentence_for_the_log():
    assert str(Refused("same_node", node="emea")) == "same_node: node=emea"
    assert str(Refused("tenant_not_open")) == "tenant_not_open"
