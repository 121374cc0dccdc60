"""`allotment usage watch` and `usage fetch`: files that arrive by themselves."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal
from uuid import UUID

import rich_click as click
from click.exceptions import Exit

from ...tenants.onboarding import find_tenant
from ..engine import Engine
from ..intake.column_map import mapped
from ..intake.declaration import Format
from ..intake.door import IntakeReport
from ..intake.folder import Folder
from ..intake.formats import load_format
from ..intake.importing import import_stream, known
from ..intake.watching import Charge, watch
from ..running import running
from ..stopping import complete
from .input import InputError
from .options import TENANT
from .output import note, say, settings_for_command, tell_json

ACTOR = "mediation:folder"
Progress = Callable[[IntakeReport], None]


@click.command(name="watch")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@TENANT
@click.option(
    "--format", "-f", "format_name", default="allotment", show_default=True, help="See `usage formats`."
)
@click.option(
    "--map", "-m", "column_map", multiple=True, metavar="FIELD=COLUMN", help="As for `usage import`."
)
@click.option("--source", default="", help="Who wrote the records, where they do not say it themselves.")
@click.option("--time-zone", default="", help="Of times without a zone; else the tenant's.")
@click.option("--pattern", default="*", show_default=True, help="Names of the files, such as *.csv.")
@click.option(
    "--settle", type=click.FloatRange(0), default=5.0, show_default=True,
    help="Seconds in which a file must not change to count as whole.",
)  # fmt: skip
@click.option(
    "--order", type=click.Choice(["name", "time"]), default="name", show_default=True,
    help="By which files are read, where several wait.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Read what is there and end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document per file on stdout.")
def watch_folder(**given: Any) -> None:
    """Charge the files that appear in FOLDER, each when it is whole.

    What was read moves to FOLDER/done, what cannot be read to FOLDER/refused, with a report beside it.
    Files still being transferred are left alone: those that change, and names such as x.tmp or x.part.
    Let your SFTP server put its files here, or `usage fetch` bring them. It may be killed at any time.

    \b
    allotment usage watch /var/spool/cdr --tenant acme --format asterisk-csv
    allotment usage watch /var/spool/cdr --tenant acme --format cisco-cucm --pattern 'cdr_*' --once
    """
    refused = _watch(**given)
    if refused and given["once"]:
        raise Exit(1)


def _watch(
    *,
    folder: Path,
    slug: str,
    format_name: str,
    column_map: Sequence[str],
    source: str,
    time_zone: str,
    pattern: str,
    settle: float,
    order: Literal["name", "time"],
    once: bool,
    as_json: bool,
) -> int:
    settings = settings_for_command()
    format = mapped(load_format(format_name), column_map)
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; make it, and let files be put there")
    lines = format.kind in ("csv", "ndjson")
    watched = Folder(folder, settle_seconds=settle, order=order, pattern=pattern, lines=lines)

    def told(where: Path, report: dict[str, Any]) -> None:
        tell_json({"now_at": str(where), **report}) if as_json else _say(where, report)

    with running(settings) as product:
        entry = find_tenant(product.isolation, slug)
        about = {"tenant": entry.slug, "format": format.name}

        async def work() -> int:
            async with product.engine(following=True) as engine:
                zone = time_zone or entry.time_zone
                charge = _charger(engine, entry.tenant_id, format, source, zone)
                return await watch(watched, charge, told, about=about, once=once)

        note(f"watching {folder}; Ctrl-C ends it")
        return complete(work())


def _charger(engine: Engine, tenant: UUID, format: Format, source: str, time_zone: str) -> Charge:
    common: dict[str, Any] = {"time_zone": time_zone, "actor": ACTOR, "source": source}

    async def charge(stream: BinaryIO, name: str, progress: Progress) -> IntakeReport:
        about = await known(engine, tenant, stream.name)
        return await import_stream(
            engine, tenant, stream, format, about, name=name, progress=progress, **common
        )

    return charge


def _say(where: Path, report: dict[str, Any]) -> None:
    counts = ", ".join(
        f"{report[name]:,} {name}" for name in ("received", "charged", "duplicate", "suspended", "rejected")
    )
    say(f"{where}: {counts}")
    if problem := report.get("problem"):
        say(f"  refused: {problem}")


@click.command(name="fetch")
@click.argument("address", metavar="sftp://USER@HOST/FOLDER")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--key", "key_file", type=click.Path(path_type=Path), required=True, help="Private key file.")
@click.option(
    "--known-hosts", "known_hosts_file", type=click.Path(path_type=Path), required=True,
    help="File with the server's key, as ssh keeps it.",
)  # fmt: skip
@click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    help="File with the passphrase of the key, if it has one.",
)
@click.option(
    "--then", "afterwards", type=click.Choice(["move", "delete", "keep"]), default="move", show_default=True,
    help="What becomes of a file on the server: moved to its folder done/, deleted, or kept.",
)  # fmt: skip
@click.option(
    "--settle", type=click.FloatRange(0), default=5.0, show_default=True,
    help="Seconds in which a file must not change to count as whole.",
)  # fmt: skip
@click.option("--every", type=click.FloatRange(1), help="Look again after so many seconds; else once.")
def fetch_files(**given: Any) -> None:
    """Bring new files from an SFTP server into FOLDER, where `usage watch` reads them.

    The server's key must be known, and yours is a file: no password is asked for.

    \b
    allotment usage fetch sftp://cdr@switch.example.org/out /var/spool/cdr \\
        --key /etc/allotment/cdr_key --known-hosts /etc/allotment/known_hosts --every 60
    """
    _fetch(**given)


def _fetch(
    *,
    address: str,
    folder: Path,
    key_file: Path,
    known_hosts_file: Path,
    passphrase_file: Path | None,
    afterwards: Literal["move", "delete", "keep"],
    settle: float,
    every: float | None,
) -> None:
    # Here, not above: whoever reads files needs no SSH.
    from ..intake.fetching import TransferError, fetch, remote_of  # noqa: PLC0415

    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; make it")
    passphrase = passphrase_file.read_text().rstrip("\r\n") if passphrase_file else None
    remote = remote_of(address, key_file=key_file, known_hosts_file=known_hosts_file, passphrase=passphrase)

    def told(name: str) -> None:
        say(f"fetched {name}")

    async def work() -> None:
        while True:
            try:
                count = await fetch(remote, folder, settle_seconds=settle, afterwards=afterwards, told=told)
                note(f"{count} files fetched")
            except TransferError as error:
                if every is None:
                    raise
                note(f"{error}; looking again in {every:g} s")
            if every is None:
                return
            await asyncio.sleep(every)

    complete(work())
