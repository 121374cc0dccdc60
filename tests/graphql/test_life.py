"""Hierarchy life through the API: what managers may make of nodes and resources, and how it is refused."""

import pytest
from life_changes import change

LATER = "2027-01-01T00:00:00Z"


def test_a_manager_adds_moves_renames_and_closes(company):
    added = change(company, "addNode", "team", parent="sales", name="Team", kind="group")
    assert (added["member"]["parentId"], added["planned"]) == ("sales", False)
    moved = change(company, "moveNode", "team", to="apac", note="closer to its customers")
    assert moved["member"]["parentId"] == "apac"
    renamed = change(company, "renameNode", "team", name="Crew")
    assert renamed["member"]["name"] == "Crew"
    closed = change(company, "closeNode", "team")
    assert closed["member"]["life"]["closedAt"] is not None


def test_a_merge_shows_into_whom(company):
    change(company, "addNode", "team", parent="acme", name="Team", kind="group")
    merged = change(company, "mergeNodes", "team", into="apac")
    assert merged["member"]["life"]["successorId"] == "apac"
    told = company.ask('{ nodeHistory(node: "team") { nodes { topic sentence } } }')
    assert "merged into" in told["nodeHistory"]["nodes"][0]["sentence"]


def test_what_is_planned_is_shown_and_can_be_cancelled(company):
    planned = change(company, "moveNode", "sales", to="apac", at=LATER)
    assert planned["planned"]
    assert planned["member"]["parentId"] == "emea"
    plan = planned["member"]["life"]["plan"]
    assert (plan["act"], plan["to"]) == ("move", "apac")
    again = change(company, "moveNode", "sales", key="other", to="acme")
    assert (again["code"], again["__typename"]) == ("planned_already", "InvalidInput")
    assert change(company, "cancelPlan", "sales")["member"]["life"]["plan"] is None


def test_a_lost_phone_is_suspended_and_its_sim_replaced(company):
    added = change(company, "addResource", "phone", node="sales", kind="msisdn", lines=["+4930 555"])
    assert added["member"]["parentId"] == "sales"
    assert change(company, "suspendResource", "phone")["member"]["life"]["suspendedAt"]
    swapped = change(company, "changeLines", "phone", added=["+4930556"], removed=["+49-30-555"])
    assert len(swapped["eventSeqs"]) == 2
    assert change(company, "resumeResource", "phone", at="2026-12-31T00:00:00Z")["member"]["life"][
        "resumedAt"
    ]
    assert change(company, "labelResource", "phone", label="Ada L.")["__typename"] == "LifeDone"
    assert change(company, "endResource", "phone", at=LATER)["member"]["until"].startswith("2027-01-01")


def test_the_same_key_again_gives_the_first_answer(company):
    first = change(company, "renameNode", "sales", name="Sales two")
    again = change(company, "renameNode", "sales", name="Sales two")
    assert (first["repeated"], again["repeated"]) == (False, True)
    assert first["eventSeqs"] == again["eventSeqs"]


def test_who_looked_before_another_changed_it_is_told(company):
    seen = change(company, "renameNode", "sales", name="One")["eventSeqs"][-1]
    done = change(company, "moveNode", "sales", to="apac", expectedSeq=seen)
    assert done["__typename"] == "LifeDone"
    late = change(company, "renameNode", "sales", key="late", name="Two", expectedSeq=seen)
    assert (late["__typename"], late["code"], late["changes"]) == ("VersionConflict", "version_conflict", 1)
    assert late["path"] == ["input", "expectedSeq"]
    now = done["eventSeqs"][-1]
    assert change(company, "renameNode", "sales", key="now", name="Two", expectedSeq=now)["member"]


@pytest.mark.parametrize(
    ("verb", "ident", "more", "code"),
    [
        ("moveNode", "emea", {"to": "sales"}, "cycle"),
        ("moveNode", "acme", {"to": "emea"}, "root_stays"),
        ("moveNode", "sales", {"to": "nowhere"}, "unknown_node"),
        ("moveNode", "sales", {"to": "apac", "at": "2020-01-01T00:00:00Z"}, "in_the_past"),
        ("closeNode", "emea", {}, "node_not_empty"),
        ("mergeNodes", "sales", {}, "invalid_input"),
        ("moveResource", "anna", {"to": "apac", "at": "2020-01-01T00:00:00Z"}, "in_the_past"),
        ("renameNode", "sales", {"name": ""}, "bad_text"),
        ("resumeResource", "anna", {}, "not_suspended"),
        ("changeLines", "anna", {}, "no_identity"),
        ("suspendResource", "sales", {}, "unknown_resource"),
    ],
)
def test_what_cannot_be_done_is_told_and_not_done(company, verb, ident, more, code):
    refused = change(company, verb, ident, **more)
    assert (refused["code"], refused["path"][0]) == (code, "input")


def test_only_who_organises_may_and_only_in_reach(company):
    assert change(company, "renameNode", "sales", "auditor", name="X")["code"] == "not_permitted"
    bound = {"nodes": ("emea",)}
    assert change(company, "renameNode", "apac", name="X", **bound)["code"] == "unknown_node"
    assert change(company, "moveNode", "sales", to="apac", **bound)["code"] == "unknown_node"
    assert change(company, "renameNode", "sales", name="Mine", **bound)["member"]["name"] == "Mine"


@pytest.mark.parametrize(
    ("verb", "ident", "more", "topic"),
    [
        ("addNode", "team", {"parent": "sales", "name": "Team", "kind": "group"}, "hierarchy.node_added"),
        (
            "addResource",
            "phone",
            {"node": "sales", "kind": "msisdn", "lines": ["+4930555"]},
            "hierarchy.resource_added",
        ),
        ("labelResource", "anna", {"label": "Anna K."}, "hierarchy.resource_labelled"),
    ],
)
def test_what_a_new_member_or_label_would_lead_to_is_told_first(company, verb, ident, more, topic):
    foreseen = change(company, verb, ident, dryRun=True, **more)
    assert [event["topic"] for event in foreseen["events"]] == [topic]
    assert change(company, verb, ident, **more)["__typename"] == "LifeDone"


def test_a_resource_beyond_reach_is_not_labelled(company):
    assert change(company, "labelResource", "anna", nodes=("apac",), label="x")["code"] == "unknown_node"
