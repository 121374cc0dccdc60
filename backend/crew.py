"""The crew: the processes of one `allotment serve`, kept alive by their parent until somebody says stop.

The parent serves nothing itself. It owns what must outlive each of them: the embedded servers and the
socket they all listen on, so that no connection is lost with the one that ends. Whoever ends by itself is
started again, later each time; whoever never got ready ends the whole. Members end with their parent,
however that ends (orphans.py).
"""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import structlog
from msgspec import Struct

from .believing import development_issuer
from .running import Product, is_free
from .serving import BACKLOG, NotServing, serve_until, watch_database
from .settings import SettingsError
from .stopping import until_told

PROGRAM = "from allotment.backend.cli import main; main()"
READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
RESTART_SECONDS_MIN, RESTART_SECONDS_MAX = 0.1, 10.0
STEADY_SECONDS = 30.0
"""Whoever lived so long is started again at once."""

log = structlog.get_logger()


class Member(Struct, frozen=True):
    """One process: its name, and the arguments of `allotment` that it runs."""

    name: str
    arguments: tuple[str, ...]


async def serve_together(
    product: Product, count: int, *, ready: Callable[[], None], projected_elsewhere: bool = False
) -> None:
    """Serve with so many workers until told to stop."""
    settings = product.settings
    # Made once, before anybody needs them: the development issuer's keys, and the root key.
    development_issuer(settings)
    product.root_key()
    with _listening(settings.host, settings.port) as listening:
        descriptor = listening.fileno()
        arguments = ["worker", "--parent", str(os.getpid()), "--listen-fd", str(descriptor)]
        if settings.database_url is None:
            arguments.append("--servers-of-parent")
        if projected_elsewhere:
            arguments.append("--projected-elsewhere")
        workers = [Member(f"worker {number}", tuple(arguments)) for number in range(1, count + 1)]
        environment = {
            "DATABASE_URL": product.database_url,
            "NATS_URL": product.nats_url,
            "ALLOTMENT_HOME": str(settings.home),
            "ALLOTMENT_HOST": settings.host,
            "ALLOTMENT_PORT": str(settings.port),
        }
        async with crew([workers], environment, descriptors=(descriptor,)) as members:
            ready()
            watching = []
            if settings.database_url is None:
                watching = [asyncio.create_task(watch_database(product.database_url), name="PostgreSQL")]
            try:
                await serve_until(until_told(), members.watching, *watching)
            finally:
                for task in watching:
                    task.cancel()


@asynccontextmanager
async def crew(
    stages: Sequence[Sequence[Member]], environment: Mapping[str, str], *, descriptors: Sequence[int] = ()
) -> "AsyncIterator[Crew]":
    """All members running and ready, while the block lasts.

    A stage is started when the one before is ready, and stopped before that one is.
    """
    members = Crew(stages, environment, descriptors)
    try:
        await members.start()
        yield members
    finally:
        await members.stop()


class Crew:
    """Started and stopped by `crew`."""

    def __init__(
        self, stages: Sequence[Sequence[Member]], environment: Mapping[str, str], descriptors: Sequence[int]
    ) -> None:
        self._stages = [[_Post(member, environment, descriptors) for member in stage] for stage in stages]
        self._rolling: set[asyncio.Task[None]] = set()
        self.watching: asyncio.Task[None]
        """Ends only if the crew cannot be kept alive."""

    async def start(self) -> None:
        self.watching = asyncio.create_task(self._watch(), name="the crew")
        for stage in self._stages:
            await asyncio.gather(*(post.start() for post in stage))
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._roll_later)

    async def stop(self) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        for task in (self.watching, *self._rolling):
            task.cancel()
        await asyncio.gather(self.watching, *self._rolling, return_exceptions=True)
        for stage in reversed(self._stages):
            # Interrupted, not terminated: all of them stop, so that nothing need be handed over.
            await asyncio.gather(*(post.end(signal.SIGINT) for post in stage))

    async def roll(self) -> None:
        """Replace one member after the other: the new one serves before the old one hands over."""
        for post in [post for stage in self._stages for post in stage]:
            try:
                await post.replace()
            except NotServing as error:
                log.error("a process is not replaced, the old one goes on", error=str(error))
                return

    def _roll_later(self) -> None:
        if not self._rolling:
            task = asyncio.create_task(self.roll(), name="rolling restart")
            self._rolling.add(task)
            task.add_done_callback(self._rolling.discard)

    async def _watch(self) -> None:
        """As long as the members are kept."""
        await asyncio.gather(*(post.keep() for stage in self._stages for post in stage))


class _Post:
    """The place of one member, whichever process fills it."""

    def __init__(self, member: Member, environment: Mapping[str, str], descriptors: Sequence[int]) -> None:
        self._member = member
        self._environment = environment
        self._descriptors = descriptors
        self.process: asyncio.subprocess.Process | None = None
        self._filled = asyncio.Event()
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        self.process = await self._spawned()
        self._filled.set()

    async def keep(self) -> None:
        """Start it again whenever it ends."""
        pause = RESTART_SECONDS_MIN
        await self._filled.wait()
        while True:
            began, process = time.monotonic(), self.process
            assert process is not None
            code = await process.wait()
            if process is not self.process:
                continue
            log.warning("a process ended by itself, starting another", member=self._member.name, code=code)
            if time.monotonic() - began > STEADY_SECONDS:
                pause = RESTART_SECONDS_MIN
            await asyncio.sleep(pause)
            pause = min(2 * pause, RESTART_SECONDS_MAX)
            await self._start_again(process)

    async def _start_again(self, ended: asyncio.subprocess.Process) -> None:
        async with self._turn:
            if self.process is ended:
                try:
                    self.process = await self._spawned()
                except NotServing as error:
                    log.warning("trying again", error=str(error))

    async def replace(self) -> None:
        """Another process in its place: the old one hands over when the new one is ready."""
        async with self._turn:
            old, self.process = self.process, await self._spawned()
        log.info("a process is replaced", member=self._member.name)
        if old is not None:
            await _ended(old, signal.SIGTERM)

    async def end(self, number: signal.Signals) -> None:
        if self.process is not None:
            await _ended(self.process, number)

    async def _spawned(self) -> asyncio.subprocess.Process:
        """A process that has said it is ready."""
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", PROGRAM, *self._member.arguments),
                *("--ready-fd", str(writing)),
                env={**os.environ, **self._environment},
                pass_fds=(*self._descriptors, writing),
                # Ctrl-C at the terminal is for the parent, which stops the others in order.
                start_new_session=True,
            )
        finally:
            os.close(writing)
        try:
            async with asyncio.timeout(READY_SECONDS_MAX):
                told = await _read(reading)
        except TimeoutError:
            await _ended(process, signal.SIGINT)
            raise NotServing(f"{self._member.name} was not ready in {READY_SECONDS_MAX:g} s") from None
        except BaseException:
            process.kill()
            raise
        if not told:
            raise NotServing(f"{self._member.name} did not start: it ended with {await process.wait()}")
        return process


async def _ended(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Tell it to stop, and see to it that it does."""
    if process.returncode is None:
        process.send_signal(number)
        try:
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await process.wait()
        except TimeoutError:
            log.warning("a process did not stop, it is killed", pid=process.pid)
            process.kill()
            await process.wait()


async def _read(descriptor: int) -> bytes:
    """What comes through a pipe first; nothing if its other end is closed."""
    loop = asyncio.get_running_loop()
    came: asyncio.Future[bytes] = loop.create_future()

    def read() -> None:
        loop.remove_reader(descriptor)
        if not came.done():
            came.set_result(os.read(descriptor, 16))

    loop.add_reader(descriptor, read)
    try:
        return await came
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _listening(host: str, port: int) -> socket.socket:
    if not is_free(host, port):
        raise SettingsError(
            f"ALLOTMENT_PORT: {host}:{port} is in use or cannot be listened on. Set another, or 0 for any."
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)
