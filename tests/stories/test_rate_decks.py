"""A carrier's monthly A-Z sheet, in plain words: looked at, taken over, and what calls cost then.

It is 15 November; a call to London costs 0.05 a minute. Everything here is the carrier's to do.
"""

import json

import pytest

from allotment.backend.verifying import verify

IMPORT = """mutation($input: ImportRateDeckInput!) { importRateDeck(input: $input) {
  __typename
  ... on ImportRateDeckDone { dryRun repeated eventSeqs report {
    rows prefixes period surprises { line told }
    versions { validFrom counts { kind prefixes } changes {
      kind zone prefixes percent before { price per } after { price blocked }
    } }
    money { zone records amount difference exact because }
  } }
  ... on BadLines { count lines { line message facts } }
  ... on Problem { code message path }
} }"""
OVERRIDE = """mutation($input: OverrideRatesInput!) { overrideRates(input: $input) {
  __typename ... on TariffDone { repeated } ... on DryRun { events { topic sentence } }
  ... on Problem { code message }
} }"""
WITHDRAW = """mutation($input: WithdrawTariffInput!) { withdrawTariff(input: $input) {
  __typename ... on Problem { code message } } }"""
TARIFFS = """query($asOf: AsOf) { tariffs(asOf: $asOf) { nodes {
  version made base validFrom withdrawn note eventSeq } } }"""
CHANGES = """query($before: Int!, $after: Int!) { tariffChanges(before: $before, after: $after) {
  nodes { kind zone prefixes percent } } }"""

USAGES = "{ usages { nodes { id } } }"
EXPLAIN = """query($id: ID!) { explain(usageId: $id) {
  rating { price per ownRate { percent baseVersion basePrice told } }
} }"""
SHEET = """Wholesale Ltd;;;;
Destination;Codes;Rate;Effective Date;Billing
London;4420;0.03;2026-12-01;60/60
UK;44;0.05;2026-01-01;60/60
Peru;51, 511-513;0.10;2027-01-01;30/6
"""


@pytest.fixture
def acme(company):
    def deck(csv=SHEET, key="deck", **given):
        given = {"idempotencyKey": key, "csv": csv, "part": True, **given}
        return company.ask(IMPORT, "carrier", input=given)["importRateDeck"]

    company.deck = deck
    return company


def versions(company, **given):
    return company.ask(TARIFFS, "carrier", **given)["tariffs"]["nodes"]


def test_a_sheet_is_looked_at_taken_over_once_and_withdrawn(acme):
    before = len(versions(acme))
    looked = acme.deck(dryRun=True)
    assert looked["dryRun"], looked
    # Midnight in Berlin is an hour before it in Greenwich.
    begins = [version["validFrom"][:13] for version in looked["report"]["versions"]]
    assert begins == ["2026-11-30T23", "2026-12-31T23"]
    assert looked["report"]["versions"][1]["counts"][0] == {"kind": "NEW", "prefixes": 4}
    assert len(versions(acme)) == before
    done = acme.deck()
    assert done["eventSeqs"], done
    assert done["report"]["versions"] == looked["report"]["versions"]
    again = acme.deck()
    assert (again["repeated"], again["eventSeqs"]) == (True, done["eventSeqs"])
    assert acme.deck(csv=SHEET.replace("0.10", "0.20"))["code"] == "idempotency_mismatch"
    assert acme.deck(key="nothing new")["eventSeqs"] == []
    newest, first = versions(acme)[:2]
    assert (newest["made"], newest["base"]) == ("AMENDED", first["version"])
    told = acme.ask(CHANGES, "carrier", before=first["version"], after=newest["version"])
    assert [(one["kind"], one["zone"]) for one in told["tariffChanges"]["nodes"]] == [("NEW", "Peru")]
    given = {"idempotencyKey": "w", "version": newest["version"], "note": "a wrong sheet"}
    assert acme.ask(WITHDRAW, "carrier", input=given)["withdrawTariff"]["__typename"] == "TariffDone"
    assert versions(acme)[0]["withdrawn"]
    assert not versions(acme, asOf={"seq": newest["eventSeq"]})[0]["withdrawn"]
    verify(acme.portal.engine.isolation, acme.id)


def test_every_bad_line_is_told_and_nothing_is_changed(acme):
    before = len(versions(acme))
    told = acme.deck("prefix,price\n44,0.1\n4.4787E+11,0.1\n33,dear", validFrom="2026-12-01")
    assert (told["__typename"], told["count"]) == ("BadLines", 2)
    assert [line["line"] for line in told["lines"]] == [3, 4]
    assert len(versions(acme)) == before
    assert acme.deck("no sheet")["code"] == "bad_sheet"
    assert acme.deck(layout="colour = 1")["code"] == "bad_layout"
    assert acme.deck(csv="prefix,price\n44,9")["code"] == "bad_sheet"


def test_own_rates_stay_laid_over_a_base_that_changes(acme):
    own = {"valid_from": "2026-12-01", "discounts": [{"usage_type": "voice", "percent": "10"}]}
    given = {"idempotencyKey": "own", "ownRates": json.dumps(own), "note": "as agreed"}
    told = acme.ask(OVERRIDE, "carrier", input={**given, "dryRun": True})["overrideRates"]
    assert [event["topic"] for event in told["events"]] == ["tariff.rates_overridden"]
    assert acme.ask(OVERRIDE, "carrier", input=given)["overrideRates"]["__typename"] == "TariffDone"
    acme.deck()
    made = [one["made"] for one in versions(acme)]
    assert made[:5] == ["OVERRIDDEN", "OVERRIDDEN", "AMENDED", "AMENDED", "OVERRIDDEN"]
    broken = {**given, "idempotencyKey": "b", "ownRates": '{"valid_from": "2026-12-01", "price": 1}'}
    assert acme.ask(OVERRIDE, "carrier", input=broken)["overrideRates"]["code"] == "invalid_input"
    verify(acme.portal.engine.isolation, acme.id)


def test_a_charge_says_which_base_rate_its_own_rate_is_in_place_of(acme, call):
    own = {"valid_from": "2026-11-15", "discounts": [{"usage_type": "voice", "percent": "12.5"}]}
    given = {"idempotencyKey": "own", "ownRates": json.dumps(own)}
    refused = acme.ask(OVERRIDE, "carrier", input=given)["overrideRates"]
    assert refused["code"] == "holds_in_the_past"
    own["valid_from"] = "2026-11-16"
    told = acme.ask(OVERRIDE, "carrier", input=given | {"ownRates": json.dumps(own)})["overrideRates"]
    assert told["__typename"] == "TariffDone"
    acme.portal.clock[0] += 86_400_000_000
    acme.use(call("c-1", 6_000, "+442079460000", start="2026-11-16T10:00:00Z"))
    acme.settle()
    (usage,) = acme.ask(USAGES)["usages"]["nodes"]
    rating = acme.ask(EXPLAIN, id=usage["id"])["explain"]["rating"]
    assert (rating["price"], rating["per"]) == ("0.04375", "60")
    assert rating["ownRate"] == {
        "percent": "12.5",
        "baseVersion": 1,
        "basePrice": "0.05",
        "told": "discount of rate 0 of base version 1",
    }


def test_what_last_months_calls_would_have_cost_is_told(acme, call):
    acme.use(*(call(f"c-{n}", 60, "+442079460000") for n in range(3)))
    acme.settle()
    told = acme.deck(period="2026-11", dryRun=True)["report"]
    assert told["period"] == "2026-11"
    assert [one["records"] for one in told["money"]] == [3]


def test_only_the_carriers_staff_change_tariffs(acme):
    given = {"idempotencyKey": "x", "csv": SHEET}
    told = acme.ask(IMPORT, "telecoms_manager", input=given)["importRateDeck"]
    assert told["code"] == "not_permitted"
