"""The log: the one in memory and the one in PostgreSQL pass the same tests."""

import re
import threading
import time
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from eventsourcing.persistence import StoredEvent
from fixtures_writer import NOON, Store
from patience import until

from allotment.backend import appending
from allotment.backend.log import (
    Fenced,
    Group,
    Head,
    KeyStored,
    LogUnavailable,
    MemoryLog,
    PostgresLog,
    follow,
)
from allotment.domain import proof
from allotment.tenants.isolation import Isolation, connection_settings

ROOT = Path(__file__).parents[2]


def key(number):
    return number.to_bytes(16, "big")


def group_of(store, head, *keys, topic="usage.charged", recorded_at=NOON):
    group = Group(store.tenant, head, recorded_at)
    for place, command_key in enumerate(keys):
        group.add(topic, b"event %d" % (head.seq + place + 1), command_key)
    return group


def written(store, events, keyed=True):
    head = store.log.claim()
    store.log.append(group_of(store, head, *(key(i) if keyed else None for i in range(1, events + 1))))
    return store.log.head()


def test_an_empty_log_ends_at_nothing_and_belongs_to_nobody(store):
    assert store.log.head() == Head(0, 0, [])
    assert store.log.read() == []
    assert store.log.find([key(1)]) == []


def test_each_claim_bumps_the_epoch_and_moves_nothing(store):
    assert [store.log.claim().epoch for _ in range(3)] == [1, 2, 3]
    written(store, 2)
    assert store.log.claim()[:2] == (2, 5)


def test_what_is_appended_is_read_as_it_was(store):
    head = store.log.claim()
    group = group_of(store, head, key(1), None, key(2), recorded_at=NOON + 1)
    store.log.append(group)
    assert store.log.read() == list(group.rows())
    assert [row.recorded_at for row in store.log.read()] == [NOON + 1] * 3
    assert store.log.head() == Head(3, head.epoch, group.peaks)


def test_groups_follow_one_another_without_a_hole(store):
    head = store.log.claim()
    for first in range(1, 31, 3):
        group = group_of(store, head, *map(key, range(first, first + 3)))
        store.log.append(group)
        head = Head(group.last, group.epoch, group.peaks)
    rows = store.log.read()
    assert [row.seq for row in rows] == list(range(1, 31))
    peaks = []
    for row in rows:
        proof.append(peaks, row.seq - 1, row.leaf_hash)
    assert store.log.head().peaks == peaks


@pytest.mark.parametrize(
    ("epoch", "seen"),
    [
        pytest.param(-1, 0, id="an old epoch"),
        pytest.param(1, 0, id="an epoch that was never given"),
        pytest.param(0, -1, id="an end that has been passed"),
        pytest.param(0, 1, id="an end not reached yet"),
    ],
)
def test_whoever_is_wrong_about_epoch_or_end_appends_nothing(store, epoch, seen):
    written(store, 2)
    head = store.log.claim()
    before = store.log.head(), store.log.read()
    wrong = Head(head.seq + seen, head.epoch + epoch, [bytes(32)] * 2)
    with pytest.raises(Fenced):
        store.log.append(group_of(store, wrong, key(10), key(11)))
    assert (store.log.head(), store.log.read()) == before
    assert store.log.find([key(10), key(11)]) == []


def test_nobody_appends_to_a_log_that_was_never_claimed(store):
    with pytest.raises(Fenced):
        store.log.append(group_of(store, Head(0, 1, []), key(1)))
    assert store.log.read() == []


def test_a_stored_command_key_rolls_the_whole_group_back(store):
    head = written(store, 2)
    with pytest.raises(KeyStored):
        store.log.append(group_of(store, head, key(10), key(1), key(11)))
    assert store.log.head() == head
    assert len(store.log.read()) == 2
    store.log.append(group_of(store, head, key(10)))
    assert store.log.head().seq == 3


@pytest.mark.parametrize(
    "store",
    [
        pytest.param("memory"),
        "postgres",
    ],
    indirect=True,
)
def test_the_same_command_key_twice_in_one_group_rolls_it_back(store):
    head = store.log.claim()
    with pytest.raises(KeyStored):
        store.log.append(group_of(store, head, key(1), key(2), key(1)))
    assert store.log.read() == []


def test_events_that_follow_from_a_command_need_no_key(store):
    assert written(store, 5, keyed=False).seq == 5


def test_commands_are_found_by_their_keys_in_the_order_of_the_log(store):
    written(store, 9)
    assert [row.seq for row in store.log.find([key(7), key(99), key(3)])] == [3, 7]
    assert [row.command_key for row in store.log.find([key(3)])] == [key(3)]
    assert store.log.find([]) == []


@pytest.mark.parametrize(
    "store",
    [
        pytest.param("memory"),
        "postgres",
    ],
    indirect=True,
)
def test_a_key_asked_for_twice_is_found_once(store):
    written(store, 2)
    assert [row.seq for row in store.log.find([key(2), key(2)])] == [2]


@pytest.mark.parametrize(
    ("after", "limit", "upto", "seqs"),
    [
        (0, 3, None, [1, 2, 3]),
        (8, 3, None, [9, 10]),
        (10, 3, None, []),
        (99, 3, None, []),
        (0, 0, None, []),
        (2, 100, 4, [3, 4]),
        (2, 100, 2, []),
        (0, 100, 0, []),
        (0, 100, 99, list(range(1, 11))),
    ],
)
def test_the_log_is_read_in_pages(store, after, limit, upto, seqs):
    written(store, 10)
    assert [row.seq for row in store.log.read(after, limit, upto)] == seqs


def test_following_reads_page_after_page(store, monkeypatch):
    monkeypatch.setattr("allotment.backend.log.READ_MAX", 3)
    written(store, 10)
    assert [row.seq for row in follow(store.log)] == list(range(1, 11))
    assert [row.seq for row in follow(store.log, after=4, upto=8)] == [5, 6, 7, 8]


def test_new_subject_keys_are_stored_with_the_group_or_not_at_all(postgres):
    old = postgres.log.claim()
    now = postgres.log.claim()
    group = group_of(postgres, old, key(1))
    group.subject_keys = {b"alice": b"wrapped"}
    with pytest.raises(Fenced):
        postgres.log.append(group)
    assert subject_keys(postgres) == {}
    group = group_of(postgres, now, key(1))
    group.subject_keys = {b"alice": b"wrapped"}
    postgres.log.append(group)
    assert subject_keys(postgres) == {b"alice": b"wrapped"}


def test_a_subject_key_that_is_there_already_stops_the_group(postgres):
    head = postgres.log.claim()
    group = group_of(postgres, head, key(1))
    group.subject_keys = {b"alice": b"first"}
    postgres.log.append(group)
    following = group_of(postgres, postgres.log.head(), key(2))
    following.subject_keys = {b"bob": b"new", b"alice": b"second"}
    with pytest.raises(Fenced):
        postgres.log.append(following)
    assert subject_keys(postgres) == {b"alice": b"first"}
    assert postgres.log.head().seq == 1


def subject_keys(store):
    with store.isolation.transaction(store.tenant) as connection:
        return dict(connection.execute("SELECT subject, wrapped FROM subject_keys").fetchall())


def test_two_tenants_with_the_same_keys_do_not_meet(isolation):
    one, other = Store(isolation), Store(isolation)
    written(one, 3)
    written(other, 2)
    assert (one.log.head().seq, other.log.head().seq) == (3, 2)
    assert len(one.log.find([key(1)])) == len(other.log.find([key(1)])) == 1


def test_an_unreachable_database_is_called_that(postgres):
    # Port 1 of this machine: nobody listens there.
    gone = PostgresLog(_impatient("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"), postgres.tenant)
    for attempt in (gone.claim, gone.head, gone.read):
        with pytest.raises(LogUnavailable):
            attempt()
    gone.isolation.close()


def _impatient(address):
    isolation = Isolation(address)
    isolation._pool("app").timeout = 0.5
    return isolation


def test_a_connection_that_was_cut_is_replaced(postgres, database):
    written(postgres, 1)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert postgres.log.head().seq == 1


# --- the eventsourcing library on our log ------------------------------------------------------


def test_the_librarys_readers_see_the_same_events(postgres):
    written(postgres, 5)
    log, rows = postgres.log, postgres.rows()
    stored = log.select_events(postgres.tenant)
    assert [(event.originator_version, event.topic, event.state) for event in stored] == [
        (row.seq, row.topic, row.state) for row in rows
    ]
    assert [event.originator_version for event in log.select_events(postgres.tenant, gt=2, lte=4)] == [3, 4]
    newest = log.select_events(postgres.tenant, desc=True, limit=2)
    assert [event.originator_version for event in newest] == [5, 4]
    notifications = log.select_notifications(2, 2)
    assert [note.id for note in notifications] == [2, 3]
    assert {note.originator_id for note in notifications} == {postgres.tenant}
    assert log.max_notification_id() == 5


def test_the_librarys_readers_stay_inside_the_tenant(isolation):
    one, other = Store(isolation), Store(isolation)
    written(one, 3)
    assert other.log.select_events(one.tenant) == []
    assert other.log.select_notifications(1, 10) == []
    assert other.log.max_notification_id() is None


def test_our_own_reading_works_after_the_librarys_on_the_same_connection(database):
    isolation = Isolation(database, pool_max=1)
    isolation.may_copy()
    store = Store(isolation)
    written(store, 2)
    store.log.select_events(store.tenant)
    assert [row.seq for row in store.log.read()] == [1, 2]
    with pytest.raises(psycopg.errors.UndefinedTable), store.log.datastore.get_connection() as connection:
        connection.execute("SELECT FROM no_such_table")
    assert store.log.head().seq == 2
    isolation.close()


def test_the_librarys_writer_continues_the_log_through_our_append(postgres):
    head = written(postgres, 2)
    events = [StoredEvent(postgres.tenant, version, "a.topic", b"{}") for version in (3, 4)]
    assert postgres.log.insert_events(events) == [3, 4]
    assert postgres.log.head()[:2] == (4, head.epoch + 1)
    with pytest.raises(Fenced):
        postgres.log.insert_events(events)


def test_time_never_runs_backwards_in_the_log_whoever_writes(postgres):
    head = postgres.log.claim()
    late = time.time_ns() // 1_000_000_000 * 1_000_000 + 999_999
    postgres.log.append(group_of(postgres, head, key(1), recorded_at=late))
    postgres.log.insert_events([StoredEvent(postgres.tenant, 2, "a.topic", b"{}")])
    first, second = (row.recorded_at for row in postgres.rows())
    assert first <= second


def test_nothing_makes_tables_but_migrations(postgres):
    with pytest.raises(NotImplementedError, match="migrate"):
        postgres.log.create_table()


def test_the_librarys_database_functions_are_never_used(postgres):
    """They lose events for followers: commits become visible in another order than their numbers."""
    assert postgres.log.datastore.enable_db_functions is False
    folders = ("backend", "domain", "graphql", "migrations", "projections", "tenants")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert sources
    asked = re.compile(r"enable_db_functions\s*=\s*True|ENABLE_DB_FUNCTIONS")
    using = [path.name for path in sources if asked.search(path.read_text(encoding="utf-8"))]
    assert using == []


# --- a reader beside writers -------------------------------------------------------------------


TENANTS = 8
GROUPS = 12
GROUP_EVENTS = 5


def test_a_reader_beside_eight_slow_writers_sees_every_event_once_and_in_order(isolation, linger):
    linger(lambda group: 0.002 + (group.tenant.int + group.seen) % 5 * 0.008)
    stores = [Store(isolation) for _ in range(TENANTS)]
    seen = {store.tenant: [] for store in stores}
    done = threading.Event()

    def tail(store):
        reader = PostgresLog(isolation, store.tenant, role="projector")
        while True:
            finished = done.is_set()
            after = seen[store.tenant][-1] if seen[store.tenant] else 0
            seen[store.tenant] += [row.seq for row in reader.read(after, 7)]
            if finished and after == reader.head().seq:
                return

    writers = [threading.Thread(target=_keep_appending, args=(store,)) for store in stores]
    readers = [threading.Thread(target=tail, args=(store,)) for store in stores]
    for thread in (*writers, *readers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert {tuple(seqs) for seqs in seen.values()} == {tuple(range(1, GROUPS * GROUP_EVENTS + 1))}


def _keep_appending(store):
    head = store.log.claim()
    for _ in range(GROUPS):
        group = group_of(store, head, *(uuid4().bytes for _ in range(GROUP_EVENTS)))
        store.log.append(group)
        head = Head(group.last, group.epoch, group.peaks)


@pytest.fixture
def linger(monkeypatch):
    """Lets appends wait between their last statement and the commit, as on a slow disk."""
    said = appending._said

    def wait(seconds):
        def slowly(group):
            whole = said(group)
            assert whole.endswith("; COMMIT")
            return whole.replace("; COMMIT", f"; SELECT pg_sleep({seconds(group)}); COMMIT")

        monkeypatch.setattr(appending, "_said", slowly)

    return wait


def test_a_group_that_races_a_claim_is_stored_before_it_or_not_at_all(postgres, linger):
    """The claim waits for the append that is under way, and then knows where it ended."""
    linger(lambda _: 0.3)
    head = postgres.log.claim()
    group = group_of(postgres, head, key(1), key(2))
    thread = threading.Thread(target=postgres.log.append, args=(group,))
    thread.start()
    until(lambda: group.sent)
    taken_over = postgres.log.claim()
    thread.join()
    assert taken_over[:2] == (2, head.epoch + 1)


@pytest.mark.parametrize(("connections", "tenants"), [(1, 1), (2, 2)])
def test_as_many_tenants_as_there_are_connections_can_append_at_once(database, connections, tenants):
    isolation = Isolation(database, pool_max=connections)
    isolation._pool("appending").timeout = 1.5
    stores = [Store(isolation) for _ in range(tenants)]
    heads = [store.log.claim() for store in stores]
    together, troubles = threading.Barrier(tenants), []

    def append(store, head):
        together.wait()
        try:
            store.log.append(group_of(store, head, key(1)))
        except LogUnavailable as trouble:
            troubles.append(trouble)

    threads = [threading.Thread(target=append, args=pair) for pair in zip(stores, heads, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    isolation.close()
    assert troubles == []


@pytest.mark.parametrize("copying", [True, False])
def test_both_ways_to_append_store_the_same(postgres, copying):
    postgres.isolation._may_copy = copying
    head = postgres.log.claim()
    group = group_of(postgres, head, key(1), None, key(2), recorded_at=NOON + 7)
    postgres.log.append(group)
    assert postgres.rows() == list(group.rows())
    assert postgres.log.head() == Head(3, head.epoch, group.peaks)
    with pytest.raises(Fenced):
        postgres.log.append(group_of(postgres, head, key(3)))
    with pytest.raises(KeyStored):
        postgres.log.append(group_of(postgres, postgres.log.head(), key(3), key(1)))
    assert len(postgres.rows()) == 3


def test_after_an_append_the_connection_is_the_applications_again(database):
    isolation = Isolation(database, pool_max=1)
    assert isolation.may_copy()
    store = Store(isolation)
    written(store, 2)
    with isolation.transaction(store.tenant) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("allotment_app",)
    isolation.close()


def test_every_connection_waits_only_so_long():
    options = connection_settings("app")["options"]
    for bound in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        assert f"{bound}=" in options


def test_the_log_in_memory_needs_no_database():
    log = MemoryLog()
    assert log.claim() == Head(0, 1, [])
