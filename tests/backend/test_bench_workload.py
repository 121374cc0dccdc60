"""The enterprise that benchmarks charge: as deep as asked, and no larger than its devices call for."""

import pytest

from allotment.backend.bench.workload import Shape, definition
from allotment.domain.hierarchy import DEPTH_MAX


def tree(devices, depth):
    """Each node and the one above it, from the top."""
    return {node.id: node.parent for node in definition(Shape(devices, depth)).nodes}


def levels(above):
    """How many nodes there are on each."""
    counted, depths = [], {}
    for node, parent in above.items():
        depths[node] = depths[parent] + 1 if parent else 0
        counted += [0] * (depths[node] == len(counted))
        counted[depths[node]] += 1
    return counted


@pytest.mark.parametrize(
    ("devices", "depth", "counted"),
    [
        (1, 3, [1, 2]),
        (1, 5, [1, 1, 1, 2]),
        (1, DEPTH_MAX, [1] * 62 + [2]),
        (10, 12, [1] * 7 + [2, 4, 8, 16]),
        (1_000, 3, [1, 32]),
        (1_000, 12, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024]),
        (1_000, 13, [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024]),
        (2_000, 8, [1, 3, 9, 27, 81, 243, 729]),
        (10_000, 5, [1, 10, 100, 1_000]),
        (100_000, 10, [1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536]),
    ],
)
def test_nodes_fork_where_there_are_devices_for_them_and_are_a_chain_above(devices, depth, counted):
    assert levels(tree(devices, depth)) == counted


@pytest.mark.parametrize("devices", [1, 2, 3, 7, 8, 100, 999, 1_000, 5_000])
def test_no_depth_makes_many_more_nodes_than_devices(devices):
    for depth in range(3, DEPTH_MAX + 1):
        assert len(tree(devices, depth)) <= 4 * devices + depth
