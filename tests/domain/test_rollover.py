"""What becomes of what is left at a period's end: rolled over, for so many periods, or expired."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allotment.domain import snapshot
from allotment.domain.bucket import Allocate, Return, Trade
from allotment.domain.canonical import lines
from allotment.domain.contract import EndContract, Grant, SignContract
from allotment.domain.hierarchy import EndResource
from allotment.domain.rollover import BUCKETS_AT_ONCE, RolledBucket, RolledOver, RollOver
from allotment.domain.session import ReleaseSession, Report, ReserveUnits
from allotment.domain.terms import RollOverRule, Terms
from allotment.domain.usage import UsageRecord
from allotment.domain.usage_type import DefineUsageType

GRANTS = (Grant("voice", 1000), Grant("data", 10_000))


def sign(company, *rules, grants=GRANTS, **terms):
    """From December on; so that November stays as it is."""
    company.do(SignContract("frame", "2026-12-01", grants, True, Terms(rollover=rules, **terms)))
    return company


def open_december(company, at):
    company.use(1, "messaging", at=at("2026-12-01 00:00"), now=at("2026-12-01 00:00"))
    return company


def carry_out(company, now):
    """What time asks for, until it asks no more."""
    told = []
    while due := [command for command in company.tenant.due(now) if isinstance(command, RollOver)]:
        told += [event for command in due for event in company.do(command, now)]
        assert len(told) < 100
    return [event for event in told if isinstance(event, RolledOver)]


def left(company, period, usage_type="voice"):
    family = company.family(usage_type, period)
    names = [member.id for member in company.tenant.hierarchy.members]
    return {name: held for name, held in zip(names, family.remaining, strict=True) if held}


JANUARY = "2027-01-01 00:00"


def test_nothing_is_settled_where_the_contract_rolls_nothing_over(acme, at):
    assert acme.tenant.next_due() is None
    assert [*acme.tenant.due(at("2028-01-01 00:00"))] == []


@pytest.mark.parametrize(("hours", "moment"), [(0, JANUARY), (6, "2027-01-01 06:00")])
def test_where_nothing_rolls_over_what_is_left_may_expire_bucket_by_bucket(acme, at, hours, moment):
    open_december(sign(acme, expires=True, settle_after_hours=hours), at)
    acme.do(Allocate("acme", "emea", "voice", "2026-12", 400), at("2026-12-02 00:00"))
    acme.use(100, at=at("2026-12-03 00:00"), now=at("2026-12-03 00:00"))
    assert carry_out(acme, at(moment) - 1) == []
    told = {event.usage_type: event for event in carry_out(acme, at(moment))}
    assert [*told["voice"].buckets] == [RolledBucket(0, 0, (), 600), RolledBucket(1, 1, (), 280)]
    assert (left(acme, "2026-12"), acme.family("voice", "2026-12").expired_total) == ({}, 880)
    assert left(acme, "2026-11") != {}
    assert all(event.period > "2026-12" for event in carry_out(acme, at("2027-06-01 00:00")))


@pytest.mark.parametrize(
    ("rule", "used", "rolled", "expired"),
    [
        (RollOverRule("voice"), 0, 1000, 0),
        (RollOverRule("voice"), 999, 1, 0),
        (RollOverRule("voice", 1, 300), 0, 300, 700),
        (RollOverRule("voice", 1, 300), 800, 200, 0),
        (RollOverRule("voice", 1, 0), 0, 0, 1000),
        (RollOverRule("voice", 1, None, 50), 0, 500, 500),
        (RollOverRule("voice", 1, None, 0), 0, 0, 1000),
        (RollOverRule("voice", 1, None, 100), 400, 600, 0),
        (RollOverRule("voice", 1, None, 33), 999, 1, 0),
    ],
)
def test_what_is_left_is_rolled_over_up_to_the_cap_and_the_rest_expires(
    acme, at, rule, used, rolled, expired
):
    open_december(sign(acme, rule), at)
    acme.use(used, at=at("2026-12-05 12:00"), counterpart="+1", now=at("2026-12-05 12:00"))
    carry_out(acme, at(JANUARY))
    december, january = acme.family("voice", "2026-12"), acme.family("voice", "2027-01")
    assert (december.rolled_total, december.expired_total, december.remaining_total) == (rolled, expired, 0)
    assert january.granted_total == 1000 + rolled
    assert left(acme, "2027-01") == {"acme": 1000 + rolled}


def test_it_is_due_at_the_end_of_the_period_and_not_before(acme, at):
    open_december(sign(acme, RollOverRule("voice")), at)
    assert acme.tenant.next_due() == at(JANUARY)
    assert [*acme.tenant.due(at(JANUARY) - 1)] == []
    due = [*acme.tenant.due(at(JANUARY))]
    assert due == [RollOver("data", "2026-12", 0), RollOver("voice", "2026-12", 0)]
    assert acme.refusal(due[0], at(JANUARY) - 1)[0] == "nothing_to_roll_over"
    for command in due:
        acme.do(command, at(JANUARY))
    assert [acme.ask(command, at(JANUARY)) for command in due] == ["nothing_to_roll_over"] * 2
    assert acme.tenant.next_due() == at("2027-02-01 00:00")


def test_usage_told_late_may_be_waited_for(acme, at):
    open_december(sign(acme, RollOverRule("voice"), settle_after_hours=6), at)
    assert acme.tenant.next_due() == at("2027-01-01 06:00")
    late = acme.use(60, at=at("2026-12-31 23:00"), now=at("2027-01-01 05:59"))
    assert late[0].drawn == ((0, 60),)
    carry_out(acme, at("2027-01-01 06:00"))
    assert left(acme, "2027-01") == {"acme": 1940}


def test_what_no_rule_rolls_over_expires(acme, at):
    open_december(sign(acme, RollOverRule("voice")), at)
    events = carry_out(acme, at(JANUARY))
    assert RolledOver("data", "2026-12", "2027-01", (RolledBucket(0, 0, (), 10_000),)) in events


def test_each_bucket_rolls_into_that_of_the_same_member(acme, at):
    open_december(sign(acme, RollOverRule("voice")), at)
    acme.do(Allocate("acme", "emea", "voice", "2026-12", 300), at("2026-12-02 00:00"))
    acme.do(Allocate("emea", "r-1", "voice", "2026-12", 100), at("2026-12-02 00:00"))
    carry_out(acme, at(JANUARY))
    assert left(acme, "2027-01") == {"acme": 1700, "emea": 200, "r-1": 100}


def test_or_all_into_that_of_the_enterprise_where_the_contract_says_so(acme, at):
    open_december(sign(acme, RollOverRule("voice"), rolls_to_enterprise=True), at)
    acme.do(Allocate("acme", "emea", "voice", "2026-12", 300), at("2026-12-02 00:00"))
    carry_out(acme, at(JANUARY))
    assert left(acme, "2027-01") == {"acme": 2000}


def test_what_a_resource_has_that_ended_goes_to_the_enterprise(acme, at):
    open_december(sign(acme, RollOverRule("voice")), at)
    acme.do(Allocate("acme", "r-1", "voice", "2026-12", 100), at("2026-12-02 00:00"))
    acme.do(EndResource("r-1", at("2026-12-20 00:00")), at("2026-12-20 00:00"))
    carry_out(acme, at(JANUARY))
    assert left(acme, "2027-01") == {"acme": 2000}


def test_a_cap_is_shared_out_in_proportion_and_to_the_last_unit(acme, at):
    open_december(sign(acme, RollOverRule("voice", 1, 100)), at)
    acme.do(Allocate("acme", "emea", "voice", "2026-12", 300), at("2026-12-02 00:00"))
    acme.do(Allocate("acme", "apac", "voice", "2026-12", 33), at("2026-12-02 00:00"))
    events = carry_out(acme, at(JANUARY))
    voice = next(event for event in events if event.usage_type == "voice")
    rolled = {one.ordinal: sum(part for _, part in one.rolled) for one in voice.buckets}
    assert rolled == {0: 66, 1: 30, 3: 4}


def test_a_unit_rolled_over_so_often_expires(acme, at):
    open_december(sign(acme, RollOverRule("voice", 2)), at)
    carry_out(acme, at(JANUARY))
    assert acme.family("voice", "2027-01").rolled == {0: {1: 1000}}
    carry_out(acme, at("2027-02-01 00:00"))
    assert acme.family("voice", "2027-02").rolled == {0: {1: 1000, 2: 1000}}
    carry_out(acme, at("2027-03-01 00:00"))
    assert acme.family("voice", "2027-02").expired_total == 1000
    assert acme.family("voice", "2027-03").rolled == {0: {1: 1000, 2: 1000}}


def test_what_expires_first_is_consumed_first(acme, at):
    open_december(sign(acme, RollOverRule("voice", 2)), at)
    carry_out(acme, at(JANUARY))
    carry_out(acme, at("2027-02-01 00:00"))
    february = acme.family("voice", "2027-02")
    now = at("2027-02-02 12:00")
    acme.use(400, at=now, now=now, counterpart="+1")
    assert february.rolled == {0: {1: 1000, 2: 600}}
    acme.use(700, at=now, now=now, counterpart="+1")
    assert february.rolled == {0: {1: 900}}
    acme.use(1500, at=now, now=now, counterpart="+1")
    assert (february.rolled, february.remaining[0]) == ({}, 400)


def test_what_is_moved_is_of_this_period_first_and_keeps_its_age(acme, at):
    open_december(sign(acme, RollOverRule("voice", 3)), at)
    carry_out(acme, at(JANUARY))
    january, now = acme.family("voice", "2027-01"), at("2027-01-02 12:00")
    acme.do(Allocate("acme", "emea", "voice", "2027-01", 1000), now)
    assert january.rolled == {0: {1: 1000}}
    acme.do(Allocate("acme", "apac", "voice", "2027-01", 250), now)
    assert january.rolled == {0: {1: 750}, 3: {1: 250}}
    acme.do(Trade("apac", "emea", "voice", "2027-01", 250), now)
    assert january.rolled == {0: {1: 750}, 1: {1: 250}}
    acme.do(Return("emea", "acme", "voice", "2027-01", 1100), now)
    assert january.rolled == {0: {1: 850}, 1: {1: 150}}


def test_at_the_end_of_the_contract_everything_expires(acme, at):
    open_december(sign(acme, RollOverRule("voice")), at)
    acme.do(EndContract("frame", "2026-12-31"), at("2026-12-10 00:00"))
    events = carry_out(acme, at(JANUARY))
    assert RolledOver("voice", "2026-12", "", (RolledBucket(0, 0, (), 1000),)) in events
    assert "2027-01" not in acme.tenant.contracts.periods


def reserve(company, quantity, at, session="s"):
    record = UsageRecord("net", session, "r-1", "voice", quantity, at, "outbound", "+12125550100")
    return company.do(ReserveUnits(record, 1, b"r-1", b""), at)


def test_a_session_keeps_what_it_holds_until_it_ends(acme, at):
    open_december(sign(acme, RollOverRule("voice")), at)
    reserve(acme, 100, at("2026-12-31 23:59"))
    first = carry_out(acme, at(JANUARY))
    assert left(acme, "2026-12") == {"acme": 100}
    assert not any(isinstance(command, RollOver) for command in acme.tenant.due(at(JANUARY)))
    acme.do(ReleaseSession("net", "s", 2, Report(40)), at("2027-01-01 00:05"))
    (second,) = carry_out(acme, at("2027-01-01 00:05"))
    assert second == RolledOver("voice", "2026-12", "2027-01", (RolledBucket(0, 0, ((0, 60),), 0),))
    assert [event.usage_type for event in first] == ["data", "voice"]
    assert left(acme, "2027-01") == {"acme": 1960}


def test_many_buckets_are_told_of_in_several_events(acme, at, monkeypatch):
    monkeypatch.setattr("allotment.domain.rollover.BUCKETS_AT_ONCE", 2)
    open_december(sign(acme, RollOverRule("voice", 1, 501)), at)
    for target in ("emea", "apac", "r-1", "r-2"):
        acme.do(Allocate("acme", target, "voice", "2026-12", 100), at("2026-12-02 00:00"))
    events = [event for event in carry_out(acme, at(JANUARY)) if event.usage_type == "voice"]
    assert [len(event.buckets) for event in events] == [2, 2, 1]
    assert acme.family("voice", "2026-12").rolled_total == 501
    assert BUCKETS_AT_ONCE == 1_000


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (RollOver("fax", "2026-11", 0), "unknown_usage_type"),
        (RollOver("voice", "2026-12", 0), "not_a_period"),
        (RollOver("voice", "2026-11", 0), "nothing_to_roll_over"),
    ],
)
def test_nobody_can_roll_over_what_is_not_due(acme, at, command, code):
    assert acme.ask(command, at("2028-01-01 00:00")) == code


def test_a_snapshot_keeps_the_ages_and_the_turns(acme, at):
    acme.do(DefineUsageType("iot", "message"))
    open_december(sign(acme, RollOverRule("voice", 2), ends_on="2027-12-31"), at)
    reserve(acme, 100, at("2026-12-31 23:59"))
    carry_out(acme, at(JANUARY))
    counters = snapshot.encode_counters(snapshot.copy_counters(acme.tenant))
    again = snapshot.restore(counters, snapshot.encode_structure(acme.tenant))
    assert [*lines(again)] == [*lines(acme.tenant)]
    assert again.rollovers.turns == acme.tenant.rollovers.turns
    assert again.next_due() == acme.tenant.next_due()
    assert [*again.due(at("2028-01-01 00:00"))] == [*acme.tenant.due(at("2028-01-01 00:00"))]


MONTHS = ["2026-12", "2027-01", "2027-02", "2027-03"]
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["use", "down", "up", "sideways", "top"]), st.integers(1, 900), st.integers(0, 3)
    ),
    max_size=12,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    rules=st.builds(
        RollOverRule,
        st.just("voice"),
        st.integers(1, 3),
        st.none() | st.integers(0, 900),
    ),
    to_enterprise=st.booleans(),
    months=st.lists(ACTS, min_size=3, max_size=3),
)
def test_whatever_happens_nothing_is_made_or_lost_at_any_periods_end(
    company, at, rules, to_enterprise, months
):
    acme = company()
    open_december(sign(acme, rules, rolls_to_enterprise=to_enterprise), at)
    for month, following, acts in zip(MONTHS, MONTHS[1:], months, strict=False):
        now = at(f"{month}-10 12:00")
        acme.use(1, "messaging", at=now, now=now)
        for act, quantity, which in acts:
            do(acme, act, quantity, which, month, now)
        before = acme.family("voice", month).remaining_total
        carry_out(acme, at(f"{following}-01 00:00"))
        old, new = acme.family("voice", month), acme.family("voice", following)
        assert old.remaining_total == 0
        assert old.rolled_total + old.expired_total == before
        assert new.rolled_in_total == old.rolled_total
        assert all(age <= rules.cycles for ages in new.rolled.values() for age in ages)
        if rules.quantity is not None:
            assert old.rolled_total <= rules.quantity
        assert sum(sum(ages.values()) for ages in new.rolled.values()) == new.rolled_in_total


def do(acme, act, quantity, which, month, now):
    """One act, as far as it goes."""
    target = ("emea", "sales", "r-1", "apac")[which]
    command = {
        "down": Allocate("acme", target, "voice", month, quantity),
        "up": Return(target, "acme", "voice", month, quantity),
        "sideways": Trade("apac", "emea", "voice", month, quantity),
    }.get(act)
    if command is None:
        acme.use(quantity, at=now, now=now, counterpart="+1", line=("r-1", "r-2")[which % 2])
    elif not isinstance(acme.ask(command, now), str):
        acme.do(command, now)
