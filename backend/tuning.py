"""How the interpreter is set while charging, and why: each line was measured (docs/performance.md)."""

import contextlib
import gc
import sys
from collections.abc import Iterator

SWITCH_INTERVAL_SECONDS = 0.0005
"""A committer thread that waits 5 ms for its turn, the default, makes every caller wait as long."""
COLLECT_AFTER = (50_000, 20, 100)
"""State lives for days: looking through all of it every few thousand events is most of a pause."""


@contextlib.contextmanager
def tuned() -> Iterator[None]:
    """For as long as the process charges."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    gc.set_threshold(*COLLECT_AFTER)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
