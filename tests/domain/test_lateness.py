"""Usage that comes too late is held with what it would cost, until somebody charges it on purpose."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allotment.domain.canonical import lines
from allotment.domain.charging import ChargeUsage, SuspendUsage, UsageCharged, UsageSuspended
from allotment.domain.lateness import HOUR, HOURS_MAX, RULES_MAX, LateRuleSet, SetLateRule
from allotment.domain.snapshot import copy_counters, encode_counters, encode_structure, restore
from allotment.domain.suspense import AmendUsage, RecycleUsage, waiting_id
from allotment.domain.usage import UsageRecord

DAY = 24 * HOUR
US = "+12125550100"


def charge_of(at, line="r-1", source="pbx", record_id="c-1"):
    record = UsageRecord(source, record_id, line, "voice", 60, at, "outbound", US)
    return ChargeUsage(record, line.encode(), b"sealed " + record_id.encode())


@pytest.fixture
def strict(acme):
    """Holds what is more than a day old; of the slow switch what is more than ten."""
    acme.do(SetLateRule("", 24, "section 4"))
    acme.do(SetLateRule("slow", 240))
    return acme


@pytest.mark.parametrize(
    ("source", "age", "held"),
    [
        ("pbx", 0, False),
        ("pbx", DAY, False),
        ("pbx", DAY + 1, True),
        ("slow", DAY + 1, False),
        ("slow", 10 * DAY, False),
        ("slow", 10 * DAY + 1, True),
        ("pbx", -DAY, False),
    ],
)
def test_usage_is_held_from_the_age_on_that_its_source_has(strict, now, source, age, held):
    (told, *_) = strict.do(charge_of(now - age, source=source))
    if not held:
        assert isinstance(told, UsageCharged)
        return
    assert (told.reason, told.field, told.value) == ("too_late", "started_at", 600_000)
    assert told.readable


def test_without_a_rule_of_its_own_the_rule_for_all_holds_and_without_that_none(strict, now):
    strict.do(SetLateRule("slow"))
    assert isinstance(strict.do(charge_of(now - DAY - 1, source="slow"))[0], UsageSuspended)
    strict.do(SetLateRule(""))
    assert isinstance(strict.do(charge_of(now - 10 * DAY))[0], UsageCharged)
    assert strict.tenant.charging.late.least == 0


def test_what_is_held_is_charged_on_purpose_or_when_the_rule_is_gone(strict, now):
    waiting, late = held(strict, now), charge_of(now - 2 * DAY)
    (told,) = strict.do(RecycleUsage(waiting, 0, late, came_at=now))
    assert (told.outcome, told.reason, told.value) == ("suspended", "too_late", 600_000)
    recycled, charged = strict.do(RecycleUsage(waiting, 1, late, came_at=now, accept_late=True))
    assert (recycled.outcome, recycled.late, charged.billed) == ("charged", True, 60)
    waiting = held(strict, now, "c-2")
    strict.do(SetLateRule(""))
    recycled, _ = strict.do(RecycleUsage(waiting, 0, charge_of(now - 2 * DAY, record_id="c-2"), came_at=now))
    assert (recycled.outcome, recycled.late) == ("charged", False)


def test_what_came_in_time_is_not_late_because_it_waited(strict, now):
    (told,) = strict.do(charge_of(now, line="r-9"))
    assert told.reason == "unknown_line"
    later = RecycleUsage(waiting_id(told), 0, charge_of(now), came_at=now)
    strict.tell(*strict.tenant.decide(later, now + 30 * DAY))
    assert strict.tenant.suspense.settled["charged"] == 1


def test_a_clock_that_is_put_right_makes_it_no_more_late(strict, now):
    waiting = held(strict, now)
    strict.do(AmendUsage(waiting, 0, charge_of(now - HOUR), ("started_at",), "its clock was wrong"))
    recycled, _ = strict.do(RecycleUsage(waiting, 1, charge_of(now - HOUR), came_at=now))
    assert (recycled.outcome, recycled.late) == ("charged", False)


def test_what_could_not_be_read_is_late_by_when_it_came(strict, now):
    (told,) = strict.do(SuspendUsage("pbx", "c-1", "malformed", "row", "is no CSV", "a:3", b"raw", b"raw"))
    waiting, late = waiting_id(told), charge_of(now - 2 * DAY)
    strict.do(AmendUsage(waiting, 0, late, ("line",), "from the switch"))
    assert strict.do(RecycleUsage(waiting, 1, late, came_at=now))[0].reason == "too_late"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (SetLateRule("", 0), "hours_out_of_range"),
        (SetLateRule("", HOURS_MAX + 1), "hours_out_of_range"),
        (SetLateRule("", None), "no_late_rule"),
        (SetLateRule("other", None), "no_late_rule"),
        (SetLateRule("a\nb", 1), "bad_text"),
        (SetLateRule("", 1, "a\nb"), "bad_text"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(acme, command, code):
    assert acme.ask(command) == code


def test_rules_are_bounded_in_number_and_ages_at_their_edges(acme):
    assert acme.do(SetLateRule("", 1)) == [LateRuleSet("", 1, "")]
    acme.do(SetLateRule("", HOURS_MAX))
    acme.tell(*(LateRuleSet(f"s-{i}", 1) for i in range(RULES_MAX - 1)))
    assert acme.ask(SetLateRule("one-more", 1)) == "too_many_late_rules"
    assert acme.do(SetLateRule("s-1", 2))


def test_a_snapshot_gives_the_rules_back(strict, now):
    restored = restore(encode_counters(copy_counters(strict.tenant)), encode_structure(strict.tenant))
    assert restored.charging.late.by_source == strict.tenant.charging.late.by_source
    assert b"".join(lines(restored)) == b"".join(lines(strict.tenant))
    assert plainly(restored, charge_of(now - 2 * DAY), now) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rules=st.dictionaries(st.sampled_from(["", "pbx", "slow"]), st.integers(1, 5), max_size=3),
    ages=st.lists(
        st.tuples(st.sampled_from(["pbx", "slow"]), st.integers(0, 6), st.integers(-1, 1)),
        min_size=1, max_size=8,
    ),
)  # fmt: skip
def test_what_is_charged_plainly_is_what_is_charged_and_nothing_that_is_held(rules, ages, bare_company, now):
    quick, slow = bare_company(), bare_company()
    for company in (quick, slow):
        company.tell(*(LateRuleSet(source, hours) for source, hours in rules.items()))
    for number, (source, hours, more) in enumerate(ages):
        charge = charge_of(now - hours * HOUR - more, source=source, record_id=f"c-{number}")
        decided = slow.do(charge)
        charged = plainly(quick.tenant, charge, now)
        assert charged is None or [charged] == decided
        assert charged is None or not slow.tenant.charging.late.holds(charge.record, now)
        if charged is None:
            quick.do(charge)
    assert list(lines(quick.tenant)) == list(lines(slow.tenant))


def plainly(tenant, charge, now):
    return tenant.plain.charge(charge.record, charge.token, charge.sealed, now)


def held(acme, now, record_id="c-1"):
    (told,) = acme.do(charge_of(now - 2 * DAY, record_id=record_id))
    assert told.reason == "too_late"
    return waiting_id(told)
