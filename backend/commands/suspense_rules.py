"""`allotment usage rules`: from which age on usage is held, and what one person may write off alone."""

from decimal import Decimal, InvalidOperation

import msgspec
import rich_click as click

from ...domain.lateness import EVERY_SOURCE, LateRuleSet, SetLateRule
from ...domain.rating.language import MICRO
from ...domain.writing_off import DismissalRuleSet, SetDismissalRule
from ...projections.rules import suspense_rules as rules_of
from ...tenants.onboarding import find_tenant
from ..following import catch_up
from ..money import money
from ..running import running
from .changing import carry_out, changing
from .input import InputError
from .options import JSON, TENANT
from .output import note, say, settings_for_command, table, tell_json


@click.group(name="rules")
def suspense_rules() -> None:
    """Rules of suspense: usage that comes too late, and writing off by two persons."""


@suspense_rules.command(name="late")
@click.option(
    "--source", default=EVERY_SOURCE, help="Of this network element; else of all without their own."
)
@click.option("--after-hours", type=int, help="Hold what was used more hours than this before it came.")
@click.option("--lift", is_flag=True, help="Lift the rule.")
@changing
def late(
    source: str,
    after_hours: int | None,
    lift: bool,
    slug: str,
    note: str,
    key: str | None,
    dry: bool,
    as_json: bool,
) -> None:
    """Hold usage in suspense that comes too late, with what it would cost, instead of charging it.

    `usage recycle --reason too_late --accept-late` charges it on purpose, `usage dismiss` writes it off.

    \b
    allotment usage rules late --after-hours 720 --tenant acme --note "contract, section 4"
    allotment usage rules late --source teams --after-hours 1440 --tenant acme
    """
    if lift == (after_hours is not None):
        raise InputError("Give --after-hours, or --lift.")
    carry_out(SetLateRule(source, after_hours, note), slug, key, dry=dry, as_json=as_json)


@suspense_rules.command(name="dismissal")
@click.option("--above", help="What a person may write off alone in a day, such as 100.00.")
@click.option("--lift", is_flag=True, help="Lift the rule.")
@changing
def dismissal(
    above: str | None, lift: bool, slug: str, note: str, key: str | None, dry: bool, as_json: bool
) -> None:
    """Let writing off more than an amount in a day, or what nobody can value, take two persons.

    \b
    allotment usage rules dismissal --above 100.00 --tenant acme
    """
    if lift == (above is not None):
        raise InputError("Give --above, or --lift.")
    command = SetDismissalRule(None if above is None else _micro(above), note)
    carry_out(command, slug, key, dry=dry, as_json=as_json)


@suspense_rules.command(name="list")
@TENANT
@JSON
def listed(slug: str, as_json: bool) -> None:
    """Show the rules that hold.

    \b
    allotment usage rules list --tenant acme
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        catch_up(product.isolation, entry.tenant_id)
        with product.isolation.snapshot(entry.tenant_id) as db:
            dismissed, late_rules = rules_of(db)
    told = [one.event for one in ([dismissed] if dismissed else []) + late_rules]
    if as_json:
        tell_json([{"rule": event.topic, **msgspec.structs.asdict(event)} for event in told])
        return
    rows = []
    for event in told:
        match event:
            case DismissalRuleSet(int(above), why):
                rows.append(("two persons write off", f"more than {money(above, entry.currency)} a day", why))
            case LateRuleSet(source, hours, why):
                rows.append((f"held from {source or 'all sources'}", f"more than {hours} hours old", why))
    say(table(("what", "when", "note"), rows)) if rows else note(
        "No rules: usage is charged whatever its age."
    )


def _micro(text: str) -> int:
    try:
        exact = Decimal(text) * MICRO
    except InvalidOperation:
        exact = Decimal("NaN")
    if not exact.is_finite() or exact != int(exact):
        raise InputError("--above: give an amount such as 100.00, with at most six decimals.")
    return int(exact)
