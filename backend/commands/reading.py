"""`allotment invoice ...` and `explain`: what a period costs, and how one record came to its charge."""

from typing import Any
from uuid import UUID

import rich_click as click

from ...domain.contract import check_name
from ...projections.in_force import agreed_in
from ...projections.invoices import invoice as invoice_of
from ...projections.stakes import AtRisk, at_risk
from ...tenants.onboarding import TenantEntry, find_tenant
from ..engine import wall_clock
from ..explaining import explained
from ..following import catch_up, position
from ..money import money
from ..running import Product, running
from ..stopping import complete
from .input import InputError
from .options import JSON, TENANT
from .output import say, settings_for_command, tell_json
from .telling_invoices import invoice_told, say_invoice


@click.group()
def invoice() -> None:
    """Look at invoices."""


@invoice.command()
@TENANT
@click.option("--period", help='Such as "2026-11"; else the one that is running.')
@JSON
def preview(slug: str, period: str | None, as_json: bool) -> None:
    """Show what a period costs so far, by cost centre.

    \b
    allotment invoice preview --tenant acme --period 2026-11
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        if period is not None:
            check_name(period)
        catch_up(product.isolation, entry.tenant_id)
        with product.isolation.snapshot(entry.tenant_id) as db:
            wanted = period or agreed_in(db).name_at(wall_clock())
            seq, found, waits = position(db), invoice_of(db, wanted), at_risk(db, wanted, wall_clock())
    if as_json:
        tell_json({"tenant": entry.slug, "seq": seq, **invoice_told(found), "waiting": _waiting_told(waits)})
    else:
        say_invoice(found)
        if waits.records:
            unknown = f", {waits.unknown:,} of unknown value" if waits.unknown else ""
            risk = money(waits.value, found.currency)
            say(f"Not on it: {waits.records:,} records wait in suspense, {risk} at risk{unknown}")


def _waiting_told(waits: AtRisk) -> dict[str, Any]:
    return {"records": waits.records, "value_at_risk": money(waits.value), "unknown": waits.unknown}


@click.command()
@TENANT
@click.argument("usage_id")
@JSON
def explain(slug: str, usage_id: str, as_json: bool) -> None:
    """Tell how a record came to its charge, or why there is none.

    USAGE_ID is the record's id in the log, or SOURCE/RECORD_ID as its file had it.

    \b
    allotment explain --tenant acme 509d7a1c52c1b6e4b5a2a63a1b0f3c9e
    allotment explain --tenant acme twilio/CAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        told = complete(_explained(product, entry, usage_id))
    if told is None:
        raise InputError(
            f"{entry.slug} has no usage {usage_id!r}. Give its id, or SOURCE/RECORD_ID as it was sent;"
            f" `allotment usage suspense --tenant {entry.slug}` lists what waits."
        )
    if as_json:
        tell_json(told)
    else:
        say_explanation(told)


async def _explained(product: Product, entry: TenantEntry, usage_id: str) -> dict[str, Any] | None:
    async with product.engine(following=False) as engine:
        await engine.in_thread(lambda: catch_up(product.isolation, entry.tenant_id))
        if "/" in usage_id:
            usage_id = await engine.in_thread(lambda: _id_of(product, entry.tenant_id, usage_id))
        return await explained(engine, entry.tenant_id, usage_id)


def _id_of(product: Product, tenant: UUID, name: str) -> str:
    """The id of a record by its source and its own id, both of which may hold slashes."""
    with product.isolation.transaction(tenant) as db:
        found = db.execute(
            "SELECT usage_id FROM usages WHERE source || '/' || record_id = %s "
            "ORDER BY status = 'suspended', seq LIMIT 1",
            (name,),
        ).fetchone()
    return str(found[0].hex()) if found else ""


def say_explanation(told: dict[str, Any]) -> None:
    say(told["sentence"])
    rows = [("record", f"{told['source']}/{told['recordId']}, {told['status'].lower()}, {told['usageId']}")]
    if told["line"]:
        rows.append(("line", f"{told['line']} {told['direction']} {told['counterpart'] or ''}".rstrip()))
    if told["path"]:
        rows.append(("path", " > ".join(place["id"] for place in reversed(told["path"]))))
    if rating := told["rating"]:
        rows += _rating_rows(told, rating)
    for stop in [told["stop"]] if told["stop"] else []:
        rows.append(
            (
                "stopped by",
                f"{_id(stop['node'])}: {stop['used']} used of {stop['limit']} per {stop['window']}",
            )
        )
    if ruling := told["ruling"]:
        rule = f"{ruling['policy']} v{ruling['version']}: {ruling['action'].lower()}"
        beyond = f"beyond {ruling['threshold']} of {ruling['counted']} per {ruling['window']}"
        rows.append(("policy", f"{rule} {beyond}"))
    if waits := told["suspension"]:
        rows.append(("waits", f"{waits['reason']}: {waits['detail']} {waits['position']}".rstrip()))
    rows += _waited_rows(told)
    for crossing in told["crossings"]:
        rows.append(
            ("crossed", f"{crossing['percent']} % of the limit of {(crossing['node'] or {}).get('id', '?')}")
        )
    rows.append(
        ("events", f"{', '.join(told['eventSeqs'])}, recorded {told['recordedAt']} by {told['actor']}")
    )
    for name, text in rows:
        say(f"  {name:<10} {text}")


def _id(place: dict[str, Any] | None) -> str:
    return place["id"] if place is not None else "beyond reach"


def _waited_rows(told: dict[str, Any]) -> list[tuple[str, str]]:
    """Why it waited, what was amended, and what became of it."""
    rows = []
    if (waited := told["waited"]) and told["suspension"] is None:
        late = ", accepted although it was late" if waited["acceptedLate"] else ""
        rows.append(("waited", f"{waited['reason']}, since {waited['since']}{late}: {waited['usageId']}"))
    rows += [
        ("amended", f"{', '.join(one['fields'])} by {one['actor']}: {one['note']}")
        for one in (waited["amendments"] if waited else ())
    ]
    if left := told["left"]:
        became = f" as {left['usageId']}" if left["usageId"] else ""
        rows.append(("left", f"{left['outcome']}{became} by {left['actor']} {left['note']}".rstrip()))
    return rows


def _rating_rows(told: dict[str, Any], rating: dict[str, Any]) -> list[tuple[str, str]]:
    paid = ", ".join(f"{(one['node'] or {}).get('id', '?')} {one['quantity']}" for one in told["drawn"])
    unit, currency = told["unit"], rating["currency"]
    price = f"{rating['price']} {currency} per {rating['per']} {unit}"
    if own := rating["contractPrice"]:
        price = f"{own['price']} {currency} per {own['per']} {unit} by contract {own['contract']}"
    if plan := rating["plan"]:
        at = f"after {plan['before']} {unit} of {_id(plan['countedAt'])}"
        price = f"plan {plan['plan']} ({plan['kind']}), {at}: {plan['charged']} {currency}"
    rounding = f"{rating['roundingMethod']}, {rating['roundingDecimals']} decimals"
    exact = f"{rating['overage']} {unit} = {rating['exactAmount']} exact"
    return [
        (
            "rate",
            f"{rating['tariff']} v{rating['tariffVersion']}, {rating['zone']} {rating['prefix']!r}, {price}",
        ),
        ("billed", f"{told['quantity']} {unit} -> {rating['billed']}, in steps of {rating['increment']}"),
        ("allowance", paid or "nothing"),
        *(("", _component_told(one, currency)) for one in rating["components"]),
        ("overage", f"{exact}, {rating['amount']} {currency} ({rounding})"),
        *(
            [("payable", f"{told['payable']} {currency}, the rest from money allowances")]
            if told["credit"]
            else []
        ),
    ]


def _component_told(one: dict[str, Any], currency: str) -> str:
    """ "60 to 120, band 1, peak: 0.05 per 60 = 0.050000000000 EUR"."""
    amount = f"{one['exactAmount']} {currency}"
    if one["kind"] == "plan":
        return f"{one['begins']} to {one['ends']}, {one['part']}: {one['price']} per {one['per']} = {amount}"
    if one["kind"] != "usage":
        return f"{one['kind'].replace('_', ' ')} {one['price']} = {amount}"
    where = f"{one['begins']} to {one['ends']}, band {one['band']}"
    window = f", {one['window']}" if one["window"] else ""
    return f"{where}{window}: {one['price']} per {one['per']} = {amount}"
