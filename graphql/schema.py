"""The schema: every query and mutation, what a request may cost, and the SDL that clients rely on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import strawberry
import structlog
from graphql import GraphQLError, lexicographic_sort_schema, print_schema
from strawberry.extensions import (
    AddValidationRules,
    MaskErrors,
    MaxTokensLimiter,
    ParserCache,
    SchemaExtension,
    ValidationCache,
)
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from . import life
from .accuracy import accuracy, imports
from .allocations import (
    allocations,
    apply_template,
    bulk_transfer,
    cancel_schedule,
    define_template,
    freeze_node,
    return_unused,
    schedule_allocation,
    schedules,
    set_cap,
    templates,
    thaw_node,
)
from .approvals import (
    approval_rules,
    approve_transfer,
    decline_transfer,
    proposals,
    set_approval_rule,
    set_trade_rules,
)
from .backdating import backdate
from .bounds import NamedOperation, WithinBounds
from .buckets import allocate, return_allowance, trade
from .context import TooSlow, TryAgain, Unreadable
from .contracts import (
    change_grants,
    contract,
    contracts,
    define_usage_type,
    end_contract,
    renew_contract,
    sign_contract,
    top_up,
    usage_types,
)
from .cost import CostLimiter
from .counters import counters
from .executing import Executor
from .explaining import explain
from .fees import charge_fee, set_channels, undo_fee
from .hierarchy import hierarchy, node
from .history import node_history, record_history
from .inventory import inventory
from .inventory_import import correct_inventory, import_inventory
from .invoices import invoice_preview
from .limits import limits, raise_limit, set_limit
from .limits_at_once import set_limits
from .live import changed, noticed
from .notices import (
    create_webhook,
    deliveries,
    disable_webhook,
    enable_webhook,
    recipients,
    remove_recipient,
    replay_webhook,
    rotate_webhook_secret,
    set_recipient,
    webhooks,
)
from .offers import (
    accept_offer,
    counter_offer,
    decline_offer,
    offer_history,
    offer_trade,
    offers,
    withdraw_offer,
)
from .policies import approve_usage, policies, set_policy, withdraw_policy
from .problems import Problem
from .publishing import publish_tariff
from .rerating import (
    correct_move,
    preview_move,
    preview_rerating,
    rating_job,
    rating_jobs,
    rerate,
    stop_rating,
)
from .review import review
from .scalars import SCALARS
from .session_terms import session_terms, set_session_terms
from .sessions import sessions
from .sizing import sizing
from .suspense import (
    amend_usage,
    dismiss_usage,
    keep_usage,
    recycle_usage,
    reread_usage,
    suspense_ageing,
    waiting_records,
)
from .suspense_rules import set_dismissal_rule, set_late_rule, suspense_rules
from .tariffs import import_rate_deck, override_rates, tariff_changes, tariffs, withdraw_tariff
from .tenant import me, periods, tenant
from .trying import try_policy
from .undoing import undo_transfer
from .usage import suspense, usage, usages

TOKENS_MAX = 1_000
DOCUMENTS_REMEMBERED_MAX = 500
SDL_FILE = Path(__file__).with_name("schema.graphql")

log = structlog.get_logger()


@strawberry.type
class Query:
    me = strawberry.field(me, description="Who your token says you are.")
    tenant = strawberry.field(tenant, description="The enterprise your token is for.")
    periods = strawberry.field(periods, description="The periods opened so far.")
    contracts = strawberry.field(contracts, description="What the enterprise bought.")
    contract = strawberry.field(contract, description="One contract, with all its versions.")
    tariffs = strawberry.field(tariffs, description="The tariff versions, newest first.")
    tariff_changes = strawberry.field(
        tariff_changes, description="What changes from one tariff version to another, by zone."
    )
    usage_types = strawberry.field(usage_types, description="What the tenant counts, and in which unit.")
    hierarchy = strawberry.field(
        hierarchy,
        description="A part of the hierarchy with balances and limits, in one read; null out of reach.",
    )
    node = strawberry.field(node, description="A node or resource, and what is right below it.")
    node_history = strawberry.field(node_history, description="What happened to it, newest first.")
    usages = strawberry.field(usages, description="Usage records, newest first.")
    usage = strawberry.field(usage, description="One usage record.")
    record_history = strawberry.field(record_history, description="What became of a usage record.")
    sessions = strawberry.field(sessions, description="Charging sessions, those that changed last first.")
    allocations = strawberry.field(
        allocations, description="What each has, hands down, may draw from above and has promised."
    )
    templates = strawberry.field(templates, description="The rules of allocation that have names.")
    schedules = strawberry.field(schedules, description="Allocations that time carries out.")
    limits = strawberry.field(limits, description="The limits in force at a node, in every window.")
    session_terms = strawberry.field(session_terms, description="What is laid down for sessions.")
    policies = strawberry.field(policies, description="What happens at thresholds of limits.")
    try_policy = strawberry.field(try_policy, description="What a policy would have done to past usage.")
    suspense = strawberry.field(suspense, description="Records that wait to be corrected.")
    waiting_records = strawberry.field(
        waiting_records, description="Records that wait, as they are now: with reason, attempts and value."
    )
    suspense_rules = strawberry.field(
        suspense_rules,
        description="From which age on usage is held, and what one person may write off alone.",
    )
    suspense_ageing = strawberry.field(
        suspense_ageing, description="What waits, for how long, and the money at stake."
    )
    accuracy = strawberry.field(
        accuracy, description="What was received, by day and source, and what became of it."
    )
    imports = strawberry.field(imports, description="Files that were imported, newest first.")
    invoice_preview = strawberry.field(invoice_preview, description="What a period costs so far.")
    offers = strawberry.field(offers, description="The board: what members offer each other, newest first.")
    offer_history = strawberry.field(offer_history, description="Every step of an offer, with who and why.")
    proposals = strawberry.field(proposals, description="Transfers that need approval, newest first.")
    approval_rules = strawberry.field(approval_rules, description="Which transfers need whose approval.")
    inventory = strawberry.field(inventory, description="Resources: where they are, how they are used.")
    review = strawberry.field(
        review,
        description="How a node or resource stands: burn-down, rates, projection, consumers, comparison.",
    )
    sizing = strawberry.field(sizing, description="What to grant, from what was used, with the working.")
    preview_rerating = strawberry.field(
        preview_rerating, description="What rating charges again would change, by node, type and zone."
    )
    preview_move = strawberry.field(
        preview_move, description="What moving a resource back-dated would charge to whom."
    )
    rating_jobs = strawberry.field(rating_jobs, description="Jobs that rate charges again, newest first.")
    rating_job = strawberry.field(rating_job, description="One of them, and how far it is.")
    explain = strawberry.field(explain, description="How a record came to its charge.")
    recipients = strawberry.field(recipients, description="Who is told by e-mail, by id.")
    webhooks = strawberry.field(webhooks, description="Which programs are told, by id.")
    deliveries = strawberry.field(deliveries, description="What one of them was told, newest first.")


@strawberry.type
class Mutation:
    allocate = strawberry.mutation(allocate, description="Hand quantity down to a member below.")
    return_allowance = strawberry.mutation(return_allowance, description="Hand quantity back up.")
    trade = strawberry.mutation(
        trade, description="Give quantity to a member that is neither above nor below."
    )
    offer_trade = strawberry.mutation(offer_trade, description="Offer quantity, for something or nothing.")
    counter_offer = strawberry.mutation(counter_offer, description="Answer an offer with other terms.")
    accept_offer = strawberry.mutation(accept_offer, description="Take an offer, or part of it.")
    withdraw_offer = strawberry.mutation(withdraw_offer, description="Take back what is left of an offer.")
    decline_offer = strawberry.mutation(
        decline_offer, description="Say no to an offer, as who it was made to; what is left is free again."
    )
    approve_transfer = strawberry.mutation(approve_transfer, description="Let a waiting transfer happen.")
    decline_transfer = strawberry.mutation(
        decline_transfer, description="Decline a waiting transfer, or withdraw one that you asked for."
    )
    undo_transfer = strawberry.mutation(undo_transfer, description="Move back what a transfer has moved.")
    set_approval_rule = strawberry.mutation(
        set_approval_rule, description="Ask for approval of large transfers."
    )
    set_trade_rules = strawberry.mutation(
        set_trade_rules, description="Limit how often two nodes trade back and forth."
    )
    set_limit = strawberry.mutation(set_limit, description="Limit usage at and below a member.")
    set_limits = strawberry.mutation(set_limits, description="Set many limits, all or none.")
    add_node = strawberry.mutation(life.add_node, description="Add a node below another.")
    import_inventory = strawberry.mutation(
        import_inventory, description="Make resources be as a sheet says: all of its lines, or none."
    )
    correct_inventory = strawberry.mutation(
        correct_inventory, description="The same with lines that are dated back: first shown, then confirmed."
    )
    add_resource = strawberry.mutation(life.add_resource, description="Put a resource on a node.")
    rename_node = strawberry.mutation(life.rename_node, description="Give a node another name.")
    move_node = strawberry.mutation(
        life.move_node, description="Move a node with all below it; earlier usage stays where it was charged."
    )
    merge_nodes = strawberry.mutation(
        life.merge_nodes, description="Close a node and give all it has to another."
    )
    close_node = strawberry.mutation(life.close_node, description="Close a node that is empty.")
    cancel_plan = strawberry.mutation(life.cancel_plan, description="Leave a node as it is after all.")
    move_resource = strawberry.mutation(life.move_resource, description="Put a resource on another node.")
    end_resource = strawberry.mutation(life.end_resource, description="Let a resource be nobody's.")
    suspend_resource = strawberry.mutation(
        life.suspend_resource, description="Deny a resource all usage but emergency calls."
    )
    resume_resource = strawberry.mutation(life.resume_resource, description="End a suspension.")
    change_lines = strawberry.mutation(
        life.change_lines, description="Give a resource other lines, such as another SIM's."
    )
    label_resource = strawberry.mutation(
        life.label_resource, description="Say who or what a resource is for; sealed."
    )
    raise_limit = strawberry.mutation(raise_limit, description="Raise a limit for a time.")
    set_policy = strawberry.mutation(set_policy, description="Set what happens beyond thresholds of limits.")
    withdraw_policy = strawberry.mutation(withdraw_policy, description="End a policy.")
    set_session_terms = strawberry.mutation(
        set_session_terms, description="Lay down how sessions are granted units, and how they end."
    )
    approve_usage = strawberry.mutation(
        approve_usage, description="Let be used for a time what a policy lets wait."
    )
    sign_contract = strawberry.mutation(sign_contract, description="Sign a contract, or its next version.")
    end_contract = strawberry.mutation(end_contract, description="Let a contract end on a day.")
    renew_contract = strawberry.mutation(renew_contract, description="Let a contract that ends go on.")
    top_up = strawberry.mutation(top_up, description="Grant more, at once and until the period's end.")
    change_grants = strawberry.mutation(change_grants, description="Grant other quantities from now on.")
    publish_tariff = strawberry.mutation(publish_tariff, description="Publish a tariff version.")
    define_usage_type = strawberry.mutation(
        define_usage_type, description="Let the tenant count something of the carrier's own."
    )
    import_rate_deck = strawberry.mutation(
        import_rate_deck, description="Take over a rate sheet; tells what it changes."
    )
    override_rates = strawberry.mutation(
        override_rates, description="Let a customer's own rates hold over the base tariff."
    )
    withdraw_tariff = strawberry.mutation(
        withdraw_tariff, description="Withdraw a tariff version before it holds."
    )
    charge_fee = strawberry.mutation(charge_fee, description="Charge something once.")
    undo_fee = strawberry.mutation(undo_fee, description="Take a one-off fee back, as a credit.")
    set_channels = strawberry.mutation(set_channels, description="Say how many channels a resource has.")
    set_recipient = strawberry.mutation(set_recipient, description="Let a role at a node be told by e-mail.")
    remove_recipient = strawberry.mutation(remove_recipient, description="Tell a recipient nothing more.")
    create_webhook = strawberry.mutation(create_webhook, description="Let a program be told by HTTP.")
    rotate_webhook_secret = strawberry.mutation(
        rotate_webhook_secret, description="Give a webhook another secret; both sign for a while."
    )
    disable_webhook = strawberry.mutation(disable_webhook, description="Tell a webhook nothing more.")
    enable_webhook = strawberry.mutation(enable_webhook, description="Tell it again, from now on.")
    replay_webhook = strawberry.mutation(
        replay_webhook, description="Tell a webhook again what it was, or would have been, told."
    )
    rerate = strawberry.mutation(rerate, description="Rate charges again: a job that goes on by itself.")
    correct_move = strawberry.mutation(
        correct_move, description="Move a resource back-dated, and charge again what it has used since."
    )
    backdate = strawberry.mutation(
        backdate, description="Change the hierarchy back-dated, and charge again what was used since."
    )
    stop_rating = strawberry.mutation(stop_rating, description="Let a job go no further.")
    recycle_usage = strawberry.mutation(
        recycle_usage, description="Decide records again that wait, as things are now."
    )
    amend_usage = strawberry.mutation(amend_usage, description="Correct a record that waits.")
    reread_usage = strawberry.mutation(
        reread_usage, description="Read records again, by another format, that could not be read."
    )
    dismiss_usage = strawberry.mutation(dismiss_usage, description="Write off records that wait.")
    keep_usage = strawberry.mutation(
        keep_usage, description="Let records wait on that somebody asked to write off."
    )
    set_late_rule = strawberry.mutation(set_late_rule, description="Hold usage that comes too late.")
    set_dismissal_rule = strawberry.mutation(
        set_dismissal_rule, description="Let writing off take two persons."
    )
    set_cap = strawberry.mutation(set_cap, description="Limit what a member draws from buckets above it.")
    bulk_transfer = strawberry.mutation(bulk_transfer, description="Carry out many lines, all or none.")
    define_template = strawberry.mutation(define_template, description="Keep a rule under a name.")
    apply_template = strawberry.mutation(apply_template, description="Divide what a node has by a rule.")
    return_unused = strawberry.mutation(return_unused, description="Give what is available back up.")
    schedule_allocation = strawberry.mutation(
        schedule_allocation,
        description="Have lines carried out at a moment, again and again, or for each period.",
    )
    cancel_schedule = strawberry.mutation(cancel_schedule, description="Have a schedule carried out no more.")
    freeze_node = strawberry.mutation(
        freeze_node, description="Stop all usage and transfers of a member and below, but emergency calls."
    )
    thaw_node = strawberry.mutation(thaw_node, description="Let a frozen member go on.")


@strawberry.type
class Subscription:
    counters = strawberry.subscription(
        counters, description="What nodes have used and have left, told again whenever it changes."
    )
    noticed = strawberry.subscription(
        noticed, description="Events of these kinds at and below a node, as they are committed."
    )
    changed = strawberry.subscription(
        changed, description="That something changed at or below a node; what comes at once is told together."
    )


class Schema(strawberry.Schema):
    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        """Log our own mistakes, once, and never the document: it holds the tenant's data."""
        for error in errors:
            if is_ours(error):
                log.error("query failed", path=error.path, exc_info=error.original_error)


def is_ours(error: GraphQLError) -> bool:
    """Whether it is a mistake of ours, of which nothing is told."""
    answered = (GraphQLError, TooSlow, TryAgain, Unreadable)
    return error.original_error is not None and not isinstance(error.original_error, answered)


EXTENSIONS: Sequence[Callable[[], SchemaExtension]] = (
    lambda: ParserCache(maxsize=DOCUMENTS_REMEMBERED_MAX),
    lambda: ValidationCache(maxsize=DOCUMENTS_REMEMBERED_MAX),
    lambda: MaxTokensLimiter(max_token_count=TOKENS_MAX),
    lambda: AddValidationRules([WithinBounds]),
    NamedOperation,
    CostLimiter,
    lambda: MaskErrors(
        should_mask_error=is_ours, error_message="Something went wrong here. Try again later."
    ),
)


def make_schema(
    *, extensions: Sequence[Any] = EXTENSIONS, executor: type[Executor] | None = Executor
) -> Schema:
    """With no executor the library's own: slower, and otherwise the same to the byte."""
    return Schema(
        Query,
        Mutation,
        Subscription,
        types=[Problem],
        config=StrawberryConfig(scalar_map=SCALARS, disable_field_suggestions=True),
        extensions=list(extensions),
        execution_context_class=executor,
    )


schema = make_schema()


def schema_sdl() -> str:
    """The SDL, sorted: `sort_schema` itself would break unions at run time."""
    return print_schema(lexicographic_sort_schema(schema._schema)) + "\n"
