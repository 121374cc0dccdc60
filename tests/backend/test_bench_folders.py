"""A benchmark that is stopped leaves nothing in the folder for temporary files, nor a server behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from allotment.backend.bench.folders import embedded_home, own_folder

BENCHMARK = """
import asyncio
from allotment.backend.bench.folders import embedded_home
from allotment.backend.embedded import embedded_servers
from allotment.backend.stopping import complete, restore_signals

async def measure(servers):
    run_folder = servers.database_url.partition("host=")[2].partition("&")[0]
    print(servers.postgres_pid, run_folder, flush=True)
    await asyncio.sleep(60)

restore_signals()
with embedded_home() as home, embedded_servers(home, postgres=True, nats=False) as servers:
    complete(measure(servers))
"""


def test_a_folder_is_gone_with_what_is_in_it():
    with own_folder() as folder:
        (folder / "part").write_text("a row")
    assert not folder.exists()


def test_others_may_pass_through_the_home_of_embedded_servers():
    with embedded_home() as home:
        assert home.parent.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_benchmark_told_again_and_again_to_stop_leaves_nothing(home, number):
    home.chmod(0o711)  # as root the server runs as another account
    with subprocess.Popen(
        [sys.executable, "-c", BENCHMARK],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(home)},
    ) as process:
        pid, run_folder = process.stdout.readline().split()
        assert [path.name[:16] for path in home.iterdir()] == ["allotment-bench-"]
        while process.poll() is None:
            process.send_signal(number)
            time.sleep(0.01)
    assert not list(home.iterdir())
    assert not Path(run_folder).exists()
    assert not Path(f"/proc/{pid}").exists()
