"""Refusals: the one place where the rules' "no" becomes the API's.

Every code the domain refuses with stands in `TOLD` (a test reads them out of its source), with
the input field it is about and a sentence. Nothing here tells of anything but the caller's input
and what the caller may see.
"""

from typing import Any, NamedTuple

from graphql import GraphQLError
from strawberry import ID

from ..domain.refusals import Refused
from ..tenants import access
from . import context, problems
from .problems import ProblemType
from .scalars import Json, Quantity


class Told(NamedTuple):
    """What a refusal says: the field of the input, and the sentence, with the refusal's facts."""

    field: str
    message: str


TOLD: dict[str, Told] = {
    # buckets
    "insufficient_allowance": Told(
        "quantity", "{node} has {available} of {usage_type} that can move: ask for that or less"
    ),
    "not_positive": Told("quantity", "the quantity must be 1 or more"),
    "same_node": Told("target", "source and target are the same node"),
    "not_below": Told("target", "{target} is not below {source}: allocate goes down, trade goes sideways"),
    "not_above": Told("target", "{target} is not above {source}: return goes up, trade goes sideways"),
    "not_a_trade": Told("target", "one of the two is below the other: use {remedy}"),
    # trade
    "unknown_offer": Told("offer", "there is no offer {offer}"),
    "offer_gone": Told("offer", "the offer was {ended} before: look for another one"),
    "offer_to_everybody": Told(
        "offer", "{offer} was made to everybody: leave it to others, only one that is yours can be declined"
    ),
    "offer_expired": Told("offer", "the offer ended at {expires_at}: ask for a new one"),
    "insufficient_offer": Told("quantity", "{left} of the offer is left: take that or less"),
    "uneven_quantity": Told("quantity", "{quantity} does not come out whole: take {nearest}"),
    "not_addressed": Told("target", "the offer {offer} was not made to {node}"),
    "same_usage_type": Told("asks", "{usage_type} is offered already: ask for another type, or for nothing"),
    "bad_expiry": Told("expiresAt", "the offer must end in the future, and with its period at the latest"),
    "period_over": Told("period", "the period {period} is over"),
    "too_many_offers": Told("offer", "at most {offers_max} offers may be open: withdraw some"),
    "too_many_trades": Told("target", "{source} and {target} have traded {usage_type} {trades} times"),
    "trades_out_of_range": Told("tradesMax", "allow 1 to {trades_max} trades, or give null for any number"),
    "unknown_proposal": Told("proposal", "there is no transfer {proposal} to be approved"),
    "proposal_gone": Told("proposal", "the transfer was {ended} before"),
    "proposal_expired": Told("proposal", "nobody approved it by {expires_at}: ask for the transfer again"),
    "four_eyes": Told("proposal", "another person than the one who asked for {proposal} must approve it"),
    "too_many_proposals": Told("quantity", "at most {proposals_max} transfers may wait: approve some first"),
    "not_a_transfer": Told("seq", "event {seq} is no transfer that could be undone"),
    "undone_already": Told("seq", "the transfer of event {seq} was undone before"),
    "not_due": Told("id", "it is not due before {due_at}"),
    # allocation
    "nothing_above": Told("node", "{node} has nobody above it"),
    "over_committed": Told(
        "quantity",
        "{node} has {available}, and caps would ask {committed} of it: "
        "the contract allows {percent} % more than there is",
    ),
    "frozen": Told("node", "{node} is frozen, by {frozen}: thaw that first"),
    "frozen_already": Told("node", "{node} is frozen already"),
    "not_frozen": Told("node", "{node} is not frozen"),
    "no_lines": Told("lines", "there are no lines"),
    "bad_lines": Told("lines", "{count} lines do not fit, the first is line {first}: {why}"),
    "unknown_action": Told("action", "{action} is no action: use one of {known}"),
    "cap_has_no_source": Told("source", "a cap has no source: leave {source} out"),
    "no_quantity_here": Told("quantity", "{action} takes no quantity"),
    "no_period_here": Told("period", "a schedule knows its periods: leave {period} out"),
    "nothing_unused": Told("node", "nothing is available at {node} in {period}"),
    "nobody_below": Told("node", "there is no {kind} below {node}"),
    "unknown_template": Told("template", "there is no template {template}"),
    "template_or_rule": Told("template", "give the name of a template, or a rule"),
    "too_many_templates": Told("template", "there may be {templates_max} templates"),
    "unknown_share": Told("share", "{share} is no share: use one of {known}"),
    "amount_out_of_range": Told("amount", "the amount must be 1 to {amount_max}"),
    "unknown_schedule": Told("schedule", "there is no schedule {schedule}"),
    "too_many_schedules": Told("schedule", "there may be {schedules_max} schedules: cancel some"),
    "unknown_recurrence": Told("every", "{every} is no recurrence: use one of {known}"),
    "not_ahead": Told("firstAt", "choose a moment that is to come, within ten years"),
    "ends_before_it_begins": Told("until", "the end must come after the first time"),
    "needs_approval": Told(
        "quantity", "moving {quantity} from {source} to {target} needs an approval: ask for it by itself"
    ),
    "unknown_rule_window": Told("window", "{window} is no window of a rule: use one of {known}, or none"),
    # contract
    "no_contract": Told("period", "no contract covers the period {period}"),
    "granted_twice": Told("grants", "each usage type may be granted once: {usage_types}"),
    "unknown_usage_type": Told("usageType", "{usage_type} is no usage type: use one of {known}"),
    "quantity_out_of_range": Told("quantity", "the quantity must be 0 to {quantity_max}"),
    "period_open_already": Told("period", "the period {period} is open already"),
    "period_too_far_ahead": Told("period", "{period} starts more than {days_max} days from now"),
    "period_not_open": Told("period", "{period} is not open yet: {remedy}"),
    "not_a_period": Told("period", "{period} is not a period such as {example}"),
    "not_a_date": Told("startsOn", "{date} is not a date such as {example}"),
    "bad_calendar": Told("calendar", "{field} of the calendar cannot be {value}: {remedy}"),
    "bad_terms": Told("", "{field} cannot be {value}: {remedy}"),
    "ends_before_start": Told("endsOn", "it begins on {starts_on}: it cannot end on {ends_on}"),
    "ends_in_the_past": Told("endsOn", "{ends_on} is over: end it on {today} or later"),
    "ends_already": Told("endsOn", "{contract} ends on {ends_on}: renew it to make it longer"),
    "no_end": Told("contract", "{contract} holds until further notice: there is nothing to renew"),
    "not_longer": Told("endsOn", "{contract} ends on {ends_on}: give a later day, or none"),
    "unknown_contract": Told("contract", "there is no contract {contract}"),
    "contracts_overlap": Told(
        "startsOn", "{contract} holds from {starts_on} to {ends_on}: end it before, or begin later"
    ),
    "not_in_force": Told("contract", "the period that runs is not of {contract}: sign its next version"),
    "nothing_changed": Told("grants", "{contract} grants exactly this already"),
    "nothing_to_roll_over": Told("period", "{period} has no {usage_type} to roll over now"),
    # usage types
    "bad_usage_type": Told("name", "{usage_type} cannot be a name: give {remedy}"),
    "usage_type_exists": Told("name", "there is a usage type {usage_type} already"),
    "too_many_usage_types": Told("name", "a tenant may have {types_max} types of its carrier's own"),
    "bad_quantity": Told("quantity", "{quantity} is no quantity such as {example}"),
    "bad_heading": Told("csv", "the heading {heading} must name columns out of {known}"),
    "bad_row": Told("csv", "the row has {columns} columns, the heading {expected}"),
    # any text; the fact says which
    "bad_text": Told("", "{field} must have {remedy}"),
    # hierarchy
    "no_hierarchy": Told("node", "the tenant has no nodes yet: add the enterprise first"),
    "unknown_node": Told("node", "there is no node {node}"),
    "unknown_resource": Told("resource", "there is no resource {resource}"),
    "not_after_last_move": Told("since", "{resource} moved at {since}: choose a later time"),
    "unknown_kind": Told("kind", "{kind} is no kind: use one of {known}"),
    "second_root": Told("parent", "name a parent: {root} is the enterprise"),
    "too_deep": Told("parent", "the hierarchy may have {depth_max} levels"),
    "no_identity": Told("lines", "{resource} has no line: name at least one"),
    "identity_in_use": Told("lines", "a line of {resource} belongs to {holder}: end that first"),
    "identity_twice": Told("lines", "a line of {resource} is given twice: give each once"),
    "resource_ended": Told("resource", "{resource} ended at {ended_at}: add a new resource"),
    "exists_already": Told("id", "{id} exists already: choose another id"),
    "too_many_members": Told("id", "the hierarchy may have {members_max} members"),
    # what becomes of members
    "in_the_past": Told(
        "at",
        "that moment is over: leave it out for now, or give one to come; "
        "moves, joins, ends and suspensions can be dated back",
    ),
    "version_conflict": Told("expectedSeq", "{node} has changed since: look again, then decide"),
    "root_stays": Told("id", "{node} is the enterprise: it neither moves nor closes"),
    "cycle": Told("to", "{node} would stand below itself: choose a node that is not below it"),
    "stands_there_already": Told("to", "{node} stands below {parent} already"),
    "node_closed": Told("id", "{node} was closed at {closed_at}: choose a node that is open"),
    "node_not_empty": Told(
        "id",
        "{node} has {nodes} nodes, {resources} resources and {remaining} of quantity: merge it into another",
    ),
    "planned_already": Told("id", "for {node} a {act} is planned at {planned_at}: cancel that first"),
    "planned_into": Told("id", "{by} is to come to {node} at {planned_at}: cancel that first"),
    "nothing_planned": Told("id", "nothing is planned for {node}"),
    "suspended_already": Told("id", "{resource} is suspended since {since}"),
    "not_suspended": Told("id", "{resource} is not suspended"),
    "not_after_last_change": Told("at", "{resource} changed at {since}: choose a later time"),
    "not_its_line": Told("removed", "a line to be removed is not one of {resource}"),
    "too_many_identities": Told("added", "a resource has at most {identities_max} lines"),
    # inventory
    "too_many_lines": Told("lines", "give 1 to {lines_max} lines at a time, not {lines}"),
    "lines_refused": Told("lines", "{refused} lines cannot be carried out, so none was"),
    "nothing_to_change": Told("lines", "the inventory is as these {lines} lines say"),
    "resource_twice": Told("resource", "{resource} stands in two lines: say all of it in one"),
    "unknown_status": Told("status", "{status} is no status: use active, suspended or ended"),
    "kind_stays": Told("kind", "{resource} is a {kind} for ever: end it, and add another"),
    # limits
    "limit_twice": Told("lines", "the {usage_type} limit of {node} stands in two lines: say it in one"),
    "bad_thresholds": Told("thresholds", "thresholds are at most {thresholds_max} percentages from 1 to 100"),
    # notices
    "unknown_recipient": Told("recipient", "there is no recipient {recipient}"),
    "unknown_webhook": Told("webhook", "there is no webhook {webhook}"),
    "webhook_exists": Told("webhook", "the webhook {webhook} exists already: take another key"),
    "webhook_disabled": Told("webhook", "the webhook {webhook} is disabled already"),
    "bad_after": Told("afterSeq", "begin after an event of the log, or with 0, not after {after}"),
    "webhook_not_disabled": Told("webhook", "the webhook {webhook} is not disabled"),
    "too_many_recipients": Told("recipient", "at most {recipients_max} recipients: remove some"),
    "too_many_webhooks": Told("webhook", "at most {webhooks_max} webhooks, disabled ones among them"),
    "unknown_topic": Told("kinds", "name one or more of the kinds {known}"),
    "bad_percent": Told("percentMin", "percentMin must be 0 to {percent_max}"),
    "bad_digest": Told("digest", "{digest} is no digest: use one of {known}, or none"),
    "bad_hours": Told("quiet", "quiet hours go from one time of the day to another one"),
    "bad_overlap": Told("overlapSeconds", "the overlap must be 0 to {seconds_max} seconds"),
    "bad_window": Told("window", "{window} is no window: use one such as {examples}"),
    "bad_kind": Told("kind", "{value} is no kind of limit: use one of {known}"),
    "bad_quantities": Told("quantities", "thresholds are quantities from 1 to {quantity_max}"),
    "bad_rule": Told("mayRaise", "{value} is no rule for raising: {remedy}"),
    "begins_now": Told("fromPeriod", "a limit per {window} holds from now on: leave fromPeriod out"),
    "no_limit": Told("node", "{node} has no limit on {usage_type} per {window} that could be raised"),
    "bad_raise": Told("to", "the limit is {quantity}: {remedy}"),
    "bad_end": Told("until", "the end must lie in the future, and not too far: it is {now} now"),
    "may_not_raise": Told("quantity", "you may raise this limit of {node} to {up_to}; others: {roles}"),
    # policies
    "bad_policy": Told("", "{field} cannot be used: {remedy}"),
    "unknown_policy": Told("policy", "there is no policy {policy}"),
    "policy_withdrawn": Told("policy", "the policy {policy} is withdrawn already"),
    "nothing_to_approve": Told("policy", "{policy} lets nobody at {node} wait for an approval"),
    "may_not_approve": Told("policy", "only {roles} may approve what {policy} lets wait"),
    "begins_in_the_past": Told("", "{field} lies in the past: what was charged then stays as it is"),
    "too_many_policies": Told("policy", "there may be {policies_max} policies: set one of them anew"),
    # re-rating
    "unknown_cause": Told("cause", "{cause} is no cause: use one of {known}"),
    "bad_scope": Told("scope", "{field} of the scope cannot be used: {remedy}"),
    "scope_too_narrow": Told("scope", "allowance cannot be given in order there: {remedy}"),
    "capped_allowance": Told(
        "scope", "caps share out what {period} has: its allowance cannot be given in order"
    ),
    "period_closed": Told("scope", "{period} is closed, or was never opened: what was charged in it stays"),
    "nothing_dated_back": Told("lines", "none of the {lines} lines is about a moment that is over"),
    "lines_change_now": Told("lines", "the lines of {resource} change from now on, not back-dated"),
    "not_in_the_past": Told("at", "that moment is to come: change it then, without charging anything again"),
    "not_empty_then": Told(
        "at",
        "{by} stood on {node}, or below it, from {since} until {until} (0: it still does): "
        "move it, or merge the node, or choose a later time",
    ),
    "joined_already": Told("at", "{resource} is there since {since}: choose an earlier time"),
    "correction_runs": Told(
        "idempotencyKey",
        "the job {job} carries out an earlier change, {changed} charges so far: wait until it is done",
    ),
    "rating_job_runs": Told("job", "the job {job} runs already: look how far it is, or take another name"),
    "unknown_rating_job": Told("job", "no job {job} is running"),
    "too_many_rating_jobs": Told("job", "at most {jobs_max} jobs may run: wait for one, or stop it"),
    "nothing_to_rerate": Told("scope", "the job {job} has nothing to change there"),
    "too_many_records": Told("scope", "{count} charges are too many, at most {count_max} at a time"),
    "cannot_be_made_again": Told("scope", "record {record} cannot be charged in order: {reason}"),
    "bad_session_terms": Told("terms", "{field} cannot be used: {remedy}"),
    "no_session_terms": Told("node", "{node} has no terms of its own for sessions there"),
    # sessions: they come by a door of their own, which says the same
    "unknown_session": Told("session", "no session {session} is running: it has ended, or never began"),
    "session_exists": Told("session", "the session {session} is running: report on it, or take another id"),
    "charged_already": Told("session", "a record {session} was charged before: take another id"),
    "too_many_sessions": Told("session", "at most {sessions_max} sessions may run: end some"),
    "unknown_line": Told("line", "nobody has the line of {session}: add the resource"),
    "line_not_active": Told("line", "nobody had the line of {session} at that time: check the dates"),
    "in_the_future": Told("startedAt", "{session} starts in the future: check its clock and time zone"),
    "no_rate": Told("counterpart", "no tariff valid that day has a rate for this {usage_type}: publish one"),
    "not_expired": Told("session", "{session} has been heard of: it is not silent"),
    "report_out_of_order": Told("number", "{session} has reported as number {last} already: count upwards"),
    "usage_taken_back": Told("used", "{session} has reported {used}: usage only grows"),
    # suspense
    "not_waiting": Told("id", "{record} does not wait: {remedy}"),
    "record_changed": Told("id", "{record} has changed since: {remedy}"),
    "nothing_amended": Told("id", "{record} says this already: correct something, or recycle it"),
    "dismissal_asked": Told("id", "{record} waits for another person to write it off as well"),
    "dismissal_not_asked": Told("id", "nobody asked to write off {record}"),
    "no_dismissal_rule": Told("above", "one person may write off anything: there is no rule to lift"),
    "no_late_rule": Told("source", "there is no rule of its own for late usage of {source}"),
    "hours_out_of_range": Told("afterHours", "the age must be 1 to {hours_max} hours"),
    "too_many_late_rules": Told("source", "at most {rules_max} sources may have a rule of their own"),
    "bad_record": Told("", "{field} of {record} cannot be that: {remedy}"),
    # what was received
    "unknown_import": Told("id", "no import {id} is under way: begin it"),
    "counts_do_not_add_up": Told("sources", "of {source} {received} were received, and {read} are told"),
    "bad_counts": Told("sources", "counts are 0 or more, of at most {sources_max} sources"),
    # tariffs
    "bad_tariff": Told("tariff", "{field}: {remedy}"),
    "no_value": Told("attributes", "the rate is a percentage: state the attribute {attribute} as {example}"),
    "bad_multiple": Told(
        "attributes", "the rate is for each of the {attribute}: state their number, as a whole one"
    ),
    "tariffs_changed": Told("tariff", "the tariff has {versions} versions now, not {seen}: look again"),
    "unknown_version": Told("version", "there is no base version {version} that could be changed"),
    "withdrawn_already": Told("version", "version {version} is withdrawn already"),
    "holds_already": Told("version", "version {version} holds since {valid_from}: publish another one"),
    "laid_over_base": Told("version", "version {version} follows from its base {base}: withdraw that one"),
    "holds_in_the_past": Told(
        "validFrom",
        "what was charged since {valid_from} stays: let it hold from now on, or say it supersedes",
    ),
    "no_base": Told("validFrom", "no tariff holds at {valid_from} that these rates could be laid over"),
    "overridden_already": Told("overrides", "these are the rates that hold from {valid_from} on"),
    "bad_amendment": Told("", "{field}: {value} cannot be used: {remedy}"),
    "bad_override": Told("", "{field}: {value} cannot be used: {remedy}"),
    # rate sheets
    "bad_deck": Told("csv", "{count} lines cannot be used, so nothing was changed; the first is {first}"),
    "bad_sheet": Told("csv", "{field}: {remedy}"),
    "bad_layout": Told("layout", "{field}: {remedy}"),
    "wrong_currency": Told("currency", "the tenant's currency is {expected}, not {currency}"),
    # fees and channels
    "fee_known": Told("idempotencyKey", "there is a fee {fee} already: take a new key for another one"),
    "unknown_fee": Told("fee", "there is no fee {fee} that was charged once"),
    "fee_undone": Told("fee", "the fee {fee} was taken back before"),
    "channels_out_of_range": Told("channels", "a resource has 0 to {channels_max} channels"),
    "channels_set_later": Told("since", "{resource} stands as it is from {earliest} on: give a later time"),
    # sizing
    "bad_sizing": Told("assumptions", "{field}: {remedy}"),
    # tenant
    "tenant_not_open": Told("tenant", "the tenant is not open yet"),
    "tenant_open_already": Told("tenant", "the tenant is open already"),
    "unknown_time_zone": Told("timeZone", "{time_zone} is no time zone such as {example}"),
    "unknown_currency": Told("currency", "{currency} is no currency such as {example}"),
    # commands
    "internal_error": Told("input", "a mistake of ours: nothing has changed, and it is in our log"),
    "idempotency_mismatch": Told(
        "idempotencyKey", "this key was used for something else: take a new key for another command"
    ),
}


def problem_of(error: Refused | context.TryAgain | access.NotPermitted) -> ProblemType:
    """The API's word for why a change was not made."""
    if isinstance(error, context.TryAgain):
        return problems.TryAgain(
            code=error.code, message=str(error), path=[], retry_after_ms=error.retry_after_ms
        )
    if isinstance(error, access.NotPermitted):
        return problems.NotPermitted(code=error.code, message=str(error), path=[], verb=error.verb)
    return _refused(error.code, error.facts)


def unknown_node(node: str, field: str = "node") -> problems.UnknownNode:
    """The same for a node that does not exist and for one that is not the caller's to see."""
    return problems.UnknownNode(
        code="unknown_node",
        message=TOLD["unknown_node"].message.format(node=node),
        path=["input", field],
        node=ID(node),
    )


def invalid(field: str, message: str, code: str = "invalid_input") -> problems.InvalidInput:
    return problems.InvalidInput(code=code, message=message, path=["input", field], field=field)


def _refused(code: str, facts: dict[str, Any]) -> ProblemType:
    told = TOLD[code]
    message = told.message.format_map(_Facts(facts))
    field = told.field or camel(facts["field"])
    path = ["input", field]
    match code:
        case "insufficient_allowance":
            return problems.InsufficientAllowance(
                code=code,
                message=message,
                path=path,
                node=ID(facts["node"]),
                usage_type=facts["usage_type"],
                period=facts["period"],
                available=Quantity(facts["available"]),
                reserved=Quantity(facts["reserved"]),
            )
        case "over_committed" if facts["node"] is not None:
            figures = {name: facts[name] for name in ("node", "available", "committed", "percent")}
            return problems.OverCommitted(code=code, message=message, path=path, **figures)
        case "frozen":
            node, by = ID(facts["node"]), facts["frozen"]
            return problems.Frozen(code=code, message=message, path=path, node=node, frozen_by=by)
        case "bad_lines":
            return _bad_lines(message, facts["lines"], facts["count"])
        case "lines_refused":
            return _refused_lines(message, facts["lines"], facts["refused"])
        case "bad_deck":
            return _bad_deck(message, facts["lines"], facts["count"])
        case "may_not_approve":
            return problems.NotPermitted(code=code, message=message, path=path, verb="approve_usage")
        case "unknown_node":
            return unknown_node(facts["node"])
        case "idempotency_mismatch":
            return problems.IdempotencyMismatch(code=code, message=message, path=path)
    return problems.InvalidInput(code=code, message=message, path=path, field=field)


def _bad_lines(message: str, lines: list[dict[str, Any]], count: int) -> problems.BadLines:
    """Each with its code, a sentence, and its facts as they are."""
    told = [
        problems.BadLine(
            line=bad["line"],
            code=bad["code"],
            message=message_of(bad["code"], bad["facts"]),
            facts=Json({camel(name): _plain(fact) for name, fact in bad["facts"].items()}),
        )
        for bad in lines
    ]
    path = ["input", "lines"]
    return problems.BadLines(code="bad_lines", message=message, path=path, count=count, lines=told)


def _refused_lines(message: str, lines: list[dict[str, Any]], count: int) -> problems.BadLines:
    """Of an inventory or of limits: each with its code, the field it is about, and what to do."""
    told = [
        problems.BadLine(
            line=bad["line"],
            code=bad["code"],
            message=f"{bad['field']} of {bad['resource']!r}: {bad['remedy']}",
            facts=Json({"field": camel(bad["field"]), "id": bad["resource"], "remedy": bad["remedy"]}),
        )
        for bad in lines
    ]
    path = ["input", "lines"]
    return problems.BadLines(code="lines_refused", message=message, path=path, count=count, lines=told)


def _bad_deck(message: str, lines: list[dict[str, Any]], count: int) -> problems.BadLines:
    """Of a rate sheet: each with its field, what stands there, and what to do."""
    told = [
        problems.BadLine(
            line=bad["line"],
            code="bad_cell",
            message=f"{bad['field']} {bad['value']!r}: {bad['remedy']}",
            facts=Json({name: bad[name] for name in ("field", "value", "remedy")}),
        )
        for bad in lines
    ]
    return problems.BadLines(code="bad_deck", message=message, path=["input", "csv"], count=count, lines=told)


def message_of(code: str, facts: dict[str, Any]) -> str:
    """A refusal as a sentence."""
    return TOLD[code].message.format_map(_Facts(facts))


def _plain(fact: Any) -> Any:
    """Quantities as text, as everywhere."""
    return str(fact) if isinstance(fact, int) and not isinstance(fact, bool) else fact


def facts_told(facts: dict[str, Any]) -> "_Facts":
    """Facts for a sentence of `TOLD`."""
    return _Facts(facts)


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


class _Facts(dict[str, Any]):
    """Facts as people read them; one that is not there leaves no hole in the answer."""

    def __getitem__(self, name: str) -> str:
        fact = self.get(name, "?")
        if fact is None:
            return "what is beyond your reach"
        return ", ".join(map(str, fact)) if isinstance(fact, list) else str(fact)


class QueryRefused(GraphQLError):
    """A question that cannot be answered: a top-level error with a stable code."""

    def __init__(self, code: str, message: str, **facts: Any) -> None:
        super().__init__(message, extensions={"code": code, **facts})
