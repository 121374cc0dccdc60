"""Connections to PostgreSQL that say nothing any more: the network swallows what either end says.

Nobody is told that such a connection is dead. Whoever waits on one asks on another whether the server
still works for it, and goes on elsewhere if not: nothing is lost by it, nothing is charged twice.
"""

import asyncio
import os
import signal
import time
from contextlib import contextmanager

import psycopg
import pytest
from backend.faults.proxy import Proxy
from backend.faults.scene import charged_ids, until, verified
from fixtures_loop import in_a_loop
from fixtures_writer import ROOT, Store, call, furnish, statuses

from allotment.backend import taking_over
from allotment.backend.engine import Engine
from allotment.backend.following import catch_up
from allotment.backend.placement import Placement, Timing
from allotment.backend.projecting import Claims
from allotment.backend.sending import Sending
from allotment.tenants import isolation as isolating
from allotment.tenants import silence as silences
from allotment.tenants.isolation import Isolation, network_settings
from allotment.tenants.silence import Patience, Silent

GOES_ON_SECONDS_MAX = 10
"""What is promised. Where other tests run beside, it is enough that it goes on at all: it did not before."""

APPENDS = {
    "before the rows": (b"SET LOCAL app.tenant", 0.0),
    "within the rows": (b"PGCOPY", 0.5),
    "after the COMMIT": (b"PGCOPY", 1.0),
}
SENDS = {
    "before the rows": (b"append_begin", 0.0),
    "within the rows": (b"append_events", 0.5),
    "after the COMMIT": (b"append_commit", 1.0),
}
TAKING_OVER = {
    "as the transaction begins": (b"set_config('app.tenant'", 0.0),
    "waiting for the log": (b"pg_advisory_xact_lock(", 0.0),
    "with the epoch taken": (b"INSERT INTO log_heads", 1.0),
}


@pytest.fixture
def proxy(database):
    with Proxy(database) as opened:
        yield opened


@pytest.fixture
def through(proxy):
    """The database, through a network that may fall silent."""
    opened = Isolation(proxy.url)
    yield opened
    opened.close()


@pytest.fixture
def impatient(monkeypatch):
    """The same as in earnest, sooner."""
    monkeypatch.setattr(isolating, "USUAL_PATIENCE", Patience(0.6, 20))
    monkeypatch.setattr(isolating, "PATIENCE", {})
    monkeypatch.setattr(silences, "GRACE_SECONDS", 0.4)
    monkeypatch.setattr(taking_over, "HELD_MS_MAX", 300)
    monkeypatch.setattr(isolating, "IDLE_IN_TRANSACTION_TIMEOUT_MS", 500)


@pytest.fixture
def store(isolation):
    made = Store(isolation)

    async def furnished():
        async with made.opened() as writer:
            await furnish(writer, lines=10, voice=100_000)

    asyncio.run(furnished())
    return made


# --- writing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("silence", APPENDS.values(), ids=APPENDS)
def test_an_append_that_nobody_answers_is_stored_once_on_another_connection(
    silence, proxy, through, isolation, store, impatient, monkeypatch
):
    monkeypatch.setattr("allotment.backend.writer.SEND_MAX", -1)  # by COPY, as larger groups go
    _append_and_judge(silence, proxy, through, isolation, store)


@pytest.mark.parametrize("silence", SENDS.values(), ids=SENDS)
def test_so_is_a_small_group_that_the_event_loop_sends(
    silence, proxy, through, isolation, store, impatient, monkeypatch
):
    handed_over = []
    hand_over = Sending._hand_over
    monkeypatch.setattr(Sending, "_hand_over", lambda sent: (handed_over.append(sent), hand_over(sent)))
    _append_and_judge(silence, proxy, through, isolation, store)
    assert handed_over, "a thread waits for whom the loop has not heard of"


@pytest.mark.soak
@pytest.mark.parametrize("silence", APPENDS.values(), ids=APPENDS)
def test_so_it_is_as_patient_as_in_earnest(silence, proxy, through, isolation, store, monkeypatch):
    monkeypatch.setattr("allotment.backend.writer.SEND_MAX", -1)
    began = time.monotonic()
    _append_and_judge(silence, proxy, through, isolation, store)
    assert time.monotonic() - began < GOES_ON_SECONDS_MAX


@in_a_loop
async def _append_and_judge(silence, proxy, through, isolation, store):
    async with Engine(through, ROOT, following=False) as engine:
        assert await _charged(engine, store, 0) == ["charged"]
        proxy.silence_at(*silence)
        outcomes = await asyncio.gather(*(_charged(engine, store, number) for number in range(1, 6)))
        assert outcomes == [["charged"]] * 5
    assert proxy.silenced == 1
    assert sorted(charged_ids(isolation, store.tenant)) == [f"call-{number}" for number in range(6)]
    verified(isolation, store.tenant)


@pytest.mark.parametrize("silence", TAKING_OVER.values(), ids=TAKING_OVER)
@in_a_loop
async def test_a_log_is_taken_over_though_nobody_answers_at_first(silence, proxy, through, store, impatient):
    proxy.silence_at(*silence)
    async with Engine(through, ROOT, following=False) as engine:
        assert await _charged(engine, store, 0) == ["charged"]
    assert proxy.silenced == 1


@in_a_loop
async def test_when_all_connections_fall_silent_at_once_each_is_given_up_once(
    proxy, through, isolation, store, impatient
):
    """Connections at rest are not asked one after the other: that would take as many times as long."""
    async with Engine(through, ROOT) as engine:
        await asyncio.gather(*(_charged(engine, store, number) for number in range(20)))
        await _open_many(engine, through, 8)
        proxy.silence_all()
        assert await _charged(engine, store, 20) == ["charged"]
        assert (await engine.state(store.tenant)).hierarchy.members
    verified(isolation, store.tenant)


async def _open_many(engine, isolation, count):
    """So many connections of the application at once: afterwards they all rest in the pool."""

    def sleep():
        with isolation.connection("app") as connection:
            connection.execute("SELECT pg_sleep(0.1)")

    await asyncio.gather(*(engine.in_thread(sleep) for _ in range(count)))


async def _charged(engine, store, number):
    return statuses(await engine.charge(store.tenant, [call(number, number % 10)], "mediation:silence"))


# --- reading, following, leases ------------------------------------------------------------------------


def test_who_reads_hears_that_nobody_answers(proxy, through, store, impatient):
    proxy.silence_at(b"SELECT count(*)", 1.0)
    with pytest.raises(Silent), through.transaction(store.tenant) as db:
        db.execute("SELECT count(*) FROM events")
    with through.transaction(store.tenant) as db:
        assert db.execute("SELECT count(*) FROM events").fetchone()[0] > 0


def test_views_go_on_when_the_projector_was_not_answered(proxy, through, isolation, store, impatient):
    proxy.silence_at(b"UPDATE projection_positions", 1.0)
    with pytest.raises(psycopg.OperationalError):
        catch_up(through, store.tenant)
    end = store.log.head().seq
    # What its session holds on the server is let go of by PostgreSQL itself, where it is idle.
    until(lambda: catch_up(through, store.tenant) == end, 20)


def test_a_claim_whose_session_fell_silent_is_taken_again(proxy, through, store, impatient):
    claims = Claims(through)
    try:
        assert claims.take(store.tenant)
        proxy.silence_all()
        with pytest.raises(psycopg.OperationalError):
            claims.check()
        claims.take(store.tenant)
        claims.check()
    finally:
        claims.close()


@in_a_loop
async def test_a_worker_keeps_its_lease_though_a_heartbeat_is_not_answered(proxy, through, store):
    placement = Placement(through, takes_tenants=True, timing=Timing(lease=20))
    await placement.start(None)
    try:
        assert await placement.take(store.tenant) == placement.me
        proxy.silence_all()
        renewed = placement._safe_until + 2 * placement.timing.beat
        while placement._safe_until < renewed:
            assert placement.is_safe()
            await asyncio.sleep(0.05)
        assert placement.lost == 0
    finally:
        await placement.stop()


# --- not given up --------------------------------------------------------------------------------------


def test_a_server_that_works_for_long_is_waited_for(through, store, impatient):
    with through.transaction(store.tenant) as db:
        db.execute("SELECT pg_sleep(1.2)")


def test_a_long_answer_is_waited_for_as_long_as_it_comes(through, store, impatient):
    with through.transaction(store.tenant) as db:
        told = db.execute("SELECT repeat('x', 1000), pg_sleep(0.02) FROM generate_series(1, 50)").fetchall()
    assert len(told) == 50


def test_a_session_that_stands_still_and_has_not_heard_is_given_up(database, impatient):
    opened = Isolation(database)
    try:
        with opened.connection("app") as db, _stopped(db.info.backend_pid), pytest.raises(Silent):
            db.execute("SELECT 1")
        with opened.connection("app") as db:
            assert db.execute("SELECT 1").fetchone() == (1,)
    finally:
        opened.close()


@contextmanager
def _stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# --- TCP -----------------------------------------------------------------------------------------------


def test_tcp_is_told_how_long_to_wait_and_the_address_counts_more():
    usual = network_settings("postgresql://user@host/db")
    assert {"connect_timeout", "keepalives_idle", "tcp_user_timeout"} <= set(usual)
    own = network_settings("postgresql://user@host/db?tcp_user_timeout=0&connect_timeout=60")
    assert {"connect_timeout", "tcp_user_timeout"} == set(usual) - set(own)
