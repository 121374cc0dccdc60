"""Invoices: what a period costs so far, line by line, by cost centre.

A line adds up the charges of one node, usage type, direction and rate; the invoice adds up its
lines. So it is the sum of its rated events, exactly. What money buckets paid of an amount is its
credit; the rest is payable, and so is what is missing to the spend that was agreed. The node is
the one that the resource was
on when it happened. Amounts are micro-units of the tenant's currency. What a policy has redirected
to personal accounts is in no line of the enterprise: it is told apart.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from msgspec import Struct

from ..domain.brief import Charge
from ..domain.charging import CORPORATE
from ..domain.policy import PERSONAL as PERSONAL_ACCOUNT
from ..domain.rating.amending import TariffAmended
from ..domain.rating.overriding import RatesOverridden
from ..domain.rerated import UsageCorrected
from ..domain.tariff import TariffPublished
from ..domain.tenant import TenantOpened
from .chunk import Chunk
from .members import each
from .tables import Connection, Table

LINES = Table(
    "invoice_lines",
    {
        "period": "text",
        "node": "integer",
        "usage_type": "text",
        "direction": "text",
        "zone": "text",
        "tariff": "integer",
        "rate": "integer",
    },
    dict.fromkeys(
        ("records", "quantity", "billed", "from_allowance", "overage", "amount", "credit"), "bigint"
    ),
)
PERSONAL = Table(
    "personal_lines",
    {
        "period": "text",
        "node": "integer",
        "ordinal": "integer",
        "usage_type": "text",
        "direction": "text",
        "zone": "text",
        "tariff": "integer",
        "rate": "integer",
    },
    dict.fromkeys(("records", "quantity", "billed", "amount"), "bigint"),
)
CORRECTIONS = Table(
    "invoice_corrections",
    {
        "period": "text",
        "of_period": "text",
        "node": "integer",
        "usage_type": "text",
        "direction": "text",
        "zone": "text",
    },
    dict.fromkeys(("records", "amount"), "bigint"),
)
"""What is owed in a period for another one that is closed, or credited."""
FACTS = Table(
    "tenant_facts",
    {"seq": "bigint"},
    {"name": "text", "time_zone": "text", "currency": "text", "carrier": "text"},
)
TARIFFS = Table(
    "tariffs",
    {"version": "integer"},
    {"tariff": "text", "valid_from": "bigint", "currency": "text", "seq": "bigint"},
)
TABLES = (LINES, PERSONAL, CORRECTIONS, FACTS, TARIFFS)
VERSION = 4


class Facts(Struct, frozen=True):
    """Who the invoice is for, and in what currency."""

    name: str
    time_zone: str
    currency: str
    carrier: str


class Tariff(Struct, frozen=True):
    """A tariff version; its rates stand in the event."""

    version: int
    tariff: str
    valid_from: int
    currency: str
    seq: int


class InvoiceLine(Struct, frozen=True):
    usage_type: str
    direction: str
    zone: str
    tariff: int
    rate: int
    """Which of the tariff version's rates."""
    records: int
    quantity: int
    billed: int
    """`quantity`, each record rounded up to its increment."""
    from_allowance: int
    overage: int
    amount: int
    credit: int = 0
    """Of `amount`: what money buckets paid."""

    @property
    def payable(self) -> int:
        return self.amount - self.credit


class InvoiceNode(Struct, frozen=True):
    """The part of one cost centre."""

    ordinal: int
    id: str
    name: str
    records: int
    amount: int
    lines: list[InvoiceLine]
    credit: int = 0

    @property
    def payable(self) -> int:
        return self.amount - self.credit


class CorrectionLine(Struct, frozen=True):
    """What is owed, or credited, for usage of another period: its invoice is closed."""

    of_period: str
    ordinal: int
    id: str
    usage_type: str
    direction: str
    zone: str
    records: int
    amount: int


class PersonalLine(Struct, frozen=True):
    """What a user has to pay personally, by rate: no part of the enterprise's invoice."""

    ordinal: int
    """The resource that used it ..."""
    id: str
    node: int
    """... and the node it was on."""
    usage_type: str
    direction: str
    zone: str
    tariff: int
    rate: int
    records: int
    quantity: int
    billed: int
    amount: int


class RateCharged(Struct, frozen=True):
    """What one rate has charged in a period."""

    tariff: int
    rate: int
    records: int
    billed: int
    overage: int
    amount: int


class Invoice(Struct, frozen=True):
    name: str
    currency: str
    period: str
    nodes: list[InvoiceNode]
    """In pre-order of the hierarchy; only where something was charged."""
    records: int
    total: int
    """Of all amounts, whoever pays them."""
    credit: int = 0
    commitment: int = 0
    """Spend agreed for the period."""
    corrections: list[CorrectionLine] = []
    """Of periods that are closed: no part of `total`."""

    @property
    def corrected(self) -> int:
        return sum(line.amount for line in self.corrections)

    @property
    def payable(self) -> int:
        return self.total - self.credit + self.corrected

    @property
    def shortfall(self) -> int:
        """What is missing to the spend that was agreed, and owed all the same."""
        return max(0, self.commitment - (self.total - self.credit))


def apply(chunk: Chunk, db: Connection) -> None:
    sums: dict[Any, list[int]] = {}
    own: dict[Any, list[int]] = {}
    for charge in chunk.charges.events:
        _add_up(sums, own, charge, 1)
    for corrected, sign in chunk.corrections:
        _add_up(sums, own, corrected, sign)
    LINES.add(db, sums)
    PERSONAL.add(db, own)
    CORRECTIONS.add(db, _corrections(chunk))
    for told in chunk.others:
        match told.event:
            case TenantOpened(name, time_zone, currency, carrier):
                FACTS.insert(db, [(told.seq, name, time_zone, currency, carrier)])
            case TariffPublished() | TariffAmended() | RatesOverridden() as event:
                row = (event.version, event.tariff, event.valid_from, event.currency, told.seq)
                TARIFFS.insert(db, [row])


def _add_up(sums: dict[Any, list[int]], own: dict[Any, list[int]], charge: Charge, sign: int) -> None:
    if charge.payer != CORPORATE:
        _add_personal(own, charge, sign)
        return
    node, billed, overage = charge.path[1], charge.billed, charge.overage
    kind, way = charge.usage_type, charge.direction
    key = (charge.period, node, kind, way, charge.zone, charge.tariff, charge.rate)
    line = sums.get(key)
    if line is None:
        line = sums[key] = [0, 0, 0, 0, 0, 0, 0]
    line[0] += sign
    line[1] += sign * charge.quantity
    line[2] += sign * billed
    line[3] += sign * (billed - overage)
    line[4] += sign * overage
    line[5] += sign * charge.amount
    for _, part in charge.credit:
        line[6] += sign * part


def _add_personal(sums: dict[Any, list[int]], charge: Charge, sign: int) -> None:
    """A call for help is nobody's to pay."""
    if charge.payer == PERSONAL_ACCOUNT:
        foot, node = charge.path[:2]
        key = (charge.period, node, foot, charge.usage_type, charge.direction, charge.zone)
        line = sums.setdefault((*key, charge.tariff, charge.rate), [0, 0, 0, 0])
        for place, much in enumerate((1, charge.quantity, charge.billed, charge.amount)):
            line[place] += sign * much


def _corrections(chunk: Chunk) -> dict[Any, list[int]]:
    sums: dict[Any, list[int]] = {}
    for told in chunk.others:
        if isinstance(told.event, UsageCorrected):
            of = told.event.charge
            key = (told.event.period, of.period, of.path[1], of.usage_type, of.direction, of.zone)
            line = sums.setdefault(key, [0, 0])
            line[0] += 1
            line[1] += told.event.difference
    return sums


# --- queries ---------------------------------------------------------------------------------


def facts(db: Connection) -> Facts | None:
    found = db.execute("SELECT name, time_zone, currency, carrier FROM tenant_facts ORDER BY seq").fetchone()
    return Facts(*found) if found else None


def tariffs(db: Connection) -> list[Tariff]:
    found = db.execute(f"SELECT {', '.join(TARIFFS.columns)} FROM tariffs ORDER BY version")
    return [Tariff(*row) for row in found]


def invoice(db: Connection, period: str) -> Invoice:
    """The invoice as it stands; empty where nothing was charged yet."""
    about = facts(db)
    columns = ", ".join(f"l.{column}" for column in LINES.columns if column not in ("period", "node"))
    found = db.execute(
        f"SELECT m.ordinal, m.id, m.name, {columns} "
        f"FROM invoice_lines l CROSS JOIN {each('members', 'ordinal = l.node')} AS m WHERE l.period = %s "
        "AND l.records <> 0 ORDER BY m.path, l.usage_type, l.direction, l.zone, l.tariff, l.rate",
        (period,),
    ).fetchall()
    agreed = db.execute("SELECT commitment FROM periods WHERE period = %s", (period,)).fetchone()
    nodes = [_node(list(rows)) for _, rows in groupby(found, key=lambda row: row[0])]
    return Invoice(
        about.name if about else "",
        about.currency if about else "",
        period,
        nodes,
        sum(node.records for node in nodes),
        sum(node.amount for node in nodes),
        sum(node.credit for node in nodes),
        agreed[0] if agreed else 0,
        corrections(db, period),
    )


def rates_charged(db: Connection, period: str, usage_type: str, direction: str) -> list[RateCharged]:
    """What each rate of each version has charged the enterprise in a period; no direction is both."""
    found = db.execute(
        "SELECT tariff, rate, sum(records)::bigint, sum(billed)::bigint, sum(overage)::bigint, "
        "sum(amount)::bigint FROM invoice_lines "
        "WHERE period = %s AND usage_type = %s AND %s IN ('', direction) "
        "GROUP BY tariff, rate ORDER BY tariff, rate",
        (period, usage_type, direction),
    )
    return [RateCharged(*row) for row in found]


def corrections(db: Connection, period: str) -> list[CorrectionLine]:
    """What is owed in a period for those that are closed, the oldest first."""
    found = db.execute(
        "SELECT l.of_period, m.ordinal, m.id, l.usage_type, l.direction, l.zone, l.records, l.amount "
        f"FROM invoice_corrections l CROSS JOIN {each('members', 'ordinal = l.node')} AS m "
        "WHERE l.period = %s ORDER BY l.of_period, m.path, l.usage_type, l.direction, l.zone",
        (period,),
    )
    return [CorrectionLine(*row) for row in found]


def personal(db: Connection, period: str) -> list[PersonalLine]:
    """What users pay personally in a period, by node and resource."""
    kinds = "l.usage_type, l.direction, l.zone, l.tariff, l.rate"
    found = db.execute(
        f"SELECT l.ordinal, m.id, l.node, {kinds}, l.records, l.quantity, l.billed, l.amount "
        f"FROM personal_lines l CROSS JOIN {each('members', 'ordinal = l.ordinal')} AS m "
        f"WHERE l.period = %s AND l.records <> 0 ORDER BY l.node, l.ordinal, {kinds}",
        (period,),
    )
    return [PersonalLine(*row) for row in found]


def _node(rows: Sequence[tuple[Any, ...]]) -> InvoiceNode:
    ordinal, ident, name = rows[0][:3]
    lines = [InvoiceLine(*row[3:]) for row in rows]
    records, amount = sum(line.records for line in lines), sum(line.amount for line in lines)
    return InvoiceNode(ordinal, ident, name, records, amount, lines, sum(line.credit for line in lines))
