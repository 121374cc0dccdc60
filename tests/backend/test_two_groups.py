"""Two groups under way: the second is copied while the first is being committed, and stored after it."""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import psycopg
import pytest
from backend.faults.proxy import Proxy
from fixtures_loop import in_a_loop
from fixtures_writer import NOON, ROOT, Through, call, charge, furnish, statuses
from patience import PATIENCE_SECONDS, until, until_there

from allotment.backend import taking_over
from allotment.backend import writer as writing
from allotment.backend.log import Fenced, Group, Head, LogUnavailable, PostgresLog
from allotment.backend.writer import Writer
from allotment.tenants.isolation import Isolation
from allotment.tenants.sealing import load_sealer


def key(number):
    return number.to_bytes(16, "big")


def group_after(store, head, *keys):
    group = Group(store.tenant, head, NOON)
    for command_key in keys:
        group.add("usage.charged", b"an event", command_key)
    return group


def two_groups(store):
    """Of three events each, the second to follow the first, whose fate is the future's."""
    head = store.log.claim()
    first = group_after(store, head, *map(key, range(3)))
    second = group_after(store, Head(first.last, first.epoch, first.peaks), *map(key, range(3, 6)))
    second.follows = Future()
    return first, second


def copying(database):
    """How many sessions are within a COPY and wait for the rest of it."""
    with psycopg.connect(database) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND wait_event = 'ClientRead' AND state = 'active' AND query LIKE '%COPY events%'"
        ).fetchone()
    return found[0]


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as opened:
        yield opened


def test_a_group_that_follows_is_stored_after_the_one_before(postgres, database, threads):
    first, second = two_groups(postgres)
    sent = threads.submit(postgres.log.append, second)
    until(lambda: copying(database) == 1)
    assert (postgres.rows(), second.sent) == ([], False)
    postgres.log.append(first)
    assert (len(postgres.rows()), first.sent) == (3, True)
    second.follows.set_result(True)
    sent.result(20)
    assert postgres.rows() == [*first.rows(), *second.rows()]
    assert postgres.log.head() == Head(6, second.epoch, second.peaks)


def test_a_group_that_follows_one_that_failed_is_not_stored(postgres, threads):
    first, second = two_groups(postgres)
    sent = threads.submit(postgres.log.append, second)
    second.follows.set_result(False)
    with pytest.raises(LogUnavailable):
        sent.result(20)
    assert (postgres.rows(), second.sent) == ([], False)
    postgres.log.append(first)
    second.follows = None
    postgres.log.append(second)
    assert len(postgres.rows()) == 6


@pytest.mark.parametrize("fate", [Fenced, LogUnavailable, None])
def test_whatever_became_of_an_append_its_connection_is_clean(fate, database, postgres):
    isolation = Isolation(database, pool_max=1)
    log = PostgresLog(isolation, postgres.tenant)
    group = group_after(postgres, log.claim(), key(1))
    if fate is Fenced:
        group.epoch += 1
    elif fate is LogUnavailable:
        group.follows = Future()
        group.follows.set_result(False)
    with pytest.raises(fate) if fate else nullcontext():
        log.append(group)
    with isolation.connection("appending") as connection:
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        user, tenant = connection.execute(
            "SELECT current_user, current_setting('app.tenant', true)"
        ).fetchone()
        assert (user, tenant or None) == ("allotment_app", None)
    log.append(group_after(postgres, log.head(), key(2)))
    isolation.close()


def test_an_append_on_connections_that_were_all_cut_takes_another(postgres, database, threads):
    first, second = two_groups(postgres)
    sent = threads.submit(postgres.log.append, second)
    until(lambda: copying(database) == 1)
    postgres.log.append(first)
    second.follows.set_result(True)
    sent.result(20)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    postgres.log.append(group_after(postgres, postgres.log.head(), key(9)))
    assert len(postgres.rows()) == 7


def test_who_takes_over_ends_both_groups_of_a_writer_that_says_nothing(
    postgres, database, threads, monkeypatch
):
    monkeypatch.setattr(taking_over, "HELD_MS_MAX", 200)
    first, second = two_groups(postgres)
    first.follows = Future()
    sent = [threads.submit(postgres.log.append, group) for group in (first, second)]
    until(lambda: copying(database) == 2)
    taken = postgres.log.claim()
    assert taken == Head(0, first.epoch + 1, [])
    postgres.log.append(group_after(postgres, taken, key(1)))
    for group, append in zip((first, second), sent, strict=True):
        group.follows.set_result(True)  # as a stopped writer that wakes up
        with pytest.raises(LogUnavailable):
            append.result(20)
    assert len(postgres.rows()) == 1


def test_a_writer_that_was_taken_over_between_its_groups_stores_no_second_one(postgres, threads):
    first, second = two_groups(postgres)
    postgres.log.append(first)
    assert postgres.log.claim().seq == 3
    second.follows.set_result(True)
    with pytest.raises(Fenced):
        postgres.log.append(second)
    assert len(postgres.rows()) == 3


# --- the writer ------------------------------------------------------------------------------------


class Held(Through):
    """Also holds back what became of each append, and counts how many are under way at once."""

    def __init__(self, log, *fates):
        super().__init__(log, *fates)
        self.told = threading.Event()
        self.told.set()
        self.under_way = self.most = 0
        self.first = self.writer = None
        self.came = []

    def append(self, group):
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        if group.follows is None:
            self.first = group
        self.came.append(group)
        if self.fates and self.fates[0] == "fenced":
            self.fates[0] = "kept"
            group.epoch += 1  # the database says so, after all rows were sent
        try:
            super().append(group)
        finally:
            self.first = None
            assert self.told.wait(PATIENCE_SECONDS)
            self.under_way -= 1

    async def both_under_way(self):
        await until_there(lambda: self.under_way == 2)

    def clock(self):
        """Noon; asked before each slice, it waits until a second group may be sent."""
        until(lambda: self._all_came() and (self.first is None or self.first.sent))
        return NOON

    def _all_came(self):
        """On a busy machine a thread begins late: all would be decided, and no second group be left."""
        flying = self.writer._flying if self.writer is not None else ()
        return all(flight.opened.group in self.came for flight in flying)


@pytest.fixture
def small(monkeypatch):
    """Slices of twenty records, each worth a group of its own."""
    monkeypatch.setattr(writing, "SLICE_MAX", 20)
    monkeypatch.setattr(writing, "SECOND_MIN", 10)


@pytest.mark.parametrize(
    "fates",
    [
        [],
        ["unheard"],
        ["fenced"],
        ["lost"],
        ["kept", "unheard"],
        ["kept", "lost"],
        ["kept", "fenced"],
        ["unheard", "unheard"],
        ["fenced", "kept", "unheard", "kept", "fenced"],
    ],
    ids=lambda fates: ", ".join(fates) or "kept",
)
@pytest.mark.usefixtures("small")
@in_a_loop
async def test_whatever_becomes_of_two_groups_each_record_is_charged_once_and_in_order(fates, postgres):
    log = Held(postgres.log)
    async with postgres.opened(log, clock=log.clock) as writer:
        await furnish(writer)
        log.writer = writer
        log.fates += fates
        log.told.clear()
        asked = [asyncio.ensure_future(charge(writer, *records_of(batch))) for batch in range(12)]
        if fates != ["lost"]:
            await log.both_under_way()
        await asyncio.sleep(0.3)
        assert not any(task.done() for task in asked), "nobody is told before the answer is there"
        log.told.set()
        outcomes = [outcome for task in asked for outcome in await task]
        assert set(statuses(outcomes)) == {"charged"}
        assert [outcome.seq for outcome in outcomes] == sorted({outcome.seq for outcome in outcomes})
    assert postgres.charged_ids() == [one.record_id for batch in range(12) for one in records_of(batch)]


def records_of(batch):
    return [call(f"{batch}-{number}", number % 10) for number in range(20)]


@pytest.mark.usefixtures("small")
@in_a_loop
async def test_a_store_that_cannot_order_two_groups_is_sent_one_at_a_time(memory):
    log = Held(memory.log)
    async with memory.opened(log) as writer:
        await furnish(writer)
        await asyncio.gather(*(charge(writer, call(i, i % 10)) for i in range(600)))
    assert log.most == 1


@pytest.mark.usefixtures("small")
@in_a_loop
async def test_a_writer_that_closes_finishes_both_groups_first(postgres):
    log = Held(postgres.log)
    writer = postgres.writer(log, log.clock)
    await writer.start()
    await furnish(writer)
    log.writer = writer
    log.told.clear()
    asked = [asyncio.ensure_future(charge(writer, *records_of(batch))) for batch in range(2)]
    await log.both_under_way()
    closing = asyncio.ensure_future(writer.close())
    await asyncio.sleep(0)
    log.told.set()
    await closing
    assert {status for one in asked for status in statuses(await one)} == {"charged"}
    assert writer.waiting == 0


@pytest.mark.usefixtures("small")
@in_a_loop
async def test_answers_swallowed_while_two_groups_are_under_way_cost_nobody_a_record(postgres, database):
    with Proxy(database) as proxy:
        isolation, sealing = Isolation(proxy.url), Isolation(database)
        log = Held(PostgresLog(isolation, postgres.tenant))
        writer = Writer(postgres.tenant, log, lambda: load_sealer(sealing, ROOT, postgres.tenant), log.clock)
        await writer.start()
        await furnish(writer)
        log.writer = writer
        for number in range(4):
            proxy.swallow(1 + number % 2)
            log.told.clear()
            batches = (records_of(number * 40 + batch) for batch in range(40))
            asked = [asyncio.ensure_future(charge(writer, *records)) for records in batches]
            await log.both_under_way()
            log.told.set()
            outcomes = await asyncio.gather(*asked)
            assert {status for outcome in outcomes for status in statuses(outcome)} == {"charged"}
        assert proxy.swallowed == 6
        await writer.close()
        await asyncio.get_running_loop().run_in_executor(None, isolation.close)
        sealing.close()
    charged = postgres.charged_ids()
    assert len(charged) == len(set(charged)) == 3_200
