"""What commands print: answers on stdout, everything about the way there on stderr.

With `--json` stdout holds exactly one JSON document. Colours and moving lines appear only where
somebody looks at a terminal.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import structlog

from ..money import money
from ..settings import Settings

PROGRESS_SECONDS = 0.5
_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


def settings_for_command(*, quiet: bool = True) -> Settings:
    """The settings, and logs on stderr. A command that answers once logs warnings and worse only."""
    settings = Settings.from_env(os.environ)
    level = _LEVELS[settings.log_level]
    if quiet and not os.environ.get("ALLOTMENT_LOG_LEVEL", "").strip():
        level = _LEVELS["WARNING"]
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.dev.set_exc_info,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            # Where it went wrong, and never with what: variables hold numbers of people, and tokens.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    return settings


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """About the way there: not part of the answer."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def tell_json(answer: Any) -> None:
    """One document, on one line."""
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    sys.stdout.flush()


def table(head: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[int] = ()) -> str:
    """Columns under each other; those in `right` are numbers."""
    cells = [list(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, cells)])


_BYTES = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def amount(quantity: int, usage_type: str, currency: str = "") -> str:
    """A quantity as people say it: "1.5 GB", "2:05 min", "3 messages"."""
    if usage_type == "money":
        return money(quantity, currency)
    if usage_type == "data":
        for size, unit in _BYTES:
            if abs(quantity) >= size:
                return f"{Decimal(quantity) / size:.2f} {unit}"
        return f"{quantity} bytes"
    if usage_type == "messaging":
        return f"{quantity:,} message{'' if quantity == 1 else 's'}"
    if usage_type not in ("voice", "video"):
        return f"{quantity:,}"
    minutes, seconds = divmod(quantity, 60)
    return f"{minutes:,}:{seconds:02d} min"


def progress(what: str) -> Callable[[Any], None]:
    """Tells now and then how far an intake has come."""
    started = last = time.monotonic()
    moving = sys.stderr.isatty()

    def tell(report: Any) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < (PROGRESS_SECONDS if moving else 10 * PROGRESS_SECONDS):
            return
        last = now
        rate = report.received / (now - started)
        line = f"{what}: {report.received:,} records, {rate:,.0f}/s"
        sys.stderr.write(f"\r\x1b[K{line}" if moving else line + "\n")
        sys.stderr.flush()

    return tell


def end_progress() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
