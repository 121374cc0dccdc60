"""When time itself will ask something of a tenant that need not be in memory then."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TENANT_IS_MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"

STATEMENTS = [
    """
    CREATE TABLE allotment.wakeups (
        tenant_id uuid PRIMARY KEY,
        at timestamptz NOT NULL
    )
    """,
    "CREATE INDEX wakeups_at ON allotment.wakeups (at)",
    "ALTER TABLE allotment.wakeups ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE allotment.wakeups FORCE ROW LEVEL SECURITY",
    f"CREATE POLICY mine ON allotment.wakeups USING ({TENANT_IS_MINE}) WITH CHECK ({TENANT_IS_MINE})",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.wakeups TO allotment_app",
    # Who places tenants sees whom to wake, and nothing else of them.
    "CREATE POLICY placement ON allotment.wakeups FOR SELECT TO allotment_placement USING (true)",
    "GRANT SELECT ON allotment.wakeups TO allotment_placement",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
