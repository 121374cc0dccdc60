"""NATS goes away, forgets, repeats and reorders: usage is charged once, and nobody has to help."""

import asyncio
import json
import random
import shutil
import subprocess
import tempfile
import time
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import fixtures_loop
import nats
import pytest
from backend.faults.scene import charged_ids, verified
from fixtures_writer import NOON, ROOT, Store, call, furnish, statuses
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from patience import free_port

from allotment.backend import messaging
from allotment.backend.embedded import _nats_program
from allotment.backend.engine import Engine
from allotment.backend.messaging import DEAD_LETTERS, STREAM, SUBJECT, Messenger, usage_subject
from allotment.backend.seen import SeenKeys
from allotment.tenants.onboarding import TenantEntry, register

SEED = 20_261_124


in_a_loop = partial(fixtures_loop.in_a_loop, seconds=300)


class Exchange:
    """A NATS server that can be killed and comes back at the same address, with its data or without."""

    def __init__(self):
        self._home = Path(tempfile.mkdtemp(prefix="allotment-nats-", dir="/tmp"))
        self._port = free_port()
        self.url = f"nats://127.0.0.1:{self._port}"
        self._process = None

    def start(self):
        command = [_nats_program(self._home), "-js", "-sd", self._home / "data", "-a", "127.0.0.1"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([*command, "-p", str(self._port)], **quiet)

    def kill(self, *, forget=False):
        self._process.kill()
        self._process.wait()
        if forget:
            shutil.rmtree(self._home / "data")

    def remove(self):
        self.kill()
        shutil.rmtree(self._home)


@pytest.fixture
def exchange():
    opened = Exchange()
    opened.start()
    yield opened
    opened.remove()


class Listening:
    """An engine that listens to an exchange, and a tenant to charge."""

    def __init__(self, isolation, url):
        self.isolation, self.url = isolation, url
        self.tenant = Store(isolation).tenant
        register(isolation, ROOT, TenantEntry(self.tenant, "acme", "Acme", "carrier", "Europe/Berlin", "EUR"))

    async def __aenter__(self):
        self.engine = Engine(self.isolation, ROOT, clock=lambda: NOON, following=False)
        await furnish(await self.engine.writer(self.tenant))
        self.messenger = Messenger(self.engine, self.url)
        self.engine.on_commit = self.messenger.committed
        await self.messenger.__aenter__()
        return self

    async def __aexit__(self, *_):
        await self.messenger.__aexit__()
        await self.engine.__aexit__()

    async def restarted(self):
        """As another process would go on: with nothing in memory."""
        await self.__aexit__()
        return await self.__aenter__()

    async def charged(self, count, seconds=20):
        """The numbers charged, once there are so many, and after a moment in which more could come."""
        deadline = time.monotonic() + seconds
        while len(charged_ids(self.isolation, self.tenant)) < count:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.2)
        return sorted(int(one.removeprefix("call-")) for one in charged_ids(self.isolation, self.tenant))


@pytest.fixture
def listening(isolation, exchange, monkeypatch):
    monkeypatch.setattr(messaging, "RETRY_SECONDS", 0.2)
    monkeypatch.setattr(messaging, "HEARTBEAT_SECONDS", 0.5)
    monkeypatch.setattr(messaging, "QUIET_SECONDS_MAX", 1.5)
    return Listening(isolation, exchange.url)


def body(*numbers):
    return "".join(
        json.dumps(
            {
                "source": "switch",
                "id": f"call-{number}",
                "line": "+441",
                "type": "voice",
                "quantity": 61,
                "start": f"2026-11-{1 + number % 14:02}T11:59:00Z",
                "counterpart": "+442071838750",
            }
        )
        + "\n"
        for number in numbers
    ).encode()


@asynccontextmanager
async def sender(url):
    client = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_quiet)
    try:
        yield client
    finally:
        await client.close()


async def _quiet(_):
    """Whoever kills the server knows that it is gone."""


async def publish(client, tenant, payload, seconds=20):
    """As a sender does who was not told: again and again, until it is taken."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await client.jetstream().publish(usage_subject(tenant), payload, timeout=1)
        except (nats.errors.Error, nats.js.errors.Error, OSError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


# --- gone -----------------------------------------------------------------------------------------


@in_a_loop
async def test_while_nats_is_gone_charging_goes_on_and_then_usage_comes_in_again(listening, exchange):
    await _gone_and_back(listening, exchange, seconds=2)


@pytest.mark.soak
@in_a_loop
async def test_nats_may_be_gone_for_a_minute(listening, exchange):
    await _gone_and_back(listening, exchange, seconds=60)


async def _gone_and_back(listening, exchange, seconds):
    async with listening, sender(exchange.url) as client:
        for number in range(0, 100, 10):
            await publish(client, listening.tenant, body(*range(number, number + 15)))
        exchange.kill()
        gone_until, direct = time.monotonic() + seconds, 1_000
        while time.monotonic() < gone_until:
            # By another door: what is told of its commits waits for NATS, and holds nobody up.
            asked = time.monotonic()
            records = [call(direct, 1)]
            assert statuses(await listening.engine.charge(listening.tenant, records, "api")) == ["charged"]
            assert time.monotonic() - asked < 1
            direct += 1
            await asyncio.sleep(0.05)
        exchange.start()
        await publish(client, listening.tenant, body(*range(95, 120)))
        expected = [*range(120), *range(1_000, direct)]
        assert await listening.charged(len(expected)) == expected
        await _drained(client)
    verified(listening.isolation, listening.tenant)


@in_a_loop
async def test_a_nats_that_lost_all_it_had_is_made_ready_again(listening, exchange):
    """Streams and consumer are gone with its disk; the log has what was charged."""
    async with listening, sender(exchange.url) as client:
        await publish(client, listening.tenant, body(1, 2))
        assert await listening.charged(2) == [1, 2]
        exchange.kill(forget=True)
        exchange.start()
        await publish(client, listening.tenant, body(2, 3))
        assert await listening.charged(3) == [1, 2, 3]


@in_a_loop
async def test_a_consumer_that_somebody_deleted_is_made_again(listening, exchange):
    async with listening, sender(exchange.url) as client:
        await publish(client, listening.tenant, body(1))
        assert await listening.charged(1) == [1]
        consumers = await client.jetstream().consumers_info(STREAM)
        assert len(consumers) == 1
        await client.jetstream().delete_consumer(STREAM, consumers[0].name)
        await publish(client, listening.tenant, body(2, 3))
        assert await listening.charged(3) == [1, 2, 3]


async def _drained(client, seconds=15):
    deadline = time.monotonic() + seconds
    while (await client.jetstream().stream_info(STREAM)).state.messages:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


# --- again and in another order -------------------------------------------------------------------


@in_a_loop
async def test_sent_again_in_another_order_after_all_was_forgotten_nothing_is_charged_again(
    listening, exchange, monkeypatch
):
    """Outside JetStream's window, after restarts, and with keys that memory does not hold any more."""
    monkeypatch.setattr("allotment.backend.deciding.SeenKeys", lambda: SeenKeys(600))
    await _again_and_again(listening, exchange, SEED, records=2_500, times=2)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(SEED + 1, SEED + 4))
@in_a_loop
async def test_a_month_sent_again_and_again_in_other_orders_is_charged_once(
    listening, exchange, monkeypatch, seed
):
    monkeypatch.setattr("allotment.backend.deciding.SeenKeys", lambda: SeenKeys(2_000))
    await _again_and_again(listening, exchange, seed, records=30_000, times=6)


async def _again_and_again(listening, exchange, seed, *, records, times):
    print(f"seed {seed}")
    draw = random.Random(seed)
    async with listening, sender(exchange.url) as client:
        for _ in range(times):
            numbers = list(range(records))
            draw.shuffle(numbers)
            for at in range(0, records, 50):
                # No message id, another cut, another order: to JetStream it is all new.
                await publish(client, listening.tenant, body(*numbers[at : at + draw.randrange(50, 80)]))
            await _drained(client, 100)
            assert await listening.charged(records) == list(range(records))
            await listening.restarted()
    verified(listening.isolation, listening.tenant)


# --- as somebody else has set it up ---------------------------------------------------------------


@in_a_loop
async def test_streams_that_exist_with_other_settings_are_used_as_they_are(listening, exchange):
    """An operator has given them other ages, bounds and storage: that is theirs to say."""
    theirs = [
        StreamConfig(
            STREAM,
            subjects=[f"{SUBJECT}.>", "usage.elsewhere"],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.MEMORY,
            max_age=3_600,
            max_msgs=10_000,
            duplicate_window=1,
        ),
        StreamConfig(DEAD_LETTERS, subjects=["usage.dead.*"], max_age=60, max_bytes=1 << 20),
    ]
    async with sender(exchange.url) as client:
        for config in theirs:
            await client.jetstream().add_stream(config)
        before = [(await client.jetstream().stream_info(one.name)).config for one in theirs]
        async with listening:
            await publish(client, listening.tenant, body(1, 2))
            await publish(client, listening.tenant, b"this is no usage\n" * 50)
            await publish(client, listening.tenant, body(2, 3))
            assert await listening.charged(3) == [1, 2, 3]
            assert (await client.jetstream().stream_info(DEAD_LETTERS)).state.messages == 1
            await listening.restarted()
            assert await listening.charged(3) == [1, 2, 3]
        assert [(await client.jetstream().stream_info(one.name)).config for one in theirs] == before
