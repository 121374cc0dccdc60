"""Rating jobs beside a writer, on a real log: begun, carried out, killed between two parts.

Found by `conftest.py` by its name.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from fixtures_writer import NOON, furnish

from allotment.backend.asking import Order
from allotment.backend.charges import state_at
from allotment.backend.rerating import Plan, carry_out, preview, start_key
from allotment.backend.snapshots import Snapshots
from allotment.backend.verifying import verify
from allotment.domain import canonical
from allotment.domain.rating_job import Scope, StartRating
from allotment.domain.rerated import RerateCharges

JOB = StartRating("j-1", Scope(), "tariff_corrected", "the price was wrong")


class Killed(Exception):
    """The process is gone."""


class Product:
    """A writer, and jobs beside it."""

    def __init__(self, store, writer):
        self.store, self.writer = store, writer
        self.commands = 0

    def state(self):
        with ThreadPoolExecutor(1) as executor:
            snapshots = Snapshots(self.store.isolation, self.store.tenant, executor)
            return state_at(self.store.log, snapshots, self.store.log.head().seq)

    def shown(self, scope=JOB.scope, *, now=NOON):
        upto = self.store.log.head().seq
        return preview(self.store.log, self.store.load_sealer(), self.state(), scope, now, upto=upto)

    def look(self):
        return self.store.log.head().seq, self.state()

    def upto(self, job):
        """Where a job begins."""
        return self.store.log.find([start_key(job.job)])[0].seq

    async def begin(self, job=JOB):
        await self.writer.carry_out(Order(job, start_key(job.job)), "carrier:u-1")

    async def run(self, job=JOB, *, killed_after=None, now=NOON, meanwhile=None):
        """`meanwhile`: what happens before each part is handed over."""
        about = (self.store.log, self.store.load_sealer(), self.state(), job)
        plan = Plan(*about, self.upto(job), now, self.store.log.head().seq, self.look)

        async def handed(command, key):
            if killed_after is not None and self.commands >= killed_after:
                raise Killed
            if meanwhile is not None and isinstance(command, RerateCharges):
                await meanwhile()
            self.commands += isinstance(command, RerateCharges)
            return await self.writer.carry_out(Order(command, key), "carrier:u-1")

        async def at_once(work):
            return work()

        return await carry_out(plan, job.job, handed, at_once)


@pytest.fixture
def play(postgres):
    """Runs a test beside an open writer."""

    def played(test, *, voice=600):
        async def run():
            async with postgres.opened() as writer:
                await furnish(writer, voice=voice)
                product = Product(postgres, writer)
                await test(product, writer)
                folded = product.state()
                assert list(canonical.lines(folded)) == list(canonical.lines(writer.state))

        asyncio.run(run())
        report = verify(postgres.isolation, postgres.tenant)
        assert report.ok, (report.first_offending_seq, report.problem)

    return played
