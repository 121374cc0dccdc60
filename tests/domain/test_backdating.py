"""Back-dated changes of the hierarchy: what they are refused for, and what is charged again by them.

acme > emea > sales > r-1; acme > apac > r-2. It is the 15th of November, noon; hours are counted back.
"""

from typing import Any

import pytest
from backdated import held, settle, use

from allotment.domain.bucket import Allocate, Transferred
from allotment.domain.charging import UsageCharged, UsageRejected
from allotment.domain.correcting import (
    CorrectAdd,
    CorrectClose,
    CorrectEnd,
    CorrectJoin,
    CorrectMerge,
    CorrectNodeMove,
    CorrectRename,
    CorrectResumption,
    CorrectSuspension,
)
from allotment.domain.hierarchy import (
    AddNode,
    AddResource,
    EndResource,
    Identity,
    MoveResource,
    NodeAdded,
)
from allotment.domain.life import (
    CloseNode,
    IdentityRemoved,
    MoveNode,
    NodeClosed,
    NodeMoved,
    NodeRenamed,
    RenameNode,
    ResourceJoinedEarlier,
    ResourceResumed,
    ResourceSuspended,
    ResumeResource,
    SuspendResource,
)
from allotment.domain.limit import SetLimit, ThresholdCrossed
from allotment.domain.rating_job import Scope
from allotment.domain.refusals import Refused

HOUR, DAY = 3_600_000_000, 86_400_000_000
MONTH = "2026-11"


@pytest.fixture
def ago(now):
    """So many hours ago."""
    return lambda hours: now - hours * HOUR


def used(company: Any, usage_type: str = "voice") -> list[int]:
    return list(company.family(usage_type).used)


def test_a_node_that_stood_elsewhere_takes_its_usage_along(acme, now, ago):
    acme.do(Allocate("acme", "apac", "voice", MONTH, 100))
    use(acme, "r-1", 60, ago(3), now)
    use(acme, "r-1", 60, ago(1), now)
    moved, begun = acme.do(CorrectNodeMove("j", "sales", "apac", ago(2), "wrong division"))
    assert moved == NodeMoved("sales", "apac", ago(2), "wrong division")
    assert (begun.scope, begun.cause) == (
        Scope(node="sales", starts_at=ago(2), guided=True),
        "hierarchy_corrected",
    )
    settle(acme, now)
    # acme, emea, sales, apac, r-1, r-2: what was used before stays where it was charged.
    assert used(acme) == [120, 60, 120, 60, 120, 0]
    assert acme.family().remaining[3] == 40


def test_what_moved_later_is_laid_anew_from_the_earlier_moment(acme, now, ago):
    acme.do(AddNode("team", "sales", "Team", "group"))
    acme.do(AddResource("r-3", "team", "sip", 0, (Identity(b"r-3", b""),)))
    use(acme, "r-3", 60, ago(3), now)
    acme.do(MoveNode("team", "emea"), ago(2))
    use(acme, "r-3", 60, ago(1), now)
    acme.do(CorrectNodeMove("j", "sales", "apac", ago(4)))
    settle(acme, now)
    # Three hours ago the team was below sales, and so in apac; since it moved, it is in emea.
    assert used(acme) == [120, 60, 60, 60, 0, 0, 120, 120]


def test_what_moved_away_since_does_not_stay_below(acme, now, ago):
    acme.do(MoveResource("r-1", "apac", ago(2)))
    use(acme, "r-1", 60, ago(1), now)
    use(acme, "r-1", 60, ago(3), now)
    acme.do(CorrectNodeMove("j", "sales", "acme", ago(4)))
    settle(acme, now)
    assert used(acme) == [120, 0, 60, 60, 120, 0]


@pytest.mark.parametrize(
    ("node", "parent", "hours", "code"),
    [
        ("nobody", "apac", 1, "unknown_node"),
        ("sales", "nowhere", 1, "unknown_node"),
        ("acme", "apac", 1, "root_stays"),
        ("sales", "emea", 1, "stands_there_already"),
        ("emea", "sales", 1, "cycle"),
        ("emea", "emea", 1, "cycle"),
        ("sales", "apac", 0, "not_in_the_past"),
        ("sales", "apac", -1, "not_in_the_past"),
        ("sales", "apac", 24 * 40, "period_closed"),
        ("old", "apac", 1, "node_closed"),
        ("sales", "old", 1, "node_closed"),
        ("late", "apac", 3, "not_after_last_move"),
        ("soon", "apac", 3, "planned_already"),
        # It was above what it would stand below now, when that was.
        ("upper", "lower", 5, "cycle"),
        ("upper", "lower", 1, None),
    ],
)
def test_a_node_that_cannot_have_stood_there(acme, now, ago, node, parent, hours, code):
    for name in ("old", "late", "soon", "upper"):
        acme.do(AddNode(name, "acme", "", "group"))
    acme.do(AddNode("lower", "upper", "", "group"))
    acme.do(CloseNode("old"))
    acme.do(MoveNode("late", "emea"), ago(2))
    acme.do(MoveNode("lower", "acme"), ago(4))
    acme.do(MoveNode("soon", "emea", now + HOUR))
    found = acme.ask(CorrectNodeMove("j", node, parent, now - hours * HOUR))
    assert (found if isinstance(found, str) else None) == code


def test_a_tree_that_would_have_been_too_deep_is_refused(acme, ago):
    above = "apac"
    for level in range(61):
        acme.do(AddNode(f"n{level}", above, "", "group"))
        above = f"n{level}"
    assert acme.ask(CorrectNodeMove("j", "sales", above, ago(1)))[0].parent == above
    assert acme.ask(CorrectNodeMove("j", "emea", above, ago(1))) == "too_deep"


def test_others_are_moved_back_dated_below_a_node_that_was_told_too_late(acme, now, ago):
    use(acme, "r-1", 60, ago(1), now)
    added, begun = acme.do(CorrectAdd("j", "dach", "acme", "DACH", "division", ago(3), "new since Monday"))
    assert added == NodeAdded("dach", 6, "acme", "DACH", "division", ago(3))
    assert not begun.scope.takes(held(acme)[13][1], acme.tenant.hierarchy, acme.tenant.tariffs)
    settle(acme, now)
    acme.do(CorrectNodeMove("k", "sales", "dach", ago(2)))
    settle(acme, now)
    assert used(acme) == [60, 0, 60, 0, 60, 0, 60]


@pytest.mark.parametrize(
    ("node", "parent", "kind", "hours", "code"),
    [
        ("new", "acme", "group", 0, "not_in_the_past"),
        ("new", "acme", "group", 24 * 40, "period_closed"),
        ("new", "nobody", "group", 1, "unknown_node"),
        ("new", "", "group", 1, "second_root"),
        ("new", "acme", "team", 1, "unknown_kind"),
        ("sales", "acme", "group", 1, "exists_already"),
        ("new", "acme", "group", 1, None),
    ],
)
def test_a_node_that_cannot_have_been_there_then(acme, now, node, parent, kind, hours, code):
    found = acme.ask(CorrectAdd("j", node, parent, "", kind, now - hours * HOUR))
    assert (found if isinstance(found, str) else None) == code


def test_a_node_was_called_otherwise_since_an_earlier_moment(acme, now, ago):
    renamed, _ = acme.do(CorrectRename("j", "sales", "Sales North", ago(2), "rebranded"))
    assert renamed == NodeRenamed("sales", "Sales North", "rebranded", ago(2))
    settle(acme, now)
    assert acme.tenant.hierarchy.by_id["sales"].name == "Sales North"
    assert acme.ask(CorrectRename("k", "sales", "", ago(2))) == "bad_text"
    assert acme.ask(CorrectRename("k", "sales", "x", ago(24 * 40))) == "period_closed"
    assert acme.ask(CorrectRename("k", "sales", "x", ago(1), expected=0)) == "version_conflict"


def test_a_node_that_was_merged_earlier_leaves_its_usage_and_its_bucket_to_the_other(acme, now, ago):
    acme.do(Allocate("acme", "emea", "voice", MONTH, 130))
    use(acme, "r-1", 60, ago(3), now)
    use(acme, "r-1", 60, ago(1), now)
    moved, closed, begun = acme.do(CorrectMerge("j", "emea", "apac", ago(2), "one region"))
    assert moved == Transferred("emea", "apac", "voice", MONTH, 10, "trade", "one region")
    assert closed == NodeClosed("emea", "apac", ago(2), "one region")
    assert begun.scope == Scope(node="emea", starts_at=ago(2), guided=True)
    settle(acme, now)
    # acme, emea, sales, apac, r-1, r-2: what was used before stays where it was charged.
    assert used(acme) == [120, 60, 120, 60, 120, 0]
    assert acme.family().consumed == [0, 60, 0, 60, 0, 0]
    assert acme.family().remaining == [870, 0, 0, 10, 0, 0]
    assert acme.tenant.hierarchy.by_id["sales"].parent.id == "apac"


def test_what_moved_away_since_and_what_ended_since_were_on_the_successor_meanwhile(acme, now, ago):
    acme.do(AddNode("team", "emea", "Team", "group"))
    for name, node in (("r-3", "team"), ("r-4", "emea"), ("r-5", "emea")):
        acme.do(AddResource(name, node, "sip", 0, (Identity(name.encode(), b""),)))
    for line in ("r-3", "r-4", "r-5"):
        use(acme, line, 60, ago(3), now)
    acme.do(MoveNode("team", "acme"), ago(2))
    acme.do(MoveResource("r-4", "sales", ago(2)))
    acme.do(EndResource("r-5", ago(2)))
    for line in ("r-3", "r-4"):
        use(acme, line, 60, ago(1), now)
    acme.do(CorrectMerge("j", "emea", "apac", ago(4)))
    settle(acme, now)
    # acme, emea, sales, apac, r-1, r-2, team, r-3, r-4, r-5
    assert used(acme) == [300, 0, 60, 240, 0, 0, 120, 120, 120, 60]
    assert acme.tenant.hierarchy.by_id["r-5"].parent.id == "apac"
    assert acme.tenant.hierarchy.by_id["team"].parent.id == "acme"
    acme.tenant.check_whole()


def test_what_is_given_back_to_a_merged_node_by_a_later_correction_is_its_successors(acme, now, ago):
    acme.do(Allocate("acme", "emea", "voice", MONTH, 100))
    use(acme, "r-1", 60, ago(4), now)
    acme.do(CloseNode("emea", "apac"), ago(1))
    acme.do(CorrectSuspension("j", "r-1", ago(5)))
    settle(acme, now)
    assert (acme.family().remaining[1], acme.family().remaining[3]) == (0, 100)


def test_a_node_that_was_empty_since_is_closed_earlier(acme, now, ago):
    acme.do(AddNode("old", "emea", "", "group"))
    acme.do(AddResource("r-3", "old", "sip", 0, (Identity(b"r-3", b""),)))
    acme.do(MoveResource("r-3", "sales", ago(3)))
    closed, _ = acme.do(CorrectClose("j", "old", ago(3), "gone"))
    assert closed == NodeClosed("old", "", ago(3), "gone")
    settle(acme, now)
    assert acme.ask(AddNode("new", "old", "", "group")) == "node_closed"


@pytest.mark.parametrize(
    ("hours", "facts"),
    [
        (1, None),
        (2, None),
        (3, ("r-3", 3, 2)),
        (5, ("r-3", 5, 2)),
        (6, ("r-3", 5, 2)),
    ],
)
def test_what_stood_in_the_way_of_closing_is_named(acme, now, ago, hours, facts):
    acme.do(AddNode("old", "emea", "", "group"))
    acme.do(AddResource("r-3", "old", "sip", ago(5), (Identity(b"r-3", b""),)))
    acme.do(MoveResource("r-3", "sales", ago(2)))
    if facts is None:
        assert not isinstance(acme.ask(CorrectClose("j", "old", ago(hours))), str)
        return
    with pytest.raises(Refused) as refused:
        acme.tenant.decide(CorrectClose("j", "old", ago(hours)), now)
    by, since, until = facts
    told = {"node": "old", "by": by, "since": ago(since), "until": ago(until)}
    assert (refused.value.code, refused.value.facts) == ("not_empty_then", told)


@pytest.mark.parametrize(
    ("command", "node", "to", "hours", "code"),
    [
        (CorrectMerge, "acme", "apac", 1, "root_stays"),
        (CorrectMerge, "nobody", "apac", 1, "unknown_node"),
        (CorrectMerge, "emea", "nobody", 1, "unknown_node"),
        (CorrectMerge, "emea", "emea", 1, "cycle"),
        (CorrectMerge, "emea", "sales", 1, "cycle"),
        (CorrectMerge, "emea", "apac", 0, "not_in_the_past"),
        (CorrectMerge, "emea", "apac", 24 * 40, "period_closed"),
        (CorrectMerge, "old", "apac", 1, "node_closed"),
        (CorrectMerge, "emea", "old", 1, "node_closed"),
        (CorrectMerge, "late", "apac", 2, "not_after_last_move"),
        (CorrectMerge, "late", "apac", 1, None),
        (CorrectMerge, "soon", "apac", 1, "planned_already"),
        (CorrectMerge, "goal", "apac", 1, "planned_into"),
        # Another was merged into it since.
        (CorrectMerge, "heir", "apac", 3, "not_after_last_move"),
        (CorrectMerge, "heir", "apac", 1, None),
        # It was above the other, when that was.
        (CorrectMerge, "upper", "lower", 5, "cycle"),
        (CorrectMerge, "upper", "lower", 1, None),
        (CorrectMerge, "sales", "emea", 1, None),
        (CorrectClose, "acme", "", 1, "root_stays"),
        (CorrectClose, "emea", "", 1, "not_empty_then"),
        (CorrectClose, "apac", "", 1, "not_empty_then"),
        (CorrectClose, "late", "", 0, "not_in_the_past"),
        (CorrectClose, "late", "", 1, None),
        (CorrectClose, "old", "", 1, "node_closed"),
        (CorrectClose, "soon", "", 1, "planned_already"),
        # Nobody is there, but something is in its bucket.
        (CorrectClose, "rich", "", 1, "node_not_empty"),
        # What was below it moved away four hours ago.
        (CorrectClose, "upper", "", 5, "not_empty_then"),
        (CorrectClose, "upper", "", 4, None),
    ],
)
def test_a_node_that_cannot_have_been_merged_or_closed_then(acme, now, ago, command, node, to, hours, code):
    for name in ("old", "late", "soon", "goal", "heir", "gone", "upper", "rich"):
        acme.do(AddNode(name, "acme", "", "group"))
    acme.do(AddNode("lower", "upper", "", "group"))
    acme.do(CloseNode("old"))
    acme.do(Allocate("acme", "rich", "voice", MONTH, 1))
    acme.do(MoveNode("late", "emea"), ago(2))
    acme.do(MoveNode("lower", "acme"), ago(4))
    acme.do(CloseNode("gone", "heir"), ago(2))
    acme.do(MoveNode("soon", "goal", now + HOUR))
    given = ("j", node, to, now - hours * HOUR) if to else ("j", node, now - hours * HOUR)
    found = acme.ask(command(*given))
    assert (found if isinstance(found, str) else None) == code


def test_who_joined_earlier_gets_what_waited_for_nobody(acme, now, ago):
    use(acme, "r-3", 60, ago(3), now)
    acme.do(AddResource("r-3", "sales", "sip", ago(1), (Identity(b"r-3", b""),)))
    use(acme, "r-3", 60, ago(2), now)
    assert acme.tenant.charging.counts["suspended"] == 2
    joined, begun = acme.do(CorrectJoin("j", "r-3", ago(3), "came on Monday"))
    assert joined == ResourceJoinedEarlier("r-3", "sales", ago(3), ago(1), "came on Monday")
    assert begun.scope == Scope(starts_at=ago(3), ends_at=ago(1), guided=True, resources=("r-3",), anew=True)
    settle(acme, now)
    assert used(acme) == [120, 120, 120, 0, 0, 0, 120]
    assert not acme.tenant.suspense.waiting


def test_who_joined_earlier_gets_what_was_charged_to_whoever_had_the_line(acme, now, ago):
    use(acme, "r-1", 60, ago(3), now)
    use(acme, "r-1", 60, ago(5), now)
    acme.do(EndResource("r-1", ago(2)))
    acme.do(AddResource("r-3", "apac", "sip", ago(1), (Identity(b"r-1", b""),)))
    use(acme, "r-1", 60, ago(1) - 1, now)
    removed, _, begun = acme.do(CorrectJoin("j", "r-3", ago(4)))
    assert removed == IdentityRemoved("r-1", b"r-1", ago(4))
    assert begun.scope.resources == ("r-3", "r-1")
    settle(acme, now)
    assert used(acme) == [180, 60, 60, 120, 60, 0, 120]


@pytest.mark.parametrize(
    ("resource", "hours", "code"),
    [
        ("nobody", 3, "unknown_resource"),
        ("acme", 3, "unknown_resource"),
        ("r-3", 2, "joined_already"),
        ("r-3", 1, "joined_already"),
        ("r-3", 0, "not_in_the_past"),
        ("r-3", 24 * 40, "period_closed"),
        # Another got the line only after that moment, and lost it before.
        ("r-3", 8, "identity_in_use"),
        ("r-3", 5, None),
    ],
)
def test_a_resource_that_cannot_have_joined_then(acme, now, ago, resource, hours, code):
    acme.do(AddResource("r-4", "sales", "sip", ago(6), (Identity(b"r-3", b""),)))
    acme.do(EndResource("r-4", ago(4)))
    acme.do(AddResource("r-3", "sales", "sip", ago(2), (Identity(b"r-3", b""),)))
    found = acme.ask(CorrectJoin("j", resource, now - hours * HOUR))
    assert (found if isinstance(found, str) else None) == code


@pytest.mark.parametrize("told_hours", [None, 1])
def test_usage_after_an_earlier_end_is_taken_back(acme, now, ago, told_hours):
    use(acme, "r-1", 600, ago(4), now)
    use(acme, "r-1", 600, ago(2), now)
    if told_hours:
        acme.do(EndResource("r-1", ago(told_hours)))
    acme.do(CorrectEnd("j", "r-1", ago(3)))
    settle(acme, now)
    assert used(acme)[:5] == [600, 600, 600, 0, 600]
    assert acme.family().remaining[0] == 400
    assert used(acme, "money") == [0] * 6
    (_, last) = list(held(acme).values())[-1]
    assert (last.payer, last.steering, last.amount) == ("nobody", "line_not_active", 0)


def test_what_was_taken_back_is_charged_to_the_next_who_has_the_line(acme, now, ago):
    use(acme, "r-1", 60, ago(2), now)
    acme.do(CorrectEnd("j", "r-1", ago(3)))
    settle(acme, now)
    acme.do(AddResource("r-3", "apac", "sip", ago(1), (Identity(b"r-1", b""),)))
    acme.do(CorrectJoin("k", "r-3", ago(2)))
    # Nobody had it when it was taken back: only who held it before is known to the log.
    settle(acme, now)
    assert used(acme) == [60, 0, 0, 60, 0, 0, 60]


@pytest.mark.parametrize(
    ("resource", "hours", "code"),
    [
        ("nobody", 3, "unknown_resource"),
        ("r-1", 0, "not_in_the_past"),
        ("r-1", 24 * 40, "period_closed"),
        ("ended", 2, "resource_ended"),
        ("ended", 1, "resource_ended"),
        ("moved", 3, "not_after_last_move"),
        ("moved", 4, "not_after_last_move"),
    ],
)
def test_a_resource_that_cannot_have_ended_then(acme, now, ago, resource, hours, code):
    for name in ("ended", "moved"):
        acme.do(AddResource(name, "sales", "sip", 0, (Identity(name.encode(), b""),)))
    acme.do(EndResource("ended", ago(2)))
    acme.do(MoveResource("moved", "apac", ago(3)))
    assert acme.ask(CorrectEnd("j", resource, now - hours * HOUR)) == code


def test_usage_while_it_should_have_been_suspended_is_refunded(acme, now, ago):
    for hours in (4, 2):
        use(acme, "r-1", 60, ago(hours), now)
    acme.do(SuspendResource("r-1"), ago(1))
    told, begun = acme.do(CorrectSuspension("j", "r-1", ago(3), "stolen"))
    assert told == ResourceSuspended("r-1", ago(3), "stolen")
    assert (begun.scope.starts_at, begun.scope.ends_at) == (ago(3), ago(1))
    settle(acme, now)
    assert used(acme)[:5] == [60, 60, 60, 0, 60]
    (_, last) = list(held(acme).values())[-1]
    assert (last.payer, last.steering) == ("nobody", "suspended")


def test_what_was_denied_after_it_should_have_been_resumed_is_charged(acme, now, ago):
    acme.do(SuspendResource("r-1"), ago(5))
    for hours in (4, 2):
        assert isinstance(use(acme, "r-1", 60, ago(hours), now)[0], UsageRejected)
    acme.do(ResumeResource("r-1"), ago(1))
    told, _ = acme.do(CorrectResumption("j", "r-1", ago(3), "found"))
    assert told == ResourceResumed("r-1", ago(3), "found")
    settle(acme, now)
    assert used(acme)[:5] == [60, 60, 60, 0, 60]
    assert acme.tenant.charging.counts == {"charged": 0, "rejected": 2, "suspended": 0}


@pytest.mark.parametrize(
    ("command", "hours", "code"),
    [
        (CorrectSuspension, 0, "not_in_the_past"),
        (CorrectSuspension, 24 * 40, "period_closed"),
        # Suspended from the eighth to the sixth hour ago, and from the fourth to the second.
        (CorrectSuspension, 1, None),
        (CorrectSuspension, 2, "suspended_already"),
        (CorrectSuspension, 3, "suspended_already"),
        (CorrectSuspension, 4, "suspended_already"),
        (CorrectSuspension, 5, None),
        (CorrectSuspension, 6, "not_after_last_change"),
        (CorrectResumption, 1, "not_suspended"),
        (CorrectResumption, 2, "not_suspended"),
        (CorrectResumption, 3, None),
        (CorrectResumption, 4, "not_after_last_change"),
        (CorrectResumption, 7, "not_after_last_change"),
    ],
)
def test_when_a_resource_may_have_been_suspended_or_resumed(acme, now, ago, command, hours, code):
    for at, change in ((8, SuspendResource), (6, ResumeResource), (4, SuspendResource), (2, ResumeResource)):
        acme.do(change("r-1"), ago(at))
    found = acme.ask(command("j", "r-1", now - hours * HOUR))
    assert (found if isinstance(found, str) else None) == code


def test_one_who_never_was_suspended_was_not_resumed(acme, ago):
    assert acme.ask(CorrectResumption("j", "r-1", ago(1))) == "not_suspended"


def test_turns_are_told_once_each(acme, now, ago):
    acme.do(SuspendResource("r-1"), ago(4))
    acme.do(ResumeResource("r-1"), ago(2))
    acme.do(CorrectSuspension("j", "r-1", ago(5)))
    settle(acme, now)
    acme.do(CorrectResumption("k", "r-1", ago(3)))
    assert acme.tenant.hierarchy.suspended[4] == ((ago(5), True), (ago(3), False))


def test_one_at_a_time(acme, now, ago):
    acme.do(CorrectNodeMove("j", "sales", "apac", ago(1)))
    for command in (CorrectEnd("k", "r-1", ago(1)), CorrectNodeMove("k", "sales", "acme", ago(1) + 1)):
        with pytest.raises(Refused) as refused:
            acme.tenant.decide(command, now)
        assert (refused.value.code, refused.value.facts) == (
            "correction_runs",
            {"job": "j", "note": "", "changed": 0},
        )
    settle(acme, now)
    assert not isinstance(acme.ask(CorrectEnd("k", "r-1", ago(1))), str)


def test_who_has_changed_since_it_was_looked_at_is_refused(acme, ago):
    acme.do(RenameNode("sales", "Sales North"))
    assert acme.ask(CorrectNodeMove("j", "sales", "apac", ago(1), expected=0)) == "version_conflict"
    assert not isinstance(acme.ask(CorrectNodeMove("j", "sales", "apac", ago(1), expected=1)), str)


def test_what_was_told_is_not_told_again_and_what_is_reached_is(acme, now, ago):
    acme.do(SetLimit("emea", "voice", 100, (50,)))
    acme.do(SetLimit("apac", "voice", 100, (50,)))
    assert any(isinstance(one, ThresholdCrossed) for one in use(acme, "r-1", 60, ago(2), now))
    acme.do(CorrectNodeMove("j", "sales", "apac", ago(3)))
    before = len(acme.history)
    settle(acme, now)
    told = [one.node for one in acme.history[before:] if isinstance(one, ThresholdCrossed)]
    assert told == ["apac"]
    acme.do(CorrectNodeMove("k", "sales", "emea", ago(2) - 1))
    before = len(acme.history)
    settle(acme, now)
    assert not [one for one in acme.history[before:] if isinstance(one, ThresholdCrossed)]


def test_a_period_that_has_closed_meanwhile_is_left_alone(acme, now, ago, monkeypatch):
    use(acme, "r-1", 60, ago(2), now)
    acme.do(CorrectEnd("j", "r-1", ago(3)))
    monkeypatch.setattr(acme.tenant.rollovers, "is_closed", lambda opened, now: True)
    settle(acme, now)
    assert used(acme)[4] == 60
    assert isinstance(acme.history[12], UsageCharged)
