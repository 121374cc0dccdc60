from typing import get_args
from uuid import UUID

import pytest

from allotment.tenants.access import (
    GRANTS,
    OAUTH_SCOPES,
    SCOPES,
    VERBS,
    NotPermitted,
    in_scope,
    may,
    oauth_scope,
    require,
)
from allotment.tenants.identity import ROLES, Principal, Role

TENANT = UUID("0b7c9a52-6c1e-4f0e-9d5c-1f2e3d4c5b6a")


def principal(*roles, nodes=(), tenant_id=TENANT):
    return Principal("8f3a", "portal", tenant_id, frozenset(roles), nodes, 1_800_000_000)


TABLE = """
    verb           carrier telecoms_manager auditor mediation
    read           yes     yes              yes     -
    read_personal  yes     yes              -       -
    allocate       yes     yes              -       -
    trade          yes     yes              -       -
    set_limit      yes     yes              -       -
    organise       yes     yes              -       -
    set_notice     yes     yes              -       -
    configure      yes     -                -       -
    write_usage    yes     -                -       yes
    verify         yes     -                yes     -
"""


def cases():
    heading, *rows = [line.split() for line in TABLE.strip().splitlines()]
    return [
        (role, verb, cell == "yes")
        for verb, *cells in rows
        for role, cell in zip(heading[1:], cells, strict=True)
    ]


@pytest.mark.parametrize(("role", "verb", "permitted"), cases())
def test_what_each_role_may_do(role, verb, permitted):
    assert may(principal(role), verb) is permitted


def test_the_table_names_every_role_and_verb():
    assert set(GRANTS) == ROLES == set(get_args(Role))
    assert set(SCOPES) == set(OAUTH_SCOPES) == set(VERBS)
    assert {(role, verb) for role, verb, _ in cases()} == {(role, verb) for role in ROLES for verb in VERBS}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "powerless",
    [principal(), principal("root"), principal(*ROLES, tenant_id=None)],
    ids=["none", "root", "tenantless"],
)
def test_what_is_not_granted_is_refused(powerless, verb):
    assert not may(powerless, verb)
    with pytest.raises(NotPermitted):
        require(powerless, verb)


def test_roles_add_up():
    both = principal("auditor", "mediation")
    assert {verb for verb in VERBS if may(both, verb)} == {"read", "verify", "write_usage"}


@pytest.mark.parametrize("verb", VERBS)
def test_part_of_a_tenant_gives_no_hold_on_the_whole(verb):
    bound = principal("carrier", nodes=("emea",))
    assert may(bound, verb) is (SCOPES[verb] == "node")


def test_a_permitted_caller_learns_which_tenant_to_open():
    assert require(principal("auditor"), "read") == TENANT


def test_a_refusal_says_who_may_not_what_and_which_role_may():
    with pytest.raises(NotPermitted) as refused:
        require(principal("auditor"), "trade")
    assert (refused.value.verb, refused.value.role) == ("trade", "auditor")
    assert refused.value.remedy == "use a token with one of the roles carrier, telecoms_manager"


@pytest.mark.parametrize(
    ("nodes", "path", "within"),
    [
        ((), ["acme"], True),
        ((), ["acme", "emea", "sales"], True),
        (("acme",), ["acme", "emea"], True),
        (("emea",), ["acme", "emea"], True),
        (("emea",), ["acme", "emea", "sales"], True),
        (("emea",), ["acme"], False),
        (("emea",), ["acme", "apac"], False),
        (("emea",), ["acme", "emea-2"], False),
        (("emea",), [], False),
        (("emea", "apac"), ("acme", "apac"), True),
    ],
)
def test_a_principal_reaches_its_nodes_and_everything_below(nodes, path, within):
    assert in_scope(principal("telecoms_manager", nodes=nodes), path) is within


def test_without_a_tenant_no_node_is_in_reach():
    assert not in_scope(principal("carrier", tenant_id=None), ["acme"])


def test_a_token_says_its_rights_in_the_tables_order():
    assert oauth_scope(["mediation"]) == "usage:write"
    assert oauth_scope({"mediation", "auditor"}) == "read usage:write log:verify"
    assert oauth_scope([]) == ""
