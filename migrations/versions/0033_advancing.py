"""Advancing a log's head as the last step of a group, which fails where another writer has been there."""

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

ARGUMENTS = "of_epoch bigint, seen bigint, last_seq bigint, its_peaks bytea"


def upgrade() -> None:
    # In the rights of who calls it: row-level security binds it as it binds them.
    op.execute(
        f"""
        CREATE FUNCTION allotment.advance_log({ARGUMENTS}) RETURNS void
        LANGUAGE plpgsql SECURITY INVOKER AS $$
        BEGIN
            UPDATE allotment.log_heads SET seq = last_seq, peaks = its_peaks
            WHERE tenant_id = current_setting('app.tenant')::uuid AND epoch = of_epoch AND seq = seen;
            IF NOT FOUND THEN
                RAISE EXCEPTION USING ERRCODE = 'AL001',
                    MESSAGE = format('epoch %s at seq %s is not the log''s any more', of_epoch, seen);
            END IF;
        END $$
        """
    )
    op.execute("REVOKE ALL ON FUNCTION allotment.advance_log(bigint, bigint, bigint, bytea) FROM PUBLIC")
    op.execute(
        "GRANT EXECUTE ON FUNCTION allotment.advance_log(bigint, bigint, bigint, bytea) TO allotment_app"
    )
