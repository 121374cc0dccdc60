"""A clock that jumps by a day: no charge depends on it, and time never runs back along a log."""

import random
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from backend.faults.disk import Shim
from backend.faults.scene import Charging, furnished, judge, verified
from fixtures_loop import in_a_loop
from fixtures_writer import NOON, ROOT, SECOND, Store, call, furnish, statuses

from allotment.backend.engine import Engine
from allotment.backend.log import PostgresLog
from allotment.domain.bucket import Allocate
from allotment.domain.limit import SetLimit
from allotment.domain.refusals import Refused
from allotment.tenants.isolation import Isolation

SEED = 20_261_125
DAY = 86_400 * SECOND
MONTHS_END = NOON + 15 * DAY + 11 * 3_600 * SECOND
"""2026-11-30 23:00 UTC: the month ends in Berlin."""
STEP = 60 * SECOND


@in_a_loop
async def test_a_jumping_clock_changes_no_charge_and_time_in_the_log_never_runs_back(isolation):
    await _jump_and_compare(isolation, SEED, steps=120)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(SEED + 1, SEED + 11))
@in_a_loop
async def test_a_clock_that_jumps_in_other_ways_changes_no_charge_either(isolation, seed):
    await _jump_and_compare(isolation, seed, steps=400)


async def _jump_and_compare(isolation, seed, steps):
    """The same two hours over the end of a month, under a clock that is right and one that jumps."""
    print(f"seed {seed}")
    draw = random.Random(seed)
    jumps = [draw.choice([0] * 6 + [DAY, -DAY]) for _ in range(steps)]
    right, jumping = Store(isolation), Store(isolation)
    for store, wrong in ((right, [0] * steps), (jumping, jumps)):
        await _live_through(isolation, store, wrong)
        times = [row.recorded_at for row in store.rows()]
        assert times == sorted(times)
        verified(isolation, store.tenant)
    assert [_told(charge) for charge in jumping.charges()] == [_told(charge) for charge in right.charges()]
    assert any(charge.overage for charge in right.charges())
    assert {charge.period for charge in right.charges()} == {"2026-11", "2026-12"}


async def _live_through(isolation, store, wrong):
    now = [MONTHS_END - len(wrong) // 2 * STEP]
    async with Engine(isolation, ROOT, clock=lambda: now[0], following=False) as engine:
        await furnish(await engine.writer(store.tenant), voice=75 * len(wrong))
        for number, jump in enumerate(wrong[: len(wrong) // 2]):
            await _step(engine, store.tenant, now, number, jump, len(wrong))
    async with Engine(isolation, ROOT, clock=lambda: now[0], following=False) as engine:
        for number, jump in enumerate(wrong[len(wrong) // 2 :], len(wrong) // 2):
            await _step(engine, store.tenant, now, number, jump, len(wrong))


async def _step(engine, tenant, now, number, jump, steps):
    """A call that ended just now, and now and then a command; all of it while the clock is wrong."""
    at = MONTHS_END + (number - steps // 2) * STEP
    now[0] = at + jump
    records = [call(number, number % 10, 61 + number, started_at=at - 30 * SECOND)]
    assert statuses(await engine.charge(tenant, records, "mediation:clock")) == ["charged"]
    if number % 20 == 0:
        period = "2026-11" if number < steps // 2 else "2026-12"
        allocate = Allocate("acme", "emea", "voice", period, 10)
        with suppress(Refused):  # towards the end there is nothing left
            await engine.submit(tenant, allocate, f"allocate {number}", "carrier:test")
        limit = SetLimit("sales", "voice", 10**6 + number)
        await engine.submit(tenant, limit, f"limit {number}", "carrier:test")


def _told(charge):
    return (charge.record_id, charge.period, charge.billed, charge.drawn, charge.amount)


@pytest.fixture
def shim():
    folder = Path(tempfile.mkdtemp(prefix="allotment-shim-", dir="/tmp"))
    opened = Shim(folder)
    yield opened
    opened.close()
    shutil.rmtree(folder)


def test_a_process_whose_clock_jumps_goes_on_charging(database, shim):
    """The clock of the operating system, under a running process: nothing in it waits for that clock."""
    print(f"seed {SEED}")
    tenant = furnished(database)
    charging = Charging(database, tenant, 0, 0.05, **shim.environment)
    try:
        for days in (1, 0, -1, 0):
            charging.wait_for(200)
            shim.set(clock_seconds=days * 86_400)
        charging.wait_for(200)
    finally:
        charging.kill()
    judge(database, tenant, charging.acknowledged)
    isolation = Isolation(database)
    store = Store.__new__(Store)
    try:
        store.log = PostgresLog(isolation, tenant)
        times = [row.recorded_at for row in store.rows()]
        assert times == sorted(times)
        assert times[-1] - times[0] > DAY // 2
    finally:
        isolation.close()
