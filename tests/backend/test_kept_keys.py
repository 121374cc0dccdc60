"""Keys in snapshots: told once, in pieces; whatever was forgotten again by then is in the tables."""

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from backend.test_snapshots import Snapshotted, settle
from fixtures_writer import call, charge, furnish, statuses

from allotment.backend import seen, snapshots
from allotment.backend.keys import TIME_BYTES
from allotment.backend.native import using
from allotment.backend.seen import SeenKeys, count_of, together

DIGEST, CHARGED, REJECTED = bytes(8), b"\x01", b"\x02"


def keys_of(first: int, last: int) -> list[bytes]:
    return [b"\x01\x02" + number.to_bytes(14, "big") for number in range(first, last)]


@pytest.mark.parametrize("natively", [True, False])
def test_an_account_tells_what_came_since_the_last_once(natively):
    known = SeenKeys(100)
    if not natively:
        with using.python_only():
            enter(known)
            check(known)
    else:
        enter(known)
        check(known)


def enter(known: SeenKeys) -> None:
    known.add_all(keys_of(0, 30), [DIGEST] * 30, CHARGED)
    known.add(keys_of(30, 31)[0], DIGEST, REJECTED)
    known.gather(b"".join(keys_of(31, 40)), DIGEST * 9, CHARGED)


def check(known: SeenKeys) -> None:
    told, whole = known.account()
    assert whole
    put = together(told)
    assert {(one.generation, one.status): len(one.keys) // 16 for one in put} == {
        (0, CHARGED): 39,
        (0, REJECTED): 1,
    }
    assert count_of(put) == 40
    assert known.account() == ([], True)


def test_an_account_says_when_keys_were_forgotten_before_anybody_asked():
    known = SeenKeys(10)
    for first in range(0, 35, 5):
        known.add_all(keys_of(first, first + 5), [DIGEST] * 5, CHARGED)
    told, whole = known.account()
    assert not whole
    assert known.generation == 3
    assert {one.generation for one in told} == {2, 3}
    known.add_all(keys_of(35, 40), [DIGEST] * 5, CHARGED)
    assert known.account().whole


@pytest.mark.parametrize(("recent", "table_after", "pieces"), [(60, 0, 128), (60, 500, 128), (100, 10**6, 3)])
def test_after_any_snapshot_every_key_is_held_or_asked_for(
    isolation, monkeypatch, recent, table_after, pieces
):
    """Few are held, tables are stored at every chance, or hardly ever, and pieces put together."""
    monkeypatch.setattr(snapshots, "EVENTS_PER_BYTE", 0)
    monkeypatch.setattr(snapshots, "TABLE_AFTER", table_after)
    monkeypatch.setattr(snapshots, "PIECES_MAX", pieces)
    monkeypatch.setattr(seen, "FIRST_LEVEL_BITS", 3)
    monkeypatch.setattr(snapshots, "SeenKeys", lambda: SeenKeys(recent))
    monkeypatch.setattr("allotment.backend.deciding.SeenKeys", lambda: SeenKeys(recent))

    async def run() -> None:
        with ThreadPoolExecutor(2) as threads:
            store, chance, came = Snapshotted(isolation, threads, 40), random.Random(recent), 0
            for turn in range(4):
                store.log = store.fresh_log()
                async with store.opened(store.log) as writer:
                    if not turn:
                        await furnish(writer)
                    for _ in range(4):
                        more = chance.randrange(20, 70)
                        assert set(statuses(await charge(writer, *map(call, range(came, came + more))))) == {
                            "charged"
                        }
                        came += more
                    await settle(store, 1)
                assert store.began_at() > 0
                held, doubtful = in_the_log(store, store.loaded())
                assert held >= min(recent, came) - 10
                assert held + doubtful >= came
            async with store.opened(store.fresh_log()) as writer:
                again = await charge(writer, *map(call, range(came)))
            assert set(statuses(again)) == {"duplicate"}

    asyncio.run(run())


def in_the_log(store, decider) -> tuple[int, int]:
    """Of the keys in the log: how many are held, and of how many the log would be asked."""
    rows = store.ask("SELECT command_key FROM events WHERE command_key IS NOT NULL")
    held, doubtful = decider.seen.sort_out([bytes(key)[TIME_BYTES:] for (key,) in rows])
    assert len(held) + len(doubtful) == len(rows)
    return len(held), len(doubtful)


def test_a_snapshot_that_failed_is_followed_by_one_that_tells_all(isolation, monkeypatch):
    monkeypatch.setattr(snapshots, "EVENTS_PER_BYTE", 0)

    async def run() -> None:
        with ThreadPoolExecutor(2) as threads:
            store = Snapshotted(isolation, threads, 10**6)
            async with store.opened() as writer:
                await furnish(writer)
                await charge(writer, *map(call, range(50)))
            decider = store.loaded()
            assert decider.snapshots is not None
            insert = decider.snapshots._insert
            monkeypatch.setattr(decider.snapshots, "_insert", None)
            decider.snapshots._write(decider.snapshots._copy(), 0)
            assert decider.snapshots._lost
            monkeypatch.setattr(decider.snapshots, "_insert", insert)
            decider.snapshots._write(decider.snapshots._copy(), 0)
            assert store.began_at() == decider.head.seq
            assert in_the_log(store, store.loaded())[0] >= 50

    asyncio.run(run())


def test_a_table_that_is_full_to_the_key_is_kept_and_read_again(isolation, monkeypatch):
    monkeypatch.setattr(snapshots, "EVENTS_PER_BYTE", 0)
    monkeypatch.setattr(snapshots, "TABLE_AFTER", 0)
    monkeypatch.setattr(seen, "FIRST_LEVEL_BITS", 4)

    async def furnished(store) -> None:
        async with store.opened() as writer:
            await furnish(writer)

    with ThreadPoolExecutor(2) as threads:
        store, chance = Snapshotted(isolation, threads, 10**6), random.Random(1)
        asyncio.run(furnished(store))
        decider = store.loaded()
        decider.seen.settle()
        room = decider.seen.levels()[-1][1]
        given = [chance.randbytes(16) for _ in range(room)]
        decider.seen.add_all(given, [DIGEST] * room, CHARGED)
        assert [left for _, left, _ in decider.seen.levels()] == [0]
        decider.snapshots._write(decider.snapshots._copy(), 0)
        assert store.began_at() == decider.head.seq
        loaded = store.loaded().seen
    assert loaded.levels()[0] == decider.seen.levels()[0]
    assert loaded.sort_out([key[TIME_BYTES:] for key in given]) == ([*range(room)], [])


def test_a_large_part_is_written_and_read_row_by_row(isolation, monkeypatch):
    monkeypatch.setattr(snapshots, "ROW_BYTES", 300)
    monkeypatch.setattr(snapshots, "ROW_PAUSE_SECONDS", 0)

    async def run() -> None:
        with ThreadPoolExecutor(2) as threads:
            store = Snapshotted(isolation, threads, 40)
            async with store.opened() as writer:
                await furnish(writer)
                await charge(writer, *map(call, range(60)))
                await charge(writer, call(60))
                await settle(store, 1)
            rows = [part for _, part in store.kept()]
            assert {"structure", "structure~1", "structure~2", "counters~1", "keys-held~1"} < set(rows)
            assert store.began_at() == store.mains()[-1]
            store.do("DELETE FROM snapshots WHERE part = 'structure~1'")
            assert store.began_at() == 0

    asyncio.run(run())
