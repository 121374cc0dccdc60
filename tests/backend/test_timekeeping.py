"""What time asks for is done once, also for tenants that nobody uses, and after a worker is lost."""

import asyncio

import pytest
from fellow_workers import Workers
from fixtures_loop import in_a_loop
from fixtures_writer import NOON, call, in_time
from patience import until_there

from allotment.backend import timekeeping
from allotment.backend.authorising import StartSession
from allotment.backend.log import PostgresLog
from allotment.backend.timekeeping import Timekeeping
from allotment.backend.verifying import verify
from allotment.backend.writer import Writer
from allotment.domain.bucket import Allocate
from allotment.domain.life import RenameNode
from allotment.domain.session import VALIDITY_SECONDS
from allotment.domain.tenant import Tenant

LATER = NOON + (VALIDITY_SECONDS + 1) * 1_000_000


@pytest.fixture
def workers(isolation, servers):
    return Workers(isolation, servers.nats_url)


def topics(workers, tenant):
    return [row.topic for row in PostgresLog(workers.isolation, tenant).read(0, 10_000)]


async def with_a_call(engine, workers):
    tenant = await workers.tenant(engine)
    await in_time(engine.authorise(tenant, StartSession(call("running"), 1), "m"))
    return tenant


@in_a_loop
async def test_what_is_due_while_nobody_serves_is_done_by_whoever_serves_next(workers):
    async with workers.stack:
        async with workers.made() as first:
            tenant = await with_a_call(first, workers)
            assert await first.time.carry_out() == 0
        assert "session.expired" not in topics(workers, tenant)
        second = await workers.worker()
        assert (await second.time.wake(), second.open_writers()) == (0, {})
        second.clock = lambda: LATER
        assert await in_time(second.time.wake()) == 1
        await in_time(second.time.carry_out())
        assert topics(workers, tenant).count("session.expired") == 1
    assert verify(workers.isolation, tenant).ok


@in_a_loop
async def test_what_was_planned_for_a_node_is_done_at_its_moment_though_nobody_is_there(workers):
    async with workers.stack:
        async with workers.made() as first:
            tenant = await workers.tenant(first)
            await in_time(first.submit(tenant, RenameNode("emea", "Europe", LATER - 1), "k", "m"))
        second = await workers.worker()
        second.clock = lambda: LATER
        assert await in_time(second.time.wake()) == 1
        await in_time(second.time.carry_out())
        assert topics(workers, tenant)[-2:] == ["hierarchy.node_change_planned", "hierarchy.node_renamed"]
        assert (await second.state(tenant)).hierarchy.node("emea").name == "Europe"
    assert verify(workers.isolation, tenant).ok


@in_a_loop
async def test_two_workers_wake_a_tenant_once(workers):
    async with workers.stack:
        async with workers.made() as first:
            tenants = [await with_a_call(first, workers) for _ in range(4)]
        engines = [await workers.worker(), await workers.worker()]
        await workers.until_seen(*engines)
        for engine in engines:
            engine.clock = lambda: LATER
        assert sum(await asyncio.gather(*(engine.time.wake() for engine in engines))) == 4
        await asyncio.gather(*(engine.time.carry_out() for engine in engines))
        assert [topics(workers, tenant).count("session.expired") for tenant in tenants] == [1] * 4


@in_a_loop
async def test_one_tenants_trouble_stops_nobody_elses_clock(workers, monkeypatch):
    usual, broken = Tenant.due, []

    def due(state: Tenant, now: int) -> object:
        broken.extend([] if broken else [state])
        if state is broken[0]:
            raise RuntimeError("its state is broken")
        return usual(state, now)

    monkeypatch.setattr(Tenant, "due", due)
    async with workers.stack:
        async with workers.made() as first:
            tenants = [await with_a_call(first, workers) for _ in range(3)]
        second = await workers.worker()
        second.clock = lambda: LATER
        broken.clear()
        assert await in_time(second.time.wake()) == 3
        await in_time(second.time.carry_out())
        ended = [topics(workers, tenant).count("session.expired") for tenant in tenants]
        assert sorted(ended) == [0, 1, 1]


@in_a_loop
async def test_a_tenant_that_waits_stops_nobody_elses_clock_and_is_not_asked_again(workers, monkeypatch):
    monkeypatch.setattr(timekeeping, "LOOK_SECONDS", 0.05)
    usual, asked = Writer.submit, []

    async def submit(writer, *how):
        if writer.tenant_id == held:
            asked.append(True)
            await asyncio.Event().wait()
        return await usual(writer, *how)

    monkeypatch.setattr(Writer, "submit", submit)
    async with workers.stack:
        held = None
        async with workers.made() as first:
            held, *others = [await with_a_call(first, workers) for _ in range(3)]
        second = await workers.worker()
        second.clock = lambda: LATER
        await second.writer(held)
        await until_there(lambda: asked)
        assert await in_time(second.time.wake()) == 2
        await until_there(lambda: all("session.expired" in topics(workers, tenant) for tenant in others))
        assert asked == [True]


@in_a_loop
async def test_what_comes_due_while_its_tenant_was_just_looked_at_is_done_all_the_same(workers, monkeypatch):
    usual, looked, may_go_on = Timekeeping._note, asyncio.Event(), asyncio.Event()

    async def held(self, tenant, writer):
        looked.set()
        await may_go_on.wait()
        await usual(self, tenant, writer)

    async with workers.stack:
        engine, clock = await workers.worker(), [NOON]
        engine.clock = lambda: clock[0]
        tenant = await with_a_call(engine, workers)
        await engine.time.carry_out()
        monkeypatch.setattr(Timekeeping, "_note", held)
        engine.time._written.clear()
        engine.time._look()
        await in_time(looked.wait())
        clock[0] = LATER
        asked = asyncio.create_task(engine.time.carry_out())
        await asyncio.sleep(0)
        may_go_on.set()
        assert await in_time(asked) == 1
        assert topics(workers, tenant).count("session.expired") == 1


@in_a_loop
async def test_only_so_many_tenants_do_at_once_what_is_due_and_the_others_take_turns(workers, monkeypatch):
    monkeypatch.setattr(timekeeping, "TENANTS_AT_ONCE", 2)
    usual, running = Timekeeping._carry_out, [0]

    async def counted(self, tenant, writer):
        running.append(running[-1] + 1)
        done = await usual(self, tenant, writer)
        running.append(running[-1] - 1)
        return done

    async with workers.stack:
        async with workers.made() as first:
            tenants = [await with_a_call(first, workers) for _ in range(5)]
        second = await workers.worker()
        monkeypatch.setattr(Timekeeping, "_carry_out", counted)
        second.clock = lambda: LATER
        assert await in_time(second.time.wake()) == 5
        await in_time(second.time.carry_out())
        assert all("session.expired" in topics(workers, tenant) for tenant in tenants)
        assert max(running) == 2


@in_a_loop
async def test_with_nothing_to_come_nobody_is_woken(workers):
    async with workers.stack:
        async with workers.made() as first:
            await workers.tenant(first)
        second = await workers.worker()
        second.clock = lambda: LATER
        assert await second.time.wake() == 0


@in_a_loop
async def test_a_dry_run_is_answered_by_the_tenants_worker_and_leaves_nothing(workers):
    async with workers.stack:
        one, other = await workers.worker(), await workers.worker()
        await workers.until_seen(one, other)
        tenant = await workers.tenant(one)
        await in_time(one.charge(tenant, [call(1)], "m"))
        before = topics(workers, tenant)
        for engine in (one, other):
            told = await in_time(
                engine.submit(tenant, Allocate("acme", "emea", "voice", "", 5), "k", "m", dry=True)
            )
            assert (told.dry, told.events[0].quantity, told.last_seq) == (True, 5, 0)
        assert topics(workers, tenant) == before
        done = await in_time(other.submit(tenant, Allocate("acme", "emea", "voice", "", 5), "k", "m"))
        assert (done.dry, done.repeated) == (False, False)
