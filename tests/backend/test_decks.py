"""Rate sheets on the command line: looked at with two files and no server, or taken over for a tenant."""

import json

import pytest

from allotment.backend.bench.rating import load, tariff_text
from allotment.backend.cli import run

TARIFF = {
    "id": "standard",
    "valid_from": "2026-01-01",
    "currency": "EUR",
    "rates": [
        {
            "usage_type": "voice",
            "zone": "UK",
            "prefix": "+44",
            "price": "0.02",
            "per": 60,
            "direction": "outbound",
        },
        {
            "usage_type": "voice",
            "zone": "France",
            "prefix": "+33",
            "price": "0.03",
            "per": 60,
            "direction": "outbound",
        },
    ],
}


@pytest.fixture
def check(tmp_path, capsys):
    def check(csv, *options):
        (tmp_path / "tariff.json").write_text(json.dumps(TARIFF))
        (tmp_path / "sheet.csv").write_bytes(csv if isinstance(csv, bytes) else csv.encode())
        files = (str(tmp_path / "sheet.csv"), "--tariff", str(tmp_path / "tariff.json"))
        code = run(["deck", "check", *files, *options])
        told = capsys.readouterr()
        return code, told.out or told.err

    return check


def test_a_sheet_is_told_by_zone(check):
    code, told = check("destination,prefix,price\nUK,44,0.03\nPeru,51-53,1", "--from", "2199-01-01", "--json")
    assert code == 0
    (version,) = json.loads(told)["versions"]
    assert version["valid_from"] == "2199-01-01T00:00:00+00:00"
    assert [(one["change"], one["zone"], one["percent"]) for one in version["zones"]] == [
        ("new", "Peru", None),
        ("raised", "UK", "+50"),
        ("removed", "France", None),
    ]
    assert "France" in check("prefix,price\n44,0.03", "--from", "2199-01-01")[1]
    assert "France" not in check("prefix,price\n44,0.03", "--from", "2199-01-01", "--part")[1]


def test_what_cannot_be_used_is_told_by_line(check):
    code, told = check("prefix,price\n44,x\n4.4E+3,1")
    assert code == 1
    assert "line 2: price 'x'" in told
    assert "line 3: prefix '4.4E+3'" in told
    assert [
        bad["line"] for bad in json.loads(check("prefix,price\n44,x\n4.4E+3,1", "--json")[1])["refused"]
    ] == [2, 3]


@pytest.mark.parametrize(
    ("csv", "options", "code"),
    [
        (b"\xff\xfe4\x004\x00", (), 2),
        ("no,sheet\n1,2", (), 1),
        ("prefix,price\n44,1", (), 1),
        ("prefix,price\n44,1", ("--from", "soon"), 2),
        ("prefix,price\n44,1", ("--time-zone", "Mars"), 2),
    ],
)
def test_what_is_no_sheet_says_so(check, csv, options, code):
    assert check(csv, *options)[0] == code


def test_a_large_tariff_is_rated_by_its_longest_prefix():
    tariff = load(tariff_text(range(50)))
    assert tariff.find("voice", "outbound", "+1000017123").prefix == "+1000017"
    assert tariff.find("voice", "outbound", "+99") is None
