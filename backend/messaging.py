"""NATS JetStream: usage in, events out. Transport only; PostgreSQL is the record.

A message of usage is acknowledged after its records are committed in PostgreSQL, so a message
may come twice and is charged once. A message that can never be charged goes to the dead-letter
stream with its reason, and stops nobody behind it. What is told after a commit may be lost with
the process that told it: who must not miss anything reads the log.

Subjects: `usage.in.<tenant id>` with an NDJSON body in the `allotment` format, or another one
named in the header `Allotment-Format`; `evt.<tenant id>.<topic>` after each commit, with the seqs
of its events of that topic.
"""

import asyncio
import contextlib
import io
from uuid import UUID

import msgspec
import nats
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig
from nats.js.errors import NotFoundError

from ..tenants.isolation import Isolation
from ..tenants.onboarding import TenantEntry, UnknownTenant, find_tenant
from .engine import Engine
from .intake.door import charge_stream
from .intake.formats import FormatError, shipped_format
from .intake.rows import UnreadableFile
from .log import Group

STREAM = "USAGE"
SUBJECT = "usage.in"
DURABLE = "charging"
DEAD_LETTERS = "USAGE_DEAD"
DEAD_SUBJECT = "usage.dead"
FETCH_MESSAGES = 64
MESSAGES_AT_ONCE = 16
ACK_WAIT_SECONDS = 60
RETRY_SECONDS = 2.0
DEAD_LETTER_SECONDS = 14 * 86_400
"""Dead letters hold numbers in clear: time enough to look, and no longer."""
EVENTS_WAITING_MAX = 10_000

log = structlog.get_logger()


class Messenger:
    """Consumes usage for the engine and tells what was committed. Lives as long as the process."""

    def __init__(self, engine: Engine, nats_url: str) -> None:
        self._engine = engine
        self._url = nats_url
        self._client = Client()
        self._tasks: list[asyncio.Task[None]] = []
        self._told: asyncio.Queue[Group] = asyncio.Queue(EVENTS_WAITING_MAX)

    async def __aenter__(self) -> "Messenger":
        await self._client.connect(
            self._url, max_reconnect_attempts=-1, reconnect_time_wait=1, error_cb=_log_error
        )
        stream = self._client.jetstream()
        await prepare_streams(stream)
        self._tasks = [asyncio.create_task(self._consume(stream)), asyncio.create_task(self._tell())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Not drained: what was fetched and not acknowledged comes again, to whoever fetches next.
        with contextlib.suppress(NatsError, OSError, asyncio.TimeoutError):
            await self._client.close()

    def committed(self, group: Group) -> None:
        """To be given to the engine as `on_commit`: never waits."""
        with contextlib.suppress(asyncio.QueueFull):
            self._told.put_nowait(group)

    async def _consume(self, stream: JetStreamContext) -> None:
        while True:
            try:
                # Again each time: NATS may have lost its disk, or somebody deleted the consumer.
                await prepare_streams(stream)
                subscription = await stream.pull_subscribe(f"{SUBJECT}.*", DURABLE, stream=STREAM)
                while True:
                    with contextlib.suppress(asyncio.TimeoutError, nats.errors.TimeoutError):
                        await self._handle(await subscription.fetch(FETCH_MESSAGES, timeout=1))
            except Exception as error:  # noqa: BLE001  (whatever it was, usage must go on coming in)
                log.warning("usage stream unavailable, trying again", error=repr(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _handle(self, messages: list[Msg]) -> None:
        """Messages of one tenant in order, tenants beside each other."""
        by_subject: dict[str, list[Msg]] = {}
        for message in messages:
            by_subject.setdefault(message.subject, []).append(message)
        await asyncio.gather(*(self._in_order(queue) for queue in by_subject.values()))

    async def _in_order(self, queue: list[Msg]) -> None:
        """What comes after a message that must come again comes again too."""
        for place, message in enumerate(queue):
            await message.in_progress()
            if not await self._charge(message):
                for later in queue[place + 1 :]:
                    await later.nak(delay=RETRY_SECONDS)
                return

    async def _charge(self, message: Msg) -> bool:
        """Whether it is done with, charged or buried."""
        try:
            tenant = await self._engine.in_thread(lambda: _tenant_of(self._engine.isolation, message.subject))
            headers = message.headers or {}
            await charge_stream(
                self._engine,
                tenant.tenant_id,
                io.BytesIO(message.data),
                shipped_format(headers.get("Allotment-Format", "allotment")),
                time_zone=headers.get("Allotment-Time-Zone", tenant.time_zone),
                actor="mediation:nats",
                name=message.subject,
            )
        except (UnknownTenant, UnreadableFile, FormatError) as error:
            await self._bury(message, str(error))
        except Exception as error:  # noqa: BLE001  (what is not acknowledged is not lost)
            log.warning("usage not charged yet, it will come again", error=repr(error))
            await message.nak(delay=RETRY_SECONDS)
            return False
        else:
            await message.ack()
        return True

    async def _bury(self, message: Msg, reason: str) -> None:
        log.warning("usage message cannot be charged", subject=message.subject, reason=reason)
        tenant = message.subject.rpartition(".")[2]
        stream = self._client.jetstream()
        await stream.publish(
            f"{DEAD_SUBJECT}.{tenant}", message.data, headers={"Allotment-Reason": reason[:500]}
        )
        await message.term()

    async def _tell(self) -> None:
        while True:
            group = await self._told.get()
            for topic, seqs in _by_topic(group).items():
                told = msgspec.json.encode({"recordedAt": group.recorded_at, "seqs": seqs})
                try:
                    await self._client.publish(f"evt.{group.tenant}.{topic}", told)
                except Exception as error:  # noqa: BLE001  (the log has it; whoever listens may miss it)
                    log.warning("a commit was not told", error=repr(error))


async def prepare_streams(stream: JetStreamContext) -> None:
    """The streams of usage and of dead letters, and who reads them; what exists stays as it is set.

    An operator may have given a stream more replicas, or another age: that is theirs to say.
    """
    usage = StreamConfig(STREAM, subjects=[f"{SUBJECT}.*"], retention=RetentionPolicy.WORK_QUEUE)
    dead = StreamConfig(DEAD_LETTERS, subjects=[f"{DEAD_SUBJECT}.*"], max_age=DEAD_LETTER_SECONDS)
    for config in (usage, dead):
        assert config.name is not None
        try:
            await stream.stream_info(config.name)
        except NotFoundError:
            await stream.add_stream(config)
    try:
        await stream.consumer_info(STREAM, DURABLE)
    except NotFoundError:
        await stream.add_consumer(
            STREAM,
            ConsumerConfig(
                durable_name=DURABLE,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT_SECONDS,
                max_ack_pending=FETCH_MESSAGES * MESSAGES_AT_ONCE,
            ),
        )


def _by_topic(group: Group) -> dict[str, list[int]]:
    """One message per topic and group: a message per event would cost more than charging it."""
    seqs: dict[str, list[int]] = {}
    for seq, topic in enumerate(group.topics, group.seen + 1):
        seqs.setdefault(topic, []).append(seq)
    return seqs


def usage_subject(tenant: UUID) -> str:
    return f"{SUBJECT}.{tenant}"


def _tenant_of(isolation: Isolation, subject: str) -> TenantEntry:
    return find_tenant(isolation, subject.rpartition(".")[2])


async def _log_error(error: Exception) -> None:
    log.warning("nats", error=str(error) or type(error).__name__)
