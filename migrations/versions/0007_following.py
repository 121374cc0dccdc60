"""Following: the directory sees whose views are behind, and rows of usage are added by COPY."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

USAGES = (
    *("seq", "usage_id", "status", "source", "record_id", "ordinal", "node", "usage_type", "period"),
    *("started_at", "direction", "quantity", "billed", "overage", "amount", "zone", "reason", "recorded_at"),
)
POSITIONS = "allotment.projection_positions"
STATEMENTS = [
    f"CREATE POLICY directory_reads ON {POSITIONS} FOR SELECT TO allotment_directory USING (true)",
    # Rows of usage are added by COPY, as those of the log are: by a role that cannot name the tenant.
    f"GRANT INSERT ({', '.join(USAGES)}) ON allotment.usages TO allotment_appender",
    f"GRANT SELECT ON {POSITIONS} TO allotment_directory",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
