"""Who is told of what, through the API: what it changes, what it hides, and how it fails."""

import pytest

from allotment.backend.notifying import matching

PUBLIC = f"https://{'8.8.8.8'}/hooks?token=s3cret"
PROBLEM = """
    ... on Problem { code message path }
    ... on InvalidInput { field }
    ... on UnknownNode { node }
    ... on NotPermitted { verb }
"""
WEBHOOK = """
    ... on WebhookDone {
      secret repeated eventSeqs
      webhook { id origin disabled oldSecretUntil filter { node kinds usageTypes percentMin below } }
    }
"""
RECIPIENT = "mutation($input: SetRecipientInput!) { setRecipient(input: $input) { __typename %s } }"
REMOVE = "mutation($input: RemoveRecipientInput!) { removeRecipient(input: $input) { __typename %s } }"
CREATE = "mutation($input: CreateWebhookInput!) { createWebhook(input: $input) { __typename %s %s } }"
ROTATE = (
    "mutation($input: RotateWebhookSecretInput!) { rotateWebhookSecret(input: $input) { __typename %s %s } }"
)
DISABLE = "mutation($input: WebhookInput!) { disableWebhook(input: $input) { __typename %s %s } }"
ENABLE = "mutation($input: WebhookInput!) { enableWebhook(input: $input) { __typename %s %s } }"
REPLAY = """mutation($input: ReplayWebhookInput!) { replayWebhook(input: $input) {
  __typename ... on ReplayDone { uptoSeq } ... on Problem { code message path } } }"""
RECIPIENTS = """query($first: Int! = 25, $after: String) { recipients(first: $first, after: $after) {
  nodes { id role quietStarts quietEnds digest urgentAtOnce filter { node kinds } }
  pageInfo { hasNextPage endCursor }
} }"""
WEBHOOKS = "{ webhooks { nodes { id origin disabled } } }"
DELIVERIES = """query($to: ID!, $first: Int! = 25, $after: String, $status: DeliveryStatus) {
  deliveries(to: $to, first: $first, after: $after, status: $status) {
    nodes { seq kind status attempts replays detail } pageInfo { hasNextPage endCursor } } }"""


def ask(company, query, *roles, nodes=(), key="k", **given):
    filled = query.replace("%s", PROBLEM, 1).replace("%s", WEBHOOK, 1)
    given["idempotencyKey"] = key
    (answer,) = company.ask(filled, *roles, nodes=nodes, input=given).values()
    return answer


def recipient(company, ident="r", node="sales", email="anna@example.com", **more):
    wants = {"node": node, **more.pop("filter", {})}
    given = {"recipient": ident, "role": "cost centre manager", "email": email, "filter": wants}
    return ask(company, RECIPIENT, *more.pop("roles", ()), **{**given, **more})


def webhook(company, node="acme", url=PUBLIC, **more):
    wants = {"node": node, **more.pop("filter", {})}
    return ask(company, CREATE, *more.pop("roles", ()), url=url, filter=wants, **more)


def test_a_recipient_is_set_shown_changed_and_removed(company):
    quiet = {"starts": "22:00", "ends": "07:00"}
    assert recipient(company, quiet=quiet, digest="DAY")["__typename"] == "RecipientDone"
    (shown,) = company.ask(RECIPIENTS)["recipients"]["nodes"]
    assert shown == {
        "id": "r",
        "role": "cost centre manager",
        "quietStarts": "22:00",
        "quietEnds": "07:00",
        "digest": "DAY",
        "urgentAtOnce": True,
        "filter": {"node": "sales", "kinds": ["limit.threshold_crossed"]},
    }
    recipient(company, node="emea", key="k2")
    (shown,) = company.ask(RECIPIENTS)["recipients"]["nodes"]
    assert (shown["filter"]["node"], shown["digest"]) == ("emea", None)
    assert ask(company, REMOVE, recipient="r", key="k3")["__typename"] == "RecipientDone"
    assert company.ask(RECIPIENTS)["recipients"]["nodes"] == []


def test_an_address_is_erased_with_the_last_recipient_that_has_it(company):
    def kept():
        isolation = company.portal.engine.isolation
        with isolation.transaction(company.id) as db:
            return db.execute("SELECT count(*) FROM notice_addresses").fetchone()[0]

    recipient(company, "a", key="1")
    recipient(company, "b", key="2")
    assert kept() == 1
    ask(company, REMOVE, recipient="a", key="3")
    assert kept() == 1
    recipient(company, "b", email="bert@example.com", key="4")
    assert kept() == 1
    ask(company, REMOVE, recipient="b", key="5")
    assert kept() == 0


def test_a_secret_is_told_once(company):
    first = webhook(company)
    assert first["secret"].startswith("whsec_")
    assert first["webhook"]["origin"] == PUBLIC.partition("/hooks")[0]
    again = webhook(company)
    assert (again["secret"], again["repeated"]) == (None, True)
    assert again["webhook"] == first["webhook"]
    rotated = ask(company, ROTATE, webhook=first["webhook"]["id"], key="k2")
    assert rotated["secret"] not in (None, first["secret"])
    assert rotated["webhook"]["oldSecretUntil"] == "2026-11-16T12:00:00.000000Z"
    assert "s3cret" not in company.post(WEBHOOKS).text


def test_a_webhook_is_disabled_and_enabled(company):
    ident = webhook(company)["webhook"]["id"]
    assert ask(company, DISABLE, webhook=ident, key="2")["webhook"]["disabled"] == "asked"
    assert ask(company, REPLAY, webhook=ident, afterSeq="0", key="r")["code"] == "webhook_disabled"
    assert ask(company, ENABLE, webhook=ident, key="3")["webhook"]["disabled"] is None
    assert int(ask(company, REPLAY, webhook=ident, afterSeq="0", key="r")["uptoSeq"]) > 0


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"email": "anna"}, "bad_email", "email"),
        ({"email": "anna@"}, "bad_email", "email"),
        ({"email": "a@b\r\nBcc: c@d.example"}, "bad_email", "email"),
        ({"email": "anna@exa..mple.com"}, "bad_email", "email"),
        ({"quiet": {"starts": "24:00", "ends": "07:00"}}, "bad_hours", "quiet"),
        ({"quiet": {"starts": "7", "ends": "08:00"}}, "bad_hours", "quiet"),
        ({"quiet": {"starts": "07:00", "ends": "07:00"}}, "bad_hours", "quiet"),
        ({"filter": {"kinds": []}}, "unknown_topic", "kinds"),
        ({"filter": {"kinds": ["usage.charged"]}}, "unknown_topic", "kinds"),
        ({"filter": {"usageTypes": ["fax"]}}, "unknown_usage_type", "usageType"),
        ({"filter": {"percentMin": -1}}, "bad_percent", "percentMin"),
        ({"role": ""}, "bad_text", "role"),
        ({"note": "\n"}, "bad_text", "note"),
    ],
)
def test_a_recipient_that_cannot_be_is_refused_and_leaves_no_address(company, change, code, field):
    answer = recipient(company, **change)
    assert (answer["code"], answer["field"]) == (code, field)
    assert "{" not in answer["message"]
    with company.portal.engine.isolation.transaction(company.id) as db:
        assert db.execute("SELECT FROM notice_addresses").fetchone() is None


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("hooks.example.com", "bad_url"),
        ("ftp://hooks.example.com", "bad_url"),
        ("http://hooks.example.com", "bad_url"),
        ("https://user:pass@hooks.example.com", "bad_url"),
        ("https://hooks.example.com/#part", "bad_url"),
        ("https:///path", "bad_url"),
        ("https://hooks.example.com:99999/", "bad_url"),
        ("https://hooks.example.com/" + 2_000 * "x", "bad_url"),
        ("https://nowhere.invalid/", "unknown_host"),
        ("https://localhost/", "private_address"),
        ("https://127.0.0.1/", "private_address"),
        ("https://[::1]/", "private_address"),
        ("https://[::ffff:127.0.0.1]/", "private_address"),
    ],
)
def test_an_address_that_no_webhook_may_have_is_refused(company, url, code):
    answer = webhook(company, url=url)
    assert (answer["code"], answer["field"]) == (code, "url")
    assert company.ask(WEBHOOKS)["webhooks"]["nodes"] == []


@pytest.mark.parametrize("query", [ROTATE, DISABLE, ENABLE, REPLAY])
def test_a_webhook_that_is_not_there_is_unknown(company, query):
    more = {"afterSeq": "0"} if query is REPLAY else {}
    assert ask(company, query, webhook="wh_nothing", **more)["code"] == "unknown_webhook"


def test_who_is_bound_to_a_node_sees_and_touches_only_what_is_there(company):
    mine, other = ("emea",), ("apac",)
    ident = webhook(company, "sales", nodes=mine)["webhook"]["id"]
    assert recipient(company, node="sales", nodes=mine, key="2")["__typename"] == "RecipientDone"
    assert webhook(company, "apac", nodes=mine, key="3")["code"] == "unknown_node"
    assert webhook(company, "nowhere", nodes=mine, key="4")["code"] == "unknown_node"
    assert recipient(company, node="apac", nodes=mine, key="5")["code"] == "unknown_node"
    assert company.ask(WEBHOOKS, nodes=other)["webhooks"]["nodes"] == []
    assert company.ask(RECIPIENTS, nodes=other)["recipients"]["nodes"] == []
    assert company.ask(DELIVERIES, nodes=other, to=ident)["deliveries"] is None
    assert company.ask(DELIVERIES, nodes=mine, to=ident)["deliveries"]["nodes"] == []
    assert company.ask(DELIVERIES, nodes=mine, to="wh_nothing")["deliveries"] is None
    for query in (ROTATE, DISABLE, ENABLE):
        assert ask(company, query, webhook=ident, nodes=other, key="6")["code"] == "unknown_webhook"
    assert ask(company, REPLAY, webhook=ident, afterSeq="0", nodes=other)["code"] == "unknown_webhook"
    assert ask(company, REMOVE, recipient="r", nodes=other, key="7")["code"] == "unknown_recipient"
    assert recipient(company, node="apac", nodes=other, key="8")["code"] == "recipient_exists"


@pytest.mark.parametrize("role", ["auditor", "mediation"])
def test_who_may_not_say_who_is_told_is_refused(company, role):
    assert webhook(company, roles=(role,))["__typename"] == "NotPermitted"
    assert recipient(company, roles=(role,))["verb"] == "set_notice"
    for query in (ROTATE, DISABLE, ENABLE):
        assert ask(company, query, role, webhook="w")["__typename"] == "NotPermitted"
    assert ask(company, REPLAY, role, webhook="w", afterSeq="0")["__typename"] == "NotPermitted"
    assert ask(company, REMOVE, role, recipient="r")["__typename"] == "NotPermitted"


def test_the_same_key_for_something_else_is_a_mismatch(company):
    recipient(company)
    assert recipient(company, role="another")["__typename"] == "IdempotencyMismatch"


def test_pages_go_on_where_the_last_one_ended(company):
    for number in range(5):
        recipient(company, f"r{number}", key=f"k{number}")
    seen, after = [], None
    while True:
        page = company.ask(RECIPIENTS, first=2, after=after)["recipients"]
        seen += [one["id"] for one in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert seen == [f"r{number}" for number in range(5)]
    assert company.refused(RECIPIENTS, after="x") == "bad_cursor"


def test_the_delivery_log_is_paged_and_filtered(company, call):
    ident = webhook(company)["webhook"]["id"]
    company.ask(
        'mutation { setLimit(input: {idempotencyKey: "l", node: "sales", usageType: "voice", '
        'quantity: "600", thresholds: [10, 20, 30]}) { __typename } }'
    )
    company.use(*(call(f"c-{number}", 60) for number in range(3)))
    engine = company.portal.engine
    matching.step(engine.isolation, matching.Known(engine.isolation, company.id, None), 0)
    first = company.ask(DELIVERIES, to=ident, first=2)["deliveries"]
    rest = company.ask(DELIVERIES, to=ident, first=2, after=first["pageInfo"]["endCursor"])["deliveries"]
    seqs = [int(one["seq"]) for one in first["nodes"] + rest["nodes"]]
    assert len(seqs) == 3
    assert seqs == sorted(seqs, reverse=True)
    assert first["nodes"][0]["status"] == "WAITING"
    assert company.ask(DELIVERIES, to=ident, status="FAILED")["deliveries"]["nodes"] == []


def test_what_is_told_of_notices_hides_addresses(company):
    recipient(company)
    webhook(company, key="2")
    text = company.post(
        '{ nodeHistory(node: "acme") { nodes { sentence event } } sales: nodeHistory(node: "sales") '
        "{ nodes { sentence event } } }"
    ).text
    assert "anna@" not in text
    assert "s3cret" not in text
    assert '"address"' not in text


def test_what_a_change_of_notices_would_lead_to_is_told_and_nothing_is_kept(company):
    foreseen = "... on DryRun { events { topic sentence } }"
    quietly = [query.replace("__typename", f"__typename {foreseen}", 1) for query in (RECIPIENT, CREATE)]
    given = {"recipient": "r", "role": "auditor", "email": "a@example.com", "filter": {"node": "sales"}}
    first = ask(company, quietly[0], dryRun=True, **given)
    second = ask(company, quietly[1], dryRun=True, url=PUBLIC, filter={"node": "acme"})
    topics = [one["topic"] for told in (first, second) for one in told["events"]]
    assert topics == ["notice.recipient_set", "notice.webhook_created"]
    with company.portal.engine.isolation.transaction(company.id) as db:
        assert db.execute("SELECT FROM notice_addresses").fetchone() is None
    ident = webhook(company)["webhook"]["id"]
    for query, more in ((ROTATE, {}), (DISABLE, {}), (REPLAY, {"afterSeq": "0"})):
        told = query.replace("__typename", f"__typename {foreseen}", 1)
        (event,) = ask(company, told, webhook=ident, key="k2", dryRun=True, **more)["events"]
        assert event["topic"].startswith("notice.webhook_")
    assert company.ask(WEBHOOKS)["webhooks"]["nodes"][0]["disabled"] is None


def test_a_replay_is_asked_for_once_under_its_key(company):
    ident = webhook(company)["webhook"]["id"]
    first = ask(company, REPLAY, webhook=ident, afterSeq="0", key="r")
    assert ask(company, REPLAY, webhook=ident, afterSeq="0", key="r") == first
    assert ask(company, REPLAY, webhook=ident, afterSeq="1", key="r")["code"] == "idempotency_mismatch"
    assert ask(company, REPLAY, webhook=ident, afterSeq="-1", key="s")["code"] == "bad_after"


def test_who_was_told_is_shown_as_of_a_moment(company):
    def shown(seq):
        told = company.ask(
            "query($at: AsOf) { recipients(asOf: $at) { nodes { id role } } webhooks(asOf: $at) "
            "{ nodes { id disabled } } }",
            at={"seq": seq} if seq else None,
        )
        return told["recipients"]["nodes"], told["webhooks"]["nodes"]

    made = webhook(company)
    ident, first = made["webhook"]["id"], made["eventSeqs"][-1]
    recipient(company, key="2")
    ask(company, DISABLE, webhook=ident, key="3")
    last = ask(company, ENABLE, webhook=ident, key="4")["eventSeqs"][-1]
    ask(company, REMOVE, recipient="r", key="5")
    assert shown(first) == ([], [{"id": ident, "disabled": None}])
    assert shown(str(int(last) - 1)) == (
        [{"id": "r", "role": "cost centre manager"}],
        [{"id": ident, "disabled": "asked"}],
    )
    assert shown(last)[1] == [{"id": ident, "disabled": None}]
    assert shown(None) == ([], [{"id": ident, "disabled": None}])
