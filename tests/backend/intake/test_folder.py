"""A watched folder: what is taken up, when, in which order, and where it goes."""

import asyncio
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from fixtures_loop import in_a_loop
from patience import PATIENCE_SECONDS

from allotment.backend.intake.door import IntakeReport
from allotment.backend.intake.folder import Folder, FolderInUse
from allotment.backend.intake.unpacking import UnreadableFile
from allotment.backend.intake.watching import watch


def folder(path: Path, **changes: Any) -> Folder:
    options = {"settle_seconds": 5.0, "order": "name", "pattern": "*", "lines": True} | changes
    return Folder(path, **options)


def names(found: tuple[list[Path], bool]) -> list[str]:
    return [path.name for path in found[0]]


def put(path: Path, name: str, content: bytes = b"a\n") -> Path:
    (path / name).write_bytes(content)
    return path / name


def test_a_file_is_whole_when_it_has_not_changed_for_a_while(tmp_path: Path) -> None:
    watched = folder(tmp_path)
    put(tmp_path, "a.csv")
    assert watched.waiting(100.0) == ([], True)
    assert names(watched.waiting(104.9)) == []
    put(tmp_path, "a.csv", b"a\nb\n")
    assert names(watched.waiting(105.0)) == []
    assert names(watched.waiting(109.9)) == []
    assert watched.waiting(110.0) == ([tmp_path / "a.csv"], False)


@pytest.mark.parametrize("name", [".hidden", "a.csv.tmp", "a.PART", "a.filepart", "a.csv~", "a.txt"])
def test_what_is_not_meant_for_us_is_left_alone(tmp_path: Path, name: str) -> None:
    watched = folder(tmp_path, settle_seconds=0.0, pattern="*.csv")
    put(tmp_path, name)
    assert watched.waiting(100.0) == ([], False)


def test_folders_and_links_are_left_alone(tmp_path: Path) -> None:
    outside = put(tmp_path, "secret")
    inbox = tmp_path / "inbox"
    (inbox / "sub").mkdir(parents=True)
    (inbox / "link").symlink_to(outside)
    assert folder(inbox, settle_seconds=0.0).waiting(1.0) == ([], False)


@pytest.mark.parametrize(
    ("content", "lines", "waits"),
    [
        (b"a\nb", True, True),
        (b"a\r", True, False),
        (b"", True, False),
        (b"[1]", False, False),
        (gzip.compress(b"a", mtime=0), True, False),
    ],
)
def test_a_torn_last_line_waits_longer_but_not_for_ever(
    tmp_path: Path, content: bytes, lines: bool, waits: bool
) -> None:
    watched = folder(tmp_path, lines=lines)
    put(tmp_path, "a", content)
    watched.waiting(100.0)
    assert names(watched.waiting(105.0)) == ([] if waits else ["a"])
    assert names(watched.waiting(150.0)) == ["a"]


@pytest.mark.parametrize(("order", "expected"), [("name", ["a", "b", "c"]), ("time", ["c", "a", "b"])])
def test_files_are_taken_up_by_name_or_by_time(tmp_path: Path, order: str, expected: list[str]) -> None:
    watched = folder(tmp_path, settle_seconds=0.0, order=order)
    for name, moment in (("b", 3), ("a", 2), ("c", 1)):
        os.utime(put(tmp_path, name), (moment, moment))
    assert names(watched.waiting(1.0)) == expected


def test_two_watchers_of_one_folder_are_one_too_many(tmp_path: Path) -> None:
    with (
        folder(tmp_path).held(),
        pytest.raises(FolderInUse, match="another `usage watch` is at work here"),
        folder(tmp_path).held(),
    ):
        pass
    with folder(tmp_path).held():
        pass


class Charged:
    """What was charged, and what stood in the way."""

    def __init__(self, *obstacles: Exception) -> None:
        self.names: list[str] = []
        self.obstacles = list(obstacles)

    async def __call__(self, stream: Any, name: str, progress: Any) -> IntakeReport:
        if self.obstacles:
            raise self.obstacles.pop(0)
        if stream.read() == b"bad\n":
            raise UnreadableFile(f"{name}: is not what it should be")
        self.names.append(name)
        return IntakeReport(received=1, charged=1)


async def watched_once(path: Path, charge: Any) -> int:
    watching = watch(
        folder(path, settle_seconds=0.0), charge, lambda *_: None, about={"tenant": "acme"}, once=True
    )
    return await asyncio.wait_for(watching, PATIENCE_SECONDS)


def report(path: Path) -> Any:
    return json.loads(path.with_name(path.name + ".report.json").read_bytes())


@in_a_loop
async def test_each_file_goes_where_it_belongs_with_its_report(tmp_path: Path) -> None:
    for name, content in (("b", b"b\n"), ("a", b"a\n"), ("x", b"bad\n"), ("c.part", b"c")):
        put(tmp_path, name, content)
    charge = Charged()
    assert await watched_once(tmp_path, charge) == 1
    assert charge.names == ["a", "b"]
    assert (tmp_path / "done" / "a").read_bytes() == b"a\n"
    assert (tmp_path / "refused" / "x").read_bytes() == b"bad\n"
    assert (tmp_path / "c.part").exists()
    good, bad = report(tmp_path / "done" / "a"), report(tmp_path / "refused" / "x")
    assert (good["file"], good["tenant"], good["bytes"], good["charged"]) == ("a", "acme", 2, 1)
    assert (good["interrupted_before"], "problem" in good) == (False, False)
    assert bad["problem"] == "x: is not what it should be"


@in_a_loop
async def test_a_file_that_was_being_read_when_we_were_killed_is_read_again_and_says_so(
    tmp_path: Path,
) -> None:
    watched = folder(tmp_path)
    put(tmp_path, "a")
    with watched.held():
        assert watched.begin(tmp_path / "a") is False
    await watched_once(tmp_path, Charged())
    assert report(tmp_path / "done" / "a")["interrupted_before"] is True
    put(tmp_path, "a")
    await watched_once(tmp_path, Charged())
    assert report(tmp_path / "done" / "a.2")["interrupted_before"] is False
    assert (tmp_path / "done" / "a").exists()


@in_a_loop
async def test_what_cannot_be_reached_is_tried_again_and_keeps_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allotment.backend.intake.watching.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("allotment.backend.intake.watching.POLL_SECONDS", 0.01)
    put(tmp_path, "a")
    put(tmp_path, "b")
    charge = Charged(ConnectionError("away"), RuntimeError("still away"))
    done = asyncio.Event()

    def told(where: Path, _: Any) -> None:
        if where.name == "b":
            done.set()

    watching = asyncio.create_task(
        watch(folder(tmp_path, settle_seconds=0.0), charge, told, about={}, once=False)
    )
    await asyncio.wait_for(done.wait(), PATIENCE_SECONDS)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert charge.names == ["a", "b"]


@in_a_loop
async def test_once_ends_with_what_went_wrong_and_leaves_the_file(tmp_path: Path) -> None:
    put(tmp_path, "a")
    with pytest.raises(ConnectionError):
        await watched_once(tmp_path, Charged(ConnectionError("away")))
    assert (tmp_path / "a").exists()
    assert io.BytesIO((tmp_path / "a").read_bytes()).read() == b"a\n"
