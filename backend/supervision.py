"""Supervision of an embedded server: start it or attach to it, and stop it with us.

A server lives exactly as long as the process that started it: that stops it when it ends, and the
kernel does when it is killed. Whoever comes second with the same home attaches to what is running
and leaves it running. At no moment do two servers share one data folder.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from .server_account import Account, account_of_servers, give, make_home
from .stopping import undisturbed

START_SECONDS_MAX = 120
"""Replaying 4 GB of write-ahead log after a crash takes a while on a small machine."""
STOP_SECONDS_MAX = 30
LOG_BYTES_MAX = 16 * 1024 * 1024
LOG_LINES_SHOWN = 15
POLL_SECONDS = 0.02
RUN_FOLDERS = Path("/tmp")  # noqa: S108 - $TMPDIR may be too long for the path of a socket

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


class DidNotStart(Exception):
    """An embedded server would not start. The message ends with what it said itself."""


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
def supervised(home: Path, kind: Kind) -> Iterator[Running]:
    home = home.resolve()
    account = account_of_servers()
    make_home(home, account)
    with _one_at_a_time(home, kind):
        running = _found(home, kind)
        child = None
        if running is None:
            running, child = _started(home, kind, account)
    try:
        yield running
    finally:
        if child is not None:
            with undisturbed(), _one_at_a_time(home, kind):
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
    run_folder, child = None, None
    try:
        with _claim(home, kind) as claim:
            run_folder = _new_run_folder(home, kind)
            give(run_folder, account)
            kind.prepare(home, account)
            command = kind.command(home, run_folder, account)
            child = spawn(command, account, home / f"{kind.name}.log", kind.stop_signals[0], claim)
        url = _first_answer(child, kind, run_folder)
        if url is None:
            raise DidNotStart(f"Embedded {kind.name} did not start. It said:\n{last_words(home, kind)}")
        running = Running(_process(os.getpid()), _process(child.pid), url, str(run_folder))
        _remember(home, kind, running)
    except BaseException:  # also Ctrl-C: nothing may be left behind
        with undisturbed():
            if child is not None:
                _stop(child, kind)
            if run_folder is not None:
                shutil.rmtree(run_folder, ignore_errors=True)
        raise
    return running, child


def _new_run_folder(home: Path, kind: Kind) -> Path:
    """A folder with a short name, noted beforehand: if we are killed, the next start removes it."""
    note = home / f"{kind.name}.run"
    with contextlib.suppress(FileNotFoundError):
        left = note.read_text(encoding="utf-8")
        if re.fullmatch("allotment-[0-9a-f]{12}", left):
            shutil.rmtree(RUN_FOLDERS / left, ignore_errors=True)
    folder = RUN_FOLDERS / f"allotment-{secrets.token_hex(6)}"
    note.write_text(folder.name, encoding="utf-8")
    folder.mkdir(mode=0o700)
    return folder


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


def spawn(
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


def _opened_log(path: Path) -> BinaryIO:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
    # A server's log may quote what it was asked: it is for us alone.
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))


def last_words(home: Path, kind: Kind) -> str:
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
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # After the name, which may itself hold blanks and parentheses: the state is the first field,
    # the start the twentieth. The dead whom nobody has buried yet (Z, X) are dead.
    state, *fields = line.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]
