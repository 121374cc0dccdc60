"""Limits and their thresholds, at their exact boundaries.

Voice is billed by the second to "+" (0.01 a second), by the minute to "+49" (0.06 a minute);
the allowance is 1000 seconds.
"""

from zoneinfo import ZoneInfo

import pytest

from allotment.domain.bucket import Allocate, Family
from allotment.domain.contract import QUANTITY_MAX, OpenPeriod, PeriodNotOpen, PeriodOpened, bounds_of
from allotment.domain.limit import THRESHOLDS_MAX, InForce, Limits, LimitSet, SetLimit, ThresholdCrossed
from allotment.domain.tariff import PublishTariff, Rate

MONTH = "2026-11"
US = "+12125550100"


def limit(quantity, node="emea", thresholds=(80, 100), usage_type="voice", since=MONTH):
    return LimitSet(node, usage_type, quantity, thresholds, since)


def crossed(percent, used, quantity, node="emea", usage_type="voice", period=MONTH):
    return ThresholdCrossed(node, usage_type, period, percent, used, quantity)


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (SetLimit("nobody", "voice", 1), "unknown_node"),
        (SetLimit("emea", "fax", 1), "unknown_usage_type"),
        (SetLimit("emea", "voice", -1), "quantity_out_of_range"),
        (SetLimit("emea", "voice", QUANTITY_MAX + 1), "quantity_out_of_range"),
        (SetLimit("emea", "voice", 1, (0,)), "bad_thresholds"),
        (SetLimit("emea", "voice", 1, (101,)), "bad_thresholds"),
        (SetLimit("emea", "voice", 1, tuple(range(1, THRESHOLDS_MAX + 2))), "bad_thresholds"),
        (SetLimit("emea", "voice", 1, (80,), "soon"), "not_a_period"),
        (SetLimit("emea", "voice", 1, (80,), "2025-12"), "no_contract"),
        (SetLimit("emea", "voice", 0), [limit(0)]),
        (SetLimit("emea", "voice", None), [limit(None)]),
        (SetLimit("emea", "voice", QUANTITY_MAX), [limit(QUANTITY_MAX)]),
        (SetLimit("emea", "voice", 1, ()), [limit(1, thresholds=())]),
        (SetLimit("emea", "voice", 9, (100, 80, 80, 1)), [limit(9, thresholds=(1, 80, 100))]),
        (SetLimit("r-1", "money", 5), [limit(5, "r-1", usage_type="money")]),
        (
            SetLimit("emea", "voice", 1, tuple(range(1, THRESHOLDS_MAX + 1))),
            [limit(1, thresholds=tuple(range(1, THRESHOLDS_MAX + 1)))],
        ),
    ],
)
def test_setting_a_limit(acme, command, outcome):
    assert acme.ask(command) == outcome


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (SetLimit("nobody", "fax", -1, (0,), "soon"), "not_a_period"),
        (SetLimit("nobody", "fax", -1, (0,)), "unknown_node"),
        (SetLimit("emea", "fax", -1, (0,)), "unknown_usage_type"),
        (SetLimit("emea", "voice", -1, (0,)), "quantity_out_of_range"),
        (SetLimit("emea", "voice", 1, (0,)), "bad_thresholds"),
    ],
)
def test_of_several_faults_the_first_in_a_fixed_order_is_told(acme, command, code):
    assert acme.refusal(command)[0] == code


def test_a_limit_that_is_refused_opens_no_period(acme):
    try:
        outcome = acme.ask(SetLimit("nobody", "voice", 1, from_period="2026-12"))
    except PeriodNotOpen:
        outcome = "opens the period"
    assert outcome == "unknown_node"


@pytest.mark.parametrize(
    ("history", "uses", "fired"),
    [
        # 80 % of 10_000 is 8000: 7999 is 79.99 %.
        ([limit(10_000)], [7999], []),
        ([limit(10_000)], [8000], [crossed(80, 8000, 10_000)]),
        ([limit(10_000)], [7999, 1], [crossed(80, 8000, 10_000)]),
        ([limit(10_000)], [7999, 2], [crossed(80, 8001, 10_000)]),
        ([limit(10_000)], [8000, 1999], [crossed(80, 8000, 10_000)]),
        ([limit(10_000)], [8000, 2000], [crossed(80, 8000, 10_000), crossed(100, 10_000, 10_000)]),
        ([limit(10_000)], [9999, 1], [crossed(80, 9999, 10_000), crossed(100, 10_000, 10_000)]),
        # Several by one record, lowest first.
        ([limit(10_000)], [10_000], [crossed(80, 10_000, 10_000), crossed(100, 10_000, 10_000)]),
        (
            [limit(100, thresholds=(1, 50, 99, 100))],
            [99, 1],
            [crossed(1, 99, 100), crossed(50, 99, 100), crossed(99, 99, 100), crossed(100, 100, 100)],
        ),
        # Once: what comes after does not fire it again.
        ([limit(10_000)], [8000, 1, 1, 0], [crossed(80, 8000, 10_000)]),
        # A percentage that is no whole number of units is reached at the next one.
        ([limit(101)], [80], []),
        ([limit(101)], [81], [crossed(80, 81, 101)]),
        ([limit(1)], [1], [crossed(80, 1, 1), crossed(100, 1, 1)]),
        # Nothing used reaches nothing.
        ([limit(10_000)], [0], []),
        ([limit(0)], [0], []),
        ([limit(10, thresholds=())], [10], []),
        # From the foot of the path upwards, each with its own count.
        (
            [limit(100, "acme"), limit(90, "r-1"), limit(100, "sales")],
            [80],
            [crossed(80, 80, 90, "r-1"), crossed(80, 80, 100, "sales"), crossed(80, 80, 100, "acme")],
        ),
        # A neighbour's limit is nobody else's.
        ([limit(1, "apac"), limit(1, "r-2")], [100], []),
    ],
)
def test_thresholds_fire_when_they_are_reached_and_once(company, history, uses, fired):
    acme = company(*history)
    events = [event for quantity in uses for event in acme.use(quantity, counterpart=US)[1:]]
    assert events == fired


@pytest.mark.parametrize(
    ("history", "before", "quantity", "stopped"),
    [
        ([limit(100)], 0, 100, None),
        ([limit(100)], 0, 101, (1, 0, 100)),
        ([limit(100)], 99, 1, None),
        ([limit(100)], 99, 2, (1, 99, 100)),
        ([limit(100)], 100, 1, (1, 100, 100)),
        ([limit(100)], 100, 0, None),
        ([limit(0)], 0, 0, None),
        ([limit(0)], 0, 1, (1, 0, 0)),
        ([limit(1)], 0, 1, None),
        ([limit(10, thresholds=())], 0, 11, (1, 0, 10)),
        ([limit(None)], 0, 10**9, None),
        ([limit(5), limit(None)], 0, 6, None),
        # On the resource itself, on an ancestor, and the narrowest of several.
        ([limit(10, "r-1")], 10, 1, (4, 10, 10)),
        ([limit(10, "acme")], 10, 1, (0, 10, 10)),
        ([limit(10, "acme"), limit(10, "sales")], 10, 1, (2, 10, 10)),
        ([limit(11, "acme"), limit(10, "sales")], 10, 1, (2, 10, 10)),
        ([limit(10, "acme"), limit(11, "sales")], 10, 1, (0, 10, 10)),
        ([limit(10, "apac"), limit(10, "r-2")], 10, 100, None),
    ],
)
def test_no_usage_passes_a_limit_on_its_path(company, history, before, quantity, stopped):
    acme = company(*history)
    if before:
        acme.use(before, counterpart=US)
    (told, *_) = acme.use(quantity, counterpart=US)
    if stopped is None:
        assert told.topic == "usage.charged"
    else:
        assert (told.topic, told.reason, told.counted) == ("usage.rejected", "limit_exceeded", "voice")
        assert (told.stopped_by, told.used, told.limit) == stopped
        assert acme.family().used[4] == before


def test_what_others_below_it_used_counts_for_an_ancestor(company):
    acme = company(limit(100, "acme"))
    acme.use(60, counterpart=US, line="r-1")
    (told,) = acme.use(41, counterpart=US, line="r-2")
    assert (told.stopped_by, told.used) == (0, 60)
    assert acme.use(40, counterpart=US, line="r-2")[1:] == [
        crossed(80, 100, 100, "acme"),
        crossed(100, 100, 100, "acme"),
    ]


def test_what_is_counted_is_what_is_billed(company):
    acme = company(limit(60))
    assert acme.use(1)[0].billed == 60
    assert acme.use(1)[0].topic == "usage.rejected"


def test_a_limit_counts_usage_the_allowance_covers_and_usage_it_does_not(company):
    acme = company(limit(2000))
    (told, *fired) = acme.use(1600, counterpart=US)
    assert (told.overage, fired) == (600, [crossed(80, 1600, 2000)])


@pytest.mark.parametrize(
    ("used", "command", "outcome"),
    [
        # Lowered below what is used: every threshold that is reached now is told, nothing is taken back.
        (90, SetLimit("emea", "voice", 50), [limit(50), crossed(80, 90, 50), crossed(100, 90, 50)]),
        (90, SetLimit("emea", "voice", 0), [limit(0), crossed(80, 90, 0), crossed(100, 90, 0)]),
        (90, SetLimit("emea", "voice", 90), [limit(90), crossed(80, 90, 90), crossed(100, 90, 90)]),
        (90, SetLimit("emea", "voice", 112), [limit(112), crossed(80, 90, 112)]),
        (90, SetLimit("emea", "voice", 113), [limit(113)]),
        (0, SetLimit("emea", "voice", 0), [limit(0)]),
        (90, SetLimit("emea", "voice", None), [limit(None)]),
    ],
)
def test_a_new_limit_tells_which_of_its_thresholds_are_reached_already(company, used, command, outcome):
    acme = company(limit(200))
    if used:
        acme.use(used, counterpart=US)
    assert acme.do(command) == outcome


def test_below_what_is_used_a_limit_stops_what_follows_and_takes_nothing_back(acme):
    acme.use(90, counterpart=US)
    acme.do(SetLimit("emea", "voice", 50))
    (told,) = acme.use(1, counterpart=US)
    assert (told.reason, told.used, told.limit) == ("limit_exceeded", 90, 50)
    assert acme.use(0, counterpart=US)[0].topic == "usage.charged"
    assert acme.family().used[1] == 90


def test_a_limit_that_is_raised_arms_its_thresholds_anew(company):
    acme = company(limit(100))
    acme.use(100, counterpart=US)
    assert acme.do(SetLimit("emea", "voice", 1000)) == [limit(1000)]
    assert acme.use(699, counterpart=US)[1:] == []
    assert acme.use(1, counterpart=US)[1:] == [crossed(80, 800, 1000)]
    assert acme.use(201, counterpart=US)[0].topic == "usage.rejected"


def test_a_limit_that_is_lifted_stops_and_tells_nothing_more(company):
    acme = company(limit(100))
    acme.use(85, counterpart=US)
    acme.do(SetLimit("emea", "voice", None))
    assert [event.topic for event in acme.use(10_000, counterpart=US)] == ["usage.charged"]


def test_a_limit_set_again_after_it_was_lifted_holds(company):
    acme = company(limit(100), limit(None))
    acme.use(100, counterpart=US)
    assert acme.do(SetLimit("emea", "voice", 110)) == [limit(110), crossed(80, 100, 110)]
    assert acme.use(11, counterpart=US)[0].topic == "usage.rejected"
    assert acme.use(10, counterpart=US)[1:] == [crossed(100, 110, 110)]


def test_a_threshold_that_has_fired_is_not_crossed_by_setting_the_same_limit_again(company):
    acme = company(limit(100))
    assert acme.use(90, counterpart=US)[1:] == [crossed(80, 90, 100)]
    assert acme.do(SetLimit("emea", "voice", 100)) == [limit(100)]


# --- periods --------------------------------------------------------------------------------


def test_each_period_counts_and_fires_by_itself(company, at):
    acme = company(limit(100, since="2026-10"))
    for month in ("2026-10", "2026-11", "2026-12"):
        moment = at(f"{month}-01 00:00")
        told = acme.use(80, counterpart=US, at=moment, now=moment)
        assert told[1:] == [crossed(80, 80, 100, period=month)]
        assert acme.use(21, counterpart=US, at=moment, now=moment)[0].topic == "usage.rejected"


def test_a_late_record_meets_the_limit_of_its_own_period(company, at):
    acme = company(limit(100))
    october = at("2026-10-31 23:59")
    assert [told.topic for told in acme.use(500, counterpart=US, at=october)] == ["usage.charged"]
    acme.do(SetLimit("emea", "voice", 501, from_period="2026-10"))
    assert acme.use(2, counterpart=US, at=october)[0].topic == "usage.rejected"
    assert acme.use(1, counterpart=US, at=october)[1:] == [crossed(100, 501, 501, period="2026-10")]


def test_the_same_moment_before_and_after_midnight_counts_in_two_periods(company, at):
    acme = company(limit(100, since="2026-10"))
    midnight = at("2026-11-01 00:00")
    acme.use(100, counterpart=US, at=midnight - 1)
    assert acme.use(1, counterpart=US, at=midnight - 1)[0].topic == "usage.rejected"
    assert acme.use(79, counterpart=US, at=midnight)[0].topic == "usage.charged"


def test_a_limit_from_a_later_period_leaves_the_running_one_alone(company, at):
    acme = company(limit(100))
    acme.do(SetLimit("emea", "voice", 10, from_period="2026-12"))
    assert acme.use(50, counterpart=US)[0].topic == "usage.charged"
    december = at("2026-12-01 00:00")
    assert acme.use(11, counterpart=US, at=december, now=december)[0].topic == "usage.rejected"
    assert acme.use(50, counterpart=US)[0].topic == "usage.charged"


def test_a_limit_set_for_an_earlier_period_tells_of_each_period_it_concerns(company):
    bounds = bounds_of("2026-10", ZoneInfo("Europe/Berlin"))
    october = PeriodOpened("2026-10", *bounds, "frame", 1, overage=True)
    acme = company(october)
    acme.use(90, counterpart=US)
    acme.use(85, counterpart=US, at=october.ends_at - 1)
    told = acme.do(SetLimit("emea", "voice", 100, from_period="2026-10"))
    assert told == [
        limit(100, since="2026-10"),
        crossed(80, 90, 100, period="2026-11"),
        crossed(80, 85, 100, period="2026-10"),
    ]


def test_a_period_opened_later_has_the_limits_that_are_in_force(company, at):
    acme = company(limit(100))
    acme.do(OpenPeriod("2026-12"))
    family = acme.family(period="2026-12")
    assert (family.mark[1], family.ceiling[1]) == (80, 100)


@pytest.mark.parametrize(
    ("period", "in_force"),
    [
        ("2026-08", None),
        ("2026-09", InForce("emea", 1, (80, 100), "2026-09")),
        ("2026-10", InForce("emea", 2, (80, 100), "2026-10")),
        ("2026-11", None),
        ("2026-12", InForce("emea", 4, (80, 100), "2026-12")),
    ],
)
def test_which_limit_was_in_force_is_known_for_every_period(company, period, in_force):
    acme = company(
        limit(1, since="2026-09"),
        limit(2, since="2026-10"),
        limit(None, since="2026-11"),
        limit(4, since="2026-12"),
    )
    assert acme.tenant.limits.of(1, "voice", period) == in_force


def test_what_was_planned_for_later_stands_when_an_earlier_period_is_limited(company):
    acme = company(limit(10, since="2026-12"), limit(20, since="2026-11"))
    assert acme.tenant.limits.of(1, "voice", "2026-11").quantity == 20
    assert acme.tenant.limits.of(1, "voice", "2026-12").quantity == 10


# --- money ----------------------------------------------------------------------------------


def money(quantity, node="emea", thresholds=(80, 100)):
    return limit(quantity, node, thresholds, "money")


@pytest.mark.parametrize(
    ("history", "quantity", "outcome"),
    [
        # 1000 seconds are free, each further one costs 0.01, which is 10_000 micro-units.
        ([money(0)], 1000, []),
        ([money(0)], 1001, "usage.rejected"),
        ([money(1_000_000)], 1079, []),
        ([money(1_000_000)], 1080, [crossed(80, 800_000, 1_000_000, usage_type="money")]),
        (
            [money(1_000_000)],
            1100,
            [
                crossed(80, 1_000_000, 1_000_000, usage_type="money"),
                crossed(100, 1_000_000, 1_000_000, usage_type="money"),
            ],
        ),
        ([money(1_000_000)], 1101, "usage.rejected"),
        ([money(999_999, "acme")], 1100, "usage.rejected"),
        ([money(0, "apac")], 5000, []),
    ],
)
def test_money_limits_count_what_usage_costs(company, history, quantity, outcome):
    told, *fired = company(*history).use(quantity, counterpart=US)
    if isinstance(outcome, str):
        assert (told.topic, told.counted, told.reason) == (outcome, "money", "limit_exceeded")
    else:
        assert (told.topic, fired) == ("usage.charged", outcome)


def test_the_limit_on_usage_is_asked_before_the_limit_on_money(company):
    (told,) = company(money(0), limit(0, "acme")).use(2000, counterpart=US)
    assert (told.counted, told.stopped_by) == ("voice", 0)


def test_a_record_crosses_thresholds_of_usage_and_then_of_money(company):
    acme = company(limit(1250, "r-1"), money(1_000_000, "acme"))
    assert acme.use(1080, counterpart=US)[1:] == [
        crossed(80, 1080, 1250, "r-1"),
        crossed(80, 800_000, 1_000_000, "acme", "money"),
    ]


def test_a_rejected_record_costs_and_uses_nothing(company):
    acme = company(money(0))
    before = [list(acme.family().remaining), list(acme.family().used)]
    acme.use(2000, counterpart=US)
    assert [acme.family().remaining, acme.family().used] == before
    assert acme.tenant.charging.counts == {"charged": 0, "rejected": 1, "suspended": 0}


def test_other_usage_types_do_not_count(company):
    acme = company(limit(10))
    assert acme.use(5000, "data", "")[0].topic == "usage.charged"
    assert acme.family().used[1] == 0


def test_usage_that_costs_less_than_a_rounding_step_does_not_count_as_money(company, now):
    acme = company(money(0))
    rates = (Rate("data", "any", "0.00001", per=1000, included=False),)
    acme.do(PublishTariff("cheap", now - 1, "EUR", rates, decimals=2))
    told = acme.use(1000, "data", "")
    assert [event.topic for event in told] == ["usage.charged"]
    assert (told[0].amount, told[0].exact[0] > 0) == (0, True)


def test_handing_allowance_down_uses_nothing(company):
    acme = company(limit(10))
    assert [event.topic for event in acme.do(Allocate("acme", "emea", "voice", MONTH, 1000))] == [
        "bucket.transferred"
    ]


def test_all_marks_of_a_new_period_are_those_that_each_limit_would_set_alone():
    """They are set in one go when a period is opened, and one by one when a limit changes."""
    limits = Limits()
    given = [
        (0, 100, (80, 100), "2026-10"),
        (0, 50, (), "2026-11"),
        (1, None, (), "2026-10"),
        (2, 0, (50,), "2026-11"),
        (3, 7, (1, 99), "2026-12"),
        (4, 1000, (80, 100), "2026-09"),
        (4, None, (), "2026-11"),
        (5, 1000, (80, 100), "2026-09"),
        (6, 1000, (80, 100), "2026-09"),
    ]
    for ordinal, quantity, thresholds, since in given:
        event = LimitSet(f"n{ordinal}", "voice", quantity, thresholds, since)
        limits.by_type.setdefault("voice", {}).setdefault(ordinal, []).append(event)
    for period in ("2026-08", "2026-09", "2026-10", "2026-11", "2026-12"):
        together, alone = Family("voice", period, 8), Family("voice", period, 8)
        limits.arm(together)
        for ordinal in limits.by_type["voice"]:
            limits._arm(alone, ordinal)
        assert (together.mark, together.ceiling) == (alone.mark, alone.ceiling), period
