"""The writer: in groups, once, answered after the commit, whatever happens to the connection."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
import psycopg
import pytest
from backend.faults.proxy import Proxy
from fixtures_loop import in_a_loop
from fixtures_writer import (
    NOON,
    RATES,
    ROOT,
    SECOND,
    Store,
    Through,
    call,
    charge,
    furnish,
    in_time,
    statuses,
    submit,
    unreadable,
)
from patience import PATIENCE_SECONDS, until_there

from allotment.backend import taking_over
from allotment.backend import writer as writers
from allotment.backend import writer as writing
from allotment.backend.keys import command_key
from allotment.backend.log import LogUnavailable, PostgresLog, recorded
from allotment.backend.native import using
from allotment.backend.writer import (
    GROUP_MAX,
    GROUP_USUAL,
    INBOX_MAX,
    SLICE_MAX,
    Busy,
    Halted,
    Unavailable,
    Writer,
)
from allotment.domain import canonical
from allotment.domain.bucket import Allocate
from allotment.domain.charging import UsageSuspended
from allotment.domain.hierarchy import AddNode
from allotment.domain.limit import SetLimit
from allotment.domain.refusals import InvariantBroken, Refused
from allotment.domain.tariff import CompiledRate, PublishTariff
from allotment.domain.usage import USAGE_TYPES
from allotment.tenants.isolation import Isolation
from allotment.tenants.sealing import load_sealer

TURNS = 50


async def waits(work):
    """A task that is under way, and was taken: whatever the writer can do about it is done."""
    task = asyncio.ensure_future(work)
    await all_that_can_be_done()
    return task


async def all_that_can_be_done():
    """On a busy machine a moment may be too short for the loop to turn even once."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)


# --- groups --------------------------------------------------------------------------------------


@in_a_loop
async def test_many_callers_share_few_commits(store):
    log = Through(store.log)
    async with store.opened(log) as writer:
        await furnish(writer)
        log.commits.clear()
        answers = await asyncio.gather(*(charge(writer, call(i, i % 10)) for i in range(600)))
        assert {answer[0].status for answer in answers} == {"charged"}
        assert len(log.commits) <= 12
        assert sum(log.commits) >= 600
    assert sorted(store.charged_ids()) == sorted(f"call-{i}" for i in range(600))


@in_a_loop
async def test_five_thousand_single_callers_are_each_answered_once(postgres):
    log = Through(postgres.log)
    async with postgres.opened(log) as writer:
        await furnish(writer)
        log.commits.clear()
        answers = await asyncio.gather(*(charge(writer, call(i, i % 10)) for i in range(5_000)))
        assert len({answer[0].seq for answer in answers}) == 5_000
        assert len(log.commits) <= 50
        assert max(log.commits) <= GROUP_MAX + 2 * SLICE_MAX
        assert writer.waiting == 0


@in_a_loop
async def test_a_refusal_does_not_hold_up_the_rest_of_its_group(store):
    log = Through(store.log)
    async with store.opened(log) as writer:
        await furnish(writer)
        log.commits.clear()
        asked = [
            submit(writer, AddNode("apac", "acme", "APAC", "division"), "apac"),
            submit(writer, AddNode("apac", "acme", "APAC again", "division"), "again"),
            submit(writer, AddNode("lost", "nowhere", "", "division"), "lost"),
            submit(writer, AddNode("mea", "acme", "MEA", "division"), "mea"),
            charge(writer, call(1)),
        ]
        apac, again, lost, mea, charged = await asyncio.gather(*asked, return_exceptions=True)
        assert (again.code, lost.code) == ("exists_already", "unknown_node")
        assert mea.first_seq == apac.first_seq + 1
        assert statuses(charged) == ["charged"]
        assert len(log.commits) == 1


@in_a_loop
async def test_nobody_is_answered_before_the_commit(store):
    log = Through(store.log)
    async with store.opened(log) as writer:
        await furnish(writer)
        log.open.clear()
        first = await waits(submit(writer, AddNode("apac", "acme", "", "division"), "apac"))
        refused = await waits(submit(writer, AddNode("apac", "acme", "", "division"), "again"))
        duplicate = await waits(charge(writer, call(1), call(1)))
        assert not any(task.done() for task in (first, refused, duplicate))
        log.open.set()
        assert (await first).events[0].node == "apac"
        with pytest.raises(Refused, match="exists_already"):
            await refused
        assert statuses(await duplicate) == ["charged", "duplicate"]


@in_a_loop
async def test_what_stores_nothing_is_answered_without_a_commit(store):
    log = Through(store.log)
    async with store.opened(log) as writer:
        await furnish(writer)
        await charge(writer, call(1))
        log.commits.clear()
        assert statuses(await charge(writer, call(1))) == ["duplicate"]
        with pytest.raises(Refused, match="unknown_node"):
            await submit(writer, AddNode("x", "nowhere", "", "division"), "x")
        assert log.commits == []


@in_a_loop
async def test_nothing_to_charge_is_answered_at_once(memory):
    async with memory.opened() as writer:
        assert await charge(writer) == []


@in_a_loop
async def test_a_request_of_many_slices_is_answered_whole_and_in_order(store):
    many = 3 * SLICE_MAX + 7
    async with store.opened() as writer:
        await furnish(writer)
        outcomes = await charge(writer, *(call(i, i % 10) for i in range(many)))
        assert [outcome.seq for outcome in outcomes] == sorted(outcome.seq for outcome in outcomes)
        assert len(outcomes) == many
    assert store.charged_ids() == [f"call-{i}" for i in range(many)]


# --- once ----------------------------------------------------------------------------------------


@in_a_loop
async def test_a_command_sent_twice_has_one_effect_and_its_first_answer(store):
    async with store.opened() as writer:
        await furnish(writer)
        command = AddNode("apac", "acme", "APAC", "division")
        first = await submit(writer, command, "a")
        again = await submit(writer, command, "a")
        assert again.repeated
        assert (again.events, again.first_seq, again.last_seq) == (
            first.events,
            first.first_seq,
            first.last_seq,
        )
        both = await asyncio.gather(
            *(submit(writer, AddNode("mea", "acme", "", "division"), "b") for _ in range(2))
        )
        assert [answer.repeated for answer in both] == [False, True]
        assert both[0].events == both[1].events


@in_a_loop
async def test_a_command_that_led_to_several_events_is_answered_with_all_of_them_again(store):
    async with store.opened() as writer:
        await furnish(writer, voice=10_000)
        await charge(writer, call(1, seconds=600))
        command = SetLimit("sales", "voice", 600)
        first = await submit(writer, command, "limit")
        assert len(first.events) == 3
        await charge(writer, call(2, usage_type="data"))
        assert (await submit(writer, command, "limit")).events == first.events


@in_a_loop
async def test_a_command_that_opens_a_period_is_answered_without_the_opening(store):
    async with store.opened() as writer:
        await furnish(writer, voice=100)
        command = Allocate("acme", "emea", "voice", "", 40)
        first = await submit(writer, command, "hand down")
        assert [event.topic for event in first.events] == ["bucket.transferred"]
        again = await submit(writer, command, "hand down")
        assert (again.events, again.first_seq) == (first.events, first.first_seq)


@in_a_loop
async def test_a_key_is_refused_for_another_command(store):
    async with store.opened() as writer:
        await furnish(writer)
        await submit(writer, AddNode("apac", "acme", "APAC", "division"), "a")
        with pytest.raises(Refused) as refusal:
            await submit(writer, AddNode("apac2", "acme", "APAC", "division"), "a")
        assert refusal.value.code == "idempotency_mismatch"
        assert "new key" in refusal.value.facts["remedy"]
        assert "apac2" not in writer.state.hierarchy.by_id


@in_a_loop
async def test_a_refused_command_may_be_sent_again_under_its_key(store):
    async with store.opened() as writer:
        await furnish(writer)
        child = AddNode("child", "apac", "", "group")
        with pytest.raises(Refused, match="unknown_node"):
            await submit(writer, child, "child")
        await submit(writer, AddNode("apac", "acme", "", "division"), "apac")
        assert not (await submit(writer, child, "child")).repeated


@in_a_loop
async def test_a_record_is_charged_once_in_a_batch_across_batches_and_across_restarts(store):
    async with store.opened() as writer:
        await furnish(writer)
        assert statuses(await charge(writer, call(1), call(2), call(1))) == [
            "charged",
            "charged",
            "duplicate",
        ]
        assert statuses(await charge(writer, call(2), call(3))) == ["duplicate", "charged"]
    async with store.opened() as writer:
        assert statuses(await charge(writer, call(3), call(1), call(4))) == [
            "duplicate",
            "duplicate",
            "charged",
        ]
    assert store.charged_ids() == ["call-1", "call-2", "call-3", "call-4"]


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"seconds": 62}, id="another quantity"),
        pytest.param({"number": 1}, id="another line"),
        pytest.param({"started_at": NOON - 86_400 * SECOND * 3}, id="another day"),
        pytest.param({"counterpart": "+4930123"}, id="another party"),
        pytest.param({"attributes": (("network", "roaming"),)}, id="another attribute"),
    ],
)
@in_a_loop
async def test_another_record_under_a_known_id_is_kept_for_somebody_to_look_at(store, changed):
    other = call(1, **changed)
    async with store.opened() as writer:
        await furnish(writer)
        await charge(writer, call(1))
        [suspended] = await charge(writer, other)
        assert (suspended.status, suspended.reason) == ("suspended", "conflicting_duplicate")
        assert statuses(await charge(writer, other, call(1))) == ["duplicate", "duplicate"]
    async with store.opened() as writer:
        assert statuses(await charge(writer, other, call(1))) == ["duplicate", "duplicate"]
    assert len(store.charges()) == 1


@in_a_loop
async def test_the_same_id_of_another_source_is_another_record(store):
    async with store.opened() as writer:
        await furnish(writer)
        assert statuses(await charge(writer, call(1), call(1, source="other"))) == ["charged", "charged"]


@in_a_loop
async def test_records_too_old_to_be_remembered_are_looked_up(store, short_memory):
    async with store.opened() as writer:
        await furnish(writer)
        batches = [[call(i, i % 10) for i in range(first, first + 300)] for first in range(0, 3_000, 300)]
        for batch in batches:
            await charge(writer, *batch)
        assert writer._decider.seen.forgotten
        assert set(statuses(await charge(writer, *batches[0]))) == {"duplicate"}
        assert statuses(await charge(writer, call(0, seconds=99))) == ["suspended"]
        again = await submit(writer, AddNode("acme", "", "Acme", "enterprise"), "furnish 1")
        assert again.repeated
        for batch in batches[1:4]:
            await charge(writer, *batch)
        assert statuses(await charge(writer, call(0, seconds=99), call(0))) == ["duplicate", "duplicate"]
    assert len(store.charges()) == 3_000


@in_a_loop
async def test_fresh_held_and_forgotten_records_in_one_request_are_each_what_they_are(store, short_memory):
    async with store.opened() as writer:
        await furnish(writer)
        for first in range(0, 1_800, 300):
            await charge(writer, *(call(i, i % 10) for i in range(first, first + 300)))
        assert writer._decider.seen.forgotten
        twice = await charge(writer, call("a"), call("b"), call("a"))
        assert statuses(twice) == ["charged", "charged", "duplicate"]
        mixed = await charge(writer, call("c"), call(1_799, 9), call("c"), call(3, 3), call("a"), call("d"))
        assert statuses(mixed) == ["charged", *["duplicate"] * 4, "charged"]
        assert statuses(await charge(writer, call("e"))) == ["charged"]
    assert len(store.charges()) == 1_805


@in_a_loop
async def test_an_old_record_under_another_day_is_looked_up_too(store, short_memory):
    async with store.opened() as writer:
        await furnish(writer)
        await charge(writer, call("first", started_at=NOON - 5 * 86_400 * SECOND))
        for first in range(0, 1_500, 300):
            await charge(writer, *(call(i, i % 10) for i in range(first, first + 300)))
        assert writer._decider.seen.forgotten
        [conflicting] = await charge(writer, call("first"))
        assert conflicting.reason == "conflicting_duplicate"
    assert store.charged_ids().count("call-first") == 1


# --- what may stand in a record --------------------------------------------------------------------


@in_a_loop
async def test_an_unreadable_record_waits_with_its_reason_and_is_kept_once(store):
    async with store.opened() as writer:
        await furnish(writer)
        [outcome] = await charge(writer, unreadable(1))
        assert (outcome.status, outcome.reason) == ("suspended", "malformed")
        assert statuses(await charge(writer, unreadable(1))) == ["duplicate"]
        [other] = await charge(writer, unreadable(1, raw="garbled otherwise"))
        assert other.reason == "conflicting_duplicate"
    events = [recorded(row).event for row in store.rows()]
    kept = [event for event in events if isinstance(event, UsageSuspended)]
    assert next((event.field, event.detail, event.position) for event in kept) == (
        "start", "is not a time", "calls:1",
    )  # fmt: skip
    assert all(b"garbled" not in row.state for row in store.rows())


OUTSIDE = [
    pytest.param({"quantity": -1}, "quantity", id="less than nothing"),
    pytest.param({"quantity": 2**53 + 1}, "quantity", id="a counter that ran over"),
    pytest.param({"quantity": 1.5}, "quantity", id="a broken quantity"),
    pytest.param({"quantity": True}, "quantity", id="a yes for a quantity"),
    pytest.param({"started_at": 0}, "started_at", id="no date"),
    pytest.param({"started_at": 4_102_444_800_000_001}, "started_at", id="after 2100"),
    pytest.param({"usage_type": "telepathy!"}, "usage_type", id="no name of a type"),
    pytest.param({"direction": "sideways"}, "direction", id="an unknown direction"),
    pytest.param({"line": ""}, "line", id="no line"),
    pytest.param({"line": "+44\n1"}, "line", id="a line of two lines"),
    pytest.param({"line": "\ud800"}, "line", id="half a character"),
    pytest.param({"counterpart": "x" * 201}, "counterpart", id="a party too long"),
    pytest.param({"record_id": ""}, "record_id", id="no id"),
    pytest.param({"record_id": "a\x00b"}, "record_id", id="a NUL in the id"),
    pytest.param({"source": "\ud800"}, "source", id="half a character of a source"),
    pytest.param({"attributes": (("a", "\x00"),)}, "attributes", id="a NUL in an attribute"),
    pytest.param(
        {"attributes": tuple((f"a{i}", "") for i in range(33))}, "attributes", id="too many attributes"
    ),
]


@pytest.mark.parametrize(("changes", "field"), OUTSIDE)
@in_a_loop
async def test_what_no_record_may_be_waits_with_the_field_that_is_wrong(memory, changes, field):
    async with memory.opened() as writer:
        await furnish(writer)
        bad = msgspec.structs.replace(call(1), **changes)
        outcomes = await charge(writer, bad, call(2))
        assert statuses(outcomes) == ["suspended", "charged"]
        assert statuses(await charge(writer, bad)) == ["duplicate"]
        state = b"".join(canonical.lines(writer.state))
    [suspended] = [event for row in memory.rows() if isinstance(event := recorded(row).event, UsageSuspended)]
    assert (suspended.reason, suspended.field) == ("bad_value", field)
    async with memory.opened() as writer:
        assert b"".join(canonical.lines(writer.state)) == state


@in_a_loop
async def test_all_that_is_outside_the_gate_can_be_stored(postgres):
    async with postgres.opened() as writer:
        await furnish(writer)
        records = [msgspec.structs.replace(call(i), **param.values[0]) for i, param in enumerate(OUTSIDE)]
        assert set(statuses(await charge(writer, *records))) == {"suspended"}
    async with postgres.opened() as writer:
        assert set(statuses(await charge(writer, *records))) == {"duplicate"}


@pytest.mark.parametrize("usage_type", sorted(USAGE_TYPES))
@in_a_loop
async def test_the_largest_record_that_passes_the_gate_does_not_stop_the_tenant(memory, usage_type):
    async with memory.opened() as writer:
        await furnish(writer)
        dear = tuple(msgspec.structs.replace(rate, price="999999999.123456789") for rate in RATES)
        await submit(writer, PublishTariff("dear", 1, "EUR", dear), "dear")
        largest = call(1, seconds=2**53, usage_type=usage_type)
        assert statuses(await charge(writer, largest)) != []


@in_a_loop
async def test_a_counter_that_ran_over_does_not_stop_the_tenant_at_an_everyday_price(memory):
    async with memory.opened() as writer:
        await furnish(writer)
        assert statuses(await charge(writer, call(1, seconds=2**53)))
        assert statuses(await charge(writer, call(2))) == ["charged"]


@in_a_loop
async def test_the_oldest_record_that_passes_the_gate_does_not_stop_a_tenant_west_of_greenwich(memory):
    async with memory.opened() as writer:
        await furnish(writer, zone="America/New_York")
        oldest = call(1, started_at=31_536_000_000_000 + SECOND)
        assert statuses(await charge(writer, oldest)) == ["suspended"]


# --- lost answers and lost connections -------------------------------------------------------------


@in_a_loop
async def test_an_unheard_commit_has_its_outcome_once_and_one_effect(store):
    log = Through(store.log)
    async with store.opened(log) as writer:
        await furnish(writer)
        log.fates.append("unheard")
        records = [call(1), call("unknown", 999), unreadable(2), call(1)]
        outcomes = await charge(writer, *records)
        assert statuses(outcomes) == ["charged", "suspended", "suspended", "duplicate"]
        assert statuses(await charge(writer, *records)) == ["duplicate"] * 4
        state = b"".join(canonical.lines(writer.state))
    assert store.charged_ids() == ["call-1"]
    async with store.opened() as writer:
        assert b"".join(canonical.lines(writer.state)) == state


@in_a_loop
async def test_an_unheard_commit_gives_the_same_outcome_as_a_heard_one(memory):
    heard, log = Store(None), Through(memory.log)
    async with heard.opened() as writer:
        await furnish(writer)
        expected = await charge(writer, call(1), call("unknown", 999), unreadable(2), call(1))
    async with memory.opened(log) as writer:
        await furnish(writer)
        log.fates.append("unheard")
        assert await charge(writer, call(1), call("unknown", 999), unreadable(2), call(1)) == expected


@in_a_loop
async def test_a_conflicting_record_keeps_its_outcome_when_its_commit_was_unheard(memory):
    log = Through(memory.log)
    async with memory.opened(log) as writer:
        await furnish(writer)
        await charge(writer, call(1))
        log.fates.append("unheard")
        assert statuses(await charge(writer, call(1, seconds=99))) == ["suspended"]


@in_a_loop
async def test_a_commands_unheard_commit_gives_its_answer_once_and_one_effect(store):
    log = Through(store.log)
    async with store.opened(log) as writer:
        await furnish(writer)
        log.fates.append("unheard")
        answer = await submit(writer, AddNode("apac", "acme", "APAC", "division"), "apac")
        assert [event.topic for event in answer.events] == ["hierarchy.node_added"]
    assert [row.topic for row in store.rows()].count("hierarchy.node_added") == 4


@in_a_loop
async def test_a_command_is_new_the_first_time_also_when_its_commit_was_unheard(memory):
    log = Through(memory.log)
    async with memory.opened(log) as writer:
        await furnish(writer)
        log.fates.append("unheard")
        assert not (await submit(writer, AddNode("apac", "acme", "", "division"), "apac")).repeated


@in_a_loop
async def test_what_was_found_stored_keeps_its_outcome_when_the_next_group_is_fenced(store, monkeypatch):
    monkeypatch.setattr(writers, "SLICE_MAX", 2)
    log = Through(store.log)
    async with store.opened(log) as writer:
        await furnish(writer)
        log.fates += ["unheard", "fenced"]
        log.open.clear()
        asked = await waits(charge(writer, *map(call, range(3))))
        # What was stored unheard, and what was decided after it, are now decided in one slice.
        monkeypatch.setattr(writers, "SLICE_MAX", 500)
        log.open.set()
        assert statuses(await asked) == ["charged"] * 3
    assert store.charged_ids() == [f"call-{number}" for number in range(3)]


@in_a_loop
async def test_after_a_failed_commit_everything_is_decided_again(store):
    log = Through(store.log)
    async with store.opened(log) as writer:
        await furnish(writer)
        log.fates += ["lost", "lost", "unheard", "fenced"]
        asked = [
            submit(writer, AddNode("apac", "acme", "", "division"), "apac"),
            submit(writer, AddNode("child", "apac", "", "group"), "child"),
            submit(writer, AddNode("apac", "acme", "", "division"), "again"),
            charge(writer, call(1), call(2)),
        ]
        apac, child, again, charged = await asyncio.gather(*asked, return_exceptions=True)
        assert child.first_seq == apac.first_seq + 1
        assert again.code == "exists_already"
        assert statuses(charged) == ["charged", "charged"]
        assert statuses(await charge(writer, call(3))) == ["charged"]
    assert store.charged_ids() == ["call-1", "call-2", "call-3"]


@in_a_loop
async def test_a_group_decided_on_top_of_a_failed_one_is_decided_again_in_order(store):
    log = Through(store.log)
    async with store.opened(log) as writer:
        await furnish(writer)
        log.fates += ["lost"]
        log.open.clear()
        first = await waits(charge(writer, call(1)))
        later = [asyncio.ensure_future(charge(writer, call(i))) for i in range(2, 40)]
        await all_that_can_be_done()
        log.open.set()
        outcomes = [await first] + [await task for task in later]
        assert {outcome[0].status for outcome in outcomes} == {"charged"}
    assert store.charged_ids() == [f"call-{i}" for i in range(1, 40)]


@in_a_loop
async def test_a_request_that_straddles_a_failed_commit_is_answered_once(store):
    log = Through(store.log)
    async with store.opened(log) as writer:
        await furnish(writer)
        log.fates += ["kept", "unheard", "lost", "kept"]
        many = 3 * GROUP_MAX
        outcomes = await charge(writer, *(call(i, i % 10) for i in range(many)))
        assert set(statuses(outcomes)) == {"charged"}
    assert store.charged_ids() == [f"call-{i}" for i in range(many)]


def through(database, tenant, proxy):
    isolation = Isolation(proxy.url)
    sealing = Isolation(database)
    return (
        isolation,
        Writer(
            tenant, PostgresLog(isolation, tenant), lambda: load_sealer(sealing, ROOT, tenant), lambda: NOON
        ),
        sealing,
    )


@in_a_loop
async def test_a_swallowed_answer_to_commit_gives_the_outcome_once_and_one_effect(postgres, database):
    with Proxy(database) as proxy:
        isolation, writer, sealing = through(database, postgres.tenant, proxy)
        await writer.start()
        await furnish(writer)
        for round_number in range(5):
            proxy.swallow()
            records = [call(f"{round_number}-{i}", i) for i in range(10)]
            assert set(statuses(await charge(writer, *records))) == {"charged"}
            assert set(statuses(await charge(writer, *records))) == {"duplicate"}
        proxy.swallow(3)
        answer = await submit(writer, AddNode("apac", "acme", "", "division"), "apac")
        assert answer.events[0].node == "apac"
        assert proxy.swallowed == 8
        await in_time(writer.close())
        await asyncio.get_running_loop().run_in_executor(None, isolation.close)
        sealing.close()
    charged = postgres.charged_ids()
    assert len(charged) == len(set(charged)) == 50


@in_a_loop
async def test_connections_cut_at_any_moment_cost_nobody_a_record(postgres, database):
    with Proxy(database) as proxy:
        isolation, writer, sealing = through(database, postgres.tenant, proxy)
        await writer.start()
        await furnish(writer)

        async def cutting():
            for pause in (0.02, 0.06, 0.03):
                await asyncio.sleep(pause)
                proxy.cut()

        asked = [charge(writer, *(call(f"{b}-{i}", i % 10) for i in range(50))) for b in range(40)]
        *outcomes, _ = await asyncio.gather(*asked, cutting())
        assert {status for outcome in outcomes for status in statuses(outcome)} == {"charged"}
        await in_time(writer.close())
        await asyncio.get_running_loop().run_in_executor(None, isolation.close)
        sealing.close()
    charged = postgres.charged_ids()
    assert len(charged) == len(set(charged)) == 2_000


@in_a_loop
async def test_who_waits_longer_than_the_log_can_be_reached_is_told(memory, monkeypatch):
    monkeypatch.setattr(writing, "RECOVERY_SECONDS_MAX", 0.1)

    class Gone(Through):
        gone = False

        def claim(self):
            if self.gone:
                raise LogUnavailable("nobody there")
            return super().claim()

    log = Gone(memory.log)
    async with memory.opened(log) as writer:
        await furnish(writer)
        log.gone = True
        log.fates.append("lost")
        with pytest.raises(Unavailable):
            await charge(writer, call(1))
        log.gone = False
        assert statuses(await charge(writer, call(1))) == ["charged"]


@in_a_loop
async def test_slow_attempts_to_reach_the_log_count_as_waiting(memory, monkeypatch):
    monkeypatch.setattr(writing, "RECOVERY_SECONDS_MAX", 0.3)

    class Slow(Through):
        gone = False

        def claim(self):
            given = super().claim()
            if self.gone:
                time.sleep(0.3)
                raise LogUnavailable("nobody there")
            return given

    log = Slow(memory.log)
    async with memory.opened(log) as writer:
        await furnish(writer)
        log.gone = True
        log.fates.append("lost")
        before = log.claims
        with pytest.raises(Unavailable):
            await charge(writer, call(1))
        assert log.claims - before <= 2, "one attempt took as long as anybody waits"
        log.gone = False


@in_a_loop
async def test_who_waits_for_a_log_that_takes_nothing_is_told(memory, monkeypatch):
    monkeypatch.setattr(writing, "RECOVERY_SECONDS_MAX", 0.1)
    log = Through(memory.log)
    writer = memory.writer(log)
    await writer.start()
    await furnish(writer)
    log.fates += ["lost"] * 100_000
    try:
        with pytest.raises(Unavailable):
            await in_time(writer.submit_usage([call(1)], "mediation"))
        assert log.claims < 100
    finally:
        writer._task.cancel()


@in_a_loop
async def test_a_database_that_goes_away_while_keys_are_loaded_is_waited_for(postgres, database):
    fail = [0]

    def loading():
        if fail[0]:
            fail[0] -= 1
            gone = Isolation("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
            gone._pool("app").timeout = 0.2
            try:
                return load_sealer(gone, ROOT, postgres.tenant)
            finally:
                gone.close()
        return postgres.load_sealer()

    log = Through(postgres.log)
    writer = Writer(postgres.tenant, log, loading, lambda: NOON)
    await writer.start()
    await furnish(writer)
    fail[0] = 1
    log.fates.append("lost")
    try:
        assert statuses(await charge(writer, call(1))) == ["charged"]
    finally:
        await writer.close()


@in_a_loop
async def test_a_failed_look_up_is_tried_again(store, short_memory):
    log = Through(store.log)
    async with store.opened(log) as writer:
        await furnish(writer)
        for first in range(0, 1_500, 300):
            await charge(writer, *(call(i, i % 10) for i in range(first, first + 300)))
        log.find_fails = 1
        assert statuses(await charge(writer, call(0))) == ["duplicate"]


@in_a_loop
async def test_what_was_decided_before_a_look_up_failed_for_good_is_not_taken_for_stored(
    store, short_memory, monkeypatch
):
    monkeypatch.setattr(writers, "RECOVERY_SECONDS_MAX", 0.3)
    log, slices_to_come = Through(store.log), [0]

    def clock():
        """Noon; once two more slices have been looked up, the log answers nothing."""
        slices_to_come[0] -= 1
        if not slices_to_come[0]:
            log.find_fails = 1_000
        return NOON

    async with store.opened(log, clock=clock) as writer:
        await furnish(writer)
        for first in range(0, 1_500, 300):
            await charge(writer, *(call(i, i % 10) for i in range(first, first + 300)))
        log.open.clear()
        slices_to_come[0] = 2
        monkeypatch.setattr(writers, "SLICE_MAX", 1)
        asked = [asyncio.create_task(charge(writer, call(one))) for one in ("flying", "waiting", 0)]
        flying, waiting, asking = asked
        await until_there(lambda: writer._flying and writer._open and 0 < log.find_fails < 1_000)
        # Those two are decided again in one slice.
        monkeypatch.setattr(writers, "SLICE_MAX", 500)
        log.open.set()
        assert statuses(await in_time(flying)) == ["charged"]
        for lost in (waiting, asking):
            with pytest.raises(Unavailable):
                await in_time(lost)
        log.find_fails = 0
        assert statuses(await in_time(charge(writer, call("waiting"), call("flying")))) == [
            "charged",
            "duplicate",
        ]
        assert writer.waiting == 0


@in_a_loop
async def test_what_was_decided_before_a_lease_ran_out_for_long_is_not_taken_for_stored(store, monkeypatch):
    monkeypatch.setattr(writers, "RECOVERY_SECONDS_MAX", 0.3)
    monkeypatch.setattr(writers, "SLICE_MAX", 2)
    log, held = Through(store.log), [True]
    async with store.opened(log, may_decide=lambda: held[0]) as writer:
        await furnish(writer)
        log.open.clear()
        asked = [asyncio.create_task(charge(writer, call(at), call(at + 1))) for at in (0, 2)]
        flying, decided = asked
        await until_there(lambda: writer._flying and writer._open)
        held[0] = False
        log.open.set()
        assert statuses(await flying) == ["charged"] * 2
        with pytest.raises(Unavailable):
            await decided
        held[0] = True
        assert statuses(await charge(writer, call(2), call(3))) == ["charged"] * 2
    assert store.charged_ids() == [f"call-{number}" for number in range(4)]


@in_a_loop
async def test_a_first_answer_that_cannot_be_read_now_is_unavailable(memory):
    log = Through(memory.log)
    async with memory.opened(log) as writer:
        await furnish(writer)
        log.find_fails = 1
        with pytest.raises(Unavailable):
            await submit(writer, AddNode("acme", "", "Acme", "enterprise"), "furnish 1")


# --- two writers -----------------------------------------------------------------------------------


@in_a_loop
async def test_a_second_writer_takes_over_and_nothing_is_lost_or_doubled(store):
    async with store.opened() as first:
        await furnish(first)
        await charge(first, call(1))
        async with store.opened() as second:
            assert statuses(await charge(second, call(2))) == ["charged"]
            assert statuses(await charge(first, call(3))) == ["charged"]
            assert statuses(await charge(first, call(2))) == ["duplicate"]
            assert statuses(await charge(second, call(4))) == ["charged"]
            assert statuses(await charge(second, call(3))) == ["duplicate"]
    assert store.charged_ids() == ["call-1", "call-2", "call-3", "call-4"]
    assert [row.seq for row in store.rows()] == list(range(1, len(store.rows()) + 1))


@in_a_loop
async def test_two_writers_at_once_charge_each_record_once(postgres):
    async with postgres.opened() as first:
        await furnish(first)
        async with postgres.opened() as second:
            asked = [
                charge(writer, *(call(f"{batch}-{i}", i % 10) for i in range(20)))
                for batch in range(15)
                for writer in (first, second)
            ]
            await asyncio.gather(*asked)
    charged = postgres.charged_ids()
    assert len(charged) == len(set(charged)) == 300


@in_a_loop
async def test_of_two_writers_only_the_one_that_charged_a_record_says_so(memory):
    async with memory.opened() as first:
        await furnish(first)
        async with memory.opened() as second:
            assert statuses(await charge(second, call(1))) == ["charged"]
            assert statuses(await charge(first, call(1))) == ["duplicate"]


@in_a_loop
async def test_two_writers_never_overspend_together(postgres):
    async with postgres.opened() as first:
        await furnish(first, voice=6_000)
        await submit(first, SetLimit("emea", "voice", 6_000), "limit")
        async with postgres.opened() as second:
            asked = [
                charge(writer, call(f"{i}-{id(writer)}", i % 10, 60))
                for i in range(80)
                for writer in (first, second)
            ]
            outcomes = await asyncio.gather(*asked)
            told = [outcome[0].status for outcome in outcomes]
            assert (told.count("charged"), told.count("rejected")) == (100, 60)
    assert sum(charge.billed for charge in postgres.charges()) == 6_000


# --- bounds, ends and mistakes of our own ----------------------------------------------------------


@in_a_loop
async def test_who_comes_to_a_full_inbox_is_told_to_try_again(memory, monkeypatch):
    monkeypatch.setattr(writing, "INBOX_MAX", 10)
    log = Through(memory.log)
    async with memory.opened(log) as writer:
        await furnish(writer, lines=2)
        log.open.clear()
        first = await waits(charge(writer, *(call(i) for i in range(8))))
        with pytest.raises(Busy) as busy:
            await writer.submit_usage([call(i) for i in range(10, 13)], "mediation")
        assert busy.value.retry_after_ms > 0
        fits = await waits(charge(writer, call(8), call(9)))
        log.open.set()
        assert set(statuses([*await first, *await fits])) == {"charged"}
        assert statuses(await charge(writer, *(call(i) for i in range(10, 13)))) == ["charged"] * 3


def test_the_inbox_takes_more_than_one_group():
    assert INBOX_MAX >= 2 * GROUP_MAX >= 2 * GROUP_USUAL >= 2 * SLICE_MAX


@pytest.mark.parametrize(("waiting", "together"), [(120, 40), (400, 100), (1_000, 200)])
@in_a_loop
async def test_the_more_wait_the_more_are_stored_at_once(memory, monkeypatch, waiting, together):
    monkeypatch.setattr(writing, "SLICE_MAX", 10)
    monkeypatch.setattr(writing, "GROUP_USUAL", 40)
    monkeypatch.setattr(writing, "GROUP_MAX", 200)
    log = Through(memory.log)
    async with memory.opened(log) as writer:
        await furnish(writer, lines=10)
        log.open.clear()
        log.commits.clear()
        asked = await waits(charge(writer, *(call(i, i % 10) for i in range(waiting))))
        await until_there(lambda: writer.seq - memory.log.head().seq >= 10 + together)
        log.open.set()
        assert set(statuses(await asked)) == {"charged"}
    assert max(log.commits) == together


@in_a_loop
async def test_a_batch_larger_than_the_inbox_is_taken_when_nobody_waits(memory, monkeypatch):
    monkeypatch.setattr(writing, "INBOX_MAX", 10)
    async with memory.opened() as writer:
        await in_time(writer.submit(*_open_tenant()))
        outcomes = await charge(writer, *(call(i) for i in range(25)))
        assert len(outcomes) == 25


def _open_tenant():
    from allotment.domain.tenant import OpenTenant

    return OpenTenant("Acme", "UTC", "EUR", "carrier"), command_key("open"), "carrier"


@pytest.fixture
def charged_in_python():
    """Native code asks none of the functions that are broken here."""
    with using.python_only():
        yield


def broken(*_):
    raise InvariantBroken("two and two are four", found=5)


@in_a_loop
async def test_a_broken_invariant_is_told_to_whoever_it_concerns(memory, monkeypatch):
    async with memory.opened() as writer:
        await furnish(writer)
        monkeypatch.setattr(writer.state, "apply", broken)
        with pytest.raises(Halted):
            await in_time(writer.submit_usage([call(1)], "mediation"))


@in_a_loop
@pytest.mark.parametrize("part", ["plain.charge", "charging.count"])
@pytest.mark.usefixtures("charged_in_python")
async def test_a_mistake_while_an_event_is_applied_stops_the_tenant(memory, monkeypatch, part):
    def halfway(*_):
        writer.state.charging.amount_total += 1
        raise KeyError("a bucket that is not there")

    writer = memory.writer()
    await writer.start()
    await furnish(writer)
    await charge(writer, call(0))
    kind, name = part.split(".")
    if kind != "plain":
        monkeypatch.setattr(writer.state.plain, "charge", lambda *_: None)
    monkeypatch.setattr(getattr(writer.state, kind), name, halfway)
    asked = asyncio.ensure_future(writer.submit_usage([call(1)], "mediation"))
    await asyncio.wait([asked], timeout=PATIENCE_SECONDS)
    monkeypatch.undo()
    try:
        with pytest.raises(Halted):
            await in_time(writer.submit_usage([call(2)], "mediation"))
    finally:
        asked.cancel()
        writer._task.cancel()
        await asyncio.gather(asked, writer._task, return_exceptions=True)


@in_a_loop
@pytest.mark.usefixtures("charged_in_python")
async def test_a_record_that_no_rule_foresaw_waits_and_stops_nobody(store, monkeypatch):
    async with store.opened() as writer:
        await furnish(writer)
        billed = CompiledRate.billed

        def stumbles(rate, quantity):
            if quantity == 62:
                raise ZeroDivisionError
            return billed(rate, quantity)

        monkeypatch.setattr(CompiledRate, "billed", stumbles)
        outcomes = await charge(writer, *(call(i, seconds=60 + i) for i in range(1, 4)))
        assert [(outcome.status, outcome.reason) for outcome in outcomes] == [
            ("charged", ""), ("suspended", "internal_error"), ("charged", ""),
        ]  # fmt: skip


@in_a_loop
@pytest.mark.usefixtures("charged_in_python")
async def test_a_broken_invariant_stops_the_tenant_and_stores_nothing(store, monkeypatch):
    log = Through(store.log)
    async with store.opened(log) as writer:
        await furnish(writer)
        before = len(store.rows())
        log.open.clear()
        earlier = await waits(charge(writer, call(1)))
        monkeypatch.setattr(writer.state.plain, "charge", broken)
        asked = [asyncio.ensure_future(writer.submit_usage([call(i)], "mediation")) for i in range(2, 1_000)]
        await all_that_can_be_done()
        log.open.set()
        with pytest.raises(Halted):
            await in_time(asyncio.gather(*asked))
        with pytest.raises(Halted, match="two and two"):
            await writer.submit_usage([call(5)], "mediation")
        for task in (earlier, *asked):
            task.cancel()
        await asyncio.gather(earlier, *asked, return_exceptions=True)
    # What was on its way to the disk may have arrived; nothing decided on a broken state has.
    assert len(store.rows()) <= before + 12
    assert set(store.charged_ids()) <= {"call-1"}


@in_a_loop
async def test_a_log_with_a_hole_is_not_continued(memory):
    async with memory.opened() as writer:
        await furnish(writer)
    del memory.log._rows[-1]
    memory.log.head = lambda: memory.log.__class__.head(memory.log)._replace(seq=len(memory.log._rows) + 1)
    writer = memory.writer()
    with pytest.raises(InvariantBroken, match="no holes"):
        await in_time(writer.start())


@in_a_loop
async def test_a_caller_who_goes_away_takes_nothing_with_him(store):
    log = Through(store.log)
    async with store.opened(log) as writer:
        await furnish(writer)
        log.open.clear()
        leaving = await waits(writer.submit_usage([call(1), call(2)], "mediation"))
        staying = await waits(charge(writer, call(3)))
        leaving.cancel()
        log.open.set()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert statuses(await staying) == ["charged"]
        assert statuses(await charge(writer, call(1), call(2))) == ["duplicate", "duplicate"]
        assert writer.waiting == 0
    assert store.charged_ids() == ["call-1", "call-2", "call-3"]


@in_a_loop
async def test_a_caller_who_goes_away_during_a_failed_commit_is_no_trouble(store):
    log = Through(store.log)
    async with store.opened(log) as writer:
        await furnish(writer)
        log.open.clear()
        log.fates.append("unheard")
        leaving = await waits(writer.submit_usage([call(1)], "mediation"))
        staying = await waits(charge(writer, call(2)))
        leaving.cancel()
        log.open.set()
        assert statuses(await staying) == ["charged"]
        assert writer.waiting == 0
    assert sorted(store.charged_ids()) == ["call-1", "call-2"]


@in_a_loop
async def test_closing_finishes_what_was_taken(store):
    log = Through(store.log)
    async with store.opened(log) as writer:
        await furnish(writer)
        log.open.clear()
        taken = await waits(charge(writer, call(1)))
        closing = await waits(writer.close())
        log.open.set()
        await in_time(closing)
        assert statuses(await taken) == ["charged"]


@in_a_loop
async def test_a_closed_writer_takes_nothing(memory):
    writer = memory.writer()
    await writer.start()
    await furnish(writer)
    await in_time(writer.close())
    with pytest.raises(Unavailable):
        await in_time(writer.submit_usage([call(1)], "mediation"))


@in_a_loop
async def test_a_writer_closes_although_more_keeps_coming(memory):
    class Slow(Through):
        def append(self, group):
            time.sleep(0.01)
            super().append(group)

    writer = memory.writer(Slow(memory.log))
    await writer.start()
    await furnish(writer)
    callers = []

    async def keep_coming():
        while True:
            await asyncio.sleep(0.002)
            callers.append(asyncio.ensure_future(writer.submit_usage([call(len(callers))], "mediation")))

    coming = asyncio.ensure_future(keep_coming())
    try:
        await until_there(lambda: len(callers) > 5)
        await in_time(writer.close())
    finally:
        coming.cancel()
        writer._task.cancel()
        for caller in callers:
            caller.cancel()
        await asyncio.gather(coming, writer._task, *callers, return_exceptions=True)


@in_a_loop
async def test_an_observer_that_fails_costs_nobody_his_answer(memory):
    def failing(_):
        raise RuntimeError("the observer has a problem")

    writer = memory.writer(on_commit=failing)
    await writer.start()
    try:
        await in_time(writer.submit(*_open_tenant()))
    finally:
        await writer.close()


@in_a_loop
async def test_an_observer_is_told_of_each_group_once_and_after_its_commit(store):
    told = []
    log = Through(store.log)
    async with store.opened(
        log, on_commit=lambda group: told.append((group.last, store.log.head().seq))
    ) as writer:
        await furnish(writer)
        log.fates += ["lost"]
        await charge(writer, call(1))
    assert told
    assert all(stored >= last for last, stored in told)
    assert told[-1][0] == len(store.rows())


@in_a_loop
async def test_time_in_the_log_never_runs_backwards_when_the_clock_does(store):
    now = [NOON]
    async with store.opened(clock=lambda: now[0]) as writer:
        await furnish(writer)
        for step in (5 * SECOND, -3_600 * SECOND, SECOND):
            now[0] += step
            await charge(writer, call(now[0]))
    now[0] -= 86_400 * SECOND
    async with store.opened(clock=lambda: now[0]) as writer:
        await charge(writer, call("next day"))
    times = [row.recorded_at for row in store.rows()]
    assert times == sorted(times)


@in_a_loop
async def test_reading_the_log_again_gives_the_same_state(store):
    async with store.opened() as writer:
        await furnish(writer, voice=5_000)
        await submit(writer, SetLimit("sales", "voice", 6_000), "limit")
        await charge(
            writer, *(call(i, i % 12, 60 + i) for i in range(100)), unreadable(7), call(5, seconds=1)
        )
        state = b"".join(canonical.lines(writer.state))
    async with store.opened() as writer:
        assert b"".join(canonical.lines(writer.state)) == state


@in_a_loop
async def test_both_logs_are_led_to_the_same_state(memory, postgres):
    states = []
    for store in (memory, postgres):
        async with store.opened() as writer:
            await furnish(writer, voice=5_000)
            await charge(writer, *(call(i, i % 8, 60 + i) for i in range(100)))
            tokens = {
                identity.token.hex()
                for member in writer.state.hierarchy.members
                for identity in member.identities
            }
            text = b"".join(canonical.lines(writer.state)).decode()
            for token in tokens:
                text = text.replace(token, "token")
            states.append(text)
    assert states[0] == states[1]


@in_a_loop
async def test_a_writer_that_is_stopped_in_a_transaction_leaves_other_tenants_alone(
    isolation, database, monkeypatch
):
    """As a stopped process would: a transaction that holds the head row and says nothing."""
    # It is ended after a while: here not before the others were asked.
    monkeypatch.setattr(taking_over, "HELD_MS_MAX", 60_000)
    held, free = Store(isolation), Store(isolation)
    async with held.opened() as slow, free.opened() as quick:
        await asyncio.gather(furnish(slow), furnish(quick))
        with psycopg.connect(database) as connection:
            connection.execute(
                "SELECT FROM allotment.log_heads WHERE tenant_id = %s FOR UPDATE", (held.tenant,)
            )
            waiting = await waits(charge(slow, call(1)))
            for i in range(10):
                assert statuses(await charge(quick, call(i))) == ["charged"]
                assert not waiting.done()
            connection.rollback()
        assert statuses(await waiting) == ["charged"]


@in_a_loop
async def test_writers_share_few_threads(isolation):
    with ThreadPoolExecutor(2) as threads:
        stores = [Store(isolation) for _ in range(6)]
        writers = [store.writer(executor=threads) for store in stores]
        for writer in writers:
            await in_time(writer.start())
        await asyncio.gather(*(furnish(writer, lines=2) for writer in writers))
        await asyncio.gather(*(charge(writer, *(call(i) for i in range(50))) for writer in writers))
        for writer in writers:
            await in_time(writer.close())
    assert all(len(store.charges()) == 50 for store in stores)
