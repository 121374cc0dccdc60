"""What `allotment bench sustained` tells of its seconds, however few there are."""

import pytest

from allotment.backend.bench.sustained import Endurance, Second, report

PLAN = Endurance(records=100_000)
FIRST = Second(charged=10, rss_mb=100)
SLOWEST = {"slowest_per_s", "slowest_of_median", "slowest_at_pace"}


def second(charged, **more):
    return Second(charged=charged, cpu_ms=500, rss_mb=120, **more)


@pytest.mark.parametrize("seconds", [[], [FIRST]])
def test_a_run_too_short_to_judge_tells_its_average_and_leaves_the_other_figures_empty(seconds):
    told = report(PLAN, seconds, 1.25)
    assert (told["took_s"], told["average_per_s"], told["seconds"]) == (1.25, 80_000, 0)
    assert {told[name] for name in SLOWEST | {"charges_per_s", "charges_per_cpu_s", "rss_mb_end"}} == {None}
    assert told["slow_seconds"] == []
    assert len(told["per_second"]) == len(seconds)


def test_a_short_run_and_a_long_one_tell_the_same_names():
    assert [*report(PLAN, [], 1.0)] == [*report(PLAN, [FIRST, second(10)], 2.5)]


def test_the_slowest_second_is_told_beside_the_median_without_the_first():
    told = report(PLAN, [FIRST, second(100), second(70, pace=0.7), second(100)], 4.0)
    assert (told["seconds"], told["charges_per_s"], told["slowest_per_s"]) == (3, 100, 70)
    assert (told["slowest_of_median"], told["slowest_at_pace"]) == (0.7, 1.0)
    assert [one["second"] for one in told["slow_seconds"]] == [2]


def test_seconds_in_which_nothing_was_charged_or_worked_are_no_error():
    told = report(PLAN, [FIRST, Second(), Second()], 3.0)
    assert (told["charges_per_s"], told["slowest_of_median"], told["charges_per_cpu_s"]) == (0, None, None)
