"""Small groups, sent by the event loop itself; and the next one on its way before the last are answered."""

import asyncio
import os
import socket
from functools import partial
from uuid import uuid4

import psycopg
import pytest
from backend.faults.proxy import Proxy
from fixtures_loop import in_a_loop
from fixtures_writer import NOON, ROOT, Through, call, charge, furnish, statuses, submit

from allotment.backend import inserting
from allotment.backend import writer as writing
from allotment.backend.log import Fenced, Group, Head, KeyStored, LogUnavailable, PostgresLog
from allotment.backend.writer import Writer
from allotment.domain.limit import SetLimit
from allotment.domain.refusals import Refused
from allotment.tenants.isolation import Isolation
from allotment.tenants.sealing import load_sealer


def key(number):
    return number.to_bytes(16, "big")


def group_after(store, head, *keys, state=b"an event"):
    group = Group(store.tenant, head, NOON)
    for command_key in keys:
        group.add("usage.charged", state, command_key)
    return group


@pytest.fixture
def at_hand(postgres, database):
    """A log with one connection, and that at rest."""
    isolation = Isolation(database, pool_max=1)
    with isolation.connection("appending"):
        pass
    yield PostgresLog(isolation, postgres.tenant)
    isolation.close()


def subject_keys(store):
    with store.isolation.transaction(store.tenant) as connection:
        return dict(connection.execute("SELECT subject, wrapped FROM subject_keys").fetchall())


def end_all_sessions(database):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.mark.parametrize("keys", [[key(1)], [None], [None, key(1), None], [*map(key, range(300))]], ids=len)
@in_a_loop
async def test_what_is_sent_is_stored_as_if_it_had_been_appended(keys, postgres, at_hand):
    head = at_hand.claim()
    group = group_after(postgres, head, *keys)
    group.subject_keys = {b"alice": b"wrapped", b"bob": b"another"}
    await at_hand.send(group)
    assert group.sent
    assert postgres.rows() == list(group.rows())
    assert at_hand.head() == Head(len(keys), head.epoch, group.peaks)
    assert subject_keys(postgres) == group.subject_keys


@in_a_loop
async def test_one_group_after_another_goes_over_the_same_connection(postgres, at_hand):
    head, pids = at_hand.claim(), set()
    for number in range(8):
        group = group_after(postgres, head, key(number))
        await at_hand.send(group)
        head = Head(group.last, group.epoch, group.peaks)
        with at_hand.isolation.connection("appending") as connection:
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            pids.add(connection.info.backend_pid)
    assert (at_hand.head(), len(pids)) == (head, 1)


@in_a_loop
async def test_more_than_the_socket_takes_at_once_is_written_as_it_has_room(postgres, at_hand):
    group = group_after(postgres, at_hand.claim(), *map(key, range(40)), state=bytes(200_000))
    with (
        at_hand.isolation.connection("appending") as connection,
        socket.socket(fileno=os.dup(connection.fileno())) as line,
    ):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
    sent = at_hand.send(group)
    assert not group.sent, "the loop goes on meanwhile"
    await sent
    assert group.sent
    assert len(postgres.rows()) == 40


@pytest.mark.parametrize("wrong", ["epoch", "end", "key", "subject"])
@in_a_loop
async def test_what_may_not_be_stored_is_not_and_the_next_is(wrong, postgres, at_hand):
    first = group_after(postgres, at_hand.claim(), key(1))
    first.subject_keys = {b"alice": b"wrapped"}
    await at_hand.send(first)
    group = group_after(postgres, at_hand.head(), key(2), key(1) if wrong == "key" else key(3))
    if wrong == "epoch":
        group.epoch -= 1
    elif wrong == "end":
        group = group_after(postgres, Head(0, group.epoch, []), key(4))
    elif wrong == "subject":
        group.subject_keys = {b"bob": b"new", b"alice": b"second"}
    with pytest.raises(KeyStored if wrong == "key" else Fenced):
        await at_hand.send(group)
    assert (len(postgres.rows()), subject_keys(postgres)) == (1, {b"alice": b"wrapped"})
    following = group_after(postgres, at_hand.head(), key(9))
    await (at_hand.send(following) or asyncio.to_thread(at_hand.append, following))
    assert len(postgres.rows()) == 2


@in_a_loop
async def test_where_no_connection_is_at_hand_nothing_is_sent(postgres, database):
    isolation = Isolation(database, pool_max=1)
    log = PostgresLog(isolation, postgres.tenant)
    group = group_after(postgres, log.claim(), key(1))
    assert log.send(group) is None, "none was opened yet"
    with isolation.connection("appending"):
        assert log.send(group) is None, "the only one is somebody's"
    isolation.close()
    assert log.send(group) is None
    assert (postgres.rows(), group.sent) == ([], False)


@in_a_loop
async def test_a_connection_that_was_cut_is_not_at_hand_and_nobody_hears_of_it(postgres, at_hand, database):
    head = at_hand.claim()
    end_all_sessions(database)
    group = group_after(postgres, head, key(1))
    assert at_hand.send(group) is None
    await asyncio.to_thread(at_hand.append, group)
    assert len(postgres.rows()) == 1


@in_a_loop
async def test_a_session_that_is_ended_while_it_waits_leaves_nothing_behind(postgres, at_hand, database):
    group = group_after(postgres, at_hand.claim(), key(1))
    with psycopg.connect(database) as holding:
        # As who takes the log over does: the group waits for this lock.
        lock = inserting.lock_of(postgres.tenant)
        holding.execute("SELECT pg_advisory_xact_lock(%s)", (lock,))
        sent = at_hand.send(group)
        await asyncio.sleep(0.05)
        await asyncio.to_thread(end_all_but, database, holding.info.backend_pid)
        with pytest.raises(LogUnavailable):
            await sent
    assert postgres.rows() == []


def end_all_but(database, pid):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), %s)",
            (pid,),
        )


@in_a_loop
async def test_who_does_not_wait_any_more_takes_the_connection_along(postgres, at_hand, database):
    group = group_after(postgres, at_hand.claim(), key(1))
    with at_hand.isolation.connection("appending") as connection:
        left = connection.info.backend_pid
    with psycopg.connect(database) as holding:
        holding.execute("SELECT pg_advisory_xact_lock(%s)", (inserting.lock_of(postgres.tenant),))
        at_hand.send(group).cancel()
        await asyncio.sleep(0)
    with at_hand.isolation.connection("appending") as connection:
        assert connection.info.backend_pid != left


@pytest.mark.parametrize("size", [1, 7])
def test_the_insert_of_a_server_without_an_appender_is_the_same_one(size, postgres):
    postgres.isolation._may_copy = False
    head = postgres.log.claim()
    group = group_after(postgres, head, *map(key, range(size)))
    postgres.log.append(group)
    assert postgres.rows() == list(group.rows())


def test_no_row_of_another_tenant_can_be_inserted_on_the_way(postgres, monkeypatch):
    other = uuid4()
    group = group_after(postgres, postgres.log.claim(), key(1))
    said = list(inserting.transaction(group))
    said[-3] = said[-3]._replace(values=(other.bytes, *said[-3].values[1:]))
    monkeypatch.setattr(inserting, "transaction", lambda _: said)
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"),
        postgres.isolation.connection("app") as connection,
    ):
        inserting.append(connection, group)
    assert postgres.rows() == []


# --- the writer ------------------------------------------------------------------------------------


class Sent(Through):
    """A log that sends, too; what becomes of each group is held back until it may be told."""

    def __init__(self, log, *fates):
        super().__init__(log, *fates)
        self.told = asyncio.Event()
        self.told.set()
        self.came = []
        self.stored = []
        self.on_send = lambda: None

    def append(self, group):
        self.came.append(group)
        super().append(group)

    def send(self, group):
        self.on_send()
        self.came.append(group)
        return asyncio.ensure_future(self._become(group, self.fates.popleft() if self.fates else "kept"))

    async def _become(self, group, fate):
        if fate in ("lost", "fenced"):
            await self.told.wait()
            raise Fenced("another writer") if fate == "fenced" else LogUnavailable("cut before it was sent")
        await (self.log.send(group) or asyncio.to_thread(self.log.append, group))
        self.stored.append(group)
        await self.told.wait()
        if fate == "unheard":
            raise LogUnavailable("the connection was cut before the answer came")

    async def has_stored(self, groups):
        async with asyncio.timeout(20):
            while len(self.stored) < groups:  # noqa: ASYNC110  (a thread may be the one)
                await asyncio.sleep(0.002)


@in_a_loop
async def test_a_writer_sends_small_groups_itself_and_large_ones_by_a_thread(postgres, monkeypatch):
    monkeypatch.setattr(writing, "SEND_MAX", 5)
    appended, append = [], postgres.log.append
    monkeypatch.setattr(postgres.log, "append", lambda group: (appended.append(group), append(group)))
    async with postgres.opened() as writer:
        await furnish(writer)
        appended.clear()
        for number in range(5):
            await charge(writer, call(number))
        assert appended == []
        await charge(writer, *(call(f"more {number}") for number in range(6)))
        assert [len(group.states) for group in appended] == [6]
    assert len(postgres.charged_ids()) == 11


@in_a_loop
async def test_what_comes_during_a_commit_is_decided_then_and_sent_before_the_last_are_answered(postgres):
    log = Sent(postgres.log)
    async with postgres.opened(log) as writer:
        await furnish(writer)
        log.came.clear()
        log.stored.clear()
        log.told.clear()
        first = asyncio.ensure_future(charge(writer, call(1)))
        await log.has_stored(1)
        second = asyncio.ensure_future(charge(writer, call(2)))
        seq = writer.seq
        while writer.seq == seq:  # noqa: ASYNC110  (decided while the first is not told yet)
            await asyncio.sleep(0)
        assert (len(log.came), first.done(), second.done()) == (1, False, False)
        answered = []
        log.on_send = lambda: answered.append(first.done())
        log.told.set()
        assert statuses([*await first, *await second]) == ["charged", "charged"]
        assert answered == [False], "the disk does not wait for answers to be given"
        assert [group.last for group in log.came] == [seq, seq + 1]


@in_a_loop
async def test_nobody_is_told_before_his_own_commit_nor_of_a_refusal_that_rests_on_another(postgres):
    log = Sent(postgres.log)
    async with postgres.opened(log) as writer:
        await furnish(writer)
        order = []
        log.told.clear()

        async def charged(number):
            await charge(writer, call(number))
            order.append(number)

        async def refused():
            with pytest.raises(Refused):
                await submit(writer, SetLimit("nobody", "voice", 1), "refused")
            order.append("refused")

        log.stored.clear()
        asked = [asyncio.ensure_future(charged(1))]
        await log.has_stored(1)
        asked += [asyncio.ensure_future(refused()), asyncio.ensure_future(charged(2))]
        await asyncio.sleep(0.05)
        assert order == []
        log.told.set()
        await asyncio.gather(*asked)
        assert order.index(1) == 0


@pytest.mark.parametrize(
    "fates",
    [
        ["unheard"],
        ["lost"],
        ["fenced"],
        ["kept", "unheard"],
        ["kept", "lost"],
        ["unheard", "unheard"],
        ["kept", "fenced", "unheard", "lost", "kept", "unheard"],
    ],
    ids=", ".join,
)
@in_a_loop
async def test_a_commit_that_fails_while_the_next_group_is_decided_costs_nobody_a_record(fates, postgres):
    log = Sent(postgres.log)
    async with postgres.opened(log) as writer:
        await furnish(writer)
        log.came.clear()
        log.told.clear()
        log.fates += fates
        asked = [asyncio.ensure_future(charge(writer, call("first")))]
        while not log.came:  # noqa: ASYNC110  (it is on its way)
            await asyncio.sleep(0)
        seq = writer.seq
        asked += [asyncio.ensure_future(charge(writer, call(number, number % 10))) for number in range(20)]
        while writer.seq < seq + 20:  # noqa: ASYNC110  (all of them are decided)
            await asyncio.sleep(0)
        log.told.set()
        outcomes = [outcome for task in asked for outcome in await task]
        assert set(statuses(outcomes)) == {"charged"}
        assert [outcome.seq for outcome in outcomes] == sorted({outcome.seq for outcome in outcomes})
    assert postgres.charged_ids() == ["call-first", *(f"call-{number}" for number in range(20))]


@in_a_loop
async def test_a_large_group_follows_a_small_one_that_is_on_its_way(postgres, monkeypatch):
    monkeypatch.setattr(writing, "SECOND_MIN", 10)
    log = Sent(postgres.log)
    async with postgres.opened(log) as writer:
        await furnish(writer)
        log.came.clear()
        log.stored.clear()
        log.told.clear()
        asked = [asyncio.ensure_future(charge(writer, call("small")))]
        await log.has_stored(1)
        asked.append(asyncio.ensure_future(charge(writer, *(call(number) for number in range(20)))))
        async with asyncio.timeout(20):
            while len(log.came) < 2:  # noqa: ASYNC110  (in a thread)
                await asyncio.sleep(0.002)
        assert log.came[1].follows is not None
        assert len(postgres.charged_ids()) == 1, "its last word waits for what became of the first"
        log.told.set()
        assert [set(statuses(await task)) for task in asked] == [{"charged"}, {"charged"}]
    assert len(postgres.charged_ids()) == 21


@in_a_loop
async def test_answers_to_small_groups_that_are_swallowed_cost_nobody_a_record(postgres, database):
    with Proxy(database) as proxy:
        isolation, sealing = Isolation(proxy.url), Isolation(database)
        log = PostgresLog(isolation, postgres.tenant)
        sent, send = [], log.send
        log.send = lambda group: sent.append(group) or send(group)
        load = partial(load_sealer, sealing, ROOT, postgres.tenant)
        writer = Writer(postgres.tenant, log, load, lambda: NOON)
        await writer.start()
        await furnish(writer)
        for number in range(6):
            await charge(writer, call(f"a {number}"))
            proxy.swallow()
            outcomes = await asyncio.gather(*(charge(writer, call(f"{number} {i}", i)) for i in range(10)))
            assert {status for outcome in outcomes for status in statuses(outcome)} == {"charged"}
        assert proxy.swallowed == 6
        assert len(sent) >= 6
        await writer.close()
        await asyncio.to_thread(isolation.close)
        sealing.close()
    charged = postgres.charged_ids()
    assert len(charged) == len(set(charged)) == 66


@in_a_loop
async def test_a_writer_that_is_abandoned_leaves_no_connection_behind(postgres, database):
    isolation = Isolation(database)
    log = PostgresLog(isolation, postgres.tenant)
    writer = postgres.writer(log)
    await writer.start()
    await furnish(writer)
    with psycopg.connect(database) as holding:
        holding.execute("SELECT pg_advisory_xact_lock(%s)", (inserting.lock_of(postgres.tenant),))
        asked = asyncio.ensure_future(charge(writer, call(1)))
        await asyncio.sleep(0.05)
        await writer.abandon()
        with pytest.raises(writing.Moved):
            await asked
        await asyncio.sleep(0)
    await asyncio.to_thread(isolation.close)
    async with postgres.opened() as other:
        # What was with the server already may be stored, once.
        assert set(statuses(await charge(other, call(1)))) <= {"charged", "duplicate"}
    assert postgres.charged_ids() == ["call-1"]
