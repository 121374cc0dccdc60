"""Databases for tests: migrated once per session, lent to each test; and enterprises to fill them.

Found by `conftest.py` by its name.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from lending import Lending, drop
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from allotment.backend.keys import command_key
from allotment.backend.log import Group, PostgresLog
from allotment.backend.writer import Writer
from allotment.domain.charging import ChargeUsage
from allotment.domain.contract import Grant, OpenPeriod, PeriodNotOpen, SignContract
from allotment.domain.events import encode
from allotment.domain.hierarchy import AddNode, AddResource, Identity
from allotment.domain.refusals import Refused
from allotment.domain.tariff import PublishTariff, Rate
from allotment.domain.tenant import OpenTenant, Tenant
from allotment.domain.usage import UsageRecord
from allotment.migrations.run import migrate
from allotment.tenants.isolation import Isolation
from allotment.tenants.sealing import RootKey, create_tenant_key, load_sealer

NOVEMBER = 1_793_491_200_000_000
"""2026-11-01 in UTC, in microseconds."""
RATES = (
    Rate("voice", "uk", "0.05", 60, "+44", increment=60),
    Rate("voice", "any", "0.1", 60, ""),
    Rate("data", "any", "2", 10**9, increment=1024),
)


@pytest.fixture(scope="session")
def migrated(servers) -> str:
    """A migrated database that is only ever copied."""
    address = _create(servers.database_url, "migrated", "template0")
    migrate(address)
    return address


@pytest.fixture(scope="session")
def lending(servers, migrated) -> Lending:
    return Lending(migrated, lambda: _create(servers.database_url, f"test_{uuid4().hex}", "migrated"))


@pytest.fixture
def database(lending, migrated, request) -> Iterator[str]:
    """The address of a migrated, empty database that nobody else has while this test runs."""
    if request.node.get_closest_marker("untouched_database") is not None:
        address = lending.copy()
        yield address
        drop(migrated, address)
    else:
        address = lending.lend()
        yield address
        lending.take_back(address)


@pytest.fixture
def isolation(database) -> Iterator[Isolation]:
    opened = Isolation(database)
    yield opened
    opened.close()


def _create(address: str, name: str, template: str) -> str:
    with psycopg.connect(address, autocommit=True) as connection:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
    return _address(address, name)


def _address(address: str, name: str) -> str:
    """The same server's address, for another database."""
    before, _, rest = address.partition("://")
    authority, _, path = rest.partition("/")
    _, question, options = path.partition("?")
    assert conninfo_to_dict(make_conninfo(address))["dbname"]
    return f"{before}://{authority}/{name}{question}{options}"


class Enterprise:
    """A tenant and its log, written without a writer: commands are decided at once, stored by `commit`."""

    def __init__(self, isolation: Isolation, now: int = NOVEMBER + 86_400_000_000) -> None:
        self.isolation = isolation
        self.tenant: UUID = uuid4()
        self.log = PostgresLog(isolation, self.tenant)
        self.state = Tenant()
        self.now = now
        self.group: Group | None = None
        self._keys = count()

    def opened(self) -> "Enterprise":
        """With four nodes, three resources, an allowance and a tariff."""
        self.do(OpenTenant("Acme", "Europe/Berlin", "EUR", "carrier"))
        self.do(AddNode("acme", "", "Acme", "enterprise"))
        self.do(AddNode("emea", "acme", "EMEA", "division"))
        self.do(AddNode("sales", "emea", "Sales", "cost_centre"))
        self.do(AddNode("apac", "acme", "APAC", "division"))
        for resource, node in (("r1", "sales"), ("r2", "sales"), ("r3", "apac")):
            self.do(AddResource(resource, node, "msisdn", 0, (identity(resource),)))
        self.do(SignContract("c", "2026-01-01", (Grant("voice", 100_000), Grant("data", 10**9))))
        self.do(PublishTariff("std", 0, "EUR", RATES))
        return self

    def do(self, command: Any, key: bytes | None = None) -> list[Any]:
        """Carry out a command; the events, none if it is refused."""
        key = key or command_key(f"k{next(self._keys)}")
        try:
            events = self.state.decide(command, self.now)
        except PeriodNotOpen as needed:
            self.do(OpenPeriod(needed.period))
            return self.do(command, key)
        except Refused:
            return []
        for event in events:
            self.state.apply(event)
            self._group().add(event.topic, encode(event, "carrier:test", bytes(8)), key)
            key = None
        return list(events)

    def use(
        self, line: str, usage_type: str, quantity: int, to: str = "+4420718", at: int | None = None
    ) -> list[Any]:
        record_id = f"u{next(self._keys)}"
        started_at = self.now - 1_000_000 if at is None else at
        record = UsageRecord("test", record_id, line, usage_type, quantity, started_at, "outbound", to)
        token = identity(line).token
        return self.do(ChargeUsage(record, token, b"sealed"), command_key(f"usage {record_id}"))

    def commit(self) -> int:
        """Store what was decided; the end of the log."""
        group, self.group = self.group, None
        if group is not None:
            self.log.append(group)
            return group.last
        return self.log.head().seq

    def _group(self) -> Group:
        if self.group is None:
            self.group = Group(self.tenant, self.log.claim(), self.now)
        return self.group


def identity(line: str) -> Identity:
    return Identity(line.encode().ljust(16, b"."), b"sealed " + line.encode())


@pytest.fixture
def enterprise(isolation) -> Callable[[], Enterprise]:
    """Makes enterprises, each a new tenant of the same database."""
    return lambda: Enterprise(isolation)


@pytest.fixture
def written(isolation) -> Callable[..., AbstractAsyncContextManager[Writer]]:
    """Makes enterprises with a running writer, as the product has them."""

    @asynccontextmanager
    async def open_writer(on_commit: Any = None) -> Any:
        tenant, root = uuid4(), RootKey(b"r" * 32)
        with isolation.transaction(tenant) as connection:
            create_tenant_key(connection, root, tenant)
        writer = Writer(
            tenant,
            PostgresLog(isolation, tenant),
            lambda: load_sealer(isolation, root, tenant),
            lambda: time.time_ns() // 1000,
            on_commit=on_commit,
        )
        await writer.start()
        try:
            yield writer
        finally:
            await writer.close()

    return open_writer
