"""`allotment session ...`: what runs now, and what is laid down for sessions."""

from typing import Any

import msgspec
import rich_click as click

from ...domain.session_terms import ACTIONS, SessionTerms, SetSessionTerms
from ...projections import rules
from ...projections.sessions import STATUSES, sessions_page
from ...tenants.onboarding import find_tenant
from ..following import catch_up
from ..running import running
from .changing import carry_out_in_brief
from .options import JSON, TENANT
from .output import note, say, settings_for_command, table, tell_json

LISTED_MAX = 1_000


@click.group()
def session() -> None:
    """Look at charging sessions, and lay down how they are granted units."""


@session.command(name="list")
@TENANT
@click.option("--node", default="", help="Of this node or resource; else of all.")
@click.option("--status", type=click.Choice(STATUSES), default=None, help="Only those that stand so.")
@click.option(
    "--limit",
    "first",
    type=click.IntRange(1, LISTED_MAX),
    default=50,
    show_default=True,
    help="So many at most.",
)
@JSON
def session_list(slug: str, node: str, status: str | None, first: int, as_json: bool) -> None:
    """Show sessions, those that changed last first.

    \b
    allotment session list --tenant acme --node sales --status open
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        catch_up(product.isolation, entry.tenant_id)
        with product.isolation.snapshot(entry.tenant_id) as db:
            found = sessions_page(db, first, None, node or None, status)
    if as_json:
        tell_json([msgspec.structs.asdict(one) for one in found])
        return
    rows = [
        (
            one.session,
            one.status,
            one.resource_id,
            one.usage_type,
            f"{one.used:,}",
            f"{one.held:,}",
            one.reason,
        )
        for one in found
    ]
    if rows:
        say(table(("session", "status", "resource", "type", "used", "held", "denied by"), rows, right=(4, 5)))
    else:
        note("No sessions.")


@session.group(name="terms")
def session_terms() -> None:
    """What is laid down for sessions at and below a node."""


@session_terms.command(name="set")
@TENANT
@click.argument("node")
@click.option("--type", "usage_type", default="", help="Of one usage type; else of all.")
@click.option(
    "--final",
    "action",
    type=click.Choice(ACTIONS),
    default=ACTIONS[0],
    show_default=True,
    help="What the network does once nothing is left.",
)
@click.option("--address", default="", help="Where REDIRECT sends the user: a web or SIP address.")
@click.option("--filter", "filter_id", default="", help="What RESTRICT_ACCESS lets through, by name.")
@click.option("--slice", "usual", type=int, default=0, help="Granted at a time; 0 is as usual.")
@click.option("--least", type=int, default=0, help="The smallest slice; 0 is as usual.")
@click.option("--validity", "validity_seconds", type=int, default=0, help="Of a slice, in seconds.")
@click.option("--threshold", "threshold_percent", type=int, default=0, help="Report at so many % left.")
@click.option("--holding", "holding_seconds", type=int, default=0, help="Give back what is untouched.")
@click.option("--pooled", is_flag=True, help="Services of a session share the money reserved for them.")
@click.option("--note", "why", default="", help="Why; it stands in the log.")
@click.option("--key", default="", help="Yours; the same key again changes nothing.")
@JSON
def terms_set(
    slug: str, node: str, usage_type: str, why: str, key: str, as_json: bool, **laid_down: Any
) -> None:
    """Lay down terms for the sessions of NODE and what is below it.

    \b
    allotment session terms set sales --type data --final REDIRECT --address https://top-up.example -t acme
    """
    command = SetSessionTerms(node, usage_type, SessionTerms(**laid_down), why)
    carry_out_in_brief(slug, command, key, as_json)


@session_terms.command(name="clear")
@TENANT
@click.argument("node")
@click.option("--type", "usage_type", default="", help="Those of one usage type.")
@click.option("--note", "why", default="", help="Why; it stands in the log.")
@click.option("--key", default="", help="Yours; the same key again changes nothing.")
@JSON
def terms_clear(slug: str, node: str, usage_type: str, why: str, key: str, as_json: bool) -> None:
    """Take the terms of NODE back: those above hold again.

    \b
    allotment session terms clear sales --type data --tenant acme
    """
    carry_out_in_brief(slug, SetSessionTerms(node, usage_type, None, why), key, as_json)


@session_terms.command(name="list")
@TENANT
@JSON
def terms_list(slug: str, as_json: bool) -> None:
    """Show what is laid down.

    \b
    allotment session terms list --tenant acme
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        catch_up(product.isolation, entry.tenant_id)
        with product.isolation.snapshot(entry.tenant_id) as db:
            found = [told.event for told in rules.session_terms(db)]
    events: list[Any] = [msgspec.to_builtins(msgspec.structs.asdict(event)) for event in found]
    if as_json:
        tell_json(events)
        return
    rows = [(one["node"], one["usage_type"] or "all", _terms_text(one["terms"])) for one in events]
    if rows:
        say(table(("node", "type", "terms"), rows))
    else:
        note("All sessions are granted units as usual.")


def _terms_text(terms: Any) -> str:
    return ", ".join(
        f"{name} {value}" for name, value in zip(SessionTerms.__struct_fields__, terms, strict=True) if value
    )
