"""Terms for sessions, how slices are sized and shared, and pools: who gets how much, and what is told.

Acme has 1,000 seconds of voice; messages cost 5 cents, calls to the world one cent a second.
"""

from collections import Counter
from fractions import Fraction

import pytest
from msgspec.structs import replace

from allotment.domain import canonical, snapshot
from allotment.domain.limit import SetLimit
from allotment.domain.session import ReleaseSession, Report, ReserveUnits, UpdateSession
from allotment.domain.session_request import GroupReport, groups_of, steps_of_release, steps_of_update
from allotment.domain.session_terms import SessionTerms, SetSessionTerms
from allotment.domain.slicing import QUOTAS, Quota, Wish, wish
from allotment.domain.tariff import Rate, TariffPublished
from allotment.domain.usage import UsageRecord

WORLD = "+12125550100"
SECOND = 1_000_000
REDIRECT = SessionTerms("REDIRECT", "https://top-up.example")


def reserve(session, quantity=0, usage_type="voice", at=0, line="r-1", group=1, of=""):
    record = UsageRecord("pbx", session, line, usage_type, quantity, at, "outbound", WORLD)
    return ReserveUnits(record, 0, line.encode(), b"", group, of)


# --- terms -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        (SessionTerms("HANG_UP"), "action"),
        (SessionTerms("REDIRECT"), "address"),
        (SessionTerms("REDIRECT", "top-up.example"), "address"),
        (SessionTerms("TERMINATE", "https://top-up.example"), "address"),
        (SessionTerms("RESTRICT_ACCESS"), "filter_id"),
        (SessionTerms("TERMINATE", "", "f"), "filter_id"),
        (SessionTerms(validity_seconds=601), "validity_seconds"),
        (SessionTerms(threshold_percent=100), "threshold_percent"),
        (SessionTerms(holding_seconds=-1), "holding_seconds"),
        (SessionTerms(usual=-1), "usual"),
        (SessionTerms(usual=5, least=6), "least"),
    ],
)
def test_terms_that_make_no_sense_are_refused_by_their_field(acme, terms, field):
    code, facts = acme.refusal(SetSessionTerms("sales", "voice", terms))
    assert (code, facts["field"], bool(facts["remedy"])) == ("bad_session_terms", field, True)


def test_terms_of_nobody_or_of_no_type_are_refused(acme):
    assert acme.ask(SetSessionTerms("nowhere", "", REDIRECT)) == "unknown_node"
    assert acme.ask(SetSessionTerms("sales", "teleports", REDIRECT)) == "unknown_usage_type"
    assert acme.ask(SetSessionTerms("sales")) == "no_session_terms"


def test_the_nearest_terms_hold_and_of_one_node_those_of_the_type(acme, now):
    acme.do(SetSessionTerms("acme", "", SessionTerms(usual=90)))
    acme.do(SetSessionTerms("sales", "", SessionTerms(usual=80)))
    acme.do(SetSessionTerms("sales", "voice", SessionTerms(usual=70, threshold_percent=10)))
    granted = acme.do(reserve("a", at=now))[0]
    assert (granted.granted, granted.conditions.threshold) == (70, 7)
    assert acme.do(reserve("b", usage_type="messaging", at=now))[0].granted == 80
    assert acme.do(reserve("c", at=now, line="r-2"))[0].granted == 90
    acme.do(SetSessionTerms("sales", "voice"))
    assert acme.do(reserve("d", at=now))[0].granted == 80


def test_what_happens_in_the_end_is_told_with_the_last_slice_and_with_a_denial(acme, now):
    acme.do(SetLimit("sales", "voice", 100))
    acme.do(SetSessionTerms("sales", "", REDIRECT))
    first = acme.do(reserve("a", 60, at=now))[0]
    assert first.conditions is None
    last = acme.do(UpdateSession("pbx", "a", 1, Report(60), 60))[0]
    assert (last.granted, last.final, last.conditions.address) == (40, True, REDIRECT.address)
    denied = acme.do(UpdateSession("pbx", "a", 2, Report(40), 60))[0]
    assert (denied.conditions.action, denied.conditions.address) == ("REDIRECT", REDIRECT.address)


def test_terms_survive_a_snapshot(acme):
    acme.do(SetSessionTerms("sales", "voice", REDIRECT, "why"))
    acme.do(SetSessionTerms("acme", "", SessionTerms(pooled=True)))
    counters = snapshot.encode_counters(snapshot.copy_counters(acme.tenant))
    restored = snapshot.restore(counters, snapshot.encode_structure(acme.tenant))
    assert [*canonical.lines(restored)] == [*canonical.lines(acme.tenant)]
    assert restored.sessions.terms.by_node == acme.tenant.sessions.terms.by_node


# --- slices ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requested", "used", "seconds", "quantity"),
    [
        (7, 0, 0, 7),
        (0, 0, 0, 10_000_000),
        (0, 5_000, 9, 10_000_000),  # too early to know its pace
        (0, 100_000_000, 10, 1_000_000_000),  # a hundred slices at most
        (0, 5_000_000, 10, 60_000_000),  # two minutes at half a megabyte a second
        (0, 1_000, 100, 100_000),  # never less than the least
    ],
)
def test_a_slice_lasts_two_minutes_at_the_pace_of_its_session(requested, used, seconds, quantity):
    assert wish(requested, QUOTAS["data"], used, seconds * SECOND).quantity == quantity


@pytest.mark.parametrize(
    ("left", "sharing", "share"),
    [(0, 3, 0), (5, 3, 5), (80, 1, 10), (960, 4, 120), (960, 10, 48), (50, 1_000, 10)],
)
def test_of_what_is_left_each_gets_a_share(left, sharing, share):
    assert Wish(120, 10, is_choice=True).of(left, sharing) == share
    assert Quota(120, 10) == QUOTAS["voice"]


@pytest.mark.parametrize("calls", [2, 10, 50])
def test_sessions_share_the_last_units_and_none_is_starved(company, now, calls):
    """Each uses its slices up in turn; nobody is denied while others have had much more."""
    acme = company()
    acme.do(SetLimit("acme", "voice", 6_000))
    used, updates, running = Counter[str](), Counter[str](), {}
    for call in range(calls):
        running[f"c{call}"] = acme.do(reserve(f"c{call}", at=now))[0].granted
    at = now
    while running:
        for call, slice_ in [*running.items()]:
            at += slice_ * SECOND // calls
            used[call], updates[call] = used[call] + slice_, updates[call] + 1
            told = acme.tenant.decide(UpdateSession("pbx", call, updates[call], Report(slice_)), at)
            acme.tell(*told)
            running[call] = getattr(told[0], "granted", 0)
            if not running[call]:
                del running[call]
    assert sum(used.values()) == 6_000
    fair = 6_000 // calls
    assert min(used.values()) >= fair * 2 // 5, used
    assert max(used.values()) <= 2 * fair, used
    # Measured: 68 updates of 2 calls, 238 of 50. Slices of the least would take 600 of them.
    assert sum(updates.values()) <= 70 + 5 * calls, updates
    acme.tenant.check_whole()


# --- pools -----------------------------------------------------------------------------------

BY_UNIT = TariffPublished(
    "by the unit",
    2,
    0,
    "EUR",
    "half_up",
    6,
    (
        Rate("voice", "world", "0.07", per=3, prefix="+", included=False),
        Rate("messaging", "any", "0.05", included=False),
        Rate("data", "any", "0.01", per=1000, included=False, increment=1000),
    ),
)


def pooled(company):
    acme = company(BY_UNIT)
    acme.do(SetSessionTerms("acme", "", SessionTerms(pooled=True)))
    return acme


def asked(acme, steps):
    return [acme.do(step)[0] for step in steps]


def test_each_service_is_told_exactly_what_a_unit_takes_out_of_the_pool(company, now):
    acme = pooled(company)
    call = acme.do(reserve("s", 60, at=now))[0]
    texts = acme.do(reserve("s+3", 10, "messaging", now, group=3, of="s"))[0]
    assert Fraction(*call.conditions.unit_value) == Fraction(70_000, 3)
    assert Fraction(*texts.conditions.unit_value) == 50_000
    # What comes in steps of a thousand cannot be shared by the unit.
    assert acme.do(reserve("s+2", 5000, "data", now, group=2, of="s"))[0].conditions is None


def test_a_service_with_a_limit_of_its_own_shares_no_pool(company, now):
    acme = pooled(company)
    acme.do(SetLimit("sales", "messaging", 100))
    assert acme.do(reserve("s", 10, "messaging", now))[0].conditions is None
    assert acme.do(reserve("t", 10, "messaging", now, line="r-2"))[0].conditions is not None


@pytest.mark.parametrize("ends", [False, True])
def test_one_service_may_use_what_was_reserved_for_another(company, now, ends):
    """The budget is what both slices cost together; the call takes all of it."""
    acme = pooled(company)
    acme.do(reserve("s", 60, at=now))
    acme.do(reserve("s+3", 14, "messaging", now, group=3, of="s"))
    acme.do(SetLimit("acme", "money", 60 * 70_000 // 3 + 14 * 50_000))
    money = acme.family("money")
    assert money.used[0] == 2_100_000
    groups = [*groups_of(acme.tenant.sessions, "pbx", "s")]
    reports = (GroupReport(1, "voice", 90, 30), GroupReport(3, "messaging", 0, 14))
    if ends:
        told = asked(acme, steps_of_release(groups, 1, reports))
        assert [(one.session, one.used, one.overrun) for one in told] == [("s+3", 0, 0), ("s", 90, 0)]
        assert money.used[0] == 2_100_000
        return
    told = asked(acme, steps_of_update(groups, 1, reports, now))
    assert [(one.session, one.used, getattr(one, "granted", 0)) for one in told] == [
        *(("s+3", 0, 0), ("s", 90, 0)),  # what was used counts before anything is granted
        *(("s", 90, 0), ("s+3", 0, 0)),
    ]
    assert {one.topic for one in told[2:]} == {"session.denied"}
    assert money.used[0] == 2_100_000
    acme.do(ReleaseSession("pbx", "s", 2, Report(0)))
    acme.tenant.check_whole()


def test_without_a_pool_nobody_uses_what_another_holds(company, now):
    acme = company(BY_UNIT)
    acme.do(reserve("s", 60, at=now))
    acme.do(reserve("s+3", 14, "messaging", now, group=3, of="s"))
    acme.do(SetLimit("acme", "money", 2_100_000))
    groups = [*groups_of(acme.tenant.sessions, "pbx", "s")]
    steps = steps_of_update(groups, 1, (GroupReport(1, "voice", 90, None),), now)
    assert asked(acme, steps)[0].held.total == 60


def test_terms_are_replaced_whole(acme, now):
    acme.do(SetSessionTerms("sales", "", replace(REDIRECT, usual=50)))
    acme.do(SetSessionTerms("sales", "", SessionTerms(validity_seconds=30)))
    told = acme.do(reserve("a", at=now))[0]
    assert (told.granted, told.conditions.validity_seconds) == (120, 30)
