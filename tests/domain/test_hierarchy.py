"""Who exists, under whom, since when; and whose a number was at a moment."""

import pytest

from allotment.domain import hierarchy
from allotment.domain.bucket import Allocate
from allotment.domain.hierarchy import (
    DEPTH_MAX,
    NODE_KINDS,
    RESOURCE_KINDS,
    AddNode,
    AddResource,
    EndResource,
    Identity,
    MoveResource,
    NodeAdded,
    ResourceAdded,
    ResourceEnded,
    ResourceMoved,
)
from allotment.domain.tenant import TenantOpened

LINE = (Identity(b"+49301", b"sealed"),)
TAKEN = (Identity(b"r-1", b""),)
SPARE = ResourceAdded("spare", 6, "sales", "msisdn", 100, LINE)


def test_the_first_node_is_the_enterprise_and_has_no_parent(told):
    company = told(TenantOpened("Acme", "UTC", "EUR", ""))
    assert company.ask(AddNode("acme", "emea", "Acme", "enterprise")) == "unknown_node"
    assert company.do(AddNode("acme", "", "Acme", "enterprise")) == [
        NodeAdded("acme", 0, "", "Acme", "enterprise")
    ]
    assert company.tenant.hierarchy.root.path == (0,)


@pytest.mark.parametrize(
    ("history", "command", "outcome"),
    [
        ([], AddNode("", "emea", "X", "group"), "bad_text"),
        ([], AddNode("x" * 201, "emea", "X", "group"), "bad_text"),
        ([], AddNode("x" * 200, "emea", "X", "group"), [NodeAdded("x" * 200, 6, "emea", "X", "group")]),
        ([], AddNode("new\n", "emea", "X", "group"), "bad_text"),
        ([], AddNode("new", "emea", "X\x00", "group"), "bad_text"),
        ([], AddNode("sales", "emea", "X", "group"), "exists_already"),
        ([], AddNode("r-1", "emea", "X", "group"), "exists_already"),
        ([], AddNode("new", "emea", "X", "team"), "unknown_kind"),
        ([], AddNode("new", "", "X", "enterprise"), "second_root"),
        ([], AddNode("new", "nowhere", "X", "group"), "unknown_node"),
        ([], AddNode("new", "r-1", "X", "group"), "unknown_node"),
        ([], AddNode("new", "sales", "X", "group"), [NodeAdded("new", 6, "sales", "X", "group")]),
        ([], AddNode("new", "sales", "", "group"), [NodeAdded("new", 6, "sales", "new", "group")]),
        ([SPARE], AddNode("new", "sales", "Ü", "group"), [NodeAdded("new", 7, "sales", "Ü", "group")]),
    ],
)
def test_adding_a_node(company, history, command, outcome):
    assert company(*history).ask(command) == outcome


@pytest.mark.parametrize(
    ("history", "command", "outcome"),
    [
        ([], AddResource("", "sales", "msisdn", 0, LINE), "bad_text"),
        ([], AddResource("r-1", "sales", "msisdn", 0, LINE), "exists_already"),
        ([], AddResource("emea", "sales", "msisdn", 0, LINE), "exists_already"),
        ([], AddResource("new", "nowhere", "msisdn", 0, LINE), "unknown_node"),
        ([], AddResource("new", "r-1", "msisdn", 0, LINE), "unknown_node"),
        ([], AddResource("new", "sales", "pager", 0, LINE), "unknown_kind"),
        ([], AddResource("new", "sales", "msisdn", 0, ()), "no_identity"),
        ([], AddResource("new", "sales", "msisdn", 0, TAKEN), "identity_in_use"),
        ([], AddResource("new", "sales", "msisdn", 0, (*LINE, *TAKEN)), "identity_in_use"),
        (
            [],
            AddResource("new", "sales", "msisdn", 0, LINE),
            [ResourceAdded("new", 6, "sales", "msisdn", 0, LINE)],
        ),
        (
            [],
            AddResource("new", "acme", "sip", -1, LINE),
            [ResourceAdded("new", 6, "acme", "sip", -1, LINE)],
        ),
        ([ResourceEnded("r-1", 500)], AddResource("new", "apac", "imsi", 499, TAKEN), "identity_in_use"),
        (
            [ResourceEnded("r-1", 500)],
            AddResource("new", "apac", "imsi", 500, TAKEN),
            [ResourceAdded("new", 6, "apac", "imsi", 500, TAKEN)],
        ),
        (
            # The second holder has it now, whatever became of the first.
            [ResourceEnded("r-1", 500), ResourceAdded("second", 6, "apac", "imsi", 500, TAKEN)],
            AddResource("third", "apac", "imsi", 900, TAKEN),
            "identity_in_use",
        ),
    ],
)
def test_adding_a_resource(company, history, command, outcome):
    assert company(*history).ask(command) == outcome


@pytest.mark.parametrize(
    ("history", "command", "outcome"),
    [
        ([], MoveResource("nobody", "apac", 1), "unknown_resource"),
        ([], MoveResource("emea", "apac", 1), "unknown_resource"),
        ([], MoveResource("r-1", "nowhere", 1), "unknown_node"),
        ([], MoveResource("r-1", "r-2", 1), "unknown_node"),
        ([], MoveResource("r-1", "apac", -1), "not_after_last_move"),
        ([], MoveResource("r-1", "apac", 0), "not_after_last_move"),
        ([], MoveResource("r-1", "apac", 1), [ResourceMoved("r-1", "apac", 1)]),
        ([ResourceMoved("r-1", "apac", 9)], MoveResource("r-1", "emea", 9), "not_after_last_move"),
        (
            [ResourceMoved("r-1", "apac", 9)],
            MoveResource("r-1", "emea", 10),
            [ResourceMoved("r-1", "emea", 10)],
        ),
        ([], EndResource("nobody", 1), "unknown_resource"),
        ([], EndResource("emea", 1), "unknown_resource"),
        ([], EndResource("r-1", 0), "not_after_last_move"),
        ([], EndResource("r-1", 1), [ResourceEnded("r-1", 1)]),
    ],
)
def test_moving_and_ending_a_resource(company, history, command, outcome):
    assert company(*history).ask(command) == outcome


def test_a_resource_that_has_ended_is_not_moved_any_more(company):
    assert company(ResourceEnded("r-1", 500)).ask(MoveResource("r-1", "apac", 600)) == "resource_ended"


def test_a_resource_that_has_ended_is_not_ended_again(company):
    assert company(ResourceEnded("r-1", 500)).ask(EndResource("r-1", 600)) == "resource_ended"


def test_a_number_never_has_two_holders_at_a_time(company):
    acme = company(ResourceEnded("r-1", 500), ResourceAdded("heir", 6, "apac", "msisdn", 500, TAKEN))
    decided = acme.ask(MoveResource("r-1", "sales", 600))
    acme.tell(*(decided if isinstance(decided, list) else ()))
    assert acme.tenant.hierarchy.guide(b"r-1", 700) == (6, 3, 0)


def test_a_resource_has_each_identity_once(acme):
    assert acme.ask(AddResource("new", "sales", "msisdn", 0, (*LINE, *LINE))) == "identity_twice"


@pytest.mark.parametrize(
    ("command", "code", "facts"),
    [
        (AddNode("", "nowhere", "\x00", "team"), "bad_text", {"field": "id"}),
        (AddNode("emea", "nowhere", "\x00", "team"), "exists_already", {"id": "emea"}),
        (AddNode("new", "nowhere", "\x00", "team"), "bad_text", {"field": "name"}),
        (
            AddNode("new", "nowhere", "X", "team"),
            "unknown_kind",
            {"kind": "team", "known": list(NODE_KINDS)},
        ),
        (AddNode("new", "", "X", "group"), "second_root", {"root": "acme"}),
        (AddResource("", "nowhere", "pager", 0, ()), "bad_text", {"field": "id"}),
        (AddResource("new", "nowhere", "pager", 0, ()), "unknown_node", {"node": "nowhere"}),
        (
            AddResource("new", "sales", "pager", 0, ()),
            "unknown_kind",
            {"kind": "pager", "known": list(RESOURCE_KINDS)},
        ),
        (AddResource("new", "sales", "msisdn", 0, ()), "no_identity", {"resource": "new"}),
        (
            AddResource("new", "sales", "msisdn", 0, TAKEN),
            "identity_in_use",
            {"resource": "new", "holder": "r-1"},
        ),
        (MoveResource("nobody", "nowhere", -5), "unknown_resource", {"resource": "nobody"}),
        (MoveResource("r-1", "nowhere", -5), "unknown_node", {"node": "nowhere"}),
        (MoveResource("r-1", "apac", -5), "not_after_last_move", {"resource": "r-1", "since": 0}),
    ],
)
def test_of_several_faults_the_first_in_a_fixed_order_is_told_with_its_facts(acme, command, code, facts):
    told, its_facts = acme.refusal(command)
    assert told == code
    assert facts.items() <= its_facts.items()


def test_the_hierarchy_is_as_deep_as_it_says(told):
    company = told(TenantOpened("Deep", "UTC", "EUR", ""))
    for depth in range(DEPTH_MAX):
        company.do(AddNode(f"n{depth}", f"n{depth - 1}" if depth else "", "", "group"))
    assert company.refusal(AddNode("more", f"n{DEPTH_MAX - 1}", "", "group")) == (
        "too_deep",
        {"node": "more", "depth_max": DEPTH_MAX},
    )
    company.do(AddResource("leaf", f"n{DEPTH_MAX - 1}", "sip", 0, LINE))
    assert len(company.tenant.hierarchy.guide(b"+49301", 0)) == DEPTH_MAX + 1


def test_there_are_as_many_members_as_it_says(acme, monkeypatch):
    monkeypatch.setattr(hierarchy, "MEMBERS_MAX", 7)
    acme.do(AddNode("seventh", "acme", "", "group"))
    assert acme.ask(AddNode("eighth", "acme", "", "group")) == "too_many_members"
    assert acme.ask(AddResource("eighth", "acme", "sip", 0, LINE)) == "too_many_members"
    assert acme.ask(AddNode("seventh", "acme", "", "group")) == "exists_already"


def test_a_hierarchy_without_members_says_what_to_do(told):
    code, facts = told(TenantOpened("Acme", "UTC", "EUR", "")).refusal(AddNode("x", "y", "", "group"))
    assert (code, facts) == ("unknown_node", {"node": "y"})


MOVED = [
    ResourceAdded("spare", 6, "sales", "msisdn", 100, LINE),
    ResourceMoved("spare", "apac", 200),
    ResourceMoved("spare", "acme", 300),
    ResourceEnded("spare", 400),
    ResourceAdded("heir", 7, "emea", "msisdn", 450, LINE),
]


@pytest.mark.parametrize(
    ("moment", "path"),
    [
        (-1, ()),
        (99, ()),
        (100, (6, 2, 1, 0)),
        (199, (6, 2, 1, 0)),
        (200, (6, 3, 0)),
        (299, (6, 3, 0)),
        (300, (6, 0)),
        (399, (6, 0)),
        (400, ()),
        (449, ()),
        (450, (7, 1, 0)),
        (2**62, (7, 1, 0)),
    ],
)
def test_a_number_is_guided_along_the_path_of_who_had_it_then(company, moment, path):
    assert company(*MOVED).tenant.hierarchy.guide(b"+49301", moment) == path


def test_a_number_nobody_ever_had_is_told_from_one_nobody_has(company):
    members = company(*MOVED).tenant.hierarchy
    assert members.guide(b"unheard of", 100) is None
    assert members.guide(b"+49301", 0) == ()


def test_a_resource_answers_to_each_of_its_identities(company):
    both = ResourceAdded("both", 6, "sales", "msisdn", 0, (Identity(b"work", b""), Identity(b"home", b"")))
    members = company(both).tenant.hierarchy
    assert members.guide(b"work", 5) == members.guide(b"home", 5) == (6, 2, 1, 0)


def test_ordinals_are_given_in_order_and_kept(company):
    acme = company(*MOVED)
    assert [member.ordinal for member in acme.tenant.hierarchy.members] == list(range(8))
    assert acme.tenant.hierarchy.member("spare").ordinal == 6


def test_a_move_counts_for_transfers_from_its_date(acme, at):
    acme.do(Allocate("acme", "emea", "voice", "2026-11", 100))
    acme.do(MoveResource("r-1", "apac", at("2026-12-01 00:00")))
    assert isinstance(acme.ask(Allocate("emea", "r-1", "voice", "2026-11", 10)), list)
