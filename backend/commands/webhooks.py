"""`allotment webhook ...`: letting programs be told, trying it out, and telling them again."""

import asyncio
import sys
import threading
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import msgspec
import rich_click as click
from standardwebhooks import Webhook as Signer

from ...domain.notice import USUAL, CreateWebhook, Filter, ReplayWebhook, Webhook, WebhookCreated
from ...graphql.context import BadAddress
from ...graphql.scalars import moment_text
from ...tenants.onboarding import TenantEntry, find_tenant
from ..engine import wall_clock
from ..notifying import matching
from ..notifying.guarding import Unreachable, target_of
from ..notifying.listening import receiving
from ..notifying.telling import TYPE_PREFIX
from ..notifying.webhooks import Tried, WebhookClient
from ..running import Product, running
from ..stopping import complete
from ..web.outlets import TenantOutlets
from .changing import Carried, carried_out_by, carry_out, changing
from .input import InputError
from .options import JSON, TENANT
from .output import note, say, settings_for_command, table, tell_json


@click.group(name="webhook")
def webhook() -> None:
    """Tell programs what happens: signed HTTP requests, as Standard Webhooks says."""


@webhook.command(name="list")
@TENANT
@JSON
def list_(slug: str, as_json: bool) -> None:
    """List a tenant's webhooks.

    \b
    allotment webhook list --tenant acme
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        held = _webhooks(product, entry)
    if as_json:
        tell_json([_told(one) for one in held.values()])
        return
    rows = [
        (one.id, one.created.host, one.created.node, ", ".join(one.wants.topics), one.disabled or "told")
        for one in held.values()
    ]
    say(table(("id", "where", "node", "kinds", "state"), rows))


@webhook.command()
@click.argument("url")
@click.option("--node", default="", help="Of this node and what is below it; else of the enterprise.")
@click.option("--kind", "kinds", multiple=True, help=f"A kind of event; repeatable. Else {USUAL[0]}.")
@click.option(
    "--percent-min", type=click.IntRange(0, 1000), default=0, help="Of thresholds: from this one on."
)
@changing
def create(
    url: str,
    slug: str,
    node: str,
    kinds: tuple[str, ...],
    percent_min: int,
    note: str,
    key: str | None,
    dry: bool,
    as_json: bool,
) -> None:
    """Let the program at URL be told, and print its secret: this once, and never again.

    The same command again creates nothing; another webhook at the same URL has another --key.

    \b
    allotment webhook create https://hooks.example.com/allotment --tenant acme
    allotment webhook create https://hooks.example.com/allotment --tenant acme --node emea --percent-min 80
    """
    with running(settings_for_command()) as product:
        entry = find_tenant(product.isolation, slug)
        wants = Filter(node or _enterprise(product, entry), kinds or USUAL, (), percent_min)
        key = key or f"{url} {wants}"
        made, secret = complete(_create(product, entry, url, wants, note, key, dry=dry))
    _tell_created(made, secret, as_json=as_json)


async def _create(
    product: Product, entry: TenantEntry, url: str, wants: Filter, note: str, key: str, *, dry: bool
) -> tuple[Carried, str | None]:
    """The id and the secret follow from the key. A secret that was told before is not told again."""
    async with product.engine(following=False) as engine:
        private = product.settings.private_webhooks
        outlets = TenantOutlets(engine, entry.tenant_id, engine.in_thread, private=private)
        try:
            origin = await outlets.checked(url)
        except BadAddress as error:
            raise InputError(f"url: {error}") from None
        ident = f"wh_{(await outlets.name(f'command-line {key}')).hex()}"
        secret = await outlets.name(f"secret of command-line {key}")
        command = CreateWebhook(ident, origin, await outlets.name(url), secret, wants, note)
        state = await engine.state(entry.tenant_id)
        if not dry and ident not in state.notices.webhooks:
            state.decide(command, engine.clock())
            await outlets.keep(url)
        made = await carried_out_by(engine, entry, command, f"cli:{ident}", dry=dry)
        told = not dry and not made.answer.repeated
        return made, await outlets.secret(secret) if told else None


def _tell_created(made: Carried, secret: str | None, *, as_json: bool) -> None:
    (event,) = made.answer.events
    assert isinstance(event, WebhookCreated)
    if as_json:
        about = {"dry_run": made.answer.dry, "repeated": made.answer.repeated}
        tell_json({"webhook": event.webhook, "secret": secret, **about})
    elif made.answer.dry:
        say(f"Would be: {made.sentences[0]}")
    elif made.answer.repeated:
        say(f"{event.webhook} had been created before; its secret is not shown again.")
    else:
        say(f"Created {event.webhook}.")
        say(f"Its secret, which is not shown again: {secret}")


@webhook.command()
@click.argument("ident", metavar="WEBHOOK")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Events after this seq; else all.")
@changing
def replay(ident: str, slug: str, after: int, note: str, key: str | None, dry: bool, as_json: bool) -> None:
    """Tell a webhook again what it wants to know, under the same ids.

    \b
    allotment webhook replay wh_0123 --tenant acme --after 1000
    """
    carry_out(ReplayWebhook(ident, after, note), slug, key, dry=dry, as_json=as_json)


@webhook.command()
@click.option("--url", required=True, help="Where to.")
@click.option("--secret", required=True, help="What it is signed with: whsec_...")
@click.option("--kind", default=USUAL[0], show_default=True, help="Which kind of event.")
@JSON
@click.pass_context
def trigger(ctx: click.Context, url: str, secret: str, kind: str, as_json: bool) -> None:
    """Send one signed sample event, to try a receiver. Exits with 1 if it is not taken.

    \b
    allotment webhook trigger --url http://127.0.0.1:9000/ --secret whsec_...
    """
    _check_secret(secret)
    try:
        target_of(url, private=True)
    except Unreachable as error:
        raise InputError(f"url: {error}") from None
    tried = asyncio.run(_trigger(url, secret, kind))
    if as_json:
        tell_json({"ok": tried.ok, "answer": tried.detail, "tookMs": tried.took_ms})
    else:
        say(f"{'Taken' if tried.ok else 'NOT taken'}: {tried.detail}, after {tried.took_ms} ms.")
    ctx.exit(0 if tried.ok else 1)


async def _trigger(url: str, secret: str, kind: str) -> Tried:
    ident = f"msg_test_{uuid4().hex}"
    sample = {
        "specversion": "1.0",
        "id": ident,
        "source": "urn:allotment:sample",
        "type": TYPE_PREFIX + kind,
        "time": moment_text(wall_clock()),
        "datacontenttype": "application/json",
        "data": {"sentence": "This is a sample, sent by `allotment webhook trigger`.", "event": {}},
    }
    # Whoever types the address may reach it anyway.
    async with WebhookClient(private=True) as client:
        return await client.post(url, [secret], ident, msgspec.json.encode(sample))


@webhook.command()
@click.option("--port", type=click.IntRange(0, 65_535), default=9000, show_default=True, help="0 takes any.")
@click.option("--secret", "secrets", multiple=True, required=True, help="whsec_...; repeatable.")
@click.option("--count", type=click.IntRange(min=0), default=0, help="End after so many; 0 goes on.")
def listen(port: int, secrets: tuple[str, ...], count: int) -> None:
    """Receive webhooks on this machine, check their signatures, and print each as one JSON line.

    The server that sends them must be allowed to reach this machine: ALLOTMENT_WEBHOOK_PRIVATE=allowed.

    \b
    allotment webhook listen --secret whsec_...
    """
    for secret in secrets:
        _check_secret(secret)
    verified = threading.Semaphore(0)

    def came(signed: bool, headers: Mapping[str, str], body: bytes) -> None:
        if not signed:
            note(f"NOT signed with a secret that was given: {headers.get('webhook-id', 'no id')}")
            return
        sys.stdout.write(body.decode() + "\n")
        sys.stdout.flush()
        verified.release()

    with receiving(secrets, came, port) as address:
        note(f"Listening on {address}")
        try:
            number = 0
            while not count or number < count:
                verified.acquire()
                number += 1
        except KeyboardInterrupt:
            note("Stopped.")


def _check_secret(secret: str) -> None:
    try:
        if not secret.startswith("whsec_"):
            raise ValueError(secret)
        Signer(secret)
    except Exception:  # noqa: BLE001  (whatever the library says of it)
        raise InputError("secret: give one such as whsec_..., as it was shown when it was made") from None


def _webhooks(product: Product, entry: TenantEntry) -> dict[str, Webhook]:
    return matching.state_now(product.isolation, entry.tenant_id).notices.webhooks


def _enterprise(product: Product, entry: TenantEntry) -> str:
    members = matching.state_now(product.isolation, entry.tenant_id).hierarchy.members
    if not members:
        raise InputError("the tenant has no nodes yet: add the enterprise first")
    return members[0].id


def _told(one: Webhook) -> dict[str, Any]:
    return {
        "webhook": one.id,
        "origin": one.created.host,
        "node": one.created.node,
        "kinds": list(one.wants.topics),
        "disabled": one.disabled or None,
    }
