"""Sharing: an engine among others. What is asked here is done here, or by the worker that serves the tenant.

A caller waits while its tenant moves, or while a worker that is gone is found out; it is told of neither.
What it may be told is what it would be told by one worker alone.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import psycopg
import structlog

from ..domain.usage import Usage
from .asking import Answer, Order, UsageOutcome
from .log import LogClosed, LogUnavailable
from .peers import Peers, TooLarge
from .placement import Placement
from .wire import (
    Adopted,
    Adopting,
    Asked,
    Charged,
    Charging,
    Counted,
    Done,
    Elsewhere,
    Ordering,
    Refusal,
    Told,
    Trouble,
    answer_of,
    charging,
    done,
    order_of,
    ordering,
    raised,
)
from .writer import Moved, Unavailable

if TYPE_CHECKING:
    from .engine import Engine

ROUTE_SECONDS_MAX = 20.0
"""Longer than a worker that is gone is waited for, and its tenant loaded."""
PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.01, 0.25

log = structlog.get_logger()
R = TypeVar("R")


class Sharing:
    """What an engine needs in order to be one of many. Starts and stops with it."""

    def __init__(self, placement: Placement, peers: Peers) -> None:
        self.placement = placement
        self.peers = peers
        self.forwarded = 0
        """Asked of another worker."""
        self.answered = 0
        """Asked of us by another worker."""
        self.handed_over = 0
        self.in_crew = False
        """Whether this worker shares its address with others on its machine."""
        self.count: Callable[[], bytes] = bytes
        """How this worker is doing, for whoever watches all of them."""
        self._engine: Engine | None = None
        self._adopting: set[asyncio.Task[object]] = set()

    async def start(self, engine: "Engine") -> None:
        self._engine = engine
        # In this order: whoever sees us alive may ask.
        await self.peers.start(self._answer)
        await self.placement.start(engine)

    async def stop(self) -> None:
        """When the writers are closed."""
        for task in self._adopting:
            task.cancel()
        await self.placement.stop()
        await self.peers.stop()

    def _serving(self) -> "Engine":
        assert self._engine is not None, "start it first"
        return self._engine

    def holds(self, tenant: UUID) -> bool:
        return self.placement.holds(tenant)

    # --- the way to a tenant ----------------------------------------------------------------

    async def charge(
        self,
        tenant: UUID,
        records: Sequence[Usage],
        actor: str,
        positions: Sequence[str],
        *,
        first: bool = False,
    ) -> list[UsageOutcome]:
        async def there(worker: UUID) -> list[UsageOutcome]:
            asked = charging(tenant, records, actor, positions, ROUTE_SECONDS_MAX, first=first)
            try:
                told = await self._ask(worker, asked)
            except TooLarge:
                return await self._charge_in_halves(tenant, records, actor, positions)
            assert isinstance(told, Charged)
            return told.outcomes

        engine = self._engine
        assert engine is not None
        return await self._routed(
            tenant, lambda: engine.charge_here(tenant, records, actor, positions, first=first), there
        )

    async def _charge_in_halves(
        self, tenant: UUID, records: Sequence[Usage], actor: str, positions: Sequence[str]
    ) -> list[UsageOutcome]:
        middle = len(records) // 2
        assert middle, "one record fits into a message"
        first = await self.charge(tenant, records[:middle], actor, positions[:middle])
        return first + await self.charge(tenant, records[middle:], actor, positions[middle:])

    async def carry_out(self, tenant: UUID, order: Order, actor: str) -> Answer:
        async def there(worker: UUID) -> Answer:
            told = await self._ask(worker, ordering(tenant, order, actor, ROUTE_SECONDS_MAX))
            assert isinstance(told, Done)
            return answer_of(told)

        async def here() -> Answer:
            return await self._serving().carry_out_here(tenant, order, actor)

        return await self._routed(tenant, here, there)

    async def _routed(
        self, tenant: UUID, here: Callable[[], Awaitable[R]], there: Callable[[UUID], Awaitable[R]]
    ) -> R:
        """Ask where the tenant is, until somebody there answers."""
        until, pause = time.monotonic() + ROUTE_SECONDS_MAX, PAUSE_SECONDS
        while True:
            try:
                place = await self.placement.place_of(tenant)
                return await (here() if place == self.placement.me else there(place))
            except (Moved, LogUnavailable, psycopg.OperationalError) as error:
                known = error.place if isinstance(error, Elsewhere) else None
                self.placement.forget(tenant, known)
                if isinstance(error, LogClosed) or time.monotonic() > until:
                    raise Unavailable(f"the tenant's worker cannot be found: {error}") from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)

    async def _ask(self, worker: UUID, asked: Charging | Ordering) -> Told:
        told = await self.peers.ask(worker, asked, lambda: self.placement.is_alive(worker))
        self.forwarded += 1
        if isinstance(told, Refusal | Trouble):
            raise raised(told)
        return told

    # --- asked by others --------------------------------------------------------------------

    async def _answer(self, asked: Asked) -> Told:
        if isinstance(asked, Adopting):
            self.adopt(asked.tenant)
            return Adopted()
        if not isinstance(asked, Charging | Ordering):
            return Counted(self.count())
        self.answered += 1
        if not self.placement.takes_tenants and not self.placement.holds(asked.tenant):
            raise Elsewhere
        await self.be_there(asked.tenant)
        engine = self._serving()
        if isinstance(asked, Charging):
            return Charged(
                await engine.charge_here(
                    asked.tenant, asked.all_records(), asked.actor, asked.positions, first=asked.first
                )
            )
        return done(await engine.carry_out_here(asked.tenant, order_of(asked), asked.actor))

    async def be_there(self, tenant: UUID) -> None:
        """Serve the tenant, if nobody else does: whoever asked thinks that it is ours."""
        if self.placement.holds(tenant):
            return
        holder = await self.placement.take(tenant)
        if holder != self.placement.me:
            raise Elsewhere(holder)

    # --- moving -----------------------------------------------------------------------------

    def adopt(self, tenant: UUID) -> None:
        """Be ready before somebody asks."""
        task = asyncio.create_task(self._adopted(self._serving(), tenant))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _adopted(self, engine: "Engine", tenant: UUID) -> None:
        try:
            await self.be_there(tenant)
            await engine.writer(tenant)
        except Exception as error:  # noqa: BLE001  (whoever asks for the tenant will hear of it)
            log.warning("a tenant is not served yet", tenant=str(tenant), error=str(error))

    async def let_go(self, tenant: UUID, successor: UUID | None) -> None:
        """The writer is closed: the tenant is the successor's, or whoever's comes first."""
        if successor is None:
            await self.placement.release(tenant)
        else:
            await self.give(tenant, successor)

    async def let_go_at_the_end(self, tenant: UUID) -> None:
        """So that others need not wait until all writers are closed; they do if the database is away."""
        with contextlib.suppress(LogUnavailable, psycopg.Error):
            await self.placement.release(tenant)

    async def give(self, tenant: UUID, successor: UUID) -> None:
        """Nobody here serves the tenant."""
        await self.placement.give(tenant, successor)
        self.handed_over += 1
        try:
            await self.peers.ask(successor, Adopting(tenant), lambda: self.placement.is_alive(successor))
        except Unavailable as error:
            log.info("the successor was not told, it will be asked", error=str(error))
