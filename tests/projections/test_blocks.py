"""Blocks of counters against a dictionary, kept or read again, added up natively or not."""

from array import array
from collections import defaultdict

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allotment.backend.native import using
from allotment.projections import blocks
from allotment.projections.blocks import Added, Kept, packed, together
from allotment.projections.tables import bytea_array
from allotment.projections.used import USED, used_among, used_by_anybody, used_in

VOICE, DATA = ("2026-11", "voice"), ("2026-11", "data")
MOST = 2**63 - 1


@pytest.fixture
def view(enterprise):
    made = enterprise()
    with made.isolation.transaction(made.tenant, "projector") as db:
        yield db


def held(db):
    """By group and ordinal, what is not nothing."""
    found = db.execute("SELECT period, usage_type, block, figures FROM usage_counters", binary=True)
    return {
        (period, usage_type, ordinal): figures
        for period, usage_type, block, told in found
        for ordinal in range(16 * block, 16 * block + 16)
        if any(figures := list(USED.of(ordinal, told)))
    }


sums = st.dictionaries(
    st.sampled_from([VOICE, DATA, ("2026-12", "voice")]),
    st.dictionaries(
        st.sampled_from([0, 1, 15, 16, 17, 40, 1_000]),
        st.lists(st.integers(-9, 9), min_size=4, max_size=4),
        min_size=1,
    ),
)


@settings(
    max_examples=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(turns=st.lists(st.tuples(sums, st.booleans()), max_size=4), most=st.sampled_from([0, 2, 100]))
def test_what_is_added_is_what_a_dictionary_counts(view, turns, most):
    expected, kept = defaultdict(lambda: [0] * 4), Kept(0)
    with pytest.MonkeyPatch.context() as patched, view.transaction(force_rollback=True):
        patched.setattr(blocks, "KEPT_MAX", most)
        for told, forgets in turns:
            for of, rows in told.items():
                for ordinal, figures in rows.items():
                    row = expected[(*of, ordinal)]
                    row[:] = map(sum, zip(row, figures, strict=True))
            kept = Kept(0) if forgets else kept
            USED.add_blocks(view, kept, USED.added(told))
        assert held(view) == {key: row for key, row in expected.items() if any(row)}
        check_reading(view, expected)


def check_reading(db, expected):
    ordinals = [1_000, 3, 17, 5_000, 0]
    for place, name in enumerate(USED.counts):
        for of in (VOICE, DATA):
            told = used_among(db, ordinals, of[0], [of[1]])[of[1]].column(name)
            assert told == [expected.get((*of, ordinal), [0] * 4)[place] for ordinal in ordinals]
    assert used_in(db, ordinals, "2026-11") == {
        (ordinal, kind): row[1]
        for (period, kind, ordinal), row in expected.items()
        if period == "2026-11" and ordinal in ordinals and row[1]
    }
    anybody, _, owns = used_by_anybody(db, *VOICE)
    mine = {ordinal: row[0] for (*of, ordinal), row in expected.items() if tuple(of) == VOICE and row[0]}
    assert {at: own for at, own in zip(anybody, owns, strict=True) if own} == mine


numbers = st.integers(-(2**61), 2**61)


@given(blocks=st.lists(st.tuples(*[st.tuples(numbers, numbers | st.just(0))] * 3), max_size=5))
def test_native_sums_are_those_of_python(blocks):
    native = using.reader()
    if native is None:
        pytest.skip(using.told())
    held = [packed(array("q", [one for one, _ in block])) for block in blocks]
    more = packed(array("q", [one for block in blocks for _, one in block]))
    sums, column = native.together(held, more)
    expected, told = together(held, more)
    assert sums == expected
    assert column[8:] == told[8:], "but for the mark that there may be nulls"


def ways():
    native = using.reader()
    return [together] if native is None else [together, native.together]


@pytest.mark.parametrize("add", ways())
@pytest.mark.parametrize("sign", [1, -1])
def test_a_sum_that_does_not_fit_is_not_stored(view, add, sign):
    more = USED.added({VOICE: {3: [0, sign * MOST, 0, 1]}})
    kept = Kept(0)
    USED.add_blocks(view, kept, more._replace(together=add))
    with pytest.raises(OverflowError):
        USED.add_blocks(view, kept, more._replace(together=add))
    assert held(view) == {(*VOICE, 3): [0, sign * MOST, 0, 1]}


def test_native_sums_are_of_as_many_numbers():
    native = using.reader()
    if native is None:
        pytest.skip(using.told())
    for held, more in (
        ([b"12345678"], b""),
        ([b"1234567"], b"1234567"),
        ([b"", b"1"], b"x" * 16),
        ([], b"x"),
    ):
        with pytest.raises(ValueError, match="block"):
            native.together(held, more)


def short(*_):
    return [bytes(8)], bytea_array([bytes(8)])


def test_a_block_of_another_length_is_refused_by_the_table(view):
    with pytest.raises(psycopg.errors.CheckViolation), view.transaction():
        USED.add_blocks(view, Kept(0), Added([(VOICE, [0])], bytes(USED.size), short))


def test_what_is_known_is_not_read_again_and_what_was_written_by_others_is(view):
    kept, more = Kept(0), USED.added({VOICE: {3: [1, 1, 0, 1]}})
    USED.add_blocks(view, kept, more)
    view.execute("DELETE FROM usage_counters")
    USED.add_blocks(view, kept, more)
    assert held(view) == {(*VOICE, 3): [2, 2, 0, 2]}
    USED.add_blocks(view, Kept(0), more)
    assert held(view) == {(*VOICE, 3): [3, 3, 0, 3]}
