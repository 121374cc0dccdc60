"""A tariff that was wrong for a month whose bill stands: the bill stays, the difference is owed in the next.

The contract settles November at its end. The US was called for 11 minutes, at 0.30 each in the end; France
for two, far below the minimum of Sales.
"""

import json
from copy import deepcopy
from zoneinfo import ZoneInfo

import pytest
from fixtures_app import DEFINITION, NOON

from allotment.backend import rating_jobs, resettling
from allotment.backend.verifying import verify
from allotment.projections.resettled import resettled
from allotment.tenants.tariff_file import usable_tariff

US, FR = "+12125550100", "+33123456789"
CALLS = {"usage_type": "voice", "increment": 60, "price": "0"}
TARIFF = {
    "id": "business",
    "valid_from": "2026-01-01",
    "currency": "EUR",
    "rounding": {"decimals": 4},
    "plans": [
        {
            "plan": "us volume",
            "kind": "volume",
            "tiers": [{"upto": 600, "price": "0.60", "per": 60}, {"price": "0.30", "per": 60}],
        },
        {"plan": "france", "kind": "spend", "scope": "node", "of_kind": "cost_centre", "minimum": "6.00"},
    ],
    "rates": [
        {**CALLS, "zone": "us", "prefix": "+1", "plan": "us volume"},
        {**CALLS, "zone": "fr", "prefix": "+33", "price": "0.10", "per": 60, "plan": "france"},
    ],
}
INVOICE = """query($period: String, $asOf: AsOf) { invoicePreview(period: $period, asOf: $asOf) {
  total planTotal corrected payable
  corrections { ofPeriod nodeId usageType zone plan records amount }
  nodes { nodeId amount plans { kind plan memberId units charged owed amount } } } }"""
PREVIEW = """query($scope: RatingScopeInput!) { previewRerating(scope: $scope) {
  digest left { reason records } total { records wasAmount amount difference corrected }
  kinds { nodeId usageType zone plan change { wasAmount amount corrected } } } }"""
RERATE = """mutation($input: RerateInput!) { rerate(input: $input) { __typename ... on Problem { code } } }"""
HISTORY = '{ nodeHistory(node: "sales") { nodes { topic actor sentence event } } }'
DAY = 24 * 3600 * 1_000_000
RIGHT = {"us": {"tiers": [{"price": "0.20", "per": 60}]}, "france": {"minimum": "9.00"}}
NO = ("0.000000",)


@pytest.fixture
def acme(portal, call):
    portal.clock[0] = NOON
    definition = deepcopy(DEFINITION)
    definition["tariffs"] = [TARIFF]
    definition["contracts"] = [{"id": "main", "starts_on": "2026-01-01", "grants": {}, "expires": True}]
    definition["allocations"] = []
    company = portal.tenant(definition)
    company.use(call("c-1", 600, US), call("c-2", 60, US), call("c-3", 120, FR))
    portal.clock[0] += 30 * DAY
    return company


def cents(text):
    whole, _, rest = text.lstrip("-").partition(".")
    return (-1 if text.startswith("-") else 1) * int(whole + rest)


def publish(acme, name, **changes):
    right = deepcopy(TARIFF)
    for plan in right["plans"]:
        plan.update(changes.get(plan["plan"].split()[0], {}))
    command = usable_tariff(json.dumps(right).encode(), ZoneInfo("Europe/Berlin"))
    acme.portal.run(acme.portal.engine.submit, acme.id, command, name, "carrier:test")
    acme.settle()


def invoice(acme, period="2026-11", **more):
    return acme.ask(INVOICE, period=period, **more)["invoicePreview"]


def shown(acme, **scope):
    return acme.ask(PREVIEW, "carrier", scope=scope)["previewRerating"]


def rerate(acme, name, **scope):
    """A job that is confirmed as it was shown, and carried out."""
    digest = shown(acme, **scope)["digest"]
    asked = {"idempotencyKey": name, "scope": scope, "shown": digest, "note": "ticket 4711"}
    assert acme.ask(RERATE, "carrier", input=asked)["rerate"]["__typename"] == "RerateDone"
    job = acme.until_ended(name)
    assert job["status"] == "FINISHED"
    return job


def break_off_once(monkeypatch):
    """The job fails after its first part, which is stored, and is gone on with."""
    broken, hand_over = [], resettling._hand_over

    async def failing(command, submit):
        await hand_over(command, submit)
        if not broken:
            broken.append(True)
            raise OSError("the connection is gone")

    monkeypatch.setattr(resettling, "_hand_over", failing)
    monkeypatch.setattr(resettling, "PLANS_AT_ONCE", 1)
    monkeypatch.setattr(rating_jobs, "PAUSE_SECONDS", 0.01)
    return broken


def corrections(acme, nodes=(), **more):
    """Of November, owed in December."""
    found = acme.ask(INVOICE, nodes=nodes, period="2026-12", **more)["invoicePreview"]
    told = found["corrections"]
    assert cents(found["corrected"]) == sum(cents(one["amount"]) for one in told)
    assert all((one["ofPeriod"], one["usageType"], one["zone"]) == ("2026-11", "", "") for one in told)
    return {(one["nodeId"], one["plan"]): one["amount"] for one in told}


def test_a_tariff_published_after_the_close_leaves_the_bill_as_it_was(acme):
    before, seq = invoice(acme), acme.settle()
    told = {line["plan"]: line["owed"] for node in before["nodes"] for line in node["plans"]}
    # 11 minutes at the price of the second tier; and what is missing to the minimum.
    assert told == {"us volume": "3.300000", "france": "6.000000"}
    publish(acme, "right", **RIGHT)
    assert invoice(acme) == before
    assert invoice(acme, asOf={"seq": str(seq)}) == before
    # What is open goes by the version that holds.
    (minimum,) = (line for node in invoice(acme, "2026-12")["nodes"] for line in node["plans"])
    assert (minimum["plan"], minimum["owed"]) == ("france", "9.000000")
    # Who asks for a part of what a plan counts is told that it stays.
    told = shown(acme, period="2026-11", usageType="voice")
    assert told["left"] == [{"reason": "counts_in_a_plan", "records": 2}]
    assert told["total"]["difference"] == "0.000000"


def test_the_difference_of_a_settled_plan_is_owed_once_in_the_period_that_runs(acme, monkeypatch):
    before = invoice(acme)
    publish(acme, "right", **RIGHT)
    seq = acme.settle()
    told = shown(acme, period="2026-11")
    assert told["left"] == []
    changes = {"wasAmount": "9.300000", "amount": "11.200000"}
    assert told["total"] == {"records": "0", **changes, "difference": "1.900000", "corrected": "1.900000"}
    assert {(one["nodeId"], one["plan"], one["change"]["corrected"]) for one in told["kinds"]} == {
        ("acme", "us volume", "-1.100000"),
        ("sales", "france", "3.000000"),
    }
    broken_off = break_off_once(monkeypatch)
    job = rerate(acme, "fix", period="2026-11")
    assert broken_off == [True]
    assert (job["changed"], job["difference"], job["corrected"], job["left"]) == ("2", *NO, "1.900000", "0")
    owed = {("acme", "us volume"): "-1.100000", ("sales", "france"): "3.000000"}
    assert corrections(acme) == owed
    assert corrections(acme, nodes=("sales",)) == {("sales", "france"): "3.000000"}
    assert corrections(acme, asOf={"seq": str(seq)}) == {}
    assert invoice(acme) == before
    (told,) = (one for one in acme.ask(HISTORY)["nodeHistory"]["nodes"] if one["topic"] == "plan.corrected")
    assert told["sentence"] == (
        "3.000000 is owed in 2026-12 for what france comes to at Sales in 2026-11, which is closed: "
        "9.000000 in place of 6.000000."
    )
    facts = told["event"]
    assert (facts["job"], facts["cause"], facts["countedAt"]) == ("fix", "requested", "sales")
    assert (facts["was"], facts["owed"]) == ("6000000", "9000000")
    # Again, by the same tariff: nothing more, whatever it is asked by.
    assert shown(acme)["total"]["difference"] == "0.000000"
    assert rerate(acme, "again")["changed"] == "0"
    assert corrections(acme) == owed
    # The first was right after all.
    publish(acme, "back")
    assert shown(acme, tariffVersion=2)["total"]["difference"] == "0.000000"
    assert rerate(acme, "back", tariffVersion=3)["corrected"] == "-1.900000"
    assert corrections(acme) == dict.fromkeys(owed, "0.000000")
    assert invoice(acme) == before
    assert verify(acme.portal.engine.isolation, acme.id).problem == ""


@pytest.fixture
def comes_to(acme):
    """What plans come to by another version: (was, is), by plan and who counts."""

    def found(changes):
        publish(acme, repr(changes), **changes)
        with acme.portal.engine.isolation.snapshot(acme.id) as db:
            return {(one.plan, one.of): (one.was, one.owed) for one in resettled(db, "2026-11")}

    return found


def test_what_plans_of_a_closed_period_come_to_by_now(comes_to):
    volume, france = ("us volume", 0), ("france", 2)
    same = {volume: (3_300_000, 3_300_000), france: (6_000_000, 6_000_000)}
    for changes, told in [
        ({}, same),
        ({"us": {"tiers": [{"price": "0.00", "per": 60}]}}, {**same, volume: (3_300_000, 0)}),
        # Tier by tier, as the charges were made.
        ({"us": {"kind": "graduated"}}, {**same, volume: (3_300_000, 6_300_000)}),
        ({"us": {"cap": "2.50"}}, {**same, volume: (3_300_000, 2_500_000)}),
        ({"us": {"minimum": "4.00"}}, {**same, volume: (3_300_000, 4_000_000)}),
        # Who counts for itself is another: nothing was counted that could be priced.
        ({"us": {"scope": "resource"}}, {france: same[france]}),
        ({"france": {"minimum": "", "cap": "9.00"}}, {**same, france: (6_000_000, 200_000)}),
        ({"france": {"minimum": "6.00", "share": "day"}}, {**same, france: (6_000_000, 3_200_000)}),
    ]:
        assert comes_to(changes) == told, changes
