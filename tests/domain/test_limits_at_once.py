"""Many limits in one command: what single ones would lead to, all of them or none."""

import pytest

from allotment.domain.canonical import lines
from allotment.domain.contract import QUANTITY_MAX
from allotment.domain.limit import LimitSet, SetAnyLimit, SetLimit, ThresholdCrossed
from allotment.domain.limits_at_once import LIMITS_MAX, SetLimits, at_once
from allotment.domain.raising import MayRaise

MONTH = "2026-11"
US = "+12125550100"
EVERYWHERE = [
    SetLimit("emea", "voice", 100),
    SetAnyLimit("emea", "voice", 50, (80,), window="day", kind="soft", note="a try"),
    SetLimit("emea", "money", 7),
    SetLimit("apac", "voice", None),
    SetAnyLimit("r-1", "voice", 10, may_raise=(MayRaise("manager", 120, 0),)),
    SetLimit("r-2", "voice", 0, ()),
]


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ([SetLimit("nobody", "voice", 1)], [(1, "node", "unknown_node")]),
        ([SetLimit("emea", "fax", 1)], [(1, "usageType", "unknown_usage_type")]),
        ([SetLimit("emea", "voice", QUANTITY_MAX + 1)], [(1, "quantity", "quantity_out_of_range")]),
        ([SetLimit("emea", "voice", 1, (0,))], [(1, "thresholds", "bad_thresholds")]),
        ([SetLimit("emea", "voice", 1, (80,), "soon")], [(1, "fromPeriod", "not_a_period")]),
        ([SetAnyLimit("emea", "voice", 1, window="moon")], [(1, "window", "bad_window")]),
        ([SetLimit("emea", "voice", 1), SetLimit("emea", "voice", 2)], [(2, "node", "limit_twice")]),
        (
            [SetLimit("emea", "voice", 1), SetLimit("nobody", "voice", 1), SetLimit("apac", "voice", -1)],
            [(2, "node", "unknown_node"), (3, "quantity", "quantity_out_of_range")],
        ),
    ],
)
def test_lines_that_cannot_hold_are_told_and_no_other_one_holds(acme, limits, told):
    code, facts = acme.refusal(at_once(limits))
    assert code == "lines_refused"
    assert [(one["line"], one["field"], one["code"]) for one in facts["lines"]] == told
    assert facts["refused"] == len(told)
    assert all(one["remedy"] for one in facts["lines"])
    assert not acme.tenant.limits.by_type.get("voice", {})


@pytest.mark.parametrize("count", [0, LIMITS_MAX + 1])
def test_a_command_has_some_lines_and_not_too_many(acme, count):
    assert acme.ask(SetLimits((SetLimit("emea", "voice", 1),) * count)) == "too_many_lines"


def test_many_limits_lead_to_what_they_lead_to_one_by_one(acme, told):
    other = told(*acme.history)
    one_by_one = [event for limit in EVERYWHERE for event in acme.do(limit)]
    together = other.do(at_once(EVERYWHERE))
    assert sorted(map(repr, together)) == sorted(map(repr, one_by_one))
    assert sorted(lines(other.tenant)) == sorted(lines(acme.tenant))


def test_a_plain_line_keeps_who_may_raise_the_limit(acme):
    rule = (MayRaise("manager", 120, 0),)
    acme.do(SetAnyLimit("emea", "voice", 100, may_raise=rule))
    (event,) = acme.do(at_once([SetLimit("emea", "voice", 50)]))
    assert event == LimitSet("emea", "voice", 50, (80, 100), MONTH, may_raise=rule)


def test_thresholds_that_usage_has_reached_already_are_told_beside_their_limit(acme):
    acme.use(90, counterpart=US)
    events = acme.do(at_once([SetLimit("emea", "voice", 100), SetLimit("apac", "voice", 100)]))
    assert [type(event) for event in events] == [LimitSet, ThresholdCrossed, LimitSet]
    assert events[1] == ThresholdCrossed("emea", "voice", MONTH, 80, 90, 100)
