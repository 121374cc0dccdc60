"""Back-dated changes on a real log: jobs that are killed, charges in plans, lines that change hands."""

import random

import pytest
from fixtures_writer import NOON, SECOND, call, charge, line, submit
from fixtures_writer_jobs import Killed

from allotment.backend.asking import Order
from allotment.backend.log import recorded
from allotment.backend.rerated_chain import held_in
from allotment.backend.rerating import begun, preview, start_key
from allotment.domain.bucket import Allocate
from allotment.domain.correcting import (
    CorrectEnd,
    CorrectJoin,
    CorrectMerge,
    CorrectNodeMove,
    CorrectResumption,
    CorrectSuspension,
)
from allotment.domain.hierarchy import AddNode, EndResource
from allotment.domain.rating.plan import PricePlan, Tier
from allotment.domain.rating_job import Scope
from allotment.domain.tariff import PublishTariff, Rate
from allotment.tenants.onboarding import Enrol

HOUR = 3600 * SECOND
PHONE = "+443"
MONTH = "2026-11"
PLAN = PricePlan("minutes", "graduated", (Tier(3000, "0.10"), Tier(0, "0.05")))
PLANNED = PublishTariff(
    "std", 0, "EUR", (Rate("voice", "uk", "0", prefix="+44", plan="minutes"),), plans=(PLAN,)
)


def calls(count):
    """Out of order, of ten lines, within a day."""
    chance = random.Random(7)
    times = [NOON - chance.randint(60, 86_400) * SECOND for _ in range(count)]
    return [call(i, chance.randrange(10), chance.randint(1, 90), started_at=at) for i, at in enumerate(times)]


def naive(records):
    """In the order of use: what each record costs, and where the counter is in the end."""
    units, found = 0, {}
    for record in sorted(records, key=lambda one: one.started_at):
        dear = max(0, min(3000 - units, record.quantity))
        found[record.record_id] = dear * 100_000 + (record.quantity - dear) * 50_000
        units += record.quantity
    return found, {0: (units, sum(found.values()))}


def held(product):
    """By record: what it costs now."""
    told = (held_in(recorded(row)) for row in product.store.rows() if row.topic.startswith("usage."))
    return {one[1].record_id: one[1].amount for one in told if one is not None}


def counters(writer):
    return writer.state.plans.counters["minutes", MONTH]


async def date_back(product, command, **how):
    """As the engine does it: the command begins a job, which is carried out; what was shown before."""
    state, upto = product.state(), product.store.log.head().seq
    shown = preview(
        *(product.store.log, product.store.load_sealer(), state, Scope(), NOON), upto=upto, correction=command
    )
    await product.writer.carry_out(Order(command, start_key(command.job)), "carrier:u-1")
    try:
        outcome = await product.run(begun(product.writer.state.rerating.jobs[command.job]), **how)
    except Killed:
        outcome = await product.run(begun(product.writer.state.rerating.jobs[command.job]))
    return shown, outcome


def since(records, at, who=PHONE):
    return [one for one in records if one.line == who and one.started_at >= at]


@pytest.mark.parametrize("killed_after", [None, 1])
def test_what_is_taken_back_leaves_its_plan_and_comes_back_to_it(play, killed_after):
    async def test(product, writer):
        records, at = calls(320), NOON - 12 * HOUR
        await submit(writer, PLANNED, "planned")
        await charge(writer, *records)
        gone = since(records, at)
        assert len(gone) > 3
        shown, outcome = await date_back(
            product, CorrectSuspension("j-1", "r3", at), killed_after=killed_after
        )
        if killed_after is None:
            assert (outcome.differs, outcome.done.digest) == (0, shown.digest)
        amounts, counted = naive([one for one in records if one not in gone])
        assert held(product) == amounts | {one.record_id: 0 for one in gone}
        assert counters(writer) == counted
        assert writer.state.families["voice", MONTH].used[0] == sum(
            one.quantity for one in records if one not in gone
        )
        await date_back(product, CorrectResumption("j-2", "r3", at + SECOND), killed_after=killed_after)
        back = [one for one in records if one not in gone or one.started_at >= at + SECOND]
        amounts, counted = naive(back)
        assert (held(product), counters(writer)) == (amounts, counted)

    play(test, voice=0)


def test_a_subtree_that_stood_elsewhere_leaves_counters_killed_or_not(play):
    async def test(product, writer):
        records, at = calls(420), NOON - 12 * HOUR
        await submit(writer, AddNode("apac", "acme", "APAC", "division"), "apac")
        await charge(writer, *records)
        await date_back(product, CorrectNodeMove("j-1", "sales", "apac", at), killed_after=1)
        ids = writer.state.hierarchy.by_id
        used = writer.state.families["voice", MONTH].used
        billed = {True: 0, False: 0}
        for one in records:
            billed[one.started_at >= at] += -(-one.quantity // 60) * 60
        told = [used[ids[name].ordinal] for name in ("emea", "apac", "sales")]
        assert told == [billed[False], billed[True], billed[False] + billed[True]]

    play(test, voice=600)


def test_what_a_merged_node_held_pays_on_its_successor_killed_or_not(play):
    async def test(product, writer):
        records, at = calls(420), NOON - 12 * HOUR
        await submit(writer, AddNode("apac", "acme", "APAC", "division"), "apac")
        await submit(writer, Allocate("acme", "emea", "voice", MONTH, 100_000), "allocated")
        await charge(writer, *records)
        await date_back(product, CorrectMerge("j-1", "emea", "apac", at), killed_after=1)
        emea, apac = (writer.state.hierarchy.by_id[name].ordinal for name in ("emea", "apac"))
        family, billed = writer.state.families["voice", MONTH], {True: 0, False: 0}
        for one in records:
            billed[one.started_at >= at] += -(-one.quantity // 60) * 60
        assert (family.consumed[emea], family.consumed[apac]) == (billed[False], billed[True])
        assert (family.remaining[emea], family.remaining[apac]) == (0, 100_000 - sum(billed.values()))
        writer.state.check_whole()

    play(test, voice=200_000)


def test_a_line_that_changed_hands_earlier(play):
    async def test(product, writer):
        at = NOON - 3 * HOUR
        await charge(writer, *(call(f"r3-{i}", 3, started_at=NOON - i * HOUR) for i in range(1, 6)))
        await charge(writer, *(call(f"new-{i}", 42, started_at=NOON - i * HOUR) for i in range(1, 6)))
        await submit(writer, EndResource("r3", NOON - HOUR), "end")
        await submit(writer, AddNode("apac", "acme", "APAC", "division"), "apac")
        await submit(writer, Enrol("new", "apac", "msisdn", NOON - HOUR // 2, (line(3), line(42))), "new")
        shown, outcome = await date_back(product, CorrectJoin("j-1", "new", at))
        assert (shown.total.records, outcome.done.total.records) == (6, 6)
        ids, used = writer.state.hierarchy.by_id, writer.state.families["voice", MONTH].used
        assert [used[ids[name].ordinal] for name in ("r3", "sales", "new", "apac")] == [240, 240, 720, 720]
        assert len(writer.state.suspense.waiting) == 2
        # What was charged after its end was charged before that was told: who has the line pays now.
        await date_back(product, CorrectEnd("j-2", "new", NOON - 2 * HOUR))
        assert used[ids["new"].ordinal] == 240
        assert len(writer.state.suspense.waiting) == 2

    play(test, voice=600)
