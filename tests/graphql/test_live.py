"""Subscriptions: over server-sent events and WebSockets, from the log first, and within reach."""

import asyncio
import json
import time
from types import SimpleNamespace

import pytest
from litestar.exceptions import WebSocketDisconnect
from patience import PATIENCE_SECONDS, until, until_there

from allotment.backend import feeding
from allotment.backend.feeding import Feeds
from allotment.backend.web import live_door
from allotment.domain.events import TOPICS
from allotment.domain.limit import SetLimit
from allotment.graphql.context import TooSlow

NOTICED = """subscription($node: ID!, $after: Seq, $kinds: [String!]) {
  noticed(node: $node, afterSeq: $after, kinds: $kinds) { id seq kind sentence event } }"""
CHANGED = (
    "subscription($node: ID!, $after: Seq) { changed(node: $node, afterSeq: $after) { seq kinds count } }"
)
LIMIT = """mutation { setLimit(input: {idempotencyKey: "l", node: "sales", usageType: "voice",
  quantity: "600", thresholds: [10, 20, 30, 40, 50]}) { __typename } }"""


class Line:
    """A WebSocket that speaks graphql-transport-ws."""

    def __init__(self, company, socket):
        self.company, self.socket = company, socket

    def init(self, *roles, nodes=()):
        self.begin(self.company.token(*roles, nodes=nodes))
        return self.socket.receive_json(timeout=PATIENCE_SECONDS)

    def subscribe(self, query, ident="1", **variables):
        payload = {"query": query, "variables": variables}
        self.socket.send_json({"id": ident, "type": "subscribe", "payload": payload})

    def begin(self, token):
        self.socket.send_json({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})

    def until_heard(self):
        """Until the one who listens is told of all that happens from now on."""
        feeds = self.company.portal.client.app.state.around.feeds
        until(lambda: are_heard(feeds, self.company.id))

    def next(self):
        return self.socket.receive_json(timeout=PATIENCE_SECONDS)

    def data(self):
        message = self.next()
        assert message["type"] == "next", message
        assert "errors" not in message["payload"], message
        (data,) = message["payload"]["data"].values()
        return data

    def closed(self):
        try:
            while True:
                self.next()
        except WebSocketDisconnect as closing:
            return closing.code


def are_heard(feeds, tenant):
    """Whether somebody listens, and is told of all that happens from now on."""
    feed = feeds._feeds.get(tenant)
    return feed is not None and feed.seats and all(seat.admitted.done() for seat in feed.seats)


@pytest.fixture
def line(company):
    from contextlib import contextmanager

    @contextmanager
    def opened(**headers):
        client = company.portal.client
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        with client.websocket_connect(
            "/graphql", subprotocols=["graphql-transport-ws"], headers=given
        ) as socket:
            yield Line(company, socket)

    return opened


def cross(company, call, *numbers):
    company.use(*(call(f"c-{number}", 60) for number in numbers))


def test_a_crossing_is_noticed_over_a_websocket_as_it_happens(company, call, line):
    company.ask(LIMIT)
    with line() as opened:
        assert opened.init()["type"] == "connection_ack"
        opened.subscribe(NOTICED, node="acme")
        opened.until_heard()
        cross(company, call, 1)
        told = opened.data()
    assert told["kind"] == "limit.threshold_crossed"
    assert "10 %" in told["sentence"]
    assert told["event"]["node"] == "sales"
    assert told["id"].startswith("msg_")


def test_counters_of_nodes_are_told_as_they_change(company, call, line):
    watched = """subscription { counters(nodes: ["sales", "emea"], usageTypes: ["voice"], perSecond: 10) {
      seq counters { node used } } }"""
    with line() as opened:
        opened.init()
        opened.subscribe(watched)
        first = opened.data()
        assert {one["node"]: one["used"] for one in first["counters"]} == {"sales": "0", "emea": "0"}
        cross(company, call, 1)
        told = opened.data()
    assert {one["node"]: one["used"] for one in told["counters"]} == {"sales": "60", "emea": "60"}
    assert int(told["seq"]) > int(first["seq"])


def clock_of(ahead):
    """So many seconds ahead of what tokens are made and believed by."""
    return SimpleNamespace(time=lambda: time.time() + ahead())


def test_a_crossing_is_noticed_over_server_sent_events(company, call, monkeypatch):
    company.ask(LIMIT)
    cross(company, call, 1, 2)
    token = company.token()
    body = {"query": NOTICED, "variables": {"node": "emea", "after": "0"}}
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
    events = []
    # The client of these tests hands over what was streamed when it ends: here, with the token.
    told_of, event_of = [], live_door._event
    monkeypatch.setattr(live_door, "_event", lambda *event: told_of.append(event) or event_of(*event))
    monkeypatch.setattr(live_door, "time", clock_of(lambda: 86_400 if len(told_of) >= 2 else 0))
    with company.portal.client.stream("POST", "/graphql", json=body, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [part for part in "".join(answer.iter_text()).split("\n\n") if part]
    told = [json.loads(event.partition("data: ")[2] or "null") for event in events]
    assert [event.partition("\n")[0] for event in events] == ["event: next"] * 3 + ["event: complete"]
    assert [
        "10 %" in told[0]["data"]["noticed"]["sentence"],
        "20 %" in told[1]["data"]["noticed"]["sentence"],
    ]
    assert told[2]["errors"][0]["extensions"]["code"] == "token_expired"


def test_a_query_over_server_sent_events_is_answered_and_complete(company):
    answer = company.portal.client.post(
        "/graphql",
        json={"query": "{ me { subject } }"},
        headers={"Authorization": f"Bearer {company.token()}", "Accept": "text/event-stream"},
    )
    assert (
        answer.text == 'event: next\ndata: {"data":{"me":{"subject":"u-1"}}}\n\nevent: complete\ndata: \n\n'
    )


def test_who_comes_back_goes_on_after_what_it_saw_without_a_gap(company, call, line):
    company.ask(LIMIT)
    cross(company, call, 1, 2)
    with line() as opened:
        opened.init()
        opened.subscribe(NOTICED, node="acme", after="0")
        first = opened.data()
    cross(company, call, 3)
    with line() as opened:
        opened.init()
        opened.subscribe(NOTICED, node="acme", after=first["seq"])
        second, third = opened.data(), opened.data()
        cross(company, call, 4)
        fourth = opened.data()
    percents = [told["event"]["percent"] for told in (first, second, third, fourth)]
    assert percents == [10, 20, 30, 40]


def test_what_changes_at_once_is_told_together(company, call, line):
    with line() as opened:
        opened.init()
        opened.subscribe(CHANGED, node="emea")
        opened.until_heard()
        cross(company, call, *range(5))
        count = 0
        while count < 5:
            told = opened.data()
            assert told["kinds"] == ["usage.charged"]
            count += told["count"]
    assert count == 5


def test_who_is_bound_to_a_node_hears_nothing_of_another(company, call, line):
    company.ask(LIMIT)
    cross(company, call, 1)
    with line() as opened:
        opened.init(nodes=("apac",))
        opened.subscribe(NOTICED, node="sales", after="0")
        message = opened.next()
        assert "unknown_node" in json.dumps(message)
        opened.subscribe(NOTICED, "2", node="nowhere", after="0")
        assert "unknown_node" in json.dumps(opened.next())


@pytest.mark.parametrize("kinds", [["limit.swallowed"], ["usage.charged"], []])
def test_kinds_that_are_not_told_are_refused(company, line, kinds):
    with line() as opened:
        opened.init()
        opened.subscribe(NOTICED, node="acme", kinds=kinds)
        assert "unknown_topic" in json.dumps(opened.next())


def test_mediation_hears_nothing(company, line):
    with line() as opened:
        opened.init("mediation")
        opened.subscribe(CHANGED, node="acme")
        assert "not_permitted" in json.dumps(opened.next())


def test_a_query_may_be_asked_over_a_websocket_as_well(company, line):
    with line() as opened:
        opened.init()
        opened.subscribe("{ me { subject } }")
        assert opened.data() == {"subject": "u-1"}
        assert opened.next() == {"id": "1", "type": "complete"}
        opened.socket.send_json({"type": "ping"})
        assert opened.next() == {"type": "pong"}


def test_the_line_is_closed_when_the_token_expires(company, line, monkeypatch):
    token = company.portal.issuer.mint("u-1", company.id, ["telecoms_manager"], (), lifetime_seconds=600)
    monkeypatch.setattr(live_door, "time", clock_of(lambda: 599.5))
    with line() as opened:
        opened.begin(token)
        opened.subscribe(CHANGED, node="acme")
        assert opened.closed() == 4401


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([{"type": "subscribe", "id": "1", "payload": {"query": "{ me { subject } }"}}], 4401),
        ([{"type": "connection_init"}], 4403),
        ([{"type": "connection_init", "payload": {"Authorization": "Bearer nonsense"}}], 4403),
        ([{"type": "connection_init", "payload": []}], 4403),
        (["INIT", {"type": "connection_init"}], 4429),
        (["INIT", {"type": "nonsense"}], 4400),
        (["INIT", []], 4400),
        (["INIT", {"type": "subscribe", "id": "1"}], 4400),
        (["INIT", {"type": "subscribe", "id": "1", "payload": {"query": 5}}], 4400),
        (["INIT", "TWICE", "TWICE"], 4409),
    ],
)
def test_who_does_not_keep_to_the_protocol_is_told_by_the_code(company, line, messages, code):
    twice = {"type": "subscribe", "id": "1", "payload": {"query": CHANGED, "variables": {"node": "acme"}}}
    with line() as opened:
        for message in messages:
            if message == "INIT":
                opened.init()
            else:
                opened.socket.send_json(twice if message == "TWICE" else message)
        assert opened.closed() == code


def test_another_origins_page_is_refused(line):
    with pytest.raises(WebSocketDisconnect), line(origin="https://evil.example.com") as opened:
        opened.next()


def test_what_a_subscription_asks_is_bounded_as_well(company, line):
    with line() as opened:
        opened.init()
        opened.subscribe('subscription { changed(node: "acme") { ' + "seq " * 2_000 + "} }")
        assert opened.next()["type"] == "error"


# --- the feed --------------------------------------------------------------------------------------------


async def _rest_of(following, seen):
    async for batch in following:
        seen += [told.seq for told in batch]


def in_loop(company, work):
    async def run():
        feeds = Feeds(company.portal.engine)
        try:
            return await asyncio.wait_for(work(feeds), PATIENCE_SECONDS)
        finally:
            await feeds.close()

    return company.portal.run(run)


def test_one_reader_serves_all_who_listen_and_none_is_left_when_they_go(company):
    async def work(feeds):
        listening = [feeds.follow(company.id, TOPICS, 0) for _ in range(5)]
        firsts = [await anext(one) for one in listening]
        nexts = [asyncio.ensure_future(anext(one)) for one in listening]
        await asyncio.sleep(0.2)
        assert len(feeds._feeds) == 1
        assert feeds.listeners == 5
        for task, one in zip(nexts, listening, strict=True):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await one.aclose()
        assert feeds._feeds == {}
        return [[told.seq for told in first] for first in firsts]

    end = company.settle()
    assert in_loop(company, work) == [list(range(1, end + 1))] * 5


def test_who_is_too_slow_is_cut_off_and_misses_nothing_when_it_comes_back(company, call, monkeypatch):
    monkeypatch.setattr(feeding, "QUEUE_MAX", 3)
    end = company.settle()

    async def cut(feeds):
        slow = feeds.follow(company.id, TOPICS, end)
        first = asyncio.ensure_future(anext(slow))
        await until_there(lambda: are_heard(feeds, company.id))
        for number in range(3):
            for level in range(3):
                limit = SetLimit("sales", "voice", 1_000 + 10 * number + level)
                await company.portal.engine.submit(company.id, limit, f"{number}.{level}", "test")
            # The first batch is there, and nobody fetches the next.
            await until_there(first.done)
        (seat,) = feeds._feeds[company.id].seats
        await until_there(lambda: seat.cut)
        seen = [told.seq for told in await first]
        with pytest.raises(TooSlow):
            await _rest_of(slow, seen)
        again = feeds.follow(company.id, TOPICS, seen[-1])
        while len(seen) < 9:
            seen += [told.seq for told in await anext(again)]
        await again.aclose()
        return seen

    assert in_loop(company, cut) == list(range(end + 1, end + 10))


def test_far_behind_is_read_in_chunks_then_live(company, monkeypatch):
    monkeypatch.setattr(feeding, "CHUNK", 2)
    end = company.settle()

    async def work(feeds):
        seen, following = [], feeds.follow(company.id, TOPICS, 0)
        while len(seen) < end:
            seen += [told.seq for told in await anext(following)]
        await following.aclose()
        return seen

    assert in_loop(company, work) == list(range(1, end + 1))
