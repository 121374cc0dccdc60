"""A writer that is stopped: only its tenant waits, another takes its log over, and it wakes up fenced.

Stopped in a transaction it holds the log's head. PostgreSQL ends a transaction that is idle, but
never one that waits for the rest of a COPY: who takes over ends it.
"""

import asyncio
import random
import signal
import socket
import time
from contextlib import contextmanager
from uuid import uuid4

import msgspec
import psycopg
import pytest
from backend.faults.scene import Charging, furnished, judge, until
from fixtures_loop import in_a_loop
from fixtures_writer import NOON, ROOT, call, charge, furnish, statuses

from allotment.backend import taking_over
from allotment.backend.copying import COPY, copy_buffer
from allotment.backend.engine import Engine
from allotment.backend.log import LogUnavailable, PostgresLog
from allotment.tenants.isolation import Isolation

SEED = 20_261_122
TAKEN_OVER_SECONDS_MAX = 15
"""It takes 2 s or less; the machine may have other things to do."""
RESTS_SECONDS = 0.1


def hold_idle(connection, store):
    connection.execute("UPDATE allotment.log_heads SET seq = seq WHERE tenant_id = %s", (store.tenant,))


def hold_within_copy(connection, store):
    """Half of a group is sent, and the rest does not come."""
    hold_idle(connection, store)
    connection.execute("SELECT set_config('app.tenant', %s, true)", (str(store.tenant),))
    connection.execute("SET LOCAL search_path = allotment")
    end = store.log.head().seq
    rows = copy_buffer(end, NOON, ["half"] * 900, [bytes(400)] * 900, [None] * 900, [bytes(32)] * 900)
    connection.pgconn.send_query(COPY.encode())
    while connection.pgconn.is_busy():
        connection.pgconn.consume_input()
    connection.pgconn.get_result()
    connection.pgconn.put_copy_data(bytes(rows[: len(rows) // 2]))
    connection.pgconn.flush()


@pytest.mark.parametrize("hold", [hold_idle, hold_within_copy])
@in_a_loop
async def test_a_log_held_by_a_writer_that_says_nothing_is_taken_over(hold, postgres, database, monkeypatch):
    monkeypatch.setattr(taking_over, "HELD_MS_MAX", 300)
    async with postgres.opened() as writer:
        await furnish(writer)
    # Also PostgreSQL's own bounds on waiting, short: they do not end what waits for a COPY.
    bounds = "-c statement_timeout=200 -c idle_in_transaction_session_timeout=60000"
    stopped = psycopg.connect(database, options=bounds)
    try:
        hold(stopped, postgres)
        await asyncio.sleep(0.3)
        began = time.monotonic()
        async with postgres.opened() as writer:
            assert statuses(await charge(writer, call(1))) == ["charged"]
        assert time.monotonic() - began < 4
        assert _has_ended(stopped)
    finally:
        stopped.close()
    assert postgres.charged_ids() == ["call-1"]


@pytest.mark.parametrize("alike", [True, False], ids=["the same login", "another login"])
@in_a_loop
async def test_an_ordinary_login_ends_its_own_sessions_only(alike, postgres, database, monkeypatch):
    """Another login's session is waited for, and that is said; nothing else breaks."""
    monkeypatch.setattr(taking_over, "HELD_MS_MAX", 200)
    async with postgres.opened() as writer:
        await furnish(writer)
    with _logins(database, 2) as (mine, other):
        isolation = Isolation(mine)
        options = "-c role=allotment_app"
        stopped = psycopg.connect(mine if alike else other, options=options)
        stopped.execute("SELECT set_config('app.tenant', %s, true)", (str(postgres.tenant),))
        hold_idle(stopped, postgres)
        log = PostgresLog(isolation, postgres.tenant)
        try:
            if alike:
                assert log.claim().epoch > 0
            else:
                with pytest.raises(LogUnavailable):
                    log.claim()
        finally:
            stopped.close()
            isolation.close()


@contextmanager
def _logins(database, count):
    """Addresses of the database for so many ordinary logins, of members of the application's role."""
    names = [f"login_{uuid4().hex[:12]}" for _ in range(count)]
    with psycopg.connect(database, autocommit=True) as connection:
        for name in names:
            connection.execute(f"CREATE ROLE {name} LOGIN NOINHERIT IN ROLE allotment_app")
        yield [database.replace("postgres@", f"{name}@") for name in names]
        for name in names:
            connection.execute(f"DROP ROLE {name}")


def _has_ended(connection):
    """Whether the server has closed it."""
    with socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as end:
        end.settimeout(5)
        while told := end.recv(65_536):
            assert b"57P01" in told
    return True


@in_a_loop
async def test_a_log_that_is_only_busy_is_waited_for_and_nobody_is_ended(postgres, database, monkeypatch):
    """The holder waits for the disk, or works: that is no reason to end it."""
    monkeypatch.setattr(taking_over, "HELD_MS_MAX", 100)
    async with postgres.opened() as writer:
        await furnish(writer)
    working = asyncio.get_running_loop().run_in_executor(None, _work_for_a_while, database, postgres)
    await asyncio.sleep(0.2)
    async with postgres.opened() as writer:
        assert statuses(await charge(writer, call(1))) == ["charged"]
    await working


def _work_for_a_while(database, store):
    with psycopg.connect(database, autocommit=True) as busy:
        head = "UPDATE allotment.log_heads SET seq = seq WHERE tenant_id = "
        busy.execute(f"BEGIN; {head} '{store.tenant}'; SELECT pg_sleep(0.8); COMMIT")


def test_a_stopped_writer_holds_up_only_its_tenant_and_wakes_up_fenced(database):
    _stop_and_judge(database, SEED, stops=1, seconds=1)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(SEED + 1, SEED + 4))
def test_a_writer_stopped_for_half_a_minute_holds_up_only_its_tenant(database, seed):
    _stop_and_judge(database, seed, stops=4, seconds=30)


def _stop_and_judge(url, seed, *, stops, seconds):
    print(f"seed {seed}")
    draw = random.Random(seed)
    mine, others = furnished(url), furnished(url)
    charging = Charging(url, mine, 0, RESTS_SECONDS)
    beside = Charging(url, others, 0, RESTS_SECONDS)
    told = []
    try:
        for number in range(stops):
            charging.wait_for(1)
            time.sleep(draw.uniform(0, 0.3))
            charging.signal(signal.SIGSTOP)
            waited, outcome = asyncio.run(_charged_by_another(url, mine, number))
            told.append(waited)
            assert outcome == "charged"
            assert waited < TAKEN_OVER_SECONDS_MAX
            asleep = time.monotonic() + seconds
            while time.monotonic() < asleep:
                beside.wait_for(1)  # as long as that lasts, others go on
            charging.signal(signal.SIGCONT)
            until(lambda: charging.said().count("commit failed") > number)  # noqa: B023
            charging.wait_for(100)
    finally:
        charging.kill()
        beside.kill()
        print("seconds until another had charged:", told)
    judge(url, mine, charging.acknowledged)
    judge(url, others, beside.acknowledged)


async def _charged_by_another(url, tenant, number):
    """How long a record of that tenant takes through an engine that was not there before."""
    isolation = Isolation(url)
    record = msgspec.structs.replace(call(0), record_id=f"another-{number}")
    try:
        began = time.monotonic()
        async with Engine(isolation, ROOT, following=False) as engine:
            outcomes = await engine.charge(tenant, [record], "mediation:another")
            return time.monotonic() - began, outcomes[0].status
    finally:
        isolation.close()
