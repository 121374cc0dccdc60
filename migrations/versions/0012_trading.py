"""The views of trade: offers with their steps, transfers that wait for approval, and the rules for them."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"
TEXT, FLAG = 'text COLLATE "C" NOT NULL', "boolean NOT NULL"
INT, BIGINT = "integer NOT NULL", "bigint NOT NULL"

TABLES: dict[str, tuple[dict[str, str], str]] = {
    "offers": (
        {
            "offer": TEXT,
            "made": BIGINT,
            "seq": BIGINT,
            "state": TEXT,
            "source": INT,
            "target": INT,
            "everybody": FLAG,
            "usage_type": TEXT,
            "period": TEXT,
            "quantity": BIGINT,
            "remaining": BIGINT,
            "pending": BIGINT,
            "asks_type": TEXT,
            "asks_quantity": BIGINT,
            "asks_per": BIGINT,
            "lot": BIGINT,
            "expires_at": BIGINT,
            "counters": TEXT,
            "note": TEXT,
            "made_at": BIGINT,
            "recorded_at": BIGINT,
        },
        "offer",
    ),
    "offer_steps": ({"offer": TEXT, "seq": BIGINT}, "offer, seq"),
    "proposals": (
        {
            "proposal": TEXT,
            "asked": BIGINT,
            "seq": BIGINT,
            "state": TEXT,
            "reason": TEXT,
            "source": INT,
            "target": INT,
            "usage_type": TEXT,
            "period": TEXT,
            "quantity": BIGINT,
            "offer": TEXT,
            "price_type": TEXT,
            "price": BIGINT,
            "approvers": "integer[] NOT NULL",
            "roles": TEXT,
            "four_eyes": FLAG,
            "asked_by": TEXT,
            "expires_at": BIGINT,
            "note": TEXT,
            "answer": TEXT,
            "asked_at": BIGINT,
            "recorded_at": BIGINT,
        },
        "proposal",
    ),
    "approval_rules": (
        {
            "ordinal": INT,
            "usage_type": TEXT,
            "above": "bigint",
            "approver": INT,
            "role": TEXT,
            "four_eyes": FLAG,
            "note": TEXT,
            "seq": BIGINT,
            "recorded_at": BIGINT,
        },
        "ordinal, usage_type",
    ),
}
INDEXES = [
    "CREATE INDEX offers_made ON allotment.offers (tenant_id, made)",
    "CREATE INDEX proposals_asked ON allotment.proposals (tenant_id, asked)",
]


def upgrade() -> None:
    for name, (columns, key) in TABLES.items():
        described = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        tenant = "tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid"
        for statement in (
            f"CREATE TABLE allotment.{name} ({tenant}, {described}, PRIMARY KEY (tenant_id, {key}))",
            f"ALTER TABLE allotment.{name} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE allotment.{name} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY tenant_isolation ON allotment.{name} USING ({MINE}) WITH CHECK ({MINE})",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.{name} TO allotment_projector",
            f"GRANT SELECT ON allotment.{name} TO allotment_app, allotment_auditor",
        ):
            op.execute(statement)
    for statement in INDEXES:
        op.execute(statement)
