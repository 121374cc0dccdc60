"""The log, its heads, the directory of tenants and the keys that seal personal fields."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TENANT_IS_MINE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def _isolated(table: str) -> list[str]:
    """Row-level security that also binds the owner; without a tenant set it raises."""
    return [
        f"ALTER TABLE allotment.{table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE allotment.{table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY mine ON allotment.{table} USING ({TENANT_IS_MINE}) WITH CHECK ({TENANT_IS_MINE})",
    ]


STATEMENTS = [
    "GRANT USAGE ON SCHEMA allotment TO allotment_app, allotment_projector",
    "GRANT USAGE ON SCHEMA allotment TO allotment_auditor, allotment_directory",
    # --- the log: rows are added, never changed
    """
    CREATE TABLE allotment.events (
        tenant_id uuid NOT NULL DEFAULT (current_setting('app.tenant'))::uuid,
        seq bigint NOT NULL CHECK (seq > 0),
        topic text NOT NULL,
        state bytea NOT NULL,
        recorded_at timestamptz NOT NULL,
        command_key bytea CHECK (octet_length(command_key) = 16),
        leaf_hash bytea NOT NULL CHECK (octet_length(leaf_hash) = 32),
        PRIMARY KEY (tenant_id, seq),
        CONSTRAINT events_command_key UNIQUE (tenant_id, command_key)
    )
    """,
    # Nothing is ever updated or deleted, so vacuum has only to freeze; statistics matter.
    "ALTER TABLE allotment.events SET (autovacuum_vacuum_insert_scale_factor = 0.5)",
    *_isolated("events"),
    "GRANT SELECT, INSERT ON allotment.events TO allotment_app",
    "GRANT SELECT ON allotment.events TO allotment_projector, allotment_auditor",
    # COPY is refused under row-level security. This role passes it, but it may only insert, and
    # cannot name the tenant: that is filled in from the transaction's own.
    "GRANT USAGE ON SCHEMA allotment TO allotment_appender",
    """
    GRANT INSERT (seq, topic, state, recorded_at, command_key, leaf_hash)
    ON allotment.events TO allotment_appender
    """,
    # The names by which the eventsourcing library's readers know the same rows.
    """
    CREATE VIEW allotment.stored_events WITH (security_invoker = true) AS
    SELECT tenant_id AS originator_id, seq AS originator_version, seq AS notification_id, topic, state
    FROM allotment.events
    """,
    "GRANT SELECT ON allotment.stored_events TO allotment_app, allotment_projector, allotment_auditor",
    # --- where each log ends, and who may write the next event
    """
    CREATE TABLE allotment.log_heads (
        tenant_id uuid PRIMARY KEY,
        seq bigint NOT NULL DEFAULT 0 CHECK (seq >= 0),
        epoch bigint NOT NULL DEFAULT 0,
        peaks bytea NOT NULL DEFAULT ''
    )
    """,
    *_isolated("log_heads"),
    "CREATE POLICY directory_reads ON allotment.log_heads FOR SELECT TO allotment_directory USING (true)",
    "GRANT SELECT, INSERT, UPDATE ON allotment.log_heads TO allotment_app",
    "GRANT SELECT ON allotment.log_heads TO allotment_projector, allotment_auditor, allotment_directory",
    # --- the directory: which tenants there are
    """
    CREATE TABLE allotment.tenants (
        tenant_id uuid PRIMARY KEY,
        slug text NOT NULL UNIQUE,
        name text NOT NULL,
        carrier text NOT NULL,
        time_zone text NOT NULL,
        currency text NOT NULL,
        created_at timestamptz NOT NULL
    )
    """,
    *_isolated("tenants"),
    "CREATE POLICY directory ON allotment.tenants TO allotment_directory USING (true) WITH CHECK (true)",
    "GRANT SELECT, INSERT ON allotment.tenants TO allotment_directory",
    "GRANT SELECT ON allotment.tenants TO allotment_app, allotment_projector, allotment_auditor",
    # --- keys: a tenant's own, wrapped by the root key; a subject's, wrapped by the tenant's
    """
    CREATE TABLE allotment.tenant_keys (
        tenant_id uuid PRIMARY KEY,
        wrapped bytea NOT NULL
    )
    """,
    *_isolated("tenant_keys"),
    "GRANT SELECT, INSERT ON allotment.tenant_keys TO allotment_app",
    "GRANT SELECT ON allotment.tenant_keys TO allotment_auditor",
    """
    CREATE TABLE allotment.subject_keys (
        tenant_id uuid NOT NULL,
        subject bytea NOT NULL,
        wrapped bytea NOT NULL,
        PRIMARY KEY (tenant_id, subject)
    )
    """,
    *_isolated("subject_keys"),
    "GRANT SELECT, INSERT, DELETE ON allotment.subject_keys TO allotment_app",
    "GRANT SELECT ON allotment.subject_keys TO allotment_auditor",
]
