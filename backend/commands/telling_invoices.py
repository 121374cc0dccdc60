"""Invoices as commands tell them: one JSON document, or a page to read."""

from typing import Any

import msgspec

from ...projections.fees import FeeLine
from ...projections.invoices import Invoice, InvoiceNode
from ...projections.plans import PlanLine
from ..money import money
from .output import amount, say, table


def invoice_told(found: Invoice) -> dict[str, Any]:
    """Quantities and money as strings, as the API has them."""
    about = {"name": found.name, "currency": found.currency, "period": found.period}
    return {
        **about,
        "records": found.records,
        "total": money(found.total),
        "usage_total": money(found.usage),
        "fee_total": money(found.fees),
        "plan_total": money(found.plans),
        "credit": money(found.credit),
        "payable": money(found.payable),
        "commitment": money(found.commitment),
        "shortfall": money(found.shortfall),
        "nodes": [_node_told(node) for node in found.nodes],
    }


def _node_told(node: InvoiceNode) -> dict[str, Any]:
    lines = [
        {
            name: value if isinstance(value, str) else str(value)
            for name, value in msgspec.structs.asdict(line).items()
        }
        | {"amount": money(line.amount), "credit": money(line.credit), "payable": money(line.payable)}
        for line in node.lines
    ]
    return {
        "id": node.id,
        "name": node.name,
        "records": node.records,
        "amount": money(node.amount),
        "credit": money(node.credit),
        "payable": money(node.payable),
        "lines": lines,
        "fees": [_fee_told(fee) for fee in node.fees],
        "plans": [_plan_told(line) for line in node.plans],
    }


def _fee_told(fee: FeeLine) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": fee.kind, "name": fee.name, "amount": money(fee.amount)}
    if fee.kind != "recurring":
        return {**told, "fee": fee.fee, "note": fee.note}
    return {
        **told,
        "tariff": str(fee.tariff),
        "each": fee.each,
        "of_kind": fee.of_kind,
        "price": fee.price,
        "share": _fraction(fee.share),
        "exact": _fraction(fee.exact),
    }


def _plan_told(line: PlanLine) -> dict[str, Any]:
    return {
        "kind": line.kind,
        "plan": line.plan,
        "tariff": str(line.tariff),
        "units": str(line.units),
        "charged": money(line.spent),
        "owed": money(line.owed),
        "exact": _fraction(line.exact),
        "amount": money(line.amount),
    }


def _fraction(parts: tuple[int, int]) -> str:
    return f"{parts[0]}/{parts[1]}"


def say_invoice(found: Invoice) -> None:
    say(
        f"{found.name}, {found.period}, preview: {money(found.total, found.currency)}"
        f" for {found.records:,} records"
    )
    rows = [
        (
            *(node.name or node.id, line.usage_type, line.direction, line.zone, f"{line.records:,}"),
            *(
                amount(line.billed, line.usage_type),
                amount(line.from_allowance, line.usage_type),
                money(line.amount),
            ),
        )
        for node in found.nodes
        for line in node.lines
    ]
    if rows:
        head = ("cost centre", "type", "direction", "zone", "records", "billed", "from allowance", "amount")
        say(table(head, rows, right=(4, 5, 6, 7)))
    _say_owed(found)
    if found.credit:
        paid = f"Paid from money allowances: {money(found.credit, found.currency)}"
        say(f"{paid}; payable: {money(found.payable, found.currency)}")
    if found.commitment:
        missing = money(found.shortfall, found.currency)
        say(f"Spend agreed: {money(found.commitment, found.currency)}; shortfall: {missing}")


def _say_owed(found: Invoice) -> None:
    """Fees and plans, with their working."""
    rows = [
        (node.name or node.id, name, working, money(owed))
        for node in found.nodes
        for name, working, owed in (
            *((fee.name, _fee_working(fee), fee.amount) for fee in node.fees),
            *((line.plan, _plan_working(line), line.amount) for line in node.plans),
        )
    ]
    if rows:
        say(table(("cost centre", "fee or plan", "working", "amount"), rows, right=(3,)))


def _fee_working(fee: FeeLine) -> str:
    if fee.kind != "recurring":
        return f"{'taken back' if fee.kind == 'credit' else 'once'}, {fee.fee}: {fee.note}"
    of = f"{fee.of_kind} {fee.each}" if fee.of_kind and fee.each == "channel" else fee.of_kind or fee.each
    return f"{_fraction(fee.share)} x {fee.price} per {of}, tariff version {fee.tariff}"


def _plan_working(line: PlanLine) -> str:
    return f"{line.kind}: {line.units:,} units, {money(line.owed)} less {money(line.spent)} charged"
