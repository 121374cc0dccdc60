"""Mutations through the API: what they change, how they fail, and that they happen once."""

import pytest

TRANSFER = """
mutation($input: TransferInput!) {{
  {verb}(input: $input) {{
    __typename
    ... on TransferDone {{
      quantity period repeated eventSeqs
      source {{ id balances {{ own available allocated }} }}
      target {{ id balances {{ own available received traded }} }}
    }}
    ... on Problem {{ code message path }}
    ... on InsufficientAllowance {{ node usageType period available reserved }}
    ... on InvalidInput {{ field }}
    ... on UnknownNode {{ node }}
    ... on NotPermitted {{ verb }}
  }}
}}
"""
SET_LIMIT = """
mutation($input: SetLimitInput!) {
  setLimit(input: $input) {
    __typename
    ... on SetLimitDone {
      fromPeriod crossed repeated eventSeqs
      node { id limits { usageType quantity used remaining thresholds { percent crossed crossedAt } } }
    }
    ... on Problem { code message path }
    ... on InvalidInput { field }
  }
}
"""


def transfer(company, verb, source, target, quantity, *roles, key="k", nodes=(), **more):
    given = {
        "idempotencyKey": key,
        "source": source,
        "target": target,
        "quantity": quantity,
        "usageType": "voice",
        **more,
    }
    return company.ask(TRANSFER.format(verb=verb), *roles, nodes=nodes, input=given)[verb]


def set_limit(company, node, quantity, *roles, key="k", nodes=(), usage_type="voice", **more):
    given = {"idempotencyKey": key, "node": node, "usageType": usage_type, "quantity": quantity, **more}
    return company.ask(SET_LIMIT, *roles, nodes=nodes, input=given)["setLimit"]


def test_allocating_shows_both_ends_as_they_stand_after_it(company):
    done = transfer(company, "allocate", "acme", "apac", "100")
    assert done["__typename"] == "TransferDone"
    assert done["source"] == {
        "id": "acme",
        "balances": [{"own": "200", "available": "200", "allocated": "400"}],
    }
    assert done["target"]["balances"] == [
        {"own": "100", "available": "100", "received": "100", "traded": "0"}
    ]
    assert (done["quantity"], done["period"], done["repeated"], len(done["eventSeqs"])) == (
        "100",
        "2026-11",
        False,
        1,
    )


def test_a_dry_run_tells_what_would_happen_and_uses_nothing_up(company):
    foreseen = """
      mutation($input: TransferInput!) {
        allocate(input: $input) {
          __typename
          ... on DryRun { events { topic sentence event } }
          ... on InsufficientAllowance { available }
          ... on TransferDone { repeated eventSeqs }
        }
      }
    """
    given = {
        "idempotencyKey": "k",
        "source": "acme",
        "target": "apac",
        "quantity": "100",
        "usageType": "voice",
    }
    told = company.ask(foreseen, input=given | {"dryRun": True})["allocate"]
    assert told["__typename"] == "DryRun"
    assert [event["sentence"] for event in told["events"]] == [
        "Acme allocated 100 seconds of voice to APAC for 2026-11."
    ]
    assert told["events"][0]["event"]["quantity"] == "100"
    much = company.ask(foreseen, input=given | {"dryRun": True, "quantity": "100000"})["allocate"]
    assert much == {"__typename": "InsufficientAllowance", "available": "300"}
    done = company.ask(foreseen, input=given)["allocate"]
    assert (done["__typename"], done["repeated"], len(done["eventSeqs"])) == ("TransferDone", False, 1)


def test_what_was_handed_down_can_be_returned(company):
    done = transfer(company, "returnAllowance", "sales", "emea", "10")
    assert done["source"]["balances"][0]["own"] == "50"
    assert done["target"]["balances"][0]["available"] == "250"


def test_trading_moves_between_members_that_are_not_above_each_other(company):
    done = transfer(company, "trade", "emea", "apac", "40", note="for the fair")
    assert done["target"]["balances"] == [{"own": "40", "available": "40", "received": "0", "traded": "40"}]


def test_the_same_key_again_changes_nothing_and_gives_the_first_answer(company):
    first = transfer(company, "allocate", "acme", "apac", "100", key="once")
    again = transfer(company, "allocate", "acme", "apac", "100", key="once")
    assert again == {**first, "repeated": True}


def test_the_key_of_another_principal_in_the_tenant_is_the_same_key(company):
    transfer(company, "allocate", "acme", "apac", "100", key="once")
    assert transfer(company, "allocate", "acme", "apac", "100", "carrier", key="once")["repeated"]


def test_a_key_of_ours_is_not_a_key_of_a_client(company):
    assert transfer(company, "allocate", "acme", "apac", "1", key="open")["__typename"] == "TransferDone"


@pytest.mark.parametrize(
    ("verb", "source", "target", "quantity", "more", "kind", "code", "field"),
    [
        (
            "allocate",
            "acme",
            "apac",
            "301",
            {},
            "InsufficientAllowance",
            "insufficient_allowance",
            "quantity",
        ),
        ("allocate", "acme", "apac", "0", {}, "InvalidInput", "not_positive", "quantity"),
        ("allocate", "acme", "apac", "-1", {}, "InvalidInput", "not_positive", "quantity"),
        ("allocate", "acme", "acme", "1", {}, "InvalidInput", "same_node", "target"),
        ("allocate", "apac", "sales", "1", {}, "InvalidInput", "not_below", "target"),
        ("returnAllowance", "acme", "sales", "1", {}, "InvalidInput", "not_above", "target"),
        ("trade", "emea", "sales", "1", {}, "InvalidInput", "not_a_trade", "target"),
        ("allocate", "acme", "nowhere", "1", {}, "UnknownNode", "unknown_node", "target"),
        ("allocate", "nowhere", "apac", "1", {}, "UnknownNode", "unknown_node", "source"),
        (
            "allocate",
            "acme",
            "apac",
            "1",
            {"usageType": "fax"},
            "InvalidInput",
            "unknown_usage_type",
            "usageType",
        ),
        ("allocate", "acme", "apac", "1", {"period": "2026-13"}, "InvalidInput", "not_a_period", "period"),
        ("allocate", "acme", "apac", "1", {"period": "2025-11"}, "InvalidInput", "no_contract", "period"),
        (
            "allocate",
            "acme",
            "apac",
            "1",
            {"period": "2027-11"},
            "InvalidInput",
            "period_too_far_ahead",
            "period",
        ),
        ("allocate", "acme", "apac", "1", {"note": "x" * 501}, "InvalidInput", "bad_text", "note"),
        (
            "allocate",
            "acme",
            "apac",
            "1",
            {"idempotencyKey": ""},
            "InvalidInput",
            "invalid_input",
            "idempotencyKey",
        ),
    ],
)
def test_what_cannot_move_is_a_problem_that_names_the_field(
    company, verb, source, target, quantity, more, kind, code, field
):
    problem = transfer(company, verb, source, target, quantity, **more)
    assert (problem["__typename"], problem["code"], problem["path"]) == (kind, code, ["input", field])
    assert "{" not in problem["message"]
    assert "?" not in problem["message"]


def test_insufficient_allowance_says_what_there_is(company):
    problem = transfer(company, "allocate", "acme", "apac", "301")
    assert (problem["node"], problem["usageType"], problem["available"], problem["reserved"]) == (
        "acme",
        "voice",
        "300",
        "0",
    )


def test_another_command_under_a_used_key_is_refused(company):
    transfer(company, "allocate", "acme", "apac", "100", key="once")
    problem = transfer(company, "allocate", "acme", "apac", "99", key="once")
    assert (problem["__typename"], problem["code"]) == ("IdempotencyMismatch", "idempotency_mismatch")


@pytest.mark.parametrize(
    ("verb", "roles"), [("allocate", ["auditor"]), ("trade", ["auditor"]), ("allocate", ["mediation"])]
)
def test_whoever_may_not_change_is_told_which_verb_is_missing(company, verb, roles):
    problem = transfer(company, verb, "emea", "apac", "1", *roles)
    assert (problem["__typename"], problem["verb"]) == ("NotPermitted", verb)


def test_a_limit_counts_what_was_used_and_arms_its_thresholds(company, call):
    company.use(call("c1", 240))
    done = set_limit(company, "sales", "300", thresholds=[50, 80, 100])
    assert (done["fromPeriod"], done["crossed"]) == ("2026-11", [50, 80])
    (limit,) = done["node"]["limits"]
    assert (limit["quantity"], limit["used"], limit["remaining"]) == ("300", "240", "60")
    assert [threshold["crossed"] for threshold in limit["thresholds"]] == [True, True, False]
    assert limit["thresholds"][0]["crossedAt"] == "2026-11-15T12:00:00.000000Z"


def test_a_limit_is_lifted_by_an_explicit_null_and_never_by_forgetting_it(company):
    set_limit(company, "sales", "300")
    given = {"idempotencyKey": "k2", "node": "sales", "usageType": "voice"}
    assert company.ask(SET_LIMIT, input=given)["setLimit"]["path"] == ["input", "quantity"]
    assert set_limit(company, "sales", None, key="k3")["node"]["limits"] == []


def test_a_limit_that_begins_later_is_shown_in_its_first_period(company):
    done = set_limit(company, "sales", "300", fromPeriod="2026-12")
    assert (done["fromPeriod"], [limit["quantity"] for limit in done["node"]["limits"]]) == (
        "2026-12",
        ["300"],
    )


@pytest.mark.parametrize(
    ("quantity", "more", "code"),
    [
        ("-1", {}, "quantity_out_of_range"),
        ("1", {"thresholds": [0]}, "bad_thresholds"),
        ("1", {"thresholds": [101]}, "bad_thresholds"),
        ("1", {"usage_type": "fax"}, "unknown_usage_type"),
        ("1", {"fromPeriod": "soon"}, "not_a_period"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(company, quantity, more, code):
    assert set_limit(company, "sales", quantity, **more)["code"] == code


def test_an_auditor_sets_no_limits(company):
    assert set_limit(company, "sales", "1", "auditor")["code"] == "not_permitted"


def test_a_stop_in_the_database_is_told_as_try_again(company, monkeypatch):
    from allotment.backend.writer import Busy

    async def busy(*_, **__):
        raise Busy(250)

    monkeypatch.setattr(company.portal.engine, "carry_out", busy)
    query = TRANSFER.format(verb="allocate").replace(
        "... on NotPermitted { verb }", "... on TryAgain { retryAfterMs }"
    )
    given = {"idempotencyKey": "k", "source": "acme", "target": "apac", "quantity": "1", "usageType": "voice"}
    problem = company.ask(query, input=given)["allocate"]
    assert (problem["__typename"], problem["code"], problem["retryAfterMs"]) == ("TryAgain", "busy", 250)
