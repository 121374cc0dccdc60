"""A tariff is published by the API, and what it charges is explained part by part."""

import json
from fractions import Fraction

PUBLISH = """mutation($input: PublishTariffInput!) { publishTariff(input: $input) { __typename
  ... on PublishTariffDone { tariff version validFrom repeated }
  ... on DryRun { events { sentence } }
  ... on Problem { code message path } } }"""
EXPLAIN = """query($id: ID!) { explain(usageId: $id) { status amount suspension { reason field } rating {
  zone window origin times exactFraction
  components { kind begins ends band window price per increment blocks exactFraction exactAmount } } } }"""
TARIFF = {
    "id": "evening",
    "valid_from": "2026-01-01",
    "currency": "EUR",
    "windows": [{"name": "midday", "spans": [{"from": "11:00", "to": "11:02"}]}],
    "across": "split",
    "rates": [
        {"usage_type": "voice", "zone": "any", "price": price, "per": 60, "window": window, "included": False,
         "connect_fee": "0.05", "maximum_charge": "0.50", "bands": [{"from": 60, "price": "0.06"}]}
        for price, window in (("0.30", "midday"), ("0.12", ""))
    ]
    + [{"usage_type": "messaging", "zone": "gift", "price": "0", "percent": "10", "included": False}],
}  # fmt: skip


def publish(company, definition, *roles, key="k", **more):
    given = {"idempotencyKey": key, "definition": json.dumps(definition), **more}
    return company.ask(PUBLISH, *(roles or ("carrier",)), input=given)["publishTariff"]


def explained(company, record_id):
    query = "{ usages { nodes { id recordId } } }"
    ids = {one["recordId"]: one["id"] for one in company.ask(query)["usages"]["nodes"]}
    return company.ask(EXPLAIN, id=ids[record_id])["explain"]


def test_a_tariff_is_tried_published_once_and_charges_by_its_parts(company, call):
    foreseen = publish(company, TARIFF, dryRun=True)
    assert foreseen["events"] == [{"sentence": "Tariff evening was published as version 2."}]
    done = publish(company, TARIFF)
    assert (done["tariff"], done["version"], done["repeated"]) == ("evening", 2, False)
    assert done["validFrom"] == "2025-12-31T23:00:00.000000Z"
    assert publish(company, TARIFF)["repeated"]
    # From 11:00 in Berlin: 60 s at 0.30, 60 s at 0.06 in the window and 60 s after it; 0.05 to connect.
    company.use(call("c1", 180))
    told = explained(company, "c1")
    assert told["amount"] == "0.470000"
    assert (told["rating"]["window"], told["rating"]["times"]) == ("midday", "1")
    parts = told["rating"]["components"]
    assert [(one["kind"], one["begins"], one["ends"], one["band"], one["window"]) for one in parts] == [
        ("usage", "0", "60", 0, "midday"),
        ("usage", "60", "120", 1, "midday"),
        ("usage", "120", "180", 1, ""),
        ("connect_fee", "0", "0", 0, ""),
    ]
    company.use(call("c2", 600))
    capped = explained(company, "c2")["rating"]
    assert capped["components"][-1]["exactAmount"] == "-0.390000000000"
    total = sum(Fraction(one["exactFraction"]) for one in capped["components"])
    assert total == Fraction(capped["exactFraction"]) == 500_000


def test_a_record_without_the_value_its_rate_asks_for_waits(company, call):
    publish(company, TARIFF)
    company.use(
        call("g1", 1, type="messaging"), call("g2", 1, type="messaging", attributes={"value": "12.50"})
    )
    nodes = company.ask("{ suspense { nodes { reason } } }", "carrier")["suspense"]["nodes"]
    assert nodes == [{"reason": "no_value"}]
    assert explained(company, "g2")["amount"] == "1.250000"


def test_what_cannot_be_published_is_told_with_its_place_and_changes_nothing(company):
    wrong = {**TARIFF, "rates": [{**TARIFF["rates"][0], "price": 0.3}]}
    told = publish(company, wrong)
    assert (told["__typename"], told["code"], told["path"]) == (
        "InvalidInput",
        "bad_tariff",
        ["input", "definition"],
    )
    assert "rates[0].price: 0.3: write it as text, in quotes" in told["message"]
    gap = {**TARIFF, "rates": TARIFF["rates"][:1]}
    assert "no rate for mon 00:00" in publish(company, gap)["message"]
    other = {**TARIFF, "currency": "USD"}
    assert publish(company, other)["code"] == "wrong_currency"
    assert publish(company, TARIFF, "telecoms_manager")["__typename"] == "NotPermitted"
    assert publish(company, TARIFF)["version"] == 2
