"""`allotment limit ...` and `allotment policy ...`: limits and policies by hand, and trying policies out."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import rich_click as click

from ...domain.limit import THRESHOLDS, SetAnyLimit
from ...domain.policy import ApproveUsage, WithdrawPolicy
from ...domain.raising import MayRaise, RaiseLimit
from ...domain.tenant import Tenant
from ...domain.trying import Tally, Trial
from ...domain.usage import MONEY
from ...domain.window import PERIOD
from ...projections import rules
from ...tenants.definition import DefinitionError
from ...tenants.onboarding import LimitDefinition, PolicyDefinition, find_tenant
from ...tenants.sealing import load_sealer
from ..engine import wall_clock
from ..following import catch_up
from ..log import PostgresLog, replay
from ..money import money
from ..running import running
from ..trying_out import limits_of, policy_of, rules_for, try_out
from .changing import carry_out_in_brief
from .input import InputError, opened
from .limit_sheets import limit_export, limit_import, limits_in_force
from .options import JSON, TENANT
from .output import end_progress, note, say, settings_for_command, table, tell_json

TELL_SECONDS = 1.0
_KEY = click.option("--key", default="", help="Yours; the same key again changes nothing.")
_NOTE = click.option("--note", "why", default="", help="Why; it stands in the log.")
_WINDOW = click.option(
    "--window", default=PERIOD, show_default=True, help="period, day, week, last_7_days, last_24_hours."
)


@click.group()
def limit() -> None:
    """Limit what may be used, and raise limits for a time."""


@click.group()
def policy() -> None:
    """Set what happens at thresholds of limits, and try it out first."""


# --- limits ----------------------------------------------------------------------------------


@limit.command(name="set")
@TENANT
@click.argument("node")
@click.argument("usage_type")
@click.argument("quantity")
@_WINDOW
@click.option("--soft", is_flag=True, help="Only tell, and never stop.")
@click.option("--at", "thresholds", multiple=True, help="Where to tell: 80% or a quantity; repeatable.")
@click.option("--raiser", "raisers", multiple=True, help="Who may raise it: ROLE, ROLE:150%, ROLE:900.")
@_NOTE
@_KEY
@JSON
def limit_set(
    slug: str,
    node: str,
    usage_type: str,
    quantity: str,
    window: str,
    soft: bool,
    thresholds: Sequence[str],
    raisers: Sequence[str],
    why: str,
    key: str,
    as_json: bool,
) -> None:
    """Limit NODE to QUANTITY of USAGE_TYPE per window; "none" lifts the limit.

    \b
    allotment limit set sales data 5000000000 --tenant acme --window day --at 80% --at 100%
    allotment limit set sales voice 36000 --tenant acme --soft --at 100% --at 150%
    allotment limit set sales voice none --tenant acme
    """
    percents = [_number(one[:-1], "--at") for one in thresholds if one.endswith("%")]
    quantities = [_number(one, "--at") for one in thresholds if not one.endswith("%")]
    command = SetAnyLimit(
        node,
        usage_type,
        None if quantity == "none" else _number(quantity, "QUANTITY"),
        tuple(percents) if thresholds else THRESHOLDS,
        "",
        window,
        "soft" if soft else "hard",
        tuple(quantities),
        tuple(map(_raiser, raisers)),
        (),
        why,
    )
    carry_out_in_brief(slug, command, key, as_json)


@limit.command(name="raise")
@TENANT
@click.argument("node")
@click.argument("usage_type")
@click.option("--to", "to", default="", help="The quantity to raise to, or")
@click.option("--by", "by", default="", help="how much to add.")
@click.option("--until", required=True, help="When the old limit holds again: 2026-11-30T18:00+01:00.")
@_WINDOW
@_NOTE
@_KEY
@JSON
def limit_raise(
    slug: str,
    node: str,
    usage_type: str,
    to: str,
    by: str,
    until: str,
    window: str,
    why: str,
    key: str,
    as_json: bool,
) -> None:
    """Raise a limit of NODE until a moment; after it the old one holds again, by itself.

    \b
    allotment limit raise sales data --by 1000000000 --until 2026-11-30T18:00+01:00 --tenant acme
    """
    command = RaiseLimit(
        node,
        usage_type,
        moment(until, "--until"),
        _number(to, "--to") if to else None,
        _number(by, "--by") if by else None,
        window,
        (),
        why,
    )
    carry_out_in_brief(slug, command, key, as_json)


for _command in (limit_import, limit_export):
    limit.add_command(_command)


@limit.command(name="list")
@TENANT
@click.option("--node", default="", help="Of this node and what is below it; else of all.")
@JSON
def limit_list(slug: str, node: str, as_json: bool) -> None:
    """Show the limits in force, and how far usage has come.

    \b
    allotment limit list --tenant acme --node sales
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        names, found = limits_in_force(product, entry, node)
    if as_json:
        tell_json([_limit_told(one, names[one.ordinal]) for one in found])
        return
    rows = [
        (
            *(names[one.ordinal], one.usage_type, one.in_force.window, one.in_force.kind),
            *_how_far(one, entry.currency),
            one.of,
        )
        for one in found
    ]
    if rows:
        say(table(("node", "type", "per", "kind", "used", "of", "in"), rows, right=(4, 5)))
    else:
        note("No limits: `allotment limit set --help` shows how to set one.")


# --- policies --------------------------------------------------------------------------------


@policy.command(name="set")
@TENANT
@click.argument("file")
@click.option("--from", "since", default="", help="A moment from now on; else at once.")
@_KEY
@JSON
def policy_set(slug: str, file: str, since: str, key: str, as_json: bool) -> None:
    """Set the policy in FILE, as its next version. `policy example` prints one to start from.

    \b
    allotment policy set night.json --tenant acme
    """
    wanted = _read(file).policy
    carry_out_in_brief(slug, wanted.command(moment(since, "--from") if since else 0), key, as_json)


@policy.command()
@TENANT
@click.argument("name")
@click.option("--from", "since", default="", help="A moment from now on; else at once.")
@_NOTE
@_KEY
@JSON
def withdraw(slug: str, name: str, since: str, why: str, key: str, as_json: bool) -> None:
    """End the policy NAME.

    \b
    allotment policy withdraw night --tenant acme
    """
    command = WithdrawPolicy(name, moment(since, "--from") if since else 0, why)
    carry_out_in_brief(slug, command, key, as_json)


@policy.command()
@TENANT
@click.argument("name")
@click.argument("node")
@click.option("--until", required=True, help="How long: 2026-11-30T18:00+01:00.")
@_NOTE
@_KEY
@JSON
def approve(slug: str, name: str, node: str, until: str, why: str, key: str, as_json: bool) -> None:
    """Approve at NODE, until a moment, what the policy NAME lets wait.

    \b
    allotment policy approve roaming sales --until 2026-11-30T18:00+01:00 --tenant acme
    """
    carry_out_in_brief(slug, ApproveUsage(name, node, moment(until, "--until"), (), why), key, as_json)


@policy.command(name="list")
@TENANT
@JSON
def policy_list(slug: str, as_json: bool) -> None:
    """Show the policies, with all their versions.

    \b
    allotment policy list --tenant acme
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        catch_up(product.isolation, entry.tenant_id)
        with product.isolation.snapshot(entry.tenant_id) as db:
            found = rules.policies(db)
    versions = [told for one in found for told in one.versions]
    if as_json:
        tell_json(
            [
                {"seq": told.seq, "topic": told.event.topic, **msgspec.structs.asdict(told.event)}
                for told in versions
            ]
        )
        return
    rows = [_policy_row(told) for told in versions]
    if rows:
        say(table(("policy", "version", "from", "node", "on", "steps"), rows))
    else:
        note("No policies: `allotment policy example` shows one.")


@policy.command()
def example() -> None:
    """Print a policy, with a limit to try it with, to start from."""
    say(msgspec.json.format(msgspec.json.encode(EXAMPLE), indent=2).decode())


@policy.command(name="try")
@TENANT
@click.argument("file")
@click.option("--from", "since", default="", help="A moment; else a month ago.")
@click.option("--to", "until", default="", help="A moment; else now.")
@JSON
def policy_try(slug: str, file: str, since: str, until: str, as_json: bool) -> None:
    """Say what the policy in FILE would have done to the usage of a past time. Nothing changes.

    All usage is decided again under today's limits, without and with the policy; `limits` in FILE are
    tried along with it.

    \b
    allotment policy try night.json --tenant acme --from 2026-10-01T00:00+02:00 --to 2026-11-01T00:00+01:00
    """
    wanted, now = _read(file), wall_clock()
    starts_at = moment(since, "--from") if since else now - 30 * 86_400_000_000
    ends_at = moment(until, "--to") if until else now
    if starts_at >= ends_at:
        raise InputError("--to: choose a moment after --from")
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        state = Tenant()
        for told in replay(PostgresLog(product.isolation, entry.tenant_id)):
            state.apply(told.event)
        along = limits_of(state, [one.command() for one in wanted.limits], now)
        proposal = policy_of(state, wanted.policy.command(), now)
        trial = Trial(proposal, rules_for(state, along, now), starts_at, ends_at)
        sealer = load_sealer(product.isolation, product.root_key(), entry.tenant_id)
        seq = try_out(product.isolation, entry.tenant_id, sealer, trial, progress=_progress())
        end_progress()
    names = trial.hierarchy_ids
    if as_json:
        tell_json({"tenant": entry.slug, "seq": seq, **_trial_told(trial, names)})
    else:
        _say_trial(trial, names, entry.currency)


class PolicyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a policy file holds."""

    policy: PolicyDefinition
    limits: tuple[LimitDefinition, ...] = ()
    """To be tried along; setting the policy leaves them alone."""


EXAMPLE = {
    "policy": {
        "id": "evening-data",
        "node": "sales",
        "counted": "data",
        "window": "day",
        "steps": [
            {"action": "notify", "percent": 80},
            {"action": "throttle", "percent": 100, "kbps": 512},
            {"action": "redirect", "percent": 150},
        ],
        "selector": {"weekdays": [0, 1, 2, 3, 4], "from_minute": 1080, "to_minute": 480},
    },
    "limits": [
        {"node": "sales", "usage_type": "data", "quantity": 5_000_000_000, "window": "day", "kind": "soft"}
    ],
}


def _read(file: str) -> PolicyFile:
    with opened(file) as stream:
        text = stream.read()
    try:
        return msgspec.json.decode(text, type=PolicyFile)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise DefinitionError(f"the policy cannot be used: {error}") from error


def _raiser(text: str) -> MayRaise:
    role, _, bound = text.partition(":")
    if bound.endswith("%"):
        return MayRaise(role, _number(bound[:-1], "--raiser"))
    return MayRaise(role, 0, _number(bound, "--raiser") if bound else 0)


def _number(text: str, field: str) -> int:
    if not text.isdecimal() or not text.isascii():
        raise InputError(f"{field}: {text!r} is no whole number such as 1000")
    return int(text)


def moment(text: str, field: str) -> int:
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError(text)
    except ValueError:
        raise InputError(
            f"{field}: {text!r} is no moment with its zone, such as 2026-11-30T18:00+01:00"
        ) from None
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _moment_text(at: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)).isoformat(timespec="seconds")


def _how_far(limit: rules.Limit, currency: str) -> tuple[str, str]:
    """What was used, and of how much: money with the tenant's currency."""
    if limit.usage_type == MONEY:
        return money(limit.used), money(limit.in_force.quantity, currency)
    return f"{limit.used:,}", f"{limit.in_force.quantity:,}"


def _limit_told(one: rules.Limit, node: str) -> dict[str, Any]:
    return {
        "node": node,
        "usage_type": one.usage_type,
        **msgspec.structs.asdict(one.in_force),
        "of": one.of,
        "used": one.used,
        "set_by": one.seq,
    }


def _policy_row(told: rules.Told) -> tuple[object, ...]:
    event: Any = told.event
    steps = [
        f"{step.action} {f'{step.percent} %' if step.percent else step.at}"
        for step in getattr(event, "steps", ())
    ]
    on = f"{event.counted} per {event.window}" if steps else "withdrawn"
    return (event.policy, event.version, _moment_text(event.valid_from), event.node, on, ", ".join(steps))


def _progress() -> Any:
    last = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal last
        if time.monotonic() - last >= TELL_SECONDS:
            last = time.monotonic()
            note(f"{done:,} of {of:,} events")

    return tell


def _trial_told(trial: Trial, names: list[str]) -> dict[str, Any]:
    total = trial.total
    return {
        "recorded": total.recorded,
        "without": total.without,
        "proposed": total.proposed,
        "saved": total.saved,
        "moved": total.moved,
        "left_out": trial.left_out,
        "nodes": [
            {
                "node": names[ordinal],
                **{name: getattr(of, name) for name in ("recorded", "without", "proposed", "saved", "moved")},
            }
            for ordinal, of in sorted(trial.by_node.items())
        ],
    }


def _say_trial(trial: Trial, names: list[str], currency: str) -> None:
    total = trial.total
    say(f"{total.without.records:,} records decided again; {trial.left_out:,} left out.")
    figures = [name for name in Tally.__struct_fields__ if name not in ("amount", "personal")]
    rows = [
        (name, *(f"{getattr(tally, name):,}" for tally in (total.recorded, total.without, total.proposed)))
        for name in figures
    ]
    for name in ("amount", "personal"):
        tallies = (total.recorded, total.without, total.proposed)
        rows.append((name, *(money(getattr(tally, name), currency) for tally in tallies)))
    say(table(("", "recorded", "without", "with the policy"), rows, right=(1, 2, 3)))
    say(f"Saved: {money(total.saved, currency)}, moved to users: {money(total.moved, currency)}.")
    by_node = [
        (names[ordinal], of.proposed.blocked, of.proposed.redirected, of.proposed.throttled, money(of.saved))
        for ordinal, of in sorted(trial.by_node.items())
    ]
    if by_node:
        say(table(("node", "blocked", "redirected", "throttled", "saved"), by_node, right=(1, 2, 3, 4)))
