"""Fees and plans: who was there from when to when, what was charged once, what plans have counted."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"
TENANT = "tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid"
TEXT = 'text COLLATE "C" NOT NULL'

TABLES = {
    "stays": (
        (
            "ordinal integer NOT NULL, since bigint NOT NULL, node integer NOT NULL, until bigint NOT NULL, "
            "channels bigint NOT NULL"
        ),
        "ordinal, since",
    ),
    "one_off_fees": (
        (
            f"period {TEXT}, fee {TEXT}, credited boolean NOT NULL, name {TEXT}, node integer NOT NULL, "
            f"amount bigint NOT NULL, note {TEXT}, seq bigint NOT NULL"
        ),
        "period, fee, credited",
    ),
    "plan_counters": (
        (
            f"period {TEXT}, plan {TEXT}, ordinal integer NOT NULL, records bigint NOT NULL, "
            "units bigint NOT NULL, spent bigint NOT NULL"
        ),
        "period, plan, ordinal",
    ),
}

# The version before writes none of these columns: each has what was true without them.
COLUMNS = {
    "method": f"{TEXT} DEFAULT 'half_up'",
    "decimals": "integer NOT NULL DEFAULT 4",
    "plans": f"{TEXT} DEFAULT '[]'",
    "fees": f"{TEXT} DEFAULT '[]'",
}


def upgrade() -> None:
    for table, (columns, key) in TABLES.items():
        op.execute(f"CREATE TABLE allotment.{table} ({TENANT}, {columns}, PRIMARY KEY (tenant_id, {key}))")
        op.execute(f"ALTER TABLE allotment.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE allotment.{table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant_isolation ON allotment.{table} USING ({MINE}) WITH CHECK ({MINE})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.{table} TO allotment_projector")
        op.execute(f"GRANT SELECT ON allotment.{table} TO allotment_app, allotment_auditor")
    # Who is on a node when it is merged into another.
    op.execute("CREATE INDEX stays_by_node ON allotment.stays (tenant_id, node)")
    for column, kind in COLUMNS.items():
        op.execute(f"ALTER TABLE allotment.tariffs ADD {column} {kind}")
