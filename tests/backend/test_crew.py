"""`allotment serve --workers`, for real: killed, stopped, replaced, told to end, with callers at the door."""

import asyncio
import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from fixtures_workers import DEFINITION, charged_ids
from fixtures_writer import ROOT, line
from patience import free_port

from allotment.backend.believing import development_issuer
from allotment.backend.crew import PROGRAM
from allotment.backend.engine import Engine
from allotment.backend.orphans import SECONDS_MAX
from allotment.backend.settings import Settings
from allotment.backend.verifying import verify
from allotment.tenants.isolation import Isolation
from allotment.tenants.onboarding import TenantEntry, parse_definition

pytestmark = pytest.mark.timeout(300)  # where cores are scarce, processes take long to start
TENANTS = 10
"""Enough that hardly ever all of them belong to one of two workers."""
PATIENCE_SECONDS = 2.0
"""How long a caller waits for an answer before it sends the same again."""
PAUSE_SECONDS = 0.02
LOOK_SECONDS = 0.02
TAKEN_OVER_SECONDS_MAX = 5.0
GRACE_SECONDS = 3.0
"""What the end of a process takes where cores are scarce."""


class Served:
    """The program, its database, and some tenants."""

    def __init__(self, servers, database, home, workers=2):
        self.isolation = Isolation(database)
        self.database = database
        self.port = free_port()
        environment = {
            "DATABASE_URL": database,
            "NATS_URL": servers.nats_url,
            "ALLOTMENT_HOME": str(home),
            "ALLOTMENT_PORT": str(self.port),
            "ALLOTMENT_ROOT_KEY": base64.b64encode(b"r" * 32).decode(),
        }
        self.settings = Settings.from_env(environment)
        self.tenants = asyncio.run(self._furnished())
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed by `stop`)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "serve", "--workers", str(workers)],
            env=os.environ | environment,
            stdout=self.said,
            stderr=self.said,
        )
        self.until(lambda: "Allotment serves" in self.words())
        issuer = development_issuer(self.settings)
        self.tokens = {tenant: issuer.mint("u-1", tenant, ["mediation"], ()) for tenant in self.tenants}
        self.managers = {t: issuer.mint("u-2", t, ["telecoms_manager"], ()) for t in self.tenants}

    async def _furnished(self):
        definition = parse_definition(json.dumps(DEFINITION).encode())
        tenants = [uuid4() for _ in range(TENANTS)]
        async with Engine(self.isolation, ROOT, following=False) as engine:
            for tenant in tenants:
                entry = TenantEntry(tenant, f"t{tenant.hex}", "Acme", "carrier", "Europe/Berlin", "EUR")
                await engine.create_tenant(entry, "carrier:test")
                await engine.apply_definition(tenant, definition, "carrier:test")
        return tenants

    def words(self):
        self.said.seek(0)
        return self.said.read()

    def until(self, condition, seconds=100):
        looks = 0
        while not condition():
            assert self.process.poll() is None, self.words()
            # Looks, not a clock: somebody may let all of us stand still for a while.
            assert looks * LOOK_SECONDS < seconds, self.words()
            time.sleep(LOOK_SECONDS)
            looks += 1

    def places(self):
        """Process by tenant, of those that are served by somebody alive."""
        with psycopg.connect(self.database) as db:
            found = db.execute(
                "SELECT tenant_id, name FROM allotment.leases JOIN allotment.workers USING (worker_id) "
                "WHERE until > clock_timestamp()"
            )
            return {tenant: int(name.rpartition(":")[2]) for tenant, name in found}

    def pids(self):
        with psycopg.connect(self.database) as db:
            found = db.execute("SELECT name FROM allotment.workers WHERE until > clock_timestamp()")
            return {int(name.rpartition(":")[2]) for (name,) in found}

    def spread(self):
        """A process that serves some tenants, and those; once each serves some."""
        self.until(lambda: len(set(self.places().values())) == 2 and len(self.places()) == TENANTS)
        places = self.places()
        pid = places[self.tenants[0]]
        return pid, {tenant for tenant, place in places.items() if place == pid}

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is not None:
            return self.process.returncode
        self.process.send_signal(number)
        try:
            return self.process.wait(40)
        finally:
            self.process.kill()


class Callers:
    """Threads that post usage, each until it is told what became of it, and what they were told."""

    def __init__(self, served, count=4):
        self.served = served
        self.acknowledged = {tenant: [] for tenant in served.tenants}
        self.slowest = dict.fromkeys(served.tenants, 0.0)
        self.failures = []
        self.posts = 0
        self._name = uuid4().hex
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(i,)) for i in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.more(30)
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def more(self, count):
        wanted = self.posts + count
        self.served.until(lambda: self.posts >= wanted)

    def _call(self, place):
        number = 0
        while not self._over.wait(PAUSE_SECONDS):
            number += 1
            tenant = self.served.tenants[(place + number) % TENANTS]
            ids = [f"{self._name}-{place}-{number}-{i}" for i in range(3)]
            body = "".join(record(ident, i) for i, ident in enumerate(ids)).encode()
            began = time.monotonic()
            while not self._is_taken(tenant, body) and not self._over.is_set():
                time.sleep(0.02)
            if not self._over.is_set():
                self.acknowledged[tenant] += ids
                self.posts += 1
                self.slowest[tenant] = max(self.slowest[tenant], time.monotonic() - began)

    def _is_taken(self, tenant, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.served.port, timeout=PATIENCE_SECONDS)
        headers = {"Authorization": f"Bearer {self.served.tokens[tenant]}", "Connection": "close"}
        try:
            connection.request("POST", "/v1/usage", body, headers)
            answer = connection.getresponse()
            told = answer.read()
            if answer.status == 200:
                counted = json.loads(told)
                assert counted["charged"] + counted["duplicate"] == 3, counted
                return True
            self.failures.append((answer.status, told))
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(error)
        finally:
            connection.close()
        return False


def record(ident, number):
    fields = {
        "source": "switch",
        "id": ident,
        "line": line(number),
        "type": "voice",
        "quantity": 61,
        "start": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "counterpart": "+442071838750",
    }
    return json.dumps(fields) + "\n"


def judge(served, callers):
    for tenant in served.tenants:
        stored = charged_ids(served.isolation, tenant)
        assert len(stored) == len(set(stored)), "charged twice"
        assert set(callers.acknowledged[tenant]) <= set(stored), "acknowledged and lost"
        report = verify(served.isolation, tenant)
        assert (report.problem, report.ok) == ("", True)


@pytest.fixture(scope="module")
def served(servers, migrated):
    from fixtures_database import _create

    with tempfile.TemporaryDirectory(prefix="allotment-crew-", dir="/tmp") as home:
        opened = Served(servers, _create(servers.database_url, f"crew_{uuid4().hex}", "migrated"), Path(home))
        yield opened
        opened.stop()
        opened.isolation.close()
        opened.said.close()


def test_a_worker_that_stands_still_keeps_only_its_tenants_waiting_and_appends_nothing_when_it_wakes(served):
    _stopped_for(served, 4.5)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_worker_that_stands_still_for_half_a_minute_is_followed_and_comes_back(served):
    _stopped_for(served, 30)


def _stopped_for(served, seconds):
    with Callers(served) as callers:
        pid, its = served.spread()
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        try:
            served.until(lambda: not its & set(served.places()) - {None}, 10)
            served.until(lambda: its <= set(served.places()), 10)
            taken_over = time.monotonic() - began
            callers.more(100)
            time.sleep(max(0.0, seconds - (time.monotonic() - began)))
        finally:
            os.kill(pid, signal.SIGCONT)
        print(f"taken over in {taken_over:.1f} s; slowest {callers.slowest}")
        callers.more(100)
        # It gets its share again, by a lease, and not before.
        served.until(lambda: pid in served.places().values())
        callers.more(50)
    assert taken_over < TAKEN_OVER_SECONDS_MAX
    judge(served, callers)


def test_a_manager_is_answered_by_whichever_worker_takes_the_call(served):
    for number in range(3 * TENANTS):
        told = {"node": "emea", "usageType": "voice", "quantity": "900000", "idempotencyKey": f"k{number}"}
        done = asked(served, served.tenants[number % TENANTS], SET_LIMIT, input=told)["setLimit"]
        assert done["__typename"] == "SetLimitDone", done
        assert done["node"]["limits"][0]["quantity"] == "900000"


SET_LIMIT = """
mutation($input: SetLimitInput!) {
  setLimit(input: $input) {
    __typename ... on SetLimitDone { node { id limits { quantity } } } ... on Problem { code message }
  }
}
"""


def asked(served, tenant, query, **variables):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    headers = {"Authorization": f"Bearer {served.managers[tenant]}", "Content-Type": "application/json"}
    try:
        connection.request("POST", "/graphql", json.dumps({"query": query, "variables": variables}), headers)
        told = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    assert "errors" not in told, told
    return told["data"]


def test_every_workers_figures_are_told_by_each(served):
    # A tenant on its way from one to the other is counted by neither for a moment.
    served.until(lambda: sum(held_leases(served)) == len(served.places()) == TENANTS)
    assert len(held_leases(served)) == 2
    told = metrics(served)
    assert "allotment_takeovers_total" in told
    assert told.count("# TYPE allotment_leases_held gauge") == 1


def held_leases(served):
    lines = metrics(served).splitlines()
    return [float(line.rpartition(" ")[2]) for line in lines if line.startswith("allotment_leases_held{")]


def metrics(served):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_a_killed_workers_tenants_are_taken_over_and_nothing_is_lost(served):
    with Callers(served) as callers:
        pid, its = served.spread()
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        served.until(lambda: its <= {t for t, place in served.places().items() if place != pid}, 10)
        taken_over = time.monotonic() - began
        callers.more(100)
        print(f"taken over in {taken_over:.1f} s; slowest {callers.slowest}")
    assert taken_over < TAKEN_OVER_SECONDS_MAX
    assert not [failure for failure in callers.failures if isinstance(failure, tuple)], callers.failures
    judge(served, callers)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_workers_are_replaced_one_after_the_other_and_callers_notice_nothing(served):
    # Whoever was killed before has been started again.
    served.until(lambda: len(served.pids()) == 2)
    before = served.pids()
    with Callers(served) as callers:
        served.process.send_signal(signal.SIGHUP)
        served.until(lambda: len(served.pids()) == 2 and not before & served.pids())
        callers.more(100)
    assert callers.failures == []
    judge(served, callers)


def test_told_to_stop_it_leaves_nothing_behind(served):
    with Callers(served):
        pids = served.pids()
    assert served.stop(signal.SIGINT) == 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    with psycopg.connect(served.database) as db:
        assert db.execute("SELECT count(*) FROM allotment.leases").fetchone() == (0,)
        alive = "SELECT count(*) FROM allotment.workers WHERE until > clock_timestamp()"
        assert db.execute(alive).fetchone() == (0,)


def test_workers_whose_parent_was_killed_hand_over_to_those_of_another_machine(servers, migrated):
    from fixtures_database import _create

    with tempfile.TemporaryDirectory(prefix="allotment-crew-", dir="/tmp") as home:
        database = _create(servers.database_url, f"crew_{uuid4().hex}", "migrated")
        orphaned, other = (
            Served(servers, database, Path(home) / "a"),
            Served(servers, database, Path(home) / "b"),
        )
        try:
            issuer = development_issuer(other.settings)
            tokens = {t: issuer.mint("u-1", t, ["mediation"], ()) for t in orphaned.tenants}
            with Callers(orphaned) as callers:
                orphans = _workers_of(orphaned)
                others = _workers_of(other)
                orphaned.process.kill()
                orphaned.process.wait()
                began = time.monotonic()
                other.until(lambda: not [pid for pid in orphans if Path(f"/proc/{pid}").exists()], 20)
                gone = time.monotonic() - began
                other.until(lambda: set(other.places().values()) <= others, TAKEN_OVER_SECONDS_MAX)
                orphaned.process, orphaned.port, orphaned.tokens = other.process, other.port, tokens
                callers.more(100)
            print(f"gone in {gone:.1f} s; slowest {max(callers.slowest.values()):.1f} s")
            assert gone < SECONDS_MAX + GRACE_SECONDS
            judge(orphaned, callers)
        finally:
            for one in (orphaned, other):
                one.stop()
                one.isolation.close()
                one.said.close()


def _workers_of(served):
    children = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text().split()
    return {int(pid) for pid in children if b"--listen-fd" in Path(f"/proc/{pid}/cmdline").read_bytes()}
