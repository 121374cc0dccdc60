"""Wires: how every part of the product is connected to NATS. A line that breaks is connected again, for ever.

What goes wrong on a line is logged once, here: whoever uses it does without for so long.
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
    await client.connect(
        url,
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_SECONDS,
        error_cb=_log_error,
        disconnected_cb=cut,
    )


async def _log_error(error: Exception) -> None:
    log.warning("nats", error=str(error) or type(error).__name__)
