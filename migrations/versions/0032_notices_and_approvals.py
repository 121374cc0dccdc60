"""Where the log says who is told of what, for looking back at it; approval rules that add transfers up."""

from alembic import op

revision = "0032"
down_revision = "0029"
branch_labels = None
depends_on = None

MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"
TENANT = "tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid"


def upgrade() -> None:
    op.execute(
        f"CREATE TABLE allotment.notice_events ({TENANT}, seq bigint NOT NULL, PRIMARY KEY (tenant_id, seq))"
    )
    op.execute("ALTER TABLE allotment.notice_events ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE allotment.notice_events FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant_isolation ON allotment.notice_events USING ({MINE}) WITH CHECK ({MINE})"
    )
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.notice_events TO allotment_projector")
    op.execute("GRANT SELECT ON allotment.notice_events TO allotment_app, allotment_auditor")
    # The version before writes neither: each has what was true without it.
    op.execute("ALTER TABLE allotment.approval_rules ADD span text COLLATE \"C\" NOT NULL DEFAULT ''")
    op.execute("ALTER TABLE allotment.proposals ADD before bigint NOT NULL DEFAULT 0")
