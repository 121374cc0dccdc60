"""An enterprise for workers to share, and a look into its log."""

from uuid import UUID

from allotment.backend.log import PostgresLog, recorded
from allotment.tenants.isolation import Isolation

DEFINITION = {
    "region": "GB",
    "nodes": [
        {"id": "acme", "kind": "enterprise", "name": "Acme"},
        {"id": "emea", "kind": "division", "parent": "acme", "name": "EMEA"},
    ],
    "resources": [{"id": f"r{i}", "node": "emea", "kind": "msisdn", "lines": [f"+44{i}"]} for i in range(10)],
    "contracts": [{"id": "main", "starts_on": "2026-01-01", "grants": {"voice": 10_000_000}}],
    "tariffs": [
        {
            "id": "standard",
            "valid_from": "2026-01-01",
            "currency": "EUR",
            "rates": [{"usage_type": "voice", "zone": "any", "price": "0.05", "per": 60}],
        }
    ],
}


def charged_ids(isolation: Isolation, tenant: UUID) -> list[str]:
    rows = PostgresLog(isolation, tenant).read(0, 1_000_000)
    return [recorded(row).event.record_id for row in rows if row.topic == "usage.charged"]
