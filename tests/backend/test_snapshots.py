"""Snapshots in PostgreSQL: with them, without them, or with wrong ones, a log comes to the same."""

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import msgspec
import pytest
from backend.faults.proxy import Proxy
from fixtures_writer import NOON, ROOT, Store, call, charge, furnish, in_time, statuses, submit
from patience import until_there

from allotment.backend import folding, snapshots
from allotment.backend.deciding import Decider
from allotment.backend.engine import Engine
from allotment.backend.key_table import ENTRY_BYTES, SHELF_BYTES, SLOTS
from allotment.backend.keys import TIME_BYTES
from allotment.backend.log import Head
from allotment.backend.reading_log import Chunk, chunk_of, fetch, unfold
from allotment.backend.seen import SeenKeys
from allotment.backend.snapshots import Folded, SnapshottedLog, fold
from allotment.backend.writer import SEND_MAX, Writer
from allotment.domain import canonical
from allotment.domain.brief import ChargeInBrief
from allotment.domain.hierarchy import MoveResource
from allotment.domain.limit import SetLimit
from allotment.domain.tenant import Tenant
from allotment.tenants.isolation import Isolation

EVERY = 40


class Snapshotted(Store):
    """A tenant whose log takes a snapshot every few events."""

    def __init__(self, isolation, executor, every=EVERY) -> None:
        super().__init__(isolation)
        self.executor, self.every = executor, every
        self.log = self.fresh_log()

    def fresh_log(self) -> SnapshottedLog:
        return SnapshottedLog(self.isolation, self.tenant, self.executor, every=self.every)

    def kept(self) -> list[tuple[int, str]]:
        return self.ask("SELECT seq, part FROM snapshots ORDER BY seq, part")

    def mains(self) -> list[int]:
        return [seq for seq, part in self.kept() if part == "main"]

    def ask(self, statement, *values):
        with self.isolation.transaction(self.tenant) as db:
            return db.execute(statement, values or None).fetchall()

    def do(self, statement, *values) -> None:
        with self.isolation.transaction(self.tenant) as db:
            db.execute(statement, values or None)

    def loaded(self) -> Decider:
        return Decider.load(self.fresh_log(), self.load_sealer)

    def began_at(self) -> int:
        """The seq of the snapshot that a load begins with now; 0 for none."""
        store = self.fresh_log()
        return snapshots.load(store, store.claim(), SeenKeys).snapshot


@pytest.fixture
def executor():
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def snapshotted(isolation, executor, monkeypatch):
    monkeypatch.setattr(snapshots, "EVENTS_PER_BYTE", 0)
    return lambda every=EVERY: Snapshotted(isolation, executor, every)


def in_any_order(shelves) -> dict:
    """What stands on which shelf of a table of keys: a log that is folded enters some in another order."""
    entries = range(SLOTS, SLOTS + SLOTS * ENTRY_BYTES, ENTRY_BYTES)
    return {
        shelf: sorted(
            (shelves[shelf + slot], bytes(shelves[shelf + at : shelf + at + ENTRY_BYTES]))
            for slot, at in enumerate(entries)
        )
        for shelf in range(0, len(shelves), SHELF_BYTES)
        if shelves[shelf]
    }


def state_of(decider) -> tuple:
    kept = decider.seen.copy()
    levels = [(size_bits, room, in_any_order(shelves)) for size_bits, room, shelves in kept.levels]
    keys = (kept.forgotten, set(kept.days), kept.young, kept.old, levels)
    return [*canonical.lines(decider.state)], keys, decider.recorded_at, decider.head.seq, decider.head.peaks


async def busy(writer: Writer, seed: int, steps: int = 60) -> list[str]:
    """A history by chance, with duplicates, refusals and changes of structure."""
    chance, told = random.Random(seed), []
    for step in range(steps):
        ids = [chance.randrange(10 * steps) for _ in range(chance.randrange(1, 6))]
        told += statuses(await charge(writer, *(call(i, i % 12, 1 + i % 200) for i in ids)))
        if chance.random() < 0.1:
            await submit(writer, SetLimit("emea", "voice", chance.randrange(10**6)), f"limit {seed} {step}")
        if chance.random() < 0.1:
            move = MoveResource(f"r{step % 10}", chance.choice(["emea", "sales"]), NOON + seed * 1000 + step)
            await submit(writer, move, f"move {seed} {step}")
    return told


async def settle(store, seq: int = 0) -> None:
    """Until the snapshots taken so far are written."""
    taken = store.log.snapshots
    await until_there(lambda: not taken._writing.locked() and (not seq or taken.last >= seq))


def full_fold(store) -> Decider:
    head = store.log.claim()
    folded = fold(store.log, head, Folded(Tenant(), SeenKeys(), 0, 0))
    return Decider(folded.state, folded.seen, store.load_sealer(), head, folded.recorded_at)


@pytest.mark.parametrize("seed", range(4))
def test_a_snapshot_and_its_tail_are_the_whole_log(seed, snapshotted):
    async def run() -> None:
        store = snapshotted()
        async with store.opened() as writer:
            await furnish(writer, voice=100_000)
            await busy(writer, seed)
            await settle(store)
        assert store.mains()
        decider = store.loaded()
        assert store.began_at() == store.mains()[-1]
        assert state_of(decider)[:3] == state_of(full_fold(store))[:3]

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(3))
def test_from_any_seq_the_same_bytes_and_the_same_next_answers(seed, snapshotted):
    async def run() -> None:
        store = snapshotted(10**9)
        async with store.opened() as writer:
            await furnish(writer, voice=50_000)
            await busy(writer, seed, 30)
        end = store.log.head().seq
        expected = state_of(full_fold(store))
        for seq in random.Random(seed).sample(range(1, end + 1), 6):
            store.do("DELETE FROM snapshots")
            snapshot_at(store, seq)
            assert store.began_at() == seq
            assert state_of(store.loaded())[:3] == expected[:3]
        async with store.opened(store.fresh_log()) as writer:
            again = await busy(writer, seed, 30)
        assert set(again) == {"duplicate"}

    asyncio.run(run())


def snapshot_at(store, seq: int) -> None:
    """Write the snapshot that a writer would have written at that seq."""
    rows = store.log.read(0, 10**6, seq)
    chunk = chunk_of(rows)
    assert chunk is not None
    state, seen, peaks = Tenant(), SeenKeys(), []
    folding.apply_chunk(state, seen, chunk)
    snapshots.proof.append_all(peaks, 0, snapshots.proof.unpack(chunk.leaves))
    head = Head(seq, store.log.head().epoch, peaks)
    decider = Decider(state, seen, store.load_sealer(), head, chunk.recorded_at)
    log = store.fresh_log()
    log.snapshots.serve(decider, 0)
    log.snapshots._write(log.snapshots._copy(), 0)
    assert (seq, "main") in store.kept()


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM snapshots",
        "DELETE FROM snapshots WHERE part = 'structure'",
        "DELETE FROM snapshots WHERE part = 'keys-held'",
    ],
)
def test_whatever_is_missing_of_snapshots_changes_nothing(damage, snapshotted):
    async def run() -> None:
        store = snapshotted()
        async with store.opened() as writer:
            await furnish(writer)
            await busy(writer, 1, 30)
            await settle(store)
        assert store.began_at() > 0
        before = state_of(store.loaded())
        store.do(damage)
        assert store.began_at() == 0
        assert state_of(store.loaded())[:3] == before[:3]

    asyncio.run(run())


@pytest.mark.parametrize("fault", ["reducer", "garbled", "peaks", "other log"])
def test_a_snapshot_that_does_not_belong_is_passed_over(fault, snapshotted, database):
    async def run() -> None:
        store, other = snapshotted(), snapshotted()
        for one, seconds in ((store, 61), (other, 62)):
            async with one.opened() as writer:
                await furnish(writer)
                await charge(writer, *(call(i, seconds=seconds) for i in range(60)))
                await charge(writer, call(1000))
                await settle(one)
        assert store.began_at() > 0
        tamper(fault, store, other)
        assert store.began_at() == 0
        assert state_of(store.loaded())[:2] == state_of(full_fold(store))[:2]

    asyncio.run(run())


def tamper(fault, store, other) -> None:
    """Only INSERT and DELETE are allowed, so a row is replaced, not changed."""
    source = other if fault == "other log" else store
    rows = source.ask("SELECT seq, part, reducer, state, uses FROM snapshots")
    store.do("DELETE FROM snapshots")
    for seq, part, reducer, state, uses in rows:
        if part == "main":
            if fault == "reducer":
                reducer = bytes(16)
            elif fault == "garbled":
                state = state[: len(state) // 2]
            elif fault == "peaks":
                main = snapshots._decode_main(state)
                state = snapshots._encode(msgspec.structs.replace(main, peaks=bytes(len(main.peaks))))
        store.do(
            "INSERT INTO snapshots (seq, part, reducer, state, uses) VALUES (%s, %s, %s, %s, %s)",
            seq,
            part,
            reducer,
            state,
            uses,
        )


def test_the_newest_two_are_kept_and_parts_that_did_not_change_are_shared(snapshotted):
    async def run() -> None:
        store = snapshotted()
        async with store.opened() as writer:
            await furnish(writer)
            for first in range(0, 600, 60):
                await charge(writer, *(call(i) for i in range(first, first + 60)))
                await charge(writer, call(10_000 + first))
                await settle(store)
        mains = store.mains()
        assert len(mains) == 2
        assert [part for _, part in store.kept()].count("structure") == 1
        assert min(seq for seq, part in store.kept() if part == "structure") < mains[0]
        assert store.began_at() == mains[-1]

    asyncio.run(run())


def test_a_snapshot_of_what_was_never_committed_is_not_written(snapshotted):
    async def run() -> None:
        store = snapshotted(10**9)
        async with store.opened() as writer:
            await furnish(writer)
        decider = store.loaded()
        assert decider.snapshots is not None
        decider.head = Head(decider.head.seq + 1, decider.head.epoch, decider.head.peaks)
        decider.snapshots._write(decider.snapshots._copy(), 0)
        assert store.kept() == []
        # Nor by a writer that has lost the log.
        decider.head = Head(decider.head.seq - 1, decider.head.epoch, decider.head.peaks)
        store.log.claim()
        decider.snapshots._write(decider.snapshots._copy(), 0)
        assert store.kept() == []

    asyncio.run(run())


def test_a_structure_that_moves_while_it_is_read_gives_no_snapshot(snapshotted, monkeypatch):
    store = snapshotted(10**9)

    async def run() -> None:
        async with store.opened() as writer:
            await furnish(writer)

    asyncio.run(run())
    decider = store.loaded()
    real = snapshots.encode_structure

    def moving(state, moved):
        decider.restructured += 1
        return real(state, moved)

    monkeypatch.setattr(snapshots, "encode_structure", moving)
    assert decider.snapshots is not None
    decider.snapshots._write(decider.snapshots._copy(), 0)
    assert store.kept() == []


def told_in_brief(chunk: Chunk) -> Chunk:
    """The charges as the fields that both ways of reading know."""
    names = [name for name in ChargeInBrief.__struct_fields__ if name not in ("exact", "sealed", "ruling")]
    brief = [
        (one.schema, one.actor, one.digest, *(getattr(one.event, name) for name in names))
        for one in chunk.charges
    ]
    return chunk._replace(charges=brief)


def test_chunks_put_together_by_the_server_are_the_rows(snapshotted):
    async def run() -> None:
        store = snapshotted(10**9)
        async with store.opened() as writer:
            await furnish(writer)
            await busy(writer, 3, 20)
        end = store.log.head().seq
        chunk = unfold(store.log, fetch(store.log, 0, end, leaves=True))
        rows = chunk_of(store.log.read(0, end, end))
        assert rows is not None
        assert told_in_brief(chunk) == told_in_brief(rows)
        without_leaves = unfold(store.log, fetch(store.log, 0, end, leaves=False))
        assert told_in_brief(without_leaves) == told_in_brief(chunk._replace(leaves=b""))
        assert [*folding.pieces(store.log, end, end)] == []

    asyncio.run(run())


def test_many_keys_at_once_are_known_as_one_by_one(snapshotted):
    chance = random.Random(1)
    keys = [chance.randbytes(2) + chance.randbytes(14) for _ in range(500)]
    keys += keys[:50]
    digests = [chance.randbytes(8) for _ in keys]
    one_by_one, at_once = SeenKeys(60), SeenKeys(60)
    for key, digest in zip(keys, digests, strict=True):
        one_by_one.add(key, digest, b"\x01")
        one_by_one.settle()
    for first in range(0, len(keys), 170):
        at_once.add_all(keys[first : first + 170], digests[first : first + 170], b"\x01")
    for seen in (one_by_one, at_once):
        assert seen.forgotten
        for key, digest in zip(keys[50:], digests[50:], strict=True):
            held, ident = seen.recall(key[TIME_BYTES:]), key[TIME_BYTES:]
            assert held == key[:TIME_BYTES] + digest + b"\x01" or seen.sort_out([ident]) == ([], [key[2:]])
            assert key in seen.candidates(key[2:])
        assert len(seen.sort_out([chance.randbytes(12) for _ in range(1_000)])[1]) < 20


def test_a_large_group_is_stored_while_every_thread_has_a_snapshot_that_waits(isolation):
    async def run() -> None:
        store, goes = Store(isolation), threading.Event()
        async with store.opened() as writer:
            await furnish(writer)
        async with Engine(isolation, ROOT, clock=lambda: NOON, following=False) as engine:
            await engine.writer(store.tenant)
            snapshots_that_wait = [asyncio.create_task(engine.in_thread(goes.wait)) for _ in range(40)]
            try:
                calls = [call(i) for i in range(SEND_MAX + 1)]
                told = await asyncio.wait_for(engine.charge(store.tenant, calls, "m"), 10)
            finally:
                goes.set()
                await asyncio.gather(*snapshots_that_wait)
            assert statuses(told) == ["charged"] * len(calls)

    asyncio.run(run())


# --- idle tenants --------------------------------------------------------------------------------


def test_an_idle_tenant_leaves_memory_and_comes_back(isolation):
    async def run() -> None:
        store = Store(isolation)
        async with store.opened() as writer:
            await furnish(writer)
        async with Engine(isolation, ROOT, clock=lambda: NOON, idle_seconds=0.05) as engine:
            await engine.writer(store.tenant)
            await in_time(gone(engine, store.tenant))
            assert statuses(await engine.charge(store.tenant, [call(1)], "m")) == ["charged"]
            assert statuses(await engine.charge(store.tenant, [call(1)], "m")) == ["duplicate"]

    asyncio.run(run())


async def gone(engine, tenant) -> None:
    while tenant in engine.open_writers():  # noqa: ASYNC110  (nobody tells of it)
        await asyncio.sleep(0.01)


def test_no_request_is_lost_while_tenants_come_and_go(isolation):
    async def run() -> None:
        store = Store(isolation)
        async with store.opened() as writer:
            await furnish(writer)
        async with Engine(isolation, ROOT, clock=lambda: NOON, idle_seconds=0.0) as engine:

            async def client(number: int) -> list[str]:
                told = []
                for i in range(15):
                    told += statuses(await engine.charge(store.tenant, [call(f"{number}-{i}")], "m"))
                    await asyncio.sleep(random.random() / 50)
                return told

            async def sweeper() -> None:
                while True:
                    await engine.close_idle()
                    await asyncio.sleep(0)

            sweeping = asyncio.create_task(sweeper())
            told = await in_time(asyncio.gather(*(client(number) for number in range(3))), 60)
            sweeping.cancel()
            assert [status for one in told for status in one] == ["charged"] * 45
        assert len(store.charged_ids()) == 45

    asyncio.run(run())


@pytest.mark.parametrize("reading", ["_newest", "_read_parts"])
def test_a_database_that_goes_away_while_a_snapshot_is_read_is_waited_for(
    reading, snapshotted, database, executor, monkeypatch
):
    """An outage says nothing about the snapshot: the load is tried again, and begins with it."""

    async def run() -> None:
        store = snapshotted()
        async with store.opened() as writer:
            await furnish(writer)
            await busy(writer, 1, 30)
            await settle(store)
        newest = store.mains()[-1]
        with Proxy(database) as proxy:
            behind = Isolation(proxy.url)
            log = SnapshottedLog(behind, store.tenant, executor, every=EVERY)
            read, cut = getattr(snapshots.Snapshots, reading), []

            def cut_once(self, *asked):
                if not cut:
                    cut.append(True)
                    proxy.refusing = True
                    proxy.cut()
                    behind._pool("app").timeout = 0.3
                    asyncio.run_coroutine_threadsafe(come_back(), loop)
                return read(self, *asked)

            async def come_back() -> None:
                await asyncio.sleep(0.5)
                proxy.refusing = False
                behind._pool("app").timeout = 10

            loop = asyncio.get_running_loop()
            monkeypatch.setattr(snapshots.Snapshots, reading, cut_once)
            async with store.opened(log) as writer:
                assert cut
                assert log.snapshots.last == newest
                assert statuses(await charge(writer, call(10**6))) == ["charged"]
            await loop.run_in_executor(None, behind.close)

    asyncio.run(run())


def test_a_table_of_older_standing_and_the_keys_held_since_know_every_key():
    """It is stored now and then: what came since is held, and entered again."""
    chance, seen = random.Random(1), SeenKeys(100)
    given = [chance.randbytes(16) for _ in range(250)]
    seen.add_all(given[:200], [bytes(8)] * 200, b"\x01")
    stored = [(size_bits, left, bytes(shelves)) for size_bits, left, shelves in seen.levels()]
    seen.add_all(given[200:], [bytes(8)] * 50, b"\x01")
    loaded, kept = SeenKeys(100), seen.copy()
    loaded.restore(kept._replace(levels=[(*kept.levels[0][:2], stored[0][2])]))
    assert loaded.levels() == seen.levels()
    held, doubtful = loaded.sort_out([key[TIME_BYTES:] for key in given])
    assert len(held) + len(doubtful) == len(given)


def test_few_keys_that_were_never_seen_are_asked_for():
    seen = SeenKeys()
    (_, room, _), *_ = seen.levels()
    hashes = [sha256(number.to_bytes(4, "big")).digest()[:12] for number in range(room + 50_000)]
    seen.add_all([bytes(4) + hashed for hashed in hashes[:room]], [bytes(8)] * room, b"\x01")
    assert len(seen.sort_out(hashes[room:])[1]) < 5
