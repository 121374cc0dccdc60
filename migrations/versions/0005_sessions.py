"""The view of charging sessions: those that run, and how the others ended."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"

STATEMENTS = [
    """
    CREATE TABLE allotment.sessions (
        tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid,
        source text COLLATE "C" NOT NULL,
        session text COLLATE "C" NOT NULL,
        seq bigint NOT NULL,
        status text COLLATE "C" NOT NULL,
        ordinal integer NOT NULL,
        node integer NOT NULL,
        usage_type text COLLATE "C" NOT NULL,
        period text COLLATE "C" NOT NULL,
        started_at bigint NOT NULL,
        direction text COLLATE "C" NOT NULL,
        number bigint NOT NULL,
        used bigint NOT NULL,
        granted bigint NOT NULL,
        held bigint NOT NULL,
        amount bigint NOT NULL,
        overrun bigint NOT NULL,
        reason text COLLATE "C" NOT NULL,
        stopped_by integer,
        expires_at bigint,
        recorded_at bigint NOT NULL,
        PRIMARY KEY (tenant_id, source, session)
    ) WITH (fillfactor = 70)
    """,
    "ALTER TABLE allotment.sessions ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE allotment.sessions FORCE ROW LEVEL SECURITY",
    f"CREATE POLICY tenant_isolation ON allotment.sessions USING ({MINE}) WITH CHECK ({MINE})",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.sessions TO allotment_projector",
    "GRANT SELECT ON allotment.sessions TO allotment_app, allotment_auditor",
    "CREATE INDEX sessions_seq ON allotment.sessions (tenant_id, seq)",
    "CREATE INDEX sessions_ordinal ON allotment.sessions (tenant_id, ordinal, seq)",
    "CREATE INDEX sessions_node ON allotment.sessions (tenant_id, node, seq)",
    # Of all sessions few run, and those are asked for.
    "CREATE INDEX sessions_open ON allotment.sessions (tenant_id, seq) WHERE status = 'open'",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
