"""Tariffs: the versions there are, how each was made, and which were withdrawn before they held."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

TENANT = "tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid"
MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"
TABLES = ("tariff_versions", "tariff_withdrawals")

STATEMENTS = [
    f"""
    CREATE TABLE allotment.tariff_versions (
        {TENANT},
        version integer NOT NULL,
        made text COLLATE "C" NOT NULL,
        tariff text COLLATE "C" NOT NULL,
        valid_from bigint NOT NULL,
        currency text COLLATE "C" NOT NULL,
        base integer NOT NULL,
        since bigint NOT NULL,
        note text COLLATE "C" NOT NULL,
        seq bigint NOT NULL,
        recorded_at bigint NOT NULL,
        PRIMARY KEY (tenant_id, version)
    )
    """,
    f"""
    CREATE TABLE allotment.tariff_withdrawals (
        {TENANT},
        version integer NOT NULL,
        note text COLLATE "C" NOT NULL,
        seq bigint NOT NULL,
        PRIMARY KEY (tenant_id, version)
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
