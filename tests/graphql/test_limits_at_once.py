"""Many limits through the API: as lines or as a sheet, all of them or none, and only within reach."""

import pytest

DO = """
mutation($input: SetLimitsInput!) { done: setLimits(input: $input) {
  __typename
  ... on SetLimitsDone { limits crossed eventSeqs repeated }
  ... on Problem { code message path }
  ... on BadLines { count lines { line code message facts } }
  ... on DryRun { events { topic sentence } }
} }"""
LIMITS = """
query($node: ID!) { limits(node: $node, below: true) {
  nodes { nodeId usageType window kind quantity used mayRaise { role upTo } thresholds { percent quantity } }
} }"""
RAISABLE = """
mutation($input: SetLimitInput!) { done: setLimit(input: $input) { __typename } }"""
_keys = iter(range(10**9))


def set_limits(company, *roles, nodes=(), **given):
    given.setdefault("idempotencyKey", f"limits-{next(_keys)}")
    return company.ask(DO, *roles, nodes=nodes, input=given)["done"]


def limits(company, node="acme"):
    found = company.ask(LIMITS, node=node)["limits"]["nodes"]
    return {(one["nodeId"], one["usageType"], one["window"]): one for one in found}


def line(node, quantity, **more):
    return {"node": node, "usageType": "voice", "quantity": quantity, **more}


def test_a_sheet_and_lines_say_the_same(company):
    rows = ("emea,voice,10 min,day,soft,50%", "anna,voice,600,,,")
    sheet = "\n".join(("node,usage_type,quantity,window,kind,thresholds", *rows))
    by_sheet = set_limits(company, csv=sheet, dryRun=True)
    by_lines = set_limits(
        company,
        lines=[line("emea", "600", window="day", kind="SOFT", thresholds=[50]), line("anna", "600")],
        dryRun=True,
    )
    assert by_sheet == by_lines
    assert [event["topic"] for event in by_sheet["events"]] == ["limit.set", "limit.set"]
    assert limits(company) == {}
    done = set_limits(company, csv=sheet)
    assert (done["__typename"], done["limits"], len(done["eventSeqs"])) == ("SetLimitsDone", 2, 2)
    held = limits(company)
    assert held["emea", "voice", "day"]["kind"] == "SOFT"
    assert [at["percent"] for at in held["anna", "voice", "period"]["thresholds"]] == [80, 100]


def test_limits_count_what_was_used_and_tell_what_is_reached_already(company, call):
    company.use(call("c1", 120))
    done = set_limits(company, lines=[line("anna", "140"), line("emea", "100"), line("apac", "140")])
    assert (done["limits"], done["crossed"]) == (3, 3)
    assert limits(company)["emea", "voice", "period"]["used"] == "120"


def test_the_same_key_sets_them_once(company):
    first = set_limits(company, idempotencyKey="once", lines=[line("emea", "1")])
    again = set_limits(company, idempotencyKey="once", lines=[line("emea", "1")])
    assert (again["repeated"], again["eventSeqs"]) == (True, first["eventSeqs"])
    other = set_limits(company, idempotencyKey="once", lines=[line("emea", "2")])
    assert other["__typename"] == "IdempotencyMismatch"


def test_one_bad_line_and_none_of_the_others_holds(company):
    told = set_limits(
        company, lines=[line("emea", "1"), line("nobody", "1"), line("apac", "1", window="moon")]
    )
    # Who is not there is told first: it might be there, and not be yours.
    assert (told["__typename"], told["count"]) == ("BadLines", 1)
    assert [(one["line"], one["code"]) for one in told["lines"]] == [(2, "unknown_node")]
    told = set_limits(company, lines=[line("emea", "1"), line("emea", "2"), line("apac", "1", window="moon")])
    assert (told["code"], told["count"]) == ("lines_refused", 2)
    assert [(one["line"], one["code"], one["facts"]["field"]) for one in told["lines"]] == [
        (2, "limit_twice", "node"),
        (3, "bad_window", "window"),
    ]
    assert all(one["message"] for one in told["lines"])
    assert limits(company) == {}


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({}, ["input", "csv"]),
        ({"csv": "", "lines": []}, ["input", "csv"]),
        ({"lines": [{"node": "emea", "usageType": "voice"}]}, ["input", "lines"]),
        ({"csv": "who,what\n"}, ["input", "csv"]),
        ({"lines": []}, ["input", "lines"]),
        ({"idempotencyKey": "", "lines": [line("emea", "1")]}, ["input", "idempotencyKey"]),
    ],
)
def test_what_says_no_limits_is_refused_with_its_field(company, given, path):
    told = set_limits(company, **given)
    assert (told["__typename"], told["path"]) == ("InvalidInput", path)


def test_who_reaches_a_part_limits_that_part(company):
    told = set_limits(company, nodes=("emea",), lines=[line("anna", "1"), line("chen", "1")])
    assert [(one["line"], one["code"]) for one in told["lines"]] == [(2, "unknown_node")]
    assert set_limits(company, nodes=("emea",), lines=[line("anna", "1")])["limits"] == 1
    assert set_limits(company, "auditor", lines=[line("anna", "1")])["__typename"] == "NotPermitted"


def test_who_may_raise_a_limit_stays_as_it_is(company):
    rule = {"mayRaise": [{"role": "telecoms_manager", "percent": 150}]}
    given = {"idempotencyKey": "r", "node": "emea", "usageType": "voice", "quantity": "100", **rule}
    company.ask(RAISABLE, input=given)
    set_limits(company, lines=[line("emea", "120")])
    held = limits(company)["emea", "voice", "period"]
    assert (held["quantity"], held["mayRaise"]) == ("120", [{"role": "telecoms_manager", "upTo": "180"}])


def test_what_the_rule_of_a_limit_forbids_is_told_by_line(company):
    rule = {"mayRaise": [{"role": "carrier"}]}
    given = {"idempotencyKey": "s", "node": "emea", "usageType": "voice", "quantity": "100", **rule}
    company.ask(RAISABLE, input=given)
    told = set_limits(company, lines=[line("apac", "1"), line("emea", "120")])
    assert [(one["line"], one["code"]) for one in told["lines"]] == [(2, "may_not_raise")]
