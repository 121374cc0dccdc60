"""A disk and a clock that go wrong when they are told to: `shim.c`, built when it is needed."""

import errno
import mmap
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("shim.c")
FIELDS = (
    *("sync_us_min", "sync_us_max", "wal_errno", "heap_errno", "sync_errno", "sync_errors"),
    *("clock_seconds", "hits"),
)
NO_SPACE, IO_ERROR = errno.ENOSPC, errno.EIO


class Shim:
    """The built shim, the environment that loads it into a program, and what is to go wrong there."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler (cc) here, which the faults of disk and clock are built with")
        library, control = folder / "shim.so", folder / "control"
        command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", library, SOURCE, "-ldl"]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            pytest.skip(f"the C compiler here cannot build the shim: {built.stderr[-500:]}")
        control.write_bytes(bytes(8 * len(FIELDS)))
        # The server runs as another account and counts in it what went wrong.
        for path, mode in ((folder, 0o755), (library, 0o644), (control, 0o666)):
            path.chmod(mode)
        self.environment = {"LD_PRELOAD": str(library), "FAULTS_CONTROL": str(control)}
        self._file = control.open("r+b")
        self._shared = mmap.mmap(self._file.fileno(), 8 * len(FIELDS))

    def set(self, **numbers: int) -> None:
        for name, number in numbers.items():
            struct.pack_into("=q", self._shared, 8 * FIELDS.index(name), number)

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        self.set(**dict.fromkeys(FIELDS, 0))

    @property
    def hits(self) -> int:
        """How often something has gone wrong since it was last healed."""
        return int(struct.unpack_from("=q", self._shared, 8 * FIELDS.index("hits"))[0])

    def close(self) -> None:
        self._shared.close()
        self._file.close()
