"""Lines of invoices by the number of their kind: two integers to be found by, where there were five texts.

`invoice_lines` stays for a version before this one, until a later migration takes it away. The view has a
new version, and is told again from the log.
"""

from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

MINE = "tenant_id = (SELECT current_setting('app.tenant')::uuid)"
TENANT = "tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid"
FIGURES = ("records", "quantity", "billed", "overage", "amount", "credit")
SUMS = ", ".join(f"{name} bigint NOT NULL" for name in FIGURES)
TEXTS = ", ".join(
    f'{name} text COLLATE "C" NOT NULL' for name in ("period", "usage_type", "direction", "zone")
)
TABLES = {
    "invoice_sums": f"kind bigint NOT NULL, node integer NOT NULL, {SUMS}, "
    "PRIMARY KEY (tenant_id, kind, node)",
    "invoice_kinds": f"kind bigint NOT NULL, {TEXTS}, tariff integer NOT NULL, rate integer NOT NULL, "
    "PRIMARY KEY (tenant_id, kind)",
}


def upgrade() -> None:
    for table, columns in TABLES.items():
        for statement in (
            f"CREATE TABLE allotment.{table} ({TENANT}, {columns}) WITH (fillfactor = 70)",
            f"ALTER TABLE allotment.{table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE allotment.{table} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY tenant_isolation ON allotment.{table} USING ({MINE}) WITH CHECK ({MINE})",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.{table} TO allotment_projector",
            f"GRANT SELECT ON allotment.{table} TO allotment_app, allotment_auditor",
        ):
            op.execute(statement)
    op.execute("CREATE INDEX invoice_kinds_period ON allotment.invoice_kinds (tenant_id, period)")


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE allotment.{table}")
