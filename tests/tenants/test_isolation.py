"""Isolation: the catalog says so for every table there is, and the database refuses for real."""

import contextlib
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
from fixtures_writer import ROOT, Store

from allotment.backend.log import Group
from allotment.projections.usages import USAGES
from allotment.tenants.isolation import SEND_BUFFER_BYTES, Isolation, connection_settings
from allotment.tenants.onboarding import TenantEntry, register

ROLES = ("app", "projector", "auditor", "directory", "placement")
SEEN_BY_THE_DIRECTORY = {
    ("directory", table)
    for table in (
        *("tenants", "log_heads", "projection_positions"),
        *("notice_positions", "outlets", "deliveries"),
    )
}
KEPT_BY_ALEMBIC = "alembic_version"
FILLED_BY_THE_APPENDER = {
    "events": ("command_key", "leaf_hash", "recorded_at", "seq", "state", "topic"),
    "usages": tuple(USAGES.columns),
}
"""All but the tenant."""
UNIQUE_FOR_ALL = {"tenants_slug_key", "workers_pkey"}
"""The directory's names are one for all tenants: a carrier looks a tenant up by its slug."""
OF_NO_TENANT = {"workers"}
OF_PLACEMENT = {"leases", "workers", "wakeups"}
"""Who is served where, and when to look at it again: of no use to whoever wants figures."""
"""Which processes there are: nothing of any tenant, and for the role that places tenants alone."""


def asked(address, question, *values):
    with psycopg.connect(address) as connection:
        return connection.execute(question, values or None).fetchall()


@pytest.fixture
def tables(database):
    found = asked(
        database,
        "SELECT relname FROM pg_class WHERE relnamespace = 'allotment'::regnamespace AND "
        "relkind IN ('r', 'p') "
        "ORDER BY 1",
    )
    return [name for (name,) in found if name != KEPT_BY_ALEMBIC]


@pytest.fixture
def as_role(database):
    """Opens connections as the product does, but bound to no tenant."""
    opened = []

    def connect(role):
        connection = psycopg.connect(database, **connection_settings(role))
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()


def with_events(isolation, count=3):
    store = Store(isolation)
    group = Group(store.tenant, store.log.claim(), 1_790_000_000_000_000)
    for number in range(count):
        group.add("usage.charged", b"%d" % number, uuid4().bytes)
    group.subject_keys = {b"alice": b"wrapped"}
    store.log.append(group)
    return store


# --- what the catalog says -----------------------------------------------------------------------


def test_there_is_something_to_isolate(tables):
    assert {"events", "log_heads", "tenants", "tenant_keys", "subject_keys"} <= set(tables)


def test_row_level_security_is_on_for_every_table_and_binds_its_owner(database):
    loose = asked(
        database,
        "SELECT relname FROM pg_class WHERE relnamespace = 'allotment'::regnamespace AND "
        "relkind IN ('r', 'p') "
        "AND NOT (relrowsecurity AND relforcerowsecurity) ORDER BY 1",
    )
    assert loose == [(KEPT_BY_ALEMBIC,)]


def test_every_table_has_the_policy_of_its_tenant_for_reading_and_writing(database, tables):
    policies = asked(
        database,
        "SELECT tablename, roles::text[], cmd, qual, with_check FROM pg_policies WHERE "
        "schemaname = 'allotment'",
    )
    setting = "current_setting('app.tenant'::text)"
    # Made a uuid once for a statement; tables that came later may still say it the other way round.
    mine = {
        f"(tenant_id = ( SELECT ({setting})::uuid AS current_setting))",
        f"(tenant_id = (( SELECT {setting} AS current_setting))::uuid)",
    }
    bound = {
        table
        for table, roles, command, using, check in policies
        if roles == ["public"] and command == "ALL" and using == check and using in mine
    }
    assert bound == set(tables) - OF_NO_TENANT
    others = {
        (table, *roles, command)
        for table, roles, command, using, _ in policies
        if roles != ["public"] or using not in mine
    }
    assert others == {
        ("tenants", "allotment_directory", "ALL"),
        ("log_heads", "allotment_directory", "SELECT"),
        ("leases", "allotment_placement", "ALL"),
        ("workers", "allotment_placement", "ALL"),
        ("wakeups", "allotment_placement", "SELECT"),
        ("projection_positions", "allotment_directory", "SELECT"),
        ("notice_positions", "allotment_directory", "SELECT"),
        ("outlets", "allotment_directory", "SELECT"),
        ("deliveries", "allotment_directory", "SELECT"),
    }


def test_nothing_is_granted_to_everybody(database):
    granted = asked(
        database,
        "SELECT relname FROM pg_class, aclexplode(relacl) WHERE relnamespace = 'allotment'::regnamespace "
        "AND grantee = 0 UNION ALL "
        "SELECT nspname FROM pg_namespace, aclexplode(nspacl) WHERE nspname = 'allotment' AND grantee = 0",
    )
    assert granted == []


def test_only_the_appender_passes_row_level_security_and_it_can_do_nothing_but_append(database):
    passing = asked(database, "SELECT rolname FROM pg_roles WHERE rolbypassrls AND NOT rolsuper")
    assert passing in ([], [("allotment_appender",)])
    tables = asked(
        database,
        "SELECT relname, privilege_type FROM pg_class, aclexplode(relacl) "
        "WHERE grantee = 'allotment_appender'::regrole",
    )
    assert tables == []
    columns = asked(
        database,
        "SELECT attrelid::regclass::text, attname, privilege_type FROM pg_attribute, aclexplode(attacl) "
        "WHERE grantee = 'allotment_appender'::regrole ORDER BY 1, 2",
    )
    assert columns == [
        (f"allotment.{table}", column, "INSERT")
        for table, columns in sorted(FILLED_BY_THE_APPENDER.items())
        for column in sorted(columns)
    ]


def test_no_role_of_ours_can_log_in_or_make_others_or_is_in_another(database):
    able = asked(
        database,
        "SELECT rolname FROM pg_roles WHERE rolname LIKE 'allotment%' "
        "AND (rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication)",
    )
    assert able == []
    members = asked(
        database,
        "SELECT member::regrole::text, roleid::regrole::text FROM pg_auth_members "
        "WHERE member::regrole::text LIKE 'allotment%'",
    )
    assert members == []


def test_only_the_owner_owns(database):
    owners = asked(
        database,
        "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = "
        "'allotment'::regnamespace "
        "UNION SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'allotment'",
    )
    assert owners == [("allotment_owner",)]


def test_views_ask_as_whoever_reads_them(database):
    loose = asked(
        database,
        "SELECT relname FROM pg_class WHERE relnamespace = 'allotment'::regnamespace AND relkind = 'v' "
        "AND NOT coalesce(reloptions, '{}') && "
        "'{security_invoker=true,security_invoker=on,security_invoker=1}'",
    )
    assert loose == []


def test_there_is_nothing_that_reads_around_row_level_security(database):
    assert asked(database, "SELECT relname FROM pg_class WHERE relkind = 'm'") == []
    in_our_schema = "FROM pg_proc WHERE pronamespace = 'allotment'::regnamespace"
    assert asked(database, f"SELECT proname {in_our_schema} AND prosecdef") == []


def test_every_unique_index_starts_with_the_tenant(database):
    """Otherwise a duplicate would tell one tenant of another's row."""
    found = asked(
        database,
        "SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid "
        "JOIN pg_class t ON t.oid = x.indrelid "
        "JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = x.indkey[0] "
        "WHERE t.relnamespace = 'allotment'::regnamespace AND x.indisunique AND a.attname <> 'tenant_id' "
        "AND t.relname <> 'alembic_version'",
    )
    assert {name for (name,) in found} == UNIQUE_FOR_ALL


def test_no_foreign_key_reaches_past_the_tenant(database):
    keys = asked(
        database,
        "SELECT conname FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = "
        "c.conrelid AND a.attnum = c.conkey[1] "
        "WHERE c.contype = 'f' AND c.connamespace = 'allotment'::regnamespace AND a.attname <> 'tenant_id'",
    )
    assert keys == []


def test_nobody_may_empty_a_table_or_refer_to_it(database):
    """Neither asks row-level security."""
    able = asked(
        database,
        "SELECT relname, grantee::regrole::text, privilege_type FROM pg_class, aclexplode(relacl) "
        "WHERE relnamespace = 'allotment'::regnamespace AND grantee <> relowner "
        "AND privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER', 'MAINTAIN')",
    )
    assert able == []


def test_events_may_be_read_and_added_and_nothing_else(database):
    able = asked(
        database,
        "SELECT grantee::regrole::text, privilege_type FROM pg_class, aclexplode(relacl) "
        "WHERE oid = 'allotment.events'::regclass AND grantee <> relowner ORDER BY 1, 2",
    )
    assert able == [
        ("allotment_app", "INSERT"),
        ("allotment_app", "SELECT"),
        ("allotment_auditor", "SELECT"),
        ("allotment_projector", "SELECT"),
    ]


# --- what the database does ----------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_without_a_tenant_every_table_that_may_be_read_raises(isolation, as_role, tables, role):
    with_events(isolation)
    connection, raised = as_role(role), 0
    for table in tables:
        if (role, table) in SEEN_BY_THE_DIRECTORY:
            continue
        if role == "placement" and table in OF_PLACEMENT:
            continue
        with pytest.raises((psycopg.errors.UndefinedObject, psycopg.errors.InsufficientPrivilege)) as error:
            connection.execute(f"SELECT count(*) FROM {table}")
        raised += isinstance(error.value, psycopg.errors.UndefinedObject)
    assert raised or role in ("directory", "placement")


def test_the_application_reads_every_table_of_its_tenant(isolation, tables):
    store = with_events(isolation)
    with isolation.transaction(store.tenant) as connection:
        for table in set(tables) - OF_NO_TENANT:
            connection.execute(f"SELECT * FROM {table}")


def test_who_places_tenants_sees_nothing_of_what_they_have(isolation, as_role, tables):
    with_events(isolation)
    connection = as_role("placement")
    connection.autocommit = True
    for table in set(tables) - OF_PLACEMENT:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"SELECT count(*) FROM {table}")


def test_a_lease_is_seen_by_its_tenant_alone_and_changed_by_nobody_bound_to_one(isolation):
    mine, other = with_events(isolation), with_events(isolation)
    with isolation.connection("placement") as connection:
        for store in (mine, other):
            connection.execute(
                "INSERT INTO leases (tenant_id, worker_id) VALUES (%s, %s)", (store.tenant, uuid4())
            )
    with isolation.transaction(mine.tenant) as connection:
        assert connection.execute("SELECT tenant_id FROM leases").fetchall() == [(mine.tenant,)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute("UPDATE leases SET worker_id = %s", (uuid4(),))


def test_after_a_transaction_the_connection_carries_nothing(database):
    isolation = Isolation(database, pool_max=1)
    isolation.may_copy()
    store = with_events(isolation)
    with isolation.transaction(store.tenant) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (3,)
    with isolation.connection("app") as connection:
        assert connection.execute("SELECT current_setting('app.tenant', true)").fetchone()[0] in (None, "")
        with pytest.raises((psycopg.errors.InvalidTextRepresentation, psycopg.errors.UndefinedObject)):
            connection.execute("SELECT count(*) FROM events")
    isolation.close()


@pytest.mark.parametrize("ending", ["an exception", "a failed statement", "a cut connection"])
def test_however_a_transaction_ends_the_next_one_starts_clean(database, ending):
    isolation = Isolation(database, pool_max=1)
    isolation.may_copy()
    one, other = with_events(isolation), Store(isolation)
    with pytest.raises((LookupError, psycopg.Error)):
        _end(isolation, one.tenant, ending)
    with isolation.transaction(other.tenant) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (0,)
    isolation.close()


def _end(isolation, tenant, ending):
    with isolation.transaction(tenant) as connection:
        if ending == "an exception":
            raise LookupError
        if ending == "a cut connection":
            connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        connection.execute("SELECT FROM no_such_table")


def test_tenants_that_share_connections_never_see_each_other(database):
    isolation = Isolation(database, pool_max=2)
    isolation.may_copy()
    stores = [with_events(isolation, count) for count in range(1, 7)]
    wrong = []

    def look(number):
        store, count = stores[number % 6], number % 6 + 1
        with isolation.transaction(store.tenant) as connection:
            seen = connection.execute("SELECT count(*), count(DISTINCT tenant_id) FROM events").fetchone()
        if seen != (count, 1):
            wrong.append((number, seen))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(look, range(300)))
    isolation.close()
    assert wrong == []


@pytest.mark.parametrize("role", [*ROLES, "appender"])
@pytest.mark.parametrize(
    "change",
    ["UPDATE events SET topic = 'x'", "DELETE FROM events", "TRUNCATE events", "DROP TABLE events"],
)
def test_no_role_can_change_an_event_that_is_stored(database, isolation, role, change):
    store = with_events(isolation)
    with psycopg.connect(database, **connection_settings(role)) as connection, connection.transaction():
        connection.execute("SELECT set_config('app.tenant', %s, true)", (str(store.tenant),))
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(change)
    assert len(store.rows()) == 3


def test_row_level_security_binds_the_owner_too(database, isolation):
    store, other = with_events(isolation), with_events(isolation, 2)
    with psycopg.connect(database, **connection_settings("owner")) as connection, connection.transaction():
        connection.execute("SELECT set_config('app.tenant', %s, true)", (str(other.tenant),))
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (2,)
    assert len(store.rows()) == 3


EVENT = (
    "INSERT INTO events (tenant_id, seq, topic, state, recorded_at, leaf_hash) "
    "VALUES (%s, 9, 'x', '', now(), %s)"
)


def test_nothing_is_inserted_under_another_tenants_id(isolation):
    store, other = with_events(isolation), with_events(isolation)
    inserts = [
        (EVENT, (other.tenant, bytes(32))),
        ("INSERT INTO log_heads (tenant_id) VALUES (%s)", (uuid4(),)),
        ("INSERT INTO subject_keys VALUES (%s, 's', 'w')", (other.tenant,)),
        ("INSERT INTO tenant_keys VALUES (%s, 'w')", (uuid4(),)),
    ]
    for statement, values in inserts:
        with (
            pytest.raises(psycopg.errors.InsufficientPrivilege),
            isolation.transaction(store.tenant) as connection,
        ):
            connection.execute(statement, values)
    assert len(other.rows()) == 3


def test_a_head_cannot_be_handed_to_another_tenant(isolation):
    store, other = with_events(isolation), uuid4()
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        isolation.transaction(store.tenant) as connection,
    ):
        connection.execute("UPDATE log_heads SET tenant_id = %s", (other,))


def test_updates_and_deletes_reach_no_other_tenant(isolation):
    store, other = with_events(isolation), with_events(isolation)
    with isolation.transaction(store.tenant) as connection:
        assert connection.execute("UPDATE log_heads SET epoch = epoch + 1").rowcount == 1
        assert connection.execute("DELETE FROM subject_keys").rowcount == 1
    assert other.log.head().epoch == 1
    with isolation.transaction(other.tenant) as connection:
        assert connection.execute("SELECT count(*) FROM subject_keys").fetchone() == (1,)


def test_the_appender_can_name_no_tenant_and_read_nothing(database, isolation):
    store, other = with_events(isolation), with_events(isolation)
    with psycopg.connect(database, **connection_settings("appender")) as connection:
        for tenant in (store.tenant, other.tenant):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(EVENT, (tenant, bytes(32)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT count(*) FROM events")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO events (seq) SELECT seq FROM events")
        # Bound to no tenant it adds to nobody's log.
        with pytest.raises(psycopg.Error):
            connection.execute(
                "INSERT INTO events (seq, topic, state, recorded_at, leaf_hash) VALUES (9, 'x', "
                "'', now(), %s)",
                (bytes(32),),
            )


def test_the_directory_knows_who_there_is_and_not_what_they_have(database, isolation, as_role, tables):
    store = with_events(isolation)
    register(isolation, ROOT, TenantEntry(uuid4(), "acme", "Acme", "carrier", "UTC", "EUR"))
    connection = as_role("directory")
    assert connection.execute("SELECT slug FROM tenants").fetchall() == [("acme",)]
    assert connection.execute(
        "SELECT seq FROM log_heads WHERE tenant_id = %s", (store.tenant,)
    ).fetchone() == (3,)
    for table in set(tables) - {table for _, table in SEEN_BY_THE_DIRECTORY}:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"SELECT FROM {table}")
    for change in ("UPDATE tenants SET slug = 'x'", "DELETE FROM tenants", "UPDATE log_heads SET seq = 0"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(change)


def test_the_auditor_changes_nothing(isolation, tables):
    store = with_events(isolation)
    with isolation.transaction(store.tenant, "auditor") as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (3,)
    for table in tables:
        for change in (f"INSERT INTO {table} DEFAULT VALUES", f"DELETE FROM {table}"):
            with (
                pytest.raises(psycopg.errors.InsufficientPrivilege),
                isolation.transaction(store.tenant, "auditor") as connection,
            ):
                connection.execute(change)


def test_the_projector_writes_views_and_never_the_log(isolation):
    store = with_events(isolation)
    for change in ("UPDATE log_heads SET seq = 0", "DELETE FROM subject_keys", "SELECT FROM tenant_keys"):
        with (
            pytest.raises(psycopg.errors.InsufficientPrivilege),
            isolation.transaction(store.tenant, "projector") as connection,
        ):
            connection.execute(change)


@pytest.mark.parametrize("tenant", ["", "not-a-uuid", "'; DROP TABLE events; --", None])
def test_only_a_tenants_id_opens_the_door(isolation, tenant):
    with pytest.raises((ValueError, AttributeError)), isolation.transaction(tenant):
        pass


def test_a_transaction_that_was_given_up_is_not_taken_for_committed(isolation):
    store = with_events(isolation)

    def go_on_after_a_failed_statement():
        with isolation.transaction(store.tenant) as connection:
            connection.execute("INSERT INTO subject_keys VALUES (%s, 's', 'w')", (store.tenant,))
            with contextlib.suppress(psycopg.errors.UndefinedTable):
                connection.execute("SELECT FROM no_such_table")

    with pytest.raises(psycopg.Error):
        go_on_after_a_failed_statement()


def test_what_is_committed_is_on_disk_whatever_the_databases_own_setting(database, isolation):
    with psycopg.connect(database, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    with isolation.transaction(uuid4()) as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_on_a_unix_socket_the_kernel_takes_a_whole_group_at_once(isolation):
    with isolation.connection("appending") as connection, _line_of(connection) as line:
        if line.family != socket.AF_UNIX:
            pytest.skip("the database is asked over TCP, which finds its own measure")
        given = line.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    usual, allowed = socket.socketpair()
    with usual, allowed:
        allowed.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        assert given == allowed.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        assert given > usual.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


def _line_of(connection):
    return socket.socket(fileno=os.dup(connection.fileno()))


def test_threads_that_come_first_together_share_one_pool(database, monkeypatch):
    import time

    from allotment.tenants import isolation as module

    made = []

    class Slow(module.ConnectionPool):
        def __init__(self, *args, **kwargs):
            time.sleep(0.1)
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(module, "ConnectionPool", Slow)
    isolation = Isolation(database)
    threads = [threading.Thread(target=isolation._pool, args=("app",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for pool in made:
        pool.close()
    assert len(made) == 1
