"""Schema changes, through alembic's API: who owns what, and from which version to which.

Roles belong to the whole database server; each can do the least it needs. Only the owner may
change tables, and only migrations run as the owner. Only the appender passes row-level security,
and all it can do is add events to the log of the tenant its transaction is bound to.

Whoever wants a table that a version waits for waits behind it. So it waits shortly, lets everybody pass, and
tries again; each version is committed by itself.
"""

import contextlib
import time
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.errors import (
    DeadlockDetected,
    DuplicateObject,
    InternalError_,
    LockNotAvailable,
    UniqueViolation,
)
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from ..tenants.isolation import network_settings

SCHEMA = "allotment"
OWNER = "allotment_owner"
APPENDER = "allotment_appender"
ROLES = (
    OWNER,
    "allotment_app",
    "allotment_projector",
    "allotment_auditor",
    "allotment_directory",
    "allotment_placement",
    APPENDER,
)
POSTGRES_MIN = 160_000
LOCK_SECONDS = 2.0
"""A version waits at most so long for a table."""
PAUSE_SECONDS = 1.0
"""In which whoever waited behind it passes."""
PATIENCE_SECONDS = 300.0
"""For so long it is tried again."""
STATEMENT_MAX = 200
ROLES_ATTEMPTS_MAX = 10
"""Each time somebody else has made what we were about to make."""
_ROLES_LOCK = 0x616C6C6F
_AT_WORK = """
SELECT application_name || ' (process ' || pid || ', ' || state || ')' FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
ORDER BY xact_start LIMIT 3
"""

log = structlog.get_logger()


class TablesInUse(Exception):
    """Somebody works with a table that a version changes, and does not end. Those before it are done."""


def migrate(database_url: str, revision: str = "head") -> tuple[str | None, str | None]:
    """Bring the database to a revision; the revisions before and after. Safe to repeat, and to race."""
    address = sqlalchemy_url(database_url)
    engine = create_engine(address, poolclass=NullPool, connect_args=network_settings(database_url))
    try:
        with engine.connect() as connection:
            _check_version(connection)
            _prepare_beside_others(connection)
            connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _ROLES_LOCK})
            connection.execute(text(f"SET ROLE {OWNER}"))
            connection.execute(text(f"SET lock_timeout = {int(LOCK_SECONDS * 1_000)}"))
            connection.commit()
            before = _revision(connection)
            # Else alembic takes what is read here for a transaction of ours around all versions.
            connection.commit()
            _upgrade(connection, revision)
            return before, _revision(connection)
    finally:
        engine.dispose()


def head_revision() -> str | None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return ScriptDirectory.from_config(config).get_current_head()


def sqlalchemy_url(database_url: str) -> str:
    """Names psycopg 3 as the driver, whatever way the address was written."""
    scheme, separator, rest = database_url.partition("://")
    if not separator or scheme.split("+")[0] not in ("postgresql", "postgres"):
        raise ValueError('DATABASE_URL must look like "postgresql://user@host:5432/database"')
    return f"postgresql+psycopg://{rest}"


def _upgrade(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    latest, told = time.monotonic() + PATIENCE_SECONDS, ""
    while True:
        try:
            command.upgrade(config, revision)
            connection.commit()
            return
        except DBAPIError as error:
            if not isinstance(error.orig, LockNotAvailable | DeadlockDetected):
                raise
            connection.rollback()
            waits = _what_waits(connection, error)
            if time.monotonic() >= latest:
                raise TablesInUse(f"tables are in use, and stay so: {waits}") from error
        if waits != told:
            log.warning("a migration waits for tables in use", waits=waits)
            told = waits
        time.sleep(PAUSE_SECONDS)


def _what_waits(connection: Connection, error: DBAPIError) -> str:
    """The statement, and who has been at work for longest, as far as we may see."""
    connection.execute(text("SET LOCAL ROLE NONE"))
    at_work = connection.execute(text(_AT_WORK)).scalars().all()
    connection.rollback()
    statement = " ".join((error.statement or "").split())[:STATEMENT_MAX]
    return f"{statement}; at work: {', '.join(filter(None, at_work)) or 'nobody any more'}"


def _check_version(connection: Connection) -> None:
    version = int(connection.execute(text("SHOW server_version_num")).scalar_one())
    if version < POSTGRES_MIN:
        raise ValueError(f"PostgreSQL 16 or later is needed, this is {version // 10_000}")


def _prepare_beside_others(connection: Connection) -> None:
    """Another database may be prepared too: advisory locks are each database's own, roles the server's."""
    for left in reversed(range(ROLES_ATTEMPTS_MAX)):
        try:
            _prepare(connection)
            break
        except DBAPIError as error:
            # Internal is how PostgreSQL says that a role or a membership was "concurrently updated".
            if not left or not isinstance(error.orig, UniqueViolation | DuplicateObject | InternalError_):
                raise
            connection.rollback()


def _prepare(connection: Connection) -> None:
    """Roles and schema, by whoever may create them; nothing where they exist."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ROLES_LOCK})
    known = set(connection.execute(text("SELECT rolname FROM pg_roles")).scalars())
    for role in ROLES:
        if role not in known:
            connection.execute(text(f"CREATE ROLE {role} NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB"))
            if role == APPENDER:
                _let_copy(connection)
        member = "SELECT pg_has_role(current_user, :role, 'SET')"
        if not connection.execute(text(member), {"role": role}).scalar_one():
            connection.execute(text(f"GRANT {role} TO CURRENT_USER"))
    schemas = set(connection.execute(text("SELECT nspname FROM pg_namespace")).scalars())
    if SCHEMA not in schemas:
        connection.execute(text(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {OWNER}"))
    connection.commit()


def _let_copy(connection: Connection) -> None:
    """Let the appender use COPY, where we may grant that; elsewhere the writer inserts under the policy."""
    with contextlib.suppress(DBAPIError), connection.begin_nested():
        connection.execute(text(f"ALTER ROLE {APPENDER} BYPASSRLS"))


def _revision(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA})
    return context.get_current_revision()
