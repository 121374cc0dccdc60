"""Keys without a moment, as releases before decision 0049 stored them: known for ever like all others."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256

import pytest
from backend.test_sessions import ask, of, release, start, update
from backend.test_snapshots import Snapshotted, settle
from fixtures_writer import NOON, SECOND, call, charge, furnish, line, statuses, submit, unreadable

from allotment.backend import deciding, snapshots, verifying
from allotment.backend.charges import stored
from allotment.backend.keys import (
    TIME_BYTES,
    conflict_key,
    replacing_keys,
    session_key,
    usage_key,
    usage_keys,
)
from allotment.backend.log import Group, PostgresLog, recorded
from allotment.backend.native import using
from allotment.backend.rerated_chain import Chain, Unchained
from allotment.backend.seen import SeenKeys
from allotment.backend.timekeeping import due_key
from allotment.domain.charging import UsageCharged, UsageSuspended
from allotment.domain.contract import OpenPeriod
from allotment.domain.limit import SetLimit
from allotment.domain.rerated import UsageRerated

HOUR = 3_600 * SECOND


@pytest.fixture(params=["natively", "in Python"])
def either_way(request):
    if request.param == "natively":
        yield
    else:
        with using.python_only():
            yield


@pytest.fixture
def forgetful(monkeypatch):
    """Two generations of ten keys are held: of all others the log is asked."""
    monkeypatch.setattr("allotment.backend.deciding.SeenKeys", lambda: SeenKeys(10))
    monkeypatch.setattr(snapshots, "SeenKeys", lambda: SeenKeys(10))


@contextmanager
def earlier_release(*records):
    """While this lasts these records are stored, and sessions sealed, under keys of the earlier form."""
    earlier = dict(usage_keys(one.source, one.record_id, one.started_at) for one in records)
    add_all, usual = Group.add_all, deciding.usage_key

    def stored_earlier(group, topics, states, keys):
        add_all(group, topics, states, [earlier.get(key, key) for key in keys])

    Group.add_all = stored_earlier
    deciding.usage_key = lambda *named: usage_keys(*named)[1]
    try:
        yield
    finally:
        Group.add_all, deciding.usage_key = add_all, usual


def keys_in(store) -> set[bytes]:
    return {row.command_key for row in store.rows() if row.command_key is not None}


def test_records_stored_under_earlier_keys_are_known_after_a_cold_start(store, forgetful, either_way):
    earlier = [call(number, number % 10) for number in range(60)]
    since = [call(number, number % 10) for number in range(60, 120)]

    async def run():
        with earlier_release(*earlier):
            async with store.opened() as writer:
                await furnish(writer)
                assert set(statuses(await charge(writer, *earlier))) == {"charged"}
        async with store.opened() as writer:
            assert set(statuses(await charge(writer, *since))) == {"charged"}
            assert set(statuses(await charge(writer, *since, *earlier))) == {"duplicate"}
        async with store.opened() as writer:
            end = writer.seq
            assert set(statuses(await charge(writer, *earlier, *since))) == {"duplicate"}
            assert writer.seq == end

    asyncio.run(run())
    named = [(one.source, one.record_id, one.started_at) for one in earlier]
    assert {usage_keys(*one)[1] for one in named} < keys_in(store)
    assert keys_in(store).isdisjoint(usage_key(*one) for one in named)
    assert {usage_key(one.source, one.record_id, one.started_at) for one in since} < keys_in(store)
    assert len(store.charges()) == 120


@pytest.mark.parametrize("later", [30 * SECOND, -5 * HOUR, 0 - 30 * HOUR])
@pytest.mark.parametrize("form", ["earlier", "new"])
def test_the_same_record_at_another_time_is_a_contradiction_and_is_kept_once(
    store, forgetful, either_way, later, form
):
    """Of the same day the unique index said so before; now what is known of the log does."""
    records = [call(number, number % 10) for number in range(40)]
    moved = [call(number, number % 10, started_at=NOON - 60 * SECOND + later) for number in range(40)]

    async def run():
        with earlier_release(*(records if form == "earlier" else [])):
            async with store.opened() as writer:
                await furnish(writer)
                await charge(writer, *records)
        for expected in ("suspended", "duplicate"):
            async with store.opened() as writer:
                assert set(statuses(await charge(writer, *moved))) == {expected}
                assert set(statuses(await charge(writer, *records))) == {"duplicate"}

    asyncio.run(run())
    assert len(store.charges()) == 40


def test_a_writer_that_takes_over_knows_what_the_one_before_stored(store, forgetful, either_way):
    earlier = [call(number) for number in range(30)]

    async def run():
        with earlier_release(*earlier):
            async with store.opened() as writer:
                await furnish(writer)
                await charge(writer, *earlier)
                async with store.opened() as taken_over:
                    assert set(statuses(await charge(taken_over, *earlier))) == {"duplicate"}
                    assert statuses(await charge(taken_over, call(30))) == ["charged"]
                # It reads back what was stored without it.
                again = await charge(writer, *earlier, call(30), call(31))
                assert statuses(again) == ["duplicate"] * 31 + ["charged"]

    asyncio.run(run())
    assert len(store.charges()) == 32


def test_a_snapshot_keeps_keys_of_both_forms(isolation, forgetful, monkeypatch):
    monkeypatch.setattr(snapshots, "EVENTS_PER_BYTE", 0)
    monkeypatch.setattr(snapshots, "TABLE_AFTER", 20)
    earlier, since = ([call(number) for number in range(first, first + 80)] for first in (0, 80))

    async def run():
        with ThreadPoolExecutor(2) as threads:
            store = Snapshotted(isolation, threads, 40)
            with earlier_release(*earlier):
                # Of that release no snapshot fits.
                async with store.opened(PostgresLog(isolation, store.tenant)) as writer:
                    await furnish(writer)
                    await charge(writer, *earlier)
            store.log = store.fresh_log()
            async with store.opened() as writer:
                await charge(writer, *since)
                await settle(store, 1)
            assert store.began_at() > 0
            async with store.opened(store.fresh_log()) as writer:
                assert set(statuses(await charge(writer, *earlier, *since))) == {"duplicate"}

    asyncio.run(run())


def test_a_command_and_what_could_not_be_read_have_the_keys_they_always_had(store, forgetful):
    def hashed(what):
        return sha256(what.encode()).digest()[:14]

    async def run():
        async with store.opened() as writer:
            await furnish(writer)
            first = await submit(writer, SetLimit("emea", "voice", 5), "limit")
            await charge(writer, *(call(number) for number in range(40)), unreadable(41))
        async with store.opened() as writer:
            again = await submit(writer, SetLimit("emea", "voice", 5), "limit")
            assert (again.repeated, again.first_seq) == (True, first.first_seq)
            assert statuses(await charge(writer, unreadable(41))) == ["duplicate"]

    asyncio.run(run())
    assert b"\xff\xff" + hashed("command\x1flimit") in keys_in(store)
    assert bytes(2) + hashed("usage\x1fswitch\x1fcall-41") in keys_in(store)
    named = hashed("usage\x1fa\x1fb").hex()
    assert conflict_key("a", "b", b"12345678") == bytes(2) + hashed(
        f"conflict\x1f{named}\x1f3132333435363738"
    )
    assert due_key(OpenPeriod("2026-11"))[:2] == b"\xff\xff"


def test_a_session_that_runs_over_the_upgrade_is_charged_under_the_key_it_was_sealed_for(postgres):
    async def run():
        with earlier_release():
            async with postgres.opened() as writer:
                await furnish(writer, voice=1000)
                await ask(writer, start(quantity=100))
                await ask(writer, update(2, 60, 60))
        async with postgres.opened() as writer:
            await ask(writer, release(3, 1))
            assert statuses(await charge(writer, call("s"))) == ["suspended"]

    asyncio.run(run())
    told = [recorded(row) for row in postgres.rows()]
    (charged,) = of(told, UsageCharged)
    sealer, named = postgres.load_sealer(), ("switch", "call-s", charged.event.started_at)
    assert charged.command_key == usage_keys(*named)[1] != usage_key(*named)
    assert sealer.open(sealer.token(line(0)), charged.event.sealed, charged.command_key) is not None
    assert [one.event.reason for one in of(told, UsageSuspended)] == ["conflicting_duplicate"]
    report = verifying.verify(postgres.isolation, postgres.tenant, projections=False)
    assert report.ok, report.problem


def test_a_report_of_a_session_is_answered_again_at_another_moment(store, forgetful):
    """A key of its own moment, and of the same identity."""

    async def run():
        async with store.opened() as writer:
            await furnish(writer, voice=1000)
            first = await ask(writer, start(quantity=60))
            await charge(writer, *(call(number) for number in range(40)))
            for later in (2 * SECOND, HOUR, 30 * HOUR):
                again = await ask(writer, start(quantity=60), NOON + later)
                assert (again.repeated, again.events) == (True, first.events)

    asyncio.run(run())
    keys = [session_key("switch", "call-s", 1, NOON + later) for later in (0, 2 * SECOND)]
    assert keys[0] != keys[1]
    assert keys[0][TIME_BYTES:] == keys[1][TIME_BYTES:]


@pytest.mark.parametrize("form", [0, 1])
def test_a_charge_is_replaced_once_under_a_key_of_either_form(postgres, form):
    async def run():
        async with postgres.opened() as writer:
            await furnish(writer)
            await charge(writer, call(1))

    asyncio.run(run())
    charged = postgres.charges()[0]
    seq = postgres.rows()[-1].seq
    event = UsageRerated(seq, seq, "j-1", "tariff", None, charged)
    chain = Chain(PostgresLog(postgres.isolation, postgres.tenant))
    chain._back[seq] = (seq, charged)
    chain.check_made_again(event, replacing_keys(seq, charged.started_at)[form])
    with pytest.raises(Unchained, match="twice"):
        chain.check_made_again(event, replacing_keys(seq, charged.started_at)[1 - form])
    log = PostgresLog(postgres.isolation, postgres.tenant)
    keys = usage_keys(charged.source, charged.record_id, charged.started_at)
    assert stored(log, keys) == {keys[0]}
