"""How fast an allowance goes, when it is gone, and who used which share."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allotment.domain.burning import DAY, Outlook, Rate, outlook, shares_of


def rate(quantity, days):
    return Rate("last_7_days", quantity, 0, days * DAY)


@pytest.mark.parametrize(
    ("left", "used", "days", "at", "ends_at", "status", "exhausted_at"),
    [
        (100, 0, 7, 10 * DAY, 30 * DAY, "unused", None),
        (100, 70, 0, 10 * DAY, 30 * DAY, "unused", None),
        (0, 70, 7, 10 * DAY, 30 * DAY, "exhausted", None),
        (-1, 70, 7, 10 * DAY, 30 * DAY, "exhausted", None),
        (100, 70, 7, 30 * DAY, 30 * DAY, "ended", None),
        (100, 70, 7, 10 * DAY, 30 * DAY, "runs_out", 20 * DAY),
        (200, 70, 7, 10 * DAY, 30 * DAY, "lasts", None),
        (199, 70, 7, 10 * DAY, 30 * DAY, "runs_out", 30 * DAY - DAY // 10),
        (1, 3, 1, 0, DAY, "runs_out", DAY // 3),
        (1, 7, 1, 0, DAY, "runs_out", DAY // 7 + 1),
    ],
)
def test_what_becomes_of_what_is_left(left, used, days, at, ends_at, status, exhausted_at):
    burned = rate(used, days)
    assert outlook(left, burned, at, ends_at) == Outlook(burned, left, status, exhausted_at)


@pytest.mark.parametrize(
    ("used", "days", "per_day"), [(0, 7, 0), (7, 7, 1), (10, 7, 1), (11, 7, 2), (5, 0, 0)]
)
def test_a_rate_per_day_is_rounded_half_up(used, days, per_day):
    assert rate(used, days).per_day == per_day


@given(left=st.integers(1, 2**60), used=st.integers(1, 2**60), lasted=st.integers(1, 400 * DAY))
def test_at_the_moment_of_exhaustion_all_is_used_and_not_a_microsecond_before(left, used, lasted):
    gone = outlook(left, Rate("period_to_date", used, 0, lasted), 0, 2**200).exhausted_at
    assert Fraction(used, lasted) * (gone - 1) < left <= Fraction(used, lasted) * gone


@pytest.mark.parametrize(
    ("parts", "shares"),
    [
        ([], []),
        ([0, 0], [0, 0]),
        ([5], [10_000]),
        ([1, 1, 1], [3_334, 3_333, 3_333]),
        ([2, 1], [6_667, 3_333]),
        ([1, 0, 10**30], [0, 0, 10_000]),
    ],
)
def test_shares_go_to_the_largest_remainders(parts, shares):
    assert shares_of(parts) == shares


@given(parts=st.lists(st.integers(0, 2**62), min_size=1, max_size=60), whole=st.integers(1, 20_000))
def test_shares_add_up_and_are_less_than_one_piece_away_from_exact(parts, whole):
    shares, total = shares_of(parts, whole), sum(parts)
    assert sum(shares) == (whole if total else 0)
    for part, share in zip(parts, shares, strict=True):
        assert abs(share - Fraction(part * whole, total or 1)) < 1
