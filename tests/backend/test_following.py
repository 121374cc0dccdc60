"""Following the log: each event once, whoever follows, whatever breaks."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from members_listed import members_under
from msgspec.structs import replace
from patience import PATIENCE_SECONDS
from psycopg.errors import LockNotAvailable

from allotment.backend import following, keeping_up, looking_back, reading_log
from allotment.backend.following import NewerView, Projector, catch_up
from allotment.backend.keeping_up import Follower
from allotment.backend.keys import command_key
from allotment.backend.looking_back import dump_views, past, rebuild, rebuild_and_compare, seq_at
from allotment.backend.native import using
from allotment.domain.bucket import Allocate
from allotment.domain.cap import SetCap
from allotment.domain.hierarchy import AddNode, MoveResource
from allotment.domain.limit import SetAnyLimit
from allotment.domain.tenant import OpenTenant
from allotment.projections import balances, members, usages
from allotment.projections.views import VIEWS
from allotment.tenants.isolation import LOCK_TIMEOUT_MS

PERIOD = "2026-11"


@pytest.fixture
def made(enterprise):
    """An enterprise with some usage, nothing of it projected."""
    opened = enterprise().opened()
    for turn in range(60):
        opened.use(("r1", "r2", "r3")[turn % 3], ("voice", "data")[turn % 2], 60 + turn)
    opened.do(Allocate("acme", "emea", "voice", "", 1_000))
    opened.commit()
    return opened


def dumped(made):
    with made.isolation.transaction(made.tenant, "auditor") as db:
        return list(dump_views(db))


def changed(made, statement):
    with made.isolation.transaction(made.tenant, "projector") as db:
        db.execute(statement)


def used(made):
    with made.isolation.transaction(made.tenant) as db:
        return balances.balance_of(db, "acme", PERIOD, ["voice"])[0].used


def test_many_followers_apply_each_event_once(made):
    start = threading.Barrier(4)

    def follow():
        start.wait()
        return catch_up(made.isolation, made.tenant, chunk=3)

    with ThreadPoolExecutor(4) as pool:
        reached = [future.result() for future in [pool.submit(follow) for _ in range(4)]]
    assert reached == [made.log.head().seq] * 4
    assert used(made) == made.state.families["voice", PERIOD].used[0]
    assert rebuild_and_compare(made.isolation, made.tenant) == []


def test_where_the_server_gives_us_no_appender_rows_of_usage_come_out_the_same(made):
    made.isolation._may_copy = False
    assert catch_up(made.isolation, made.tenant, upto=40) == 40
    made.isolation._may_copy = True
    catch_up(made.isolation, made.tenant)
    assert rebuild_and_compare(made.isolation, made.tenant) == []


def test_who_is_far_behind_reads_ahead_and_still_stops_where_it_is_told_to(made, monkeypatch):
    monkeypatch.setattr(following, "CHUNK", 8)
    monkeypatch.setattr(following, "CHUNK_MAX", 16)
    end = made.log.head().seq
    for upto in (20, 21, end):
        assert catch_up(made.isolation, made.tenant, upto=upto, chunk=8) == upto
        assert rebuild_and_compare(made.isolation, made.tenant) == []


@contextmanager
def in_hand(made):
    """Somebody else has its views in hand, as who rebuilds them does."""
    with made.isolation.transaction(made.tenant, "projector") as db:
        following.lock(db, VIEWS)
        yield


def test_views_that_somebody_has_in_hand_keep_no_thread_waiting(made):
    projector = Projector(made.isolation, made.tenant, chunk=20)
    projector.step()
    with in_hand(made):
        began = time.monotonic()
        with pytest.raises(LockNotAvailable):
            projector.step()
        assert time.monotonic() - began < LOCK_TIMEOUT_MS / 2_000
    assert projector.catch_up() == made.log.head().seq
    assert rebuild_and_compare(made.isolation, made.tenant) == []


def test_who_catches_up_waits_for_who_has_the_views_in_hand_but_not_for_ever(made, monkeypatch):
    with ThreadPoolExecutor(1) as thread:
        with in_hand(made):
            catching_up = thread.submit(catch_up, made.isolation, made.tenant)
            time.sleep(0.3)
            assert not catching_up.done()
        assert catching_up.result() == made.log.head().seq
        made.use("r1", "voice", 60)
        made.commit()
        monkeypatch.setattr(following, "HELD_SECONDS_MAX", 0.1)
        with in_hand(made), pytest.raises(LockNotAvailable):
            catch_up(made.isolation, made.tenant)


@pytest.mark.parametrize("breaks_at", ["fold", "advance"])
def test_a_follower_killed_within_a_chunk_leaves_whole_chunks(made, monkeypatch, breaks_at):
    projector = Projector(made.isolation, made.tenant, chunk=20)
    projector.step()
    usual = getattr(following, breaks_at)

    def killed(*about, **more):
        usual(*about, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(following, breaks_at, killed)
        with pytest.raises(KeyboardInterrupt):
            projector.step()
    assert rebuild_and_compare(made.isolation, made.tenant) == []
    made.use("r1", "voice", 60)
    end = made.commit()
    assert projector.catch_up() == end
    assert used(made) == made.state.families["voice", PERIOD].used[0]
    assert rebuild_and_compare(made.isolation, made.tenant) == []


def test_a_lost_connection_leaves_whole_chunks(made, monkeypatch):
    projector = Projector(made.isolation, made.tenant, chunk=20)
    projector.step()
    usual = following.advance

    def cut(db, *about):
        usual(db, *about)
        with psycopg.connect(made.isolation.database_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (db.info.backend_pid,))

    with monkeypatch.context() as patched:
        patched.setattr(following, "advance", cut)
        with pytest.raises(psycopg.OperationalError):
            projector.step()
    projector.catch_up()
    assert rebuild_and_compare(made.isolation, made.tenant) == []


def test_charges_that_came_the_way_that_stands_are_not_decoded_even_by_who_begins_anew(made, monkeypatch):
    projector = Projector(made.isolation, made.tenant)
    projector.catch_up(made.log.head().seq - 30)
    decoded = []
    usual = reading_log._readable
    monkeypatch.setattr(reading_log, "_readable", lambda *about: decoded.append(about) or usual(*about))
    # Whoever begins anew cannot know that nobody moved since the usage began.
    anew = Projector(made.isolation, made.tenant, chunk=10)
    anew.catch_up()
    assert bool(decoded) == (using.reader() is None)
    made.do(MoveResource("r1", "apac", made.now))
    made.use("r1", "voice", 60)
    made.commit()
    anew.catch_up()
    assert rebuild_and_compare(made.isolation, made.tenant) == []


def test_what_a_projector_keeps_between_chunks_follows_what_is_changed(made):
    projector = Projector(made.isolation, made.tenant, chunk=10)
    projector.catch_up()
    for change in (
        SetCap("sales", "voice", 10_000),
        SetAnyLimit("sales", "voice", 90_000, window="day"),
        SetCap("sales", "voice", None),
        SetAnyLimit("sales", "voice", None, window="day"),
    ):
        made.do(change)
        for _ in range(2):
            made.use("r1", "voice", 60)
            made.commit()
            projector.catch_up()
        assert rebuild_and_compare(made.isolation, made.tenant) == []


def test_lines_are_counted_alike_whether_their_kinds_are_known_or_not(made):
    projector = Projector(made.isolation, made.tenant, chunk=10)
    projector.catch_up(made.log.head().seq - 20)
    catch_up(made.isolation, made.tenant)
    made.use("r1", "voice", 60)
    made.commit()
    projector.catch_up()
    assert rebuild_and_compare(made.isolation, made.tenant) == []


def test_statements_that_were_prepared_keep_to_the_live_tables(made):
    """Whoever looks back on the same connection reads and writes tables of its own, of the same names."""
    end = made.log.head().seq
    catch_up(made.isolation, made.tenant, upto=end - 10, chunk=5)
    for seq in range(end - 9, end):
        catch_up(made.isolation, made.tenant, upto=seq)
        before = dumped(made)
        assert rebuild_and_compare(made.isolation, made.tenant) == []
        assert dumped(made) == before


def test_following_stops_where_it_is_told_to(made):
    assert catch_up(made.isolation, made.tenant, upto=30, chunk=7) == 30
    assert catch_up(made.isolation, made.tenant, upto=30) == 30
    assert rebuild_and_compare(made.isolation, made.tenant) == []
    assert catch_up(made.isolation, made.tenant) == made.log.head().seq


def test_a_tenant_without_a_log_is_at_its_beginning(enterprise):
    nobody = enterprise()
    assert catch_up(nobody.isolation, nobody.tenant) == 0
    assert rebuild_and_compare(nobody.isolation, nobody.tenant) == []
    assert seq_at(nobody.isolation, nobody.tenant, 2**50) == 0
    with past(nobody.isolation, nobody.tenant, 0, ["balances"]) as db:
        assert balances.balances_under(db, None, None, PERIOD) == []


def test_a_tenants_views_are_its_own(made, enterprise):
    other = enterprise().opened()
    other.commit()
    catch_up(other.isolation, other.tenant)
    before = dumped(other)
    catch_up(made.isolation, made.tenant)
    rebuild(made.isolation, made.tenant)
    assert dumped(other) == before
    assert rebuild_and_compare(other.isolation, other.tenant) == []


@pytest.mark.parametrize("name", [view.name for view in VIEWS])
def test_a_view_whose_version_is_raised_is_built_again_by_itself(made, name, monkeypatch):
    made.do(MoveResource("r1", "apac", made.now))
    made.do(AddNode("late", "apac", "Late", "group"))
    made.do(MoveResource("r1", "late", made.now + 1))
    made.commit()
    catch_up(made.isolation, made.tenant, upto=60)
    expected_at_60 = dumped(made)
    raised = [replace(view, version=view.version + (view.name == name)) for view in VIEWS]
    for table in next(view.tables for view in VIEWS if view.name == name):
        changed(made, f"DELETE FROM {table.name}")
    monkeypatch.setattr(looking_back, "VIEWS", raised)
    projector = Projector(made.isolation, made.tenant, views=raised, chunk=7)
    for _ in range(3):
        projector.step()
    # Taken over halfway by another follower, which knows nothing of the hierarchy yet.
    projector = Projector(made.isolation, made.tenant, views=raised, chunk=7)
    assert projector.catch_up(60) == 60
    assert dumped(made) == expected_at_60
    projector.catch_up()
    assert rebuild_and_compare(made.isolation, made.tenant) == []


def test_a_view_built_by_a_newer_version_is_left_alone(made):
    catch_up(made.isolation, made.tenant)
    before = dumped(made)
    changed(made, "UPDATE projection_positions SET version = 99 WHERE projection = 'usages'")
    made.use("r1", "voice", 60)
    made.commit()
    with pytest.raises(NewerView, match="usages"):
        catch_up(made.isolation, made.tenant)
    assert dumped(made) == before
    (difference,) = rebuild_and_compare(made.isolation, made.tenant)
    assert difference.view == "usages"
    assert (difference.live, difference.rebuilt) == ({"version": 99}, {"version": usages.VERSION})


ONE_MORE = "figures = set_byte(figures, 15, get_byte(figures, 15) # 1)"


@pytest.mark.parametrize(
    ("damage", "table", "told"),
    [
        (
            "UPDATE balances SET consumed = consumed + 1 WHERE (ordinal, usage_type) = (0, 'voice')",
            "balances",
            "both",
        ),
        (
            f"UPDATE usage_counters SET {ONE_MORE} WHERE (block, usage_type) = (0, 'voice')",
            "usage_counters",
            "both",
        ),
        ("DELETE FROM usages WHERE seq = (SELECT max(seq) FROM usages)", "usages", "rebuilt"),
        ("INSERT INTO member_events (ordinal, seq) VALUES (0, 1)", "member_events", "live"),
    ],
)
def test_comparing_names_the_row_that_is_not_what_the_log_gives(made, damage, table, told):
    catch_up(made.isolation, made.tenant)
    changed(made, damage)
    (difference,) = rebuild_and_compare(made.isolation, made.tenant)
    assert difference.table == table
    assert (difference.live is not None) == (told in ("both", "live"))
    assert (difference.rebuilt is not None) == (told in ("both", "rebuilt"))
    if table == "balances":
        assert difference.live["consumed"] == difference.rebuilt["consumed"] + 1
    assert rebuild(made.isolation, made.tenant) == made.log.head().seq
    assert rebuild_and_compare(made.isolation, made.tenant) == []


def test_looking_back_does_not_fall_for_statements_prepared_on_the_live_tables(made):
    catch_up(made.isolation, made.tenant)
    for _ in range(8):  # the driver prepares what it has seen five times
        with made.isolation.transaction(made.tenant) as db:
            assert len(members_under(db, resources=True)) == 7
    with past(made.isolation, made.tenant, 4, ["members"]) as db:
        assert [member.id for member in members_under(db)] == ["acme", "emea", "sales"]
    with made.isolation.transaction(made.tenant) as db:
        assert len(members_under(db, resources=True)) == 7


def test_looking_back_refuses_what_it_was_not_asked_for(made):
    with past(made.isolation, made.tenant, 30, ["balances"]) as db:
        assert balances.balances_under(db, None, 0, PERIOD)
        with pytest.raises(psycopg.errors.UndefinedColumn):
            usages.usages_page(db, 1)
    with (
        pytest.raises(ValueError, match="no view is called"),
        past(made.isolation, made.tenant, 1, ["balance"]),
    ):
        pass
    end = made.log.head().seq
    with pytest.raises(LookupError, match=f"ends at seq {end}"), past(made.isolation, made.tenant, end + 1):
        pass


def test_a_moment_is_the_last_seq_recorded_by_then(enterprise):
    made = enterprise()
    made.do(OpenTenant("Acme", "UTC", "EUR", "carrier"))
    first = made.commit()
    start = made.now
    made.now += 10
    made.do(AddNode("acme", "", "Acme", "enterprise"))
    made.do(AddNode("emea", "acme", "EMEA", "division"))
    second = made.commit()
    moments = {start - 1: 0, start: first, start + 9: first, start + 10: second, start + 10**9: second}
    assert {moment: seq_at(made.isolation, made.tenant, moment) for moment in moments} == moments


def test_a_follower_shows_what_a_writer_has_committed(written, isolation):
    async def story():
        followers = []
        async with written(lambda group: followers[0].notify(group.last)) as writer:
            follower = Follower(isolation, writer.tenant_id, poll_seconds=30)
            followers.append(follower)
            await follower.start()
            await writer.submit(OpenTenant("Acme", "UTC", "EUR", "c"), command_key("1"), "carrier:x")
            node = AddNode("acme", "", "Acme", "enterprise")
            answer = await writer.submit(node, command_key("2"), "carrier:x")
            await follower.wait_for(answer.last_seq, PATIENCE_SECONDS)
            with isolation.transaction(writer.tenant_id) as db:
                assert members.member(db, "acme").name == "Acme"
            assert (follower.position, follower.lag) == (answer.last_seq, 0)
            with pytest.raises(TimeoutError, match="ask again"):
                await follower.wait_for(answer.last_seq + 1, 0.05)
            await follower.close()

    asyncio.run(story())


def test_a_follower_finds_what_nobody_told_it_of(made, isolation):
    async def story():
        follower = Follower(isolation, made.tenant, poll_seconds=0.05)
        await follower.start()
        made.use("r1", "voice", 60)
        await follower.wait_for(made.commit(), PATIENCE_SECONDS)
        await follower.close()

    asyncio.run(story())


def test_a_follower_goes_on_where_somebody_had_the_views_in_hand_and_says_nothing(made, isolation):
    async def story():
        follower = Follower(isolation, made.tenant, poll_seconds=0.05)
        with in_hand(made):
            await follower.start()
            with pytest.raises(TimeoutError):
                await follower.wait_for(1, 0.5)
            assert follower.error is None
        await follower.wait_for(made.log.head().seq, PATIENCE_SECONDS)
        await follower.close()

    asyncio.run(story())


def test_a_follower_outlives_an_outage(made, isolation, monkeypatch):
    outages = [psycopg.OperationalError("the server is gone"), OSError("no route"), LookupError("our fault")]
    usual = Projector.step
    monkeypatch.setattr(keeping_up, "PAUSE_SECONDS_MAX", 0.05)

    def failing(self, upto=None):
        if outages:
            raise outages.pop()
        return usual(self, upto)

    async def story():
        monkeypatch.setattr(Projector, "step", failing)
        follower = Follower(isolation, made.tenant, poll_seconds=0.05)
        await follower.start()
        with pytest.raises(LookupError):
            await follower.wait_for(1, PATIENCE_SECONDS)
        await follower.wait_for(made.log.head().seq, PATIENCE_SECONDS)
        assert (follower.error, outages) == (None, [])
        await follower.close()

    asyncio.run(story())
    assert rebuild_and_compare(made.isolation, made.tenant) == []
