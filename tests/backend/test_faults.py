"""Killed at random moments: what was acknowledged is in the log, nothing is there twice.

The process that charges is killed, the PostgreSQL server is killed, one of its sessions is killed.
What was killed is started again by this test; a charging process that lives on finds the server
again by itself, at the same address: a link that always leads to the running server's socket.
"""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from fixtures_writer import ROOT, Store, call, furnish, statuses

from allotment.backend.embedded import embedded_servers
from allotment.backend.engine import Engine
from allotment.backend.verifying import verify
from allotment.migrations.run import migrate
from allotment.tenants.isolation import Isolation

PROGRAM = Path(__file__).parent / "faults" / "charging.py"
TESTS = Path(__file__).parents[1]
LINES = 10
SEED = 20_261_121
KILLED = {"process": 4, "server": 3, "session": 3}


class Place:
    """A PostgreSQL server that can be killed and comes back at the same address."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._links = Path(tempfile.mkdtemp(prefix="allotment-faults-", dir="/tmp"))
        self._stack = ExitStack()
        self.start()

    def start(self) -> None:
        servers = self._stack.enter_context(embedded_servers(self._home, postgres=True, nats=False))
        self.pid = servers.postgres_pid
        parts = urlsplit(servers.database_url)
        fresh = self._links / "fresh"
        fresh.symlink_to(parse_qs(parts.query)["host"][0])
        fresh.replace(self._links / "now")
        self.url = f"postgresql://postgres@{parts.path}?host={self._links / 'now'}&port=5432"

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self._stack.close()

    def kill_a_session(self, draw: random.Random) -> None:
        with self._connected() as connection:
            found = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' "
                "AND pid <> pg_backend_pid() ORDER BY pid"
            ).fetchall()
        if found:
            os.kill(draw.choice(found)[0], signal.SIGKILL)

    def _connected(self) -> psycopg.Connection[Any]:
        """PostgreSQL may still be recovering from the kill before."""
        until = time.monotonic() + 20
        while True:
            try:
                return psycopg.connect(self.url)
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def stop(self) -> None:
        self._stack.close()
        shutil.rmtree(self._links)


class Charging:
    """The program that charges, in a process of its own, and what it has acknowledged."""

    def __init__(self, url: str, store: Store, first: int) -> None:
        self.acknowledged: list[str] = []
        self.trouble = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed when it is killed)
        self._process = subprocess.Popen(
            [sys.executable, PROGRAM, url, str(store.tenant), str(first), str(LINES)],
            stdout=subprocess.PIPE, stderr=self.trouble, text=True,
            env=os.environ | {"PYTHONPATH": str(TESTS)},
        )  # fmt: skip
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def _listen(self) -> None:
        for line in self._process.stdout:
            # Half a line is no acknowledgement: it was killed while it said so.
            if line.endswith("\n"):
                self.acknowledged.append(line[:-1])

    def wait_for(self, more: int, seconds: float = 20) -> None:
        """Until it has acknowledged so many more."""
        wanted = len(self.acknowledged) + more
        deadline = time.monotonic() + seconds
        while len(self.acknowledged) < wanted:
            assert self._process.poll() is None, self._said()
            assert time.monotonic() < deadline, f"nothing for {seconds} s: {self._said()}"
            time.sleep(0.01)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._listening.join()
        self._process.stdout.close()
        self.trouble.close()

    def _said(self) -> str:
        self.trouble.seek(0)
        return self.trouble.read()[-3_000:]


@pytest.fixture
def place(home):
    opened = Place(home)
    migrate(opened.url)
    yield opened
    opened.stop()


def test_killed_ten_times_every_acknowledged_record_is_in_the_log_once(place):
    _kill_and_judge(place, SEED, KILLED)


@pytest.mark.soak
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("seed", range(SEED + 1, SEED + 6))
def test_killed_a_hundred_times_every_acknowledged_record_is_in_the_log_once(place, seed):
    _kill_and_judge(place, seed, {what: 10 * times for what, times in KILLED.items()})


def _kill_and_judge(place, seed, times):
    print(f"seed {seed}")
    draw = random.Random(seed)
    faults = [what for what, count in times.items() for _ in range(count)]
    draw.shuffle(faults)
    isolation = Isolation(place.url)
    store = Store(isolation)
    asyncio.run(_furnished(store))
    isolation.close()
    acknowledged = _charged_under(place, store, faults, draw)
    isolation = Isolation(place.url)
    try:
        _judge(isolation, store.tenant, acknowledged)
    finally:
        isolation.close()


async def _furnished(store):
    async with store.opened() as writer:
        await furnish(writer, lines=LINES, voice=100_000)


def _charged_under(place, store, faults, draw):
    """Charge while everything is killed in turn; all that was acknowledged."""
    first, acknowledged = 0, []
    charging = Charging(place.url, store, first)
    try:
        for fault in faults:
            charging.wait_for(1)
            print(fault, len(charging.acknowledged), time.monotonic())
            time.sleep(draw.uniform(0, 0.3))
            if fault == "process":
                charging.kill()
                acknowledged += charging.acknowledged
                first += draw.randrange(600)  # some were sent before, some were not
                charging = Charging(place.url, store, first)
            elif fault == "server":
                place.kill()
                place.start()
            else:
                place.kill_a_session(draw)
        charging.wait_for(100)
    finally:
        charging.kill()
    return acknowledged + charging.acknowledged


def _judge(isolation, tenant, acknowledged):
    store = Store.__new__(Store)
    store.tenant, store.isolation = tenant, isolation
    from allotment.backend.log import PostgresLog

    store.log = PostgresLog(isolation, tenant)
    stored = store.charged_ids()
    assert acknowledged
    assert len(stored) == len(set(stored)), "charged twice"
    assert set(acknowledged) <= set(stored), "acknowledged and lost"
    _verified(isolation, tenant)
    numbers = range(1 + max(int(record_id.removeprefix("call-")) for record_id in stored))
    missing = set(numbers) - {int(record_id.removeprefix("call-")) for record_id in stored}
    outcomes = asyncio.run(_sent_again(isolation, tenant, numbers))
    assert outcomes.count("charged") == len(missing)
    assert outcomes.count("duplicate") + outcomes.count("charged") == len(numbers)
    assert sorted(store.charged_ids()) == sorted(f"call-{number}" for number in numbers)
    _verified(isolation, tenant)


def _verified(isolation, tenant):
    report = verify(isolation, tenant)
    assert (report.problem, report.ok) == ("", True)


async def _sent_again(isolation, tenant, numbers):
    """Everything once more, as a sender does who was told nothing; what became of each."""
    async with Engine(isolation, ROOT) as engine:
        told = []
        for first in range(0, len(numbers), 500):
            batch = [_as_sent(number) for number in numbers[first : first + 500]]
            told += statuses(await engine.charge(tenant, batch, "mediation:again"))
        return told


def _as_sent(number):
    return call(number, number % LINES)
