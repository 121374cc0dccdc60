"""What becomes of nodes and resources: renamed, moved, merged, closed, suspended, under other numbers."""

import pytest

from allotment.domain.bucket import Allocate, Granted, Return, Trade, Transferred
from allotment.domain.charging import UsageCharged, UsageRejected
from allotment.domain.hierarchy import (
    DEPTH_MAX,
    AddNode,
    AddResource,
    EndResource,
    Identity,
    MoveResource,
    NodeAdded,
)
from allotment.domain.life import (
    CancelPlan,
    CarryOutPlan,
    ChangeIdentities,
    CloseNode,
    IdentityAdded,
    IdentityRemoved,
    LabelResource,
    MoveNode,
    NodeChangePlanned,
    NodeClosed,
    NodeMoved,
    NodePlanCancelled,
    NodeRenamed,
    RenameNode,
    ResourceLabelled,
    ResourceResumed,
    ResourceSuspended,
    ResumeResource,
    SuspendResource,
)
from allotment.domain.limit import SetLimit
from allotment.domain.tenant import TenantOpened

NOON = 1_794_740_400_000_000
LATER = NOON + 10
TEAM = NodeAdded("team", 6, "sales", "Team", "group")
OLD, NEW = Identity(b"r-1", b""), Identity(b"new", b"sealed")


@pytest.mark.parametrize(
    ("history", "command", "outcome"),
    [
        # renaming
        ([], RenameNode("nowhere", "X"), "unknown_node"),
        ([], RenameNode("r-1", "X"), "unknown_node"),
        ([], RenameNode("sales", ""), "bad_text"),
        ([], RenameNode("sales", "X", note="\x00"), "bad_text"),
        ([], RenameNode("sales", "X", NOON - 1), "in_the_past"),
        ([], RenameNode("sales", "X", expected=1), "version_conflict"),
        ([NodeRenamed("sales", "Y")], RenameNode("sales", "X", expected=1), [NodeRenamed("sales", "X")]),
        ([], RenameNode("acme", "X", NOON), [NodeRenamed("acme", "X")]),
        ([], RenameNode("sales", "X", LATER), [NodeChangePlanned("sales", "rename", "X", LATER)]),
        ([NodeClosed("sales", "", NOON)], RenameNode("sales", "X"), "node_closed"),
        # moving
        ([], MoveNode("nowhere", "acme"), "unknown_node"),
        ([], MoveNode("sales", "nowhere"), "unknown_node"),
        ([], MoveNode("sales", "r-2"), "unknown_node"),
        ([], MoveNode("acme", "apac"), "root_stays"),
        ([], MoveNode("sales", "emea"), "stands_there_already"),
        ([], MoveNode("sales", "sales"), "cycle"),
        ([], MoveNode("emea", "sales"), "cycle"),
        ([], MoveNode("sales", "apac", NOON - 1), "in_the_past"),
        ([], MoveNode("sales", "apac"), [NodeMoved("sales", "apac", NOON)]),
        ([], MoveNode("sales", "apac", note="why"), [NodeMoved("sales", "apac", NOON, "why")]),
        ([], MoveNode("sales", "apac", LATER), [NodeChangePlanned("sales", "move", "apac", LATER)]),
        ([NodeClosed("apac", "", NOON)], MoveNode("sales", "apac"), "node_closed"),
        (
            [NodeChangePlanned("sales", "move", "apac", LATER)],
            MoveNode("sales", "acme"),
            "planned_already",
        ),
        ([NodeChangePlanned("emea", "move", "apac", LATER)], MoveNode("apac", "sales"), "cycle"),
        ([NodeChangePlanned("emea", "move", "apac", LATER)], MoveNode("apac", "sales", LATER + 9), "cycle"),
        # closing and merging
        ([], CloseNode("acme"), "root_stays"),
        ([], CloseNode("sales"), "node_not_empty"),
        ([], CloseNode("emea"), "node_not_empty"),
        ([TEAM], CloseNode("team"), [NodeClosed("team", "", NOON)]),
        ([TEAM, NodeClosed("team", "", NOON)], CloseNode("team"), "node_closed"),
        ([TEAM], CloseNode("team", at=LATER), [NodeChangePlanned("team", "close", "", LATER)]),
        (
            [TEAM, Granted("team", "voice", "2026-11", 5)],
            CloseNode("team"),
            "node_not_empty",
        ),
        ([TEAM, NodeChangePlanned("apac", "move", "team", LATER)], CloseNode("team"), "planned_into"),
        ([], CloseNode("sales", "sales"), "cycle"),
        ([], CloseNode("emea", "sales"), "cycle"),
        ([], CloseNode("sales", "nowhere"), "unknown_node"),
        ([], CloseNode("sales", "apac"), [NodeClosed("sales", "apac", NOON)]),
        (
            [Granted("sales", "voice", "2026-11", 5)],
            CloseNode("sales", "apac"),
            [Transferred("sales", "apac", "voice", "2026-11", 5, "trade"), NodeClosed("sales", "apac", NOON)],
        ),
        (
            [Granted("sales", "voice", "2026-11", 5)],
            CloseNode("sales", "acme"),
            [
                Transferred("sales", "acme", "voice", "2026-11", 5, "return"),
                NodeClosed("sales", "acme", NOON),
            ],
        ),
        # what was planned
        ([], CancelPlan("sales"), "nothing_planned"),
        ([], CarryOutPlan("sales", LATER), "nothing_planned"),
        ([NodeChangePlanned("sales", "rename", "X", LATER)], CarryOutPlan("sales", LATER), "nothing_planned"),
        (
            [NodeChangePlanned("sales", "rename", "X", LATER)],
            CancelPlan("sales", "no"),
            [NodePlanCancelled("sales", "", "no")],
        ),
        # suspending
        ([], SuspendResource("sales"), "unknown_resource"),
        ([], SuspendResource("r-1", NOON - 1), "in_the_past"),
        ([], SuspendResource("r-1"), [ResourceSuspended("r-1", NOON)]),
        ([], ResumeResource("r-1"), "not_suspended"),
        ([ResourceSuspended("r-1", 5)], SuspendResource("r-1"), "suspended_already"),
        ([ResourceSuspended("r-1", LATER)], ResumeResource("r-1"), "not_after_last_change"),
        ([ResourceSuspended("r-1", 5)], ResumeResource("r-1", LATER), [ResourceResumed("r-1", LATER)]),
        # identities
        ([], ChangeIdentities("r-1", (), ()), "no_identity"),
        ([], ChangeIdentities("r-1", (), (b"r-1",)), "no_identity"),
        ([], ChangeIdentities("r-1", (NEW,), (b"r-2",)), "not_its_line"),
        ([], ChangeIdentities("r-1", (OLD,), ()), "identity_twice"),
        ([], ChangeIdentities("r-1", (NEW, NEW), ()), "identity_twice"),
        ([], ChangeIdentities("r-1", (Identity(b"r-2", b""),), ()), "identity_in_use"),
        ([], ChangeIdentities("r-1", (NEW,), (), NOON - 1), "in_the_past"),
        (
            [],
            ChangeIdentities("r-1", (NEW,), (b"r-1",), note="stolen"),
            [
                IdentityRemoved("r-1", b"r-1", NOON, "stolen"),
                IdentityAdded("r-1", NEW, NOON, "stolen"),
            ],
        ),
        (
            [],
            ChangeIdentities("r-1", tuple(Identity(b"%d" % number, b"") for number in range(20)), ()),
            "too_many_identities",
        ),
        # labels
        ([], LabelResource("sales", b"t", b"s"), "unknown_resource"),
        ([], LabelResource("r-1", b"t", b"s"), [ResourceLabelled("r-1", b"t", b"s")]),
        # what is closed takes nothing new
        ([TEAM, NodeClosed("team", "", 0)], AddNode("x", "team", "", "group"), "node_closed"),
        ([TEAM, NodeClosed("team", "", 0)], AddResource("x", "team", "sip", 0, (NEW,)), "node_closed"),
        ([TEAM, NodeClosed("team", "", 0)], MoveResource("r-1", "team", NOON), "node_closed"),
        ([TEAM, NodeClosed("team", "", 0)], Allocate("sales", "team", "voice", "2026-11", 1), "node_closed"),
    ],
)
def test_what_may_become_of_members(company, now, history, command, outcome):
    assert now == NOON
    assert company(*history).ask(command) == outcome


def test_a_node_moves_with_all_below_it_and_earlier_usage_stays(acme, now):
    acme.use(60)
    acme.do(MoveNode("sales", "apac"))
    acme.use(120)
    used = acme.family().used
    assert [used[ordinal] for ordinal in range(5)] == [180, 60, 180, 120, 180]
    hierarchy = acme.tenant.hierarchy
    assert hierarchy.guide(b"r-1", now - 1) == (4, 2, 1, 0)
    assert hierarchy.guide(b"r-1", now) == hierarchy.member("r-1").path == (4, 2, 3, 0)
    assert hierarchy.node("sales").way == (2, 3, 0)


def test_a_bucket_goes_with_its_node(acme):
    acme.do(Allocate("acme", "sales", "voice", "2026-11", 100))
    acme.do(MoveNode("sales", "apac"))
    assert acme.ask(Return("sales", "emea", "voice", "2026-11", 10)) == "not_above"
    acme.do(Return("sales", "apac", "voice", "2026-11", 10))
    charged = acme.use(60)[0]
    assert charged.drawn == ((2, 60),)
    assert acme.family().granted_total == 1000


def test_limits_above_hold_for_what_comes_below_them(acme):
    acme.do(SetLimit("apac", "voice", 60))
    acme.do(MoveNode("sales", "apac"))
    acme.use(60)
    (rejected,) = acme.use(60)
    assert (rejected.reason, rejected.stopped_by) == ("limit_exceeded", 3)


def test_a_planned_move_counts_by_date_and_shows_when_its_moment_comes(acme, now):
    acme.do(MoveNode("sales", "apac", now + 100))
    hierarchy, life = acme.tenant.hierarchy, acme.tenant.life
    assert (life.next_due(), life.due(now + 99)) == (now + 100, [])
    assert acme.use(60, at=now + 99)[0].path == (4, 2, 1, 0)
    assert acme.use(60, at=now + 100)[0].path == (4, 2, 3, 0)
    assert hierarchy.node("sales").way == (2, 1, 0)
    (carry_out,) = life.due(now + 150)
    assert acme.do(carry_out, now + 150) == [NodeMoved("sales", "apac", now + 100)]
    assert hierarchy.node("sales").way == (2, 3, 0)
    assert hierarchy.guide(b"r-1", now + 99) == (4, 2, 1, 0)
    assert (life.next_due(), life.due(now + 999)) == (None, [])


def test_a_cancelled_plan_leaves_no_trace_in_paths(acme, now):
    acme.do(MoveNode("sales", "apac", now + 100))
    acme.do(AddResource("r-3", "sales", "sip", 0, (NEW,)))
    acme.do(CancelPlan("sales"))
    for line in (b"r-1", b"new"):
        assert acme.tenant.hierarchy.guide(line, now + 200)[1:] == (2, 1, 0)
    assert isinstance(acme.ask(MoveNode("sales", "apac")), list)


def test_a_plan_that_became_impossible_is_called_off_with_its_reason(acme, now):
    acme.do(RenameNode("emea", "Europe", now + 100))
    acme.do(AddNode("team", "sales", "", "group"))
    acme.do(CloseNode("team", at=now + 100))
    acme.do(AddResource("late", "team", "sip", 0, (NEW,)))
    due = acme.tenant.life.due(now + 100)
    assert due == [CarryOutPlan("emea", now + 100), CarryOutPlan("team", now + 100)]
    assert [acme.do(command, now + 101) for command in due] == [
        [NodeRenamed("emea", "Europe")],
        [NodePlanCancelled("team", "node_not_empty")],
    ]


def test_a_node_that_was_added_or_moved_below_what_will_move_goes_along(acme, now):
    acme.do(MoveNode("sales", "apac", now + 100))
    acme.do(AddNode("team", "sales", "", "group"))
    acme.do(AddResource("r-3", "team", "sip", 0, (NEW,)))
    acme.do(MoveResource("r-2", "sales", now + 5))
    guide = acme.tenant.hierarchy.guide
    assert guide(b"new", now + 99) == (7, 6, 2, 1, 0)
    assert guide(b"new", now + 100) == (7, 6, 2, 3, 0)
    assert [guide(b"r-2", at) for at in (now, now + 5, now + 100)] == [(5, 3, 0), (5, 2, 1, 0), (5, 2, 3, 0)]
    acme.do(MoveResource("r-2", "emea", now + 50))
    assert guide(b"r-2", now + 100) == (5, 1, 0)


def test_a_merged_node_leaves_all_it_had_to_its_successor(acme, now):
    acme.do(AddNode("team", "sales", "", "group"))
    acme.do(AddResource("r-3", "team", "sip", 0, (NEW,)))
    acme.do(Allocate("acme", "sales", "voice", "2026-11", 100))
    acme.use(60)
    acme.do(MoveResource("r-2", "sales", now + 50))
    acme.do(CloseNode("sales", "apac"))
    hierarchy = acme.tenant.hierarchy
    assert hierarchy.guide(b"r-1", now - 1) == (4, 2, 1, 0)
    assert hierarchy.guide(b"r-1", now) == hierarchy.member("r-1").path == (4, 3, 0)
    assert hierarchy.guide(b"new", now) == (7, 6, 3, 0)
    assert hierarchy.guide(b"r-2", now + 50) == (5, 3, 0)
    assert (acme.family().remaining[2], acme.family().remaining[3]) == (0, 40)
    assert acme.refusal(AddNode("x", "sales", "", "group")) == (
        "node_closed",
        {"node": "sales", "closed_at": now, "successor": "apac"},
    )


def test_what_comes_back_to_a_closed_node_can_still_be_taken_from_it(acme):
    acme.do(Allocate("acme", "sales", "voice", "2026-11", 100))
    acme.tenant.families["voice", "2026-11"].reserved[2] = 30
    moved, _ = acme.ask(CloseNode("sales", "apac"))
    assert moved.quantity == 70
    acme.tell(moved, NodeClosed("sales", "apac", NOON))
    acme.tenant.families["voice", "2026-11"].reserved[2] = 0
    assert isinstance(acme.ask(Trade("sales", "apac", "voice", "2026-11", 30)), list)


def test_a_node_is_not_emptied_of_periods_that_are_over(acme, at):
    acme.do(Allocate("acme", "sales", "voice", "2026-11", 100))
    acme.do(EndResource("r-1", at("2026-12-01 00:00")))
    assert acme.do(CloseNode("sales"), at("2026-12-01 00:01"))[-1] == NodeClosed(
        "sales", "", at("2026-12-01 00:01")
    )


def test_a_move_that_would_be_too_deep_is_refused(told):
    company = told(TenantOpened("Deep", "UTC", "EUR", ""))
    for depth in range(DEPTH_MAX - 1):
        company.do(AddNode(f"n{depth}", f"n{depth - 1}" if depth else "", "", "group"))
    company.do(AddNode("side", "n0", "", "group"))
    company.do(AddNode("below", "side", "", "group"))
    assert company.ask(MoveNode("side", f"n{DEPTH_MAX - 2}")) == "too_deep"
    assert company.ask(CloseNode("side", f"n{DEPTH_MAX - 2}")) == [
        NodeClosed("side", f"n{DEPTH_MAX - 2}", NOON)
    ]
    company.do(MoveNode("side", f"n{DEPTH_MAX - 3}"))


@pytest.mark.parametrize("counterpart", ["112", "+49110", "911", "urn:service:sos.fire"])
def test_who_is_suspended_may_call_for_help_and_nothing_else(acme, now, counterpart):
    acme.do(SuspendResource("r-1", now + 10))
    assert isinstance(acme.use(60, at=now + 9)[0], UsageCharged)
    rejected = acme.use(60, at=now + 10)[0]
    assert isinstance(rejected, UsageRejected)
    assert (rejected.reason, rejected.stopped_by) == ("suspended", 4)
    assert not isinstance(acme.use(60, at=now + 10, counterpart=counterpart)[0], UsageRejected)
    assert isinstance(acme.use(60, at=now + 10, line="r-2")[0], UsageCharged)
    acme.do(ResumeResource("r-1", now + 20))
    assert isinstance(acme.use(60, at=now + 20)[0], UsageCharged)
    assert acme.use(60, at=now + 19)[0].reason == "suspended"


def test_another_sim_is_the_same_resource_from_its_date_on(acme, now):
    acme.do(ChangeIdentities("r-1", (NEW,), (b"r-1",), now + 10))
    guide = acme.tenant.hierarchy.guide
    assert (guide(b"r-1", now + 9), guide(b"r-1", now + 10)) == ((4, 2, 1, 0), ())
    assert (guide(b"new", now + 9), guide(b"new", now + 10)) == ((), (4, 2, 1, 0))
    assert acme.ask(AddResource("heir", "apac", "sip", now + 9, (OLD,))) == "identity_in_use"
    acme.do(AddResource("heir", "apac", "sip", now + 10, (OLD,)))
    assert guide(b"r-1", now + 10) == (6, 3, 0)
    acme.do(ChangeIdentities("heir", (Identity(b"own", b""),), (b"r-1",), now + 20))
    acme.do(ChangeIdentities("r-1", (OLD,), (), now + 20))
    assert [guide(b"r-1", now + when) for when in (9, 10, 20)] == [(4, 2, 1, 0), (6, 3, 0), (4, 2, 1, 0)]


def test_who_a_resource_is_for_can_be_taken_away(acme):
    acme.do(LabelResource("r-1", b"token", b"sealed"))
    assert acme.tenant.life.labels == {4: (b"token", b"sealed")}
    acme.do(LabelResource("r-1", b"", b""))
    assert acme.tenant.life.labels == {}


def test_a_change_of_what_has_changed_meanwhile_is_refused(acme):
    acme.do(MoveResource("r-1", "apac", 5))
    acme.do(SuspendResource("r-1", expected=1))
    assert acme.refusal(ResumeResource("r-1", expected=1)) == (
        "version_conflict",
        {"node": "r-1", "expected": 1, "version": 2},
    )
