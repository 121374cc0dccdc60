"""Limits per day, week and rolling window: at their exact boundaries, soft and hard, with thresholds.

Voice to "+1" is billed by the second; it is Sunday the 15th of November, noon, in Berlin.
"""

import pytest

from allotment.domain.contract import OpenPeriod
from allotment.domain.limit import LimitSet, SetAnyLimit, SetLimit, ThresholdCrossed
from allotment.domain.raising import LimitRaised, MayRaise, RaiseLimit
from allotment.domain.session import ReleaseSession, Report, ReserveUnits, UpdateSession
from allotment.domain.usage import UsageRecord

US = "+12125550100"
MONTH = "2026-11"
MANAGER, RULE = ("telecoms_manager",), (MayRaise("telecoms_manager", 150),)
DAY, HOUR = 86_400_000_000, 3_600_000_000


def limited(quantity, window="day", node="emea", thresholds=(80, 100), **more):
    return SetAnyLimit(node, more.pop("usage_type", "voice"), quantity, thresholds, "", window, **more)


def crossed(percent, used, quantity, of, window="day", node="emea", **more):
    return ThresholdCrossed(node, "voice", MONTH, percent, used, quantity, window, of, **more)


def used(company, quantity, at, line="r-1"):
    return company.use(quantity, counterpart=US, at=at, line=line, now=max(at, company_now(company)))


def company_now(company):
    return 1_794_744_000_000_000


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (limited(1, "month"), "bad_window"),
        (limited(1, "last_93_days"), "bad_window"),
        (limited(1, kind="firm"), "bad_kind"),
        (limited(1, thresholds=(101,)), "bad_thresholds"),
        (limited(1, thresholds=(1001,), kind="soft"), "bad_thresholds"),
        (limited(10, quantities=(0,)), "bad_quantities"),
        (limited(10, quantities=(11,)), "bad_quantities"),
        (limited(10, may_raise=(MayRaise(""),)), "bad_rule"),
        (limited(10, may_raise=(MayRaise("manager", 99),)), "bad_rule"),
        (limited(10, may_raise=(MayRaise("manager", 110, 11),)), "bad_rule"),
        (SetAnyLimit("emea", "voice", 1, (), MONTH, "day"), "begins_now"),
        (limited(10, note="\n"), "bad_text"),
        (limited(10), [LimitSet("emea", "voice", 10, (80, 100), MONTH, "day")]),
        (
            limited(10, "week", thresholds=(150, 80), kind="soft", quantities=(30, 9, 9)),
            [LimitSet("emea", "voice", 10, (80, 150), MONTH, "week", "soft", (9, 30))],
        ),
        (limited(None), [LimitSet("emea", "voice", None, (80, 100), MONTH, "day")]),
    ],
)
def test_setting_a_limit_on_a_window(acme, command, outcome):
    assert acme.ask(command) == outcome


@pytest.mark.parametrize(
    ("window", "first", "second", "stopped"),
    [
        # Of 100 a use of 60 leaves 40, as long as both are in one window.
        ("day", "2026-11-15 00:00", "2026-11-15 23:59", True),
        ("day", "2026-11-14 23:59", "2026-11-15 00:00", False),
        ("week", "2026-11-09 00:00", "2026-11-15 23:59", True),
        ("week", "2026-11-08 23:59", "2026-11-09 00:00", False),
        ("week", "2026-11-15 23:59", "2026-11-16 00:00", False),
        ("last_7_days", "2026-11-09 00:00", "2026-11-15 23:59", True),
        ("last_7_days", "2026-11-08 23:59", "2026-11-15 00:00", False),
        ("last_24_hours", "2026-11-14 13:00", "2026-11-15 12:59", True),
        ("last_24_hours", "2026-11-14 12:59", "2026-11-15 12:00", False),
        # The day that the clocks went back on has 25 hours.
        ("day", "2026-10-25 00:00", "2026-10-25 23:59", True),
        ("last_24_hours", "2026-10-25 00:00", "2026-10-25 23:59", False),
        ("last_25_hours", "2026-10-25 00:00", "2026-10-25 23:59", True),
        # Across the end of a month: windows do not mind.
        ("week", "2026-10-31 12:00", "2026-11-01 12:00", True),
        ("last_2_days", "2026-10-31 12:00", "2026-11-01 12:00", True),
    ],
)
def test_which_uses_count_together(acme, at, window, first, second, stopped):
    acme.do(limited(100, window, thresholds=()))
    assert used(acme, 60, at(first))[0].topic == "usage.charged"
    (told, *_) = used(acme, 41, at(second))
    assert (told.topic == "usage.rejected") == stopped
    if stopped:
        assert (told.reason, told.stopped_by, told.used, told.limit, told.window) == (
            *("limit_exceeded", 1, 60, 100),
            window,
        )
        assert used(acme, 40, at(second))[0].topic == "usage.charged"


def test_the_same_in_whichever_order_it_is_told(acme, at):
    """Late usage stands in every window of its day: the fullest decides."""
    acme.do(limited(100, "last_3_days", thresholds=(50,)))
    assert used(acme, 50, at("2026-11-14 12:00"))[1:] == [crossed(50, 50, 100, "2026-11-14", "last_3_days")]
    assert used(acme, 40, at("2026-11-12 12:00"))[1:] == []
    # The 12th to the 14th have counted 90; the 13th is in that window, and in that from 13th to 15th.
    assert used(acme, 11, at("2026-11-13 12:00"))[0].topic == "usage.rejected"
    assert used(acme, 10, at("2026-11-13 12:00"))[0].topic == "usage.charged"
    assert used(acme, 41, at("2026-11-15 12:00"))[0].topic == "usage.rejected"
    assert used(acme, 40, at("2026-11-15 12:00"))[0].topic == "usage.charged"


def test_a_threshold_of_a_day_fires_once_that_day_and_again_the_next(acme, at):
    acme.do(limited(100, quantities=(90,)))
    morning, evening, tomorrow = at("2026-11-15 08:00"), at("2026-11-15 20:00"), at("2026-11-16 08:00")
    assert used(acme, 79, morning)[1:] == []
    assert used(acme, 1, morning)[1:] == [crossed(80, 80, 100, "2026-11-15")]
    assert used(acme, 9, evening)[1:] == []
    assert used(acme, 11, evening)[1:] == [
        crossed(0, 100, 100, "2026-11-15", at=90),
        crossed(100, 100, 100, "2026-11-15"),
    ]
    assert used(acme, 85, tomorrow)[1:] == [crossed(80, 85, 100, "2026-11-16")]


def test_a_rolling_threshold_fires_again_only_when_it_was_left_meanwhile(acme, at):
    acme.do(limited(100, "last_2_days", thresholds=(80,)))
    days = [at(f"2026-11-{day} 12:00") for day in (10, 11, 12, 13, 14, 15)]
    uses = (80, 10, 75, 20, 75, 20)
    fired = [bool(used(acme, quantity, when)[1:]) for quantity, when in zip(uses, days, strict=True)]
    # With the day before the days begin at 0, 80, 10, 75, 20 and 75: the second is above all day.
    assert fired == [True, False, True, True, True, True]


def test_of_several_limits_the_tightest_stops(acme, at):
    noon = at("2026-11-15 12:00")
    acme.do(SetLimit("sales", "voice", 100, ()))
    acme.do(limited(90, "day", "acme", thresholds=()))
    acme.do(limited(95, "week", "emea", thresholds=()))
    used(acme, 30, at("2026-11-14 12:00"))
    used(acme, 50, noon)
    # Sales has 20 left of its month, Acme 40 of its day, EMEA 15 of its week.
    (told,) = used(acme, 200, noon)
    assert (told.stopped_by, told.window, told.used, told.limit) == (1, "week", 80, 95)


def test_a_soft_limit_tells_and_never_stops(acme, at):
    acme.do(limited(100, thresholds=(100, 150), kind="soft", quantities=(120,)))
    assert used(acme, 130, at("2026-11-15 12:00"))[1:] == [
        crossed(100, 130, 100, "2026-11-15"),
        crossed(0, 130, 100, "2026-11-15", at=120),
    ]
    assert used(acme, 20, at("2026-11-15 12:00"))[1:] == [crossed(150, 150, 100, "2026-11-15")]
    assert used(acme, 10_000, at("2026-11-15 12:00"))[0].topic == "usage.charged"


def test_a_soft_limit_per_period_tells_above_a_hundred_per_cent(acme, now):
    acme.do(limited(100, "period", thresholds=(100, 200), kind="soft"))
    assert [event.percent for event in used(acme, 300, now)[1:]] == [100, 200]
    assert len(used(acme, 300, now)) == 1


def test_a_limit_counts_from_when_it_is_set_and_what_sessions_hold_then(acme, now):
    used(acme, 500, now)
    record = UsageRecord("pbx", "s", "r-1", "voice", 60, now, "outbound", US)
    acme.do(ReserveUnits(record, 1, b"r-1", b""))
    acme.do(limited(100, thresholds=(60,)))
    gauge = acme.tenant.limits.gauges["voice"][1]["day"]
    assert gauge.total == 60
    assert used(acme, 41, now)[0].topic == "usage.rejected"
    acme.do(ReleaseSession("pbx", "s", 2, Report(50)))
    assert gauge.total == 50
    assert used(acme, 50, now)[0].topic == "usage.charged"


def test_a_limit_set_again_goes_on_counting_and_one_that_was_lifted_begins_anew(acme, now):
    acme.do(limited(100))
    used(acme, 85, now)
    assert acme.do(limited(90))[1:] == [crossed(80, 85, 90, "2026-11-15")]
    assert acme.do(limited(90))[1:] == []
    assert acme.do(limited(80))[1:] == [crossed(80, 85, 80, "2026-11-15"), crossed(100, 85, 80, "2026-11-15")]
    assert used(acme, 1, now)[0].topic == "usage.rejected"
    acme.do(limited(None))
    assert (acme.tenant.limits.gauges, acme.tenant.limits.windows) == ({}, {})
    acme.do(limited(80))
    assert used(acme, 80, now)[0].topic == "usage.charged"


def test_money_is_limited_by_the_day_as_well(acme, now):
    acme.do(limited(500_000, usage_type="money", thresholds=(100,)))
    # A thousand seconds are covered; each further one costs 10,000 micro-units.
    told = used(acme, 1_051, now)
    assert (told[0].reason, told[0].counted, told[0].window) == ("limit_exceeded", "money", "day")
    assert [event.topic for event in used(acme, 1_050, now)] == ["usage.charged", "limit.threshold_crossed"]


def test_slices_shrink_to_the_tightest_window(acme, now):
    acme.do(limited(100, thresholds=()))
    used(acme, 70, now)
    record = UsageRecord("pbx", "s", "r-1", "voice", 60, now, "outbound", US)
    (reserved,) = acme.do(ReserveUnits(record, 1, b"r-1", b""))
    assert (reserved.granted, reserved.final) == (30, True)
    (denied,) = acme.do(UpdateSession("pbx", "s", 2, Report(30), 10))
    assert (denied.reason, denied.stopped_by, denied.window, denied.limit) == (
        "limit_exceeded",
        1,
        "day",
        100,
    )
    assert used(acme, 1, now)[0].topic == "usage.rejected"


def test_a_session_counts_in_the_day_that_it_began_on(acme, at):
    acme.do(limited(100, thresholds=()))
    late = at("2026-11-14 23:59")
    record = UsageRecord("pbx", "s", "r-1", "voice", 60, late, "outbound", US)
    acme.do(ReserveUnits(record, 1, b"r-1", b""), late)
    today = at("2026-11-15 00:01")
    assert used(acme, 100, today)[0].topic == "usage.charged"
    acme.do(ReleaseSession("pbx", "s", 2, Report(60)), today)
    assert used(acme, 41, late)[0].topic == "usage.rejected"


def test_old_days_leave_memory_and_late_usage_still_counts_in_its_own_day(acme, at):
    acme.do(limited(100, thresholds=()))
    october = at("2026-10-10 12:00")
    used(acme, 100, october)
    assert used(acme, 1, october)[0].topic == "usage.rejected"
    acme.do(OpenPeriod("2026-12"), at("2026-12-01 00:00"))
    assert used(acme, 1, october)[0].topic == "usage.rejected"
    acme.do(OpenPeriod("2027-01"), at("2027-01-01 00:00"))
    assert acme.tenant.limits.gauges["voice"][1]["day"].bins == {}
    # So late, it is held to the limit of its month only.
    assert used(acme, 1, october)[0].topic == "usage.charged"


def test_only_who_has_such_limits_pays_for_them(acme, now):
    record = UsageRecord("src", "x", "r-1", "voice", 1, now, "outbound", US)
    data = UsageRecord("src", "y", "r-1", "data", 1, now, "outbound", "")
    assert acme.tenant.plain.charge(record, b"r-1", b"", now) is not None
    acme.do(limited(100))
    assert acme.tenant.plain.charge(record, b"r-1", b"", now) is None
    assert acme.tenant.plain.charge(data, b"r-1", b"", now) is not None
    acme.do(limited(None))
    assert acme.tenant.plain.charge(record, b"r-1", b"", now) is not None


# --- raising ---------------------------------------------------------------------------------


def raising(to=None, by=None, until=0, node="emea", window="day", roles=(), **more):
    return RaiseLimit(node, "voice", until, to, by, window, roles, **more)


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (raising(to=200, node="nobody"), "unknown_node"),
        (raising(to=200, node="apac"), "no_limit"),
        (raising(to=200, window="week"), "no_limit"),
        (raising(to=200, window="year"), "bad_window"),
        (raising(), "bad_raise"),
        (raising(to=200, by=100), "bad_raise"),
        (raising(to=100), "bad_raise"),
        (raising(by=0), "bad_raise"),
        (raising(by=-1), "bad_raise"),
        (raising(to=2**60 + 1), "bad_raise"),
        (raising(to=200, until=-1), "bad_end"),
        (raising(to=200, until=0), "bad_end"),
        (raising(to=200, until=367 * DAY), "bad_end"),
        (raising(to=200, roles=("cost_centre_manager",)), "may_not_raise"),
        (raising(to=151, roles=("telecoms_manager",)), "may_not_raise"),
        (raising(to=150, roles=("telecoms_manager",)), [150]),
        (raising(to=151, roles=("telecoms_manager", "owner")), [151]),
        (raising(by=100), [200]),
    ],
)
def test_raising_a_limit(acme, now, command, outcome):
    rules = (MayRaise("telecoms_manager", 150), MayRaise("owner"))
    acme.do(limited(100, may_raise=rules))
    until = now + (command.until if command.until or outcome == "bad_end" else DAY)
    answer = acme.ask(
        RaiseLimit(
            *(getattr(command, name) for name in ("node", "usage_type")),
            until,
            *(getattr(command, name) for name in ("to", "by", "window", "roles", "note")),
        )
    )
    assert answer == outcome or [event.quantity for event in answer] == outcome


def test_a_refused_raise_tells_how_far_and_who_may(acme, now):
    acme.do(limited(100, may_raise=(MayRaise("telecoms_manager", 150),)))
    code, facts = acme.refusal(raising(to=200, until=now + DAY, roles=("telecoms_manager",)))
    assert (code, facts["up_to"], facts["roles"]) == ("may_not_raise", 150, ["telecoms_manager"])


@pytest.mark.parametrize("window", ["period", "day", "week", "last_7_days", "last_24_hours"])
def test_after_its_end_the_old_limit_holds_without_anybodys_act(acme, now, window):
    acme.do(limited(100, window, thresholds=(100,)))
    used(acme, 100, now)
    end = now + HOUR
    assert acme.do(raising(to=150, until=end, window=window)) == [
        LimitRaised("emea", "voice", window, 150, now, end)
    ]
    assert used(acme, 30, end - 1)[0].topic == "usage.charged"
    assert used(acme, 1, end)[0].limit == 100
    # Late usage meets the limit of its own time: before the raise, and while it held.
    assert used(acme, 1, now - 1)[0].topic == "usage.rejected"
    told = used(acme, 20, end - 1)
    assert (told[0].topic, [(event.percent, event.limit) for event in told[1:]]) == (
        "usage.charged",
        [(100, 150)],
    )
    assert used(acme, 1, end - 1)[0].limit == 150


def test_what_was_told_of_the_old_limit_is_not_told_again_when_it_holds_again(acme, now):
    acme.do(limited(100, thresholds=(80,)))
    assert len(used(acme, 80, now)) == 2
    acme.do(raising(to=200, until=now + HOUR))
    assert len(used(acme, 10, now)) == 1
    assert len(used(acme, 10, now + HOUR)) == 1


def test_a_limit_set_anew_ends_its_raise(acme, now):
    acme.do(limited(100, thresholds=()))
    acme.do(raising(to=200, until=now + DAY))
    acme.do(limited(110, thresholds=()))
    assert used(acme, 111, now)[0].limit == 110


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (SetLimit("emea", "voice", 100), 100),
        (SetLimit("emea", "voice", 101), "may_not_raise"),
        (SetLimit("emea", "voice", None), "may_not_raise"),
        (limited(151, "period", roles=MANAGER, may_raise=RULE), "may_not_raise"),
        (limited(150, "period", roles=MANAGER, may_raise=RULE), 150),
        # Nobody gives a right that he does not have.
        (limited(100, "period", roles=MANAGER), "may_not_raise"),
        (limited(150, "period", roles=MANAGER, kind="soft", may_raise=RULE), "may_not_raise"),
        (limited(1000, "period"), 1000),
    ],
)
def test_the_rule_holds_for_setting_a_limit_as_well(acme, command, outcome):
    acme.do(limited(100, "period", may_raise=(MayRaise("telecoms_manager", 150),)))
    answer = acme.ask(command)
    assert answer == outcome or answer[0].quantity == outcome


def test_a_plain_limit_keeps_the_rule(acme):
    acme.do(limited(100, "period", may_raise=(MayRaise("telecoms_manager", 150),)))
    (told, *_) = acme.do(SetLimit("emea", "voice", 50))
    assert told.may_raise == (MayRaise("telecoms_manager", 150),)
