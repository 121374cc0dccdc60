"""What a network element tells of a change of price, as it is read at the charging door."""

import json

import msgspec
import pytest

from allotment.backend.authorising import AskUnits
from allotment.backend.web.charging_request import group_reports, read
from allotment.backend.web.problem_details import HttpProblem
from allotment.domain.session_request import GroupReport

AT, MOMENT = "2026-11-15T12:00:00Z", 1_794_744_000_000_000


def told(*containers):
    body = {
        "invocationSequenceNumber": 2,
        "multipleUnitUsage": [{"ratingGroup": 2, "usedUnitContainer": list(containers)}],
    }
    return group_reports(read(json.dumps(body).encode()))[0]


def used(volume, trigger="", at=""):
    triggers = {"triggers": [{"triggerType": trigger}]} if trigger else {}
    return {"totalVolume": volume, **triggers, **({"triggerTimestamp": at} if at else {})}


@pytest.mark.parametrize(
    ("containers", "changes"),
    [
        ([used(5)], ()),
        ([used(5, "VALIDITY_TIME", AT), used(7)], ()),
        ([used(5, "TARIFF_TIME_CHANGE"), used(7)], ()),  # when, it does not say
        ([used(5, "TARIFF_TIME_CHANGE", AT), used(7)], ((5, MOMENT),)),
        ([used(5, "TARIFF_TIME_CHANGE", "2026-11-15T13:00:00+01:00"), used(7)], ((5, MOMENT),)),
        ([used(0, "TARIFF_TIME_CHANGE", AT), used(12)], ((0, MOMENT),)),
        (
            [used(5, "TARIFF_TIME_CHANGE", AT), used(3, "TARIFF_TIME_CHANGE", AT), used(4)],
            ((5, MOMENT), (8, MOMENT)),
        ),
    ],
)
def test_a_container_that_ends_with_a_change_of_price_tells_what_was_used_before_it(containers, changes):
    report = told(*containers)
    assert (report.changes, report.used) == (changes, sum(one["totalVolume"] for one in containers))


@pytest.mark.parametrize("at", ["noon", "2026-11-15T12:00:00"])
def test_a_moment_that_is_none_is_refused_by_its_place(at):
    with pytest.raises(HttpProblem) as refused:
        told(used(5, "TARIFF_TIME_CHANGE", at))
    assert "multipleUnitUsage[0].usedUnitContainer[0].triggerTimestamp" in refused.value.detail


def test_a_request_that_tells_no_change_has_the_content_it_always_had():
    plain = AskUnits("pgw", "s", 2, (GroupReport(2, "data", 5, 0),))
    content = msgspec.msgpack.decode(msgspec.msgpack.encode(plain.first_form()))
    assert content["groups"] == [{"rating_group": 2, "usage_type": "data", "used": 5, "requested": 0}]
    changed = AskUnits("pgw", "s", 2, (GroupReport(2, "data", 5, 0, ((1, MOMENT),)),))
    assert changed.first_form() is changed
