"""Counters in a snapshot come back as they were, whatever stands in them, and are small where alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allotment.domain.bucket import NEVER
from allotment.domain.kept_counters import keep_counters, restore_counters

COUNTERS = st.integers(min_value=-(2**63), max_value=2**63 - 1)
USUAL = st.sampled_from([0, NEVER, 7])
SIZE = 1_000


@given(st.lists(COUNTERS | USUAL, max_size=300) | st.lists(USUAL, max_size=300))
def test_counters_come_back_as_they_were(counters):
    assert restore_counters(keep_counters(counters)) == counters


@given(st.lists(st.tuples(st.integers(0, SIZE - 1), COUNTERS), max_size=SIZE // 4), USUAL)
def test_a_usual_value_with_others_in_between_comes_back(others, usual):
    counters = [usual] * SIZE
    for ordinal, value in others:
        counters[ordinal] = value
    assert restore_counters(keep_counters(counters)) == counters


@pytest.mark.parametrize(
    ("counters", "few"),
    [
        ([], {}),
        ([0], {}),
        ([NEVER] * SIZE, {}),
        ([42] * SIZE, {}),
        ([5] + [0] * (SIZE - 1), {0: 5}),
        ([0] * (SIZE - 1) + [5], {SIZE - 1: 5}),
        ([0, NEVER] * (SIZE // 2), None),
        ([*range(SIZE)], None),
    ],
)
def test_what_is_alike_is_told_once(counters, few):
    kept = keep_counters(counters)
    assert (kept.few, kept.every) == (few, b"") if few is not None else len(kept.every) == 8 * len(counters)


def test_what_only_a_sample_takes_for_usual_is_told_in_full():
    step = SIZE // 100 + 1
    counters = [0 if place % step == 0 else place for place in range(SIZE)]
    kept = keep_counters(counters)
    assert len(kept.every) == 8 * SIZE
    assert restore_counters(kept) == counters
