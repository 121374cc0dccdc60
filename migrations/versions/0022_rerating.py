"""Re-rating: what records were charged with later, jobs, and what is owed for periods that are closed."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

TENANT = "tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid"
MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"
TABLES = ("reratings", "invoice_corrections", "rating_jobs", "rating_changes", "rating_ends")

STATEMENTS = [
    f"""
    CREATE TABLE allotment.reratings (
        {TENANT},
        seq bigint NOT NULL,
        first bigint NOT NULL,
        job text COLLATE "C" NOT NULL,
        cause text COLLATE "C" NOT NULL,
        corrected_in text COLLATE "C" NOT NULL,
        ordinal integer NOT NULL,
        node integer NOT NULL,
        usage_type text COLLATE "C" NOT NULL,
        period text COLLATE "C" NOT NULL,
        zone text COLLATE "C" NOT NULL,
        was_node integer NOT NULL,
        was_billed bigint NOT NULL,
        was_overage bigint NOT NULL,
        was_amount bigint NOT NULL,
        was_tariff integer NOT NULL,
        billed bigint NOT NULL,
        overage bigint NOT NULL,
        amount bigint NOT NULL,
        tariff integer NOT NULL,
        by_zone boolean NOT NULL,
        recorded_at bigint NOT NULL,
        PRIMARY KEY (tenant_id, seq)
    )
    """,
    # A record's own, in order; and those of a member, as its history is read.
    "CREATE INDEX reratings_first ON allotment.reratings (tenant_id, first, seq)",
    "CREATE INDEX reratings_ordinal ON allotment.reratings (tenant_id, ordinal, seq)",
    "CREATE INDEX reratings_node ON allotment.reratings (tenant_id, node, seq)",
    f"""
    CREATE TABLE allotment.invoice_corrections (
        {TENANT},
        period text COLLATE "C" NOT NULL,
        of_period text COLLATE "C" NOT NULL,
        node integer NOT NULL,
        usage_type text COLLATE "C" NOT NULL,
        direction text COLLATE "C" NOT NULL,
        zone text COLLATE "C" NOT NULL,
        records bigint NOT NULL,
        amount bigint NOT NULL,
        PRIMARY KEY (tenant_id, period, of_period, node, usage_type, direction, zone)
    )
    """,
    f"""
    CREATE TABLE allotment.rating_jobs (
        {TENANT},
        job text COLLATE "C" NOT NULL,
        seq bigint NOT NULL,
        scope text COLLATE "C" NOT NULL,
        cause text COLLATE "C" NOT NULL,
        note text COLLATE "C" NOT NULL,
        shown text COLLATE "C" NOT NULL,
        actor text COLLATE "C" NOT NULL,
        started_at bigint NOT NULL,
        PRIMARY KEY (tenant_id, job)
    )
    """,
    f"""
    CREATE TABLE allotment.rating_changes (
        {TENANT},
        job text COLLATE "C" NOT NULL,
        changed bigint NOT NULL,
        amount bigint NOT NULL,
        corrected bigint NOT NULL,
        PRIMARY KEY (tenant_id, job)
    ) WITH (fillfactor = 70)
    """,
    f"""
    CREATE TABLE allotment.rating_ends (
        {TENANT},
        job text COLLATE "C" NOT NULL,
        seq bigint NOT NULL,
        records bigint NOT NULL,
        left_alone bigint NOT NULL,
        stopped boolean NOT NULL,
        finished_at bigint NOT NULL,
        PRIMARY KEY (tenant_id, job)
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
