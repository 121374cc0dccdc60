"""Whether a tree's figures and limits tell the same as columns and as rows: for any database at hand."""

from allotment.domain.usage import MONEY, USAGE_TYPES
from allotment.projections import balances, limits
from allotment.projections.bounds import bounds_among
from allotment.projections.figures import SUBTREE, figures_among
from allotment.projections.members import tree
from allotment.projections.trees import Tree

TYPES = (MONEY, *USAGE_TYPES)
BUCKET = ("granted", "own", "consumed", "remaining", "reserved", "available")
OTHERS = (
    *("received", "allocated", "traded", "used_own", "used", "overage", "charges", "rejected"),
    *("expired", "rolled_out", "rolled_in"),
)


def check_columns(db, period, roots):
    for root in roots:
        for depth in (None, 1):
            for resources in (True, False):
                listed = Tree(tree(db, root, depth, resources=resources), depth)
                for types in (TYPES, ("voice",)) if resources else (TYPES,):
                    _check_figures(db, listed, period, types)
                    _check_bounds(db, listed, period, types)


def _check_figures(db, listed, period, types):
    rows = balances.balances_among(db, listed.listed, period, types, listed.depth)
    figures = figures_among(db, listed, period, types)
    assert list(figures) == list(types)
    for usage_type, columns in figures.items():
        mine = [row for row in rows if row.usage_type == usage_type]
        for name in OTHERS:
            assert columns.column(name) == [getattr(row, name) for row in mine]
        for name in BUCKET:
            assert columns.column(name) == [getattr(row.bucket, name) for row in mine]
            assert columns.column(f"{SUBTREE}{name}") == [getattr(row.subtree, name) for row in mine]


def _check_bounds(db, listed, period, types):
    rows = limits.limits_among(db, listed.listed, period, types)
    for figures in (None, figures_among(db, listed, period, types)):
        bounds = bounds_among(db, listed, period, types, figures)
        assert len(bounds) == len(rows)
        for name in ("usage_type", "quantity", "used", "from_period", "thresholds", "seq"):
            assert getattr(bounds, name) == [getattr(row, name) for row in rows]
        assert bounds.remaining == [max(0, row.quantity - row.used) for row in rows]
        assert [bounds.crossed.get(place, []) for place in range(len(rows))] == [row.crossed for row in rows]
        counted = [sum(row.ordinal == one.ordinal for row in rows) for one in listed.listed]
        assert [sum(counted[: place + 1]) for place in range(len(counted))] == bounds.ends
