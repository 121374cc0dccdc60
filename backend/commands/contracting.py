"""`allotment contract ...`: what is agreed with an enterprise, and what the carrier changes of it."""

from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from ...domain.contract import EndContract, RenewContract
from ...domain.granting import ChangeGrants, TopUp
from ...domain.terms import Grant
from ...domain.usage_type import DefineUsageType
from ...projections.contracts import Contract, Version, contracts
from ...tenants.definition import DefinitionError
from ...tenants.onboarding import ContractDefinition, contract_command, find_tenant
from ..following import catch_up
from ..money import money
from ..running import running
from .changing import carry_out, changing
from .input import InputError
from .options import JSON, TENANT
from .output import amount, say, settings_for_command, table, tell_json


@click.group()
def contract() -> None:
    """Show, sign, change, renew and end contracts; top up; define usage types."""


@contract.command()
@TENANT
@JSON
def show(slug: str, as_json: bool) -> None:
    """Show what the enterprise bought.

    \b
    allotment contract show --tenant acme
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        catch_up(product.isolation, entry.tenant_id)
        with product.isolation.snapshot(entry.tenant_id) as db:
            found = contracts(db)
    if as_json:
        tell_json({"tenant": entry.slug, "contracts": [_told(one) for one in found]})
        return
    for one in found:
        _say_contract(one, entry.currency)


@contract.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@changing
def sign(file: Path, slug: str, note: str, key: str | None, dry: bool, as_json: bool) -> None:
    """Sign the contract in FILE, or its next version: as in a definition's "contracts".

    \b
    allotment contract sign frame.json --tenant acme --dry-run
    """
    try:
        wanted = msgspec.json.decode(file.read_bytes(), type=ContractDefinition)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DefinitionError(f"{file}: the contract cannot be used: {error}") from error
    command = contract_command(msgspec.structs.replace(wanted, note=note or wanted.note))
    carry_out(command, slug, key, dry=dry, as_json=as_json)


@contract.command()
@click.argument("name")
@click.argument("ends_on")
@changing
def end(name: str, ends_on: str, slug: str, note: str, key: str | None, dry: bool, as_json: bool) -> None:
    """Let the contract NAME cover nothing after ENDS_ON, today at the earliest.

    \b
    allotment contract end frame 2026-12-31 --tenant acme --note "moved away"
    """
    carry_out(EndContract(name, ends_on, note), slug, key, dry=dry, as_json=as_json)


@contract.command()
@click.argument("name")
@click.argument("ends_on", default="")
@changing
def renew(name: str, ends_on: str, slug: str, note: str, key: str | None, dry: bool, as_json: bool) -> None:
    """Let the contract NAME go on until ENDS_ON, or without it until further notice.

    \b
    allotment contract renew frame 2027-12-31 --tenant acme
    """
    carry_out(RenewContract(name, ends_on, note), slug, key, dry=dry, as_json=as_json)


@contract.command(name="top-up")
@click.argument("usage_type")
@click.argument("quantity", type=int)
@click.option("--period", default="", help='Such as "2026-11"; else the one that is running.')
@changing
def top_up(
    usage_type: str,
    quantity: int,
    period: str,
    slug: str,
    note: str,
    key: str | None,
    dry: bool,
    as_json: bool,
) -> None:
    """Grant QUANTITY more of USAGE_TYPE, in its unit, at once and until the period's end.

    \b
    allotment contract top-up data 50000000000 --tenant acme --note "trade fair"
    """
    carry_out(TopUp(usage_type, quantity, period, note), slug, key, dry=dry, as_json=as_json)


@contract.command()
@click.argument("name")
@click.argument("grants", nargs=-1, required=True)
@click.option("--prorate", is_flag=True, help="In the running period only for what is left of it.")
@changing
def change(
    name: str,
    grants: tuple[str, ...],
    prorate: bool,
    slug: str,
    note: str,
    key: str | None,
    dry: bool,
    as_json: bool,
) -> None:
    """Let the contract NAME grant other quantities from now on: TYPE=QUANTITY ...

    \b
    allotment contract change frame data=900000000000 voice=36000 --tenant acme --prorate
    """
    wanted = tuple(map(_grant, grants))
    carry_out(ChangeGrants(name, wanted, prorate, note), slug, key, dry=dry, as_json=as_json)


@contract.command(name="define-type")
@click.argument("name")
@click.argument("unit")
@changing
def define_type(
    name: str, unit: str, slug: str, note: str, key: str | None, dry: bool, as_json: bool
) -> None:
    """Let the tenant count something of the carrier's own, by its UNIT.

    \b
    allotment contract define-type iot_event message --tenant acme
    """
    carry_out(DefineUsageType(name, unit, note), slug, key, dry=dry, as_json=as_json)


def _grant(text: str) -> Grant:
    usage_type, equals, quantity = text.partition("=")
    if not equals or not quantity.isascii() or not quantity.isdigit() or len(quantity) > 20:
        raise InputError(f"{text!r} is no grant such as data=1000000: give TYPE=QUANTITY, a whole number")
    return Grant(usage_type, int(quantity))


# --- what is shown ---------------------------------------------------------------------------


def _told(found: Contract) -> dict[str, Any]:
    """Quantities as strings, as the API has them."""
    return {
        "contract": found.id,
        "ends_on": found.ends_on or None,
        "ended": found.ended,
        "versions": [_version_told(version) for version in found.versions],
    }


def _version_told(version: Version) -> dict[str, Any]:
    terms = version.terms
    return {
        "version": version.version,
        "starts_on": version.starts_on,
        "overage": version.overage,
        "grants": {grant.usage_type: str(grant.quantity) for grant in version.grants},
        "calendar": msgspec.structs.asdict(terms.calendar),
        "renews_months": terms.renews_months,
        "prorate": terms.prorate,
        "rollover": {rule.usage_type: msgspec.structs.asdict(rule) for rule in terms.rollover},
        "rolls_to_enterprise": terms.rolls_to_enterprise,
        "settle_after_hours": terms.settle_after_hours,
        "expires": terms.expires,
        "commitment": money(terms.commitment),
        "overage_prices": {one.usage_type: msgspec.structs.asdict(one) for one in terms.overage_prices},
        "note": version.note,
        "seq": version.seq,
    }


def _say_contract(found: Contract, currency: str) -> None:
    until = f"until {found.ends_on}" if found.ends_on else "until further notice"
    say(f"{found.id}, {until}{', ended' if found.ended else ''}")
    for version in found.versions:
        terms = version.terms
        calendar = " ".join(map(str, filter(None, (terms.calendar.kind, terms.calendar.number or ""))))
        agreed = f", {money(terms.commitment, currency)} agreed" if terms.commitment else ""
        say(f"  version {version.version} from {version.starts_on}, by {calendar}{agreed}")
        rules = {rule.usage_type: rule for rule in terms.rollover}
        rows = [
            (
                grant.usage_type,
                amount(grant.quantity, grant.usage_type, currency),
                f"{rule.cycles} times" if (rule := rules.get(grant.usage_type)) else "",
            )
            for grant in version.grants
        ]
        if rows:
            say(table(("  granted", "per period", "rolled over"), rows, right=(1,)))
