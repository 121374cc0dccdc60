"""The table of keys: whatever was entered is found with its moment, in Python and natively alike."""

import random
import zlib
from collections import defaultdict
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allotment.backend import key_table, keys, seen
from allotment.backend.key_table import SHELF_BYTES, SLOTS, KeyTable, capacity, occupied
from allotment.backend.keys import DAY_BYTES, MOMENT_BYTES, NO_TIME, TIME_BYTES, both_forms, time_of
from allotment.backend.native import using
from allotment.backend.seen import Entered, SeenKeys
from allotment.backend.snapshots import _compressed
from allotment.domain.refusals import InvariantBroken

DAY = 86_400_000_000
NOON = 20_000 * DAY + DAY // 2

FEW = st.sampled_from([bytes(1), b"\x01", b"\xff"])
"""So that keys share places, tags and moments, and some have the tag of nothing."""
CROWDED = st.builds(
    lambda day, moment, mark, place: b"\x4e" + day + moment * 2 + mark * 3 + bytes(5) + place * 4,
    *(FEW, FEW, FEW, FEW),
)
KEYS = st.one_of(CROWDED, st.binary(min_size=16, max_size=16))


def made(count: int, seed: int = 1) -> list[bytes]:
    chance = random.Random(seed)
    return [chance.randbytes(16) for _ in range(count)]


# --- what a key is ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "time"),
    [
        (20_000 * DAY, "4e200000"),
        (20_000 * DAY + 1_318_359, "4e200000"),
        (20_000 * DAY + 1_318_360, "4e200001"),
        (NOON, "4e208000"),
        (20_001 * DAY - 1, "4e20ffff"),
        (65_534 * DAY, "fffe0000"),
        (65_535 * DAY, NO_TIME.hex()),
        (DAY - 1, NO_TIME.hex()),
        (-1, NO_TIME.hex()),
        (2**63 - 1, NO_TIME.hex()),
    ],
)
def test_a_key_begins_with_the_day_and_the_moment(at, time):
    assert time_of(at).hex() == time


def test_both_forms_of_a_key_have_one_identity_and_one_day():
    now, before = both_forms("usage\x1fa\x1fb", NOON)
    hashed = sha256(b"usage\x1fa\x1fb").digest()
    assert now == time_of(NOON) + hashed[2:14]
    assert before == time_of(NOON)[:DAY_BYTES] + hashed[:14]
    assert now[TIME_BYTES:] == before[TIME_BYTES:] == keys.identity("usage\x1fa\x1fb")


def test_keys_of_commands_and_of_what_has_no_date_are_what_they_always_were():
    hashed = sha256(b"x").digest()[:14]
    assert (keys.key_of_command("x"), keys.undated_key("x")) == (b"\xff\xff" + hashed, bytes(2) + hashed)


def test_moments_of_a_day_never_go_back():
    times = [time_of(20_000 * DAY + at) for at in sorted(random.Random(3).choices(range(DAY), k=2_000))]
    assert times == sorted(times)


# --- the table -------------------------------------------------------------------------------------


@given(st.lists(KEYS, max_size=40), st.lists(KEYS, max_size=8), st.integers(0, 3))
@settings(max_examples=120, deadline=None)
def test_what_was_entered_is_found_with_each_of_its_moments(entered, asked, size_bits):
    """Whatever shares its place, mark or moment; and native code leaves the same table, byte for byte."""
    entered = entered[: capacity(size_bits)]

    def work():
        table = KeyTable(size_bits)
        for first in range(0, len(entered), 7):
            table.add_all(entered[first : first + 7])
        gathered = KeyTable(size_bits)
        gathered.add_gathered(b"".join(entered), 0, len(entered))
        assert (gathered.shelves, gathered.left) == (table.shelves, table.left)
        found = table.moments([key[TIME_BYTES:] for key in [*entered, *asked]])
        return table.shelves, table.left, found, occupied(table.shelves)

    with using.python_only():
        rule = work()
    assert work() == rule
    shelves, left, found, taken = rule
    assert taken == capacity(size_bits) - left <= len(entered)
    expected = defaultdict(set)
    for key in entered:
        expected[key[TIME_BYTES:]].add(key[DAY_BYTES:])
    for identity, dated in expected.items():
        assert dated <= set(found), identity
    assert KeyTable(size_bits, bytes(shelves)).left == left


def test_a_full_table_still_finds_all_and_hardly_anything_else():
    table, entered = KeyTable(9), made(capacity(9))
    table.add_all(entered)
    assert table.left == 0
    assert table.moments([key[TIME_BYTES:] for key in entered]) == [key[DAY_BYTES:] for key in entered]
    assert len(table.moments([key[TIME_BYTES:] for key in made(20_000, seed=2)])) < 3


@pytest.mark.parametrize("natively", [True, False])
def test_a_table_without_room_says_so_and_loses_nothing(natively, monkeypatch):
    if not natively:
        monkeypatch.setattr(using._Built, "used", False)
    table, entered = KeyTable(1), made(2 * SLOTS + 1)
    table.add_all(entered[:-1])
    with pytest.raises(InvariantBroken):
        table.add_all(entered[-1:])
    with pytest.raises(InvariantBroken):
        table.add_gathered(entered[-1], 0, 1)
    assert set(table.moments([key[TIME_BYTES:] for key in entered])) == {key[2:] for key in entered[:-1]}


def test_a_table_of_another_size_is_not_taken():
    with pytest.raises(ValueError, match="has not 64 bytes"):
        KeyTable(3, bytes(SHELF_BYTES))


def test_keys_that_come_while_a_table_is_copied_spoil_nothing_that_was_there(monkeypatch):
    """Copied shelf by shelf, and after each as many come as it takes to fill others."""
    monkeypatch.setattr("allotment.backend.snapshots.COPIED_SHELVES", 1)
    before, meanwhile = made(200), iter(made(600, seed=2))
    table = KeyTable(6)
    table.add_all(before)

    class Moving(bytearray):
        def __getitem__(self, what):
            if isinstance(what, slice):
                table.add_all([next(meanwhile) for _ in range(4)])
                self[:] = table.shelves
            return super().__getitem__(what)

    copied = KeyTable(6, zlib.decompress(_compressed(Moving(table.shelves))))
    found = set(copied.moments([key[TIME_BYTES:] for key in before]))
    assert {key[DAY_BYTES:] for key in before} <= found
    came = made(600, seed=2)[:250]
    copied.add_all(came)
    assert {key[DAY_BYTES:] for key in came} <= set(copied.moments([key[TIME_BYTES:] for key in came]))


# --- known for ever --------------------------------------------------------------------------------


@given(st.lists(st.lists(KEYS, max_size=12), max_size=12), st.randoms())
@settings(max_examples=40, deadline=None)
def test_every_key_is_held_or_among_the_candidates(groups, chance):
    """In tables that grow, kept and restored again and again, whichever way the keys came."""
    first, seen.FIRST_LEVEL_BITS = seen.FIRST_LEVEL_BITS, 0
    try:
        known, given_all = SeenKeys(10), list[bytes]()
        for group in groups:
            _give(known, group, chance)
            given_all += group
            if chance.random() < 0.3:
                known = _restored(known)
            for key in given_all:
                held, dated = known.sort_out([key[TIME_BYTES:]])
                asked = {one for each in dated for one in known.candidates(each)}
                assert held or key in asked
            _check_held(known, [key[TIME_BYTES:] for key in given_all + made(3, seed=5)])
    finally:
        seen.FIRST_LEVEL_BITS = first


def _check_held(known, identities):
    """Those that are in memory, and no others; the tables are asked first, and leave none of them out."""
    young, old = known.newest
    places = [place for place, one in enumerate(identities) if one in young or one in old]
    held, dated = known.sort_out(identities)
    assert held == places
    assert not {identities[place] for place in places} & {one[MOMENT_BYTES:] for one in dated}


def _give(known, group, chance):
    match chance.randrange(3):
        case 0:
            known.add_all(group, [bytes(8)] * len(group), b"\x01")
        case 1:
            known.gather(b"".join(group), bytes(8 * len(group)), b"\x01")
        case _:
            for key in group:
                known.add(key, bytes(8), b"\x02")
            known.settle()


def _restored(known):
    kept, again = known.copy(), SeenKeys(10)
    told = [Entered(known.generation, *one[1:]) for one in known.account().entered]
    if not told:
        again.restore(kept)
    else:
        again.restore_account(kept._replace(young={}, old={}), known.generation, told)
    return again


def test_the_levels_grow_and_none_is_more_than_full(monkeypatch):
    monkeypatch.setattr(seen, "FIRST_LEVEL_BITS", 2)
    monkeypatch.setattr(seen, "SIZE_BITS_MAX", 4)
    known, entered = SeenKeys(50), made(1_000)
    for first in range(0, 1_000, 25):
        known.add_all(entered[first : first + 25], [bytes(8)] * 25, b"\x01")
    *full, last = known.levels()
    assert [size_bits for size_bits, _, _ in (*full, last)] == [2, 3, *[4] * 8]
    assert {left for _, left, _ in full} == {0}
    assert all(occupied(shelves) == capacity(size_bits) - left for size_bits, left, shelves in (*full, last))
    assert sum(occupied(shelves) for _, _, shelves in (*full, last)) == 1_000
    # What is entered again in the same table takes no room.
    known.add_all(entered[-5:], [bytes(8)] * 5, b"\x01")
    assert known.levels()[-1][1] == last[1]
    assert key_table.FILLED < SLOTS
