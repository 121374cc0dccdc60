"""The engine: one writer and one follower per tenant in use, and who is told of a commit.

Everything that changes a tenant goes through here, whatever door it came in by.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

import structlog

from ..domain.tenant import Command, OpenTenant, Tenant
from ..tenants.isolation import Isolation
from ..tenants.onboarding import Definition, Enrol, TenantEntry, register, steps
from ..tenants.sealing import RootKey, Sealer, load_sealer
from .deciding import Answer, Usage, UsageOutcome, command_key
from .following import Follower
from .intake.numbers import normal_number
from .log import Group, PostgresLog
from .writer import Clock, Writer

THREADS_MAX = 16
STEPS_AT_ONCE = 500
EXTENSION_DIGITS_MAX = 6

log = structlog.get_logger()
R = TypeVar("R")


def wall_clock() -> int:
    """Microseconds since the epoch, UTC."""
    return time.time_ns() // 1_000


class Engine:
    """Use it as an async context manager, in one event loop."""

    def __init__(
        self,
        isolation: Isolation,
        root: RootKey,
        *,
        clock: Clock = wall_clock,
        on_commit: Callable[[Group], None] | None = None,
        following: bool = True,
    ) -> None:
        self.isolation = isolation
        self.root = root
        self.clock = clock
        self.on_commit = on_commit
        self._following = following
        self._executor = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="allotment")
        self._writers: dict[UUID, asyncio.Task[Writer]] = {}
        self._followers: dict[UUID, Follower] = {}
        self._starting: dict[UUID, asyncio.Future[None]] = {}

    async def __aenter__(self) -> "Engine":
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self.open_writers().values():
            await writer.close()
        for opening in self._writers.values():
            opening.cancel()
        for follower in self._followers.values():
            await follower.close()
        self._executor.shutdown()

    # --- changing ---------------------------------------------------------------------------

    async def submit(
        self, tenant: UUID, command: Command | Enrol, idempotency_key: str, actor: str
    ) -> Answer:
        """Carry out a command once, durably; raises Refused, Busy, Unavailable or Halted."""
        writer = await self.writer(tenant)
        return await writer.submit(command, command_key(idempotency_key), actor)

    async def charge(self, tenant: UUID, records: Sequence[Usage], actor: str) -> list[UsageOutcome]:
        """Charge records, each once for ever; one outcome each, after the commit."""
        writer = await self.writer(tenant)
        return await writer.submit_usage(records, actor)

    async def create_tenant(self, entry: TenantEntry, actor: str) -> None:
        """Register a tenant and open its log."""
        await self.in_thread(lambda: register(self.isolation, self.root, entry))
        opened = OpenTenant(entry.name, entry.time_zone, entry.currency, entry.carrier)
        await self.submit(entry.tenant_id, opened, "open", actor)

    async def apply_definition(self, tenant: UUID, definition: Definition, actor: str) -> int:
        """Carry out a definition; how many of its steps were new. Stops at the first refusal."""
        writer = await self.writer(tenant)
        todo = list(steps(definition, writer.state.contracts.zone, normal_line))
        new = 0
        for first in range(0, len(todo), STEPS_AT_ONCE):
            asked = [
                writer.submit(step.command, command_key(step.key), actor)
                for step in todo[first : first + STEPS_AT_ONCE]
            ]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
                new += not answer.repeated
        return new

    async def writer(self, tenant: UUID) -> Writer:
        """The tenant's writer, opened at first use."""
        opening = self._writers.get(tenant)
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception())):
            opening = self._writers[tenant] = asyncio.create_task(self._open_writer(tenant))
        return await asyncio.shield(opening)

    def open_writers(self) -> dict[UUID, Writer]:
        """The tenants in use now."""
        return {
            tenant: opening.result()
            for tenant, opening in self._writers.items()
            if opening.done() and not opening.cancelled() and opening.exception() is None
        }

    async def state(self, tenant: UUID) -> Tenant:
        """The state decisions are made on, for a look. It may be a group ahead of the disk."""
        return (await self.writer(tenant)).state

    async def _open_writer(self, tenant: UUID) -> Writer:
        writer = Writer(
            tenant,
            PostgresLog(self.isolation, tenant),
            lambda: load_sealer(self.isolation, self.root, tenant),
            self.clock,
            self._executor,
            self._committed,
        )
        await writer.start()
        self.follower(tenant)
        return writer

    # --- reading ----------------------------------------------------------------------------

    def follower(self, tenant: UUID) -> Follower:
        """Keeps the tenant's views up to date, from the first look on."""
        follower = self._followers.get(tenant)
        if follower is None:
            follower = Follower(self.isolation, tenant, executor=self._executor)
            self._followers[tenant] = follower
            if self._following:
                self._starting[tenant] = asyncio.ensure_future(follower.start())
        return follower

    async def sealer(self, tenant: UUID) -> Sealer:
        """For reading personal fields: with the keys stored now, so that who was erased stays erased."""
        return await self.in_thread(lambda: load_sealer(self.isolation, self.root, tenant))

    async def in_thread(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _committed(self, group: Group) -> None:
        follower = self._followers.get(group.tenant)
        if follower is not None:
            follower.notify(group.last)
        if self.on_commit is not None:
            self.on_commit(group)


def normal_line(line: str, region: str) -> str:
    """A line as intake would write it, so that usage finds its resource."""
    return normal_number(line, region, EXTENSION_DIGITS_MAX)


def moment(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
