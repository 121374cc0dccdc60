"""Files of own rates: their schema says what their reader says, and `allotment rate` lays them over."""

import json
from random import Random
from typing import Any

import pytest
from domain.rating.tariffs import tariff_by_chance
from schema_shape import accepts

from allotment.backend.cli import run
from allotment.tenants.definition import DefinitionError
from allotment.tenants.own_rates_file import OwnRatesDefinition, own_rates_schema_document, parse_own_rates
from allotment.tenants.tariff_file import parse_tariff, tariff_schema

SCHEMA = json.loads(own_rates_schema_document())
STRANGE = ["", "x", "0.05", "-1", "1e3", 0, 1, -1, 10**13, 1.5, True, None, [], {}, ["+49"], {"from": 0}]


def own_rates_by_chance(chance: Random) -> dict[str, Any]:
    tariff = tariff_by_chance(chance)
    discount = {"usage_type": "voice", "percent": f"{chance.randint(0, 99)}.5", "fees": chance.random() < 0.5}
    told = {"valid_from": "2026-12-01", "rates": tariff["rates"], "zones": tariff["zones"]}
    return {**told, "discounts": [discount] * chance.randint(0, 2), "note": "as agreed"}


def spoilt(chance: Random, told: Any) -> Any:
    """The same with one thing in it that is left out, added or replaced; it may still be right."""
    if isinstance(told, dict) and told and chance.random() < 0.9:
        name = chance.choice(sorted(told))
        how = chance.random()
        if how < 0.15:
            return {key: value for key, value in told.items() if key != name}
        if how < 0.25:
            return {**told, chance.choice(["prize", "per", "zone", "$schema"]): chance.choice(STRANGE)}
        return {**told, name: spoilt(chance, told[name])}
    if isinstance(told, list) and told and chance.random() < 0.9:
        place = chance.randrange(len(told))
        return [*told[:place], spoilt(chance, told[place]), *told[place + 1 :]]
    return chance.choice(STRANGE)


def is_read(text: bytes, reader: Any = parse_own_rates) -> bool:
    try:
        reader(text)
    except DefinitionError:
        return False
    return True


@pytest.mark.parametrize("seed", range(20))
def test_the_schema_accepts_what_the_reader_reads_and_nothing_else(seed):
    chance, outcomes = Random(seed), set()
    for _ in range(40):
        told = own_rates_by_chance(chance)
        assert accepts(SCHEMA, told)
        assert is_read(json.dumps(told).encode())
        told = spoilt(chance, told)
        text = json.dumps(told).encode()
        assert accepts(SCHEMA, told) == is_read(text), text
        outcomes.add(is_read(text))
    assert outcomes == {True, False}


@pytest.mark.parametrize("seed", range(10))
def test_so_does_the_schema_of_tariffs(seed):
    chance, schema = Random(seed), tariff_schema()
    for _ in range(40):
        told = spoilt(chance, tariff_by_chance(chance))
        text = json.dumps(told).encode()
        assert accepts(schema, told) == is_read(text, parse_tariff), text


def test_every_key_is_in_the_schema_and_it_has_no_address_for_a_name():
    assert set(SCHEMA["properties"]) == set(OwnRatesDefinition.__struct_encode_fields__)
    assert SCHEMA["$id"].startswith("urn:")
    assert not SCHEMA["additionalProperties"]


# --- rating by them -------------------------------------------------------------------------------

TARIFF = {
    "id": "standard",
    "valid_from": "2026-01-01",
    "currency": "EUR",
    "rates": [
        {"usage_type": "voice", "zone": "UK", "prefix": "+44", "price": "0.06", "per": 60},
        {"usage_type": "voice", "zone": "Peru", "prefix": "+51", "price": "0.60", "per": 60},
    ],
}
OWN = {
    "valid_from": "2026-06-01",
    "rates": [{"usage_type": "voice", "zone": "UK", "prefix": "+44", "price": "0.01", "per": 60}],
    "discounts": [{"usage_type": "voice", "percent": "50", "zone": "Peru"}],
}
SHEET = "Destination;Codes;Rate;Effective Date\nUK;44;0.12;2026-07-01\nPeru;51;0.30;2026-07-01\n"


@pytest.fixture
def rate(tmp_path, capsys):
    """Rates a minute to the United Kingdom and one to Peru, before and after each change."""
    calls = [
        {
            "source": "s", "id": f"{to}{month}", "line": "+491", "type": "voice", "quantity": 60,
            "start": f"2026-{month}-15T12:00:00Z", "counterpart": to,
        }
        for month in ("03", "06", "07") for to in ("+442071838750", "+5112345678")
    ]  # fmt: skip
    (tmp_path / "usage.ndjson").write_text("".join(json.dumps(one) + "\n" for one in calls), encoding="utf-8")
    (tmp_path / "tariff.json").write_text(json.dumps(TARIFF), encoding="utf-8")
    (tmp_path / "sheet.csv").write_text(SHEET, encoding="utf-8")

    def ask(*options: str, own: dict[str, Any] | None = None) -> list[dict[str, Any]] | str:
        files = ("--tariff", str(tmp_path / "tariff.json"), "--usage", str(tmp_path / "usage.ndjson"))
        if own is not None:
            (tmp_path / "own.json").write_text(json.dumps(own), encoding="utf-8")
            files += ("--own-rates", str(tmp_path / "own.json"))
        options = tuple(str(tmp_path / one) if one == "sheet.csv" else one for one in options)
        code = run(["rate", *files, *options])
        told = capsys.readouterr()
        return [json.loads(line) for line in told.out.splitlines()] if code == 0 else told.err

    return ask


def amounts(told):
    return [(one["tariff_version"], one["amount"]) for one in told]


def test_own_rates_and_discounts_hold_over_the_tariff_from_their_day_on(rate):
    told = rate(own=OWN)
    assert amounts(told)[:4] == [(1, "0.0600"), (1, "0.6000"), (2, "0.0100"), (2, "0.3000")]
    assert [one.get("own") for one in told][:4] == [
        None,
        None,
        {"why": "own", "place": 0, "base_version": 1, "in_place_of": 0},
        {"why": "discount", "place": 0, "base_version": 1, "in_place_of": 1},
    ]


def test_a_sheet_changes_the_base_and_own_rates_stay_laid_over_it(rate):
    assert amounts(rate("--sheet", "sheet.csv"))[2:] == [
        *((1, "0.0600"), (1, "0.6000")),
        *((2, "0.1200"), (2, "0.3000")),
    ]
    both = rate("--sheet", "sheet.csv", own=OWN)
    assert [amount for _, amount in amounts(both)] == [
        *("0.0600", "0.6000"),
        *("0.0100", "0.3000"),
        *("0.0100", "0.1500"),
    ]


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({**OWN, "valid_from": "2025-12-31"}, "valid_from: they begin before the tariff does"),
        ({**OWN, "valid_from": "soon"}, "valid_from: 'soon': a date such as"),
        ({**OWN, "discounts": [{"usage_type": "fax", "percent": "1"}]}, "discounts[0].usage_type: 'fax'"),
        (
            {**OWN, "discounts": [{"usage_type": "voice", "percent": "1", "zone": "Mars"}]},
            "discounts[0].zone",
        ),
        ({**OWN, "rates": [{"usage_type": "voice", "zone": "Mars", "price": "1"}]}, "rates[0].zone: 'Mars'"),
        ({**OWN, "prize": 1}, "prize: there is no such key"),
    ],
)
def test_what_cannot_be_laid_over_is_one_sentence(rate, own, told):
    assert told in rate(own=own)


def test_what_goes_with_a_sheet_is_not_taken_without_one(rate):
    assert "go with --sheet" in rate("--part")


def test_a_sheet_that_cannot_be_read_is_told_line_by_line(rate, tmp_path):
    (tmp_path / "sheet.csv").write_text(SHEET.replace("0.30", "cheap"), encoding="utf-8")
    told = rate("--sheet", "sheet.csv")
    assert "line 3" in told
    assert "cheap" in told
