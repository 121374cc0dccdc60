"""Trees that are kept: never another than the one that stands, and only as many as there is room for."""

import pytest

from allotment.backend.following import catch_up
from allotment.backend.looking_back import past
from allotment.domain.hierarchy import AddNode, EndResource, MoveResource, ResourceEnded
from allotment.domain.life import (
    CloseNode,
    MoveNode,
    NodeClosed,
    NodeRenamed,
    RenameNode,
    ResourceJoinedEarlier,
    ResourceSuspended,
    ResumeResource,
    SuspendResource,
)
from allotment.projections.chunk import ROOT, Ordinals
from allotment.projections.member_changes import Changes
from allotment.projections.members import tree
from allotment.projections.tables import int8_array, int8s
from allotment.projections.trees import OVERHEAD, Trees

STEPS = [
    lambda now: AddNode("south", "emea", "South", "group"),
    lambda now: RenameNode("south", "Far south"),
    lambda now: MoveResource("r1", "south", now),
    lambda now: MoveNode("south", "apac"),
    lambda now: SuspendResource("r2", now),
    lambda now: ResumeResource("r2", now + 1),
    lambda now: EndResource("r2", now),
    lambda now: CloseNode("south", "sales"),
    lambda now: MoveNode("sales", "acme"),
]
ASKED = [
    (root, depth, resources)
    for root in (None, "acme", "emea", "south", "r1", "r2", "nobody")
    for depth in (None, 1)
    for resources in (True, False)
]


class Counting:
    """A connection that counts what it is asked."""

    def __init__(self, db):
        self.db, self.asked = db, 0

    def execute(self, *args, **options):
        self.asked += 1
        return self.db.execute(*args, **options)


def reading(made):
    return made.isolation.transaction(made.tenant, "app")


def check(db, trees):
    for root, depth, resources in ASKED:
        kept = trees.read(db, root, depth, resources=resources)
        assert kept.listed == tree(db, root, depth, resources=resources)


def test_after_every_change_the_tree_is_the_one_that_stands(enterprise):
    made, trees, seqs = enterprise().opened(), Trees(), []
    for step in [None, *STEPS]:
        assert step is None or made.do(step(made.now)), step(made.now)
        made.commit()
        seqs.append(catch_up(made.isolation, made.tenant))
        for _ in range(2):
            with reading(made) as db:
                check(db, trees)
    for seq in reversed(seqs):
        with past(made.isolation, made.tenant, seq, ["members"]) as db:
            check(db, trees)


def test_a_tree_that_stands_is_not_read_again_whatever_is_used(enterprise):
    made, trees = enterprise().opened(), Trees()
    made.commit()
    catch_up(made.isolation, made.tenant)
    with reading(made) as db:
        first = trees.read(db, None, None, resources=True)
    made.use("r1", "voice", 60)
    made.commit()
    catch_up(made.isolation, made.tenant)
    with reading(made) as db:
        counting = Counting(db)
        assert trees.read(counting, None, None, resources=True) is first
        assert counting.asked == 1


def test_devices_that_move_leave_the_tree_of_nodes_as_it_is(enterprise):
    made, trees = enterprise().opened(), Trees()
    made.commit()
    catch_up(made.isolation, made.tenant)

    def both():
        with reading(made) as db:
            return [trees.read(db, None, None, resources=resources) for resources in (False, True)]

    nodes, devices = both()
    assert made.do(MoveResource("r1", "apac", made.now))
    made.commit()
    catch_up(made.isolation, made.tenant)
    again = both()
    assert again[0] is nodes
    assert again[1] is not devices


@pytest.mark.parametrize(
    ("event", "part"),
    [
        (NodeRenamed("n", "Other"), "nodes"),
        (NodeClosed("n", "", 5), None),
        (ResourceEnded("r", 5), "resources"),
        (ResourceJoinedEarlier("r", "n", 3, 5), "resources"),
        (ResourceJoinedEarlier("r", "n", 3, 5, stayed=False), None),
        (ResourceSuspended("r", 5), None),
    ],
)
def test_whatever_changes_a_row_tells_that_its_tree_is_another(event, part):
    ordinals = Ordinals(0)
    ordinals.enter("n", 0, ROOT, is_node=True)
    ordinals.enter("r", 1, 0, is_node=False)
    changes = Changes(ordinals, ())
    changes.tell(event, 7)
    assert bool(changes.changed) == (part is not None)
    assert changes.last == ({(part,): (7,)} if part else {})


def test_a_tree_is_never_another_tenants(enterprise):
    trees, told = Trees(), []
    for name in ("One", "Two"):
        made = enterprise().opened()
        assert made.do(RenameNode("emea", name))
        made.commit()
        catch_up(made.isolation, made.tenant)
        with reading(made) as db:
            told.append([one.name for one in trees.read(db, "emea", 0, resources=False).listed])
    assert told == [["One"], ["Two"]]


def test_the_least_recently_read_trees_go_first(enterprise):
    # Of trees as small as these there is room for four.
    made, trees = enterprise().opened(), Trees(members_max=4 * (OVERHEAD + 3))
    made.commit()
    catch_up(made.isolation, made.tenant)
    with reading(made) as db:
        emea, apac = (trees.read(db, root, 1, resources=False) for root in ("emea", "apac"))
        for depth in range(2, 8):
            trees.read(db, "sales", depth, resources=False)
            assert trees.read(db, "emea", 1, resources=False) is emea
        assert trees.read(db, "apac", 1, resources=False) is not apac


def test_a_tree_that_would_take_most_of_the_room_is_not_kept(enterprise):
    made, trees = enterprise().opened(), Trees(members_max=4 * OVERHEAD)
    made.commit()
    catch_up(made.isolation, made.tenant)
    with reading(made) as db:
        first, second = (trees.read(db, None, None, resources=True) for _ in range(2))
        assert first is not second
        assert first.listed == second.listed


@pytest.mark.parametrize("values", [[], [0], [-1, 2**63 - 1, -(2**63), 256]])
def test_arrays_of_numbers_are_unpacked_as_they_were(database, values, isolation, enterprise):
    made = enterprise()
    with reading(made) as db:
        found = db.execute("SELECT %s::bigint[]", (int8_array(values),), binary=True)
        assert int8s(found.pgresult.get_value(0, 0)) == values
