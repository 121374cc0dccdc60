"""What a carrier lays down for sessions, as its networks meet it: slices, the end, pools; and who sees it.

Acme has 600 seconds of voice; messages and calls to the world cost money by the unit.
"""

import pytest
from fixtures_app import DEFINITION
from openapi_shape import check_answer

from allotment.backend.verifying import verify
from allotment.backend.web.charging_openapi import charging_openapi

PATH = "/v1/charging/chargingdata"
OPENAPI = charging_openapi()
BY_UNIT = {
    **DEFINITION,
    "tariffs": [
        {
            "id": "by the unit",
            "valid_from": "2026-01-01",
            "currency": "EUR",
            "rates": [
                {
                    "usage_type": "voice",
                    "zone": "any",
                    "price": "0.07",
                    "per": 3,
                    "included": False,
                },
                {"usage_type": "messaging", "zone": "any", "price": "0.05", "included": False},
                {"usage_type": "data", "zone": "any", "price": "2", "per": 1_000_000},
            ],
        }
    ],
}
SET = """mutation($input: SetSessionTermsInput!) { setSessionTerms(input: $input) {
  __typename ... on SetSessionTermsDone { node usageType repeated }
  ... on DryRun { events { topic sentence } }
  ... on Problem { code message path }
} }"""
TERMS = """query($asOf: AsOf) { sessionTerms(asOf: $asOf) { nodes {
  nodeId usageType finalAction address usualSlice thresholdPercent pooled note
} } }"""
LIMIT = "mutation($input: SetLimitInput!) { setLimit(input: $input) { __typename } }"
REDIRECT = {"finalAction": "REDIRECT", "address": "https://top-up.example", "thresholdPercent": 20}


def lay_down(company, role="carrier", nodes=(), **given):
    return company.ask(SET, role, nodes=nodes, input={"idempotencyKey": "t", **given})["setSessionTerms"]


def post(company, path, number, *groups, **more):
    body = {"invocationSequenceNumber": number, "multipleUnitUsage": [*groups]} | more
    token = company.token("mediation")
    answer = company.portal.client.post(path, json=body, headers={"Authorization": f"Bearer {token}"})
    company.settle()
    check_answer(OPENAPI, path, answer)
    return answer


def opening(company, *groups, line="+442071838750"):
    return post(
        *(company, PATH, 0, *groups),
        nfConsumerIdentification={"nFName": "gateway"},
        chargingId="g-1",
        subscriberIdentifier=line,
        invocationTimeStamp="2026-11-15T11:00:00Z",
        counterpart="+12125550100",
    )


def units(answer):
    return answer.json()["multipleUnitInformation"]


def test_who_has_used_the_last_units_is_redirected(company):
    node = {"node": "sales", "usageType": "data"}
    tried = lay_down(company, **node, terms=REDIRECT, dryRun=True)
    assert tried["events"][0]["topic"] == "session.terms_set"
    assert "redirected to https://top-up.example" in tried["events"][0]["sentence"]
    assert lay_down(company, **node, terms=REDIRECT, note="as agreed")["__typename"] == "SetSessionTermsDone"
    assert lay_down(company, **node, terms=REDIRECT, note="as agreed")["repeated"]
    limit = {"idempotencyKey": "l", "node": "sales", "usageType": "data", "quantity": "10000"}
    company.ask(LIMIT, input=limit)
    opened = opening(company, {"ratingGroup": 2, "requestedUnit": {"totalVolume": 20_000}})
    (unit,) = units(opened)
    assert (unit["grantedUnit"], unit["volumeQuotaThreshold"]) == ({"totalVolume": 10_000}, 2_000)
    redirected = {
        "finalUnitAction": "REDIRECT",
        "redirectServer": {
            "redirectAddressType": "URL",
            "redirectServerAddress": "https://top-up.example",
        },
    }
    assert unit["finalUnitIndication"] == redirected
    used = {
        "ratingGroup": 2,
        "usedUnitContainer": [{"localSequenceNumber": 1, "totalVolume": 10_000}],
        "requestedUnit": {},
    }
    (unit,) = units(post(company, f"{opened.headers['location']}/update", 1, used))
    assert (unit["resultCode"], unit["finalUnitIndication"]) == ("QUOTA_LIMIT_REACHED", redirected)
    (told,) = company.ask(TERMS)["sessionTerms"]["nodes"]
    assert (told["nodeId"], told["address"], told["note"]) == ("sales", "https://top-up.example", "as agreed")
    assert company.ask(TERMS, asOf={"seq": "3"})["sessionTerms"]["nodes"] == []


def test_terms_are_for_the_carrier_and_seen_in_reach_only(company):
    assert lay_down(company, "telecoms_manager", node="sales", terms={})["code"] == "not_permitted"
    assert lay_down(company, node="nowhere", terms={})["code"] == "unknown_node"
    bad = lay_down(company, node="sales", terms={"finalAction": "REDIRECT"})
    assert (bad["code"], "address" in bad["message"]) == ("bad_session_terms", True)
    assert lay_down(company, node="sales")["code"] == "no_session_terms"
    lay_down(company, node="sales", terms={"usualSlice": "30"})
    assert company.ask(TERMS, nodes=("apac",))["sessionTerms"]["nodes"] == []
    (told,) = company.ask(TERMS, nodes=("emea",))["sessionTerms"]["nodes"]
    assert (told["usualSlice"], told["finalAction"]) == ("30", "TERMINATE")


def test_services_of_a_session_share_one_pool_of_money(portal):
    portal.clock[0] = 1_794_744_000_000_000
    company = portal.tenant(BY_UNIT)
    lay_down(company, node="acme", terms={"pooled": True})
    call = {"ratingGroup": 1, "requestedUnit": {"time": 60}}
    texts = {"ratingGroup": 3, "requestedUnit": {"serviceSpecificUnits": 14}}
    opened = opening(company, call, texts)
    assert [unit["creditPool"] for unit in units(opened)] == [
        {"poolId": 1, "unitValue": {"valueDigits": 70_000, "exponent": -6, "per": 3}},
        {"poolId": 1, "unitValue": {"valueDigits": 50_000, "exponent": -6, "per": 1}},
    ]
    # 60 x 0.07 / 3 + 14 x 0.05
    assert opened.json()["creditPools"] == [
        {"poolId": 1, "added": {"valueDigits": 2_100_000, "exponent": -6, "per": 1}}
    ]
    limit = {"idempotencyKey": "l", "node": "emea", "usageType": "money", "quantity": "2.10"}
    company.ask(LIMIT, input=limit | {"quantity": "2100000"})
    ref = opened.headers["location"]
    used = [
        {"ratingGroup": 1, "usedUnitContainer": [{"localSequenceNumber": 1, "time": 90}]},
        {"ratingGroup": 3, "usedUnitContainer": [{"localSequenceNumber": 1, "serviceSpecificUnits": 0}]},
    ]
    first, again = (post(company, f"{ref}/release", 1, *used) for _ in range(2))
    assert (first.status_code, again.status_code) == (204, 204)
    (usage,) = company.ask("{ usages { nodes { recordId billed amount } } }")["usages"]["nodes"]
    assert (usage["recordId"], usage["billed"], usage["amount"]) == ("g-1", "90", "2.100000")
    assert verify(portal.engine.isolation, company.id).problem == ""


@pytest.mark.parametrize("number", [0])
def test_reserved_units_are_seen_cannot_be_traded_and_count_against_limits(company, number):
    opened = opening(company, {"ratingGroup": 1, "requestedUnit": {"time": 100}})
    assert opened.status_code == 201
    balances = """query($id: ID!) { hierarchy(under: $id, depth: 0, usageTypes: ["voice"]) {
      root { balances { reserved available } } } }"""
    (sales,) = company.ask(balances, id="sales")["hierarchy"]["root"]["balances"]
    assert (sales["reserved"], sales["available"]) == ("60", "0")
    moved = company.ask(
        """mutation($input: TransferInput!) { trade(input: $input) {
          __typename ... on ReservedQuantity { available reserved } } }""",
        input={
            "idempotencyKey": "m",
            "source": "sales",
            "target": "apac",
            "usageType": "voice",
            "quantity": "1",
        },
    )["trade"]
    assert moved == {"__typename": "ReservedQuantity", "available": "0", "reserved": "60"}
    limit = {"idempotencyKey": "l", "node": "emea", "usageType": "voice", "quantity": "130"}
    company.ask(LIMIT, input=limit)
    denied = post(
        *(company, PATH, number, {"ratingGroup": 1, "requestedUnit": {"time": 60}}),
        nfConsumerIdentification={"nFName": "gateway"},
        chargingId="g-2",
        subscriberIdentifier="+442071838750",
        invocationTimeStamp="2026-11-15T11:00:00Z",
        counterpart="+442079460000",
        oneTimeEvent=True,
    )
    assert (denied.status_code, denied.json()["cause"]) == (403, "QUOTA_LIMIT_REACHED")
    sessions = "{ sessions(status: OPEN) { nodes { session } } }"
    assert company.ask(sessions, nodes=("emea",))["sessions"]["nodes"] == [{"session": "g-1"}]
    assert company.ask(sessions, nodes=("apac",))["sessions"]["nodes"] == []
