"""Invoices: what a period costs so far, by cost centre. Preview and invoice are one computation."""

import functools
from collections.abc import Mapping
from enum import Enum

import strawberry
from strawberry import ID

from ..projections import invoices as views
from ..projections.fees import FeeLine
from ..projections.plans import PlanLine
from ..projections.stakes import AtRisk, at_risk
from ..tenants.isolation import Connection
from .asking import AsOf, Reach, looking, period_of, permit, reach_of
from .context import Info
from .scalars import Money, Quantity, Seq


@strawberry.type(description="The charges of one node, usage type, direction and rate, added up.")
class InvoiceLine:
    usage_type: str
    unit: str
    direction: str
    zone: str
    tariff_version: int
    rate_index: int = strawberry.field(description="Which of the tariff version's rates, counted from 0.")
    records: Quantity
    quantity: Quantity
    billed: Quantity = strawberry.field(description="Each record's quantity rounded up to its increment.")
    from_allowance: Quantity
    overage: Quantity
    amount: Money
    credit: Money = strawberry.field(description="Of `amount`: what money allowances paid.")
    payable: Money = strawberry.field(description="amount - credit.")


@strawberry.enum(
    description="RECURRING: owed for being there. ONE_OFF: charged once. CREDIT: a one-off fee taken back."
)
class FeeKind(Enum):
    RECURRING = "recurring"
    ONE_OFF = "one_off"
    CREDIT = "credit"


@strawberry.type(description="A fee. What is recurring is shown for whoever is there now, as if they stay.")
class InvoiceFee:
    kind: FeeKind
    name: str
    fee: ID | None = strawberry.field(description="Of a fee charged once.")
    note: str = strawberry.field(description="Why it was charged once, or taken back.")
    tariff_version: int | None = strawberry.field(description="Which says it, of a recurring fee.")
    each: str | None = strawberry.field(description="enterprise, node, resource or channel ...")
    of_kind: str | None = strawberry.field(description="... of which kind; null: of all.")
    price: str | None = strawberry.field(description="For each of them and a whole period.")
    share: str | None = strawberry.field(
        description='How many whole periods they were there, all together, as a fraction: "5/2".'
    )
    exact_fraction: str | None = strawberry.field(description="price x share in micro-units, not rounded.")
    amount: Money


@strawberry.enum(
    description="VOLUME: all units at the price of the tier reached, less what they were charged. "
    "MINIMUM: what is missing to the spend that was agreed on."
)
class PlanLineKind(Enum):
    VOLUME = "volume"
    MINIMUM = "minimum"


@strawberry.type(description="What a price plan comes to beside the charges under it.")
class InvoicePlan:
    kind: PlanLineKind
    plan: str
    member_id: ID = strawberry.field(description="Who counts: the enterprise, a node, a resource.")
    tariff_version: int = strawberry.field(description="The last one of the period that has the plan.")
    units: Quantity = strawberry.field(description="Counted in the period: what no allowance covered.")
    charged: Money = strawberry.field(description="What these units, and lines before this one, come to.")
    owed: Money = strawberry.field(description="What it comes to in the end.")
    exact_fraction: str = strawberry.field(description="That in micro-units, not rounded.")
    amount: Money = strawberry.field(description="owed - charged; may be less than nothing.")


@strawberry.type(description="The part of one cost centre.")
class InvoiceNode:
    node_id: ID
    name: str
    records: Quantity
    amount: Money = strawberry.field(description="The sum of its lines, fees and plans.")
    credit: Money
    payable: Money
    lines: list[InvoiceLine]
    fees: list[InvoiceFee]
    plans: list[InvoicePlan]


@strawberry.type(description="What a user pays personally: no part of the enterprise's total.")
class PersonalCharge:
    resource_id: ID
    node_id: ID
    usage_type: str
    unit: str
    direction: str
    zone: str
    records: Quantity
    quantity: Quantity
    billed: Quantity
    amount: Money


@strawberry.type(description="What is owed, or credited, for usage of a period whose invoice is closed.")
class CorrectionLine:
    of_period: str
    node_id: ID
    usage_type: str = strawberry.field(description="Empty of a plan, and so are direction and zone.")
    direction: str
    zone: str
    plan: str = strawberry.field(
        description="The plan that came to something else than was settled; empty of charges."
    )
    records: Quantity
    amount: Money


@strawberry.type(description="Usage of the period that waits: it is in no total, and holds no bill up.")
class WaitingUsage:
    records: Quantity
    value_at_risk: Money = strawberry.field(
        description="What it would cost by the tariff, or else by the average of its source and type."
    )
    unknown: Quantity = strawberry.field(description="Records of which nothing tells what they would cost.")


@strawberry.type(description="A period's invoice as it stands, of the part of the enterprise in your reach.")
class Invoice:
    seq: Seq = strawberry.field(description="The last event that is counted in.")
    name: str
    period: str
    currency: str
    records: Quantity
    total: Money = strawberry.field(description="Of all amounts, whoever pays them.")
    usage_total: Money = strawberry.field(description="Of `total`: charged for usage.")
    fee_total: Money = strawberry.field(description="Of `total`: fees, less those taken back.")
    plan_total: Money = strawberry.field(description="Of `total`: what plans come to beside charges.")
    credit: Money = strawberry.field(description="Of `total`: what money allowances paid.")
    corrections: list[CorrectionLine] = strawberry.field(description="No part of `total`.")
    corrected: Money = strawberry.field(description="The sum of `corrections`.")
    payable: Money = strawberry.field(description="total - credit + corrected.")
    commitment: Money | None = strawberry.field(
        description="Spend agreed for the period; null to who sees a part of the enterprise."
    )
    shortfall: Money | None = strawberry.field(
        description="What `total` - `credit` without one-off fees misses to the commitment, owed all the "
        "same; null as that is."
    )
    nodes: list[InvoiceNode]
    personal_total: Money = strawberry.field(description="What users pay personally, beside `total`.")
    personal: list[PersonalCharge]
    waiting: WaitingUsage | None = strawberry.field(
        description="What waits in suspense; null to who sees a part of the enterprise."
    )


async def invoice_preview(info: Info, period: str | None = None, as_of: AsOf | None = None) -> Invoice:
    """The invoice so far; empty where nothing was charged."""
    context = info.context
    permit(context, "read")
    from_where = await looking(context, as_of)
    wanted = period_of(await context.state(), period, from_where.at)
    query = functools.partial(_all, period=wanted, at=from_where.at)
    about = ("invoices", "suspense", "accuracy")
    seq, (found, own, waits) = await context.read(query, about, as_of=from_where.seq)
    ids = [member.id for member in (await context.state()).hierarchy.members]
    return _told(seq, found, own, waits, ids, await reach_of(context))


def _all(db: Connection, *, period: str, at: int) -> tuple[views.Invoice, list[views.PersonalLine], AtRisk]:
    return views.invoice(db, period), views.personal(db, period), at_risk(db, period, at)


def _told(
    seq: int,
    found: views.Invoice,
    own: list[views.PersonalLine],
    waits: AtRisk,
    ids: list[str],
    reach: Reach,
) -> Invoice:
    personal = [line for line in own if reach.sees(line.node)]
    nodes = [node for node in found.nodes if reach.sees(node.ordinal)]
    corrections = [line for line in found.corrections if reach.sees(line.ordinal)]
    corrected = sum(line.amount for line in corrections)
    return Invoice(
        seq=Seq(seq),
        name=found.name,
        period=found.period,
        currency=found.currency,
        records=Quantity(sum(node.records for node in nodes)),
        total=Money(sum(node.amount for node in nodes)),
        usage_total=Money(sum(line.amount for node in nodes for line in node.lines)),
        fee_total=Money(sum(fee.amount for node in nodes for fee in node.fees)),
        plan_total=Money(sum(plan.amount for node in nodes for plan in node.plans)),
        credit=Money(sum(node.credit for node in nodes)),
        corrections=[_correction(line) for line in corrections],
        corrected=Money(corrected),
        payable=Money(sum(node.payable for node in nodes) + corrected),
        commitment=Money(found.commitment) if reach.whole else None,
        shortfall=Money(found.shortfall) if reach.whole else None,
        nodes=[
            InvoiceNode(
                node_id=ID(node.id),
                name=node.name,
                records=Quantity(node.records),
                amount=Money(node.amount),
                credit=Money(node.credit),
                payable=Money(node.payable),
                lines=[_line(line, reach) for line in node.lines],
                fees=list(map(_fee, node.fees)),
                plans=[_plan(line, ids) for line in node.plans],
            )
            for node in nodes
        ],
        personal_total=Money(sum(line.amount for line in personal)),
        personal=[_personal(line, ids, reach.units) for line in personal],
        waiting=_waiting(waits) if reach.whole else None,
    )


def _waiting(waits: AtRisk) -> WaitingUsage:
    return WaitingUsage(
        records=Quantity(waits.records),
        value_at_risk=Money(waits.value),
        unknown=Quantity(waits.unknown),
    )


def _correction(line: views.CorrectionLine) -> CorrectionLine:
    return CorrectionLine(
        of_period=line.of_period,
        node_id=ID(line.id),
        usage_type=line.usage_type,
        direction=line.direction,
        zone="" if line.plan else line.zone,
        plan=line.plan,
        records=Quantity(line.records),
        amount=Money(line.amount),
    )


def _fee(line: FeeLine) -> InvoiceFee:
    recurs = line.kind == "recurring"
    return InvoiceFee(
        kind=FeeKind(line.kind),
        name=line.name,
        fee=None if recurs else ID(line.fee),
        note=line.note,
        tariff_version=line.tariff if recurs else None,
        each=line.each or None,
        of_kind=line.of_kind or None,
        price=line.price or None,
        share=_fraction(line.share) if recurs else None,
        exact_fraction=_fraction(line.exact) if recurs else None,
        amount=Money(line.amount),
    )


def _plan(line: PlanLine, ids: list[str]) -> InvoicePlan:
    return InvoicePlan(
        kind=PlanLineKind(line.kind),
        plan=line.plan,
        member_id=ID(ids[line.ordinal]),
        tariff_version=line.tariff,
        units=Quantity(line.units),
        charged=Money(line.spent),
        owed=Money(line.owed),
        exact_fraction=_fraction(line.exact),
        amount=Money(line.amount),
    )


def _fraction(parts: tuple[int, int]) -> str:
    return f"{parts[0]}/{parts[1]}"


def _personal(line: views.PersonalLine, ids: list[str], units: Mapping[str, str]) -> PersonalCharge:
    return PersonalCharge(
        resource_id=ID(line.id),
        node_id=ID(ids[line.node]),
        usage_type=line.usage_type,
        unit=units[line.usage_type],
        direction=line.direction,
        zone=line.zone,
        records=Quantity(line.records),
        quantity=Quantity(line.quantity),
        billed=Quantity(line.billed),
        amount=Money(line.amount),
    )


def _line(line: views.InvoiceLine, reach: Reach) -> InvoiceLine:
    return InvoiceLine(
        usage_type=line.usage_type,
        unit=reach.units[line.usage_type],
        direction=line.direction,
        zone=line.zone,
        tariff_version=line.tariff,
        rate_index=line.rate,
        records=Quantity(line.records),
        quantity=Quantity(line.quantity),
        billed=Quantity(line.billed),
        from_allowance=Quantity(line.from_allowance),
        overage=Quantity(line.overage),
        amount=Money(line.amount),
        credit=Money(line.credit),
        payable=Money(line.payable),
    )
