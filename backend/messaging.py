"""NATS JetStream: usage in, events out. Transport only; PostgreSQL is the record.

A message of usage is acknowledged after its records are committed in PostgreSQL, so a message
may come twice and is charged once. A message that can never be charged goes to the dead-letter
stream with its reason, and stops nobody behind it. What is told after a commit may be lost with
the process that told it: who must not miss anything reads the log.

Each tenant's messages have a consumer of their own, which belongs to the worker that serves the tenant:
a worker that takes a tenant over makes it anew, and what nobody acknowledged comes again, to that one.

Subjects: `usage.in.<tenant id>` with an NDJSON body in the `allotment` format, or another one
named in the header `Allotment-Format`; `evt.<tenant id>.<topic>` after each commit, with the seqs
of its events of that topic.
"""

import asyncio
import contextlib
import io
import time
from collections.abc import AsyncIterator, Callable
from uuid import NAMESPACE_OID, UUID, uuid5

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig
from nats.js.errors import NotFoundError

from ..tenants.isolation import Isolation
from ..tenants.onboarding import TenantEntry, UnknownTenant, find_tenant
from . import wires
from .engine import Engine
from .intake.door import charge_stream
from .intake.formats import FormatError, shipped_format
from .intake.unpacking import UnreadableFile
from .log import Group
from .projecting import SHOWN, Shown
from .stopping import cancelled

STREAM = "USAGE"
SUBJECT = "usage.in"
SHARED = "charging"
"""The one consumer of all tenants that there was before each had its own."""
DEAD_LETTERS = "USAGE_DEAD"
DEAD_SUBJECT = "usage.dead"
MESSAGES_AHEAD = 64
"""On their way to a worker, of one tenant; beyond that they wait in the stream."""
ACK_WAIT_SECONDS = 60
LOOK_SECONDS = 0.25
"""How often a worker looks for tenants that have usage waiting, and nobody who fetches it."""
HEARTBEAT_SECONDS = 2.0
QUIET_SECONDS_MAX = 7.0
"""Without a heartbeat for so long a consumer is gone, or another's."""
UNUSED_SECONDS_MAX = 120.0
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
        self._fetching: dict[str, asyncio.Task[None]] = {}
        """By subject."""
        self._told: asyncio.Queue[Group] = asyncio.Queue(EVENTS_WAITING_MAX)

    async def __aenter__(self) -> "Messenger":
        await wires.connect(self._client, self._url)
        stream = self._client.jetstream()
        await prepare_streams(stream)
        self._engine.on_leaving = self._stop_fetching
        await self._client.subscribe(f"{SHOWN}.*", cb=self._shown)
        self._tasks = [asyncio.create_task(self._look(stream)), asyncio.create_task(self._tell())]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._engine.on_leaving = None
        await cancelled(self._tasks)
        await cancelled(list(self._fetching.values()))
        # Not drained: what came and was not acknowledged comes again, to whoever asks next.
        with contextlib.suppress(NatsError, OSError, asyncio.TimeoutError):
            await self._client.close()

    def committed(self, group: Group) -> None:
        """To be given to the engine as `on_commit`: never waits."""
        with contextlib.suppress(asyncio.QueueFull):
            self._told.put_nowait(group)

    async def _shown(self, message: Msg) -> None:
        """A projector says how far it is: who waits for that need not look. Nothing rests on it."""
        with contextlib.suppress(ValueError, msgspec.MsgspecError):
            seq = msgspec.json.decode(message.data, type=Shown).seq
            self._engine.shown(UUID(message.subject.rpartition(".")[2]), seq)

    @contextlib.asynccontextmanager
    async def hear(self, tenant: UUID, told: Callable[[], None]) -> AsyncIterator[None]:
        """Call a function whenever something is committed for a tenant, by whichever worker."""

        async def heard(_: Msg) -> None:
            told()

        subscription = None
        with contextlib.suppress(NatsError, OSError):
            subscription = await self._client.subscribe(f"evt.{tenant}.>", cb=heard)
        try:
            yield
        finally:
            if subscription is not None:
                with contextlib.suppress(NatsError, OSError):
                    await subscription.unsubscribe()

    # --- usage in ---------------------------------------------------------------------------

    async def _look(self, stream: JetStreamContext) -> None:
        """Fetch for every tenant that has usage waiting and is ours to serve."""
        while True:
            try:
                info = await stream.stream_info(STREAM, subjects_filter=f"{SUBJECT}.*")
                for subject in info.state.subjects or ():
                    if subject not in self._fetching and await self._is_ours(subject):
                        task = asyncio.create_task(self._fetch(stream, subject), name=subject)
                        self._fetching[subject] = task
            except Exception as error:  # noqa: BLE001  (whatever it was, usage must go on coming in)
                log.warning("usage stream unavailable, trying again", error=repr(error))
                await asyncio.sleep(RETRY_SECONDS)
                # NATS may have lost its disk, or somebody deleted the stream.
                with contextlib.suppress(NatsError, OSError, asyncio.TimeoutError):
                    await prepare_streams(stream)
            await asyncio.sleep(LOOK_SECONDS)

    async def _is_ours(self, subject: str) -> bool:
        """Whether this worker serves the tenant; what is for nobody belongs to somebody as well."""
        sharing = self._engine.sharing
        if sharing is None:
            return True
        try:
            entry = await self._engine.in_thread(lambda: _tenant_of(self._engine.isolation, subject))
        except UnknownTenant:
            return sharing.placement.preferred(uuid5(NAMESPACE_OID, subject)) == sharing.placement.me
        return await sharing.placement.place_of(entry.tenant_id) == sharing.placement.me

    def _stop_fetching(self, tenant: UUID) -> None:
        fetching = self._fetching.get(usage_subject(tenant))
        if fetching is not None:
            fetching.cancel()

    async def _fetch(self, stream: JetStreamContext, subject: str) -> None:
        """Charge what comes, in order, for as long as the subject is ours."""
        try:
            while await self._is_ours(subject):
                async with _consumer(self._client, stream, subject) as waiting:
                    await self._charge_in_order(waiting)
        except Exception as error:  # noqa: BLE001  (as above: the next look begins again)
            log.warning("usage not fetched, trying again", subject=subject, error=repr(error))
            await asyncio.sleep(RETRY_SECONDS)
        finally:
            del self._fetching[subject]

    async def _charge_in_order(self, waiting: "asyncio.Queue[Msg]") -> None:
        """Until the consumer is quiet. What comes after a message that must come again comes again too."""
        heard = time.monotonic()
        while time.monotonic() - heard < QUIET_SECONDS_MAX:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    message = await waiting.get()
            except TimeoutError:
                continue
            heard = time.monotonic()
            if not _is_usage(message):
                continue
            await message.in_progress()
            if not await self._charge(message):
                for later in _drained(waiting):
                    await later.nak(delay=RETRY_SECONDS)

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
                door="nats",
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

    # --- events out -------------------------------------------------------------------------

    async def _tell(self) -> None:
        while True:
            group = await self._told.get()
            for topic, seqs in _by_topic(group).items():
                told = msgspec.json.encode({"recordedAt": group.recorded_at, "seqs": seqs})
                try:
                    await self._client.publish(f"evt.{group.tenant}.{topic}", told)
                except Exception as error:  # noqa: BLE001  (the log has it; whoever listens may miss it)
                    log.warning("a commit was not told", error=repr(error))


@contextlib.asynccontextmanager
async def _consumer(
    client: Client, stream: JetStreamContext, subject: str
) -> AsyncIterator[asyncio.Queue[Msg]]:
    """The subject's messages, and heartbeats, as they come. Who had its consumer before has it no more."""
    waiting: asyncio.Queue[Msg] = asyncio.Queue()
    inbox, name = client.new_inbox(), f"usage-{subject.rpartition('.')[2]}"
    subscription = await client.subscribe(inbox, cb=waiting.put)
    try:
        with contextlib.suppress(NotFoundError):
            # Not gone on with: what it has delivered and nobody acknowledged would wait for a minute.
            await stream.delete_consumer(STREAM, name)
        await stream.add_consumer(
            STREAM,
            ConsumerConfig(
                durable_name=name,
                deliver_subject=inbox,
                filter_subject=subject,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=ACK_WAIT_SECONDS,
                max_ack_pending=MESSAGES_AHEAD,
                idle_heartbeat=HEARTBEAT_SECONDS,
                inactive_threshold=UNUSED_SECONDS_MAX,
            ),
        )
        yield waiting
    finally:
        with contextlib.suppress(NatsError, OSError):
            await subscription.unsubscribe()


def _drained(waiting: "asyncio.Queue[Msg]") -> list[Msg]:
    """What has come already, in order, without the heartbeats."""
    came = []
    while not waiting.empty():
        came.append(waiting.get_nowait())
    return [message for message in came if _is_usage(message)]


def _is_usage(message: Msg) -> bool:
    """And no heartbeat."""
    return bool(message.reply) and "Status" not in (message.headers or {})


async def prepare_streams(stream: JetStreamContext) -> None:
    """The streams of usage and of dead letters; what exists stays as it is set.

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
    with contextlib.suppress(NotFoundError):
        await stream.delete_consumer(STREAM, SHARED)


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
