"""The tests' own databases: lent again only if they are as new."""

from uuid import uuid4

import psycopg
import pytest
from fixtures_database import _create
from lending import Lending


@pytest.fixture
def lending(servers, migrated):
    """Of this test's own, so that nobody else has what it lends."""
    return Lending(migrated, lambda: _create(servers.database_url, f"lent_{uuid4().hex}", "migrated"))


def done(address, statement):
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(statement)


def test_what_had_rows_is_lent_again_without_them(lending):
    address = lending.lend()
    done(address, "INSERT INTO allotment.subject_keys VALUES (gen_random_uuid(), 's', 'w')")
    lending.take_back(address)
    assert lending.lend() == address
    with psycopg.connect(address) as connection:
        assert connection.execute("SELECT FROM allotment.subject_keys").fetchall() == []
        assert connection.execute("SELECT FROM allotment.alembic_version").rowcount == 1


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE allotment.mine (a int)",
        "GRANT DELETE ON allotment.events TO allotment_app",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET jit = off', current_database()); END $$",
        "ANALYZE allotment.alembic_version",
    ],
)
def test_what_was_changed_is_not_lent_again(lending, change):
    address = lending.lend()
    done(address, change)
    lending.take_back(address)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(address)


def test_who_still_is_connected_is_shown_out(lending):
    address = lending.lend()
    with psycopg.connect(address) as connection:
        connection.execute("LOCK TABLE allotment.events")
        lending.take_back(address)
        assert lending.lend() == address
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
