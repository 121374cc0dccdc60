"""What all tests share: real embedded servers, and folders that they can use."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import structlog

from allotment.backend.embedded import POSTGRES_OPTIONS, Servers, embedded_servers

# Fixtures by subject stand beside this file: fixtures_*.py.
pytest_plugins = [path.stem for path in sorted(Path(__file__).parent.glob("fixtures_*.py"))]

LONG_FIRST = (
    *("test_demo", "test_crew", "test_cli", "test_faults", "test_faults_server", "test_embedded"),
    *("test_sharing", "test_projecting", "test_surviving", "test_faults_takeover", "test_messaging"),
)
"""Modules whose tests take seconds. Left to the end they would keep one worker busy and one waiting."""
FORGETFUL = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}
"""The servers that tests share need not survive the machine's loss, nor the night. Those that are killed
to see what is left are servers of their own, as the product starts them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONG_FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session", autouse=True)
def logs_go_where_the_program_sends_them() -> Iterator[None]:
    """To what is stderr just then: not to the stream of a command that ended in this process long ago."""
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(structlog, "configure", lambda **_: None)
        yield


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty data folder. As root the servers run as another account, which cannot enter `tmp_path`."""
    folder = Path(tempfile.mkdtemp(prefix="allotment-home-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """PostgreSQL and NATS for the whole session, one pair per worker."""
    folder = Path(tempfile.mkdtemp(prefix="allotment-home-", dir="/tmp"))
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patched:
            for name, value in FORGETFUL.items():
                patched.setitem(POSTGRES_OPTIONS, name, value)
            running = stack.enter_context(embedded_servers(folder, postgres=True, nats=True))
        yield running
    shutil.rmtree(folder, ignore_errors=True)
