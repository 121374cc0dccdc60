"""Buckets of resources, by an index: they are few, and a tree of nodes does not show them."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

STATEMENTS = [
    "ALTER TABLE allotment.balances ADD COLUMN resource_gains bigint NOT NULL DEFAULT 0",
    # Usage does not change it: what is counted over and over moves no entry of the index.
    """
    CREATE INDEX balances_of_resources ON allotment.balances (tenant_id, period, usage_type, ordinal)
    WHERE resource_gains > 0
    """,
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX allotment.balances_of_resources")
    op.execute("ALTER TABLE allotment.balances DROP COLUMN resource_gains")
