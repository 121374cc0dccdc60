"""Many resources dated back in one command: each line is its own back-dated change, all of them or none."""

import pytest
from backdated import settle, use

from allotment.domain.canonical import lines
from allotment.domain.correcting import CorrectNodeMove
from allotment.domain.hierarchy import Identity, ResourceAdded, ResourceEnded, ResourceMoved
from allotment.domain.inventory import CorrectInventory, Line
from allotment.domain.inventory_dated import LINES_MAX
from allotment.domain.life import ResourceJoinedEarlier, ResourceResumed, ResourceSuspended, SuspendResource
from allotment.domain.rating_job import RatingStarted, Scope

HOUR = 3_600_000_000
NEW, R1 = Identity(b"new", b""), Identity(b"r-1", b"")


def line(number, resource, node=None, kind=None, status=None, since=0, identities=None, label=None):
    return Line(number, resource, node, kind, status, since, identities, label)


def used(company, *nodes):
    family, members = company.family(), company.tenant.hierarchy.by_id
    return [family.used[members[one].ordinal] for one in nodes]


def bad(company, *lines):
    code, facts = company.refusal(CorrectInventory("j", lines))
    assert code == "lines_refused"
    return [(told["line"], told["field"], told["code"]) for told in facts["lines"]]


def test_several_were_elsewhere_or_gone_and_one_job_charges_all_of_it_again(acme, now):
    for line_of, hours in (("r-1", 5), ("r-1", 1), ("r-2", 5), ("r-2", 1), ("new", 2)):
        use(acme, line_of, 60, now - hours * HOUR, now)
    assert used(acme, "acme", "sales", "apac") == [240, 120, 120]
    events = acme.do(
        CorrectInventory(
            "j",
            (
                line(2, "r-1", "apac", since=now - 3 * HOUR, identities=(R1,)),
                line(3, "r-2", status="ended", since=now - 2 * HOUR),
                line(4, "r-3", "emea", "sip", since=now - 4 * HOUR, identities=(NEW,)),
            ),
            "told too late",
            "shown",
        )
    )
    assert events == [
        ResourceMoved("r-1", "apac", now - 3 * HOUR),
        ResourceEnded("r-2", now - 2 * HOUR),
        ResourceAdded("r-3", 6, "emea", "sip", now - 4 * HOUR, (NEW,)),
        RatingStarted(
            "j",
            Scope(starts_at=now - 4 * HOUR, guided=True, resources=("r-1", "r-2", "r-3"), anew=True),
            "hierarchy_corrected",
            "told too late",
            "shown",
        ),
    ]
    settle(acme, now)
    # r-2 has used nothing since it ended; what waited for somebody to have the line is charged.
    assert used(acme, "acme", "sales", "apac", "emea") == [240, 60, 120, 120]


def test_a_line_may_tell_of_several_changes_and_builds_on_the_lines_before(acme, now, at):
    acme.do(SuspendResource("r-2"), now - HOUR)
    first = at("2026-11-10 00:00")
    acme.tell(ResourceAdded("r-3", 6, "emea", "sip", now - 2 * HOUR, (NEW,)))
    events = acme.do(
        CorrectInventory(
            "j",
            (
                line(2, "r-1", "apac", status="suspended", since=now - 3 * HOUR),
                line(3, "r-2", status="active", since=now - HOUR // 2),
                line(4, "r-3", "emea", since=first),
            ),
        )
    )
    assert events[:-1] == [
        ResourceMoved("r-1", "apac", now - 3 * HOUR),
        ResourceSuspended("r-1", now - 3 * HOUR, ""),
        ResourceResumed("r-2", now - HOUR // 2, ""),
        ResourceJoinedEarlier("r-3", "emea", first, now - 2 * HOUR, ""),
    ]


def test_every_line_that_cannot_be_is_told_and_nothing_is_done(acme, now, at):
    before = b"".join(lines(acme.tenant))
    assert bad(
        acme,
        line(2, "r-1", "apac", since=now - HOUR),
        line(3, "r-1", status="ended", since=now - HOUR),
        line(4, "r-2", "acme", since=at("2026-09-01 00:00")),
        line(5, "r-3", "emea", "sip", since=at("2026-09-01 00:00"), identities=(NEW,)),
        line(6, "sales", "emea", since=now - HOUR),
    ) == [
        (3, "resource", "resource_twice"),
        (4, "since", "period_closed"),
        (5, "since", "period_closed"),
        (6, "resource", "exists_already"),
    ]
    assert bad(acme, line(2, "r-1", identities=(NEW,), since=now - HOUR)) == [
        (2, "lines", "lines_change_now")
    ]
    assert b"".join(lines(acme.tenant)) == before


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ([line(2, "r-1", "apac")], "nothing_dated_back"),
        ([], "too_many_lines"),
        ([line(2, "r-1", "apac")] * (LINES_MAX + 1), "too_many_lines"),
        ([line(2, "r-1", "sales")], "nothing_to_change"),
    ],
)
def test_what_is_no_correction_is_refused(acme, asked, code):
    assert acme.ask(CorrectInventory("j", tuple(asked))) == code


def test_one_correction_runs_at_a_time(acme, now):
    acme.do(CorrectNodeMove("j", "sales", "apac", now - HOUR))
    assert acme.ask(CorrectInventory("k", (line(2, "r-1", "emea", since=now - 1),))) == "correction_runs"
