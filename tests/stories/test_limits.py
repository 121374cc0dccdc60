"""A telecoms manager keeps usage in hand: by the day, with a raise, with policies that are tried out first.

Acme has 600 seconds of voice; Anna is in Sales, which is in EMEA. Calls to "+44" cost 0.05 a minute.
"""

import pytest

from allotment.backend.verifying import verify

ANSWERS = """
  __typename
  ... on Problem { code message path }
  ... on DryRun { events { topic sentence } }
"""
SET_LIMIT = """mutation($input: SetLimitInput!) { setLimit(input: $input) {
  %s ... on SetLimitDone { crossed countsFrom }
} }"""
RAISE = """mutation($input: RaiseLimitInput!) { raiseLimit(input: $input) {
  %s ... on RaiseLimitDone { quantity } ... on MayNotRaise { node window upTo mayRaise { role upTo } }
} }"""
SET_POLICY = (
    "mutation($input: SetPolicyInput!) { setPolicy(input: $input) { %s ... on SetPolicyDone { version } } }"
)
WITHDRAW = """mutation($input: WithdrawPolicyInput!) {
  withdrawPolicy(input: $input) { %s ... on WithdrawPolicyDone { policy } }
}"""
APPROVE = """mutation($input: ApproveUsageInput!) {
  approveUsage(input: $input) { %s ... on ApproveUsageDone { until } }
}"""
LIMITS = """query($node: ID!, $below: Boolean, $asOf: AsOf, $first: Int, $after: String) {
  limits(node: $node, below: $below, asOf: $asOf, first: $first, after: $after) {
    nodes {
      nodeId usageType window of kind quantity setTo used remaining mayRaise { role upTo }
      thresholds { percent quantity crossed } raises { quantity until note }
    }
    pageInfo { hasNextPage endCursor }
  }
}"""
POLICIES = """query($asOf: AsOf) { policies(asOf: $asOf) { nodes {
  id nodeId inForce { version steps { action percent kbps } } versions { version withdrawn }
  approvals { nodeId note }
} } }"""
EXPLAIN = """query($id: ID!) { explain(usageId: $id) {
  status sentence amount steering { payer }
  stop { reason window used limit node { id } raisers { role upTo } }
  ruling { policy version action threshold limitOf { id } }
} }"""
TRY = """query($policy: PolicyInput!, $limits: [TriedLimitInput!]) {
  tryPolicy(
    policy: $policy, limits: $limits, startsAt: "2026-11-01T00:00:00Z", endsAt: "2026-12-01T00:00:00Z"
  ) {
    saved moved leftOut
    recorded { records charged amount }
    without { records charged amount }
    proposed { records charged blocked redirected amount personal }
    nodes { nodeId proposed { redirected } }
  }
}"""
INVOICE = "{ invoicePreview { total personalTotal personal { resourceId amount } nodes { nodeId amount } } }"
NEXT_HOUR = "2026-11-15T13:00:00Z"


class Manager:
    """Somebody who acts on Acme through the API."""

    def __init__(self, company, *roles, nodes=()):
        self.company, self.roles, self.nodes, self.keys = company, roles, nodes, 0

    def do(self, mutation, **given):
        self.keys += 1
        given.setdefault("idempotencyKey", f"{id(self)}-{self.keys}")
        data = self.company.ask(mutation % ANSWERS, *self.roles, nodes=self.nodes, input=given)
        return next(iter(data.values()))

    def limit(self, node, quantity, usage="voice", **more):
        return self.do(SET_LIMIT, node=node, usageType=usage, quantity=quantity, **more)

    def policy(self, *steps, name="p", node="sales", counted="voice", **more):
        return {"policy": name, "node": node, "counted": counted, "steps": list(steps), **more}

    def look(self, query, **variables):
        return self.company.ask(query, *self.roles, nodes=self.nodes, **variables)

    def limits(self, node="sales", **more):
        return self.look(LIMITS, node=node, **more)["limits"]["nodes"]

    def explained(self, record):
        usages = self.look("{ usages { nodes { id recordId } } }")["usages"]["nodes"]
        ident = next(usage["id"] for usage in usages if usage["recordId"] == record)
        return self.look(EXPLAIN, id=ident)["explain"]


@pytest.fixture
def manager(company):
    return Manager(company, "telecoms_manager")


def test_a_daily_limit_stops_is_raised_for_an_hour_and_holds_again(company, manager, call):
    rule = [{"role": "telecoms_manager", "percent": 200}]
    done = manager.limit("sales", "120", window="day", quantities=["60"], mayRaise=rule, note="trial")
    assert (done["__typename"], done["crossed"]) == ("SetLimitDone", [])
    report = company.use(call("c1", 60), call("c2", 60), call("c3", 60))
    assert (report["charged"], report["rejected"]) == (2, 1)

    told = manager.explained("c3")
    assert told["stop"] == {
        "reason": "limit_exceeded",
        "window": "day",
        "used": "120",
        "limit": "120",
        "node": {"id": "sales"},
        "raisers": [{"role": "telecoms_manager", "upTo": "240"}],
    }
    assert "the limit per day of Sales" in told["sentence"]

    (limit,) = manager.limits()
    assert (limit["window"], limit["of"], limit["used"], limit["remaining"]) == (
        *("day", "2026-11-15"),
        *("120", "0"),
    )
    assert [(one["percent"], one["quantity"], one["crossed"]) for one in limit["thresholds"]] == [
        (None, "60", True),
        (80, "96", True),
        (100, "120", True),
    ]

    refused = manager.do(RAISE, node="sales", usageType="voice", window="day", to="241", until=NEXT_HOUR)
    assert (refused["__typename"], refused["upTo"], refused["path"]) == (
        *("MayNotRaise", "240"),
        ["input", "quantity"],
    )
    raised = manager.do(RAISE, node="sales", usageType="voice", window="day", by="60", until=NEXT_HOUR)
    assert raised["quantity"] == "180"
    now, later = {"start": "2026-11-15T12:30:00Z"}, {"start": "2026-11-15T13:00:00Z"}
    report = company.use(call("c4", 60, **now), call("c5", 1, **now), call("c6", 1, **later))
    assert (report["charged"], report["rejected"]) == (1, 2)
    assert manager.explained("c6")["stop"]["limit"] == "120"
    report = verify(company.portal.engine.isolation, company.id)
    assert report.ok, report.problem


def test_what_a_limit_was_as_of_an_earlier_moment(company, manager, call):
    first = manager.limit("sales", "100", window="day")["countsFrom"]
    seq = str(company.settle())
    # It goes on with what was counted for the one before.
    assert manager.limit("sales", "200", window="day")["countsFrom"] == first == "2026-11-15T12:00:00.000000Z"
    assert manager.limit("sales", "900")["countsFrom"] == "2026-10-31T23:00:00.000000Z"
    manager.limit("sales", None)
    company.use(call("c1", 60))
    (then,), (now,) = manager.limits(asOf={"seq": seq}), manager.limits()
    assert (then["quantity"], then["used"]) == ("100", "0")
    assert (now["quantity"], now["used"]) == ("200", "60")


def test_limits_come_in_pages_and_only_within_reach(company, manager):
    for node, window in (("acme", "day"), ("sales", "week"), ("anna", "last_7_days"), ("apac", "day")):
        manager.limit(node, "1000", window=window)
    first = manager.look(LIMITS, node="acme", below=True, first=3)["limits"]
    assert [limit["nodeId"] for limit in first["nodes"]] == ["apac", "anna", "sales"]
    after = first["pageInfo"]["endCursor"]
    rest = manager.look(LIMITS, node="acme", below=True, first=3, after=after)["limits"]
    assert ([limit["nodeId"] for limit in rest["nodes"]], rest["pageInfo"]["hasNextPage"]) == (
        ["acme"],
        False,
    )
    bound = Manager(company, "telecoms_manager", nodes=("emea",))
    assert [limit["nodeId"] for limit in bound.limits("emea", below=True)] == ["anna", "sales"]
    assert bound.look(LIMITS, node="apac")["limits"] is None
    assert bound.look(LIMITS, node="nowhere")["limits"] is None
    assert bound.limit("apac", "1")["__typename"] == "UnknownNode"


def test_a_policy_is_tried_out_set_and_moves_what_is_beyond_the_limit_to_the_user(company, manager, call):
    company.use(call("c1", 120), call("c2", 600))
    policy = manager.policy({"action": "REDIRECT", "percent": 100})
    soft = [{"node": "sales", "usageType": "voice", "quantity": "120", "kind": "SOFT"}]
    told = manager.look(TRY, policy=policy, limits=soft)["tryPolicy"]
    # Of 720 seconds 600 are in the allowance, two minutes cost 0.10; redirected, ten minutes cost 0.50.
    assert told == {
        "saved": "0.100000",
        "moved": "0.500000",
        "leftOut": 0,
        "recorded": {"records": "2", "charged": "2", "amount": "0.100000"},
        "without": {"records": "2", "charged": "2", "amount": "0.100000"},
        "proposed": {
            "records": "2",
            "charged": "2",
            "blocked": "0",
            "redirected": "1",
            "amount": "0.000000",
            "personal": "0.500000",
        },
        "nodes": [{"nodeId": "sales", "proposed": {"redirected": "1"}}],
    }
    assert manager.look(POLICIES)["policies"]["nodes"] == []

    manager.limit("sales", "720", kind="SOFT")
    assert manager.do(SET_POLICY, policy=policy, dryRun=True)["events"][0]["topic"] == "policy.set"
    assert manager.do(SET_POLICY, policy=policy)["version"] == 1
    company.use(call("c3", 60, start="2026-11-15T12:00:00Z"))
    told = manager.explained("c3")
    assert (told["steering"]["payer"], told["amount"]) == ("personal", "0.050000")
    assert told["ruling"] == {
        "policy": "p",
        "version": 1,
        "action": "REDIRECT",
        "threshold": "720",
        "limitOf": {"id": "sales"},
    }
    invoice = manager.look(INVOICE)["invoicePreview"]
    assert (invoice["total"], invoice["personalTotal"]) == ("0.100000", "0.050000")
    assert invoice["personal"] == [{"resourceId": "anna", "amount": "0.050000"}]
    report = verify(company.portal.engine.isolation, company.id)
    assert report.ok, report.problem


def test_usage_waits_for_an_approval_that_ends_by_itself(company, manager, call):
    manager.limit("sales", "60", kind="SOFT")
    step = {"action": "APPROVAL", "percent": 100, "approvers": ["telecoms_manager"]}
    manager.do(SET_POLICY, policy=manager.policy(step))
    now = {"start": "2026-11-15T12:00:00Z"}
    company.use(call("c1", 120, **now))
    assert manager.explained("c1")["stop"]["reason"] == "approval_required"
    company.use(call("help", 120, to="112", **now))
    done = manager.do(APPROVE, policy="p", node="sales", until=NEXT_HOUR, note="the fair")
    assert done["__typename"] == "ApproveUsageDone"
    report = company.use(call("c2", 120, **now), call("c3", 60, start="2026-11-15T13:00:00Z"))
    assert (report["charged"], report["rejected"]) == (1, 1)
    (policy,) = manager.look(POLICIES)["policies"]["nodes"]
    assert policy["approvals"] == [{"nodeId": "sales", "note": "the fair"}]


def test_versions_of_a_policy_and_its_end(company, manager):
    manager.do(SET_POLICY, policy=manager.policy({"action": "THROTTLE", "percent": 80, "kbps": 64}))
    seq = str(company.settle())
    manager.do(SET_POLICY, policy=manager.policy({"action": "BLOCK", "percent": 100}))
    (policy,) = manager.look(POLICIES)["policies"]["nodes"]
    assert policy["inForce"] == {"version": 2, "steps": [{"action": "BLOCK", "percent": 100, "kbps": None}]}
    (then,) = manager.look(POLICIES, asOf={"seq": seq})["policies"]["nodes"]
    assert then["inForce"]["version"] == 1
    manager.do(WITHDRAW, policy="p")
    (policy,) = manager.look(POLICIES)["policies"]["nodes"]
    assert policy["inForce"] is None
    assert [(one["version"], one["withdrawn"]) for one in policy["versions"]] == [
        (1, False),
        (2, False),
        (2, True),
    ]


def test_a_policy_out_of_reach_is_one_that_does_not_exist(company, manager):
    manager.do(SET_POLICY, policy=manager.policy({"action": "BLOCK", "percent": 100}, node="apac"))
    bound = Manager(company, "telecoms_manager", nodes=("emea",))
    assert bound.look(POLICIES)["policies"]["nodes"] == []
    for name in ("p", "q"):
        answers = [
            bound.do(WITHDRAW, policy=name),
            bound.do(APPROVE, policy=name, node="sales", until=NEXT_HOUR),
        ]
        assert [answer["code"] for answer in answers] == ["unknown_policy"] * 2
    taken = bound.do(SET_POLICY, policy=bound.policy({"action": "BLOCK", "percent": 100}))
    assert (taken["__typename"], taken["path"]) == ("InvalidInput", ["input", "policy"])
    elsewhere = bound.policy({"action": "BLOCK", "percent": 100}, name="q", node="apac")
    assert bound.do(SET_POLICY, policy=elsewhere)["__typename"] == "UnknownNode"
    assert company.refused(TRY, "telecoms_manager", nodes=("emea",), policy=elsewhere) == "unknown_node"


@pytest.mark.parametrize(
    ("given", "code", "field"),
    [
        ({"window": "year"}, "bad_window", "window"),
        ({"thresholds": [150]}, "bad_thresholds", "thresholds"),
        ({"quantities": ["0"]}, "bad_quantities", "quantities"),
        ({"window": "day", "fromPeriod": "2026-11"}, "begins_now", "fromPeriod"),
        ({"mayRaise": [{"role": "", "percent": 120}]}, "bad_rule", "mayRaise"),
        ({"note": "x" * 201}, "bad_text", "note"),
    ],
)
def test_a_limit_that_makes_no_sense_is_a_problem_that_names_the_field(manager, given, code, field):
    answer = manager.limit("sales", "100", **given)
    assert (answer["code"], answer["path"]) == (code, ["input", field])
    assert "?" not in answer["message"]


@pytest.mark.parametrize(
    ("step", "field"),
    [
        ({"action": "THROTTLE", "percent": 80}, "steps[0].kbps"),
        ({"action": "OVERAGE", "percent": 80, "price": "free"}, "steps[0].price"),
        ({"action": "BLOCK", "percent": 2000}, "steps[0].percent"),
    ],
)
def test_a_policy_that_makes_no_sense_is_a_problem_that_names_the_field(manager, step, field):
    answer = manager.do(SET_POLICY, policy=manager.policy(step))
    assert (answer["code"], answer["path"]) == ("bad_policy", ["input", field])


def test_an_auditor_sets_raises_and_approves_nothing(company):
    auditor = Manager(company, "auditor")
    step = {"action": "BLOCK", "percent": 100}
    answers = [
        auditor.limit("sales", "1", window="day"),
        auditor.do(RAISE, node="sales", usageType="voice", by="1", until=NEXT_HOUR),
        auditor.do(SET_POLICY, policy=auditor.policy(step)),
        auditor.do(WITHDRAW, policy="p"),
        auditor.do(APPROVE, policy="p", node="sales", until=NEXT_HOUR),
    ]
    assert {answer["code"] for answer in answers} <= {"not_permitted", "unknown_policy"}
    assert company.refused(TRY, "auditor", policy=auditor.policy(step)) == "not_permitted"


def test_a_switch_is_told_the_rate_to_throttle_to_and_why_no_more_is_granted(company, manager):
    manager.limit("sales", "120", kind="SOFT")
    steps = [{"action": "THROTTLE", "percent": 50, "kbps": 64}, {"action": "BLOCK", "percent": 100}]
    manager.do(SET_POLICY, policy=manager.policy(*steps))

    def post(path, number, **more):
        body = {"invocationSequenceNumber": number, **more}
        token = company.token("mediation")
        return company.portal.client.post(path, json=body, headers={"Authorization": f"Bearer {token}"})

    def opening(call, **units):
        return {
            "nfConsumerIdentification": {"nFName": "switch-1"},
            "chargingId": call,
            "subscriberIdentifier": "+442071838750",
            "invocationTimeStamp": "2026-11-15T12:00:00Z",
            "counterpart": "+442079460000",
            "multipleUnitUsage": [{"ratingGroup": 1, "requestedUnit": units}],
        }

    path = "/v1/charging/chargingdata"
    answer = post(path, 0, **opening("s1", time=120))
    assert answer.json()["multipleUnitInformation"][0]["throttleKbps"] == 64
    denied = post(path, 0, **opening("s2", time=60))
    assert (denied.status_code, denied.json()["code"]) == (403, "quota_limit_reached")
    assert "a policy stops it" in denied.json()["detail"]
