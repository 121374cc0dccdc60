"""Wires: how every part of the product is connected to NATS. A line that breaks is connected again, for ever.

What goes wrong on a line is logged here, once until it is connected again: whoever uses it does without
for so long.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    # Loaded by whoever makes a client: most commands never use NATS.
    from nats.aio.client import Client

RECONNECT_SECONDS = 1

log = structlog.get_logger()


async def connect(client: "Client", url: str, *, cut: Callable[[], Awaitable[None]] | None = None) -> None:
    """`cut` is called whenever the line breaks. Fails where nobody answers at first."""
    said: set[str] = set()

    async def say_once(error: Exception) -> None:
        """While a line is broken every attempt fails, mostly with the same words."""
        text = str(error) or type(error).__name__
        if text not in said:
            said.add(text)
            log.warning("nats", error=text)

    async def connected_again() -> None:
        said.clear()
        log.info("nats, connected again")

    await client.connect(
        url,
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_SECONDS,
        error_cb=say_once,
        disconnected_cb=cut,
        reconnected_cb=connected_again,
    )
