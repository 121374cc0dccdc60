"""`allotment project`: keep the views of all tenants up and send notices, in a process of its own."""

import asyncio
import os
import sys

import rich_click as click

from ..letting_go import LettingGo
from ..notifying.notifying import notifying
from ..projecting import projecting
from ..running import Product, running
from ..stopping import complete, until_told
from ..tuning import tuned
from .output import note, settings_for_command

NICENESS = 5
"""Of a child of `serve`: where cores are fewer than work, charging goes first and the views catch up."""


@click.command()
@click.option("--child", is_flag=True, hidden=True, help="End with standard input, so with who started it.")
def project(child: bool) -> None:
    """Carry all tenants' logs into their views, and send notices; until Ctrl-C or SIGTERM.

    `allotment serve` runs one by itself. Run more, here or on other machines, to share the tenants among
    them, or beside `allotment serve --views elsewhere`.
    """
    settings = settings_for_command(quiet=False)
    if child:
        os.nice(NICENESS)
    try:
        with running(settings, nats=True) as product, tuned():
            complete(_project(product, child))
    except KeyboardInterrupt:
        pass
    if not child:
        note("Stopped.")


async def _project(product: Product, child: bool) -> None:
    with LettingGo(product.isolation) as letting_go:
        async with projecting(product.isolation, product.nats_url), notifying(product):
            if not child:
                note("Projecting.")
            await (_until_left_alone() if child else until_told())
            letting_go.begin()


async def _until_left_alone() -> None:
    """Wait until standard input ends, or somebody says stop."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    told, ended = asyncio.ensure_future(until_told()), asyncio.ensure_future(reader.read())
    await asyncio.wait([told, ended], return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    ended.cancel()
