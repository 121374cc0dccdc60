"""Tallies: what streams brought that left no event, told to the log now and then.

What is charged, rejected or suspended tells of itself. Duplicates, folded legs and ignored rows are
added up here, by tenant and door, and told once a minute, and when the engine closes. Whoever is
killed before that has forgotten the duplicates of the last minute, and nothing else; so has who stops while
a tenant cannot be reached.
"""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import structlog

from ...domain.receiving import SOURCES_MAX, CountDuplicates
from ...domain.refusals import Refused
from ..asking import Order
from ..keys import command_key
from ..log import LogUnavailable
from ..stopping import cancelled
from ..writer import Busy, Halted, Unavailable

if TYPE_CHECKING:
    from ..engine import Engine
    from .door import IntakeReport

TELL_SECONDS = 60.0
STOP_SECONDS_MAX = 5.0
"""Who stops does not wait longer for tenants that cannot be told."""
TOLD_AT_ONCE = 64
"""Tenants; the others take turns."""
ACTOR = "mediation:doors"

log = structlog.get_logger()


class AtDoor:
    """What left no event, of one tenant at one door."""

    def __init__(self) -> None:
        self.key = command_key(f"duplicates:{uuid4()}")
        self.duplicates: Counter[str] = Counter()
        self.merged = self.ignored = 0

    def command(self, door: str) -> CountDuplicates:
        told = self.duplicates.most_common(SOURCES_MAX - 1)
        # However many names a sender invents: the rest is told under none.
        rest = self.duplicates.total() - sum(count for _, count in told)
        sources = (*sorted(told), *((("", rest),) if rest else ()))
        return CountDuplicates(door, sources, self.merged, self.ignored)


class Tallies:
    """Of all tenants of one engine."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._open: dict[tuple[UUID, str], AtDoor] = {}
        self._telling: dict[bytes, tuple[UUID, Order]] = {}
        """Commands made and not stored yet, by key: told again under the same."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._tell(), name="tallies")

    async def stop(self) -> None:
        if self._task is not None:
            await cancelled([self._task])
        try:
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await self.flush()
        except TimeoutError:
            log.warning("duplicates are forgotten", tenants=len({one for one, _ in self._telling.values()}))

    def add(self, tenant: UUID, door: str, report: "IntakeReport") -> None:
        if not (report.duplicate or report.merged or report.ignored):
            return
        tally = self._open.setdefault((tenant, door), AtDoor())
        for source, counts in report.sources.items():
            if counts.duplicate:
                tally.duplicates[source] += counts.duplicate
        tally.merged += report.merged
        tally.ignored += report.ignored

    async def flush(self) -> None:
        """Tell what there is to tell."""
        tallies, self._open = self._open, {}
        for (tenant, door), tally in tallies.items():
            self._telling[tally.key] = tenant, Order(tally.command(door), tally.key)
        turns = asyncio.Semaphore(TOLD_AT_ONCE)
        telling = self._telling.values()
        await asyncio.gather(*(self._tell_one(tenant, order, turns) for tenant, order in telling))

    async def _tell_one(self, tenant: UUID, order: Order, turns: asyncio.Semaphore) -> None:
        try:
            async with turns:
                await self._engine.carry_out(tenant, order, ACTOR)
        except (Busy, Unavailable, LogUnavailable):
            return
        except (Refused, Halted) as error:
            log.warning("duplicates cannot be told", tenant=str(tenant), error=str(error))
        except Exception:
            log.exception("duplicates were not told", tenant=str(tenant))
            return
        self._telling.pop(order.key, None)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            await self.flush()
