"""One session, several rating groups: each answered, held and charged by itself, in one request.

Acme has 600 seconds of voice and 1,000,000 bytes of data, and counts messages of its sensors.
"""

from itertools import count

import pytest
from fixtures_app import DEFINITION
from openapi_shape import check_answer

from allotment.backend.verifying import verify
from allotment.backend.web.charging_openapi import charging_openapi

PATH = "/v1/charging/chargingdata"
OPENAPI = charging_openapi()
SENSORS = {
    **DEFINITION,
    "usage_types": {"location_fix": "location fix"},
    "tariffs": [
        {
            **DEFINITION["tariffs"][0],
            "rates": [
                *DEFINITION["tariffs"][0]["rates"],
                {"usage_type": "location_fix", "zone": "any", "price": "0.01", "included": False},
            ],
        }
    ],
}
SESSIONS = "{ sessions { nodes { session status ratingGroup usageType used granted held } } }"
USAGES = "{ usages { nodes { recordId status billed usageType } } }"


class Gateway:
    """A network element that authorises several services of one device at once."""

    def __init__(self, company):
        self.company = company
        self.numbers = count(1)

    def post(self, path, *groups, **more):
        body = {"invocationSequenceNumber": next(self.numbers), "multipleUnitUsage": [*groups]} | more
        answer = self.company.portal.client.post(
            path, json=body, headers={"Authorization": f"Bearer {self.company.token('mediation')}"}
        )
        self.company.settle()
        check_answer(OPENAPI, path, answer)
        return answer

    def open(self, *groups, **more):
        return self.post(
            PATH,
            *groups,
            **{
                "nfConsumerIdentification": {"nFName": "gateway"},
                "chargingId": "g-1",
                "subscriberIdentifier": "+442071838750",
                "invocationTimeStamp": "2026-11-15T11:00:00Z",
                "counterpart": "+442079460000",
                **more,
            },
        )


def asks(group, amount=None, used=None, usage_type=""):
    unit = {1: "time", 2: "totalVolume", 10: "totalVolume", 11: "totalVolume"}.get(
        group, "serviceSpecificUnits"
    )
    told = {"ratingGroup": group}
    if usage_type:
        told["usageType"] = usage_type
    if amount is not None:
        told["requestedUnit"] = {unit: amount} if amount else {}
    if used is not None:
        told["usedUnitContainer"] = [{"localSequenceNumber": 1, unit: used}]
    return told


def results(answer):
    return {
        one["ratingGroup"]: (one["resultCode"], next(iter(one.get("grantedUnit", {"": 0}).values())))
        for one in answer.json()["multipleUnitInformation"]
    }


@pytest.fixture
def gateway(company):
    return Gateway(company)


def test_each_rating_group_is_answered_held_and_charged_by_itself(company, gateway):
    opened = gateway.open(asks(1, 60), asks(2, 5000))
    assert (opened.status_code, results(opened)) == (201, {1: ("SUCCESS", 60), 2: ("SUCCESS", 5000)})
    ref = opened.headers["location"]
    running = company.ask(SESSIONS)["sessions"]["nodes"]
    assert [(one["session"], one["ratingGroup"], one["held"]) for one in running] == [
        ("g-1+2", 2, "5000"),
        ("g-1", 1, "60"),
    ]
    assert results(gateway.post(f"{ref}/update", asks(2, 1000, used=4500))) == {2: ("SUCCESS", 1000)}
    # What it is silent about ends as well, with what was reported of it.
    assert gateway.post(f"{ref}/release", asks(2, used=500)).status_code == 204
    charged = company.ask(USAGES)["usages"]["nodes"]
    assert [(one["recordId"], one["billed"]) for one in charged] == [("g-1+2", "5000")]
    ended = company.ask(SESSIONS)["sessions"]["nodes"]
    assert {(one["session"], one["status"], one["held"]) for one in ended} == {
        ("g-1", "RELEASED", "0"),
        ("g-1+2", "RELEASED", "0"),
    }
    assert verify(company.portal.engine.isolation, company.id).problem == ""


def test_what_was_used_before_units_were_granted_is_charged_by_itself(company, gateway):
    opened = gateway.open(asks(1, 60, used=45), asks(2, 1000))
    assert (opened.status_code, results(opened)) == (201, {1: ("SUCCESS", 60), 2: ("SUCCESS", 1000)})
    ref = opened.headers["location"]
    only_told = gateway.post(f"{ref}/update", asks(3, used=2))
    assert results(only_told) == {3: ("RATING_FAILED", 0)}
    only_told = gateway.post(f"{ref}/update", asks(10, used=20, usage_type="data"))
    assert results(only_told) == {10: ("SUCCESS", 0)}
    assert gateway.post(f"{ref}/release", asks(11, used=7, usage_type="data")).status_code == 204
    told = {(one["recordId"], one["status"]) for one in company.ask(USAGES)["usages"]["nodes"]}
    assert {name for name, status in told if status == "CHARGED"} == {"g-1+1+1", "g-1+10+3", "g-1+11+4"}
    waiting = company.ask("{ suspense(first: 10) { nodes { recordId reason } } }")["suspense"]["nodes"]
    assert [(one["recordId"], one["reason"]) for one in waiting] == [("g-1+3+2", "no_rate")]
    assert verify(company.portal.engine.isolation, company.id).problem == ""


def test_a_rating_group_may_join_a_running_session(company, gateway):
    ref = gateway.open(asks(2, 1000)).headers["location"]
    joined = gateway.post(f"{ref}/update", asks(2, 1000, used=1000), asks(1, 30))
    assert results(joined) == {2: ("SUCCESS", 1000), 1: ("SUCCESS", 30)}
    gateway.post(f"{ref}/release", asks(1, used=30), asks(2, used=10))
    told = {one["recordId"]: one["billed"] for one in company.ask(USAGES)["usages"]["nodes"]}
    assert told == {"g-1": "2000", "g-1+1": "60"}


def test_one_group_that_nobody_can_rate_does_not_keep_the_others_out(company, gateway):
    opened = gateway.open(asks(3, 1), asks(2, 1000))
    assert results(opened) == {3: ("RATING_FAILED", 0), 2: ("SUCCESS", 1000)}
    ref = opened.headers["location"]
    assert results(gateway.post(f"{ref}/update", asks(2, 10, used=10))) == {2: ("SUCCESS", 10)}
    nobody = gateway.open(asks(3, 1), chargingId="g-2")
    assert (nobody.status_code, nobody.json()["cause"]) == (403, "CHARGING_NOT_APPLICABLE")


def test_several_groups_of_one_type_share_what_is_left(company, gateway):
    company.ask(
        "mutation($input: SetLimitInput!) { setLimit(input: $input) { __typename } }",
        input={"idempotencyKey": "l", "node": "emea", "usageType": "data", "quantity": "1000000"},
    )
    opened = gateway.open(
        asks(10, 600_000, usage_type="data"), asks(11, 600_000, usage_type="data"), chargingId="g-3"
    )
    # There is not plenty for both: the second gets its share, and comes again.
    assert results(opened) == {10: ("SUCCESS", 600_000), 11: ("SUCCESS", 200_000)}
    ref = opened.headers["location"]
    updated = gateway.post(
        f"{ref}/update",
        asks(10, 0, used=600_000, usage_type="data"),
        asks(11, 300_000, used=200_000, usage_type="data"),
    )
    assert results(updated) == {10: ("SUCCESS", 100_000), 11: ("SUCCESS", 100_000)}
    assert updated.json()["multipleUnitInformation"][1]["finalUnitIndication"] == {
        "finalUnitAction": "TERMINATE"
    }
    used = asks(10, 0, used=100_000, usage_type="data"), asks(11, 0, used=100_000, usage_type="data")
    last = gateway.post(f"{ref}/update", *used)
    assert {code for code, _ in results(last).values()} == {"QUOTA_LIMIT_REACHED"}


def test_types_that_a_carrier_has_defined_work_in_sessions(portal):
    portal.clock[0] = 1_794_744_000_000_000
    company = portal.tenant(SENSORS)
    gateway = Gateway(company)
    opened = gateway.open(asks(100, 20, usage_type="location_fix"))
    assert results(opened) == {100: ("SUCCESS", 20)}
    ref = opened.headers["location"]
    assert gateway.post(f"{ref}/release", asks(100, used=20, usage_type="location_fix")).status_code == 204
    (usage,) = company.ask(USAGES)["usages"]["nodes"]
    assert (usage["usageType"], usage["billed"]) == ("location_fix", "20")
    unknown = gateway.open(asks(101, 1, usage_type="teleports"), chargingId="g-9")
    assert (unknown.status_code, unknown.json()["code"]) == (400, "unknown_usage_type")


def test_what_is_sent_again_is_answered_group_by_group_as_the_first_time(company, gateway):
    groups = asks(1, 60), asks(2, 5000)
    first = gateway.open(*groups, invocationSequenceNumber=1)
    assert gateway.open(*groups, invocationSequenceNumber=1).json() == first.json()
    ref = first.headers["location"]
    told = asks(2, 70, used=5), asks(1, 40, used=30)
    updates = [gateway.post(f"{ref}/update", *told, invocationSequenceNumber=2) for _ in range(2)]
    assert updates[0].json() == updates[1].json()
    assert [one["ratingGroup"] for one in updates[0].json()["multipleUnitInformation"]] == [2, 1]
    used = asks(1, used=1), asks(2, used=1)
    ends = [gateway.post(f"{ref}/release", *used, invocationSequenceNumber=3) for _ in range(2)]
    assert [end.status_code for end in ends] == [204, 204]
    assert len(company.ask(USAGES)["usages"]["nodes"]) == 2
    older = gateway.post(f"{ref}/update", asks(1, 1), invocationSequenceNumber=2)
    assert (older.status_code, older.json()["code"]) == (409, "idempotency_mismatch")


def test_a_report_keeps_the_groups_alive_that_it_does_not_tell_of(company, gateway):
    portal = company.portal
    ref = gateway.open(asks(1, 60), asks(2, 5000)).headers["location"]
    for _ in range(3):
        portal.clock[0] += 400_000_000
        portal.run(portal.engine.time.carry_out)
        assert gateway.post(f"{ref}/update", asks(2, 5000, used=10)).status_code == 200
    portal.clock[0] += 900_000_000
    portal.run(portal.engine.time.carry_out)
    company.settle()
    assert {one["status"] for one in company.ask(SESSIONS)["sessions"]["nodes"]} == {"EXPIRED"}
    late = gateway.post(f"{ref}/update", asks(1, 0, used=20), asks(2, 0, used=20))
    assert set(results(late).values()) == {("END_USER_SERVICE_REJECTED", 0)}
    told = {one["recordId"] for one in company.ask(USAGES)["usages"]["nodes"]}
    assert told == {"g-1+late", "g-1+2", "g-1+2+late"}


def test_events_of_several_groups_are_charged_at_once(company, gateway):
    charged = gateway.open(asks(1, 61), asks(2, 10), asks(3, 1), oneTimeEvent=True)
    assert results(charged) == {1: ("SUCCESS", 61), 2: ("SUCCESS", 10), 3: ("RATING_FAILED", 0)}
    again = gateway.open(asks(1, 61), asks(2, 10), asks(3, 1), oneTimeEvent=True)
    assert results(again) == results(charged)
    told = {one["recordId"] for one in company.ask(USAGES)["usages"]["nodes"]}
    assert {"g-1", "g-1+2"} <= told


@pytest.mark.parametrize(
    ("groups", "param"),
    [
        ([{"ratingGroup": 0}], "multipleUnitUsage[0].ratingGroup"),
        ([asks(1), {"ratingGroup": 50}], "multipleUnitUsage[1].ratingGroup"),
        ([asks(1, usage_type="data")], "multipleUnitUsage[0].usageType"),
        ([asks(50, usage_type="No Such")], "multipleUnitUsage[0].usageType"),
        ([asks(1), asks(1)], "multipleUnitUsage"),
        (
            [asks(1 + place, usage_type="data" if place > 3 else "") for place in range(33)],
            "multipleUnitUsage",
        ),
        (
            [{"ratingGroup": 1, "usedUnitContainer": [{"time": 1}, {"totalVolume": 1}]}],
            "multipleUnitUsage[0].usedUnitContainer[1]",
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_place_in_the_request(company, gateway, groups, param):
    answer = gateway.open(*groups)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_value")
    (invalid,) = answer.json()["invalidParams"]
    assert (invalid["param"], bool(invalid["reason"])) == (param, True)
    assert answer.json()["cause"] == "MANDATORY_IE_INCORRECT"
