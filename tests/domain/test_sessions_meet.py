"""Where sessions meet policies, plans and own rates: the seams of what is tested apart.

Voice costs by a plan: 100 seconds at 0.10, then 1.00 and 200 at 0.05, then 0.01 each. To "+1" the
customer has agreed on 0.02, in no plan. EMEA has a soft limit: a policy throttles at a part of it, and
blocks at its end.
"""

from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allotment.domain.charging import ChargeUsage, UsageCharged, rated_again
from allotment.domain.limit import SetAnyLimit, SetLimit
from allotment.domain.policy import SetPolicy, Step
from allotment.domain.rating.overriding import OverrideRates, Overrides
from allotment.domain.rating.plan import PricePlan, Tier
from allotment.domain.session import ReleaseSession, Report, ReserveUnits, SessionDenied, UpdateSession
from allotment.domain.tariff import Rate, TariffPublished
from allotment.domain.usage import UsageRecord
from allotment.domain.worked import working_of

M = 1_000_000
DE, US = "+4930123456", "+12125550100"
MINUTES = PricePlan("minutes", "graduated", (Tier(100, "0.10"), Tier(300, "0.05", 1, "1"), Tier(0, "0.01")))
PLANNED = TariffPublished(
    *("plans", 2, 0, "EUR", "half_up", 4, (Rate("voice", "any", "0", plan="minutes"),)), plans=(MINUTES,)
)
OWN = Overrides((Rate("voice", "us", "0.02", prefix="+1", included=False),))


def meet(company, now, *, limit=150, throttle=80, block=100, money=None):
    company.tell(PLANNED)
    company.do(OverrideRates(OWN, now - 1, supersede=True))
    company.do(SetAnyLimit("emea", "voice", limit, (), "", "period", "soft"))
    steps = (Step("throttle", throttle, kbps=64), Step("block", block))
    company.do(SetPolicy("p", "emea", "voice", steps, "period"))
    if money is not None:
        company.do(SetLimit("emea", "money", money))
    return company


def opened(company, now, requested, to=DE, session="s"):
    record = UsageRecord("pbx", session, "r-1", "voice", requested, now, "outbound", to)
    return company.do(ReserveUnits(record, 0, b"r-1", b""), now)[0]


def update(company, now, number, used, requested, session="s"):
    return company.do(UpdateSession("pbx", session, number, Report(used), requested), now)[0]


def release(company, now, used=0, session="s"):
    events = company.do(ReleaseSession("pbx", session, 99, Report(used)), now)
    return next((event for event in events if isinstance(event, UsageCharged)), None)


def test_a_session_goes_slower_and_then_no_further_at_the_price_of_its_plan(bare, now):
    acme = meet(bare, now)
    first = opened(acme, now, 100)
    assert (first.granted, first.ruling, first.held.amount) == (100, None, 10 * M)
    told = update(acme, now, 1, 100, 100)
    assert (told.granted, told.final, told.ruling.action, told.ruling.kbps) == (50, True, "throttle", 64)
    assert told.held.amount == 10 * M + M + 50 * 50_000
    denied = update(acme, now, 2, 50, 10)
    assert isinstance(denied, SessionDenied)
    assert (denied.reason, denied.stopped_by, denied.limit) == ("blocked_by_policy", 1, 150)
    charge = release(acme, now)
    assert (charge.quantity, charge.amount, charge.ruling.action) == (150, 13_500_000, "throttle")
    assert (charge.basis.counted.before, charge.basis.counted.units) == (0, 150)


def test_own_rates_are_throttled_and_blocked_alike_and_count_in_no_plan(bare, now):
    acme = meet(bare, now)
    opened(acme, now, 60)
    release(acme, now, 60)
    own = opened(acme, now, 100, US, "t")
    assert (own.granted, own.final, own.ruling.action, own.held.amount) == (90, True, "throttle", 1_800_000)
    charge = release(acme, now, 90, "t")
    assert (charge.amount, charge.tariff, charge.prefix) == (1_800_000, 3, "+1")
    assert charge.basis is None or charge.basis.counted is None
    assert acme.tenant.plans.counters["minutes", charge.period] == {0: (60, 6 * M)}
    assert opened(acme, now, 1, US, "u").reason == "blocked_by_policy"


def test_two_sessions_are_held_where_the_plan_stands_and_charged_one_after_the_other(bare, now):
    acme = meet(bare, now, limit=400)
    one, other = opened(acme, now, 100), opened(acme, now, 100, session="t")
    assert (one.held.amount, other.held.amount) == (10 * M, 10 * M)
    assert release(acme, now, 100, "t").amount == 10 * M
    # By now it is the second tier that it begins in.
    assert release(acme, now, 100).amount == M + 100 * 50_000


def test_what_a_plan_has_made_dearer_meanwhile_stops_at_the_limit_of_money(bare, now):
    acme = meet(bare, now, limit=400, money=12 * M)
    opened(acme, now, 100)
    own = opened(acme, now, 150, US, "t")
    # 10.00 are held for the plan; of the 2.00 that are left, a hundred seconds, two have a share.
    assert (own.granted, own.held.amount) == (50, M)
    assert release(acme, now, 100, "t").amount == 2 * M
    assert release(acme, now, 100).amount == 10 * M
    assert opened(acme, now, 1, US, "u").reason == "limit_exceeded"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.integers(0, 120),
    reports=st.lists(st.tuples(st.integers(0, 150), st.sampled_from([None, 0, 1, 40, 400])), max_size=6),
    to=st.sampled_from([DE, US]),
    limit=st.integers(1, 500),
    throttle=st.integers(1, 99),
    money=st.sampled_from([None, 1, 3 * M, 12 * M + 1]),
)
def test_however_it_is_reported_it_is_charged_the_same_and_stops_at_the_same(
    bare_company, now, before, reports, to, limit, throttle, money
):
    used = sum(report for report, _ in reports)
    charges = []
    for split in (reports, [(used, None)]):
        acme = meet(bare_company(), now, limit=limit, throttle=throttle, money=money)
        if not isinstance(opened(acme, now, 1, session="before"), SessionDenied):
            release(acme, now, before, "before")
        is_open = not isinstance(opened(acme, now, 1, to), SessionDenied)
        for number, (more, requested) in enumerate(split if is_open else (), 1):
            update(acme, now, number, more, requested)
        charge = release(acme, now) if is_open else None
        charges.append((is_open, charge and (charge.quantity, charge.amount, charge.ruling, charge.basis)))
        acme.tenant.check_whole()
        for event in acme.history:
            if isinstance(event, UsageCharged):
                rate = acme.tenant.tariffs.versions[event.tariff - 1].rate_of(
                    event.rate, event.prefix, event.basis
                )
                assert rated_again(rate, event).amount == event.amount
                assert sum(one.exact for one in working_of(rate, event)) == Fraction(*event.exact)
        if charge is not None:
            assert before_and(charge, acme) <= limit
    assert charges[0] == charges[1]


def before_and(charge, acme):
    """What EMEA has used by then."""
    return acme.family("voice").used[1]


@pytest.mark.parametrize("quantity", [1, 100, 101, 150])
def test_a_record_of_the_same_call_costs_the_same(bare_company, now, quantity):
    amounts = []
    for as_record in (True, False):
        acme = meet(bare_company(), now)
        if as_record:
            record = UsageRecord("pbx", "s", "r-1", "voice", quantity, now, "outbound", DE)
            charge = acme.do(ChargeUsage(record, b"r-1", b""), now)[0]
        else:
            opened(acme, now, quantity)
            charge = release(acme, now, quantity)
        amounts.append((charge.amount, charge.basis, charge.ruling))
    assert amounts[0] == amounts[1]
