"""What contracts agree on: their versions and ends, own usage types, roll-over, shares and credit."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"
TENANT = "tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid"
TEXT = 'text COLLATE "C" NOT NULL'

TABLES = {
    "contract_versions": (
        (
            f"contract {TEXT}, version integer NOT NULL, starts_on {TEXT}, overage boolean NOT NULL, "
            f"grants {TEXT}, terms {TEXT}, note {TEXT}, seq bigint NOT NULL"
        ),
        "contract, version",
    ),
    "contract_ends": (
        f"contract {TEXT}, ends_on {TEXT}, ended boolean NOT NULL, note {TEXT}, seq bigint NOT NULL",
        "contract",
    ),
    "usage_types": (f"name {TEXT}, unit {TEXT}, note {TEXT}, seq bigint NOT NULL", "name"),
}

# The version before writes none of these columns: each has what was true without them.
COLUMNS = {
    "balances": {"expired": 0, "rolled_out": 0, "rolled_in": 0},
    "periods": {"share_part": 1, "share_whole": 1, "commitment": 0},
    "invoice_lines": {"credit": 0},
}

INDEX = """
CREATE INDEX balances_buckets ON allotment.balances (tenant_id, period, usage_type, ordinal)
WHERE granted > 0 OR allocated_in > 0 OR returned_in > 0 OR traded_in > 0 OR rolled_in > 0
"""


def upgrade() -> None:
    for table, (columns, key) in TABLES.items():
        op.execute(f"CREATE TABLE allotment.{table} ({TENANT}, {columns}, PRIMARY KEY (tenant_id, {key}))")
        op.execute(f"ALTER TABLE allotment.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE allotment.{table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY tenant_isolation ON allotment.{table} USING ({MINE}) WITH CHECK ({MINE})")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.{table} TO allotment_projector")
        op.execute(f"GRANT SELECT ON allotment.{table} TO allotment_app, allotment_auditor")
    for table, added in COLUMNS.items():
        for column, value in added.items():
            op.execute(f"ALTER TABLE allotment.{table} ADD {column} bigint NOT NULL DEFAULT {value}")
    op.execute("DROP INDEX allotment.balances_buckets")
    op.execute(INDEX)
