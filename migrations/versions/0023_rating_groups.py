"""The view of sessions tells their rating group, and what happens when the last units are used."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

STATEMENTS = [
    # The version before writes rows without them.
    "ALTER TABLE allotment.sessions ADD COLUMN rating_group bigint NOT NULL DEFAULT 1",
    """ALTER TABLE allotment.sessions ADD COLUMN final_action text COLLATE "C" NOT NULL DEFAULT ''""",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
