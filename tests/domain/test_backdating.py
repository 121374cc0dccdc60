"""Back-dated changes of the hierarchy: what they are refused for, and what is charged again by them.

acme > emea > sales > r-1; acme > apac > r-2. It is the 15th of November, noon; hours are counted back.
"""

from typing import Any

import pytest
from backdated import held, settle, use

from allotment.domain.backdating import (
    CorrectEnd,
    CorrectJoin,
    CorrectNodeMove,
    CorrectResumption,
    CorrectSuspension,
)
from allotment.domain.bucket import Allocate
from allotment.domain.charging import UsageCharged, UsageRejected
from allotment.domain.hierarchy import AddNode, AddResource, EndResource, Identity, MoveResource
from allotment.domain.life import (
    CloseNode,
    IdentityRemoved,
    MoveNode,
    NodeMoved,
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
        assert (refused.value.code, refused.value.facts) == ("correction_runs", {"job": "j"})
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
