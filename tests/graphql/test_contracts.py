"""Contracts through the API: what the carrier's staff may do, what it leads to, and how it fails."""

import pytest
from fixtures_app import NOON

FIELDS = """
  id startsOn endsOn ended version
  versions {
    version startsOn overage note
    grants { usageType quantity rollover { cycles quantity percent } }
    terms {
      calendar { kind number starts } prorate renewsMonths rollsToEnterprise settleAfterHours commitment
      expires
      overagePrices { usageType price per }
    }
  }
"""
PROBLEM = "... on Problem { code message path }"
DRY = "... on DryRun { events { topic sentence event } }"
SIGN = f"""mutation($input: SignContractInput!) {{ signContract(input: $input) {{
  __typename ... on ContractDone {{ repeated eventSeqs contract {{ {FIELDS} }} }} {DRY} {PROBLEM}
}} }}"""
END = f"""mutation($input: EndContractInput!) {{ endContract(input: $input) {{
  __typename ... on ContractDone {{ repeated contract {{ endsOn ended }} }} {DRY} {PROBLEM}
}} }}"""
RENEW = f"""mutation($input: RenewContractInput!) {{ renewContract(input: $input) {{
  __typename ... on ContractDone {{ repeated contract {{ endsOn ended }} }} {DRY} {PROBLEM}
}} }}"""
TOP_UP = f"""mutation($input: TopUpInput!) {{ topUp(input: $input) {{
  __typename ... on TopUpDone {{ period node {{ id balances {{ granted available unit }} }} }}
  {DRY} {PROBLEM}
}} }}"""
CHANGE = f"""mutation($input: ChangeGrantsInput!) {{ changeGrants(input: $input) {{
  __typename ... on ChangeGrantsDone {{
    period contract {{ version }} changes {{ usageType before after change share }}
  }}
  ... on InsufficientAllowance {{ available reserved }} {DRY} {PROBLEM}
}} }}"""
DEFINE = f"""mutation($input: DefineUsageTypeInput!) {{ defineUsageType(input: $input) {{
  __typename ... on DefineUsageTypeDone {{ repeated usageType {{ name unit builtIn }} }} {DRY} {PROBLEM}
}} }}"""
CONTRACTS = f"query($asOf: AsOf) {{ contracts(asOf: $asOf) {{ {FIELDS} }} }}"
HISTORY = '{ nodeHistory(node: "acme") { nodes { sentence } } }'


def ask(company, mutation, *roles, key="k", nodes=(), **given):
    answer = company.ask(
        mutation, *(roles or ("carrier",)), nodes=nodes, input={"idempotencyKey": key, **given}
    )
    (told,) = answer.values()
    return told


def grant(usage_type, quantity, /, **rollover):
    given = {"usageType": usage_type, "quantity": quantity}
    return given | ({"rollover": rollover} if rollover else {})


@pytest.fixture(scope="module")
def untouched(portal):
    """A tenant that many tests may share, for nothing changes it."""
    portal.clock[0] = NOON
    return portal.tenant()


FRAME = {
    "contract": "main",
    "startsOn": "2026-12-01",
    "grants": [grant("voice", "900", cycles=2, quantity="300"), grant("money", "5000000")],
    "endsOn": "2027-11-30",
    "calendar": {"kind": "BILLING_DAY", "number": 15},
    "renewsMonths": 12,
    "prorate": True,
    "settleAfterHours": 6,
    "commitment": "100.50",
    "overagePrices": [{"usageType": "voice", "price": "0.03", "per": "60"}],
    "note": "negotiated",
}


def test_a_contract_is_shown_as_it_was_signed(company):
    done = ask(company, SIGN, **FRAME)
    assert done["__typename"] == "ContractDone"
    signed = done["contract"]
    assert (signed["version"], signed["startsOn"], signed["endsOn"]) == (2, "2026-01-01", "2027-11-30")
    assert signed["versions"][1] == {
        "version": 2,
        "startsOn": "2026-12-01",
        "overage": True,
        "note": "negotiated",
        "grants": [
            {
                "usageType": "voice",
                "quantity": "900",
                "rollover": {"cycles": 2, "quantity": "300", "percent": None},
            },
            {"usageType": "money", "quantity": "5000000", "rollover": None},
        ],
        "terms": {
            "calendar": {"kind": "BILLING_DAY", "number": 15, "starts": []},
            "prorate": True,
            "renewsMonths": 12,
            "rollsToEnterprise": False,
            "settleAfterHours": 6,
            "commitment": "100.500000",
            "expires": False,
            "overagePrices": [{"usageType": "voice", "price": "0.03", "per": "60"}],
        },
    }
    assert signed["versions"][0]["terms"]["calendar"] == {"kind": "MONTH", "number": 0, "starts": []}
    assert company.ask(CONTRACTS)["contracts"] == [signed]
    assert ask(company, SIGN, **FRAME)["repeated"]


def test_the_past_shows_the_contract_as_it_was(company):
    before = company.settle()
    ask(company, SIGN, **FRAME)
    (then,) = company.ask(CONTRACTS, asOf={"seq": str(before)})["contracts"]
    assert (then["version"], then["endsOn"]) == (1, None)


def test_one_contract_is_found_by_its_name_or_not_at_all(company):
    query = "query($id: ID!) { contract(id: $id) { id version } }"
    assert company.ask(query, id="main")["contract"] == {"id": "main", "version": 1}
    assert company.ask(query, id="other")["contract"] is None


def test_a_dry_run_tells_what_would_be_signed(company):
    told = ask(company, SIGN, dryRun=True, **FRAME)
    assert [event["sentence"] for event in told["events"]] == [
        "Contract main (version 2) was signed, from 2026-12-01 (negotiated)."
    ]
    assert company.ask(CONTRACTS)["contracts"][0]["version"] == 1


def test_a_contract_is_ended_and_renewed(company):
    assert ask(company, END, contract="main", endsOn="2026-12-31")["contract"] == {
        "endsOn": "2026-12-31",
        "ended": True,
    }
    assert ask(company, RENEW, key="r", contract="main", endsOn="2027-12-31")["contract"] == {
        "endsOn": "2027-12-31",
        "ended": False,
    }
    assert ask(company, RENEW, key="r2", contract="main")["contract"]["endsOn"] is None


def test_a_top_up_is_there_at_once(company):
    done = ask(company, TOP_UP, usageType="voice", quantity="100", note="fair")
    assert (done["period"], done["node"]["id"]) == ("2026-11", "acme")
    assert done["node"]["balances"] == [{"granted": "700", "available": "400", "unit": "second"}]
    sentences = [one["sentence"] for one in company.ask(HISTORY)["nodeHistory"]["nodes"]]
    assert "Acme got 100 seconds of voice more for 2026-11 (fair)." in sentences


def test_grants_are_changed_in_the_running_period(company):
    done = ask(company, CHANGE, contract="main", grants=[grant("voice", "500")])
    assert done == {
        "__typename": "ChangeGrantsDone",
        "period": "2026-11",
        "changes": [
            {"usageType": "voice", "before": "600", "after": "500", "change": "-100", "share": "1/1"}
        ],
        "contract": {"version": 2},
    }
    less = ask(company, CHANGE, key="k2", contract="main", grants=[grant("voice", "100")])
    assert (less["__typename"], less["available"]) == ("InsufficientAllowance", "200")


def test_a_defined_type_is_known_everywhere(company, call):
    done = ask(company, DEFINE, name="iot", unit="message")
    assert done["usageType"] == {"name": "iot", "unit": "message", "builtIn": False}
    assert company.ask("{ usageTypes { name unit builtIn } }")["usageTypes"][-1] == done["usageType"]
    ask(company, TOP_UP, key="t", usageType="iot", quantity="10")
    query = '{ hierarchy(depth: 0, usageTypes: ["iot"]) { root { balances { usageType unit available } } } }'
    assert company.ask(query)["hierarchy"]["root"]["balances"] == [
        {"usageType": "iot", "unit": "message", "available": "10"}
    ]
    assert company.use(call("i1", 3, type="iot"), call("i2", 3, type="fax"))["suspended"] == 2
    waiting = company.ask("{ suspense { nodes { reason } } }", "carrier")["suspense"]["nodes"]
    assert {one["reason"] for one in waiting} == {"no_rate", "unknown_usage_type"}


@pytest.mark.parametrize(
    ("mutation", "given", "code", "field"),
    [
        (SIGN, {**FRAME, "startsOn": "2026-13-01"}, "not_a_date", "startsOn"),
        (SIGN, {**FRAME, "endsOn": "2026-11-30"}, "ends_before_start", "endsOn"),
        (SIGN, {**FRAME, "calendar": {"kind": "BILLING_DAY", "number": 32}}, "bad_calendar", "calendar"),
        (SIGN, {**FRAME, "calendar": {"kind": "DAYS", "number": 7}}, "bad_calendar", "calendar"),
        (SIGN, {**FRAME, "grants": [grant("fax", "1")]}, "unknown_usage_type", "usageType"),
        (SIGN, {**FRAME, "grants": [grant("data", "-1")]}, "quantity_out_of_range", "quantity"),
        (SIGN, {**FRAME, "grants": [grant("data", "1", cycles=0)]}, "bad_terms", "rollover.cycles"),
        (SIGN, {**FRAME, "grants": [grant("data", "1", quantity="-1")]}, "bad_terms", "rollover.quantity"),
        (SIGN, {**FRAME, "contract": "other"}, "contracts_overlap", "startsOn"),
        (END, {"contract": "none", "endsOn": "2026-12-31"}, "unknown_contract", "contract"),
        (END, {"contract": "main", "endsOn": "2026-11-14"}, "ends_in_the_past", "endsOn"),
        (RENEW, {"contract": "main"}, "no_end", "contract"),
        (TOP_UP, {"usageType": "voice", "quantity": "0"}, "not_positive", "quantity"),
        (TOP_UP, {"usageType": "voice", "quantity": "1", "period": "2025-12"}, "no_contract", "period"),
        (TOP_UP, {"usageType": "voice", "quantity": "1", "period": "soon"}, "not_a_period", "period"),
        (CHANGE, {"contract": "main", "grants": []}, "nothing_changed", "grants"),
        (DEFINE, {"name": "Voice", "unit": "x"}, "bad_usage_type", "name"),
        (DEFINE, {"name": "voice", "unit": "x"}, "usage_type_exists", "name"),
    ],
)
def test_what_cannot_be_says_why_and_changes_nothing(untouched, mutation, given, code, field):
    before = untouched.settle()
    told = ask(untouched, mutation, **given)
    assert (told["code"], told["path"]) == (code, ["input", field])
    assert "{" not in told["message"]
    assert "?" not in told["message"]
    assert untouched.settle() == before


@pytest.mark.parametrize(
    ("mutation", "given"),
    [
        (SIGN, FRAME),
        (END, {"contract": "main", "endsOn": "2026-12-31"}),
        (RENEW, {"contract": "main"}),
        (TOP_UP, {"usageType": "voice", "quantity": "1"}),
        (CHANGE, {"contract": "main", "grants": [grant("voice", "1000")]}),
        (DEFINE, {"name": "iot", "unit": "message"}),
    ],
)
def test_only_the_carriers_staff_for_the_whole_tenant_may(untouched, mutation, given):
    for roles, nodes in ((("telecoms_manager",), ()), (("auditor",), ()), (("carrier",), ("emea",))):
        assert ask(untouched, mutation, *roles, nodes=nodes, **given)["__typename"] == "NotPermitted"


def test_periods_tell_their_bounds_and_terms(company):
    (period,) = company.ask(
        "{ periods { period startsAt endsAt share commitment terms { commitment calendar { kind } } } }"
    )["periods"]
    assert period == {
        "period": "2026-11",
        "startsAt": "2026-10-31T23:00:00.000000Z",
        "endsAt": "2026-11-30T23:00:00.000000Z",
        "share": "1/1",
        "commitment": "0.000000",
        "terms": {"commitment": "0.000000", "calendar": {"kind": "MONTH"}},
    }
