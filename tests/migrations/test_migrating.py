"""Migrations beside what runs, and beside each other."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
from lending import drop
from patience import until
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

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


@pytest.fixture
def new_roles(servers, monkeypatch):
    """As on a server that has none of ours; gone afterwards."""
    names = tuple(f"role_{uuid4().hex}" for _ in run.ROLES)
    monkeypatch.setattr(run, "ROLES", names)
    monkeypatch.setattr(run, "OWNER", names[0])
    monkeypatch.setattr(run, "APPENDER", names[-1])
    yield names
    with psycopg.connect(servers.database_url, autocommit=True) as db:
        for name in names:
            db.execute(f"DROP ROLE IF EXISTS {name}")


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


def test_two_databases_of_a_new_server_are_prepared_at_once(address, servers, new_roles):
    engine = create_engine(run.sqlalchemy_url(address), poolclass=NullPool)
    with (
        ThreadPoolExecutor(1) as thread,
        psycopg.connect(servers.database_url) as other,
        engine.connect() as connection,
    ):
        other.execute(f"CREATE ROLE {new_roles[1]}")
        preparing = thread.submit(run._prepare_beside_others, connection)
        until(lambda: preparing.done() or is_waiting(address))
        other.commit()
        preparing.result()
        found = other.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", (list(new_roles),))
        assert len(found.fetchall()) == len(new_roles)


def is_waiting(address):
    with psycopg.connect(address) as db:
        return db.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone()[0]
