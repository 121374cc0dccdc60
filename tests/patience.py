"""Waiting for what nobody tells of, and ports: as a test needs them that does not depend on who is quicker.

What comes is not waited for longer than it takes; only what never comes is waited for to the end.
"""

import asyncio
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 45.0
"""Of a test that may last two minutes."""
PAUSE_SECONDS = 0.01
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""Which ports the system hands out by itself."""


def until(found: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """What is found, once there is something."""
    latest = time.monotonic() + seconds
    while not (there := found()):
        assert time.monotonic() < latest, f"not within {seconds:g} s"
        time.sleep(PAUSE_SECONDS)
    return there


async def until_there(found: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """The same in an event loop."""
    latest = time.monotonic() + seconds
    while not (there := found()):
        assert time.monotonic() < latest, f"not within {seconds:g} s"
        await asyncio.sleep(PAUSE_SECONDS)
    return there


async def until_open(port: int) -> None:
    """Until somebody listens there."""
    await until_there(lambda: _is_open(port))


def _is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """For a server that is started in a moment: none of those that others are given meanwhile."""
    lowest = int(EPHEMERAL.read_text().split()[0]) if EPHEMERAL.exists() else 32_768
    while True:
        port = random.SystemRandom().randrange(min(lowest, 20_000) // 2, min(lowest, 32_768))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
