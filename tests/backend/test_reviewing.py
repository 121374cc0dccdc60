"""`allotment review` and `allotment sizing`, on a tenant with three months of usage."""

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from allotment.backend import cli

NODES = [
    {"id": "acme", "kind": "enterprise", "name": "Acme"},
    {"id": "emea", "kind": "division", "parent": "acme", "name": "EMEA"},
    {"id": "apac", "kind": "division", "parent": "acme", "name": "APAC"},
]
DEFINITION = {
    "nodes": NODES,
    "resources": [
        {"id": f"phone-{node}", "node": node, "kind": "msisdn", "lines": [f"+44770090000{number}"]}
        for number, node in enumerate(("emea", "apac"))
    ],
    "contracts": [{"id": "main", "starts_on": "2020-01-01", "grants": {"voice": 36_000}}],
    "tariffs": [
        {
            "id": "standard",
            "valid_from": "2020-01-01",
            "currency": "EUR",
            "rates": [{"usage_type": "voice", "zone": "any", "price": "0.1", "per": 60}],
        }
    ],
}


def month(ago):
    today = datetime.now(UTC).date()
    first = today.year * 12 + today.month - 1 - ago
    return f"{first // 12:04d}-{first % 12 + 1:02d}"


def call(ident, line, seconds, start):
    told = {"source": "s", "id": ident, "line": line, "type": "voice", "quantity": seconds, "start": start}
    return json.dumps({**told, "counterpart": "+442079460000"}) + "\n"


@pytest.fixture(scope="module")
def acme(servers, tmp_path_factory):
    """Its usage: 40,000 s, 8,000 s, and something this month."""
    folder = tmp_path_factory.mktemp("review")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", servers.database_url)
        patch.setenv("NATS_URL", servers.nats_url)
        patch.setenv("ALLOTMENT_HOME", str(folder))
        slug = f"review-{uuid4().hex[:8]}"
        (folder / "acme.json").write_text(json.dumps(DEFINITION), encoding="utf-8")
        now = datetime.now(UTC) - timedelta(seconds=1)
        calls = [
            call("a", "+447700900000", 40_000, f"{month(2)}-10T10:00:00Z"),
            call("b", "+447700900000", 1_000, f"{month(1)}-10T10:00:00Z"),
            call("c", "+447700900001", 7_000, f"{month(1)}-10T10:00:00Z"),
            call("d", "+447700900001", 600, now.isoformat()),
        ]
        (folder / "calls.ndjson").write_text("".join(calls), encoding="utf-8")
        about = (
            "--name",
            "Acme",
            "--time-zone",
            "UTC",
            "--currency",
            "EUR",
            "--file",
            str(folder / "acme.json"),
        )
        assert cli.run(["tenant", "create", slug, *about]) == 0
        assert cli.run(["usage", "import", str(folder / "calls.ndjson"), "--tenant", slug]) == 0
        yield slug


def told(capsys, *arguments):
    capsys.readouterr()
    assert cli.run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_review_tells_people_and_programs_the_same(acme, capsys):
    document = told(capsys, "review", "--tenant", acme, "--type", "voice")
    assert (document["id"], document["used"], document["remaining"]) == ("acme", "600", "35400")
    assert document["days"][-1]["remaining"] in ("35400", "36000")
    assert [one["id"] for one in document["topResources"]["consumers"]] == ["phone-apac"]
    assert [one["whole"] for one in document["previous"]] == ["8000", "40000"]
    assert cli.run(["review", "--tenant", acme, "--type", "voice", "--node", "apac"]) == 0
    said = capsys.readouterr().out
    assert "APAC, voice" in said
    assert "10:00 min used" in said
    assert "phone-apac" in said
    assert "100.00 %" in said


def test_usage_types_of_the_carriers_own_are_reviewed_and_sized(acme, capsys):
    assert cli.run(["contract", "define-type", "iot", "message", "--tenant", acme]) == 0
    assert told(capsys, "review", "--tenant", acme, "--type", "iot")["used"] == "0"
    sized = told(capsys, "sizing", "--tenant", acme, "--type", "iot")["proposals"]
    assert {one["usageType"] for one in sized} == {"iot"}
    assert cli.run(["review", "--tenant", acme, "--type", "fax"]) != 0
    assert "voice" in capsys.readouterr().err


def test_a_sizing_tells_what_would_have_been_avoided(acme, capsys):
    arguments = ("sizing", "--tenant", acme, "--type", "voice", "--growth", "10", "--margin", "0")
    document = told(capsys, *arguments)
    assert document["periods"] == [month(2), month(1)]
    found = {one["node"]: one for one in document["proposals"]}
    assert {node: one["proposal"] for node, one in found.items()} == {
        "acme": "46800",
        "emea": "46800",
        "apac": "10800",
    }
    assert found["acme"]["below"] == "57600"
    assert [one["overageAvoided"] for one in found["acme"]["history"]] == ["4000", "0"]
    assert cli.run([*arguments, "--node", "emea"]) == 0
    assert "780:00 min" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("review", "--node", "nobody"), "has no node or resource 'nobody'"),
        (("review", "--period", "2026-13"), "not_a_period"),
        (("sizing", "--node", "nobody"), "has no node 'nobody'"),
        (("sizing", "--margin", "-1"), "--margin: 0 to 1000"),
        (("sizing", "--method", "percentile"), "--percentile: it goes with the method percentile"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(acme, capsys, arguments, sentence):
    command, *rest = arguments
    assert cli.run([command, "--tenant", acme, *rest]) != 0
    assert sentence in capsys.readouterr().err
