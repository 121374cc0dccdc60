"""A carrier clears its suspense: a line is added, a file re-read, a slip corrected, a test call written off.

Acme has 600 seconds of voice; Anna is in Sales. Calls to "+44" are billed by the minute, at 0.05.
"""

import pytest

from allotment.backend.verifying import verify

ANSWERS = "__typename ... on Problem { code message path }"
BULK = f"""{ANSWERS} ... on BulkDone {{
  dryRun lookedAt charged rejected suspended amended dismissed passedOver amount left endCursor
  problems {{ id recordId status reason }}
}}"""
RECYCLE = f"mutation($input: RecycleUsageInput!) {{ recycleUsage(input: $input) {{ {BULK} }} }}"
DISMISS = f"mutation($input: DismissUsageInput!) {{ dismissUsage(input: $input) {{ {BULK} }} }}"
REREAD = f"mutation($input: RereadUsageInput!) {{ rereadUsage(input: $input) {{ {BULK} }} }}"
AMEND = f"""mutation($input: AmendUsageInput!) {{
  amendUsage(input: $input) {{ {ANSWERS} ... on AmendUsageDone {{ fields }}
    ... on DryRun {{ events {{ topic sentence }} }} }}
}}"""
WAITING = """query($filter: SuspenseFilter) { waitingRecords(filter: $filter) { nodes {
  id recordId reason attempts amended readable value usageType quantity file position
} } }"""
AGEING = """{ suspenseAgeing {
  reason source usageType records ages { day week } rated ratedValue estimated estimatedValue unknown
} }"""
ADD = f"mutation($input: AddResourceInput!) {{ addResource(input: $input) {{ {ANSWERS} }} }}"
EXPLAIN = "query($id: ID!) { explain(usageId: $id) { status recordId line amount } }"


class Clerk:
    def __init__(self, company):
        self.company, self.keys = company, 0

    def do(self, mutation, *roles, **given):
        self.keys += 1
        given.setdefault("idempotencyKey", f"clerk-{self.keys}")
        data = self.company.ask(mutation, *(roles or ("carrier",)), input=given)
        return next(iter(data.values()))

    def waiting(self, **wanted):
        nodes = self.company.ask(WAITING, "carrier", filter=wanted)["waitingRecords"]["nodes"]
        return {one["recordId"]: one for one in nodes}

    def ageing(self):
        return self.company.ask(AGEING, "carrier")["suspenseAgeing"]

    def add_line(self, line):
        done = self.do(
            ADD, id=f"r{line}", node="sales", kind="msisdn", lines=[line], since="2026-01-01T00:00:00Z"
        )
        assert done["__typename"] == "LifeDone", done

    def usages(self):
        listed = self.company.ask("{ usages { nodes { id recordId status } } }", "carrier")["usages"]["nodes"]
        return {(one["recordId"], one["status"]): one["id"] for one in listed}


@pytest.fixture
def clerk(company):
    return Clerk(company)


def whole(company):
    report = verify(company.portal.engine.isolation, company.id)
    assert report.ok, report.problem


def test_what_waited_for_its_line_is_charged_when_the_line_is_there(clerk, company, call):
    new = "+442071838759"
    company.use(call("c1", 61, line=new), call("c2", 59, line=new), call("c3", 60, line="+49301"))
    assert {ident: one["value"] for ident, one in clerk.waiting().items()} == {
        "c1": "0.100000", "c2": "0.050000", "c3": "0.050000",
    }  # fmt: skip
    (stake,) = clerk.ageing()
    assert (stake["records"], stake["ages"], stake["rated"], stake["ratedValue"]) == (
        3, {"day": 3, "week": 0}, 3, "0.200000",
    )  # fmt: skip
    clerk.add_line(new)
    tried = clerk.do(RECYCLE, dryRun=True)
    assert (tried["charged"], tried["suspended"], tried["left"]) == (2, 1, 0)
    assert set(clerk.waiting()) == {"c1", "c2", "c3"}
    done = clerk.do(RECYCLE, filter={"line": new})
    assert (done["lookedAt"], done["charged"], done["problems"]) == (2, 2, [])
    assert {ident: one["attempts"] for ident, one in clerk.waiting().items()} == {"c3": 0}
    told = company.ask(EXPLAIN, "carrier", id=clerk.usages()["c1", "CHARGED"])["explain"]
    assert told == {"status": "CHARGED", "recordId": "c1", "line": new, "amount": "0.000000"}
    again = company.use(call("c1", 61, line=new), call("c3", 60, line="+49301"))
    assert (again["duplicate"], again["charged"]) == (2, 0)
    other = company.use(call("c1", 600, line=new))
    assert (other["suspended"], other["reasons"]) == (1, {"conflicting_duplicate": 1})
    assert clerk.do(RECYCLE, filter={"reason": "conflicting_duplicate"})["suspended"] == 1
    whole(company)


def test_recycled_in_vain_a_record_waits_on_and_the_page_goes_on(clerk, company, call):
    company.use(*(call(f"c{i}", 60, line="+49301") for i in range(5)))
    first = clerk.do(RECYCLE, first=2)
    assert (first["lookedAt"], first["suspended"], first["left"]) == (2, 2, 3)
    rest = clerk.do(RECYCLE, after=first["endCursor"])
    assert (rest["lookedAt"], rest["left"]) == (3, 0)
    assert {one["attempts"] for one in clerk.waiting().values()} == {1}
    assert len(company.ask("{ suspense { nodes { recordId } } }", "carrier")["suspense"]["nodes"]) == 5
    whole(company)


def test_a_slip_is_corrected_and_the_original_stays(clerk, company, call):
    company.use(call("c1", 60, line="+49301"))
    ident = clerk.waiting()["c1"]["id"]
    given = {"id": ident, "line": "+44 20 7183 8750", "quantity": "61", "note": "digits swapped"}
    tried = clerk.do(AMEND, **given, dryRun=True)
    assert [event["sentence"] for event in tried["events"]] == [
        "Record c1 of switch-1 was corrected (digits swapped): line, quantity."
    ]
    assert clerk.do(AMEND, **given)["fields"] == ["line", "quantity"]
    assert (clerk.waiting()["c1"]["amended"], clerk.waiting()["c1"]["value"]) == (True, "0.100000")
    assert clerk.do(RECYCLE, ids=[ident])["charged"] == 1
    assert clerk.do(RECYCLE, ids=[ident])["passedOver"] == 1
    assert clerk.do(AMEND, **given)["code"] == "not_waiting"
    assert company.ask(EXPLAIN, "carrier", id=ident)["explain"]["line"] == "+49301"
    whole(company)


def test_what_could_not_be_read_is_given_by_hand_or_read_again(clerk, company, call):
    company.use(call("c1", 60), {"garbled": True, "id": "c2"}, {**call("c3", 60), "start": "10 o'clock"})
    waiting = clerk.waiting()
    assert [waiting[ident]["readable"] for ident in ("c2", "c3")] == [False, False]
    by_hand = {"id": waiting["c2"]["id"], "note": "from the switch", "line": "+442071838750"}
    assert clerk.do(AMEND, **by_hand)["code"] == "bad_record"
    rest = {"usageType": "voice", "quantity": "60", "startedAt": "2026-11-15T10:00:00Z"}
    assert clerk.do(AMEND, **by_hand, **rest, counterpart="+4420")["__typename"] == "AmendUsageDone"
    declared = """
kind = "ndjson"
[fields]
id = "id"
source = "source"
usage_type = "type"
line = "line"
counterpart = "counterpart"
[times]
at = { start = { constant = "2026-11-15T10:00:00Z" } }
started_at = ["start"]
format = "iso8601"
[quantity]
at = "quantity"
"""
    read = clerk.do(REREAD, filter={"reason": waiting["c3"]["reason"]}, format=declared, note="its clock")
    assert (read["amended"], read["passedOver"]) == (1, 0), read
    assert clerk.do(RECYCLE)["charged"] == 2
    assert clerk.waiting() == {}
    whole(company)


def test_nobody_pays_for_what_is_written_off_and_never_all_at_once(clerk, company, call):
    company.use(call("c1", 60, line="+49301"), call("c2", 60, line="+49302"))
    assert clerk.do(DISMISS, note="all")["code"] == "invalid_input"
    assert clerk.do(DISMISS, "mediation", note="mine", filter={"line": "+49301"})["code"] == "not_permitted"
    assert clerk.do(DISMISS, note="a test call", filter={"line": "+49301"})["dismissed"] == 1
    assert set(clerk.waiting()) == {"c2"}
    whole(company)


def test_who_is_bound_to_a_part_sees_nothing_of_what_waits(clerk, company, call):
    company.use(call("c1", 60, line="+49301"))
    assert company.ask(WAITING, "telecoms_manager", nodes=("sales",))["waitingRecords"]["nodes"] == []
    assert company.ask(AGEING, "telecoms_manager", nodes=("sales",))["suspenseAgeing"] == []
    refused = company.ask(RECYCLE, "telecoms_manager", input={"idempotencyKey": "k"})["recycleUsage"]
    assert refused["code"] == "not_permitted"
