"""`allotment sizing`: what to grant, by node and usage type, with every step on the way to it."""

from typing import Any

import rich_click as click

from ...domain.refusals import Refused
from ...domain.sizing import PERIODS_MAX, Assumptions
from ...projections.in_force import agreed_in
from ...projections.members import tree
from ...projections.sizings import MEMBERS_MAX, Sized, Sizing, sizing_among
from ...tenants.onboarding import find_tenant
from ..engine import wall_clock
from ..following import catch_up, position
from ..running import running
from .input import InputError
from .options import JSON, TENANT
from .output import amount, say, settings_for_command, table, tell_json
from .usage_types import built_in_and_own, check_types


@click.command()
@TENANT
@click.option("--node", "-n", help="Id of a node; else the whole enterprise.")
@click.option("--depth", type=click.IntRange(0), default=1, show_default=True, help="Levels below it.")
@click.option(
    "--type",
    "types",
    multiple=True,
    help="Of usage, or money; else all but money.",
)
@click.option(
    "--periods", type=click.IntRange(1, PERIODS_MAX), default=3, show_default=True, help="Complete ones."
)
@click.option(
    "--method",
    type=click.Choice(["max", "mean", "percentile"]),
    default="max",
    show_default=True,
    help="How the base is taken from them.",
)
@click.option("--percentile", type=int, help="With --method percentile.")
@click.option("--growth", "growth_percent", type=int, default=0, show_default=True, help="In per cent.")
@click.option("--margin", "margin_percent", type=int, default=10, show_default=True, help="In per cent.")
@click.option("--step", type=int, help="Proposals are multiples of it; else of a step for each usage type.")
@JSON
def sizing(
    slug: str, node: str | None, depth: int, types: tuple[str, ...], as_json: bool, **assumptions: Any
) -> None:
    """Propose what to grant, from what was used, with the working; and children beside their parent.

    \b
    allotment sizing --tenant acme
    allotment sizing --tenant acme --node emea --growth 15 --margin 5 --json
    """
    assumed = Assumptions(**assumptions)
    try:
        assumed.check()
    except Refused as refused:
        option = refused.facts["field"].removesuffix("_percent")
        raise InputError(f"--{option}: {refused.facts['remedy']}") from None
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        now = wall_clock()
        catch_up(product.isolation, entry.tenant_id)
        with product.isolation.snapshot(entry.tenant_id) as db:
            check_types(db, types)
            listed, seq = tree(db, node, depth), position(db)
            if not listed:
                raise InputError(
                    f"{entry.slug} has no node {node!r}." if node else f"{entry.slug} has no nodes."
                )
            if len(listed) > MEMBERS_MAX:
                raise InputError(f"More than {MEMBERS_MAX} nodes: take a lower node, or less depth.")
            period = agreed_in(db).name_at(now)
            found = sizing_among(db, listed, types or built_in_and_own(db), assumed, now, period)
    if as_json:
        tell_json({"tenant": entry.slug, "seq": seq, **sizing_told(found)})
    else:
        _say_sizing(found, entry.currency)


def sizing_told(found: Sizing) -> dict[str, Any]:
    return {
        "periods": found.periods,
        "heldIn": found.held_in,
        "proposals": [_sized_told(one) for one in found.sized],
    }


def _sized_told(one: Sized) -> dict[str, Any]:
    made = one.proposal
    return {
        "node": one.member.id,
        "name": one.member.name or one.member.id,
        "depth": one.member.depth,
        "usageType": one.usage_type,
        "held": str(one.held),
        "base": str(made.base),
        "grown": str(made.grown),
        "withMargin": str(made.with_margin),
        "step": str(made.step),
        "proposal": str(made.quantity),
        "working": one.working,
        "below": None if one.below is None else str(one.below),
        "apart": None if one.apart is None else str(one.apart),
        "history": [
            {
                "period": past.period,
                "used": str(past.used),
                "overage": str(past.overage),
                "overageThen": str(past.overage_then),
                "overageAvoided": str(past.overage_avoided),
                "unused": str(past.unused),
            }
            for past in made.replayed
        ],
    }


def _say_sizing(found: Sizing, currency: str) -> None:
    if not found.periods:
        say("No period is complete yet: there is nothing to propose from.")
        return
    say(f"From {', '.join(found.periods)}; held in {found.held_in}")
    rows = []
    for one in found.sized:
        said = _sayer(one.usage_type, currency)
        replayed = one.proposal.replayed
        rows.append(
            (
                "  " * one.member.depth + (one.member.name or one.member.id),
                one.usage_type,
                said(int(one.proposal.base)),
                said(one.held),
                said(one.proposal.quantity),
                "" if one.below is None else said(one.below),
                said(sum(past.overage_avoided for past in replayed)),
                said(sum(past.unused for past in replayed)),
            )
        )
    head = ("node", "type", "base", "held", "proposal", "sum below", "overage avoided", "unused")
    say(table(head, rows, right=(2, 3, 4, 5, 6, 7)))


def _sayer(usage_type: str, currency: str) -> Any:
    return lambda quantity: amount(quantity, usage_type, currency)
