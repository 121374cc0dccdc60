"""The state as bytes: complete, ordered, and the same everywhere."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from allotment.domain.bucket import Allocate
from allotment.domain.canonical import lines
from allotment.domain.contract import OpenPeriod, SignContract
from allotment.domain.hierarchy import AddNode, AddResource, EndResource, Identity, MoveResource
from allotment.domain.limit import SetLimit
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.tenant import TenantOpened

US = "+12125550100"
SCRIPT = Path(__file__).parents[1] / "golden" / "print_state.py"


def told_lines(company) -> list[dict]:
    return [msgspec.json.decode(told) for told in lines(company.tenant)]


def test_an_empty_tenant_is_one_line(told):
    assert list(lines(told().tenant)) == [
        b'{"amount":0,"charged":0,"is":"usage","rejected":0,"suspended":0}\n'
    ]


def test_every_line_is_json_with_sorted_keys(acme):
    acme.use(1500, counterpart=US)
    acme.do(SetLimit("emea", "voice", 1600))
    for told in lines(acme.tenant):
        read = msgspec.json.decode(told)
        assert list(read) == sorted(read)
        assert told.endswith(b"\n")
        assert told.count(b"\n") == 1


def test_lines_come_in_the_order_of_what_they_describe(acme, at):
    acme.do(SetLimit("emea", "voice", 1500, (80,)))
    acme.do(SetLimit("acme", "data", 10))
    acme.use(1200, counterpart=US, at=at("2026-10-02 00:00"))
    acme.use(1200, counterpart=US)
    assert list(dict.fromkeys(line["is"] for line in told_lines(acme))) == [
        "tenant",
        "node",
        "resource",
        "contract",
        "period",
        "tariff",
        "limit",
        "fired",
        "family",
        "bucket",
        "usage",
    ]
    families = [(line["period"], line["usage_type"]) for line in told_lines(acme) if line["is"] == "family"]
    assert families == sorted(families)
    assert len(families) == 10


def test_only_buckets_that_hold_something_are_told(acme):
    buckets = [line for line in told_lines(acme) if line["is"] == "bucket"]
    assert [(line["node"], line["usage_type"], line["remaining"]) for line in buckets] == [
        ("acme", "data", 10_000),
        ("acme", "voice", 1000),
    ]


@pytest.mark.parametrize(
    "command",
    [
        AddNode("new", "apac", "New", "group"),
        AddResource("new", "apac", "sip", 5, (Identity(b"new", b""),)),
        MoveResource("r-1", "apac", 5),
        EndResource("r-1", 5),
        SignContract("frame", "2026-01-01", ()),
        OpenPeriod("2026-12"),
        Allocate("acme", "emea", "voice", "2026-11", 1),
        SetLimit("emea", "voice", 5),
        PublishTariff("again", 0, "EUR", (Rate("voice", "z", "1"),)),
    ],
    ids=lambda command: type(command).__name__,
)
def test_whatever_changes_the_state_changes_its_bytes(acme, command):
    before = b"".join(lines(acme.tenant))
    acme.do(command)
    assert b"".join(lines(acme.tenant)) != before


@pytest.mark.parametrize("use", [{"quantity": 0}, {"quantity": 5}, {"quantity": 5, "line": "nobody"}])
def test_every_record_changes_the_bytes(acme, use):
    before = b"".join(lines(acme.tenant))
    acme.use(**use)
    assert b"".join(lines(acme.tenant)) != before


@pytest.mark.parametrize(
    "other",
    [
        TenantOpened("Other", "Europe/Berlin", "EUR", "carrier"),
        TenantOpened("Acme", "Europe/Paris", "EUR", "carrier"),
        TenantOpened("Acme", "Europe/Berlin", "CHF", "carrier"),
        TenantOpened("Acme", "Europe/Berlin", "EUR", "another carrier"),
    ],
)
def test_all_that_was_said_when_the_tenant_was_opened_is_told(told, other):
    opened = TenantOpened("Acme", "Europe/Berlin", "EUR", "carrier")
    assert list(lines(told(opened).tenant)) != list(lines(told(other).tenant))


def test_names_of_any_script_are_told_as_they_are(told):
    company = told(TenantOpened("Zürich 東京", "UTC", "CHF", ""))
    assert "Zürich 東京".encode() in b"".join(lines(company.tenant))


def test_the_bytes_do_not_depend_on_hash_seed_time_zone_or_locale():
    digests = set()
    for seed, zone, locale in (
        ("0", "UTC", "C"),
        ("1", "Asia/Kolkata", "C.UTF-8"),
        ("77", "America/New_York", "C"),
    ):
        environment = os.environ | {"PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": locale}
        printed = subprocess.run(
            [sys.executable, str(SCRIPT)], env=environment, check=True, capture_output=True, text=True
        ).stdout
        digests.add(printed)
    (printed,) = digests
    assert len(printed.split()) == 2
    assert all(len(digest) == len(hashlib.sha256().hexdigest()) for digest in printed.split())
