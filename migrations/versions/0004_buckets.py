"""Who ever had a bucket, by an index: sums of subtrees look through these, and not through everybody."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Usage changes none of these columns: what is counted over and over moves no entry of the index.
STATEMENT = """
CREATE INDEX balances_buckets ON allotment.balances (tenant_id, period, usage_type, ordinal)
WHERE granted > 0 OR allocated_in > 0 OR returned_in > 0 OR traded_in > 0
"""


def upgrade() -> None:
    op.execute(STATEMENT)
