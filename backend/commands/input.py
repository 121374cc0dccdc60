"""What commands read: files, and stdin under the name "-"."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


class InputError(ValueError):
    """What was given cannot be used. Says what, and what to do."""


def check_readable(file: str) -> None:
    """Before any server is started, and before the first of several files is charged."""
    path = Path(file)
    # A pipe gives what it has only once.
    if file != "-" and (path.is_file() or path.is_dir() or not path.exists()):
        path.open("rb").close()


@contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    with Path(file).open("rb") as stream:
        yield stream
