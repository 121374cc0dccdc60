"""Who wants to write off what waits, what was done about it, and why a file was refused."""

from alembic import op

revision = "0029"
down_revision = "0027"
branch_labels = None
depends_on = None

MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"
TENANT = "tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid"
TEXT = """text COLLATE "C" NOT NULL DEFAULT ''"""

STATEMENTS = [
    # The version before writes rows without them.
    f"ALTER TABLE allotment.suspense ADD COLUMN asked_by {TEXT}",
    "ALTER TABLE allotment.imports ADD COLUMN refused_seq bigint NOT NULL DEFAULT 0",
    f"ALTER TABLE allotment.imports ADD COLUMN problem {TEXT}",
    # By its charge, what had waited is found.
    "CREATE INDEX suspense_settled ON allotment.suspense (tenant_id, settled_seq) WHERE outcome <> ''",
    (
        f"CREATE TABLE allotment.suspense_steps ({TENANT}, seq bigint NOT NULL, waiting bytea NOT NULL, "
        "PRIMARY KEY (tenant_id, seq))"
    ),
    "CREATE INDEX suspense_steps_of ON allotment.suspense_steps (tenant_id, waiting, seq)",
    "ALTER TABLE allotment.suspense_steps ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE allotment.suspense_steps FORCE ROW LEVEL SECURITY",
    f"CREATE POLICY tenant_isolation ON allotment.suspense_steps USING ({MINE}) WITH CHECK ({MINE})",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.suspense_steps TO allotment_projector",
    "GRANT SELECT ON allotment.suspense_steps TO allotment_app, allotment_auditor",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
