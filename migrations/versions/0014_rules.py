"""The view of limits per window, raises and policies, and what is charged to users themselves."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"
TENANT = "tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid"

TABLES = {
    "rule_events": f"""
        {TENANT},
        seq bigint NOT NULL,
        topic text COLLATE "C" NOT NULL,
        ordinal integer NOT NULL,
        state bytea NOT NULL,
        recorded_at bigint NOT NULL,
        PRIMARY KEY (tenant_id, seq)
    """,
    "window_limits": f"""
        {TENANT},
        ordinal integer NOT NULL,
        usage_type text COLLATE "C" NOT NULL,
        span text COLLATE "C" NOT NULL,
        since bigint NOT NULL,
        in_force boolean NOT NULL,
        PRIMARY KEY (tenant_id, ordinal, usage_type, span)
    """,
    "window_usage": f"""
        {TENANT},
        ordinal integer NOT NULL,
        usage_type text COLLATE "C" NOT NULL,
        span text COLLATE "C" NOT NULL,
        since bigint NOT NULL,
        bin bigint NOT NULL,
        used bigint NOT NULL,
        PRIMARY KEY (tenant_id, ordinal, usage_type, span, since, bin)
    """,
    "personal_lines": f"""
        {TENANT},
        period text COLLATE "C" NOT NULL,
        node integer NOT NULL,
        ordinal integer NOT NULL,
        usage_type text COLLATE "C" NOT NULL,
        direction text COLLATE "C" NOT NULL,
        zone text COLLATE "C" NOT NULL,
        tariff integer NOT NULL,
        rate integer NOT NULL,
        records bigint NOT NULL,
        quantity bigint NOT NULL,
        billed bigint NOT NULL,
        amount bigint NOT NULL,
        PRIMARY KEY (tenant_id, period, node, ordinal, usage_type, direction, zone, tariff, rate)
    """,
}


def upgrade() -> None:
    for name, columns in TABLES.items():
        op.execute(f"CREATE TABLE allotment.{name} ({columns})")
        op.execute(f"ALTER TABLE allotment.{name} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE allotment.{name} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant_isolation ON allotment.{name} USING ({MINE}) WITH CHECK ({MINE})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.{name} TO allotment_projector")
        op.execute(f"GRANT SELECT ON allotment.{name} TO allotment_app, allotment_auditor")
    op.execute("CREATE INDEX rule_events_ordinal ON allotment.rule_events (tenant_id, ordinal, seq)")
