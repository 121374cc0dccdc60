"""The queue: whoever settles, replays or forgets, nobody waits for another in a circle."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg
import pytest
from patience import until

from allotment.backend.notifying import queue
from allotment.backend.notifying.queue import Place, Wanted

LOCK_REPLAYED = "SELECT FROM outlets WHERE channel = 'webhook' FOR UPDATE"
BY_PLACE_IN_TABLE = "SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off"


@pytest.fixture
def place(told):
    return Place(told.tenant, "webhook", "w")


@pytest.fixture
def waiting(isolation, told):
    """Three deliveries, the last one first in the table."""
    wanted = [Wanted("webhook", "w", seq, "limit.crossed", 0, told.now) for seq in (1, 2, 3)]
    with isolation.transaction(told.tenant) as db:
        for one in reversed(wanted):
            queue.add(db, [one], told.now)
    return wanted


@pytest.fixture
def beside(isolation, told, database):
    """Does something in a transaction of its own beside the test; back once it is done, or waits."""
    with ThreadPoolExecutor(1) as thread, psycopg.connect(database, autocommit=True) as looking:

        def work(act):
            with isolation.transaction(told.tenant) as db:
                return act(db)

        def is_waiting():
            return looking.execute(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock'"
            ).fetchone()[0]

        def begin(act):
            doing = thread.submit(work, act)
            until(lambda: doing.done() or is_waiting())
            return doing

        yield begin


def statuses(isolation, tenant):
    with isolation.transaction(tenant) as db:
        return [status for (status,) in db.execute("SELECT status FROM deliveries ORDER BY seq")]


@pytest.mark.parametrize("outcome", ["delivered", "put_off"])
def test_what_became_of_a_delivery_is_noted_while_it_is_replayed(
    isolation, told, place, waiting, beside, outcome
):
    note = {
        "delivered": partial(queue.delivered, now=told.now, took_ms=1, detail="200"),
        "put_off": partial(queue.put_off, now=told.now, took_ms=1, detail="500", until=9, last=True),
    }[outcome]
    with isolation.transaction(told.tenant) as db:
        queue.put_off(db, place, [1], told.now, 1, "500", told.now, last=False)
    with isolation.transaction(told.tenant) as db:
        db.execute(LOCK_REPLAYED)
        noting = beside(lambda db: note(db, place, [1]))
        queue.add_again(db, waiting, told.now)
    noting.result()
    settled = {"delivered": "delivered", "put_off": "failed"}[outcome]
    assert statuses(isolation, told.tenant) == [settled, "waiting", "waiting"]


def test_several_are_given_up_at_once_while_they_are_replayed(isolation, told, place, waiting, beside):
    def give_up(db):
        db.execute(BY_PLACE_IN_TABLE)
        queue.given_up(db, place, [1, 2, 3], told.now, 0, "gone")

    with isolation.transaction(told.tenant) as db:
        queue.add_again(db, waiting[:1], told.now)
        giving_up = beside(give_up)
        queue.add_again(db, waiting[1:], told.now)
    giving_up.result()
    assert statuses(isolation, told.tenant) == ["failed"] * 3


def test_what_is_replayed_just_now_is_not_forgotten_and_nobody_waits(isolation, told, place, waiting, beside):
    with isolation.transaction(told.tenant) as db:
        queue.delivered(db, place, [1, 2, 3], told.now, 1, "200")
    with isolation.transaction(told.tenant) as db:
        queue.add_again(db, waiting[:1], told.now)
        forgetting = beside(lambda db: queue.forget_old(db, told.now + 40 * 86_400_000_000))
        queue.add_again(db, waiting[1:], told.now)
    assert forgetting.result() == 2
    assert statuses(isolation, told.tenant) == ["waiting"] * 3
