"""What commands that change something have in common: their options, and telling what it led to."""

from collections.abc import Callable
from typing import Any, TypeVar
from uuid import uuid4

import msgspec
import rich_click as click
from msgspec import Struct

from ...domain.tenant import Command, Tenant
from ...tenants.onboarding import TenantEntry, find_tenant
from ..asking import Answer
from ..engine import Engine
from ..running import Product, running
from ..stopping import complete
from .options import JSON, TENANT
from .output import say, settings_for_command, tell_json

ACTOR = "carrier:command-line"

_NOTE = click.option("--note", default="", help="For the history. No personal data: it cannot be erased.")
_KEY = click.option("--key", help="Carried out once under this key, however often it is sent.")
_DRY = click.option("--dry-run", "dry", is_flag=True, help="Only tell what it would lead to.")

F = TypeVar("F", bound=Callable[..., Any])


class Carried(Struct, frozen=True):
    """What a command has led to, or would, and the state in which it is told."""

    answer: Answer
    state: Tenant

    @property
    def sentences(self) -> list[str]:
        return _sentences(self.answer, self.state)


def changing(command: F) -> F:
    """The options of everything that changes something."""
    for option in (JSON, _DRY, _KEY, _NOTE, TENANT):
        command = option(command)
    return command


def carry_out(command: Command, slug: str, key: str | None, *, dry: bool, as_json: bool) -> None:
    with running(settings_for_command()) as product:
        carry_out_with(product, command, slug, key, dry=dry, as_json=as_json)


def carry_out_with(
    product: Product, command: Command, slug: str, key: str | None, *, dry: bool, as_json: bool
) -> None:
    """The same where the product was needed to make the command."""
    entry = find_tenant(product.isolation, slug)
    carried = carried_out(product, entry, command, key or str(uuid4()), dry=dry)
    _say_events(carried, dry=dry, as_json=as_json)


def carry_out_in_brief(slug: str, command: Command, key: str, as_json: bool) -> None:
    """Tells the topics only. Its keys are apart from those of commands that tell in sentences."""
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        key = f"command-line:{key or uuid4()}"
        answer = carried_out(product, entry, command, key).answer
    if as_json:
        tell_json({"tenant": entry.slug, "events": _told(answer)})
    else:
        say(f"Done: {', '.join(event.topic for event in answer.events)}.")


def carried_out(
    product: Product,
    entry: TenantEntry,
    command: Command,
    key: str,
    *,
    dry: bool = False,
    actor: str = ACTOR,
) -> Carried:
    """The one place where commands of the command line are carried out; each tells it in its own way."""

    async def submit() -> Carried:
        async with product.engine(following=not dry) as engine:
            return await carried_out_by(engine, entry, command, key, dry=dry, actor=actor)

    return complete(submit())


async def carried_out_by(
    engine: Engine, entry: TenantEntry, command: Command, key: str, *, dry: bool = False, actor: str = ACTOR
) -> Carried:
    """The same where the engine was needed to make the command."""
    answer = await engine.submit(entry.tenant_id, command, key, actor, dry=dry)
    return Carried(answer, await engine.state(entry.tenant_id))


def _say_events(carried: Carried, *, dry: bool, as_json: bool) -> None:
    """What a command has led to, or would."""
    answer = carried.answer
    if not as_json:
        for sentence in carried.sentences:
            say(f"{'Would be: ' if dry else ''}{sentence}")
        return
    seqs = [] if dry else [answer.first_seq, answer.last_seq]
    tell_json({"dry_run": dry, "repeated": answer.repeated, "seqs": seqs, "events": _told(answer)})


def _told(answer: Answer) -> list[dict[str, Any]]:
    return [{"topic": event.topic, **msgspec.structs.asdict(event)} for event in answer.events]


def _sentences(answer: Answer, state: Tenant) -> list[str]:
    # Here, not above: GraphQL takes longer to load than most commands to run.
    from ...graphql.asking import Reach  # noqa: PLC0415
    from ...graphql.telling import Teller  # noqa: PLC0415
    from ...tenants.identity import Principal  # noqa: PLC0415

    principal = Principal("command-line", "command-line", None, frozenset({"carrier"}), (), 2**40)
    teller = Teller(state, Reach(principal, state))
    return [teller.sentence(event) for event in answer.events]
