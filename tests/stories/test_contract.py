"""A year with a contract, in plain words: signed, topped up, rolled over, paid from money, and ended.

Acme has 600 seconds of voice in November. From 1 December on it has what the carrier signs here.
"""

import pytest

from allotment.backend.verifying import verify

SIGN = "mutation($input: SignContractInput!) { signContract(input: $input) { __typename } }"
END = "mutation($input: EndContractInput!) { endContract(input: $input) { __typename } }"
TOP_UP = "mutation($input: TopUpInput!) { topUp(input: $input) { __typename } }"
MOVE = "mutation($input: TransferInput!) { allocate(input: $input) { __typename } }"
PERIODS = "{ periods { period startsAt endsAt share commitment } }"
BALANCE = """query($period: String!, $type: String!) {
  hierarchy(depth: 9, period: $period, usageTypes: [$type], resources: true) { nodes { id balances {
    granted rolledIn rolledOver expired available
  } } }
}"""
INVOICE = """query($period: String!) { invoicePreview(period: $period) {
  total credit payable commitment shortfall nodes { nodeId lines { amount credit payable } }
} }"""
USAGES = "{ usages { nodes { id recordId status reason } } }"
EXPLAIN = """query($id: ID!) { explain(usageId: $id) {
  amount payable credit { node { id } quantity } rating { price overage contractPrice { contract price per } }
} }"""
CALLED = "+442079460000"


@pytest.fixture
def acme(company):
    def sign(**terms):
        given = {"contract": "main", "startsOn": "2026-12-01", "idempotencyKey": "sign", **terms}
        told = company.ask(SIGN, "carrier", input=given)
        assert told["signContract"]["__typename"] == "ContractDone", told

    company.sign = sign
    return company


def travel(company, moment):
    """Let it be then; what time asks for is done."""
    portal = company.portal
    portal.clock[0] = moment
    portal.run(portal.engine.writer, company.id)
    portal.run(portal.engine.time.carry_out)
    portal.run(portal.engine.time.carry_out)
    company.settle()


def balances(company, period, usage_type="voice"):
    found = company.ask(BALANCE, period=period, type=usage_type)["hierarchy"]["nodes"]
    return {
        node["id"]: {name: int(figure) for name, figure in node["balances"][0].items() if figure != "0"}
        for node in found
        if any(figure != "0" for figure in node["balances"][0].values())
    }


def usage(company, record_id):
    return next(one for one in company.ask(USAGES)["usages"]["nodes"] if one["recordId"] == record_id)


def use(company, call, record_id, seconds, start, at):
    portal = company.portal
    portal.clock[0] = max(portal.clock[0], at(start))
    return company.use(call(record_id, seconds, CALLED, start=start))


@pytest.fixture
def at():
    from datetime import datetime

    return lambda text: int(datetime.fromisoformat(text).timestamp() * 1_000_000)


def test_what_is_left_of_a_month_goes_on_into_the_next_and_then_expires(acme, call, at):
    acme.sign(
        grants=[{"usageType": "voice", "quantity": "600", "rollover": {"cycles": 1, "quantity": "200"}}]
    )
    use(acme, call, "c-1", 120, "2026-12-10T10:00:00Z", at)
    acme.ask(
        MOVE,
        input={
            "idempotencyKey": "m",
            "source": "acme",
            "target": "apac",
            "usageType": "voice",
            "quantity": "120",
        },
    )
    acme.settle()
    travel(acme, at("2027-01-01T00:00:00+01:00"))
    assert balances(acme, "2026-12") == {
        "acme": {"granted": 600, "rolledOver": 150, "expired": 210},
        "apac": {"rolledOver": 50, "expired": 70},
    }
    assert balances(acme, "2027-01") == {
        "acme": {"granted": 600, "rolledIn": 150, "available": 750},
        "apac": {"rolledIn": 50, "available": 50},
    }
    travel(acme, at("2027-02-01T00:00:00+01:00"))
    # What was rolled over once expires; of January's own, 200 at most go on.
    assert balances(acme, "2027-01")["acme"] == {
        "granted": 600,
        "rolledIn": 150,
        "rolledOver": 200,
        "expired": 550,
    }
    assert balances(acme, "2027-01")["apac"] == {"rolledIn": 50, "expired": 50}
    assert verify(acme.portal.engine.isolation, acme.id).ok


def test_money_pays_before_anything_is_payable_and_too_little_spend_is_owed(acme, call, at):
    acme.sign(
        grants=[{"usageType": "money", "quantity": "60000"}],
        commitment="1.00",
        overagePrices=[{"usageType": "voice", "price": "0.06", "per": "60"}],
    )
    use(acme, call, "c-1", 60, "2026-12-10T10:00:00Z", at)
    use(acme, call, "c-2", 60, "2026-12-10T11:00:00Z", at)
    use(acme, call, "c-3", 60, "2026-12-10T12:00:00Z", at)
    told = acme.ask(INVOICE, period="2026-12")["invoicePreview"]
    assert told == {
        "total": "0.180000",
        "credit": "0.060000",
        "payable": "0.120000",
        "commitment": "1.000000",
        "shortfall": "0.880000",
        "nodes": [
            {
                "nodeId": "sales",
                "lines": [{"amount": "0.180000", "credit": "0.060000", "payable": "0.120000"}],
            }
        ],
    }
    first = acme.ask(EXPLAIN, id=usage(acme, "c-1")["id"])["explain"]
    assert first == {
        "amount": "0.060000",
        "payable": "0.000000",
        "credit": [{"node": {"id": "acme"}, "quantity": "60000"}],
        "rating": {
            "price": "0.05",
            "overage": "60",
            "contractPrice": {"contract": "main", "price": "0.06", "per": "60"},
        },
    }
    bound = acme.ask(INVOICE, nodes=("apac",), period="2026-12")["invoicePreview"]
    assert (bound["total"], bound["commitment"], bound["shortfall"]) == ("0.000000", None, None)
    assert verify(acme.portal.engine.isolation, acme.id).ok


def test_a_new_billing_day_begins_where_the_open_month_ends(acme, call, at):
    acme.sign(
        startsOn="2026-11-20",
        grants=[{"usageType": "voice", "quantity": "600"}],
        calendar={"kind": "BILLING_DAY", "number": 15},
        prorate=True,
        commitment="31.00",
    )
    use(acme, call, "c-1", 60, "2026-11-28T10:00:00Z", at)
    use(acme, call, "c-2", 60, "2026-12-01T10:00:00Z", at)
    use(acme, call, "c-3", 60, "2026-12-15T10:00:00Z", at)
    assert [
        (period["period"], period["endsAt"][:10], period["share"], period["commitment"])
        for period in acme.ask(PERIODS)["periods"]
    ] == [
        ("2026-11", "2026-11-30", "1/1", "0.000000"),
        ("2026-12-01", "2026-12-14", "7/15", "14.466666"),
        ("2026-12-15", "2027-01-14", "1/1", "31.000000"),
    ]
    assert balances(acme, "2026-12-01")["acme"] == {"granted": 280, "available": 220}


def test_after_its_last_day_nothing_is_charged(acme, call, at):
    told = acme.ask(END, "carrier", input={"idempotencyKey": "e", "contract": "main", "endsOn": "2026-11-20"})
    assert told["endContract"]["__typename"] == "ContractDone"
    use(acme, call, "c-1", 60, "2026-11-20T22:59:59Z", at)
    use(acme, call, "c-2", 60, "2026-11-20T23:00:00Z", at)
    assert [usage(acme, one)["status"] for one in ("c-1", "c-2")] == ["CHARGED", "SUSPENDED"]
    assert usage(acme, "c-2")["reason"] == "no_contract"


def test_a_top_up_helps_until_the_period_ends(acme, call, at):
    acme.ask(
        TOP_UP,
        "carrier",
        input={"idempotencyKey": "t", "usageType": "voice", "quantity": "60", "note": "trade fair"},
    )
    acme.settle()
    assert balances(acme, "2026-11")["acme"]["granted"] == 660
    use(acme, call, "c-1", 60, "2026-12-02T10:00:00Z", at)
    assert balances(acme, "2026-12")["acme"]["granted"] == 600
