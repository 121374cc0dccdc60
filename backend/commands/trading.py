"""`allotment trade ...`: the board of offers, and offering, taking and approving for a carrier's staff."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import rich_click as click

from ...domain.approval import (
    Approver,
    ApproveTransfer,
    DeclineTransfer,
    SetApprovalRule,
    TransferProposed,
)
from ...domain.offer import (
    NOTHING_ASKED,
    AcceptOffer,
    Ask,
    DeclineOffer,
    OfferMade,
    OfferTrade,
    WithdrawOffer,
)
from ...domain.splitting import WINDOWS, Window
from ...domain.tenant import Command
from ...domain.trading import UndoTransfer
from ...graphql.scalars import moment_text
from ...graphql.undoing import moved_at, near
from ...projections.approvals import STATES as PROPOSAL_STATES
from ...projections.approvals import proposals_page
from ...projections.offers import STATES, Offer, board
from ...tenants.onboarding import TenantEntry, find_tenant
from ..following import catch_up
from ..notifying.matching import events_at
from ..running import Product, running
from .changing import carried_out
from .options import JSON, TENANT
from .output import amount, note, say, settings_for_command, table, tell_json

SHOWN_MAX = 100

_NOTE = click.option("--note", "why", default="", help="For the history.")
_KEY = click.option("--key", default="", help="Sent again with the same key it changes nothing.")
_DRY = click.option("--dry-run", is_flag=True, help="Say what would happen; store nothing.")


def _changing(command: Callable[..., None]) -> Callable[..., None]:
    for option in (TENANT, _NOTE, _KEY, _DRY, JSON):
        command = option(command)
    return command


@click.group()
def trade() -> None:
    """Offers between nodes, and transfers that wait for approval."""


@trade.command(name="board")
@TENANT
@click.option("--under", help="Only what this node and those below it see.")
@click.option("--type", "usage_type", help="Only offers of this usage type.")
@click.option("--state", type=click.Choice(STATES), help="Only offers in this state.")
@JSON
def board_command(
    slug: str, under: str | None, usage_type: str | None, state: str | None, as_json: bool
) -> None:
    """Show what nodes offer each other, newest first.

    \b
    allotment trade board --tenant acme --state open
    """
    types = [usage_type] if usage_type else None
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        catch_up(product.isolation, entry.tenant_id)
        with product.isolation.snapshot(entry.tenant_id) as db:
            found = board(db, [under], SHOWN_MAX, usage_types=types, state=state)
    if as_json:
        tell_json([_offer_told(one) for one in found])
    elif found:
        rows = [
            (
                *(one.offer, one.state, one.source_id, _whom(one), amount(one.quantity, one.usage_type)),
                *(amount(one.remaining, one.usage_type), _asked(one), moment_text(one.expires_at)[:16]),
            )
            for one in found
        ]
        say(table(("offer", "state", "from", "to", "offered", "left", "for", "until (UTC)"), rows))
    else:
        note("No such offers.")


@trade.command()
@click.argument("source")
@click.argument("quantity", type=int)
@click.argument("usage_type")
@click.option("--to", "target", default="", help="Only to this node; else to everybody.")
@click.option("--for", "asks", type=(int, str), help="What all of it costs: 1800 voice.")
@click.option("--whole", is_flag=True, help="It is taken all at once, or not at all.")
@_changing
def offer(
    source: str,
    quantity: int,
    usage_type: str,
    target: str,
    asks: tuple[int, str] | None,
    whole: bool,
    **given: Any,
) -> None:
    """Offer QUANTITY of a SOURCE's USAGE_TYPE; it is set aside meanwhile.

    \b
    allotment trade offer emea 1000000000 data --for 1800 voice --tenant acme
    """
    ask = Ask(asks[1], asks[0], quantity) if asks else NOTHING_ASKED
    ident = f"o-{given['key'] or uuid4().hex[:20]}"
    command = OfferTrade(
        *(ident, source, usage_type, quantity, ask), target=target, whole=whole, note=given["why"]
    )
    _change(command, **given)


@trade.command()
@click.argument("offer")
@click.argument("node")
@click.option("--quantity", type=int, help="A part; else all that is left.")
@_changing
def accept(offer: str, node: str, quantity: int | None, **given: Any) -> None:
    """Take an OFFER, or part of it, for a NODE.

    \b
    allotment trade accept o-1f0c apac --quantity 500000000 --tenant acme
    """
    _change(AcceptOffer(offer, node, quantity, given["why"]), **given)


@trade.command()
@click.argument("offer")
@_changing
def withdraw(offer: str, **given: Any) -> None:
    """Take back what is left of an OFFER."""
    _change(WithdrawOffer(offer, given["why"]), **given)


@trade.command()
@TENANT
@click.option(
    "--state", type=click.Choice(PROPOSAL_STATES), default="waiting", show_default=True, help="Those in it."
)
@JSON
def waiting(slug: str, state: str, as_json: bool) -> None:
    """Show the transfers that wait for approval, newest first."""
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        catch_up(product.isolation, entry.tenant_id)
        with product.isolation.snapshot(entry.tenant_id) as db:
            found = proposals_page(db, [None], SHOWN_MAX, state=state)
    names = ("proposal", "state", "reason", "source_id", "target_id", "usage_type", "period", "quantity")
    rows = [{name: getattr(one, name) for name in (*names, "asked_by", "note")} for one in found]
    if as_json:
        tell_json(rows)
    elif rows:
        say(table(tuple(rows[0]), [tuple(row.values()) for row in rows]))
    else:
        note("No such transfers.")


@trade.command()
@click.argument("proposal")
@_changing
def approve(proposal: str, **given: Any) -> None:
    """Let a transfer that waits happen."""
    _change(ApproveTransfer(proposal, given["why"]), **given)


@trade.command()
@click.argument("proposal")
@_changing
def decline(proposal: str, **given: Any) -> None:
    """Decline a transfer that waits."""
    _change(DeclineTransfer(proposal, given["why"]), **given)


@trade.command(name="decline-offer")
@click.argument("offer")
@click.argument("node")
@_changing
def decline_offer(offer: str, node: str, **given: Any) -> None:
    """Say no to an OFFER that was made to NODE: what is left of it is free again."""
    _change(DeclineOffer(offer, node, given["why"]), **given)


@trade.command()
@click.argument("seq", type=click.IntRange(min=1))
@_changing
def undo(seq: int, **given: Any) -> None:
    """Move back what the transfer or accepted offer of event SEQ has moved, as a counter-trade, once.

    \b
    allotment trade undo 1042 --tenant acme --note "meant for another crew"
    """

    def command(product: Product, entry: TenantEntry) -> Command:
        with product.isolation.transaction(entry.tenant_id) as db:
            events = [*events_at(db, [*near(seq)]).values()]
        return UndoTransfer(*moved_at(sorted(events, key=lambda one: one.seq), seq), given["why"])

    _change(command, **given)


@trade.command()
@click.argument("node")
@click.argument("usage_type")
@click.option(
    "--above", type=click.IntRange(min=0), help="What is more needs approval; left out, nothing does."
)
@click.option("--approver", default="", help="Who approves must reach this node; else NODE.")
@click.option("--role", default="", help="And have this role.")
@click.option("--four-eyes", is_flag=True, help="Whoever asked may not approve.")
@click.option("--in", "window", type=click.Choice(WINDOWS[1:]), help="Add up what one person moves in it.")
@_changing
def rule(
    node: str,
    usage_type: str,
    above: int | None,
    approver: str,
    role: str,
    four_eyes: bool,
    window: Window | None,
    **given: Any,
) -> None:
    """Ask for approval of transfers that leave or reach NODE or what is below it.

    \b
    allotment trade rule emea data --above 50000000000 --approver acme --in day --tenant acme
    """
    who = Approver(approver or node, role)
    _change(SetApprovalRule(node, usage_type, above, who, four_eyes, given["why"], window or ""), **given)


Making = Callable[[Product, TenantEntry], Command]
"""Makes a command of what the log says."""


def _change(asked: Command | Making, *, slug: str, why: str, key: str, dry_run: bool, as_json: bool) -> None:
    """Carry it out as the carrier's staff, who reach the whole enterprise, and tell what happened."""
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        command = asked(product, entry) if callable(asked) else asked
        carried = carried_out(product, entry, command, f"trade:{key or uuid4().hex}", dry=dry_run)
        answer, sentences = carried.answer, carried.sentences
    idents = [one.offer for one in answer.events if isinstance(one, OfferMade)]
    idents += [one.proposal for one in answer.events if isinstance(one, TransferProposed)]
    if as_json:
        seqs = [] if answer.dry else [answer.first_seq, answer.last_seq]
        tell_json({"tenant": slug, "dry_run": answer.dry, "ids": idents, "seqs": seqs, "happened": sentences})
        return
    for sentence in sentences:
        say(f"{'Would happen: ' if answer.dry else ''}{sentence}")
    for ident in idents:
        say(f"Its id: {ident}")


def _offer_told(one: Offer) -> dict[str, Any]:
    names = ("offer", "state", "source_id", "target_id", "everybody", "usage_type", "period", "note")
    figures = ("quantity", "remaining", "pending", "lot", "asks_quantity", "asks_per")
    told = {name: getattr(one, name) for name in (*names, "asks_type", "counters")}
    times = {"expires_at": moment_text(one.expires_at), "made_at": moment_text(one.made_at)}
    return {**told, **{name: str(getattr(one, name)) for name in figures}, **times}


def _whom(one: Offer) -> str:
    return f"all below {one.target_id}" if one.everybody else one.target_id


def _asked(one: Offer) -> str:
    if not one.asks_type:
        return "nothing"
    return amount(Ask(one.asks_type, one.asks_quantity, one.asks_per).price_of(one.quantity), one.asks_type)
