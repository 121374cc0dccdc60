"""What waits stands beside the bill, and what was received adds up: for who sees the whole enterprise."""

import pytest

PREVIEW = """query($asOf: AsOf) { invoicePreview(period: "2026-11", asOf: $asOf) {
  total records waiting { records valueAtRisk unknown }
} }"""
ACCURACY = """query($from: String, $to: String) { accuracy(fromDay: $from, toDay: $to) {
  day source received charged duplicate suspended rejected unreadable late amount value recycled
} }"""
IMPORTS = "{ imports { nodes { name finished } pageInfo { hasNextPage } } }"
RECYCLE = """mutation($input: RecycleUsageInput!) { recycleUsage(input: $input) {
  __typename ... on Problem { code path } ... on BulkDone { lookedAt charged suspended }
} }"""
AMEND = """mutation($input: AmendUsageInput!) { amendUsage(input: $input) {
  __typename ... on Problem { code path message }
} }"""


def test_the_invoice_preview_says_what_waits_and_what_it_may_cost(company, call):
    company.use(call("c1", 60), call("c2", 61, line="+49301"), {"id": "c3", "source": "switch-1"})
    before = company.settle()
    told = company.ask(PREVIEW)["invoicePreview"]
    # 61 s are two minutes at 0.05. Of what cannot be read the average of its source is 0.
    assert told["waiting"] == {"records": "2", "valueAtRisk": "0.100000", "unknown": "0"}
    assert (told["total"], told["records"]) == ("0.000000", "1")
    company.use(call("c4", 60, line="+49302"))
    assert company.ask(PREVIEW)["invoicePreview"]["waiting"]["records"] == "3"
    assert company.ask(PREVIEW, asOf={"seq": str(before)})["invoicePreview"] == told
    assert company.ask(PREVIEW, nodes=("sales",))["invoicePreview"]["waiting"] is None


def test_what_was_received_adds_up_by_day_and_source(company, call):
    late = call("late", 60, start="2026-11-12T10:00:00Z")
    company.use(call("c1", 60), call("c1", 60), late, call("c2", 60, line="+49301"), {"id": "c3"})
    company.portal.run(company.portal.engine.tallies.flush)
    company.settle()
    days = company.ask(ACCURACY)["accuracy"]
    assert {day["day"] for day in days} == {"2026-11-15"}
    for day in days:
        parts = (int(day[name]) for name in ("charged", "duplicate", "suspended", "rejected"))
        assert int(day["received"]) == sum(parts)
    (switch,) = (day for day in days if day["source"] == "switch-1")
    assert (switch["charged"], switch["duplicate"], switch["suspended"], switch["late"]) == (
        "2", "1", "1", "1",
    )  # fmt: skip
    assert switch["value"] == "0.050000"
    assert company.ask(ACCURACY, nodes=("sales",))["accuracy"] == []
    assert company.ask(IMPORTS)["imports"]["nodes"] == []


@pytest.mark.parametrize(
    ("days", "code"),
    [
        ({"from": "yesterday"}, "not_a_date"),
        ({"from": "2026-11-16", "to": "2026-11-15"}, "bad_days"),
        ({"from": "2020-01-01", "to": "2026-11-15"}, "bad_days"),
    ],
)
def test_days_that_are_none_are_refused(company, days, code):
    assert company.refused(ACCURACY, **days) == code


@pytest.mark.parametrize(
    ("given", "code", "field"),
    [
        ({"first": 0}, "invalid_input", "first"),
        ({"ids": ["x"]}, "invalid_input", "ids"),
        ({"idempotencyKey": ""}, "invalid_input", "idempotencyKey"),
        ({"filter": {"day": "soon"}}, "not_a_date", "startsOn"),
    ],
)
def test_what_cannot_be_recycled_is_a_problem_with_its_field(company, given, code, field):
    told = company.ask(RECYCLE, "carrier", input={"idempotencyKey": "k", **given})["recycleUsage"]
    assert (told["code"], told["path"]) == (code, ["input", field])


def test_a_correction_of_what_does_not_wait_or_cannot_be_is_a_problem(company, call):
    unknown = {"idempotencyKey": "k", "id": "00" * 16, "note": "x", "line": "+441"}
    assert company.ask(AMEND, "carrier", input=unknown)["amendUsage"]["code"] == "not_waiting"
    company.use(call("c1", 60, line="+49301"))
    listed = company.ask("{ waitingRecords { nodes { id } } }")["waitingRecords"]["nodes"]
    about = {"idempotencyKey": "k2", "id": listed[0]["id"], "note": "x"}
    for changes, code in [({"direction": "sideways"}, "bad_record"), ({}, "nothing_amended")]:
        assert company.ask(AMEND, "carrier", input=about | changes)["amendUsage"]["code"] == code


def test_a_day_filters_by_the_tenants_calendar(company, call):
    # 23:30 UTC is the next day in Berlin.
    company.use(call("c1", 60, line="+49301", start="2026-11-13T23:30:00Z"))
    asked = {"idempotencyKey": "k", "dryRun": True}
    for day, found in (("2026-11-13", 0), ("2026-11-14", 1)):
        told = company.ask(RECYCLE, "carrier", input=asked | {"filter": {"day": day}})["recycleUsage"]
        assert told["lookedAt"] == found
