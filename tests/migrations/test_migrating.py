"""Migrations beside what runs, and beside each other."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
from lending import drop
from patience import until

from allotment.backend.log import Group, PostgresLog
from allotment.migrations import run
from allotment.migrations.run import TablesInUse, migrate
from allotment.tenants.isolation import Isolation

BEFORE, CHANGES_EVENTS = "0034", "0035"


@pytest.fixture
def address(servers, migrated):
    """Of a database at the version before one that changes the table of events."""
    name = f"migrating_{uuid4().hex}"
    with psycopg.connect(servers.database_url, autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    made = servers.database_url.replace("/allotment?", f"/{name}?")
    migrate(made, BEFORE)
    yield made
    drop(migrated, made)


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(run, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(run, "PAUSE_SECONDS", 0.02)


@pytest.fixture
def warned(monkeypatch):
    said = []

    class Log:
        def warning(self, event, **facts):
            said.append((event, facts))

    monkeypatch.setattr(run, "log", Log())
    return said


@pytest.fixture
def reading(address):
    """A transaction that has read events, and is not over."""
    with psycopg.connect(address, application_name="a long look") as db:
        db.execute("SELECT count(*) FROM allotment.events")
        yield db


def revision(address):
    with psycopg.connect(address) as db:
        return db.execute("SELECT version_num FROM allotment.alembic_version").fetchone()[0]


def test_a_version_that_waits_for_a_table_lets_everybody_else_pass(address, reading, hasty, warned):
    isolation = Isolation(address)
    log = PostgresLog(isolation, uuid4())
    with ThreadPoolExecutor(1) as thread:
        migrating = thread.submit(migrate, address, CHANGES_EVENTS)
        until(lambda: warned)
        group = Group(log.tenant, log.claim(), 1)
        group.add("t", b"x", None)
        log.append(group)
        assert not migrating.done()
        reading.rollback()
        assert migrating.result() == (BEFORE, CHANGES_EVENTS)
    isolation.close()
    (said, facts), *_ = warned
    assert said == "a migration waits for tables in use"
    assert "ALTER TABLE allotment.events" in facts["waits"]
    assert "a long look (process" in facts["waits"]


def test_a_version_that_never_gets_its_table_says_so_and_those_before_it_stay(
    address, hasty, warned, monkeypatch
):
    monkeypatch.setattr(run, "PATIENCE_SECONDS", 0.2)
    with psycopg.connect(address, application_name="a long look") as db:
        db.execute("SELECT count(*) FROM allotment.balances")
        with pytest.raises(TablesInUse, match=r"ALTER TABLE allotment.balances .* a long look"):
            migrate(address, "0036")
    assert revision(address) == CHANGES_EVENTS
    assert migrate(address) == (CHANGES_EVENTS, run.head_revision())
