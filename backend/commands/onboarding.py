"""`allotment tenant ...`: onboarding enterprises from definition files."""

import sys
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import msgspec
import rich_click as click

from ...domain.contract import OpenPeriod, PeriodNotOpen
from ...domain.refusals import Refused
from ...domain.tenant import Command, OpenTenant, Tenant
from ...tenants.definition import DefinitionError
from ...tenants.onboarding import (
    Definition,
    Enrol,
    TenantEntry,
    find_tenant,
    parse_definition,
    steps,
    tenants,
)
from ...tenants.sealing import KEY_BYTES, Sealer, erase, load_sealer
from ..demo.enterprises import example_definition
from ..engine import normal_line, wall_clock
from ..running import Product, running
from ..stopping import complete
from .options import JSON
from .output import note, say, settings_for_command, table, tell_json

ACTOR = "carrier:command-line"


@click.group(name="tenant")
def tenant() -> None:
    """Onboard enterprises: create, list, apply a definition."""


@tenant.command()
@click.argument("slug")
@click.option("--name", required=True, help="The enterprise's name.")
@click.option("--time-zone", required=True, help="Whose months are billed: Europe/London.")
@click.option("--currency", required=True, help="ISO 4217, such as GBP.")
@click.option("--carrier", default="carrier", show_default=True, help="Who sells to it.")
@click.option("--file", "definition", type=click.File("rb"), help="Its definition; see `tenant example`.")
@JSON
def create(
    slug: str,
    name: str,
    time_zone: str,
    currency: str,
    carrier: str,
    definition: BinaryIO | None,
    as_json: bool,
) -> None:
    """Create a tenant: one enterprise with a log of its own.

    \b
    allotment tenant create acme --name "Acme plc" --time-zone Europe/London --currency GBP
    allotment tenant create acme --name "Acme plc" --time-zone Europe/London --currency GBP --file acme.json
    """
    settings = settings_for_command()
    # Read before anything is created: a file that cannot be used leaves nothing behind.
    wanted = parse_definition(definition.read()) if definition is not None else None
    entry = TenantEntry(uuid4(), slug, name, carrier, time_zone, currency)
    _rehearse(entry, wanted or Definition())
    with running(settings) as product:
        new = complete(_create(product, entry, wanted))
    if as_json:
        tell_json({"tenant_id": entry.tenant_id, "slug": slug, "steps": new})
    else:
        say(f"Created {slug} ({entry.tenant_id}){f', {new} steps carried out' if wanted else ''}.")


def _rehearse(entry: TenantEntry, wanted: Definition) -> None:
    """Carry it out in memory first: what would be refused leaves no half of a tenant behind."""
    state, sealer, now = Tenant(), Sealer(entry.tenant_id, bytes(KEY_BYTES)), wall_clock()

    def decide(command: Command) -> None:
        for event in state.decide(command, now):
            state.apply(event)

    decide(OpenTenant(entry.name, entry.time_zone, entry.currency, entry.carrier))
    for step in steps(wanted, state.contracts.zone, normal_line):
        command = step.command.sealed_by(sealer) if isinstance(step.command, Enrol) else step.command
        try:
            try:
                decide(command)
            except PeriodNotOpen as needed:
                decide(OpenPeriod(needed.period))
                decide(command)
        except Refused as refused:
            raise DefinitionError(
                f"the definition cannot be carried out: {step.about}: {refused}"
            ) from refused


async def _create(product: Product, entry: TenantEntry, wanted: Definition | None) -> int:
    async with product.engine() as engine:
        await engine.create_tenant(entry, ACTOR)
        if wanted is None:
            return 0
        return await engine.apply_definition(entry.tenant_id, wanted, ACTOR)


@tenant.command(name="list")
@JSON
def list_tenants(as_json: bool) -> None:
    """List the tenants."""
    with running(settings_for_command()) as product:
        found = tenants(product.isolation)
    if as_json:
        tell_json(found)
    elif found:
        rows = [
            (one.slug, one.name, one.carrier, one.time_zone, one.currency, one.tenant_id) for one in found
        ]
        say(table(("slug", "name", "carrier", "time zone", "currency", "id"), rows))
    else:
        note("No tenants yet: `allotment tenant create --help` shows how to make one.")


@tenant.command()
@click.argument("slug")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@JSON
def apply(slug: str, file: Path, as_json: bool) -> None:
    """Apply a definition FILE to a tenant. Applied again, only what is new is done.

    \b
    allotment tenant example > acme.json
    allotment tenant apply acme acme.json
    """
    settings = settings_for_command()
    text = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    definition = parse_definition(text)
    with running(settings) as product:
        entry = find_tenant(product.isolation, slug)
        new = complete(_apply(product, entry, definition))
    if as_json:
        tell_json({"tenant": entry.slug, "new_steps": new})
    else:
        say(
            f"{new} new steps carried out for {entry.slug}."
            if new
            else f"{entry.slug} has all of this already."
        )


async def _apply(product: Product, entry: TenantEntry, definition: Definition) -> int:
    async with product.engine() as engine:
        return await engine.apply_definition(entry.tenant_id, definition, ACTOR)


@tenant.command(name="erase")
@click.argument("slug")
@click.argument("line")
@click.option("--region", default="", help='The country a number without "+" was dialled in: "DE".')
@JSON
def erase_command(slug: str, line: str, region: str, as_json: bool) -> None:
    """Erase the person behind a LINE: what was sealed for it can never be read again.

    Amounts, proofs and replay stay as they are. Backups of the keys undo it: keep those short.

    \b
    allotment tenant erase acme +442071838750
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        sealer = load_sealer(product.isolation, product.root_key(), entry.tenant_id)
        subject = sealer.token(normal_line(line, region))
        erased = erase(product.isolation, entry.tenant_id, [subject])
    if as_json:
        tell_json({"tenant": entry.slug, "erased": erased})
    elif erased:
        say(f"What was sealed for this line of {entry.slug} cannot be read any more.")
    else:
        note(f"{entry.slug} has nothing sealed for this line.")


@tenant.command()
def example() -> None:
    """Print a complete definition to start from."""
    text = msgspec.json.encode(example_definition())
    say(msgspec.json.format(text, indent=2).decode())
