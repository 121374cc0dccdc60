"""Projectors: processes of their own that keep all views up, whoever dies, whoever was not told."""

import asyncio
import os
import signal
import threading
from contextlib import ExitStack, asynccontextmanager

import psycopg
import pytest
from fixtures_writer import NOON, ROOT, call, charge, furnish, tenant_with_key
from patience import PATIENCE_SECONDS, until

from allotment.backend import projecting as projecting_module
from allotment.backend.commands.projecting import NICENESS
from allotment.backend.engine import Engine
from allotment.backend.following import catch_up, lock
from allotment.backend.keeping_up import Watcher
from allotment.backend.lagging import oldest_waits_ms, tenants_behind
from allotment.backend.log import Group
from allotment.backend.looking_back import rebuild_and_compare
from allotment.backend.offspring import projector_process
from allotment.backend.projecting import THREADS_MAX, Claims, Projecting
from allotment.backend.web.operations import _Queues
from allotment.projections.views import VIEWS
from allotment.tenants.isolation import LOCK_TIMEOUT_MS, Isolation


@pytest.fixture
def acme(enterprise):
    made = enterprise().opened()
    made.use("r1", "voice", 60)
    made.commit()
    return made


@pytest.fixture
def elsewhere(database):
    """Another process's way to the same database."""
    opened = Isolation(database)
    yield opened
    opened.close()


async def shown(made, seq, seconds=PATIENCE_SECONDS):
    watcher = Watcher(made.isolation, made.tenant)
    try:
        await watcher.wait_for(seq, seconds)
    finally:
        await watcher.close()


def test_whose_views_are_behind_is_told_by_how_much(enterprise, isolation):
    fresh, half, done = (enterprise().opened() for _ in range(3))
    ends = {made.tenant: made.commit() for made in (fresh, half, done)}
    catch_up(isolation, half.tenant, upto=5)
    catch_up(isolation, done.tenant)
    told = tenants_behind(isolation, 10)
    assert [(one.tenant, one.head, one.shown) for one in told] == [
        (fresh.tenant, ends[fresh.tenant], 0),
        (half.tenant, ends[half.tenant], 5),
    ]
    assert tenants_behind(isolation, 1) == told[:1]
    assert oldest_waits_ms(isolation, told[1], half.now + 3_000_000) == 3_000
    assert oldest_waits_ms(isolation, told[1], half.now - 1) == 0


def test_metrics_tell_by_rank_how_far_behind_and_for_how_long_and_name_no_tenant(enterprise, isolation):
    far, near = enterprise().opened(), enterprise().opened()
    ends = [made.commit() for made in (far, near)]
    catch_up(isolation, near.tenant, upto=ends[1] - 2)

    async def told():
        async with Engine(isolation, ROOT, clock=lambda: near.now + 1_500_000, following=False) as engine:
            queues = _Queues(engine)
            await queues.look()
            return {
                (sample.name, *sample.labels.values()): sample.value
                for metric in queues.collect()
                for sample in metric.samples
            }

    figures = asyncio.run(told())
    lag = "allotment_projection_lag"
    assert (figures[f"{lag}_events",], figures[f"{lag}_ms",]) == (ends[0], 1_500)
    assert figures["allotment_projection_tenants_behind",] == 2
    ranks = [figures["allotment_projection_rank_lag_events", rank] for rank in ("1", "2")]
    assert ranks == [ends[0], 2]
    assert figures["allotment_projection_rank_lag_ms", "2"] == 1_500


@pytest.mark.parametrize(
    ("version", "expected"), [("0", [0]), ("99", []), ("version", [])], ids=["older", "newer", "ours"]
)
def test_a_view_of_an_older_version_is_behind_and_of_a_newer_one_is_left_alone(acme, version, expected):
    catch_up(acme.isolation, acme.tenant)
    with acme.isolation.transaction(acme.tenant, "projector") as db:
        db.execute(f"UPDATE projection_positions SET version = {version} WHERE projection = 'limits'")
        if expected:
            db.execute("UPDATE projection_positions SET seq = seq - 1 WHERE projection = 'usages'")
    assert [one.shown for one in tenants_behind(acme.isolation, 10)] == expected


def test_a_tenant_that_nobody_told_of_is_found(acme):
    async def story():
        async with Projecting(acme.isolation, look_seconds=0.05):
            await shown(acme, acme.log.head().seq)
            acme.use("r2", "voice", 60)
            await shown(acme, acme.commit())

    asyncio.run(story())
    assert rebuild_and_compare(acme.isolation, acme.tenant) == []


def test_who_is_told_of_a_commit_does_not_wait_for_the_next_look(acme):
    told = []

    async def story():
        async with Projecting(acme.isolation, look_seconds=60) as keeping:
            await shown(acme, acme.log.head().seq)
            keeping.on_shown = lambda tenant, seq: told.append((tenant, seq))
            acme.use("r2", "voice", 60)
            end = acme.commit()
            keeping.heard(acme.tenant)
            await shown(acme, end)
            return end

    assert (acme.tenant, asyncio.run(story())) in told


def test_views_that_somebody_has_in_hand_keep_nobody_elses_waiting(enterprise, isolation, monkeypatch):
    held, other = [enterprise().opened() for _ in range(THREADS_MAX)], enterprise().opened()
    for made in (*held, other):
        made.commit()
        catch_up(isolation, made.tenant)
        made.use("r1", "voice", 60)
        made.commit()
    stumbles = []
    monkeypatch.setattr(Projecting, "_stumbled", lambda _, *about: stumbles.append(about))

    async def story():
        async with Projecting(isolation, look_seconds=0.05) as keeping:
            with ExitStack() as hands:
                for made in held:
                    db = hands.enter_context(isolation.transaction(made.tenant, "projector"))
                    lock(db, VIEWS)
                    keeping.heard(made.tenant)
                await asyncio.sleep(0.2)
                other.use("r1", "voice", 60)
                await shown(other, other.commit(), LOCK_TIMEOUT_MS / 2_000)
            await asyncio.gather(*(shown(made, made.log.head().seq) for made in held))

    asyncio.run(story())
    assert stumbles == []


def test_two_projectors_share_the_tenants_and_one_takes_over_from_the_other(enterprise, elsewhere):
    tenants = [enterprise().opened() for _ in range(4)]

    async def story():
        for made in tenants:
            made.commit()
        async with Projecting(elsewhere, look_seconds=0.05):
            first = Projecting(tenants[0].isolation, look_seconds=0.05)
            async with first:
                await asyncio.gather(*(shown(made, made.log.head().seq) for made in tenants))
                for made in tenants:
                    made.use("r1", "voice", 60)
            await asyncio.gather(*(shown(made, made.commit()) for made in tenants))

    asyncio.run(story())
    for made in tenants:
        assert rebuild_and_compare(made.isolation, made.tenant) == []


def taken_in_time(claims, tenant):
    """A session that is gone for us may take PostgreSQL a moment to end."""
    until(lambda: claims.take(tenant))


def test_a_claim_is_one_projectors_and_ends_with_its_session(acme, elsewhere):
    ours, theirs = Claims(acme.isolation), Claims(elsewhere)
    assert ours.take(acme.tenant)
    assert not theirs.take(acme.tenant)
    assert ours._db is not None
    with psycopg.connect(elsewhere.database_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (ours._db.info.backend_pid,))
    taken_in_time(theirs, acme.tenant)
    with pytest.raises(psycopg.OperationalError):
        ours.check()
    assert not ours.take(acme.tenant)
    theirs.release(acme.tenant)
    assert ours.take(acme.tenant)
    ours.close()
    taken_in_time(theirs, acme.tenant)
    theirs.close()


def test_what_stands_still_under_anothers_claim_is_done_without_it(acme, elsewhere, monkeypatch):
    monkeypatch.setattr(projecting_module, "STUCK_SECONDS", 3_600)
    monkeypatch.setattr(projecting_module, "ELSEWHERE_SECONDS", 0.05)
    stopped = Claims(elsewhere)
    assert stopped.take(acme.tenant)

    async def story():
        async with Projecting(acme.isolation, look_seconds=0.05):
            with pytest.raises(TimeoutError):
                await shown(acme, acme.log.head().seq, 0.1)
            monkeypatch.setattr(projecting_module, "STUCK_SECONDS", 0.1)
            await shown(acme, acme.log.head().seq)

    asyncio.run(story())
    stopped.close()


def test_one_tenants_trouble_is_not_anothers(enterprise):
    broken, sound = enterprise().opened(), enterprise().opened()
    sound.commit()
    group = Group(broken.tenant, broken.log.claim(), broken.now)
    group.add("from.the_future", b"\x90", None)
    broken.log.append(group)

    async def story():
        async with Projecting(sound.isolation, look_seconds=0.05):
            await shown(sound, sound.log.head().seq)
            with pytest.raises(TimeoutError, match="reached 0"):
                await shown(broken, 1, 0.3)

    asyncio.run(story())


@asynccontextmanager
async def written(isolation, **options):
    async with Engine(isolation, ROOT, clock=lambda: NOON, **options) as engine:
        writer = await engine.writer(tenant_with_key(isolation))
        await furnish(writer, voice=10**9)
        yield engine, writer


def niceness(process):
    return os.getpriority(os.PRIO_PROCESS, process)


def test_readers_see_their_writes_though_the_projector_is_another_process_that_is_killed(servers, isolation):
    """Under load: it comes back by itself, and every event counts once."""

    async def story():
        async with written(isolation, projected_elsewhere=True) as (engine, writer):
            follower = engine.follower(writer.tenant_id)
            async with projector_process(isolation.database_url, servers.nats_url) as child:
                for turn in range(2):
                    for number in range(10):
                        await charge(writer, *(call(f"{turn}-{number}-{n}", n % 10) for n in range(100)))
                    await follower.wait_for(writer.seq - 500, 30)
                    assert niceness(child.pid) == min(19, niceness(0) + NICENESS), "charging goes first"
                    if not turn:
                        os.kill(child.pid, signal.SIGKILL)
                await follower.wait_for(writer.seq, 30)
            with pytest.raises(ProcessLookupError):
                os.kill(child.pid, 0)
            return writer.tenant_id

    threads = threading.active_count()
    tenant = asyncio.run(story())
    assert rebuild_and_compare(isolation, tenant) == []
    assert threading.active_count() <= threads + 12, "those of three pools, that go with the database's"


def test_who_waits_for_what_never_comes_is_told_to_ask_again(acme):
    catch_up(acme.isolation, acme.tenant)
    end = acme.log.head().seq

    async def story():
        watcher = Watcher(acme.isolation, acme.tenant)
        with pytest.raises(TimeoutError, match=f"reached {end}, not yet {end + 1}: ask again"):
            await watcher.wait_for(end + 1, 0.2)
        waiting = asyncio.ensure_future(watcher.wait_for(end + 2, 10))
        await asyncio.sleep(0)
        watcher.shown(end + 2)
        await waiting
        assert not watcher.is_busy
        await watcher.close()

    asyncio.run(story())
