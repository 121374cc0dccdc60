"""Folders of a benchmark: each is gone when it ends, also by Ctrl-C or SIGTERM."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..stopping import undisturbed


@contextmanager
def own_folder() -> Iterator[Path]:
    """An empty one."""
    folder = Path(tempfile.mkdtemp(prefix="allotment-bench-"))
    try:
        yield folder
    finally:
        with undisturbed():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def embedded_home() -> Iterator[Path]:
    """For embedded servers, which may run as another account."""
    with own_folder() as folder:
        folder.chmod(0o755)
        yield folder / "home"
