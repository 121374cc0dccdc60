"""`allotment demo`: the whole product, with something happening in it."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from ..demo import stage, story
from ..intake.declaration import Format
from ..intake.formats import load_format
from ..running import Product, running, with_free_port
from ..settings import Settings, SettingsError
from ..stopping import complete
from .input import check_readable, opened
from .output import note, say, settings_for_command, tell_json


@click.command()
@click.option("--once", is_flag=True, help="Play the story to its end, and stop.")
@click.option("--keep", is_flag=True, help="Keep the data in ALLOTMENT_HOME; the next start goes on with it.")
@click.option(
    "--speed",
    type=click.FloatRange(0, 10_000),
    default=5.0,
    show_default=True,
    help="Live records per second.",
)
@click.option(
    "--usage", "usage_file", default="", help="With --once: charge this file instead of the sample."
)
@click.option("--format", "-f", "format_name", default="allotment", show_default=True, help="Of that file.")
@click.option("--json", "as_json", is_flag=True, help="With --once: one JSON document on stdout.")
@click.pass_context
def demo(
    ctx: click.Context,
    once: bool,
    keep: bool,
    speed: float,
    usage_file: str,
    format_name: str,
    as_json: bool,
) -> None:
    """Run everything: a carrier, two enterprises, three months of usage, and usage that flows live.

    Without DATABASE_URL and NATS_URL it brings its own servers and leaves nothing behind.
    Ctrl-C stops it all.

    \b
    allotment demo
    allotment demo --speed 50
    allotment demo --once --json
    allotment demo --once --usage calls.csv --format asterisk-csv
    """
    if not once and (usage_file or as_json):
        raise click.UsageError("--usage and --json go with --once.")
    format = load_format(format_name)
    if usage_file:
        check_readable(usage_file)
    started = time.monotonic()
    try:
        with _home(settings_for_command(), keep=keep) as settings:
            if once:
                told = _once(settings, usage_file, format, started, quiet=as_json)
            else:
                _live(settings, started, speed=speed, keep=keep)
    except KeyboardInterrupt:
        if once:
            raise
        note("Stopped; nothing is left running.")
        return
    if not once:
        note("Stopped; nothing is left running.")
        return
    if as_json:
        tell_json(told)
    ctx.exit(0 if told["verify"]["ok"] and all(one["ok"] for one in told["story"]) else 1)


@contextmanager
def _home(settings: Settings, *, keep: bool) -> Iterator[Settings]:
    """A folder that is gone afterwards, unless the data is to stay."""
    if settings.production:
        raise SettingsError("The demo makes tenants and hands out tokens: not with ALLOTMENT_ENV=production.")
    if keep or settings.database_url:
        # With a database of yours, its tenants outlive the demo, and so must their root key.
        yield settings
        return
    folder = Path(tempfile.mkdtemp(prefix="allotment-demo-"))
    try:
        yield msgspec.structs.replace(settings, home=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _once(
    settings: Settings, usage_file: str, format: Format, started: float, *, quiet: bool
) -> dict[str, Any]:
    tell = note if quiet else say
    with running(settings) as product:
        return complete(_story(product, usage_file, format, started, tell))


async def _story(
    product: Product, usage_file: str, format: Format, started: float, tell: stage.Tell
) -> dict[str, Any]:
    async with product.engine() as engine:
        cast, _ = await stage.onboard(product, engine, reuse=False, tell=tell)
        if usage_file:
            with opened(usage_file) as stream:
                await stage.play_file(engine, cast, stream, format, Path(usage_file).name, tell)
            await story.explain_one(engine, cast, product, tell)
        else:
            await stage.play_history(engine, cast, tell)
            await story.play(product, engine, cast, tell)
        reports = await stage.verified(product, engine, cast, tell)
        told = stage.summary(cast, reports, time.monotonic() - started)
        tell(f"{told['events']:,} events, {told['usage']['received']:,} usage records, {told['seconds']} s.")
        return told


def _live(settings: Settings, started: float, *, speed: float, keep: bool) -> None:
    from ..demo.live import present  # noqa: PLC0415  (the web takes longer to load than --once needs)

    note("Starting ...")
    settings = with_free_port(settings)
    with running(settings, nats=True) as product:
        complete(present(product, started, speed=speed, keep=keep))
