"""Replicas: who exists and what is agreed in tenants that another worker serves, for those who ask here.

A replica is the fold of all events but the ones that only count: charges, transfers, thresholds. So it
costs next to nothing to keep, however much is charged; and it has no balances, which readers take from
the views. Each look reads what has been committed since the last.
"""

import asyncio
from collections import OrderedDict
from concurrent.futures import Executor
from uuid import UUID

from ..domain.contract import PeriodOpened
from ..domain.events import TOPICS
from ..domain.snapshot import COUNTED
from ..domain.tenant import Tenant
from ..tenants.isolation import Isolation
from .log import Row, reachable, recorded
from .snapshots import Snapshots

REPLICAS_MAX = 1_000
"""Those looked at longest ago leave memory first."""
STRUCTURE = sorted(set(TOPICS) - COUNTED | {PeriodOpened.topic})


class Replicas:
    """Use it from one event loop."""

    def __init__(self, isolation: Isolation, executor: Executor) -> None:
        self._isolation = isolation
        self._executor = executor
        self._replicas: OrderedDict[UUID, _Replica] = OrderedDict()

    async def state(self, tenant: UUID) -> Tenant:
        """As committed by now."""
        replica = self._replicas.get(tenant)
        if replica is None:
            replica = self._replicas[tenant] = _Replica(self._isolation, tenant, self._executor)
            if len(self._replicas) > REPLICAS_MAX:
                self._replicas.popitem(last=False)
        self._replicas.move_to_end(tenant)
        return await replica.current()

    def drop(self, tenant: UUID) -> None:
        """It is served here now."""
        self._replicas.pop(tenant, None)


class _Replica:
    def __init__(self, isolation: Isolation, tenant: UUID, executor: Executor) -> None:
        self._isolation = isolation
        self._tenant = tenant
        self._executor = executor
        self._state: Tenant | None = None
        self._seq = 0
        self._turn = asyncio.Lock()
        self._looks = 0

    async def current(self) -> Tenant:
        """One look serves all who came before it began."""
        came = self._looks
        async with self._turn:
            if self._looks == came:
                await self._look()
        assert self._state is not None
        return self._state

    async def _look(self) -> None:
        self._looks += 1
        try:
            rows, seq = await asyncio.get_running_loop().run_in_executor(self._executor, self._read)
        except BaseException:
            self._looks -= 1
            raise
        # Applied here: readers of the state run in this loop, and never see half of an event.
        self._apply(rows, seq)

    def _read(self) -> tuple[list[Row], int]:
        if self._state is None:
            self._seq, self._state = self._begun()
        with reachable(), self._isolation.transaction(self._tenant) as db:
            found = db.execute("SELECT seq FROM log_heads").fetchone()
            head = found[0] if found else 0
            if head <= self._seq:
                return [], self._seq
            rows = db.execute(_STRUCTURE, (self._seq, head, STRUCTURE), binary=True, prepare=True)
            return [Row(*row) for row in rows], head

    def _begun(self) -> tuple[int, Tenant]:
        """From the newest snapshot, or with nothing."""
        return Snapshots(self._isolation, self._tenant, self._executor).structure() or (0, Tenant())

    def _apply(self, rows: list[Row], seq: int) -> None:
        assert self._state is not None
        for row in rows:
            event = recorded(row).event
            if isinstance(event, PeriodOpened):
                # With its bounds and terms, and no buckets.
                self._state.contracts.apply(event)
            else:
                self._state.apply(event)
        self._seq = seq


_STRUCTURE = """
SELECT seq, topic, state, 0::bigint, NULL::bytea, ''::bytea FROM events
WHERE seq > %s AND seq <= %s AND topic = ANY(%s) ORDER BY seq
"""
