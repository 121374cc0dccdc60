"""Places where things go wrong: a PostgreSQL that can be killed, programs that charge, and a judge.

What always counts: everything acknowledged is in the log, nothing is there twice, `verify` is
clean, and nobody had to help.
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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import psycopg
from fixtures_writer import ROOT, Store, call, furnish, statuses

from allotment.backend import supervision
from allotment.backend.embedded import embedded_servers
from allotment.backend.engine import Engine
from allotment.backend.log import LogUnavailable, PostgresLog
from allotment.backend.verifying import verify
from allotment.migrations.run import migrate
from allotment.tenants.isolation import Isolation

PROGRAM = Path(__file__).with_name("charging.py")
TESTS = Path(__file__).parents[2]
LINES = 10
LOOK_SECONDS = 0.01


class Place:
    """A PostgreSQL server that can be killed and comes back at the same address.

    The address leads through a link that is turned to the running server's socket.
    """

    def __init__(self, home: Path, environment: dict[str, str] | None = None) -> None:
        self._home = home
        self._environment = environment or {}
        self._links = Path(tempfile.mkdtemp(prefix="allotment-faults-", dir="/tmp"))
        self._stack = ExitStack()
        self.start()

    def start(self) -> None:
        usual = dict(supervision._ENVIRONMENT)
        supervision._ENVIRONMENT.update(self._environment)
        try:
            servers = self._stack.enter_context(embedded_servers(self._home, postgres=True, nats=False))
        finally:
            supervision._ENVIRONMENT.clear()
            supervision._ENVIRONMENT.update(usual)
        self.pid = servers.postgres_pid
        parts = urlsplit(servers.database_url)
        fresh = self._links / "fresh"
        fresh.symlink_to(parse_qs(parts.query)["host"][0])
        fresh.replace(self._links / "now")
        self.url = f"postgresql://postgres@{parts.path}?host={self._links / 'now'}&port=5432"

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self._stack.close()

    def restart(self) -> None:
        """As an init system does with a server that has ended: start it again; raises if it does not."""
        self._stack.close()
        self.start()

    @property
    def runs(self) -> bool:
        """Whether the server has not ended by itself."""
        return bool(supervision._start_of(self.pid))

    def kill_a_session(self, draw: random.Random) -> None:
        with self.connected() as connection:
            found = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' "
                "AND pid <> pg_backend_pid() ORDER BY pid"
            ).fetchall()
        if found:
            os.kill(draw.choice(found)[0], signal.SIGKILL)

    def connected(self) -> psycopg.Connection[Any]:
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


@contextmanager
def placed(home: Path, environment: dict[str, str] | None = None) -> Iterator[Place]:
    """A migrated place, until the block ends."""
    opened = Place(home, environment)
    try:
        migrate(opened.url)
        yield opened
    finally:
        opened.stop()


class Charging:
    """The program that charges, in a process of its own, and what it has acknowledged."""

    def __init__(self, url: str, tenant: UUID, first: int, pause: float = 0, **environment: str) -> None:
        self.acknowledged: list[str] = []
        self.trouble = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed when it is killed)
        self._process = subprocess.Popen(
            [sys.executable, PROGRAM, url, str(tenant), str(first), str(LINES), str(pause)],
            stdout=subprocess.PIPE, stderr=self.trouble, text=True,
            env=os.environ | {"PYTHONPATH": str(TESTS)} | environment,
        )  # fmt: skip
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def _listen(self) -> None:
        for line in self._process.stdout:
            # Half a line is no acknowledgement: it was killed while it said so.
            if line.endswith("\n"):
                self.acknowledged.append(line[:-1])

    def wait_for(self, more: int, seconds: float = 60) -> float:
        """Until it has acknowledged so many more; how long that took."""
        wanted = len(self.acknowledged) + more
        began, looks = time.monotonic(), 0
        while len(self.acknowledged) < wanted:
            assert self._process.poll() is None, self.said()
            # Looks, not a clock: somebody may let all of us stand still for a while.
            assert looks * LOOK_SECONDS < seconds, f"nothing for {seconds} s: {self.said()}"
            time.sleep(LOOK_SECONDS)
            looks += 1
        return time.monotonic() - began

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._listening.join()
        self._process.stdout.close()
        self.trouble.close()

    def said(self) -> str:
        self.trouble.seek(0)
        return self.trouble.read()[-3_000:]


def furnished(url: str, voice: int = 100_000, lines: int = LINES) -> UUID:
    """A tenant to charge, in the database at this address."""
    isolation = Isolation(url)
    try:
        store = Store(isolation)

        async def furnish_it() -> None:
            async with store.opened() as writer:
                await furnish(writer, lines=lines, voice=voice)

        asyncio.run(furnish_it())
    finally:
        isolation.close()
    return store.tenant


def judge(url: str, tenant: UUID, acknowledged: list[str], *, again: bool = True) -> None:
    """Nothing acknowledged is lost, nothing is charged twice, also when all of it is sent again."""
    assert acknowledged
    isolation = Isolation(url)
    try:
        stored = _once_it_answers(lambda: charged_ids(isolation, tenant))
        assert len(stored) == len(set(stored)), "charged twice"
        assert set(acknowledged) <= set(stored), "acknowledged and lost"
        verified(isolation, tenant)
        if again:
            _sent_again_changes_nothing(isolation, tenant)
    finally:
        isolation.close()


def _once_it_answers(ask: Callable[[], list[str]]) -> list[str]:
    """A server of which a session was killed a moment ago ends all the others, and begins anew."""
    told: list[list[str]] = []

    def answers() -> bool:
        told.append(ask())
        return True

    until(answers)
    return told[0]


def charged_ids(isolation: Isolation, tenant: UUID) -> list[str]:
    store = Store.__new__(Store)
    store.log = PostgresLog(isolation, tenant)
    return store.charged_ids()


def verified(isolation: Isolation, tenant: UUID) -> None:
    report = verify(isolation, tenant)
    assert (report.problem, report.ok) == ("", True)


def _sent_again_changes_nothing(isolation: Isolation, tenant: UUID) -> None:
    # What a killed writer sent last may be stored yet: whoever takes the log over waits for it, or bars it.
    PostgresLog(isolation, tenant).claim()
    stored = charged_ids(isolation, tenant)
    known = _numbers(stored)
    numbers = range(1 + max(known))
    missing = set(numbers) - known
    outcomes = asyncio.run(_sent_again(isolation, tenant, numbers))
    assert outcomes.count("charged") == len(missing)
    assert outcomes.count("duplicate") + outcomes.count("charged") == len(numbers)
    now = charged_ids(isolation, tenant)
    assert len(now) == len(set(now)) == len(stored) + len(missing)
    assert _numbers(now) == set(numbers)
    verified(isolation, tenant)


def _numbers(record_ids: list[str]) -> set[int]:
    """Of the records that the charging program sends: others may be there too."""
    return {int(one.removeprefix("call-")) for one in record_ids if one.startswith("call-")}


async def _sent_again(isolation: Isolation, tenant: UUID, numbers: range) -> list[str]:
    """Everything once more, as a sender does who was told nothing; what became of each."""
    async with Engine(isolation, ROOT) as engine:
        told: list[str] = []
        for first in range(0, len(numbers), 500):
            batch = [call(number, number % LINES) for number in numbers[first : first + 500]]
            told += statuses(await engine.charge(tenant, batch, "mediation:again"))
        return told


def until(ready: Any, seconds: float = 60, pause: float = 0.02) -> float:
    """Wait until a condition holds; how long it took."""
    began = time.monotonic()
    while True:
        with suppress(psycopg.Error, OSError, LogUnavailable):
            if ready():
                return time.monotonic() - began
        assert time.monotonic() < began + seconds, f"not within {seconds} s"
        time.sleep(pause)
