"""The command line: `allotment ...`, for operators, carriers and auditors.

Answers go to stdout, the way there to stderr. Exit codes: 0 it worked, 1 it was refused or a
check failed, 2 the input or a setting cannot be used, 130 stopped by Ctrl-C. An error is a
sentence that says where and what to do; a traceback appears only with ALLOTMENT_LOG_LEVEL=DEBUG.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import rich_click as click
from click.exceptions import Exit

from .command_lines import listed
from .settings import SettingsError
from .stopping import restore_signals

COMMANDS = {
    "demo": "demonstrating:demo",
    "serve": "operating:serve",
    "project": "projecting:project",
    "migrate": "operating:migrate_command",
    "doctor": "examining:doctor",
    "tenant": "onboarding:tenant",
    "contract": "contracting:contract",
    "fee": "fees:fee",
    "usage": "usage:usage",
    "import": "usage:import_usage",
    "inventory": "inventory:inventory",
    "allocation": "allocating:allocation",
    "rate": "rating:rate",
    "tariff": "tariffs:tariff",
    "deck": "decks:deck",
    "rerate": "rerating:rerate",
    "correct": "correcting:correct",
    "trade": "trading:trade",
    "invoice": "reading:invoice",
    "explain": "reading:explain",
    "webhook": "webhooks:webhook",
    "limit": "rules:limit",
    "policy": "rules:policy",
    "session": "sessions:session",
    "review": "reviewing:review",
    "sizing": "proposing:sizing",
    "dump": "auditing:dump_command",
    "verify": "auditing:verify_command",
    "rebuild": "auditing:rebuild_command",
    "token": "operating:token",
    "schema": "operating:schema",
    "bench": "benching:bench",
    "worker": "operating:worker",
}
"""In the order of `--help`. Each is loaded when it is wanted: `rate` needs no web server."""

REFUSED, UNUSABLE, STOPPED = 1, 2, 130

_UNUSABLE = {
    "SettingsError", "FormatError", "UnreadableFile", "DefinitionError", "UnknownTenant", "SlugTaken",
    "WrongRootKey", "UnusableKeys", "NotForProduction", "InputError",
    "FolderInUse",
}  # fmt: skip
_REFUSED = {
    "Refused", "Unavailable", "Halted", "Busy", "LogUnavailable", "Fenced", "DidNotStart", "NewerView",
    "NotServing", "NotPermitted", "TooLong", "InvariantBroken", "UnknownEvent",
    "TransferError", "TablesInUse",
}  # fmt: skip
"""By name: what a command does not use need not be imported to know its errors."""


class Commands(click.RichGroup):
    listing = False
    """While help is printed: a command need not be loaded to be named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self.listing = False

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        where = COMMANDS.get(cmd_name)
        if where is None:
            return None
        module, _, name = where.partition(":")
        if self.listing and (line := listed(cmd_name, module, name)) is not None:
            return line
        command = getattr(import_module(f".commands.{module}", __package__), name)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="With DATABASE_URL and NATS_URL unset, PostgreSQL and NATS of its own run in ALLOTMENT_HOME.",
)
@click.version_option(package_name="allotment", message="allotment %(version)s")
def commands() -> None:
    """Real-time charging, allowances and explained bills for a carrier's enterprise customers.

    Try it: allotment demo
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """What the `allotment` program does; ends the process."""
    restore_signals()
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line; its exit code."""
    try:
        ended = commands.main(args=arguments, prog_name="allotment", standalone_mode=False)
        sys.stdout.flush()
        return ended if isinstance(ended, int) else 0
    except Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        error.show(sys.stderr)
        return UNUSABLE
    except (KeyboardInterrupt, click.Abort):
        sys.stderr.write("\nStopped.\n")
        return STOPPED
    except BrokenPipeError:
        # Whoever read our answer has had enough, as `head` has.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseExceptionGroup as group:
        return _told(group.exceptions[0])
    except Exception as error:  # noqa: BLE001  (the edge: everything becomes a sentence)
        return _told(error)


def _told(error: BaseException) -> int:
    if os.environ.get("ALLOTMENT_LOG_LEVEL", "").upper() == "DEBUG":
        traceback.print_exception(error, file=sys.stderr)
    code, sentence = _sentence(error)
    sys.stderr.write(f"allotment: {sentence}\n")
    return code


def _sentence(error: BaseException) -> tuple[int, str]:
    names = {kind.__name__ for kind in type(error).__mro__}
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, SettingsError) or names & _UNUSABLE:
        return UNUSABLE, text
    if "Refused" in names:
        return REFUSED, f"refused: {text}"
    if names & _REFUSED:
        return REFUSED, text
    if type(error).__module__.startswith(("psycopg", "sqlalchemy")):
        return (
            REFUSED,
            f"the database: {_first_line(error)}. Is DATABASE_URL right? `allotment doctor` looks.",
        )
    if type(error).__module__.startswith("nats"):
        return REFUSED, f"NATS: {text}. Is NATS_URL right? `allotment doctor` looks."
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return UNUSABLE, f"{where}{error.strerror or text}"
    return REFUSED, _unexpected(error, text)


def _first_line(error: BaseException) -> str:
    origin: Any = getattr(error, "orig", None) or error
    return (str(origin).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _unexpected(error: BaseException, text: str) -> str:
    return (
        f"this should not have happened: {type(error).__name__}: {text}."
        " ALLOTMENT_LOG_LEVEL=DEBUG shows where; please report it."
    )
