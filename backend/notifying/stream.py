"""The NATS subject of each tenant: its notices as CloudEvents, stored by JetStream for who comes later.

`evt.notice.<tenant id>.<topic>`, with the notice's id as `Nats-Msg-Id`: told twice, it is stored once.
"""

from uuid import UUID

from nats.aio.client import Client
from nats.js.api import StreamConfig
from nats.js.errors import NotFoundError

from .telling import CLOUD_EVENT

STREAM = "NOTICES"
SUBJECT = "evt.notice"
KEPT_SECONDS = 7 * 86_400
TWICE_SECONDS = 600
"""For how long the same id is recognised."""
ACK_SECONDS_MAX = 5.0


async def prepare(client: Client) -> None:
    """What exists stays as its operator has set it."""
    stream = client.jetstream()
    try:
        await stream.stream_info(STREAM)
    except NotFoundError:
        await stream.add_stream(
            StreamConfig(
                STREAM, subjects=[f"{SUBJECT}.>"], max_age=KEPT_SECONDS, duplicate_window=TWICE_SECONDS
            )
        )


async def publish(client: Client, tenant: UUID, topic: str, ident: str, body: bytes) -> None:
    """Raises whatever NATS raises."""
    await client.jetstream().publish(
        f"{SUBJECT}.{tenant}.{topic}",
        body,
        timeout=ACK_SECONDS_MAX,
        headers={"Nats-Msg-Id": ident, "Content-Type": CLOUD_EVENT},
    )
