"""The inventory as a sheet through the API: as a whole or not at all, dated back, and only within reach."""

import time

import pytest
from life_changes import change

IMPORT = """
mutation($input: ImportInventoryInput!) { done: importInventory(input: $input) {
  __typename
  ... on ImportInventoryDone { count repeated eventSeqs events { topic count } }
  ... on DryRun { events { topic sentence } }
  ... on Problem { code message path }
  ... on BadLines { bad: count lines { line code message facts } }
} }"""
CORRECT = """
mutation($input: CorrectInventoryInput!) { done: correctInventory(input: $input) {
  __typename
  ... on RerateDone { job repeated }
  ... on BackdateShown { events { topic } difference { digest total { records } } }
  ... on ChangedSinceShown { difference { digest } }
  ... on Problem { code message path }
  ... on BadLines { count lines { line code message facts } }
} }"""
LIST = "{ inventory { nodes { id nodeId kind status lines label } } }"
JOBS = "{ ratingJobs { nodes { job status } } }"
HEAD = "resource,node,kind,status,lines,label,effective_from\n"
NEW = HEAD + "ben,apac,msisdn,,+44-20-7183-8799,Ben K.,\nanna,,,suspended,,,\n"
_keys = iter(range(10**9))


def imported(company, csv, *roles, nodes=(), **more):
    given = {"idempotencyKey": f"sheet-{next(_keys)}", "csv": csv, **more}
    return company.ask(IMPORT, *roles, nodes=nodes, input=given)["done"]


def corrected(company, csv, key="late", *, nodes=(), **more):
    return company.ask(CORRECT, nodes=nodes, input={"idempotencyKey": key, "csv": csv, **more})["done"]


def listed(company):
    return {one["id"]: one for one in company.ask(LIST)["inventory"]["nodes"]}


def test_a_sheet_is_shown_and_then_carried_out_as_a_whole(company, call):
    before = listed(company)
    shown = imported(company, NEW, dryRun=True)
    topics = [event["topic"] for event in shown["events"]]
    assert sorted(set(topics)) == [
        "hierarchy.resource_added",
        "hierarchy.resource_labelled",
        "hierarchy.resource_suspended",
    ]
    assert listed(company) == before
    done = imported(company, NEW)
    assert (done["__typename"], done["count"], len(done["eventSeqs"])) == (
        "ImportInventoryDone",
        2,
        len(topics),
    )
    ben, anna = (listed(company)[one] for one in ("ben", "anna"))
    assert (ben["nodeId"], ben["kind"], ben["lines"], ben["label"]) == ("apac", "msisdn", 1, "Ben K.")
    assert anna["status"] == "SUSPENDED"
    assert company.use(call("b1", 60, line="+442071838799", start="2026-11-15T12:00:00Z"))["charged"] == 1


def test_numbers_without_a_country_are_of_the_region(company, call):
    imported(company, HEAD + "ben,apac,msisdn,,02071838799,,\n", region="GB")
    assert company.use(call("b1", 60, line="+442071838799", start="2026-11-15T12:00:00Z"))["charged"] == 1
    told = imported(company, HEAD + "eve,apac,msisdn,,02071838798,,\n", region="Albion")
    assert (told["code"], told["path"]) == ("invalid_input", ["input", "region"])


def test_the_same_key_carries_a_sheet_out_once(company):
    first = imported(company, NEW, idempotencyKey="one")
    again = imported(company, NEW, idempotencyKey="one")
    assert (again["repeated"], again["eventSeqs"]) == (True, first["eventSeqs"])
    assert imported(company, NEW)["code"] == "nothing_to_change"


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("ben,nowhere,msisdn,,1,,\n", [(1, "unknown_node", "node")]),
        ("anna,,,,,,\nben,,,,,,\n", [(2, "unknown_resource", "resource")]),
        ("anna,,,gone,,,\nchen,,,,,,soon\n", [(2, "bad_value", "effectiveFrom")]),
        ("anna,,,gone,,,\nchen,,sip,,,,\n", [(1, "unknown_status", "status"), (2, "kind_stays", "kind")]),
        ("anna,apac\n", [(1, "bad_value", "line")]),
        ("anna,,,suspended,,,2026-11-01T00:00:00Z\n", [(1, "in_the_past", "since")]),
    ],
)
def test_one_bad_line_and_nothing_is_done(company, rows, told):
    before = listed(company)
    problem = imported(company, HEAD + "dora,emea,sip,,x,,\n" + rows)
    lines = [(one["line"] - 1, one["code"], one["facts"]["field"]) for one in problem["lines"]]
    assert (problem["__typename"], lines) == ("BadLines", told)
    assert problem["path"] == ["input", "csv"]
    assert all(one["message"] for one in problem["lines"])
    assert listed(company) == before


@pytest.mark.parametrize("csv", ["", "who,what\n", HEAD, HEAD + 'anna,"\n', "resource,resource\n" * 5_002])
def test_what_is_no_such_sheet_is_refused(company, csv):
    told = imported(company, csv)
    assert (told["__typename"], told["code"], told["path"]) == (
        "InvalidInput",
        "bad_sheet",
        ["input", "csv"],
    )


def test_who_reaches_a_part_changes_that_part(company):
    theirs = ("chen,,,suspended,,,", "chen,sales,,,,,", "ben,apac,sip,,b,,")
    far = HEAD + "\n".join(("anna,,,suspended,,,", *theirs, "bob,sales,sip,,c,,"))
    told = imported(company, far, nodes=("emea",))
    assert [(one["line"], one["code"]) for one in told["lines"]] == [
        (2, "unknown_resource"),
        (3, "exists_already"),
        (4, "unknown_node"),
    ]
    near = HEAD + "anna,,,suspended,,,\nbob,sales,sip,,c,,\n"
    assert imported(company, near, nodes=("emea",))["count"] == 2
    assert imported(company, near, "auditor")["__typename"] == "NotPermitted"


LATE = HEAD + "anna,apac,,,,,2026-11-12T00:00:00Z\nchen,,,,,,\n"


def test_what_is_dated_back_is_shown_confirmed_and_charged_again(company, call):
    company.use(*(call(f"c-{i}", 60, start=f"2026-11-{10 + i}T10:00:00Z") for i in range(5)))
    shown = corrected(company, LATE, dryRun=True)
    assert [event["topic"] for event in shown["events"]] == ["hierarchy.resource_moved", "rating.started"]
    assert shown["difference"]["total"]["records"] == "3"
    assert listed(company)["anna"]["nodeId"] == "sales"
    unconfirmed = corrected(company, LATE)
    assert unconfirmed["__typename"] == "ChangedSinceShown"
    digest = shown["difference"]["digest"]
    assert corrected(company, LATE, shown=digest)["repeated"] is False
    assert corrected(company, LATE, shown=digest)["repeated"] is True
    for _ in range(200):
        company.settle()
        (job,) = company.ask(JOBS, "carrier")["ratingJobs"]["nodes"]
        if job["status"] == "FINISHED":
            break
        time.sleep(0.05)
    assert job == {"job": "late", "status": "FINISHED"}
    assert listed(company)["anna"]["nodeId"] == "apac"


def test_what_is_dated_back_is_refused_as_other_sheets_are(company):
    told = corrected(company, HEAD + "anna,apac,,,,,2020-01-12T00:00:00Z\n", dryRun=True)
    assert [(one["line"], one["code"]) for one in told["lines"]] == [(1, "period_closed")]
    now = corrected(company, HEAD + "anna,apac,,,,,\n", dryRun=True)
    assert (now["__typename"], now["code"]) == ("InvalidInput", "nothing_dated_back")
    assert corrected(company, LATE, nodes=("emea",), dryRun=True)["count"] == 2
    assert corrected(company, LATE, key="", dryRun=True)["path"] == ["input", "idempotencyKey"]
    change(company, "suspendResource", "anna")
    assert corrected(company, "who\n")["code"] == "bad_sheet"
