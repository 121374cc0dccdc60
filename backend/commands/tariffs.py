"""`allotment tariff ...`: versions, what changes between them, own rates, and withdrawing them."""

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import rich_click as click

from ...domain.decks.importing import differences
from ...domain.rating.amending import WithdrawTariff
from ...domain.tenant import Tenant
from ...projections.tariffs import TariffVersion, versions_page
from ...tenants.definition import DefinitionError
from ...tenants.onboarding import find_tenant
from ...tenants.own_rates_file import own_rates_command, parse_own_rates
from ..engine import moment
from ..following import catch_up
from ..running import Product, running
from ..stopping import complete
from .changing import carry_out, carry_out_with, changing
from .deck_telling import say_changes, zone_told
from .input import InputError
from .options import JSON, TENANT
from .output import say, settings_for_command, table, tell_json

VERSIONS_SHOWN = 1_000


@click.group()
def tariff() -> None:
    """See tariff versions and what changes between them; lay own rates over them; withdraw them."""


@tariff.command(name="list")
@TENANT
@JSON
def list_command(slug: str, as_json: bool) -> None:
    """List the versions, the newest first.

    \b
    allotment tariff list --tenant acme
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        catch_up(product.isolation, entry.tenant_id)
        with product.isolation.snapshot(entry.tenant_id) as db:
            found = versions_page(db, VERSIONS_SHOWN)
    if as_json:
        tell_json({"tenant": entry.slug, "versions": [_told(one) for one in found]})
        return
    rows = [
        (one.version, one.tariff, moment(one.valid_from).isoformat(), _made(one), one.note) for one in found
    ]
    say(table(("version", "tariff", "valid from", "made", "note"), rows, right=(0,)))


def _made(one: TariffVersion) -> str:
    made = one.made if not one.base else f"{one.made}, of {one.base}"
    return f"{made}; withdrawn" if one.withdrawn else made


def _told(one: TariffVersion) -> dict[str, Any]:
    moments = {
        name: moment(getattr(one, name)).isoformat() for name in ("valid_from", "since", "recorded_at")
    }
    return {**msgspec.structs.asdict(one), **moments}


@tariff.command()
@click.argument("before", type=int)
@click.argument("after", type=int)
@TENANT
@JSON
def diff(before: int, after: int, slug: str, as_json: bool) -> None:
    """Tell what changes from version BEFORE to version AFTER, by zone.

    \b
    allotment tariff diff 3 4 --tenant acme
    """
    with running(settings_for_command()) as product:
        state = complete(_state(product, slug))
    count = len(state.tariffs.versions)
    for version in (before, after):
        if not 1 <= version <= count:
            raise InputError(f"{slug} has no tariff version {version}: there are 1 to {count}")
    changes = differences(state.tariffs, before, after)
    if as_json:
        tell_json({"before": before, "after": after, "changes": [zone_told(one) for one in changes]})
    elif changes:
        say_changes(changes)
    else:
        say("Nothing changes.")


async def _state(product: Product, slug: str) -> Tenant:
    entry = find_tenant(product.isolation, slug)
    async with product.engine() as engine:
        return await engine.state(entry.tenant_id)


@tariff.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@changing
def override(file: Path, slug: str, note: str, key: str | None, dry: bool, as_json: bool) -> None:
    """Let the own rates in FILE hold over the tenant's tariff, whatever that is from then on.

    \b
    allotment tariff override own-rates.json --tenant acme --dry-run
    """
    settings = settings_for_command()
    try:
        told = parse_own_rates(file.read_bytes())
    except DefinitionError as error:
        raise DefinitionError(f"{file}: {error}") from error
    with running(settings) as product:
        entry = find_tenant(product.isolation, slug)
        command = own_rates_command(told, ZoneInfo(entry.time_zone), note)
        carry_out_with(product, command, slug, key, dry=dry, as_json=as_json)


@tariff.command()
@click.argument("version", type=int)
@changing
def withdraw(version: int, slug: str, note: str, key: str | None, dry: bool, as_json: bool) -> None:
    """Let VERSION never hold: only before it does.

    \b
    allotment tariff withdraw 4 --tenant acme --note "a wrong sheet"
    """
    carry_out(WithdrawTariff(version, note), slug, key, dry=dry, as_json=as_json)
