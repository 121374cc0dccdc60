"""Suspense as it is now, what files and streams brought, and how they add up by day and source."""

from alembic import op

revision = "0020"
down_revision = "0017"
branch_labels = None
depends_on = None

TENANT = "tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid"
MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"
TEXT = 'text COLLATE "C" NOT NULL'
BIGINT = "bigint NOT NULL"

FIGURES = (
    *("charged", "rejected", "suspended", "unreadable", "duplicate", "late", "amount", "value"),
    *("recycled", "recycled_amount", "recycled_rejected", "dismissed", "merged", "ignored"),
)

TABLES: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "suspense": (
        {
            "waiting": "bytea NOT NULL",
            "usage_id": "bytea NOT NULL",
            "seq": BIGINT,
            "content_seq": BIGINT,
            **dict.fromkeys(("source", "record_id", "file", "position"), TEXT),
            "readable": "boolean NOT NULL",
            "usage_type": TEXT,
            "quantity": BIGINT,
            "started_at": BIGINT,
            "direction": TEXT,
            "subject": "bytea NOT NULL",
            **dict.fromkeys(("reason", "field", "detail"), TEXT),
            "revision": BIGINT,
            "attempts": BIGINT,
            "value": "bigint",
            "recorded_at": BIGINT,
            "outcome": TEXT,
            "settled_seq": BIGINT,
        },
        ("waiting",),
    ),
    "accuracy": (
        {"day": "integer NOT NULL", "source": TEXT, "usage_type": TEXT, **dict.fromkeys(FIGURES, BIGINT)},
        ("day", "source", "usage_type"),
    ),
    "imports": (
        {
            **dict.fromkeys(("import_id", "name", "format", "digest"), TEXT),
            "attempts": BIGINT,
            "again": "boolean NOT NULL",
            **dict.fromkeys(("began_seq", "began_at", "finished_seq", "finished_at"), BIGINT),
            **dict.fromkeys(("read", "received", "charged", "duplicate", "suspended", "rejected"), BIGINT),
            **dict.fromkeys(("unreadable", "late", "merged", "ignored", "amount", "value"), BIGINT),
        },
        ("import_id",),
    ),
    "accuracy_calendar": ({"seq": BIGINT, "time_zone": TEXT}, ("seq",)),
}

INDEXES = [
    # Of all that ever waited few still do, and those are asked for.
    "CREATE INDEX suspense_waits ON allotment.suspense (tenant_id, seq) WHERE outcome = ''",
    "CREATE INDEX suspense_usage_id ON allotment.suspense (tenant_id, usage_id)",
    "CREATE INDEX imports_began ON allotment.imports (tenant_id, began_seq)",
    "CREATE INDEX imports_digest ON allotment.imports (tenant_id, digest)",
]


def upgrade() -> None:
    for table, (columns, key) in TABLES.items():
        told = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        op.execute(
            f"CREATE TABLE allotment.{table} ({TENANT}, {told}, PRIMARY KEY (tenant_id, {', '.join(key)}))"
        )
        for statement in (
            f"ALTER TABLE allotment.{table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE allotment.{table} FORCE ROW LEVEL SECURITY",
            f"CREATE POLICY tenant_isolation ON allotment.{table} USING ({MINE}) WITH CHECK ({MINE})",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.{table} TO allotment_projector",
            f"GRANT SELECT ON allotment.{table} TO allotment_app, allotment_auditor",
        ):
            op.execute(statement)
    for statement in INDEXES:
        op.execute(statement)
