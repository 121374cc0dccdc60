"""The views of allocation: caps and what was drawn past them, who is frozen, templates, schedules."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"
TENANT = "tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid"
TEXT = 'text COLLATE "C" NOT NULL'

TABLES = {
    "caps": f"""
        ordinal integer NOT NULL,
        usage_type {TEXT},
        from_period {TEXT},
        quantity bigint,
        note {TEXT},
        seq bigint NOT NULL,
        recorded_at bigint NOT NULL,
        PRIMARY KEY (tenant_id, ordinal, usage_type, from_period)
    """,
    "drawn_from_above": f"""
        period {TEXT},
        usage_type {TEXT},
        ordinal integer NOT NULL,
        drawn bigint NOT NULL,
        PRIMARY KEY (tenant_id, period, usage_type, ordinal)
    """,
    "frozen": f"""
        ordinal integer NOT NULL,
        is_frozen boolean NOT NULL,
        note {TEXT},
        seq bigint NOT NULL,
        recorded_at bigint NOT NULL,
        PRIMARY KEY (tenant_id, ordinal)
    """,
    "templates": f"""
        template {TEXT},
        usage_type {TEXT},
        share {TEXT},
        amount bigint NOT NULL,
        among {TEXT},
        note {TEXT},
        seq bigint NOT NULL,
        recorded_at bigint NOT NULL,
        PRIMARY KEY (tenant_id, template)
    """,
    "schedules": f"""
        schedule {TEXT},
        lines {TEXT},
        every {TEXT},
        first_at bigint NOT NULL,
        until bigint NOT NULL,
        note {TEXT},
        seq bigint NOT NULL,
        recorded_at bigint NOT NULL,
        PRIMARY KEY (tenant_id, schedule)
    """,
    "schedule_runs": f"""
        schedule {TEXT},
        status {TEXT},
        next_at bigint NOT NULL,
        last_at bigint NOT NULL,
        outcome {TEXT},
        code {TEXT},
        line integer NOT NULL,
        count bigint NOT NULL,
        seq bigint NOT NULL,
        PRIMARY KEY (tenant_id, schedule)
    """,
}


def upgrade() -> None:
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE allotment.{table} ({TENANT}, {columns}) WITH (fillfactor = 80)")
        op.execute(f"ALTER TABLE allotment.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE allotment.{table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant_isolation ON allotment.{table} USING ({MINE}) WITH CHECK ({MINE})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.{table} TO allotment_projector")
        op.execute(f"GRANT SELECT ON allotment.{table} TO allotment_app, allotment_auditor")
