"""The views of the log, and how far each has come. All of it can be dropped and built again."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TENANT = "tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid"
TENANT_IS_MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"
MINE = f"USING ({TENANT_IS_MINE}) WITH CHECK ({TENANT_IS_MINE})"
# Texts are compared by their bytes, so that they sort alike on every machine.
TEXT = 'text COLLATE "C" NOT NULL'
INT, BIGINT, BOOLEAN = "integer NOT NULL", "bigint NOT NULL", "boolean NOT NULL"

TABLES: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "projection_positions": (
        {"projection": TEXT, "version": INT, "seq": BIGINT},
        ("projection",),
    ),
    "members": (
        {
            "ordinal": INT,
            "id": TEXT,
            "parent": "integer",
            "name": TEXT,
            "kind": TEXT,
            "is_node": BOOLEAN,
            "path": "integer[] NOT NULL",
            "since": "bigint",
            "until": "bigint",
            "sealed": "bytea[] NOT NULL",
            "tokens": "bytea[] NOT NULL",
        },
        ("ordinal",),
    ),
    "balances": (
        {"period": TEXT, "usage_type": TEXT, "ordinal": INT}
        | dict.fromkeys(
            (
                *("granted", "allocated_in", "allocated_out", "returned_in", "returned_out"),
                *("traded_in", "traded_out", "consumed", "reserved", "used_own", "used", "overage"),
                *("charges", "rejected"),
            ),
            BIGINT,
        ),
        ("period", "usage_type", "ordinal"),
    ),
    "periods": (
        {
            "period": TEXT,
            "starts_at": BIGINT,
            "ends_at": BIGINT,
            "contract": TEXT,
            "version": INT,
            "overage": BOOLEAN,
            "seq": BIGINT,
        },
        ("period",),
    ),
    "limits": (
        {
            "ordinal": INT,
            "usage_type": TEXT,
            "from_period": TEXT,
            "quantity": "bigint",
            "thresholds": "integer[] NOT NULL",
            "seq": BIGINT,
            "recorded_at": BIGINT,
        },
        ("ordinal", "usage_type", "from_period"),
    ),
    "thresholds": (
        {
            "ordinal": INT,
            "usage_type": TEXT,
            "period": TEXT,
            "seq": BIGINT,
            "percent": INT,
            "used": BIGINT,
            "of": BIGINT,
            "recorded_at": BIGINT,
        },
        ("ordinal", "usage_type", "period", "seq"),
    ),
    "usages": (
        {
            "seq": BIGINT,
            "usage_id": "bytea NOT NULL",
            "status": TEXT,
            "source": TEXT,
            "record_id": TEXT,
            "ordinal": "integer",
            "node": "integer",
            "usage_type": TEXT,
            "period": TEXT,
            "started_at": BIGINT,
            "direction": TEXT,
            "quantity": BIGINT,
            "billed": BIGINT,
            "overage": BIGINT,
            "amount": BIGINT,
            "zone": TEXT,
            "reason": TEXT,
            "recorded_at": BIGINT,
        },
        ("seq",),
    ),
    "invoice_lines": (
        {
            "period": TEXT,
            "node": INT,
            "usage_type": TEXT,
            "direction": TEXT,
            "zone": TEXT,
            "tariff": INT,
            "rate": INT,
        }
        | dict.fromkeys(("records", "quantity", "billed", "from_allowance", "overage", "amount"), BIGINT),
        ("period", "node", "usage_type", "direction", "zone", "tariff", "rate"),
    ),
    "tenant_facts": (
        {"seq": BIGINT, "name": TEXT, "time_zone": TEXT, "currency": TEXT, "carrier": TEXT},
        ("seq",),
    ),
    "tariffs": (
        {"version": INT, "tariff": TEXT, "valid_from": BIGINT, "currency": TEXT, "seq": BIGINT},
        ("version",),
    ),
    "member_events": ({"ordinal": INT, "seq": BIGINT}, ("ordinal", "seq")),
}

INDEXES = [
    "CREATE UNIQUE INDEX members_id ON allotment.members (tenant_id, id)",
    "CREATE INDEX members_parent ON allotment.members (tenant_id, parent, is_node)",
    # A usage is found by its id through the log's own index of command keys.
    "CREATE INDEX usages_ordinal ON allotment.usages (tenant_id, ordinal, seq)",
    "CREATE INDEX usages_node ON allotment.usages (tenant_id, node, seq)",
    "CREATE INDEX usages_period ON allotment.usages (tenant_id, period, seq)",
    # Of many usages few are not charged, and those are asked for.
    "CREATE INDEX usages_not_charged ON allotment.usages (tenant_id, status, seq) WHERE status <> 'charged'",
]

COUNTERS = ("balances", "invoice_lines", "projection_positions")
"""Rows that are updated over and over: with room on their page, no index has to follow."""


def upgrade() -> None:
    for table, (columns, key) in TABLES.items():
        for statement in _table(table, columns, key):
            op.execute(statement)
    for statement in INDEXES:
        op.execute(statement)


def _table(table: str, columns: dict[str, str], key: tuple[str, ...]) -> list[str]:
    described = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    primary = f"PRIMARY KEY (tenant_id, {', '.join(key)})"
    fill = " WITH (fillfactor = 70)" if table in COUNTERS else ""
    return [
        f"CREATE TABLE allotment.{table} ({TENANT}, {described}, {primary}){fill}",
        f"ALTER TABLE allotment.{table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE allotment.{table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY tenant_isolation ON allotment.{table} {MINE}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.{table} TO allotment_projector",
        f"GRANT SELECT ON allotment.{table} TO allotment_app, allotment_auditor",
    ]
