"""Sessions through the writer and the engine: once each, kept through failures, ended when silent."""

import asyncio

import msgspec
import pytest
from fixtures_writer import NOON, Store, Through, call, charge, furnish, in_time, line, statuses, submit

from allotment.backend import verifying
from allotment.backend.authorising import StartSession
from allotment.backend.engine import Engine
from allotment.backend.keys import session_key, usage_key
from allotment.backend.log import recorded
from allotment.domain import canonical
from allotment.domain.charging import UsageCharged, UsageSuspended
from allotment.domain.limit import SetLimit
from allotment.domain.refusals import Refused
from allotment.domain.session import (
    VALIDITY_SECONDS,
    ExpireSession,
    ReleaseSession,
    Report,
    SessionDenied,
    SessionExpired,
    SessionReleased,
    SessionReserved,
    UpdateSession,
)
from allotment.tenants.sealing import RootKey

DAY = 86_400_000_000
VALIDITY = VALIDITY_SECONDS * 1_000_000


def start(session="s", quantity=0, number=1, of=0, **changes):
    """A session of the line that `call` records: what a bulk record of the same id would be."""
    return StartSession(call(session, of, quantity, **changes), number)


async def ask(writer, command, now=NOON):
    """As the engine submits it; the answer, or the refusal's code."""
    if isinstance(command, StartSession):
        ident = (command.record.source, command.record.record_id, command.number)
    else:
        ident = (command.source, command.session, getattr(command, "number", "silent"))
    try:
        return await in_time(writer.submit(command, session_key(*ident, now), "mediation:test"))
    except Refused as refusal:
        return refusal.code


def update(number, used=0, requested=0, session="call-s"):
    return UpdateSession("switch", session, number, Report(used), requested)


def release(number, used=0, session="call-s"):
    return ReleaseSession("switch", session, number, Report(used))


def run(store, script, **options):
    async def opened():
        async with store.opened(**options) as writer:
            await furnish(writer, voice=1000)
            await script(writer)

    asyncio.run(opened())
    return [recorded(row) for row in store.rows()]


def of(told, kind):
    return [one for one in told if isinstance(one.event, kind)]


def test_a_session_is_charged_as_a_record_under_the_records_own_key(store):
    async def script(writer):
        first = await ask(writer, start(quantity=100))
        assert isinstance(first.events[0], SessionReserved)
        await ask(writer, update(2, 60, 60))
        await ask(writer, release(3, 1))

    told = run(store, script)
    (charged,) = of(told, UsageCharged)
    assert (charged.event.record_id, charged.event.quantity, charged.event.billed) == ("call-s", 61, 120)
    assert charged.command_key == usage_key("switch", "call-s", charged.event.started_at)
    plain = store.load_sealer().open(
        store.load_sealer().token(line(0)), charged.event.sealed, charged.command_key
    )
    assert msgspec.msgpack.decode(plain) == [line(0), "+442071838750"]


def test_the_same_number_again_is_answered_as_the_first_time(store):
    async def script(writer):
        asked = [start(quantity=60), update(2, 30, 60), release(3, 10)]
        first = [await ask(writer, one) for one in asked]
        seq = writer.seq
        # Days later, too: what was stored under the day of then is found.
        again = [await ask(writer, one, NOON + 3 * DAY) for one in asked]
        assert [one.repeated for one in again] == [True] * 3
        assert [one.events[0] for one in again] == [one.events[0] for one in first]
        assert writer.seq == seq
        assert await ask(writer, update(2, 31, 60)) == "idempotency_mismatch"
        assert await ask(writer, release(3, 11)) == "idempotency_mismatch"
        assert await ask(writer, start(quantity=61)) == "idempotency_mismatch"

    run(store, script)


def test_a_record_of_a_session_that_was_charged_waits_in_suspense(store):
    async def script(writer):
        await ask(writer, start(quantity=60))
        await ask(writer, release(2, 60))
        assert statuses(await charge(writer, call("s", 0, 60))) == ["suspended"]

    assert len(of(run(store, script), UsageCharged)) == 1


def test_a_session_whose_record_was_charged_is_not_opened(store):
    async def script(writer):
        await charge(writer, call("s", 0, 60))
        assert await ask(writer, start()) == "charged_already"

    run(store, script)


@pytest.mark.parametrize("end", ["release", "silence"])
def test_a_session_whose_record_came_meanwhile_is_not_charged_again(store, end):
    clock = [NOON]

    async def script(writer):
        await ask(writer, start(quantity=90))
        await ask(writer, update(2, 60, 0))
        assert statuses(await charge(writer, call("s", 0, 60))) == ["charged"]
        if end == "release":
            await ask(writer, release(3, 30))
        else:
            clock[0] += VALIDITY
            await ask(writer, ExpireSession("switch", "call-s"))
        assert not any(writer.state.families["voice", "2026-11"].reserved)
        writer.state.check_whole()

    told = run(store, script, clock=lambda: clock[0])
    assert len(of(told, UsageCharged)) == 1
    (waiting,) = of(told, UsageSuspended)
    assert waiting.event.reason == "conflicting_duplicate"
    raw = store.load_sealer().open(waiting.event.subject, waiting.event.sealed, waiting.command_key)
    record = msgspec.json.decode(raw)
    assert (record[1], record[2], record[4]) == ("call-s", line(0), 90 if end == "release" else 60)


def test_a_late_report_can_be_opened_like_any_other_charge(store):
    clock = [NOON]

    async def script(writer):
        await ask(writer, start(quantity=60))
        await ask(writer, update(2, 60, 60))
        clock[0] += VALIDITY
        expired = await ask(writer, ExpireSession("switch", "call-s"))
        assert isinstance(expired.events[0], SessionExpired)
        late = await ask(writer, release(3, 30))
        assert isinstance(late.events[0], SessionReleased)
        assert await ask(writer, release(4, 30)) == "unknown_session"

    first, late = of(run(store, script, clock=lambda: clock[0]), UsageCharged)
    assert (first.event.quantity, late.event.record_id, late.event.quantity) == (60, "call-s+late", 30)
    sealer = store.load_sealer()
    assert sealer.open(sealer.token(line(0)), late.event.sealed, late.command_key) is not None


@pytest.mark.parametrize("fate", ["lost", "unheard", "fenced"])
def test_a_failed_commit_neither_loses_nor_doubles_a_session(store, fate):
    async def script(writer):
        through = writer.store
        for number, asked in enumerate([start(quantity=60), update(2, 60, 60), release(3, 60)], 1):
            through.fates.append(fate)
            answer = await ask(writer, asked)
            assert answer.events[0].number == number

    through = Through(store.log)

    async def opened():
        async with store.opened(through) as writer:
            await furnish(writer, voice=1000)
            await script(writer)
            writer.state.check_whole()

    asyncio.run(opened())
    (charged,) = store.charges()
    assert charged.quantity == 120


def test_long_after_it_is_forgotten_a_session_is_still_charged_once(store, short_memory):
    async def script(writer):
        await ask(writer, start(quantity=60))
        for batch in range(8):
            await charge(writer, *(call(f"{batch}-{i}", 1, 1) for i in range(short_memory // 2)))
        await charge(writer, call("s", 0, 60))
        for batch in range(8, 16):
            await charge(writer, *(call(f"{batch}-{i}", 1, 1) for i in range(short_memory // 2)))
        assert (await ask(writer, start(quantity=60))).repeated
        await ask(writer, release(2, 60))

    told = run(store, script)
    assert [one.event.record_id for one in of(told, UsageCharged)].count("call-s") == 1
    assert [one.event.reason for one in of(told, UsageSuspended)] == ["conflicting_duplicate"]


def test_a_denied_session_is_remembered(store):
    async def script(writer):
        await submit(writer, SetLimit("emea", "voice", 0), "limit")
        answer = await ask(writer, start(quantity=60))
        assert isinstance(answer.events[0], SessionDenied)
        assert (await ask(writer, start(quantity=60))).repeated
        await submit(writer, SetLimit("emea", "voice", 100), "limit again")
        assert isinstance((await ask(writer, start(quantity=60, number=2))).events[0], SessionReserved)

    run(store, script)


# --- two lanes -------------------------------------------------------------------------------


def test_sessions_and_commands_go_before_the_records_that_wait(memory):
    order = []

    async def script(writer):
        async def noted(name, work):
            await work
            order.append(name)

        records = [call(i, 1, 1) for i in range(5_000)]
        bulk = [noted("bulk", charge(writer, *records[at : at + 500])) for at in range(0, 5_000, 500)]
        waiting = [asyncio.ensure_future(one) for one in bulk]
        await asyncio.sleep(0)
        await asyncio.gather(
            noted("session", ask(writer, start(quantity=60))),
            noted("event", in_time(writer.submit_usage([call("now", 2)], "m", first=True))),
            noted("command", submit(writer, SetLimit("emea", "voice", 10**9), "limit")),
        )
        await asyncio.gather(*waiting)

    run(memory, script)
    assert max(order.index(name) for name in ("session", "event", "command")) <= 4
    assert order.count("bulk") == 10


def test_who_authorises_is_answered_while_records_go_on(memory, monkeypatch):
    monkeypatch.setattr("allotment.backend.writer.GROUP_MAX", 10**9)
    answered = []

    async def script(writer):
        async def noted(name, work):
            await work
            answered.append(name)

        bulk = [charge(writer, *(call(f"{i}-{n}", 1, 1) for n in range(250))) for i in range(24)]
        waiting = [asyncio.ensure_future(noted("bulk", one)) for one in bulk]
        await asyncio.sleep(0)
        await noted("session", ask(writer, start(quantity=60)))
        assert answered.index("session") <= 6
        await asyncio.gather(*waiting)

    run(memory, script)


def test_however_much_there_is_to_authorise_records_go_on(memory, monkeypatch):
    monkeypatch.setattr("allotment.backend.writer.SLICE_MAX", 20)
    monkeypatch.setattr("allotment.backend.writer.BULK_SHARE", 4)
    monkeypatch.setattr("allotment.backend.writer.SLICE_BESIDE", 4)
    monkeypatch.setattr("allotment.backend.writer.GROUP_MAX", 40)

    async def script(writer):
        events = [
            asyncio.ensure_future(writer.submit_usage([call(f"f{i}", 1, 1)], "m", first=True))
            for i in range(400)
        ]
        await asyncio.sleep(0)
        bulk = asyncio.ensure_future(charge(writer, *(call(f"b{i}", 2, 1) for i in range(40))))
        await in_time(asyncio.gather(*events, bulk))

    charged = [one.event.record_id for one in of(run(memory, script), UsageCharged)]
    first_slices = charged[:400]
    bulk = sum(1 for ident in first_slices if ident.startswith("call-b"))
    assert bulk == 40
    assert [ident for ident in charged if ident.startswith("call-f")] == [f"call-f{i}" for i in range(400)]


def test_a_full_inbox_of_records_turns_no_session_away(memory, monkeypatch):
    monkeypatch.setattr("allotment.backend.writer.INBOX_MAX", 100)

    async def script(writer):
        bulk = asyncio.ensure_future(charge(writer, *(call(i, 1, 1) for i in range(2_000))))
        await asyncio.sleep(0)
        assert (await ask(writer, start(quantity=60))).events
        await bulk

    run(memory, script)


# --- the engine --------------------------------------------------------------------------------


def test_the_engine_ends_silent_sessions_and_keeps_their_tenant_in_memory(isolation):
    clock = [NOON]

    async def scenario():
        store = Store(isolation)
        async with Engine(isolation, RootKey(b"r" * 32), clock=lambda: clock[0]) as engine:
            writer = await engine.writer(store.tenant)
            await furnish(writer, voice=1000)
            await engine.authorise(store.tenant, start(quantity=60), "m")
            await engine.authorise(store.tenant, update(2, 60, 60), "m")
            assert await engine.time.carry_out() == 0
            engine._idle_seconds = 0
            await look_for_idle(engine)
            assert store.tenant in engine.open_writers()
            clock[0] += VALIDITY
            assert await engine.time.carry_out() == 1
            assert await engine.time.carry_out() == 0
            assert not writer.state.sessions.open
            await look_for_idle(engine)
            assert store.tenant not in engine.open_writers()
            outcome = await engine.charge_now(store.tenant, call("now"), "m")
            assert outcome.status == "charged"
        return store

    store = asyncio.run(scenario())
    assert [charge.quantity for charge in store.charges()] == [60, 61]
    assert verifying.verify(isolation, store.tenant).problem == ""


async def look_for_idle(engine):
    """Twice: at the first look it is seen where the writer stands."""
    for _ in range(2):
        await asyncio.sleep(0.02)
        await engine.close_idle()


def test_open_sessions_survive_a_restart(isolation):
    async def scenario():
        store = Store(isolation)
        async with store.opened() as writer:
            await furnish(writer, voice=1000)
            await ask(writer, start(quantity=60))
            before = [*canonical.lines(writer.state)]
        async with store.opened() as writer:
            assert [*canonical.lines(writer.state)] == before
            assert (await ask(writer, release(2, 60))).events[1].quantity == 60
        return store

    assert len(asyncio.run(scenario()).charges()) == 1
