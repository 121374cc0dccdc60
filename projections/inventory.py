"""Inventory: what exists, where, since when, how it stands, and how it is used. Reads other views only.

A resource is unassigned while it is on the enterprise node itself, or on a node that is closed. Two are
duplicates when they share a label, or an identity at some time. Times of standing are compared with
the moment asked about.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from ..domain.usage import MONEY
from .blocks import BITS
from .members import each
from .tables import Connection
from .used import USED, used_among

STATUSES = ("active", "suspended", "ended", "planned")


class Item(Struct, frozen=True):
    """A resource."""

    ordinal: int
    id: str
    kind: str
    node_id: str
    node_name: str
    path: list[int]
    since: int
    until: int | None
    status: str
    last_used_at: int | None
    """When its newest record was made."""
    charges: int
    """Records charged in the period."""
    amount: int
    """Charged in the period, in micro-units."""
    used: list[tuple[str, int]]
    """By usage type, in the period."""
    of_limit: int | None
    """Of its tightest limit: the percentage that is used, rounded down."""
    sealed: list[bytes]
    tokens: list[bytes]
    label_sealed: bytes | None
    label_token: bytes | None


class InventoryFilter(Struct, frozen=True):
    """Which resources; everything given must hold."""

    under: Sequence[int] = ()
    """Ordinals of nodes at or below which it is; none means everywhere."""
    kind: str | None = None
    status: str | None = None
    unused_since: int | None = None
    unassigned: bool = False
    over_percent: int | None = None
    duplicates: bool = False
    label_token: bytes | None = None


def inventory_page(
    db: Connection, first: int, after: int, period: str, now: int, wanted: InventoryFilter
) -> list[Item]:
    """Resources in the order in which they were added, after an ordinal."""
    conditions, values = _conditions(wanted)
    values |= {"first": first, "after": after, "period": period, "now": now}
    statement = _PAGE.format(conditions="".join(f" AND {one}" for one in conditions))
    found = db.execute(statement, values).fetchall()
    used = _used(db, [row[0] for row in found], period)
    return [_item(row, used.get(row[0], [])) for row in found]


def _conditions(wanted: InventoryFilter) -> tuple[list[str], dict[str, Any]]:
    conditions: list[str] = []
    values: dict[str, Any] = {}
    if wanted.under:
        conditions.append("m.path && %(under)s::int[]")
        values["under"] = list(wanted.under)
    if wanted.kind is not None:
        conditions.append("m.kind = %(kind)s")
        values["kind"] = wanted.kind
    if wanted.status is not None:
        conditions.append("s.status = %(status)s")
        values["status"] = wanted.status
    if wanted.unused_since is not None:
        conditions.append("coalesce(u.started_at, -1) < %(unused)s")
        values["unused"] = wanted.unused_since
    if wanted.unassigned:
        conditions.append("(cardinality(m.path) <= 2 OR p.closed_at <= %(now)s)")
    if wanted.over_percent is not None:
        conditions.append("l.percent >= %(percent)s")
        values["percent"] = wanted.over_percent
    if wanted.duplicates:
        conditions.append(f"({_SAME_LABEL} OR {_SAME_LINE})")
    if wanted.label_token is not None:
        conditions.append("f.label_token = %(label)s")
        values["label"] = wanted.label_token
    return conditions, values


def _used(db: Connection, ordinals: list[int], period: str) -> dict[int, list[tuple[str, int]]]:
    used: dict[int, list[tuple[str, int]]] = {}
    for usage_type, found in sorted(used_among(db, ordinals, period).items()):
        for ordinal, quantity in zip(ordinals, found.column("used_own"), strict=True):
            if quantity > 0:
                used.setdefault(ordinal, []).append((usage_type, quantity))
    return used


def _item(row: tuple[Any, ...], used: list[tuple[str, int]]) -> Item:
    amount = sum(quantity for usage_type, quantity in used if usage_type == MONEY)
    quantities = [one for one in used if one[0] != MONEY]
    ordinal, ident, kind, node_id, node_name, path, since, until, status, last, charges, percent, *names = row
    return Item(
        *(ordinal, ident, kind, node_id, node_name or node_id, path, since, until, status, last, charges),
        *(amount, quantities, percent, *names),
    )


# Each is worked out once for a page, not for each row.
_SAME_LABEL = (
    "f.label_token IN (SELECT label_token FROM member_life WHERE label_token IS NOT NULL "
    "GROUP BY label_token HAVING count(*) > 1)"
)
_SAME_LINE = (
    "m.ordinal IN (SELECT unnest(array_agg(o.ordinal)) FROM members o "
    "CROSS JOIN unnest(o.tokens) AS t (token) "
    "WHERE NOT o.is_node GROUP BY t.token HAVING count(*) > 1)"
)

_BLOCK = f"block = m.ordinal >> {BITS}"
_PAGE = f"""
SELECT m.ordinal, m.id, m.kind, n.id, n.name, m.path, m.since, m.until, s.status, u.started_at,
       coalesce(c.charges, 0), l.percent, m.sealed, m.tokens, f.label_sealed, f.label_token
FROM members m
CROSS JOIN {each("members", "ordinal = m.parent")} AS n
LEFT JOIN member_life f ON f.ordinal = m.ordinal
LEFT JOIN member_life p ON p.ordinal = m.parent
CROSS JOIN LATERAL (SELECT CASE
    WHEN m.until <= %(now)s THEN 'ended'
    WHEN m.since > %(now)s AND m.until IS NULL THEN 'planned'
    WHEN f.suspended_at <= %(now)s AND coalesce(f.resumed_at, %(now)s + 1) > %(now)s THEN 'suspended'
    ELSE 'active' END AS status) AS s
LEFT JOIN LATERAL (
    SELECT started_at FROM usages WHERE ordinal = m.ordinal ORDER BY seq DESC LIMIT 1
) AS u ON true
LEFT JOIN LATERAL (
    SELECT sum({USED.figure("charges", "m.ordinal", "b")})::bigint AS charges FROM usage_counters b
    WHERE period = %(period)s AND {_BLOCK} AND usage_type <> '{MONEY}'
) AS c ON true
LEFT JOIN LATERAL (
    SELECT max(
        coalesce({USED.figure("used", "m.ordinal", "b")}, 0) * 100 / nullif(h.quantity, 0)
    )::bigint AS percent
    FROM (
        SELECT DISTINCT ON (usage_type) usage_type, quantity FROM limits
        WHERE ordinal = m.ordinal AND from_period <= %(period)s
        ORDER BY usage_type, from_period DESC, seq DESC
    ) AS h
    LEFT JOIN usage_counters b ON b.{_BLOCK} AND b.usage_type = h.usage_type AND b.period = %(period)s
    WHERE h.quantity IS NOT NULL
) AS l ON true
WHERE NOT m.is_node AND m.ordinal > %(after)s{{conditions}}
ORDER BY m.ordinal LIMIT %(first)s
"""
