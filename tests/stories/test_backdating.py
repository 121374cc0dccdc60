"""The hierarchy was told wrong for some days: each correction is shown, confirmed, and stands on every page.

Acme has 600 seconds of voice, 60 of them Anna's cost centre's. Calls to "+44" cost 0.05 a minute.
Anna is on Sales, below EMEA, since ever; it is noon on 15 November.
"""

import time

import pytest

from allotment.backend.looking_back import rebuild_and_compare
from allotment.backend.verifying import verify

CHANGE = "records wasAmount amount difference"
SHOWN = f"digest total {{ {CHANGE} }} kinds {{ nodeId usageType zone change {{ {CHANGE} }} }}"
BACKDATE = f"""mutation($input: BackdateInput!) {{ backdate(input: $input) {{
  __typename ... on RerateDone {{ job repeated }}
  ... on BackdateShown {{ leaves events {{ topic sentence }} difference {{ {SHOWN} }} }}
  ... on ChangedSinceShown {{ difference {{ {SHOWN} }} }}
  ... on CorrectionRuns {{ job changed sessions retryAfterMs }} ... on Problem {{ code message path }}
}} }}"""
NODES = "{ invoicePreview { nodes { nodeId records amount } } }"
COUNTERS = """query($id: ID!) { node(id: $id) { balances { usageType subtree { used } } } }"""
USAGES = """{ usages { nodes { recordId status amount currentAmount reratings { cause amount nodeId } } } }"""


def backdate(company, act, ident, at, key="k", roles=(), nodes=(), **given):
    given = {"act": act, "id": ident, "at": at, "idempotencyKey": key, **given}
    return company.ask(BACKDATE, *roles, nodes=nodes, input=given)["backdate"]


def confirmed(company, act, ident, at, key="k", **given):
    """Looked at, confirmed, and carried out; what was shown."""
    shown = backdate(company, act, ident, at, key, dryRun=True, **given)
    assert shown["__typename"] == "BackdateShown", shown
    digest = shown["difference"]["digest"]
    told = backdate(company, act, ident, at, key, shown=digest, **given)
    assert told == {"__typename": "RerateDone", "job": key, "repeated": False}
    ended(company, key)
    return shown


def ended(company, job):
    found = company.until_ended(job)
    assert (found["status"], found["left"]) == ("FINISHED", "0")


def is_whole(company):
    isolation = company.portal.engine.isolation
    report = verify(isolation, company.id)
    assert report.ok, (report.first_offending_seq, report.problem)
    assert not rebuild_and_compare(isolation, company.id)


def billed(company):
    return {
        node["nodeId"]: (node["records"], node["amount"])
        for node in company.ask(NODES)["invoicePreview"]["nodes"]
    }


def used(company, *idents):
    """Seconds of voice used at and below."""
    told = (company.ask(COUNTERS, id=ident)["node"]["balances"] for ident in idents)
    return [one["subtree"]["used"] for balances in told for one in balances if one["usageType"] == "voice"]


@pytest.fixture
def charged(company, call):
    company.use(*(call(f"c-{i}", 115, start=f"2026-11-{10 + i}T10:00:00Z") for i in range(5)))
    return company


def test_a_division_was_reorganised_last_week(charged):
    shown = confirmed(charged, "MOVE", "sales", "2026-11-12T00:00:00Z", to="apac", note="ticket 4711")
    assert [one["topic"] for one in shown["events"]] == ["hierarchy.node_moved", "rating.started"]
    # Five calls of two minutes: three of them are on Sales below APAC.
    assert used(charged, "acme", "emea", "apac", "sales") == ["600", "240", "360", "600"]
    is_whole(charged)
    again = backdate(charged, "MOVE", "sales", "2026-11-12T00:00:00Z", to="emea")
    assert again["code"] == "idempotency_mismatch"


def test_a_number_was_in_use_before_its_owner_was_added(company, call):
    line = "+442071838799"
    company.use(call("early", 60, line=line), call("older", 60, line=line, start="2026-11-01T10:00:00Z"))
    company.portal.clock[0] += 1_000_000
    added = company.ask(
        """mutation($input: AddResourceInput!) { addResource(input: $input) { __typename } }""",
        input={"idempotencyKey": "a", "id": "ben", "node": "apac", "kind": "msisdn", "lines": [line]},
    )
    assert added["addResource"]["__typename"] == "LifeDone"
    shown = confirmed(company, "JOIN", "ben", "2026-11-10T00:00:00Z", note="came on Tuesday")
    assert shown["difference"]["total"]["records"] == "1"
    assert used(company, "apac", "ben") == ["60", "60"]
    waiting = company.ask("{ suspense { nodes { recordId } } }")["suspense"]["nodes"]
    assert [one["recordId"] for one in waiting] == ["older"]
    is_whole(company)


def test_who_left_on_thursday_has_used_nothing_since(charged):
    before = billed(charged)
    shown = confirmed(charged, "END", "anna", "2026-11-12T00:00:00Z")
    assert shown["difference"]["total"]["records"] == "3"
    assert used(charged, "acme", "sales", "anna") == ["240", "240", "240"]
    assert billed(charged) != before
    usages = {one["recordId"]: one for one in charged.ask(USAGES)["usages"]["nodes"]}
    assert usages["c-4"]["currentAmount"] == "0.000000"
    assert not usages["c-1"]["reratings"]
    is_whole(charged)


def test_a_region_that_was_told_too_late_gets_its_cost_centre_from_then_on(charged):
    about = {"to": "acme", "name": "DACH", "kind": "division", "note": "new"}
    shown = confirmed(charged, "CREATE", "dach", "2026-11-11T00:00:00Z", **about)
    assert [one["topic"] for one in shown["events"]] == ["hierarchy.node_added", "rating.started"]
    assert "since 2026-11-11" in shown["events"][0]["sentence"]
    assert shown["difference"]["total"]["records"] == "0"
    confirmed(charged, "MOVE", "sales", "2026-11-12T00:00:00Z", "then", to="dach")
    assert used(charged, "acme", "emea", "dach", "sales") == ["600", "240", "360", "600"]
    confirmed(charged, "RENAME", "dach", "2026-11-12T00:00:00Z", "named", name="D-A-CH")
    told = charged.ask('{ node(id: "dach") { name since } }')["node"]
    assert told == {"name": "D-A-CH", "since": "2026-11-11T00:00:00.000000Z"}
    history = charged.ask('{ nodeHistory(node: "dach", usage: false) { nodes { sentence } } }')["nodeHistory"]
    assert any("D-A-CH, since 2026-11-12" in one["sentence"] for one in history["nodes"])
    is_whole(charged)


def test_a_region_was_merged_into_another_last_week(charged):
    shown = confirmed(charged, "MERGE", "emea", "2026-11-12T00:00:00Z", to="apac", note="one region")
    assert [one["topic"] for one in shown["events"]] == ["hierarchy.node_closed", "rating.started"]
    assert "stays paid by whom it was paid" in shown["leaves"][0]
    assert used(charged, "acme", "emea", "apac", "sales") == ["600", "240", "360", "600"]
    is_whole(charged)
    again = backdate(charged, "MERGE", "emea", "2026-11-13T00:00:00Z", "again", to="apac", dryRun=True)
    assert (again["code"], again["path"]) == ("node_closed", ["input", "id"])


def test_what_a_merged_cost_centre_held_pays_for_its_calls_on_the_other(charged):
    shown = confirmed(charged, "MERGE", "sales", "2026-11-12T00:00:00Z", to="apac", note="one team")
    assert [one["topic"] for one in shown["events"]] == ["hierarchy.node_closed", "rating.started"]
    assert used(charged, "acme", "emea", "apac", "sales") == ["600", "240", "360", "240"]
    is_whole(charged)


def test_a_node_is_closed_from_when_it_was_empty(charged):
    told = backdate(charged, "CLOSE", "sales", "2026-11-12T00:00:00Z", dryRun=True)
    assert (told["code"], told["path"]) == ("not_empty_then", ["input", "at"])
    assert "anna stood on sales" in told["message"]
    confirmed(charged, "MOVE", "anna", "2026-11-12T00:00:00Z", to="apac")
    told = backdate(charged, "CLOSE", "sales", "2026-11-11T00:00:00Z", "c", nodes=("sales",), dryRun=True)
    assert "anna" not in told["message"]
    shown = confirmed(charged, "CLOSE", "sales", "2026-11-12T00:00:00Z", "closed")
    assert [one["topic"] for one in shown["events"]] == ["hierarchy.node_closed", "rating.started"]
    is_whole(charged)


def test_a_stolen_phone_is_suspended_from_when_it_was_stolen_until_it_was_found(charged, call):
    confirmed(charged, "SUSPEND", "anna", "2026-11-12T00:00:00Z", "stolen")
    assert used(charged, "acme", "anna") == ["240", "240"]
    charged.use(call("late", 60, start="2026-11-13T12:00:00Z"))
    is_whole(charged)
    confirmed(charged, "RESUME", "anna", "2026-11-13T00:00:00Z", "found")
    # Of what was taken back two calls are charged again, and the one that was denied.
    assert used(charged, "acme", "anna") == ["540", "540"]
    usages = {one["recordId"]: one for one in charged.ask(USAGES)["usages"]["nodes"]}
    assert (usages["late"]["status"], len(usages["late"]["reratings"])) == ("REJECTED", 1)
    is_whole(charged)


@pytest.mark.parametrize(
    ("act", "given", "code"),
    [
        ("MOVE", {"id": "anna"}, "invalid_input"),
        ("END", {"id": "anna", "to": "apac"}, "invalid_input"),
        ("MOVE", {"id": "nobody", "to": "apac"}, "unknown_node"),
        ("MOVE", {"id": "sales", "to": "nowhere"}, "unknown_node"),
        ("MOVE", {"id": "emea", "to": "sales"}, "cycle"),
        ("CREATE", {"id": "dach", "kind": "group"}, "invalid_input"),
        ("CREATE", {"id": "dach", "to": "nowhere", "kind": "group"}, "unknown_node"),
        ("CREATE", {"id": "dach", "to": "acme", "kind": "team"}, "unknown_kind"),
        ("CREATE", {"id": "emea", "to": "acme", "kind": "group"}, "exists_already"),
        ("RENAME", {"id": "emea"}, "bad_text"),
        ("RENAME", {"id": "nobody", "name": "x"}, "unknown_node"),
        ("END", {"id": "anna", "name": "x"}, "invalid_input"),
        ("RENAME", {"id": "emea", "name": "x", "kind": "group"}, "invalid_input"),
        ("MERGE", {"id": "emea"}, "invalid_input"),
        ("MERGE", {"id": "emea", "to": "sales"}, "cycle"),
        ("MERGE", {"id": "acme", "to": "sales"}, "root_stays"),
        ("CLOSE", {"id": "emea", "to": "apac"}, "invalid_input"),
        ("CLOSE", {"id": "emea"}, "not_empty_then"),
        ("END", {"id": "anna", "at": "2027-11-10T00:00:00Z"}, "not_in_the_past"),
        ("END", {"id": "anna", "at": "2025-11-10T00:00:00Z"}, "period_closed"),
        ("RESUME", {"id": "anna"}, "not_suspended"),
        ("END", {"id": "anna", "idempotencyKey": ""}, "invalid_input"),
    ],
)
def test_what_cannot_be_dated_back_is_told(company, act, given, code):
    given = {"act": act, "at": "2026-11-12T00:00:00Z", "idempotencyKey": "k", "dryRun": True, **given}
    assert company.ask(BACKDATE, input=given)["backdate"]["code"] == code


def test_what_was_not_shown_is_not_done(charged, call):
    at = "2026-11-12T00:00:00Z"
    told = backdate(charged, "END", "anna", at)
    assert (told["__typename"], told["code"]) == ("ChangedSinceShown", "changed_since_shown")
    charged.use(call("more", 60, start="2026-11-14T12:00:00Z"))
    again = backdate(charged, "END", "anna", at, shown=told["difference"]["digest"])
    assert again["difference"]["total"]["records"] == "4"
    assert not charged.jobs()


def test_who_is_bound_to_a_node_dates_back_only_what_it_sees(company):
    at = "2026-11-12T00:00:00Z"
    told = backdate(company, "MOVE", "sales", at, nodes=("emea",), to="apac", dryRun=True)
    assert (told["code"], told["path"]) == ("unknown_node", ["input", "to"])
    told = backdate(company, "END", "anna", at, nodes=("apac",), dryRun=True)
    assert (told["code"], told["path"]) == ("unknown_node", ["input", "id"])
    told = backdate(company, "END", "anna", at, roles=("auditor",), dryRun=True)
    assert told["code"] == "not_permitted"


def ask_switch(company, path, number, used=None, **more):
    """As a network element reports on a call that it has leave for."""
    usage = {"ratingGroup": 1}
    if used is None:
        usage["requestedUnit"] = {}
    else:
        usage["usedUnitContainer"] = [{"localSequenceNumber": 1, "time": used}]
    answer = company.portal.client.post(
        path,
        json={"invocationSequenceNumber": number, "multipleUnitUsage": [usage], **more},
        headers={"Authorization": f"Bearer {company.token('mediation')}"},
    )
    assert answer.status_code < 300, answer.text
    return answer


def test_a_call_that_still_runs_is_waited_for_and_follows(company):
    opened = ask_switch(
        company,
        "/v1/charging/chargingdata",
        1,
        nfConsumerIdentification={"nFName": "switch-1", "nodeFunctionality": "IMS_Node"},
        chargingId="call",
        subscriberIdentifier="+442071838750",
        invocationTimeStamp="2026-11-15T11:00:00Z",
        counterpart="+442079460000",
    )
    given = {"at": "2026-11-14T00:00:00Z", "to": "apac"}
    shown = backdate(company, "MOVE", "sales", **given, dryRun=True)
    digest = shown["difference"]["digest"]
    assert backdate(company, "MOVE", "sales", **given, key="job", shown=digest)["job"] == "job"
    time.sleep(1)
    (job,) = company.jobs()
    assert job["status"] == "RUNNING"
    other = backdate(company, "END", "anna", "2026-11-14T00:00:00Z", dryRun=True)
    assert (other["code"], other["job"], other["sessions"]) == ("correction_runs", "job", 1)
    assert (other["changed"], other["retryAfterMs"]) == ("0", 30_000)
    ask_switch(company, f"{opened.headers['Location']}/release", 2, used=120)
    ended(company, "job")
    assert used(company, "emea", "apac", "sales") == ["0", "120", "120"]
    is_whole(company)
