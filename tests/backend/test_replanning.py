"""Rating jobs over charges that count in plans: on a real log, with usage that comes meanwhile."""

import random
from fractions import Fraction

import pytest
from fixtures_writer import NOON, SECOND, call, charge, submit
from fixtures_writer_jobs import JOB, Killed
from msgspec.structs import replace

from allotment.backend.log import recorded
from allotment.backend.rerated_chain import held_in
from allotment.backend.rerating import begun
from allotment.domain.rating.plan import PricePlan, Tier
from allotment.domain.rating_job import FinishRating, Scope
from allotment.domain.tariff import PublishTariff, Rate

M = 1_000_000
WAS = PricePlan("minutes", "graduated", (Tier(3000, "0.10"), Tier(0, "0.05")))
IS = PricePlan(
    "minutes", "graduated", (Tier(1000, "0.20"), Tier(4000, "0.03", 1, "5"), Tier(0, "0.01")), cap="900"
)


def planned(plan, increment=1):
    rates = (
        Rate("voice", "uk", "0", prefix="+44", increment=increment, plan="minutes"),
        Rate("voice", "any", "0.1", 60, ""),
        Rate("data", "any", "2", 10**9, increment=1024),
    )
    return PublishTariff("std", 0, "EUR", rates, plans=(plan,))


def calls(name, count, seed=7):
    """Out of order, of some lines, each of a length of its own."""
    chance = random.Random(f"{seed} {name}")
    return [
        call(
            f"{name}-{number}",
            chance.randrange(10),
            chance.randint(1, 90),
            started_at=NOON - chance.randint(60, 86_400) * SECOND,
        )
        for number in range(count)
    ]


def naive(records, plan, increment):
    """Unit by unit, in the order of use: what each record costs."""
    units = spent = 0
    found = {}
    for record in sorted(records, key=lambda one: one.started_at):
        cost = Fraction()
        for _ in range(-(-record.quantity // increment) * increment):
            units += 1
            begins = 1
            for tier in plan.tiers:
                if not tier.upto or units <= tier.upto:
                    cost += Fraction(tier.price) * M + (Fraction(tier.fee) * M if units == begins else 0)
                    break
                begins = tier.upto + 1
        if plan.cap:
            cost = min(cost, max(Fraction(plan.cap) * M - spent, Fraction()))
        assert cost % 100 == 0
        found[record.record_id] = int(cost)
        spent += int(cost)
    return found, {0: (units, spent)}


def held(product):
    """By record: what it costs now."""
    found = {}
    for row in product.store.rows():
        told = recorded(row)
        charge = held_in(told)
        if charge is not None:
            found[charge[1].record_id] = charge[1].amount
    return found


def counters(writer):
    return writer.state.plans.counters["minutes", "2026-11"]


def check(product, writer, records, plan, increment=1):
    amounts, counted = naive(records, plan, increment)
    assert held(product) == amounts
    assert counters(writer) == counted


def test_a_job_counts_a_plan_again_as_its_preview_showed(play):
    async def test(product, writer):
        records = calls("c", 320)
        await submit(writer, planned(WAS), "planned")
        await charge(writer, *records)
        assert product.shown().total.records == 0
        await submit(writer, planned(IS), "corrected")
        shown = product.shown()
        await product.begin()
        outcome = await product.run()
        assert (outcome.differs, outcome.done.digest) == (0, shown.digest)
        check(product, writer, records, IS)
        assert product.shown().total.records == 0

    play(test, voice=0)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_job_that_was_killed_counts_on(play, parts):
    async def test(product, writer):
        records = calls("c", 500)
        await submit(writer, planned(WAS), "planned")
        await charge(writer, *records)
        await submit(writer, planned(IS, 7), "corrected")
        await product.begin()
        with pytest.raises(Killed):
            await product.run(killed_after=parts)
        late = calls("late", 20)
        await charge(writer, *late)
        (job,) = writer.state.rerating.jobs.values()
        await product.run(begun(job))
        check(product, writer, [*records, *late], IS, 7)

    play(test, voice=0)


def test_what_comes_while_a_job_runs_ends_in_its_place(play):
    async def test(product, writer):
        records = calls("c", 450)
        await submit(writer, planned(WAS), "planned")
        await charge(writer, *records)
        await submit(writer, planned(IS, 7), "corrected")
        await product.begin()
        live = calls("live", 60)

        async def meanwhile():
            await charge(writer, *(live.pop() for _ in range(min(20, len(live)))))

        await product.run(meanwhile=meanwhile)
        assert not live
        check(product, writer, [*records, *calls("live", 60)], IS, 7)

    play(test, voice=0)


def test_one_record_that_changes_moves_the_others_and_nothing_else(play):
    async def test(product, writer):
        records = sorted(calls("c", 60), key=lambda one: one.started_at)
        await submit(writer, planned(WAS), "planned")
        await charge(writer, *records)
        await submit(writer, planned(replace(WAS, tiers=(Tier(10, "0.30"), *WAS.tiers[1:]))), "corrected")
        job = replace(JOB, scope=Scope(source="switch", record_id=records[0].record_id))
        await product.begin(job)
        outcome = await product.run(job)
        assert outcome.done.total.records == 1

    play(test, voice=0)


def test_a_job_that_was_stopped_is_gone_on_with_by_the_next(play):
    async def test(product, writer):
        records = calls("c", 500)
        await submit(writer, planned(WAS), "planned")
        await charge(writer, *records)
        await submit(writer, planned(IS), "corrected")
        await product.begin()
        with pytest.raises(Killed):
            await product.run(killed_after=1)
        await submit(writer, FinishRating("j-1", 0, 0, stopped=True), "stopped")
        other = replace(JOB, job="j-2")
        await product.begin(other)
        await product.run(other)
        check(product, writer, records, IS)

    play(test, voice=0)


def test_allowance_in_order_brings_the_plan_in_order(postgres, play):
    async def test(product, writer):
        records = calls("c", 120)
        await submit(writer, planned(IS), "planned")
        await charge(writer, *records)
        job = replace(JOB, scope=Scope(period="2026-11", in_order=True))
        await product.begin(job)
        await product.run(job)
        # The first 600 seconds are those used first; the rest is as if the plan began there.
        left, paid = 600, []
        for record in sorted(records, key=lambda one: one.started_at):
            covered = min(left, record.quantity)
            left -= covered
            paid.append(replace(record, quantity=record.quantity - covered))
        check(product, writer, paid, IS)

    play(test)
