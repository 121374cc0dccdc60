"""A carrier clears its suspense: a line is added, a file re-read, a slip corrected, a test call written off.

Acme has 600 seconds of voice; Anna is in Sales. Calls to "+44" are billed by the minute, at 0.05.
"""

import pytest

from allotment.backend.verifying import verify

ANSWERS = "__typename ... on Problem { code message path }"
BULK = f"""{ANSWERS} ... on BulkDone {{
  dryRun lookedAt charged rejected suspended amended dismissed asked kept passedOver amount left endCursor
  problems {{ id recordId status reason }}
}}"""
RECYCLE = f"mutation($input: RecycleUsageInput!) {{ recycleUsage(input: $input) {{ {BULK} }} }}"
DISMISS = f"mutation($input: DismissUsageInput!) {{ dismissUsage(input: $input) {{ {BULK} }} }}"
REREAD = f"mutation($input: RereadUsageInput!) {{ rereadUsage(input: $input) {{ {BULK} }} }}"
KEEP = f"mutation($input: KeepUsageInput!) {{ keepUsage(input: $input) {{ {BULK} }} }}"
RULE_SET = f"{ANSWERS} ... on SetSuspenseRuleDone {{ repeated }} ... on DryRun {{ events {{ sentence }} }}"
LATE = f"mutation($input: SetLateRuleInput!) {{ setLateRule(input: $input) {{ {RULE_SET} }} }}"
TWO = f"mutation($input: SetDismissalRuleInput!) {{ setDismissalRule(input: $input) {{ {RULE_SET} }} }}"
RULES = """query($asOf: AsOf) { suspenseRules(asOf: $asOf) {
  late { source afterHours note } dismissal { above note }
} }"""
AMEND = f"""mutation($input: AmendUsageInput!) {{
  amendUsage(input: $input) {{ {ANSWERS} ... on AmendUsageDone {{ fields }}
    ... on DryRun {{ events {{ topic sentence }} }} }}
}}"""
WAITING = """query($filter: SuspenseFilter) { waitingRecords(filter: $filter) { nodes {
  id recordId reason attempts amended readable value usageType quantity file position writeOffAskedBy
} } }"""
AGEING = """{ suspenseAgeing {
  reason source usageType records ages { day week } rated ratedValue estimated estimatedValue unknown
} }"""
ADD = f"mutation($input: AddResourceInput!) {{ addResource(input: $input) {{ {ANSWERS} }} }}"
EXPLAIN = "query($id: ID!) { explain(usageId: $id) { status recordId line amount } }"
LIFE = """query($id: ID!) {
  explain(usageId: $id) {
    attributes { name value }
    waited { usageId reason attempts acceptedLate amendments { fields note actor } }
    left { outcome usageId amount note askedBy }
  }
  recordHistory(usageId: $id) { topic }
}"""


class Clerk:
    def __init__(self, company):
        self.company, self.keys = company, 0

    def do(self, mutation, *roles, **given):
        self.keys += 1
        given.setdefault("idempotencyKey", f"clerk-{self.keys}")
        data = self.company.ask(mutation, *(roles or ("carrier",)), input=given)
        return next(iter(data.values()))

    def colleague_does(self, mutation, **given):
        """The same as another person."""
        self.keys += 1
        given.setdefault("idempotencyKey", f"colleague-{self.keys}")
        portal = self.company.portal
        token = portal.token(self.company.id, "carrier", subject="u-2")
        answer = portal.client.post(
            "/graphql",
            json={"query": mutation, "variables": {"input": given}},
            headers={"Authorization": f"Bearer {token}"},
        ).json()
        return next(iter(answer["data"].values()))

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


def test_what_comes_too_late_is_held_until_somebody_accepts_it(clerk, company, call):
    before = company.settle()
    tried = clerk.do(LATE, afterHours=48, note="section 4", dryRun=True)
    assert [event["sentence"] for event in tried["events"]] == [
        "Usage of all sources that comes more than 48 hours late is held in suspense (section 4)."
    ]
    clerk.do(LATE, afterHours=48, note="section 4")
    clerk.do(LATE, source="slow", afterHours=240)
    old, older = "2026-11-12T10:00:00Z", "2026-11-11T10:00:00Z"
    report = company.use(
        call("c1", 61), call("c2", 61, start=old), call("c3", 61, start=old, source="slow"),
        call("c4", 61, start=older),
    )  # fmt: skip
    assert (report["charged"], report["suspended"], report["reasons"]) == (2, 2, {"too_late": 2})
    assert {ident: one["value"] for ident, one in clerk.waiting().items()} == {
        "c2": "0.100000", "c4": "0.100000",
    }  # fmt: skip
    assert clerk.do(RECYCLE)["suspended"] == 2
    ident = clerk.waiting()["c2"]["id"]
    assert clerk.do(RECYCLE, ids=[ident], acceptLate=True, dryRun=True)["charged"] == 1
    assert clerk.do(RECYCLE, ids=[ident], acceptLate=True, note="agreed")["charged"] == 1
    assert clerk.do(DISMISS, filter={"reason": "too_late"}, note="too old")["dismissed"] == 1
    assert company.ask(RULES)["suspenseRules"] == {
        "late": [{"source": None, "afterHours": 48, "note": "section 4"},
                 {"source": "slow", "afterHours": 240, "note": ""}],
        "dismissal": None,
    }  # fmt: skip
    assert company.ask(RULES, asOf={"seq": str(before)})["suspenseRules"]["late"] == []
    assert company.ask(RULES, nodes=("sales",))["suspenseRules"] is None
    assert clerk.do(LATE, afterHours=0)["code"] == "hours_out_of_range"
    assert clerk.do(LATE, source="other", afterHours=None)["code"] == "no_late_rule"
    assert clerk.do(LATE)["code"] == "invalid_input"
    assert clerk.do(LATE, "telecoms_manager", afterHours=1)["code"] == "not_permitted"
    whole(company)


def test_writing_off_much_takes_two_persons(clerk, company, call):
    clerk.do(TWO, above="0.15", note="section 5")
    company.use(*(call(f"c{i}", 61, line=f"+4930{i}") for i in range(3)), {"garbled": True, "id": "c3"})
    everything = {"source": "switch-1"}
    tried = clerk.do(DISMISS, filter=everything, note="test calls", dryRun=True)
    assert (tried["dismissed"], tried["asked"]) == (3, 0), "each by itself"
    done = clerk.do(DISMISS, filter=everything, note="test calls")
    assert (done["lookedAt"], done["dismissed"], done["asked"]) == (3, 1, 2)
    garbled = {"reason": clerk.waiting()["c3"]["reason"]}
    assert clerk.do(DISMISS, filter=garbled, note="garbled")["asked"] == 1, "nobody knows what it is worth"
    waiting = clerk.waiting(writeOffAsked=True)
    assert {one["writeOffAskedBy"] for one in waiting.values()} == {"carrier:u-1"}
    again = clerk.do(DISMISS, filter=everything, note="test calls")
    assert (again["passedOver"], {one["reason"] for one in again["problems"]}) == (2, {"dismissal_asked"})
    first, second = (waiting[ident]["id"] for ident in sorted(waiting)[:2])
    kept = clerk.colleague_does(KEEP, ids=[first], note="the customer pays")
    assert (kept["kept"], clerk.waiting()[min(waiting)]["writeOffAskedBy"]) == (1, None)
    assert clerk.colleague_does(DISMISS, ids=[second], note="I agree")["dismissed"] == 1
    assert clerk.colleague_does(DISMISS, filter=garbled, note="I agree")["dismissed"] == 1
    assert clerk.do(KEEP)["lookedAt"] == 0
    assert len(clerk.waiting()) == 1
    assert company.ask(RULES)["suspenseRules"]["dismissal"] == {"above": "0.150000", "note": "section 5"}
    assert clerk.do(TWO, above=None)["__typename"] == "SetSuspenseRuleDone"
    assert clerk.do(TWO, above=None)["code"] == "no_dismissal_rule"
    assert clerk.do(TWO, "mediation", above="1")["code"] == "not_permitted"
    whole(company)


def test_a_charge_tells_that_it_had_waited_and_what_waited_tells_of_its_charge(clerk, company, call):
    company.use(call("c1", 61, line="+49301"), call("c2", 61, line="+49302"), call("c3", 61))
    first = clerk.waiting()["c1"]["id"]
    assert company.ask(LIFE, id=first)["explain"]["left"] is None
    clerk.do(AMEND, id=first, line="+442071838750", note="digits swapped")
    clerk.do(AMEND, id=first, quantity="122", note="its meter")
    clerk.do(RECYCLE, ids=[first], note="put right")
    charged = clerk.usages()["c1", "CHARGED"]
    told, back = (company.ask(LIFE, id=ident) for ident in (first, charged))
    assert told["explain"]["left"] == {
        "outcome": "charged", "usageId": charged, "amount": "0.000000", "note": "put right", "askedBy": None,
    }  # fmt: skip
    waited = back["explain"]["waited"]
    assert waited == told["explain"]["waited"]
    assert (waited["usageId"], waited["reason"], waited["attempts"]) == (first, "unknown_line", 1)
    assert waited["amendments"] == [
        {"fields": ["line"], "note": "digits swapped", "actor": "carrier:u-1"},
        {"fields": ["quantity"], "note": "its meter", "actor": "carrier:u-1"},
    ]
    topics = [entry["topic"].removeprefix("usage.") for entry in told["recordHistory"]]
    assert topics == ["charged", "recycled", "amended", "amended", "suspended"]
    assert back["recordHistory"] == told["recordHistory"]
    part = company.ask(LIFE, "telecoms_manager", nodes=("sales",), id=charged)
    assert [one["note"] for one in part["explain"]["waited"]["amendments"]] == [None, None]
    assert [entry["topic"] for entry in part["recordHistory"]] == ["usage.charged"]
    second = clerk.waiting()["c2"]["id"]
    clerk.do(DISMISS, ids=[second], note="a test call")
    left = company.ask(LIFE, id=second)["explain"]["left"]
    assert (left["outcome"], left["usageId"], left["note"]) == ("dismissed", None, "a test call")
    plain = company.ask(LIFE, id=clerk.usages()["c3", "CHARGED"])["explain"]
    assert (plain["waited"], plain["left"], plain["attributes"]) == (None, None, [])


def test_who_is_bound_to_a_part_sees_nothing_of_what_waits(clerk, company, call):
    company.use(call("c1", 60, line="+49301"))
    assert company.ask(WAITING, "telecoms_manager", nodes=("sales",))["waitingRecords"]["nodes"] == []
    assert company.ask(AGEING, "telecoms_manager", nodes=("sales",))["suspenseAgeing"] == []
    refused = company.ask(RECYCLE, "telecoms_manager", input={"idempotencyKey": "k"})["recycleUsage"]
    assert refused["code"] == "not_permitted"
