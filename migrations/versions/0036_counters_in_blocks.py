"""What usage counts up, in blocks of sixteen members: a row for each cost most of what views do."""

from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None

MINE = "tenant_id = (SELECT current_setting('app.tenant')::uuid)"
TENANT = "tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid"
TEXT = 'text COLLATE "C" NOT NULL'
TABLES = {
    "usage_counters": (f"period {TEXT}, usage_type {TEXT}, block integer NOT NULL", 4),
    "consumption_by_day": (
        f"period {TEXT}, block integer NOT NULL, usage_type {TEXT}, day integer NOT NULL",
        6,
    ),
}
KEYS = {
    "usage_counters": "period, usage_type, block",
    "consumption_by_day": "period, block, usage_type, day",
}
COUNTED = ("used_own", "used", "overage", "charges")


def upgrade() -> None:
    for table, (columns, figures) in TABLES.items():
        size = 16 * 8 * figures
        # Rows are written over and over: with room on their page, no index has to follow.
        op.execute(
            f"CREATE TABLE allotment.{table} ({TENANT}, {columns}, "
            f"figures bytea NOT NULL CHECK (octet_length(figures) = {size}), "
            f"PRIMARY KEY (tenant_id, {KEYS[table]})) WITH (fillfactor = 55)"
        )
        # Never compressed nor put elsewhere: a row is smaller than what that begins with.
        op.execute(f"ALTER TABLE allotment.{table} ALTER figures SET STORAGE PLAIN")
        op.execute(f"ALTER TABLE allotment.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE allotment.{table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant_isolation ON allotment.{table} USING ({MINE}) WITH CHECK ({MINE})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.{table} TO allotment_projector")
        op.execute(f"GRANT SELECT ON allotment.{table} TO allotment_app, allotment_auditor")
    # The version before goes on with its columns, and its table `consumption`, until the views are built
    # again: from then on it finds no figure where it looks, rather than a wrong one.
    for column in COUNTED:
        op.execute(f"ALTER TABLE allotment.balances ALTER {column} DROP NOT NULL")


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE allotment.{table}")
