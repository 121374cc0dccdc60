"""What became of members: suspended, closed, planned, labelled. Few have any of it, so it stands beside."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"

STATEMENTS = [
    """
    CREATE TABLE allotment.member_life (
        tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid,
        ordinal integer NOT NULL,
        suspended_at bigint,
        resumed_at bigint,
        closed_at bigint,
        successor integer,
        plan text COLLATE "C",
        plan_to text COLLATE "C",
        plan_at bigint,
        label_token bytea,
        label_sealed bytea,
        PRIMARY KEY (tenant_id, ordinal)
    )
    """,
    "ALTER TABLE allotment.member_life ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE allotment.member_life FORCE ROW LEVEL SECURITY",
    f"CREATE POLICY tenant_isolation ON allotment.member_life USING ({MINE}) WITH CHECK ({MINE})",
    # A label is looked for by its keyed hash.
    """
    CREATE INDEX member_life_label ON allotment.member_life (tenant_id, label_token)
    WHERE label_token IS NOT NULL
    """,
    "GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.member_life TO allotment_projector",
    "GRANT SELECT ON allotment.member_life TO allotment_app, allotment_auditor",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
