"""What the appender copies gets its tenant once for a statement, not once for a row.

The default looked the setting up and made a uuid of it for each row: a tenth of what a row costs. A function
that is declared immutable is worked out when a COPY begins. A statement that was prepared for one tenant
could keep that tenant when it is carried out for another; so a check, prepared each time a statement
begins, compares each row with the tenant that is bound then.
"""

from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

TABLES = ("events", "usages")
"""Those that the appender fills, which passes row-level security and names no tenant."""
ROLES = "allotment_app, allotment_projector, allotment_auditor, allotment_appender"
"""Whoever adds rows to one of them, or to a temporary table that is made like one."""
TOLD = """
The tenant of the transaction, or null where none was ever bound: then what fills in itself is refused for
being null, and what is restored from a dump names its tenants. Declared immutable, and it is not, so that it
is worked out once for a statement. For defaults of what is copied and for the checks beside them, which are
prepared anew each time a statement begins. Never in a policy, a query, an index or another function: a plan
that is kept would keep the tenant of whoever came first.
"""


def upgrade() -> None:
    # Whatever a session's search_path says, the setting is PostgreSQL's own.
    op.execute(
        """
        CREATE FUNCTION allotment.bound_tenant() RETURNS uuid
        LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
        BEGIN
            RETURN pg_catalog.current_setting('app.tenant', true)::pg_catalog.uuid;
        END $$
        """
    )
    op.execute("REVOKE ALL ON FUNCTION allotment.bound_tenant() FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION allotment.bound_tenant() TO {ROLES}")
    op.execute(f"COMMENT ON FUNCTION allotment.bound_tenant() IS '{' '.join(TOLD.split())}'")
    for table in TABLES:
        op.execute(
            f"ALTER TABLE allotment.{table} ALTER COLUMN tenant_id SET DEFAULT allotment.bound_tenant()"
        )
        # Never to be validated: what is stored is of all tenants. Not valid, it is in a dump after the rows,
        # and the planner concludes nothing from it.
        op.execute(
            f"ALTER TABLE allotment.{table} ADD CONSTRAINT {table}_of_bound_tenant "
            "CHECK (tenant_id = allotment.bound_tenant()) NOT VALID"
        )


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE allotment.{table} DROP CONSTRAINT {table}_of_bound_tenant")
        op.execute(
            f"ALTER TABLE allotment.{table} ALTER COLUMN tenant_id "
            "SET DEFAULT (current_setting('app.tenant'))::uuid"
        )
    op.execute("DROP FUNCTION allotment.bound_tenant()")
