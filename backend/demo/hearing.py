"""The demonstration's listeners: a program and a person who are told of a crossing while it is charged.

The program listens on this machine, where no webhook of a customer may go: the exception is made for
this tenant's notices, in this process, and only while the listeners are there. What is told of it is
what has arrived, with its signature checked.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.message import EmailMessage
from typing import Any
from uuid import uuid4

import msgspec

from ...domain.limit import ThresholdCrossed
from ...domain.notice import CreateWebhook, DisableWebhook, Filter, RemoveRecipient, SetRecipient
from ...domain.tenant import Command
from ..engine import Engine
from ..notifying.listening import receiving
from ..notifying.notifying import Notifying
from ..running import Product
from ..web.outlets import TenantOutlets
from .enterprises import POOL
from .mailbox import mailbox
from .stage import Chapter, Stage

ACTOR = "telecoms_manager:demo"
PERCENT = 80
ARRIVES_SECONDS_MAX = 30.0
MANAGER_ADDRESS = "crew-1.manager@acme.example"


class Listeners:
    """What has arrived."""

    def __init__(self) -> None:
        self.requests: list[tuple[bool, Mapping[str, str], bytes]] = []
        self.letters: list[EmailMessage] = []
        self.webhook = ""

    async def crossing_told(self, product: Product, engine: Engine, stage: Stage) -> Chapter:
        """The crossing of the chapter before has reached the program, signed, and the person by e-mail."""
        request, letter = await self._arrived()
        verified, headers, body = request or (False, {}, b"{}")
        told = msgspec.json.decode(body)
        event = (told.get("data") or {}).get("event") or {}
        subject = str(letter["subject"]) if letter is not None else ""
        ok = verified and (event.get("node"), event.get("percent")) == (POOL, PERCENT) and letter is not None
        sentence = (
            f"A program is told by webhook, with a signature that {'is right' if verified else 'IS WRONG'}:"
            f" {(told.get('data') or {}).get('sentence', 'nothing')} A person gets it by e-mail:"
            f' "{subject}".'
        )
        facts: dict[str, Any] = {
            "webhook": self.webhook,
            "type": told.get("type"),
            "id": headers.get("webhook-id"),
            "node": event.get("node"),
            "percent": event.get("percent"),
            "signature": "verified" if verified else "not verified",
            "received": len(self.requests),
            "email": subject,
        }
        return Chapter("crossing_delivered", ok, sentence, facts)

    async def _arrived(
        self,
    ) -> tuple[tuple[bool, Mapping[str, str], bytes] | None, EmailMessage | None]:
        """Both, or what there is when it has taken too long."""
        waited = 0.0
        while waited < ARRIVES_SECONDS_MAX and not (self.requests and self.letters):
            await asyncio.sleep(0.05)
            waited += 0.05
        return (self.requests[0] if self.requests else None), (self.letters[0] if self.letters else None)


@asynccontextmanager
async def listening(product: Product, engine: Engine, stage: Stage) -> AsyncIterator[Listeners]:
    """Both are told of what crosses 80 % at the pool, until the block ends; then nobody is told any more."""
    heard, secrets = Listeners(), list[str]()
    tenant = stage.entries[0].tenant_id
    outlets = TenantOutlets(engine, tenant, engine.in_thread, private=True)

    def came(signed: bool, headers: Mapping[str, str], body: bytes) -> None:
        heard.requests.append((signed, headers, body))

    with receiving(secrets, came) as url:
        async with mailbox(heard.letters) as mail_server:
            heard.webhook = await _ask_to_be_told(engine, stage, outlets, url, secrets)
            settings = msgspec.structs.replace(product.settings, private_webhooks=True, smtp=mail_server)
            async with Notifying(
                *(product.isolation, product.root_key(), settings, _leave_alone),
                clock=engine.clock,
                look_seconds=0.1,
                only=tenant,
            ):
                yield heard
            await _ask_for_nothing_more(engine, stage, outlets, heard.webhook)


async def _ask_to_be_told(
    engine: Engine, stage: Stage, outlets: TenantOutlets, url: str, secrets: list[str]
) -> str:
    wants = Filter(POOL, (ThresholdCrossed.topic,), ("data",), PERCENT)
    ident, secret = f"wh_{uuid4().hex}", uuid4().bytes
    secrets.append(await outlets.secret(secret))
    for address in (url, MANAGER_ADDRESS):
        await outlets.keep(address)
    origin = await outlets.checked(url)
    await _do(engine, stage, CreateWebhook(ident, origin, await outlets.name(url), secret, wants))
    reference = await outlets.name(MANAGER_ADDRESS)
    await _do(engine, stage, SetRecipient("crew-1-manager", "cost centre manager", reference, wants))
    return ident


async def _ask_for_nothing_more(engine: Engine, stage: Stage, outlets: TenantOutlets, webhook: str) -> None:
    await _do(engine, stage, DisableWebhook(webhook, note="the program of the story has ended"))
    await _do(engine, stage, RemoveRecipient("crew-1-manager", note="the mailbox of the story is closed"))
    await outlets.forget(await outlets.name(MANAGER_ADDRESS))


async def _do(engine: Engine, stage: Stage, command: Command) -> None:
    await engine.submit(stage.entries[0].tenant_id, command, f"demo-{uuid4()}", ACTOR)


async def _leave_alone(*_: Any) -> None:
    """The story ends its webhook itself."""
