"""Invoices: what a period costs so far, line by line, by cost centre.

A line adds up the charges of one node, usage type, direction and rate; beside these stand fees, and what
plans come to. The invoice adds up its lines. So it is the sum of its rated events, of fees and of plans,
exactly. What money buckets paid of an amount is its
credit; the rest is payable, and so is what is missing to the spend that was agreed. The node is
the one that the resource was
on when it happened. Amounts are micro-units of the tenant's currency. What a policy has redirected
to personal accounts is in no line of the enterprise: it is told apart.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ..domain.brief import Charge
from ..domain.charging import CORPORATE
from ..domain.policy import PERSONAL as PERSONAL_ACCOUNT
from ..domain.rating.amending import TariffAmended
from ..domain.rating.overriding import RatesOverridden
from ..domain.rerated import UsageCorrected
from ..domain.resettled import PlanCorrected
from ..domain.tariff import TariffPublished
from ..domain.tenant import TenantOpened
from .chunk import Chunk
from .fees import FeeLine, one_off, recurring
from .in_force import in_force
from .line_kinds import KINDS, Kind, number_of, store
from .members import each
from .plans import PlanLine
from .plans import lines as plan_lines
from .tables import Connection, Table, int8_array

LINES = Table(
    "invoice_sums",
    {"kind": "bigint", "node": "integer"},
    dict.fromkeys(("records", "quantity", "billed", "overage", "amount", "credit"), "bigint"),
)
"""What kinds of lines come to on each node; the kinds themselves are `line_kinds.KINDS`."""
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
"""What is owed in a period for another one that is closed, or credited. Of a plan that is settled as a
whole: of no usage type nor direction, and the plan in place of the zone."""
NO_USAGE = ("", "")
FACTS = Table(
    "tenant_facts",
    {"seq": "bigint"},
    {"name": "text", "time_zone": "text", "currency": "text", "carrier": "text"},
)
TARIFFS = Table(
    "tariffs",
    {"version": "integer"},
    {"tariff": "text", "valid_from": "bigint", "currency": "text", "seq": "bigint"}
    | {"method": "text", "decimals": "integer", "plans": "text", "fees": "text"},
)
TABLES = (LINES, KINDS, PERSONAL, CORRECTIONS, FACTS, TARIFFS)
VERSION = 5

_encode = msgspec.json.Encoder().encode


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
    method: str
    decimals: int
    plans: str
    """As JSON, and so are ..."""
    fees: str


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
    """Of its lines, fees and plans."""
    lines: list[InvoiceLine]
    credit: int = 0
    fees: list[FeeLine] = []
    plans: list[PlanLine] = []

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
    """Of a plan: what it is called."""
    records: int
    amount: int

    @property
    def plan(self) -> str:
        """The plan that came to something else than was settled; "" of charges."""
        return "" if self.usage_type else self.zone


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
    """In pre-order of the hierarchy; only where something was charged or is owed."""
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
    def usage(self) -> int:
        """Of `total`: what was charged for usage."""
        return sum(line.amount for node in self.nodes for line in node.lines)

    @property
    def fees(self) -> int:
        """Of `total`: recurring and one-off fees, less those that were taken back."""
        return sum(line.amount for node in self.nodes for line in node.fees)

    @property
    def plans(self) -> int:
        """Of `total`: what plans come to beside their charges."""
        return sum(line.amount for node in self.nodes for line in node.plans)

    @property
    def counted(self) -> int:
        """What counts towards the spend that was agreed: all of the period, but for one-off fees."""
        once = sum(line.amount for node in self.nodes for line in node.fees if line.kind != "recurring")
        return self.total - self.credit - once

    @property
    def shortfall(self) -> int:
        """What is missing to the spend that was agreed, and owed all the same."""
        return max(0, self.commitment - self.counted)


def apply(chunk: Chunk, db: Connection) -> None:
    PERSONAL.add(db, _lines(chunk, db))
    CORRECTIONS.add(db, _corrections(chunk))
    for told in chunk.others:
        match told.event:
            case TenantOpened(name, time_zone, currency, carrier):
                FACTS.insert(db, [(told.seq, name, time_zone, currency, carrier)])
            case TariffPublished() as published:
                TARIFFS.insert(db, [_tariff(published, told.seq)])
            case TariffAmended() | RatesOverridden() as event:
                TARIFFS.insert(db, [_tariff_of_another(db, event, told.seq)])


def _lines(chunk: Chunk, db: Connection) -> dict[Any, list[int]]:
    """Add what charges come to; what users pay personally of them is left to be added."""
    sums, own = _Sums(), dict[Any, list[int]]()
    counted, charged = chunk.counted(), chunk.tally()
    for (period, node, *rest), (*figures, _, overage, amount, credit) in charged.lines.items():
        sums.add((period, *rest), node, (*figures, overage, amount, credit))
    for charge in charged.others:
        _add_up(sums, own, charge, 1)
    for corrected, sign in chunk.corrections:
        _add_up(sums, own, corrected, sign)
    if counted is not None:
        store(db, counted.kinds, chunk.ordinals.line_kinds)
        LINES.add_packed(db, counted.lines)
    store(db, sums.kinds, chunk.ordinals.line_kinds)
    LINES.add(db, sums.lines)
    return own


class _Sums:
    """Lines of some kinds, by number and node."""

    def __init__(self) -> None:
        self.kinds: dict[int, Kind] = {}
        self.lines: dict[tuple[int, int], list[int]] = {}

    def add(self, kind: Kind, node: int, figures: Sequence[int]) -> None:
        number = number_of(kind)
        self.kinds[number] = kind
        line = self.lines.setdefault((number, node), [0] * len(figures))
        for place, much in enumerate(figures):
            line[place] += much


def _tariff(published: TariffPublished, seq: int) -> tuple[Any, ...]:
    return (
        *(published.version, published.tariff, published.valid_from, published.currency, seq),
        *(published.method, published.decimals),
        *(_encode(published.plans).decode(), _encode(published.fees).decode()),
    )


def _tariff_of_another(db: Connection, event: TariffAmended | RatesOverridden, seq: int) -> tuple[Any, ...]:
    """Only rates and zones change: the rest stays as in the version that it was made of."""
    of = event.of if isinstance(event, RatesOverridden) else event.change.of
    kept = db.execute(
        "SELECT method, decimals, plans, fees FROM tariffs WHERE version = %s", (of,)
    ).fetchone()
    assert kept is not None, "versions are made of earlier ones"
    return event.version, event.tariff, event.valid_from, event.currency, seq, *kept


def _add_up(sums: _Sums, own: dict[Any, list[int]], charge: Charge, sign: int) -> None:
    if charge.payer != CORPORATE:
        _add_personal(own, charge, sign)
        return
    type_and_way = charge.usage_type, charge.direction
    kind = (charge.period, *type_and_way, charge.zone, charge.tariff, charge.rate)
    figures = (1, charge.quantity, charge.billed, charge.overage, charge.amount)
    credit = sum(part for _, part in charge.credit)
    sums.add(kind, charge.path[1], [sign * much for much in (*figures, credit)])


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
        elif isinstance(told.event, PlanCorrected):
            plan = told.event
            line = sums.setdefault(
                (plan.period, plan.of_period, plan.stands_at, *NO_USAGE, plan.plan), [0, 0]
            )
            line[1] += plan.difference
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
    kind = "k.usage_type, k.direction, k.zone, k.tariff, k.rate"
    found = db.execute(
        f"SELECT l.node, {kind}, l.records, l.quantity, l.billed, l.billed - l.overage, l.overage, l.amount, "
        f"l.credit FROM {_LINES} WHERE k.period = %s AND l.records <> 0 ORDER BY l.node, {kind}",
        (period,),
    ).fetchall()
    parts = _Parts()
    for ordinal, *row in found:
        parts.of(ordinal).lines.append(InvoiceLine(*row))
    _add_owed(db, period, parts)
    agreed = db.execute("SELECT commitment FROM periods WHERE period = %s", (period,)).fetchone()
    nodes = parts.nodes(db)
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
        "SELECT k.tariff, k.rate, sum(l.records)::bigint, sum(l.billed)::bigint, sum(l.overage)::bigint, "
        f"sum(l.amount)::bigint FROM {_LINES} "
        "WHERE k.period = %s AND k.usage_type = %s AND %s IN ('', k.direction) "
        "GROUP BY k.tariff, k.rate ORDER BY k.tariff, k.rate",
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


class _Part(Struct):
    """What is found for one node."""

    lines: list[InvoiceLine] = []
    fees: list[FeeLine] = []
    plans: list[PlanLine] = []


class _Parts:
    """By node."""

    def __init__(self) -> None:
        self._parts: dict[int, _Part] = {}

    def of(self, ordinal: int) -> _Part:
        return self._parts.setdefault(ordinal, _Part())

    def nodes(self, db: Connection) -> list[InvoiceNode]:
        """In pre-order."""
        asked = (int8_array(sorted(self._parts)),)
        found = db.execute(_PLACES, asked, prepare=False) if self._parts else ()
        return [_node(ordinal, ident, name, self._parts[ordinal]) for ordinal, ident, name in found]


def _add_owed(db: Connection, period: str, parts: _Parts) -> None:
    """What is owed beside charges; a plan's line stands where its counter is, of a resource at its node."""
    held = in_force(db, period)
    for fee in [*(recurring(db, held) if held is not None else ()), *one_off(db, period)]:
        parts.of(fee.node).fees.append(fee)
    plans = plan_lines(db, period, held) if held is not None else []
    asked = (int8_array(sorted({line.ordinal for line in plans})),)
    places: dict[int, int] = dict(db.execute(_NODES, asked, prepare=False).fetchall()) if plans else {}
    for line in plans:
        parts.of(places[line.ordinal]).plans.append(line)


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


def _node(ordinal: int, ident: str, name: str, part: _Part) -> InvoiceNode:
    records, amount = sum(line.records for line in part.lines), sum(line.amount for line in part.lines)
    amount += sum(fee.amount for fee in part.fees) + sum(line.amount for line in part.plans)
    credit = sum(line.credit for line in part.lines)
    return InvoiceNode(ordinal, ident, name, records, amount, part.lines, credit, part.fees, part.plans)


_LINES = f"invoice_kinds k CROSS JOIN {each('invoice_sums', 'kind = k.kind')} AS l"
_PLACES = "SELECT ordinal, id, name FROM members WHERE ordinal = ANY(%s::bigint[]::integer[]) ORDER BY path"
_NODES = (
    "SELECT ordinal, CASE WHEN is_node THEN ordinal ELSE parent END FROM members "
    "WHERE ordinal = ANY(%s::bigint[]::integer[])"
)
