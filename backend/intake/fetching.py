"""Fetching: files of a remote SFTP server, brought into a folder of ours.

The server must be one whose key is known, and we identify ourselves by a key of our own. A file is
fetched when it has stopped changing, appears in our folder whole or not at all, and is then moved away
or deleted there, or left and remembered here. Fetched twice, after a crash at the worst moment, it is
read twice, and its records are charged once.
"""

import asyncio
import os
import posixpath
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import asyncssh
import msgspec
from msgspec import Struct

from .folder import OURS, UNFINISHED

CONNECT_SECONDS_MAX = 20
FILES_KEPT = 100_000
"""Names remembered of files that stay on the server."""
_MEMORY = "fetched.json"


class TransferError(ValueError):
    """The server cannot be used. Says which, and what to do."""


class Remote(Struct, frozen=True):
    """Where files are, and how to get there."""

    host: str
    path: str
    user: str
    key_file: Path
    known_hosts_file: Path
    port: int = 22
    passphrase: str | None = None
    """Of the key file."""


Afterwards = Literal["move", "delete", "keep"]
Look = tuple[int, int]
"""Size and time of change: when two looks are the same, nobody is writing."""


def remote_of(
    address: str, *, key_file: Path, known_hosts_file: Path, passphrase: str | None = None
) -> Remote:
    """A server by its address, "sftp://user@host:2222/folder"."""
    parts = urlsplit(address)
    if parts.scheme != "sftp" or not parts.hostname or not parts.username:
        raise TransferError(
            f"{_bare(address)}: write sftp://user@host/folder, or sftp://user@host:port/folder"
        )
    if parts.password is not None:
        raise TransferError("a password does not belong on a command line; give a key with --key")
    for file, what in ((key_file, "--key"), (known_hosts_file, "--known-hosts")):
        if not file.is_file():
            raise TransferError(f"{file}: is not a file; name it with {what}")
    return Remote(
        parts.hostname, unquote(parts.path) or ".", unquote(parts.username), key_file, known_hosts_file,
        parts.port or 22, passphrase,
    )  # fmt: skip


@asynccontextmanager
async def connected(remote: Remote) -> AsyncIterator[asyncssh.SFTPClient]:
    """A session with the server, which is the one we know."""
    where = f"sftp://{remote.host}:{remote.port}"
    try:
        async with (
            asyncssh.connect(
                remote.host,
                remote.port,
                username=remote.user,
                client_keys=[str(remote.key_file)],
                passphrase=remote.passphrase,
                known_hosts=str(remote.known_hosts_file),
                preferred_auth="publickey",
                agent_path=None,
                config=[],
                connect_timeout=CONNECT_SECONDS_MAX,
                login_timeout=CONNECT_SECONDS_MAX,
            ) as connection,
            connection.start_sftp_client() as sftp,
        ):
            yield sftp
    except asyncssh.HostKeyNotVerifiable as error:
        raise TransferError(
            f"{where}: its key is not the one in {remote.known_hosts_file};"
            " ask its operator before you trust it"
        ) from error
    except asyncssh.PermissionDenied as error:
        raise TransferError(f"{where}: does not know the key {remote.key_file} of {remote.user}") from error
    except asyncssh.KeyImportError as error:
        raise TransferError(f"{remote.key_file}: cannot be used as a key: {error}") from error
    except (OSError, asyncssh.Error) as error:
        if isinstance(error, OSError) and error.filename:
            raise  # ours, not theirs
        raise TransferError(f"{where}: {str(error) or type(error).__name__}") from error


async def fetch(
    remote: Remote,
    folder: Path,
    *,
    settle_seconds: float,
    afterwards: Afterwards,
    told: Callable[[str], None],
) -> int:
    """Fetch every file that has stopped changing; how many."""
    (folder / OURS).mkdir(exist_ok=True)
    memory = _Memory(folder / OURS / _MEMORY)
    async with connected(remote) as sftp:
        before = await _looks(sftp, remote.path)
        await asyncio.sleep(settle_seconds)
        now = await _looks(sftp, remote.path)
        fetched = 0
        for name in sorted(now):
            if before.get(name) != now[name]:
                continue
            if not memory.knows(name, now[name]):
                await _bring(sftp, posixpath.join(remote.path, name), folder, name, now[name])
                memory.remember(name, now[name])
                fetched += 1
                told(name)
            await _leave(sftp, remote.path, name, afterwards)
    return fetched


async def _looks(sftp: asyncssh.SFTPClient, path: str) -> dict[str, Look]:
    """The files that may be fetched, as they look now."""
    found = {}
    for entry in await sftp.readdir(path):
        name, about = str(entry.filename), entry.attrs
        # A name comes from outside: it must not lead out of our folder.
        if name.startswith(".") or "/" in name or "\\" in name or not name.isprintable():
            continue
        if name.lower().endswith(UNFINISHED) or not stat.S_ISREG(about.permissions or 0):
            continue
        found[name] = (about.size or 0, about.mtime or 0)
    return found


async def _bring(sftp: asyncssh.SFTPClient, source: str, folder: Path, name: str, look: Look) -> None:
    draft = folder / OURS / f"{name}.part"
    await sftp.get(source, str(draft))
    if draft.stat().st_size != look[0]:
        draft.unlink()
        raise TransferError(f"{name}: changed while it was fetched; it is fetched again later")
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(_free(folder, name))


def _free(folder: Path, name: str) -> Path:
    """A file of that name may still wait to be read: neither takes the place of the other."""
    number, target = 1, folder / name
    while target.exists():
        number += 1
        target = folder / f"{Path(name).stem}.{number}{Path(name).suffix}"
    return target


async def _leave(sftp: asyncssh.SFTPClient, path: str, name: str, afterwards: Afterwards) -> None:
    source = posixpath.join(path, name)
    if afterwards == "delete":
        await sftp.remove(source)
    elif afterwards == "move":
        done = posixpath.join(path, "done")
        if not await sftp.isdir(done):
            await sftp.mkdir(done)
        target = posixpath.join(done, name)
        if await sftp.exists(target):
            await sftp.remove(target)
        await sftp.rename(source, target)


class _Memory:
    """Which files were fetched, as they looked then: kept beside our folder, whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._known = msgspec.json.decode(path.read_bytes(), type=dict[str, tuple[int, int]])
        except (FileNotFoundError, msgspec.MsgspecError):
            # Without its memory it fetches again, and the records are known by their ids.
            self._known = {}

    def knows(self, name: str, look: Look) -> bool:
        return self._known.get(name) == look

    def remember(self, name: str, look: Look) -> None:
        self._known.pop(name, None)
        self._known[name] = look
        while len(self._known) > FILES_KEPT:
            del self._known[next(iter(self._known))]
        draft = self._path.with_name(self._path.name + ".tmp")
        draft.write_bytes(msgspec.json.encode(self._known))
        draft.replace(self._path)


def _bare(address: str) -> str:
    """An address without a password that somebody may have written into it."""
    scheme, found, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if found else address
