"""Snapshots of what a tenant's writer holds in memory. All of it can be deleted at any time."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TENANT_IS_MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"

STATEMENTS = [
    # A snapshot is its main row, and the parts that this names: those change seldom, and are shared.
    """
    CREATE TABLE allotment.snapshots (
        tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid,
        seq bigint NOT NULL CHECK (seq > 0),
        part text NOT NULL,
        reducer bytea NOT NULL,
        state bytea NOT NULL,
        uses text[] NOT NULL DEFAULT '{}',
        recorded_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, seq, part)
    )
    """,
    # Compressing it again and again would cost the server more than the room.
    "ALTER TABLE allotment.snapshots ALTER COLUMN state SET STORAGE EXTERNAL",
    "ALTER TABLE allotment.snapshots ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE allotment.snapshots FORCE ROW LEVEL SECURITY",
    f"CREATE POLICY mine ON allotment.snapshots USING ({TENANT_IS_MINE}) WITH CHECK ({TENANT_IS_MINE})",
    "GRANT SELECT, INSERT, DELETE ON allotment.snapshots TO allotment_app",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
