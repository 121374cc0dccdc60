"""What all tests share: real embedded servers, and folders that they can use."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from allotment.backend.embedded import Servers, embedded_servers

# Fixtures by subject stand beside this file: fixtures_*.py.
pytest_plugins = [path.stem for path in sorted(Path(__file__).parent.glob("fixtures_*.py"))]


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
    with embedded_servers(folder, postgres=True, nats=True) as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)
