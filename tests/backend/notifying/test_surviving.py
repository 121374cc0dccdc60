"""Real processes, killed: each crossing is delivered at least once, under the same id, and none is lost."""

import asyncio
import base64
import contextlib
import os
import signal
import subprocess
import sys
import time

import nats
import pytest
from fixtures_notices import settings
from patience import PATIENCE_SECONDS, until, until_there

from allotment.backend.crew import PROGRAM
from allotment.backend.log import recorded
from allotment.backend.notifying import queue
from allotment.backend.notifying.notifying import notifying
from allotment.backend.notifying.queue import notice_id
from allotment.backend.notifying.stream import STREAM
from allotment.backend.running import Product
from allotment.domain.limit import ThresholdCrossed
from allotment.domain.notice import WebhookDisabled

pytestmark = pytest.mark.timeout(240)


def expected(told):
    rows = told.log.read()
    return {
        notice_id(told.tenant, row.seq) for row in rows if isinstance(recorded(row).event, ThresholdCrossed)
    }


class Projector:
    """`allotment project`, as a process to be killed."""

    def __init__(self, servers, database, home):
        self.environment = {
            **os.environ,
            "DATABASE_URL": database,
            "NATS_URL": servers.nats_url,
            "ALLOTMENT_HOME": str(home),
            "ALLOTMENT_ROOT_KEY": base64.b64encode(b"r" * 32).decode(),
            "ALLOTMENT_WEBHOOK_PRIVATE": "allowed",
            "ALLOTMENT_WEBHOOK_BACKOFF": "0,0,1,1,1,1,1,1,1,1",
        }
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "project"],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def end(self, number):
        self.process.send_signal(number)
        self.process.wait(20)


def killed_and_started(told, receiver, projector, kills):
    secret = told.webhook(receiver.url)
    receiver.seconds = 0.05
    for number in range(kills):
        projector.start()
        before = len(receiver.came)
        told.cross(max(1, 10 // kills))
        # Killed while requests are under way, and while some were answered and not yet settled.
        until(lambda before=before: len(receiver.came) > before, 60)
        time.sleep(0.03 * number)
        projector.end(signal.SIGKILL)
    projector.start()
    try:
        until(lambda: set(receiver.ids) == expected(told), queue.CLAIM_SECONDS["webhook"] + 60)
    finally:
        projector.end(signal.SIGINT)
    assert receiver.verified(secret) >= 10


def test_a_killed_process_loses_no_notice(told, receiver, servers, database, home):
    killed_and_started(told, receiver, Projector(servers, database, home), 1)


@pytest.mark.soak
def test_a_process_killed_again_and_again_loses_no_notice(told, receiver, servers, database, home):
    killed_and_started(told, receiver, Projector(servers, database, home), 10)


# --- with NATS, and with a writer --------------------------------------------------------------------------


def product_of(told, servers):
    made = settings(
        given_root_key=b"r" * 32, backoff_seconds=(0, 0), database_url=told.isolation.database_url
    )
    return Product(
        made, told.isolation.database_url, servers.nats_url, told.isolation, lambda: servers.nats_url
    )


def test_a_crossing_is_stored_once_on_the_tenants_nats_subject(told, servers):
    async def run():
        client = await nats.connect(servers.nats_url)
        stream = client.jetstream()
        async with notifying(product_of(told, servers)):
            heard = await client.subscribe(f"evt.notice.{told.tenant}.>")
            # Nobody has asked for anything: it is heard of by the messenger's word alone.
            end = told.cross()
            rows = [row for row in told.log.read() if row.topic == "limit.threshold_crossed"]
            word = b'{"recordedAt":0,"seqs":[%d]}' % rows[0].seq
            message = await _heard_of(client, f"evt.{told.tenant}.limit.threshold_crossed", word, heard)
            assert message.subject == f"evt.notice.{told.tenant}.limit.threshold_crossed"
            assert message.headers["Nats-Msg-Id"] == notice_id(told.tenant, rows[0].seq)
            again = await stream.publish(message.subject, message.data, headers=dict(message.headers))
            assert again.duplicate
            assert end == rows[0].seq
        await stream.purge_stream(STREAM)
        await client.close()

    asyncio.run(asyncio.wait_for(run(), 60))


async def _heard_of(client, subject, word, heard):
    """What follows from a word that is given until somebody listens to it."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            await client.publish(subject, word)
            with contextlib.suppress(nats.errors.TimeoutError):
                return await heard.next_msg(timeout=0.5)


def test_a_webhook_that_goes_on_failing_is_disabled_by_an_event(told, receiver, servers):
    told.webhook(receiver.url)
    receiver.answers = [500]

    def disabled():
        return [recorded(row).event for row in told.log.read() if row.topic == WebhookDisabled.topic]

    async def run():
        async with notifying(product_of(told, servers)):
            told.cross()
            (event,) = await until_there(disabled)
            assert (event.webhook, event.reason) == ("w", "failing")
            await asyncio.sleep(0.5)
            assert len(disabled()) == 1

    asyncio.run(asyncio.wait_for(run(), 60))
