"""Which worker serves which tenant: a heartbeat per worker, a lease per tenant in use."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TENANT_IS_MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"

STATEMENTS = [
    "GRANT USAGE ON SCHEMA allotment TO allotment_placement",
    # --- the workers there are: of no tenant, and for no role but the one that places tenants
    """
    CREATE TABLE allotment.workers (
        worker_id uuid PRIMARY KEY,
        name text NOT NULL,
        takes_tenants boolean NOT NULL,
        started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        until timestamptz NOT NULL
    )
    """,
    "ALTER TABLE allotment.workers ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE allotment.workers FORCE ROW LEVEL SECURITY",
    "CREATE POLICY placement ON allotment.workers TO allotment_placement USING (true) WITH CHECK (true)",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.workers TO allotment_placement",
    # --- a lease holds as long as its worker's heartbeat: one row is renewed, however many tenants
    """
    CREATE TABLE allotment.leases (
        tenant_id uuid PRIMARY KEY,
        worker_id uuid NOT NULL,
        since timestamptz NOT NULL DEFAULT clock_timestamp()
    )
    """,
    "CREATE INDEX leases_worker ON allotment.leases (worker_id)",
    "ALTER TABLE allotment.leases ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE allotment.leases FORCE ROW LEVEL SECURITY",
    f"CREATE POLICY mine ON allotment.leases USING ({TENANT_IS_MINE}) WITH CHECK ({TENANT_IS_MINE})",
    "CREATE POLICY placement ON allotment.leases TO allotment_placement USING (true) WITH CHECK (true)",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.leases TO allotment_placement",
    # Whoever takes a log over looks at its lease in the same statement.
    "GRANT SELECT ON allotment.leases TO allotment_app",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
