"""Whom the embedded servers run as, and what that account can reach.

PostgreSQL refuses to run as root, so as root they run as an account that may do nothing else. We
give it folders of its own below the data folder, and a copy of the programs where it cannot read
the installation. No folder that is not ours is ever opened to it.
"""

import contextlib
import os
import pwd
import secrets
import shutil
from pathlib import Path

from msgspec import Struct

from .settings import SettingsError

ACCOUNTS = ("nobody", "daemon")
"""Whom the servers run as when we are root: the first of these that exists."""


class Account(Struct, frozen=True):
    uid: int
    gid: int
    name: str


def account_of_servers() -> Account:
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


def make_home(home: Path, account: Account) -> None:
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


def give(path: Path, account: Account) -> None:
    try:
        os.chown(path, account.uid, account.gid)
    except OSError as error:  # a root without the powers of root, as in some containers
        raise SettingsError(
            f"The embedded servers would run as {account.name!r}, but {path} cannot be given to it:"
            f" {error.strerror}. Start as an ordinary user, or set DATABASE_URL and NATS_URL."
        ) from error


def own_folder(path: Path, account: Account) -> None:
    if not path.exists():
        path.mkdir(mode=0o700)
        give(path, account)
    if path.stat().st_uid != account.uid:
        raise SettingsError(
            f"ALLOTMENT_HOME: the server runs as {account.name!r}, but {path} belongs to another account."
            " Run as the account that made it, or choose another folder."
        )


def reachable(origin: Path, home: Path, parts: tuple[str, ...]) -> Path:
    """`origin`, or a copy of its `parts` where the account cannot read the original."""
    if os.geteuid() != 0 or all(_open_to_all((origin / part).resolve()) for part in parts):
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
