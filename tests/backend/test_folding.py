"""A log folded with native code comes to what the rules come to: state, snapshot and keys, to the byte."""

import contextlib
import inspect
import random
from hashlib import sha256
from itertools import pairwise

import pytest
from domain.conftest import ACME, Company
from domain.test_all_acts_always_hold import World
from golden.test_golden import LOGS, read
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from allotment.backend import folding, reading_log
from allotment.backend.folding import Piece, apply_piece
from allotment.backend.native import using
from allotment.backend.reading_log import Chunk, Fetched, decode_charges
from allotment.backend.seen import KEY_BYTES, SeenKeys
from allotment.domain import brief, canonical, charging, snapshot
from allotment.domain.bucket import Family
from allotment.domain.charging import UsageCharged
from allotment.domain.events import SCHEMA, Recorded, decode, encode
from allotment.domain.limit import SetLimit
from allotment.domain.rating.basis import Basis
from allotment.domain.rating.standing import Counted
from allotment.domain.refusals import InvariantBroken
from allotment.domain.tenant import Tenant
from allotment.domain.usage import MONEY

DIGEST = b"12345678"
DAY_MAX = 400
needed = pytest.mark.skipif(using.native() is None, reason=f"folds with {using.told()}")


def key_of(seq: int) -> bytes:
    """As a log has them: a day, then a hash."""
    return (seq // 40 % DAY_MAX).to_bytes(2, "big") + sha256(b"%d" % seq).digest()[: KEY_BYTES - 2]


def fetched(history, first=1) -> Fetched:
    """Events as the server puts them together, numbered from a seq on."""
    told = [*enumerate(history, first)]
    charged = [(seq, event) for seq, event in told if isinstance(event, UsageCharged)]
    return Fetched(
        *(first, first + len(history) - 1, 7, True, len(charged)),
        b"".join(encode(event, f"actor-{seq % 3}", DIGEST) for seq, event in charged),
        b"".join(key_of(seq) for seq, _ in charged),
        b"",
        [
            Recorded(seq, 7, event.topic, "a", DIGEST, key_of(seq) if seq % 2 else None, event)
            for seq, event in told
            if not isinstance(event, UsageCharged)
        ],
    )


def pieces_of(history, size):
    ends = [*range(0, len(history), size), len(history)]
    for first, last in pairwise(ends):
        some = fetched(history[first:last], first + 1)
        piece = folding._piece_of(some)
        yield piece or reading_log.unfold(None, some)


def folded(history, size=10**6, recent_max=200_000):
    """What a history leads to, told to the byte, and how many of its charges were left to the rule."""
    state, seen, left = Tenant(), SeenKeys(recent_max), 0
    for piece in pieces_of(history, size):
        assert isinstance(piece, Piece if using.native() else Chunk)
        left += sum(run.left_count for run in piece.runs) if isinstance(piece, Piece) else 0
        apply_piece(state, seen, piece)
    state.check_whole()
    kept = seen.copy()
    told = (
        [*canonical.lines(state)],
        snapshot.encode_counters(snapshot.copy_counters(state)),
        snapshot.encode_structure(state),
        (kept.forgotten, set(kept.days), kept.young, kept.old),
        [(size_bits, room, bytes(bits)) for size_bits, room, bits in kept.levels],
    )
    return told, left


def both(history, size=10**6, recent_max=200_000):
    natively, left = folded(history, size, recent_max)
    with using.python_only():
        assert folded(history, size, recent_max)[0] == natively
    return left


@needed
@pytest.mark.parametrize("seed", range(4))
def test_whatever_happened_is_folded_alike_in_pieces_of_any_size(seed):
    world = World(seed)
    world.run(120)
    assert world.answers["usage.charged"]
    for size, recent_max in ((10**6, 200_000), (random.Random(seed).randrange(2, 40), 20)):
        both(world.history, size, recent_max)


@needed
@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5_000, 5_200))
def test_so_it_is_for_longer(seed):
    world = World(seed)
    world.run(400)
    both(world.history, random.Random(seed).randrange(2, 300), 50)


@needed
@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_the_logs_laid_down_are_folded_alike(path):
    told = [decode(row["topic"], bytes.fromhex(row["state"])).event for row in read(path)["rows"]]
    both(told)
    state = sha256(b"".join(folded(told)[0][0])).hexdigest()
    assert state == path.with_suffix(".state").read_text(encoding="utf-8").strip()


# --- one charge -------------------------------------------------------------------------------------


def company():
    return Company(ACME)


@pytest.fixture
def enterprise():
    return company()


def charged(enterprise, quantity=60, usage_type="voice"):
    (one,) = (event for event in enterprise.use(quantity, usage_type) if isinstance(event, UsageCharged))
    return one


NUMBERS = st.one_of(
    st.integers(0, 2**50),
    st.sampled_from([2**bits + more for bits in (5, 7, 8, 15, 16, 31, 32, 59) for more in (-1, 0, 1)]),
)
TEXTS = st.one_of(st.text(max_size=40), st.sampled_from(["x" * 31, "x" * 32, "x" * 256, "x" * 65_536]))


@needed
@given(NUMBERS, NUMBERS, TEXTS, st.integers(0, 2), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_numbers_and_texts_of_any_length_are_read_as_they_were_written(billed, amount, text, parts, times):
    shares = tuple((place, 1 + place * 300) for place in range(parts))
    taken = sum(part for _, part in shares)
    charge = UsageCharged(
        *(text, text, (70_000, 3, 0), "voice", "2026-11", billed, "outbound", amount, billed + taken),
        *(
            billed,
            300,
            text,
            text,
            "corporate",
            "default",
            shares,
            billed,
            amount,
            (amount, 7),
            text.encode(),
        ),
        *(((0, 5),) if amount else (), None, Basis("x", text, 3)),
    )
    state = encode(charge, text, DIGEST) * times
    summed = using.native().add_up(state, (times,), SCHEMA, 8, "corporate", MONEY)
    assert summed is not None
    ((end, count, total, families, left_count, left),), digests = summed
    assert (end, count, total, left_count, left, digests) == (
        *(len(state), times, times * amount, 0, b"", DIGEST * times),
    )
    used = {kind: dict(folding._pairs(bytes_used)) for kind, _, bytes_used, _ in families}
    drawn = {kind: dict(folding._pairs(bytes_drawn)) for kind, _, _, bytes_drawn in families}
    assert used["voice"] == dict.fromkeys(charge.path, times * charge.billed)
    assert drawn["voice"] == {ordinal: times * part for ordinal, part in shares}
    assert used.get(MONEY, {}) == (dict.fromkeys(charge.path, times * amount) if amount else {})
    assert drawn.get(MONEY, {}) == ({0: times * 5} if amount else {})


@needed
@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({}, 0),
        ({"payer": "personal", "drawn": (), "overage": 60}, 0),
        ({"payer": "personal"}, 1),
        ({"basis": Basis("home", "night")}, 0),
        ({"basis": Basis(counted=Counted("p", 0, 1, 60, 5, 7))}, 1),
        ({"overage": 1}, 1),
        ({"billed": 59}, 1),
        ({"drawn": ((0, 61), (0, -1))}, 1),
        ({"drawn": ((0, 2**62), (0, 60))}, 1),
        ({"billed": 2**62, "overage": 2**62, "drawn": ()}, 1),
        ({"amount": -1}, 1),
        ({"path": tuple(range(81))}, 1),
        ({"path": (2**40, 0)}, 1),
        ({"path": (-1, 0)}, 1),
        ({"source": "é" * 70_000}, 0),
    ],
)
def test_what_counting_needs_more_of_is_left_as_it_stands(enterprise, changes, left):
    one = charged(enterprise)
    state = encode(one, "a", DIGEST)
    odd = encode(replace(one, **changes), "a", DIGEST)
    summed = using.native().add_up(state + odd + state, (3,), SCHEMA, 8, "corporate", MONEY)
    assert summed is not None
    ((end, count, _, _, left_count, kept),), _ = summed
    assert (end, count, left_count) == (len(state + odd + state), 3 - left, left)
    assert kept == odd * left


@needed
def test_more_families_than_are_kept_apart_are_left(enterprise):
    one = replace(charged(enterprise), amount=0, credit=())
    states = [encode(replace(one, period=f"{2000 + number}-01"), "a", DIGEST) for number in range(60)]
    summed = using.native().add_up(b"".join(states), (60,), SCHEMA, 8, "corporate", MONEY)
    ((_, count, _, families, left_count, left),), _ = summed
    assert count + left_count == 60
    assert left == b"".join(states[count:])
    assert len(families) == count


# --- what cannot be -----------------------------------------------------------------------------------


@needed
@given(st.data())
@settings(max_examples=150, deadline=None)
def test_bytes_that_are_no_charges_are_left_to_python(data):
    """Cut off or changed: all of it is left, or the charge is, or it is counted as what stands there."""
    charge = UsageCharged(
        *("s", "r", (3, 1, 0), "voice", "2026-11", 5, "outbound", 60, 60, 1, 2, "", "z"),
        *("corporate", "default", ((0, 60),), 0, 11, (11, 1), b"sealed"),
    )
    one = encode(charge, "a", DIGEST)
    place = data.draw(st.integers(0, len(one) - 1))
    changed = bytearray(one)
    changed[place] = data.draw(st.integers(0, 255))
    for states in (one[:place], bytes(changed), one + bytes(changed), data.draw(st.binary(max_size=60))):
        with contextlib.suppress(UnicodeDecodeError):
            assert_left_or_counted(states)


@needed
@pytest.mark.parametrize(
    ("changes", "times"),
    [
        ({"path": (3,) * 80, "billed": 2**58, "overage": 2**58, "drawn": ()}, 1),
        ({"amount": 1, "credit": ((0, 2**53),) * 64}, 20),
    ],
)
def test_sums_that_do_not_fit_leave_everything(enterprise, changes, times):
    """Nobody stands on a path twice, and no credit is more than the amount: bytes may say so all the same."""
    state = encode(replace(charged(enterprise), **changes), "a", DIGEST)
    assert using.native().add_up(state * times, (times,), SCHEMA, 8, "corporate", MONEY) is None


def assert_left_or_counted(states):
    summed = using.native().add_up(states, (1,), SCHEMA, 8, "corporate", MONEY)
    if summed is None:
        return
    ((_, count, amount, families, left_count, _),), _ = summed
    assert count + left_count == 1
    read = decode_charges(1, states)
    if count and read is not None:
        assert (amount, sums_told(families)) == sums_of(read[0].event)


def sums_told(families):
    return {
        (kind, period): (dict(folding._pairs(used)), dict(folding._pairs(drawn)))
        for kind, period, used, drawn in families
        if used or drawn
    }


def sums_of(charge):
    """By the book: what a charge adds to whose counters, and to all that was charged."""
    if charge.payer != "corporate":
        return 0, {}
    own = {ordinal: charge.path.count(ordinal) * charge.billed for ordinal in charge.path}
    sums = {(charge.usage_type, charge.period): (own, added_up(charge.drawn))}
    if charge.amount:
        paid = {ordinal: charge.path.count(ordinal) * charge.amount for ordinal in charge.path}
        sums[MONEY, charge.period] = (paid, added_up(charge.credit))
    return charge.amount, sums


def added_up(pairs):
    sums = {}
    for ordinal, part in pairs:
        sums[ordinal] = sums.get(ordinal, 0) + part
    return sums


@needed
@pytest.mark.parametrize("counts", [(), (0,), (2,), (1, 1), (-1,), (2**40,), ("1",), (None,)])
def test_counts_that_do_not_fit_the_bytes_are_left(enterprise, counts):
    state = encode(charged(enterprise), "a", DIGEST)
    assert using.native().add_up(state, counts, SCHEMA, 8, "corporate", MONEY) is None


@needed
def test_charges_of_another_schema_or_digest_are_left(enterprise):
    state = encode(charged(enterprise), "a", DIGEST)
    assert using.native().add_up(state, (1,), SCHEMA + 1, 8, "corporate", MONEY) is None
    assert using.native().add_up(state, (1,), SCHEMA, 7, "corporate", MONEY) is None


@needed
@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({"overage": 1}, "parts of a charge add up"),
        ({"drawn": ((0, 10**15),), "billed": 10**15}, "no bucket is overdrawn"),
        ({"drawn": ((0, 61), (0, -1))}, "no bucket is overdrawn"),
    ],
)
def test_a_charge_that_cannot_be_is_noticed(changes, broken):
    history = [*company().history, replace(charged(company()), **changes)]
    with pytest.raises(InvariantBroken, match=broken):
        folded(history)
    with using.python_only(), pytest.raises(InvariantBroken, match=broken):
        folded(history)


@needed
def test_usage_that_passes_a_limit_is_noticed():
    free, limited = company(), company()
    charges = [event for _ in range(4) for event in free.use(60, "voice")]
    limited.do(SetLimit("acme", "voice", 100))
    with pytest.raises(InvariantBroken, match="never passes a limit"):
        folded([*limited.history, *charges])


@needed
@given(st.lists(st.tuples(st.integers(-3, 6), st.integers(-(2**63), 2**63 - 1)), max_size=6))
@settings(max_examples=60, deadline=None)
def test_counters_are_added_to_as_far_as_none_passes_its_ceiling(pairs):
    counters, ceilings = [0, 5, 2**62, 2**70, None], [10, 5, 2**63 - 1, 2**71, 3]
    before = list(counters)
    once = dict(pairs)
    packed = b"".join(
        ordinal.to_bytes(8, "little", signed=True) + more.to_bytes(8, "little", signed=True)
        for ordinal, more in once.items()
    )
    done = using.native().count_up(counters, ceilings, packed)
    may = all(
        0 <= ordinal <= 2 and -(2**63) <= before[ordinal] + more <= ceilings[ordinal]
        for ordinal, more in once.items()
    )
    assert done == may
    expected = [
        before[ordinal] + (once.get(ordinal, 0) if may and ordinal <= 2 else 0) if ordinal <= 2 else one
        for ordinal, one in enumerate(before)
    ]
    assert counters == expected
    assert not using.native().count_up(counters, ceilings, packed + b"x")


@needed
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_odd_arguments_are_refused_or_left(data):
    native = using.native()
    name, count = data.draw(
        st.sampled_from(
            [("add_up", 6), ("count_up", 3), ("hold_gathered", 4), ("enter_gathered", 5), ("days_of", 1)]
        )
    )
    odd = st.sampled_from(
        [None, -1, 2**70, "x", "\ud800", b"", b"1234567890123456", (), (1,), [], [None], {}]
    )
    asked = [data.draw(odd | st.just(bytearray(8)) | st.integers(-5, 9)) for _ in range(count)]
    with contextlib.suppress(TypeError, ValueError):
        getattr(native, name)(*asked)
    with pytest.raises(TypeError):
        getattr(native, name)(*asked, None)


# --- one description of what is right ------------------------------------------------------------------

RULES = (snapshot.count_all, snapshot.counts_by_sums, snapshot.add_up, snapshot._Runs, Family.consume)
WRITTEN_FOR = "4d9c8ffb79c26ad1"


def test_charges_were_added_up_natively_for_these_rules():
    """Who changes one of them changes native/replaying.c too, runs this file, and says so here."""
    told = "".join(inspect.getsource(rule) for rule in RULES)
    assert sha256(told.encode()).hexdigest()[:16] == WRITTEN_FOR


@needed
def test_what_native_code_stands_in_for_has_the_form_it_was_written_for():
    """The places of the fields that it reads are written down in native/replaying.c."""
    fields = UsageCharged.__struct_fields__
    assert fields[19:23] == ("sealed", "credit", "ruling", "basis")
    assert Basis.__struct_fields__[4] == "counted"
    assert brief.ChargeInBrief.__struct_fields__ == fields
    assert charging.CORPORATE == "corporate"
