"""A server whose disk is slow, full, or fails, or whose clock jumps: real PostgreSQL behind a shim.

While there is no room nothing is acknowledged, and nobody waits for ever; once there is room again
everything goes on by itself. A server that ends is started again, as an init system would.
"""

import asyncio
import os
import random
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from backend.faults.disk import IO_ERROR, NO_SPACE, Shim
from backend.faults.scene import Charging, charged_ids, furnished, judge, placed, until, verified
from fixtures_writer import ROOT, call, statuses

from allotment.backend import writer as writing
from allotment.backend.engine import Engine
from allotment.backend.writer import Unavailable
from allotment.tenants.isolation import Isolation

SEED = 20_261_123
RESTS_SECONDS = 0.05


@pytest.fixture(scope="module")
def shim():
    folder = Path(tempfile.mkdtemp(prefix="allotment-shim-", dir="/tmp"))
    opened = Shim(folder)
    yield opened
    opened.close()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def bad_disk(shim):
    """One server for all tests of this module: each has a tenant of its own."""
    home = Path(tempfile.mkdtemp(prefix="allotment-home-", dir="/tmp"))
    with placed(home, shim.environment) as opened:
        yield opened
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def place(bad_disk, shim):
    shim.heal()
    yield bad_disk
    shim.heal()
    if not bad_disk.runs:
        bad_disk.restart()


def test_on_a_slow_disk_groups_grow_and_nobody_is_turned_away(place, shim):
    """2 to 20 ms for each sync: callers share commits, so they wait for a few syncs and no more."""
    tenant = furnished(place.url)
    shim.set(sync_us_min=2_000, sync_us_max=20_000)
    isolation = Isolation(place.url)
    try:
        waited = asyncio.run(_many_callers(isolation, tenant, callers=100, each=5))
        waited.sort()
        print(f"ack p50 {waited[250] * 1e3:.0f} ms, p99 {waited[494] * 1e3:.0f} ms")
        assert waited[494] < 1.5
        assert len(charged_ids(isolation, tenant)) == 500
        verified(isolation, tenant)
    finally:
        isolation.close()


async def _many_callers(isolation, tenant, *, callers, each):
    """How long each record waited for its answer."""
    waited = []

    async def caller(number, engine):
        for turn in range(each):
            asked = time.monotonic()
            outcomes = await engine.charge(
                tenant, [call(number * each + turn, number % 10)], "mediation:slow"
            )
            waited.append(time.monotonic() - asked)
            assert statuses(outcomes) == ["charged"]

    async with Engine(isolation, ROOT, following=False) as engine:
        await engine.writer(tenant)
        await asyncio.gather(*(caller(number, engine) for number in range(callers)))
    return waited


def test_without_room_for_rows_callers_are_told_and_all_goes_on_with_room(place, shim, monkeypatch):
    """A table cannot grow: PostgreSQL gives the transaction up and lives on."""
    monkeypatch.setattr(writing, "RECOVERY_SECONDS_MAX", 0.5)
    tenant = furnished(place.url)
    isolation = Isolation(place.url)
    try:
        asyncio.run(_fill_up(isolation, tenant, shim))
        verified(isolation, tenant)
    finally:
        isolation.close()


async def _fill_up(isolation, tenant, shim):
    told = []

    async def send(number):
        numbers = range(number * 500, number * 500 + 500)
        outcomes = await engine.charge(tenant, [call(one, one % 10) for one in numbers], "mediation:full")
        told.extend(f"call-{one}" for one in numbers)
        return outcomes

    async with Engine(isolation, ROOT) as engine:
        await send(0)
        shim.set(heap_errno=NO_SPACE)
        number = await _send_until_refused(send)
        waiting = asyncio.create_task(send(number))
        state = await engine.state(tenant)
        assert state.hierarchy.members, "it can be read while nothing can be stored"
        shim.heal()
        # Sent again, and some of it may have been stored after all: nothing is charged twice.
        assert set(statuses(await waiting)) <= {"charged", "duplicate"}
        assert set(statuses(await send(100))) == {"charged"}
    stored = charged_ids(isolation, tenant)
    assert len(stored) == len(set(stored)) == len(told)
    assert set(told) == set(stored)


async def _send_until_refused(send):
    """The batch that was: PostgreSQL makes tables longer beforehand, so some room may be left."""
    for number in range(1, 30):
        try:
            await send(number)
        except Unavailable:
            return number
    raise AssertionError("it found room for everything")


NO_WAL = {"wal_errno": NO_SPACE}
NO_ROWS = {"heap_errno": NO_SPACE}
A_SYNC_FAILS = {"sync_errno": IO_ERROR, "sync_errors": 1}


@pytest.mark.parametrize("fault", [NO_WAL, A_SYNC_FAILS], ids=["no room for the WAL", "a sync fails"])
def test_a_server_that_panics_for_its_disk_comes_back_and_nothing_is_lost(fault, place, shim):
    """PostgreSQL must give up its memory when its WAL is not on the disk, and recovers by itself."""
    _panic_and_judge([fault], place, shim, SEED)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(SEED + 1, SEED + 4))
def test_a_disk_that_fails_again_and_again_loses_nothing(place, shim, seed):
    faults = random.Random(seed).choices([NO_WAL, NO_ROWS, A_SYNC_FAILS], k=20)
    _panic_and_judge(faults, place, shim, seed)


def _panic_and_judge(faults, place, shim, seed):
    print(f"seed {seed}")
    draw = random.Random(seed)
    tenant = furnished(place.url)
    charging = Charging(place.url, tenant, 0, RESTS_SECONDS)
    try:
        for fault in faults:
            charging.wait_for(100)
            time.sleep(draw.uniform(0, 0.3))
            shim.set(**fault)
            until(lambda: shim.hits)
            time.sleep(draw.uniform(0, 1))
            shim.heal()
            if not place.runs:
                place.restart()
            print(fault, "back after", charging.wait_for(100, seconds=60))
    finally:
        charging.kill()
        shim.heal()
    judge(place.url, tenant, charging.acknowledged)


def test_a_day_more_or_less_on_the_servers_clock_holds_up_nobody(place, shim):
    print(f"seed {SEED}")
    tenant = furnished(place.url)
    charging = Charging(place.url, tenant, 0, RESTS_SECONDS)
    try:
        for days in (1, 0, -1, 0):
            charging.wait_for(200)
            shim.set(clock_seconds=days * 86_400)
        charging.wait_for(200)
    finally:
        charging.kill()
    judge(place.url, tenant, charging.acknowledged)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_really_fills_up_and_is_cleared_loses_nothing():
    print(f"seed {SEED}")
    with _small_disk(megabytes=420) as folder, placed(folder / "home") as place:
        tenant = furnished(place.url)
        charging = Charging(place.url, tenant, 0, RESTS_SECONDS)
        filler = folder / "filler"
        try:
            for _ in range(3):
                charging.wait_for(200)
                _fill(filler)
                time.sleep(8)
                told = len(charging.acknowledged)
                time.sleep(2)
                print(
                    "acknowledged while full:", len(charging.acknowledged) - told, "server runs:", place.runs
                )
                filler.unlink()
                if not place.runs:
                    place.restart()
                charging.wait_for(200, seconds=60)
        finally:
            charging.kill()
        judge(place.url, tenant, charging.acknowledged)


def _fill(filler):
    with suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))


class _small_disk:  # noqa: N801  (used like a function)
    def __init__(self, megabytes):
        self.folder = Path(tempfile.mkdtemp(prefix="allotment-small-", dir="/tmp"))
        options = f"size={megabytes}m,mode=755"
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", self.folder],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            self.folder.rmdir()
            pytest.skip(f"no small disk can be mounted here: {made.stderr.strip()}")

    def __enter__(self):
        return self.folder

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", self.folder], check=True)
        self.folder.rmdir()
