"""Member changes: after which event the tree of nodes, and that of resources, was last another."""

from alembic import op

revision = "0027"
down_revision = "0024"
branch_labels = None
depends_on = None

MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"
TENANT = "tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid"
TABLE = "allotment.member_changes"


def upgrade() -> None:
    op.execute(
        f'CREATE TABLE {TABLE} ({TENANT}, part text COLLATE "C" NOT NULL, seq bigint NOT NULL, '
        "PRIMARY KEY (tenant_id, part))"
    )
    op.execute(f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {TABLE} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant_isolation ON {TABLE} USING ({MINE}) WITH CHECK ({MINE})")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {TABLE} TO allotment_projector")
    op.execute(f"GRANT SELECT ON {TABLE} TO allotment_app, allotment_auditor")
