"""Usages: one row for each usage record, whatever became of it.

A row is the event's own figures and its seq; the sealed line and counterpart stay in the log.
Rows are only ever added, so "as of seq n" is the rows up to n.
"""

from collections import Counter
from collections.abc import Sequence
from struct import Struct as Layout
from typing import Any

from msgspec import Struct

from ..domain.events import Recorded
from ..domain.rerated import UsageCorrected, UsageRerated
from .chunk import Charges, Chunk
from .members import each
from .paging import newest, page_values
from .tables import COPY_HEADER, COPY_TRAILER, Connection, Table, copied_text, copy_in

STATUSES = ("charged", "rejected", "suspended")

USAGES = Table(
    "usages",
    {"seq": "bigint"},
    {
        "usage_id": "bytea",
        "status": "text",
        "source": "text",
        "record_id": "text",
        "ordinal": "integer",
        "node": "integer",
        "usage_type": "text",
        "period": "text",
        "started_at": "bigint",
        "direction": "text",
        "quantity": "bigint",
        "billed": "bigint",
        "overage": "bigint",
        "amount": "bigint",
        "zone": "text",
        "reason": "text",
        "recorded_at": "bigint",
    },
)
RERATINGS = Table(
    "reratings",
    {"seq": "bigint"},
    {
        "first": "bigint",
        "job": "text",
        "cause": "text",
        "corrected_in": "text",
        "ordinal": "integer",
        "node": "integer",
        "usage_type": "text",
        "period": "text",
        "zone": "text",
        "was_node": "integer",
        "was_billed": "bigint",
        "was_overage": "bigint",
        "was_amount": "bigint",
        "was_tariff": "integer",
        "billed": "bigint",
        "overage": "bigint",
        "amount": "bigint",
        "tariff": "integer",
        "by_zone": "boolean",
        "recorded_at": "bigint",
    },
)
"""What records were charged with in place of a charge: `first` is the event that charged them first."""
BLOCK_BITS = 12
PERIODS = Table("usage_periods", {"period": "text", "block": "integer"}, {"usages": "bigint"})
"""How many rows of a period are among 4,096 seqs. Blocks are the same however the log is cut into chunks; an
entry for each of them costs next to nothing, one for each row a fifth of what the row does."""
TABLES = (USAGES, RERATINGS, PERIODS)
VERSION = 3


class Usage(Struct, frozen=True):
    """What became of one usage record. Texts are empty and members None where nothing is known."""

    seq: int
    usage_id: bytes
    status: str
    source: str
    record_id: str
    ordinal: int | None
    """The resource that used it ..."""
    node: int | None
    """... and the node that it was on: the cost centre."""
    usage_type: str
    period: str
    started_at: int
    direction: str
    quantity: int
    billed: int
    overage: int
    amount: int
    zone: str
    reason: str
    """Why it was rejected or suspended: a stable code."""
    recorded_at: int
    resource_id: str | None
    node_id: str | None
    node_name: str | None


class Remade(Struct, frozen=True):
    """A record that was charged again, in place of what it was charged with before."""

    seq: int
    first: int
    job: str
    cause: str
    corrected_in: str
    """The period in which the difference is owed, where the record's own is closed; else empty."""
    ordinal: int
    node: int
    usage_type: str
    period: str
    zone: str
    was_node: int
    was_billed: int
    was_overage: int
    was_amount: int
    was_tariff: int
    billed: int
    overage: int
    amount: int
    tariff: int
    by_zone: bool
    recorded_at: int


class UsageFilter(Struct, frozen=True):
    """Which usages; everything given must hold."""

    under: str | None = None
    """Used by this resource, or on this node or a node below it, at the time."""
    status: str | None = None
    usage_type: str | None = None
    period: str | None = None
    reason: str | None = None


ALL = UsageFilter()


def apply(chunk: Chunk, db: Connection) -> None:
    if chunk.may_copy and chunk.charges.events:
        copy_in(db, COPY, chunk.copied or copied(chunk.charges))
        rows = []
    else:
        rows = _charged(chunk.charges)
    rows += [
        (
            *(told.seq, told.command_key, "rejected", denied.source, denied.record_id, denied.path[0]),
            *(denied.path[1], denied.usage_type, denied.period, denied.started_at, denied.direction),
            *(denied.quantity, denied.billed, 0, 0, "", denied.reason, told.recorded_at),
        )
        for told, denied in chunk.rejected
    ]
    rows += [
        (
            *(told.seq, told.command_key, "suspended", waiting.source, waiting.record_id, None, None),
            *(waiting.usage_type, "", waiting.started_at, waiting.direction),
            *(waiting.quantity, 0, 0, 0, "", waiting.reason, told.recorded_at),
        )
        for told, waiting in chunk.suspended
    ]
    USAGES.insert(db, rows)
    _count_by_period(chunk, db)
    made = ((told, told.event) for told in chunk.others)
    RERATINGS.insert(
        db, [_remade(told, one) for told, one in made if isinstance(one, UsageRerated | UsageCorrected)]
    )


def _count_by_period(chunk: Chunk, db: Connection) -> None:
    counted, charges = chunk.counted(), chunk.charges
    blocks: Counter[tuple[str, int]] = Counter()
    if counted is not None:
        PERIODS.add_packed(db, counted.blocks)
    else:
        blocks.update(
            (charge.period, seq >> BLOCK_BITS)
            for seq, charge in zip(charges.seqs, charges.events, strict=True)
        )
    blocks.update((denied.period, told.seq >> BLOCK_BITS) for told, denied in chunk.rejected)
    blocks.update(("", told.seq >> BLOCK_BITS) for told, _ in chunk.suspended)
    PERIODS.add(db, {key: (usages,) for key, usages in blocks.items()})


def _remade(told: Recorded, made: UsageRerated | UsageCorrected) -> tuple[Any, ...]:
    was, charge = made.was, made.charge
    corrected_in = made.period if isinstance(made, UsageCorrected) else ""
    return (
        *(told.seq, made.first, made.job, made.cause, corrected_in, charge.path[0], charge.path[1]),
        *(charge.usage_type, charge.period, charge.zone),
        *(was.node, was.billed, was.overage, was.amount, was.tariff),
        *(charge.billed, charge.overage, charge.amount, charge.tariff, made.by_zone, told.recorded_at),
    )


def _charged(charges: Charges) -> list[tuple[Any, ...]]:
    return [
        (
            *(seq, key, "charged", event.source, event.record_id, event.path[0], event.path[1]),
            *(event.usage_type, event.period, event.started_at, event.direction, event.quantity),
            *(event.billed, event.overage, event.amount, event.zone, "", recorded_at),
        )
        for seq, key, recorded_at, event in zip(*charges, strict=True)
    ]


COPY = (
    "COPY usages (seq, usage_id, ordinal, node, started_at, quantity, billed, overage, amount, recorded_at, "
    "record_id, status, reason, usage_type, direction, source, period, zone) FROM STDIN (FORMAT binary)"
)


def copied(charges: Charges) -> bytearray:
    """The rows of charges in PostgreSQL's binary COPY format; the texts that repeat are made once."""
    rows = bytearray(COPY_HEADER)
    texts: dict[tuple[str, ...], bytes] = {}
    for seq, key, recorded_at, event in zip(*charges, strict=True):
        record_id = event.record_id.encode()
        repeated = (event.usage_type, event.direction, event.source, event.period, event.zone)
        rest = texts.get(repeated)
        if rest is None:
            rest = texts[repeated] = b"".join(map(copied_text, ("charged", "", *repeated)))
        rows += _ROW(
            18, 8, seq, 16, key, 4, event.path[0], 4, event.path[1], 8, event.started_at,
            8, event.quantity, 8, event.billed, 8, event.overage, 8, event.amount, 8, recorded_at,
            len(record_id),
        )  # fmt: skip
        rows += record_id
        rows += rest
    rows += COPY_TRAILER
    return rows


_ROW = Layout("!hiqi16siiii" + 6 * "iq" + "i").pack


_WAITING = ", ".join(f"{'s' if column == 'reason' else 'u'}.{column}" for column in USAGES.columns)


# --- queries ---------------------------------------------------------------------------------


def usages_page(
    db: Connection, first: int, before: int | None = None, wanted: UsageFilter = ALL
) -> list[Usage]:
    """The newest usages before a seq, newest first; as of seq n is before n + 1."""
    conditions, values = [], page_values(first, before)
    for column in ("usage_type", "period", "reason"):
        value = getattr(wanted, column)
        if value is not None:
            conditions.append(f"{column} = %({column})s")
            values[column] = value
    if wanted.status is not None:
        if wanted.status not in STATUSES:
            return []
        # Written out, not a parameter: what is not charged has an index of its own.
        conditions.append(f"status = '{wanted.status}'")
    if wanted.period is not None and wanted.under is None:
        return _usages(db, _of_period(conditions), values)
    page = newest(db, "usages", conditions, values, wanted.under)
    return [] if page is None else _usages(db, page, values)


def _of_period(conditions: Sequence[str]) -> str:
    """Block by block, the newest first, until the page is full; rows of other periods are passed over."""
    among = " AND ".join(
        (
            f"seq >= b.block::bigint << {BLOCK_BITS}",
            f"seq < (b.block + 1::bigint) << {BLOCK_BITS}",
            *("seq < %(before)s", *conditions),
        )
    )
    return (
        "SELECT u.* FROM (SELECT block FROM usage_periods WHERE period = %(period)s "
        f"AND block <= ((%(before)s::bigint - 1) >> {BLOCK_BITS}) ORDER BY block DESC) AS b "
        f"CROSS JOIN LATERAL (SELECT * FROM usages WHERE {among} ORDER BY seq DESC LIMIT %(first)s) AS u "
        "ORDER BY b.block DESC, u.seq DESC LIMIT %(first)s"
    )


def usage(db: Connection, usage_id: bytes) -> Usage | None:
    """One usage, by the key of its record: the log itself knows where that stands."""
    stands = "SELECT u.* FROM events e JOIN usages u ON u.seq = e.seq WHERE e.command_key = %(usage_id)s"
    found = _usages(db, stands, {"usage_id": usage_id})
    return found[0] if found else None


def remade(db: Connection, firsts: Sequence[int], upto: int | None = None) -> dict[int, list[Remade]]:
    """What records were charged with later, oldest first: by the event that charged each first."""
    found: dict[int, list[Remade]] = {}
    if firsts:
        rows = db.execute(
            f"SELECT {', '.join(RERATINGS.columns)} FROM reratings "
            "WHERE first = ANY(%(firsts)s::bigint[]) AND seq <= %(upto)s ORDER BY seq",
            {"firsts": list(firsts), "upto": 2**62 if upto is None else upto},
        )
        for row in rows:
            found.setdefault(row[1], []).append(Remade(*row))
    return found


def suspense_page(
    db: Connection, first: int, before: int | None = None, reason: str | None = None
) -> list[Usage]:
    """What waits to be corrected, newest first, for the reason it waits for now."""
    values = page_values(first, before) | {"reason": reason}
    waiting = (
        "SELECT seq, reason FROM suspense WHERE outcome = '' AND seq < %(before)s "
        "AND (%(reason)s::text IS NULL OR reason = %(reason)s) ORDER BY seq DESC LIMIT %(first)s"
    )
    page = f"SELECT {_WAITING} FROM ({waiting}) AS s CROSS JOIN {each('usages', 'seq = s.seq')} AS u"
    return _usages(db, page, values)


def _usages(db: Connection, rows: str, values: dict[str, Any]) -> list[Usage]:
    columns = ", ".join(f"u.{column}" for column in USAGES.columns)
    names = ("id", "u.ordinal"), ("id", "u.node"), ("name", "u.node")
    told = ", ".join(f"(SELECT {name} FROM members WHERE ordinal = {at})" for name, at in names)
    found = db.execute(
        f"SELECT {columns}, {told} FROM ({rows}) AS u ORDER BY u.seq DESC", values, binary=True
    )
    return [Usage(*row) for row in found]
