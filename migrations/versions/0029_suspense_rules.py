"""Who wants to write off what waits, and why a file was refused."""

from alembic import op

revision = "0029"
down_revision = "0024"
branch_labels = None
depends_on = None

TEXT = """text COLLATE "C" NOT NULL DEFAULT ''"""

STATEMENTS = [
    # The version before writes rows without them.
    f"ALTER TABLE allotment.suspense ADD COLUMN asked_by {TEXT}",
    "ALTER TABLE allotment.imports ADD COLUMN refused_seq bigint NOT NULL DEFAULT 0",
    f"ALTER TABLE allotment.imports ADD COLUMN problem {TEXT}",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
