"""Tallies are told to whoever can be told, and hold up neither each other nor who stops."""

import asyncio
from uuid import uuid4

import pytest
from fixtures_loop import in_a_loop
from fixtures_writer import NOON, ROOT, Store, call, in_time

from allotment.backend.engine import Engine
from allotment.backend.intake import tallying
from allotment.backend.intake.door import IntakeReport
from allotment.backend.intake.tallying import Tallies
from allotment.backend.writer import Unavailable
from allotment.domain.receiving import Tally

DUPLICATES = IntakeReport(duplicate=3, sources={"switch": Tally(duplicate=3)})
GOOD, BROKEN, AWAY, SILENT = (uuid4() for _ in range(4))


class Tenants:
    """Stands for the engine: what each of them says to whoever tells it something."""

    def __init__(self):
        self.told, self.mended = [], False
        self.at_once = self.at_once_max = 0

    async def carry_out(self, tenant, order, actor):
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            await asyncio.sleep(0)
            if not self.mended:
                await self._trouble(tenant)
            self.told.append((tenant, order.key))
        finally:
            self.at_once -= 1

    async def _trouble(self, tenant):
        if tenant == BROKEN:
            raise RuntimeError("our own mistake")
        if tenant == AWAY:
            raise Unavailable("no way there")
        if tenant == SILENT:
            await asyncio.Event().wait()


@pytest.fixture
def tenants():
    return Tenants()


@pytest.fixture
def tallies(tenants):
    return Tallies(tenants)


@in_a_loop
async def test_a_tenant_that_cannot_be_told_holds_up_neither_the_others_nor_who_stops(
    tenants, tallies, monkeypatch
):
    monkeypatch.setattr(tallying, "STOP_SECONDS_MAX", 0.1)
    for tenant in (BROKEN, AWAY, SILENT, GOOD):
        tallies.add(tenant, "http", DUPLICATES)
    await asyncio.wait_for(tallies.stop(), 10)
    assert [tenant for tenant, _ in tenants.told] == [GOOD]


@in_a_loop
async def test_what_was_not_told_is_told_the_next_time_once(tenants, tallies):
    for tenant in (BROKEN, AWAY, GOOD):
        tallies.add(tenant, "http", DUPLICATES)
    await tallies.flush()
    tenants.mended = True
    await tallies.flush()
    await tallies.flush()
    assert sorted(tenant for tenant, _ in tenants.told) == sorted([GOOD, BROKEN, AWAY])


@in_a_loop
async def test_what_is_broken_off_is_told_the_next_time_under_the_same_key(tenants, tallies):
    tallies.add(SILENT, "http", DUPLICATES)
    (_, tally), *_ = tallies._open.items()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(tallies.flush(), 0.05)
    tenants.mended = True
    await tallies.flush()
    assert tenants.told == [(SILENT, tally.key)]


@in_a_loop
async def test_only_so_many_are_told_at_once(tenants, tallies, monkeypatch):
    monkeypatch.setattr(tallying, "TOLD_AT_ONCE", 2)
    for _ in range(5):
        tallies.add(uuid4(), "http", DUPLICATES)
    await tallies.flush()
    assert (len(tenants.told), tenants.at_once_max) == (5, 2)


@in_a_loop
async def test_writers_are_closed_whatever_becomes_of_the_duplicates(isolation, monkeypatch):
    monkeypatch.setattr(tallying, "STOP_SECONDS_MAX", 0.1)
    store = Store(isolation)
    async with Engine(isolation, ROOT, clock=lambda: NOON, following=False) as engine:
        writer = await engine.writer(store.tenant)
        for tenant in (BROKEN, SILENT):
            engine.tallies.add(tenant, "http", DUPLICATES)
        monkeypatch.setattr(engine, "carry_out", Tenants().carry_out)
    with pytest.raises(Unavailable):
        await in_time(writer.submit_usage([call(1)], "m"))
