"""A watched folder: files that others put there, each taken up once, when it is whole.

A file is whole when it has not changed for a while, does not bear a name of those still being
written, and ends with its last line. What was read moves to `done/`, what cannot be read to `refused/`,
each with a report beside it; all of it by renaming, so that a file is in one place whenever anybody
looks, also after a crash. Which of its records were charged before, the records' own ids say.
"""

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, Literal

import msgspec
from msgspec import Struct

UNFINISHED = (".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".writing", ".swp", "~")
"""How transfers name what they have not finished; afterwards they give it its own name."""
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"PK\x03\x04")
TORN_WAITS = 10
"""Times as long, a file waits that does not end with a line break: somebody may still be writing."""
DONE, REFUSED, OURS = "done", "refused", ".allotment"
REPORT = ".report.json"


class FolderInUse(ValueError):
    """Somebody else watches this folder already."""


class Seen(Struct):
    """How a file looked when it was last seen to change."""

    size: int
    changed_ns: int
    since: float


class Folder:
    """The files of one folder. One process at a time, which `held` sees to."""

    def __init__(
        self, path: Path, *, settle_seconds: float, order: Literal["name", "time"], pattern: str, lines: bool
    ) -> None:
        self.path = path
        self._settle_seconds = settle_seconds
        self._order = order
        self._pattern = pattern
        self._lines = lines
        """Whether its files consist of lines, so that one without an end is torn."""
        self._seen: dict[str, Seen] = {}

    @contextmanager
    def held(self) -> Iterator[None]:
        """While the block lasts, nobody else takes files up. A killed process lets go as well."""
        for name in (DONE, REFUSED, OURS):
            (self.path / name).mkdir(exist_ok=True)
        with (self.path / OURS / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise FolderInUse(
                    f"{self.path}: another `usage watch` is at work here; stop it, or watch another folder"
                ) from error
            yield

    def waiting(self, now: float) -> tuple[list[Path], bool]:
        """The files that are whole, in order; and whether there are others that will be.

        `now` is a clock that only goes on.
        """
        found = {entry.name: stated for entry in os.scandir(self.path) if (stated := self._stated(entry))}
        whole = [name for name in found if self._is_whole(name, found[name], now)]
        self._seen = {name: self._seen[name] for name in found}
        key: Callable[[str], Any] = str
        if self._order == "time":
            key = lambda name: (found[name].st_mtime_ns, name)  # noqa: E731  (one of two)
        return [self.path / name for name in sorted(whole, key=key)], len(whole) < len(found)

    def begin(self, file: Path) -> bool:
        """Note that a file is being read; whether that was so before, and we were interrupted."""
        mark = self.path / OURS / f"{file.name}.begun"
        was_begun = mark.exists()
        _write(mark, b"")
        return was_begun

    def finish(self, file: Path, report: dict[str, Any], *, refused: bool) -> Path:
        """Put a file where it belongs, with its report; where it is now."""
        target = _free_name(self.path / (REFUSED if refused else DONE), file.name)
        _write(target.with_name(target.name + REPORT), msgspec.json.encode(report) + b"\n")
        file.rename(target)
        for folder in (target.parent, self.path):
            _sync(folder)
        with contextlib.suppress(FileNotFoundError):
            (self.path / OURS / f"{file.name}.begun").unlink()
        self._seen.pop(file.name, None)
        return target

    def _stated(self, entry: "os.DirEntry[str]") -> os.stat_result | None:
        name = entry.name
        if name.startswith(".") or name.lower().endswith(UNFINISHED) or not fnmatchcase(name, self._pattern):
            return None
        try:
            # Not through links: what they point to is not in this folder.
            stated = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        return stated if stat.S_ISREG(stated.st_mode) else None

    def _is_whole(self, name: str, stated: os.stat_result, now: float) -> bool:
        seen = self._seen.get(name)
        if seen is None or (seen.size, seen.changed_ns) != (stated.st_size, stated.st_mtime_ns):
            seen = self._seen[name] = Seen(stated.st_size, stated.st_mtime_ns, now)
        quiet = now - seen.since
        if quiet < self._settle_seconds:
            return False
        torn = self._lines and quiet < TORN_WAITS * self._settle_seconds and _is_torn(self.path / name)
        return not torn


def _is_torn(file: Path) -> bool:
    with file.open("rb") as stream:
        if stream.read(6).startswith(COMPRESSED):
            return False
        if not stream.seek(0, os.SEEK_END):
            return False
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) not in (b"\n", b"\r")


def _free_name(folder: Path, name: str) -> Path:
    """A file of that name may have come before."""
    for number in range(1, 1_000_000):
        target = folder / (name if number == 1 else f"{name}.{number}")
        if not target.exists():
            return target
    raise FileExistsError(f"{folder}: too many files named {name}")


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, also when the power fails."""
    draft = path.with_name(f".{path.name}.tmp")
    with draft.open("wb") as file:
        file.write(content)
        _flush(file)
    draft.replace(path)


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
