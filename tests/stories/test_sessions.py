"""Authorising calls while they last, through the product's HTTP door, as a switch does it.

Acme has 600 seconds of voice: 240 its own, 240 with EMEA and 60 of those handed on to Sales.
"""

import gzip
from itertools import count

import pytest
from openapi_shape import check_answer

from allotment.backend.verifying import verify
from allotment.backend.web.charging_door import BODY_BYTES_MAX
from allotment.backend.web.charging_openapi import charging_openapi
from allotment.backend.web.charging_request import SESSION_MAX

OPENAPI = charging_openapi()
PATH = "/v1/charging/chargingdata"
BALANCE = """query($id: ID!) {
  hierarchy(under: $id, depth: 0, usageTypes: ["voice"]) { root { balances {
    reserved available consumed subtree { used reserved }
  } } }
}"""
SESSIONS = """query($under: ID, $status: SessionStatus) { sessions(under: $under, status: $status) {
  nodes { session status used granted held reason stoppedBy resourceId nodeId overrun }
} }"""
LIMIT = """mutation($input: SetLimitInput!) { setLimit(input: $input) { __typename } }"""
USAGES = "{ usages { nodes { id recordId status billed } } }"
UNKNOWN_TYPE = {"ratingGroup": 50, "usageType": "fax", "requestedUnit": {"serviceSpecificUnits": 1}}
EXPLAIN = "query($id: ID!) { explain(usageId: $id) { line counterpart quantity } }"


class Switch:
    """A network element that authorises its calls."""

    def __init__(self, company):
        self.company = company
        self.numbers = count(1)

    def post(self, path, role="mediation", **body):
        token = self.company.token(role)
        answer = self.company.portal.client.post(
            path, json=body, headers={"Authorization": f"Bearer {token}"}
        )
        self.company.settle()
        check_answer(OPENAPI, path, answer)
        return answer

    def body(self, unit=None, used=None, **more):
        usage = {"ratingGroup": 1}
        if unit is not None:
            usage["requestedUnit"] = {"time": unit} if unit else {}
        if used is not None:
            usage["usedUnitContainer"] = [{"localSequenceNumber": 1, "time": used}]
        return {"invocationSequenceNumber": next(self.numbers), "multipleUnitUsage": [usage], **more}

    def opening(self, call="c-1", unit=0, line="+442071838750", to="+442079460000", **more):
        return self.body(
            unit,
            nfConsumerIdentification={"nFName": "switch-1", "nodeFunctionality": "IMS_Node"},
            chargingId=call,
            subscriberIdentifier=line,
            invocationTimeStamp="2026-11-15T11:00:00Z",
            counterpart=to,
            **more,
        )

    def open(self, *args, **more):
        return self.post(PATH, **self.opening(*args, **more))

    def update(self, ref, unit=0, used=0):
        return self.post(f"{ref}/update", **self.body(unit, used))

    def release(self, ref, used=0):
        return self.post(f"{ref}/release", **self.body(None, used))


@pytest.fixture
def switch(company):
    return Switch(company)


def unit(answer):
    return answer.json()["multipleUnitInformation"][0]


def voice(company, node="acme"):
    (balance,) = company.ask(BALANCE, id=node)["hierarchy"]["root"]["balances"]
    below = balance.pop("subtree")
    return {name: int(value) for name, value in balance.items()}, {k: int(v) for k, v in below.items()}


def sessions(company, **asked):
    return company.ask(SESSIONS, **asked)["sessions"]["nodes"]


def test_a_call_is_authorised_while_it_lasts_and_charged_when_it_ends(company, switch):
    opened = switch.open(unit=60)
    assert (opened.status_code, unit(opened)["grantedUnit"]) == (201, {"time": 60})
    ref = opened.headers["location"]
    assert voice(company, "sales") == (
        {"reserved": 60, "available": 0, "consumed": 0},
        {"used": 60, "reserved": 60},
    )
    (running,) = sessions(company, under="emea", status="OPEN")
    assert (running["session"], running["held"], running["resourceId"]) == ("c-1", "60", "anna")

    updated = switch.update(ref, 60, 45)
    assert unit(updated)["grantedUnit"] == {"time": 60}
    assert voice(company, "emea")[0]["reserved"] == 60

    assert switch.release(ref, 30).status_code == 204
    assert voice(company, "sales")[0] == {"reserved": 0, "available": 0, "consumed": 60}
    assert voice(company)[1] == {"used": 120, "reserved": 0}
    (ended,) = sessions(company)
    assert (ended["status"], ended["used"], ended["held"]) == ("RELEASED", "75", "0")

    (usage,) = company.ask(USAGES)["usages"]["nodes"]
    assert (usage["recordId"], usage["billed"]) == ("c-1", "120")
    told = company.ask(EXPLAIN, id=usage["id"])["explain"]
    assert (told["line"], told["counterpart"], told["quantity"]) == ("+442071838750", "+442079460000", "75")
    assert verify(company.portal.engine.isolation, company.id).problem == ""


def test_the_choice_may_be_left_to_us_and_the_last_units_are_said_to_be_the_last(company, switch):
    company.ask(
        LIMIT, input={"idempotencyKey": "l", "node": "sales", "usageType": "voice", "quantity": "180"}
    )
    first = switch.open(to="+15550100")
    assert unit(first)["grantedUnit"] == {"time": 22}
    assert "finalUnitIndication" not in unit(first)
    last = unit(switch.update(first.headers["location"], 500, 22))
    assert last["grantedUnit"] == {"time": 158}
    assert last["finalUnitIndication"] == {"finalUnitAction": "TERMINATE"}
    none = unit(switch.update(first.headers["location"], 60, 158))
    assert (none["resultCode"], "grantedUnit" in none) == ("QUOTA_LIMIT_REACHED", False)
    (running,) = sessions(company, status="OPEN")
    assert (running["reason"], running["stoppedBy"]) == ("limit_exceeded", "sales")


def test_a_call_that_a_limit_forbids_is_denied_and_it_can_be_asked_why(company, switch):
    company.ask(LIMIT, input={"idempotencyKey": "l", "node": "emea", "usageType": "voice", "quantity": "0"})
    denied = switch.open(unit=60)
    assert (denied.status_code, denied.json()["code"]) == (403, "quota_limit_reached")
    (told,) = sessions(company, under="anna", status="DENIED")
    assert (told["reason"], told["stoppedBy"], told["nodeId"]) == ("limit_exceeded", "emea", "sales")
    assert sessions(company, under="apac") == []
    assert company.ask(SESSIONS, nodes=("apac",))["sessions"]["nodes"] == []
    (below,) = company.ask(SESSIONS, nodes=("sales",))["sessions"]["nodes"]
    assert (below["session"], below["stoppedBy"]) == ("c-1", None)


def test_what_is_sent_again_is_answered_as_the_first_time(company, switch):
    body = switch.opening(unit=60)
    first, again = switch.post(PATH, **body), switch.post(PATH, **body)
    assert (first.json(), first.headers["location"]) == (again.json(), again.headers["location"])
    ref, report = first.headers["location"], switch.body(60, 30)
    assert switch.post(f"{ref}/update", **report).json() == switch.post(f"{ref}/update", **report).json()
    ending = switch.body(None, 10)
    assert [switch.post(f"{ref}/release", **ending).status_code for _ in range(2)] == [204, 204]
    assert voice(company)[1]["used"] == 60
    assert switch.post(f"{ref}/release", **{**ending, "multipleUnitUsage": []}).status_code == 409


def test_an_immediate_event_is_charged_at_once_and_once(company, switch):
    event = switch.opening("e-1", 61, oneTimeEvent=True)
    first, again = switch.post(PATH, **event), switch.post(PATH, **event)
    assert (first.status_code, unit(first)) == (201, unit(again))
    assert voice(company)[1] == {"used": 120, "reserved": 0}
    company.ask(LIMIT, input={"idempotencyKey": "l", "node": "emea", "usageType": "voice", "quantity": "130"})
    denied = switch.opening("e-2", 61, oneTimeEvent=True)
    told = [switch.post(PATH, **denied).json() for _ in range(2)]
    assert [one["code"] for one in told] == ["quota_limit_reached"] * 2
    assert [one["detail"] for one in told] == ["the limit of emea: 120 of 130 voice used"] * 2


def test_an_event_that_contradicts_another_is_never_leave_however_often_it_is_sent(company, switch):
    assert switch.post(PATH, **switch.opening("e-1", 61, oneTimeEvent=True)).status_code == 201
    other = switch.opening("e-1", 62, oneTimeEvent=True)
    told = [switch.post(PATH, **other | {"invocationSequenceNumber": number}) for number in (0, 0, 7)]
    assert {(one.status_code, one.json()["code"]) for one in told} == {(409, "conflicting_duplicate")}
    assert voice(company)[1] == {"used": 120, "reserved": 0}


def test_a_call_that_falls_silent_is_ended_and_a_late_report_still_counts(company, switch):
    portal = company.portal
    ref = switch.open(unit=60).headers["location"]
    switch.update(ref, 60, 60)
    portal.clock[0] += 600_000_000
    assert portal.run(portal.engine.time.carry_out) >= 1
    company.settle()
    assert [one["status"] for one in sessions(company)] == ["EXPIRED"]
    late = unit(switch.update(ref, 60, 60))
    assert (late["resultCode"], "grantedUnit" in late) == ("END_USER_SERVICE_REJECTED", False)
    assert [usage["recordId"] for usage in company.ask(USAGES)["usages"]["nodes"]] == ["c-1+late", "c-1"]
    assert voice(company)[1] == {"used": 120, "reserved": 0}


@pytest.mark.parametrize(
    ("changes", "status", "code", "word"),
    [
        ({"subscriberIdentifier": "+442071830000"}, 404, "user_unknown", "line"),
        ({"subscriberIdentifier": ""}, 400, "bad_value", "subscriberIdentifier"),
        ({"nfConsumerIdentification": None}, 400, "bad_value", "nFName"),
        ({"chargingId": ""}, 400, "bad_value", "chargingId"),
        ({"chargingId": "x" * 196}, 400, "bad_value", "chargingId"),
        ({"invocationTimeStamp": "2026-11-15T10:00:00"}, 400, "bad_value", "zone"),
        ({"invocationTimeStamp": "2027-11-15T10:00:00Z"}, 400, "in_the_future", "clock"),
        ({"invocationTimeStamp": "2025-11-15T10:00:00Z"}, 403, "charging_not_applicable", "contract"),
        ({"invocationSequenceNumber": -1}, 400, "bad_value", "invocationSequenceNumber"),
        ({"invocationSequenceNumber": "x"}, 400, "bad_request", "invocationSequenceNumber"),
        ({"multipleUnitUsage": []}, 400, "bad_value", "multipleUnitUsage"),
        ({"multipleUnitUsage": [{"ratingGroup": 9}]}, 400, "bad_value", "ratingGroup"),
        ({"multipleUnitUsage": [{"ratingGroup": 3}]}, 403, "charging_not_applicable", "tariff"),
        (
            {"multipleUnitUsage": [{"ratingGroup": 1, "requestedUnit": {"time": -1}}]},
            400,
            "bad_value",
            "time",
        ),
        (
            {"multipleUnitUsage": [{"ratingGroup": 1, "requestedUnit": {"totalVolume": 500}}]},
            400,
            "bad_value",
            "multipleUnitUsage[0].requestedUnit: give time",
        ),
        (
            {"oneTimeEvent": True, "multipleUnitUsage": [{"ratingGroup": 1, "requestedUnit": {}}]},
            400,
            "bad_value",
            "multipleUnitUsage[0].requestedUnit: give time, from 1",
        ),
        (
            {"oneTimeEvent": True, "multipleUnitUsage": [{"ratingGroup": 1}]},
            400,
            "bad_value",
            "multipleUnitUsage[0].requestedUnit",
        ),
        ({"direction": "sideways"}, 400, "bad_value", "direction"),
        ({"oneTimeEvent": True, "oneTimeEventType": "PEC"}, 400, "bad_value", "oneTimeEventType"),
    ],
)
def test_what_cannot_be_authorised_is_told_with_its_remedy(company, switch, changes, status, code, word):
    answer = switch.post(PATH, **(switch.opening(unit=60) | changes))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert word in answer.json()["detail"]
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"invocationTimeStamp": "2027-11-15T10:00:00Z"}, "in_the_future", "invocationTimeStamp"),
        ({"subscriberIdentifier": "+442071830000"}, "user_unknown", "subscriberIdentifier"),
        (
            {"multipleUnitUsage": [UNKNOWN_TYPE]},
            "unknown_usage_type",
            "multipleUnitUsage[0].usageType",
        ),
        ({"multipleUnitUsage": [{**UNKNOWN_TYPE, "usageType": "money"}]}, "bad_value", "multipleUnitUsage"),
    ],
)
def test_what_is_refused_for_a_member_names_it(company, switch, once, changes, code, param):
    more = {"oneTimeEvent": True} if once else {}
    told = switch.post(PATH, **(switch.opening(unit=60) | changes | more)).json()
    (invalid,) = told["invalidParams"]
    assert (told["code"], invalid["param"], invalid["reason"] in told["detail"]) == (code, param, True)


def test_a_session_id_that_is_too_long_is_told_how_long_it_may_be(switch):
    for length in (SESSION_MAX + 1, 300):
        told = switch.open("x" * length).json()
        assert told["detail"] == f"chargingId: must be 1 to {SESSION_MAX} printable characters"
    assert switch.open("x" * SESSION_MAX).status_code == 201


def test_a_number_that_was_used_for_another_body_is_named(switch):
    first = switch.opening(unit=60)
    assert switch.post(PATH, **first).status_code == 201
    answer = switch.post(PATH, **(first | {"counterpart": "+442079460001"}))
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_mismatch")
    assert "this invocationSequenceNumber was used in this session" in answer.json()["detail"]
    assert answer.json()["invalidParams"][0]["param"] == "invocationSequenceNumber"


@pytest.mark.parametrize(
    ("content", "encoding", "status", "code"),
    [
        (gzip.compress(b"{}", mtime=0), "gzip", 415, "unsupported_encoding"),
        (gzip.compress(b"{}", mtime=0), "", 415, "unsupported_encoding"),
        (b"{}", "br", 415, "unsupported_encoding"),
        (b" " * (BODY_BYTES_MAX + 1), "", 413, "too_large"),
        (b"{}", "identity", 400, "bad_request"),
    ],
)
@pytest.mark.parametrize("verb", ["", "/update", "/release"])
def test_a_body_that_is_packed_or_too_large_is_told_so(company, verb, content, encoding, status, code):
    headers = {"Authorization": f"Bearer {company.token('mediation')}"}
    headers |= {"Content-Encoding": encoding} if encoding else {}
    path = f"{PATH}/c3cfYw{verb}" if verb else PATH
    answer = company.portal.client.post(path, content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "in parts" not in answer.json()["detail"]


def test_a_limit_on_money_that_denies_a_session_is_told_as_money(company, switch, call):
    company.use(call("c-0", 720))
    company.ask(
        LIMIT, input={"idempotencyKey": "l", "node": "emea", "usageType": "money", "quantity": "120000"}
    )
    denied = switch.open(unit=60)
    assert denied.json()["detail"] == "a limit on money per period: 0.10 of 0.12 is reached"


def test_reports_that_count_nothing_or_nobody_are_refused(company, switch):
    ref = switch.open(unit=60).headers["location"]
    wrong = {"ratingGroup": 1, "usedUnitContainer": [{"totalVolume": 5}]}
    body = switch.body() | {"multipleUnitUsage": [wrong]}
    assert switch.post(f"{ref}/update", **body).json()["code"] == "bad_value"
    for nobody in (f"{PATH}/c3dpdGNo", f"{PATH}/!", f"{PATH}/{'A' * 900}", ref[:-4]):
        assert switch.update(nobody).status_code == 404
    assert switch.post(PATH, role="telecoms_manager", **switch.opening("c-2")).status_code == 403
