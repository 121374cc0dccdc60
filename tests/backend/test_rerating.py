"""Re-rating jobs on a real log: shown, carried out, broken off, gone on with, and verified."""

import asyncio
import os
import resource
import time

import msgspec
import pytest
from fixtures_writer import NOON, call, charge, furnish, submit
from fixtures_writer_jobs import JOB, Killed, Product

from allotment.backend.rerating import begun
from allotment.backend.verifying import dump
from allotment.domain.rating_job import Scope
from allotment.domain.tariff import PublishTariff, Rate

DEARER = (
    Rate("voice", "uk", "0.10", 60, "+44", increment=60),
    Rate("voice", "any", "0.1", 60, ""),
    Rate("data", "any", "2", 10**9, increment=1024),
)
RECORDS = int(os.environ.get("ALLOTMENT_RERATED_RECORDS", "1000000"))


def totals(writer):
    money = writer.state.families["money", "2026-11"]
    return money.used[0], writer.state.charging.counts["charged"]


def test_a_job_does_what_its_preview_showed_and_twice_is_once(play):
    async def test(product, writer):
        await charge(writer, *(call(i, i % 10, 110) for i in range(450)))
        await charge(writer, *(call(f"d{i}", i % 3, usage_type="data", seconds=10**9) for i in range(5)))
        before = totals(writer)
        await submit(writer, PublishTariff("std", 0, "EUR", DEARER), "dearer")
        shown = product.shown()
        assert (shown.total.records, shown.looked_at) == (445, 455)
        assert totals(writer) == before
        await product.begin()
        outcome = await product.run()
        assert (outcome.differs, outcome.done.digest) == (0, shown.digest)
        assert outcome.done.total == shown.total
        assert totals(writer) == (before[0] + shown.total.difference, 455)
        assert not writer.state.rerating.jobs
        assert product.shown().total.records == 0

    play(test)


def test_a_job_that_was_killed_goes_on_and_changes_each_charge_once(play):
    async def test(product, writer):
        await charge(writer, *(call(i, i % 10, 110) for i in range(950)))
        await submit(writer, PublishTariff("std", 0, "EUR", DEARER), "dearer")
        shown = product.shown()
        await product.begin()
        with pytest.raises(Killed):
            await product.run(killed_after=2)
        (job,) = writer.state.rerating.jobs.values()
        changed = job.changed
        assert 0 < changed < shown.total.records
        outcome = await product.run(begun(job))
        assert outcome.done.total.records == shown.total.records - changed
        assert totals(writer)[0] == shown.total.amount

    play(test)


def test_usage_that_comes_meanwhile_is_rated_right_and_left_alone(play):
    async def test(product, writer):
        await charge(writer, *(call(i, i % 10, 110) for i in range(450)))
        await submit(writer, PublishTariff("std", 0, "EUR", DEARER), "dearer")
        await product.begin()
        await asyncio.gather(
            product.run(), charge(writer, *(call(f"live-{i}", i % 10, 110) for i in range(450)))
        )
        # Of 900 calls of two minutes five are covered by the allowance of 600 seconds.
        assert totals(writer) == (895 * 200_000, 900)
        assert product.shown().total.records == 0

    play(test)


def test_two_jobs_at_once_replace_no_charge_twice(play):
    async def test(product, writer):
        await charge(writer, *(call(i, i % 10, 110) for i in range(450)))
        await submit(writer, PublishTariff("std", 0, "EUR", DEARER), "dearer")
        other = msgspec.structs.replace(JOB, job="j-2")
        await product.begin()
        await product.begin(other)
        one, two = await asyncio.gather(product.run(), product.run(other))
        assert one.done.total.records + two.done.total.records == 445
        assert totals(writer) == (445 * 200_000, 450)

    play(test)


def test_a_scope_says_which_charges(play):
    async def test(product, writer):
        await charge(writer, *(call(i, i % 10, 110) for i in range(11)))
        await submit(writer, PublishTariff("std", 0, "EUR", DEARER), "dearer")
        for scope, records in (
            (Scope(), 6),
            (Scope(source="switch", record_id="call-9"), 1),
            (Scope(node="r0"), 1),
            (Scope(node="emea"), 6),
            (Scope(usage_type="data"), 0),
            (Scope(usage_type="voice", period="2026-11"), 6),
            (Scope(tariff=2), 6),
            (Scope(tariff=1), 0),
            (Scope(starts_at=NOON), 0),
            (Scope(ends_at=NOON), 6),
        ):
            assert product.shown(scope).total.records == records, scope

    play(test)


def test_who_was_erased_is_rated_by_the_prefix_that_is_stored(play):
    async def test(product, writer):
        await charge(writer, *(call(i, 0, 110) for i in range(11)))
        await submit(writer, PublishTariff("std", 0, "EUR", DEARER), "dearer")
        with product.store.isolation.transaction(product.store.tenant, "owner") as db:
            db.execute("DELETE FROM subject_keys")
        await product.begin()
        outcome = await product.run()
        assert outcome.done.total.records == 6
        assert all(example.by_zone for example in outcome.done.examples)

    play(test)


def test_the_views_of_a_seq_before_stay_as_they_were(postgres, play):
    before = {}

    async def test(product, writer):
        await charge(writer, *(call(i, i % 10, 110) for i in range(30)))
        await submit(writer, PublishTariff("std", 0, "EUR", DEARER), "dearer")
        before["seq"] = writer.seq
        before["dump"] = list(dump(postgres.isolation, postgres.tenant))
        await product.begin()
        await product.run()

    play(test)
    assert list(dump(postgres.isolation, postgres.tenant, before["seq"])) == before["dump"]


@pytest.mark.soak
def test_a_million_charges_are_rated_again(postgres):
    told = {}

    async def run():
        async with postgres.opened() as writer:
            await furnish(writer, voice=600)
            for first in range(0, RECORDS, 10_000):
                await charge(writer, *(call(i, i % 10, 110) for i in range(first, first + 10_000)))
            await submit(writer, PublishTariff("std", 0, "EUR", DEARER), "dearer")
            product = Product(postgres, writer)
            began = time.monotonic(), time.process_time()
            shown = product.shown()
            told["preview"] = time.monotonic() - began[0], time.process_time() - began[1]
            began = time.monotonic(), time.process_time()
            await product.begin()
            outcome = await product.run()
            told["job"] = time.monotonic() - began[0], time.process_time() - began[1]
            assert outcome.done.digest == shown.digest
            assert totals(writer) == ((RECORDS - 5) * 200_000, RECORDS)

    asyncio.run(run())
    for what, (seconds, cpu) in told.items():
        print(f"{what}: {RECORDS / seconds:,.0f} charges/s, {cpu / RECORDS * 1e6:.0f} us of CPU a charge")
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")
