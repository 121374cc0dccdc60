"""Leases on real PostgreSQL: who gets one, and that nobody waits for somebody who waits for him."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import uuid4

import pytest

from allotment.backend import leases
from allotment.backend.leases import Leases, NotAlive

LONG_SECONDS = 60.0


@pytest.fixture
def worker(isolation):
    def lives(seconds=LONG_SECONDS):
        mine, one = uuid4(), None
        one = Leases(isolation, mine, seconds)
        one.beat(takes_tenants=True)
        return mine, one

    return lives


def test_a_lease_is_the_first_takers_until_it_is_released(worker):
    (first, one), (second, another) = worker(), worker()
    tenant = uuid4()
    assert one.take(tenant) == another.take(tenant) == one.take(tenant) == first
    one.release(tenant)
    assert another.take(tenant) == one.take(tenant) == second


def test_a_lease_of_the_dead_is_taken_and_what_is_given_is_the_others(worker):
    (_, dead), (mine, one), (other, _) = worker(0.0), worker(), worker()
    tenant = uuid4()
    with pytest.raises(NotAlive):
        dead.take(tenant)
    assert dead.holder(tenant) is None
    assert one.of([mine]) == set()
    assert one.take(tenant) == mine
    one.give(tenant, other)
    assert one.take(tenant) == other


def test_who_leaves_frees_all_and_who_is_long_gone_is_forgotten(worker, monkeypatch):
    (_, one), (dead, _), (mine, another) = worker(), worker(0.0), worker()
    tenant = uuid4()
    one.take(tenant)
    one.leave()
    assert {seen.worker_id for seen in another.beat(takes_tenants=True)} == {dead, mine}
    assert another.take(tenant) == mine
    another.forget_the_dead()
    assert {seen.worker_id for seen in another.beat(takes_tenants=True)} == {dead, mine}
    monkeypatch.setattr(leases, "FORGOTTEN_AFTER_SECONDS", 0)
    another.forget_the_dead()
    assert {seen.worker_id for seen in another.beat(takes_tenants=True)} == {mine}


def test_who_leaves_frees_also_what_was_being_taken_for_him_meanwhile(isolation, worker):
    (mine, one), (_, another) = worker(), worker()
    tenant = uuid4()
    with ThreadPoolExecutor(1) as threads, isolation.connection("placement") as taking:
        with taking.transaction():
            taking.execute("SELECT take_lease(%s, %s)", (tenant, mine))
            leaving = threads.submit(one.leave)
            while not taking.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
                time.sleep(0.01)
        leaving.result()
        left = taking.execute("SELECT count(*) FROM leases WHERE tenant_id = %s", (tenant,)).fetchone()
    assert left == (0,)
    assert another.holder(tenant) is None


def test_workers_that_come_and_go_over_the_same_tenants_never_wait_for_each_other(isolation, monkeypatch):
    """Four workers of three threads each, in whatever order: a deadlock is an error of one that is in it."""
    monkeypatch.setattr(leases, "FORGOTTEN_AFTER_SECONDS", 0)
    known, tenants = [uuid4() for _ in range(4)], [uuid4() for _ in range(2)]
    ends = time.monotonic() + 4.0

    def live(seed):
        chance, mine = random.Random(seed), known[seed % len(known)]
        while time.monotonic() < ends:
            one = Leases(isolation, mine, chance.choice((0.02, 5.0)))
            one.beat(takes_tenants=True)
            for _ in range(chance.randrange(60)):
                do_any(one, chance, tenants, known)
            if chance.random() < 0.5:
                one.leave()

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(live, range(12)))


def do_any(one, chance, tenants, workers):
    tenant = chance.choice(tenants)
    match chance.choice(("take", "take", "take", "beat", "beat", "release", "release", "give", "forget")):
        case "take":
            with suppress(NotAlive):
                one.take(tenant)
        case "beat":
            one.beat(takes_tenants=True)
        case "release":
            one.release(tenant)
        case "give":
            one.give(tenant, chance.choice(workers))
        case "forget":
            one.forget_the_dead()
