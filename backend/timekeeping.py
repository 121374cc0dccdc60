"""Timekeeping: what time itself asks of tenants is carried out, once each, whoever is in memory.

The rules say what is due and when the next thing will be (`Tenant.due`, `Tenant.next_due`). For a tenant
that leaves memory, or whose worker is lost, a row says when to wake it: not later than its next thing is
due. It may be earlier, and then costs a look; so it is written seldom.
"""

import asyncio
import contextlib
from itertools import islice
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg
import structlog

from ..domain.refusals import Refused
from ..domain.tenant import Command
from ..tenants.isolation import Isolation
from .asking import Answer, Order, content_of
from .keys import key_of_command
from .log import LogUnavailable, reachable
from .stopping import cancelled
from .writer import Moved, Writer

if TYPE_CHECKING:
    from .engine import Engine

LOOK_SECONDS = 1.0
"""How often what is due is looked for; so much later than its time it may be done."""
DUE_AT_ONCE = 1_000
"""Of one tenant in one look; the next look goes on."""
TENANTS_AT_ONCE = 64
"""Tenants in which something is done at once; the others take turns."""
WAKE_EVERY_LOOKS = 5
WAKEN_AT_ONCE = 100
TIMEKEEPER = "allotment:time"

log = structlog.get_logger()


class Timekeeping:
    """Starts and stops with its engine."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._written: dict[UUID, int] = {}
        """When the tenants in memory would be woken, as stored."""
        self._turns = asyncio.Semaphore(TENANTS_AT_ONCE)
        self._at_work: dict[UUID, asyncio.Task[int]] = {}
        self._keeping: asyncio.Task[None] | None = None
        self._waking: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._keeping = asyncio.create_task(self._keep(), name="timekeeping")

    async def stop(self) -> None:
        tasks = (self._keeping, self._waking, *self._at_work.values())
        await cancelled(task for task in tasks if task is not None)

    async def _keep(self) -> None:
        looks = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            looks += 1
            self._look()
            if looks % WAKE_EVERY_LOOKS == 0 and (self._waking is None or self._waking.done()):
                self._waking = asyncio.create_task(self._wake(), name="waking")

    async def carry_out(self) -> int:
        """Do what is due in the tenants in memory; how much that was."""
        # Who is at work already may have looked before its time came.
        done = sum(await asyncio.gather(*self._at_work.values()))
        self._look()
        return done + sum(await asyncio.gather(*self._at_work.values()))

    def _look(self) -> None:
        """Begin what is due. A tenant that still does what was due before is left alone, and stops nobody."""
        for tenant, writer in self._engine.open_writers().items():
            if tenant not in self._at_work and not writer.halted and self._is_asked(tenant, writer):
                task = asyncio.create_task(self._at_its_turn(tenant, writer), name=f"time-{tenant}")
                self._at_work[tenant] = task

    def _is_asked(self, tenant: UUID, writer: Writer) -> bool:
        """Whether anything is due, or is to be noted."""
        try:
            due = writer.state.next_due()
        except Exception:
            log.exception("when something is due is not known", tenant=str(tenant))
            return False
        return due is not None and (due <= self._engine.clock() or self._is_unnoted(tenant, due))

    async def _at_its_turn(self, tenant: UUID, writer: Writer) -> int:
        try:
            async with self._turns:
                done = await self._carry_out(tenant, writer)
                await self._note(tenant, writer)
                return done
        except Exception:
            # One tenant's trouble must not stop everybody's clock.
            log.exception("what is due was not looked for", tenant=str(tenant))
            return 0
        finally:
            del self._at_work[tenant]

    async def _carry_out(self, tenant: UUID, writer: Writer) -> int:
        done, now = 0, self._engine.clock()
        due = list(islice(writer.state.due(now), DUE_AT_ONCE))
        asked = [writer.submit(command, due_key(command), TIMEKEEPER) for command in due]
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(answer, Answer):
                done += 1
            elif not isinstance(answer, Refused | Moved):
                # What is not done now is done at the next look. What is refused is not due any more.
                log.warning("what was due is not done yet", tenant=str(tenant), error=str(answer))
        return done

    async def _note(self, tenant: UUID, writer: Writer) -> None:
        """Let the tenant be woken in time, whatever becomes of us."""
        due = writer.state.next_due()
        if due is not None and self._is_unnoted(tenant, due):
            await self.note(tenant, due)

    def _is_unnoted(self, tenant: UUID, due: int) -> bool:
        written = self._written.get(tenant)
        return written is None or due < written or written <= self._engine.clock()

    async def note(self, tenant: UUID, due: int) -> None:
        if self._written.get(tenant) != due:
            await self._engine.in_thread(lambda: _write(self._engine.isolation, tenant, due))
            self._written[tenant] = due

    async def leave(self, tenant: UUID, writer: Writer) -> None:
        """The tenant leaves memory: it is woken when something is due, or never."""
        due = writer.state.next_due()
        self._written.pop(tenant, None)
        if due is None:
            await self._engine.in_thread(lambda: _remove(self._engine.isolation, tenant))
        else:
            await self._engine.in_thread(lambda: _write(self._engine.isolation, tenant, due))

    async def leave_at_the_end(self, tenant: UUID, writer: Writer) -> None:
        """The same; if the database is away, what was noted before holds."""
        with contextlib.suppress(LogUnavailable, psycopg.Error):
            await self.leave(tenant, writer)

    async def _wake(self) -> None:
        try:
            await self.wake()
        except Exception:
            log.exception("who is asleep was not looked for")

    async def wake(self) -> int:
        """Take into memory those whose time has come, if they are ours; how many that were."""
        sharing = self._engine.sharing
        if sharing is None or not sharing.placement.takes_tenants:
            return 0
        now = self._engine.clock()
        asleep = await self._engine.in_thread(lambda: _asleep(self._engine.isolation, now))
        here, placement = self._engine.open_writers(), sharing.placement
        mine = [one for one in asleep if one not in here and placement.preferred(one) == placement.me]
        woken = await asyncio.gather(*map(self._engine.writer, mine), return_exceptions=True)
        for tenant, error in zip(mine, woken, strict=True):
            if isinstance(error, Exception) and not isinstance(error, Moved):
                log.warning("a tenant was not woken", tenant=str(tenant), error=str(error))
        return len(mine)


def _write(isolation: Isolation, tenant: UUID, due: int) -> None:
    with reachable(), isolation.transaction(tenant) as db:
        db.execute(
            "INSERT INTO wakeups (tenant_id, at) VALUES (%s, to_timestamp(%s::numeric / 1000000)) "
            "ON CONFLICT (tenant_id) DO UPDATE SET at = excluded.at",
            (tenant, due),
        )


def _remove(isolation: Isolation, tenant: UUID) -> None:
    with reachable(), isolation.transaction(tenant) as db:
        db.execute("DELETE FROM wakeups")


def _asleep(isolation: Isolation, now: int) -> list[UUID]:
    with reachable(), isolation.connection("placement") as db:
        found = db.execute(
            "SELECT tenant_id FROM wakeups WHERE at <= to_timestamp(%s::numeric / 1000000) "
            "ORDER BY at LIMIT %s",
            (now, WAKEN_AT_ONCE),
        )
        return [tenant for (tenant,) in found]


def due_key(command: Command) -> bytes:
    """Of what time asked for: every such command is unlike any other."""
    return key_of_command(f"due\x1f{content_of(Order(command, b'')).hex()}")
