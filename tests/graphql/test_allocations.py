"""Allocation through the API: caps, bulk, templates, schedules, freezing, and how it stands afterwards.

The enterprise of fixtures_app: 600 seconds of voice, EMEA has 240 of them, Sales 60, Acme the rest, 300.
"""

import pytest
from fixtures_app import NOON

PROBLEMS = """
  ... on Problem { code message path }
  ... on OverCommitted { node available committed percent }
  ... on Frozen { node frozenBy }
  ... on BadLines { count lines { line code message facts } }
  ... on InsufficientAllowance { available }
  ... on DryRun { events { topic sentence } }
"""
DO = (
    """
mutation($input: %s!) { done: %s(input: $input) {
  __typename
  ... on AllocationDone {
    period transfers caps firstSeq lastSeq repeated shown: node { id balances { usageType own available } }
  }
"""
    + PROBLEMS
    + "} }"
)
KEEP = (
    """
mutation($input: %s!) { done: %s(input: $input) {
  __typename
  ... on SettingDone { name nextAt eventSeqs repeated }
"""
    + PROBLEMS
    + "} }"
)
STANDS = """
query($under: ID, $period: String, $asOf: AsOf) {
  allocations(under: $under, period: $period, usageTypes: ["voice"], resources: true, asOf: $asOf) {
    period
    members {
      id frozen frozenBy parentId
      allocations { own available received allocated cap drawnFromAbove committed overCommitted }
    }
  }
}
"""
INPUTS = {
    "setCap": "SetCapInput",
    "bulkTransfer": "BulkTransferInput",
    "applyTemplate": "ApplyTemplateInput",
    "returnUnused": "ReturnUnusedInput",
    "freezeNode": "FreezeInput",
    "thawNode": "FreezeInput",
    "defineTemplate": "DefineTemplateInput",
    "scheduleAllocation": "ScheduleAllocationInput",
    "cancelSchedule": "CancelScheduleInput",
}
KEPT = ("defineTemplate", "scheduleAllocation", "cancelSchedule")
_keys = iter(range(10**9))


def do(company, mutation, *roles, nodes=(), **given):
    given.setdefault("idempotencyKey", f"k{next(_keys)}")
    query = (KEEP if mutation in KEPT else DO) % (INPUTS[mutation], mutation)
    return company.ask(query, *roles, nodes=nodes, input=given)["done"]


def stands(company, under=None, nodes=(), **asked):
    found = company.ask(STANDS, nodes=nodes, under=under, **asked)["allocations"]
    return {
        one["id"]: {**(one["allocations"] or [{}])[0], "frozen": one["frozen"], "by": one["frozenBy"]}
        for one in found["members"]
    }


def cap(company, node, quantity, **more):
    return do(company, "setCap", node=node, usageType="voice", quantity=quantity, **more)


def test_a_cap_bounds_usage_and_shows_how_far_it_is(company, call):
    done = cap(company, "sales", "120")
    assert (done["__typename"], done["caps"], done["shown"]["id"]) == ("AllocationDone", 1, "sales")
    company.use(call("c1", 120), call("c2", 120))
    told = stands(company)
    assert (told["sales"]["cap"], told["sales"]["drawnFromAbove"]) == ("120", "120")
    assert (told["emea"]["committed"], told["acme"]["committed"]) == ("120", "0")
    assert told["emea"]["own"] == "240"
    history = company.ask('{ nodeHistory(node: "sales", usage: false) { nodes { sentence } } }')[
        "nodeHistory"
    ]
    assert [one["sentence"] for one in history["nodes"]][:2] == [
        "Sales reached its cap for 2026-11: 120 seconds of voice from above.",
        "Sales may draw 120 seconds of voice per period from above, from 2026-11 on.",
    ]


def test_a_cap_is_lifted_by_an_explicit_null_and_never_by_forgetting_it(company):
    cap(company, "sales", "0")
    given = {"node": "sales", "usageType": "voice"}
    assert do(company, "setCap", **given)["path"] == ["input", "quantity"]
    cap(company, "sales", None)
    assert stands(company)["sales"]["cap"] is None


def test_a_dry_run_changes_nothing(company):
    told = cap(company, "sales", "120", dryRun=True)
    assert [event["topic"] for event in told["events"]] == ["allocation.cap_set"]
    assert stands(company)["sales"]["cap"] is None


def test_more_than_there_is_cannot_be_promised(company):
    told = cap(company, "sales", "541")
    figures = (told["__typename"], told["node"], told["available"], told["committed"], told["percent"])
    assert figures == ("OverCommitted", "acme", "300", "301", 0)
    assert cap(company, "sales", "540")["__typename"] == "AllocationDone"
    blocked = company.ask(
        "mutation($input: TransferInput!) { done: allocate(input: $input) { __typename"
        " ... on OverCommitted { node committed } } }",
        input={
            "idempotencyKey": "x",
            "source": "acme",
            "target": "apac",
            "usageType": "voice",
            "quantity": "1",
        },
    )
    assert blocked["done"] == {"__typename": "OverCommitted", "node": "acme", "committed": "300"}


def test_who_is_bound_to_a_subtree_is_not_told_what_stands_above_it(company):
    told = do(company, "setCap", nodes=("emea",), node="sales", usageType="voice", quantity="5000")
    assert (told["__typename"], told["code"]) == ("InvalidInput", "over_committed")
    assert "300" not in told["message"]
    assert "acme" not in told["message"]
    do(company, "freezeNode", node="acme")
    assert stands(company, nodes=("emea",))["sales"] == {
        **stands(company)["sales"],
        "by": None,
        "frozen": True,
    }
    told = do(company, "returnUnused", nodes=("emea",), node="sales")
    assert (told["__typename"], told["node"], told["frozenBy"]) == ("Frozen", "sales", None)
    assert "acme" not in told["message"]


# --- bulk -----------------------------------------------------------------------------------

SHEET = """action,source,target,usage_type,quantity,period,note
allocate,acme,apac,voice,2 min,,for the fair
cap,,sales,voice,60,,
return,sales,emea,voice,10,,
"""


def test_a_sheet_is_carried_out_whole_and_once(company):
    dry = do(company, "bulkTransfer", csv=SHEET, dryRun=True)
    assert len(dry["events"]) == 3
    done = do(company, "bulkTransfer", csv=SHEET, idempotencyKey="once")
    assert (done["transfers"], done["caps"], done["repeated"]) == (2, 1, False)
    assert do(company, "bulkTransfer", csv=SHEET, idempotencyKey="once")["repeated"] is True
    told = stands(company)
    assert (told["apac"]["own"], told["sales"]["own"], told["sales"]["cap"]) == ("120", "50", "60")


def to_apac(quantity):
    ends = {"source": "acme", "target": "apac"}
    return {"action": "ALLOCATE", **ends, "usageType": "voice", "quantity": quantity}


def test_lines_may_be_given_as_input(company):
    lines = [to_apac("7")]
    assert do(company, "bulkTransfer", lines=lines)["transfers"] == 1
    assert do(company, "bulkTransfer", lines=lines, csv=SHEET)["path"] == ["input", "csv"]


@pytest.mark.parametrize(
    ("rows", "bad"),
    [
        ("allocate,acme,apac,voice,301,,\nallocate,acme,apac,voice,1,,", [(1, "insufficient_allowance")]),
        ("allocate,acme,nowhere,voice,1,,\nallocate,nobody,apac,voice,1,,",
         [(1, "unknown_node"), (2, "unknown_node")]),
        ("allocate,acme,apac,voice,x,,\nsteal,acme,apac,voice,1,,\nallocate,acme",
         [(1, "bad_quantity"), (2, "unknown_action"), (3, "bad_row")]),
    ],
)  # fmt: skip
def test_one_bad_line_and_nothing_is_done(company, rows, bad):
    told = do(company, "bulkTransfer", csv=SHEET.splitlines()[0] + "\n" + rows)
    assert (told["__typename"], told["count"]) == ("BadLines", len(bad))
    assert [(one["line"], one["code"]) for one in told["lines"]] == bad
    assert all("{" not in one["message"] for one in told["lines"])
    assert stands(company)["apac"]["own"] == "0"


def test_a_sheet_without_a_heading_is_refused(company):
    assert do(company, "bulkTransfer", csv="allocate,acme,apac,voice,1,,")["code"] == "bad_heading"


def test_lines_of_others_do_not_exist(company):
    told = do(company, "bulkTransfer", nodes=("emea",), csv=SHEET)
    assert [(one["line"], one["code"]) for one in told["lines"]] == [(1, "unknown_node")]
    assert do(company, "bulkTransfer", "auditor", csv=SHEET)["code"] == "not_permitted"


# --- templates, what is unused, freezing ------------------------------------------------------


def test_a_template_divides_and_what_is_unused_comes_back(company):
    rule = {"share": "PERCENT", "amount": "1000"}
    do(company, "defineTemplate", template="tenth", usageType="voice", rule=rule)
    assert do(company, "applyTemplate", node="acme", template="tenth")["transfers"] == 2
    told = stands(company)
    assert (told["emea"]["own"], told["apac"]["own"], told["acme"]["own"]) == ("270", "30", "240")
    (template,) = company.ask("{ templates { template usageType share amount to } }")["templates"]
    assert template == {
        "template": "tenth",
        "usageType": "voice",
        "share": "PERCENT",
        "amount": "1000",
        "to": "children",
    }
    back = do(company, "returnUnused", node="emea")
    assert (back["transfers"], back["shown"]["balances"][0]["own"]) == (2, "0")
    bound = do(company, "defineTemplate", nodes=("emea",), template="x", usageType="voice", rule=rule)
    assert bound["code"] == "not_permitted"


def test_what_is_unused_goes_to_nobody_beyond_the_reach(company):
    assert do(company, "returnUnused", nodes=("emea",), node="emea")["code"] == "unknown_node"
    assert do(company, "returnUnused", nodes=("emea",), node="sales")["__typename"] == "AllocationDone"


def test_a_frozen_node_is_stopped_but_for_emergency_calls(company, call):
    assert do(company, "freezeNode", node="emea", note="theft")["__typename"] == "AllocationDone"
    answer = company.use(call("c1", 60), call("c2", 60, "112"), call("c3", 60, line="+442071838751"))
    assert (answer["rejected"], answer["charged"] + answer["suspended"]) == (1, 2)
    told = stands(company)
    assert (told["sales"]["frozen"], told["sales"]["by"], told["apac"]["frozen"]) == (True, "emea", False)
    assert do(company, "bulkTransfer", csv=SHEET)["lines"][0]["code"] == "frozen"
    assert do(company, "freezeNode", node="emea")["code"] == "frozen_already"
    do(company, "thawNode", node="emea")
    assert company.use(call("c4", 60))["rejected"] == 0


def test_the_past_is_shown_as_it_was(company):
    seq = cap(company, "sales", "50")["lastSeq"]
    cap(company, "sales", "10")
    assert stands(company, asOf={"seq": seq})["sales"]["cap"] == "50"
    assert stands(company)["sales"]["cap"] == "10"


# --- schedules --------------------------------------------------------------------------------

SCHEDULES = """{ schedules(first: 2) {
  nodes { schedule every status nextAt lastAt skippedCode skippedLine changes lines { action target } }
  pageInfo { hasNextPage endCursor }
} }"""


def test_time_carries_out_what_is_scheduled(company):
    lines = [to_apac("7")]
    done = do(
        company,
        "scheduleAllocation",
        schedule="daily",
        lines=lines,
        every="DAY",
        firstAt="2026-11-15T13:00:00+01:00",
    )
    assert done["code"] == "not_ahead"
    given = {"schedule": "daily", "lines": lines, "every": "DAY", "firstAt": "2026-11-15T13:30:00+01:00"}
    assert do(company, "scheduleAllocation", **given)["nextAt"] == "2026-11-15T12:30:00.000000Z"
    company.portal.clock[0] = NOON + 3_600_000_000
    company.portal.run(company.portal.engine.time.carry_out)
    company.settle()
    assert stands(company)["apac"]["own"] == "7"
    (schedule,) = company.ask(SCHEDULES)["schedules"]["nodes"]
    assert (schedule["status"], schedule["nextAt"], schedule["changes"]) == (
        "WAITING",
        "2026-11-16T12:30:00.000000Z",
        1,
    )
    assert do(company, "cancelSchedule", nodes=("emea",), schedule="daily")["code"] == "unknown_schedule"
    assert do(company, "cancelSchedule", schedule="daily")["__typename"] == "SettingDone"
    assert company.ask(SCHEDULES)["schedules"]["nodes"][0]["status"] == "CANCELLED"
    assert company.ask(SCHEDULES, nodes=("emea",))["schedules"]["nodes"] == []


def test_for_each_period_it_stands_in_the_commit_that_opens_it(company, call):
    lines = [to_apac("9")]
    do(company, "scheduleAllocation", schedule="monthly", lines=lines, every="PERIOD")
    lines[0]["quantity"] = "9999"
    do(company, "scheduleAllocation", schedule="much", lines=lines, every="PERIOD")
    company.portal.clock[0] = NOON + 20 * 86_400_000_000
    company.use(call("c1", 60, start="2026-12-04T10:00:00Z"))
    assert stands(company, period="2026-12")["apac"]["own"] == "9"
    monthly, much = company.ask(SCHEDULES)["schedules"]["nodes"]
    assert (monthly["changes"], much["skippedCode"], much["skippedLine"]) == (1, "insufficient_allowance", 1)
    assert monthly["status"] == much["status"] == "WAITING"


def test_nodes_of_others_are_unknown_to_every_change(company):
    named = {"node": "globex-labs"}
    cases = {
        "setCap": named | {"usageType": "voice", "quantity": "1"},
        "applyTemplate": named | {"rule": {"share": "EACH", "amount": "1"}, "usageType": "voice"},
        "returnUnused": named,
        "freezeNode": named,
        "thawNode": named,
    }
    for mutation, given in cases.items():
        told = do(company, mutation, **given)
        assert (told["__typename"], told["code"]) == ("UnknownNode", "unknown_node"), mutation
        # The same words for one that exists beyond the reach.
        hidden = do(company, mutation, nodes=("emea",), **given | {"node": "apac"})
        assert hidden["message"] == told["message"].replace("globex-labs", "apac")
    lines = [to_apac("1") | {"target": "globex-labs"}]
    told = do(company, "scheduleAllocation", schedule="s", lines=lines, every="PERIOD")
    assert (told["__typename"], told["lines"][0]["code"]) == ("BadLines", "unknown_node")
