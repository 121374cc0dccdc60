"""A month with packages, tiers and fees, in plain words: what the invoice says, worked out by hand.

Acme's nodes were added at noon on the 15th of November: fees for them are owed for 16 days of 30.
"""

import json
from copy import deepcopy
from zoneinfo import ZoneInfo

import pytest
from fixtures_app import DEFINITION

from allotment.backend.verifying import verify
from allotment.domain.rating.amending import Amendment, AmendTariff
from allotment.domain.rating.overriding import Discount, OverrideRates, Overrides
from allotment.domain.tariff import Rate
from allotment.tenants.tariff_file import usable_tariff

CHARGE = """mutation($input: ChargeFeeInput!) { chargeFee(input: $input) {
  __typename ... on FeeDone { fee amount period repeated } ... on DryRun { events { sentence } }
  ... on Problem { code path } } }"""
UNDO = """mutation($input: UndoFeeInput!) { undoFee(input: $input) {
  __typename ... on FeeDone { fee amount period } ... on Problem { code path } } }"""
CHANNELS = """mutation($input: SetChannelsInput!) { setChannels(input: $input) {
  __typename ... on SetChannelsDone { channels } ... on Problem { code path } } }"""
MOVE = "mutation($input: MoveInput!) { moveResource(input: $input) { __typename } }"
INVOICE = """query($period: String, $asOf: AsOf) { invoicePreview(period: $period, asOf: $asOf) {
  total usageTotal feeTotal planTotal payable commitment shortfall
  nodes { nodeId amount
    lines { zone billed fromAllowance overage amount }
    fees { kind name fee note each ofKind price share exactFraction amount }
    plans { kind plan memberId units charged owed amount }
  } } }"""
EXPLAIN = """query($id: ID!) { explain(usageId: $id) { rating {
  amount components { part exactFraction }
  plan { plan kind countedAt { id } before chargedBefore units charged } } } }"""
CHAIN = """query($id: ID!) { explain(usageId: $id) { reratings { rating {
  plan { before chargedBefore charged } } } } }"""
UK, US, FR = "+442079460000", "+12125550100", "+33123456789"

CALLS = {"usage_type": "voice", "increment": 60, "price": "0"}
TARIFF = {
    "id": "business",
    "valid_from": "2026-01-01",
    "currency": "EUR",
    "rounding": {"decimals": 4},
    "plans": [
        {
            "plan": "uk minutes",
            "kind": "graduated",
            "tiers": [
                {"upto": 600, "price": "0.06", "per": 60},
                {"upto": 1200, "price": "0.03", "per": 60, "fee": "1.00"},
                {"price": "0.01", "per": 60},
            ],
        },
        {
            "plan": "us volume",
            "kind": "volume",
            "tiers": [{"upto": 600, "price": "0.60", "per": 60}, {"price": "0.30", "per": 60}],
        },
        {"plan": "france", "kind": "package", "free": 120, "block": 300, "price": "2.50", "minimum": "6.00"},
        {"plan": "video cap", "kind": "spend", "scope": "resource", "cap": "5.00"},
    ],
    "fees": [
        {"fee": "Platform", "amount": "30.00"},
        {"fee": "Cost centre", "amount": "10.00", "each": "node", "kind": "cost_centre"},
        {"fee": "Number", "amount": "3.00", "each": "resource", "kind": "msisdn"},
        {"fee": "SIP channel", "amount": "4.90", "each": "channel", "kind": "sip"},
    ],
    "rates": [
        {**CALLS, "zone": "uk", "prefix": "+44", "plan": "uk minutes"},
        {**CALLS, "zone": "us", "prefix": "+1", "plan": "us volume"},
        {**CALLS, "zone": "fr", "prefix": "+33", "plan": "france"},
        {"usage_type": "video", "zone": "any", "price": "0.50", "per": 60, "plan": "video cap"},
    ],
}


@pytest.fixture
def acme(portal):
    from fixtures_app import NOON

    portal.clock[0] = NOON
    definition = deepcopy(DEFINITION)
    definition["tariffs"] = [TARIFF]
    definition["contracts"] = [
        {"id": "main", "starts_on": "2026-01-01", "grants": {"voice": 600}, "commitment": "200.00"}
    ]
    definition["allocations"] = []
    definition["resources"] += [
        {"id": "bob", "node": "apac", "kind": "msisdn", "lines": ["+442071838752"], "since": "2026-11-16"},
        {"id": "trunk", "node": "sales", "kind": "sip", "lines": ["+442071838753"]},
    ]
    return portal.tenant(definition)


def invoice(company, period="2026-11", **more):
    told = company.ask(INVOICE, period=period, **more)["invoicePreview"]
    parts = [told[part] for part in ("usageTotal", "feeTotal", "planTotal")]
    assert (
        cents(told["total"]) == sum(map(cents, parts)) == sum(cents(node["amount"]) for node in told["nodes"])
    )
    for node in told["nodes"]:
        lines = (*node["lines"], *node["fees"], *node["plans"])
        assert cents(node["amount"]) == sum(cents(line["amount"]) for line in lines)
    return told


def cents(text):
    whole, _, rest = text.lstrip("-").partition(".")
    return (-1 if text.startswith("-") else 1) * int(whole + rest.ljust(6, "0"))


def node(told, ident):
    return next(one for one in told["nodes"] if one["nodeId"] == ident)


def amounts(lines, key, name="amount"):
    return {line[key]: line[name] for line in lines}


def test_a_month_with_tiers_a_volume_price_a_package_and_a_cap(acme, call):
    # 600 seconds are granted: the first ten minutes are in no plan.
    acme.use(call("c-0", 600, UK))
    # 600 s at 0.06 a minute, then 1.00 to enter the next tier, 600 s at 0.03, and 60 s at 0.01.
    acme.use(call("c-1", 590, UK), call("c-2", 595, UK), call("c-3", 1, UK))
    # Ten minutes at 0.60, one at 0.30; in the end all eleven cost 0.30.
    acme.use(call("c-4", 600, US), call("c-5", 60, US))
    # 2 free minutes and 5 of a block, then 1 more: two blocks.
    acme.use(call("c-6", 420, FR), call("c-7", 10, FR))
    video = {"type": "video", "counterpart": ""}
    # 0.50 a minute: 4.00, then 5.00 is reached, and then nothing more.
    acme.use(call("v-1", 480, **video), call("v-2", 480, **video), call("v-3", 480, **video))
    told = invoice(acme)
    sales = node(told, "sales")
    assert amounts(sales["lines"], "zone", "fromAllowance") == {"uk": "600", "us": "0", "fr": "0", "any": "0"}
    assert amounts(sales["lines"], "zone") == {
        "uk": "1.910000",
        "us": "6.300000",
        "fr": "5.000000",
        "any": "5.000000",
    }
    plans = {line["plan"]: line for line in node(told, "acme")["plans"]}
    volume = {"memberId": "acme", "units": "660", "charged": "6.300000", "owed": "3.300000"}
    assert plans["us volume"] == {"kind": "VOLUME", "plan": "us volume", "amount": "-3.000000", **volume}
    assert (plans["france"]["kind"], plans["france"]["amount"]) == ("MINIMUM", "1.000000")
    assert len(plans) == 2
    assert told["usageTotal"] == "18.210000"
    assert told["planTotal"] == "-2.000000"
    assert verify(acme.portal.engine.isolation, acme.id).problem == ""


def test_recurring_fees_are_owed_for_the_days_that_everybody_was_there(acme, call):
    acme.use(call("c-1", 60, UK))
    channels = {"resource": "trunk", "channels": 10, "since": "2026-11-21T08:00:00Z"}
    told = acme.ask(CHANNELS, "carrier", input={"idempotencyKey": "c", **channels})
    assert told["setChannels"] == {"__typename": "SetChannelsDone", "channels": 10}
    move = {"idempotencyKey": "m", "id": "chen", "to": "sales", "at": "2026-11-20T12:00:00Z"}
    assert acme.ask(MOVE, "carrier", input=move)["moveResource"]["__typename"] == "LifeDone"
    acme.settle()
    told = invoice(acme)
    fees = {(one["nodeId"], fee["name"]): fee for one in told["nodes"] for fee in one["fees"]}
    assert {at: (fee["share"], fee["amount"]) for at, fee in fees.items()} == {
        ("acme", "Platform"): ("1/1", "30.000000"),
        # Recorded at noon on the 15th: 16 days of 30.
        ("sales", "Cost centre"): ("8/15", "5.333300"),
        # Anna all month; Chen from the 20th on, 11 days.
        ("sales", "Number"): ("41/30", "4.100000"),
        # Chen for 19 days; Bob from the 16th on, 15 days.
        ("apac", "Number"): ("17/15", "3.400000"),
        # 10 channels for 10 days.
        ("sales", "SIP channel"): ("10/3", "16.333300"),
    }
    assert fees["sales", "Cost centre"]["exactFraction"] == "16000000/3"
    # The minimum of France is owed without a call there; spend that was agreed counts all of this.
    assert (told["feeTotal"], told["planTotal"]) == ("59.166600", "6.000000")
    assert told["shortfall"] == "134.833400"


def test_a_version_made_of_another_keeps_its_plans_and_fees(acme, call):
    acme.use(call("c-1", 60, UK))
    before = invoice(acme)
    own = Overrides((), (Discount("video", 500),))
    engine, run = acme.portal.engine, acme.portal.run
    change = Amendment(1, acme.portal.clock[0], (), (Rate("voice", "de", "0.07", 60, prefix="+49"),))
    run(engine.submit, acme.id, AmendTariff((change,), 1), "amend", "carrier:test")
    run(engine.submit, acme.id, OverrideRates(own, acme.portal.clock[0] + 1), "own", "carrier:test")
    acme.settle()
    after = invoice(acme)
    assert (after["feeTotal"], after["planTotal"]) == (before["feeTotal"], before["planTotal"])
    told = acme.ask("{ tariffs { nodes { version } } }")["tariffs"]["nodes"]
    assert [one["version"] for one in told] == [3, 2, 1]
    assert verify(acme.portal.engine.isolation, acme.id).problem == ""


def test_a_one_off_fee_is_charged_once_and_taken_back_as_a_credit(acme, call):
    acme.use(call("c-1", 60, UK))
    fee = {"idempotencyKey": "k", "name": "Installation", "node": "sales", "amount": "99.00", "note": "trunk"}
    dry = acme.ask(CHARGE, "carrier", input={**fee, "dryRun": True})["chargeFee"]
    assert dry["events"] == [
        {"sentence": "Installation of 99.000000 was charged to Sales for 2026-11: trunk."}
    ]
    before = invoice(acme)
    done = acme.ask(CHARGE, "carrier", input=fee)["chargeFee"]
    assert (done["amount"], done["period"], done["repeated"]) == ("99.000000", "2026-11", False)
    assert acme.ask(CHARGE, "carrier", input=fee)["chargeFee"]["repeated"]
    after_seq = acme.settle()
    after = invoice(acme)
    assert cents(after["total"]) - cents(before["total"]) == 99_000_000
    # It is no usage: neither limits nor spend that was agreed count it.
    assert after["shortfall"] == before["shortfall"]
    undone = acme.ask(UNDO, "carrier", input={"idempotencyKey": "u", "fee": done["fee"], "note": "mistake"})
    assert undone["undoFee"]["amount"] == "-99.000000"
    acme.settle()
    told = invoice(acme)
    once = [fee for fee in node(told, "sales")["fees"] if fee["kind"] != "RECURRING"]
    assert [(fee["kind"], fee["note"], fee["amount"]) for fee in once] == [
        ("ONE_OFF", "trunk", "99.000000"),
        ("CREDIT", "mistake", "-99.000000"),
    ]
    assert told["total"] == before["total"]
    assert invoice(acme, asOf={"seq": str(after_seq)}) == after
    again = acme.ask(UNDO, "carrier", input={"idempotencyKey": "v", "fee": done["fee"], "note": "again"})
    assert again["undoFee"] == {"__typename": "InvalidInput", "code": "fee_undone", "path": ["input", "fee"]}


def test_a_charge_says_where_its_plan_stood(acme, call):
    acme.use(call("c-0", 600, UK), call("c-1", 590, UK), call("c-2", 60, UK))
    found = acme.ask("{ usages { nodes { id recordId } } }")["usages"]["nodes"]
    (ident,) = (one["id"] for one in found if one["recordId"] == "c-2")
    told = acme.ask(EXPLAIN, id=ident)["explain"]["rating"]
    assert told == {
        "amount": "1.030000",
        "components": [
            {"part": "entry of tier 2", "exactFraction": "1000000/1"},
            {"part": "tier 2", "exactFraction": "30000/1"},
        ],
        "plan": {
            "plan": "uk minutes",
            "kind": "graduated",
            "countedAt": {"id": "acme"},
            "before": "600",
            "chargedBefore": "0.600000",
            "units": "60",
            "charged": "1.030000",
        },
    }
    assert acme.ask(EXPLAIN, nodes=("sales",), id=ident)["explain"]["rating"]["plan"]["countedAt"] is None


RERATE = """mutation($input: RerateInput!) { rerate(input: $input) { __typename ... on Problem { code } } }"""
SHOWN = """{ previewRerating(scope: {usageType: "voice"}) {
  digest left { reason } total { records wasAmount amount difference } } }"""


def test_tiers_that_were_wrong_are_corrected_for_all_that_was_counted(acme, call):
    acme.use(call("c-0", 600, UK), call("c-1", 590, UK), call("c-2", 60, UK))
    acme.use(call("c-4", 600, US), call("c-5", 60, US))
    before, seq = invoice(acme), acme.settle()
    right = deepcopy(TARIFF)
    # The second tier begins after 300 seconds, and of the volume the first price was too high.
    right["plans"][0]["tiers"][0]["upto"] = 300
    right["plans"][1]["tiers"][0]["price"] = "0.50"
    command = usable_tariff(json.dumps(right).encode(), ZoneInfo("Europe/Berlin"))
    acme.portal.run(acme.portal.engine.submit, acme.id, command, "right", "carrier:test")
    acme.settle()
    # c-1 costs 300 s at 0.06 a minute, 1.00, and 300 s at 0.03; c-2 is in the second tier already.
    shown = acme.ask(SHOWN, "carrier")["previewRerating"]
    assert shown["left"] == []
    changes = {"records": "3", "wasAmount": "7.630000", "amount": "6.480000", "difference": "-1.150000"}
    assert shown["total"] == changes
    asked = {"idempotencyKey": "fix", "scope": {"usageType": "voice"}, "shown": shown["digest"]}
    assert acme.ask(RERATE, "carrier", input=asked)["rerate"]["__typename"] == "RerateDone"
    job = acme.until_ended("fix")
    assert (job["status"], job["changed"], job["difference"]) == ("FINISHED", "3", "-1.150000")
    told = invoice(acme)
    # The minute to the US after ten others costs what it did.
    lines = {"0": "0.000000", "660": "1.480000", "600": "5.000000", "60": "0.300000"}
    assert amounts(node(told, "sales")["lines"], "overage") == lines
    (volume,) = (line for line in node(told, "acme")["plans"] if line["plan"] == "us volume")
    assert (volume["charged"], volume["owed"]) == ("5.300000", "3.300000")
    assert invoice(acme, asOf={"seq": str(seq)})["usageTotal"] == before["usageTotal"]
    found = acme.ask("{ usages { nodes { id recordId } } }")["usages"]["nodes"]
    (ident,) = (one["id"] for one in found if one["recordId"] == "c-2")
    again = acme.ask(CHAIN, id=ident)["explain"]["reratings"][0]["rating"]["plan"]
    assert again == {"before": "600", "chargedBefore": "1.450000", "charged": "0.030000"}
    assert verify(acme.portal.engine.isolation, acme.id).problem == ""


@pytest.mark.parametrize("roles", [("telecoms_manager",), ("auditor",)])
def test_only_the_carriers_staff_charge_fees(acme, roles):
    fee = {"idempotencyKey": "k", "name": "Gift", "node": "sales", "amount": "1.00", "note": "mine"}
    assert acme.ask(CHARGE, *roles, input=fee)["chargeFee"]["code"] == "not_permitted"


def test_who_is_bound_to_a_node_sees_the_fees_of_that_part_only(acme):
    told = acme.ask(INVOICE, nodes=("sales",), period="2026-11")["invoicePreview"]
    assert [one["nodeId"] for one in told["nodes"]] == ["sales"]
    assert told["shortfall"] is None


def test_a_fee_at_a_node_that_is_not_there_is_refused(acme):
    fee = {"idempotencyKey": "k", "name": "Gift", "node": "nobody", "amount": "1.00", "note": "why"}
    assert acme.ask(CHARGE, "carrier", input=fee)["chargeFee"]["code"] == "unknown_node"
