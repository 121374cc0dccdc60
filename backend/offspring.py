"""Offspring: the projector as a child of `serve`, started with it, started again when it ends, gone with it.

The child's standard input is a pipe that only we hold: when we go, however we go, it ends, and
the child with it.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog

RESTART_SECONDS = 0.5
STOP_SECONDS_MAX = 10.0
_PROGRAM = ("-c", "from allotment.backend.cli import main; main()")

log = structlog.get_logger()


@asynccontextmanager
async def projector_process(database_url: str, nats_url: str) -> AsyncIterator["Child"]:
    """A projector beside us while the block lasts."""
    child = Child(("project", "--child"), {"DATABASE_URL": database_url, "NATS_URL": nats_url})
    watching = asyncio.create_task(child.keep_running(), name="projector")
    try:
        yield child
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


class Child:
    """One command of ours in a process of its own."""

    def __init__(self, command: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = {**os.environ, **environment}
        self.pid = 0

    async def keep_running(self) -> None:
        while True:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *_PROGRAM,
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                env=self._environment,
                # Ctrl-C is for us; we then end it in order.
                start_new_session=True,
            )
            self.pid = process.pid
            try:
                code = await process.wait()
            except asyncio.CancelledError:
                await _end(process)
                raise
            log.warning("a child process ended and is started again", command=self._command[0], code=code)
            await asyncio.sleep(RESTART_SECONDS)


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS_MAX)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
