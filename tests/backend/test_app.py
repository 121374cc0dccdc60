"""The HTTP doors from outside: who gets in, what they say, what they refuse, and how."""

import bz2
import gzip
import json
import lzma
import time
from contextlib import nullcontext
from uuid import uuid4

import pytest
from psycopg.errors import DeadlockDetected, LockNotAvailable
from psycopg_pool import PoolTimeout

from allotment.backend.native import using
from allotment.backend.web.graphql_door import BODY_BYTES_MAX
from allotment.backend.writer import Busy, Halted, Unavailable

JSON = "application/json"
GRAPHQL = "application/graphql-response+json"
ME = "{ me { subject } }"


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def post(company):
    """Send a GraphQL request as it is given."""

    def send(body, accept=JSON, content_type=JSON):
        headers = {**bearer(company.token()), "Content-Type": content_type, "Accept": accept}
        if isinstance(body, dict | list):
            body = json.dumps(body)
        return company.portal.client.post("/graphql", content=body, headers=headers)

    return send


@pytest.fixture
def send(company):
    """Send usage as it is given."""

    def send(body, token=None, headers=None, **parameters):
        return company.portal.client.post(
            "/v1/usage",
            content=body,
            params=parameters,
            headers={**bearer(token or company.token("mediation")), **(headers or {})},
        )

    return send


# --- GraphQL over HTTP ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        (JSON, JSON),
        (GRAPHQL, GRAPHQL),
        ("*/*", JSON),
        ("", JSON),
        (f"{GRAPHQL}, {JSON};q=0.9", GRAPHQL),
        (f"{GRAPHQL};q=0.5, {JSON}", JSON),
        (f"text/html, {GRAPHQL}; charset=utf-8", GRAPHQL),
    ],
)
def test_the_answer_comes_in_the_media_type_asked_for(post, accept, answered):
    answer = post({"query": ME}, accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == f"{answered}; charset=utf-8"
    assert answer.json() == {"data": {"me": {"subject": "u-1"}}}


@pytest.mark.parametrize("accept", ["text/html", "image/png", f"{JSON};q=0", f"{JSON}; charset=utf-16"])
def test_what_cannot_be_answered_in_is_406(post, accept):
    assert post({"query": ME}, accept).status_code == 406


@pytest.mark.parametrize(
    ("request_body", "because"),
    [
        ({"query": "{"}, "syntax"),
        ({"query": "{ nothing }"}, "validation"),
        (
            {"query": "query($f: Int!) { usages(first: $f) { nodes { id } } }", "variables": {"f": "x"}},
            "variables",
        ),
        ({"query": "query($f: Int!) { usages(first: $f) { nodes { id } } }"}, "missing variable"),
    ],
)
def test_what_cannot_be_executed_is_400_without_data_and_200_for_older_clients(post, request_body, because):
    new, old = post(request_body, GRAPHQL), post(request_body, JSON)
    assert (new.status_code, old.status_code) == (400, 200)
    assert "data" not in new.json()
    assert "data" not in old.json()
    assert new.json()["errors"], because


def test_a_field_that_fails_is_200_with_its_path(post):
    answer = post({"query": '{ invoicePreview(period: "x") { total } }'}, GRAPHQL)
    assert answer.status_code == 200
    assert answer.json()["data"] is None
    assert answer.json()["errors"][0]["path"] == ["invoicePreview"]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        '"query"',
        b"\xff\xfe",
        b'{"query": "\xff"}',
        "{}",
        {"query": None},
        {"query": ""},
        {"query": 7},
        {"query": ["{ me { subject } }"]},
        {"query": ME, "variables": "x"},
        {"query": ME, "variables": []},
        {"query": ME, "operationName": 1},
        {"query": ME, "extensions": "x"},
        {"query": ME, "operationName": "unknown"},
        {"query": "query a { me { subject } } query b { me { subject } }"},
        {"query": "fragment a on Me { subject }"},
        {"query": "{ me { subject } } \u0000"},
        [{"query": ME}, {"query": ME}],
        '{"query": "{ me { subject } }", "variables": {"a":' + "[" * 5_000 + "]" * 5_000 + "}}",
        '{"query": "{ me { subject } }", "variables": {"a":' + "[" * 100_000 + "]" * 100_000 + "}}",
        {"query": "subscription { me }"},
    ],
)
@pytest.mark.parametrize("accept", [JSON, GRAPHQL])
def test_what_is_no_graphql_request_is_a_plain_400(post, body, accept):
    answer = post(body, accept)
    assert answer.json()["errors"]
    if answer.status_code != 400:
        assert (accept, answer.status_code, answer.json().get("data")) == (JSON, 200, None)


@pytest.mark.parametrize(
    "request_body",
    [
        {"query": ME, "variables": None, "operationName": None, "extensions": None},
        {"query": ME, "variables": {}, "extensions": {"a": 1}, "unknown": 1},
        {"query": "query a { me { subject } } query b { me { roles } }", "operationName": "a"},
    ],
)
def test_what_may_stand_in_a_request(post, request_body):
    assert post(request_body).json()["data"] == {"me": {"subject": "u-1"}}


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/graphql", f"{JSON}; charset=utf-16", "multipart/form-data"],
)
def test_another_content_type_is_415(post, content_type):
    assert post({"query": ME}, content_type=content_type).status_code == 415


def test_the_utf8_of_a_content_type_may_be_written_out(post):
    assert post({"query": ME}, content_type="application/json; charset=UTF-8").status_code == 200


def test_a_body_that_is_too_large_is_413_before_it_is_read(post):
    answer = post({"query": ME, "variables": {"a": "x" * BODY_BYTES_MAX}})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_queries_by_get_are_refused(company):
    answer = company.portal.client.get(
        "/graphql", params={"query": ME}, headers={**bearer(company.token()), "Accept": JSON}
    )
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_introspection_is_for_who_has_a_token(company, post):
    query = {"query": "{ __schema { queryType { name } } }"}
    assert post(query).json()["data"]["__schema"]["queryType"]["name"] == "Query"
    assert company.portal.client.post("/graphql", json=query).status_code == 401


def test_the_explorer_is_for_development_only(company):
    from allotment.backend.web.graphql_door import graphql_routes

    page = company.portal.client.get("/graphql", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (200, "text/html")
    assert len(graphql_routes(company.portal.engine, None, explorer=False)) == 1


# --- who gets in ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/graphql", "/v1/usage"])
@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_token"),
        ("", "malformed"),
        ("Basic dTpw", "malformed"),
        ("Bearer", "malformed"),
        ("Bearer a.b", "malformed"),
        ("Bearer " + "a" * 9_000, "too_large"),
        ("Bearer eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.e30.AAAA", "wrong_algorithm"),
    ],
)
def test_a_bad_token_is_401_and_says_where_tokens_come_from(company, path, header, code):
    headers = {} if header is None else {"Authorization": header}
    answer = company.portal.client.post(path, json={"query": ME}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, code)
    challenge = answer.headers["www-authenticate"]
    assert challenge.startswith('Bearer realm="allotment"')
    assert ("invalid_token" in challenge) == (code != "missing_token")
    metadata = challenge.split('resource_metadata="')[1].rstrip('"')
    told = company.portal.client.get(metadata)
    assert told.json()["authorization_servers"] == [company.portal.issuer.issuer]


def test_an_expired_token_is_401(company):
    token = company.portal.issuer.mint("u", company.id, ["auditor"], now=int(time.time()) - 7_200)
    answer = company.portal.client.post("/graphql", json={"query": ME}, headers=bearer(token))
    assert (answer.status_code, answer.json()["code"]) == (401, "expired")


def test_a_token_of_another_issuer_is_401(company):
    from allotment.tenants.issuer import DevelopmentIssuer

    foreign = DevelopmentIssuer(company.portal.issuer.issuer, environment="development")
    token = foreign.mint("u", company.id, ["carrier"])
    answer = company.portal.client.post("/graphql", json={"query": ME}, headers=bearer(token))
    assert (answer.status_code, answer.json()["code"]) == (401, "unknown_key")


def test_a_token_without_a_tenant_reaches_none(portal):
    token = portal.token(None, "carrier")
    query = "{ me { tenantId } tenant { name } }"
    answer = portal.client.post("/graphql", json={"query": query}, headers=bearer(token)).json()
    assert answer["data"] == {"me": {"tenantId": None}, "tenant": None}
    assert answer["errors"][0]["extensions"]["code"] == "not_permitted"
    assert portal.client.post("/v1/usage", content=b"", headers=bearer(token)).status_code == 403


def test_a_tenant_that_was_never_onboarded_is_403_and_leaves_no_trace(portal):
    stranger = uuid4()
    for path in ("/graphql", "/v1/usage"):
        answer = portal.client.post(
            path, json={"query": ME}, headers=bearer(portal.token(stranger, "carrier"))
        )
        assert (answer.status_code, answer.json()["code"]) == (403, "unknown_tenant")
    with portal.engine.isolation.transaction(stranger) as db:
        assert db.execute("SELECT count(*) FROM log_heads").fetchone() == (0,)


@pytest.mark.parametrize(
    ("roles", "nodes"), [(["auditor"], ()), (["telecoms_manager"], ()), (["mediation"], ("emea",))]
)
def test_usage_is_taken_only_from_mediation_for_the_whole_tenant(company, send, roles, nodes):
    answer = send(b"", company.token(*roles, nodes=nodes))
    assert (answer.status_code, answer.json()["code"]) == (403, "not_permitted")


# --- usage ------------------------------------------------------------------------------------


def ndjson(*records):
    return b"".join(
        (record if isinstance(record, bytes) else json.dumps(record).encode()) + b"\n" for record in records
    )


def test_every_record_gets_its_outcome_and_bad_lines_stop_nothing(company, send, call):
    body = ndjson(
        call("c1", 60),
        call("c1", 60),
        call("c1", 61),
        call("c2", 60, line="+4420000"),
        b"{ this is not json",
        b'{"source": "s"}',
        call("c3", -1),
        call("c4", 60),
    )
    answer = send(body, name="calls.ndjson")
    told = answer.json()
    assert answer.status_code == 200
    assert (told["received"], told["charged"], told["duplicate"], told["suspended"]) == (8, 2, 1, 5)
    assert {problem["reason"] for problem in told["problems"]} >= {
        "conflicting_duplicate",
        "unknown_line",
        "malformed",
    }
    assert "calls.ndjson:5" in [problem["position"] for problem in told["problems"]]
    assert "442071838750" not in answer.text


@pytest.mark.parametrize(
    ("wrong", "field", "remedy"),
    [
        ({"quantity": 2**44 + 1}, "quantity", "quantity: must be a whole number from 0 to 17592186044416"),
        ({"quantity": -1}, "quantity", "quantity is negative"),
        ({"start": "1970-06-01T10:00:00Z"}, "start", "start: must be between 1971 and 2100"),
        ({"id": "a\tb"}, "id", "id: must be 1 to 200 printable characters"),
        ({"line": "a\tb"}, "line", "line: must be 1 to 200 printable characters"),
        ({"counterpart": "a\tb"}, "counterpart", "counterpart: must be 1 to 200 printable characters"),
        ({"type": "Fax"}, "type", "type is not one of data, voice, messaging, video"),
        ({"type": "fax"}, "type", "type: the tenant has no such usage type: define it, or correct this"),
        ({"direction": "up"}, "direction", "direction is not one of outbound, inbound"),
        ({"attributes": {"a\tb": "c"}}, "attributes", "attributes: must be at most 32 pairs of printable"),
        ({"colour": "red"}, "colour", "colour: a key is not one of attributes, counterpart, "),
        ({"a\tb": "c"}, "a\tb", "a key is not one of attributes, counterpart, "),
        ({"line": "+4420000"}, "line", "line: nobody has this line: add the resource"),
        ({"start": "2026-12-15T10:00:00Z"}, "start", "start: the record lies in the future: check its"),
    ],
)
@pytest.mark.parametrize("natively", [True, False])
def test_a_problem_names_the_field_and_what_to_do(send, call, natively, wrong, field, remedy):
    with nullcontext() if natively else using.python_only():
        told = send(ndjson({**call("c1", 60), **wrong}, call("c2", 60))).json()
    assert told["charged"] == 1
    [problem] = told["problems"]
    assert (problem["field"], problem["detail"][: len(remedy)]) == (field, remedy)


def test_sent_again_nothing_is_charged_again(send, call):
    body = ndjson(call("c1", 60), call("c2", 60))
    assert send(body).json()["charged"] == 2
    assert send(body).json()["duplicate"] == 2


def test_a_denied_record_is_told_as_rejected(company, send, call):
    limit = (
        'mutation { setLimit(input: {idempotencyKey: "k", node: "sales", usageType: "voice", quantity: "0"}) '
        "{ __typename } }"
    )
    company.ask(limit)
    told = send(ndjson(call("c1", 60))).json()
    assert (told["rejected"], told["problems"][0]["reason"]) == (1, "limit_exceeded")


def test_what_is_left_of_a_limit_on_money_is_told_as_money(company, send, call):
    limit = (
        'mutation { setLimit(input: {idempotencyKey: "k", node: "emea", usageType: "money", '
        'quantity: "500000"}) { __typename } }'
    )
    assert send(ndjson(call("c1", 720))).json()["charged"] == 1
    company.ask(limit)
    told = send(ndjson(call("c2", 6_000))).json()
    assert told["problems"][0]["detail"] == "the limit of emea: 0.10 of 0.50 EUR used"


@pytest.mark.parametrize("named", [True, False])
def test_a_body_may_be_compressed(send, call, named):
    headers = {"Content-Encoding": "gzip"} if named else {}
    assert send(gzip.compress(ndjson(call("c1", 60))), headers=headers).json()["charged"] == 1


def test_an_empty_body_is_nothing(send):
    assert send(b"").json()["received"] == 0


def test_formats_are_chosen_by_name(send):
    body = b'{"source":"x","id":"1"}\n'
    assert send(body, format="asterisk-csv").json()["code"] == "unreadable"
    told = send(body, format="../../etc/passwd").json()
    assert told["code"] == "unknown_format"
    assert "asterisk-csv" in told["detail"]


@pytest.mark.parametrize(
    ("body", "headers", "parameters", "status", "code"),
    [
        (b"not json\n", {}, {}, 400, "unreadable"),
        (b"\x1f\x8bbroken", {}, {}, 400, "unreadable"),
        (gzip.compress(b"{}\n" * 9, mtime=0)[:-9], {"Content-Encoding": "gzip"}, {}, 400, "unreadable"),
        (b"x", {"Content-Encoding": "br"}, {}, 415, "unsupported_encoding"),
        (bz2.compress(b"{}"), {}, {}, 415, "unsupported_encoding"),
        (bz2.compress(b""), {}, {}, 415, "unsupported_encoding"),
        (lzma.compress(b"{}"), {}, {}, 415, "unsupported_encoding"),
        (b"PK\x03\x04" + bytes(26), {}, {}, 415, "unsupported_encoding"),
        (gzip.compress(bz2.compress(b"{}"), mtime=0), {}, {}, 400, "unreadable"),
        (b"BZh, a text\n", {}, {}, 400, "unreadable"),
        (b"", {}, {"sorce": "a"}, 400, "unknown_parameter"),
        (b"", {}, {"source": "x" * 101}, 400, "bad_parameter"),
        (b"", {}, {"source": ["a", "b"]}, 400, "bad_parameter"),
        (b"", {}, {"name": "a\nb"}, 400, "bad_parameter"),
    ],
)
def test_what_cannot_be_read_is_told_with_a_remedy(send, body, headers, parameters, status, code):
    answer = send(body, headers=headers, **parameters)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_parameter_that_is_misspelt_is_named_with_those_that_there_are(send, call):
    told = send(ndjson(call("c1", 60)), sorce="a").json()
    assert told["detail"] == "'sorce' is not one of format, source, name"
    assert send(ndjson(call("c1", 60))).json()["charged"] == 1


def test_who_sends_too_much_is_told_to_send_the_same_again_in_as_many_seconds_as_the_header_says(
    send, call, monkeypatch
):
    async def fails(*_, **__):
        raise Busy(200)

    monkeypatch.setattr("allotment.backend.web.usage_door.charge_stream", fails)
    answer = send(ndjson(call("c1", 60)))
    assert answer.headers["retry-after"] == "1"
    assert "try again in 1 s; part of the body may be charged already" in answer.json()["detail"]
    assert "send the same body again" in answer.json()["detail"]


def test_too_much_at_once_is_413_compressed_or_not(send):
    assert send(b"x" * (8 * 1024 * 1024 + 1)).status_code == 413
    bomb = gzip.compress(b"\n" * (65 * 1024 * 1024))
    assert len(bomb) < 100_000
    assert send(bomb).status_code == 413


ODD_HOST = {"Host": "a b"}
"""Whoever sends it goes the framework's way."""


@pytest.mark.parametrize(
    ("body", "headers", "parameters"),
    [
        ("c1", {}, {}),
        ("c1", {}, {"name": "calls.ndjson", "format": "allotment"}),
        (b"", {}, {}),
        (b'{"source": "s"}', {}, {"name": "calls.ndjson"}),
        (b"not json", {}, {}),
        (b"x", {"Content-Encoding": "br"}, {}),
        (b"x", {"Content-Length": "99999999"}, {}),
        (b"x", {"Content-Length": "many"}, {}),
        (b"", {}, {"format": "unknown"}),
        (b"", {}, {"formats": "allotment"}),
        (b"", {}, {"x": ""}),
        (b"", {"Authorization": "Basic dTpw"}, {}),
        (b"", ODD_HOST, {}),
    ],
)
def test_the_short_way_gives_the_answers_of_the_usual_one(company, send, call, body, headers, parameters):
    if body == "c1":
        body = ndjson(call("c1", 60), call("c2", 60), call("c3", 60, line="+4420000"))
    headers = {**bearer(company.token("mediation")), "X-Request-ID": "mine", **headers}
    _, short, usual = (  # once it is known, what is sent is answered in the same way each time
        company.portal.client.post(path, content=body, params=parameters, headers=headers)
        for path in ("/v1/usage", "/v1/usage", "/v1/usage/")
    )
    assert (short.status_code, short.content) == (usual.status_code, usual.content)
    assert short.headers.multi_items() == usual.headers.multi_items()


@pytest.mark.parametrize(
    ("changed", "is_short"),
    [
        ({}, True),
        ({"headers": [(b"host", b"charging.example:8000")]}, True),
        ({"headers": [(b"host", b"a b")]}, False),
        ({"headers": [(b"host", b"one"), (b"host", b"")]}, False),
        ({"method": "GET"}, False),
        ({"path": "/v1/usage/"}, False),
        ({"root_path": "/v1"}, False),
        ({"type": "websocket", "method": None}, False),
    ],
)
def test_only_usual_requests_go_the_short_way(company, changed, is_short):
    usual = {"type": "http", "path": "/v1/usage", "method": "POST", "root_path": "", "headers": []}
    assert company.portal.client.app.short_way.is_for({**usual, **changed}) == is_short


def test_what_a_client_did_not_finish_is_not_charged(company, send, call):
    body, heard, told = ndjson(call("c1", 60)), [], []
    messages = [{"type": "http.request", "body": body, "more_body": True}, {"type": "http.disconnect"}]
    scope = {
        "type": "http",
        "path": "/v1/usage",
        "method": "POST",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {company.token('mediation')}".encode())],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("charging.example", 80),
        "client": None,
    }

    async def receive():
        heard.append(messages[len(heard)])
        return heard[-1]

    async def answered(message):
        told.append(message)

    async def ask():
        await company.portal.client.app(scope, receive, answered)

    company.portal.run(ask)
    assert (heard, told[0]["status"]) == (messages, 400)
    assert send(body).json()["charged"] == 1


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Busy(1_500), 429, "busy"),
        (Unavailable("host=10.0.0.1 password=x"), 503, "unavailable"),
        (Halted("seq 7: tenant globex"), 503, "halted"),
        (PoolTimeout("no connection to host=10.0.0.1 password=x"), 503, "unavailable"),
        (LockNotAvailable("canceling statement due to lock timeout"), 503, "unavailable"),
        (DeadlockDetected("process 7 waits for process 8 of globex"), 503, "unavailable"),
        (RuntimeError("host=10.0.0.1 password=x"), 500, "internal"),
    ],
)
def test_when_it_cannot_be_done_now_the_answer_says_when(send, call, monkeypatch, error, status, code):
    async def fails(*_, **__):
        raise error

    monkeypatch.setattr("allotment.backend.web.usage_door.charge_stream", fails)
    answer = send(ndjson(call("c1", 60)))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert ("retry-after" in answer.headers) == (status != 500)
    assert "password" not in answer.text
    assert "globex" not in answer.text


# --- what every answer carries, and what operators see ----------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/nothing", "/graphql", "/metrics", "/readyz"])
def test_every_answer_has_a_request_id_and_is_locked_down(portal, path):
    answer = portal.client.get(path, headers={"Accept": JSON})
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["cache-control"] == "no-store"
    if answer.status_code >= 400:
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("sent", "kept"), [("abc-1.2_3", True), ("a" * 65, False), ("a b", False), ("<x>", False)]
)
def test_a_request_id_is_kept_when_it_is_one(portal, sent, kept):
    answer = portal.client.get("/healthz", headers={"X-Request-Id": sent})
    assert (answer.headers["x-request-id"] == sent) == kept


def test_it_is_ready_when_the_database_is_at_this_version(portal, monkeypatch):
    assert portal.client.get("/readyz").json() == {"status": "ok"}
    monkeypatch.setattr("allotment.backend.web.operations.newest_version", lambda: "9999")
    answer = portal.client.get("/readyz")
    assert answer.status_code == 503
    assert "allotment migrate" in answer.json()["detail"]


def test_it_is_not_ready_without_a_database(portal, monkeypatch):
    monkeypatch.setattr(portal.engine.isolation, "database_url", "postgresql://nobody@127.0.0.1:1/none")
    answer = portal.client.get("/readyz")
    assert (answer.status_code, answer.json()["detail"]) == (503, "the database cannot be reached")
    assert portal.client.get("/healthz").status_code == 200


def test_metrics_tell_sums_and_no_tenant(company, call):
    def figure(name):
        lines = company.portal.client.get("/metrics").text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(name))

    charged = figure('allotment_usage_records_total{outcome="charged"}')
    suspended = figure('allotment_usage_records_total{outcome="suspended"}')
    company.use(call("c1", 60), call("c2", 60), call("c3", 60, line="+4420000"))
    assert figure('allotment_usage_records_total{outcome="charged"}') == charged + 2
    assert figure('allotment_usage_records_total{outcome="suspended"}') == suspended + 1
    assert figure("allotment_commits_total") > 0
    assert figure("allotment_writers") >= 1
    assert figure("allotment_writer_inbox") == 0
    assert figure("allotment_projection_lag_events") == 0
    assert str(company.id) not in company.portal.client.get("/metrics").text


# --- tokens -----------------------------------------------------------------------------------


def test_the_development_issuer_gives_tokens_that_work(company):
    from allotment.tenants.issuer import DevelopmentClient

    portal = company.portal
    portal.issuer.register(DevelopmentClient("robot", "secret", company.id, ("mediation",)))
    form = {"grant_type": "client_credentials", "client_id": "robot", "client_secret": "secret"}
    answer = portal.client.post("/oauth/token", data=form)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    token = answer.json()["access_token"]
    assert portal.client.post("/v1/usage", content=b"", headers=bearer(token)).status_code == 200
    wrong = portal.client.post("/oauth/token", data={**form, "client_secret": "x"})
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    twice = portal.client.post(
        "/oauth/token",
        content="grant_type=client_credentials&grant_type=x",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert twice.status_code == 401


def test_keys_and_metadata_are_public(portal):
    metadata = portal.client.get("/.well-known/oauth-authorization-server").json()
    assert metadata["issuer"] == portal.issuer.issuer
    keys = portal.client.get("/oauth/jwks.json").json()["keys"]
    assert keys
    assert all("d" not in key for key in keys)


def test_without_the_development_issuer_it_gives_no_tokens():
    from pathlib import Path

    from allotment.backend.settings import Settings
    from allotment.backend.web.oauth import oauth_routes

    settings = Settings(home=Path("/tmp"), issuer="https://login.example", environment="production")
    assert len(oauth_routes(None, settings)) == 1
