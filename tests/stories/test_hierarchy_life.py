"""A reorganisation, through the whole product: what was charged stays, what comes later follows.

Acme has divisions EMEA, with Sales and Anna's phone, and APAC, with Chen's.
"""

import pytest
from life_changes import change

from allotment.backend.verifying import verify

USED = """{ hierarchy(depth: 3, usageTypes: ["voice"], resources: true) { nodes {
  id parentId balances { available subtree { used } } } } }"""
HISTORY = "query($id: ID!) { nodeHistory(node: $id, usage: false) { nodes { sentence } } }"
EXPLAIN = "query($id: ID!) { explain(usageId: $id) { line } }"
USAGES = "{ usages { nodes { id recordId status reason nodeId } } }"


@pytest.fixture
def figures(company):
    def asked():
        nodes = company.ask(USED)["hierarchy"]["nodes"]
        return {one["id"]: int(one["balances"][0]["subtree"]["used"]) for one in nodes}

    return asked


def test_sales_moves_to_apac_with_its_phones_and_its_bucket(company, call, figures):
    company.use(call("before", 60))
    assert (figures()["sales"], figures()["emea"], figures()["apac"]) == (60, 60, 0)
    change(company, "moveNode", "sales", to="apac", note="closer to its customers")
    company.use(call("late", 60), call("after", 120, start="2026-11-15T12:00:01Z"))
    moved = {one["id"]: one for one in company.ask(USED)["hierarchy"]["nodes"]}
    assert moved["sales"]["parentId"] == "apac"
    # What was used before the move, also where it is told only now, stays with EMEA.
    assert (figures()["sales"], figures()["emea"], figures()["apac"]) == (240, 120, 120)
    (moved_on, *_) = company.ask(HISTORY, id="sales")["nodeHistory"]["nodes"]
    assert "moved under APAC" in moved_on["sentence"]
    _sound(company)


def test_a_lost_phone_is_silenced_but_for_emergencies_and_lives_on_under_a_new_sim(company, call):
    change(company, "suspendResource", "anna", note="lost in a taxi")
    later = {"start": "2026-11-15T12:00:01Z"}
    company.use(call("lost", 60, **later), call("help", 60, to="112", **later))
    told = {one["recordId"]: one for one in company.ask(USAGES)["usages"]["nodes"]}
    assert (told["lost"]["status"], told["lost"]["reason"]) == ("REJECTED", "suspended")
    assert told["help"]["status"] != "REJECTED"
    change(company, "changeLines", "anna", added=["+442071839999"], removed=["+442071838750"])
    change(company, "resumeResource", "anna", at="2026-11-15T13:00:00Z")
    found = {"start": "2026-11-15T13:00:00Z"}
    company.use(call("old", 60, **found), call("new", 60, line="+442071839999", **found))
    told = {one["recordId"]: one for one in company.ask(USAGES)["usages"]["nodes"]}
    assert (told["old"]["status"], told["new"]["status"]) == ("SUSPENDED", "CHARGED")
    assert told["new"]["nodeId"] == "sales"
    # What was used under the old SIM is still hers to have explained.
    explained = company.ask(EXPLAIN, id=told["help"]["id"])["explain"]
    assert explained["line"] == "+442071838750"
    _sound(company)


def test_sales_is_merged_into_apac_and_what_was_left_goes_over(company, call, figures):
    company.use(call("before", 30))
    before = {one["id"]: one for one in company.ask(USED)["hierarchy"]["nodes"]}
    left = {one: int(before[one]["balances"][0]["available"]) for one in before}
    change(company, "mergeNodes", "sales", into="apac")
    after = {one["id"]: one for one in company.ask(USED)["hierarchy"]["nodes"]}
    assert after["anna"]["parentId"] == "apac"
    assert int(after["sales"]["balances"][0]["available"]) == 0
    assert int(after["apac"]["balances"][0]["available"]) == left["sales"] + left["apac"]
    company.use(call("after", 30, start="2026-11-15T12:00:01Z"))
    assert (figures()["sales"], figures()["emea"], figures()["apac"]) == (60, 60, 60)
    _sound(company)


def _sound(company):
    """Every invariant against the log, and every view against one built anew."""
    assert verify(company.portal.engine.isolation, company.id).problem == ""
