"""What native code does to a slice is what the Python code beside it does, byte for byte."""

import contextlib
import inspect
import os
import shutil
import sysconfig
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.exceptions import InvalidTag
from domain.test_all_acts_always_hold import World
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from allotment.backend.asking import Answer, Order, Slice, UsageOutcome
from allotment.backend.bench.workload import ACTOR, Shape, commands, records
from allotment.backend.copying import copy_buffer
from allotment.backend.deciding import Decider
from allotment.backend.intake.gate import checked
from allotment.backend.keys import command_key
from allotment.backend.leaves import append_peaks, leaves_of
from allotment.backend.log import Group, Head, MemoryLog
from allotment.backend.native import using
from allotment.backend.seen import SeenKeys
from allotment.domain import bucket, canonical, charging, plain_charge
from allotment.domain.charging import FUTURE_MAX, ChargeUsage
from allotment.domain.contract import Grant, SignContract
from allotment.domain.events import encode
from allotment.domain.hierarchy import Hierarchy
from allotment.domain.lateness import SetLateRule
from allotment.domain.limit import SetLimit
from allotment.domain.member import Member
from allotment.domain.proof import HASH_BYTES
from allotment.domain.rating import finding, rate, rounding
from allotment.domain.refusals import InvariantBroken
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.tenant import OpenTenant, Tenant
from allotment.domain.usage import USAGE_TYPES, UsageRecord
from allotment.tenants.sealing import Sealer

TENANT = UUID(int=7)
NOW = 1_790_000_000_000_000
HOUR = 3_600_000_000
SHAPE = Shape(40, 4)
RULES = (
    *(plain_charge.PlainCharges.charge, plain_charge.PlainCharges._window_at, bucket.Family.draw),
    *(bucket.Family.consume, bucket.Family.count_unless_near, bucket.Family.uncount, charging.charged),
    *(rate.CompiledRate.billed, rate.CompiledRate.rate, rounding.round_to, rounding.round_up_to),
    *(rounding._goes_up, finding.Deck.find, Hierarchy.guide, Member.path_at),
)
WRITTEN_FOR = "a076cb52e882f599"

HEADER = Path(sysconfig.get_path("include"), "Python.h")
needed = pytest.mark.skipif(using.native() is None, reason=f"charges with {using.told()}")


@pytest.mark.skipif(
    shutil.which("cc") is None or not HEADER.exists(), reason="nothing is here to build it with"
)
def test_it_is_there_wherever_it_can_be_built():
    """What does not compile is left out, and everything that is about it would be skipped."""
    assert (using.native() is None, using.reader() is None) == (False, False), using.told()


def both(work):
    """What native code gives, and what Python does."""
    natively = work()
    with using.python_only():
        return natively, work()


@pytest.fixture(autouse=True)
def _no_chance(monkeypatch):
    """The same nonces and keys whoever asks: so that what is sealed can be compared."""
    monkeypatch.setattr(os, "urandom", bytes)


# --- each part -------------------------------------------------------------------------------------

TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["", "+49301234", "x" * 31, "x" * 32, "x" * 255, "x" * 256, "\x7f", "é", "日本"]),
)
INTS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from(
        [n for b in (0, 5, 7, 8, 15, 16, 31, 32, 62) for n in (2**b - 1, 2**b, -(2**b), -(2**b) - 1)]
    ),
)
RECORDS = st.builds(
    UsageRecord,
    *(TEXTS, TEXTS, TEXTS, st.sampled_from(["data", "voice", "papaya", "money", ""]), INTS),
    st.one_of(INTS, st.integers(NOW - 10**12, NOW)),
    *(st.sampled_from(["outbound", "inbound", ""]), TEXTS),
    st.lists(st.tuples(TEXTS, TEXTS), max_size=17).map(tuple),
)
HASHES = st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES)
KEYS = st.binary(min_size=16, max_size=16)


def prepared(items):
    """As the writer prepares them, with a sealer of their own."""
    log = MemoryLog()
    decider = Decider.load(log, lambda: Sealer(TENANT, bytes(range(32))))
    slice = Slice()
    slice.add(items, ACTOR)
    return slice.hashes, list(decider._prepare(slice)), decider.sealer.take_unsaved()


@needed
@given(st.lists(RECORDS, min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_records_are_identified_packed_digested_and_sealed_alike(items):
    natively, python = both(lambda: prepared(items))
    assert natively == python


@needed
@pytest.mark.parametrize("size", [31, 32, 255, 256, 65_535, 65_536])
def test_long_texts_are_packed_alike(size):
    record = UsageRecord(
        "s", "x" * size, "é" * size, "data", 1, NOW, "outbound", "y" * size, ((" " * size, ""),)
    )
    natively, python = both(lambda: prepared([record]))
    assert natively == python


@needed
@pytest.mark.parametrize("lines", [1_500, pytest.param(70_000, marks=pytest.mark.soak)])
def test_each_of_many_lines_keeps_its_token_and_key(lines):
    """More than the table of lines begins with; and more than it ever holds, so that it begins anew."""
    usual = records(SHAPE, 1, NOW, 1)[0]
    items = [replace(usual, record_id=f"r{place}", line=f"+44{place % lines}") for place in range(2 * lines)]
    natively, python = both(lambda: prepared(items))
    assert natively == python


@needed
@given(RECORDS)
@settings(max_examples=100, deadline=None)
def test_what_is_plainly_sound_is_let_in_by_the_gate(record):
    if using.native().all_sound([record]):
        assert checked(record) is record


def test_the_usual_record_is_plainly_sound():
    native = using.native()
    if native is not None:
        assert native.all_sound(records(SHAPE, 100, NOW, 1))


@needed
@given(
    st.lists(st.tuples(TEXTS, st.binary(max_size=300), st.none() | KEYS), max_size=40),
    st.integers(0, 2**40),
    st.integers(-(2**62), 2**62),
)
@settings(max_examples=60, deadline=None)
def test_leaves_and_rows_are_alike(events, size, recorded_at):
    topics, states, keys = [list(column) for column in zip(*events, strict=True)] or [[], [], []]
    natively, python = both(lambda: leaves_of(TENANT.bytes, size, topics, recorded_at, keys, states))
    assert natively == python
    natively, python = both(lambda: copy_buffer(size, recorded_at, topics, states, keys, python))
    assert natively == bytes(python)


@needed
@given(st.lists(st.lists(HASHES, max_size=9), max_size=9))
@settings(max_examples=60, deadline=None)
def test_the_tree_grows_alike(groups):
    def grown():
        peaks, size, told = [], 0, []
        for leaves in groups:
            append_peaks(peaks, size, leaves)
            size += len(leaves)
            told.append(list(peaks))
        return told

    natively, python = both(grown)
    assert natively == python


@needed
@given(
    st.lists(st.lists(st.tuples(KEYS, st.binary(min_size=8, max_size=8)), max_size=9), max_size=9),
    st.lists(KEYS),
)
@settings(max_examples=30, deadline=None)
def test_what_was_seen_is_held_alike(groups, asked):
    def held():
        seen = SeenKeys(recent_max=12)
        for group in groups:
            seen.add_all([key for key, _ in group], [digest for _, digest in group], b"\x01")
        kept = seen.copy()
        levels = [(size, left, sha256(bits).digest()) for size, left, bits in kept.levels]
        return kept[:4], levels, seen.sort_out([key[4:] for key in asked])

    natively, python = both(held)
    assert natively == python


# --- charging ----------------------------------------------------------------------------------------


class Twin(World):
    """A tenant to which everything happens; beside it one that is charged natively where that can be."""

    def __init__(self, seed: int) -> None:
        self.twin, self.counted = Tenant(), False
        super().__init__(seed)

    def note(self, event):
        super().note(event)
        if not self.counted:
            self.twin.apply(event)

    def charge(self, command, events):
        untouched = [*canonical.lines(self.twin)]
        done, states, told = natively(self.twin, command, self.now)
        if done:
            assert states == [encode(events[0], "a", b"digest--")]
            assert told == ([("charged", 5, events[0].amount)], [b"k" * 16], [b"digest--"])
            self.answers["native"] += 1
        else:
            assert [*canonical.lines(self.twin)] == untouched
            assert (states, told) == ([], ([], [], []))
        plain, self.counted = self.answers["plain"], done == 1
        super().charge(command, events)
        # What Python calls unusual is never charged natively.
        assert self.answers["plain"] == plain + 1 or not self.counted
        self.counted = False
        assert [*canonical.lines(self.twin)] == [*canonical.lines(self.tenant)]
        self.twin.check_whole()


def natively(tenant, command, now):
    """Charge one record natively: how many were, their states, and what is told of them."""
    outcomes, states, keys, digests = [], [], [], []
    oldest = tenant.plain.oldest(now)
    ready = (command.record, b"k" * 16, b"digest--", command.token, command.sealed)
    native = using.native()
    done = native.charge(
        tenant.plain,
        native.prepared([ready]),
        *(0, ["a"], oldest, now + FUTURE_MAX, 5, outcomes, states, keys, digests),
    )
    return done, states, ([(one.status, one.seq, one.amount) for one in outcomes], keys, digests)


@needed
@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_native_code_charges_as_the_rules_do_or_leaves_it(seed):
    world = Twin(seed)
    world.run(150)
    assert world.answers["native"]


@needed
@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2_000, 2_300))
def test_so_it_does_for_longer(seed):
    Twin(seed).run(400)


RATES_OF_ALL_KINDS = tuple(
    Rate(usage_type, usage_type + prefix, price, per, prefix, "", increment, minimum, fee, included)
    for usage_type, prefix, price, per, increment, minimum, fee, included in (
        ("voice", "", "0.07", 60, 1, 0, "0", True),
        ("voice", "+49", "0.013", 7, 60, 0, "0.05", True),
        ("voice", "+4420", "0.5", 3, 30, 90, "0", False),
        ("data", "", "0.000333", 1000, 1024, 0, "0", True),
        ("messaging", "", "0.0333333", 1, 1, 0, "0.001", False),
        ("video", "", "0", 1, 1, 5, "0", True),
    )
)


class Ours:
    """A decider with an enterprise, whose log is kept in memory; commands as the writer carries them out."""

    def __init__(self, method="half_up"):
        self.log = MemoryLog()
        self.decider = Decider.load(self.log, lambda: Sealer(TENANT, bytes(range(32))))
        self.count = 0
        self.command(OpenTenant("bench", "Europe/Berlin", "EUR", "carrier"))
        for command in commands(SHAPE):
            self.command(command)
        self.command(
            SignContract("more", "2020-01-01", tuple(Grant(t, 9_000_000) for t in USAGE_TYPES), True)
        )
        self.command(PublishTariff("all", 1, "EUR", RATES_OF_ALL_KINDS, method, 6))
        self.command(SetLimit("d1", "data", 60_000_000))
        self.command(SetLimit("d2", "voice", 2_000, (50, 80, 100)))
        self.command(SetLimit("d3", "money", 90_000_000))

    def command(self, command):
        self.count += 1
        (answer,) = self.decide([Order(command, command_key(f"c{self.count}"))])
        assert isinstance(answer, Answer), answer

    def decide(self, items):
        slice, group = Slice(), Group(TENANT, self.decider.head, NOW)
        slice.add(items, ACTOR)
        outcomes = self.decider.decide(slice, group, NOW)
        group.subject_keys = self.decider.sealer.take_unsaved()
        self.log.append(group)
        self.decider.head = Head(group.last, group.epoch, group.peaks)
        return outcomes

    def told(self):
        rows = [*self.log.read(0, 10**9)]
        kept = self.decider.seen.copy()
        return rows, self.decider.head, [*canonical.lines(self.decider.state)], kept


@needed
@pytest.mark.parametrize("method", ["half_up", "half_even"])
def test_the_log_of_thousands_of_charges_is_the_same_to_the_byte(method):
    given = records(SHAPE, 5_000, NOW, 3)
    given = [
        replace(one, quantity=one.quantity % 90_000) if one.usage_type == "data" else one for one in given
    ]
    given += given[:100] + [replace(one, quantity=one.quantity + 1) for one in given[100:150]]
    given += [replace(one, record_id=f"x{one.record_id}", line="+1") for one in given[:20]]

    def played():
        ours = Ours(method)
        outcomes = [
            outcome for at in range(0, len(given), 250) for outcome in ours.decide(given[at : at + 250])
        ]
        ours.decider.state.check_whole()
        return outcomes, ours.told()

    natively, python = both(played)
    assert natively == python
    statuses = {outcome.status for outcome in natively[0]}
    assert statuses == {"charged", "rejected", "suspended", "duplicate"}


@needed
def test_usage_that_came_too_late_is_held_natively_too():
    """To the microsecond."""
    usual = records(SHAPE, 4, NOW, 9)
    ages = (HOUR - 1, HOUR, HOUR + 1, 2 * HOUR)
    given = [replace(one, started_at=NOW - age) for one, age in zip(usual, ages, strict=True)]

    def played():
        ours = Ours()
        ours.command(SetLateRule("", 1))
        return [(one.status, one.reason) for one in ours.decide(given)]

    charged, held = ("charged", ""), ("suspended", "too_late")
    assert both(played) == ([charged, charged, held, held],) * 2


@needed
def test_the_usual_load_is_charged_natively(monkeypatch):
    ours, left = Ours(), []
    ours.decide(records(SHAPE, 100, NOW, 5))  # opens the period
    in_python = plain_charge.PlainCharges.charge
    monkeypatch.setattr(plain_charge.PlainCharges, "charge", lambda *of: left.append(of) or in_python(*of))
    ours.decide(records(SHAPE, 500, NOW, 6))
    # The rest crosses one of the three limits.
    assert len(left) < 50


# --- what nobody should send ---------------------------------------------------------------------------

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, -(2**63) - 1, 2**200, 1.5, "\ud800", "a\udfff", b"bytes", (), ("a",), [], {}]),
    TEXTS,
)


@needed
@given(st.lists(ODD, min_size=9, max_size=9))
@settings(max_examples=60, deadline=None)
def test_odd_records_end_as_they_do_in_python(fields):
    record = UsageRecord(*fields)

    def outcome():
        try:
            return prepared([record])
        except Exception as error:  # noqa: BLE001  (which one it is, is asked)
            return type(error)

    answered, python = both(outcome)
    assert answered == python
    tenant = Tenant()
    assert natively(tenant, ChargeUsage(record, b"", b""), NOW)[0] == 0
    assert not using.native().all_sound([record]) or checked(record) is record


@needed
@given(st.data())
@settings(max_examples=80, deadline=None)
def test_odd_arguments_are_refused_or_left(data):
    """No function takes what it was not made for: it says so, or does nothing."""
    native = using.native()
    anything = st.one_of(ODD, st.lists(ODD, max_size=3), st.just(bytearray(8)), st.just(set()), st.just({}))
    lists = st.lists(st.one_of(ODD, st.just((1, 2, 3, 4, 5)), HASHES, KEYS), max_size=4)
    name, count = data.draw(
        st.sampled_from(
            [
                *(("identities", 1), ("all_sound", 1), ("prepare", 7), ("charge", 11), ("leaves", 6)),
                *(("prepared", 1), ("sealing", 7)),
                *(
                    ("append_peaks", 3),
                    ("copy_rows", 8),
                    ("hold", 5),
                    ("enter", 3),
                    ("moments", 3),
                    ("occupied", 1),
                ),
            ]
        )
    )
    asked = [
        data.draw(st.one_of(lists, st.integers(-5, 5), st.binary(max_size=20), anything))
        for _ in range(count)
    ]
    with contextlib.suppress(TypeError, AttributeError, ValueError, OverflowError):
        getattr(native, name)(*asked)
    with pytest.raises(TypeError):
        getattr(native, name)(*asked, None)


@needed
@pytest.mark.skipif(using.native() is None or using.native().SEALING != "libcrypto", reason="Python seals")
def test_the_key_of_a_subject_that_has_one_is_found_without_asking_python():
    sealer, asked = Sealer(TENANT, bytes(range(32))), []
    keyed, tenant, token_of, key_of, token_key, tenant_key, wrapped = sealer.parts
    record = UsageRecord("s", "r", "+4917012345678", "data", 1, 5, "outbound", "")

    def ask_key(token):
        asked.append(token)
        return key_of(token)

    def sealed():
        sealing = using.native().sealing(keyed, tenant, token_of, ask_key, token_key, tenant_key, wrapped)
        (one,) = using.native().prepare([record], [bytes(12)], set(), {}, {}, sealing, bytes(12))
        assert one[3] == sealer.token(record.line)
        return one[4], sealer.open(one[3], one[4], one[1])

    first = sealed()
    assert asked == [sealer.token(record.line)]
    assert sealed() == first
    assert first[1] is not None
    assert len(asked) == 1
    # What does not open is left to Python, which says so.
    wrapped[asked[0]] = bytes(60)
    with pytest.raises(InvalidTag):
        sealed()
    assert len(asked) == 2


@needed
def test_odd_sizes_and_places_are_refused_or_left():
    native = using.native()
    assert native.copy_rows(b"", b"", 0, 0, [], [], [], []) == b""
    for place, seq in ((2**63 - 1, 5), (0, 2**63 - 1)):
        assert native.charge(None, native.prepared([()]), place, ["a"], 0, 0, seq, [], [], [], []) == place
    with pytest.raises(TypeError):
        native.prepare([], [], set(), {}, {}, None, b"")
    with pytest.raises(ValueError, match="16 bytes"):
        native.sealing(None, b"", None, None, b"", b"", {})
    with pytest.raises(TypeError):
        native.set_up(UsageRecord, None, None)


class Like:
    """Has the hash of something else, and a say in whether it equals it."""

    def __init__(self, other, asked):
        self.hash, self.asked = hash(other), asked

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        return self.asked()


@needed
def test_keys_that_change_while_they_are_held_are_held_as_they_were():
    keys, digests = ([bytes([place]) * size for place in range(9)] for size in (16, 8))
    hashes = [key[4:] for key in keys]

    def asked():
        keys.clear()
        digests.clear()
        return False

    held = {Like(hashes[0], asked): b""}
    assert using.native().hold(held, {}, keys, digests, b"s")
    assert list(held)[1:] == hashes
    assert not keys


@pytest.fixture
def opened():
    """An enterprise whose period is open, and a record that is charged natively, out of a bucket."""
    ours = Ours()
    usual = records(SHAPE, 100, NOW, 5)
    ours.decide(usual)
    return ours, replace(next(one for one in usual if one.usage_type == "voice"), counterpart="+33")


def charged(ours, record):
    """Whether it was charged natively; else nothing has changed."""
    untouched, token = [*canonical.lines(ours.decider.state)], ours.decider.sealer.token(record.line)
    done, states, told = natively(ours.decider.state, ChargeUsage(record, token, b"sealed"), NOW)
    assert done or ([*canonical.lines(ours.decider.state)], states, told) == (untouched, [], ([], [], []))
    return done == 1


def family_of(ours, record):
    window = ours.decider.state.plain._window_at(record.started_at)
    return window.lanes[record.usage_type + record.direction].family


@needed
def test_a_counter_too_large_to_count_on_is_left_before_anything_is_counted(opened):
    ours, record = opened
    family = family_of(ours, record)
    consumed, left, taken = family.consumed, family.remaining_total, family.consumed_total
    family.consumed = [2**62 + 1] * len(consumed)
    assert not charged(ours, record)
    family.consumed = consumed
    family.granted_total, family.consumed_total = 2**63 - 1, 2**63 - 1 - left
    assert not charged(ours, record)
    family.granted_total, family.consumed_total = left + taken, taken
    assert charged(ours, record)


@needed
@given(st.lists(st.integers(0, 2_000), max_size=1_500, unique=True), st.data())
def test_whether_identities_are_all_different_is_known(numbers, data):
    hashes = [b"\0" * 4 + number.to_bytes(8, "big") for number in numbers]
    slices = using.native()
    assert slices.all_different(hashes)
    if hashes:
        again = data.draw(st.sampled_from(hashes))
        assert not slices.all_different([*hashes, bytes(bytearray(again))])
    assert not slices.all_different([*hashes, b"short"])
    assert not slices.all_different([*hashes, None])


@needed
def test_an_identity_that_comes_twice_in_a_slice_is_charged_once():
    given = records(SHAPE, 100, NOW, 5)

    def played():
        return [one.status for one in Ours().decide([*given, given[40], replace(given[41], quantity=3)])]

    natively, python = both(played)
    assert natively == python
    assert natively[100:] == ["duplicate", "suspended"]


@needed
def test_what_somebody_holds_of_the_counters_stays_as_it_was():
    """A counter is given its next value where it lies; not one that was copied."""
    ours = Ours()
    ours.decide(records(SHAPE, 300, NOW, 5))
    before, families = [], ours.decider.state.families.values()
    for seed in range(6, 10):
        copied = [(list(f.used), list(f.remaining), list(f.consumed)) for f in families]
        one_held = [(f.used, place, f.used[place]) for f in families for place in range(0, len(f.used), 7)]
        before.append((copied, repr(copied), one_held, repr([value for *_, value in one_held])))
        ours.decide(records(SHAPE, 300, NOW, seed))
    for copied, told, one_held, values in before:
        assert (repr(copied), repr([value for *_, value in one_held])) == (told, values)
    ours.decider.state.check_whole()


@needed
@pytest.mark.parametrize("used", [0, 1, 254, 2**30 - 2, 2**30 - 1, 2**30, 2**60 - 61, 2**60 - 60, 2**60])
def test_a_counter_grows_past_each_of_its_sizes(opened, used):
    ours, record = opened
    family = family_of(ours, record)
    path = ours.decider.state.hierarchy.guide(ours.decider.sealer.token(record.line), NOW)
    family.mark = [2**62] * len(family.mark)
    family.used = [int(str(used)) for _ in family.used]  # each an object of its own, where it is not small
    seen = [used]
    for _ in range(3):
        assert charged(ours, record)
        seen.append(family.used[path[0]])
    steps = {after - one for one, after in pairwise(seen)}
    assert len(steps) == 1
    assert steps.pop() > 0
    assert [family.used[place] for place in path] == [seen[-1]] * len(path)


def raising(error):
    def raises(*_):
        raise error

    return raises


@needed
def test_what_goes_wrong_while_one_is_looked_at_is_left(opened, monkeypatch):
    ours, record = opened
    family = family_of(ours, record)
    holders = family.holders
    family.holders = {Like(ordinal, raising(ValueError)) for ordinal in holders}
    assert not charged(ours, record)
    family.holders = holders
    monkeypatch.setattr(plain_charge.PlainCharges, "_window_at", raising(ValueError))
    assert not charged(ours, record)


@needed
def test_who_interrupts_is_heard(opened, monkeypatch):
    monkeypatch.setattr(plain_charge.PlainCharges, "_window_at", raising(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        charged(*opened)


@needed
def test_what_goes_wrong_once_it_is_counted_stops_everything(opened, monkeypatch):
    """Half of it has been left behind: that is no state to go on with."""
    ours, record = opened
    monkeypatch.setattr(bucket.Family, "check", raising(ValueError))
    with pytest.raises(InvariantBroken, match="can be applied"):
        ours.decide([replace(record, record_id="another")])


# --- one description of what is right ------------------------------------------------------------------


def test_native_code_was_written_for_these_rules():
    """Who changes one of them changes its twin in backend/native too, runs this file, and says so here."""
    told = "".join(inspect.getsource(rule) for rule in RULES)
    assert sha256(told.encode()).hexdigest()[:16] == WRITTEN_FOR


def test_an_older_build_is_not_used(monkeypatch):
    monkeypatch.setattr(using, "INTERFACE", -1)
    monkeypatch.setattr(using._Built, "slices", None)
    monkeypatch.setattr(using._Built, "missing", using._Built.missing)
    using.set_up(UsageOutcome)
    assert using.native() is None
    assert "Python alone" in using.told()


def test_a_charge_of_another_form_is_not_told_natively(monkeypatch):
    assert using.frame_of_charges() is not None
    monkeypatch.setattr(using, "_CHARGED", (*using._CHARGED[1:], "source"))
    assert using.frame_of_charges() is None
