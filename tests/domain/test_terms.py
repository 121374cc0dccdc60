"""What is agreed besides the grants: calendars that change, ends, renewals, shares, own prices."""

from fractions import Fraction
from itertools import pairwise

import msgspec
import pytest
from msgspec.structs import replace

from allotment.domain.bucket import Allocate, Granted
from allotment.domain.calendar import Calendar
from allotment.domain.contract import (
    ContractEnded,
    ContractRenewed,
    ContractSigned,
    EndContract,
    Grant,
    OpenPeriod,
    PeriodOpened,
    RenewContract,
    SignContract,
    first_form,
)
from allotment.domain.limit import SetLimit
from allotment.domain.terms import OveragePrice, RollOverRule, Terms

VOICE = (Grant("voice", 1000),)
DAY = 86_400_000_000
BILLING_15 = Terms(calendar=Calendar("billing_day", 15))
WEEKLY = Terms(calendar=Calendar("weekly", 1))
US = "+12125550100"


def under(told, acme, *signed):
    """Acme with these contracts in place of its own, and no period open."""
    dropped = (ContractSigned, PeriodOpened, Granted)
    return told(*[event for event in acme.history if not isinstance(event, dropped)]).tell(*signed)


def signed(starts_on, terms=None, *, contract="frame", version=1, grants=VOICE, overage=True):
    return ContractSigned(contract, version, starts_on, grants, overage, terms)


def opened(company, moment, now=None):
    """The period that usage at a moment opens, and its bounds as dates in Berlin."""
    before = set(company.tenant.contracts.periods)
    company.use(60, at=moment, counterpart=US, now=now or moment)
    new = [one for name, one in company.tenant.contracts.periods.items() if name not in before]
    return new[0] if new else company.tenant.contracts.period_at(moment)


def bounds(period, at, first, last):
    return (period.starts_at, period.ends_at) == (at(f"{first} 00:00"), at(f"{last} 00:00"))


# --- periods ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("starts_on", "terms", "moment", "name", "first", "last"),
    [
        ("2026-01-01", None, "2026-11-20", "2026-11", "2026-11-01", "2026-12-01"),
        ("2026-01-15", BILLING_15, "2026-11-14", "2026-10-15", "2026-10-15", "2026-11-15"),
        ("2026-01-15", BILLING_15, "2026-11-15", "2026-11-15", "2026-11-15", "2026-12-15"),
        ("2026-01-01", WEEKLY, "2026-11-15", "2026-11-09", "2026-11-09", "2026-11-16"),
        # A first period that is cut short begins with the contract, and is named by that day.
        ("2026-11-20", BILLING_15, "2026-11-25", "2026-11-20", "2026-11-20", "2026-12-15"),
        ("2026-11-11", WEEKLY, "2026-11-15", "2026-11-11", "2026-11-11", "2026-11-16"),
        # The first calendar month is shown whole.
        ("2026-11-11", None, "2026-11-15", "2026-11", "2026-11-01", "2026-12-01"),
        # A last one ends with the contract.
        (
            "2026-01-01",
            Terms(ends_on="2026-11-20"),
            "2026-11-15",
            "2026-11",
            "2026-11-01",
            "2026-11-21",
        ),
    ],
)
def test_a_period_is_a_stretch_of_the_contracts_calendar(
    told, acme, at, starts_on, terms, moment, name, first, last
):
    company = under(told, acme, signed(starts_on, terms))
    period = opened(company, at(f"{moment} 12:00"))
    assert (period.period, bounds(period, at, first, last)) == (name, True)


def test_a_new_calendar_begins_where_the_open_periods_end(acme, at):
    acme.do(SignContract("frame", "2026-11-16", VOICE, True, WEEKLY))
    assert opened(acme, at("2026-11-25 12:00")).period == "2026-11"
    first = opened(acme, at("2026-12-03 12:00"))
    assert (first.period, bounds(first, at, "2026-12-01", "2026-12-07")) == ("2026-12-01", True)
    second = opened(acme, at("2026-12-07 00:00"))
    assert (second.period, bounds(second, at, "2026-12-07", "2026-12-14")) == ("2026-12-07", True)


def test_a_new_calendar_begins_at_its_own_start_if_that_is_later(acme, at):
    acme.do(SignContract("frame", "2026-12-15", VOICE, True, BILLING_15))
    before = opened(acme, at("2026-12-03 12:00"))
    assert (before.period, bounds(before, at, "2026-12-01", "2026-12-15")) == ("2026-12", True)
    after = opened(acme, at("2026-12-15 00:00"))
    assert (after.period, bounds(after, at, "2026-12-15", "2027-01-15")) == ("2026-12-15", True)


def test_the_bounds_of_an_open_period_never_change(acme, at):
    before = acme.tenant.contracts.periods["2026-11"]
    acme.do(SignContract("frame", "2026-11-01", VOICE, True, WEEKLY))
    acme.do(EndContract("frame", "2026-11-20"))
    assert acme.tenant.contracts.periods == {"2026-11": before}


def test_a_period_beside_one_that_is_open_ends_where_that_begins(told, acme, at):
    company = under(told, acme, signed("2026-01-01", WEEKLY))
    assert opened(company, at("2026-11-17 12:00")).period == "2026-11-16"
    company.do(SignContract("frame", "2026-11-01", VOICE))
    early = opened(company, at("2026-11-03 12:00"))
    assert (early.period, bounds(early, at, "2026-11-01", "2026-11-16")) == ("2026-11", True)
    late = opened(company, at("2026-11-28 12:00"))
    assert (late.period, bounds(late, at, "2026-11-23", "2026-12-01")) == ("2026-11-23", True)


def test_names_sort_as_their_periods_start_whatever_calendars_follow_each_other(told, acme, at):
    company = under(told, acme, signed("2026-01-01"))
    for starts_on, terms in (
        ("2026-02-10", WEEKLY),
        ("2026-03-31", Terms(calendar=Calendar("billing_day", 31))),
        ("2026-06-05", Terms(calendar=Calendar("days", 10, ("2026-06-01",)))),
        ("2026-08-01", None),
        ("2026-10-01", Terms(calendar=Calendar("dates", 0, ("2026-10-01", "2026-10-20", "2026-12-24")))),
    ):
        company.do(SignContract("frame", starts_on, VOICE, True, terms))
    moment, seen = at("2026-01-15 12:00"), []
    while moment < at("2026-12-20 12:00"):
        seen.append(opened(company, moment))
        moment += DAY
    names = [period.period for period in seen]
    assert names == sorted(names)
    known = sorted(company.tenant.contracts.periods.values(), key=lambda one: one.starts_at)
    assert [one.period for one in known] == sorted(company.tenant.contracts.periods)
    assert all(one.ends_at == other.starts_at for one, other in pairwise(known))


def test_a_limit_from_a_period_on_holds_in_later_ones_of_another_calendar(acme, at):
    acme.do(SetLimit("acme", "voice", 100, (), "2026-11"))
    acme.do(SignContract("frame", "2026-11-15", VOICE, True, BILLING_15))
    told = acme.use(101, at=at("2026-12-02 12:00"), counterpart=US, now=at("2026-12-02 12:00"))
    assert told[-1].topic == "usage.rejected"


@pytest.mark.parametrize("period", ["2026-11-15", "2026-11-01", "2026-11-31", "2026-11-1"])
def test_a_period_goes_by_the_name_of_its_calendar(acme, period):
    assert acme.ask(OpenPeriod(period)) == "not_a_period"
    assert acme.ask(Allocate("acme", "emea", "voice", period, 1)) == "not_a_period"


def test_a_period_of_another_calendar_can_be_named_before_it_is_open(told, acme):
    company = under(told, acme, signed("2026-01-15", BILLING_15))
    assert company.ask(Allocate("acme", "emea", "voice", "2026-11", 1)) == "not_a_period"
    code, facts = company.refusal(OpenPeriod("2026-11-16"))
    assert (code, facts["example"]) == ("not_a_period", "2026-11-15")
    assert company.do(Allocate("acme", "emea", "voice", "2026-11-15", 1))[0].period == "2026-11-15"


# --- shares ----------------------------------------------------------------------------------


def test_a_first_period_that_is_cut_short_gets_its_share_rounded_down(told, acme, at):
    terms = replace(BILLING_15, prorate=True, commitment=10_000_000)
    company = under(told, acme, signed("2026-11-20", terms))
    period = opened(company, at("2026-11-25 12:00"), at("2026-11-25 12:00"))
    assert (period.share, period.commitment) == ((5, 6), 8_333_333)
    granted = next(event for event in company.history if isinstance(event, Granted))
    assert (granted.quantity, granted.whole, granted.share) == (833, 1000, (5, 6))
    assert granted.quantity == int(granted.whole * Fraction(*granted.share))


def test_a_share_is_exact_across_a_change_of_the_clocks(told, acme, at):
    company = under(told, acme, signed("2026-10-16", Terms(prorate=True)))
    period = opened(company, at("2026-10-25 12:00"))
    assert Fraction(*period.share) == Fraction(16 * 24 + 1, 31 * 24 + 1)


def test_without_proration_a_short_period_gets_all(told, acme, at):
    company = under(told, acme, signed("2026-11-20", BILLING_15))
    opened(company, at("2026-11-25 12:00"))
    granted = next(event for event in company.history if isinstance(event, Granted))
    assert granted == Granted("acme", "voice", "2026-11-20", 1000)


def test_a_last_period_gets_its_share(told, acme, at):
    company = under(told, acme, signed("2026-01-01", Terms(ends_on="2026-11-15", prorate=True)))
    assert opened(company, at("2026-11-10 12:00")).share == (1, 2)


# --- end and renewal -------------------------------------------------------------------------


def test_usage_after_the_end_waits_and_is_charged_once_the_contract_is_renewed(acme, at):
    assert acme.do(EndContract("frame", "2026-11-20", "moved away")) == [
        ContractEnded("frame", "2026-11-20", "moved away")
    ]
    last, after = at("2026-11-20 23:59"), at("2026-11-21 00:00")
    assert acme.use(60, at=last, now=last)[0].topic == "usage.charged"
    (waits,) = acme.use(60, at=after, now=after)
    assert (waits.topic, waits.reason) == ("usage.suspended", "no_contract")
    acme.do(RenewContract("frame", "2027-11-20"))
    assert acme.use(60, at=after, now=after)[0].topic == "usage.charged"


def test_what_is_plain_stops_being_charged_at_the_end_as_well(acme, at):
    acme.do(EndContract("frame", "2026-11-20"))
    acme.use(60, at=at("2026-11-20 12:00"), now=at("2026-11-21 00:00"))
    window = acme.tenant.plain._window_at(at("2026-11-20 12:00"))
    assert window.ends_at == at("2026-11-21 00:00")
    assert acme.tenant.plain._window_at(at("2026-11-21 00:00")) is None


@pytest.mark.parametrize(
    ("history", "command", "outcome"),
    [
        ([], EndContract("none", "2026-12-31"), "unknown_contract"),
        ([], EndContract("frame", "2025-12-31"), "ends_before_start"),
        ([], EndContract("frame", "2026-11-14"), "ends_in_the_past"),
        ([], EndContract("frame", "2026-11-15"), [ContractEnded("frame", "2026-11-15")]),
        ([], EndContract("frame", "2026-11-31"), "not_a_date"),
        ([], EndContract("frame", "2026-12-31", "a\nb"), "bad_text"),
        ([ContractEnded("frame", "2026-12-31")], EndContract("frame", "2027-01-01"), "ends_already"),
        (
            [ContractEnded("frame", "2026-12-31")],
            EndContract("frame", "2026-12-30"),
            [ContractEnded("frame", "2026-12-30")],
        ),
        ([], RenewContract("none"), "unknown_contract"),
        ([], RenewContract("frame", "2027-12-31"), "no_end"),
        ([ContractEnded("frame", "2026-12-31")], RenewContract("frame", "2026-12-31"), "not_longer"),
        ([ContractEnded("frame", "2026-12-31")], RenewContract("frame", "later"), "not_a_date"),
        (
            [ContractEnded("frame", "2026-12-31")],
            RenewContract("frame", "", "for good"),
            [ContractRenewed("frame", "", "for good")],
        ),
        # One contract takes over from another; one that ends lies across no other.
        ([], SignContract("next", "2027-01-01", VOICE), [signed("2027-01-01", contract="next")]),
        (
            [],
            SignContract("next", "2027-01-01", VOICE, True, Terms(ends_on="2027-02-01")),
            "contracts_overlap",
        ),
        (
            [ContractEnded("frame", "2026-12-31")],
            SignContract("next", "2026-12-31", VOICE),
            "contracts_overlap",
        ),
        (
            [ContractEnded("frame", "2026-12-31")],
            SignContract("next", "2027-01-01", VOICE),
            [signed("2027-01-01", contract="next")],
        ),
        (
            [ContractEnded("frame", "2026-12-31"), signed("2027-06-01", contract="next")],
            RenewContract("frame", "2027-06-01"),
            "contracts_overlap",
        ),
        (
            [ContractEnded("frame", "2026-12-31"), signed("2027-06-01", contract="next")],
            RenewContract("frame", "2027-05-31"),
            [ContractRenewed("frame", "2027-05-31")],
        ),
    ],
)
def test_ending_renewing_and_following(company, history, command, outcome):
    assert company(*history).ask(command) == outcome


def test_a_contract_renews_itself_a_day_before_it_ends_unless_it_was_ended(told, acme, at):
    company = under(told, acme, signed("2026-01-01", Terms(ends_on="2026-12-31", renews_months=12)))
    due_at = at("2026-12-31 00:00")
    assert company.tenant.contracts.next_due() == due_at
    assert company.tenant.contracts.due(due_at - 1) == []
    (renewal,) = company.tenant.contracts.due(due_at)
    assert company.do(renewal, due_at) == [ContractRenewed("frame", "2027-12-31", "by its terms")]
    assert company.tenant.contracts.due(due_at) == []
    company.do(EndContract("frame", "2027-12-31"), due_at)
    assert company.tenant.contracts.next_due() is None


def test_a_contract_that_another_has_followed_does_not_renew_itself(told, acme, at):
    terms = Terms(ends_on="2026-12-31", renews_months=12)
    company = under(told, acme, signed("2026-01-01", terms), signed("2027-01-01", contract="next"))
    assert company.tenant.contracts.due(at("2027-01-01 00:00")) == []


# --- what no terms may be --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "code", "field"),
    [
        (Terms(ends_on="2025-12-31"), "ends_before_start", None),
        (Terms(ends_on="2026-13-01"), "not_a_date", None),
        (Terms(renews_months=12), "bad_terms", "renews_months"),
        (Terms(ends_on="2026-12-31", renews_months=-1), "bad_terms", "renews_months"),
        (Terms(settle_after_hours=-1), "bad_terms", "settle_after_hours"),
        (Terms(settle_after_hours=745), "bad_terms", "settle_after_hours"),
        (Terms(commitment=-1), "bad_terms", "commitment"),
        (Terms(rollover=(RollOverRule("data"),)), "bad_terms", "rollover.usage_type"),
        (Terms(rollover=(RollOverRule("voice"), RollOverRule("voice"))), "bad_terms", "rollover"),
        (Terms(rollover=(RollOverRule("voice", 0),)), "bad_terms", "rollover.cycles"),
        (Terms(rollover=(RollOverRule("voice", 121),)), "bad_terms", "rollover.cycles"),
        (Terms(rollover=(RollOverRule("voice", 1, -1),)), "bad_terms", "rollover.quantity"),
        (Terms(rollover=(RollOverRule("voice", 1, None, 101),)), "bad_terms", "rollover.percent"),
        (Terms(rollover=(RollOverRule("voice", 1, None, -1),)), "bad_terms", "rollover.percent"),
        (Terms(rollover=(RollOverRule("voice", 1, 5, 5),)), "bad_terms", "rollover.percent"),
        (Terms(overage_prices=(OveragePrice("money", "1"),)), "bad_terms", "overage_prices.usage_type"),
        (Terms(overage_prices=(OveragePrice("voice", "-1"),)), "bad_terms", "overage_prices.price"),
        (Terms(overage_prices=(OveragePrice("voice", "1", 0),)), "bad_terms", "overage_prices.per"),
        (Terms(overage_prices=(OveragePrice("fax", "1"),)), "unknown_usage_type", None),
        (Terms(calendar=Calendar("billing_day", 32)), "bad_calendar", "number"),
    ],
)
def test_terms_that_cannot_be_agreed_are_refused(acme, terms, code, field):
    told, facts = acme.refusal(SignContract("frame", "2026-01-01", VOICE, True, terms))
    assert (told, facts.get("field")) == (code, field)


def test_the_usual_terms_are_none_at_all(acme):
    assert acme.ask(SignContract("frame", "2026-01-01", VOICE, True, Terms())) == [
        signed("2026-01-01", version=2)
    ]


# --- the contract's own prices -----------------------------------------------------------------


def test_overage_costs_what_the_contract_says_in_periods_opened_under_it(told, acme, at):
    terms = Terms(overage_prices=(OveragePrice("voice", "0.30", 60),))
    company = under(told, acme, signed("2026-01-01", terms))
    (charged, *_) = company.use(1090, counterpart="+4930123456", at=at("2026-11-10 12:00"))
    # 1090 seconds are billed as 1140, in steps of the tariff's minute; 140 are beyond the allowance.
    assert (charged.billed, charged.overage, charged.amount) == (1140, 140, 700_000)
    assert company.tenant.plain._window_at(at("2026-11-10 12:00")).lanes.keys().isdisjoint({"voiceoutbound"})
    assert "dataoutbound" in company.tenant.plain._window_at(at("2026-11-10 12:00")).lanes


def test_what_the_allowance_never_covers_costs_what_the_tariff_says(told, acme, at):
    terms = Terms(overage_prices=(OveragePrice("messaging", "9"),))
    company = under(told, acme, signed("2026-01-01", terms))
    (charged,) = company.use(2, "messaging", at=at("2026-11-10 12:00"))
    assert charged.amount == 100_000


def test_what_was_asked_for_before_leftovers_could_expire_is_the_same_request_still():
    asked = SignContract("frame", "2026-01-01", (), True, Terms(commitment=5), "why")
    # Ten terms, as keys and digests of then have them.
    assert len(msgspec.json.decode(msgspec.json.encode(first_form(asked)))[4]) == 10
    later = SignContract("frame", "2026-01-01", (), True, Terms(commitment=5, expires=True), "why")
    assert first_form(later) is later
