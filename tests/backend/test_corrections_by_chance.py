"""Corrections of all kinds by chance, with jobs that end anywhere: what always holds, holds after each.

ALLOTMENT_CORRECTION_SEEDS names how many seeds the long form plays, from which on.
"""

import asyncio
import contextlib
import os
import random
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from fixtures_database import _address
from fixtures_writer import NOON, SECOND, Store, call, charge, furnish, line, submit
from fixtures_writer_jobs import JOB, Killed, Product
from msgspec.structs import replace

from allotment.backend import rerating
from allotment.backend.asking import Order
from allotment.backend.correcting import AmendRecord, RecycleRecord
from allotment.backend.log import PostgresLog, recorded
from allotment.backend.rerating import begun, start_key
from allotment.backend.seen import SeenKeys
from allotment.backend.snapshots import load
from allotment.backend.verifying import verify
from allotment.domain import canonical
from allotment.domain.charging import UsageSuspended
from allotment.domain.contract import Grant, SignContract
from allotment.domain.correcting import CorrectMove
from allotment.domain.rating.plan import PricePlan, Tier
from allotment.domain.rating_job import FinishRating, Scope, StartRating
from allotment.domain.refusals import Refused
from allotment.domain.suspense import waiting_id
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.terms import RollOverRule, Terms
from allotment.tenants.isolation import Isolation

PROGRAM = Path(__file__).with_name("faults") / "rating.py"
TESTS = Path(__file__).parents[1]
DAY = 86_400 * SECOND
FIRST_SEED, SEEDS = map(int, os.environ.get("ALLOTMENT_CORRECTION_SEEDS", "1000,100").split(","))
TIERS = (Tier(500, "0.20"), Tier(2000, "0.03", 1, "5"), Tier(0, "0.01"))
PLANS = (
    PricePlan("minutes", "graduated", TIERS),
    PricePlan("minutes", "graduated", (Tier(300, "0.11"), *TIERS[1:]), cap="120"),
    PricePlan("minutes", "package", (), 200, 60, "1.50", scope="resource"),
    PricePlan("minutes", "volume", TIERS, scope="node", of_kind="cost_centre", minimum="3"),
    PricePlan("other", "spend", cap="40", scope="resource"),
)


def tariff(chance):
    """For all usage since ever: what was charged by the one before is to be rated again."""
    plan = chance.choice([None, *PLANS])
    price = "0" if plan is not None and plan.kind != "spend" else chance.choice(["0.05", "0.30"])
    about = {"increment": chance.choice([1, 7, 60]), "plan": plan.plan if plan is not None else ""}
    uk = Rate("voice", "uk", price, 1, "+44", **about)
    rates = (uk, Rate("voice", "any", "0.1", 60, ""), Rate("data", "any", "2", 10**9, increment=1024))
    return PublishTariff("std", 0, "EUR", rates, plans=(plan,) if plan else ())


class World:
    """An enterprise, its records, and jobs that are broken off now and then."""

    def __init__(self, store, seed):
        self.store = store
        self.chance = random.Random(seed)
        self.now = NOON
        self.acts = 0
        self.records = 0
        self.wrong = []

    async def play(self, acts):
        async with self.store.opened(clock=lambda: self.now) as writer:
            self.writer, self.product = writer, Product(self.store, writer)
            await furnish(writer, voice=0)
            granted = (Grant("voice", self.chance.choice([0, 900])), Grant("data", 10**12))
            terms = Terms(rollover=(RollOverRule("voice", 1),))
            await submit(writer, SignContract("c", "1971-01-01", granted, True, terms), "terms")
            for _ in range(acts):
                await self.chance.choices(
                    (self.use, self.correct_tariff, self.rerate, self.amend, self.move, self.time_passes),
                    (5, 2, 5, 1, 1, 0.4),
                )[0]()
                writer.state.check_whole()
            await self.end()

    async def use(self):
        for _ in range(self.chance.randint(1, 3)):
            self.records += 1
            who = self.chance.choice([*range(4), *range(4), 99])
            began = self.now - self.chance.randint(60, 20 * 86_400) * SECOND
            record = call(self.records, who, self.chance.randint(1, 200), started_at=began)
            (outcome,) = await charge(self.writer, record)
            if outcome.status == "suspended":
                self.wrong.append((outcome.seq, record))

    async def correct_tariff(self):
        await self.do(tariff(self.chance))

    async def rerate(self):
        """Begin a job or go on with one; it may end anywhere, or be stopped by somebody."""
        jobs = self.writer.state.rerating.jobs
        if jobs and self.chance.random() < 0.2:
            await self.do(FinishRating(self.chance.choice([*jobs]), 0, 0, stopped=True))
        if not jobs:
            scope = self.chance.choice(
                [
                    Scope(),
                    Scope(),
                    Scope(node=f"r{self.chance.randrange(4)}"),
                    Scope(period="2026-11"),
                    Scope(source="switch", record_id=f"call-{self.chance.randint(1, self.records + 1)}"),
                    Scope(period="2026-11", in_order=True),
                ]
            )
            with contextlib.suppress(Refused):
                await self.product.begin(StartRating(f"j-{self.acts}", scope, "tariff_corrected"))
            self.acts += 1
        await self.go_on(killed_after=self.chance.choice([0, 1, 2, 3, None]))

    async def go_on(self, killed_after=None):
        for job in list(self.writer.state.rerating.jobs.values()):
            upto = None if killed_after is None else self.product.commands + killed_after
            meanwhile = self.use if self.chance.random() < 0.3 else None
            with contextlib.suppress(Killed):
                await self.product.run(begun(job), now=self.now, killed_after=upto, meanwhile=meanwhile)

    async def amend(self):
        """Whose line was wrong: corrected, and decided again."""
        if not self.wrong:
            return
        seq, record = self.wrong.pop(self.chance.randrange(len(self.wrong)))
        event = recorded(self.store.log.read(seq - 1, 1)[0]).event
        assert isinstance(event, UsageSuspended)
        right = replace(record, line=line(self.chance.randrange(4)))
        waiting, revisions = waiting_id(event), self.writer.state.suspense.waiting
        await self.do(AmendRecord(waiting, revisions[waiting], right, ("line",), "a slip"))
        await self.do(RecycleRecord(waiting, revisions[waiting], right))

    async def move(self):
        to, since = self.chance.choice(["emea", "sales", "acme"]), self.now - self.chance.randint(1, 15) * DAY
        self.acts += 1
        if not self.writer.state.rerating.jobs:
            moved = CorrectMove(f"j-{self.acts}", f"r{self.chance.randrange(4)}", to, since)
            with contextlib.suppress(Refused):
                await self.writer.carry_out(Order(moved, start_key(moved.job)), "carrier:test")

    async def time_passes(self):
        """Periods end and are settled."""
        self.now += self.chance.choice([1, 20]) * DAY
        for command in list(self.writer.state.due(self.now)):
            await self.do(command)

    async def do(self, command):
        self.acts += 1
        with contextlib.suppress(Refused):
            await submit(self.writer, command, f"act {self.acts}")

    async def end(self):
        await self.go_on()
        assert not self.writer.state.rerating.jobs
        job = StartRating("last", Scope(), "requested")
        await self.product.begin(job)
        await self.product.run(job, now=self.now)
        assert self.product.shown(now=self.now).total.records == 0
        assert list(canonical.lines(self.product.state())) == list(canonical.lines(self.writer.state))


def play(store, seed, acts, monkeypatch):
    print(f"seed {seed}")
    monkeypatch.setattr(rerating, "PART_MAX", 3)
    asyncio.run(World(store, seed).play(acts))
    report = verify(store.isolation, store.tenant)
    assert report.ok, (report.first_offending_seq, report.problem)


@pytest.mark.parametrize("seed", [1, 2])
def test_corrections_of_all_kinds_leave_what_always_holds(postgres, seed, monkeypatch):
    play(postgres, seed, 30, monkeypatch)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
def test_so_do_many_more_of_them(postgres, seed, monkeypatch):
    play(postgres, seed, 150, monkeypatch)


# --- killed ------------------------------------------------------------------------------------------


def test_a_process_killed_while_it_rates_again_ends_with_what_another_has(database):
    _kill_and_compare(database, seed=1, records=60, kills=1)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + max(1, SEEDS // 10)))
def test_so_does_one_that_is_killed_often(database, seed):
    _kill_and_compare(database, seed, records=2_000, kills=8)


def _kill_and_compare(database, seed, records, kills):
    """The same database twice: in one of them the job runs undisturbed, in the other it is killed."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    tenant = asyncio.run(_begun(database, chance, records))
    name = f"copy_{uuid4().hex}"
    with psycopg.connect(_address(database, "postgres"), autocommit=True) as server:
        source = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
        server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}"')
    part = max(8, records // 30)
    for _ in range(kills):
        _rate(database, tenant, part, killed_after=chance.randint(1, 3))
    _rate(database, tenant, part)
    asyncio.run(_undisturbed(_address(database, name), tenant))
    assert _state(database, tenant) == _state(_address(database, name), tenant)
    with psycopg.connect(_address(database, "postgres"), autocommit=True) as server:
        server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


async def _begun(database, chance, records):
    isolation = Isolation(database)
    store = Store(isolation)
    async with store.opened() as writer:
        await furnish(writer, voice=900)
        plan = PLANS[1]
        rates = (Rate("voice", "uk", "0", prefix="+44", plan="minutes"), Rate("voice", "any", "0.1", 60, ""))
        await submit(writer, PublishTariff("std", 0, "EUR", rates, plans=(PLANS[0],)), "planned")
        began = [NOON - chance.randint(60, 86_400) * SECOND for _ in range(records)]
        calls = (call(n, n % 9, chance.randint(1, 90), started_at=at) for n, at in enumerate(began))
        await charge(writer, *calls)
        rates = (Rate("voice", "uk", "0", prefix="+44", increment=7, plan="minutes"), *rates[1:])
        await submit(writer, PublishTariff("std", 0, "EUR", rates, plans=(plan,)), "corrected")
        await Product(store, writer).begin(JOB)
    isolation.close()
    return store.tenant


async def _undisturbed(database, tenant):
    isolation = Isolation(database)
    store = Store(isolation)
    store.tenant, store.log = tenant, PostgresLog(isolation, tenant)
    async with store.opened() as writer:
        await Product(store, writer).run(JOB)
    isolation.close()


def _rate(database, tenant, part, killed_after=None):
    """In a process of its own, to its end or until it has said so often that a part is done."""
    asked = [sys.executable, str(PROGRAM), database, str(tenant), str(NOON), str(part)]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for said, told in enumerate(process.stdout, 1):
            if told == "done\n":
                return
            if said == killed_after:
                process.kill()
                return
        raise AssertionError("it ended by itself")


def _state(database, tenant):
    """The canonical state; and all of it holds."""
    isolation = Isolation(database)
    try:
        report = verify(isolation, tenant)
        assert report.ok, (report.first_offending_seq, report.problem)
        log = PostgresLog(isolation, tenant, role="auditor")
        state = load(log, log.head(), SeenKeys).state
        assert not state.rerating.jobs
        return list(canonical.lines(state))
    finally:
        isolation.close()
