"""Writers over both logs, logs through bad connections, and enterprises to charge."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from patience import PATIENCE_SECONDS

from allotment.backend.asking import Answer, UsageOutcome
from allotment.backend.keys import command_key
from allotment.backend.log import (
    Fenced,
    Group,
    Head,
    Log,
    LogUnavailable,
    MemoryLog,
    PostgresLog,
    Row,
    recorded,
)
from allotment.backend.seen import SeenKeys
from allotment.backend.writer import Writer
from allotment.domain.charging import UsageCharged
from allotment.domain.contract import Grant, SignContract
from allotment.domain.hierarchy import AddNode
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.tenant import OpenTenant
from allotment.domain.usage import UnreadableRecord, Usage, UsageRecord
from allotment.tenants.isolation import Isolation
from allotment.tenants.onboarding import Enrol, TenantEntry, register
from allotment.tenants.sealing import RootKey, Sealer, create_tenant_key, load_sealer

NOON = 1_794_744_000_000_000
"""2026-11-15 12:00 UTC, in microseconds: what the clock of these tests says."""
SECOND = 1_000_000
ROOT = RootKey(b"r" * 32)
RATES = (
    Rate("voice", "uk", "0.05", 60, "+44", increment=60),
    Rate("voice", "any", "0.1", 60, ""),
    Rate("data", "any", "2", 10**9, increment=1024),
    Rate("messaging", "any", "0.01"),
    Rate("video", "any", "0.2", 60),
)


class Store:
    """A tenant's log, in memory or in PostgreSQL, and the keys that belong to it."""

    def __init__(self, isolation: Isolation | None) -> None:
        self.tenant = uuid4()
        self.isolation = isolation
        self._tenant_key = self.tenant.bytes * 2
        if isolation is None:
            self.log: Log = MemoryLog()
        else:
            with isolation.transaction(self.tenant) as connection:
                create_tenant_key(connection, ROOT, self.tenant)
            self.log = PostgresLog(isolation, self.tenant)

    def load_sealer(self) -> Sealer:
        if self.isolation is None:
            return Sealer(self.tenant, self._tenant_key, dict(self.log.subject_keys))
        return load_sealer(self.isolation, ROOT, self.tenant)

    def writer(
        self, log: Log | None = None, clock: Callable[[], int] = lambda: NOON, **options: Any
    ) -> Writer:
        return Writer(self.tenant, log or self.log, self.load_sealer, clock, **options)

    @asynccontextmanager
    async def opened(self, log: Log | None = None, **options: Any) -> AsyncIterator[Writer]:
        """A running writer, closed at the end if it can be."""
        writer = self.writer(log, **options)
        await writer.start()
        try:
            yield writer
        finally:
            await in_time(writer.close())

    def rows(self) -> list[Row]:
        return self.log.read(0, 1_000_000)

    def charges(self) -> list[UsageCharged]:
        events = (recorded(row).event for row in self.rows())
        return [event for event in events if isinstance(event, UsageCharged)]

    def charged_ids(self) -> list[str]:
        return [charge.record_id for charge in self.charges()]


@pytest.fixture(params=["memory", "postgres"])
def store(request) -> Store:
    """Both logs: the same test runs on each."""
    return Store(request.getfixturevalue("isolation") if request.param == "postgres" else None)


@pytest.fixture
def memory() -> Store:
    return Store(None)


@pytest.fixture
def postgres(isolation) -> Store:
    return Store(isolation)


@pytest.fixture
def short_memory(monkeypatch) -> int:
    """A writer that remembers two generations of so many keys, and asks the log for all older ones."""
    kept = 600
    monkeypatch.setattr("allotment.backend.deciding.SeenKeys", lambda: SeenKeys(kept))
    return kept


class Through:
    """A log through a connection; what becomes of each append is said beforehand."""

    def __init__(self, log: Log, *fates: str) -> None:
        self.log = log
        self.fates = deque(fates)
        """For the appends to come: "kept", "lost" on the way there, "unheard" on the way back."""
        self.commits: list[int] = []
        """How many events each append brought that was stored."""
        self.open = threading.Event()
        """While not set, appends wait."""
        self.open.set()
        self.find_fails = 0
        self.claims = 0

    def claim(self) -> Head:
        self.claims += 1
        return self.log.claim()

    def head(self) -> Head:
        return self.log.head()

    def append(self, group: Group) -> None:
        assert self.open.wait(PATIENCE_SECONDS)
        fate = self.fates.popleft() if self.fates else "kept"
        if fate == "lost":
            raise LogUnavailable("the connection was cut before the group was sent")
        if fate == "fenced":
            raise Fenced("another writer has taken over")
        self.log.append(group)
        self.commits.append(len(group.states))
        if fate == "unheard":
            raise LogUnavailable("the connection was cut before the answer came")

    def read(self, after: int = 0, limit: int = 10_000, upto: int | None = None) -> list[Row]:
        return self.log.read(after, limit, upto)

    def find(self, command_keys: Sequence[bytes]) -> list[Row]:
        if self.find_fails:
            self.find_fails -= 1
            raise LogUnavailable("the connection was cut")
        return self.log.find(command_keys)


def in_time(work: Awaitable[Any], seconds: float = PATIENCE_SECONDS) -> Awaitable[Any]:
    """Whoever waits longer waits for ever: a test that hangs says nothing."""
    return asyncio.wait_for(work, seconds)


async def submit(writer: Writer, command: Any, key: str, actor: str = "carrier:test") -> Answer:
    return await in_time(writer.submit(command, command_key(key), actor))


async def charge(writer: Writer, *records: Usage) -> list[UsageOutcome]:
    return await in_time(writer.submit_usage(records, "mediation:test"))


def entered(isolation: Isolation) -> Store:
    """The log of a tenant that the directory has."""
    store = Store(isolation)
    register(isolation, ROOT, TenantEntry(store.tenant, "acme", "Acme", "carrier", "Europe/Berlin", "EUR"))
    return store


async def furnish(
    writer: Writer, *, lines: int = 10, voice: int = 0, zone: str = "Europe/Berlin", since: int = 0
) -> None:
    """An enterprise with a division, a cost centre, resources r0.. on lines +440, +441 .., a tariff."""
    commands = [
        OpenTenant("Acme", zone, "EUR", "carrier"),
        AddNode("acme", "", "Acme", "enterprise"),
        AddNode("emea", "acme", "EMEA", "division"),
        AddNode("sales", "emea", "Sales", "cost_centre"),
        *(Enrol(f"r{i}", "sales", "msisdn", since, (line(i),)) for i in range(lines)),
        SignContract("c", "1971-01-01", (Grant("voice", voice), Grant("data", 10**12))),
        PublishTariff("std", since, "EUR", RATES),
    ]
    await asyncio.gather(*(submit(writer, command, f"furnish {i}") for i, command in enumerate(commands)))


def line(number: int) -> str:
    return f"+44{number}"


def call(record_id: object, number: int = 0, seconds: int = 61, **changes: Any) -> UsageRecord:
    fields: dict[str, Any] = {
        "source": "switch",
        "record_id": f"call-{record_id}",
        "line": line(number),
        "usage_type": "voice",
        "quantity": seconds,
        "started_at": NOON - 60 * SECOND,
        "counterpart": "+442071838750",
    }
    return UsageRecord(**(fields | changes))


def unreadable(record_id: object, raw: str = "garbled") -> UnreadableRecord:
    return UnreadableRecord(
        "switch", f"call-{record_id}", "malformed", "start", "is not a time", raw, "calls:1"
    )


def tenant_with_key(isolation: Isolation) -> UUID:
    tenant = uuid4()
    with isolation.transaction(tenant) as connection:
        create_tenant_key(connection, ROOT, tenant)
    return tenant


def statuses(outcomes: Sequence[UsageOutcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]
