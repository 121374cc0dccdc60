"""`allotment rate` under plans: counters go over the file, and each line's or all lines' is told."""

import json
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest

from allotment.backend.commands.rating import Counters, rated
from allotment.domain.tariff import Tariff, published_as
from allotment.domain.usage import UsageRecord
from allotment.tenants.definition import DefinitionError
from allotment.tenants.tariff_file import tariff_schema, usable_tariff

UTC = ZoneInfo("UTC")
FILE = {
    "id": "plans",
    "valid_from": "2026-01-01",
    "currency": "EUR",
    "plans": [
        {
            "plan": "minutes",
            "kind": "graduated",
            "tiers": [{"upto": 120, "price": "0.06", "per": 60}, {"price": "0.03", "per": 60, "fee": "1.00"}],
        },
        {"plan": "cap", "kind": "spend", "scope": "resource", "cap": "0.25"},
    ],
    "rates": [
        {"usage_type": "voice", "zone": "any", "price": "0", "connect_fee": "0.01", "plan": "minutes"},
        {"usage_type": "messaging", "zone": "any", "price": "0.10", "plan": "cap"},
    ],
    "fees": [{"fee": "SIP channel", "amount": "4.90", "each": "channel", "kind": "sip"}],
}


def tariff(**changed):
    return usable_tariff(json.dumps({**FILE, **changed}).encode(), UTC)


def record(kind, quantity, line="+441"):
    return UsageRecord("gw", f"{kind}-{quantity}", line, kind, quantity, 1_794_744_000_000_000)


def test_a_file_is_rated_as_one_period_in_its_order():
    version, plans = Tariff(published_as(tariff(), 1, "UTC")), Counters()
    first, second = (rated(record("voice", units), version, plans) for units in (90, 60))
    assert (first["amount"], first["plan"]) == ("0.1000", {"name": "minutes", "before": 0, "units": 90})
    # 30 s at 0.06, the entry, 30 s at 0.03, and a connect fee.
    assert (second["amount"], second["plan"]["before"]) == ("1.0550", 90)
    parts = [(part.get("part", part["component"]), part["exact"]) for part in second["components"]]
    assert parts == [
        ("connect_fee", "0.01"),
        ("tier 1", "0.03"),
        ("entry of tier 2", "1"),
        ("tier 2", "0.015"),
    ]
    assert sum(Fraction(part["exact"]) for part in second["components"]) == Fraction(second["unrounded"])


def test_a_plan_of_resources_counts_each_line_for_itself():
    version, plans = Tariff(published_as(tariff(), 1, "UTC")), Counters()
    lines = ("+441", "+441", "+442")
    told = [rated(record("messaging", 2, line), version, plans) for line in lines]
    assert [one["amount"] for one in told] == ["0.2000", "0.0500", "0.2000"]
    cap = {"component": "plan", "part": "cap", "units": 0, "price": "0.25", "per": 1, "exact": "-0.15"}
    assert told[1]["components"][-1] == cap


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"plans": [{"plan": "p", "kind": "stairs"}]}, "plans[0].kind"),
        ({"plans": [{"plan": "p", "kind": "volume", "tires": []}]}, "plans[0].tires"),
        ({"plans": FILE["plans"][1:]}, "rates[0].plan: 'minutes'"),
        ({"fees": [{"fee": "f", "amount": "1", "each": "node", "kind": "sip"}]}, "fees[0].kind: 'sip'"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_path(changed, sentence):
    with pytest.raises(DefinitionError) as error:
        tariff(**changed)
    assert sentence in str(error.value)


def test_editors_know_plans_and_fees():
    schema = tariff_schema()
    assert {"Plan", "Tier", "Fee"} <= schema["$defs"].keys()
    assert {"plans", "fees"} <= schema["properties"].keys()
