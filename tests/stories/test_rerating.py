"""A tariff was wrong for half a month: what it changes is shown, confirmed, and stands on every page.

Acme has 600 seconds of voice, 60 of them Anna's cost centre's. Calls to "+44" cost 0.05 a minute.
"""

import pytest
from fixtures_app import JOBS

from allotment.backend.looking_back import rebuild_and_compare
from allotment.backend.verifying import verify
from allotment.domain.tariff import PublishTariff, Rate

NEW_YEAR = 1_767_312_000_000_000
"""2026-01-02T00:00Z: after the first version begins to hold."""
CHANGE = "records wasAmount amount difference"
SHOWN = f"""
  digest lookedAt total {{ {CHANGE} }} kinds {{ nodeId usageType zone change {{ {CHANGE} }} }}
  examples {{ recordId wasAmount amount resourceId }} left {{ reason records }}
"""
PREVIEW = f"query($scope: RatingScopeInput!) {{ previewRerating(scope: $scope) {{ {SHOWN} }} }}"
RERATE = f"""mutation($input: RerateInput!) {{ rerate(input: $input) {{
  __typename ... on RerateDone {{ job repeated }} ... on DryRun {{ events {{ topic sentence }} }}
  ... on ChangedSinceShown {{ difference {{ {SHOWN} }} }} ... on Problem {{ code message path }}
}} }}"""
STOP = """mutation($input: StopRatingInput!) { stopRating(input: $input) {
  __typename ... on StopRatingDone { job } ... on Problem { code }
} }"""
USAGES = """query($asOf: AsOf) { usages(asOf: $asOf) { nodes {
  recordId status amount currentAmount reratings { job cause wasAmount amount tariffVersion nodeId }
} } }"""
EXPLAIN = """query($id: ID!) { explain(usageId: $id) {
  amount rating { tariffVersion amount }
  reratings { job wasAmount amount payable rating { tariffVersion price amount } drawn { quantity } }
} }"""
INVOICE = """query($asOf: AsOf) { invoicePreview(asOf: $asOf) {
  total payable corrected nodes { nodeId records amount lines { zone tariffVersion records amount } }
} }"""
HISTORY = """query($id: ID!) { recordHistory(usageId: $id) { topic sentence } }"""


def publish(company, price, key):
    rates = (
        Rate("voice", "uk", price, 60, "+44", increment=60),
        Rate("voice", "us", "0.10", 7, "+1", "", 60, 0, "0.01"),
        Rate("data", "any", "2", 1_000_000, increment=1000),
    )
    command = PublishTariff("standard", NEW_YEAR, "EUR", rates)
    company.portal.run(company.portal.engine.submit, company.id, command, key, "carrier:u-1")
    company.settle()


def rerate(company, key="fix", *roles, **given):
    given.setdefault("scope", {})
    return company.ask(RERATE, *(roles or ("carrier",)), input={"idempotencyKey": key, **given})["rerate"]


@pytest.fixture
def charged(company, call):
    company.use(*(call(f"c-{i}", 115) for i in range(10)), call("us", 30, "+12125550100"))
    return company


def test_a_tariff_is_corrected_for_what_was_charged_by_it(charged):
    before = charged.settle()
    publish(charged, "0.08", "dearer")
    shown = charged.ask(PREVIEW, "carrier", scope={"tariffVersion": 2})["previewRerating"]
    # Of ten calls of two minutes the allowance covers five; the one overseas costs what it did.
    assert (shown["lookedAt"], shown["total"]["records"]) == ("11", "5")
    assert shown["total"]["difference"] == "0.300000"
    assert [(kind["nodeId"], kind["zone"]) for kind in shown["kinds"]] == [("sales", "uk")]
    assert not charged.jobs()

    done = rerate(
        charged,
        scope={"tariffVersion": 2},
        cause="TARIFF_CORRECTED",
        note="ticket 4711",
        shown=shown["digest"],
    )
    assert done == {"__typename": "RerateDone", "job": "fix", "repeated": False}
    job = charged.until_ended("fix")
    assert (job["status"], job["changed"], job["difference"]) == ("FINISHED", "5", "0.300000")
    assert (job["cause"], job["note"], job["actor"]) == ("TARIFF_CORRECTED", "ticket 4711", "carrier:u-1")

    invoice = charged.ask(INVOICE)["invoicePreview"]
    lines = [(line["zone"], line["tariffVersion"], line["amount"]) for line in invoice["nodes"][0]["lines"]]
    assert ("uk", 2, "0.800000") in lines
    assert charged.ask(INVOICE, asOf={"seq": str(before)})["invoicePreview"]["total"] != invoice["total"]
    usages = charged.ask(USAGES)["usages"]["nodes"]
    remade = [one for one in usages if one["reratings"]]
    assert len(remade) == 5
    assert all(
        (one["amount"], one["currentAmount"], one["reratings"][0]["tariffVersion"])
        == ("0.100000", "0.160000", 2)
        for one in remade
    )
    past = charged.ask(USAGES, asOf={"seq": str(before)})["usages"]["nodes"]
    assert not any(one["reratings"] for one in past)
    foreseen = rerate(charged, "fix-again", dryRun=True)["events"]
    assert [one["topic"] for one in foreseen] == ["rating.started"]
    assert charged.ask(PREVIEW, "carrier", scope={})["previewRerating"]["total"]["records"] == "0"
    isolation = charged.portal.engine.isolation
    assert verify(isolation, charged.id).ok
    assert not rebuild_and_compare(isolation, charged.id)


def test_one_record_shows_its_chain(charged):
    publish(charged, "0.08", "dearer")
    rerate(charged, scope={"source": "switch-1", "recordId": "c-9"})
    charged.until_ended("fix")
    page = charged.ask("{ usages { nodes { id recordId reratings { seq } } } }")["usages"]["nodes"]
    (record,) = (one for one in page if one["reratings"])
    assert record["recordId"] == "c-9"
    told = charged.ask(EXPLAIN, id=record["id"])["explain"]
    assert (told["amount"], told["rating"]["tariffVersion"]) == ("0.100000", 1)
    (again,) = told["reratings"]
    assert (again["wasAmount"], again["amount"], again["rating"]["price"]) == ("0.100000", "0.160000", "0.08")
    history = charged.ask(HISTORY, id=record["id"])["recordHistory"]
    assert [one["topic"] for one in history] == ["usage.rerated", "usage.charged"]
    assert history[0]["sentence"] == "anna was charged again: 0.160000 in place of 0.100000."


def test_what_changed_since_it_was_shown_is_shown_again(charged, call):
    publish(charged, "0.08", "dearer")
    foreseen = rerate(charged, dryRun=True)["events"]
    assert [one["topic"] for one in foreseen] == ["rating.started", *["usage.rerated"] * 5]
    digest = charged.ask(PREVIEW, "carrier", scope={})["previewRerating"]["digest"]
    publish(charged, "0.09", "dearer still")
    told = rerate(charged, shown=digest)
    assert (told["__typename"], told["code"]) == ("ChangedSinceShown", "changed_since_shown")
    assert told["difference"]["digest"] != digest
    assert not charged.jobs()
    assert rerate(charged, shown=told["difference"]["digest"])["__typename"] == "RerateDone"
    charged.until_ended("fix")
    assert rerate(charged, shown=told["difference"]["digest"])["repeated"]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"scope": {"node": "nobody"}}, "unknown_node"),
        ({"scope": {"source": "s"}}, "bad_scope"),
        ({"scope": {"tariffVersion": 9}}, "bad_scope"),
        ({"scope": {"inOrder": True}}, "scope_too_narrow"),
        ({"scope": {}, "note": "\n"}, "bad_text"),
        ({"idempotencyKey": ""}, "invalid_input"),
    ],
)
def test_what_cannot_be_rated_again_is_told(company, given, code):
    assert rerate(company, **given)["code"] == code
    assert rerate(company, dryRun=True, **given)["code"] == code


def test_only_the_carrier_rates_again(company):
    assert rerate(company, "k", "telecoms_manager")["code"] == "not_permitted"
    assert company.refused(PREVIEW, "auditor", scope={}) == "not_permitted"
    assert company.refused(JOBS, "telecoms_manager") == "not_permitted"
    stopped = company.ask(STOP, "carrier", input={"job": "no such", "idempotencyKey": "s"})["stopRating"]
    assert stopped["code"] == "unknown_rating_job"


MOVE = f"""mutation($input: CorrectMoveInput!) {{ correctMove(input: $input) {{
  __typename ... on RerateDone {{ job }} ... on DryRun {{ events {{ topic }} }}
  ... on ChangedSinceShown {{ difference {{ {SHOWN} }} }} ... on Problem {{ code path }}
}} }}"""
PREVIEW_MOVE = f"""query($id: ID!, $to: ID!, $at: DateTime!) {{
  previewMove(id: $id, to: $to, at: $at) {{ {SHOWN} }}
}}"""


def test_a_phone_was_handed_over_last_week_and_its_calls_follow(charged):
    given = {"id": "anna", "to": "apac", "at": "2026-11-10T00:00:00Z"}
    shown = charged.ask(PREVIEW_MOVE, **given)["previewMove"]
    records = {kind["nodeId"]: kind["change"]["records"] for kind in shown["kinds"] if kind["zone"] == "uk"}
    assert records == {"sales": "10", "apac": "10"}
    # What was divided among EMEA and Sales is not Anna's any more: she draws on what the enterprise has.
    assert shown["total"]["difference"] == "0.250000"
    told = charged.ask(MOVE, input={**given, "idempotencyKey": "move", "shown": "not this"})["correctMove"]
    assert told["__typename"] == "ChangedSinceShown"
    told = charged.ask(MOVE, input={**given, "idempotencyKey": "m", "dryRun": True})["correctMove"]
    assert [one["topic"] for one in told["events"]][:2] == ["hierarchy.resource_moved", "rating.started"]

    told = charged.ask(MOVE, input={**given, "idempotencyKey": "move", "shown": shown["digest"]})
    assert told["correctMove"] == {"__typename": "RerateDone", "job": "move"}
    assert charged.until_ended("move")["changed"] == shown["total"]["records"]
    nodes = charged.ask(INVOICE)["invoicePreview"]["nodes"]
    assert [node["nodeId"] for node in nodes] == ["apac"]
    assert verify(charged.portal.engine.isolation, charged.id).ok


def test_who_is_bound_to_a_node_dates_back_only_what_it_sees(company):
    given = {"id": "anna", "to": "apac", "at": "2026-11-10T00:00:00Z"}
    told = company.ask(MOVE, nodes=("emea",), input={**given, "idempotencyKey": "k"})["correctMove"]
    assert told == {"__typename": "UnknownNode", "code": "unknown_node", "path": ["input", "to"]}
    assert company.refused(PREVIEW_MOVE, nodes=("apac",), **given) == "unknown_node"
