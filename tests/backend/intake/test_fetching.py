"""Files of an SFTP server: a real one, in this process, whose key is known or is not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from fixtures_loop import in_a_loop
from patience import PATIENCE_SECONDS

from allotment.backend.intake import fetching
from allotment.backend.intake.fetching import Remote, TransferError, fetch, remote_of


class Place(asyncssh.SFTPServer):
    """A server that shows one folder, and nothing above it."""

    root = ""

    def __init__(self, channel: Any) -> None:
        super().__init__(channel, chroot=self.root.encode())


class Served:
    """Where the server is, what it shows, and where its files are brought."""

    def __init__(self, home: Path, port: int, remote: Remote) -> None:
        self.out, self.inbox = home / "out", home / "inbox"
        self.port, self.remote, self.told = port, remote, list[str]()

    def put(self, name: str, content: bytes = b"one\n") -> None:
        (self.out / name).write_bytes(content)

    async def fetch(self, afterwards: Any = "move", settle_seconds: float = 0.0) -> int:
        fetched = fetch(
            self.remote,
            self.inbox,
            settle_seconds=settle_seconds,
            afterwards=afterwards,
            told=self.told.append,
        )
        return await asyncio.wait_for(fetched, PATIENCE_SECONDS)

    @property
    def here(self) -> list[str]:
        return sorted(path.name for path in self.inbox.iterdir() if path.is_file())

    @property
    def there(self) -> list[str]:
        return sorted(str(path.relative_to(self.out)) for path in self.out.rglob("*") if path.is_file())


@asynccontextmanager
async def serving(home: Path, *, known: bool = True, welcome: bool = True) -> AsyncIterator[Served]:
    (home / "out").mkdir()
    (home / "inbox").mkdir()
    server_key, user_key, other = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(3))
    user_key.write_private_key(home / "key")
    allowed = user_key if welcome else other
    allowed.write_public_key(home / "allowed")
    shown = type("Shown", (Place,), {"root": str(home / "out")})
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[server_key], authorized_client_keys=str(home / "allowed"),
        sftp_factory=shown,
    )  # fmt: skip
    port = server.sockets[0].getsockname()[1]
    public = (server_key if known else other).export_public_key().decode()
    (home / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    remote = remote_of(
        f"sftp://cdr@127.0.0.1:{port}/", key_file=home / "key", known_hosts_file=home / "known_hosts"
    )
    try:
        yield Served(home, port, remote)
    finally:
        server.close()
        await server.wait_closed()


@in_a_loop
async def test_files_are_brought_whole_and_moved_away_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        served.put("b.csv", b"b" * 300_000)
        served.put("a.csv")
        served.put("c.csv.part")
        served.put(".hidden")
        assert await served.fetch() == 2
        assert served.told == ["a.csv", "b.csv"]
        assert served.here == ["a.csv", "b.csv"]
        assert (served.inbox / "b.csv").read_bytes() == b"b" * 300_000
        assert served.there == [".hidden", "c.csv.part", "done/a.csv", "done/b.csv"]
        assert await served.fetch() == 0


@pytest.mark.parametrize(
    ("afterwards", "there"), [("keep", ["a.csv"]), ("delete", []), ("move", ["done/a.csv"])]
)
def test_a_file_is_fetched_once_whatever_becomes_of_it(
    tmp_path: Path, afterwards: str, there: list[str]
) -> None:
    async def story() -> None:
        async with serving(tmp_path) as served:
            served.put("a.csv")
            assert [await served.fetch(afterwards) for _ in range(2)] == [1, 0]
            assert served.there == there
            served.put("a.csv", b"another\n")
            assert await served.fetch(afterwards) == 1
            assert served.here == ["a.2.csv", "a.csv"]

    asyncio.run(story())


@in_a_loop
async def test_a_file_that_is_still_being_written_is_left_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as served:
        served.put("a.csv", b"o")

        async def meanwhile(_: float) -> None:
            served.put("a.csv", b"one\n")

        monkeypatch.setattr(fetching.asyncio, "sleep", meanwhile)
        assert await served.fetch() == 0
        assert served.here == []
        monkeypatch.undo()
        assert await served.fetch() == 1


@in_a_loop
async def test_we_were_killed_between_fetching_and_moving(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        served.put("a.csv")
        await served.fetch("keep")
        assert await served.fetch("move") == 0
        assert (served.here, served.there) == (["a.csv"], ["done/a.csv"])


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ({"known": False}, "its key is not the one in .*known_hosts"),
        ({"welcome": False}, "does not know the key"),
    ],
)
def test_strangers_are_not_talked_to(tmp_path: Path, how: dict[str, bool], complaint: str) -> None:
    async def story() -> None:
        async with serving(tmp_path, **how) as served:
            served.put("a.csv")
            with pytest.raises(TransferError, match=complaint):
                await served.fetch()
            assert served.here == []

    asyncio.run(story())


@in_a_loop
async def test_a_server_that_is_away_is_named(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        pass
    with pytest.raises(TransferError, match=f"sftp://127.0.0.1:{served.port}: "):
        await served.fetch()


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("sftp://cdr:secret@host/out", "a password does not belong on a command line"),
        ("ftp://cdr@host/out", "write sftp://user@host/folder"),
        ("sftp://host/out", "write sftp://user@host/folder"),
        ("sftp://cdr@host/out", "key: is not a file"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_repeating_a_password(
    tmp_path: Path, address: str, complaint: str
) -> None:
    with pytest.raises(TransferError, match=complaint) as refused:
        remote_of(address, key_file=tmp_path / "key", known_hosts_file=tmp_path / "known_hosts")
    assert "secret" not in str(refused.value)
