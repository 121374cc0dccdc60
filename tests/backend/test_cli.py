"""The command line, as people and scripts meet it: its words, its exit codes, and what it prints.

Some commands run as processes of their own, as they do for people; the others in this process, which
has loaded everything already.
"""

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import rich_click as click
from patience import free_port

from allotment.backend import cli
from allotment.backend.command_lines import listed
from allotment.backend.demo.enterprises import example_definition
from allotment.backend.running import newest_version
from allotment.migrations.run import head_revision

# Some commands are processes: where cores are scarce, they take long to start.
pytestmark = pytest.mark.timeout(400)

SECONDS_MAX = 180
COUNTS = ("received", "charged", "duplicate", "suspended", "rejected")
TARIFF = {
    "id": "standard",
    "valid_from": "2026-01-01",
    "currency": "GBP",
    "rates": [
        {"usage_type": "voice", "zone": "uk", "prefix": "+44", "price": "0.02", "per": 60, "minimum": 30},
        {
            "usage_type": "voice",
            "zone": "world",
            "prefix": "+",
            "price": "0.20",
            "per": 60,
            "connect_fee": "0.05",
        },
    ],
}


class Program:
    """`allotment`, with an environment of its own."""

    def __init__(self, **environment: str) -> None:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("ALLOTMENT_", "NATS_"))
        }
        kept.pop("DATABASE_URL", None)
        self.environment = kept | environment

    def __call__(
        self, *arguments: str, stdin: str = "", **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*arguments),
            input=stdin,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )

    def json(self, *arguments: str, code: int = 0, stdin: str = "") -> Any:
        """The one document on stdout."""
        ended = self(*arguments, "--json", stdin=stdin)
        assert ended.returncode == code, ended.stderr
        return json.loads(ended.stdout)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def command(*arguments: str) -> list[str]:
        return [
            sys.executable,
            "-W",
            "error",
            "-c",
            "from allotment.backend.cli import main; main()",
            *arguments,
        ]


class Stream(io.BytesIO):
    name = "<stream>"


class Within(Program):
    """The same in this process."""

    def __call__(
        self, *arguments: str, stdin: str = "", **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        came, out, err = (io.TextIOWrapper(Stream(), encoding="utf-8") for _ in range(3))
        came.buffer.write(stdin.encode())
        came.buffer.seek(0)
        with pytest.MonkeyPatch.context() as patched:
            for name in os.environ.keys() - self.environment.keys():
                patched.delenv(name)
            for name, value in (self.environment | environment).items():
                patched.setenv(name, value)
            for name, stream in (("stdin", came), ("stdout", out), ("stderr", err)):
                patched.setattr(sys, name, stream)
            code = cli.run(list(arguments))
        said, noted = (_text_of(stream) for stream in (out, err))
        return subprocess.CompletedProcess(arguments, code, said, noted)


def _text_of(stream: io.TextIOWrapper) -> str:
    stream.flush()
    written = stream.buffer
    assert isinstance(written, io.BytesIO)
    return written.getvalue().decode()


@pytest.fixture(scope="module")
def program(servers, tmp_path_factory) -> Program:
    """With servers that run already, so that a command is only the command."""
    return Program(
        DATABASE_URL=servers.database_url,
        NATS_URL=servers.nats_url,
        ALLOTMENT_HOME=str(tmp_path_factory.mktemp("home")),
    )


@pytest.fixture(scope="module")
def allotment(program) -> Program:
    return Within(**program.environment)


OFFLINE = {"ALLOTMENT_HOME": "/proc/nowhere", "DATABASE_URL": "postgresql://127.0.0.1:1/none"}
"""With nothing it could start or reach."""


@pytest.fixture(scope="module")
def offline() -> Program:
    return Within(**Program(**OFFLINE).environment)


@pytest.fixture(scope="module")
def acme(allotment, tmp_path_factory) -> str:
    """A tenant made from the example definition, for tests that charge as it says."""
    return made_from_example(allotment, tmp_path_factory)


def made_from_example(allotment, tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("acme") / "acme.json"
    file.write_text(allotment("tenant", "example").stdout, encoding="utf-8")
    slug = f"acme-{uuid4().hex[:8]}"
    about = ("--name", "Acme plc", "--time-zone", "Europe/London", "--currency", "GBP")
    made = allotment.json("tenant", "create", slug, *about, "--file", str(file))
    assert made["steps"] == 10
    assert allotment.json("tenant", "apply", slug, str(file))["new_steps"] == 0
    return slug


def call(ident: str, line: str = "+447700900123", **more: Any) -> str:
    about = {"source": "test", "id": ident, "line": line, "type": "voice", "quantity": 61}
    return (
        json.dumps({**about, "counterpart": "+442079460000", "start": "2026-10-05T10:00:00Z", **more}) + "\n"
    )


def test_limits_and_policies_are_set_tried_and_listed(allotment, tmp_path, tmp_path_factory):
    acme = made_from_example(allotment, tmp_path_factory)
    policy = tmp_path / "policy.json"
    policy.write_text(
        json.dumps(
            {
                "policy": {
                    "id": "p",
                    "node": "london",
                    "counted": "voice",
                    "steps": [{"action": "redirect", "percent": 100}],
                },
                "limits": [{"node": "london", "usage_type": "voice", "quantity": 60, "kind": "soft"}],
            }
        ),
        encoding="utf-8",
    )
    allotment.json("usage", "import", "-", "-t", acme, stdin=call("rules-1") + call("rules-2"))
    tried = allotment.json(
        *("policy", "try", str(policy), "-t", acme),
        *("--from", "2026-10-01T00:00+01:00", "--to", "2026-11-01T00:00+00:00"),
    )
    assert tried["proposed"]["redirected"] == 2
    assert [node["node"] for node in tried["nodes"]] == ["london"]
    about = ("--window", "day", "--at", "50%", "--at", "90", "--raiser", "telecoms_manager:150%")
    told = allotment.json("limit", "set", "london", "voice", "100", "-t", acme, *about)
    assert [event["topic"] for event in told["events"]] == ["limit.set"]
    allotment.json("policy", "set", str(policy), "-t", acme)
    listed = allotment.json("limit", "list", "-t", acme, "--node", "london")
    assert ("voice", "day", 100) in {(one["usage_type"], one["window"], one["quantity"]) for one in listed}
    allotment.json("limit", "set", "london", "money", "500000000", "-t", acme)
    rows = [row.split() for row in allotment("limit", "list", "-t", acme).stdout.splitlines()]
    (row,) = [row for row in rows if row[:2] == ["london", "money"]]
    assert row[3:7] == ["hard", "0.00", "500.00", "GBP"]
    (version,) = allotment.json("policy", "list", "-t", acme)
    assert (version["policy"], version["version"]) == ("p", 1)
    ended = allotment("limit", "raise", "london", "voice", "--to", "90", "--until", "soon", "-t", acme)
    assert (ended.returncode, "no moment with its zone" in ended.stderr) == (2, True)


# --- without any server ---------------------------------------------------------------------------


def test_help_needs_nothing_and_names_every_command():
    ended = Program(**OFFLINE)("--help")
    assert ended.returncode == 0, ended.stderr
    for name in (
        "demo",
        "serve",
        "migrate",
        "doctor",
        "tenant",
        "usage",
        "rate",
        "dump",
        "verify",
        "rebuild",
    ):
        assert re.search(rf"\b{name}\b", ended.stdout), name


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_lists_each_command_as_it_would_list_itself(name):
    group, context = cli.commands, click.Context(cli.commands)
    itself = group.get_command(context, name)
    line = listed(name, *cli.COMMANDS[name].split(":"))
    assert (line.name, line.hidden) == (itself.name, itself.hidden)
    assert line.get_short_help_str(200) == itself.get_short_help_str(200)


def test_a_command_whose_text_is_not_found_in_its_source_is_loaded():
    assert listed("x", "no_such_module", "x") is None
    assert listed("x", "operating", "no_such_command") is None
    assert listed("x", "operating", "_serve_alone") is None


def test_a_record_is_rated_with_its_working_and_without_a_server(tmp_path):
    offline = Program(**OFFLINE)
    tariff, usage = tmp_path / "tariff.json", tmp_path / "usage.ndjson"
    tariff.write_text(json.dumps(TARIFF), encoding="utf-8")
    records = [call("short", quantity=7), call("far", counterpart="+33199001234"), call("none", type="video")]
    usage.write_text("".join(records) + "torn\n", encoding="utf-8")
    ended = offline("rate", "--tariff", str(tariff), "--usage", str(usage))
    short, far, none, torn = map(json.loads, ended.stdout.splitlines())
    assert ended.returncode == 0, ended.stderr
    assert (short["quantity"], short["billed"], short["prefix"], short["amount"]) == (7, 30, "+44", "0.0100")
    assert [part["exact"] for part in far["components"]] == ["61/300", "0.05"]
    assert (far["zone"], far["unrounded"], far["amount"]) == ("world", "19/75", "0.2533")
    assert (none["problem"], torn["problem"]) == ("no_rate", "malformed")
    assert "2 records cannot be rated" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("usage", "import", "x.csv"), 2, "Missing option '--tenant'"),
        (("usage", "import", "/nowhere.csv", "-t", "acme"), 2, "/nowhere.csv: No such file"),
        (("usage", "import", "-", "-t", "acme", "-f", "betamax"), 2, "format 'betamax' is not known"),
        (("rate", "--tariff", "-", "--usage", "-"), 2, "the tariff cannot be used"),
        (("usage", "watch", "/nowhere", "-t", "acme"), 2, "/nowhere: is not a folder"),
        (
            ("usage", "fetch", "sftp://a:b@c/d", ".", "--key", "k", "--known-hosts", "h"),
            1,
            "a password does not belong on a command line",
        ),
        (("tenant", "list"), 1, "Is DATABASE_URL right?"),
        (("demo", "--json"), 2, "go with --once"),
        (("contract", "change", "c", "data=-1", "-t", "acme"), 2, "give TYPE=QUANTITY"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_no_traceback(offline, arguments, code, sentence):
    ended = offline(*arguments)
    assert ended.returncode == code
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not ended.stdout


def test_a_type_of_the_carrier_s_own_is_rated_and_the_schema_of_tariffs_printed(offline, tmp_path):
    tariff, usage = tmp_path / "tariff.json", tmp_path / "usage.ndjson"
    sensor = {"usage_type": "sensor", "zone": "any", "price": "0.5", "bands": [{"from": 2, "price": "0.25"}]}
    tariff.write_text(json.dumps(TARIFF | {"rates": [sensor]}), encoding="utf-8")
    usage.write_text(call("s", type="sensor", quantity=3), encoding="utf-8")
    ended = offline("rate", "--tariff", str(tariff), "--usage", str(usage), "--usage-type", "sensor=event")
    told = json.loads(ended.stdout)
    assert [(one["band"], one["from"], one["to"], one["exact"]) for one in told["components"]] == [
        (0, 0, 2, "1"),
        (1, 2, 3, "0.25"),
    ]
    assert (told["unrounded"], told["amount"], told["tariff_version"]) == ("1.25", "1.2500", 1)
    unknown = offline("rate", "--tariff", str(tariff), "--usage", str(usage))
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "rates[0].usage_type: 'sensor': use one of" in unknown.stderr
    assert json.loads(offline("schema", "--tariff").stdout)["title"] == "Tariff"


def test_the_schema_version_is_read_from_the_names_of_the_migrations():
    assert newest_version() == head_revision()


# --- with a tenant --------------------------------------------------------------------------------


def test_a_contract_is_signed_changed_and_ended_by_the_carrier(allotment, tmp_path):
    slug = f"terms-{uuid4().hex[:8]}"
    about = ("--name", "Acme plc", "--time-zone", "Europe/London", "--currency", "GBP")
    plan, frame = tmp_path / "plan.json", tmp_path / "frame.json"
    plan.write_text(json.dumps({"nodes": [{"id": "acme", "kind": "enterprise"}]}), encoding="utf-8")
    allotment.json("tenant", "create", slug, *about, "--file", str(plan))
    terms = {"id": "frame", "starts_on": "2026-01-01", "grants": {"data": 1000}, "commitment": "5.00"}
    frame.write_text(json.dumps(terms | {"rollover": {"data": {"cycles": 2}}}), encoding="utf-8")
    of_tenant = ("--tenant", slug)
    foreseen = allotment("contract", "sign", str(frame), *of_tenant, "--dry-run")
    assert foreseen.stdout == "Would be: Contract frame (version 1) was signed, from 2026-01-01.\n"
    signed = allotment.json("contract", "sign", str(frame), *of_tenant)
    assert (signed["repeated"], signed["events"][0]["grants"]) == (False, [["data", 1000]])
    changed = allotment.json("contract", "change", "frame", "data=1500", "video=60", *of_tenant)
    assert [event["topic"] for event in changed["events"]].count("bucket.grant_changed") == 2
    shown = allotment("contract", "show", *of_tenant)
    assert "version 2" in shown.stdout
    assert "2 times" in shown.stdout
    refused = allotment("contract", "end", "frame", "2020-01-01", *of_tenant)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "ends_before_start" in refused.stderr


def test_usage_is_charged_once_and_the_counts_add_up(allotment, program, acme):
    stream = call("one") + call("two") + call("one") + call("lost", line="+447700900999") + "{torn\n"
    said = allotment.json("usage", "import", "-", "--tenant", acme, "--dry-run", stdin=stream)
    done = program.json("import", "-", "--tenant", acme, stdin=stream)
    assert {name: done[name] for name in COUNTS} == {
        "received": 5, "charged": 2, "duplicate": 1, "suspended": 2, "rejected": 0,
    }  # fmt: skip
    assert {name: said[name] for name in COUNTS} == {name: done[name] for name in COUNTS}
    again = allotment.json("usage", "import", "-", "--tenant", acme, stdin=stream)
    assert (again["charged"], again["suspended"], again["duplicate"]) == (0, 0, 5)
    waiting = allotment.json("usage", "suspense", "--tenant", acme)
    assert waiting["reasons"] == {"malformed": 1, "unknown_line": 1}
    told = allotment("explain", "--tenant", acme, "test/one").stdout
    assert "standard v1" in told
    assert "61 second -> 61" in told


def test_what_waits_is_valued_corrected_recycled_and_written_off(allotment, acme, tmp_path):
    path, of = tmp_path / "lost.ndjson", ("--tenant", acme)
    lost = [call(f"lost-{i}", line=f"+44770090010{i}") for i in range(4)]
    path.write_text(call("opens the period") + "".join(lost) + "{torn, too\n", encoding="utf-8")
    allotment.json("usage", "import", str(path), *of)
    these = (*of, "--file", path.name)
    aged = {one["reason"]: one for one in allotment.json("usage", "ageing", *these)["suspense"]}
    assert (aged["unknown_line"]["records"], aged["unknown_line"]["rated"]) == (4, 4)
    assert "at stake" in allotment("usage", "ageing", *these).stdout
    waiting = {one["record_id"]: one for one in allotment.json("usage", "suspense", *of)["records"]}
    amend = ("usage", "amend", waiting["lost-0"]["usage_id"], *of, "--note", "a slip")
    refused = allotment(*amend, "--quantity", "-1")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert allotment.json(*amend, "--line", "+447700900123", "--dry-run")["dry_run"]
    assert allotment.json(*amend, "--line", "+447700900123")["fields"] == ["line"]
    tried = allotment.json("usage", "recycle", *these, "--dry-run")
    assert (tried["charged"], tried["suspended"], tried["passed_over"]) == (1, 3, 1)
    done = allotment.json("usage", "recycle", *these, "--most", "3")
    assert (done["charged"], done["suspended"], done["left"]) == (1, 2, 2)
    assert "malformed" in allotment("usage", "recycle", *these, "--after", str(done["after"])).stdout
    everything = allotment("usage", "dismiss", *of, "--note", "all")
    assert everything.returncode != 0
    assert "not written off at once" in everything.stderr
    gone = allotment.json("usage", "dismiss", *these, "--reason", "unknown_line", "--note", "a test")
    assert gone["dismissed"] == 3
    read = allotment.json("usage", "reread", *these, "--format", "allotment", "--note", "again")
    assert (read["amended"], read["passed_over"]) == (0, 1)
    preview = allotment.json("invoice", "preview", *of, "--period", "2026-10")
    assert preview["waiting"]["records"] >= 1
    assert allotment.json("verify", *of)["ok"]


def test_rules_hold_what_is_late_and_let_writing_off_take_two(allotment, tmp_path, tmp_path_factory):
    acme = made_from_example(allotment, tmp_path_factory)
    of, path = ("--tenant", acme), tmp_path / "late.ndjson"
    rules = ("usage", "rules")
    assert "No rules" in allotment(*rules, "list", *of).stderr
    for bad in (
        ("late",),
        ("dismissal",),
        ("late", "--lift", "--after-hours", "1"),
        ("dismissal", "--above", "x"),
    ):
        assert allotment(*rules, *bad, *of).returncode == 2
    tried = allotment(*rules, "late", "--after-hours", "24", *of, "--dry-run").stdout
    assert tried == "Would be: Usage of all sources that comes more than 24 hours late is held in suspense.\n"
    allotment.json(*rules, "late", "--after-hours", "24", *of, "--note", "section 4")
    allotment.json(*rules, "dismissal", "--above", "0.000001", *of)
    listed = allotment.json(*rules, "list", *of)
    assert [(one["rule"], one.get("above"), one.get("after_hours")) for one in listed] == [
        ("suspense.dismissal_rule_set", 1, None), ("suspense.late_rule_set", None, 24),
    ]  # fmt: skip
    assert "more than 24 hours old" in allotment(*rules, "list", *of).stdout
    path.write_text(call("late-1") + call("late-2"), encoding="utf-8")
    assert allotment.json("usage", "import", str(path), *of)["suspended"] == 2
    assert allotment.json("usage", "recycle", *of)["reasons"] == {"too_late": 2}
    done = allotment.json("usage", "recycle", *of, "--accept-late", "--most", "1", "--note", "agreed")
    assert done["charged"] == 1
    told = allotment("explain", *of, "test/late-1").stdout
    assert "waited     too_late" in told
    assert "accepted although it was late" in told
    these = (*of, "--file", path.name, "--note", "too old")
    assert allotment.json("usage", "dismiss", *these)["asked"] == 1
    assert allotment.json("usage", "dismiss", *these)["reasons"] == {"dismissal_asked": 1}
    assert "takes another person" in allotment("usage", "suspense", *of).stdout
    assert allotment.json("usage", "keep", *of, "--note", "no")["kept"] == 1
    allotment.json(*rules, "dismissal", "--lift", *of)
    assert allotment.json("usage", "dismiss", *these)["dismissed"] == 1
    assert allotment.json("verify", *of)["ok"]


def test_every_record_received_is_accounted_for(allotment, acme, tmp_path):
    path, of = tmp_path / "counted.ndjson", ("--tenant", acme)
    path.write_text(call("counted") + call("counted"), encoding="utf-8")
    allotment("usage", "import", str(path), *of)
    again = allotment("usage", "import", str(path), *of)
    assert "imported before" in again.stderr
    newest, before, *_ = allotment.json("usage", "imports", *of)["imports"]
    assert (newest["again"], newest["duplicate"], before["charged"], before["duplicate"]) == (True, 2, 1, 1)
    assert "counted.ndjson" in allotment("usage", "imports", *of).stdout
    days = allotment.json("usage", "accuracy", *of, "--source", "test")["days"]
    for day in days:
        parts = [day[name] for name in ("charged", "duplicate", "suspended", "rejected")]
        assert day["received"] == sum(parts)
    rows = allotment("usage", "accuracy", *of, "--source", "test", "--csv").stdout.splitlines()
    assert rows[0].startswith("day,source,received,charged,duplicate")
    assert len(rows) == 1 + len(days)
    assert "recycled" in allotment("usage", "accuracy", *of).stdout


def test_an_import_says_which_field_is_wrong(allotment, acme, tmp_path):
    path = tmp_path / "overrun.ndjson"
    path.write_text(call("overrun", quantity=2**44 + 1), encoding="utf-8")
    told = allotment("usage", "import", str(path), "--tenant", acme, "--dry-run").stdout
    assert "overrun suspended: bad_value: quantity: must be a whole number from 0 to 17592186044416" in told


def test_files_in_a_watched_folder_are_charged_and_put_away(allotment, acme, tmp_path):
    columns = "Ref,From,To,When,Secs\n"
    good = "w-1,+447700900123,+442079460000,2026-10-05 10:00:00,61\n"
    (tmp_path / "b.csv").write_text(columns + good + "w-2,+447700900123,,yesterday,5\n")
    (tmp_path / "a.csv").write_text("what,is,this\n1,2,3\n")
    (tmp_path / "c.csv.part").write_text(columns)
    told = ("id=Ref", "line=From", "counterpart=To", "start=When", "quantity=Secs", "type:=voice")
    maps = [word for one in told for word in ("--map", one)]
    watch = ("usage", "watch", str(tmp_path), "-t", acme, "-f", "generic-csv", "--settle", "0", "--once")
    ended = allotment(*watch, *maps, "--json")
    assert ended.returncode == 1, ended.stderr
    first, second = map(json.loads, ended.stdout.splitlines())
    assert first["problem"].startswith("a.csv: line 1: the header lacks ")
    assert first["now_at"] == str(tmp_path / "refused" / "a.csv")
    assert {name: second[name] for name in COUNTS} == {
        "received": 2, "charged": 1, "duplicate": 0, "suspended": 1, "rejected": 0,
    }  # fmt: skip
    [problem] = second["problems"]
    assert (problem["position"], problem["reason"], problem["field"]) == ("b.csv:3", "bad_value", "When")
    assert json.loads((tmp_path / "done" / "b.csv.report.json").read_bytes())["charged"] == 1
    assert [path.name for path in tmp_path.glob("*.csv*")] == ["c.csv.part"]
    [refused] = allotment.json("usage", "imports", "-t", acme, "--refused")["imports"]
    assert (refused["name"], refused["state"], refused["problem"]) == ("a.csv", "refused", first["problem"])
    assert first["problem"] in allotment("usage", "imports", "-t", acme).stdout
    (tmp_path / "a.csv").write_text(columns + good.replace("w-1", "w-3"))
    [corrected] = map(json.loads, allotment(*watch, *maps, "--json").stdout.splitlines())
    assert (corrected["file"], corrected["charged"], "problem" in corrected) == ("a.csv", 1, False)
    listed = allotment.json("usage", "imports", "-t", acme)["imports"]
    assert [one["state"] for one in listed if one["name"] == "a.csv"] == ["finished", "refused"]


@pytest.mark.soak
def test_what_was_received_adds_up_though_the_import_was_killed_in_the_middle(
    allotment, program, tmp_path, tmp_path_factory
):
    """Each record is in the day's counts once as what became of it; what came again is a duplicate."""
    tenant, many = made_from_example(allotment, tmp_path_factory), 40_000
    path = tmp_path / "killed.ndjson"
    odd = (
        call("nobody", line="+4930999"),
        call("old", start="1970-01-01T00:00:00Z"),
        call("k-0", quantity=0),
    )
    path.write_text("".join(call(f"k-{number}", quantity=0) for number in range(many)) + "".join(odd))

    def counted():
        days = allotment.json("usage", "accuracy", "-t", tenant, "--source", "test")["days"]
        told = {name: sum(day[name] for day in days) for name in COUNTS}
        assert told["received"] == sum(told[name] for name in COUNTS[1:])
        return told

    process = program.start("usage", "import", str(path), "-t", tenant)
    while not counted()["charged"]:
        assert process.poll() is None, "it was to be killed, and has ended"
    process.kill()
    process.communicate()
    before = counted()
    assert 0 < before["charged"] < many
    [left_off] = allotment.json("usage", "imports", "-t", tenant)["imports"]
    assert left_off["state"] == "unfinished"
    again = allotment.json("usage", "import", str(path), "-t", tenant)
    after = counted()
    assert (after["charged"], after["suspended"], after["rejected"]) == (many, 2, 0)
    assert again["received"] == many + 3
    assert after["received"] == before["received"] + again["received"]
    assert after["duplicate"] == before["received"] + 1, (
        "what was charged before, and the line that stood twice"
    )
    [finished] = allotment.json("usage", "imports", "-t", tenant)["imports"]
    assert (finished["state"], finished["attempts"], finished["received"]) == ("finished", 2, many + 3)
    assert allotment.json("verify", "--tenant", tenant)["ok"]


@pytest.mark.soak
def test_a_watcher_that_is_killed_again_and_again_charges_every_record_once(program, acme, tmp_path):
    many = 15_000
    for part in range(3):
        lines = "".join(call(f"k-{part}-{number}", quantity=0) for number in range(many))
        (tmp_path / f"{part}.ndjson").write_text(lines)
    watch = ("usage", "watch", str(tmp_path), "-t", acme, "--settle", "0")
    for taken_up in (0, 1, 2):
        process = program.start(*watch)
        # In the middle of a file: it has been begun, and not yet put away.
        while not (tmp_path / ".allotment" / f"{taken_up}.ndjson.begun").exists():
            time.sleep(0.1)
        time.sleep(1.5)
        process.kill()
        process.communicate()
    ended = program(*watch, "--once", "--json")
    assert ended.returncode == 0, ended.stderr
    read = sorted(map(str, (tmp_path / "done").glob("*.ndjson")))
    again = program.json("usage", "import", *read, "-t", acme)
    assert (again["received"], again["charged"], again["duplicate"]) == (3 * many, 0, 3 * many)


def test_the_state_is_the_same_bytes_each_time_and_verifies(allotment, program, acme):
    allotment("usage", "import", "-", "--tenant", acme, stdin=call("three"))
    first, second = (allotment("dump", "--tenant", acme) for _ in range(2))
    other = program("dump", "--tenant", acme, PYTHONHASHSEED="7", TZ="Asia/Tokyo")
    digests = {hashlib.sha256(one.stdout.encode()).hexdigest() for one in (first, second, other)}
    assert first.stdout
    assert len(digests) == 1
    report = allotment.json("verify", "--tenant", acme)
    assert report["ok"]
    assert report["seq"] == report["checks"]["events"] > 0
    assert allotment.json("rebuild", "--tenant", acme, "--check")["ok"]


def test_an_invoice_preview_tells_money_as_text(allotment, acme):
    preview = allotment.json("invoice", "preview", "--tenant", acme, "--period", "2026-10")
    assert preview["currency"] == "GBP"
    assert re.fullmatch(r"\d+\.\d{2,6}", preview["total"])


def test_a_tenant_that_cannot_be_opened_leaves_nothing_behind(allotment):
    ended = allotment(
        "tenant", "create", "half", "--name", "x", "--time-zone", "Mars/Base", "--currency", "EUR"
    )
    assert ended.returncode == 1
    assert "unknown_time_zone" in ended.stderr
    assert "half" not in [one["slug"] for one in allotment.json("tenant", "list")]


def test_production_is_told_to_migrate_and_not_migrated(allotment, database_without_tables):
    environment = {
        "DATABASE_URL": database_without_tables,
        "ALLOTMENT_ENV": "production",
        "ALLOTMENT_ROOT_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    }
    ended = allotment("tenant", "list", **environment)
    assert ended.returncode == 2
    assert "Run `allotment migrate` first" in ended.stderr
    assert allotment("migrate", **environment).returncode == 0
    assert allotment("tenant", "list", **environment).returncode == 0


@pytest.fixture
def database_without_tables(servers) -> str:
    import psycopg

    name = f"empty_{uuid4().hex}"
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    return servers.database_url.replace("/allotment?", f"/{name}?")


def test_doctor_looks_at_everything(allotment):
    told = allotment.json("doctor")
    looked = {finding["what"]: finding["ok"] for finding in told["findings"]}
    assert looked.keys() >= {
        "python",
        "charging",
        "settings",
        "home",
        "port",
        "database",
        "migrations",
        "nats",
    }
    assert looked["database"]
    assert looked["nats"]


def test_serve_answers_who_has_a_token_and_stops_when_told(allotment, acme):
    port = str(free_port())
    program = Program(**allotment.environment | {"ALLOTMENT_PORT": port})
    token = Within(**program.environment)(
        "token", "--tenant", acme, "--role", "telecoms_manager", "--node", "london"
    ).stdout.strip()
    serving = program.start("serve")
    try:
        answer = _asked(f"http://127.0.0.1:{port}/graphql", token, "{ me { roles } tenant { name } }")
        assert answer["data"]["tenant"]["name"] == "Acme plc"
        serving.send_signal(signal.SIGTERM)
        _, said = serving.communicate(timeout=SECONDS_MAX)
    finally:
        serving.kill()
    assert serving.returncode == 0, said
    assert said.rstrip().endswith("Stopped.")


def test_serve_ends_and_says_so_when_its_own_postgresql_is_killed(servers, home):
    """Whoever runs it starts it again; beside a dead server it would only look alive."""
    port = str(free_port())
    program = Program(ALLOTMENT_HOME=str(home), ALLOTMENT_PORT=port, NATS_URL=servers.nats_url)
    serving = program.start("serve")
    try:
        _until_ready(f"http://127.0.0.1:{port}/readyz")
        running = json.loads((home / "postgres.json").read_bytes())
        os.kill(running["server"]["pid"], signal.SIGKILL)
        _, said = serving.communicate(timeout=SECONDS_MAX)
    finally:
        serving.kill()
    assert serving.returncode != 0
    assert "the embedded PostgreSQL has ended" in said
    assert "start again" in said


def _until_ready(address: str) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def _asked(address: str, token: str, query: str) -> Any:
    """The answer, once the server answers at all."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(address, json.dumps({"query": query}).encode(), headers)
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(error.read()) from None
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_sheet_of_allocations_goes_in_whole_and_comes_out_again(allotment, acme):
    rows = allotment("allocation", "export", "--tenant", acme).stdout.splitlines()
    assert rows[0] == "action,source,target,usage_type,quantity,period,note"
    _, root, target, usage_type = rows[1].split(",")[:4]
    sheet = (
        f"action;source;target;usage_type;quantity\nallocate;{root};{target};{usage_type};5\n"
        f"cap;;{target};{usage_type};7 s\n"
    )
    done = allotment.json("allocation", "import", "-", "--tenant", acme, stdin=sheet)
    assert (done["repeated"], done["transfers"], done["caps"]) == (False, 1, 1)
    dry = allotment(
        "allocation", "import", "-", "--tenant", acme, "--dry-run", stdin=sheet + "cap;;nowhere\n"
    )
    assert (dry.returncode, "Traceback" in dry.stderr) == (1, False)
    assert "line 3: bad_row" in dry.stderr
    after = allotment("allocation", "export", "--tenant", acme).stdout
    assert f"cap,,{target},{usage_type},7,," in after.splitlines()


def test_a_definition_file_is_read_before_anything_is_made(allotment, tmp_path):
    file = Path(tmp_path, "broken.json")
    file.write_text('{"nodes": [{"id": "acme"}]}', encoding="utf-8")
    about = ("--name", "x", "--time-zone", "UTC", "--currency", "EUR")
    ended = allotment("tenant", "create", "broken", *about, "--file", str(file))
    assert ended.returncode == 2
    assert "nodes[0].kind: it is missing" in ended.stderr


def dumped(allotment, tenant):
    ended = allotment("dump", "--tenant", tenant)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_who_was_erased_cannot_be_read_and_no_figure_changes(allotment, acme, tmp_path):
    file = tmp_path / "one.ndjson"
    file.write_text(call(f"erased-{uuid4().hex}"))
    charged = allotment.json("usage", "import", str(file), "--tenant", acme, "--format", "allotment")
    assert charged["charged"] == 1
    before = dumped(allotment, acme)
    assert allotment.json("tenant", "erase", acme, "+447700900123")["erased"] == 1
    assert allotment.json("tenant", "erase", acme, "+447700900123")["erased"] == 0
    assert dumped(allotment, acme) == before
    assert allotment.json("verify", "--tenant", acme)["ok"]


def test_an_offer_is_made_taken_and_seen_on_the_board(allotment, tmp_path):
    definition = msgspec.to_builtins(example_definition())
    month = time.strftime("%Y-%m", time.gmtime())
    about = {"source": "acme", "target": "alice-mobile", "usage_type": "voice", "quantity": 600}
    definition["allocations"] = [about | {"period": month}]
    file = tmp_path / "acme.json"
    file.write_text(json.dumps(definition), encoding="utf-8")
    slug = f"trade-{uuid4().hex[:8]}"
    names = ("--name", "Acme plc", "--time-zone", "Europe/London", "--currency", "GBP", "--file", str(file))
    allotment.json("tenant", "create", slug, *names)
    given = ("alice-mobile", "300", "voice", "--key", "mine", "--note", "spare", "--tenant", slug)
    made = allotment.json("trade", "offer", *given)
    assert made["ids"] == ["o-mine"]
    assert "alice-mobile offered 300 seconds of voice to everybody below Acme plc" in made["happened"][0]
    take = ("trade", "accept", "o-mine", "alice-desk", "--quantity", "100", "-t", slug, "--key", "take")
    taken = allotment(*take)
    assert taken.stdout.startswith("alice-desk accepted 100 seconds of voice from alice-mobile.")
    taken_at = allotment.json(*take)["seqs"][0]
    (seen,) = allotment.json("trade", "board", "--tenant", slug, "--under", "alice-desk")
    assert (seen["offer"], seen["state"], seen["remaining"]) == ("o-mine", "open", "200")
    allotment.json("trade", "rule", "acme", "voice", "--above", "40", "--in", "day", "-t", slug)
    given = ("alice-mobile", "50", "voice", "--to", "alice-desk", "--key", "two", "--tenant", slug)
    allotment.json("trade", "offer", *given)
    no = allotment.json("trade", "decline-offer", "o-two", "alice-desk", "-t", slug)
    assert "was declined" in no["happened"][0]
    (gone,) = allotment.json("trade", "board", "--tenant", slug, "--state", "declined")
    assert gone["offer"] == "o-two"
    undone = allotment.json("trade", "undo", str(taken_at), "-t", slug)
    assert "was undone" in undone["happened"][0]


def test_a_webhook_is_created_once_however_often_it_is_asked_for(allotment, acme):
    command = ("webhook", "create", f"https://{'8.8.8.8'}/hook?token=1", "--tenant", acme)
    assert allotment.json(*command, "--dry-run")["secret"] is None
    first, again, other = (allotment.json(*command, *more) for more in ((), (), ("--key", "another")))
    assert first["secret"].startswith("whsec_")
    assert (again["webhook"], again["secret"], again["repeated"]) == (first["webhook"], None, True)
    assert other["webhook"] != first["webhook"]
    assert len(allotment.json("webhook", "list", "--tenant", acme)) == 2
    replay = ("webhook", "replay", first["webhook"], "--tenant", acme, "--key", "r")
    told = [allotment.json(*replay)["repeated"] for _ in range(2)]
    assert told == [False, True]
    assert "unknown_webhook" in allotment("webhook", "replay", "wh_0", "--tenant", acme).stderr


# --- the inventory --------------------------------------------------------------------------------


def test_a_sheet_of_limits_goes_in_whole_and_comes_out_again(allotment, tmp_path_factory):
    acme = made_from_example(allotment, tmp_path_factory)
    before = allotment("limit", "export", "--tenant", acme).stdout
    sheet = "node,usage_type,quantity,window,thresholds\nlondon,voice,10 h,day,50%\nlondon,data,2 GB,,\n"
    command = ("limit", "import", "-", "--tenant", acme)
    foreseen = allotment.json(*command, "--dry-run", stdin=sheet)
    assert (foreseen["dry_run"], foreseen["limits"]) == (True, 2)
    assert allotment("limit", "export", "--tenant", acme).stdout == before
    refused = allotment(*command, stdin=sheet + "nowhere,voice,1,,\nlondon,voice,1,moon,\n")
    assert refused.returncode == 1
    assert "line 3: unknown_node" in refused.stderr
    assert "line 4: bad_window" in refused.stderr
    assert allotment.json(*command, stdin=sheet)["limits"] == 2
    assert allotment.json(*command, stdin=sheet)["repeated"]
    out = allotment("limit", "export", "--tenant", acme).stdout
    assert "london,voice,36000,day,hard,50%,," in out.splitlines()
    assert allotment.json(*command, stdin=out)["limits"] == len(out.splitlines()) - 1
    assert "were set" in allotment(*command, "--key", "again", stdin=out).stdout
    assert allotment("limit", "export", "--tenant", acme).stdout == out


@pytest.mark.parametrize("terms", [{}, {"calendar": {"kind": "billing_day", "number": 15}}])
def test_limits_of_an_enterprise_that_has_used_nothing_yet_are_told(allotment, tmp_path, terms):
    slug, plan = f"new-{uuid4().hex[:8]}", tmp_path / "plan.json"
    definition = {
        "nodes": [{"id": "acme", "kind": "enterprise"}],
        "contracts": [{"id": "frame", "starts_on": "2026-01-01", "grants": {"voice": 36_000}, **terms}],
    }
    plan.write_text(json.dumps(definition), encoding="utf-8")
    about = ("--name", "New", "--time-zone", "Europe/London", "--currency", "GBP", "--file", str(plan))
    allotment.json("tenant", "create", slug, *about)
    sheet = "node,usage_type,quantity,window\nacme,voice,1 h,day\nacme,voice,10 h,\n"
    allotment.json("limit", "import", "-", "--tenant", slug, stdin=sheet)
    rows = allotment("limit", "export", "--tenant", slug).stdout.splitlines()[1:]
    assert [row.split(",")[:4] for row in rows] == [
        ["acme", "voice", "3600", "day"],
        ["acme", "voice", "36000", "period"],
    ]
    assert len(allotment.json("limit", "list", "--tenant", slug)) == 2
    told = allotment.json("review", "--tenant", slug, "--type", "voice")
    assert told["startsAt"] <= datetime.now(UTC).isoformat() < told["endsAt"]
    assert len(told["period"]) == (len("2026-11-15") if terms else len("2026-11"))


def test_an_inventory_is_exported_edited_and_imported_whole_or_not_at_all(allotment, acme, tmp_path):
    file = tmp_path / "inventory.csv"
    exported = allotment("inventory", "export", str(file), "--tenant", acme)
    assert exported.returncode == 0, exported.stderr
    head, first, *rest = file.read_text(encoding="utf-8").splitlines()
    assert head.startswith("resource,node,kind,status,lines,label,since")
    same = allotment("inventory", "import", str(file), "--tenant", acme)
    assert "nothing_to_change" in same.stderr
    more = ["spare,nowhere,sip,,spare,Ada,,,,,", "spare-2,acme,sip,suspended,spare-2,Bob,,,,,"]
    file.write_text("\n".join([head, first, *rest, *more]) + "\n", encoding="utf-8")
    refused = allotment.json("inventory", "import", str(file), "--tenant", acme, code=1)
    (bad,) = refused["refused"]
    assert (bad["line"], bad["field"], bad["code"]) == (len(rest) + 3, "node", "unknown_node")
    file.write_text("\n".join([head, more[1]]) + "\n", encoding="utf-8")
    command = ("inventory", "import", str(file), "--tenant", acme)
    foreseen = allotment.json(*command, "--dry-run")
    done = allotment.json(*command)
    assert foreseen["events"] == done["events"]
    assert done["events"] == {
        "hierarchy.resource_added": 1,
        "hierarchy.resource_labelled": 1,
        "hierarchy.resource_suspended": 1,
    }
    told = allotment("inventory", "export", "--tenant", acme, "--status", "suspended").stdout
    assert "spare-2,acme,sip,suspended,spare-2,Bob," in told


def test_a_file_that_is_no_inventory_is_told_by_line(offline, tmp_path):
    file = tmp_path / "inventory.csv"
    file.write_text("resource,effective_from\nr-1,yesterday\nr-2\n", encoding="utf-8")
    told = offline.json("inventory", "import", str(file), "--tenant", "acme", code=1)
    assert [(one["line"], one["field"]) for one in told["refused"]] == [(2, "effective_from"), (3, "line")]
    file.write_text("who,what\n", encoding="utf-8")
    assert offline("inventory", "import", str(file), "--tenant", "acme").returncode == 2


def test_charges_are_rated_again_after_it_was_shown_what_that_changes(allotment, tmp_path):
    slug = f"rerated-{uuid4().hex[:8]}"
    about = ("--name", "Acme plc", "--time-zone", "Europe/London", "--currency", "GBP")
    plan = tmp_path / "plan.json"
    definition = {
        "region": "GB",
        "nodes": [{"id": "acme", "kind": "enterprise"}],
        "resources": [{"id": "alice", "node": "acme", "kind": "msisdn", "lines": ["+447700900123"]}],
        "contracts": [{"id": "frame", "starts_on": "2026-01-01", "grants": {}}],
        "tariffs": [TARIFF],
    }
    plan.write_text(json.dumps(definition), encoding="utf-8")
    allotment.json("tenant", "create", slug, *about, "--file", str(plan))
    allotment.json("import", "-", "--tenant", slug, stdin=call("one") + call("two"))
    rates = [{**TARIFF["rates"][0], "price": "0.04"}, TARIFF["rates"][1]]
    dearer = definition | {"tariffs": [{**TARIFF, "valid_from": "2026-01-02", "rates": rates}]}
    plan.write_text(json.dumps(dearer), encoding="utf-8")
    allotment.json("tenant", "apply", slug, str(plan))

    wanted = ("rerate", "--tenant", slug, "--tariff", "2")
    shown = allotment.json(*wanted, "--dry-run")
    assert (shown["looked_at"], shown["records"]) == (2, 2)
    assert shown["kinds"][0]["node"] == "acme"
    assert "2 charges looked at, 2 would change." in allotment(*wanted, "--dry-run").stdout
    done = allotment.json(*wanted, "--job", "fix", "--cause", "tariff_corrected", "--note", "ticket")
    assert (done["changed"], done["amount"]) == (2, shown["difference"])
    assert allotment.json(*wanted, "--job", "fix", "--cause", "tariff_corrected", "--note", "ticket") == done
    assert allotment.json(*wanted, "--dry-run")["records"] == 0
    assert allotment(*wanted).returncode == 2
    refused = allotment("rerate", "--tenant", slug, "--node", "nobody", "--dry-run")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "there is no node nobody" in refused.stderr


def test_the_hierarchy_is_changed_back_dated_after_it_was_shown_what_that_changes(allotment, tmp_path):
    slug = f"corrected-{uuid4().hex[:8]}"
    about = ("--name", "Acme plc", "--time-zone", "Europe/London", "--currency", "GBP")
    plan = tmp_path / "plan.json"
    definition = {
        "region": "GB",
        "nodes": [
            {"id": "acme", "kind": "enterprise"},
            *({"id": node, "kind": "division", "parent": "acme", "name": node} for node in ("emea", "apac")),
            {"id": "sales", "kind": "cost_centre", "parent": "emea", "name": "Sales"},
        ],
        "resources": [{"id": "alice", "node": "sales", "kind": "msisdn", "lines": ["+447700900123"]}],
        "contracts": [{"id": "frame", "starts_on": "2026-01-01", "grants": {}}],
        "tariffs": [TARIFF],
    }
    plan.write_text(json.dumps(definition), encoding="utf-8")
    allotment.json("tenant", "create", slug, *about, "--file", str(plan))
    allotment.json("import", "-", "--tenant", slug, stdin=call("one") + call("two"))

    at = ("--from", "2026-10-01T00:00+00:00", "--tenant", slug)
    wanted = ("correct", "move", "sales", "--to", "apac", *at)
    shown = allotment.json(*wanted, "--dry-run")
    assert (shown["records"], shown["difference"]) == (2, 0)
    assert "2 would change" in allotment(*wanted, "--dry-run").stdout
    assert allotment(*wanted).returncode == 2
    stale = allotment.json(*wanted, "--job", "j", "--shown", "another", code=1)
    assert (stale["refused"], stale["digest"]) == ("changed_since_shown", shown["digest"])
    confirmed = (*wanted, "--job", "j", "--shown", shown["digest"], "--note", "ticket")
    assert allotment.json(*confirmed)["changed"] == 2
    assert allotment.json(*confirmed)["changed"] == 2
    refused = allotment("correct", "join", "alice", *at, "--dry-run")
    assert (refused.returncode, "earlier time" in refused.stderr) == (1, True), refused.stderr
    assert allotment.json("correct", "end", "alice", *at, "--dry-run")["records"] == 2
    added = ("correct", "add", "dach", "--to", "acme", "--kind", "division", *at, "--job", "a", "--shown", "")
    assert allotment.json(*added)["changed"] == 0
    named = ("correct", "rename", "dach", "--name", "D-A-CH", *at, "--job", "n", "--shown", "")
    assert allotment.json(*named)["changed"] == 0
    merge = ("correct", "merge", "sales", "--into", "emea", *at)
    assert allotment.json(*merge, "--dry-run", code=1)["refused"] == "not_after_last_move"
    close = ("correct", "close", "emea", *at)
    assert "--shown ''" in allotment(*close, "--dry-run").stderr
    assert allotment.json(*close, "--job", "c", "--shown", "")["changed"] == 0
    late = tmp_path / "late.csv"
    late.write_text("resource,node,effective_from\nalice,dach,2026-10-01T00:00+00:00\n", encoding="utf-8")
    stock = ("inventory", "import", str(late), "--tenant", slug)
    (line,) = allotment.json(*stock, "--dry-run", code=1)["refused"]
    assert (line["line"], line["code"]) == (2, "in_the_past")
    shown = allotment.json(*stock, "--job", "late", "--dry-run")
    assert shown["records"] == 2
    assert allotment(*stock, "--job", "late").returncode == 2
    assert allotment.json(*stock, "--job", "late", "--shown", "no", code=1)["digest"] == shown["digest"]
    assert allotment.json(*stock, "--job", "late", "--shown", shown["digest"])["changed"] == 2
    assert allotment.json(*stock, "--job", "b", "--dry-run", code=1)["refused"] == "nothing_to_change"


def test_terms_for_sessions_are_laid_down_listed_and_taken_back(allotment, acme):
    at_node = ("session", "terms", "set", "emea", "--type", "data", "--tenant", acme)
    refused = allotment(*at_node, "--final", "REDIRECT")
    assert (refused.returncode, "address" in refused.stderr) == (1, True), refused.stderr
    done = allotment.json(*at_node, "--final", "REDIRECT", "--address", "https://top-up.example")
    assert [event["topic"] for event in done["events"]] == ["session.terms_set"]
    (told,) = allotment.json("session", "terms", "list", "--tenant", acme)
    assert (told["node"], told["usage_type"], told["terms"][:2]) == (
        *("emea", "data"),
        ["REDIRECT", "https://top-up.example"],
    )
    assert "top-up.example" in allotment("session", "terms", "list", "--tenant", acme).stdout
    assert allotment("session", "terms", "clear", "emea", "--type", "data", "-t", acme).returncode == 0
    assert allotment.json("session", "terms", "list", "--tenant", acme) == []
    assert allotment.json("session", "list", "--tenant", acme, "--status", "open") == []
