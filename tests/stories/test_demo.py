"""The demonstration, as somebody sees it who has just cloned the repository."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

# Servers of its own, three months of usage: where cores are scarce, that takes long.
pytestmark = pytest.mark.timeout(600)
SECONDS_MAX = 500
COMMAND = [sys.executable, "-W", "error", "-c", "from allotment.backend.cli import main; main()", "demo"]
STORY = [
    "pool_burns_down",
    "threshold_fires_once",
    "crossing_delivered",
    "trade_moves_quantity",
    "limit_refuses",
    "record_in_suspense",
    "record_explained",
    "divided_by_template_and_sheet",
    "offer_accepted_and_approved",
    "policy_tried_and_in_force",
    "node_moved",
    "month_reviewed",
    "contract_sized",
]
CALLS = {
    "calls": [
        {"sid": "CA1", "from": "+13051416799", "to": "+13051913581", "direction": "outbound-api"},
        {"sid": "CA2", "from": "+13051416798", "to": "+13051913580", "direction": "inbound"},
        {"sid": "CA3", "from": "+447700900998", "to": "+442079460000", "direction": "outbound-api"},
    ]
}
TIMES = {"start_time": "Fri, 18 Oct 2019 17:02:00 +0000", "end_time": "Fri, 18 Oct 2019 17:03:00 +0000"}


def environment(**more: str) -> dict[str, str]:
    ours = ("ALLOTMENT_", "NATS_", "DATABASE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | more


def played(*arguments: str, **more: str) -> dict[str, Any]:
    ended = subprocess.run(
        [*COMMAND, "--once", "--json", *arguments],
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("\n") == 1
    return json.loads(ended.stdout)


def test_from_nothing_to_an_explained_and_verified_bill():
    told = played()
    usage = told["usage"]
    assert told["tenants"] == 2
    assert told["verify"] == {"ok": True}
    assert usage["received"] > 3_000
    assert usage["received"] == sum(usage[name] for name in ("charged", "duplicate", "suspended", "rejected"))
    assert all(usage[name] > 0 for name in ("charged", "duplicate", "suspended", "rejected"))
    assert [one["chapter"] for one in told["story"]] == STORY
    assert all(one["ok"] for one in told["story"]), told["story"]
    told_of = next(one for one in told["story"] if one["chapter"] == "crossing_delivered")
    assert told_of["signature"] == "verified"
    assert told_of["received"] == 1
    assert (told_of["type"], told_of["node"]) == ("allotment.limit.threshold_crossed", "crew-1")
    assert "Crew 1 at 80 %" in told_of["email"]


@pytest.mark.soak
def test_somebodys_own_file_is_played_instead_and_twice_on_the_same_database(servers, tmp_path):
    file = Path(tmp_path, "calls.json")
    calls = [{**call, **TIMES, "duration": "4", "status": "completed"} for call in CALLS["calls"]]
    file.write_text(json.dumps({"calls": calls}), encoding="utf-8")
    home = {"DATABASE_URL": servers.database_url, "ALLOTMENT_HOME": str(tmp_path)}
    first, second = (played("--usage", str(file), "--format", "twilio-calls", **home) for _ in range(2))
    for told in (first, second):
        assert told["usage"] == {"received": 3, "charged": 2, "duplicate": 0, "suspended": 1, "rejected": 0}
        assert told["reasons"] == {"unknown_line": 1}
    assert not set(first["slugs"]) & set(second["slugs"])


@pytest.fixture
def demo(tmp_path):
    # Not into a pipe: nobody reads what is noted, and a full one would stop the demo.
    with (tmp_path / "noted").open("w") as noted:
        running = subprocess.Popen(
            [*COMMAND, "--speed", "50"],
            env=environment(ALLOTMENT_PORT="0"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=noted,
            text=True,
        )
        yield running
        running.kill()
        running.communicate()


def test_the_live_demo_prints_a_line_to_paste_lets_usage_flow_and_stops_at_ctrl_c(demo):
    said = []
    deadline = time.monotonic() + SECONDS_MAX
    for line in demo.stdout:
        said.append(line)
        if re.search(r"[1-9]\d* records in 10 s", line):
            break
        assert time.monotonic() < deadline
    pasted = next(line.strip() for line in said if line.strip().startswith("curl") and "graphql" in line)
    nodes = answer_to(pasted)["data"]["hierarchy"]["nodes"]
    assert "london" in [node["id"] for node in nodes]
    folder = re.search(r"host=(\S+?)&", "".join(said))
    assert folder is not None
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=SECONDS_MAX)
    assert demo.returncode == 0
    assert not Path(folder[1]).exists()


def answer_to(pasted: str) -> Any:
    """What the pasted line prints."""
    if shutil.which("curl"):
        return json.loads(subprocess.run(pasted, shell=True, capture_output=True, check=True).stdout)
    address = re.search(r"http://\S+", pasted)
    headers = dict(re.findall(r"-H '([^:']+): ([^']+)'", pasted))
    body = re.search(r"-d '(.*)'", pasted)
    assert address is not None
    assert body is not None
    request = urllib.request.Request(address[0], body[1].encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)
