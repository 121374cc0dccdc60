"""Whoever places tenants locks leases before workers, and workers in the order of their ids.

Taking a lease that somebody else entered at the same moment locked it with workers locked already, and
could wait for one who waited for these.
"""

from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None

# Each statement sees what was committed before it began: the rows are locked, then looked at, so that
# a heartbeat or another taker that is under way comes before, or after.
TAKE = """
CREATE OR REPLACE FUNCTION allotment.take_lease(tenant uuid, taker uuid) RETURNS uuid
LANGUAGE plpgsql SET search_path = allotment AS $$
DECLARE
    holder uuid;
    entered boolean := false;
BEGIN
    LOOP
        SELECT worker_id INTO holder FROM leases WHERE tenant_id = tenant FOR UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO leases (tenant_id, worker_id) VALUES (tenant, taker) ON CONFLICT DO NOTHING;
        entered := FOUND;
        EXIT WHEN entered;
    END LOOP;
    PERFORM FROM workers WHERE worker_id IN (taker, holder) ORDER BY worker_id FOR UPDATE;
    IF NOT EXISTS (SELECT FROM workers WHERE worker_id = taker AND until > clock_timestamp()) THEN
        IF entered THEN
            DELETE FROM leases WHERE tenant_id = tenant;
        END IF;
        RETURN NULL;
    END IF;
    IF EXISTS (SELECT FROM workers WHERE worker_id = holder AND until > clock_timestamp()) THEN
        RETURN holder;
    END IF;
    IF NOT entered THEN
        UPDATE leases SET worker_id = taker, since = clock_timestamp() WHERE tenant_id = tenant;
    END IF;
    RETURN taker;
END
$$
"""


def upgrade() -> None:
    op.execute(TAKE)
