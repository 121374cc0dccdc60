"""Many resources in one command: all lines or none, each against what those before it lead to."""

import pytest

from allotment.domain import inventory
from allotment.domain.canonical import lines
from allotment.domain.hierarchy import Identity, ResourceAdded, ResourceEnded, ResourceMoved
from allotment.domain.inventory import ChangeInventory, Line
from allotment.domain.life import (
    IdentityAdded,
    IdentityRemoved,
    NodeClosed,
    ResourceLabelled,
    ResourceSuspended,
)

NEW, R1, R2 = Identity(b"new", b"s"), Identity(b"r-1", b""), Identity(b"r-2", b"")


def line(number, resource, node=None, kind=None, status=None, since=0, identities=None, label=None):
    return Line(number, resource, node, kind, status, since, identities, label)


def bad(company, *lines):
    code, facts = company.refusal(ChangeInventory(lines))
    assert code == "lines_refused"
    assert facts["refused"] == len(facts["lines"])
    return [(told["line"], told["field"], told["code"]) for told in facts["lines"]]


def test_resources_join_move_change_and_end_in_one_command(acme, now):
    events = acme.do(
        ChangeInventory(
            (
                line(2, "r-3", "apac", "sip", "suspended", 0, (NEW,), (b"ada", b"sealed")),
                line(3, "r-1", "apac", "msisdn", "active", 0, (R1,)),
                line(4, "r-2", status="ended"),
            ),
            "a tidy up",
        )
    )
    assert events == [
        ResourceAdded("r-3", 6, "apac", "sip", now, (NEW,)),
        ResourceLabelled("r-3", b"ada", b"sealed"),
        ResourceSuspended("r-3", now, "a tidy up"),
        ResourceMoved("r-1", "apac", now),
        ResourceEnded("r-2", now),
    ]


def test_a_line_builds_on_the_lines_before_it(acme, now):
    events = acme.do(
        ChangeInventory(
            (
                line(2, "r-1", identities=(NEW,)),
                line(3, "r-2", identities=(R1, R2)),
            )
        )
    )
    assert events == [
        IdentityRemoved("r-1", b"r-1", now),
        IdentityAdded("r-1", NEW, now),
        IdentityAdded("r-2", R1, now),
    ]
    assert acme.tenant.hierarchy.guide(b"r-1", now)[0] == 5


def test_every_bad_line_is_told_and_nothing_is_done(acme):
    acme.do(ChangeInventory((line(1, "r-1", status="suspended"),)))
    acme.tell(NodeClosed("apac", "acme", 0))
    before = b"".join(lines(acme.tenant))
    assert bad(
        acme,
        line(2, "r-3", "sales", "sip", identities=(NEW,)),
        line(3, "r-4", "sales", "sip", identities=(NEW,)),
        line(4, "r-5", "sales", "sip"),
        line(5, "r-6", "nowhere", "sip", identities=(NEW,)),
        line(6, "r-7", "sales", "pager", identities=(NEW,)),
        line(7, "r-8"),
        line(8, "sales", "emea"),
        line(9, "r-1", "apac"),
        line(10, "r-1", "emea"),
        line(11, "r-2", status="lost"),
        line(12, "", "sales", "sip", identities=(NEW,)),
        line(13, "r-2", kind="sip"),
    ) == [
        (3, "lines", "identity_in_use"),
        (4, "lines", "no_identity"),
        (5, "node", "unknown_node"),
        (6, "kind", "unknown_kind"),
        (7, "resource", "unknown_resource"),
        (8, "resource", "exists_already"),
        (9, "node", "node_closed"),
        (10, "resource", "resource_twice"),
        (11, "status", "unknown_status"),
        (12, "id", "bad_text"),
        (13, "resource", "resource_twice"),
    ]
    assert b"".join(lines(acme.tenant)) == before


def test_what_is_so_already_changes_nothing(acme):
    same = line(2, "r-1", "sales", "msisdn", "active", 0, (R1,))
    assert acme.ask(ChangeInventory((same,))) == "nothing_to_change"
    assert len(acme.do(ChangeInventory((same, line(3, "r-2", "acme"))))) == 1


def test_the_past_is_not_changed(acme, now):
    assert bad(acme, line(2, "r-1", "apac", since=now - 1)) == [(2, "since", "in_the_past")]
    assert acme.do(ChangeInventory((line(2, "r-1", "apac", since=now + 5),))) == [
        ResourceMoved("r-1", "apac", now + 5)
    ]


@pytest.mark.parametrize("count", [0, 3])
def test_there_are_as_many_lines_as_it_says(acme, count, monkeypatch):
    monkeypatch.setattr(inventory, "LINES_MAX", 2)
    assert acme.refusal(ChangeInventory((line(2, "r-1", "apac"),) * count)) == (
        "too_many_lines",
        {"lines": count, "lines_max": 2},
    )


def test_thousands_of_lines_with_one_bad_one_leave_nothing_half_done(acme):
    many = [
        line(number, f"d{number}", "sales", "sip", identities=(Identity(b"%d" % number, b""),))
        for number in range(3_000)
    ]
    many[1_500] = line(1_500, "d1500", "nowhere", "sip", identities=(NEW,))
    assert bad(acme, *many) == [(1_500, "node", "unknown_node")]
    many[1_500] = line(1_500, "d1500", "apac", "sip", identities=(NEW,))
    assert len(acme.do(ChangeInventory(tuple(many)))) == 3_000
