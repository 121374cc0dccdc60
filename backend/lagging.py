"""Lagging: which tenants' views are behind their logs, found with one query for all of them.

Asked in the role of the directory, which sees of a tenant where its log ends and where its views
stand, and nothing else. An event is visible once all views show it.
"""

from collections.abc import Sequence
from uuid import UUID

from msgspec import Struct

from ..projections.views import VIEWS, View
from ..tenants.isolation import Isolation
from .log import recorded_at


class Behind(Struct, frozen=True):
    """A tenant with events that its views do not show yet."""

    tenant: UUID
    head: int
    shown: int

    @property
    def events(self) -> int:
        return self.head - self.shown


def tenants_behind(isolation: Isolation, limit: int, views: Sequence[View] = VIEWS) -> list[Behind]:
    """Those furthest behind first. Views that a newer version of the product builds are left to it."""
    names, versions = [view.name for view in views], [view.version for view in views]
    with isolation.directory() as db:
        found = db.execute(_BEHIND, {"names": names, "versions": versions, "limit": limit}, binary=True)
        return [Behind(*row) for row in found]


def oldest_waits_ms(isolation: Isolation, behind: Behind, now: int) -> int:
    """For how long the first event that is not visible yet has been stored; by `now`, in microseconds."""
    with isolation.transaction(behind.tenant) as db:
        stored = recorded_at(db, behind.shown + 1)
    return max(0, now - stored) // 1_000 if stored is not None else 0


_BEHIND = """
WITH shown AS (
    SELECT p.tenant_id, count(*) AS views, bool_or(p.version > w.version) AS newer,
           min(CASE WHEN p.version = w.version THEN p.seq ELSE 0 END) AS seq
    FROM projection_positions p
    JOIN unnest(%(names)s::text[], %(versions)s::int[]) AS w (projection, version) USING (projection)
    GROUP BY p.tenant_id
)
SELECT h.tenant_id, h.seq, CASE WHEN s.views = cardinality(%(names)s::text[]) THEN s.seq ELSE 0 END AS shown
FROM log_heads h LEFT JOIN shown s USING (tenant_id)
WHERE h.seq > CASE WHEN s.views = cardinality(%(names)s::text[]) THEN s.seq ELSE 0 END
  AND NOT coalesce(s.newer, false)
ORDER BY h.seq - coalesce(s.seq, 0) DESC
LIMIT %(limit)s
"""
