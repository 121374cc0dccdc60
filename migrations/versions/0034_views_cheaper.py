"""Which tenant is bound is found out once for a statement; usage of a period is found by blocks of the log.

The text of the setting was read once, and made a uuid for each row that was looked up, and each that was
written: a tenth and more of what counting a charge cost. What the policy says stays what it was.
"""

from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

MINE = "tenant_id = (SELECT current_setting('app.tenant')::uuid)"
BEFORE = "tenant_id = (SELECT current_setting('app.tenant'))::uuid"


TENANT = "tenant_id uuid NOT NULL DEFAULT current_setting('app.tenant')::uuid"
PERIODS = [
    # Views that have rows already raised their version: all of them are told again.
    "DROP INDEX allotment.usages_period",
    f"""
    CREATE TABLE allotment.usage_periods (
        {TENANT},
        period text COLLATE "C" NOT NULL,
        block integer NOT NULL,
        usages bigint NOT NULL,
        PRIMARY KEY (tenant_id, period, block)
    ) WITH (fillfactor = 70)
    """,
    "ALTER TABLE allotment.usage_periods ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE allotment.usage_periods FORCE ROW LEVEL SECURITY",
    f"CREATE POLICY tenant_isolation ON allotment.usage_periods USING ({MINE}) WITH CHECK ({MINE})",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON allotment.usage_periods TO allotment_projector",
    "GRANT SELECT ON allotment.usage_periods TO allotment_app, allotment_auditor",
]


def upgrade() -> None:
    _say(MINE, instead_of="(tenant_id = (( SELECT current_setting(%")
    for statement in PERIODS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE allotment.usage_periods")
    op.execute("CREATE INDEX usages_period ON allotment.usages (tenant_id, period, seq)")
    _say(BEFORE, instead_of="(tenant_id = ( SELECT (current_setting(%")


def _say(mine: str, instead_of: str) -> None:
    """Wherever a policy says the same of what is seen and of what is written, and nothing else."""
    found = op.get_bind().exec_driver_sql(
        "SELECT tablename, policyname FROM pg_policies WHERE schemaname = 'allotment' "
        "AND cmd = 'ALL' AND with_check = qual AND qual LIKE %s ORDER BY tablename",
        (instead_of,),
    )
    for table, policy in found.fetchall():
        op.execute(f"ALTER POLICY {policy} ON allotment.{table} USING ({mine}) WITH CHECK ({mine})")
