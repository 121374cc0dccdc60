"""Sending: works the queue off. One task for each place that has something waiting, a few at once for each.

A place that is slow, or that fails, is alone with that: it rests longer each time, and after the last time
a webhook is disabled, which is an event. What is claimed is tried once; what came of it is stored.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from email.message import EmailMessage
from functools import partial
from typing import TypeVar
from uuid import UUID

import psycopg
import structlog
from msgspec import Struct
from nats.aio.client import Client
from psycopg_pool import PoolTimeout

from ...domain.events import Recorded
from ...domain.notice import DisableWebhook
from ...tenants.address_book import AddressBook
from ...tenants.isolation import Connection, Isolation
from ..settings import MailServer, Settings
from . import mail, queue, stream
from .matching import Known, events_at
from .queue import Channel, Delivery, Place, notice_id
from .telling import cloud_event, letter, teller_for
from .webhooks import Tried, WebhookClient

AT_ONCE = 4
"""Deliveries to one place at the same time."""
CLAIMED_MAX: dict[Channel, int] = {"webhook": AT_ONCE, "email": 200, "nats": 50}
PLACES_MAX = 200
NATS_REST_SECONDS = 5
SECOND = 1_000_000

log = structlog.get_logger()
R = TypeVar("R")
Disable = Callable[[UUID, DisableWebhook, str], Awaitable[None]]
"""Has the command carried out, once for its key."""


class Tenants:
    """What is known of tenants that are told something, each used by one thread at a time."""

    def __init__(
        self, isolation: Isolation, executor: Executor, open_book: Callable[[UUID], AddressBook]
    ) -> None:
        self.isolation = isolation
        self.executor = executor
        self._open_book = open_book
        self._known: dict[UUID, tuple[Known, asyncio.Lock]] = {}
        self._books: dict[UUID, AddressBook] = {}

    async def use(self, tenant: UUID, work: Callable[[Known], R]) -> R:
        held = self._known.pop(tenant) if tenant in self._known else None
        known, turn = held or (Known(self.isolation, tenant, self.executor), asyncio.Lock())
        self._known[tenant] = known, turn
        if len(self._known) > TENANTS_MAX:
            # The one used longest ago; who still works with it has it in hand.
            del self._known[next(iter(self._known))]
        async with turn:
            try:
                return await self.in_thread(lambda: work(known))
            except BaseException:
                # It may be half way: read again what there is.
                self._known.pop(tenant, None)
                raise

    def book(self, tenant: UUID) -> AddressBook:
        """Blocks, the first time."""
        book = self._books.get(tenant)
        if book is None:
            book = self._books[tenant] = self._open_book(tenant)
        return book

    async def in_thread(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self.executor, work)


TENANTS_MAX = 200
"""Remembered, each with its hierarchy; it is read again from the snapshot."""


class Errand(Struct):
    """Deliveries of one place, with all that it takes to try them."""

    place: Place
    failures: int
    """In a row, before this."""
    events: list[tuple[Delivery, Recorded]]
    bodies: list[bytes] = []
    url: str = ""
    secrets: list[str] = []
    letters: list[tuple[list[Delivery], EmailMessage]] = []
    hopeless: str = ""
    """Why it is of no use to try."""


class Sender:
    """Use it from one event loop; `close` ends what is under way, which is then tried again later."""

    def __init__(
        self,
        tenants: Tenants,
        settings: Settings,
        disable: Disable,
        clock: Callable[[], int],
        client: Client | None,
        *,
        claim_seconds: float | None = None,
    ) -> None:
        self._tenants = tenants
        self._mail_server: MailServer | None = settings.smtp
        self._backoff = settings.backoff_seconds
        self._disable = disable
        self._clock = clock
        self._claim_seconds = claim_seconds
        self._webhooks = WebhookClient(private=settings.private_webhooks)
        self._at_work: dict[Place, tuple[asyncio.Event, asyncio.Task[None]]] = {}
        self.nats = client

    @property
    def channels(self) -> list[Channel]:
        """Those by which something can go out."""
        here: list[Channel] = ["webhook"]
        if self._mail_server is not None:
            here.append("email")
        if self.nats is not None and self.nats.is_connected:
            here.append("nats")
        return here

    async def close(self) -> None:
        tasks = [task for _, task in self._at_work.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._webhooks.__aexit__()

    def begin(self, place: Place) -> None:
        """Something may be due there."""
        if place.channel not in self.channels:
            return
        at_work = self._at_work.get(place)
        if at_work is not None:
            at_work[0].set()
        elif len(self._at_work) < PLACES_MAX:
            wake = asyncio.Event()
            wake.set()
            task = asyncio.create_task(self._work(place, wake), name=f"notices-{place.channel}")
            self._at_work[place] = wake, task

    async def look(self, only: UUID | None = None) -> None:
        """Begin wherever something is due, of one tenant if only that is asked for."""
        work = partial(queue.places_due, self._tenants.isolation, self._clock(), self.channels)
        for place in await self._tenants.in_thread(work):
            if only in (None, place.tenant):
                self.begin(place)

    async def _work(self, place: Place, wake: asyncio.Event) -> None:
        try:
            while wake.is_set():
                wake.clear()
                while await self._some(place):
                    pass
        except (psycopg.Error, PoolTimeout, OSError) as error:
            log.warning("notices are not sent, trying again", channel=place.channel, error=str(error))
        except Exception:
            # One place's trouble is not another's; its claim ends by itself.
            log.exception("notices were not sent", channel=place.channel, tenant=str(place.tenant))
        finally:
            del self._at_work[place]

    async def _some(self, place: Place) -> bool:
        """Claim and try; whether there may be more to do at once."""
        errand = await self._tenants.use(place.tenant, partial(self._claimed, place))
        if not errand.events:
            return False
        if errand.hopeless:
            await self._settled(
                partial(queue.given_up, place=place, seqs=_seqs(errand), detail=errand.hopeless), place, 0
            )
            return True
        match place.channel:
            case "webhook":
                return await self._post(errand)
            case "email":
                return await self._mail(errand)
            case "nats":
                return await self._publish(errand)

    # --- claiming -----------------------------------------------------------------------------

    def _claimed(self, place: Place, known: Known) -> Errand:
        """In a thread. What is told is put together here, under the claim."""
        known.begin()
        self._tenants.book(place.tenant)
        with self._tenants.isolation.transaction(place.tenant) as db:
            db.execute("SET LOCAL synchronous_commit = off")
            failures, mine = queue.claim(
                db, place, self._clock(), limit=CLAIMED_MAX[place.channel], seconds=self._claim_seconds
            )
            errand = Errand(place, failures, [])
            if mine:
                known.advance(db, max(one.seq for one in mine))
                told = events_at(db, [one.seq for one in mine])
                errand.events = [(one, told[one.seq]) for one in mine]
                self._prepare(db, known, errand)
        return errand

    def _prepare(self, db: Connection, known: Known, errand: Errand) -> None:
        match errand.place.channel:
            case "webhook":
                self._prepare_webhook(db, known, errand)
            case "email":
                self._prepare_letters(db, known, errand)
            case "nats":
                root = known.state.hierarchy.members[0].id if known.state.hierarchy.members else ""
                self._put_together(known, errand, root)

    def _prepare_webhook(self, db: Connection, known: Known, errand: Errand) -> None:
        webhook = known.state.notices.webhooks.get(errand.place.endpoint)
        if webhook is None or webhook.disabled:
            errand.hopeless = "the webhook is disabled"
            return
        book = self._tenants.book(errand.place.tenant)
        url = book.find(db, webhook.created.address)
        if url is None:
            errand.hopeless = "its address was erased"
            return
        errand.url = url
        errand.secrets = [book.secret(name) for name in webhook.secrets_at(self._clock())]
        self._put_together(known, errand, webhook.created.node)

    def _put_together(self, known: Known, errand: Errand, node: str) -> None:
        teller = teller_for(known.state, errand.place.tenant, node)
        errand.bodies = [cloud_event(told, errand.place.tenant, teller) for _, told in errand.events]

    def _prepare_letters(self, db: Connection, known: Known, errand: Errand) -> None:
        tenant, server = errand.place.tenant, self._mail_server
        recipient = known.state.notices.recipients.get(errand.place.endpoint)
        if recipient is None or server is None:
            errand.hopeless = "the recipient was removed"
            return
        to = self._tenants.book(tenant).find(db, recipient.address)
        if to is None:
            errand.hopeless = "its address was erased"
            return
        teller = teller_for(known.state, tenant, recipient.node)
        name = known.state.opened.name if known.state.opened else "Allotment"
        for together in _by_slot(errand.events):
            events = [told for _, told in together]
            message = letter(events, tenant, name, recipient.role, teller, server.sender, to)
            errand.letters.append(([one for one, _ in together], message))

    # --- trying -------------------------------------------------------------------------------

    async def _post(self, errand: Errand) -> bool:
        pairs = zip(errand.events, errand.bodies, strict=True)
        tried = await asyncio.gather(*(self._post_one(errand, one, body) for (one, _), body in pairs))
        return all(tried)

    async def _post_one(self, errand: Errand, one: Delivery, body: bytes) -> bool:
        ident = notice_id(errand.place.tenant, one.seq)
        tried = await self._webhooks.post(errand.url, errand.secrets, ident, body)
        if tried.ok:
            settle = partial(queue.delivered, place=errand.place, seqs=[one.seq], detail=tried.detail)
            await self._settled(settle, errand.place, tried.took_ms)
            return True
        await self._failed(errand, [one], tried)
        return False

    async def _mail(self, errand: Errand) -> bool:
        assert self._mail_server is not None
        for together, message in errand.letters:
            began = time.monotonic()
            posted = await mail.post(self._mail_server, message)
            took = int((time.monotonic() - began) * 1_000)
            seqs = [one.seq for one in together]
            if posted.ok:
                settle = partial(queue.delivered, place=errand.place, seqs=seqs, detail=posted.detail)
                await self._settled(settle, errand.place, took)
            elif posted.hopeless:
                given_up = partial(queue.given_up, place=errand.place, seqs=seqs, detail=posted.detail)
                await self._settled(given_up, errand.place, took)
            else:
                await self._failed(errand, together, Tried(False, posted.detail, took))
                return False
        return True

    async def _publish(self, errand: Errand) -> bool:
        assert self.nats is not None
        for (one, told), body in zip(errand.events, errand.bodies, strict=True):
            began = time.monotonic()
            ident = notice_id(errand.place.tenant, one.seq)
            try:
                await stream.publish(self.nats, errand.place.tenant, told.topic, ident, body)
            except Exception as error:  # noqa: BLE001  (whatever it was, it is tried again)
                await self._failed(errand, [one], Tried(False, type(error).__name__, 0))
                return False
            took = int((time.monotonic() - began) * 1_000)
            settle = partial(queue.delivered, place=errand.place, seqs=[one.seq], detail="stored")
            await self._settled(settle, errand.place, took)
        return True

    async def _failed(self, errand: Errand, tried: Sequence[Delivery], told: Tried) -> None:
        place, seqs = errand.place, [one.seq for one in tried]
        # One that others overtake again and again is not tried for ever.
        last = place.channel != "nats" and max(one.attempts for one in tried) >= len(self._backoff)
        until = self._clock() + max(self._rest_seconds(errand), told.wait_seconds) * SECOND
        put_off = partial(queue.put_off, place=place, seqs=seqs, detail=told.detail, until=until, last=last)
        failures = await self._settled(put_off, place, told.took_ms)
        if place.channel == "webhook" and (told.gone or failures > len(self._backoff)):
            reason = "gone" if told.gone else "failing"
            command = DisableWebhook(place.endpoint, reason, f"the last answer: {told.detail}"[:200])
            key = f"notices:disable:{place.endpoint}:{seqs[0]}:{errand.failures}"
            await self._disable(place.tenant, command, key)

    def _rest_seconds(self, errand: Errand) -> int:
        if errand.place.channel == "nats":
            return NATS_REST_SECONDS
        return self._backoff[min(errand.failures, len(self._backoff) - 1)]

    async def _settled(self, settle: Callable[..., R], place: Place, took_ms: int) -> R:
        def store() -> R:
            with self._tenants.isolation.transaction(place.tenant) as db:
                db.execute("SET LOCAL synchronous_commit = off")
                return settle(db, now=self._clock(), took_ms=took_ms)

        return await self._tenants.in_thread(store)


def _seqs(errand: Errand) -> list[int]:
    return [one.seq for one, _ in errand.events]


def _by_slot(events: Sequence[tuple[Delivery, Recorded]]) -> list[list[tuple[Delivery, Recorded]]]:
    """What goes out together: what was held until the same moment, and everything else alone."""
    together: dict[tuple[int, int], list[tuple[Delivery, Recorded]]] = {}
    for one, told in events:
        together.setdefault((one.slot, 0 if one.slot else one.seq), []).append((one, told))
    return list(together.values())
