"""Taking a lease is one call: a worker that is stopped holds no lock that others wait for."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

STATEMENTS = [
    # Each statement sees what was committed before it began: the rows are locked, then looked at,
    # so that a heartbeat or another taker that is under way comes before, or after.
    """
    CREATE FUNCTION allotment.take_lease(tenant uuid, taker uuid) RETURNS uuid
    LANGUAGE plpgsql SET search_path = allotment AS $$
    DECLARE
        holder uuid;
    BEGIN
        LOOP
            SELECT worker_id INTO holder FROM leases WHERE tenant_id = tenant FOR UPDATE;
            PERFORM FROM workers WHERE worker_id IN (taker, holder) ORDER BY worker_id FOR UPDATE;
            IF NOT EXISTS (SELECT FROM workers WHERE worker_id = taker AND until > clock_timestamp()) THEN
                RETURN NULL;
            END IF;
            IF EXISTS (SELECT FROM workers WHERE worker_id = holder AND until > clock_timestamp()) THEN
                RETURN holder;
            END IF;
            INSERT INTO leases AS held (tenant_id, worker_id) VALUES (tenant, taker)
            ON CONFLICT (tenant_id) DO UPDATE SET worker_id = excluded.worker_id, since = clock_timestamp()
            WHERE held.worker_id = holder;
            IF FOUND THEN
                RETURN taker;
            END IF;
        END LOOP;
    END
    $$
    """,
    "REVOKE ALL ON FUNCTION allotment.take_lease(uuid, uuid) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION allotment.take_lease(uuid, uuid) TO allotment_placement",
]


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
