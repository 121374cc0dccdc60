"""`allotment serve --workers` on its own servers, killed: the next one has address and data at once."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fixtures_workers import DEFINITION
from fixtures_writer import line
from patience import free_port, until

from allotment.backend.crew import PROGRAM
from allotment.backend.orphans import SECONDS_MAX

pytestmark = pytest.mark.timeout(300)  # where cores are scarce, processes take long to start
START_SECONDS_MAX = 100.0
STARTED_AGAIN_SECONDS_MAX = 15.0
"""Or twice what starting took the first time, where that is more."""
STOPPED_SECONDS_MAX = 12.0
GRACE_SECONDS = 3.0
"""What the end of a process takes where cores are scarce."""
LINES_MAX = 60
CALLERS = 4
PATIENCE_SECONDS = 20.0


class Own:
    """The program with servers of its own, in a folder that outlives it, and callers at its door."""

    def __init__(self, home):
        self.home = home
        self.port = free_port()
        given = {"ALLOTMENT_HOME": str(home), "ALLOTMENT_PORT": str(self.port)}
        self._environment = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "NATS_URL")}
        self._environment |= given
        self._starts = 0
        self._moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        """Of every call: whoever sends one again sends the same."""
        self.took_seconds = self.start()
        definition = home / "definition.json"
        definition.write_text(json.dumps(DEFINITION))
        named = ("--name", "Acme", "--time-zone", "UTC", "--currency", "EUR", "--file", str(definition))
        self.run("tenant", "create", "acme", *named)
        self.token = self.run("token", "--tenant", "acme", "--role", "mediation").strip()

    def start(self):
        """How long it took."""
        began = time.monotonic()
        self._starts += 1
        with self._said.open("w") as said:
            command = [*_COMMAND, "serve", "--workers", "2"]
            self.process = subprocess.Popen(command, env=self._environment, stdout=said, stderr=said)
        until(
            lambda: "Allotment serves" in self.words() or self.process.poll() is not None, START_SECONDS_MAX
        )
        assert self.process.poll() is None, self.words()
        return time.monotonic() - began

    @property
    def _said(self):
        return self.home / f"said-{self._starts}"

    def words(self):
        return self._said.read_text()

    def run(self, *arguments):
        done = subprocess.run(
            [*_COMMAND, *arguments], env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def processes(self):
        """Of its children the projector and the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if PROGRAM.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def postgres(self):
        return json.loads((self.home / "postgres.json").read_bytes())["server"]["pid"]

    def post(self, ident):
        """Status, headers and body; None where the connection was closed instead."""
        fields = {"source": "switch", "id": ident, "line": line(0), "type": "voice", "quantity": 61}
        body = json.dumps(fields | {"start": self._moment, "counterpart": "+442071838750"}) + "\n"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request("POST", "/v1/usage", body, {"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)


_COMMAND = (sys.executable, "-c", PROGRAM)


@pytest.fixture
def own(home):
    opened = Own(home)
    yield opened
    opened.stop()


def test_after_its_parent_was_killed_the_next_one_serves_at_once_and_nothing_acknowledged_is_lost(own):
    orphans = own.processes()
    assert len(orphans) == 3, "two workers and a projector"
    stop, acknowledged, others = threading.Event(), [], []

    def call(caller):
        number = 0
        while not stop.is_set():
            number += 1
            answer = own.post(f"{caller}-{number}")
            (acknowledged if answer and answer[0] == 200 else others).append((f"{caller}-{number}", answer))
            if not answer:
                time.sleep(0.1)

    with ThreadPoolExecutor(CALLERS) as threads:
        calling = [threads.submit(call, caller) for caller in range(CALLERS)]
        until(lambda: len(acknowledged) > 50)
        lines = len(own.words().splitlines())
        said = own._said
        began = time.monotonic()
        own.process.kill()
        own.process.wait()
        until(lambda: not [pid for pid in orphans[1:] if _lives(pid)])
        gone = time.monotonic() - began
        stop.set()
        for one in calling:
            one.result(PATIENCE_SECONDS)
    told = said.read_text().splitlines()[lines:]
    print(f"gone in {gone:.1f} s, {len(told)} lines; answers {[a and a[0] for _, a in others]}")
    assert gone < SECONDS_MAX + GRACE_SECONDS
    assert len(told) < LINES_MAX, told
    for _, answer in others:
        assert answer is None or answer[0] == 503, answer
        assert answer is None or answer[0] != 503 or answer[1]["Retry-After"]
    own.start()
    for ident, _ in acknowledged[-20:]:
        assert json.loads(own.post(ident)[2])["duplicate"] == 1


def test_the_next_one_may_be_started_while_the_orphans_are_still_there(own):
    os.kill(own.process.pid, signal.SIGKILL)
    own.process.wait()
    took = own.start()
    print(f"serves again after {took:.1f} s, at first {own.took_seconds:.1f} s")
    assert took < max(STARTED_AGAIN_SECONDS_MAX, 2 * own.took_seconds)
    assert own.post("again")[0] == 200


def test_told_to_stop_when_postgresql_is_dead_it_is_gone_in_seconds(own):
    assert own.post("first")[0] == 200
    processes = own.processes()
    with ThreadPoolExecutor(CALLERS) as threads:
        os.kill(own.postgres(), signal.SIGKILL)
        calling = [threads.submit(own.post, f"late-{number}") for number in range(CALLERS)]
        began = time.monotonic()
        own.process.terminate()
        own.process.wait(PATIENCE_SECONDS * 3)
        took = time.monotonic() - began
        print(f"stopped in {took:.1f} s")
        for one in calling:
            one.result(PATIENCE_SECONDS)
    assert took < STOPPED_SECONDS_MAX
    assert not [pid for pid in processes if _lives(pid)]


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
