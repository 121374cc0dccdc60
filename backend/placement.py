"""Placement: which tenants this worker serves, and where the others are.

Tenants are spread by rendezvous hashing over the workers that are alive and take any: one more worker
takes its share from all the others, one less gives its own to all the others, and nothing else moves.
Where a tenant really is, its lease says. What is held here may be decided on only until shortly before
the lease would run out, by a clock that goes on while the process stands still.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import NamedTuple, Protocol, TypeVar
from uuid import UUID, uuid4

import psycopg
import structlog

from ..tenants.isolation import Isolation
from .leases import NAME, Leases, NotAlive, WorkerSeen
from .log import LogClosed, LogUnavailable
from .stopping import cancelled
from .writer import Moved

LEASE_SECONDS = 3.0
"""How long a worker that is gone keeps its tenants waiting, at most; besides what loading them takes."""
BEAT_SECONDS = 0.6
MARGIN_SECONDS = 0.8
"""So long before its lease runs out a worker stops deciding: clocks differ in pace, and threads wait."""
SETTLED_SECONDS = 2.0
"""A worker is given tenants of others once it has lived so long: it may fail at once, and often does."""
RETIRE_PAUSE_SECONDS = 0.1
HANDED_AT_ONCE = 8
FORGET_EVERY_BEATS = 100

log = structlog.get_logger()
R = TypeVar("R")


def steady_clock() -> float:
    """Seconds that pass also while the process, or the machine, stands still."""
    return time.clock_gettime(_STEADY)


_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Timing(NamedTuple):
    """Of leases and heartbeats, in seconds."""

    lease: float = LEASE_SECONDS
    beat: float = BEAT_SECONDS
    margin: float = MARGIN_SECONDS
    settled: float = SETTLED_SECONDS


class Tenancy(Protocol):
    """Who has the writers: what is decided here is done there."""

    def adopt(self, tenant: UUID) -> None:
        """Begin to serve a tenant whose worker is gone."""
        ...

    async def hand_over(self, tenant: UUID, successor: UUID) -> None:
        """Finish what has been taken, and give the lease away."""
        ...

    def abandon(self, tenant: UUID) -> None:
        """Stop at once: the lease is another's."""
        ...


class Placement:
    """One worker among others. Start it, and stop it when the writers are closed."""

    def __init__(self, isolation: Isolation, *, takes_tenants: bool, timing: Timing | None = None) -> None:
        self.me = uuid4()
        self.timing = timing or Timing()
        self.takes_tenants = takes_tenants
        self.takeovers = 0
        """Tenants taken from workers that were gone."""
        self.lost = 0
        """Tenants another worker took from this one."""
        self._leases = Leases(isolation, self.me, self.timing.lease)
        self._threads = ThreadPoolExecutor(3, thread_name_prefix="placement")
        self._heart = ThreadPoolExecutor(1, thread_name_prefix="heartbeat")
        """For heartbeats alone: behind a thousand callers one would come when the lease has run out."""
        self._held: set[UUID] = set()
        self._going: set[UUID] = set()
        """On their way to another worker."""
        self._safe_until = 0.0
        self._workers: dict[UUID, WorkerSeen] = {}
        self._places: dict[UUID, UUID] = {}
        """Where tenants were when they were last asked for."""
        self._empty: set[UUID] = set()
        """The dead that have left no tenants."""
        self._tenancy: Tenancy | None = None
        self._beating: asyncio.Task[None] | None = None
        self._moving: set[asyncio.Task[None]] = set()
        self._inheriting: asyncio.Task[None] | None = None
        self._beats = 0

    async def start(self, tenancy: Tenancy) -> None:
        self._tenancy = tenancy
        await self._beat()
        self._beating = asyncio.create_task(self._keep_beating(), name="heartbeat")

    async def stop(self) -> None:
        """Be gone, with all leases. The writers are closed before."""
        if self._beating is not None:
            await cancelled([self._beating])
            await cancelled([*self._moving, *([self._inheriting] if self._inheriting else [])])
        self._safe_until = 0.0
        self._held.clear()
        try:
            await self._in_thread(self._leases.leave)
        except (LogUnavailable, psycopg.Error) as error:
            # Our heartbeat ends with us: whoever looks finds the leases free in a moment.
            log.warning("leases not given back", error=str(error))
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._heart.shutdown(wait=False, cancel_futures=True)

    # --- looking ----------------------------------------------------------------------------

    @property
    def held(self) -> frozenset[UUID]:
        return frozenset(self._held)

    def is_safe(self) -> bool:
        """Whether our leases hold for sure."""
        return steady_clock() < self._safe_until

    def holds(self, tenant: UUID) -> bool:
        return tenant in self._held and tenant not in self._going

    def is_alive(self, worker: UUID) -> bool:
        """As of the last heartbeat of ours."""
        seen = self._workers.get(worker)
        return seen is not None and seen.alive

    @property
    def takers(self) -> int:
        """How many workers tenants may be placed on."""
        return len(self._takers())

    def on_this_machine(self) -> list[tuple[UUID, str]]:
        """Those that serve here, with their names."""
        machine = NAME.rpartition(":")[0]
        alive = [self._workers[worker] for worker in self.others() if worker in self._workers]
        return [(one.worker_id, one.name) for one in alive if one.name.rpartition(":")[0] == machine]

    def others(self) -> list[UUID]:
        """The other workers that take tenants."""
        return [worker for worker in self._takers() if worker != self.me]

    def preferred(self, tenant: UUID, among: Iterable[UUID] | None = None) -> UUID | None:
        """Where the tenant belongs; None where nobody takes any."""
        return max(
            self._takers() if among is None else among,
            key=lambda worker: _weight(worker, tenant),
            default=None,
        )

    def _takers(self, settled: float = 0.0) -> list[UUID]:
        takers = [
            worker
            for worker, seen in self._workers.items()
            if seen.alive and seen.takes_tenants and seen.age_seconds >= settled and worker != self.me
        ]
        return [*takers, self.me] if self.takes_tenants else takers

    async def place_of(self, tenant: UUID) -> UUID:
        """Who serves the tenant, or should; if that is us, its lease is ours."""
        if self.holds(tenant):
            return self.me
        known = self._places.get(tenant)
        if known is not None and known != self.me and self.is_alive(known):
            return known
        holder = await self._in_thread(lambda: self._leases.holder(tenant))
        if holder is None:
            holder = self.preferred(tenant) or self.me
        if holder == self.me:
            holder = await self.take(tenant)
        self._places[tenant] = holder
        return holder

    def forget(self, tenant: UUID, place: UUID | None = None) -> None:
        """What was known of its place was wrong; what is known instead."""
        self._places.pop(tenant, None)
        if place is not None and place != self.me:
            self._places[tenant] = place

    # --- holding ----------------------------------------------------------------------------

    async def take(self, tenant: UUID) -> UUID:
        """Take its lease if nobody alive holds it; who holds it now. Raises Moved on its way out."""
        if tenant in self._going:
            raise Moved("the tenant is on its way to another worker")
        if tenant in self._held:
            return self.me
        try:
            holder = await self._in_thread(lambda: self._leases.take(tenant))
        except NotAlive as error:
            raise Moved(str(error)) from error
        if holder == self.me:
            self._held.add(tenant)
        return holder

    def drop(self, tenant: UUID) -> None:
        """Its lease turned out to be another's."""
        self.lost += tenant in self._held
        self._held.discard(tenant)
        self._places.pop(tenant, None)

    async def release(self, tenant: UUID) -> None:
        """Nobody uses it: whoever does next decides where it goes."""
        self._held.discard(tenant)
        await self._in_thread(lambda: self._leases.release(tenant))

    async def give(self, tenant: UUID, successor: UUID) -> None:
        await self._in_thread(lambda: self._leases.give(tenant, successor))
        self._held.discard(tenant)
        self._places[tenant] = successor

    async def retire(self) -> None:
        """Take no more, and hand over what is held, as long as there is anybody to take it."""
        self.takes_tenants = False
        await self._beat()
        turns = asyncio.Semaphore(HANDED_AT_ONCE)

        async def hand_over(tenant: UUID, others: list[UUID]) -> None:
            successor = self.preferred(tenant, others)
            assert successor is not None
            async with turns:
                await self._hand_over(tenant, successor)

        while self._held and (others := self.others()):
            going = [hand_over(tenant, others) for tenant in self._held]
            await asyncio.gather(*going, *self._moving, return_exceptions=True)
            if self._held:
                # What was being taken, or could not be handed over, just now.
                await asyncio.sleep(RETIRE_PAUSE_SECONDS)

    async def _hand_over(self, tenant: UUID, successor: UUID) -> None:
        if not self.holds(tenant) or self._tenancy is None:
            return
        self._going.add(tenant)
        try:
            await self._tenancy.hand_over(tenant, successor)
        except Exception as error:
            log.warning("a tenant was not handed over", tenant=str(tenant), error=str(error))
            raise
        finally:
            self._going.discard(tenant)

    # --- living on --------------------------------------------------------------------------

    async def _keep_beating(self) -> None:
        while True:
            began = steady_clock()
            try:
                await self._beat()
                await self._look_after()
            except LogClosed:
                return
            except Exception as error:  # noqa: BLE001  (whatever it was, the next beat may do)
                log.warning("no heartbeat", error=str(error))
            await asyncio.sleep(max(0.1, self.timing.beat - (steady_clock() - began)))

    async def _beat(self) -> None:
        sent = steady_clock()
        try:
            seen = await self._by_heart(lambda: self._leases.beat(takes_tenants=self.takes_tenants))
        except LogClosed:
            # Nobody is known to be alive any more: who waits for another worker's answer need not.
            self._workers = {}
            raise
        self._workers = {one.worker_id: one for one in seen}
        before = self._workers.get(self.me)
        if self._held and (before is None or not before.alive):
            # We were as good as dead: what another has taken meanwhile is no longer ours.
            kept = await self._by_heart(lambda: self._leases.of([self.me]))
            self._abandon(self._held - kept)
        self._safe_until = sent + self.timing.lease - self.timing.margin

    def _abandon(self, tenants: Iterable[UUID]) -> None:
        for tenant in list(tenants):
            self.drop(tenant)
            if self._tenancy is not None:
                self._tenancy.abandon(tenant)

    async def _look_after(self) -> None:
        """Take over what the dead have left, hand over what belongs elsewhere."""
        dead = {worker for worker, seen in self._workers.items() if not seen.alive and worker != self.me}
        self._empty &= dead
        if (
            dead - self._empty
            and self.takes_tenants
            and (self._inheriting is None or self._inheriting.done())
        ):
            # Beside the heartbeat: a thousand tenants take longer than a lease lasts.
            self._inheriting = asyncio.create_task(self._inherit(dead - self._empty), name="inheriting")
        self._spread()
        self._beats += 1
        if self._beats % FORGET_EVERY_BEATS == 0:
            await self._in_thread(self._leases.forget_the_dead)

    async def _inherit(self, dead: set[UUID]) -> None:
        left = await self._in_thread(lambda: self._leases.of(dead))
        if not left:
            self._empty |= dead
        turns = asyncio.Semaphore(HANDED_AT_ONCE)

        async def take_over(tenant: UUID) -> None:
            async with turns:
                if not self.holds(tenant) and await self.take(tenant) == self.me:
                    self.takeovers += 1
                    assert self._tenancy is not None
                    self._tenancy.adopt(tenant)

        mine = [tenant for tenant in left if self.preferred(tenant) == self.me]
        for error in await asyncio.gather(*map(take_over, mine), return_exceptions=True):
            if isinstance(error, Exception):
                log.warning("a tenant is not taken over yet", error=str(error))

    def _spread(self) -> None:
        """Hand over what belongs to another worker now, a few at a time."""
        takers = self._takers(self.timing.settled)
        for tenant in self._held - self._going:
            if len(self._moving) >= HANDED_AT_ONCE:
                return
            place = self.preferred(tenant, takers)
            if place is not None and place != self.me:
                task = asyncio.create_task(self._hand_over(tenant, place))
                self._moving.add(task)
                task.add_done_callback(self._moved)

    def _moved(self, task: asyncio.Task[None]) -> None:
        self._moving.discard(task)
        if not task.cancelled():
            # It was told in the log already, and will be tried again.
            task.exception()

    def _in_thread(self, work: Callable[[], R]) -> Awaitable[R]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _by_heart(self, work: Callable[[], R]) -> Awaitable[R]:
        return asyncio.get_running_loop().run_in_executor(self._heart, work)


def _weight(worker: UUID, tenant: UUID) -> bytes:
    return blake2b(worker.bytes + tenant.bytes, digest_size=8).digest()
