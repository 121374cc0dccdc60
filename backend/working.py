"""Working: what one process of `allotment serve` does, alone or beside others, until it is told to stop.

SIGTERM hands its tenants to the other workers first, while it still answers; Ctrl-C stops all at once.
"""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog

from .app import create_app
from .believing import development_issuer, verifier_for
from .feeding import Feeds
from .log import LogUnavailable
from .messaging import Messenger
from .notifying.notifying import notifying
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
    listening: int | None = None,
    projected_elsewhere: bool = False,
) -> None:
    """Serve until told to stop. `listening` is a socket shared with others, whose parent owns the rest."""
    settings = product.settings
    issuer = development_issuer(settings)
    verifier = verifier_for(settings, issuer)
    async with product.engine(serves=True, projected_elsewhere=projected_elsewhere) as engine:
        assert engine.sharing is not None
        engine.sharing.in_crew = listening is not None
        messenger = Messenger(engine, product.nats_url)
        engine.on_commit = messenger.committed
        feeds = Feeds(engine)
        feeds.hear = messenger.hear
        app = create_app(engine, verifier=verifier, issuer=issuer, settings=settings, feeds=feeds)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(messenger)
            if not projected_elsewhere:
                await stack.enter_async_context(notifying(product, engine))
            server = await stack.enter_async_context(serving(app, settings.host, settings.port, listening))
            ready()
            tasks = [server]
            if settings.database_url is None:
                tasks.append(asyncio.create_task(watch_database(product.database_url), name="PostgreSQL"))
            told = await serve_until(until_told(), *tasks)
            if told == signal.SIGTERM:
                await _hand_over(engine.sharing)


async def _hand_over(sharing: Sharing) -> None:
    """What is not handed over in time is let go of at the end, and found by whoever needs it."""
    try:
        async with asyncio.timeout(HAND_OVER_SECONDS_MAX):
            await sharing.placement.retire()
    except (TimeoutError, LogUnavailable) as error:
        log.warning("not every tenant was handed over", error=str(error))
