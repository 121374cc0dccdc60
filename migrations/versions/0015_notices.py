"""Notices: addresses beside the log, what is to be delivered, and how far the log has been looked at."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"
TENANT = "tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid"
TEXT = 'text COLLATE "C" NOT NULL'


def _isolated(table: str, *, to: str) -> list[str]:
    return [
        f"ALTER TABLE allotment.{table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE allotment.{table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY mine ON allotment.{table} USING ({MINE}) WITH CHECK ({MINE})",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.{table} TO allotment_app",
        *(
            [f"CREATE POLICY directory_reads ON allotment.{table} FOR SELECT TO {to} USING (true)"]
            if to
            else []
        ),
    ]


STATEMENTS = [
    # --- where somebody is reached: sealed, found by a keyed hash, erased by deleting the row
    f"""
    CREATE TABLE allotment.notice_addresses (
        {TENANT}, ref bytea, sealed bytea NOT NULL, PRIMARY KEY (tenant_id, ref)
    )
    """,
    *_isolated("notice_addresses", to=""),
    # --- how far a tenant's log has been looked at for what somebody wants to know
    f"CREATE TABLE allotment.notice_positions ({TENANT}, seq bigint NOT NULL, PRIMARY KEY (tenant_id))",
    *_isolated("notice_positions", to="allotment_directory"),
    "GRANT SELECT ON allotment.notice_positions TO allotment_directory",
    # --- one for each place that is told something: how it has been doing
    f"""
    CREATE TABLE allotment.outlets (
        {TENANT},
        channel {TEXT},
        endpoint {TEXT},
        failures integer NOT NULL DEFAULT 0,
        resting_until bigint NOT NULL DEFAULT 0,
        replay_after bigint,
        replay_upto bigint,
        PRIMARY KEY (tenant_id, channel, endpoint)
    ) WITH (fillfactor = 70)
    """,
    *_isolated("outlets", to="allotment_directory"),
    """
    GRANT SELECT (tenant_id, channel, endpoint, resting_until, replay_after)
    ON allotment.outlets TO allotment_directory
    """,
    # --- one for each event that such a place is told
    f"""
    CREATE TABLE allotment.deliveries (
        {TENANT},
        channel {TEXT},
        endpoint {TEXT},
        seq bigint NOT NULL,
        topic {TEXT},
        status {TEXT} DEFAULT 'waiting',
        slot bigint NOT NULL DEFAULT 0,
        due_at bigint NOT NULL,
        claimed_until bigint NOT NULL DEFAULT 0,
        attempts integer NOT NULL DEFAULT 0,
        replays integer NOT NULL DEFAULT 0,
        created_at bigint NOT NULL,
        tried_at bigint,
        took_ms integer,
        detail {TEXT} DEFAULT '',
        PRIMARY KEY (tenant_id, channel, endpoint, seq)
    ) WITH (fillfactor = 70)
    """,
    *_isolated("deliveries", to="allotment_directory"),
    """
    GRANT SELECT (tenant_id, channel, endpoint, status, due_at, claimed_until)
    ON allotment.deliveries TO allotment_directory
    """,
    """
    CREATE INDEX deliveries_waiting ON allotment.deliveries (tenant_id, channel, endpoint, due_at)
    WHERE status = 'waiting'
    """,
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
