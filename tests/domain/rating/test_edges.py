"""Edges of tariff elements that meet: increments at windows, windows at changed clocks, tiers and blocks.

In the window a second costs 2000 micro-units, at other times 1000; all figures are worked out by hand.
"""

from fractions import Fraction

import pytest
from domain.rating.test_windows import PEAK, cost, moment, prices, tariff

from allotment.domain.rating.language import Span, Window
from allotment.domain.rating.plan import CompiledPlan, PricePlan, Tier

M = 1_000_000


@pytest.mark.parametrize(
    ("at", "quantity", "increment", "at_start", "split"),
    [
        ("2026-11-16 17:59:59", 0, 60, 0, 0),
        # An increment that ends with the window, and the one after it.
        ("2026-11-16 17:59:00", 1, 60, 120_000, 120_000),
        ("2026-11-16 17:59:00", 59, 60, 120_000, 120_000),
        ("2026-11-16 17:59:00", 60, 60, 120_000, 120_000),
        ("2026-11-16 17:59:00", 61, 60, 240_000, 180_000),
        # One that begins in its last second is finished at its price.
        ("2026-11-16 17:59:59", 60, 60, 120_000, 120_000),
        ("2026-11-16 17:59:59", 61, 60, 240_000, 180_000),
        # The same where it begins.
        ("2026-11-16 07:59:00", 60, 60, 60_000, 60_000),
        ("2026-11-16 07:59:00", 61, 60, 120_000, 180_000),
        ("2026-11-16 07:59:01", 60, 60, 60_000, 60_000),
        ("2026-11-16 07:59:01", 61, 60, 120_000, 180_000),
        # The leap day is a Tuesday: fourteen hours of night, ten of the window.
        ("2028-02-29 17:59:59", 2, 1, 4_000, 3_000),
        ("2028-02-28 18:00:00", 86_400, 1, 86_400_000, 50_400_000 + 72_000_000),
        # Between two years nothing changes but the date.
        ("2026-12-31 23:59:59", 2, 1, 2_000, 2_000),
        ("2026-12-31 17:59:59", 14 * 3_600 + 2, 1, 2 * 50_402_000, 2_000 + 50_400_000 + 2_000),
    ],
)
def test_increments_at_the_bounds_of_windows_and_calendars(at, quantity, increment, at_start, split):
    for choice, exact in ((False, at_start), (True, split)):
        assert cost(tariff((PEAK,), *prices(choice, increment)), moment(at), quantity) == exact


@pytest.mark.parametrize(
    ("span", "at", "fold", "quantity", "exact"),
    [
        # On 29 March 03:00 follows 02:00: the second minute begins half a minute after three.
        ((180, 240), "2026-03-29 01:59:30", 0, 60, 60_000),
        ((180, 240), "2026-03-29 01:59:30", 0, 61, 180_000),
        ((120, 180), "2026-03-29 01:59:30", 0, 61, 120_000),
        # On 25 October two o'clock comes twice, and three once.
        ((120, 180), "2026-10-25 01:59:30", 0, 60, 60_000),
        ((120, 180), "2026-10-25 01:59:30", 0, 61, 180_000),
        ((120, 180), "2026-10-25 02:59:30", 0, 61, 240_000),
        ((120, 180), "2026-10-25 02:59:30", 1, 61, 180_000),
        ((180, 240), "2026-10-25 02:59:30", 0, 61, 120_000),
        ((180, 240), "2026-10-25 02:59:30", 1, 61, 180_000),
    ],
)
def test_by_the_minute_while_the_clocks_change(span, at, fold, quantity, exact):
    version = tariff((Window("w", (Span((), *span),)),), *prices(True, 60, "w"))
    assert cost(version, moment(at, fold), quantity) == exact


TIERS = (Tier(10, "0", 1, "5"), Tier(20, "0", 1, "3"), Tier(0, "0.50"))


@pytest.mark.parametrize(
    ("units", "graduated", "volume"),
    [
        (0, "0", "0"),
        (1, "5", "5"),
        (9, "5", "5"),
        (10, "5", "5"),
        (11, "8", "3"),
        (19, "8", "3"),
        (20, "8", "3"),
        (21, "8.50", "10.50"),
        (22, "9", "11"),
    ],
)
def test_a_flat_fee_for_each_tier_that_is_entered_and_for_the_one_reached(units, graduated, volume):
    plans = [CompiledPlan(PricePlan("p", kind, TIERS)) for kind in ("graduated", "volume")]
    assert [plan.whole(units) / M for plan in plans] == [Fraction(graduated), Fraction(volume)]


@pytest.mark.parametrize(
    ("free", "units", "expected"),
    [
        *((0, 0, "0"), (0, 1, "2"), (0, 49, "2"), (0, 50, "2"), (0, 51, "4"), (0, 100, "4"), (0, 101, "6")),
        *((100, 0, "0"), (100, 99, "0"), (100, 100, "0"), (100, 101, "2"), (100, 149, "2"), (100, 150, "2")),
        *((100, 151, "4"), (1, 1, "0"), (1, 2, "2")),
    ],
)
def test_blocks_after_free_units(free, units, expected):
    plan = CompiledPlan(PricePlan("p", "package", free=free, block=50, price="2"))
    assert plan.cost(0, units) / M == Fraction(expected)
