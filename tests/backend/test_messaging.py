"""Usage over NATS: charged once however often it comes; what can never be charged stops nobody."""

import asyncio
import contextlib
import json
import re
import time
from uuid import uuid4

import nats
import psycopg
import pytest
from fellow_workers import STEADY, stand_still
from fixtures_loop import in_a_loop
from fixtures_writer import NOON, ROOT, Store, furnish, in_time
from patience import PATIENCE_SECONDS, until_there

from allotment.backend import messaging
from allotment.backend.engine import Engine
from allotment.backend.messaging import DEAD_LETTERS, DEAD_SUBJECT, STREAM, Messenger, usage_subject
from allotment.backend.peers import Peers
from allotment.backend.placement import Placement
from allotment.backend.sharing import Sharing
from allotment.tenants.isolation import Isolation
from allotment.tenants.onboarding import TenantEntry, register


class Opened:
    """An engine that listens, a tenant to charge, and a client that sends."""

    def __init__(self, isolation, url):
        self.isolation, self.url = isolation, url
        self.store = self.tenant("acme")
        self.messenger = None
        self.engine = Engine(isolation, ROOT, clock=lambda: NOON, on_commit=self._told, following=False)

    def _told(self, group):
        if self.messenger is not None:
            self.messenger.committed(group)

    def tenant(self, slug):
        store = Store(self.isolation)
        register(
            self.isolation, ROOT, TenantEntry(store.tenant, slug, slug, "carrier", "Europe/Berlin", "EUR")
        )
        return store

    async def __aenter__(self):
        self.client = await nats.connect(self.url)
        self.stream = self.client.jetstream()
        await _forget(self.stream)
        await furnish(await self.engine.writer(self.store.tenant))
        await self.listen()
        return self

    async def __aexit__(self, *_):
        await in_time(self.messenger.__aexit__())
        await in_time(self.engine.__aexit__())
        await _forget(self.stream)
        await self.client.close()

    async def listen(self):
        self.messenger = Messenger(self.engine, self.url)
        await in_time(self.messenger.__aenter__())

    async def send(self, *numbers, to=None, body=None, **headers):
        body = "".join(line(number) for number in numbers).encode() if body is None else body
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.stream.publish(
            usage_subject(self.store.tenant if to is None else to), body, headers=given or None
        )

    async def charged(self, count, seconds=PATIENCE_SECONDS, store=None):
        """The ids charged, once there are so many, and after a moment in which more could come."""
        store = store or self.store
        deadline = time.monotonic() + seconds
        while len(store.charges()) < count and time.monotonic() < deadline:  # noqa: ASYNC110  (a log tells nobody)
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        return sorted(store.charged_ids())

    async def dead_letters(self, count=1, seconds=PATIENCE_SECONDS):
        """Body and reason of what was buried."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            info = await self.stream.stream_info(DEAD_LETTERS)
            if info.state.messages >= count:
                break
            await asyncio.sleep(0.05)
        letters = [await self.stream.get_msg(DEAD_LETTERS, seq) for seq in range(1, info.state.messages + 1)]
        return [(letter.data, (letter.headers or {}).get("Allotment-Reason", "")) for letter in letters]

    async def until_nothing_is_left(self):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self.left():  # noqa: ASYNC110  (nobody tells us)
                await asyncio.sleep(0.05)

    async def left(self):
        return (await self.stream.stream_info(STREAM)).state.messages


async def _forget(stream):
    for name in (STREAM, DEAD_LETTERS):
        with contextlib.suppress(nats.js.errors.NotFoundError):
            await stream.delete_stream(name)


@pytest.fixture
def opened(isolation, servers, monkeypatch):
    monkeypatch.setattr(messaging, "RETRY_SECONDS", 0.2)
    return Opened(isolation, servers.nats_url)


def line(number, **changes):
    fields = {
        "source": "switch",
        "id": f"call-{number}",
        "line": "+441",
        "type": "voice",
        "quantity": 61,
        "start": "2026-11-15T11:59:00Z",
        "counterpart": "+442071838750",
    }
    return json.dumps(fields | changes) + "\n"


def ids(*numbers):
    return sorted(f"call-{number}" for number in numbers)


@in_a_loop
async def test_a_message_is_charged_and_then_gone(opened):
    async with opened:
        await opened.send(1, 2, 3)
        assert await opened.charged(3) == ids(1, 2, 3)
        await opened.until_nothing_is_left()


@in_a_loop
async def test_what_was_sent_before_anybody_listened_is_charged(opened):
    async with opened:
        await in_time(opened.messenger.__aexit__())
        await opened.send(1)
        await opened.listen()
        assert await opened.charged(1) == ids(1)


@in_a_loop
async def test_the_same_message_again_is_charged_once_also_outside_the_window(opened):
    """JetStream forgets a message id after its window; the log never does."""
    async with opened:
        for _ in range(3):
            await opened.send(1, 2, Nats_Msg_Id=str(uuid4()))
        await opened.send(2, 3)
        assert await opened.charged(3) == ids(1, 2, 3)
        await opened.until_nothing_is_left()


@in_a_loop
async def test_a_message_that_comes_again_unacknowledged_is_charged_once(opened, monkeypatch):
    acknowledge, lost = nats.aio.msg.Msg.ack, []

    async def lose_the_first(message):
        if not lost:
            lost.append(message)
            await message.nak()
        else:
            await acknowledge(message)

    monkeypatch.setattr(nats.aio.msg.Msg, "ack", lose_the_first)
    async with opened:
        await opened.send(1, 2)
        assert await opened.charged(2) == ids(1, 2)
        await opened.until_nothing_is_left()
        assert lost
    assert opened.store.charged_ids() == ids(1, 2)


@in_a_loop
async def test_a_poison_message_is_buried_with_its_reason_and_stops_nobody(opened):
    async with opened:
        await opened.send(body=b"this is\nno usage\n" * 30)
        await opened.send(1)
        assert await opened.charged(1) == ids(1)
        [(body, reason)] = await opened.dead_letters()
        assert body.startswith(b"this is")
        assert "is this the right format" in reason
        await opened.until_nothing_is_left()


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"Allotment_Format": "no-such"}, "format 'no-such' is not known"),
        ({"Allotment_Time_Zone": "Mars/Olympus"}, "'Mars/Olympus' is not a time zone"),
    ],
)
@in_a_loop
async def test_a_header_that_makes_no_sense_buries_its_message_only(opened, headers, told):
    async with opened:
        await opened.send(1, **headers)
        await opened.send(2)
        assert await opened.charged(1) == ids(2)
        [(_, reason)] = await opened.dead_letters()
        assert told in reason


@in_a_loop
async def test_a_message_cannot_name_a_file_of_ours_as_its_format(opened, tmp_path):
    declared = tmp_path / "mine.toml"
    declared.write_text('kind = "ndjson"\ndescription = "a secret"\n[fields]\nsecret = "password"\n')
    async with opened:
        await opened.send(1, Allotment_Format=str(declared))
        [(_, reason)] = await opened.dead_letters()
        assert "is not known" in reason
        assert "secret" not in reason


@in_a_loop
async def test_a_message_for_nobody_is_buried(opened):
    async with opened:
        nobody = uuid4()
        await opened.send(1, to=nobody)
        await opened.send(2)
        assert await opened.charged(1) == ids(2)
        [(body, reason)] = await opened.dead_letters()
        assert str(nobody) in reason
        assert json.loads(body)["id"] == "call-1"
        letter = await opened.stream.get_msg(DEAD_LETTERS, 1)
        assert letter.subject == f"{DEAD_SUBJECT}.{nobody}"


@in_a_loop
async def test_a_bad_record_waits_in_suspense_and_not_among_the_dead(opened):
    async with opened:
        await opened.send(body=(line(1) + "{garbled\n" + line(2)).encode())
        assert await opened.charged(2) == ids(1, 2)
        assert opened.store.rows()[-1].topic in ("usage.suspended", "usage.charged")
        assert [row.topic for row in opened.store.rows()].count("usage.suspended") == 1
        assert (await opened.stream.stream_info(DEAD_LETTERS)).state.messages == 0


@in_a_loop
async def test_each_tenants_messages_go_to_its_own_log(opened):
    async with opened:
        other = opened.tenant("other")
        await furnish(await opened.engine.writer(other.tenant))
        await opened.send(1, 2)
        await opened.send(2, 3, to=other.tenant)
        assert await opened.charged(2) == ids(1, 2)
        assert await opened.charged(2, store=other) == ids(2, 3)


@in_a_loop
async def test_many_messages_are_charged_each_once(opened):
    async with opened:
        for number in range(0, 900, 10):
            await opened.send(*range(number, number + 15))
        assert await opened.charged(905) == ids(*range(905))
        await opened.until_nothing_is_left()


@in_a_loop
async def test_two_engines_without_leases_fight_over_a_tenant_and_charge_each_message_once(opened, database):
    other_isolation = Isolation(database)
    other = Engine(other_isolation, ROOT, clock=lambda: NOON, following=False)
    async with opened, other, Messenger(other, opened.url):
        for number in range(0, 200, 5):
            await opened.send(*range(number, number + 5))
        assert await opened.charged(200) == ids(*range(200))
        await opened.until_nothing_is_left()
    other_isolation.close()


@in_a_loop
async def test_a_tenants_usage_goes_where_the_tenant_goes(opened, servers):
    """Sent without pause, while workers come, go, and are lost."""

    def made():
        placement = Placement(opened.isolation, takes_tenants=True, timing=STEADY)
        sharing = Sharing(placement, Peers(placement.me, lambda: servers.nats_url, listens=True))
        return Engine(opened.isolation, ROOT, clock=lambda: NOON, following=False, sharing=sharing)

    async with opened:
        await in_time(opened.messenger.__aexit__())
        numbers = iter(range(10**6))
        sending = asyncio.create_task(_send_on(opened, numbers))
        async with made() as one, Messenger(one, opened.url):
            await opened.charged(10)
            async with made() as two, Messenger(two, opened.url):
                await until_there(one.sharing.placement.others)
                await in_time(one.sharing.placement.retire())
                seen = len(opened.store.charges())
                await opened.charged(seen + 10)
                assert two.sharing.holds(opened.store.tenant)
                await stand_still(two)
                two.sharing.placement.takes_tenants = False
                async with made() as three, Messenger(three, opened.url):
                    await until_there(lambda: three.sharing.holds(opened.store.tenant))
                    sending.cancel()
                    count = next(numbers)
                    assert await opened.charged(count) == ids(*range(count))
                    await opened.until_nothing_is_left()
        await opened.listen()


async def _send_on(opened, numbers):
    for number in numbers:
        await asyncio.shield(opened.send(number))
        await asyncio.sleep(0.05)


@in_a_loop
async def test_events_are_told_after_their_commit(opened):
    async with opened:
        told = []

        async def note(message):
            event = json.loads(message.data)
            told.append((message.subject, event, opened.store.log.head().seq))

        subscription = await opened.client.subscribe(f"evt.{opened.store.tenant}.>", cb=note)
        await opened.client.flush()
        await opened.send(1, 2)
        await opened.charged(2)
        subject, event, _ = told[-1]
        charged = [row for row in opened.store.rows() if row.topic == "usage.charged"]
        assert subject == f"evt.{opened.store.tenant}.usage.charged"
        assert event == {"recordedAt": charged[-1].recorded_at, "seqs": [row.seq for row in charged]}
        assert all(stored >= max(event["seqs"]) for _, event, stored in told)
        secret = re.compile(r"\+44|call-1")
        assert not any(secret.search(json.dumps(event)) for _, event, _ in told)
        await subscription.unsubscribe()


@in_a_loop
async def test_a_database_that_is_away_for_a_moment_ends_nothing(opened, database, servers):
    async with opened:
        pool = opened.isolation._pool("directory")
        pool.timeout = 0.5
        name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
        with psycopg.connect(servers.database_url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )
            await opened.send(1)
            await asyncio.sleep(1.5)
            connection.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
        await opened.send(2)
        assert await opened.charged(2) == ids(1, 2)


@in_a_loop
async def test_a_messenger_that_ends_leaves_what_it_did_not_charge(opened):
    async with opened:
        await in_time(opened.messenger.__aexit__())
        await opened.send(1, 2)
        assert await opened.left() == 1
        await opened.listen()
        assert await opened.charged(2) == ids(1, 2)


@in_a_loop
async def test_telling_never_waits_and_forgets_what_is_too_much(opened, monkeypatch):
    async with opened:
        messenger = opened.messenger
        for task in messenger._tasks:
            task.cancel()
        for _ in range(messaging.EVENTS_WAITING_MAX + 10):
            messenger.committed(None)
        assert messenger._told.qsize() <= messaging.EVENTS_WAITING_MAX
