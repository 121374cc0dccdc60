"""What docs/tariffs.md shows is what the product does; files that cannot be used say where and why."""

import json
import re
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from allotment.backend.commands.rating import Counters, rated
from allotment.domain.tariff import Tariff, published_as
from allotment.domain.usage import UsageRecord
from allotment.tenants.definition import DefinitionError
from allotment.tenants.tariff_file import TariffDefinition, tariff_schema, usable_tariff

PAGE = (Path(__file__).parents[2] / "docs" / "tariffs.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```json tariff\n(.*?)```\n```json usage\n(.*?)```", PAGE, re.DOTALL)
UTC = ZoneInfo("UTC")
PLAIN = {
    "id": "t",
    "valid_from": "2026-01-01",
    "currency": "EUR",
    "rates": [{"usage_type": "voice", "zone": "any", "price": "1", "bands": [{"from": 60, "price": "1"}]}],
}


def record(told: dict) -> UsageRecord:
    at = datetime.fromisoformat(told.get("at", "2026-11-16T12:00:00+00:00"))
    started_at = int(at.timestamp())
    return UsageRecord(
        *("test", "r", "+4930999999", told["type"], told["quantity"], started_at * 1_000_000),
        *("outbound", told.get("to", ""), tuple(sorted(told.get("attributes", {}).items()))),
    )


@pytest.mark.parametrize(("written", "usage"), EXAMPLES, ids=[json.loads(one)["id"] for one, _ in EXAMPLES])
def test_the_examples_cost_what_the_page_says(written, usage):
    tariff = Tariff(published_as(usable_tariff(written.encode(), UTC), 1, "UTC"))
    plans = Counters()
    for told in json.loads(usage):
        expected = {name: told[name] for name in ("billed", "amount", "problem") if name in told}
        got = rated(record(told), tariff, plans)
        assert {name: got.get(name) for name in expected} == expected, told
        assert "components" in got or "problem" in got


def test_there_is_an_example_of_each_key_of_a_rate():
    shown = {key for written, _ in EXAMPLES for rate in json.loads(written)["rates"] for key in rate}
    left = set(tariff_schema()["$defs"]["Rate"]["properties"]) - shown
    assert left <= {"direction", "across", "at_maximum", "minimum"}
    assert all(f"`{key}`" in PAGE or f'"{key}"' in PAGE for key in left)


@pytest.mark.parametrize(
    ("across", "told"),
    [
        ("", None),
        ("start", None),
        ("report", None),
        ("split", "only what is counted in seconds can be split"),
    ],
)
def test_data_goes_by_reports_and_is_not_split(across, told):
    rate = {"usage_type": "data", "zone": "z", "price": "1", "across": across}
    text = json.dumps(json.loads(changed("rates", [rate]))).encode()
    if told is None:
        assert usable_tariff(text, UTC).rates[0].by_reports == (across == "report")
        return
    with pytest.raises(DefinitionError, match=told):
        usable_tariff(text, UTC)


def changed(path: str, value: object) -> bytes:
    """PLAIN with another value at a path such as rates.0.price."""
    whole = json.loads(json.dumps(PLAIN))
    at, parts = whole, [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parts[:-1]:
        at = at[part]
    at[parts[-1]] = value
    return json.dumps(whole).encode()


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("rates.0.price", 0.05, r"rates[0].price: 0.05: write it as text, in quotes"),
        ("rates.0.price", "0,05", "rates[0].price: '0,05': write it such as \"0.05\""),
        ("rates.0.bands.0.from", 0, "rates[0].bands[0].from: 0: Expected `int` >= 1"),
        ("rates.0.bands", [{"from": 60, "price": "1"}, {"from": 30, "price": "1"}],
         "rates[0].bands[1].from: '30': after the band before it, which begins at 60"),
        ("rates.0.bands.0.form", 9, "rates[0].bands[0].form: there is no such key: use from, price, per"),
        ("rates.0.across", "stop", "rates[0].across: 'stop': use one of report, split, start"),
        ("rates.0.across", "report", "rates[0].across: 'report': what is counted in seconds can be split"),
        ("rates.0.across", "split", None),
        ("rates.0.at_maximum", "end", "rates[0].at_maximum: 'end': give a `maximum_charge`"),
        ("rates.0.window", "peak", "rates[0].window: 'peak': the name of one of `windows`"),
        ("rates.0.usage_type", "fax", "rates[0].usage_type: 'fax': use one of data, voice"),
        ("rates", [], "rates: '0': give 1 to"),
        ("valid_from", "tomorrow", "valid_from: 'tomorrow': a date such as"),
        ("time_zone", "Mars", "time_zone: 'Mars': a time zone such as"),
        ("currency", "euro", "currency: 'euro': write it such as \"EUR\""),
        ("rounding", {"decimals": 7}, "rounding.decimals: 7: Expected `int` <= 6"),
        ("windows", [{"name": "w", "spans": [{"from": "8:00"}]}], "windows[0].spans[0].from: '8:00': "),
        ("windows", [{"name": "w", "spans": [{"from": "08:00", "to": "08:00"}]}], "windows[0].spans[0].to: "),
        ("windows", [{"name": "w", "spans": [{"days": ["fri", "soon"]}]}], "spans[0].days[1]: 'soon': use"),
        ("zones", [{"name": "z", "prefix": ["+1"]}], "zones[0].prefix: there is no such key: use name"),
        ("colour", "red", "colour: there is no such key: use id, valid_from"),
        ("$schema", "./tariff.schema.json", None),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told_with_its_path_value_and_remedy(path, value, told):
    if told is None:
        assert usable_tariff(changed(path, value), UTC).tariff == "t"
        return
    with pytest.raises(DefinitionError) as wrong:
        usable_tariff(changed(path, value), UTC)
    assert told in str(wrong.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "no JSON"),
        (b'{"id":\n "t",}', "line 2"),
        (b"[]", "Expected `object`"),
        (b'{"id": "t"}', "valid_from: it is missing"),
        (b"[" * 100_000, "cannot be used"),
        (b"\xff", "cannot be used"),
    ],
)
def test_what_is_no_tariff_at_all_is_told_in_a_sentence(text, told):
    with pytest.raises(DefinitionError, match=told):
        usable_tariff(text, UTC)


def test_the_schema_names_no_address_but_that_of_its_own_kind():
    schema = tariff_schema()
    assert schema["$id"].startswith("urn:")
    assert set(schema["properties"]) == set(TariffDefinition.__struct_encode_fields__)
    assert not schema["additionalProperties"]
