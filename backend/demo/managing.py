"""The demonstration's manager divides, trades, rules and rearranges: every change tried first.

Each chapter says what the log or the state tells after it, and whether it is what the change promised.
"""

from typing import Any
from uuid import uuid4

from ...domain.allocation import TransferMany
from ...domain.approval import Approver, ApproveTransfer, SetApprovalRule, TransferApproved, TransferProposed
from ...domain.bucket import Transferred
from ...domain.life import MoveNode
from ...domain.limit import SetAnyLimit
from ...domain.offer import AcceptOffer, OfferTrade
from ...domain.policy import PolicySet, SetPolicy, Step
from ...domain.refusals import Refused
from ...domain.running import Line
from ...domain.template import ApplyTemplate, Rule
from ...domain.tenant import Command
from ...domain.trying import Trial
from ...tenants.sealing import load_sealer
from ..commands.output import amount
from ..engine import Engine
from ..money import money
from ..running import Product
from ..trying_out import limits_of, policy_of, rules_for, try_out
from .enterprises import GB, LENDER, POOL, TABLETS
from .stage import Chapter, Stage, pool_left

MANAGER, DIVISION = "telecoms_manager:demo", "telecoms_manager:field"
MB = 10**6
SHARE_BYTES = 100 * MB
OFFERED_BYTES = GB
APPROVED_ABOVE_BYTES = 500 * MB
CALLS_SECONDS = 3_600
DAYS_30 = 30 * 86_400_000_000


async def divide(product: Product, engine: Engine, stage: Stage) -> Chapter:
    """By a rule, tried first; and by a sheet, of which one bad line keeps all others out."""
    rule = ApplyTemplate(LENDER, "", Rule("each", SHARE_BYTES, "resources"), "data", stage.period)
    foreseen = await _do(engine, stage, rule, dry=True)
    done = [event for event in await _do(engine, stage, rule) if isinstance(event, Transferred)]
    good = Line("return", "tablet-20", LENDER, "data", SHARE_BYTES, stage.period)
    refused = await _refusal(engine, stage, TransferMany((good, Line("return", "nobody", LENDER, "data", 1))))
    returned = await _do(engine, stage, TransferMany((good,)))
    told = (
        f"{LENDER} gives {amount(SHARE_BYTES, 'data')} to each of its {len(done)} tablets by a template, as"
        f" the dry run said; a sheet of 2 lines with one bad is refused whole ({refused}), then goes in."
    )
    ok = len(foreseen) == len(done) == TABLETS and refused == "bad_lines" and len(returned) == 1
    facts: dict[str, Any] = {"node": LENDER, "transfers": len(done), "each": SHARE_BYTES, "refused": refused}
    return Chapter("divided_by_template_and_sheet", ok, told, facts)


async def trade_with_approval(product: Product, engine: Engine, stage: Stage) -> Chapter:
    """An offer is accepted, waits for the division, and moves when it is approved."""
    above, offer = APPROVED_ABOVE_BYTES, f"offer-{uuid4().hex[:8]}"
    await _do(engine, stage, SetApprovalRule(LENDER, "data", above, Approver("field"), four_eyes=True))
    await _do(engine, stage, OfferTrade(offer, LENDER, "data", OFFERED_BYTES, target=POOL))
    before = await pool_left(engine, stage, POOL)
    accepted = await _do(engine, stage, AcceptOffer(offer, POOL))
    asked = [one for one in accepted if isinstance(one, TransferProposed)]
    waited = await pool_left(engine, stage, POOL) == before
    answered = await _do(engine, stage, ApproveTransfer(asked[0].proposal), DIVISION) if asked else []
    moved = await pool_left(engine, stage, POOL) - before
    told = (
        f"{LENDER} offers {amount(OFFERED_BYTES, 'data')}, {POOL} accepts; above {amount(above, 'data')} the"
        f" division must approve, with other eyes: it does, and {amount(moved, 'data')} move."
    )
    approved = any(isinstance(one, TransferApproved) for one in answered)
    ok = bool(asked) and waited and approved and moved == OFFERED_BYTES
    return Chapter("offer_accepted_and_approved", ok, told, {"offer": offer, "quantity": moved})


async def rule_calls(product: Product, engine: Engine, stage: Stage) -> Chapter:
    """What a policy would have done to the last month is known before it is put in force."""
    entry, now = stage.entries[0], engine.clock()
    limit = SetAnyLimit("london", "voice", CALLS_SECONDS, (80, 100), kind="soft", window="last_30_days")
    policy = SetPolicy("own-calls", "london", "voice", (Step("redirect", 100),), "last_30_days")
    state = await engine.state(entry.tenant_id)
    rules = rules_for(state, limits_of(state, [limit], now), now)
    trial = Trial(policy_of(state, policy, now), rules, now - DAYS_30, now)

    def tried() -> int:
        sealer = load_sealer(product.isolation, product.root_key(), entry.tenant_id)
        return try_out(product.isolation, entry.tenant_id, sealer, trial)

    seq = await engine.in_thread(tried)
    set_now = [event for command in (limit, policy) for event in await _do(engine, stage, command)]
    redirected, personal = trial.total.proposed.redirected, trial.total.proposed.personal
    told = (
        f"A policy is tried on 30 days of usage: of london, {redirected} calls beyond"
        f" {amount(CALLS_SECONDS, 'voice')} would have gone to their users, for"
        f" {money(personal, entry.currency)}. It is put in force."
    )
    in_force = any(isinstance(event, PolicySet) for event in set_now)
    facts = {"seq": seq, "redirected": redirected, "personal": personal}
    return Chapter("policy_tried_and_in_force", in_force and redirected > 0, told, facts)


async def move_a_crew(product: Product, engine: Engine, stage: Stage) -> Chapter:
    """A crew goes to another place with its tablets; what it was charged stays where it was."""
    state = await engine.state(stage.entries[0].tenant_id)
    crew = state.hierarchy.by_id["crew-6"]
    before = state.hierarchy.by_id["field-south"].ordinal
    used = state.families["data", stage.period].used[before]
    await _do(engine, stage, MoveNode("crew-6", "field-north", note="covers the north now"))
    parent = crew.parent.id if crew.parent is not None else ""
    stayed = state.families["data", stage.period].used[before] == used
    told = f"crew-6 moves from field-south to {parent} with its {TABLETS} tablets; its charges stay there."
    return Chapter(
        "node_moved", parent == "field-north" and stayed, told, {"node": "crew-6", "parent": parent}
    )


async def _do(
    engine: Engine, stage: Stage, command: Command, actor: str = MANAGER, *, dry: bool = False
) -> list[Any]:
    """The events it led to."""
    answer = await engine.submit(stage.entries[0].tenant_id, command, f"demo-{uuid4()}", actor, dry=dry)
    return list(answer.events)


async def _refusal(engine: Engine, stage: Stage, command: Command) -> str:
    try:
        await _do(engine, stage, command)
    except Refused as refusal:
        return refusal.code
    return ""
