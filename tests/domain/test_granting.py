"""Granting while a period runs: top-ups, changed grants, and an allowance in money."""

from fractions import Fraction

import pytest

from allotment.domain.bucket import Allocate, Granted, Return, Trade, Transferred
from allotment.domain.contract import ContractSigned, Grant, PeriodOpened, SignContract
from allotment.domain.granting import ChangeGrants, GrantChanged, ToppedUp, TopUp
from allotment.domain.limit import SetLimit
from allotment.domain.session import ReleaseSession, Report, ReserveUnits
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.terms import QUANTITY_MAX, RollOverRule, Terms
from allotment.domain.usage import UsageRecord
from allotment.domain.usage_type import DefineUsageType, UsageTypeDefined

MONTH = "2026-11"
US = "+12125550100"


def changed(before, after, share=(1, 1), change=None, usage_type="voice", version=2):
    change = after - before if change is None else change
    return GrantChanged("acme", usage_type, MONTH, "frame", version, before, after, share, change, "")


# --- top-ups ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (TopUp("voice", 500, "", "fair"), [ToppedUp("acme", "voice", MONTH, 500, "fair")]),
        (TopUp("voice", 500, MONTH), [ToppedUp("acme", "voice", MONTH, 500)]),
        (TopUp("money", 5_000_000), [ToppedUp("acme", "money", MONTH, 5_000_000)]),
        (TopUp("video", 1), [ToppedUp("acme", "video", MONTH, 1)]),
        (TopUp("voice", 0), "not_positive"),
        (TopUp("voice", -5), "not_positive"),
        (TopUp("voice", QUANTITY_MAX), "quantity_out_of_range"),
        (TopUp("fax", 1), "unknown_usage_type"),
        (TopUp("voice", 1, "2025-12"), "no_contract"),
        (TopUp("voice", 1, "soon"), "not_a_period"),
        (TopUp("voice", 1, "", "a\nb"), "bad_text"),
    ],
)
def test_topping_up(acme, command, outcome):
    assert acme.ask(command) == outcome


def test_a_top_up_counts_at_once_and_for_its_period_only(acme):
    acme.use(1000, counterpart=US)
    assert acme.use(10, counterpart=US)[0].overage == 10
    acme.do(TopUp("voice", 15))
    assert [acme.use(10, counterpart=US)[0].overage for _ in range(2)] == [0, 5]


def test_a_period_that_is_over_takes_no_top_up(acme, at):
    assert acme.ask(TopUp("voice", 1, MONTH), at("2026-12-01 00:00") - 1) != "period_over"
    assert acme.ask(TopUp("voice", 1, MONTH), at("2026-12-01 00:00")) == "period_over"


# --- changes ---------------------------------------------------------------------------------


def test_a_grant_goes_up_at_once_and_in_later_periods(acme):
    signed, change = acme.do(ChangeGrants("frame", (Grant("voice", 1500),)))
    assert signed.grants == (Grant("voice", 1500), Grant("data", 10_000))
    assert (signed.version, signed.starts_on) == (2, "2026-11-15")
    assert change == changed(1000, 1500)
    assert acme.family().granted_total == 1500
    acme.do(SetLimit("acme", "voice", 5, (), "2026-12"))
    assert acme.family(period="2026-12").granted_total == 1500


def test_for_what_is_left_of_the_period_only_if_wanted(acme, now):
    period = acme.tenant.contracts.periods[MONTH]
    _, change = acme.do(ChangeGrants("frame", (Grant("voice", 2001),), prorate=True))
    share = Fraction(period.ends_at - now, period.ends_at - period.starts_at)
    assert Fraction(*change.share) == share
    assert change.change == int(1001 * share)


def test_a_grant_goes_down_by_what_nobody_uses_or_holds(acme):
    acme.use(300, counterpart=US)
    acme.do(Allocate("acme", "emea", "voice", MONTH, 200))
    record = UsageRecord("net", "s", "r-2", "voice", 100, acme_now(acme), "outbound", US)
    acme.do(ReserveUnits(record, 1, b"r-2", b""))
    code, facts = acme.refusal(ChangeGrants("frame", (Grant("voice", 599),)))
    assert (code, facts["available"], facts["reserved"], facts["node"]) == (
        "insufficient_allowance",
        400,
        100,
        "acme",
    )
    acme.do(ChangeGrants("frame", (Grant("voice", 600),)))
    assert (acme.family().available(0), acme.family().granted_total) == (0, 600)


def acme_now(acme):
    return acme.tenant.contracts.periods[MONTH].starts_at + 1


@pytest.mark.parametrize(
    ("history", "command", "outcome"),
    [
        ([], ChangeGrants("frame", (Grant("voice", 1000),)), "nothing_changed"),
        ([], ChangeGrants("frame", ()), "nothing_changed"),
        ([], ChangeGrants("none", (Grant("voice", 1),)), "unknown_contract"),
        ([], ChangeGrants("frame", (Grant("voice", -1),)), "quantity_out_of_range"),
        ([], ChangeGrants("frame", (Grant("fax", 1),)), "unknown_usage_type"),
        ([], ChangeGrants("frame", (Grant("voice", 1), Grant("voice", 2))), "granted_twice"),
        ([], ChangeGrants("frame", (Grant("voice", 1),), False, "\n"), "bad_text"),
        (
            [ContractSigned("next", 1, "2027-01-01", (), True)],
            ChangeGrants("next", (Grant("voice", 1),)),
            "not_in_force",
        ),
    ],
)
def test_what_cannot_be_changed(company, history, command, outcome):
    assert company(*history).ask(command) == outcome


def test_a_second_change_goes_on_from_the_first(acme):
    acme.do(ChangeGrants("frame", (Grant("voice", 1500),)))
    assert acme.do(ChangeGrants("frame", (Grant("voice", 1400),)))[1:] == [changed(1500, 1400, version=3)]
    assert acme.family().granted_total == 1400
    assert acme.do(ChangeGrants("frame", (Grant("video", 60),)))[1:] == [
        changed(0, 60, usage_type="video", version=4)
    ]


def test_a_change_keeps_the_other_terms(acme):
    terms = Terms(ends_on="2027-12-31", rollover=(RollOverRule("voice"),))
    acme.do(SignContract("frame", "2026-01-01", (Grant("voice", 1000),), False, terms))
    signed = acme.do(ChangeGrants("frame", (Grant("voice", 1100),)))[0]
    assert (signed.terms, signed.overage) == (terms, False)


def test_what_was_rolled_over_is_taken_back_last(acme, at):
    acme.do(
        SignContract(
            "frame", "2026-12-01", (Grant("voice", 100),), True, Terms(rollover=(RollOverRule("voice"),))
        )
    )
    acme.use(1, "messaging", at=at("2026-12-02 12:00"), now=at("2026-12-02 12:00"))
    for command in [*acme.tenant.due(at("2027-01-01 00:00"))]:
        acme.do(command, at("2027-01-01 00:00"))
    january = acme.family(period="2027-01")
    assert (january.rolled, january.remaining[0]) == ({0: {1: 100}}, 200)
    acme.use(150, at=at("2027-01-02 12:00"), now=at("2027-01-02 12:00"), counterpart=US)
    acme.do(ChangeGrants("frame", (Grant("voice", 60),)), at("2027-01-03 12:00"))
    assert (january.rolled, january.remaining[0], january.granted_total) == ({}, 10, 160)


# --- money -----------------------------------------------------------------------------------


def with_money(company, quantity=1_000_000, *moves):
    return company(Granted("acme", "money", MONTH, quantity), *moves)


def test_money_buckets_pay_a_charge_narrowest_first_before_it_becomes_payable(company):
    acme = with_money(company, 1_000_000, Transferred("acme", "sales", "money", MONTH, 30_000, "allocate"))
    (charged,) = acme.use(1, "messaging")
    assert (charged.amount, charged.credit, charged.payable) == (50_000, ((2, 30_000), (0, 20_000)), 0)
    assert acme.family("money").consumed_total == 50_000


def test_what_the_money_does_not_cover_is_payable(company):
    acme = with_money(company, 70_000)
    told = [acme.use(1, "messaging")[0] for _ in range(3)]
    assert [(one.credit, one.payable) for one in told] == [
        (((0, 50_000),), 0),
        (((0, 20_000),), 30_000),
        ((), 50_000),
    ]


def test_a_limit_on_money_counts_the_whole_amount(company):
    acme = with_money(company)
    acme.do(SetLimit("acme", "money", 60_000, (50,)))
    charged, crossed = acme.use(1, "messaging")
    assert (charged.payable, crossed.percent) == (0, 50)
    assert acme.use(1, "messaging")[0].topic == "usage.rejected"


def test_a_charge_that_money_may_pay_is_not_plain(company, now):
    record = UsageRecord("src", "one", "r-1", "messaging", 1, now)
    assert company().tenant.plain.charge(record, b"r-1", b"", now) is not None
    acme = with_money(company)
    assert acme.tenant.plain.charge(record, b"r-1", b"", now) is None
    assert acme.family("messaging").used[0] == 0
    covered = UsageRecord("src", "two", "r-1", "voice", 60, now, "outbound", US)
    assert acme.tenant.plain.charge(covered, b"r-1", b"", now) is not None


def test_a_session_is_paid_from_the_money_that_is_there_at_its_end(company, now):
    acme = with_money(company, 10_000)
    record = UsageRecord("net", "s", "r-1", "messaging", 2, now)
    acme.do(ReserveUnits(record, 1, b"r-1", b""))
    charged = acme.do(ReleaseSession("net", "s", 2, Report(2)))[1]
    assert (charged.amount, charged.credit) == (100_000, ((0, 10_000),))


def test_money_moves_between_nodes_like_anything_else(company):
    acme = with_money(company, 100)
    acme.do(Allocate("acme", "emea", "money", MONTH, 60))
    acme.do(Trade("emea", "apac", "money", MONTH, 20))
    acme.do(Return("emea", "acme", "money", MONTH, 40))
    assert acme.family("money").remaining[:4] == [80, 0, 0, 20]
    assert acme.ask(Trade("emea", "apac", "money", MONTH, 1)) == "insufficient_allowance"


# --- usage types -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (DefineUsageType("iot_event", "message", "n"), [UsageTypeDefined("iot_event", "message", "n")]),
        (DefineUsageType("voice", "second"), "usage_type_exists"),
        (DefineUsageType("money", "euro"), "usage_type_exists"),
        (DefineUsageType("IoT", "message"), "bad_usage_type"),
        (DefineUsageType("", "message"), "bad_usage_type"),
        (DefineUsageType("a" * 33, "message"), "bad_usage_type"),
        (DefineUsageType("iot", ""), "bad_text"),
        (DefineUsageType("iot", "x", "\n"), "bad_text"),
    ],
)
def test_defining_a_usage_type(acme, command, outcome):
    assert acme.ask(command) == outcome


def test_what_the_carrier_defines_is_granted_rated_limited_and_charged(acme, at):
    (waits,) = acme.use(5, "iot")
    assert (waits.reason, waits.field) == ("unknown_usage_type", "usage_type")
    acme.do(DefineUsageType("iot", "message"))
    assert acme.ask(DefineUsageType("iot", "message")) == "usage_type_exists"
    assert acme.use(5, "iot")[0].reason == "no_rate"
    acme.do(PublishTariff("more", 1, "EUR", (Rate("iot", "any", "0.01"),)))
    acme.do(ChangeGrants("frame", (Grant("iot", 10),)))
    acme.do(SetLimit("sales", "iot", 12, ()))
    acme.do(Allocate("acme", "emea", "iot", MONTH, 3))
    assert acme.use(5, "iot")[0].drawn == ((1, 3), (0, 2))
    assert acme.use(6, "iot")[0].overage == 1
    assert acme.use(2, "iot")[0].topic == "usage.rejected"
    record = UsageRecord("net", "s", "r-2", "iot", 0, acme_now(acme))
    assert acme.do(ReserveUnits(record, 1, b"r-2", b""))[0].granted
    assert isinstance(acme.tenant.contracts.periods[MONTH], PeriodOpened)


def test_a_session_of_a_type_that_nobody_defined_is_refused(acme, now):
    record = UsageRecord("net", "s", "r-2", "iot", 0, now)
    assert acme.ask(ReserveUnits(record, 1, b"r-2", b"")) == "unknown_usage_type"
