"""Databases lent to tests: each test has one to itself that looks as new, and mostly was used before.

To copy a database and drop it takes a third of a second of work, to empty it a hundredth. Only one in
which nothing but rows changed is lent again: whoever touched a table, a setting or a statistic, or left
it grown, has it dropped.
"""

from collections.abc import Callable

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

GROWN_BYTES = 4_000_000
"""Emptied tables keep their pages."""
STOP_MS = 10_000

# Whatever changes a catalog writes rows with a number that no row had before.
_CATALOGS = (
    "attribute",
    "class",
    "constraint",
    "index",
    "namespace",
    "policy",
    "proc",
    "statistic",
    "trigger",
)
_LOOKS = " UNION ALL ".join(
    f"SELECT '{name}', count(*), max(xmin::text::bigint) FROM pg_{name}" for name in _CATALOGS
)
_OWN_SETTINGS = (
    "SELECT 'settings', count(*), 0 FROM pg_db_role_setting "
    "WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_END_OTHERS = (
    f"SELECT pg_terminate_backend(pid, {STOP_MS}) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
_TABLES = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'allotment'"


class Lending:
    """Copies of one database. `copy` makes one and tells its address."""

    def __init__(self, template: str, copy: Callable[[], str]) -> None:
        self.copy = copy
        self._template = template
        self._free: list[str] = []
        with psycopg.connect(template, autocommit=True) as connection:
            tables = [name for (name,) in connection.execute(_TABLES)]
            kept = {name for name in tables if _has_rows(connection, name)}
            self._new, self._size = _looks(connection)
        assert kept <= {"allotment.alembic_version"}, kept
        emptied = "; ".join(f"DELETE FROM {name}" for name in tables if name not in kept)
        # As a replica, a table lets its rows go: no trigger and no reference asks why.
        self._empty = f"SET session_replication_role = replica; {emptied}"

    def lend(self) -> str:
        return self._free.pop() if self._free else self.copy()

    def take_back(self, address: str) -> None:
        if self._is_as_new(address):
            self._free.append(address)
        else:
            drop(self._template, address)

    def _is_as_new(self, address: str) -> bool:
        """Empties it; whether that was all there was to do."""
        try:
            with psycopg.connect(address, autocommit=True) as connection:
                connection.execute(_END_OTHERS)
                looks, size = _looks(connection)
                if looks != self._new or size > self._size + GROWN_BYTES:
                    return False
                connection.execute(self._empty)
                return True
        except psycopg.Error:
            return False


def drop(server: str, address: str) -> None:
    """The database at this address, over a connection to another one of its server."""
    name = str(conninfo_to_dict(address)["dbname"])
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _looks(connection: psycopg.Connection) -> tuple[list[tuple[str, int, int]], int]:
    found = connection.execute(f"{_LOOKS} UNION ALL {_OWN_SETTINGS} ORDER BY 1").fetchall()
    row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    assert row
    return found, row[0]


def _has_rows(connection: psycopg.Connection, table: str) -> bool:
    return connection.execute(f"SELECT FROM {table} LIMIT 1").fetchone() is not None
