"""Consumption by day: what was used at and below each node, and the calendar that its days are of."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TENANT = "tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid"
MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"
TABLES = ("consumption", "consumption_calendar")

STATEMENTS = [
    # Rows of today are updated over and over: with room on their page, no index has to follow.
    f"""
    CREATE TABLE allotment.consumption (
        {TENANT},
        period text COLLATE "C" NOT NULL,
        ordinal integer NOT NULL,
        usage_type text COLLATE "C" NOT NULL,
        day integer NOT NULL,
        used bigint NOT NULL,
        overage bigint NOT NULL,
        amount bigint NOT NULL,
        records bigint NOT NULL,
        drawn bigint NOT NULL,
        moved bigint NOT NULL,
        PRIMARY KEY (tenant_id, period, ordinal, usage_type, day)
    ) WITH (fillfactor = 70)
    """,
    f"""
    CREATE TABLE allotment.consumption_calendar (
        {TENANT},
        seq bigint NOT NULL,
        time_zone text COLLATE "C" NOT NULL,
        PRIMARY KEY (tenant_id, seq)
    )
    """,
    *(
        statement
        for table in TABLES
        for statement in (
            f"ALTER TABLE allotment.{table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE allotment.{table} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY tenant_isolation ON allotment.{table} USING ({MINE}) WITH CHECK ({MINE})",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.{table} TO allotment_projector",
            f"GRANT SELECT ON allotment.{table} TO allotment_app, allotment_auditor",
        )
    ),
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
