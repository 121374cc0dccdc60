"""Working: what one process of `allotment serve` does, alone or beside others, until it is told to stop.

SIGTERM hands its tenants to the other workers first, while it still answers; Ctrl-C stops all at once.
It is also told by SIGTERM when its parent is gone: then it answers nobody new, and has little time.
"""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog

from .app import create_app
from .believing import development_issuer, verifier_for
from .feeding import Feeds
from .letting_go import LettingGo
from .log import LogUnavailable
from .messaging import Messenger
from .notifying.notifying import notifying
from .orphans import HAND_OVER_SECONDS_MAX as ORPHANED_SECONDS_MAX
from .orphans import Parent
from .running import Product
from .serving import serve_until, serving, watch_database
from .sharing import Sharing
from .stopping import until_told

HAND_OVER_SECONDS_MAX = 15.0

log = structlog.get_logger()


async def work(
    product: Product,
    *,
    ready: Callable[[], None],
    parent: Parent | None = None,
    projected_elsewhere: bool = False,
) -> None:
    """Serve until told to stop, alone or as one of a crew whose parent owns the servers and the socket."""
    settings = product.settings
    issuer = development_issuer(settings)
    verifier = verifier_for(settings, issuer)
    async with AsyncExitStack() as stack:
        letting_go = stack.enter_context(LettingGo(product.isolation))
        engine = await stack.enter_async_context(
            product.engine(serves=True, projected_elsewhere=projected_elsewhere)
        )
        assert engine.sharing is not None
        engine.sharing.in_crew = parent is not None
        messenger = Messenger(engine, product.nats_url)
        engine.on_commit = messenger.committed
        feeds = Feeds(engine)
        feeds.hear = messenger.hear
        app = create_app(engine, verifier=verifier, issuer=issuer, settings=settings, feeds=feeds)
        await stack.enter_async_context(messenger)
        if not projected_elsewhere:
            await stack.enter_async_context(notifying(product, engine))
        listening = parent.listening if parent is not None else None
        web = await stack.enter_async_context(AsyncExitStack())
        server = await web.enter_async_context(serving(app, settings.host, settings.port, listening))
        ready()
        tasks = [server]
        if settings.database_url is None:
            tasks.append(asyncio.create_task(watch_database(product.database_url), name="PostgreSQL"))
            stack.callback(tasks[-1].cancel)
        try:
            told = await serve_until(until_told(), *tasks)
        finally:
            letting_go.begin(at_once=parent is not None and parent.is_gone and parent.has_servers)
        if parent is not None and parent.is_gone:
            parent.leave_address()
            await asyncio.gather(web.aclose(), _hand_over(engine.sharing, ORPHANED_SECONDS_MAX))
        elif told == signal.SIGTERM:
            await _hand_over(engine.sharing, HAND_OVER_SECONDS_MAX)


async def _hand_over(sharing: Sharing, seconds: float) -> None:
    """What is not handed over in time is let go of at the end, and found by whoever needs it."""
    try:
        async with asyncio.timeout(seconds):
            await sharing.placement.retire()
    except (TimeoutError, LogUnavailable) as error:
        log.warning("not every tenant was handed over", error=str(error) or "out of time")
